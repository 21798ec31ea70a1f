"""A server of our own that takes long to recover its streams: it is waited for, told of, and never killed meanwhile.

A script in place of the binary stands in for the slow disk: it becomes the real nats-server once a file is there.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from consumer.errors import ServerError
from consumer.jetstream import server as servers
from consumer.jetstream.server import EmbeddedServer, find_binary
from tests.daemon.process import ROOT
from tests.server import Server
from tests.waiting import DEADLINE_S, given_time, until

pytestmark = pytest.mark.server

LOOKS: Final = 20
"""So often `mend` looks before the test believes that it leaves a server alone."""


class Slow:
    """A binary that becomes nats-server when told to `go`, and until then says only that it was told to end."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._gate: Final = folder / "go"
        self.terminated: Final = folder / "terminated"
        self.binary: Final = folder / "nats-server"
        self.binary.write_text(
            f"#!/bin/sh\ntrap 'touch {self.terminated}; exit 0' TERM\necho 'Starting restore for stream' >&2\n"
            f'while [ ! -e {self._gate} ]; do sleep 0.05; done\nexec {find_binary()} "$@"\n'
        )
        self.binary.chmod(0o700)

    def go(self) -> None:
        """Its store is recovered."""
        self._gate.touch()

    def hold(self) -> None:
        """The next one is slow again."""
        self._gate.unlink()


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slow:
    """What `EmbeddedServer` starts in this test."""
    made = Slow(tmp_path / "slow")
    monkeypatch.setattr(servers, "find_binary", lambda: str(made.binary))
    return made


async def test_a_server_that_recovers_is_waited_for(tmp_path: Path, slow: Slow) -> None:
    """It says what it is at, with the last line of its log; the process that began is the one that is ready."""
    server = EmbeddedServer(tmp_path / "nats")
    starting = asyncio.create_task(server.start())
    await until(
        lambda: "(Starting restore for stream)" in server.recovery, "the word on the recovery, and its last line"
    )
    assert f"the nats-server in {server.folder} has been recovering its streams for " in server.recovery
    first = server.pid
    slow.go()
    await asyncio.wait_for(starting, DEADLINE_S)
    assert (server.pid, server.recovery) == (first, "")
    await server.stop()
    assert not slow.terminated.exists()


async def test_one_that_takes_too_long_is_told_to_end_and_names_the_setting(tmp_path: Path, slow: Slow) -> None:
    """By SIGTERM, so that it can end in order."""

    async def attempt(start_s: float) -> str:
        with pytest.raises(ServerError) as caught:
            await EmbeddedServer(tmp_path / "nats", start_s=start_s).start()
        assert f"within {start_s:g} s (embedded.start_s, JOBSTATE_EMBEDDED__START_S)" in str(caught.value)
        return str(caught.value)

    said = await given_time(attempt, lambda said: "restore" in said)
    assert "Starting restore for stream" in said
    assert slow.terminated.exists()


async def test_who_stops_waiting_ends_it_in_order(tmp_path: Path, slow: Slow) -> None:
    """As the daemon does that is told to end meanwhile."""
    server = EmbeddedServer(tmp_path / "nats")
    starting = asyncio.create_task(server.start())
    await until(lambda: "restore" in server.recovery, "the word on the recovery, by a script that hears SIGTERM")
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert slow.terminated.exists()
    assert server.pid is None


@pytest.fixture
async def server(tmp_path: Path, slow: Slow) -> AsyncIterator[Server]:
    """One that is ready; the next start of it is slow."""
    slow.go()
    async with Server(tmp_path / "nats") as made:
        slow.hold()
        yield made
        slow.go()


async def test_the_mender_leaves_one_that_recovers_alone(server: Server, slow: Slow) -> None:
    """It confirms nothing while it recovers, and has confirmed nothing for that long when it has just recovered."""
    looks = 0

    def unconfirmed_s() -> float:
        nonlocal looks
        looks += 1
        return 1e9

    told: list[str] = []
    assert server.pid is not None
    keeping = asyncio.create_task(server.keep(told.append))
    server._process.kill()  # type: ignore[union-attr] # it crashes
    await until(lambda: server.recovery, "its recovery, by its keeper")
    first = server.pid
    mending = asyncio.create_task(server.mend(unconfirmed_s, lambda *_: None, after_s=0.01))
    await until(lambda: looks > LOOKS, "the mender's looks")
    assert server.pid == first
    mending.cancel()
    slow.go()
    await until(lambda: told, "the end of its recovery")
    assert server.pid == first
    looks = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "ROOM_LOOK_S", 0.01)
        mending = asyncio.create_task(server.mend(unconfirmed_s, lambda *_: None, after_s=DEADLINE_S))
        await until(lambda: looks > LOOKS, "the mender's looks")
    assert server.pid == first
    for task in (keeping, mending):
        task.cancel()
    await asyncio.gather(keeping, mending, return_exceptions=True)


PROGRAM: Final = """
import sys
import consumer.jetstream.server as servers
binary = sys.argv.pop(1)
servers.find_binary = lambda: binary
from consumer.cli import main
main()
"""


class Started:
    """`jobstate run --embedded` with that binary."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self._said: Final = folder / "said"
        with self._said.open("wb") as output:
            self.process: Final = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(binary), "run", "--embedded", "--folder", str(folder / "nats")],
                cwd=ROOT,
                env={"JOBSTATE_HTTP__PORT": "0", "JOBSTATE_LOG__FORMAT": "json"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Its lines of that name."""
        whole = self._said.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if f'"event": "{event}"' in line]

    async def until_status(self, status: int, words: str) -> None:
        """Wait until /readyz says so."""
        await until(lambda: self.lines("server.starting"), self._said.read_text)
        url = self.lines("server.starting")[0]["http"]
        async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE_S):
            while True:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == status and words in await answer.text():
                        return
                await asyncio.sleep(0.02)


async def test_the_daemon_says_what_its_server_is_at_and_goes_on_when_it_is_ready(tmp_path: Path) -> None:
    """In its log and at /readyz, from the start on."""
    slow = Slow(tmp_path / "slow")
    daemon = Started(tmp_path, slow.binary)
    try:
        await daemon.until_status(503, "has been recovering its streams for")
        assert daemon.lines("server.recovering")
        slow.go()
        await daemon.until_status(200, "")
        daemon.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.process.wait, DEADLINE_S) == 0
    finally:
        daemon.process.kill()
        daemon.process.wait()


async def test_the_daemon_can_be_told_to_end_while_its_server_recovers(tmp_path: Path) -> None:
    """With exit 0, and the server ended in order."""
    slow = Slow(tmp_path / "slow")
    daemon = Started(tmp_path, slow.binary)
    try:
        await daemon.until_status(503, "has been recovering its streams for")
        daemon.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.process.wait, DEADLINE_S) == 0
        assert slow.terminated.exists()
    finally:
        daemon.process.kill()
        daemon.process.wait()
