"""A log that an older daemon wrote is continued by today's: `tests/daemon/old_log`, made by `tests.lab.old_log`."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest
from nats.aio.client import Client

from consumer.errors import ExitCode
from consumer.model import DERIVED, Update
from consumer.replay.clock import ReplayClock
from consumer.replay.player import Player
from consumer.replay.recording import Recording
from consumer.replay.server import OrchestratorServer
from consumer.replay.simulated import SimulatedOrchestrator
from tests.daemon.process import NAMES, Daemon
from tests.lab.old_log import (
    RECORDINGS,
    REPORTED,
    REPORTED_ID,
    REPORTS,
    Entry,
    OldLog,
    read_entries,
    restore,
    updates,
    variables,
)
from tests.server import Server
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

OLD: Final = OldLog.load(Path(__file__).parent / "old_log")
LAST: Final = {"StateType": "Completed", "Message": "all of it"}

Steps = dict[str, list[tuple[int | None, str]]]
"""The states of each job in their order, each with the job's version."""


async def test_an_old_log_is_continued(tmp_path: Path) -> None:
    """Today's daemon writes what is missing, each state once, and leaves what is there.

    The older one published some states from a message alone (`derived`). They count: the record brings none again.
    """
    assert OLD.made.commit.startswith("0339cd4")
    assert DERIVED in {update.Source for update in updates(OLD.entries)}
    recordings = [Recording.load(RECORDINGS / name) for name in OLD.made.scenarios]
    clock = ReplayClock(recordings)
    clock.advance(OLD.made.clock_ns)
    served = OrchestratorServer(SimulatedOrchestrator(recordings), clock)
    async with Server(tmp_path / "nats") as server, served as orchestrator:
        client = Client()
        await client.connect(server.url, allow_reconnect=False)
        await restore(OLD, server, client)
        before = await read_entries(client)
        daemon = Daemon(tmp_path, variables(server, orchestrator))
        try:
            await daemon.until_ready()
            async for _ in Player([_rest(one) for one in recordings], clock, None).play(client):
                pass
            await client.request(NAMES.report(REPORTED), json.dumps(LAST).encode(), timeout=DEADLINE_S)
            wanted = _expected(recordings)
            await _until_written(client, daemon, wanted)
            assert await daemon.stop() == ExitCode.OK
            after = await read_entries(client)
            assert _steps(updates(after)) == wanted
            assert _of(NAMES.log, after)[: len(_of(NAMES.log, before))] == _of(NAMES.log, before)
            assert _of(NAMES.refused, after) == _of(NAMES.refused, before)
        finally:
            daemon.kill()
            await client.close()


def _rest(recording: Recording) -> Recording:
    """What the older daemon did not hear of *recording*."""
    frames = tuple(frame for frame in recording.frames if recording.ns_of(frame.t) > OLD.made.clock_ns)
    return msgspec.structs.replace(recording, frames=frames)


def _expected(recordings: Sequence[Recording]) -> Steps:
    records = [record for recording in recordings for record in recording.jobs]
    told: Steps = {record.id: [(change.version, change.state) for change in record.expected] for record in records}
    return told | {REPORTED_ID: [(None, str(report["StateType"])) for report in (*REPORTS, LAST)]}


def _steps(found: Sequence[Update]) -> Steps:
    steps: Steps = {}
    for update in found:
        of_job = steps.setdefault(update.Job.ID, [])
        of_job.append((update.Job.Version, update.StateType))
        assert update.Sequence == len(of_job)
    return steps


def _of(stream: str, entries: Sequence[Entry]) -> list[Entry]:
    """What *stream* has of them, but for what is replaced by its next one."""
    return [one for one in entries if one.stream == stream and "Nats-Rollup: sub" not in one.headers]


async def _until_written(client: Client, daemon: Daemon, wanted: Steps) -> None:
    """Wait until the log has as many updates as it should have."""
    count = sum(map(len, wanted.values()))
    found: list[Update] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(found) < count:
                await asyncio.sleep(0.05)
                found = updates(await read_entries(client, [NAMES.log]))
    except TimeoutError:
        pytest.fail(f"the log has {_steps(found)}, and not {wanted}:\n{daemon.said()}")
