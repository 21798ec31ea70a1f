"""How many requests the orchestrator is to feel: at once, in ten seconds, and while it is away.

Pure: the time is passed in, the dice too. Which job a request is of is `consumer.core.readers`'s to say, when it may
leave.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from consumer.core.options import ReadingOptions
from consumer.core.reader import LONG_AGO
from consumer.core.reads import OrchestratorRead
from consumer.errors import OrchestratorError
from consumer.faults import OrchestratorFault, Scope

WINDOW_S: Final = 10.0
"""The rate is an average over so many seconds: a burst of jobs is read as quickly as the orchestrator answers."""

_SPREAD_S: Final = 0.02
"""What leaves at one time does not arrive so: the orchestrator's window may be so much longer by our clock."""


class Pace:
    """Says when a request may leave: never more at once, and never more in a window, than the options allow.

    Away: after an error that is of all reads nothing leaves until a pause is over, then one read alone, the probe. Its
    answer ends the pause, its failure doubles it. `Retry-After` makes a pause longer, up to a minute, never shorter.
    `probe_now` ends a pause before its time, but not what `Retry-After` asked for.
    """

    def __init__(self, options: ReadingOptions, dice: Callable[[], float]) -> None:
        """*dice* gives numbers in [0, 1): pauses of several daemons shall not end together."""
        self._options: Final = options
        self._dice: Final = dice
        self._left: Final[deque[float]] = deque(maxlen=max(int(options.max_rate * WINDOW_S), 1))
        """When the last requests left, as many as may leave in one window."""
        self._under_way: Final[dict[OrchestratorRead, float]] = {}
        """The reads under way, and when each left."""
        self._resume_at = LONG_AGO
        self._refrain_until = LONG_AGO
        """What `Retry-After` asked for."""
        self._probe: OrchestratorRead | None = None
        """The read that left while the orchestrator was away, until it comes back."""
        self.answers = 0
        """Reads that the orchestrator has answered, if only with something that cannot be used of one job."""
        self.away: OrchestratorFault | None = None
        """Kind of the error that keeps the orchestrator away."""
        self.away_since: float | None = None
        self.returns = 0
        """How often it came back."""
        self.failures = 0
        """Failures in a row: the first one and those of the probes."""

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._under_way)

    def free_at(self) -> float | None:
        """When a request may leave, in seconds; None: not before one comes back."""
        if self._probe is not None if self.away else self.in_flight >= self._options.concurrency:
            return None
        return max(self._window_free_at, self._resume_at)

    def is_free(self, now: float) -> bool:
        """Whether a request may leave at *now*."""
        free_at = self.free_at()
        return free_at is not None and free_at <= now

    def leaves(self, read: OrchestratorRead, now: float) -> None:
        """*read* leaves. It must come back through `answered` or `failed`."""
        self._left.append(now)
        self._under_way[read] = now
        if self.away:
            self._probe = read

    def turn(self, now: float) -> float:
        """When a request may leave that is no read: it takes the next one's turn, so that the rate is kept."""
        turn = max(self._window_free_at, now)
        self._left.append(turn)
        return turn

    def answered(self, read: OrchestratorRead) -> None:
        """*read* came back with an answer."""
        self.answers += 1
        if self._is_news(read):
            self._come_back()

    def failed(self, read: OrchestratorRead, error: OrchestratorError, now: float, *, is_again: bool) -> Scope:
        """*read* came back with *error*. Gives what that says something of: this read alone, or all of them.

        *is_again*: the job had an error before, and others were answered since. One job may be answered with 500 or 403
        for ever while all others are served: that is the job's, and keeps nobody away.
        """
        if error.kind == "not-askable":  # nobody was asked, so another probe may leave
            del self._under_way[read]
            self._probe = None if read is self._probe else self._probe
            return Scope.READ
        is_of_one = error.fault.scope is Scope.READ
        self.answers += is_of_one
        if not self._is_news(read):
            return Scope.READ if is_of_one else Scope.ALL
        if is_of_one:
            self._come_back()
            return Scope.READ
        if is_again and not self.away:
            return Scope.READ
        self.away = error.kind
        self.away_since = now if self.away_since is None else self.away_since
        pause = self._options.pause_after(self.failures)
        self.failures += 1
        self._refrain_until = now + (error.retry_after_s or 0.0)
        self._resume_at = max(now + pause * (0.5 + self._dice() / 2), self._refrain_until)
        return Scope.ALL

    def probe_now(self) -> None:
        """Something says that the orchestrator may be back: the next probe may leave, and pauses begin short again."""
        self.failures = 0
        self._resume_at = self._refrain_until

    def _is_news(self, read: OrchestratorRead) -> bool:
        """Those that were under way when the orchestrator went away say nothing new, whatever they bring."""
        left_at = self._under_way.pop(read)
        if self.away_since is not None and read is not self._probe and left_at <= self.away_since:
            return False
        self._probe = None
        return True

    def _come_back(self) -> None:
        self.returns += self.away is not None
        self.away, self.away_since, self.failures, self._resume_at = None, None, 0, LONG_AGO

    @property
    def _window_free_at(self) -> float:
        """No request leaves before, so that no window has more than the rate allows."""
        left = self._left
        return left[0] + WINDOW_S + _SPREAD_S if len(left) == left.maxlen else LONG_AGO
