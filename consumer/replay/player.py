"""Plays recordings: publishes their frames on a real NATS server, and moves the clock that the orchestrator answers by.

Several recordings are played into one time line, each happening at its own recorded time. Nothing here reads a frame.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import nats.errors
from nats.aio.client import Client

from consumer.errors import UnreachableError
from consumer.patience import look_until
from consumer.replay.clock import ReplayClock
from consumer.replay.recording import RecordedFrame, Recording

IDLE_MAX_S: Final = 5.0
"""Recorded seconds: a longer pause, as between two recordings, is cut to this. The clock jumps over the rest."""

RETRY_S: Final = 0.02
AWAY_S: Final = 30.0
FLUSH_S: Final = 1
"""A server that was killed never answers: so long until the one in its place is asked."""


class Happening(NamedTuple):
    """A frame, or (None) a new row in the record of a job, at *t_ns* of the recorded wall clock."""

    t_ns: int
    frame: RecordedFrame | None


class Progress(NamedTuple):
    """*done* of *total* happenings; the clock stands at *t_ns*. `frame` is the one just published, if it was one."""

    done: int
    total: int
    t_ns: int
    frame: RecordedFrame | None


def merge(recordings: Sequence[Recording]) -> list[Happening]:
    """All happenings of *recordings* by time. At the same nanosecond the record goes before the frame."""
    rows = [Happening(t_ns, None) for recording in recordings for job in recording.jobs for t_ns in job.row_ns]
    frames = [Happening(recording.ns_of(frame.t), frame) for recording in recordings for frame in recording.frames]
    return sorted(rows + frames, key=lambda happening: happening.t_ns)  # stable: frames stay in order of arrival


class Player:
    """Plays *recordings* once. *speed* is a multiple of the recorded time, None as quickly as it can (`max`).

    At every speed the clock stands at a frame's time before the frame is published, and has passed every change of the
    record before it, so what a reader finds after a frame is never older than when it was recorded.
    """

    def __init__(self, recordings: Sequence[Recording], clock: ReplayClock, speed: float | None = 1.0) -> None:
        if speed is not None and not speed > 0:
            raise ValueError("speed must be above 0, or None for as quick as it can")
        self._happenings: Final = merge(recordings)
        self._clock: Final = clock
        self._speed: Final = speed

    async def play(self, client: Client) -> AsyncIterator[Progress]:
        """Play all, yielding after each happening. When it ends the server has every frame.

        A frame that asked for an answer is published with an inbox on which nobody listens, as the real one was heard.
        """
        total = len(self._happenings)
        before_ns = self._happenings[0].t_ns if self._happenings else 0
        due = asyncio.get_running_loop().time()
        for done, (t_ns, frame) in enumerate(self._happenings, 1):
            if self._speed is not None:
                due += min((t_ns - before_ns) / 1e9, IDLE_MAX_S) / self._speed
            before_ns = t_ns
            # At `max` this is a turn for whoever reads: the server of the record may run in this loop.
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            self._clock.advance(t_ns)
            if frame is not None:
                # Messages that nats-py puts aside while it reconnects would land in one heap, or not at all.
                await _until_connected(client)
                reply = client.new_inbox() if frame.reply else ""
                await client.publish(frame.subject, frame.data, reply=reply, headers=frame.headers)
            yield Progress(done, total, t_ns, frame)
        await _until_taken(client)


async def _until_connected(client: Client) -> None:
    try:
        async with asyncio.timeout(AWAY_S):
            await look_until(lambda: client.is_connected, RETRY_S)
    except TimeoutError:
        raise UnreachableError(
            f"no nats-server for {AWAY_S:.0f} s, so the recording cannot be played on: see why it does not start"
        ) from None


async def _until_taken(client: Client) -> None:
    """Wait until the server has everything that was sent, or is another: then what it had is gone, as in life."""
    while True:
        try:
            await client.flush(FLUSH_S)
        except nats.errors.Error:
            if client.is_closed:
                raise
        else:
            return
