"""A connection whose server dies at an awkward moment, on both event loops: whatever is done with it ends."""

import asyncio
import importlib
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from consumer.nats.client import MendedClient
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.resolve import Resolver
from tests.bacalhau.servers import certificate, nats_server
from tests.server import Server
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server


def _run(loop: str, work: Coroutine[Any, Any, None]) -> None:
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(loop).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def _cut(connection: Connection) -> None:
    """The socket is gone, and nobody has looked yet: so it is for a moment whenever a server is killed."""
    connection._transport._io_writer.transport.abort()  # type: ignore[union-attr]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_connection_whose_socket_is_gone_can_be_closed(shared_server: Server, loop: str, turns: int) -> None:
    """With something still to be sent: it is closed, whoever watches is told, and no error comes of it."""

    async def work() -> None:
        connection = await connect_reader(shared_server.address(), "test")
        told: list[bool] = []
        connection.watch(lambda: told.append(connection.is_closed))
        _cut(connection)
        for _ in range(turns):
            await asyncio.sleep(0)
        await connection.publish("somewhere", b"x")
        await connection.close()
        assert connection.is_closed
        assert told[-1:] == [True]

    _run(loop, work())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_reader_whose_socket_is_gone_comes_back(shared_server: Server, loop: str) -> None:
    """It asks over the dead socket, and over the new one a moment later."""

    async def work() -> None:
        connection = await connect_reader(shared_server.address(), "test")
        _cut(connection)
        await connection.publish("somewhere", b"x")
        async with asyncio.timeout(DEADLINE_S):
            while connection.connects < 2:
                await asyncio.sleep(0.01)
            await connection.flush()
        await connection.close()

    _run(loop, work())


async def test_a_certificate_that_does_not_hold_is_called_that(tmp_path: Path) -> None:
    """Its error is one of values, too, and says more than that what answers speaks no NATS."""
    cert, key = certificate(tmp_path, "127.0.0.1")
    other, _ = certificate(tmp_path, "localhost")
    async with nats_server(tmp_path, f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\n') as server:
        client = MendedClient(tls=True, resolver=Resolver())
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
            await client.connect(
                server.url,
                tls=ssl.create_default_context(cafile=str(other)),
                allow_reconnect=False,
                max_reconnect_attempts=1,
                error_cb=_ignore,
            )
        await client.close()


async def _ignore(_: Exception) -> None:
    """It is raised as well."""
