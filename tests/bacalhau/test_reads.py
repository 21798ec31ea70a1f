"""The reads carried out: what goes in leaves at once and comes back once, and a bug is not swallowed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

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
        reads.send(asked)
        came = {id(read): (answer, at) for read, answer, at in await come_back(reads, 4)}
    assert [type(came[id(read)][0]) for read in asked] == [HistoryPage, Missing, JobDocument, JobPage]
    assert all(before <= at <= LoopClock().now() for _, at in came.values())
    assert (reads.sent, reads.carried) == (4, 4)


async def test_what_is_sent_leaves_at_once() -> None:
    """A hundred requests are under way together: how many may be, the core has decided."""
    told = Told()
    reads = Reads(told, LoopClock())
    told.gate.clear()
    async with running(reads):
        reads.send(ReadHistory(job=str(n)) for n in range(100))
        await until(lambda: told.at_once == 100, "all of them under way")
        assert (reads.sent, reads.carried) == (100, 0)
        told.gate.set()
        assert len(await come_back(reads, 100)) == 100


async def test_an_error_is_the_answer_of_its_read() -> None:
    """It comes back as any other answer does, and the reads after it are carried as before."""
    told = Told()
    told.error = OrchestratorError("unauthorized")
    reads = Reads(told, LoopClock())
    async with running(reads):
        reads.send([ReadHistory(job="a")])
        (failed,) = await come_back(reads, 1)
        assert failed.answer is told.error
        told.error = None
        reads.send([ReadHistory(job="a")])
        (answered,) = await come_back(reads, 1)
        assert answered.answer == PAGE


async def test_a_fault_of_ours_ends_run() -> None:
    """What is no `OrchestratorError` is a bug: it ends the task instead of being kept."""
    told = Told()
    told.error = KeyError("bug")
    reads = Reads(told, LoopClock())
    reads.send([ReadHistory(job="a")])
    with pytest.RaisesGroup(KeyError):
        await asyncio.wait_for(reads.run(), DEADLINE_S)


async def test_cancelling_leaves_no_request_behind() -> None:
    """When `run` is cancelled its requests are too."""
    told = Told()
    told.gate.clear()
    reads = Reads(told, LoopClock())
    async with running(reads):
        reads.send([ReadHistory(job="a"), ReadHistory(job="b")])
        await until(lambda: told.at_once == 2, "two requests under way")
    assert told.at_once == 0
