"""Daemons beside a cluster of three nats-servers, with three copies of each stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.jetstream.connection import connect_reader
from consumer.jetstream.topology import configs, remake
from consumer.settings import Streams
from tests.daemon.process import NAMES, Daemon
from tests.server import Server, api, cluster_of

pytestmark = pytest.mark.server


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
