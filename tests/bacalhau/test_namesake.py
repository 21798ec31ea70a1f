"""The name of the NATS server beside that of the orchestrator's node: a real server, an API that says who it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from aiohttp import web

from consumer.bacalhau.namesake import compare_names
from consumer.bacalhau.orchestrator import Orchestrator
from consumer.bacalhau.tap import Tap, TapTiming
from consumer.core import Readers, ReadingOptions
from consumer.core.reads import ReadJobs
from consumer.rules import load
from consumer.settings import Bacalhau as BacalhauSettings
from consumer.settings import Orchestrator as OrchestratorSettings
from tests.bacalhau.listening import running
from tests.bacalhau.servers import http_server, nats_server
from tests.bacalhau.test_reads import LoopClock
from tests.waiting import until

NODE: Final = "n-orchestrator"
LOOK_S: Final = 0.01


class Api:
    """An orchestrator without jobs that says it is `node`; with `refuses` it does not. `asked`: how often for that."""

    def __init__(self) -> None:
        self.node = NODE
        self.refuses = False
        self.asked = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """What it says."""
        if request.path != "/api/v1/agent/node":
            return web.Response(body=b'{"NextToken":"","Items":[]}', content_type="application/json")
        self.asked += 1
        if self.refuses:
            return web.Response(status=403)
        return web.json_response({"NodeID": self.node, "NodeType": "Requester"})


class CountedTap(Tap):
    """`looks`: how often somebody waited for it to listen, as who compares does whenever he looks."""

    looks = 0

    async def listening(self) -> None:
        """The tap's."""
        self.looks += 1
        await super().listening()


class Scene:
    """What is there, while the names are compared."""

    def __init__(self, api: Api, tap: CountedTap, orchestrator: Orchestrator, readers: Readers) -> None:
        self.api: Final = api
        self.tap: Final = tap
        self.orchestrator: Final = orchestrator
        self.readers: Final = readers
        self.is_away = False
        self.lines: list[Any] = []

    def wait_s(self) -> float | None:
        """Seconds until the question may leave; None: nobody is there to be asked."""
        return None if self.is_away else self.readers.turn_s(LoopClock().now())

    def said(self) -> list[tuple[str, str]]:
        """Server and node of each warning so far."""
        return [(one["server"], one["node"]) for one in self.lines if one["event"] == "tap.other_server"]

    async def looks(self) -> None:
        """Let it look around some times: what it would do then, it has done."""
        before = self.tap.looks
        await until(lambda: self.tap.looks > before + 5, "some looks")

    async def asked(self, times: int) -> None:
        """Wait until it was asked for its node so often."""
        await until(lambda: self.api.asked >= times, f"the question for the node, {times} times")


@contextlib.asynccontextmanager
async def scene(*urls: str, again_s: float = 60.0, listed: bool = True, max_rate: float = 1.0) -> AsyncIterator[Scene]:
    """A tap that listens at the first of *urls*, and an orchestrator that has answered a list, or not yet."""
    api = Api()
    async with http_server(api.answer) as url, Orchestrator(OrchestratorSettings(url=url)) as orchestrator:
        tap = CountedTap(BacalhauSettings(url=",".join(urls)), TapTiming(pause_s=0.02, pause_max_s=0.1))
        readers = Readers(load(), lambda _: None, ReadingOptions(max_rate=max_rate), since_ns=0)
        made = Scene(api, tap, orchestrator, readers)
        if listed:
            await orchestrator.jobs(ReadJobs())
        with structlog.testing.capture_logs() as made.lines:
            async with running(tap):
                comparing = compare_names(tap, orchestrator, made.wait_s, look_s=LOOK_S, again_s=again_s)
                task = asyncio.create_task(comparing)
                try:
                    yield made
                finally:
                    assert not task.done()  # an end would end the daemon's life
                    task.cancel()


async def test_the_orchestrators_own_server_is_no_matter(tmp_path: Path) -> None:
    """The same name: one question, and not a word."""
    async with nats_server(tmp_path, f"server_name: {NODE}") as server, scene(server.url) as it:
        await it.asked(1)
        await it.looks()
        assert (it.api.asked, it.said()) == (1, [])


async def test_another_server_is_told_once_with_both_names_and_the_next_step(tmp_path: Path) -> None:
    """Nothing follows from it, and it is not asked for again, however long it lasts."""
    async with nats_server(tmp_path, "server_name: ours") as server, scene(server.url, again_s=LOOK_S) as it:
        await until(lambda: bool(it.said()), "the warning")
        await it.looks()
        assert (it.api.asked, it.said()) == (1, [("ours", NODE)])
        (line,) = (one for one in it.lines if one["event"] == "tap.other_server")
        assert line["log_level"] == "warning"
        assert "check bacalhau.url" in line["next_step"]


async def test_the_question_counts_for_the_rate(tmp_path: Path) -> None:
    """At one request in a thousand seconds: the read that is asked for next leaves so much later."""
    async with nats_server(tmp_path, f"server_name: {NODE}") as server, scene(server.url, max_rate=0.001) as it:
        await it.asked(1)
        due = it.readers.wake_at()
        assert due is not None
        assert due > LoopClock().now()


async def test_each_other_server_is_compared_anew(tmp_path: Path) -> None:
    """The next one of `bacalhau.url` answers, and has another name: one more question."""
    async with (
        nats_server(tmp_path, f"server_name: {NODE}") as right,
        nats_server(tmp_path, "server_name: b") as wrong,
        scene(right.url, wrong.url) as it,
    ):
        await it.asked(1)
        await right.stop()
        await until(lambda: bool(it.said()), "the warning")
        await it.looks()
        assert (it.api.asked, it.said()) == (2, [("b", NODE)])


async def test_a_server_that_comes_back_under_its_name_is_not_compared_again(tmp_path: Path) -> None:
    """As Bacalhau's does with each restart of the orchestrator."""
    async with nats_server(tmp_path, "server_name: ours") as server, scene(server.url) as it:
        await until(lambda: bool(it.said()), "the warning")
        await server.stop()
        await server.start()
        await until(lambda: it.tap.connections >= 2, "the second connection")
        await it.looks()
        assert it.api.asked == len(it.said()) == 1


async def test_what_is_refused_is_asked_again_ever_more_seldom(tmp_path: Path) -> None:
    """After *again_s*, twice that, and so on, until it is answered; the refusals are not a warning."""
    async with (
        nats_server(tmp_path, "server_name: ours") as server,
        scene(server.url, again_s=0.05, max_rate=100) as it,
    ):
        it.api.refuses = True
        began = asyncio.get_running_loop().time()
        await it.asked(4)
        assert asyncio.get_running_loop().time() - began >= 0.05 * (1 + 2 + 4) - 4 * LOOK_S
        assert it.said() == []
        it.api.refuses = False
        await until(lambda: bool(it.said()), "the warning")


@pytest.mark.parametrize("what", ["list", "away"])
async def test_nobody_is_asked_who_he_is_before_he_answers(tmp_path: Path, what: str) -> None:
    """Not before the first list, which only an orchestrator has; nor while it is away."""
    async with nats_server(tmp_path, "server_name: ours") as server, scene(server.url, listed=what != "list") as it:
        if what == "away":
            it.is_away = True
        await it.looks()
        assert it.api.asked == 0
        if what == "away":
            it.is_away = False
        else:
            await it.orchestrator.jobs(ReadJobs())
        await until(lambda: bool(it.said()), "the warning")
