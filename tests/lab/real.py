"""The daemon beside a real Bacalhau, whatever happens to it: `make real ARGS="BINARY…"`. Not run by CI.

`python -m tests.lab.real BINARY… [--rounds N] [--only PHASE…] [--large N] [--users] [--seed N] [--json]`: for each
binary of Bacalhau (1.5 or later) a cluster of its own on loopback, one orchestrator and three compute nodes with a
token, and `jobstate run` with nothing but the four settings. Then bursts with stops, jobs without a frame, jobs that
wait for a node, reruns, updates, all of these at once, a node killed and started again, the orchestrator killed and
started again, the daemon killed, two daemons. In the end the log is held against the record, state by state. Ends
with 1 if they differ. Many rounds of `--only burst` are one daemon's long run without a fault: `memory_mb` is what it
has in memory after each round.

`--large N` stores N jobs of 600 KB of inline input first: each list is dear from then on, and `unheard` shows by how
much later a job without a frame is found. `--users` has the API ask for a user (1.7 or later); the phase `refused`
gives the daemon an API key that is none, one that may not read jobs, and the right one.

What jobs are made of is in the recordings, as it was sent. The record is read with the decoder under test,
which is held against the recordings in `tests.wire`; a job's version and last state are read without it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from consumer.model import Update
from consumer.wire.rest import decode_history
from consumer.wire.update import decode_update
from tests.daemon.process import NAMES, SMALL_STREAMS, Daemon, entries
from tests.server import Server

TOKEN: Final = "real-cluster-token"
"""Of Bacalhau's NATS."""
SHORT: Final = (
    "Compute.Heartbeat.Interval=1s",
    "Orchestrator.NodeManager.DisconnectTimeout=4s",
    "Orchestrator.Scheduler.HousekeepingInterval=1s",
    "Orchestrator.Scheduler.HousekeepingTimeout=1s",
    "Orchestrator.Scheduler.QueueBackoff=1s",
)
"""The timers of the recordings: a lost node is found in seconds."""
QUIET: Final = ("DisableAnalytics=true", "UpdateConfig.Interval=0s", "API.Host=127.0.0.1", "WebUI.Enabled=false")
"""Nothing leaves this machine."""
SETTLED_S: Final = 60.0
"""So long the log may take to say all that the record says, and not more than the record takes to come to rest."""
LARGE_BYTES: Final = 600_000
"""Of the inline input of a large job: it fits into a NATS message, which may have 1 MiB."""
UNHEARD: Final = 8
"""Jobs without a frame in one phase, one after the other."""
OPERATOR: Final = ("operator", "operators-password")
"""User and password of whoever submits and stops, where the API asks for users."""
KEYS: Final = {"read:job": "key-that-may-read-jobs", "read:node": "key-that-may-read-nodes"}
"""API keys, by all that each may do. The daemon has the first: it needs no more."""
USERS_SINCE: Final = (1, 7)
PHASES: Final = (
    "burst",
    "unheard",
    "queued",
    "reruns",
    "at once",
    "node lost",
    "orchestrator killed",
    "daemon killed",
    "two daemons",
    "refused",
)
"""In this order; the last one only with `--users`.

Delays are told of each: where somebody is killed they are those of the absence."""

NOBODYS: Final = f"nobody-{random.Random(time.time_ns()).getrandbits(64):x}"
"""A namespace without jobs: there an id is not taken for another job's name."""
OVER: Final = ("Completed", "Failed", "Stopped")

Document = dict[str, Any]
States = dict[str, list[tuple[int, str, str]]]
"""By job: version, state and message of each state, in order."""


class Process:
    """One process of Bacalhau. It is ended by its own handle, never by name."""

    def __init__(self, binary: Path, folder: Path, settings: list[str], *more: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [part for one in settings for part in ("-c", one)]
        kept = {name: text for name, text in os.environ.items() if not name.startswith("BACALHAU_")}
        with (folder / "output.log").open("ab") as output:
            self.handle: Final = subprocess.Popen(
                [str(binary), "serve", "--data-dir", str(folder / "data"), *more, *arguments],
                env=kept | {"HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        """End it at once, as a machine that loses power."""
        if self.handle.poll() is None:
            self.handle.kill()
        self.handle.wait()


class Bacalhau:
    """A cluster of its own: the orchestrator, which has the NATS server within, and its compute nodes by name."""

    def __init__(self, binary: Path, folder: Path, session: aiohttp.ClientSession, *, users: bool) -> None:
        """*users*: the API asks for `OPERATOR`, or one of `KEYS`."""
        self._binary: Final = binary
        self._users: Final = users
        self._folder: Final = folder
        self._session: Final = session
        self._api_port, self._nats_port = free_ports(2)
        self._running: Final[dict[str, Process]] = {}
        self._ports: Final[dict[str, int]] = {}
        self.version = ""

    @property
    def api(self) -> str:
        """What `orchestrator.url` is to be."""
        return f"http://127.0.0.1:{self._api_port}"

    @property
    def bus(self) -> str:
        """What `bacalhau.url` is to be."""
        return f"nats://127.0.0.1:{self._nats_port}"

    async def start_orchestrator(self) -> None:
        """Start it, again in the same folder if it was killed; returns when it answers."""
        settings = [*QUIET, *SHORT[1:], "Orchestrator.Enabled=true", "Compute.Enabled=false"]
        settings += [f"API.Port={self._api_port}", "Orchestrator.Host=127.0.0.1"]
        settings += [f"Orchestrator.Port={self._nats_port}", f"Orchestrator.Auth.Token={TOKEN}"]
        more = ["--config", str(self._write_users())] if self._users else []
        self._running["orchestrator"] = Process(self._binary, self._folder / "orchestrator", settings, *more)
        async with asyncio.timeout(60):
            while not self.version or await self.jobs() is None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with self._session.get(f"{self.api}/api/v1/agent/version") as answer:
                        self.version = str((await answer.json())["GitVersion"])
                await asyncio.sleep(0.05)

    def _write_users(self) -> Path:
        users: list[Document] = [
            {"Alias": able, "APIKey": key, "Capabilities": [{"Actions": [able]}]} for able, key in KEYS.items()
        ]
        operator = {"Username": OPERATOR[0], "Password": OPERATOR[1]}
        users.append({"Alias": "operator", **operator, "Capabilities": [{"Actions": ["read:*", "write:*"]}]})
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / "users.yaml"
        file.write_text(json.dumps({"API": {"Auth": {"Users": users}}}))  # JSON is YAML
        return file

    def start_node(self, name: str, *labels: str) -> None:
        """Start a compute node, again in the same folder if it was killed."""
        port = self._ports.setdefault(name, free_ports(1)[0])
        settings = [*QUIET, SHORT[0], "Compute.Enabled=true", "Orchestrator.Enabled=false"]
        settings += [f"API.Port={port}", f"Compute.Orchestrators={self.bus}", f"Compute.Auth.Token={TOKEN}"]
        settings += [f"Labels={label}" for label in labels]
        self._running[name] = Process(self._binary, self._folder / name, settings, "--name", name)

    def kill(self, name: str) -> None:
        """End one of them at once."""
        self._running.pop(name).kill()

    def end(self) -> None:
        """End all."""
        for name in list(self._running):
            self.kill(name)

    async def nodes(self) -> int:
        """How many compute nodes may get work."""
        found = await self._get("/orchestrator/nodes", {"limit": "100"}) or {}
        return sum(
            one["Info"]["NodeType"] == "Compute"
            and "CONNECTED" in (one.get("Connection"), one.get("ConnectionState", {}).get("Status"))
            for one in found.get("Nodes") or []
        )

    async def submit(self, spec: Document) -> str:
        """Its new job's id; empty if it was refused, or nobody answered."""
        body = await self._send("PUT", "/orchestrator/jobs", {"Job": spec})
        return str(body.get("JobID", "")) if body else ""

    async def stop(self, job: str) -> bool:
        """Whether it is being stopped."""
        return await self._send("DELETE", f"/orchestrator/jobs/{job}?namespace={NOBODYS}", {}) is not None

    async def rerun(self, job: str) -> bool:
        """Whether it gets a new life. Releases before 1.8 do not know how."""
        return await self._send("PUT", f"/orchestrator/jobs/{job}/rerun", {"Reason": "again"}) is not None

    async def jobs(self) -> list[Document] | None:
        """All jobs, as the orchestrator tells them; None while it does not."""
        found: list[Document] = []
        token = ""
        while True:
            page = await self._get("/orchestrator/jobs", {"namespace": "*", "limit": "1000", "next_token": token})
            if page is None:
                return None
            found += page.get("Items") or page.get("Jobs") or []
            token = page.get("NextToken") or ""
            if not token:
                return found

    async def history(self, job: str) -> list[tuple[int, str, str]]:
        """Version, state and message of each of the job's states, of all versions."""
        found: list[tuple[int, str, str]] = []
        query = {"event_type": "job", "all_job_versions": "true", "limit": "1000", "namespace": NOBODYS}
        token = ""
        while True:
            url = f"{self.api}/api/v1/orchestrator/jobs/{job}/history"
            async with self._session.get(url, params=query | {"next_token": token}) as answer:
                if answer.status == 429:  # thousands of jobs, one after the other: that is above its throttle
                    await asyncio.sleep(1)
                    continue
                answer.raise_for_status()
                page = decode_history(await answer.read(), job=job)
            for entry in page.entries:
                # Of what is asked for at once Bacalhau labels some with an older version: each begins its own.
                newest = max((version for version, _, _ in found), default=-1)
                version = newest + 1 if entry.begins and 0 <= entry.version <= newest else entry.version
                found.append((version, entry.state, entry.message))
            if not page.next_token or page.items < 1000:
                return found
            token = page.next_token

    async def _get(self, path: str, query: dict[str, str]) -> Document | None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(f"{self.api}/api/v1{path}", params=query) as answer:
                if answer.ok:
                    body: Document = await answer.json()
                    return body
        return None

    async def _send(self, method: str, path: str, body: Document) -> Document | None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.request(method, f"{self.api}/api/v1{path}", json=body) as answer:
                return (await answer.json() or {}) if answer.ok else None
        return None


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens at just now."""
    with contextlib.ExitStack() as held:
        sockets = [
            held.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(number)
        ]
        return [one.getsockname()[1] for one in sockets]


def catalogue(version: str) -> dict[str, Document]:
    """Jobs of each kind, as they were sent to the recorded release that speaks as *version* does."""
    release = max(
        (path for path in Path("tests/recordings").glob("bacalhau-v*") if number(path.name) <= number(version)),
        key=lambda path: number(path.name),
        default=None,
    )
    if number(version) >= (1, 8):
        release = Path("tests/recordings/bacalhau-v1.9.3")  # where a module is said to be changed with 1.8
    if release is None:
        raise SystemExit(f"{version} is older than the recordings: 1.5 or later is needed")
    sent = json.loads((release / "burst" / "scenario.json").read_bytes())["jobs"]
    return {specs[0]["Name"].rpartition("-")[2]: specs[0] for specs in sent.values()}


def number(version: str) -> tuple[int, ...]:
    """1.9.3 of `bacalhau-v1.9.3`, to be compared."""
    return tuple(int(part) for part in version.rpartition("v")[2].partition("-")[0].split("."))


class Run:
    """One cluster, one or two daemons, one log. Nothing is judged before the end."""

    def __init__(
        self, bacalhau: Bacalhau, server: Server, folder: Path, dice: random.Random, burst_of: int, *, users: bool
    ) -> None:
        self._bacalhau: Final = bacalhau
        self._users: Final = users
        self._burst_of: Final = burst_of
        self._server: Final = server
        self._folder: Final = folder
        self._dice: Final = dice
        self._kinds: Final = catalogue(bacalhau.version)
        self._daemons: Final[dict[str, Daemon]] = {}
        self._stops: Final[set[asyncio.Task[None]]] = set()
        self._phase = ""
        self._submitted = 0
        self.found_s: Final[list[float]] = []
        """How long after its submission the end of each job without a frame was in the log."""
        self._over: Final[set[str]] = set()
        """Jobs whose end was seen in the log."""
        self.memory_mb: Final[list[float]] = []
        self.lags: Final[dict[str, list[float]]] = defaultdict(list)
        self.done: Final[Counter[str]] = Counter()

    # -- what is done -------------------------------------------------------------------------------------------------

    def start_daemon(self, name: str) -> Daemon:
        """Start `jobstate run` with the four settings, again if it was killed."""
        daemon = self._daemons[name] = Daemon(self._folder / name, self._settings())
        return daemon

    def _settings(self) -> dict[str, str]:
        given = {
            "JOBSTATE_NATS__URL": self._server.url,
            "JOBSTATE_BACALHAU__URL": self._bacalhau.bus,
            "JOBSTATE_BACALHAU__TOKEN_FILE": str(self._write_secret("token", TOKEN)),
            "JOBSTATE_ORCHESTRATOR__URL": self._bacalhau.api,
        }
        if self._users:
            given["JOBSTATE_ORCHESTRATOR__TOKEN_FILE"] = str(self._write_secret("key", KEYS["read:job"]))
        return given

    def _write_secret(self, name: str, secret: str) -> Path:
        file = self._folder / name
        file.touch(mode=0o600)
        file.write_text(secret)
        return file

    async def examine(self) -> list[str]:
        """What `jobstate doctor` finds wrong, with the daemon's settings; it asks the daemon nothing."""
        command = [sys.executable, "-m", "consumer", "doctor", "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(os.environ) | SMALL_STREAMS | self._settings(), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await process.communicate()
        found = [json.loads(line) for line in told.splitlines()]
        bad = [f"doctor: {one}" for one in found if one.get("verdict") == "fail"]
        return bad or ([f"doctor ended with {process.returncode}: {found}"] if process.returncode else [])

    def end(self) -> None:
        """End all daemons."""
        for one in self._daemons.values():
            one.kill()

    async def ready(self, name: str) -> None:
        """Wait until it says so."""
        await self._daemons[name].until_ready()

    async def submit(self, kind: str) -> str:
        """A job of *kind*."""
        self._submitted += 1
        spec = self._kinds[kind] | {"Name": f"{kind}-{self._submitted}"}
        job = await self._bacalhau.submit(spec)
        self.done["submitted" if job else "not submitted"] += 1
        return job

    async def store_large(self, count: int) -> None:
        """So many jobs with a large inline input: from now on each list is dear."""
        spec = json.loads(json.dumps(self._kinds["ok"]))
        large = {"Type": "inline", "Params": {"URL": "data:text/plain," + "x" * LARGE_BYTES}}
        spec["Tasks"][0].setdefault("InputSources", []).append({"Target": "/large", "Source": large})
        for number in range(count):
            self.done["large"] += bool(await self._bacalhau.submit(spec | {"Name": f"large-{number}"}))

    async def submit_some(self, count: int, *, every_s: float, stops: float = 0.3) -> None:
        """So many, of any kind, a share of them stopped soon after, at any moment."""
        for _ in range(count):
            job = await self.submit(self._dice.choice([*self._kinds, *["ok"] * 6]))
            if job and self._dice.random() < stops:
                task = asyncio.create_task(self._stop(job, self._dice.uniform(0.0, 2.0)), name=f"stop {job}")
                self._stops.add(task)
                task.add_done_callback(self._stops.discard)
            await asyncio.sleep(every_s * self._dice.uniform(0.2, 1.8))

    async def _stop(self, job: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.done["stopped" if await self._bacalhau.stop(job) else "not stopped"] += 1

    async def do(self, phase: str) -> None:
        """One of `PHASES`."""
        self._phase = phase
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "burst": self._burst,
            "queued": self._queued,
            "reruns": self._reruns,
            "at once": self._at_once,
            "node lost": self._node_lost,
            "orchestrator killed": self._orchestrator_killed,
            "daemon killed": self._daemon_killed,
            "two daemons": self._two_daemons,
            "unheard": self._unheard,
            "refused": self._refused,
        }
        await acts[phase]()

    async def _burst(self) -> None:
        await self.submit_some(self._burst_of, every_s=2.0 / self._burst_of)
        await asyncio.sleep(4)

    async def _unheard(self) -> None:
        """Jobs that no node matches, one after the other: no frame tells of them, so only a list finds them."""
        for _ in range(UNHEARD):
            await asyncio.sleep(self._dice.uniform(1.0, 3.0))
            job, began = await self.submit("nonode"), time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLED_S):
                    while job not in self._over:
                        await asyncio.sleep(0.05)
                    self.done["unheard"] += 1
                    self.found_s.append(time.monotonic() - began)

    async def _refused(self) -> None:
        """A credential that is none, one that may not read jobs, and the right one, without a restart."""
        self._daemons["first"].kill()
        settings = self._settings() if self._users else {}
        key = self._write_secret("key", "key-of-nobody")
        daemon = self._daemons["first"] = Daemon(self._folder / "first", settings)
        await daemon.until_status(503, "unauthorized")
        key.write_text(KEYS["read:node"])
        await daemon.until_status(503, "forbidden")
        key.write_text(KEYS["read:job"])
        await daemon.until_ready()
        self.done["mended"] += 1
        await self.submit_some(5, every_s=0.2)
        await asyncio.sleep(2)

    async def _queued(self) -> None:
        for kind in ("queued", "queued", "nonode", "queued"):
            await self.submit(kind)
        await asyncio.sleep(1)
        self._bacalhau.start_node("n-c4", "lab-zone=nowhere")
        await asyncio.sleep(5)
        self._bacalhau.kill("n-c4")

    async def _reruns(self) -> None:
        jobs = await self._bacalhau.jobs() or []
        over = [job for job in jobs if job["State"]["StateType"] in OVER]
        for job in self._dice.sample(over, min(8, len(over))):
            self.done["rerun" if await self._bacalhau.rerun(job["ID"]) else "not rerun"] += 1
        for job in self._dice.sample(jobs, min(6, len(jobs))):
            spec = self._kinds.get(job["Name"].partition("-")[0], self._kinds["ok"]) | {"Name": job["Name"], "Count": 2}
            self.done["updated" if await self._bacalhau.submit(spec) else "not updated"] += 1
        await asyncio.sleep(4)

    async def _at_once(self) -> None:
        """Several people want something of one job at the same moment; and a job has another's id for its name."""
        jobs = [job for job in await self._bacalhau.jobs() or [] if job["State"]["StateType"] in OVER]
        for job in self._dice.sample(jobs, min(8, len(jobs))):
            spec = self._kinds["ok"] | {"Name": job["Name"], "Count": 3}
            wants: list[Coroutine[Any, Any, object]] = [
                self._bacalhau.rerun(job["ID"]),
                self._bacalhau.stop(job["ID"]),
                self._bacalhau.submit(spec),
            ]
            self._dice.shuffle(wants)
            await asyncio.gather(*wants)
        shadowed = await self.submit("long")
        await asyncio.sleep(1)
        for namespace in ("default", "*"):
            spec = self._kinds["ok"] | {"Name": shadowed, "Namespace": namespace}
            self.done["shadowed"] += bool(await self._bacalhau.submit(spec))
        await asyncio.sleep(4)

    async def _node_lost(self) -> None:
        for kind in ("long", "service", "daemon", "long", "count2", "ops"):
            await self.submit(kind)
        await asyncio.sleep(1)
        self._bacalhau.kill("n-c1")
        await self.submit_some(8, every_s=0.5)
        await asyncio.sleep(4)
        self._bacalhau.start_node("n-c1")
        await asyncio.sleep(3)

    async def _orchestrator_killed(self) -> None:
        await self.submit_some(10, every_s=0.05)
        self._bacalhau.kill("orchestrator")
        await asyncio.sleep(self._dice.uniform(0.2, 3.0))
        await self._bacalhau.start_orchestrator()
        await self.submit_some(10, every_s=0.1)
        await asyncio.sleep(5)

    async def _daemon_killed(self) -> None:
        for _ in range(3):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.submit_some(8, every_s=0.1))
                await asyncio.sleep(self._dice.uniform(0.2, 0.8))
                self._daemons["first"].kill()
            self.start_daemon("first")
            await self.ready("first")

    async def _two_daemons(self) -> None:
        self.start_daemon("second")
        await self.ready("second")
        for name in ("first", "second", "first"):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.submit_some(8, every_s=0.1))
                self._daemons[name].tell(signal.SIGSTOP)
                await asyncio.sleep(self._dice.uniform(0.5, 3.0))
                self._daemons[name].tell(signal.SIGCONT)
        await asyncio.sleep(2)
        self._daemons.pop("second").kill()

    # -- what is seen -------------------------------------------------------------------------------------------------

    def weigh(self) -> None:
        """Note what the daemon has in memory."""
        self.memory_mb.append(round(self._daemons["first"].memory / 1e6, 1))

    async def watch(self, client: Client) -> None:
        """Note how long after its time each update is seen."""

        async def seen(message: Msg) -> None:
            update: Update = decode_update(message.data)
            self.done[update.Source] += 1
            self.done["corrected"] += "corrected" in update.Flags
            if update.StateType in OVER:
                self._over.add(update.Job.ID)
            if update.Time is not None:
                self.lags[self._phase].append(time.time() - update.Time.timestamp())

        # What a plain subscription hears may have been refused: of two daemons one comes too late.
        await client.jetstream().subscribe("jobstate.v1.main.state.>", cb=seen, ordered_consumer=True)

    async def settle(self, client: Client, phases: Sequence[str]) -> list[str]:
        """After *phases*: stop all, wait until the record is at rest and the log says the same.

        Gives what differs, by name, and what of *phases* has shown nothing.
        """
        self._phase = "end"
        while self._stops:
            await asyncio.wait(self._stops)
        for job in await self._bacalhau.jobs() or []:
            if job["State"]["StateType"] not in OVER:
                await self._bacalhau.stop(job["ID"])
        deadline = time.monotonic() + SETTLED_S
        while True:
            record, last = await self._record()
            log, wrong = await self._log(client)
            wrong += compare(record, log, last)
            if not wrong or time.monotonic() > deadline:
                self.done["jobs"] = len(record)
                self.done["updates"] = sum(map(len, log.values()))
                return wrong + [f"nothing was {what}: this has shown nothing" for what in self._not_done(phases)]
            await asyncio.sleep(0.5)

    def _not_done(self, phases: Sequence[str]) -> list[str]:
        """What was to be done in *phases*, and never was. Before 1.8 a job has no second life."""
        wanted = ["submitted", "jobs", "updates", "observed"]
        wanted += ["stopped"] if "burst" in phases else []
        wanted += ["unheard"] if "unheard" in phases else []
        wanted += ["mended"] if "refused" in phases else []
        wanted += ["rerun", "updated"] if "reruns" in phases and number(self._bacalhau.version) >= (1, 8) else []
        return [what for what in wanted if not self.done[what]]

    async def _record(self) -> tuple[States, dict[str, tuple[int, str]]]:
        jobs = await self._bacalhau.jobs()
        assert jobs is not None
        last = {job["ID"]: (int(job.get("Version", 0)), str(job["State"]["StateType"])) for job in jobs}
        return {job: await self._bacalhau.history(job) for job in last}, last

    async def _log(self, client: Client) -> tuple[States, list[str]]:
        found: States = defaultdict(list)
        wrong = []
        for _, body in await entries(client.jetstream(), NAMES.log, "jobstate.v1.main.state.>"):
            update = decode_update(body)
            of_job = found[update.Job.ID]
            if update.Sequence != len(of_job) + 1:
                wrong.append(f"{update.Job.ID}: sequence {update.Sequence} after {len(of_job)}")
            of_job.append((update.Job.Version or 0, update.StateType, update.Message))
        return found, wrong


def compare(record: States, log: States, last: dict[str, tuple[int, str]]) -> list[str]:
    """What the log says otherwise than the record."""
    wrong = []
    for job in sorted(record.keys() | log.keys()):
        if record.get(job) != log.get(job):
            wrong.append(f"{job}: the record says {record.get(job)}, the log {log.get(job)}")
        elif log[job][-1][:2] != last[job]:
            wrong.append(f"{job}: the record is at {last[job]}, the log at {log[job][-1]}")
        elif last[job][1] not in OVER:
            wrong.append(f"{job}: is {last[job][1]} still")
    return wrong


def percentiles(lags: list[float]) -> dict[str, float | int]:
    """Of seconds, in milliseconds."""
    ordered = sorted(lags)
    if not ordered:
        return {"updates": 0}
    at = {
        f"p{share}": round(1e3 * ordered[min(len(ordered) * share // 100, len(ordered) - 1)], 1) for share in (50, 99)
    }
    return {"updates": len(ordered), **at}


@contextlib.asynccontextmanager
async def cluster(binary: Path, folder: Path, *, users: bool) -> AsyncIterator[Bacalhau]:
    """A cluster of three nodes that may get work."""
    headers = {"Authorization": "Basic " + b64encode(":".join(OPERATOR).encode()).decode()} if users else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        bacalhau = Bacalhau(binary, folder, session, users=users)
        try:
            await bacalhau.start_orchestrator()
            for name in ("n-c1", "n-c2", "n-c3"):
                bacalhau.start_node(name)
            async with asyncio.timeout(60):
                while await bacalhau.nodes() < 3:
                    await asyncio.sleep(0.1)
            yield bacalhau
        finally:
            bacalhau.end()


async def play(
    binary: Path, *, rounds: int, phases: Sequence[str], burst_of: int, large: int, users: bool, seed: int, folder: Path
) -> Document:
    """The *phases*, so many rounds; gives what was done, how late updates were, and what is wrong."""
    server = Server(folder / "nats")
    await server.start()
    try:
        async with cluster(binary, folder / "bacalhau", users=users) as bacalhau:
            if users and number(bacalhau.version) < USERS_SINCE:
                raise SystemExit(f"{bacalhau.version} knows no users: leave --users out")
            run = Run(bacalhau, server, folder, random.Random(seed), burst_of, users=users)
            client = await nats.connect(server.url)
            try:
                run.start_daemon("first")
                await run.ready("first")
                await run.watch(client)
                await run.store_large(large)
                run.weigh()
                for _ in range(rounds):
                    for phase in phases:
                        await run.do(phase)
                    run.weigh()
                wrong = await run.examine()
                wrong += await run.settle(client, phases)
            finally:
                run.end()
                await client.close()
            return {
                "bacalhau": bacalhau.version,
                "rounds": rounds,
                "seed": seed,
                "done": dict(run.done),
                "memory_mb": run.memory_mb,
                "lag_ms": {phase: percentiles(lags) for phase, lags in run.lags.items()},
                "found_ms": percentiles(run.found_s),
                "wrong": wrong,
            }
    finally:
        await server.stop()


def main() -> int:
    """Each binary in turn."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.real", description=__doc__.partition("\n")[0])
    parser.add_argument("binaries", nargs="+", type=Path, metavar="BINARY", help="an executable of Bacalhau")
    parser.add_argument("--rounds", type=int, default=1, help="times all phases (default: 1, some 100 s)")
    parser.add_argument(
        "--only", nargs="+", choices=PHASES, metavar="PHASE", help=f"only these phases, of {', '.join(PHASES)}"
    )
    parser.add_argument("--burst", type=int, default=40, help="jobs of a burst, in two seconds (default: 40)")
    parser.add_argument(
        "--large", type=int, default=0, metavar="N", help="store N jobs of 600 KB of inline input first (default: 0)"
    )
    parser.add_argument("--users", action="store_true", help="have the API ask for a user (1.7 or later)")
    parser.add_argument("--seed", type=int, default=1, help="of what is thrown: kinds, stops, pauses (default: 1)")
    parser.add_argument("--keep", type=Path, help="keep what the processes wrote, in this folder")
    parser.add_argument("--json", action="store_true", help="one object for each binary")
    given = parser.parse_args()
    phases = given.only or [phase for phase in PHASES if given.users or phase != "refused"]
    if "refused" in phases and not given.users:
        parser.error("the phase `refused` needs --users")
    wrong = 0
    for binary in given.binaries:
        with contextlib.ExitStack() as held:
            folder = given.keep / binary.name if given.keep else Path(held.enter_context(tempfile.TemporaryDirectory()))
            told = asyncio.run(
                play(
                    binary.resolve(),
                    rounds=given.rounds,
                    phases=phases,
                    burst_of=given.burst,
                    large=given.large,
                    users=given.users,
                    seed=given.seed,
                    folder=folder,
                )
            )
        wrong += bool(told["wrong"])
        if given.json:
            sys.stdout.write(json.dumps(told) + "\n")
        else:
            sys.stdout.write(f"{told['bacalhau']}: {'WRONG' if told['wrong'] else 'right'}; {told['done']}\n")
            sys.stdout.write(f"  memory {told['memory_mb'][0]} MB, in the end {told['memory_mb'][-1]} MB\n")
            for phase, lag in told["lag_ms"].items():
                sys.stdout.write(f"  {phase:20} {lag}\n")
            sys.stdout.write(f"  from submission to the log, without a frame: {told['found_ms']}\n")
            sys.stdout.writelines(f"  {one}\n" for one in told["wrong"])
        sys.stdout.flush()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
