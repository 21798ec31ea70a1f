"""Jobs that stand too long, through real daemons and a real server: one advisory, whoever looks and how often."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web
from nats.aio.client import Client
from nats.js import JetStreamContext

from consumer.errors import ExitCode
from consumer.rules import DEFAULT, load
from consumer.wire.entries import decode_advisory
from consumer.wire.subjects import job_key
from tests.bacalhau.servers import http_server
from tests.daemon.process import NAMES, Daemon, Numbers, bodies, entries, updates_of
from tests.server import Server
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

STUCK: Final = NAMES.advisory("stuck", "*")

Start = Callable[..., Daemon]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Bacalhau's rules with limits that a test can wait for."""
    path = tmp_path / "rules.toml"
    text = DEFAULT.read_text()
    for limit in ('"10m"', '"1h"'):
        assert limit in text
        text = text.replace(limit, '"1s"')
    path.write_text(text)
    assert load(path).dwell == {"Pending": 1, "Queued": 1}
    return path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server of its own for each test."""
    async with Server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, server: Server, rules: Path) -> Iterator[Start]:
    """Starts daemons on the server, by these rules; each ends with the test."""
    started: list[Daemon] = []

    def begin(name: str, **settings: str) -> Daemon:
        common = {"JOBSTATE_NATS__URL": server.url, "JOBSTATE_RULES__FILE": str(rules)}
        variables = {f"JOBSTATE_{key}": text for key, text in settings.items()}
        started.append(Daemon(tmp_path / name, common | variables))
        return started[-1]

    yield begin
    for daemon in started:
        daemon.kill()


@pytest.fixture
async def stream(server: Server) -> AsyncIterator[JetStreamContext]:
    """A client's JetStream."""
    client = Client()
    await client.connect(server.url, allow_reconnect=False)
    yield client.jetstream()
    await client.close()


async def say(stream: JetStreamContext, job: str, state: str) -> None:
    """A producer's report, with no time of its own."""
    await stream.publish(NAMES.report(job_key("default", job)), json.dumps({"StateType": state}).encode())


async def until_stuck(daemon: Daemon, **counts: int) -> None:
    """Wait until the daemon's gauge says so many of each state."""
    wanted = {("jobstate_jobs_stuck", state): count for state, count in counts.items()}
    found: Numbers = {}
    try:
        async with asyncio.timeout(DEADLINE_S):
            while found != wanted:
                found = await daemon.numbers("jobstate_jobs_stuck")
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never had {wanted}, but {found}:\n{daemon.said()}")


async def origins(stream: JetStreamContext) -> list[str]:
    """Of every advisory of this kind that is in the log now."""
    return [subject.rpartition(".")[2] for subject, _ in await entries(stream, NAMES.log, STUCK)]


async def announced(daemon: Daemon) -> float:
    """How many advisories of this kind the daemon itself has put into the log."""
    return (await daemon.numbers("jobstate_advisories_total")).get(("jobstate_advisories_total", "stuck"), 0)


async def test_a_stuck_job_is_announced_once(start: Start, stream: JetStreamContext) -> None:
    """By one daemon of two, and by neither of them again when they come back; the one that moved on never is."""
    first = start("first")
    await first.until_ready()
    for state in ("Pending", "Running"):
        await say(stream, "j-moves", state)
    await say(stream, "j-1", "Pending")
    (body,) = await bodies(stream, NAMES.log, STUCK, 1)
    advisory = decode_advisory(body)
    assert advisory.Kind == "stuck"
    assert advisory.Job is not None
    assert (advisory.Job.ID, advisory.Job.Namespace) == ("j-1", "default")
    (update,) = await updates_of(stream, job_key("default", "j-1"), 1)
    since = str(advisory.Facts["since"])
    assert advisory.Facts == {
        "state": "Pending",
        "since": since,
        "limit_s": 1,
        "source": "reported",
        "version": None,
        "sequence": 1,
    }
    assert update.Time == datetime.fromisoformat(since)
    await until_stuck(first, Pending=1, Queued=0)
    assert await announced(first) == 1
    assert [line["job"] for line in first.lines("advisory")] == ["default.j-1"]

    second = start("second")
    await until_stuck(second, Pending=1, Queued=0)
    assert await first.stop() == ExitCode.OK
    again = start("first")
    await until_stuck(again, Pending=1, Queued=0)
    for daemon in (second, again):
        assert await daemon.stop() == ExitCode.OK  # what it had to say is confirmed before it ends
        assert daemon.lines("advisory") == []
    assert await origins(stream) == ["default=2Ej-1-1-Pending"]


class Orchestrator:
    """Bacalhau's API with one job, whose states each came an hour after the one before; `away`: it does not answer."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.away = False
        self._began: Final = datetime.now(UTC) - timedelta(days=1)

    def _time(self, number: int) -> datetime:
        return self._began + timedelta(hours=number)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """What the record is now."""
        if self.away:
            return web.Response(status=500)
        documents: dict[str, object] = {
            "jobs": {"Items": [self._job()], "NextToken": ""},
            "j-1": {"Job": self._job()},
            "history": {"Items": [self._row(number) for number in range(1, len(self.states) + 1)], "NextToken": ""},
        }
        return web.json_response(
            documents[request.path.rpartition("/")[2]], headers={"X-Bacalhau-Git-Version": "v1.9.3"}
        )

    def _job(self) -> object:
        changed_ns = int(self._time(len(self.states)).timestamp()) * 10**9
        return {
            "ID": "j-1",
            "Namespace": "default",
            "Type": "batch",
            "Version": 1,
            "Revision": len(self.states),
            "State": {"StateType": self.states[-1]},
            "ModifyTime": changed_ns,
        }

    def _row(self, number: int) -> object:
        event = {"Message": "", "Topic": "Scheduling", "Details": {"NewState": self.states[number - 1]}}
        time = self._time(number).isoformat()
        return {"Type": "JobLevel", "SeqNum": number, "JobVersion": 1, "Event": event, "Time": time}


async def test_a_job_of_the_record_is_announced_once_in_each_state(start: Start, stream: JetStreamContext) -> None:
    """Not again after a restart; when it moves on it is stuck no more, until it stands in the next state too long."""
    orchestrator = Orchestrator("Pending")
    async with http_server(orchestrator.answer) as url:
        first = start("first", ORCHESTRATOR__URL=url)
        await until_stuck(first, Pending=1, Queued=0)
        assert await first.stop() == ExitCode.OK
        second = start("second", ORCHESTRATOR__URL=url)
        await until_stuck(second, Pending=1, Queued=0)
        assert await announced(second) == 0
        orchestrator.states.append("Queued")
        await until_stuck(second, Pending=0, Queued=1)
        orchestrator.states.append("Completed")
        await until_stuck(second, Pending=0, Queued=0)
        assert await announced(second) == 1
        assert await second.stop() == ExitCode.OK
    assert await origins(stream) == ["default=2Ej-1-1-Pending", "default=2Ej-1-2-Queued"]


async def test_while_the_orchestrator_is_away_its_jobs_are_not_announced(
    start: Start, stream: JetStreamContext, tmp_path: Path
) -> None:
    """The log has a job Pending since yesterday, and nobody can be asked: it may have moved on, and it has."""
    unlimited = tmp_path / "unlimited.toml"
    unlimited.write_text(DEFAULT.read_text().replace('"10m"', '"none"'))
    orchestrator = Orchestrator("Pending")
    async with http_server(orchestrator.answer) as url:
        first = start("first", ORCHESTRATOR__URL=url, RULES__FILE=str(unlimited))
        await updates_of(stream, job_key("default", "j-1"), 1)
        assert await first.stop() == ExitCode.OK

        orchestrator.states.append("Completed")
        orchestrator.away = True
        second = start("second", ORCHESTRATOR__URL=url)
        await second.until_status(503, "orchestrator")
        await say(stream, "j-2", "Queued")  # a producer's, of which everything is known
        await until_stuck(second, Pending=0, Queued=1)
        orchestrator.away = False
        await updates_of(stream, job_key("default", "j-1"), 2)
        assert await second.stop() == ExitCode.OK
    assert await origins(stream) == ["default=2Ej-2-1-Queued"]
