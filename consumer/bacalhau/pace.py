"""Which read goes next, and when: order, rate, and the pause while the orchestrator is away.

Sans-I/O: time is passed in, the dice too. `consumer.bacalhau.reads` carries out what comes out of here. What is worth
reading at all is `consumer.join`'s to say, and it keeps what waits here small: a read in flight and one pending a job.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Self

import msgspec

from consumer.errors import OrchestratorError
from consumer.join.reads import OrchestratorRead, ReadJobs
from consumer.settings import Orchestrator as OrchestratorSettings

OF_ONE_READ: Final = frozenset(
    {
        "cut",
        "no-job",
        "not-askable",
        "not-utf8",
        "other-job",
        "too-deep",
        "too-large",
        "unknown-history-entry",
        "unknown-state",
        "wrong-shape",
    }
)
"""Wrong answers that say nothing of other reads. After any other kind the orchestrator counts as away."""

_SCAN_EACH: Final = 8
"""Under load every so many reads one is a scan: hints go first, but a state that has no frame must still be found."""

_BURST_S: Final = 0.1
"""So much of a second's rate may leave at once: what one socket read brought is read together."""


class PaceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the reads: requests in flight, requests a second, and the pause after a failure, which doubles."""

    concurrency: int = 8
    max_rate: float = 100.0
    pause_s: float = 0.2
    pause_max_s: float = 15.0

    @classmethod
    def of(cls, settings: OrchestratorSettings) -> Self:
        """What the settings say; the pauses stay as they are here."""
        return cls(concurrency=settings.concurrency, max_rate=settings.max_rate)


class Pace:
    """Hands out reads, oldest first, hints before scans, never more than the bounds allow.

    Away: after an answer that is none, nothing goes out until the pause is over, then one read alone, the probe. Its
    answer ends the pause, its failure doubles it. `Retry-After` makes a pause longer, up to an hour, never shorter.
    """

    def __init__(self, options: PaceOptions, dice: Callable[[], float]) -> None:
        """*dice* gives numbers in [0, 1): pauses of several daemons shall not end together."""
        self._options: Final = options
        self._dice: Final = dice
        self._hints: deque[OrchestratorRead] = deque()
        self._scans: deque[OrchestratorRead] = deque()
        self._hints_in_row = 0
        self._free_at = 0.0
        self._resume_at = 0.0
        self.in_flight = 0
        self.away: str = ""
        """Kind of the error that keeps the orchestrator away, or empty."""
        self.away_since: float | None = None
        self.failures = 0
        """Failures in a row: the first one and those of the probes."""

    @property
    def waiting(self) -> int:
        """How many reads have not been sent yet."""
        return len(self._hints) + len(self._scans)

    def ask(self, reads: Iterable[OrchestratorRead]) -> None:
        """Put *reads* behind those that wait."""
        for read in reads:
            by_hint = not isinstance(read, ReadJobs) and read.cause == "hint"
            (self._hints if by_hint else self._scans).append(read)

    def due(self) -> float | None:
        """When `start` may have a read to give; None: not before something is asked or answered."""
        if not self.waiting or self.in_flight >= (1 if self.away else self._options.concurrency):
            return None
        return max(self._free_at - self._burst, self._resume_at)

    def start(self, now: float) -> OrchestratorRead | None:
        """The read to send at *now*, or None. What was given must come back through `answered`."""
        due = self.due()
        if due is None or now < due:
            return None
        self._free_at = max(self._free_at, now) + 1 / self._options.max_rate
        self.in_flight += 1
        return self._next()

    def answered(self, now: float, started_at: float, error: OrchestratorError | None) -> None:
        """A read that was started at *started_at* came back: with an answer, or with *error*."""
        self.in_flight -= 1
        # Those that were under way when the orchestrator went away say nothing new, whatever they bring.
        if self.away_since is not None and started_at <= self.away_since:
            return
        if error is None or error.kind in OF_ONE_READ:
            self.away, self.away_since, self.failures, self._resume_at = "", None, 0, 0.0
            return
        self.away = error.kind
        self.away_since = now if self.away_since is None else self.away_since
        pause = min(self._options.pause_s * 2.0 ** min(self.failures, 30), self._options.pause_max_s)
        self.failures += 1
        self._resume_at = now + max(pause * (0.5 + self._dice() / 2), error.retry_after_s or 0.0)

    @property
    def _burst(self) -> float:
        return max(_BURST_S - 1 / self._options.max_rate, 0.0)

    def _next(self) -> OrchestratorRead:
        if self._hints and not (self._scans and self._hints_in_row >= _SCAN_EACH - 1):
            self._hints_in_row += 1
            return self._hints.popleft()
        self._hints_in_row = 0
        return self._scans.popleft()
