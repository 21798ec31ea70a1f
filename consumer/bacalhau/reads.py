"""The reads that the join asks for, carried out: a task for each request, started when `Pace` says so.

Nothing is decided here. Errors of the orchestrator come back as answers of their read; a fault of ours ends `run`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from random import random
from typing import Final

from consumer.bacalhau.pace import Pace, PaceOptions
from consumer.core.reads import Missing, OrchestratorRead, ReadHistory, ReadJob, ReadJobs
from consumer.errors import OrchestratorError
from consumer.model import HistoryPage, JobDocument, JobPage
from consumer.ports import Answered, Clock, Orchestrator

OrchestratorAnswer = HistoryPage | JobDocument | JobPage | Missing


class Reads:
    """Reads go in through `ask` and come back, each exactly once, through `answers`, as long as `run` goes on.

    Which of two reads comes back first is not said. When `run` ends, cancelled or by a fault of ours in any one read,
    all that were under way or waited are lost: the life ends with it, and the next one asks again.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        clock: Clock,
        options: PaceOptions | None = None,
        dice: Callable[[], float] = random,
    ) -> None:
        self._orchestrator: Final = orchestrator
        self._clock: Final = clock
        self._pace: Final = Pace(options or PaceOptions(), dice)
        self._answered: list[Answered] = []
        self._changed: Final = asyncio.Event()
        self._something: Final = asyncio.Event()
        self.errors: Final[Counter[str]] = Counter()
        """Errors so far, by kind. The kinds are few and ours, so they may be labels."""
        self.carried = 0
        """Reads that came back so far, with an answer or an error."""
        self.last_error: OrchestratorError | None = None
        self.answered_at: float | None = None
        """When the last real answer came, by the clock of the reads."""

    @property
    def away(self) -> str:
        """Kind of the error that keeps the orchestrator away, or empty."""
        return self._pace.away

    @property
    def returns(self) -> int:
        """How often it came back so far."""
        return self._pace.returns

    @property
    def away_since(self) -> float | None:
        """Since when it is away, by the clock of the reads."""
        return self._pace.away_since

    @property
    def in_flight(self) -> int:
        """Requests that are under way."""
        return self._pace.in_flight

    @property
    def waiting(self) -> int:
        """Reads that were asked for and have not left."""
        return self._pace.waiting

    @property
    def waited_s(self) -> float:
        """How long the oldest of these has waited."""
        return self._pace.waited_s(self._clock.now())

    def ask(self, reads: Iterable[OrchestratorRead]) -> None:
        """Carry out *reads*, when their turn comes."""
        self._pace.ask(reads, self._clock.now())
        self._changed.set()

    def hurry(self) -> None:
        """Ask an orchestrator that is away at once, not after the pause: it may be back."""
        self._pace.hurry()
        self._changed.set()

    async def turn(self) -> None:
        """Wait until a request may leave that is no read of the join's: for the rate it counts as one."""
        now = self._clock.now()
        await asyncio.sleep(self._pace.turn(now) - now)

    async def answers(self) -> list[Answered]:
        """Wait until something came back, then everything that has."""
        await self._something.wait()
        self._something.clear()
        answered, self._answered = self._answered, []
        return answered

    async def run(self) -> None:
        """Carry reads until cancelled. Raises only what is a fault of ours, in a group; the other reads end with it."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                now = self._clock.now()
                while (read := self._pace.start(now)) is not None:
                    group.create_task(self._carry(read, now), name="read of the orchestrator")
                due = self._pace.due()
                await self._wait(None if due is None else max(due - self._clock.now(), 0.0))

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return  # the next read is due

    async def _carry(self, read: OrchestratorRead, started_at: float) -> None:
        answer: OrchestratorAnswer | OrchestratorError
        error: OrchestratorError | None = None
        try:
            answer = await self._send(read)
        except OrchestratorError as caught:
            answer = error = caught
        now = self._clock.now()
        alone = self._pace.answered(read, now, started_at, error)
        self.carried += 1
        if error is None:
            self.answered_at = now
        else:
            self.last_error = error
            self.errors[error.kind] += 1
        self._answered.append(Answered(read, answer, started_at, alone))
        self._something.set()
        self._changed.set()

    async def _send(self, read: OrchestratorRead) -> OrchestratorAnswer:
        match read:
            case ReadHistory():
                return await self._orchestrator.history(read)
            case ReadJob():
                return await self._orchestrator.job(read)
            case ReadJobs():
                return await self._orchestrator.jobs(read)
