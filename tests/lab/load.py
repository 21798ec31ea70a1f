"""What the daemon costs an orchestrator, and how quick it is under load: `make load`. Not run by CI (three minutes).

`python -m tests.lab.load [--jobs N] [--seconds S] [--json]`: real frames and documents of one recorded job (1.9.3,
`success`), multiplied under new ids and moved in time, through a real nats-server, the real daemon and the simulated
orchestrator, whose answers take as long as a real one's (design/bacalhau.md 6.3). A list of 100,000 jobs is not served
but reckoned, in virtual time. Ends with 1 if an aim of the issue is missed.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import uuid
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from consumer.core import Readers, ReadingOptions, ReadJobs
from consumer.core.pace import WINDOW_S
from consumer.model import Identity, JobPage, Snapshot, Update
from consumer.replay.record import read_records
from consumer.replay.recording import RecordedFrame, Recording
from consumer.replay.simulated import LIST_COST_S, READ_COST_S
from consumer.replay.stage import Stage
from consumer.replay.summary import percentile
from consumer.replay.verdict import judge
from consumer.rules import load

TEMPLATE: Final = Path("tests/recordings/bacalhau-v1.9.3/success")
JOB: Final = "j-385f7ea4-c26f-44fa-9917-428a2789eefc"
JOBS_PATH: Final = "/api/v1/orchestrator/jobs"
START_NS: Final = 1_795_500_000_000_000_000
MAX_RATE: Final = ReadingOptions().max_rate
_ROWS_OF_RUNNING: Final = 4
"""Rows of the template's history up to Running: both levels."""
SWEEP_S: Final = 75.0
"""By then the first sweep of 10,000 jobs is over: two pages of 0.4 s, and between them changes, each at its share."""
HEAD: Final = 5
"""Bytes before the body of an envelope: version, CRC."""


class Mould:
    """One recorded job and its frames; `cast` makes another of them."""

    def __init__(self) -> None:
        recording = Recording.load(TEMPLATE)
        self.version: Final = recording.documents["/api/v1/agent/version"]
        self._job: Final[dict[str, Any]] = recording.documents[f"{JOBS_PATH}/{JOB}"]["Job"]
        rows = recording.documents[f"{JOBS_PATH}/{JOB}/history?all_job_versions=true"]["Items"]
        self._rows: Final[list[dict[str, Any]]] = rows
        record = next(job for job in recording.jobs if job.id == JOB)
        self._created_ns: Final = record.created_ns
        self._running_ns: Final = record.changes[1].time_ns
        executions = {row["ExecutionID"] for row in rows if row.get("ExecutionID")}
        (self._execution,) = executions
        self._frames: Final = [
            (recording.ns_of(frame.t), frame)
            for frame in recording.frames
            if JOB.encode() in frame.data or self._execution.encode() in frame.data
        ]

    def cast(self, at_ns: int, life_s: float, *, ends: bool = True) -> tuple[dict[str, Any], list[RecordedFrame]]:
        """A job submitted at *at_ns* that runs for *life_s* longer than the recorded one, or never *ends*."""
        job, execution = f"j-{uuid.uuid4()}", f"e-{uuid.uuid4()}"

        def renamed(text: str) -> str:
            return text.replace(JOB, job).replace(self._execution, execution)

        def moved(ns: int) -> int:
            return ns - self._created_ns + at_ns + (int(life_s * 1e9) if ns > self._running_ns + 5_000_000 else 0)

        document = json.loads(renamed(json.dumps(self._job)))
        document |= {"Name": job, "CreateTime": at_ns, "ModifyTime": moved(document["ModifyTime"])}
        rows = json.loads(renamed(json.dumps(self._rows)))
        for row in rows:
            row["Time"] = _stamp(moved(_ns(row["Time"])))
        if not ends:
            document |= {"State": {"StateType": "Running"}, "Revision": 2, "ModifyTime": moved(self._running_ns)}
            rows = rows[:_ROWS_OF_RUNNING]
        documents = {
            f"{JOBS_PATH}/{job}": {"Job": document},
            f"{JOBS_PATH}/{job}/history?all_job_versions=true": {"NextToken": "", "Items": rows},
        }
        frames = []
        for seen_ns, frame in self._frames:
            body = json.loads(renamed(frame.data[HEAD:].decode()))
            shown = body["payload"].get("Execution", {}).get("Job")
            if shown is not None:
                shown |= {"Name": job, "CreateTime": at_ns, "ModifyTime": moved(shown["ModifyTime"])}
            body["metadata"]["Bacalhau-EventTime"] = str(moved(int(body["metadata"]["Bacalhau-EventTime"])))
            text = json.dumps(body, separators=(",", ":")).encode()
            data = frame.data[:1] + zlib.crc32(text).to_bytes(4, "big") + text
            frames.append(
                RecordedFrame(t=(moved(seen_ns) - START_NS) / 1e9, subject=frame.subject, data=data, reply=frame.reply)
            )
        return documents, frames


def _ns(text: str) -> int:
    """Unix nanoseconds of a time with nine digits behind the point, in UTC."""
    whole, fraction = text.removesuffix("Z").split(".")
    moment = datetime.fromisoformat(whole + "+00:00")
    return (moment - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def _stamp(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000:09}Z"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def assemble(mould: Mould, cast: Sequence[tuple[dict[str, Any], list[RecordedFrame]]], name: str) -> Recording:
    """What was cast, as one recording whose clock is 0 at `START_NS`."""
    documents: dict[str, Any] = {"/api/v1/agent/version": mould.version}
    frames: list[RecordedFrame] = []
    for of_job, its_frames in cast:
        documents |= of_job
        frames += its_frames
    listed = [document["Job"] for path, document in documents.items() if "Job" in document]
    documents[f"{JOBS_PATH}?limit=0&namespace=*&order_by=created_at"] = {"NextToken": "", "Items": listed}
    return Recording(
        name=name,
        release="v1.9.3",
        start_ns=START_NS,
        frames=tuple(sorted(frames, key=lambda frame: frame.t)),
        documents=documents,
        jobs=read_records(documents),
    )


def highest_rate(times: Sequence[float]) -> float:
    """The most of *times*, in order, that fall into any ten seconds, as a rate a second."""
    most, first = 0, 0
    for last, time in enumerate(times):
        while times[first] <= time - WINDOW_S:
            first += 1
        most = max(most, last - first + 1)
    return most / WINDOW_S


class Aims:
    """What was measured, and whether it is what it should be."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.missed: list[str] = []

    def say(self, what: str, **facts: float | str | None) -> None:
        """One line of facts."""
        if self._as_json:
            sys.stdout.write(json.dumps({"measured": what, **facts}) + "\n")
        else:
            said = ", ".join(f"{name} {value}" for name, value in facts.items())
            sys.stdout.write(f"{what}: {said}\n")
        sys.stdout.flush()

    def want(self, what: str, found: float, most: float) -> None:
        """*found* is at most *most*, or an aim is missed."""
        if found > most:
            self.missed.append(f"{what}: {found:g}, and at most {most:g} is aimed for")


async def run_burst(aims: Aims, jobs: int, seconds: float) -> None:
    """*jobs* jobs of three transitions each over *seconds*, at the clock's own pace."""
    dice, mould = random.Random(9), Mould()
    cast = [
        mould.cast(START_NS + int(dice.random() * seconds * 0.8 * 1e9), dice.random() * seconds * 0.2)
        for _ in range(jobs)
    ]
    recording = assemble(mould, cast, "load")
    changes = {
        (job.id, number): change.time_ns for job in recording.jobs for number, change in enumerate(job.expected, 1)
    }
    with tempfile.TemporaryDirectory(prefix="jobstate-load-") as folder:
        async with Stage([recording], Path(folder), 1.0, _tell) as stage:
            came: list[tuple[Update, float]] = []
            right = asyncio.Event()
            feed = asyncio.create_task(_follow(stage, came, len(changes), right))
            before = len(stage.orchestrator.asked_at)
            now = asyncio.get_running_loop().time
            passed: dict[int, float] = {}
            async for progress in stage.play():
                passed.setdefault(progress.t_ns, now())
            async with asyncio.timeout(30):
                await right.wait()
            feed.cancel()
            async with asyncio.timeout(5):  # its last lines come a moment after the log has what they tell
                while len(causes := stage.causes()) < len(came):
                    await asyncio.sleep(0.05)
            asked = stage.orchestrator.asked_at[before:]
            cost_s, kinds = stage.orchestrator.cost_s, dict(stage.orchestrator.reads_by)
    verdict = judge(recording.jobs, [update for update, _ in came])
    lags: dict[str, list[float]] = {"hint": [], "scan": []}
    for update, at in came:
        key = (update.Job.ID, update.Sequence)
        lags[causes[key]].append(max(at - passed[changes[key]], 0.0) * 1e3)
    per_change, worst = len(asked) / len(came), highest_rate(asked)
    aims.say(
        f"{jobs} jobs over {seconds:g} s",
        verdict="right" if verdict.ok else "WRONG",
        updates=len(came),
        by_hint=len(lags["hint"]),
        hint_p50_ms=percentile(lags["hint"], 0.5),
        hint_p99_ms=percentile(lags["hint"], 0.99),
        scan_p99_ms=percentile(lags["scan"], 0.99),
        requests_a_change=round(per_change, 2),
        most_requests_a_second=worst,
        requests=str(kinds),
        orchestrator_core_percent=round(100 * cost_s / (asked[-1] - asked[0]), 2),
    )
    if not verdict.ok:
        aims.missed.append("the log is not the record")
    aims.want("hinted p99, ms", percentile(lags["hint"], 0.99) or 0.0, 250)
    aims.want("requests a change", per_change, 2.5)
    aims.want("requests a second, over ten", worst, MAX_RATE)


async def _follow(stage: Stage, came: list[tuple[Update, float]], count: int, right: asyncio.Event) -> None:
    async for _, update in stage.feed():
        came.append((update, asyncio.get_running_loop().time()))
        if len(came) >= count:
            right.set()


async def run_idle(aims: Aims, finished: int, still_open: int, most: float, seconds: float) -> None:
    """Nothing happens; *finished* jobs are stored and *still_open* run."""
    mould = Mould()
    past = [mould.cast(START_NS - 1_000_000_000 - number, 0.0) for number in range(finished)]
    past += [mould.cast(START_NS - 1_000_000_000 - number, 0.0, ends=False) for number in range(still_open)]
    recording = assemble(mould, past, "idle")
    with tempfile.TemporaryDirectory(prefix="jobstate-load-") as folder:
        stage = Stage([recording], Path(folder), 1.0, _tell)
        stage.clock.advance(START_NS)
        async with stage:
            # A start looks at all jobs, a page at a time, within the share: that is not what it costs to be idle.
            await asyncio.sleep(SWEEP_S)
            before, cost_s, now = len(stage.orchestrator.asked_at), stage.orchestrator.cost_s, _now()
            await asyncio.sleep(seconds)
            rate = (len(stage.orchestrator.asked_at) - before) / (_now() - now)
            share = (stage.orchestrator.cost_s - cost_s) / (_now() - now)
    aims.say(
        f"idle, {finished} finished jobs, {still_open} open",
        requests_a_second=round(rate, 2),
        orchestrator_core_percent=round(100 * share, 2),
    )
    aims.want(f"requests a second with {still_open} open", rate, most)


def _now() -> float:
    return asyncio.get_running_loop().time()


def reckon_lists(aims: Aims, stored: int, hours: float) -> None:
    """Readers in virtual time beside an orchestrator with *stored* finished jobs: what its lists take."""
    readers = Readers(load(None), lambda _: None, ReadingOptions(), since_ns=START_NS)
    done = Snapshot(
        job=Identity(id="j-1", namespace="default"), count=1, version=1, revision=3, state="Completed", modified_ns=1
    )
    now, busy_s, lists, gap = 0.0, 0.0, 0, 0.0
    took_s = READ_COST_S + LIST_COST_S * stored
    while now < hours * 3600:
        if now >= gap:
            readers.look_everywhere()  # a reconnect, every ten minutes
            gap = now + 600.0
        reads = readers.due_reads(now)
        if not reads:
            due = [time for time in (readers.wake_at(), gap) if time is not None]
            now = max(min(due), now + 1e-6)
            continue
        (read,) = reads
        assert isinstance(read, ReadJobs)
        now += took_s
        busy_s, lists = busy_s + took_s, lists + 1
        offset = int(read.next_token or 0)
        behind = offset + read.limit
        more = str(behind) if behind < stored else ""
        readers.answered(read, JobPage(jobs=(done,) * read.limit, next_token=more), now)
    aims.say(
        f"lists with {stored} finished jobs, a gap every ten minutes, {hours:g} h",
        lists=lists,
        share_of_time_percent=round(100 * busy_s / now, 2),
    )
    aims.want("share of the lists, %", 100 * busy_s / now, 5.0)


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


async def _run(aims: Aims, jobs: int, seconds: float, finished: int) -> None:
    await run_burst(aims, jobs, seconds)
    await run_idle(aims, finished, 10, 12.0, min(seconds, 30.0))
    await run_idle(aims, finished, 0, 1.0, min(seconds, 30.0))


def main() -> int:
    """Measure it all; 1 if an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.load", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    aims = Aims(as_json=chosen.json)
    reckon_lists(aims, 100_000, 6.0)
    asyncio.run(_run(aims, chosen.jobs, chosen.seconds, chosen.finished))
    for missed in aims.missed:
        sys.stderr.write(f"missed: {missed}\n")
    return 1 if aims.missed else 0


if __name__ == "__main__":
    sys.exit(main())
