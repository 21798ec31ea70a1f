"""`jobstate demo`: recorded traffic through the real daemon and a real server; its verdict, its lines, its ends."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from nats.aio.client import Client

from consumer.errors import ExitCode
from tests.cli.test_replay import ROOT, SUMMARY
from tests.daemon.process import NAMES, entries
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

QUEUED: Final = "tests/recordings/bacalhau-v1.9.3/queued_then_runs"
SECRET: Final = "tests/recordings/bacalhau-v1.9.3/secret"


class Demo:
    """A demo that is running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process: Final = process
        self.told: list[str] = []

    async def tells(self, words: str) -> str:
        """The next line of standard error that has *words*."""
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            while line := (await self.process.stderr.readline()).decode():
                self.told.append(line)
                if words in line:
                    return line
        pytest.fail(f"never told {words!r}: {self.told}")

    async def end(self, sign: signal.Signals | None = None) -> tuple[int, str]:
        """Exit code and output of one that ends by itself, or is sent *sign*."""
        if sign is not None:
            self.process.send_signal(sign)
        async with asyncio.timeout(DEADLINE_S):
            out, err = await self.process.communicate()
        self.told += err.decode().splitlines(keepends=True)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode()


Begin = Callable[..., Awaitable[Demo]]


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    """Starts demos, whose folders are made in `tmp_path`."""
    begun: list[Demo] = []

    async def start(*arguments: str) -> Demo:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("JOBSTATE_", "COV_"))}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "consumer", "demo", *arguments),
            env=kept | {"TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error"},
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        begun.append(Demo(process))
        return begun[-1]

    yield start
    for demo in begun:
        if demo.process.returncode is None:
            demo.process.kill()
            await demo.process.wait()


def runs(pid: int) -> bool:
    """Whether there is a process *pid* that has not ended."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(found.strip()) and not found.startswith("Z")


async def gone(*pids: int) -> None:
    """Wait until these processes have ended."""
    async with asyncio.timeout(DEADLINE_S):
        while any(map(runs, pids)):
            await asyncio.sleep(0.02)


def left_in(folder: Path) -> list[Path]:
    """What is left of demos in *folder*."""
    return list(folder.iterdir())


def pids_of(introduction: str) -> list[int]:
    """Server's and daemon's, as the demo tells them."""
    return [int(pid) for pid in re.findall(r"process (\d+)", introduction)]


async def test_it_plays_into_one_log_and_says_the_promised_lines(begin: Begin, tmp_path: Path) -> None:
    """Two recordings at once: exit 0; a line per update, one summary, with exactly the promised keys; all is gone."""
    demo = await begin("--json", "--speed", "max", "--recording", QUEUED, "--recording", SECRET)
    code, out = await demo.end()
    assert code == ExitCode.OK, demo.told
    *updates, last = [json.loads(line) for line in out.splitlines()]
    assert list(last) == ["scenario", "summary"]
    summary: dict[str, Any] = last["summary"]
    assert list(summary) == SUMMARY
    assert summary["ok"] is True
    assert summary["missing"] == summary["surplus"] == summary["misordered"] == []
    assert summary["updates"] == summary["expected"] == len(updates)
    assert summary["by_hint"] + summary["by_scan"] == len(updates)
    assert summary["reads"] > 0
    assert last["scenario"] == [QUEUED, SECRET]
    for update in updates:
        assert list(update) == ["scenario", "subject", "update"]
        assert update["subject"].startswith(NAMES.state_prefix)
        assert update["update"]["Source"] == "observed"
    assert {update["update"]["Job"]["Name"] for update in updates} > {"secret", "secret-input"}
    await gone(*pids_of(demo.told[0]))
    assert left_in(tmp_path) == []


async def test_a_person_sees_the_feed_and_the_verdict(begin: Begin) -> None:
    """A line for each update as it comes, the verdict, and how to see more."""
    demo = await begin("--speed", "max", "--recording", SECRET)
    code, out = await demo.end()
    assert code == ExitCode.OK, demo.told
    *rows, verdict, hint = out.splitlines()
    assert len(rows) == 6
    assert all(len(row.split("\t")) == 9 for row in rows)
    assert verdict.startswith("right: 2 jobs, 6 of 6 updates")
    assert "--keep" in hint


async def test_no_job_of_a_recording_is_stuck(begin: Begin) -> None:
    """A job that waits in Queued at the recorded pace, and did so weeks ago by our clock: nothing is announced."""
    demo = await begin("--json", "--keep", "--recording", QUEUED)
    introduction = await demo.tells("nats-server nats://")
    metrics = re.search(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", introduction)
    assert metrics is not None
    await demo.tells("left running until Ctrl-C")
    async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE_S):
        numbers = ""
        while 'jobstate_jobs{state="Completed"} 1.0' not in numbers:
            async with session.get(metrics[1]) as answer:
                numbers = await answer.text()
    assert 'jobstate_advisories_total{kind="stuck"} 0.0' in numbers
    assert "jobstate_jobs_stuck{" not in numbers
    code, _ = await demo.end(signal.SIGINT)
    assert code == ExitCode.OK, demo.told


async def test_kept_it_runs_until_it_is_told(begin: Begin, tmp_path: Path) -> None:
    """--keep: it says how to look further, the log can be read; SIGINT ends it with the verdict, the folder stays."""
    demo = await begin("--json", "--keep", "--speed", "max", "--recording", SECRET)
    introduction = await demo.tells("nats-server nats://")
    await demo.tells("left running until Ctrl-C")
    listed = await demo.tells(f"  {sys.executable} -m consumer list --nats ")
    await demo.tells("  nats --server ")

    listing = await asyncio.create_subprocess_exec(*listed.split(), "--json", stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    out, _ = await listing.communicate()
    assert [json.loads(line)["update"]["Job"]["Name"] for line in out.splitlines()].count("secret") == 1
    client = Client()
    await client.connect(listed.split()[-1], allow_reconnect=False)
    assert len(await entries(client.jetstream(), NAMES.log, f"{NAMES.state_prefix}>")) == 6
    await client.close()

    demo.process.send_signal(signal.SIGINT)
    stays = await demo.tells(" stays: remove it when you are done with it")
    code, out_of_demo = await demo.end()
    assert code == ExitCode.OK, demo.told
    assert "run it with --keep" not in out_of_demo
    assert json.loads(out_of_demo.splitlines()[-1])["summary"]["ok"] is True
    await gone(*pids_of(introduction))
    (folder,) = left_in(tmp_path)
    assert str(folder) in introduction
    assert str(folder) in stays
    assert (folder / "daemon.log").is_file()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_stopped_early_it_leaves_nothing(begin: Begin, tmp_path: Path, sign: signal.Signals) -> None:
    """Exit 130, no verdict; server, daemon and folder are gone."""
    demo = await begin("--json", "--speed", "0.01", "--recording", SECRET)
    introduction = await demo.tells("nats-server nats://")
    code, out = await demo.end(sign)
    assert code == 130
    assert "summary" not in out
    assert "Traceback" not in "".join(demo.told)
    await gone(*pids_of(introduction))
    assert left_in(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
async def test_killed_it_leaves_no_process(begin: Begin) -> None:
    """kill -9 of the demo: server and daemon end too."""
    demo = await begin("--json", "--speed", "0.01", "--recording", SECRET)
    introduction = await demo.tells("nats-server nats://")
    await demo.end(signal.SIGKILL)
    await gone(*pids_of(introduction))


async def test_a_log_that_is_not_the_record_ends_with_1(begin: Begin) -> None:
    """A stranger's entry in the log of a job: the verdict is wrong, and says how."""
    demo = await begin("--json", "--speed", "0.5", "--recording", SECRET)
    introduction = await demo.tells("nats-server nats://")
    found = re.search(r"nats://[0-9.:]+", introduction)
    assert found is not None
    client = Client()
    await client.connect(found[0], allow_reconnect=False)
    said = {"StateType": "Running", "Job": {"ID": "j-stranger"}}
    await client.jetstream().publish(f"{NAMES.in_prefix}default.j-stranger", json.dumps(said).encode())
    await client.close()
    code, out = await demo.end()
    assert code == ExitCode.WRONG, demo.told
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert summary["ok"] is False
    assert len(summary["surplus"]) == 1
    assert "j-stranger" in summary["surplus"][0]


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--recording", "no/such/folder"], ExitCode.NO_INPUT, "no/such/folder"),
        (["--recording", SECRET, "--recording", SECRET], ExitCode.NO_INPUT, "is in two recordings"),
        (["--recording", SECRET, "--speed", "fast"], ExitCode.USAGE, "fast"),
        (["--recording", SECRET, "--speed", "0"], ExitCode.USAGE, "0"),
        (["--recording", SECRET, "--speed", "-1"], ExitCode.USAGE, "-1"),
        (["--recording", SECRET, "--speed", "nan"], ExitCode.USAGE, "nan"),
        (["--recording", SECRET, "--speed", "inf"], ExitCode.USAGE, "inf"),
    ],
)
async def test_what_cannot_be_played(
    begin: Begin, tmp_path: Path, arguments: list[str], code: ExitCode, named: str
) -> None:
    """3 for a path that is no recording, 2 for a speed that is none: said on stderr, and nothing is started or left."""
    demo = await begin("--json", *arguments)
    assert await demo.end() == (code, "")
    assert named in demo.told[-1]
    assert "nats-server" not in "".join(demo.told)
    assert left_in(tmp_path) == []
