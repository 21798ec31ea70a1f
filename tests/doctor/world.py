"""Both sides, healthy: our NATS with a log that is the record, Bacalhau's NATS with frames, an orchestrator.

A test breaks one thing of it, before it rises or after. What is on the loopback is real: servers, sockets, clients.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web
from nats.aio.client import Client

from consumer.daemon.supervise import end
from consumer.doctor.examination import Plan, examine
from consumer.doctor.finding import Finding, Verdict
from consumer.errors import SettingsError
from consumer.jetstream.topology import ensure
from consumer.model import OBSERVED, Job, Update
from consumer.nats.address import Address
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.replay.clock import ReplayClock
from consumer.replay.record import JobRecord
from consumer.replay.recording import Recording
from consumer.replay.server import OrchestratorServer
from consumer.replay.simulated import SimulatedOrchestrator
from consumer.rules import load as load_rules
from consumer.settings import MIB, Settings, Streams, load
from consumer.wire.decoding import time_of
from consumer.wire.entries import Format, RulesStamp, encode_format
from consumer.wire.subjects import Names, job_key
from consumer.wire.update import encode_update
from tests.bacalhau.servers import NatsServer
from tests.replay.shared import recording
from tests.server import Server
from tests.waiting import given_time

CANARY: Final = "canary-7d3f"
"""A secret: whatever is found, it is not in it."""
HERE: Final = "bacalhau-v1.9.3/rerun"
ELSEWHERE: Final = "bacalhau-v1.9.3/burst"
NODE: Final = "n-orchestrator"
"""Whose API it is, and by whom its NATS server is named."""
STREAMS: Final = Streams(log_max_bytes=64 * MIB, input_max_bytes=16 * MIB, refused_max_bytes=MIB)

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class World:
    """What there is. `variables` are the doctor's settings; what is set before `rise` shapes the servers."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.names: Final = Names()
        self.variables: dict[str, str] = {}
        self.stack: Final = contextlib.AsyncExitStack()
        # -- what may be changed before it rises --
        self.ours_config = ""
        self.bacalhau_config = ""
        self.builder: dict[str, object] = {}
        """How the log is written, if not as anybody: fields of an `Address`."""
        self.builder_user = ""
        self.peer: dict[str, object] = {}
        """How frames are published, if not as anybody: options of the client."""
        self.streams = STREAMS
        self.logged: Recording | None = recording(HERE)
        self.recorded = recording(HERE)
        self.heard: Recording | None = recording(HERE)
        self.format = 1
        self.since_ns = 0
        """When the log began: jobs that had ended by then are not in it."""
        self.last_state = ""
        """The state of the last update in the log, in place of what the record says."""
        # -- what there is once it has risen --
        self.ours: Server
        self.bacalhau: NatsServer
        self.orchestrator: OrchestratorServer
        self.connection: Connection | None = None

    async def rise(self) -> None:
        """Start everything."""
        self.ours = await self.stack.enter_async_context(Server(self.folder / "ours", self.ours_config))
        self.bacalhau = NatsServer(self.folder, f"server_name: {NODE}\n{self.bacalhau_config}")
        await self.bacalhau.start()
        self.stack.push_async_callback(self.bacalhau.stop)
        clock = ReplayClock([self.recorded])
        clock.advance(2**62)
        simulated = SimulatedOrchestrator([self.recorded])
        self.orchestrator = await self.stack.enter_async_context(OrchestratorServer(simulated, clock))
        self.simulated, self.clock = simulated, clock
        self.orchestrator.fault = self.answer_right
        self.variables = {
            "JOBSTATE_NATS__URL": self.ours.url,
            "JOBSTATE_BACALHAU__URL": self.bacalhau.url,
            "JOBSTATE_ORCHESTRATOR__URL": self.orchestrator.url,
            "JOBSTATE_ORCHESTRATOR__TIMEOUT_S": "60",
            "JOBSTATE_HTTP__PORT": "0",
            "JOBSTATE_STREAMS__LOG_MAX_BYTES": str(self.streams.log_max_bytes),
            "JOBSTATE_STREAMS__INPUT_MAX_BYTES": str(self.streams.input_max_bytes),
            "JOBSTATE_STREAMS__REFUSED_MAX_BYTES": str(self.streams.refused_max_bytes),
        } | self.variables
        if self.logged is not None:
            await self._write(self.logged)
        if self.heard is not None:
            await self._chatter(self.heard)

    async def builds(self) -> Connection:
        """The connection of whoever writes the log."""
        if self.connection is None:
            url = self.ours.url.replace("://", f"://{self.builder_user}@") if self.builder_user else self.ours.url
            address = Address(urls=(url,), **self.builder)  # type: ignore[arg-type]
            self.connection = await connect_reader(address, "builder")
            self.stack.push_async_callback(self.connection.close)
        return self.connection

    async def _write(self, told: Recording) -> None:
        """The log of *told* as a daemon would have written it."""
        connection = await self.builds()
        await ensure(connection, self.names, self.streams)
        await self.write(told)

    async def write(self, told: Recording) -> None:
        """The format, and every update of *told*."""
        rules = load_rules()
        stamp = RulesStamp(Name=rules.name, Hash=rules.hash)
        body = encode_format(Format(Format=self.format, Rules=stamp, Since=self.since_ns, Cluster="main"))
        await self.store(self.names.format, body, self.names.format, 0)
        for record in told.jobs:
            await self._write_job(record, last=record is told.jobs[-1])

    async def _write_job(self, record: JobRecord, *, last: bool) -> None:
        key, number, previous = job_key(record.namespace, record.id), 0, None
        for sequence, change in enumerate(record.expected, 1):
            state = change.state
            if last and self.last_state and sequence == len(record.expected):
                state = self.last_state
            update = Update(
                StateType=state,
                Job=Job(
                    ID=record.id,
                    Namespace=record.namespace,
                    Type=record.type,
                    Version=change.version,
                    Revision=change.number,
                ),
                Previous=previous,
                Sequence=sequence,
                Time=time_of(change.time_ns),
                Source=OBSERVED,
            )
            subject = self.names.state(key, state)
            number = await self.store(subject, encode_update(update), self.names.states(key), number)
            previous = state

    async def store(self, subject: str, body: bytes, subjects: str, expected: int) -> int:
        """One entry, after the one that is *expected* under *subjects*."""
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(expected),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects,
        }
        stored = await (await self.builds()).jetstream().publish(subject, body, headers=headers)
        return stored.seq

    async def _chatter(self, heard: Recording) -> None:
        """Publish frames for as long as the world stands."""
        client = Client()
        await client.connect(self.bacalhau.url, allow_reconnect=False, **self.peer)  # type: ignore[arg-type]

        async def chatter() -> None:
            while not client.is_closed:
                for frame in heard.frames:
                    await client.publish(frame.subject, frame.data, headers=frame.headers)
                await asyncio.sleep(0.05)

        talking = asyncio.create_task(chatter())
        self.stack.push_async_callback(client.close)
        self.stack.push_async_callback(end, [talking])

    def answer_otherwise(self, answer: Answer) -> None:
        """From now on the orchestrator gives *answer*."""
        self.orchestrator.fault = answer

    async def answer_right(self, request: web.BaseRequest, **headers: str) -> web.StreamResponse:
        """What the record says, and which node it is, with *headers* besides."""
        if request.path == "/api/v1/agent/node":
            return web.json_response({"NodeID": NODE, "NodeType": "Requester"}, headers=headers)
        reply = self.simulated.answer(self.clock.now_ns, request.raw_path)
        return web.Response(
            status=reply.status,
            body=reply.body,
            content_type="application/json",
            headers={"X-Bacalhau-Git-Version": self.simulated.release} | headers,
        )

    def settings(self) -> Settings | SettingsError:
        """The doctor's settings, or why there are none."""
        try:
            return load(None, self.variables)
        except SettingsError as error:
            return error

    async def examine(self, monitor: str = "") -> list[Finding]:
        """Let the doctor look; where somebody talks, for as long as it takes to hear that."""

        async def attempt(listen_s: float) -> list[Finding]:
            told: list[Finding] = []
            findings = await examine(Plan(settings=self.settings(), listen_s=listen_s, monitor=monitor), told.append)
            assert told == findings
            return findings

        def heard(findings: list[Finding]) -> bool:
            silent = any(one.found.startswith("no frame within") for one in findings)
            return self.heard is None or not silent or bool(of(findings, Verdict.FAIL))

        return await given_time(attempt, heard)


def says(status: int, body: bytes = b"", content_type: str = "application/json", **headers: str) -> Answer:
    """This answer to everything."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=content_type, headers=headers)

    return answer


async def silent(_request: web.BaseRequest) -> web.StreamResponse:
    """Take the request, and never say a word."""
    await asyncio.Event().wait()
    raise AssertionError


def date_of(ahead_s: float) -> dict[str, str]:
    """The header of a clock that is *ahead_s* ahead."""
    return {str(hdrs.DATE): formatdate(time.time() + ahead_s, usegmt=True)}


def of(findings: list[Finding], verdict: Verdict) -> dict[str, str]:
    """The findings of *verdict*: check, and what was found."""
    return {finding.check: finding.found for finding in findings if finding.verdict is verdict}


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A world that has not risen yet; what it started is ended in the end."""
    made = World(folder)
    async with made.stack:
        yield made
