"""What strangers put into the log under a job, through a real daemon: not believed, and announced."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
from nats.aio.client import Client

from consumer.errors import ExitCode
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
