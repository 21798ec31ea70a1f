"""How long somebody else is waited for: time in which this process could look, and not what it spent stopped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

PARTS: Final = 10
"""A stop costs so small a part of the patience, however long it takes."""


@contextlib.asynccontextmanager
async def patience(within_s: float) -> AsyncIterator[asyncio.Timeout]:
    """As `asyncio.timeout`, for what comes from outside: raises `TimeoutError` after *within_s* seconds of waiting.

    A process that is stopped (SIGSTOP, a machine that sleeps or has no time for it) finds afterwards that all deadlines
    are over, and in its sockets what it had waited for. Here the time passes in parts, and a stop costs one of them:
    what has come is read before the next. The `Timeout` that is given may be rescheduled, to end it earlier.
    """
    loop = asyncio.get_running_loop()
    parts = PARTS

    timer: asyncio.TimerHandle

    def pass_by() -> None:
        nonlocal parts, timer
        parts -= 1
        if parts:
            timer = loop.call_later(within_s / PARTS, pass_by)
        elif limit.when() is None:  # else it is ending already
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(within_s / PARTS, pass_by)
        try:
            yield limit
        finally:
            timer.cancel()


async def look_until(fact: Callable[[], object], every_s: float) -> None:
    """Look every *every_s* seconds until *fact* is true: for what sets no event, as a file and nats-py's state."""
    while not fact():  # noqa: ASYNC110 - as said
        await asyncio.sleep(every_s)
