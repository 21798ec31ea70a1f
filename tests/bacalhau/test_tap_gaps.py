"""What is told when: a gap before the frames that came after it, and a permission that was taken away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import random

import pytest
import structlog
from nats.aio.client import Client

from consumer.bacalhau.tap import DENIED, RECONNECT, SLOW_CONSUMER, SUBJECTS, Tap
from consumer.ports import RawFrame
from tests.bacalhau.listening import frames, quick, running
from tests.bacalhau.relay import Relay, relay
from tests.bacalhau.servers import nats_server, peer, settle
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.server

IN = "bacalhau.global.compute.n-1.in.msgs"
CALLBACK = "node.orchestrator.n-0.OnRunComplete/v1"
HELD_S = 60
"""The tap waits so long for the line that is held back."""
GIVEN_UP_S = 10
"""The same where the connection is to be cut meanwhile: nats-py waits on, and the next is tried only then."""
USER = "authorization {{ users: [ {{ user: tap, password: p{} }} ] }}\nno_auth_user: tap\n"


# -- frames that came before it listens --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def between(
    folder: Path, *, connect_timeout_s: int = HELD_S, **bounds: int
) -> AsyncIterator[tuple[Tap, Relay, Client]]:
    """A tap behind a relay, the relay, and a peer of the tap on the server."""
    async with nats_server(folder) as server, peer(server) as bacalhau, relay(server.port) as way:
        tap = quick(way.url, connect_timeout_s=connect_timeout_s, dice=random, **bounds)
        yield tap, way, bacalhau


async def say_early(way: Relay, bacalhau: Client, *bodies: bytes) -> None:
    """Publish *bodies* while the server has all subscriptions and the tap does not know; returns when it has read them.

    The relay must be told to hold first.
    """
    await until(lambda: way.held, "a connection about to listen")
    for body in bodies:
        await bacalhau.publish(IN, body)
    await settle(bacalhau)
    await way.heard(bodies[-1] + b"\r\n")


async def test_an_early_frame_is_not_handed_out_before_the_gap(tmp_path: Path) -> None:
    """After a reconnect a frame comes before the tap knows that it listens: `batch` gives it with the gap."""
    async with between(tmp_path) as (tap, way, bacalhau), running(tap):
        way.hold = True
        way.cut()
        waiting = asyncio.create_task(tap.batch())
        await say_early(way, bacalhau, b"early")
        assert (waiting.done(), tap.taken, tap.gaps) == (False, 0, 0)
        way.release()
        assert await asyncio.wait_for(waiting, DEADLINE_S) == [RawFrame(IN, b"early")]
        assert (tap.gaps_by, tap.taken, tap.connections) == ({RECONNECT: 1}, 1, 2)


async def test_early_frames_come_behind_what_waits(tmp_path: Path) -> None:
    """What the lost connection left, then what came before the new one listened, then the rest: the server's order."""
    async with between(tmp_path) as (tap, way, bacalhau), running(tap):
        await bacalhau.publish(IN, b"left")
        await until(lambda: tap.taken == 1, "the frame before the loss")
        way.hold = True
        way.cut()
        await say_early(way, bacalhau, b"early-1", b"early-2")
        way.release()
        await bacalhau.publish(IN, b"late")
        await until(lambda: tap.taken == 4, "all frames")
        assert [frame.data for frame in await tap.batch()] == [b"left", b"early-1", b"early-2", b"late"]
        assert tap.gaps_by == {RECONNECT: 1}


async def test_early_frames_of_the_first_connection_are_given_without_a_gap(tmp_path: Path) -> None:
    """Nothing was missed: they come out all the same, once it listens, though nothing else wakes `batch`."""
    async with between(tmp_path) as (tap, way, bacalhau):
        way.hold = True
        task = asyncio.create_task(say_early(way, bacalhau, b"early"))
        task.add_done_callback(lambda _: way.release())
        async with running(tap):
            await task
            assert await frames(tap, 1) == [RawFrame(IN, b"early")]
            assert tap.gaps == 0


async def test_early_frames_of_a_connection_that_never_listens_are_dropped(tmp_path: Path) -> None:
    """They are not handed out later, they take no room from what comes then, and one gap tells of it."""
    async with between(tmp_path, connect_timeout_s=GIVEN_UP_S, frames_bytes=8) as (tap, way, bacalhau), running(tap):
        way.hold = True
        way.cut()
        await say_early(way, bacalhau, b"early")
        way.hold = False
        way.cut()
        await until(lambda: tap.gaps >= 1, "the next connection")
        await bacalhau.publish(IN, b"later")
        await until(lambda: tap.taken + tap.dropped == 1, "the frame counted")
        assert await frames(tap, 1) == [RawFrame(IN, b"later")]
        assert (tap.gaps_by, tap.connections, tap.dropped) == ({RECONNECT: 1}, 2, 0)


@pytest.mark.parametrize("bound", [{"frames_max": 3}, {"frames_bytes": 15}])
async def test_early_frames_count_for_the_bounds(tmp_path: Path, bound: dict[str, int]) -> None:
    """With what waits they are never more than the bounds, also once that was taken; what is over them is a gap."""
    async with between(tmp_path, **bound) as (tap, way, bacalhau), running(tap):
        for body in (b"left1", b"left2"):
            await bacalhau.publish(IN, body)
        await until(lambda: tap.taken == 2, "the frames before the loss")
        way.hold = True
        way.cut()
        await say_early(way, bacalhau, b"held1", b"drop1")
        assert (tap.dropped, tap.gaps_by) == (1, {SLOW_CONSUMER: 1})
        assert [frame.data for frame in await tap.batch()] == [b"left1", b"left2"]
        await say_early(way, bacalhau, b"held2", b"held3", b"drop2")
        assert (tap.dropped, tap.gaps_by) == (2, {SLOW_CONSUMER: 2})
        way.release()
        await asyncio.wait_for(tap.listening(), DEADLINE_S)
        assert [frame.data for frame in await tap.batch()] == [b"held1", b"held2", b"held3"]
        assert tap.gaps_by == {SLOW_CONSUMER: 2, RECONNECT: 1}


# -- permissions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", [SUBJECTS[0], SUBJECTS[-1]])
async def test_a_permission_that_is_taken_away_ends_the_connection(tmp_path: Path, subject: str) -> None:
    """A reload takes one subscription away: not connected, the reason with its step, tried till it is given back.

    The server keeps the connection and goes on saying nothing: it would be deaf for ever.
    """
    granted = USER.format("")
    async with nats_server(tmp_path, granted) as server:
        tap = quick(server.url)
        async with running(tap):
            with structlog.testing.capture_logs() as lines:
                server.reload(USER.format(f', permissions: {{ subscribe: {{ deny: "{subject}" }} }}'))
                await until(lambda: tap.tries >= 4, "a third try that is refused")
            assert (tap.connected, tap.gaps) == (False, 0)
            assert tap.last_error == f'nats: permissions violation for subscription to "{subject.lower()}"'
            assert tap.next_step == "grant this user what docs/guide/real-cluster.md lists"
            (lost,) = (line for line in lines if line["event"] == "tap.lost")
            assert (lost["cause"], lost["next_step"]) == (DENIED, tap.next_step)
            assert subject.lower() in lost["reason"]

            server.reload(granted)
            assert await asyncio.wait_for(tap.batch(), DEADLINE_S) == []
            assert (tap.connected, tap.connections, tap.gaps_by) == (True, 2, {DENIED: 1})
            async with peer(server) as bacalhau:
                await bacalhau.publish(IN, b"after")
                assert await frames(tap, 1) == [RawFrame(IN, b"after")]


async def test_what_comes_after_a_refusal_is_not_handed_out_before_the_gap(tmp_path: Path) -> None:
    """The other subscriptions stand for a moment longer: what they bring comes after what is missed already.

    What else ends the connection then is not what is told.
    """
    async with between(tmp_path) as (tap, way, bacalhau), running(tap):
        (number,) = (line.split()[-1] for line in way.said if line.startswith(b"SUB node.orchestrator."))
        refusal = f"-ERR 'Permissions Violation for Subscription to \"{SUBJECTS[0]}\"'\r\n".encode()
        with structlog.testing.capture_logs() as lines:
            way.say(refusal + b"MSG %s %s 5\r\nlater\r\n-ERR 'Slow Consumer'\r\n" % (CALLBACK.encode(), number))
            assert await asyncio.wait_for(tap.batch(), DEADLINE_S) == []
        assert [line["reason"] for line in lines if line["event"] == "tap.lost"] == [
            f'nats: permissions violation for subscription to "{SUBJECTS[0]}"'
        ]
        assert tap.gaps_by == {DENIED: 1}
        await bacalhau.publish(IN, b"after")
        assert await frames(tap, 1) == [RawFrame(IN, b"after")]


async def test_a_refusal_is_forgotten_with_its_connection(tmp_path: Path) -> None:
    """Refused and cut off at once; the next connection is let in, and its own end is not told as a refusal."""
    async with between(tmp_path, connect_timeout_s=GIVEN_UP_S) as (tap, way, _):
        way.hold = True
        task = asyncio.create_task(refuse_and_cut(way))
        with structlog.testing.capture_logs() as lines:
            async with running(tap):
                await task
                assert (tap.tries, tap.connections) == (2, 1)
                way.say(b"-ERR 'Slow Consumer'\r\n")
                await until(lambda: tap.connections >= 2, "the next connection")
        (lost,) = (line for line in lines if line["event"] == "tap.lost")
        assert (lost["cause"], lost["next_step"]) == (SLOW_CONSUMER, "look at that server's own log")
        assert "slow consumer" in lost["reason"]


async def refuse_and_cut(way: Relay) -> None:
    """End the connection that is about to listen, after a refusal that the tap has read."""
    await until(lambda: way.held, "a connection about to listen")
    way.say(f"-ERR 'Permissions Violation for Subscription to \"{SUBJECTS[0]}\"'\r\n".encode())
    await way.settle()
    way.hold = False
    way.cut()
