"""Whether the daemon lives: a loop that has something to do and stands still is named, and an idle one never."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from consumer.daemon import assemble, runtime, session
from consumer.jetstream.input import JetStreamInput
from consumer.jetstream.writer import JetStreamWriter
from consumer.nats.connect import connect_reader
from consumer.observe import Health
from consumer.ports import Delivery
from consumer.settings import Bacalhau, Drain, Http, Nats, Orchestrator, Settings, Streams
from consumer.wire.subjects import Names, job_key
from tests.bacalhau.servers import http_server
from tests.server import Server
from tests.waiting import DEADLINE_S, until

NAMES: Final = Names()
MIB: Final = 1 << 20
STOCK_S: Final = 0.05
LOOPS: Final = {
    "reports",
    "send to the log",
    "answers of the log",
    "timer",
    "checkpoint",
    "stock",
    "streams",
    "tap",
    "frames",
    "requests to the orchestrator",
    "answers of the orchestrator",
}


class Seen(Health):
    """A health that keeps what was ever late. Its time is counted in rounds of the stock, whatever the machine does."""

    made: "Seen"

    def __init__(self) -> None:
        super().__init__(lambda: self.rounds * STOCK_S)
        Seen.made = self
        self.ever_late: set[str] = set()
        self.rounds = 0

    def alive(self, loop: str, now: float | None = None) -> None:
        self.ever_late |= set(self.late())
        super().alive(loop, now)
        self.rounds += loop == "stock"

    @property
    def expected(self) -> set[str]:
        """The loops that something is expected of now."""
        return set(self._allowance)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that the test may treat badly."""
    async with Server(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def daemon(
    server: Server, monkeypatch: pytest.MonkeyPatch, orchestrator: str = "", allowance_s: float = 1.0
) -> AsyncIterator[Seen]:
    """A daemon in this process, with rounds of 50 ms and a short patience; its health."""
    monkeypatch.setattr(runtime, "Health", Seen)
    monkeypatch.setattr(session, "STOCK_S", STOCK_S)
    monkeypatch.setattr(session, "LOOK_S", 0.2)
    monkeypatch.setattr(session, "ALLOWANCE_S", allowance_s)
    settings = Settings(
        nats=Nats(url=server.url),
        bacalhau=Bacalhau(url=server.url if orchestrator else ""),
        orchestrator=Orchestrator(url=orchestrator),
        streams=Streams(log_max_bytes=16 * MIB, input_max_bytes=16 * MIB, refused_max_bytes=MIB),
        http=Http(port=0),
        drain=Drain(deadline_s=0.5),  # a hanging sender never ends its own
    )
    stop = asyncio.Event()
    running = asyncio.create_task(assemble.run_daemon(settings, stop))
    await until(lambda: running.done() or (hasattr(Seen, "made") and Seen.made.rounds > 0), "the first round")
    assert not running.done()
    try:
        yield Seen.made
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await running
        assert Seen.made.expected == set()
        gc.unfreeze()  # the daemon's mend for its own process (`_settle_memory`): here other tests follow
        del Seen.made


async def rounds(health: Seen, count: int) -> None:
    """Wait for so many rounds of the stock."""
    goal = health.rounds + count
    await until(lambda: health.rounds >= goal, f"{count} rounds")


async def report(server: Server) -> None:
    """One report, as any producer's."""
    producer = await connect_reader(server.address(), "producer")
    await producer.request(NAMES.report(job_key("default", "j-1")), b'{"StateType":"Running"}', timeout=DEADLINE_S)
    await producer.close()


async def test_an_idle_daemon_lives(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop is looked at, all of them stand still for several times their allowance, and none is late."""

    async def nothing(_request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"NextToken": "", "Items": []})

    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.2)
    async with http_server(nothing) as url, daemon(server, monkeypatch, url) as health:
        await until(lambda: health.expected == LOOPS, "the session that reads, when the log has a beginning")
        await report(server)
        await rounds(health, 60)
        assert health.ever_late == set()


async def test_a_server_that_is_away_is_no_reason_to_die(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed for longer than the allowance: the daemon waits, nothing of it is late, and /readyz says so."""
    async with daemon(server, monkeypatch, allowance_s=6.0) as health:
        await report(server)
        await server.kill()
        await until(lambda: "log" in health.unready(), "not ready")
        await rounds(health, 150)
        assert "connection" in health.unready()["input"]
        await server.start()
        await until(lambda: not health.unready(), "ready again")
        assert health.ever_late == set()


async def test_a_loop_that_hangs_with_something_to_do_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender, for good; and no other for it. While there is nothing to send it is not late."""
    forever = asyncio.Event()

    async def hang(_self: JetStreamWriter, _asks: object) -> None:
        await forever.wait()

    async with daemon(server, monkeypatch, allowance_s=2.0) as health:
        monkeypatch.setattr(JetStreamWriter, "send", hang)
        await rounds(health, 60)
        assert health.late() == {}
        await report(server)
        await until(lambda: "send to the log" in health.late(), "the alarm")
        monkeypatch.undo()
        forever.set()


async def test_a_reader_of_the_input_that_hangs_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even a heartbeat, a doubt or a try moves it."""
    forever = asyncio.Event()
    batch = JetStreamInput.batch

    async def hang(self: JetStreamInput) -> list[Delivery]:
        await forever.wait()
        return await batch(self)

    monkeypatch.setattr(session, "SLOW_ALLOWANCE_S", 0.5)
    monkeypatch.setattr(JetStreamInput, "batch", hang)
    async with daemon(server, monkeypatch) as health:
        await until(lambda: "reports" in health.late(), "the alarm")
        assert set(health.late()) == {"reports"}
        forever.set()
