"""What strangers put into the log under a job, through a real daemon: not believed, and announced."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
from nats.aio.client import Client

from consumer.errors import ExitCode
from consumer.nats.api import time_ns
from consumer.wire.entries import decode_advisory, decode_quarantine
from consumer.wire.subjects import job_key
from consumer.wire.update import encode_update
from tests.daemon.process import NAMES, Daemon, bodies, updates_of
from tests.server import Server

pytestmark = pytest.mark.server

KEY: Final = job_key("default", "j-1")
FOREIGN: Final = NAMES.advisory("foreign", "*")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server of its own for each test."""
    async with Server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """Anybody who may publish there."""
    client = Client()
    await client.connect(server.url, allow_reconnect=False)
    yield client
    await client.close()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Nats-Expected-Last-Subject-Sequence-Subject": NAMES.state(KEY, "Queued"),
        },
    ],
    ids=["no headers", "wrong filter"],
)
async def test_a_start_does_not_believe_an_imitation(
    tmp_path: Path, server: Server, client: Client, headers: dict[str, str]
) -> None:
    """A likely Queued after Completed, while no daemon runs: the job stays Completed, and a start announces it."""
    settings = {"JOBSTATE_NATS__URL": server.url}
    daemon = Daemon(tmp_path / "first", settings)
    stream = client.jetstream()
    try:
        await daemon.until_ready()
        await stream.publish(NAMES.report(KEY), json.dumps({"StateType": "Completed"}).encode())
        (completed,) = await updates_of(stream, KEY, 1)
        assert await daemon.stop() == ExitCode.OK
        forged = msgspec.structs.replace(
            completed, StateType="Queued", Previous="Completed", Sequence=2, Source="observed"
        )
        number = (await stream.publish(NAMES.state(KEY, "Queued"), encode_update(forged), headers=headers)).seq

        daemon = Daemon(tmp_path / "second", settings)
        (body,) = await bodies(stream, NAMES.log, FOREIGN, 1)
        assert decode_advisory(body).Facts == {"number": number}
        await stream.publish(NAMES.report(KEY), json.dumps({"StateType": "Running"}).encode())
        (body,) = await bodies(stream, NAMES.refused, NAMES.quarantine("*", KEY, "*"), 1)
        assert decode_quarantine(body).Reason == "after-terminal"
        assert await daemon.stop() == ExitCode.OK
    finally:
        daemon.kill()


async def test_while_a_daemon_runs_it_is_announced_when_the_job_moves(
    tmp_path: Path, server: Server, client: Client
) -> None:
    """Nobody looks at a job without an event; its next update follows the stranger's entry and the state before it."""
    daemon = Daemon(tmp_path, {"JOBSTATE_NATS__URL": server.url})
    stream = client.jetstream()
    try:
        await daemon.until_ready()
        await stream.publish(NAMES.report(KEY), json.dumps({"StateType": "Pending"}).encode())
        (pending,) = await updates_of(stream, KEY, 1)
        forged = msgspec.structs.replace(pending, StateType="Failed", Previous="Pending", Sequence=2)
        number = (await stream.publish(NAMES.state(KEY, "Failed"), encode_update(forged))).seq
        await stream.publish(NAMES.report(KEY), json.dumps({"StateType": "Running"}).encode())

        (body,) = await bodies(stream, NAMES.log, FOREIGN, 1)
        assert decode_advisory(body).Facts == {"number": number}
        found = [update for update in await updates_of(stream, KEY, 3) if update != forged]
        assert [(update.StateType, update.Previous, update.Sequence) for update in found] == [
            ("Pending", None, 1),
            ("Running", "Pending", 2),
        ]
        assert await daemon.stop() == ExitCode.OK
    finally:
        daemon.kill()


def checkpoint(sequence: int, time: int) -> bytes:
    """The body of a checkpoint, whatever it names."""
    return b'{"Input":{"Sequence":%d,"Time":%d}}' % (sequence, time)


async def test_a_checkpoint_that_none_of_ours_wrote_hides_no_report(
    tmp_path: Path, server: Server, client: Client
) -> None:
    """It names the last report while no daemon runs: all are published all the same, and it is announced."""
    settings = {"JOBSTATE_NATS__URL": server.url}
    daemon = Daemon(tmp_path / "first", settings)
    stream = client.jetstream()
    running = json.dumps({"StateType": "Running"}).encode()
    try:
        await daemon.until_ready()
        await stream.publish(NAMES.report(KEY), running)
        await updates_of(stream, KEY, 1)
        await bodies(stream, NAMES.log, NAMES.checkpoint("0"), 1)
        assert await daemon.stop() == ExitCode.OK
        await stream.publish(NAMES.report(job_key("default", "j-2")), running)
        last = (await stream.publish(NAMES.report(job_key("default", "j-3")), running)).seq
        raw = await stream._nc.request(f"$JS.API.STREAM.MSG.GET.{NAMES.input}", b'{"seq":%d}' % last)
        forged = checkpoint(last, time_ns(json.loads(raw.data)["message"]["time"]))
        number = (await stream.publish(NAMES.checkpoint("0"), forged)).seq

        daemon = Daemon(tmp_path / "second", settings)
        for job in ("j-2", "j-3"):
            await updates_of(stream, job_key("default", job), 1)
        (body,) = await bodies(stream, NAMES.log, FOREIGN, 1)
        assert decode_advisory(body).Facts == {"number": number}
        assert len(await updates_of(stream, KEY, 1)) == 1, "what was published is not published again"
        assert await daemon.stop() == ExitCode.OK
        assert (await stream.get_last_msg(NAMES.log, NAMES.checkpoint("0"))).seq != number, "ours stands there again"
    finally:
        daemon.kill()


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize(
    ("subject", "body"),
    [
        (NAMES.checkpoint("0"), checkpoint(-5, -5)),
        (NAMES.checkpoint("0"), checkpoint(0, 7)),
        (NAMES.checkpoint("0"), checkpoint(2**63, 7)),
        (NAMES.checkpoint("0"), checkpoint(2**70, 2**70)),
        (NAMES.format, b"[1,2"),
        (NAMES.format, b'{"Format":1,"Rules":{"Name":"n","Hash":"h"},"Since":-1,"Cluster":"main"}'),
        (NAMES.format, b'{"Format":1,"Rules":{"Name":"n","Hash":"h"},"Since":%d,"Cluster":"main"}' % 2**80),
    ],
)
async def test_no_number_that_a_stranger_writes_ends_the_daemon(
    tmp_path: Path, server: Server, client: Client, subject: str, body: bytes, *, guarded: bool
) -> None:
    """Out of range, or no body at all, with the compare-and-set too: it starts, reads all reports, and says so."""
    settings = {"JOBSTATE_NATS__URL": server.url}
    daemon = Daemon(tmp_path / "first", settings)
    stream = client.jetstream()
    try:
        await daemon.until_ready()
        await stream.publish(NAMES.report(KEY), json.dumps({"StateType": "Running"}).encode())
        await updates_of(stream, KEY, 1)
        await bodies(stream, NAMES.log, subject, 1)
        assert await daemon.stop() == ExitCode.OK
        headers = {"Nats-Rollup": "sub"}
        if guarded:
            last = (await stream.get_last_msg(NAMES.log, subject)).seq
            headers |= {
                "Nats-Expected-Last-Subject-Sequence": str(last),
                "Nats-Expected-Last-Subject-Sequence-Subject": subject,
            }
        number = (await stream.publish(subject, body, headers=headers)).seq

        daemon = Daemon(tmp_path / "second", settings)
        await daemon.until_ready()
        (told,) = await bodies(stream, NAMES.log, FOREIGN, 1)
        assert decode_advisory(told).Facts == {"number": number}
        await stream.publish(NAMES.report(KEY), json.dumps({"StateType": "Completed"}).encode())
        assert [update.StateType for update in await updates_of(stream, KEY, 2)] == ["Running", "Completed"]
        assert await daemon.stop() == ExitCode.OK
    finally:
        daemon.kill()
