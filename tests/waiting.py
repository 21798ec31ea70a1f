"""How long a test waits for a fact. Here is the one deadline of all tests; no test proves anything by it.

It only keeps a test that hangs from hanging for ever. A machine that is shared by others may be ten times slower than
yours: what must be quick is proved by a ratio within one run, by an injected clock, or by the order of facts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import pytest

DEADLINE_S: Final = 180.0
"""Seconds until a test that still waits for its fact fails."""

LOOK_S: Final = 0.005
LIMIT_S: Final = 0.3
LIMIT_MAX_S: Final = 30.0
"""Limits of the program's own, first and last (`given_time`)."""

T = TypeVar("T")


async def until(fact: Callable[[], object], what: str | Callable[[], str]) -> None:
    """Wait until *fact* is true; fail the test with the words *what* (or what it gives) if it never is."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not fact():
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        pytest.fail(f"never came: {what if isinstance(what, str) else what()}")


async def given_time(attempt: Callable[[float], Awaitable[T]], shows: Callable[[T], object]) -> T:
    """What *attempt* gives with a time limit (seconds) that is long enough for this machine.

    For a limit of the program's own that must run out. It is short first, and doubled until the result *shows* the
    fact: on a quick machine the test takes no longer than it must. Gives the last result even if that shows nothing.
    """
    limit_s = LIMIT_S
    while True:
        found = await attempt(limit_s)
        if shows(found) or limit_s > LIMIT_MAX_S:
            return found
        limit_s *= 2
