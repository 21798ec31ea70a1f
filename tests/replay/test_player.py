"""The player on a real nats-server: what arrives, in which order, at which position of the clock."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from consumer.replay.clock import ReplayClock
from consumer.replay.player import IDLE_MAX_S, Player, Progress, merge
from consumer.replay.recording import RecordedFrame, Recording
from consumer.replay.simulated import SimulatedOrchestrator
from tests.bacalhau.servers import nats_server, peer
from tests.replay.shared import recording
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

HOUR_S = 3600.0


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a nats-server of its own."""
    async with nats_server(tmp_path) as server, peer(server) as connected:
        yield connected


def frames_only(start_s: float, *times: float) -> Recording:
    """A recording of nothing but small frames at these seconds."""
    return Recording(
        name="made up",
        release="v1.9.3",
        start_ns=round(start_s * 1e9),
        frames=tuple(RecordedFrame(t=t, subject="a.b", data=f"{start_s + t:g}".encode()) for t in times),
        documents={},
        jobs=(),
    )


async def play(player: Player, client: Client) -> tuple[list[Msg], list[Progress]]:
    """Everything that a subscriber of all subjects gets, and what the player said meanwhile."""
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    await client.subscribe(">", cb=hear)
    await client.flush()
    told = [progress async for progress in player.play(client)]
    frames = sum(progress.frame is not None for progress in told)
    async with asyncio.timeout(DEADLINE_S):
        while len(heard) < frames:
            await client.flush()  # a round trip to the server, and a turn for `hear`
    return heard, told


@pytest.mark.parametrize("release", ["v1.5.0", "v1.6.1", "v1.9.3"])
async def test_frames_arrive_as_they_were_recorded(client: Client, release: str) -> None:
    """Subject, bytes, headers and whether an answer is wanted: of every frame, in order, NCL and raw JSON alike."""
    one = recording(f"bacalhau-{release}/burst")
    heard, told = await play(Player([one], ReplayClock([one]), speed=None), client)
    assert len(heard) == len(one.frames) > 300
    assert [(message.subject, message.data, message.headers, bool(message.reply)) for message in heard] == [
        (frame.subject, frame.data, frame.headers, frame.reply) for frame in one.frames
    ]
    inboxes = [message.reply for message in heard if message.reply]
    assert len(set(inboxes)) == len(inboxes) > 0
    assert [progress.done for progress in told] == list(range(1, told[-1].total + 1))


async def test_the_clock_goes_through_all_that_happened_in_its_order(client: Client) -> None:
    """At `max` too: at each frame the record is as it was then, and at the end everything has been passed."""
    recordings = [recording("bacalhau-v1.9.3/rerun"), recording("bacalhau-v1.9.3/queued_then_runs")]
    clock = ReplayClock(recordings)
    player = Player(recordings, clock, speed=None)
    previous = clock.now_ns
    published: list[RecordedFrame] = []
    async for progress in player.play(client):
        assert previous <= progress.t_ns == clock.now_ns
        previous = clock.now_ns
        if progress.frame is not None:
            published.append(progress.frame)
    # The one that was recorded first is played first, whatever their order on the command line.
    assert published == [*recordings[1].frames, *recordings[0].frames]
    assert clock.now_ns == max(one.ns_of(one.last_t) for one in recordings)
    whole = SimulatedOrchestrator(recordings).jobs(clock.now_ns, {}).document["Items"]
    assert whole == [job.document for one in reversed(recordings) for job in one.jobs]


def test_happenings_are_every_frame_and_every_row_by_time() -> None:
    """None is left out, and each stands at its own time."""
    recordings = [recording("bacalhau-v1.9.3/rerun"), recording("bacalhau-v1.7.0/rerun".replace("rerun", "trap"))]
    happenings = merge(recordings)
    assert len(happenings) == sum(len(one.frames) + sum(len(job.rows) for job in one.jobs) for one in recordings)
    assert [happening.t_ns for happening in happenings] == sorted(happening.t_ns for happening in happenings)


def test_what_the_record_got_at_a_frames_nanosecond_comes_before_the_frame() -> None:
    """So a read that the frame causes finds it."""
    one = recording("bacalhau-v1.9.3/success")
    same = msgspec.structs.replace(
        one, frames=(RecordedFrame(t=0, subject="a", data=b""),), start_ns=one.jobs[0].row_ns[0]
    )
    assert [happening.frame is None for happening in merge([same])][:2] == [True, False]


async def test_long_pauses_are_cut_at_any_speed(client: Client) -> None:
    """Two recordings three hours apart: the clock jumps over what is longer than 5 s of recorded time."""
    recordings = [frames_only(0, 0, 0.5), frames_only(3 * HOUR_S, 0, 0.5)]
    clock = ReplayClock(recordings)
    began = asyncio.get_running_loop().time()
    heard, _ = await play(Player(recordings, clock, speed=50), client)
    took = asyncio.get_running_loop().time() - began
    assert [message.data for message in heard] == [b"0", b"0.5", b"10800", b"10800.5"]
    assert clock.now_ns == round((3 * HOUR_S + 0.5) * 1e9)
    assert (1 + IDLE_MAX_S) / 50 <= took < 3 * HOUR_S / 50


async def test_speed_is_a_multiple_of_the_recorded_time(client: Client) -> None:
    """400 recorded seconds at 4,000 times their speed take a tenth of a second, or more; and no minute of them."""
    one = frames_only(0, *range(0, 401, 4))
    began = asyncio.get_running_loop().time()
    await play(Player([one], ReplayClock([one]), speed=4000), client)
    assert 0.1 <= asyncio.get_running_loop().time() - began < 60


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_a_speed_that_goes_nowhere_is_refused(speed: float) -> None:
    """Above 0, or as quick as it can."""
    with pytest.raises(ValueError, match="above 0"):
        Player([], ReplayClock([]), speed=speed)


async def test_when_it_ends_the_server_has_every_frame(client: Client) -> None:
    """Nothing waits in the client any more, and a subscriber hears it all."""
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    await client.subscribe("a.b", cb=hear)
    one = frames_only(0, *range(20))
    async for _ in Player([one], ReplayClock([one]), speed=None).play(client):
        pass
    assert client.pending_data_size == 0
    async with asyncio.timeout(DEADLINE_S):
        while len(heard) < 20:
            await client.flush()
    assert heard == [frame.data for frame in one.frames]


async def test_nothing_to_play_is_played_at_once(client: Client) -> None:
    """A recording without frames and jobs ends."""
    heard, told = await play(Player([frames_only(0)], ReplayClock([frames_only(0)])), client)
    assert (heard, told) == ([], [])
