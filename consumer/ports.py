"""The ports of the daemon: input, log, tap, orchestrator, clock. Adapters implement these, so do fakes.

Everything comes in batches of what is there, so that no event costs a task, a future or a timer.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from consumer.core.appends import Answer, Append, ReadBack
from consumer.core.reads import Missing, OrchestratorAnswer, OrchestratorRead, ReadHistory, ReadJob, ReadJobs
from consumer.model import HistoryPage, InputPosition, JobDocument, JobPage


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One entry of the input. *subject* is as the server gave it (bytes that are not UTF-8: surrogate escapes).

    *foreign* is a reason when this is no producer's report, whatever its body says (a status line, broken headers).
    """

    subject: str
    data: bytes
    position: InputPosition
    traceparent: str = ""
    foreign: str = ""


class RawFrame(msgspec.Struct, frozen=True, gc=False):
    """One message of Bacalhau's subjects, unread."""

    subject: str
    data: bytes


class Log(Protocol):
    """The log, to write to: appends and read-backs go out, answers come back, in whatever order."""

    async def send(self, asks: Sequence[Append | ReadBack]) -> None:
        """Send them all. Returns when they are under way, not when they are answered."""

    async def answers(self) -> list[tuple[int, Answer]]:
        """Wait until something is answered (or its time is over), then everything that is: (token, answer)."""


class Input(Protocol):
    """The input stream, read in order from a position, without acknowledgements."""

    async def batch(self) -> list[Delivery]:
        """Wait until something has come, then everything that has."""


class Tap(Protocol):
    """Bacalhau's subjects. Never answers, never takes part in a queue group."""

    async def batch(self) -> list[RawFrame]:
        """Wait until something has come, then everything that has. Raises nothing for a gap: see `gaps`."""

    @property
    def gaps(self) -> int:
        """How often frames may have been missed so far (reconnect, slow consumer): each asks for a full list."""

    @property
    def connections(self) -> int:
        """How many connections have listened so far."""

    def reconnect_now(self) -> None:
        """Try again at once, if it is away: something says that Bacalhau may be back."""


class Orchestrator(Protocol):
    """The authority. Raises `OrchestratorError` for an invalid response; never invents a state."""

    async def history(self, read: ReadHistory) -> HistoryPage | Missing: ...

    async def job(self, read: ReadJob) -> JobDocument | Missing: ...

    async def jobs(self, read: ReadJobs) -> JobPage: ...


class Answered(NamedTuple):
    """One read that came back, with what came of it. *started_at* is when its request left, in the clock's seconds."""

    read: OrchestratorRead
    answer: OrchestratorAnswer
    started_at: float


class Reads(Protocol):
    """The core's reads, carried out. Nothing is decided here: what is sent leaves at once."""

    def send(self, reads: Iterable[OrchestratorRead]) -> None:
        """Carry *reads* out now; each comes back once."""

    async def answers(self) -> list[Answered]:
        """Wait until something came back, then everything that has."""


class Beginning(Protocol):
    """Since when the log tells of jobs: agreed once, by the first daemon that knows, and kept in the log."""

    async def agree(self, newest_ns: int) -> int:
        """Propose the newest ModifyTime of the first list; gives what the log says, whoever was first."""


class Clock(Protocol):
    """Time for what waits, and for what is compared with the times of others."""

    def now(self) -> float:
        """Seconds that never go back."""

    def wall(self) -> float:
        """Seconds since 1970, as far as this machine knows."""
