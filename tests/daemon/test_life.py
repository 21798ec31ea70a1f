"""How a life ends by an error, with a real server: what is seen of it, and what SIGTERM does meanwhile."""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from consumer.bacalhau.tap import Tap
from consumer.daemon import assemble, session
from consumer.errors import ExitCode, LogWentBackError
from consumer.jetstream.input import JetStreamInput
from consumer.jetstream.topology import ensure
from consumer.jetstream.writer import open_writer
from consumer.nats.connect import connect_reader, connect_writer
from consumer.rules import load
from consumer.settings import Bacalhau, Http, Nats, Orchestrator, Settings, Streams
from consumer.wire.subjects import Names, job_key
from tests.bacalhau.servers import http_server
from tests.jetstream.test_recovery import live
from tests.server import Server
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.server

SMALL: Final = Streams(log_max_bytes=1 << 24, input_max_bytes=1 << 24, refused_max_bytes=1 << 24)


@pytest.mark.parametrize("told", [True, False])
async def test_a_life_that_does_not_end_is_not_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """A loop that hears no cancellation: /livez says so. When it ends the process does, if SIGTERM came meanwhile.

    If not, the next life begins, and is alive.
    """
    went_back, may_end = asyncio.Event(), asyncio.Event()
    lives: list[str] = []

    async def go_back(_: object) -> list[object]:
        if not went_back.is_set():
            await went_back.wait()
            raise LogWentBackError("made anew")
        await asyncio.Event().wait()
        return []

    async def deaf(_: object) -> None:
        lives.append("began")
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                lives.append("heard nothing")
        await asyncio.Event().wait()

    monkeypatch.setattr(session, "ENDING_S", 0.05)
    monkeypatch.setattr(assemble, "RETRY_S", 0.01)
    monkeypatch.setattr(session.Session, "_stream_loop", deaf)
    monkeypatch.setattr(JetStreamInput, "batch", go_back)
    async with Server(tmp_path) as server:
        settings = Settings(nats=Nats(url=server.url), http=Http(port=0), streams=SMALL)
        daemon, stop = assemble._Daemon(settings, load()), asyncio.Event()
        running = asyncio.ensure_future(daemon.run(server.url, stop))
        await until(lambda: lives, "a life")
        assert daemon.health.late() == {}
        went_back.set()
        try:
            await until(lambda: session.ENDING in daemon.health.late(), "a life that does not end")
            assert not running.done()
            if told:
                stop.set()
        finally:
            may_end.set()
        if not told:
            await until(lambda: lives.count("began") == 2, "the next life")
            assert daemon.health.late() == {}
            stop.set()
        async with asyncio.timeout(DEADLINE_S):
            assert await running is ExitCode.OK


async def test_a_start_asks_no_more_for_jobs_that_tell_of_their_progress(tmp_path: Path) -> None:
    """Of such a job all entries must be read: in one pass, not a request for each (2,000 jobs took seconds)."""
    names, asked = Names(), list[str]()
    async with Server(tmp_path) as server:
        reader = await connect_reader(server.address(), "test")
        await ensure(reader, names, SMALL)
        writer = await open_writer(await connect_writer(server.address(), "log"), names)
        for number in range(30):
            await live(writer, names, f"j-{number}", *["Running"] * 5)
        await writer.close()

        def note(subject: bytes, *_: object) -> None:
            asked.append(subject.decode())

        await reader.listen("$JS.API.STREAM.MSG.GET.>", note)
        settings = Settings(nats=Nats(url=server.url), http=Http(port=0), streams=SMALL)
        async with contextlib.AsyncExitStack() as stack:
            begun = await assemble._Daemon(settings, load())._begin(server.url, stack)
            await reader.flush()
            known = begun._lanes.jobs
            assert [known[job_key("default", f"j-{number}")].sequence for number in range(30)] == [5] * 30
        assert 0 < len(asked) < 10
        await reader.close()


async def test_the_first_list_waits_for_the_tap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published while it is read should be heard. One page before that says where the log begins."""
    listens, lists, rounds = asyncio.Event(), list[str](), list[str]()

    async def listening(_: Tap) -> None:
        await listens.wait()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        lists.append(request.query["limit"])
        return web.json_response({"Items": [], "NextToken": ""}, headers={"X-Bacalhau-Git-Version": "v1.9.3"})

    monkeypatch.setattr(Tap, "listening", listening)
    monkeypatch.setattr(Tap, "tried", listening)
    monkeypatch.setattr(session, "STOCK_S", 0.1)
    monkeypatch.setattr(session, "tell_left_out", lambda: rounds.append("stock"))
    async with Server(tmp_path) as server, http_server(answer) as url:
        settings = Settings(
            nats=Nats(url=server.url),
            http=Http(port=0),
            streams=SMALL,
            bacalhau=Bacalhau(url=server.url),
            orchestrator=Orchestrator(url=url),
        )
        daemon, stop = assemble._Daemon(settings, load()), asyncio.Event()
        running = asyncio.ensure_future(daemon.run(server.url, stop))
        await until(lambda: lists, "the page that says where the log begins")
        before = len(rounds)
        await until(lambda: len(rounds) > before + 5, "half a second of a life")
        assert lists == ["10"]
        listens.set()
        await until(lambda: len(lists) > 2, "what has changed")
        assert lists[:3] == ["10", "5000", "10"]
        stop.set()
        assert await running is ExitCode.OK


async def test_a_tap_that_fails_keeps_no_list_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at `bacalhau.url`: the orchestrator is asked at once, and what is wrong there seen."""
    lists = list[str]()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        lists.append(request.query["limit"])
        return web.json_response({"Items": [], "NextToken": ""}, headers={"X-Bacalhau-Git-Version": "v1.9.3"})

    monkeypatch.setattr(session, "LISTEN_S", 1e9)
    async with Server(tmp_path) as server, http_server(answer) as url:
        settings = Settings(
            nats=Nats(url=server.url),
            http=Http(port=0),
            streams=SMALL,
            bacalhau=Bacalhau(url="nats://127.0.0.1:1"),
            orchestrator=Orchestrator(url=url),
        )
        daemon, stop = assemble._Daemon(settings, load()), asyncio.Event()
        running = asyncio.ensure_future(daemon.run(server.url, stop))
        await until(lambda: len(lists) > 0, "a list")
        stop.set()
        assert await running is ExitCode.OK
