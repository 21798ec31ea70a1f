"""A server that takes no more than 64 KiB, and settings to match: whatever comes in, what comes of it fits."""

import base64
import json
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web
from nats.aio.client import Client

from consumer.daemon.carry import UPDATE_ROOM
from consumer.errors import ExitCode
from consumer.wire.decoding import NAME_MAX
from consumer.wire.subjects import job_key
from consumer.wire.update import CUT
from tests.bacalhau.servers import http_server
from tests.daemon.process import NAMES, Daemon, bodies, updates_of
from tests.server import Server

pytestmark = pytest.mark.server

MOST: Final = 64 * 1024
LONG: Final = "\x01" * 100_000
"""A message of which each character takes six bytes: 600 KB."""
NAME: Final = "\x01" * NAME_MAX


async def record(request: web.BaseRequest) -> web.StreamResponse:
    """An orchestrator whose one job has failed, with much to say about it."""
    job = {
        "ID": "j-1",
        "Namespace": "default",
        "Name": NAME,
        "Type": NAME,
        "Version": 1,
        "Revision": 2,
        "State": {"StateType": "Failed", "Message": LONG},
        "ModifyTime": 1795503263448525091,
    }
    rows = [
        {
            "Type": "JobLevel",
            "SeqNum": number,
            "JobVersion": 1,
            "Time": f"2026-11-24T05:00:0{number}Z",
            "Event": {"Message": message, "Topic": "Scheduling", "Details": {"NewState": state}},
        }
        for number, (state, message) in enumerate((("Pending", ""), ("Failed", LONG)), 1)
    ]
    documents = {
        "jobs": {"Items": [job], "NextToken": ""},
        "j-1": {"Job": job},
        "history": {"Items": rows, "NextToken": ""},
    }
    return web.json_response(documents[request.path.rpartition("/")[2]], headers={"X-Bacalhau-Git-Version": "v1.9.3"})


async def test_nothing_that_comes_in_makes_an_entry_that_is_too_large(tmp_path: Path) -> None:
    """Junk, the largest report, a record's huge message: cut where they must be, and they say so; the daemon lives.

    Else one of them would end it, and every daemon that is started after it.
    """
    junk = b"{" + b"x" * 60_000
    told = b'{"StateType":"Running","Job":{"Name":"%s","Type":"%s"}}' % ((json.dumps(NAME)[1:-1].encode(),) * 2)
    largest = b'{"StateType":"Failed","Message":"%s"}'
    largest %= b"x" * (MOST - UPDATE_ROOM - len(largest) + 2)
    async with Server(tmp_path / "nats", f"max_payload: {MOST}\n") as server, http_server(record) as url:
        daemon = Daemon(
            tmp_path / "daemon",
            {
                "JOBSTATE_NATS__URL": server.url,
                "JOBSTATE_ORCHESTRATOR__URL": url,
                "JOBSTATE_SCAN__BACKFILL": "all",
                "JOBSTATE_LIMITS__MESSAGE_BYTES": str(MOST),
            },
        )
        client = Client()
        try:
            await daemon.until_ready()
            await client.connect(server.url, allow_reconnect=False)
            stream = client.jetstream()
            for job, body in (
                ("junk", junk),
                ("large", told),
                ("large", largest),
                ("large", largest.replace(b"Failed", b"Exited")),
            ):
                await stream.publish(NAMES.report(job_key("default", job)), body)

            (kept,) = await bodies(stream, NAMES.refused, f"{NAMES.prefix}.undecodable.>", 1)
            found = json.loads(kept)
            data = base64.b64decode(found["Data"])
            assert 0 < len(data) < found["Size"] == len(junk)
            assert junk.startswith(data)
            assert MOST - 4096 < len(kept) < MOST

            assert [update.Flags for update in await updates_of(stream, job_key("default", "large"), 2)] == [(), ()]
            (rejected,) = await bodies(stream, NAMES.refused, f"{NAMES.prefix}.quarantine.unknown-state.>", 1)
            assert len(json.loads(rejected)["Event"]["Message"]) > 40_000

            first, last = await updates_of(stream, job_key("default", "j-1"), 2)
            assert (first.StateType, first.Flags) == ("Pending", ())
            assert (last.StateType, last.Flags) == ("Failed", (CUT,))
            assert LONG.startswith(last.Message)
            assert 5_000 < len(last.Message) < MOST // 6
            assert await daemon.stop() == ExitCode.OK
        finally:
            await client.close()
            daemon.kill()
