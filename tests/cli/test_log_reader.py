"""Whoever reads the daemon's log lines stands still: the daemon goes on, and says later what was lost."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import pytest

from consumer.errors import ExitCode
from consumer.observe.output import WAITING_MAX
from tests.cli.conftest import Stage
from tests.daemon.process import NAMES, ROOT, SMALL_STREAMS
from tests.loopback import free_port
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

REPORTS: Final = 2 * WAITING_MAX // 200
"""Each makes a line of nearly 200 characters: together more than pipe and daemon hold."""


class Unread:
    """A daemon whose standard error is a pipe."""

    def __init__(self, url: str, port: int) -> None:
        self.reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        kept = {name: text for name, text in os.environ.items() if not name.startswith("JOBSTATE_")}
        ours = {"NATS__URL": url, "HTTP__PORT": str(port), "LOG__LINES_PER_S": "100000", "LOG__FORMAT": "json"}
        self.process: Final = subprocess.Popen(
            [sys.executable, "-m", "consumer", "run"],
            env=kept | SMALL_STREAMS | {f"JOBSTATE_{name}": text for name, text in ours.items()},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=writing,
        )
        os.close(writing)
        self._url: Final = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of its answer; 0 if there is none."""
        limit = aiohttp.ClientTimeout(total=DEADLINE_S)
        try:
            async with aiohttp.ClientSession(timeout=limit) as session, session.get(f"{self._url}{path}") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def number(self, name: str) -> float:
        """The sample *name* of its /metrics."""
        _, text = await self.get("/metrics")
        return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)

    async def until_ready(self) -> None:
        """Wait until it is."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.get("/readyz"))[0] != 200:
                assert self.process.poll() is None
                await asyncio.sleep(0.05)

    def lines_until(self, event: str) -> list[dict[str, object]]:
        """Its lines, up to one of *event*."""
        said = b""
        while f'"event": "{event}"'.encode() not in said.rpartition(b"\n")[0]:
            piece = os.read(self.reading, 1 << 20)
            assert piece, said[-2000:]
            said += piece
        return [json.loads(line) for line in said.rpartition(b"\n")[0].splitlines()]

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        os.close(self.reading)


@pytest.fixture
async def unread(bare: Stage) -> AsyncIterator[Unread]:
    """A daemon that is ready, and whose lines nobody reads."""
    daemon = Unread(bare.server.url, free_port())
    try:
        await daemon.until_ready()
        yield daemon
    finally:
        daemon.kill()


async def flood(stage: Stage) -> None:
    """Reports enough to fill what holds the daemon's lines."""
    for number in range(REPORTS):
        await stage.client.publish(f"{NAMES.in_prefix}default.j-{number}", b'{"StateType": "Running"}')
    await stage.client.flush(int(DEADLINE_S))


async def test_it_goes_on_and_tells_later(bare: Stage, unread: Unread) -> None:
    """Every report becomes what it becomes, it lives and is ready; once its lines are read it says how many it lost."""
    await flood(bare)
    await bare.bucket_has(REPORTS)
    assert await unread.number("jobstate_log_lines_lost_total") > 0
    assert (await unread.get("/livez"))[0] == 200
    assert (await unread.get("/readyz"))[0] == 200

    lines = await asyncio.to_thread(unread.lines_until, "log.lost")
    lost = await unread.number("jobstate_log_lines_lost_total")
    unread.process.send_signal(signal.SIGTERM)
    lines += await asyncio.to_thread(unread.lines_until, "daemon.stopped")
    told = [line for line in lines if line["event"] == "log.lost"]
    assert sum(int(str(line["lines"])) for line in told) == lost
    assert told[0]["level"] == "warning"
    assert lines[-1]["drained"] is True
    assert await asyncio.to_thread(unread.process.wait, DEADLINE_S) == ExitCode.OK


async def test_sigterm_ends_it_though_nobody_reads(bare: Stage, unread: Unread) -> None:
    """In order, with its exit code."""
    await flood(bare)
    unread.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(unread.process.wait, DEADLINE_S) == ExitCode.OK
