"""The canary of the `secret` recording, in a job's environment and inline input, comes out nowhere."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from nats.aio.client import Client

from consumer.errors import ExitCode
from consumer.replay.clock import ReplayClock
from consumer.replay.player import Player
from consumer.replay.server import OrchestratorServer
from consumer.replay.simulated import SimulatedOrchestrator
from consumer.wire.subjects import job_key
from tests.daemon.process import NAMES, ROOT, Daemon, entries, updates_of
from tests.replay.shared import ROOT as RECORDINGS
from tests.replay.shared import recording
from tests.server import Server, pub, speak
from tests.waiting import DEADLINE_S
from tests.wire.samples import seal

pytestmark = pytest.mark.server

SCENARIO: Final = "bacalhau-v1.9.3/secret"
CANARY: Final = b"canary-7f3a"
SIGNS: Final = (CANARY, base64.b64encode(CANARY).rstrip(b"="), CANARY.hex().encode(), b"SECRET_TOKEN")
"""As it is, as bytes may be spelled in JSON, and the name of the variable that held it."""


def found_in(*texts: bytes) -> list[bytes]:
    """Which signs of the canary are in *texts*."""
    return [sign for sign in SIGNS if any(sign in text for text in texts)]


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below *folder*, with what it holds."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def jobstate(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The verb and its arguments, at debug level."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("JOBSTATE_")}
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        env=kept | {"JOBSTATE_LOG__LEVEL": "debug"},
        capture_output=True,
        check=False,
        timeout=DEADLINE_S,
        cwd=ROOT,
    )


def test_the_canary_is_where_it_is_looked_for() -> None:
    """In frames and in the orchestrator's documents: what the other tests do not find was there to be found."""
    whole = recording(SCENARIO)
    assert sum(CANARY in frame.data for frame in whole.frames) >= 2
    assert CANARY in (RECORDINGS / SCENARIO / "final.json").read_bytes()


class Played:
    """The scenario as it was played through the real daemon, and what it left."""

    def __init__(self, folder: Path, daemon: Daemon, client: Client) -> None:
        self.folder: Final = folder
        self.daemon: Final = daemon
        self.client: Final = client


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    """All frames as they were, and those with the canary once more, cut and spoilt in several ways."""
    whole = recording(SCENARIO)
    clock = ReplayClock([whole])
    async with (
        Server(tmp_path / "nats") as server,
        OrchestratorServer(SimulatedOrchestrator([whole]), clock) as orchestrator,
    ):
        settings = {
            "JOBSTATE_NATS__URL": server.url,
            "JOBSTATE_BACALHAU__URL": server.url,
            "JOBSTATE_ORCHESTRATOR__URL": orchestrator.url,
            "JOBSTATE_LOG__LEVEL": "debug",
            "JOBSTATE_LOG__LINES_PER_S": "100000",
        }
        daemon = Daemon(tmp_path / "daemon", settings)
        client = Client()
        await client.connect(server.url, allow_reconnect=False)
        try:
            await daemon.until_ready()
            await daemon.line("log.begins")
            async for _ in Player([whole], clock, None).play(client):
                pass
            for job in whole.jobs:
                await updates_of(client.jetstream(), job_key(job.namespace, job.id), len(job.expected))
            await spoil(server, daemon)
            yield Played(tmp_path, daemon, client)
        finally:
            await client.close()
            daemon.kill()


def spoilt(data: bytes) -> list[bytes]:
    """A frame with the canary in it, broken in many ways: none can be read, each for another reason, or elsewhere.

    Sealed again where the checksum would be the first to say so.
    """
    body = data[5:]
    return [
        data[: data.index(CANARY) + len(CANARY)],
        b"\x02" + data[1:],
        b"\x07" + data[1:],
        seal(body[: body.index(CANARY) + len(CANARY)]),
        seal(body + b'"' + CANARY),
        seal(body.replace(b'"StateType":"Pending"', b'"StateType":"Unheard"')),
        seal(body.replace(b'"Namespace":"', b'"Namespace":1,"%s":"' % CANARY)),
        seal(body.replace(b'"Namespace":"', b'"Namespace":"%s\xff' % CANARY)),
        seal(body.replace(b'"Revision":', b'"Revision":"%s","x":' % CANARY)),
        seal(body.replace(b'"AskForBid"', b'"%s is no word"' % CANARY)),
        seal(body.replace(b'"json"', b'"%s is no word"' % CANARY)),
    ]


async def spoil(server: Server, daemon: Daemon) -> None:
    """Say every frame that holds the canary once more, broken."""
    frame = next(frame for frame in recording(SCENARIO).frames if CANARY in frame.data)
    broken = spoilt(frame.data)
    assert len(set(broken)) == len(broken)
    await speak(server, *(pub(frame.subject.encode(), data) for data in broken))
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(daemon.lines("decision.undecodable")) < len(broken):
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"of {len(broken)} only {[line['reason'] for line in daemon.lines('decision.undecodable')]}")


async def test_nothing_of_the_daemon_holds_it(played: Played) -> None:
    """No stream, read entry by entry and as files; no log line at debug level; no metric, no answer over HTTP."""
    stream = played.client.jetstream()
    for name in (NAMES.log, NAMES.refused, NAMES.bucket_stream, NAMES.input):
        stored = await entries(stream, name, ">")
        assert found_in(*(subject.encode() + body for subject, body in stored)) == [], name
        for _, body in stored:
            data = json.loads(body).get("Data")
            assert data is None, "a frame's bytes are never kept"
    assert len(await entries(stream, NAMES.refused, ">")) > 0

    for path in ("/metrics", "/readyz", "/livez"):
        assert found_in((await played.daemon.get(path))[1].encode()) == [], path
    assert await played.daemon.stop() == ExitCode.OK
    said = played.daemon.said()
    assert found_in(said.encode()) == []
    assert '"level": "debug"' in said

    files = files_below(played.folder)
    ours = {name: data for name, data in files.items() if "/streams/" in name}
    assert any(name.endswith(".blk") and b"jobstate.v1.main.state" in data for name, data in ours.items())
    assert {name: found_in(data) for name, data in files.items() if found_in(data)} == {}


@pytest.mark.parametrize("arguments", [["replay", "--json"], ["replay"], ["demo", "--json", "--speed", "max"]])
def test_no_output_holds_it(arguments: list[str]) -> None:
    """Neither stdout nor stderr, at debug level."""
    where = str(RECORDINGS / SCENARIO)
    ended = jobstate(*arguments, *(["--recording"] if arguments[0] == "demo" else []), where)
    assert ended.returncode == ExitCode.OK, ended.stderr
    assert found_in(ended.stdout, ended.stderr) == []
    assert ended.stdout


def test_no_error_holds_it(tmp_path: Path) -> None:
    """A recording that is broken right behind it is refused by file and line, without a word of what stood there."""
    for file in (RECORDINGS / SCENARIO).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    final = tmp_path / "final.json"
    for broken in (
        final.read_bytes().replace(CANARY, CANARY + b"\xff"),
        final.read_bytes().replace(b'"' + CANARY, b'"' + CANARY + b'" "'),
        final.read_bytes().replace(b'"SECRET_TOKEN"', b"SECRET_TOKEN"),
    ):
        final.write_bytes(broken)
        ended = jobstate("replay", str(tmp_path))
        assert ended.returncode == ExitCode.NO_INPUT
        assert found_in(ended.stdout, ended.stderr) == []
