"""A tap that listens for as long as a test needs it, and what it heard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from random import random

import msgspec

from consumer.bacalhau.tap import Tap, TapTiming
from consumer.daemon.supervise import end
from consumer.ports import RawFrame
from consumer.settings import Bacalhau as BacalhauSettings
from tests.waiting import DEADLINE_S


def quick(*urls: str, dice: Callable[[], float] = random, **others: object) -> Tap:
    """A tap for the servers at *urls*, with short pauses. *others*: of its settings and of its timing."""
    timing = {name: others.pop(name) for name in TapTiming.__struct_fields__ if name in others}
    return Tap(
        msgspec.structs.replace(BacalhauSettings(url=",".join(urls)), **others),
        msgspec.structs.replace(TapTiming(pause_s=0.02, pause_max_s=0.1), **timing),
        dice,
    )


@contextlib.asynccontextmanager
async def running(tap: Tap) -> AsyncIterator[asyncio.Task[None]]:
    """*tap*, listening until the context ends."""
    task: asyncio.Task[None] = asyncio.create_task(tap.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await tap.listening()
        yield task
    finally:
        await end([task])


async def frames(tap: Tap, number: int) -> list[RawFrame]:
    """The next *number* frames."""
    came: list[RawFrame] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(came) < number:
            came += await tap.batch()
    assert len(came) == number
    return came
