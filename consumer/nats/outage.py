"""How often it is said that a server is away."""

import time
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger()

SAID_FIRST_S: Final = 1.0
SAID_LAST_S: Final = 60.0


class Outage:
    """A server that is away, told seldom: the first trouble at once, then after 1 s, 2 s, 4 s, at last once a minute.

    It outlives the connections that are tried meanwhile; whoever makes several for one purpose gives each the same.
    """

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._name: Final = name
        self._now: Final = now
        self._began: float | None = None
        self._again_at = 0.0
        self._pause = SAID_FIRST_S
        self._untold = 0
        self.worked = False
        """Whether a connection has stood so far."""

    def tell(self, event: str, server: object, reason: str, next_step: str) -> None:
        """Write the line *event*, unless one was written a short while ago."""
        now = self._now()
        if self._began is None:
            self._began, self._again_at, self._pause, self._untold = now, now, SAID_FIRST_S, 0
        if now < self._again_at:
            self._untold += 1
            return
        log.warning(
            event,
            connection=self._name,
            server=str(server),
            reason=reason,
            for_s=round(now - self._began, 1),
            untold=self._untold,
            next_step=next_step,
        )
        self._untold = 0
        self._again_at = now + self._pause
        self._pause = min(2 * self._pause, SAID_LAST_S)

    def end(self) -> float:
        """A connection stands. For how many seconds none did; 0 if nothing was wrong."""
        self.worked = True
        began, self._began = self._began, None
        return 0.0 if began is None else self._now() - began
