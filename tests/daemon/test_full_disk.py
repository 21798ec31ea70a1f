"""A disk that is really full under a server of our own: it is said, and mended when there is room again."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from consumer.daemon import assemble, watch
from consumer.errors import ExitCode
from consumer.rules import Rules
from consumer.settings import Embedded, Http, Orchestrator, Settings, Streams
from tests.bacalhau.servers import http_server
from tests.waiting import until

pytestmark = pytest.mark.server

MIB = 1 << 20
HEADERS = {"X-Bacalhau-Git-Version": "v1.9.3"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write until there is no room."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as written:
        while written.write(bytes(4096)):
            pass


class Record:
    """An orchestrator with *count* jobs that were queued, with much to say of why."""

    def __init__(self) -> None:
        self.count = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        last = request.path.rpartition("/")[2]
        jobs = [self._job(f"j-{number}") for number in range(self.count)]
        rows = [
            {
                "Type": "JobLevel",
                "SeqNum": number,
                "JobVersion": 1,
                "Time": "2026-11-24T05:00:00Z",
                "Event": {"Message": "m" * 20_000, "Topic": "Scheduling", "Details": {"NewState": state}},
            }
            for number, state in enumerate(("Pending", "Queued"), 1)
        ]
        document: dict[str, Any] = {"Job": self._job(last)}
        if last == "jobs":
            document = {"Items": jobs, "NextToken": ""}
        elif last == "history":
            document = {"Items": rows, "NextToken": ""}
        return web.json_response(document, headers=HEADERS)

    def _job(self, name: str) -> dict[str, Any]:
        return {
            "ID": name,
            "Namespace": "default",
            "Name": "n",
            "Type": "batch",
            "Version": 1,
            "Revision": 2,
            "State": {"StateType": "Queued"},
            "ModifyTime": 1795503263448525091,
        }


def written(daemon: assemble._Daemon) -> list[int]:
    """How many updates each job has in the log."""
    life = daemon.watch._life
    return [] if life is None else [known.sequence for known in life.lanes.jobs.values()]


async def test_updates_go_on_when_the_disk_has_room_again(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full: said once, in the log and by the part; then the server is restarted, and every update is published once."""
    monkeypatch.setattr(assemble, "MEND_AFTER_S", 1.0)
    monkeypatch.setattr(watch, "STUCK_S", 0.5)
    record, stop = Record(), asyncio.Event()
    found: list[assemble._Daemon] = []
    made = assemble._Daemon

    def make(settings: Settings, rules: Rules) -> assemble._Daemon:
        found.append(made(settings, rules))
        return found[-1]

    monkeypatch.setattr(assemble, "_Daemon", make)
    async with http_server(record.answer) as url:
        settings = Settings(
            http=Http(port=0),
            streams=Streams(log_max_bytes=8 * MIB, input_max_bytes=4 * MIB, refused_max_bytes=MIB),
            orchestrator=Orchestrator(url=url),
            embedded=Embedded(folder=str(disk / "nats")),
        )
        with capture_logs() as lines:
            running = asyncio.ensure_future(assemble.run_daemon(settings, stop, embedded=True))

            def said(event: str) -> int:
                return sum(line["event"] == event for line in lines)

            await until(lambda: said("log.begins"), "the first list")
            filler = disk / "fill"
            fill(filler)
            record.count = 60
            await until(lambda: said("server.disk_full"), "the full disk")
            before = said("server.restarted")  # a machine that stood still for a second confirmed nothing either
            await until(lambda: "make room" in found[0].health.unready().get("log", ""), "the same of the part")
            assert said("server.restarted") == before
            filler.unlink()
            await until(lambda: said("server.restarted") > before, "a restart")
            await until(lambda: written(found[0]) == [2] * 60, "all updates")
            await until(lambda: "log" not in found[0].health.unready(), "the part is ready")
        assert said("server.disk_full") == 1
        stop.set()
        assert await running == ExitCode.OK
