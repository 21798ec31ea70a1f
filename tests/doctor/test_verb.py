"""`jobstate doctor` as an operator runs it: what it writes, and how it ends."""

import asyncio
import os
import pty
import sys
from pathlib import Path
from typing import Final

import pytest

from consumer.doctor.finding import CHECKS
from consumer.errors import ExitCode
from consumer.replay.stage import Stage
from tests.cli.conftest import ROOT, Ended
from tests.doctor.world import HERE, world
from tests.replay.shared import recording
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

UPDATES: Final = sum(len(job.expected) for job in recording(HERE).jobs)
FAR: Final = "nats://127.0.0.1:1"


async def doctor(*arguments: str, **environ: str) -> Ended:
    """Run it with these arguments and variables."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("JOBSTATE_", "COV_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "consumer", "doctor", *arguments),
        env=kept | {"PYTHONWARNINGS": "error"} | environ,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_a_healthy_demo_ends_with_0(tmp_path: Path) -> None:
    """The demo's real daemon, server and recorded traffic: nothing fails, and the log is exactly the record."""
    played = recording(HERE)
    expected = sum(len(job.expected) for job in played.jobs)
    async with Stage([played], tmp_path, None, lambda _: None) as stage:
        async for _ in stage.play():
            pass
        came = 0
        async with asyncio.timeout(DEADLINE_S):
            async for _ in stage.feed():
                came += 1
                if came == expected:
                    break
        ended = await doctor("--config", str(stage.write_settings()), "--listen", "200ms", "--json")
    *checks, end = ended.objects
    assert [said["check"] for said in checks] == [check.name for check in CHECKS]
    assert {said["check"]: said["found"] for said in checks if said["verdict"] == "fail"} == {}
    assert [said["check"] for said in checks if said["verdict"] == "warn"] == ["nats.sync"]
    agrees = next(said for said in checks if said["check"] == "record.agrees")
    assert agrees["found"] == f"{len(played.jobs)} of {len(played.jobs)} jobs are in the log exactly as in the record"
    assert (end["failed"], end["exit"], sum(end["summary"].values())) == ([], 0, len(CHECKS))
    assert (ended.code, ended.err) == (ExitCode.OK, "")


async def test_a_fault_ends_with_1_and_is_named_at_the_end() -> None:
    """A line for each check, what to do below it; what is skipped for one reason is one line; the last line sums up."""
    ended = await doctor(JOBSTATE_NATS__URL=FAR, JOBSTATE_HTTP__PORT="0")
    assert ended.code == ExitCode.WRONG
    assert ended.err.startswith("jobstate: nats.reach failed: nobody answers at ")
    assert ended.err.endswith("is the server up, and is nats.url right?\n")
    assert ended.lines[2].split() == f"fail nats.reach nobody answers at {FAR}: connection refused".split()
    assert ended.lines[3].strip().startswith("-> is the server up")
    assert ended.lines[4] == "skipped nats.tls … log.advisories nats.reach failed (18 checks)"
    assert ended.lines[-1].endswith("Look at nats.reach.")


async def test_json_is_a_line_for_each_check_and_a_summary() -> None:
    """Also when the settings are wrong, which is a fault like another; the last line has counts and exit code."""
    ended = await doctor("--json", JOBSTATE_NATS__URL="http://x")
    first, *rest, end = ended.objects
    assert set(first) == {"check", "verdict", "found", "next"}
    assert (first["check"], first["verdict"]) == ("settings", "fail")
    assert "JOBSTATE_NATS__URL" in first["found"]
    assert {said["verdict"] for said in rest} == {"skipped"}
    assert end == {
        "summary": {"ok": 0, "warn": 0, "fail": 1, "skipped": len(CHECKS) - 1},
        "failed": ["settings"],
        "exit": 1,
    }
    assert ended.code == ExitCode.WRONG


async def test_on_a_terminal_it_is_coloured_and_wrapped() -> None:
    """A terminal gets colour and no line that is wider than it; and the same exit code."""
    screen, keyboard = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "consumer", "doctor"),
        env=dict(os.environ) | {"JOBSTATE_NATS__URL": FAR, "TERM": "xterm", "COLUMNS": "80"},
        cwd=ROOT,
        stdout=keyboard,
    )
    os.close(keyboard)
    shown = b""
    while True:
        try:
            part = await asyncio.to_thread(os.read, screen, 65_536)
        except OSError:  # Linux says so at the end
            break
        if not part:
            break
        shown += part
    os.close(screen)
    assert await process.wait() == ExitCode.WRONG
    assert b"\x1b[1;31mfail" in shown
    assert "→ is the server up".encode() in shown


async def test_it_changes_nothing(tmp_path: Path) -> None:
    """Streams, entries and consumers of ours are after it what they were, and the orchestrator was only asked."""
    async with world(tmp_path) as made:
        await made.rise()
        manager = (await made.builds()).jsm()

        async def state() -> object:
            found = []
            for name in (made.names.log, made.names.input, made.names.refused, made.names.bucket_stream):
                info = await manager.stream_info(name)
                found.append((info.created, info.state.messages, info.state.last_seq, info.state.consumer_count))
            account = await manager.account_info()
            return found, account.streams, account.consumers

        async with asyncio.timeout(DEADLINE_S):  # the server copies the log into the bucket, whoever looks
            while (await manager.stream_info(made.names.bucket_stream)).state.last_seq < UPDATES:
                await asyncio.sleep(0.01)
        before = await state()
        await made.examine()
        assert await state() == before
        assert made.orchestrator.reads_by["list"] == 1
        assert sum(made.orchestrator.reads_by.values()) < 20
