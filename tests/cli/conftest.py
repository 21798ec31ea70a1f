"""A real nats-server with a cluster's streams on it, updates in its log, and the verbs run as a shell runs them."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from nats.aio.client import Client

from consumer.model import OBSERVED, Job, JobKey, Update
from consumer.wire.subjects import Names, job_key
from consumer.wire.update import encode_update
from tests.bacalhau.servers import NatsServer, nats_server
from tests.waiting import DEADLINE_S

EPOCH: Final = datetime(2026, 11, 24, 5, 0, 0, 123456, tzinfo=UTC)
UNKNOWN: Final = (
    "no job {} is known yet in cluster main: waiting for one with this id (is a daemon running? jobstate doctor)"
)
"""What is said of a job that nobody knows yet."""
ROOT: Final = Path(__file__).parents[2]


class Ended(NamedTuple):
    """A verb that has ended: exit code, what it wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of its output."""
        return self.out.splitlines()

    @property
    def objects(self) -> list[Any]:
        """The JSON objects of its output, one a line."""
        return [json.loads(line) for line in self.lines]


class Running:
    """A verb that is running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process: Final = process

    async def line(self) -> str:
        """The next line of its output."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            return (await self._process.stdout.readline()).decode().rstrip("\n")

    async def complaint(self) -> str:
        """The next line of its standard error."""
        assert self._process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            return (await self._process.stderr.readline()).decode().rstrip("\n")

    async def end(self, sign: signal.Signals | None = None) -> Ended:
        """What was not read yet of a verb that ends by itself, or is sent *sign*."""
        if sign is not None:
            self._process.send_signal(sign)
        async with asyncio.timeout(DEADLINE_S):
            out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return Ended(self._process.returncode, (out or b"").decode(), err.decode())

    async def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Stage:
    """One cluster `main` on one server. `client` is anybody who may publish there."""

    def __init__(self, server: NatsServer, client: Client) -> None:
        self.server: Final = server
        self.client: Final = client
        self.names: Final = Names("main")
        self._running: list[Running] = []
        self._last: dict[JobKey | None, int] = {}

    async def store(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> int:
        """Store *body* as anybody could. The entry's number in its stream."""
        stored = await self.client.jetstream().publish(subject, body, timeout=DEADLINE_S, headers=headers)
        self._last[self.names.key_of_state(subject)] = stored.seq
        return stored.seq

    async def append(self, update: Update) -> int:
        """Store *update* as a daemon of ours does, after the job's last entry that was stored here."""
        key = job_key(update.Job.Namespace, update.Job.ID)
        subject = self.names.state(key, update.StateType)
        return await self.store(subject, encode_update(update), self.after(key, self._last.get(key, 0)))

    def after(self, key: JobKey, number: int) -> dict[str, str]:
        """The headers of an entry of the job that follows entry *number*."""
        return {
            "Nats-Expected-Last-Subject-Sequence": str(number),
            "Nats-Expected-Last-Subject-Sequence-Subject": self.names.states(key),
        }

    async def update(self, update: Update) -> int:
        """As `append`; returns when the bucket has it too."""
        number = await self.append(update)
        key = job_key(update.Job.Namespace, update.Job.ID)
        await self.bucket_has(1, self.names.key_in_bucket(key), encode_update(update))
        return number

    async def live(self, job: str, *states: str, namespace: str = "default", version: int = 0) -> list[Update]:
        """Store a life of *job*: an update for each of *states*."""
        updates = life(job, *states, namespace=namespace, version=version)
        for update in updates:
            await self.update(update)
        return updates

    async def bucket_has(self, count: int, subject: str = "", body: bytes | None = None) -> None:
        """Wait until the bucket holds *count* entries under *subject* (all), the last of them *body*."""
        stream = self.names.bucket_stream
        manager = self.client.jsm()
        async with asyncio.timeout(DEADLINE_S):
            while True:
                info = await manager.stream_info(stream, subjects_filter=subject or ">")
                if len(info.state.subjects or {}) >= count and (
                    body is None or (await manager.get_last_msg(stream, subject)).data == body
                ):
                    return
                await asyncio.sleep(0.002)

    async def begin(
        self, *arguments: str, stdout: int = asyncio.subprocess.PIPE, environ: Mapping[str, str] = MappingProxyType({})
    ) -> Running:
        """Run `jobstate` with *arguments* on this server."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("JOBSTATE_", "COV_"))}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "consumer", *arguments),
            env=kept | {"JOBSTATE_NATS__URL": self.server.url, "PYTHONWARNINGS": "error", **environ},
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )
        running = Running(process)
        self._running.append(running)
        return running

    async def verb(self, *arguments: str, **environ: str) -> Ended:
        """Run `jobstate` with *arguments* on this server until it ends."""
        running = await self.begin(*arguments, environ=environ)
        return await running.end()

    async def end(self) -> None:
        """End what still runs."""
        for running in self._running:
            await running.kill()


def life(
    job: str,
    *states: str,
    namespace: str = "default",
    version: int = 0,
    after: Sequence[Update] = (),
    message: str = "",
) -> list[Update]:
    """The updates of a job that went through *states*, a second apart, following the updates *after*."""
    updates = list(after)
    for number, state in enumerate(states, start=len(after) + 1):
        updates.append(
            Update(
                StateType=state,
                Message=message,
                Job=Job(ID=job, Namespace=namespace, Name="n", Type="batch", Version=version, Revision=number),
                Previous=updates[-1].StateType if updates else None,
                Sequence=number,
                Time=EPOCH + timedelta(seconds=number - 1),
                Source=OBSERVED,
            )
        )
    return updates[len(after) :]


def named(job: str, name: str, state: str, namespace: str = "default") -> Update:
    """The first update of a job that has a name."""
    (update,) = life(job, state, namespace=namespace)
    return msgspec.structs.replace(update, Job=msgspec.structs.replace(update.Job, Name=name))


async def make_streams(client: Client, names: Names) -> None:
    """The cluster's streams and its bucket."""
    tokens = "{{wildcard(1)}}.{{wildcard(2)}}"
    transform = {"src": f"{names.state_prefix}*.*.*", "dest": f"$KV.{names.bucket}.{tokens}"}
    streams: list[dict[str, object]] = [
        {"name": names.log, "subjects": list(names.log_subjects), "allow_direct": True},
        {"name": names.input, "subjects": [f"{names.in_prefix}*.*"]},
        {"name": names.refused, "subjects": list(names.refused_subjects)},
        {
            "name": names.bucket_stream,
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "sources": [{"name": names.log, "subject_transforms": [transform]}],
        },
    ]
    for stream in streams:
        body = json.dumps(stream | {"storage": "file", "retention": "limits", "num_replicas": 1}).encode()
        answer = json.loads(
            (await client.request(f"$JS.API.STREAM.CREATE.{stream['name']}", body, timeout=DEADLINE_S)).data
        )
        assert "error" not in answer, answer


@asynccontextmanager
async def staged(folder: Path, config: str = "") -> AsyncIterator[Stage]:
    """A server with JetStream (data in *folder*) and no streams."""
    store = json.dumps(str(folder / "store"))
    async with nats_server(folder, f"jetstream {{ store_dir: {store} }}\n{config}") as server:
        client = Client()
        await client.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05)  # type: ignore[arg-type]
        stage = Stage(server, client)
        try:
            yield stage
        finally:
            await stage.end()
            await client.close()


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Stage]:
    """A server with JetStream and no streams."""
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
async def stage(bare: Stage) -> Stage:
    """A server with the streams of cluster `main`."""
    await make_streams(bare.client, bare.names)
    return bare
