"""How a daemon comes to the beginning of a new log: it asks until orchestrator and log have answered."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from consumer.core.options import ReadingOptions
from consumer.core.reads import Missing, ReadHistory, ReadJob, ReadJobs
from consumer.daemon.beginning import BeginningAsker
from consumer.errors import OrchestratorError, UnreachableError
from consumer.faults import OrchestratorFault
from consumer.model import HistoryPage, JobDocument, JobPage
from consumer.ports import Answered
from tests.core.scene import page, snapshot
from tests.daemon.test_carry import Clock, Watcher

AT_ONCE = ReadingOptions(pause_s=0.0, list_every_s=0.0)


class Orchestrator:
    """Answers lists as it is told, one after the other."""

    def __init__(self, *answers: JobPage | OrchestratorError) -> None:
        self.answers = list(answers)
        self.limits: list[int] = []

    async def jobs(self, read: ReadJobs) -> JobPage:
        self.limits.append(read.limit)
        answer = self.answers.pop(0)
        if isinstance(answer, OrchestratorError):
            raise answer
        return answer

    async def job(self, read: ReadJob) -> JobDocument | Missing:
        raise AssertionError(read)

    async def history(self, read: ReadHistory) -> HistoryPage | Missing:
        raise AssertionError(read)


class Beginning:
    """The log's beginning; the first *failures* times nobody answers. *said*: what another daemon has agreed on."""

    def __init__(self, failures: int = 0, said: int | None = None) -> None:
        self.failures = failures
        self.said = said
        self.proposed: list[int] = []

    async def agree(self, newest_ns: int) -> int:
        self.proposed.append(newest_ns)
        if len(self.proposed) <= self.failures:
            raise UnreachableError("no answer")
        return newest_ns if self.said is None else self.said


class Told(Watcher):
    """A watcher that keeps what keeps the orchestrator away."""

    def __init__(self) -> None:
        super().__init__()
        self.away: list[OrchestratorFault | None] = []

    def answered(self, answered: Sequence[Answered], away: OrchestratorFault | None) -> None:
        super().answered(answered, away)
        self.away.append(away)


async def test_it_asks_until_orchestrator_and_log_have_answered() -> None:
    """Each failure is told, with its next step; the log is asked by a new list, for jobs may have changed meanwhile."""
    first, second = page(snapshot("Running", 1, modified_ns=7)), page(snapshot("Running", 1, modified_ns=9))
    orchestrator, beginning, told = (
        Orchestrator(OrchestratorError("html"), first, second),
        Beginning(failures=1),
        Told(),
    )
    with capture_logs() as lines:
        await BeginningAsker(orchestrator, beginning, AT_ONCE, Clock(), told).agree()
    assert beginning.proposed == [7, 9]
    assert told.away == ["html", None, None]
    assert [line["event"] for line in lines] == ["read.failed", "log.beginning_waits", "log.begins"]
    assert lines[0]["next_step"]
    assert lines[-1]["since_ns"] == 9


async def test_what_another_daemon_agreed_on_counts() -> None:
    """The log says where it begins, whoever was first."""
    with capture_logs() as lines:
        asker = BeginningAsker(Orchestrator(page()), Beginning(said=5), AT_ONCE, Clock(), Told())
        await asker.agree()
    assert lines[-1]["since_ns"] == 5


async def test_a_page_that_is_too_large_is_asked_for_smaller() -> None:
    """Half as many rows each time, down to one: the newest one is enough."""
    errors = [OrchestratorError("too-large") for _ in range(5)]
    orchestrator = Orchestrator(*errors, page())
    await BeginningAsker(orchestrator, Beginning(), AT_ONCE, Clock(), Told()).agree()
    assert orchestrator.limits == [10, 5, 2, 1, 1, 1]


@pytest.mark.parametrize("retry_after_s", [0.0, 4.0])
async def test_a_failure_is_followed_by_a_pause_and_longer_ones(
    monkeypatch: pytest.MonkeyPatch, retry_after_s: float
) -> None:
    """Twice as long each time up to a bound, and never shorter than the orchestrator asks for."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("consumer.daemon.beginning.asyncio.sleep", sleep)
    errors = [OrchestratorError("throttled", retry_after_s=retry_after_s) for _ in range(5)]
    options = ReadingOptions(pause_s=1.0, pause_max_s=6.0)
    await BeginningAsker(Orchestrator(*errors, page()), Beginning(), options, Clock(), Told()).agree()
    assert pauses == [max(pause, retry_after_s) for pause in (1.0, 2.0, 4.0, 6.0, 6.0)]


async def test_a_list_that_begins_far_ahead_is_said() -> None:
    """Both times, and what to look at; our own clock (0) is the beginning then."""
    beginning, far = Beginning(), page(snapshot("Running", 1, modified_ns=2**62))
    with capture_logs() as lines:
        await BeginningAsker(Orchestrator(far), beginning, AT_ONCE, Clock(), Told()).agree()
    assert beginning.proposed == [0]
    told = [line for line in lines if line["event"] == "log.beginning_ahead"]
    assert [line["beginning"][:5] for line in told] == ["2116-"]
    assert "orchestrator's clock" in told[0]["next_step"]
