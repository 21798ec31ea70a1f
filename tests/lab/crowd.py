"""Bursts beside a real Bacalhau, seen by the daemon and by pollers in turn: `make crowd ARGS="BINARY"`. Not run by CI.

`python -m tests.lab.crowd BINARY [--jobs 300] [--rounds 3] [--json]`: a cluster as in `tests.lab.real`. Each round
submits so many jobs in about a second, twice: once while `jobstate run` watches, and once while it is paused and every
job is polled each 500 ms until it has ended, which is what people do without jobstate. Prints for both, and each round:
how many state changes were seen of those in the record, how late (p50, p99; by the clock that stamped the record, which
is this machine's), and the requests for each change. Ends with 1 if a change is missing in the log.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import aiohttp
import nats
from nats.aio.msg import Msg

from consumer.wire.update import decode_update
from tests.daemon.process import Daemon
from tests.lab.real import OVER, Bacalhau, Run, catalogue, cluster
from tests.server import Server

POLL_S: Final = 0.5
"""Between two requests for one job, as in scripts that wait for a job."""
PATIENCE_S: Final = 300.0
"""So long a burst may take until its last job has ended and is seen."""
REQUESTS: Final = "jobstate_reads_total"

Change = tuple[str, int, str]
"""A job, its version and a state of it."""


@dataclass(frozen=True)
class Seen:
    """What one way of watching came to in one burst."""

    by: str
    changes: int
    """State changes of the burst in the record."""
    missed: int
    """Of these, so many were never seen."""
    p50_ms: float
    p99_ms: float
    requests: float
    """For each change in the record."""
    kinds: dict[str, int]
    """All requests, by kind, cause and outcome."""


class Poller:
    """Asks for each job every 500 ms until it has ended."""

    def __init__(self, session: aiohttp.ClientSession, api: str) -> None:
        self._session: Final = session
        self._api: Final = api
        self.requests = 0
        self.late_s: Final[dict[Change, float]] = {}

    async def follow(self, job: str) -> None:
        """Ask until it has ended, and note how late each change was seen."""
        while True:
            self.requests += 1
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(f"{self._api}/api/v1/orchestrator/jobs/{job}") as answer:
                    if answer.ok:
                        shown = (await answer.json())["Job"]
                        state = str(shown["State"]["StateType"])
                        change = (job, int(shown.get("Version", 0)), state)
                        self.late_s.setdefault(change, time.time() - shown["ModifyTime"] / 1e9)
                        if state in OVER:
                            return
            await asyncio.sleep(POLL_S)


class Crowd:
    """One cluster and one daemon; bursts of *jobs* jobs."""

    def __init__(self, bacalhau: Bacalhau, daemon: Daemon, jobs: int) -> None:
        self._bacalhau: Final = bacalhau
        self._daemon: Final = daemon
        self._jobs: Final = jobs
        self._ok: Final = catalogue(bacalhau.version)["ok"]
        self._submitted = 0
        self._late_s: Final[dict[Change, float]] = {}

    async def hear(self, message: Msg) -> None:
        """Take an entry of the log."""
        update = decode_update(message.data)
        if update.Time is not None:
            change = (update.Job.ID, update.Job.Version or 0, update.StateType)
            self._late_s[change] = time.time() - update.Time.timestamp()

    async def _submit_one(self, after_s: float, then: Poller | None, group: asyncio.TaskGroup) -> str:
        await asyncio.sleep(after_s)
        self._submitted += 1
        job = await self._bacalhau.submit(self._ok | {"Name": f"crowd-{self._submitted}"})
        if then is not None and job:
            group.create_task(then.follow(job), name=f"poll {job}")
        return job

    async def _burst(self, poller: Poller | None) -> list[str]:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._submit_one(n / self._jobs, poller, group)) for n in range(self._jobs)]
        return [task.result() for task in tasks if task.result()]

    async def _changes(self, jobs: Sequence[str]) -> set[Change]:
        """The record's changes, once all *jobs* have ended."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                states = {job["ID"]: job["State"]["StateType"] for job in await self._bacalhau.jobs() or []}
                if all(states.get(job) in OVER for job in jobs):
                    break
                await asyncio.sleep(2.0)
        return {(job, version, state) for job in jobs for version, state, _ in await self._bacalhau.history(job)}

    async def _requests(self) -> Counter[str]:
        numbers = await self._daemon.numbers(REQUESTS)
        return Counter({" ".join(labels): int(count) for (_, *labels), count in numbers.items()})

    async def watched(self) -> Seen:
        """A burst that the daemon watches."""
        before = await self._requests()
        jobs = await self._burst(None)
        async with asyncio.timeout(PATIENCE_S):
            while not set(jobs) <= {job for job, _, state in self._late_s if state in OVER}:
                await asyncio.sleep(0.1)
        requests = await self._requests() - before
        return told("jobstate", await self._changes(jobs), self._late_s, requests)

    async def polled(self, session: aiohttp.ClientSession) -> Seen:
        """A burst whose jobs are polled, one by one, while the daemon is paused."""
        poller = Poller(session, self._bacalhau.api)
        self._daemon.tell(signal.SIGSTOP)
        try:
            jobs = await self._burst(poller)
            changes = await self._changes(jobs)
        finally:
            self._daemon.tell(signal.SIGCONT)
        await self._daemon.until_ready()
        return told("polling", changes, poller.late_s, Counter({"job": poller.requests}))


def told(by: str, changes: set[Change], late_s: dict[Change, float], requests: Counter[str]) -> Seen:
    """What was seen of *changes*; *late_s* is by how much."""
    late = sorted(late_s[change] for change in changes if change in late_s)
    p50, p99 = (1e3 * late[min(len(late) * share // 100, len(late) - 1)] for share in (50, 99))
    return Seen(
        by=by,
        changes=len(changes),
        missed=len(changes) - len(late),
        p50_ms=round(p50, 1),
        p99_ms=round(p99, 1),
        requests=round(requests.total() / len(changes), 2),
        kinds=dict(requests),
    )


async def play(binary: Path, *, jobs: int, rounds: int, folder: Path) -> list[Seen]:
    """So many rounds of both ways."""
    found = []
    server = Server(folder / "nats")
    await server.start()
    try:
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            cluster(binary, folder / "bacalhau", users=False) as bacalhau,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            run = Run(bacalhau, server, folder, random.Random(1), jobs, users=False)
            client = await nats.connect(server.url)
            try:
                daemon = run.start_daemon("first")
                await daemon.until_ready()
                crowd = Crowd(bacalhau, daemon, jobs)
                await client.jetstream().subscribe("jobstate.v1.main.state.>", cb=crowd.hear, ordered_consumer=True)
                for number in range(1, rounds + 1):
                    for seen in (await crowd.watched(), await crowd.polled(session)):
                        sys.stderr.write(f"round {number}: {seen}\n")
                        found.append(seen)
            finally:
                run.end()
                await client.close()
    finally:
        await server.stop()
    return found


def main() -> int:
    """Play the rounds, and print a line for each way in each."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.crowd", description=__doc__.partition("\n")[0])
    parser.add_argument("binary", type=Path, metavar="BINARY", help="an executable of Bacalhau")
    parser.add_argument("--jobs", type=int, default=300, help="jobs of a burst, in about a second (default: 300)")
    parser.add_argument("--rounds", type=int, default=3, help="bursts of each way (default: 3)")
    parser.add_argument("--json", action="store_true", help="one object for each burst")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(play(given.binary.resolve(), jobs=given.jobs, rounds=given.rounds, folder=Path(folder)))
    for seen in found:
        line = (
            f"{seen.by:9} {seen.changes} changes, {seen.missed} not seen; p50 {seen.p50_ms} ms, p99 {seen.p99_ms} ms;"
        )
        shown = json.dumps(asdict(seen)) if given.json else f"{line} {seen.requests} requests a change"
        sys.stdout.write(shown + "\n")
    return 1 if any(seen.missed for seen in found if seen.by == "jobstate") else 0


if __name__ == "__main__":
    sys.exit(main())
