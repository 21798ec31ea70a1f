"""The daemon without an orchestrator: a process of its own between real servers, and recorded frames."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from nats.aio.client import Client

from consumer.errors import ExitCode
from consumer.model import NoticeKind
from consumer.replay.clock import ReplayClock
from consumer.replay.player import Player
from consumer.wire.entries import Advisory, decode_advisory
from consumer.wire.subjects import job_key
from tests.bacalhau.relay import relay
from tests.daemon.process import NAMES, Daemon, bodies, entries, updates_of
from tests.replay.shared import recording
from tests.server import Server

pytestmark = pytest.mark.server

SUCCESS: Final = "bacalhau-v1.9.3/success"
STOPPED: Final = "bacalhau-v1.5.0/stop_running"
UPDATES: Final = f"{NAMES.state_prefix}*.*.*"


class Setting:
    """A server for our streams, another that is Bacalhau's, and a client of each."""

    def __init__(self, folder: Path, ours: Server, theirs: Server, client: Client, bacalhau: Client) -> None:
        self.folder: Final = folder
        self.ours: Final = ours
        self.theirs: Final = theirs
        self.client: Final = client
        self.bacalhau: Final = bacalhau

    @asynccontextmanager
    async def daemon(self, name: str = "daemon", *, bacalhau: str = "") -> AsyncIterator[Daemon]:
        """One that listens, at the url *bacalhau* or at `theirs`, and has told of it."""
        settings = {"JOBSTATE_NATS__URL": self.ours.url, "JOBSTATE_BACALHAU__URL": bacalhau or self.theirs.url}
        daemon = Daemon(self.folder / name, settings)
        try:
            await daemon.until_ready()
            yield daemon
        finally:
            daemon.kill()

    async def play(self, *scenarios: str) -> None:
        """Publish their frames, as quickly as may be."""
        whole = [recording(scenario) for scenario in scenarios]
        async for _ in Player(whole, ReplayClock(whole), None).play(self.bacalhau):
            pass

    async def advisories(self, kind: NoticeKind, count: int) -> Sequence[Advisory]:
        """Those of this kind in the log, once there are so many."""
        found = await bodies(self.client.jetstream(), NAMES.log, NAMES.advisory(kind, "*"), count)
        return [decode_advisory(body) for body in found]


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    """Servers and clients, no daemon yet."""
    async with Server(tmp_path / "ours") as ours, Server(tmp_path / "theirs") as theirs:
        client, bacalhau = Client(), Client()
        await client.connect(ours.url, allow_reconnect=False)
        await bacalhau.connect(theirs.url, allow_reconnect=False)
        try:
            yield Setting(tmp_path, ours, theirs, client, bacalhau)
        finally:
            await client.close()
            await bacalhau.close()


async def test_frames_alone_fill_the_log(setting: Setting) -> None:
    """Ready without an orchestrator; it says once how it runs; each update says that it is derived; it ends well."""
    async with setting.daemon() as daemon:
        assert len(daemon.lines("daemon.derives")) == 1
        answer = await daemon.get("/readyz")
        assert "orchestrator" not in answer[1]
        (gap,) = await setting.advisories("gap", 1)
        assert gap.Facts == {"open": 0}
        await setting.play(SUCCESS, STOPPED)
        for scenario in (SUCCESS, STOPPED):
            for job in recording(scenario).jobs:
                states = [step.state for step in job.expected]
                updates = await updates_of(setting.client.jetstream(), job_key(job.namespace, job.id), len(states))
                assert [(update.StateType, update.Source) for update in updates] == [
                    (state, "derived") for state in states
                ]
        assert await daemon.stop() == ExitCode.OK


async def test_a_restart_announces_its_gap_and_repeats_nothing(setting: Setting) -> None:
    """All frames once more after it, as Bacalhau repeats them: finished jobs stay finished, the log is the same."""
    stream = setting.client.jetstream()
    count = sum(len(job.expected) for job in recording(SUCCESS).jobs)
    async with setting.daemon():
        await setting.play(SUCCESS)
        before = await bodies(stream, NAMES.log, UPDATES, count)
    async with setting.daemon() as second:
        assert len(await setting.advisories("gap", 2)) == 2
        await setting.play(SUCCESS)
        frames = len(recording(SUCCESS).frames)
        seen = 0.0
        while seen < frames:
            seen = sum((await second.numbers("jobstate_frames_total")).values())
        assert await second.stop() == ExitCode.OK
    assert [body for _, body in await entries(stream, NAMES.log, UPDATES)] == before


async def test_what_was_open_before_a_restart_is_known_to_be(setting: Setting) -> None:
    """The log has it; what its executions did meanwhile nobody can tell. It goes on with what is asked for next."""
    retried = "bacalhau-v1.9.3/execution_timeout"
    (job,) = recording(retried).jobs
    key, stream = job_key(job.namespace, job.id), setting.client.jetstream()
    frames = recording(retried).frames
    async with setting.daemon():
        for frame in frames[:3]:
            await setting.bacalhau.publish(frame.subject, frame.data)
        assert [update.StateType for update in await updates_of(stream, key, 2)] == ["Pending", "Running"]
    async with setting.daemon() as second:
        gaps = await setting.advisories("gap", 2)
        assert [gap.Facts for gap in gaps] == [{"open": 0}, {"open": 1}]
        for frame in frames[3:]:
            await setting.bacalhau.publish(frame.subject, frame.data)
        (undecided,) = await setting.advisories("undecided", 1)
        assert undecided.Job is not None
        assert (undecided.Job.ID, undecided.Facts["state"]) == (job.id, "Running")
        assert await second.stop() == ExitCode.OK
    assert len(await updates_of(stream, key, 2)) == 2


async def test_an_end_just_before_the_connection_is_lost_proves_nothing(setting: Setting) -> None:
    """An orchestrator that is killed there may never conclude the job: it is announced, and not Completed."""
    (job, *_) = recording(SUCCESS).jobs
    *before, result, receipt = recording(SUCCESS).frames[:5]
    async with (
        relay(int(setting.theirs.url.rsplit(":", 1)[1])) as between,
        setting.daemon(bacalhau=between.url) as daemon,
    ):
        for frame in before:
            await setting.bacalhau.publish(frame.subject, frame.data)
        key, stream = job_key(job.namespace, job.id), setting.client.jetstream()
        assert [update.StateType for update in await updates_of(stream, key, 2)] == ["Pending", "Running"]
        for frame in (result, receipt):
            between.say(f"MSG {frame.subject} 1 {len(frame.data)}\r\n".encode() + frame.data + b"\r\n")
        between.end()
        (undecided,) = await setting.advisories("undecided", 1)
        assert (undecided.Facts["why"], undecided.Facts["state"]) == ("restart", "Running")
        assert len(await updates_of(stream, key, 2)) == 2
        assert await daemon.stop() == ExitCode.OK


async def test_without_bacalhaus_nats_it_is_not_ready(setting: Setting) -> None:
    """The tap is the one source of states: /readyz names it, and says that nothing is heard."""
    async with setting.daemon() as daemon:
        await setting.bacalhau.close()
        await setting.theirs.stop()
        await daemon.until_status(503, "nothing is heard")
