"""An orchestrator that is stopped, wrong or slow while 1,000 jobs run: `make faults`. Not run by CI (three minutes).

`python -m tests.lab.faults [--jobs N] [--only FAULT…] [--json]`: the load of `tests.lab.load` through real servers and
the real daemon, and one fault after the other at the orchestrator. Of each: how long until `/readyz` and the daemon's
log name it, and until the daemon is ready again after it is over; in the end whether the log is the record, whether it
was the same daemon process all the time, and how much memory it took. Ends with 1 if an aim of the issue is missed.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
from aiohttp import web

from consumer.model import Update
from consumer.replay.stage import Stage
from consumer.replay.verdict import judge
from tests.daemon.process import resident
from tests.lab.load import START_NS, Aims, Mould, assemble

NAMED_S: Final = 5.0
"""The aim: so long after a fault begins everybody who looks can read what it is."""
LASTS_S: Final = 8.0
HEALS_S: Final = 20.0
GROWS_MAX: Final = 128 * 1024 * 1024
"""By so many bytes the daemon may grow while faults last: sixteen endless answers at once, each up to its bound."""

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _fixed(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Answer:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=content_type, headers=headers)

    return answer


async def _hang(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def _cut(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"Items":[')
    assert request.transport is not None
    request.transport.abort()
    return response


async def _reset(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _huge(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        for _ in range(4096):
            await response.write(b" " * 65_536)
    except ConnectionError:
        return response  # whoever asked has had enough
    return response


FAULTS: Final[dict[str, tuple[Answer, str]]] = {
    "html": (_fixed(200, b"<!DOCTYPE html><title>hello</title>", "text/html"), "html"),
    "500": (_fixed(500, b'{"Status":500,"Message":"boom"}'), "server-error"),
    "401": (_fixed(401, b'{"Status":401}'), "unauthorized"),
    "403": (_fixed(403, b'{"Status":403}'), "forbidden"),
    "429": (_fixed(429, b"{}", **{"Retry-After": "1"}), "throttled"),
    "redirect": (_fixed(302, b"", Location="http://127.0.0.1:1/"), "redirect"),
    "not JSON": (_fixed(200, b"\x00\x01\x02"), "not-json"),
    "wrong shape": (_fixed(200, b'{"Items":7,"Job":7}'), "wrong-shape"),
    "compressed": (_fixed(200, b"\x1f\x8b\x08", **{"Content-Encoding": "gzip"}), "encoded"),
    "cut": (_cut, "cut"),
    "hangs": (_hang, "slow"),
    "resets": (_reset, "unreachable"),
    "endless": (_huge, "too-large"),
}
"""By name: what it answers, and the word that must be found. "stopped" is another: nobody listens."""


class _Log(msgspec.Struct):
    event: str = ""
    http: str = ""


class Patient:
    """The daemon, as an operator sees it: `/readyz`, its log, its process."""

    def __init__(self, stage: Stage, http: aiohttp.ClientSession) -> None:
        assert stage.daemon is not None
        assert stage.daemon.pid is not None
        self._daemon: Final = stage.daemon
        self._http: Final = http
        self.pid: Final = stage.daemon.pid
        started = next(
            line
            for line in self._daemon.log.read_bytes().splitlines()
            if msgspec.json.decode(line, type=_Log).event == "daemon.started"
        )
        self._url: Final = msgspec.json.decode(started, type=_Log).http

    async def ready(self) -> tuple[bool, str]:
        """Whether it is ready, and what it says."""
        async with self._http.get(f"{self._url}/readyz") as response:
            return response.status == 200, await response.text()

    def lines_since(self, offset: int) -> str:
        """What its log says since then."""
        return self._daemon.log.read_bytes()[offset:].decode(errors="replace")

    @property
    def logged(self) -> int:
        """How long its log is."""
        return self._daemon.log.stat().st_size

    @property
    def memory(self) -> int:
        """Bytes of it that are in memory now."""
        return resident(self.pid)

    @property
    def lives(self) -> bool:
        """Whether it is the process that it was."""
        return self._daemon.pid == self.pid


async def _until(holds: Callable[[], Awaitable[bool]], most_s: float) -> float | None:
    """Seconds until it holds; None if that takes longer than *most_s*."""
    now = asyncio.get_running_loop().time
    began = now()
    while now() - began < most_s:
        if await holds():
            return now() - began
        await asyncio.sleep(0.05)
    return None


async def suffer(aims: Aims, stage: Stage, patient: Patient, name: str) -> None:
    """One fault: it begins, is named, ends, and is healed from."""
    word = FAULTS[name][1] if name in FAULTS else "unreachable"
    offset = patient.logged
    if name in FAULTS:
        stage.orchestrator.fault = FAULTS[name][0]
    else:
        await stage.orchestrator.stop()

    async def named() -> bool:
        fine, said = await patient.ready()
        return not fine and word in said

    async def logged() -> bool:
        return f'"{word}' in patient.lines_since(offset) or f" {word}" in patient.lines_since(offset)

    async def healed() -> bool:
        return (await patient.ready())[0]

    ready_s, log_s = await asyncio.gather(_until(named, LASTS_S), _until(logged, LASTS_S))
    await asyncio.sleep(max(0.0, LASTS_S - (ready_s or 0.0)))
    if name in FAULTS:
        stage.orchestrator.fault = None
    else:
        await stage.orchestrator.start()
    healed_s = await _until(healed, HEALS_S)
    aims.say(
        f"orchestrator {name}",
        named_in_readyz_s=None if ready_s is None else round(ready_s, 2),
        named_in_log_s=None if log_s is None else round(log_s, 2),
        healed_s=None if healed_s is None else round(healed_s, 2),
        memory_mb=round(patient.memory / 1e6, 1),
        same_process=str(patient.lives),
    )
    for what, found in (("readyz", ready_s), ("log", log_s)):
        aims.want(f"{name}: seconds until named in the {what}", NAMED_S * 2 if found is None else found, NAMED_S)
    aims.want(f"{name}: seconds until healed", HEALS_S * 2 if healed_s is None else healed_s, HEALS_S)


async def run(aims: Aims, jobs: int, names: list[str]) -> None:
    """All faults, one after the other, while jobs run."""
    dice, mould = random.Random(9), Mould()
    seconds = len(names) * (LASTS_S + 4.0)
    cast = [
        mould.cast(START_NS + int(dice.random() * seconds * 0.9 * 1e9), dice.random() * seconds * 0.1)
        for _ in range(jobs)
    ]
    recording = assemble(mould, cast, "faults")
    expected = sum(len(job.expected) for job in recording.jobs)
    came: list[Update] = []
    right = asyncio.Event()
    with tempfile.TemporaryDirectory(prefix="jobstate-faults-") as folder:
        async with (
            Stage([recording], Path(folder), 1.0, _tell) as stage,
            aiohttp.ClientSession() as http,
        ):
            patient = Patient(stage, http)
            tasks = [asyncio.create_task(_follow(stage, came, expected, right)), asyncio.create_task(_play(stage))]
            await asyncio.sleep(2.0)
            before = patient.memory
            for name in names:
                await suffer(aims, stage, patient, name)
            await tasks[1]
            async with asyncio.timeout(60):
                await right.wait()
            tasks[0].cancel()
            grown, lives = patient.memory - before, patient.lives
    verdict = judge(recording.jobs, came)
    aims.say(
        f"{jobs} jobs through {len(names)} faults",
        verdict="right" if verdict.ok else "WRONG",
        updates=len(came),
        grown_mb=round(grown / 1e6, 1),
        same_process=str(lives),
    )
    if not verdict.ok or not lives:
        aims.missed.append("the log is not the record" if lives else "the daemon ended")
    aims.want("bytes that the daemon grew by", grown, GROWS_MAX)


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


async def _play(stage: Stage) -> None:
    async for _ in stage.play():
        pass


async def _follow(stage: Stage, came: list[Update], count: int, right: asyncio.Event) -> None:
    async for _, update in stage.feed():
        came.append(update)
        if len(came) >= count:
            right.set()


def main() -> int:
    """Go through all of them; 1 if an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.faults", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--only", nargs="*", default=["stopped", *FAULTS], choices=["stopped", *FAULTS])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    aims = Aims(as_json=chosen.json)
    asyncio.run(run(aims, chosen.jobs, chosen.only))
    for missed in aims.missed:
        sys.stderr.write(f"missed: {missed}\n")
    return 1 if aims.missed else 0


if __name__ == "__main__":
    sys.exit(main())
