"""A log that an older daemon wrote, kept as files, so that a test can have today's daemon continue it.

`python -m tests.lab.old_log PROGRAM FOLDER` makes them: PROGRAM is a worktree at the older commit, whose daemon is run
(`git worktree add PROGRAM COMMIT`); the nats-server and the simulated orchestrator are today's. It plays the first part
of three recordings and sends reports, kills the daemon once the log says what they say, and writes to FOLDER what the
streams then have: `streams.jsonl`, their configurations, `entries.jsonl`, their entries with headers, and
`made.json`, by what they were made. `restore` puts them into a server.
"""

import argparse
import asyncio
import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from consumer.model import Update
from consumer.replay.clock import ReplayClock
from consumer.replay.player import Player
from consumer.replay.recording import Recording
from consumer.replay.server import OrchestratorServer
from consumer.replay.simulated import SimulatedOrchestrator
from consumer.wire.entries import decode_format
from consumer.wire.subjects import Names, job_key
from consumer.wire.update import decode_update
from tests.daemon.process import Daemon
from tests.server import Server, pub, speak
from tests.waiting import DEADLINE_S

ROOT: Final = Path(__file__).parents[2]
RECORDINGS: Final = ROOT / "tests/recordings"
NAMES: Final = Names()
SCENARIOS: Final = ("bacalhau-v1.9.3/rerun", "bacalhau-v1.9.3/stop_running", "bacalhau-v1.9.3/update")
PART: Final = 0.6
"""So much of what happens in them is in the old log."""
REPORTED_ID: Final = "reported-1"
REPORTED: Final = job_key("default", REPORTED_ID)
REPORTS: Final = ({"StateType": "Pending"}, {"StateType": "Running", "Message": "half of it"})
"""The reports that the older daemon took; the next one is the test's."""
REFUSED: Final = {"StateType": "Elsewhere"}
"""One that it refused."""
NUMBERED: Final = (NAMES.input, NAMES.log, NAMES.refused)
"""The streams whose entries are kept, the input first. The server makes the bucket from the log."""


Step = tuple[str, int | None, str]
"""A job's id, its version, and a state."""


class Entry(msgspec.Struct, frozen=True):
    """One entry of a stream. `headers` as they stand on the wire; `time_ns` is when the server stored it (Unix)."""

    stream: str
    number: int
    time_ns: int
    subject: str
    headers: str
    body: str


class Made(msgspec.Struct, frozen=True):
    """By what the files were made, and how much of the recordings was played."""

    commit: str
    scenarios: tuple[str, ...]
    clock_ns: int
    """Where the clock of the recordings stood when the older daemon ended."""


class OldLog(msgspec.Struct, frozen=True):
    """The files of a folder."""

    made: Made
    streams: tuple[dict[str, Any], ...]
    entries: tuple[Entry, ...]

    @classmethod
    def load(cls, folder: Path) -> "OldLog":
        """Read *folder*."""
        return cls(
            made=msgspec.json.decode((folder / "made.json").read_bytes(), type=Made),
            streams=tuple(map(json.loads, (folder / "streams.jsonl").read_text(encoding="utf-8").splitlines())),
            entries=tuple(
                msgspec.json.decode(line, type=Entry) for line in (folder / "entries.jsonl").read_bytes().splitlines()
            ),
        )

    def save(self, folder: Path) -> None:
        """Write *folder*."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "made.json").write_bytes(msgspec.json.format(msgspec.json.encode(self.made)) + b"\n")
        for name, lines in (("streams.jsonl", self.streams), ("entries.jsonl", self.entries)):
            (folder / name).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


async def read_entries(client: Client, streams: Iterable[str] = NUMBERED) -> list[Entry]:
    """Every entry of *streams*."""
    found: list[Entry] = []
    for stream in streams:
        state = (await _ask(client, f"STREAM.INFO.{stream}"))["state"]
        for number in range(state["first_seq"], state["last_seq"] + 1):
            answer = await _ask(client, f"STREAM.MSG.GET.{stream}", {"seq": number})
            if message := answer.get("message"):
                headers, body = (base64.b64decode(message.get(part, "")).decode() for part in ("hdrs", "data"))
                found.append(Entry(stream, number, _ns_of(message["time"]), message["subject"], headers, body))
    return found


async def restore(old: OldLog, server: Server, client: Client) -> None:
    """Make the streams on *server* and put the entries into them, each with the number that it had.

    The server stores an entry with a time of today. So where the log names an entry of the input by its time, it is
    given the new one.
    """
    for config in old.streams:
        answer = await _ask(client, f"STREAM.CREATE.{config['name']}", config)
        assert "error" not in answer, answer
    await _put(server, [entry for entry in old.entries if entry.stream == NAMES.input])
    times = {
        str(before.time_ns): str(now.time_ns)
        for before, now in zip(old.entries, await read_entries(client, [NAMES.input]), strict=False)
    }
    entries = [_renamed(entry, times) for entry in old.entries]
    for stream in NUMBERED[1:]:
        await _put(server, [entry for entry in entries if entry.stream == stream])
    restored = [msgspec.structs.replace(one, time_ns=0) for one in await read_entries(client)]
    assert restored == [msgspec.structs.replace(one, time_ns=0) for one in entries]


async def _put(server: Server, entries: Sequence[Entry]) -> None:
    """Publish the *entries* of a stream, and in place of one that is gone something that the next one replaces."""
    number = 0
    for entry in entries:
        while (number := number + 1) < entry.number:
            replaced_by = next(one for one in entries if f"Last-Subject-Sequence: {number}\r\n" in one.headers)
            assert "Nats-Rollup: sub" in replaced_by.headers, f"{entry.stream} {number} is gone, and nothing says why"
            await speak(server, pub(replaced_by.subject.encode()))
        await speak(server, pub(entry.subject.encode(), entry.body.encode(), entry.headers.encode() or None))


def _renamed(entry: Entry, times: Mapping[str, str]) -> Entry:
    subject, headers, body = entry.subject, entry.headers, entry.body
    for before, now in times.items():
        subject, headers, body = (text.replace(before, now) for text in (subject, headers, body))
    return msgspec.structs.replace(entry, subject=subject, headers=headers, body=body)


def _ns_of(text: str) -> int:
    """Unix nanoseconds of a server's time (RFC 3339, UTC), to the last digit."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int(fraction.ljust(9, "0") or 0)


async def _ask(client: Client, subject: str, body: object = None) -> dict[str, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{subject}", data, timeout=DEADLINE_S)).data)
    return answer


def variables(server: Server, orchestrator: OrchestratorServer) -> dict[str, str]:
    """Settings of a daemon between them."""
    return {
        "JOBSTATE_NATS__URL": server.url,
        "JOBSTATE_BACALHAU__URL": server.url,
        "JOBSTATE_ORCHESTRATOR__URL": orchestrator.url,
    }


def updates(entries: Iterable[Entry]) -> list[Update]:
    """The updates among *entries*, in their order."""
    return [decode_update(one.body.encode()) for one in entries if one.subject.startswith(f"{NAMES.state_prefix}")]


def due(recordings: Sequence[Recording], clock_ns: int) -> set[Step]:
    """What a log must say once the orchestrator's clock stands at *clock_ns*."""
    records = [record for recording in recordings for record in recording.jobs]
    return {
        (record.id, change.version, change.state)
        for record in records
        for change in record.expected
        if change.time_ns <= clock_ns
    }


async def make(program: Path, commit: str, folder: Path) -> None:
    """Have the daemon of *program* write a log, and keep it in *folder*."""
    recordings = [Recording.load(RECORDINGS / name) for name in SCENARIOS]
    clock = ReplayClock(recordings)
    with tempfile.TemporaryDirectory(prefix="jobstate-old-") as temporary:
        served = OrchestratorServer(SimulatedOrchestrator(recordings), clock)
        async with Server(Path(temporary, "nats")) as server, served as orchestrator:
            client = Client()
            await client.connect(server.url, allow_reconnect=False)
            daemon = Daemon(Path(temporary), variables(server, orchestrator), program=program)
            try:
                await daemon.until_ready()
                await _until(client, _has_begun, daemon)
                await _play(recordings, clock, client)
                await _until(client, partial(_has_all, due(recordings, clock.now_ns)), daemon)
                for report in (*REPORTS, REFUSED):
                    await client.request(NAMES.report(REPORTED), json.dumps(report).encode(), timeout=DEADLINE_S)
                await _until(client, _has_reports, daemon)
            finally:
                daemon.kill()
            streams = []
            for name in (*NUMBERED, NAMES.bucket_stream):
                config = (await _ask(client, f"STREAM.INFO.{name}"))["config"]
                streams.append({key: value for key, value in config.items() if key != "metadata"})
            made = Made(commit, SCENARIOS, clock.now_ns)
            OldLog(made, tuple(streams), tuple(await read_entries(client))).save(folder)
            await client.close()


async def _play(recordings: Sequence[Recording], clock: ReplayClock, client: Client) -> None:
    async for progress in Player(recordings, clock, 5.0).play(client):
        if progress.done >= PART * progress.total:
            break
    await client.flush()


async def _until(client: Client, fact: Callable[[list[Entry]], bool], daemon: Daemon) -> None:
    """Wait until *fact* is true of the entries."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not fact(await read_entries(client)):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise SystemExit(f"the streams never had what was to come; the daemon wrote\n{daemon.said()}") from None


def _has_begun(entries: list[Entry]) -> bool:
    """Whether the daemon has agreed with the log on where it begins: from then on it leaves nothing out."""
    return any(one.subject == NAMES.format and decode_format(one.body.encode()).Since is not None for one in entries)


def _has_all(wanted: set[Step], entries: list[Entry]) -> bool:
    return wanted <= {(one.Job.ID, one.Job.Version, one.StateType) for one in updates(entries)}


def _has_reports(entries: list[Entry]) -> bool:
    """Whether the log has every report, or the refused stream."""
    wanted: set[Step] = {(REPORTED_ID, None, report["StateType"]) for report in REPORTS}
    return _has_all(wanted, entries) and any(one.stream == NAMES.refused for one in entries)


def main() -> int:
    """Make the files."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.old_log", description=__doc__.partition("\n")[0])
    parser.add_argument("program", type=Path, help="worktree of the repository at the older commit")
    parser.add_argument("folder", type=Path, help="where the files go")
    options = parser.parse_args()
    program: Path = options.program.resolve()
    asked = ["git", "-C", str(program), "rev-parse", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    asyncio.run(make(program, commit, options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
