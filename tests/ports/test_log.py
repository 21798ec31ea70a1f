"""The suite of the log, on a real server and on the simulation's model of it."""

import re
from collections.abc import AsyncIterator

import msgspec
import pytest

from consumer.core.appends import Entry
from consumer.jetstream.pull import Pull
from consumer.jetstream.topology import ensure
from consumer.jetstream.writer import open_writer
from consumer.nats.api import entry_of
from consumer.nats.connect import connect_reader, connect_writer
from consumer.settings import Streams
from consumer.wire.subjects import Names
from tests.jetstream.conftest import shared_server as shared_server
from tests.lab.simulation.log import SimulatedLog, SimulatedLogPort, matches
from tests.ports.log_suite import Case, LogSuite
from tests.server import Server, api


class TestSimulatedLog(LogSuite):
    """The model that `make simulate` runs against is held to what the server does."""

    @pytest.fixture
    def case(self) -> Case:
        """A model of its own."""
        log = SimulatedLog()

        async def stored(stream: str, pattern: str) -> list[Entry]:
            del stream
            return log.view(pattern)

        async def purge(pattern: str) -> None:
            log.purge(pattern)

        return Case(SimulatedLogPort(log), Names(), stored, purge)


class TestJetStreamLog(LogSuite):
    """The real one."""

    @pytest.fixture
    async def case(self, shared_server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Case]:
        """A cluster of its own on the shared server."""
        names = Names(re.sub(r"[^A-Za-z0-9_-]+", "-", request.node.name)[-60:])
        reader = await connect_reader(shared_server.address(names.cluster), "test")
        await ensure(reader, names, Streams(log_max_bytes=16 << 20, input_max_bytes=1 << 20, refused_max_bytes=1 << 20))
        connection = await connect_writer(shared_server.address(names.cluster), "log")
        streams = {"log": names.log, "refused": names.refused}

        async def stored(stream: str, pattern: str) -> list[Entry]:
            pull = Pull(reader, streams[stream])
            await pull.open({"deliver_policy": "all"}, (pattern,))
            wanted = pull.pending
            found: list[Entry] = []
            while len(found) < wanted:
                found += (
                    entry_of(subject.decode(), data, headers, number, time)
                    for number, time, subject, data, headers in await pull.batch()
                )
            await pull.close()
            assert all(matches(pattern, entry.subject) for entry in found)
            return found

        async def purge(pattern: str) -> None:
            await api(reader, f"STREAM.PURGE.{names.log}", msgspec.json.encode({"filter": pattern}))

        yield Case(await open_writer(connection, names), names, stored, purge)
        await connection.close()
        await reader.close()
