"""Where the log begins, seen from outside: a beginning that is far ahead is said at every start."""

from pathlib import Path

import pytest
from aiohttp import web
from nats.aio.client import Client

from consumer.errors import ExitCode
from consumer.jetstream.topology import ensure
from consumer.nats.connect import connect_reader
from consumer.rules import load
from consumer.settings import Streams
from consumer.wire.entries import Format, RulesStamp, encode_format
from tests.bacalhau.servers import http_server
from tests.daemon.process import NAMES, Daemon
from tests.server import Server

pytestmark = pytest.mark.server

STREAMS = Streams(log_max_bytes=100_000_000, input_max_bytes=100_000_000)


async def no_jobs(_: web.BaseRequest) -> web.StreamResponse:
    """An orchestrator that has none."""
    return web.json_response({"Items": [], "NextToken": ""}, headers={"X-Bacalhau-Git-Version": "v1.9.3"})


async def test_a_log_that_begins_far_ahead_is_told_of_at_each_start(tmp_path: Path) -> None:
    """Ours, and in range: it is what daemons agreed on, so it counts; but nobody would know why jobs are missing."""
    async with Server(tmp_path / "nats") as server, http_server(no_jobs) as url:
        reader = await connect_reader(server.address(), "test")
        await ensure(reader, NAMES, STREAMS)
        await reader.close()
        rules = load()
        body = Format(Rules=RulesStamp(Name=rules.name, Hash=rules.hash), Since=2**62, Cluster="main")
        client = Client()
        await client.connect(server.url)
        headers = {
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Nats-Expected-Last-Subject-Sequence-Subject": NAMES.format,
        }
        await client.jetstream().publish(NAMES.format, encode_format(body), headers=headers)
        await client.close()
        for turn in ("first", "second"):
            variables = {"JOBSTATE_NATS__URL": server.url, "JOBSTATE_ORCHESTRATOR__URL": url}
            daemon = Daemon(tmp_path / turn, variables)
            try:
                line = await daemon.line("log.beginning_ahead")
                assert line["beginning"].startswith("2116-")
                assert NAMES.format in line["next_step"]
                await daemon.until_ready()
                assert await daemon.stop() == ExitCode.OK
            finally:
                daemon.kill()
