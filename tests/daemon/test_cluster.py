"""Daemons beside a cluster of three nats-servers, with three copies of each stream."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from consumer.errors import UnreachableError
from consumer.jetstream.topology import configs, find_absent, remake, survey
from consumer.jetstream.upkeep import Upkeep
from consumer.nats.api import StreamInfo
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.settings import Streams
from consumer.wire.subjects import job_key
from tests.daemon.process import NAMES, Daemon, entries, updates_of
from tests.server import Server, api, cluster_of
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

SMALL: Final = Streams(log_max_bytes=100_000_000, input_max_bytes=100_000_000, refused_max_bytes=1 << 20)
"""As `Daemon` sets them, and room for the refused stream on each server."""


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[Server, ...]]:
    """Three that are not started yet."""
    servers = cluster_of(tmp_path)
    yield servers
    await asyncio.gather(*(server.stop() for server in servers))


async def test_without_a_leader_is_waited_and_two_at_once_make_the_streams(
    tmp_path: Path, servers: tuple[Server, ...]
) -> None:
    """One server of three has no leader: both daemons wait, and say what for. Then both make the same streams.

    The cluster refuses whoever comes second with the bucket (10058), as if it were another one, though it is the same.
    """
    await servers[0].start()
    urls = ",".join(server.url for server in servers)
    settings = {"JOBSTATE_NATS__URL": urls, "JOBSTATE_STREAMS__REPLICAS": "3"}
    daemons = [Daemon(tmp_path / name, settings) for name in ("first", "second")]
    try:
        for daemon in daemons:
            waiting = await daemon.line("connection.waiting")
            assert "JetStream on" in waiting["reason"]
            assert "does not answer now: it may have no leader" in waiting["reason"]
            assert "-js" not in daemon.said()
            await daemon.until_status(503, "no leader")
        await asyncio.gather(*(server.start() for server in servers[1:]))
        for daemon in daemons:
            await daemon.until_ready()
        connection = await connect_reader(servers[1].address(), "test")
        streams = Streams(replicas=3, log_max_bytes=100_000_000, input_max_bytes=100_000_000)
        (bucket,) = (one for one in configs(NAMES, streams) if one["name"] == NAMES.bucket_stream)
        answer = await api(connection, f"STREAM.CREATE.{NAMES.bucket_stream}", json.dumps(bucket).encode())
        assert json.loads(answer)["error"]["err_code"] == 10058
        await remake(connection, NAMES, streams, {NAMES.bucket_stream})
        await connection.close()
        assert [await daemon.stop() for daemon in daemons] == [0, 0]
    finally:
        for daemon in daemons:
            daemon.kill()


async def place(connection: Connection, **servers: str) -> None:
    """Make the streams, one copy each, on the server that is named for each: `log="s0"`; the others on `s0`."""
    parts = {NAMES.log: "log", NAMES.input: "input", NAMES.refused: "refused", NAMES.bucket_stream: "bucket"}
    for config in configs(NAMES, SMALL):
        placed = {**config, "placement": {"tags": [servers.get(parts[config["name"]], "s0")]}}
        await until_made(connection, config["name"], json.dumps(placed).encode())


async def until_made(connection: Connection, name: str, config: bytes) -> None:
    """Have the stream made: at first there is no leader to ask, and not every server is known to have room."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(UnreachableError):
                if (await connection.ask(f"$JS.API.STREAM.CREATE.{name}", config, StreamInfo)).error is None:
                    return
            await asyncio.sleep(0.1)


async def has_one(connection: Connection, stream: str) -> None:
    """Wait until *stream* has one entry."""
    async with asyncio.timeout(DEADLINE_S):
        while len(await entries(connection.jetstream(), stream, ">")) != 1:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("part", ["refused", "bucket"])
async def test_a_side_stream_whose_server_is_away_stops_nobody(
    tmp_path: Path, servers: tuple[Server, ...], part: str
) -> None:
    """The daemon that runs says so and publishes; one that starts meanwhile, too; and it is over with the server."""
    await asyncio.gather(*(server.start() for server in servers))
    connection = await connect_reader(servers[0].address(), "test")
    await place(connection, input="s1", **{part: "s2"})
    settings = {
        "JOBSTATE_NATS__URL": ",".join(server.url for server in servers[:2]),
        "JOBSTATE_STREAMS__REFUSED_MAX_BYTES": str(SMALL.refused_max_bytes),
    }
    daemons = [Daemon(tmp_path / "running", settings)]
    try:
        await daemons[0].until_ready()
        await servers[2].stop()
        answer = await daemons[0].until_status(503, "it cannot be reached")
        assert set(wrong(answer)) == {part}
        daemons.append(Daemon(tmp_path / "started", settings))
        answer = await daemons[1].until_status(503, "it cannot be reached")
        await daemons[1].line("log.recovered")
        await daemons[0].stop()
        report = NAMES.report(job_key("default", "j-1"))
        await connection.request(report, b'{"StateType":"Running"}', timeout=DEADLINE_S)
        updates = await updates_of(connection.jetstream(), job_key("default", "j-1"), 1)
        assert [update.StateType for update in updates] == ["Running"]
        assert set(wrong(await daemons[1].until_status(503, "it cannot be reached"))) == {part}
        if part == "refused":
            await connection.request(report, b'{"StateType":"Nonsense"}', timeout=DEADLINE_S)
        await servers[2].start()
        await daemons[1].until_ready()
        stored = NAMES.refused if part == "refused" else NAMES.bucket_stream
        await has_one(connection, stored)
        assert [line["stream"] for line in daemons[1].lines("stream.back")] == [stored]
        assert await daemons[1].stop() == 0
    finally:
        for daemon in daemons:
            daemon.kill()
        await connection.close()


async def test_a_log_whose_server_is_away_is_named_though_nothing_waits(
    tmp_path: Path, servers: tuple[Server, ...]
) -> None:
    """No update is to be written: what cannot be reached is said all the same."""
    await asyncio.gather(*(server.start() for server in servers))
    connection = await connect_reader(servers[0].address(), "test")
    await place(connection, log="s2")
    daemon = Daemon(
        tmp_path / "daemon",
        {
            "JOBSTATE_NATS__URL": ",".join(server.url for server in servers[:2]),
            "JOBSTATE_STREAMS__REFUSED_MAX_BYTES": str(SMALL.refused_max_bytes),
        },
    )
    try:
        await daemon.until_ready()
        await servers[2].stop()
        answer = await daemon.until_status(503, "it cannot be reached")
        assert "log" in wrong(answer)
        await servers[2].start()
        await daemon.until_ready()
        assert await daemon.stop() == 0
    finally:
        daemon.kill()
        await connection.close()


async def test_a_side_stream_that_comes_back_wrong_or_not_at_all_is_seen_to(servers: tuple[Server, ...]) -> None:
    """Nobody could look at it when the daemon started: it is looked at when somebody answers."""
    await asyncio.gather(*(server.start() for server in servers))
    connection = await connect_reader(servers[0].address(), "test")
    await place(connection, refused="s2")
    other = {**configs(NAMES, SMALL)[2], "max_bytes": 2 << 20, "placement": {"tags": ["s2"]}}
    assert b'"error"' not in await api(connection, f"STREAM.UPDATE.{NAMES.refused}", json.dumps(other).encode())
    await servers[2].stop()
    upkeep = Upkeep(NAMES, SMALL)
    await upkeep.begin(connection)
    assert "it cannot be reached" in upkeep.troubles[NAMES.refused]
    await servers[2].start()

    async def look_until(fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not fact():
                await upkeep.look(connection, await survey(connection, NAMES))

    await look_until(lambda: "max_bytes: needed 1048576, found 2097152" in upkeep.troubles[NAMES.refused])
    await api(connection, f"STREAM.DELETE.{NAMES.refused}")
    await look_until(lambda: not upkeep.troubles)
    assert await find_absent(connection, NAMES) == ()
    assert upkeep.troubles == {}
    await connection.close()


def wrong(answer: dict[str, Any]) -> list[str]:
    """The parts that are not ready."""
    return [part for part, said in answer["parts"].items() if said != "ready"]
