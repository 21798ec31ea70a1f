"""The reads carried out: what goes in comes back once, the bounds hold, a bug is not swallowed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from consumer.bacalhau import pace
from consumer.bacalhau.pace import PaceOptions
from consumer.bacalhau.reads import Reads
from consumer.core.reads import Missing, OrchestratorRead, ReadHistory, ReadJob, ReadJobs
from consumer.errors import OrchestratorError
from consumer.model import HistoryPage, Identity, JobDocument, JobPage, Snapshot
from consumer.ports import Answered
from tests.waiting import DEADLINE_S, until

PAGE = HistoryPage(entries=(), items=0, next_token="")


class LoopClock:
    """`consumer.ports.Clock` by the running loop."""

    def now(self) -> float:
        """Seconds."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Nobody asks."""
        raise NotImplementedError


class Told:
    """`consumer.ports.Orchestrator` that answers when it is let, and fails as told."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.at_once = 0
        self.most_at_once = 0

    async def _wait(self) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.at_once -= 1

    async def history(self, read: ReadHistory) -> HistoryPage | Missing:
        await self._wait()
        return Missing() if read.job == "missing" else PAGE

    async def job(self, read: ReadJob) -> JobDocument | Missing:
        await self._wait()
        whose = Identity(id=read.job, namespace="default")
        return JobDocument(job=Snapshot(job=whose, count=1, version=0, revision=1, state="Pending"), history=PAGE)

    async def jobs(self, read: ReadJobs) -> JobPage:
        await self._wait()
        return JobPage(jobs=(), next_token=read.next_token)


@contextlib.asynccontextmanager
async def running(reads: Reads) -> AsyncIterator[None]:
    """*reads*, carried until the context ends."""
    task = asyncio.create_task(reads.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def come_back(reads: Reads, number: int) -> list[Answered]:
    """The next *number* answers."""
    came: list[Answered] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(came) < number:
            came += await reads.answers()
    return came


async def test_every_read_comes_back_once_with_its_answer() -> None:
    """Each of the three kinds, and a 404, comes back with the very read that asked, and when it was sent."""
    reads = Reads(Told(), LoopClock())
    asked: list[OrchestratorRead] = [
        ReadHistory(job="a"),
        ReadHistory(job="missing"),
        ReadJob(job="b"),
        ReadJobs(next_token="more"),
    ]
    before = LoopClock().now()
    async with running(reads):
        reads.ask(asked)
        came = {id(read): (answer, at) for read, answer, at, _ in await come_back(reads, 4)}
    assert [type(came[id(read)][0]) for read in asked] == [HistoryPage, Missing, JobDocument, JobPage]
    assert all(before <= at <= LoopClock().now() for _, at in came.values())
    assert (reads.carried, reads.in_flight, reads.waiting, reads.last_error) == (4, 0, 0, None)


async def test_no_more_requests_at_once_than_the_bound() -> None:
    """A hundred reads, three at a time."""
    told = Told()
    reads = Reads(told, LoopClock(), PaceOptions(concurrency=3, max_rate=1e6))
    told.gate.clear()
    async with running(reads):
        reads.ask(ReadHistory(job=str(n)) for n in range(100))
        await until(lambda: told.at_once == 3, "three requests under way")
        assert (reads.in_flight, reads.waiting) == (3, 97)
        told.gate.set()
        assert len(await come_back(reads, 100)) == 100
    assert told.most_at_once == 3


async def test_no_more_requests_than_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty reads, ten a window: the last ten leave two windows after the first."""
    monkeypatch.setattr(pace, "WINDOW_S", 0.1)
    reads = Reads(Told(), LoopClock(), PaceOptions(max_rate=100.0))
    async with running(reads):
        reads.ask(ReadHistory(job=str(n)) for n in range(30))
        times = sorted(answered.started_at for answered in await come_back(reads, 30))
    assert times[20] - times[0] >= 0.2
    assert times[9] - times[0] < times[10] - times[0]


async def test_an_error_is_the_answer_of_its_read_and_shows_in_the_facts() -> None:
    """While it is away the kind and since when are facts; when it is back they are gone, and what waited comes."""
    told = Told()
    told.error = OrchestratorError("unauthorized")
    reads = Reads(told, LoopClock(), PaceOptions(concurrency=1, pause_s=0.02, pause_max_s=0.04))
    async with running(reads):
        reads.ask(ReadHistory(job=str(n)) for n in range(5))
        first = (await come_back(reads, 1))[0]
        assert first.answer is told.error
        assert reads.away == "unauthorized"
        since = reads.away_since
        assert since is not None
        await come_back(reads, 1)
        told.error = None
        assert [type(answered.answer) for answered in await come_back(reads, 3)] == [HistoryPage] * 3
    assert reads.away == ""
    assert reads.away_since is None
    assert reads.errors == {"unauthorized": 2}
    assert reads.last_error is not None
    assert reads.answered_at is not None


async def test_a_fault_of_ours_ends_run() -> None:
    """What is no `OrchestratorError` is a bug: it ends the task instead of being kept."""
    told = Told()
    told.error = KeyError("bug")
    reads = Reads(told, LoopClock())
    reads.ask([ReadHistory(job="a")])
    with pytest.RaisesGroup(KeyError):
        await asyncio.wait_for(reads.run(), DEADLINE_S)


async def test_cancelling_leaves_no_request_behind() -> None:
    """When `run` is cancelled its requests are too."""
    told = Told()
    told.gate.clear()
    reads = Reads(told, LoopClock())
    async with running(reads):
        reads.ask([ReadHistory(job="a"), ReadHistory(job="b")])
        await until(lambda: told.at_once == 2, "two requests under way")
    assert told.at_once == 0


async def test_a_job_that_fails_by_itself_is_told_as_such() -> None:
    """Others were answered while it failed: from then on its errors come back as its own, and nobody is away."""

    class OneBad(Told):
        async def history(self, read: ReadHistory) -> HistoryPage | Missing:
            if read.job == "bad":
                raise OrchestratorError("server-error")
            return await super().history(read)

    reads = Reads(OneBad(), LoopClock(), PaceOptions(pause_s=0.001))
    async with running(reads):
        reads.ask([ReadHistory(job="bad")])
        assert [one.alone for one in await come_back(reads, 1)] == [False]
        reads.ask([ReadHistory(job="bad"), ReadHistory(job="good")])
        told = {one.read: one.alone for one in await come_back(reads, 2)}
        assert told == {ReadHistory(job="bad"): True, ReadHistory(job="good"): False}
        assert reads.away == ""
