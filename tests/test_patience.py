"""Patience runs out like a time limit, and not because the process was stopped meanwhile."""

import asyncio

import pytest

from consumer.patience import PARTS, patience
from tests.waiting import DEADLINE_S, LIMIT_S

HOUR_S = 3600.0


class Sleeper:
    """The running loop's clock, on which `stop` lets an hour pass at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self._time, self._stopped_s = self._loop.time, 0.0
        monkeypatch.setattr(self._loop, "time", lambda: self._time() + self._stopped_s)

    async def stop(self) -> None:
        """Returns when every timer that is over by then has run."""
        self._stopped_s += HOUR_S
        for _ in range(5):
            await asyncio.sleep(0)


async def test_it_runs_out_when_nothing_comes() -> None:
    """After its time, and not before."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(DEADLINE_S), patience(LIMIT_S):
            await asyncio.Event().wait()
    assert loop.time() - began >= 0.99 * LIMIT_S


async def test_a_stop_costs_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """All stops but one are survived, however long they are; then it is over."""
    sleeper = Sleeper(monkeypatch)
    stops = 0

    async def stop_for_ever() -> None:
        nonlocal stops
        async with patience(DEADLINE_S):
            while True:
                stops += 1
                await sleeper.stop()

    with pytest.raises(TimeoutError):
        await stop_for_ever()
    assert stops == PARTS


async def test_what_comes_in_time_is_no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of it is left that could end what follows."""
    sleeper = Sleeper(monkeypatch)
    async with patience(DEADLINE_S):
        await asyncio.sleep(0)
    for _ in range(2 * PARTS):
        await sleeper.stop()


async def test_it_can_be_ended_earlier() -> None:
    """By whoever has its `Timeout`; a cancellation from outside stays one."""

    async def wait(*, ends: bool) -> None:
        async with patience(DEADLINE_S) as limit:
            if ends:
                limit.reschedule(0)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await wait(ends=True)
    waiting = asyncio.create_task(wait(ends=False))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
