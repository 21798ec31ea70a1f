"""What stands between a tap and a real nats-server, and holds back the one line that says that the tap listens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from tests.waiting import until

LISTENS: Final = 3
"""Which PONG of a connection says that the server has all subscriptions: CONNECT's comes first, then two flushes'."""


class Relay:
    """Lines go both ways as they come. Set `hold`, and the server has all subscriptions while the tap cannot know."""

    def __init__(self) -> None:
        self.url = ""
        self.hold = False
        self.held = False
        """Whether the line is held back now: the server has all subscriptions of the newest connection."""
        self.passed: Final[list[bytes]] = []
        """Lines that were given to the tap, of all connections."""
        self.said: Final[list[bytes]] = []
        """Lines that the tap has said."""
        self._writer: asyncio.StreamWriter | None = None

    def say(self, data: bytes) -> None:
        """Give *data* to the tap as if the server had said it."""
        assert self._writer is not None
        self._writer.write(data)

    async def heard(self, line: bytes) -> None:
        """Wait until the tap has read *line* of the server, and all before it."""
        await until(lambda: line in self.passed, f"{line!r}, passed on")
        await self.settle()

    async def settle(self) -> None:
        """Wait until the tap has read all that it was given: it answers a ping that comes after it."""
        answers = self.said.count(b"PONG\r\n")
        self.say(b"PING\r\n")
        await until(lambda: self.said.count(b"PONG\r\n") > answers, "the answer to a ping")

    def release(self) -> None:
        """Let the line go that was held back."""
        assert self.held
        self.hold = self.held = False
        self.say(b"PONG\r\n")

    def cut(self) -> None:
        """End the newest connection."""
        assert self._writer is not None
        self.held = False
        self._writer.transport.abort()

    def end(self) -> None:
        """End the newest connection, once the tap has been given all that was said."""
        assert self._writer is not None
        self._writer.close()

    async def serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the tap."""
        self._writer = writer
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)

        async def down() -> None:
            pongs = 0
            while line := await from_server.readline():
                pongs += line == b"PONG\r\n"
                if self.hold and line == b"PONG\r\n" and pongs == LISTENS:
                    self.held = True
                    continue
                writer.write(line)
                self.passed.append(line)
            writer.close()

        downward = asyncio.create_task(down())
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.said.append(line)
                to_server.write(line)
        to_server.close()
        await downward


@contextlib.asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    """A relay before the nats-server at *port*."""
    made = Relay()
    async with await asyncio.start_server(lambda *ends: made.serve(port, *ends), "127.0.0.1", 0) as listener:
        made.url = f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield made
