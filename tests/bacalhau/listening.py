"""A tap that listens for as long as a test needs it, and what it heard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from consumer.bacalhau.tap import Tap, TapOptions
from consumer.daemon.supervise import end
from consumer.ports import RawFrame
from tests.bacalhau.servers import NatsServer
from tests.waiting import DEADLINE_S


def options(server: NatsServer, **others: object) -> TapOptions:
    """Options for *server* with short pauses."""
    return msgspec.structs.replace(TapOptions(urls=(server.url,), pause_s=0.02, pause_max_s=0.1), **others)


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
