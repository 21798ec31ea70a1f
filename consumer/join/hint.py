"""One job's open question: does its record say more than the log? From the hint that asks it to the answer.

Pure, and of one job alone: which reads go out, and what an answer says, is `consumer.join.join`'s.
"""

from collections.abc import Callable
from typing import Final

ECHO: Final = "echo"
"""A frame that only confirms what another has told: worth a look where nobody is looking."""
LOOK: Final = "look"
"""A frame that moves no job by itself: worth one read."""
WATCH: Final = "watch"
"""A frame that the record follows: worth reading until it has."""


FRAME: Final = "frame"
"""What overtook a read: a frame, which the answer may have answered all the same."""
LIST: Final = "list"
"""What overtook a read: a list that says otherwise than the log."""


class Hint:
    """Came, then (read, answered) again and again, until the record has answered it or nobody waits any longer.

    One read of a job is in flight at a time. What comes meanwhile overtakes it: its answer may be older than that.
    """

    __slots__ = ("asked_at", "beyond", "due", "failures", "overtaken", "put_off", "reading", "since", "tries", "until")

    def __init__(self) -> None:
        self.reading = ""
        """The cause of the read in flight, or empty."""
        self.asked_at = float("-inf")
        """When its request left, or that of the one before it; as long as that is not known, when it was asked for."""
        self.overtaken = ""
        """What came since that read left (`FRAME`, `LIST`), or empty."""
        self.tries: int | None = None
        """How many of the repeats are over for what is watched; None: nothing is."""
        self.until = 0
        """What answers it: so many entries in the history; 0: anything new."""
        self.beyond = 0
        """How many entries the record had, at least, when a frame showed it last: fewer are an answer from before."""
        self.since = 0.0
        """When the last of what is watched came."""
        self.due: float | None = None
        """When to read again."""
        self.failures = 0
        """Tries in a row that failed by themselves, while others were answered."""
        self.put_off = float("-inf")
        """Not before then is the next such try: only what comes of the job has it read sooner, which is no try."""

    @property
    def is_open(self) -> bool:
        """Whether anything is read, or will be."""
        return bool(self.reading) or self.tries is not None or self.due is not None

    def came(self, what: str, now: float, until: int = 0) -> None:
        """*what* came (`ECHO`, `LOOK` or `WATCH`: then until there are *until* entries, or, 0, anything new)."""
        if self.reading and not (what == ECHO and self.tries is not None):
            self.overtaken = self.overtaken or FRAME
        if what == WATCH:
            # One that waits for anything new outlasts one that knows what it waits for.
            self.until = max(self.until, until) if until and (self.tries is None or self.until) else 0
            self.beyond = max(self.beyond, until)
            self.watch(now)

    def watch(self, now: float) -> None:
        """Read again, from now on as often as for one that came now."""
        self.tries, self.since = 0, now

    def left(self, cause: str) -> None:
        """A read left."""
        self.reading, self.overtaken, self.due = cause, "", None

    def answered(self) -> None:
        """The record has answered what is watched, or will not."""
        self.tries, self.until, self.beyond, self.due = None, 0, 0, None

    def answered_by(self, entries: int, *, ended: bool) -> None:
        """A history of so many *entries* came, at whose end the job has *ended* or not.

        It answers who waited for that many. An end leaves nothing to wait for, unless something came since the read
        left, or a frame has shown more: that may be a new life.
        """
        if self.until and entries >= self.until:
            self.answered()
            self.overtaken = LIST if self.overtaken == LIST else ""
        elif ended and not self.overtaken and entries >= self.beyond:
            self.answered()

    def next_due(self, now: float, repeats: tuple[float, ...]) -> float | None:
        """When to read again what is watched; None if that was often enough: *repeats*, seconds after it came.

        A repeat is over when a read whose request left then, or later, was answered, whatever it was for: one that left
        before, for an echo or in its turn, has not seen what this one waits for.
        """
        if self.tries is None:
            return None
        while self.tries < len(repeats) and self.since + repeats[self.tries] <= self.asked_at:
            self.tries += 1
        return max(self.since + repeats[self.tries], now) if self.tries < len(repeats) else None

    def failed(self, now: float, retry_after: Callable[[int], float], *, alone: bool) -> float:
        """The read failed; *alone*: by itself, while others are answered. When to read again.

        *retry_after* gives the seconds to wait after so many failures in a row.
        """
        self.reading = ""
        if alone and now >= self.put_off:
            self.failures += 1
            self.put_off = now + retry_after(self.failures)
        return max(self.put_off, now + retry_after(0))

    def over(self) -> None:
        """The record was read, whatever it said."""
        self.reading, self.failures, self.put_off = "", 0, float("-inf")
