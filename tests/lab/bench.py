"""`python -m tests.lab.bench`: reports end to end, beside the plain loop of nats-py; what was stored is checked.

Everything runs on a real nats-server of its own on the loopback: client, server and load share the machine, so numbers
are comparable with those of the same run only. Wrong is an error (exit 1); slow is a number.
"""

import argparse
import asyncio
import contextlib
import cProfile
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest.mock import patch

import msgspec
import nats

from consumer.core import Decided
from consumer.daemon import assemble, runtime
from consumer.daemon.watch import Watch
from consumer.jetstream import topology
from consumer.jetstream.input import JetStreamInput
from consumer.jetstream.pull import Pull, Pulled
from consumer.jetstream.server import EmbeddedServer
from consumer.jetstream.topology import ensure
from consumer.model import InputPosition
from consumer.nats.address import Address
from consumer.nats.api import INPUT, StreamInfo, header
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.observe import configure, never_wait, tell_left_out_at_end
from consumer.settings import Http, Log, Nats, Settings, Streams
from consumer.wire.subjects import Names

NAMES: Final = Names()
BODY_BYTES: Final = 1024
CHUNK: Final = 1000
"""Reports that are sent before the server is asked whether it has them: of 10,000 that wait it drops the rest."""
WARM_S: Final = 1.0
"""The first second of the latency is not counted: caches and allocators are cold."""
DEADLINE_S: Final = 300.0

AIM_RATE: Final = 20_000
AIM_TIMES: Final = 12
AIM_P99_MS: Final = 5.0
AIM_LATENCY_RATE: Final = 1_000

ENDS: Final = frozenset({"Completed", "Failed", "Stopped"})
MAY: Final = {
    None: {"Pending", "Queued", "Running"} | ENDS,
    "Pending": {"Queued", "Running"} | ENDS,
    "Queued": {"Running"} | ENDS,
    "Running": {"Queued"} | ENDS,
}
"""The transitions of the reference, written down once more: the program's own are a file."""

T = TypeVar("T")


# -- the load, and what must come of it -------------------------------------------------------------------------------


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Reports in the order of the input: (job, body)."""

    jobs: int
    reports: list[tuple[str, bytes]]


def make_load(jobs: int, seed: int = 1) -> Load:
    """Five reports a job, 1 KB each, interleaved at random.

    Of each 50 jobs one repeats itself and one goes on after its end. All else is updates: the dearest that there is.
    """
    shuffled = random.Random(seed)
    order = [number for number in range(jobs) for _ in range(5)]
    shuffled.shuffle(order)
    seen: Counter[int] = Counter()
    reports = []
    for number in order:
        at = seen[number]
        seen[number] += 1
        states = ["Pending", "Queued", "Running", "Running", "Failed" if number % 10 == 0 else "Completed"]
        said = at
        if number % 50 == 1:
            said = min(at, 2)  # says the same three times
        elif number % 50 == 2:
            states[3:] = ["Stopped", "Running"]
        text = f"report {said} of job {number} "
        state = {"StateType": states[at], "Message": ""}
        state["Message"] = text.ljust(BODY_BYTES - len(json.dumps(state)), "x")
        reports.append((f"j-{number:08}", json.dumps(state).encode()))
    return Load(jobs=jobs, reports=reports)


def fold_one_by_one(load: Load) -> tuple[dict[str, list[tuple[object, ...]]], int]:
    """What the log must hold of each job, and how many reports are to be rejected: the rules, one after the other."""
    made: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    last: dict[str, tuple[str, str]] = {}
    rejected = 0
    for job, body in load.reports:
        report = json.loads(body)
        state, message = report["StateType"], report["Message"]
        previous, said = last.get(job, (None, ""))
        flags: list[str] = []
        if state == previous:
            if message == said or state in ENDS:
                continue
            flags = ["message"]
        elif state not in MAY.get(previous, ()):
            rejected += 1
            continue
        made[job].append((state, message, previous, len(made[job]) + 1, flags))
        last[job] = (state, message)
    return made, rejected


async def fill(connection: Connection, load: Load) -> None:
    """Publish all of it into the input."""
    for at in range(0, len(load.reports), CHUNK):
        part = load.reports[at : at + CHUNK]
        await connection.send_raw(b"".join(_pub(job, body) for job, body in part[:-1]))
        job, body = part[-1]
        acked = json.loads((await connection.request(_subject(job), body, timeout=30)).data)
        if acked.get("seq") != at + len(part):
            raise SystemExit(f"the input did not take all of the load: {acked}")


def _subject(job: str) -> str:
    return f"{NAMES.in_prefix}default.{job}"


def _pub(job: str, body: bytes) -> bytes:
    return b"PUB %s %d\r\n%s\r\n" % (_subject(job).encode(), len(body), body)


async def read_back(connection: Connection, stream: str, filters: str) -> list[Pulled]:
    """Every entry of *stream* under *filters*, in order."""
    pull = Pull(connection, stream)
    found: list[Pulled] = []
    await pull.open({"deliver_policy": "all"}, (filters,))
    while pull.pending:
        found += await pull.batch()
    await pull.close()
    return found


async def check(connection: Connection, load: Load, *, bucket: bool) -> tuple[str, int]:
    """Compare the log (and the bucket, once it has caught up) with the reference: (what is wrong, updates)."""
    wanted, rejected = fold_one_by_one(load)
    found: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    entries = await read_back(connection, NAMES.log, f"{NAMES.state_prefix}>")
    for _, _, subject, data, _ in entries:
        update = json.loads(data)
        job = update["Job"]["ID"]
        if subject.decode() != f"{NAMES.state_prefix}default.{job}.{update['StateType'].lower()}":
            return f"an update of {job} under {subject!r}", len(entries)
        found[job].append(
            (update["StateType"], update["Message"], update["Previous"], update["Sequence"], update["Flags"])
        )
    for job in wanted.keys() | found.keys():
        if wanted.get(job) != found.get(job):
            return f"{job}: the log has {_short(found.get(job))}, needed {_short(wanted.get(job))}", len(entries)
    kept = await _info(connection, NAMES.refused)
    if kept.state.messages != rejected:
        return f"{kept.state.messages} rejections are kept, needed {rejected}", len(entries)
    if bucket:
        for _, _, subject, data, _ in await read_back(connection, NAMES.bucket_stream, ">"):
            job = subject.decode().rpartition(".")[2]
            if json.loads(data)["Sequence"] != len(wanted.pop(job, [])):
                return f"{job}: the bucket has another update than the last", len(entries)
        if wanted:
            return f"{len(wanted)} jobs are not in the bucket", len(entries)
    return "", len(entries)


def _short(updates: list[tuple[object, ...]] | None) -> object:
    return updates and [(state, sequence) for state, _, _, sequence, _ in updates]


async def _info(connection: Connection, stream: str) -> StreamInfo:
    return await connection.ask(f"$JS.API.STREAM.INFO.{stream}", b"", StreamInfo)


# -- what is measured, each in a process of its own -------------------------------------------------------------------


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a child process is to run. `count` 0: until it is told to stop."""

    what: str
    url: str
    loop: str
    bucket: bool = True
    count: int = 0
    profile: str = ""


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """How long `count` reports took: seconds, and seconds of the process's own CPU."""

    count: int
    wall_s: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Reports a second."""
        return self.count / self.wall_s


def run_part(part: Part) -> None:
    """In the child: run it, and print what it took."""
    body = follow(part) if part.what == "daemon" else loop_as_documented(part)
    profile = cProfile.Profile() if part.profile else None
    if profile is not None:
        took = profile.runcall(_run, part.loop, body)
        profile.dump_stats(part.profile)
    else:
        took = _run(part.loop, body)
    print(msgspec.json.encode(took).decode(), flush=True)


def _run(loop: str, body: Coroutine[Any, Any, T]) -> T:
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - an extra

        return uvloop.run(body)
    return asyncio.run(body)


async def follow(part: Part) -> Took | None:
    """The daemon as `jobstate run` runs it, with a watch that counts. Begins to count when the input is begun."""
    stop = asyncio.Event()
    began = ended = (0.0, 0.0)

    class TimedInput(JetStreamInput):
        async def start(self, after: InputPosition | None) -> None:
            nonlocal began
            began = (time.perf_counter(), time.process_time())
            await super().start(after)
            if not part.count:
                print("ready", flush=True)

    class CountingWatch(Watch):
        left = part.count

        def decided(self, decided: Sequence[Decided]) -> None:
            nonlocal ended
            super().decided(decided)
            self.left -= len(decided)
            if not self.left:
                ended = (time.perf_counter(), time.process_time())
                stop.set()

    async def ensure_part(
        connection: Connection, names: Names, streams: Streams, *, leave: Collection[str] = ()
    ) -> tuple[str, ...]:
        return await ensure(connection, names, streams, leave={*leave, *_left_out(bucket=part.bucket)})

    settings = Settings(nats=Nats(url=part.url), http=Http(port=0), log=Log(level="info"))
    never_wait()
    configure(settings.log)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with (
        patch.object(assemble, "JetStreamInput", TimedInput),
        patch.object(runtime, "Watch", CountingWatch),
        patch.object(topology, "ensure", ensure_part),
    ):
        await assemble.run_daemon(settings, stop)
    tell_left_out_at_end()
    if not part.count:
        return None
    return Took(count=part.count, wall_s=ended[0] - began[0], cpu_s=ended[1] - began[1])


async def loop_as_documented(part: Part) -> Took:
    """What one writes after reading nats-py's documentation: fetch one, decode, publish, put into the bucket, ack."""
    connection = await nats.connect(part.url)
    stream = connection.jetstream()
    await stream.add_stream(name="plain", subjects=["plain.>"])
    bucket = await stream.create_key_value(bucket="plain")
    subscription = await stream.pull_subscribe(f"{NAMES.in_prefix}*.*", durable="plain", stream=NAMES.input)
    last: dict[str, str] = {}
    began = (time.perf_counter(), time.process_time())
    for _ in range(part.count):
        (message,) = await subscription.fetch(1)
        job = message.subject.rpartition(".")[2]
        report = json.loads(message.data)
        previous, state = last.get(job), report["StateType"]
        if state in MAY.get(previous, ()):
            last[job] = state
            update = json.dumps({**report, "Job": {"ID": job}, "Previous": previous}).encode()
            await stream.publish(f"plain.{job}.{state.lower()}", update)
            await bucket.put(job, update)
        await message.ack()
    took = Took(count=part.count, wall_s=time.perf_counter() - began[0], cpu_s=time.process_time() - began[1])
    await connection.close()
    return took


@contextlib.asynccontextmanager
async def _child(part: Part) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", "tests.lab.bench", "--part", msgspec.json.encode(part).decode())
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def measure(part: Part) -> Took:
    """Run *part* in a process of its own."""
    async with _child(part) as process, asyncio.timeout(DEADLINE_S):
        said, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"{part.what} ended with {process.returncode}")
        return msgspec.json.decode(said, type=Took)


# -- one measurement, on a server of its own --------------------------------------------------------------------------


def _left_out(*, bucket: bool) -> tuple[str, ...]:
    """The streams that are not made."""
    return () if bucket else (NAMES.bucket_stream,)


@contextlib.asynccontextmanager
async def _server(*, bucket: bool) -> AsyncIterator[tuple[EmbeddedServer, Connection]]:
    with tempfile.TemporaryDirectory(prefix="jobstate-bench-") as folder:
        async with EmbeddedServer(Path(folder)) as server:
            connection = await connect_reader(Address(urls=(server.url,)), "bench")
            try:
                await ensure(connection, NAMES, Streams(), leave=_left_out(bucket=bucket))
                yield server, connection
            finally:
                await connection.close()


def _cpu_s(server: EmbeddedServer) -> float:
    """Seconds of CPU that the server has used; 0 where the system does not say so (`/proc`)."""
    stat = Path(f"/proc/{server.pid}/stat")
    if not stat.exists():
        return 0.0
    user, system = stat.read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def measure_daemon(load: Load, *, loop: str, bucket: bool, profile: str = "") -> dict[str, Any]:
    """End to end: from the first read of the input until the last report is decided, and its update confirmed."""
    async with _server(bucket=bucket) as (server, connection):
        await fill(connection, load)
        before = _cpu_s(server)
        took = await measure(
            Part(what="daemon", url=server.url, loop=loop, bucket=bucket, count=len(load.reports), profile=profile)
        )
        found: dict[str, Any] = {
            "rate": took.rate,
            "cpu_us": took.cpu_s / took.count * 1e6,
            "server_cpu_us": (_cpu_s(server) - before) / took.count * 1e6,
        }
        if bucket:
            began = time.perf_counter()
            log_updates = sum(len(updates) for updates in fold_one_by_one(load)[0].values())
            async with asyncio.timeout(DEADLINE_S):
                while (await _info(connection, NAMES.bucket_stream)).state.last_seq < log_updates:
                    await asyncio.sleep(0.02)
            found["bucket_behind_s"] = time.perf_counter() - began
        wrong, updates = await check(connection, load, bucket=bucket)
        return {**found, "updates": updates, "wrong": wrong}


async def measure_plain(load: Load, *, loop: str, count: int) -> dict[str, Any]:
    """The plain loop over the first *count* reports of the same load."""
    async with _server(bucket=False) as (server, connection):
        await fill(connection, Load(jobs=load.jobs, reports=load.reports[:count]))
        before = _cpu_s(server)
        took = await measure(Part(what="plain", url=server.url, loop=loop, count=count))
        return {
            "rate": took.rate,
            "cpu_us": took.cpu_s / took.count * 1e6,
            "server_cpu_us": (_cpu_s(server) - before) / took.count * 1e6,
            "wrong": "",
        }


async def measure_latency(*, loop: str, bucket: bool, rate: int, seconds: float) -> dict[str, Any]:
    """From the moment at which the server stored a report until a subscriber has its update, in ms, at a steady rate.

    A report's time is the server's, an update's ours when it is read: one machine, one clock.
    """
    load = make_load(max(round(rate * (seconds + WARM_S) / 5), 1))
    late: list[tuple[float, float]] = []
    updates = sum(len(made) for made in fold_one_by_one(load)[0].values())

    def see(_subject: bytes, _reply: bytes, _data: bytes, headers: bytes | None) -> None:
        now = time.time_ns()
        stored = int(header(headers, INPUT).partition("@")[2])
        late.append((time.perf_counter(), (now - stored) / 1e6))

    async with _server(bucket=bucket) as (server, connection):
        async with _child(Part(what="daemon", url=server.url, loop=loop, bucket=bucket)) as process:
            assert process.stdout is not None
            async with asyncio.timeout(DEADLINE_S):
                await process.stdout.readline()
            subscriber = await connect_reader(Address(urls=(server.url,)), "bench subscriber")
            await subscriber.listen(f"{NAMES.state_prefix}>", see)
            await subscriber.flush()
            began = time.perf_counter()
            sent = 0
            while sent < len(load.reports):
                due = min(int((time.perf_counter() - began) * rate) + 1, len(load.reports))
                if due > sent:
                    await connection.send_raw(b"".join(_pub(*report) for report in load.reports[sent:due]))
                    sent = due
                await asyncio.sleep(0.0005)
            produced = sent / (time.perf_counter() - began)
            async with asyncio.timeout(DEADLINE_S):
                while len(late) < updates:
                    await asyncio.sleep(0.01)
            await subscriber.close()
        wrong, _ = await check(connection, load, bucket=False)
    counted = sorted(ms for seen, ms in late if seen - began > WARM_S)
    return {
        "rate": produced,
        "p50_ms": counted[len(counted) // 2],
        "p99_ms": counted[len(counted) * 99 // 100],
        "max_ms": counted[-1],
        "wrong": wrong,
    }


# -- all of it --------------------------------------------------------------------------------------------------------


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of run, and its rounds."""

    name: str
    loop: str
    bucket: bool
    rounds: list[dict[str, Any]]

    def median(self, key: str) -> float:
        """The middle one of the rounds."""
        return float(statistics.median(one[key] for one in self.rounds))


Measured = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


def _kinds(options: argparse.Namespace, load: Load) -> Iterator[tuple[str, str, bool, Measured]]:
    loops = [name for name in ("uvloop", "asyncio") if name in options.loops]
    for loop in loops:
        yield "plain", loop, True, functools.partial(measure_plain, load, loop=loop, count=options.plain)
        for bucket in (False, True):
            yield "daemon", loop, bucket, functools.partial(measure_daemon, load, loop=loop, bucket=bucket)
        yield (
            "latency",
            loop,
            True,
            functools.partial(measure_latency, loop=loop, bucket=True, rate=options.rate, seconds=options.seconds),
        )


async def run_all(options: argparse.Namespace) -> list[Row]:
    """Every kind, round by round, so that what else the machine does meets all of them."""
    _say(
        f"{options.jobs} jobs, {5 * options.jobs} reports of {BODY_BYTES} bytes; {os.cpu_count()} CPUs, shared by all, "
        f"load before: {os.getloadavg()[0]:.1f}"
    )
    load = make_load(options.jobs)
    rows: dict[tuple[str, str, bool], Row] = {}
    for number in range(1, options.rounds + 1):
        for name, loop, bucket, run in _kinds(options, load):
            if name not in options.only:
                continue
            found = await run()
            row = rows.setdefault((name, loop, bucket), Row(name=name, loop=loop, bucket=bucket, rounds=[]))
            row.rounds.append(found)
            _say(f"round {number}/{options.rounds}  {_label(row):38} {_told(name, found)}")
    return list(rows.values())


def _label(row: Row) -> str:
    what = {"plain": "plain nats-py loop", "daemon": "jobstate", "latency": "jobstate, stored to seen"}[row.name]
    return f"{what}, {row.loop}, {'with' if row.bucket else 'without'} KV"


def _told(name: str, found: dict[str, Any]) -> str:
    wrong = f"  WRONG: {found['wrong']}" if found["wrong"] else ""
    if name == "latency":
        return (
            f"p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms, max {found['max_ms']:.1f} ms "
            f"at {found['rate']:,.0f}/s{wrong}"
        )
    behind = f", bucket {found['bucket_behind_s']:.2f} s behind" if "bucket_behind_s" in found else ""
    return (
        f"{found['rate']:>9,.0f} reports/s, {found['cpu_us']:.1f} us of CPU each, "
        f"of the server {found['server_cpu_us']:.1f}{behind}{wrong}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def summarize(rows: list[Row]) -> dict[str, Any]:
    """Medians, and how they stand to the aims."""
    lines = []
    plain = {row.loop: row.median("rate") for row in rows if row.name == "plain"}
    for row in rows:
        keys = [key for key in row.rounds[0] if key != "wrong"]
        line: dict[str, Any] = {
            "name": row.name,
            "loop": row.loop,
            "bucket": row.bucket,
            **{key: round(row.median(key), 3) for key in keys},
            "rounds": row.rounds,
        }
        if row.name == "daemon" and row.loop in plain:
            line["times_plain"] = round(row.median("rate") / plain[row.loop], 2)
        lines.append(line)
    wrong = [one["wrong"] for row in rows for one in row.rounds if one["wrong"]]
    return {
        "python": platform.python_version(),
        "nats_py": importlib.metadata.version("nats-py"),
        "cpus": os.cpu_count(),
        "lines": lines,
        "wrong": wrong,
        "ok": not wrong,
    }


def show(summary: dict[str, Any]) -> None:
    """The table."""
    titles = f"{'reports/s':>12}{'best':>9}{'x plain':>9}{'CPU us':>8}{'server':>8}{'p50 ms':>8}{'p99 ms':>8}  aim"
    print(f"\n{'median of the rounds':40}{titles}")
    for line in summary["lines"]:
        row = Row(name=line["name"], loop=line["loop"], bucket=line["bucket"], rounds=[])
        latency = row.name == "latency"
        print(
            f"{_label(row):40}{line['rate']:>12,.0f}{max(one['rate'] for one in line['rounds']):>9,.0f}"
            f"{_cell(line.get('times_plain'), 1):>9}{_cell(line.get('cpu_us'), 1):>8}"
            f"{_cell(line.get('server_cpu_us'), 1):>8}"
            f"{_cell(line.get('p50_ms'), 2):>8}{_cell(line.get('p99_ms'), 2):>8}  {_aim(line, latency)}"
        )
    for wrong in summary["wrong"]:
        print(f"WRONG: {wrong}")


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _aim(line: dict[str, Any], latency: bool) -> str:
    if latency:
        met, aim = line["p99_ms"] <= AIM_P99_MS, f"p99 <= {AIM_P99_MS:g} ms"
    elif line["name"] == "daemon" and not line["bucket"]:
        met = line["rate"] >= AIM_RATE and line.get("times_plain", AIM_TIMES) >= AIM_TIMES
        aim = f">= {AIM_RATE:,}/s and {AIM_TIMES} x"
    else:
        return ""
    return f"{aim}: {'met' if met else 'missed'}"


def _loops() -> list[str]:
    return ["uvloop", "asyncio"] if importlib.util.find_spec("uvloop") else ["asyncio"]


def main() -> int:
    """0: the log was right in every run; 1: it was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.bench", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="five reports each (default: %(default)s)")
    parser.add_argument("--plain", type=int, default=3_000, help="reports for the plain loop (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=AIM_LATENCY_RATE, help="reports/s for the latency")
    parser.add_argument("--seconds", type=float, default=10, help="of the latency's run (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=["plain", "daemon", "latency"])
    parser.add_argument("--loops", nargs="+", choices=["uvloop", "asyncio"], default=_loops())
    parser.add_argument("--json", action="store_true", help="print everything measured as one JSON")
    parser.add_argument("--profile", metavar="FILE", help="one run of the daemon under cProfile; its statistics")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.only = options.only or ["plain", "daemon", "latency"]
    configure(Log(level="warning"))
    if options.part:
        run_part(msgspec.json.decode(options.part, type=Part))
        return 0
    if options.profile:
        run = measure_daemon(make_load(options.jobs), loop=options.loops[0], bucket=False, profile=options.profile)
        print(_told("daemon", _run(options.loops[0], run)))
        return 0
    summary = summarize(_run(options.loops[0], run_all(options)))
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        show(summary)
    return 0 if summary["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
