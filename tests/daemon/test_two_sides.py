"""Two daemons beside one cluster and one server, each with troubles of its own: one log, right.

What each suffers alone is in `tests.lab.faults` and `test_torture`; here neither has a healthy one beside it.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from aiohttp import web

from consumer.model import Update
from consumer.replay.server import OrchestratorServer
from consumer.replay.simulated import SimulatedOrchestrator
from consumer.replay.stage import DaemonProcess, Stage
from consumer.replay.verdict import judge
from tests.lab.torture import count_said, load, make_folder, until_said
from tests.waiting import DEADLINE_S

CUT_EACH_S: Final = 0.5
STALE_NS: Final = 1_500_000_000


class Crooked:
    """What an orchestrator answers where it does not answer as it should, drawn for each request; counted by kind."""

    def __init__(self, kinds: list[str], seed: int, record: SimulatedOrchestrator, stage: Stage) -> None:
        self._kinds: Final = kinds
        self._dice: Final = random.Random(seed)
        self._record: Final = record
        self._stage: Final = stage
        self.done: Final[Counter[str]] = Counter()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """None: the record answers."""
        if self._dice.random() < 0.6:
            return None
        kind = self._dice.choice(self._kinds)
        self.done[kind] += 1
        match kind:
            case "stale":
                reply = self._record.answer(self._stage.clock.now_ns - STALE_NS, request.raw_path)
                headers = {"X-Bacalhau-Git-Version": self._record.release}
                return web.Response(
                    status=reply.status, body=reply.body, content_type="application/json", headers=headers
                )
            case "slow":
                await asyncio.sleep(self._dice.random() * 0.4)
                return None
            case "server error":
                return web.Response(status=500, body=b'{"Status":500,"Message":"boom"}')
            case "html":
                return web.Response(body=b"<!DOCTYPE html><title>hello</title>", content_type="text/html")
            case _:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()


class Cable:
    """A way to a server that is cut now and then: frames sent meanwhile are lost. `cut` counts how often."""

    def __init__(self, port: int) -> None:
        self._port: Final = port
        self._open: Final[set[asyncio.StreamWriter]] = set()
        self.cut = 0

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        """The address of its near end."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        cutting = asyncio.create_task(self._cut())
        try:
            yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            cutting.cancel()
            server.close()
            for end in self._open:
                end.close()

    async def _cut(self) -> None:
        while True:
            await asyncio.sleep(CUT_EACH_S)
            self.cut += bool(self._open)
            for end in tuple(self._open):
                end.transport.abort()

    async def _carry(self, near_in: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        far_in, far = await asyncio.open_connection("127.0.0.1", self._port)
        self._open.update((near, far))
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pour(near_in, far))
                both.create_task(_pour(far_in, near))
        finally:
            self._open.difference_update((near, far))


async def _pour(source: asyncio.StreamReader, end: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65_536):
            end.write(data)
            await end.drain()
    end.transport.abort()


async def test_two_daemons_with_troubles_of_their_own_leave_one_right_log(tmp_path: Path) -> None:
    """One is told old and late answers; the other gets errors, and its frames are cut off: each state once.

    The first is killed halfway. At every moment the log is a beginning of the record's history; in the end all of it.
    """
    recordings = load("v1.9.3", ["burst"])
    records = [job for one in recordings for job in one.jobs]
    record = SimulatedOrchestrator(recordings)
    updates: list[Update] = []
    came = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        stage = await stack.enter_async_context(Stage(recordings, tmp_path, 2.0, print))
        first = stage.daemon
        assert first is not None
        beside = await stack.enter_async_context(OrchestratorServer(record, stage.clock))
        cable = Cable(int(stage.server.url.rpartition(":")[2]))
        variables = stage.variables() | {
            "JOBSTATE_ORCHESTRATOR__URL": beside.url,
            "JOBSTATE_BACALHAU__URL": await stack.enter_async_context(cable.laid()),
        }
        second = await stack.enter_async_context(DaemonProcess(make_folder(tmp_path / "second"), variables, print))
        for daemon in (first, second):
            await until_said(daemon, b"log.recovered")
        stage.orchestrator.fault = old = Crooked(["stale", "slow"], 1, record, stage)
        beside.fault = wrong = Crooked(["server error", "html", "reset", "slow"], 2, record, stage)
        feed, killed = asyncio.create_task(_gather(stage, updates, came)), False
        try:
            async for progress in stage.play():
                # Halfway, and not before it has published anything: on a slow machine that may come later.
                if not killed and 2 * progress.done >= progress.total and count_said(first, b'"update.published"'):
                    assert first.pid is not None
                    os.kill(first.pid, signal.SIGKILL)
                    killed = True
            async with asyncio.timeout(DEADLINE_S):
                while not judge(records, updates).ok:
                    await came.wait()
                    came.clear()
        except TimeoutError:
            pass  # then the verdict says how it is wrong
        finally:
            feed.cancel()
        verdict, published = (
            judge(records, updates),
            [count_said(one, b'"update.published"') for one in (first, second)],
        )
        refused = await stage.refused()

    assert verdict.ok, verdict
    assert killed
    assert refused == (0, 0)
    assert [len(one.done) for one in (old, wrong)] == [2, 4]
    assert cable.cut > 0
    assert min(published) > 0, published


async def _gather(stage: Stage, updates: list[Update], came: asyncio.Event) -> None:
    async for _, update in stage.feed():
        updates.append(update)
        came.set()
