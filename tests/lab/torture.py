"""`python -m tests.lab.torture`: it kills and stops daemons and servers at random; the log must not show it.

Four scenarios: demos while the daemon is killed, while the server is, with two daemons of which one sleeps now and
then, and reports with all of it at once. What must come of them is the orchestrator's record, and a fold of the input
written here, apart from the program's. A seed draws the same faults, not the same run: processes have their own pace.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors

from consumer.core.appends import Entry
from consumer.errors import JobstateError, ServerError
from consumer.jetstream.server import EmbeddedServer
from consumer.jetstream.topology import ensure
from consumer.jetstream.view import FIRST, Reading, View
from consumer.model import JobKey, Update
from consumer.nats.address import Address
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.observe import configure
from consumer.replay.player import IDLE_MAX_S, merge
from consumer.replay.recording import Recording
from consumer.replay.stage import DaemonProcess, Stage
from consumer.replay.verdict import TIME_TOLERANCE, judge
from consumer.settings import MIB, Log, Streams
from consumer.wire.subjects import Names
from consumer.wire.update import decode_update
from tests.waiting import DEADLINE_S

NAMES: Final = Names()
RECORDINGS: Final = Path(__file__).parents[1] / "recordings"
RELEASES: Final = ("v1.9.3", "v1.5.0", "v1.7.0", "v1.6.1", "v1.5.2")
PLAYED: Final = ("burst", "ops", "rerun", "update", "queued_then_runs", "stop_running", "no_node_fails", "node_loss")
"""Of each release, where it has them."""

SETTLE_S: Final = DEADLINE_S
"""So long after the last frame or change the log of a demo may take to be right."""
UNDISTURBED_SPEED: Final = 1000.0
"""Of the demo without faults: what comes of a record does not depend on its pace."""
PAUSE_MAX_S: Final = 3.0
STARTED: Final = b'"daemon.started"'
START_MAX_S: Final = 0.06
"""A daemon that has said that it started has read the log and listens about so long after."""
FINISH_S: Final = DEADLINE_S
"""So long after the last fault the log of the reports may take."""
STILL_S: Final = 2.0
"""Nothing new for so long: it is over. A paused daemon that wakes up writes at once."""
SHOWN_MAX: Final = 20

Tell = Callable[[str], None]


class Outcome(msgspec.Struct, kw_only=True):
    """What a scenario came to: its numbers, and what was wrong."""

    scenario: str
    seed: int
    numbers: dict[str, float] = {}
    wrong: list[str] = []

    @property
    def ok(self) -> bool:
        """Nothing was wrong."""
        return not self.wrong


# -- faults -----------------------------------------------------------------------------------------------------------


class Faults:
    """What is done to processes: each by its pid, and only to those that were given here."""

    def __init__(
        self, rng: random.Random, daemons: Sequence[DaemonProcess], server: EmbeddedServer, tell: Tell
    ) -> None:
        self._rng: Final = rng
        self._daemons: Final = daemons
        self._server: Final = server
        self._tell: Final = tell
        self._killed: Final[set[int]] = set()
        self._pauses: Final[set[asyncio.Task[None]]] = set()
        self.done: Final[Counter[str]] = Counter()

    async def carry_out(self, kind: str) -> None:
        """Do one thing of the *kind*, to a daemon drawn at random or the server.

        `daemon`, `server`: SIGKILL. `pause`: SIGSTOP, and SIGCONT some time later, while other things go on. `start`:
        SIGKILL of a daemon, and of the server while the next daemon reads the log.
        """
        if kind == "server":
            await self._kill(self._server)
        elif kind == "daemon":
            await self._kill(self._rng.choice(self._daemons))
        elif kind == "pause":
            pid = await self._find(self._rng.choice(self._daemons))
            pause = asyncio.create_task(self._pause(pid, self._rng.uniform(0.05, PAUSE_MAX_S)))
            self._pauses.add(pause)
            pause.add_done_callback(self._pauses.discard)
        else:
            daemon = self._rng.choice(self._daemons)
            starts = count_said(daemon, STARTED)
            await self._kill(daemon)
            while count_said(daemon, STARTED) == starts:
                await asyncio.sleep(0.002)
            await asyncio.sleep(self._rng.uniform(0.0, START_MAX_S))
            await self._kill(self._server)
        self.done[kind] += 1
        self._tell(f"{kind} ({sum(self.done.values())})")

    async def _find(self, holder: DaemonProcess | EmbeddedServer) -> int:
        """Its pid, once it has one that was not killed yet."""
        while (pid := holder.pid) is None or pid in self._killed:
            await asyncio.sleep(0.005)
        return pid

    async def _kill(self, holder: DaemonProcess | EmbeddedServer) -> None:
        pid = await self._find(holder)
        self._killed.add(pid)
        os.kill(pid, signal.SIGKILL)

    async def _pause(self, pid: int, seconds: float) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may be killed while it sleeps
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    async def wake_all(self) -> None:
        """Wait until nobody is stopped any more."""
        await asyncio.gather(*self._pauses)


class Ends:
    """Hears what the keepers of daemon and server tell. A daemon may end by a signal, and not by itself."""

    def __init__(self, tell: Tell) -> None:
        self._tell: Final = tell
        self.wrong: Final[list[str]] = []

    def __call__(self, sentence: str) -> None:
        """Take a sentence."""
        if "exit code" in sentence:
            self.wrong.append(sentence)
        self._tell(sentence)


# -- demos ------------------------------------------------------------------------------------------------------------


class DemoPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Demos with faults: how many of which kind in all, in how many demos. Two daemons if there are pauses."""

    scenario: str
    faults: dict[str, int]
    rounds: int
    speed: float = 5.0
    played: tuple[str, ...] = PLAYED
    daemons: int = 1


async def torture_demos(plan: DemoPlan, seed: int, folder: Path, tell: Tell) -> Outcome:
    """Play demos until all faults of *plan* have happened, and lay each log beside that of a demo without faults."""
    rng = random.Random(f"{plan.scenario} {seed}")
    outcome = Outcome(scenario=plan.scenario, seed=seed)
    numbers: Counter[str] = Counter()
    slowest = 0.0
    for number in range(plan.rounds):
        recordings = load(RELEASES[number % len(RELEASES)], plan.played)
        kinds = [kind for kind, count in plan.faults.items() for _ in range(_share(count, plan.rounds, number))]
        rng.shuffle(kinds)
        moments = sorted(draw_moment(rng, recordings, plan.speed) for _ in kinds)
        where = f"demo {number + 1} of {plan.rounds}"
        tell(f"{plan.scenario}: {where}, {len(kinds)} faults")
        faults = list(zip(moments, kinds, strict=True))
        play = _Play(recordings, plan.speed, plan.daemons, tell)
        played = await play.run(faults, rng, make_folder(folder / str(number)))
        undisturbed = await _Play(recordings, UNDISTURBED_SPEED, 1, _silent).run(
            [], rng, make_folder(folder / f"{number}-undisturbed")
        )
        outcome.wrong += [f"{where}: {sentence}" for sentence in played.wrong]
        outcome.wrong += [f"{where}, without faults: {sentence}" for sentence in undisturbed.wrong]
        outcome.wrong += [f"{where}: {line}" for line in compare_logs(undisturbed.updates, played.updates)]
        numbers.update(played.done)
        numbers["demos"] += 1
        numbers["jobs"] += sum(len(one.jobs) for one in recordings)
        numbers["updates"] += len(played.updates)
        slowest = max(slowest, played.settled_s)
    outcome.numbers = {**numbers, "settled_max_s": round(slowest, 2)}
    outcome.wrong += _not_enough(plan.faults, numbers)
    return outcome


class Played(msgspec.Struct, kw_only=True):
    """One demo that is over."""

    updates: list[Update] = []
    done: dict[str, int] = {}
    wrong: list[str] = []
    settled_s: float = 0.0


class _Play:
    """One demo with faults: the stage of `jobstate demo`, with a daemon or two."""

    def __init__(self, recordings: Sequence[Recording], speed: float, daemons: int, tell: Tell) -> None:
        self._recordings: Final = recordings
        self._records: Final = [job for one in recordings for job in one.jobs]
        self._speed: Final = speed
        self._daemons: Final = daemons
        self._tell: Final = tell
        self._played: Final = Played()

    async def run(self, faults: Sequence[tuple[float, str]], rng: random.Random, folder: Path) -> Played:
        """Play it, with *faults* (seconds from the beginning, kind) by the way; what came of it."""
        ends = Ends(self._tell)
        async with contextlib.AsyncExitStack() as stack:
            stage = await stack.enter_async_context(Stage(self._recordings, folder, self._speed, ends))
            assert stage.daemon is not None
            daemons = [stage.daemon]
            for number in range(1, self._daemons):
                beside = DaemonProcess(make_folder(folder / f"daemon-{number}"), stage.variables(), ends)
                daemons.append(await stack.enter_async_context(beside))
            for daemon in daemons:
                await until_said(daemon, b"log.recovered")
            tormentor = Faults(rng, daemons, stage.server, self._tell)
            stack.push_async_callback(tormentor.wake_all)
            feed = asyncio.create_task(_gather_feed(stage, self._played.updates))
            stack.push_async_callback(_cancel, feed)
            await self._play(stage, feed, _carry_out(tormentor, faults))
            await tormentor.wake_all()
            if self._daemons > 1:
                await asyncio.sleep(STILL_S / 2)  # what the second writer would have doubled
            await self._judge(stage)
            for daemon in daemons:
                daemon.check()
            self._played.done = dict(tormentor.done)
        self._played.wrong += ends.wrong
        return self._played

    async def _play(self, stage: Stage, feed: "asyncio.Task[None]", faults: Coroutine[Any, Any, None]) -> None:
        torment = asyncio.create_task(faults)
        try:
            async for _ in stage.play():
                if feed.done():
                    feed.result()
            ended = time.monotonic()
            await torment
        finally:
            await _cancel(torment)
        with contextlib.suppress(TimeoutError):  # then it is wrong, and the verdict says how
            async with asyncio.timeout(SETTLE_S):
                while not judge(self._records, self._played.updates).ok:
                    if feed.done():
                        feed.result()
                    await asyncio.sleep(0.02)
        self._played.settled_s = time.monotonic() - ended

    async def _judge(self, stage: Stage) -> None:
        verdict, wrong = judge(self._records, self._played.updates), self._played.wrong
        for kind in ("missing", "surplus", "misordered"):
            wrong += [f"{kind}: {item}" for item in getattr(verdict, kind)]
        rejected, undecodable = await stage.refused()
        if rejected or undecodable:
            wrong.append(f"{rejected} rejected, {undecodable} undecodable")


async def _carry_out(tormentor: Faults, faults: Iterable[tuple[float, str]]) -> None:
    began = time.monotonic()
    for moment, kind in faults:
        await asyncio.sleep(max(began + moment - time.monotonic(), 0.0))
        await tormentor.carry_out(kind)


async def _gather_feed(stage: Stage, updates: list[Update]) -> None:
    async for _, update in stage.feed():
        updates.append(update)


def load(release: str, played: Sequence[str]) -> list[Recording]:
    """The recordings of *release* that are to be *played*, those that there are, in the order of their clocks."""
    folders = [RECORDINGS / f"bacalhau-{release}" / name for name in played]
    return sorted(
        (Recording.load(str(folder)) for folder in folders if folder.exists()), key=lambda recording: recording.start_ns
    )


def draw_moment(rng: random.Random, recordings: Sequence[Recording], speed: float) -> float:
    """Seconds after the beginning: anywhere, or (each other time) just after a frame or a change of the record."""
    happenings = merge(recordings)
    due = [0.0]
    for before, after in itertools.pairwise(happenings):
        due.append(due[-1] + min((after.t_ns - before.t_ns) / 1e9, IDLE_MAX_S) / speed)
    if rng.random() < 0.5:
        return rng.uniform(0.0, due[-1] + 0.5)
    return rng.choice(due) + rng.uniform(0.0, 0.1)


def compare_logs(without: Sequence[Update], with_faults: Sequence[Update]) -> list[str]:
    """What differs between two logs of the same record: per job the same updates, their times within 10 ms."""
    first, second = _by_job(without), _by_job(with_faults)
    wrong = []
    for job in sorted(first.keys() | second.keys()):
        one, other = first.get(job, []), second.get(job, [])
        if [_told(update) for update in one] != [_told(update) for update in other]:
            wrong.append(f"{job}: {[_told(update) for update in other]} with faults, {[_told(u) for u in one]} without")
        elif any(_apart(a, b) for a, b in zip(one, other, strict=True)):
            wrong.append(f"{job}: times differ by more than {TIME_TOLERANCE}")
    return wrong


def _by_job(updates: Iterable[Update]) -> dict[str, list[Update]]:
    found: dict[str, list[Update]] = defaultdict(list)
    for update in updates:
        found[f"{update.Job.Namespace}/{update.Job.ID}"].append(update)
    return found


def _told(update: Update) -> tuple[object, ...]:
    return (update.Sequence, update.StateType, update.Job.Version, update.Job.Revision, update.Previous, update.Message)


def _apart(one: Update, other: Update) -> bool:
    if one.Time is None or other.Time is None:
        return one.Time is not other.Time
    return abs(one.Time - other.Time) > TIME_TOLERANCE


# -- reports ----------------------------------------------------------------------------------------------------------


class ReportPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Reports with faults: how many reports of how many jobs, put in within *seconds*."""

    faults: dict[str, int]
    reports: int
    jobs: int
    seconds: float
    daemons: int = 2


STREAMS: Final = Streams(log_max_bytes=512 * MIB, input_max_bytes=512 * MIB, refused_max_bytes=512 * MIB)


class Reports:
    """Reports as producers send them: most go on as a job does, the rest is what must not get into the log."""

    def __init__(self, rng: random.Random, jobs: int, total: int) -> None:
        self._rng: Final = rng
        self._jobs: Final = jobs
        self._total: Final = total
        self._states: Final[dict[int, str | None]] = {}
        self._versions: Final[Counter[int]] = Counter()
        self._made = 0

    def make(self) -> tuple[str, bytes]:
        """One more: (subject, body). The jobs that are talked about move on with the time, a tenth of all at once."""
        rng = self._rng
        self._made += 1
        window = max(self._jobs // 10, 1)
        job = int((self._jobs - window) * min(self._made / self._total, 1.0)) + rng.randrange(window)
        subject = f"{NAMES.in_prefix}{('default', 'team-a')[job % 2]}.j-{job:06}"
        body: dict[str, Any] = {"StateType": self._state(job), "Message": rng.choice(("", "", f"m{rng.randrange(3)}"))}
        told: dict[str, Any] = {}
        kind = rng.random()
        if kind < 0.03:
            return subject, rng.choice((b"", b"{", b"[]", b'{"StateType":7}', b"\xff\xfe", b'{"Message":"no state"}'))
        if kind < 0.06:
            body["StateType"] = rng.choice(("Paused", "Unknown", ""))
        elif kind < 0.08:
            told["ID"] = "j-of-another"
        elif kind < 0.11:
            self._versions[job] += 1
            self._states[job] = body["StateType"] = rng.choice(("Pending", "Pending", "Running"))
        elif kind < 0.13:
            told["Version"] = self._versions[job] - 1 if self._versions[job] else None
        if job % 7 == 0:
            told["Type"] = "service"
        if self._versions[job] and "Version" not in told:
            told["Version"] = self._versions[job]
        if rng.random() < 0.2:
            body["Time"] = f"2026-11-24T05:{rng.randrange(60):02}:{rng.randrange(60):02}.{rng.randrange(10**6):06}Z"
        if told:
            body["Job"] = told
        return subject, json.dumps(body).encode()

    def _state(self, job: int) -> str:
        """The same again, any, or (mostly) one that may follow."""
        state = self._states.get(job)
        draw = self._rng.random()
        if draw < 0.15 and state is not None:
            return state
        if draw < 0.2:
            return self._rng.choice(STATES)
        after = sorted(MAY[state] - ENDS) or sorted(ENDS)
        if draw > 0.97:
            after = sorted(ENDS)
        chosen = self._states[job] = self._rng.choice(after)
        return chosen


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
STATES: Final = ("Pending", "Queued", "Running", "Completed", "Failed", "Stopped")
ENDS: Final = frozenset({"Completed", "Failed", "Stopped"})
MAY: Final[dict[str | None, frozenset[str]]] = {
    None: frozenset(STATES),
    "Pending": frozenset({"Queued", "Running"}) | ENDS,
    "Queued": frozenset({"Running"}) | ENDS,
    "Running": frozenset({"Queued"}) | ENDS,
    "Completed": frozenset(),
    "Failed": frozenset(),
    "Stopped": frozenset(),
}
"""The rules once more, by hand: those of the program are a file."""


class Expected(msgspec.Struct, kw_only=True):
    """What the input must come to. `logs`: updates by job. `refused`: what must be kept, each once."""

    logs: dict[str, list[dict[str, Any]]] = {}
    refused: set[str] = set()
    unchanged: int = 0

    @property
    def updates(self) -> int:
        """Of all jobs."""
        return sum(len(log) for log in self.logs.values())


def fold_one_by_one(entries: Iterable[Entry]) -> Expected:
    """The reports one after the other, as design/design.md 5 and 10 say it: the reference."""
    expected = Expected()
    for entry in entries:
        key = entry.subject.removeprefix(NAMES.in_prefix)
        log = expected.logs.setdefault(key, [])
        origin = f"{entry.number}-{entry.time_ns}"
        verdict = _judge_report(key, entry, log)
        if verdict == "undecodable":
            expected.refused.add(f"undecodable {origin}")
        elif isinstance(verdict, str):
            expected.refused.add(f"quarantine {verdict} {key} {origin}")
        elif verdict is None:
            expected.unchanged += 1
        else:
            log.append(verdict)
    return expected


def _judge_report(key: str, entry: Entry, log: Sequence[dict[str, Any]]) -> dict[str, Any] | str | None:
    """The update that follows, None for nothing new, else why it is refused."""
    try:
        body = json.loads(entry.body)
    except ValueError:
        return "undecodable"
    if not isinstance(body, dict) or not isinstance(body.get("StateType"), str):
        return "undecodable"
    told, state = body.get("Job") or {}, body["StateType"]
    last = log[-1] if log else None
    if told.get("ID") not in {None, key.partition(".")[2]}:
        return "identity"
    if state not in STATES:
        return "unknown-state"
    version, known = told.get("Version"), last["version"] if last else None
    flags: list[str] = []
    previous = last["state"] if last else None
    if version is not None and known is not None and version < known:
        return None
    if version is not None and known is not None and version > known:
        flags = [] if state == "Pending" else ["skipped"]
    elif state == previous:
        assert last is not None
        if state in ENDS or body.get("Message", "") == last["message"]:
            return None
        flags = ["message"]
    elif state not in MAY[previous]:
        return "after-terminal" if previous in ENDS else "illegal-transition"
    stored_us = entry.time_ns // 1000
    type_ = told.get("Type") or (last["type"] if last else "")
    if flags != ["message"] and state == "Completed" and type_ == "service":
        return "not-completable"
    return {
        "state": state,
        "message": body.get("Message", ""),
        "previous": previous,
        "version": known if version is None else version,
        "type": type_,
        "sequence": len(log) + 1,
        "flags": flags,
        "input": f"{entry.number}@{entry.time_ns}",
        "time": datetime.fromisoformat(body["Time"]) if "Time" in body else EPOCH + timedelta(microseconds=stored_us),
    }


async def torture_reports(plan: ReportPlan, seed: int, folder: Path, tell: Tell) -> Outcome:
    """Put the reports in while all faults happen; then lay log, refused stream and bucket beside the reference."""
    rng = random.Random(f"reports {seed}")
    outcome = Outcome(scenario="reports", seed=seed)
    ends = Ends(tell)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer(folder / "nats"))
        connection = await connect_reader(Address(urls=(server.url,)), "torture")
        stack.push_async_callback(connection.close)
        await ensure(connection, NAMES, STREAMS)
        keeper = asyncio.create_task(_keep(server, tell))
        stack.push_async_callback(_cancel, keeper)
        daemons = []
        for number in range(plan.daemons):
            daemon = DaemonProcess(make_folder(folder / f"daemon-{number}"), _variables(server), ends)
            daemons.append(await stack.enter_async_context(daemon))
        for daemon in daemons:
            await until_said(daemon, b"log.recovered")
        tormentor = Faults(rng, daemons, server, tell)
        stack.push_async_callback(tormentor.wake_all)
        producer = _Producer(connection, Reports(random.Random(seed), plan.jobs, plan.reports), plan)
        torment = asyncio.create_task(_torment(tormentor, producer, plan, rng))
        stack.push_async_callback(_cancel, torment)
        await producer.run(random.Random(seed))
        await torment
        await tormentor.wake_all()
        ended = time.monotonic()
        view = View(connection, NAMES, where=server.url)
        expected = fold_one_by_one(await _read(lambda: Reading(view, NAMES.input, (f"{NAMES.in_prefix}>",), FIRST)))
        tell(f"reports: all faults are over, {expected.updates} updates and {len(expected.refused)} refusals must come")
        await _until_still(view, expected, daemons, ended + FINISH_S)
        outcome.numbers = {
            **tormentor.done,
            "reports": producer.sent,
            "jobs": len(expected.logs),
            "updates": expected.updates,
            "refused": len(expected.refused),
            "unchanged": expected.unchanged,
            "settled_s": round(time.monotonic() - ended - STILL_S, 2),
        }
        outcome.wrong += await _compare(view, expected)
        if keeper.done():
            keeper.result()
    outcome.wrong += ends.wrong
    outcome.wrong += _not_enough(plan.faults, tormentor.done)
    return outcome


async def _keep(server: EmbeddedServer, tell: Tell) -> None:
    """Keep the server however often it is killed: a daemon's own keeper rightly gives up after ten short lives."""
    while True:
        try:
            await server.keep(tell)
        except ServerError as error:
            tell(f"{error}: kept on")


class _Producer:
    """Puts reports in, burst after burst; what was not confirmed is sent again, so the input may have it twice."""

    def __init__(self, connection: Connection, reports: Reports, plan: ReportPlan) -> None:
        self._connection: Final = connection
        self._reports: Final = reports
        self._plan: Final = plan
        self.sent = 0
        self.burst: asyncio.Event = asyncio.Event()

    async def run(self, rng: random.Random) -> None:
        """All of them, at about the pace of the plan."""
        began = time.monotonic()
        while self.sent < self._plan.reports:
            due = began + self._plan.seconds * self.sent / self._plan.reports
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            most = max(self._plan.reports // 20, 10)
            count = min(rng.randint(1, most), self._plan.reports - self.sent)
            self.burst.set()
            self.burst = asyncio.Event()
            for start in range(0, count, 500):
                await self._put([self._reports.make() for _ in range(min(500, count - start))])
            self.sent += count

    async def _put(self, part: Sequence[tuple[str, bytes]]) -> None:
        raw = b"".join(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(body), body) for subject, body in part[:-1])
        subject, body = part[-1]
        while True:
            try:
                if raw:
                    await self._connection.send_raw(raw)
                acked = json.loads((await self._connection.request(subject, body, timeout=2)).data)
            except (JobstateError, nats.errors.Error, TimeoutError):
                await asyncio.sleep(0.05)
                continue
            if "seq" in acked:
                return


async def _torment(tormentor: Faults, producer: _Producer, plan: ReportPlan, rng: random.Random) -> None:
    """Some faults come at any moment, the others soon after a burst began: then there is work to interrupt."""
    kinds = [kind for kind, count in plan.faults.items() for _ in range(count)]
    rng.shuffle(kinds)
    gap = plan.seconds / max(len(kinds), 1)
    for kind in kinds:
        await asyncio.sleep(rng.uniform(0.0, 1.5 * gap))
        if rng.random() < 0.5 and producer.sent < plan.reports:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(gap):
                    await producer.burst.wait()
            await asyncio.sleep(rng.uniform(0.0, 0.3))
        await tormentor.carry_out(kind)


def _variables(server: EmbeddedServer) -> dict[str, str]:
    return {
        "JOBSTATE_NATS__URL": server.url,
        "JOBSTATE_HTTP__PORT": "0",
        "JOBSTATE_LOG__FORMAT": "json",
        "JOBSTATE_STREAMS__LOG_MAX_BYTES": str(STREAMS.log_max_bytes),
        "JOBSTATE_STREAMS__INPUT_MAX_BYTES": str(STREAMS.input_max_bytes),
        "JOBSTATE_STREAMS__REFUSED_MAX_BYTES": str(STREAMS.refused_max_bytes),
        "JOBSTATE_CHECKPOINT__EVERY_S": "1",
    }


async def _until_still(view: View, expected: Expected, daemons: Sequence[DaemonProcess], deadline: float) -> None:
    """Wait until all that must come is there and nothing new comes, or until the *deadline*: then it shows as wrong."""
    before: tuple[int, int] = (-1, -1)
    since = time.monotonic()
    while time.monotonic() < deadline:
        for daemon in daemons:
            daemon.check()
        with contextlib.suppress(JobstateError):
            log = await view.info(NAMES.log, pattern=f"{NAMES.state_prefix}>")
            refused = await view.info(NAMES.refused)
            now = (sum((log.state.subjects or {}).values()), refused.state.last_seq)
            if now != before:
                before, since = now, time.monotonic()
            enough = now[0] >= expected.updates and now[1] >= len(expected.refused)
            if enough and time.monotonic() - since > STILL_S:
                return
        await asyncio.sleep(0.1)


async def _compare(view: View, expected: Expected) -> list[str]:
    """What log, refused stream and bucket have otherwise than the reference."""
    wrong = []
    logs: dict[str, list[Entry]] = defaultdict(list)
    for entry in await _read(lambda: view.entries(f"{NAMES.state_prefix}>")):
        logs[entry.subject.removeprefix(NAMES.state_prefix).rpartition(".")[0]].append(entry)
    for key in sorted(logs.keys() | expected.logs.keys()):
        found, must = logs.get(key, []), expected.logs.get(key, [])
        if len(found) != len(must):
            wrong.append(f"{key}: {len(found)} updates, {len(must)} expected")
        for entry, update in zip(found, must, strict=False):
            wrong += [f"{key} #{update['sequence']}: {line}" for line in _differences(entry, update)]
    kept: Counter[str] = Counter()
    for entry in await _read(view.refused):
        kept[_refusal(entry.subject)] += 1
    wrong += [f"refused {count} times: {name}" for name, count in kept.items() if count > 1]
    wrong += [f"not in the refused stream: {name}" for name in expected.refused - kept.keys()]
    wrong += [f"refused and must not be: {name}" for name in kept.keys() - expected.refused]
    # A report tells its own time, and these are of a day long gone: that such jobs stand too long is rightly said.
    wrong += [
        f"advisory: {entry.subject}"
        for entry in await _read(lambda: view.entries(f"{NAMES.prefix}.advisory.>"))
        if not entry.subject.startswith(f"{NAMES.prefix}.advisory.stuck.")
    ]
    prefix = NAMES.key_in_bucket(JobKey(""))
    copies = await _read(lambda: Reading(view, NAMES.bucket_stream, (f"{prefix}>",), FIRST))
    present = {copy.subject.removeprefix(prefix): copy.body for copy in copies}
    wrong += [
        f"{key}: the bucket has not its last update" for key, log in logs.items() if present.get(key) != log[-1].body
    ]
    return wrong


def _differences(entry: Entry, must: dict[str, Any]) -> list[str]:
    update = decode_update(entry.body)
    found = {
        "state": update.StateType,
        "message": update.Message,
        "previous": update.Previous,
        "version": update.Job.Version,
        "type": update.Job.Type,
        "sequence": update.Sequence,
        "flags": list(update.Flags),
        "input": entry.input,
    }
    lines = [f"{name} is {found[name]!r}, must be {must[name]!r}" for name in found if found[name] != must[name]]
    if update.Time != must["time"]:
        lines.append(f"time is {update.Time}, must be {must['time']}")
    return lines


def _refusal(subject: str) -> str:
    """The refused entry's name as the reference spells it."""
    kind, _, rest = subject.removeprefix(f"{NAMES.prefix}.").partition(".")
    tokens = rest.split(".")
    if kind == "undecodable":
        return f"undecodable {tokens[-1]}"
    return f"quarantine {tokens[0]} {tokens[1]}.{tokens[2]} {tokens[-1]}"


async def _read(begin: Callable[[], Reading]) -> list[Entry]:
    """All that is stored; begun again where the server has just been killed."""
    while True:
        try:
            async with begin() as entries:
                return [entry async for entry in entries]
        except ServerError:
            await asyncio.sleep(0.2)


# -- all of it --------------------------------------------------------------------------------------------------------


async def until_said(daemon: DaemonProcess, event: bytes, within_s: float = DEADLINE_S) -> None:
    """Wait until the daemon's log has the line *event*."""
    async with asyncio.timeout(within_s):
        while not count_said(daemon, event):
            await asyncio.sleep(0.02)


def count_said(daemon: DaemonProcess, event: bytes) -> int:
    """How often the daemon's log has the line *event*."""
    return daemon.log.read_bytes().count(event)


def make_folder(folder: Path) -> Path:
    """Make it; the same."""
    folder.mkdir(parents=True)
    return folder


def _not_enough(wanted: dict[str, int], done: dict[str, int]) -> list[str]:
    return [
        f"only {done.get(kind, 0)} of {count} faults: {kind}"
        for kind, count in wanted.items()
        if done.get(kind, 0) < count
    ]


def _share(total: int, parts: int, number: int) -> int:
    """How many of *total* fall on part *number* of *parts*."""
    return total * (number + 1) // parts - total * number // parts


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _silent(_: str) -> None:
    """Where nobody listens."""


def main() -> int:
    """0: no scenario was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.torture", description=__doc__)
    names = ("daemon-kills", "server-kills", "two-daemons", "reports")
    parser.add_argument("--only", choices=names, action="append", help="this scenario (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line per scenario")
    parser.add_argument("--daemon-kills", type=int, default=30, help="of demos (default: %(default)s)")
    parser.add_argument("--server-kills", type=int, default=10, help="of demos (default: %(default)s)")
    parser.add_argument(
        "--starts", type=int, default=5, help="also of the server, at a daemon's (default: %(default)s)"
    )
    parser.add_argument("--pauses", type=int, default=30, help="of two daemons in demos (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="demos of each scenario (default: %(default)s)")
    parser.add_argument("--speed", type=float, default=5.0, help="of the demos (default: %(default)s)")
    parser.add_argument("--reports", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=5_000, help="that the reports tell of (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=100.0, help="to put the reports in (default: %(default)s)")
    parser.add_argument(
        "--report-faults",
        type=int,
        nargs=4,
        default=(30, 10, 20, 10),
        metavar="N",
        help="daemon kills, server kills, pauses, kills of the server at a daemon's start",
    )
    parser.add_argument("--keep", action="store_true", help="leave the folders: logs and streams")
    options = parser.parse_args()
    configure(Log(level="error", format="console"))
    right = True
    for name in options.only or names:
        outcome = asyncio.run(_run(name, options))
        right = right and outcome.ok
        _show(outcome, as_json=options.json)
    return 0 if right else 1


async def _run(name: str, options: argparse.Namespace) -> Outcome:
    report_faults = dict(zip(("daemon", "server", "pause", "start"), options.report_faults, strict=True))

    def demos(*, daemons: int = 1, **faults: int) -> Awaitable[Outcome]:
        plan = DemoPlan(scenario=name, faults=faults, rounds=options.rounds, speed=options.speed, daemons=daemons)
        return torture_demos(plan, options.seed, folder, _progress)

    with _folder(keep=options.keep) as folder:
        began = time.monotonic()
        if name == "daemon-kills":
            outcome = await demos(daemon=options.daemon_kills)
        elif name == "server-kills":
            outcome = await demos(server=options.server_kills, start=options.starts)
        elif name == "two-daemons":
            outcome = await demos(daemons=2, pause=options.pauses)
        else:
            plan = ReportPlan(faults=report_faults, reports=options.reports, jobs=options.jobs, seconds=options.seconds)
            outcome = await torture_reports(plan, options.seed, folder, _progress)
        outcome.numbers["seconds"] = round(time.monotonic() - began)
    return outcome


@contextlib.contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="jobstate-torture-"))
    try:
        yield folder
    finally:
        if keep:
            _progress(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _progress(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**msgspec.to_builtins(outcome), "ok": outcome.ok}), flush=True)
        return
    numbers = ", ".join(f"{name} {number:g}" for name, number in outcome.numbers.items())
    print(f"{'right' if outcome.ok else 'WRONG'}: {outcome.scenario} (seed {outcome.seed}): {numbers}", flush=True)
    for line in outcome.wrong[:SHOWN_MAX]:
        print(f"  {line}")
    if len(outcome.wrong) > SHOWN_MAX:
        print(f"  and {len(outcome.wrong) - SHOWN_MAX} more (--json has them all)")


if __name__ == "__main__":
    sys.exit(main())
