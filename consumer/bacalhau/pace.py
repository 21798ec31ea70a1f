"""Which read goes next, and when: order, rate, and the pause while the orchestrator is away; and whether it is.

Sans-I/O: time is passed in, the dice too. `consumer.bacalhau.reads` carries out what comes out of here. What is worth
reading at all is `consumer.core`'s to say, and it keeps what waits here small: a read in flight and one pending a job.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Self

import msgspec

from consumer.core.reads import OrchestratorRead, ReadJobs
from consumer.errors import MAYBE_OF_ONE_READ, OrchestratorError
from consumer.settings import Orchestrator as OrchestratorSettings

_SCAN_EACH: Final = 8
"""Under load every so many reads one is a scan: hints go first, but a state that has no frame must still be found."""

WINDOW_S: Final = 10.0
"""The rate is an average over so many seconds: a burst of jobs is read as quickly as the orchestrator answers."""

_SPREAD_S: Final = 0.02
"""What leaves at one time does not arrive so: the orchestrator's window may be so much longer by our clock."""

_FAILED_MAX: Final = 10_000
"""Jobs whose errors are remembered; of more the oldest are forgotten, and count as everybody's again."""


_DEFAULT: Final = OrchestratorSettings()


class PaceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the reads: requests in flight, requests a second (over `WINDOW_S`), and the pause after a failure.

    The pause doubles with each failure.
    """

    concurrency: int = _DEFAULT.concurrency
    max_rate: float = _DEFAULT.max_rate
    pause_s: float = 0.2
    pause_max_s: float = 15.0

    @classmethod
    def of(cls, settings: OrchestratorSettings) -> Self:
        """What the settings say; the pauses stay as they are here."""
        return cls(concurrency=settings.concurrency, max_rate=settings.max_rate)


class Pace:
    """Hands out reads, oldest first, hints before scans, never more than the bounds allow.

    A list goes before both: there is one at a time, it has paid for its time with a pause, and nothing else finds what
    no frame tells of.

    Away: after an answer that is none, nothing goes out until the pause is over, then one read alone, the probe. Its
    answer ends the pause, its failure doubles it. `Retry-After` makes a pause longer, up to a minute, never shorter.
    `hurry` ends a pause before its time, but not what `Retry-After` asked for.

    One job may be answered with 500 or 403 for ever, while all others are served. So an error that a job has again,
    though somebody was answered since it had the last one, is that job's alone and keeps nobody away; and so is each
    one after that, until the job is answered. The probe is of a job that has no such error, where there is one.
    """

    def __init__(self, options: PaceOptions, dice: Callable[[], float]) -> None:
        """*dice* gives numbers in [0, 1): pauses of several daemons shall not end together."""
        self._options: Final = options
        self._left: Final[deque[float]] = deque(maxlen=max(int(options.max_rate * WINDOW_S), 1))
        """When the last requests left, as many as may leave in one window."""
        self._dice: Final = dice
        self._lists: deque[tuple[float, OrchestratorRead]] = deque()
        self._hints: deque[tuple[float, OrchestratorRead]] = deque()
        self._scans: deque[tuple[float, OrchestratorRead]] = deque()
        self._hints_in_row = 0
        self._resume_at = 0.0
        self._refrain_until = 0.0
        """What `Retry-After` asked for."""
        self._probe: OrchestratorRead | None = None
        """The read that went out while the orchestrator was away, until it comes back."""
        self._answers = 0
        # By job that failed: how many answers there were then, and whether that was its alone.
        self._failed: Final[dict[str, tuple[int, bool]]] = {}
        self.in_flight = 0
        self.away: str = ""
        """Kind of the error that keeps the orchestrator away, or empty."""
        self.away_since: float | None = None
        self.returns = 0
        """How often it came back."""
        self.failures = 0
        """Failures in a row: the first one and those of the probes."""

    @property
    def waiting(self) -> int:
        """How many reads have not been sent yet."""
        return len(self._lists) + len(self._hints) + len(self._scans)

    def waited_s(self, now: float) -> float:
        """How long the oldest of them has waited: above some seconds, the rate or the orchestrator cannot keep up."""
        queues = (self._lists, self._hints, self._scans)
        return max((now - queue[0][0] for queue in queues if queue), default=0.0)

    def ask(self, reads: Iterable[OrchestratorRead], now: float) -> None:
        """Put *reads* behind those that wait."""
        for read in reads:
            queue = self._lists if isinstance(read, ReadJobs) else self._hints if read.cause == "hint" else self._scans
            queue.append((now, read))

    def due(self) -> float | None:
        """When `start` may have a read to give; None: not before something is asked or answered."""
        if not self.waiting or (self._probe is not None if self.away else self.in_flight >= self._options.concurrency):
            return None
        return max(self._free_at, self._resume_at)

    def start(self, now: float) -> OrchestratorRead | None:
        """The read to send at *now*, or None. What was given must come back through `answered`."""
        due = self.due()
        if due is None or now < due:
            return None
        self._left.append(now)
        self.in_flight += 1
        if not self.away:
            return self._next()
        self._probe = self._take_other() or self._next()
        return self._probe

    def turn(self, now: float) -> float:
        """When a request may leave that is no read: it takes the next one's turn, so that the rate is kept."""
        turn = max(self._free_at, now)
        self._left.append(turn)
        return turn

    def answered(self, read: OrchestratorRead, now: float, started_at: float, error: OrchestratorError | None) -> bool:
        """*read*, started at *started_at*, came back: with an answer, or with *error*. Whether that is its job's alone.

        A list has no job: however well each of them is answered, without lists no new one is found.
        """
        self.in_flight -= 1
        if error is not None and error.kind == "not-askable":
            self._probe = None  # nobody was asked: that says nothing of the orchestrator, and another probe may go
            return True
        alone = self._note(read, error)
        # Those that were under way when the orchestrator went away say nothing new, whatever they bring.
        if self.away_since is not None and read is not self._probe and started_at <= self.away_since:
            return error is not None and error.alone
        self._probe = None
        if error is None or error.alone:
            self.returns += bool(self.away)
            self.away, self.away_since, self.failures, self._resume_at = "", None, 0, 0.0
        elif self.away or not alone:
            self.away = error.kind
            self.away_since = now if self.away_since is None else self.away_since
            pause = min(self._options.pause_s * 2.0 ** min(self.failures, 30), self._options.pause_max_s)
            self.failures += 1
            self._refrain_until = now + (error.retry_after_s or 0.0)
            self._resume_at = max(now + pause * (0.5 + self._dice() / 2), self._refrain_until)
            return False
        return alone

    def hurry(self) -> None:
        """Something says that the orchestrator may be back: the next probe may leave, and pauses begin short again."""
        self.failures = 0
        self._resume_at = self._refrain_until

    def _note(self, read: OrchestratorRead, error: OrchestratorError | None) -> bool:
        """Remember which job failed, and when somebody was answered. Whether *error* is that job's alone."""
        job = "" if isinstance(read, ReadJobs) else read.job
        if error is None or error.alone:
            self._answers += 1
            self._failed.pop(job, None)
            return error is not None
        if not job or error.kind not in MAYBE_OF_ONE_READ:
            return False
        answers, alone = self._failed.pop(job, (self._answers, False))
        if len(self._failed) >= _FAILED_MAX:
            del self._failed[next(iter(self._failed))]
        alone = alone or self._answers > answers
        self._failed[job] = self._answers, alone
        return alone

    @property
    def _free_at(self) -> float:
        """No request leaves before, so that no window has more than the rate allows."""
        left = self._left
        return left[0] + WINDOW_S + _SPREAD_S if len(left) == left.maxlen else 0.0

    def _next(self) -> OrchestratorRead:
        if self._lists:
            return self._lists.popleft()[1]
        if self._hints and not (self._scans and self._hints_in_row >= _SCAN_EACH - 1):
            self._hints_in_row += 1
            return self._hints.popleft()[1]
        self._hints_in_row = 0
        return self._scans.popleft()[1]

    def _take_other(self) -> OrchestratorRead | None:
        """A read of what has no error of its own, for a probe: the other ones prove nothing."""
        for queue in (self._hints, self._scans, self._lists):  # a list last: it may take a second, or a minute
            for place, (_, read) in enumerate(queue):
                if isinstance(read, ReadJobs) or read.job not in self._failed:
                    del queue[place]
                    return read
        return None
