"""`jobstate run` as a process of its own, and what can be seen of it from outside: its lines, its numbers, its end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from nats.js import JetStreamContext
from prometheus_client.parser import text_string_to_metric_families

from consumer.jetstream.server import end_with_parent
from consumer.model import JobKey, Update
from consumer.wire.subjects import Names
from consumer.wire.update import decode_update
from tests.waiting import DEADLINE_S

ROOT: Final = Path(__file__).parents[2]
NAMES: Final = Names()

SMALL_STREAMS: Final = {
    "JOBSTATE_STREAMS__LOG_MAX_BYTES": "100000000",
    "JOBSTATE_STREAMS__INPUT_MAX_BYTES": "100000000",
}
"""The server reserves what a stream may grow to."""

Numbers = dict[tuple[str, ...], float]


class Daemon:
    """One process. *variables* are settings, beside those that every test needs; *arguments* follow `run`.

    *program* is the folder whose `consumer` it runs: this repository, or a worktree of an older commit.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str], *arguments: str, program: Path = ROOT) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output: Final = folder / "daemon.log"
        self._read_from = self.output.stat().st_size if self.output.exists() else 0
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("JOBSTATE_", "COV_"))}
        common = {
            "JOBSTATE_HTTP__PORT": "0",
            "JOBSTATE_LOG__FORMAT": "json",
            **SMALL_STREAMS,
            "PYTHONWARNINGS": "error",
        }
        with self.output.open("ab") as output:
            self.process: Final = subprocess.Popen(
                [sys.executable, "-m", "consumer", "run", *arguments],
                env=kept | common | dict(variables),
                cwd=program,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent(),
            )

    # -- what it says -------------------------------------------------------------------------------------------------

    def said(self) -> str:
        """All that this process has written so far."""
        return self.output.read_bytes()[self._read_from :].decode()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of the name *event*."""
        whole = self.said().rpartition("\n")[0]
        return [json.loads(text) for text in whole.splitlines() if f'"event": "{event}"' in text]

    async def line(self, event: str) -> dict[str, Any]:
        """The first line *event*, once it is there."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not (found := self.lines(event)):
                    assert self.process.poll() is None, self.said()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"never said {event!r}:\n{self.said()}")
        return found[0]

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of its HTTP server's answer."""
        url = (await self.line("daemon.started"))["http"]
        async with aiohttp.ClientSession() as session, session.get(f"{url}{path}") as answer:
            return answer.status, await answer.text()

    async def until_ready(self) -> None:
        """Wait until /readyz says so."""
        await self.until_status(200)

    async def until_status(self, status: int, containing: str = "") -> dict[str, Any]:
        """Wait until /readyz answers *status*, with *containing* somewhere in it; gives the answer."""
        found = (0, "")
        try:
            async with asyncio.timeout(DEADLINE_S):
                while found[0] != status or containing not in found[1]:
                    found = await self.get("/readyz")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"/readyz never said {status} {containing!r}, but {found}:\n{self.said()}")
        answer: dict[str, Any] = json.loads(found[1])
        return answer

    async def numbers(self, *names: str) -> Numbers:
        """Samples of /metrics whose name begins with one of *names*, by name and label values."""
        _, text = await self.get("/metrics")
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(names) and not sample.name.endswith("_created")
        }

    @property
    def memory(self) -> int:
        """Bytes of it that are in memory now."""
        return resident(self.process.pid)

    # -- how it ends --------------------------------------------------------------------------------------------------

    def tell(self, sign: signal.Signals) -> None:
        """Send it *sign*."""
        self.process.send_signal(sign)

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while self.process.poll() is None:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"has not ended:\n{self.said()}")
        assert self.process.returncode is not None
        return self.process.returncode

    async def stop(self) -> int:
        """Send it SIGTERM; its exit code."""
        self.tell(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def resident(pid: int) -> int:
    """Bytes of a process that are in memory now, by Linux's `/proc` (`proc(5)`, statm)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def updates_of(stream: JetStreamContext, key: JobKey, count: int, names: Names = NAMES) -> list[Update]:
    """The updates of the job *key* in the log, once there are *count*; with no look at what else is there."""
    found = [decode_update(body) for body in await bodies(stream, names.log, names.states(key), count)]
    return sorted(found, key=lambda update: update.Sequence)


async def bodies(stream: JetStreamContext, name: str, subjects: str, count: int) -> list[bytes]:
    """The bodies of all entries of the stream *name* under *subjects*, once there are *count* or more."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(found := await entries(stream, name, subjects)) < count:
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"{name} never had {count} entries under {subjects}")
    return [body for _, body in found]


async def entries(stream: JetStreamContext, name: str, subjects: str) -> list[tuple[str, bytes]]:
    """Subject and body of every entry of the stream *name* under *subjects*, as it is now."""
    found: list[tuple[str, bytes]] = []
    number = 0
    while True:
        request = msgspec.json.encode({"seq": number + 1, "next_by_subj": subjects})
        answer = await stream._nc.request(f"$JS.API.STREAM.MSG.GET.{name}", request, timeout=DEADLINE_S)
        message = msgspec.json.decode(answer.data, type=_Got).message
        if message is None:
            return found
        number = message.seq
        found.append((message.subject, message.data))


class _Message(msgspec.Struct, frozen=True):
    subject: str
    seq: int
    data: bytes = b""


class _Got(msgspec.Struct, frozen=True):
    message: _Message | None = None
