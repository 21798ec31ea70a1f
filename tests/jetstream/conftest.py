"""One server for all tests that do it no harm; a cluster of its own, so streams of its own, for each test."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import pytest

from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.wire.subjects import Names
from tests.server import Server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started once; a process has no event loop."""
    server = Server(tmp_path_factory.mktemp("nats"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    """A cluster that no other test has."""
    return Names(re.sub(r"[^A-Za-z0-9_-]+", "-", request.node.name)[-60:])


@pytest.fixture
async def reader(shared_server: Server, names: Names) -> AsyncIterator[Connection]:
    """A reader's connection to the shared server."""
    connection = await connect_reader(shared_server.address(names.cluster), "test")
    yield connection
    await connection.close()
