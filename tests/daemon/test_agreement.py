"""Whether an orchestrator of another cluster is noticed, and nothing else is taken for one."""

import pytest

from consumer.core.reads import Missing, ReadHistory, ReadJob, ReadJobs
from consumer.daemon.agreement import DOUBT_JOBS, KEPT_MAX, Agreement
from consumer.errors import OrchestratorError
from consumer.model import HistoryEntry, HistoryPage, JobPage, ReadCause
from consumer.ports import Answered

ENTRY = HistoryEntry(number=1, version=0, state="Pending", message="", time=None)
FOUND = HistoryPage(entries=(ENTRY,), items=1, next_token="")
EMPTY = HistoryPage(entries=(), items=0, next_token="")


def read(number: int, answer: Missing | HistoryPage | OrchestratorError, cause: ReadCause = ReadCause.HINT) -> Answered:
    """The history of job *number*, asked for because of *cause*, and what came of it."""
    return Answered(ReadHistory(job=f"j-{number}", cause=cause), answer, 0.0)


def test_jobs_that_only_frames_know_are_said() -> None:
    """Three of them in a row: the sentence names both addresses."""
    agreement = Agreement()
    agreement.take(read(number, Missing()) for number in range(DOUBT_JOBS - 1))
    assert agreement.doubt == ""
    agreement.take([Answered(ReadJob(job="j-x", cause=ReadCause.HINT), Missing(), 0.0)])
    assert f"none of the last {DOUBT_JOBS} jobs" in agreement.doubt
    assert "orchestrator.url and bacalhau.url" in agreement.doubt


def test_one_job_asked_for_again_and_again_is_one() -> None:
    """A hint is read up to five times: that alone is no other cluster."""
    agreement = Agreement()
    agreement.take([read(1, Missing())] * 100)
    assert agreement.doubt == ""


def test_one_known_job_ends_the_doubt() -> None:
    """The clusters are the same if a single job that a frame named is in the record."""
    agreement = Agreement()
    agreement.take(read(number, Missing()) for number in range(100))
    assert agreement.doubt
    agreement.take([read(7, FOUND)])
    assert agreement.doubt == ""


@pytest.mark.parametrize(
    "other",
    [
        read(1, FOUND, cause=ReadCause.SCAN),
        read(1, EMPTY),  # before 1.8 that of a job that is not known, too
        read(1, OrchestratorError("slow")),
        Answered(ReadJobs(), JobPage(jobs=(), next_token=""), 0.0),
    ],
)
def test_what_no_frame_asked_for_tells_nothing(other: Answered) -> None:
    """Reads in turn, lists and failures neither make the doubt nor end it."""
    agreement = Agreement()
    agreement.take([other] * 10)
    assert agreement.doubt == ""
    agreement.take(read(number, Missing()) for number in range(10))
    agreement.take([other])
    assert agreement.doubt


def test_a_storm_of_unknown_jobs_is_bounded() -> None:
    """A foreign cluster may name millions: so many are told apart, no more are kept."""
    agreement = Agreement()
    agreement.take(read(number, Missing()) for number in range(2 * KEPT_MAX))
    assert f"last {KEPT_MAX} jobs" in agreement.doubt
