"""What is sent to the log and not answered, what waits to be sent, and the pause while the log does not answer. No I/O.

It knows appends, read-backs and their tokens. It does not know what they mean: that is `consumer.core.lanes`.
"""

import heapq
from collections import deque
from typing import Final, Generic, TypeVar

import msgspec

from consumer.core.appends import Append, ReadBack

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0


class Tally(msgspec.Struct, kw_only=True):
    """How often what happened to the lanes, since the start."""

    appends: int = 0
    resends: int = 0
    refused: int = 0
    busy: int = 0
    unanswered: int = 0
    full: int = 0
    read_backs: int = 0
    stale: int = 0
    adopted: int = 0
    foreign: int = 0
    forgotten: int = 0
    checkpoints: int = 0

    def copy(self) -> "Tally":
        """The same numbers, to compare with later."""
        return msgspec.structs.replace(self)


class Asker(msgspec.Struct, kw_only=True, eq=False, gc=False):
    """Who waits for the answer to *ask*. *resent*: it was sent more than once, so the log may have it already."""

    ask: Append | ReadBack | None = None
    resent: bool = False


A = TypeVar("A", bound=Asker)


class Flight(Generic[A]):
    """The asks of one writer. An asker has one at a time; it is open until `end`, whatever answers come meanwhile."""

    def __init__(self, flight_max: int, tally: Tally) -> None:
        self._max: Final = flight_max
        self._tally: Final = tally
        self._open: Final[dict[int, A]] = {}
        self._asked: Final[set[int]] = set()
        self._outbox: Final[deque[Append | ReadBack]] = deque()
        self._later: Final[list[tuple[float, int, Append | ReadBack]]] = []
        self._token = 0
        self._failures = 0
        self._hold_until = 0.0

    @property
    def in_flight(self) -> int:
        """Appends and read-backs that are sent and unanswered."""
        return len(self._asked)

    @property
    def backing_off(self) -> bool:
        """The log does not answer; one ask at a time goes out until it does."""
        return self._failures > 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is sent, is to be sent, or waits for an answer."""
        return not (self._open or self._asked or self._outbox or self._later)

    def next_token(self) -> int:
        """A token that no ask has had."""
        self._token += 1
        return self._token

    def send(self, asker: A, ask: Append | ReadBack) -> None:
        """Have *ask* sent as soon as there is room."""
        asker.ask = ask
        self._open[ask.token] = asker
        self._outbox.append(ask)

    def send_later(self, asker: A, ask: Append | ReadBack, due: float) -> None:
        """Have *ask* sent at *due*, in seconds."""
        asker.ask = ask
        self._open[ask.token] = asker
        heapq.heappush(self._later, (due, ask.token, ask))

    def end(self, asker: A) -> None:
        """Forget what *asker* waits for: it is neither sent any more, nor is its answer anybody's."""
        if asker.ask is not None:
            self._open.pop(asker.ask.token, None)

    def answered(self, token: int) -> A | None:
        """The log has answered: who asked; None if nobody waits for that any more."""
        self._asked.discard(token)
        self._failures = 0
        return self._open.get(token)

    def unanswered(self, token: int, now: float, *, full: bool) -> None:
        """No answer, or the stream is *full*: the same again, later.

        The writer as a whole waits: each flight by itself would make a storm.
        """
        self._asked.discard(token)
        self._tally.full += full
        self._tally.unanswered += 1
        self._resend(token)
        if not self._failures or now >= self._hold_until:
            self._failures += 1
            self._hold_until = now + min(BACKOFF_FIRST_S * 2 ** (self._failures - 1), BACKOFF_MAX_S)

    def disconnected(self) -> None:
        """The connection is gone: whatever was sent and not answered is to be sent again."""
        for token in sorted(self._asked):
            self._resend(token)
        self._asked.clear()

    def _resend(self, token: int) -> None:
        asker = self._open.get(token)
        if asker is None:
            return
        assert asker.ask is not None
        asker.resent = True
        self._outbox.append(asker.ask)
        self._tally.resends += 1

    def take(self, now: float) -> list[Append | ReadBack]:
        """What is to be sent now. While the log does not answer, one at a time, when its wait is over."""
        while self._later and self._later[0][0] <= now:
            self._outbox.append(heapq.heappop(self._later)[2])
        outbox = self._outbox
        if not outbox:
            return []
        room = self._max - len(self._asked)
        if self._failures:
            if now < self._hold_until or self._asked:
                return []
            room = 1
        asks: list[Append | ReadBack] = []
        while outbox and room > 0:
            ask = outbox.popleft()
            if ask.token in self._open:
                asks.append(ask)
                self._asked.add(ask.token)
                room -= 1
        return asks

    def wake_at(self) -> float | None:
        """When `take` may have something that it has not now, if nothing comes before. Seconds; None: never."""
        times = [self._later[0][0]] if self._later else []
        if self._failures and self._outbox and not self._asked:
            times.append(self._hold_until)
        return min(times, default=None)
