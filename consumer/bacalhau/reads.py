"""The reads that the core asks for, carried out: a task for each request, started at once.

Nothing is decided here, and nothing waits here. Errors of the orchestrator come back as answers of their read; a fault
of ours ends `run`.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from consumer.core.reads import OrchestratorAnswer, OrchestratorRead, ReadHistory, ReadJob, ReadJobs
from consumer.errors import OrchestratorError
from consumer.ports import Answered, Clock, Orchestrator


class Reads:
    """Reads go in through `send` and come back, each exactly once, through `answers`, as long as `run` goes on.

    Which of two reads comes back first is not said. When `run` ends, cancelled or by a fault of ours in any one read,
    all that were under way are lost: the life ends with it, and the next one asks again.
    """

    def __init__(self, orchestrator: Orchestrator, clock: Clock) -> None:
        self._orchestrator: Final = orchestrator
        self._clock: Final = clock
        self._to_send: Final[asyncio.Queue[OrchestratorRead]] = asyncio.Queue()
        self._answered: list[Answered] = []
        self._something: Final = asyncio.Event()
        self.sent = 0
        """Reads that were to be sent so far."""
        self.carried = 0
        """Reads that came back so far, with an answer or an error."""

    def send(self, reads: Iterable[OrchestratorRead]) -> None:
        """Carry *reads* out now."""
        for read in reads:
            self.sent += 1
            self._to_send.put_nowait(read)

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
                read = await self._to_send.get()
                group.create_task(self._carry(read), name="read of the orchestrator")

    async def _carry(self, read: OrchestratorRead) -> None:
        answer: OrchestratorAnswer
        started_at = self._clock.now()
        try:
            answer = await self._ask(read)
        except OrchestratorError as error:
            answer = error
        self.carried += 1
        self._answered.append(Answered(read, answer, started_at))
        self._something.set()

    async def _ask(self, read: OrchestratorRead) -> OrchestratorAnswer:
        match read:
            case ReadHistory():
                return await self._orchestrator.history(read)
            case ReadJob():
                return await self._orchestrator.job(read)
            case ReadJobs():
                return await self._orchestrator.jobs(read)
