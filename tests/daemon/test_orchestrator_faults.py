"""Every fault of an orchestrator before a real daemon: /readyz and the log name it by its third answer; it heals."""

import asyncio
import gzip
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self

import pytest
from aiohttp import web
from nats.aio.client import Client

from consumer.errors import ExitCode
from consumer.faults import NEXT_STEP, OrchestratorFault
from tests.daemon.process import Daemon
from tests.server import Server
from tests.waiting import DEADLINE_S, until
from tests.wire.samples import seal

pytestmark = pytest.mark.server

JOBS: Final = b'{"NextToken":"","Items":[]}'
CANARY: Final = "canary-5f1c"
ENOUGH: Final = 3
"""Answers of a kind that may be of one read alone, in a row: then it is the orchestrator."""

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def says(status: int, body: bytes = b"", content_type: str = "application/json", **headers: str) -> Answer:
    """This answer to everything."""

    async def answer(_request: web.BaseRequest) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, content_type=content_type, headers=named)

    return answer


async def drop(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection in place of an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def compute(request: web.BaseRequest) -> web.StreamResponse:
    """A compute node of 1.9: it knows no job, and says what it is."""
    if request.path.endswith("/agent/node"):
        return web.json_response({"NodeID": CANARY, "NodeType": "Compute"})
    return web.json_response({"Status": 404, "Message": CANARY, "Code": "NotFound"}, status=404)


FAULTS: Final[dict[OrchestratorFault, Answer]] = {
    "compute-node": compute,
    "html": says(200, f"<html>{CANARY}".encode(), "text/html"),
    "not-json": says(200, CANARY.encode(), "text/plain"),
    "cut": says(200, JOBS[:-3]),
    "wrong-shape": says(200, b'{"Items":7}'),
    "encoded": says(200, gzip.compress(JOBS), Content_Encoding="gzip"),
    "redirect": says(307, Location="http://127.0.0.1:1/"),
    "unauthorized": says(401, CANARY.encode()),
    "forbidden": says(403, CANARY.encode()),
    "not-an-api": says(404, b"<html>", "text/html"),
    "throttled": says(429, Retry_After="1"),
    "refused": says(400, CANARY.encode()),
    "server-error": says(503, CANARY.encode()),
    "wrong-status": says(204),
    "unreachable": drop,
}
"""What a server may say; `slow` is that it says nothing."""


class Orchestrator:
    """An API without jobs, healthy or as *answer* has it.

    Before a fault is answered for the fourth time *look* is called: by then it must have been named.
    """

    def __init__(self) -> None:
        self.healthy: Final = says(200, JOBS, X_Bacalhau_Git_Version="v1.9.3")
        self.answer: Answer = self.healthy
        self._runner: Final = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        self.url = ""

        self._heal: Final = asyncio.Event()

    def fall(self, fault: Answer | None, look: Callable[[], Awaitable[None]] | None = None) -> None:
        """From now on this is what it says; None: nothing at all."""
        said = Counter[str]()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            said[request.path] += 1
            if fault is None:
                await self._heal.wait()
                return await self.healthy(request)
            if look is not None and said[request.path] > ENOUGH:
                await look()
            return await fault(request)

        self._heal.clear()
        self.answer = answer

    def heal(self) -> None:
        """It is well again, and answers what it has left unanswered."""
        self.answer = self.healthy
        self._heal.set()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self.answer(request)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def daemon_beside(folder: Path, server: Server, orchestrator: Orchestrator, timeout_s: float) -> Daemon:
    """A daemon that waits so long for an answer of the orchestrator's."""
    variables = {
        "JOBSTATE_NATS__URL": server.url,
        "JOBSTATE_ORCHESTRATOR__URL": orchestrator.url,
        "JOBSTATE_ORCHESTRATOR__TOKEN": CANARY,
        "JOBSTATE_ORCHESTRATOR__TIMEOUT_S": str(timeout_s),
    }
    return Daemon(folder, variables)


async def test_each_fault_is_named_by_its_third_answer_and_heals(tmp_path: Path) -> None:
    """Kind and next step in /readyz, the kind in a log line; nothing that the server sent; ready again afterwards."""
    async with Server(tmp_path / "nats") as server, Orchestrator() as orchestrator:
        daemon = daemon_beside(tmp_path / "daemon", server, orchestrator, DEADLINE_S)
        try:
            await daemon.until_ready()
            unnamed = []
            for kind, fault in FAULTS.items():
                words = f"its responses are invalid: {kind}"

                async def look(words: str = words) -> None:
                    _, said = await daemon.get("/readyz")
                    if words not in said:
                        unnamed.append((words, said))

                orchestrator.fall(fault, look)
                answer = await daemon.until_status(503, words)
                said = str(answer["parts"]["orchestrator"])
                assert NEXT_STEP[kind] in said, said
                orchestrator.heal()
                await daemon.until_ready()
            assert unnamed == []
            assert {line["kind"] for line in daemon.lines("read.failed")} == set(FAULTS)
            # Once for the page that says where the log begins, and once for all that is read by it.
            assert [line["version"] for line in daemon.lines("orchestrator.version")] == ["v1.9.3"] * 2
            assert await daemon.stop() == ExitCode.OK
            assert CANARY not in daemon.said()
        finally:
            daemon.kill()


async def test_a_credential_that_is_refused_is_named_and_one_that_is_mended_is_used(tmp_path: Path) -> None:
    """As Bacalhau 1.7.0 refuses it. The file is written anew while the daemon runs, and that is all."""
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("old")
    new = "Basic " + b64encode(b"me:new").decode()
    refused = says(500, b'{"Status":500,"Message":"authentication failed: invalid basic auth credentials"}')
    async with Server(tmp_path / "nats") as server, Orchestrator() as orchestrator:

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            right = request.headers.get("Authorization") == new
            return await (orchestrator.healthy if right else refused)(request)

        orchestrator.fall(answer)
        daemon = Daemon(
            tmp_path / "daemon",
            {
                "JOBSTATE_NATS__URL": server.url,
                "JOBSTATE_ORCHESTRATOR__URL": orchestrator.url,
                "JOBSTATE_ORCHESTRATOR__USER": "me",
                "JOBSTATE_ORCHESTRATOR__PASSWORD_FILE": str(password),
            },
        )
        try:
            answer_now = await daemon.until_status(503, "its responses are invalid: unauthorized")
            assert NEXT_STEP["unauthorized"] in str(answer_now["parts"]["orchestrator"])
            assert {line["kind"] for line in daemon.lines("read.failed")} == {"unauthorized"}
            password.write_text("new")
            await daemon.until_ready()
            assert [line["after"] for line in daemon.lines("orchestrator.answers")] == ["unauthorized"]
        finally:
            daemon.kill()


async def test_an_orchestrator_that_says_nothing_is_slow_and_heals(tmp_path: Path) -> None:
    """After the time that the settings give it."""
    async with Server(tmp_path / "nats") as server, Orchestrator() as orchestrator:
        daemon = daemon_beside(tmp_path / "daemon", server, orchestrator, 1.0)
        try:
            await daemon.until_ready()
            orchestrator.fall(None)
            await daemon.until_status(503, "its responses are invalid: slow")
            orchestrator.heal()
            await daemon.until_ready()
        finally:
            daemon.kill()


def ended(number: int, job: str) -> bytes:
    """A frame in which the execution *number* of *job* ends."""
    frame = {
        "metadata": {"Bacalhau-Type": "RunResult", "Bacalhau-PayloadEncoding": "json"},
        "payload": {"ExecutionID": f"e-{number}", "JobID": job, "JobType": "batch", "Events": []},
    }
    return seal(json.dumps(frame).encode())


async def test_frames_of_jobs_that_nobody_can_be_asked_for_are_no_fault_of_the_orchestrators(tmp_path: Path) -> None:
    """Three of a stranger's: no request leaves for such a job, and the daemon stays ready."""
    async with Server(tmp_path / "nats") as server, Orchestrator() as orchestrator:
        daemon = Daemon(
            tmp_path / "daemon",
            {
                "JOBSTATE_NATS__URL": server.url,
                "JOBSTATE_BACALHAU__URL": server.url,
                "JOBSTATE_ORCHESTRATOR__URL": orchestrator.url,
            },
        )
        client = Client()
        await client.connect(server.url, allow_reconnect=False)
        try:
            await daemon.until_ready()
            for number, job in enumerate(("..", ".", "..")):
                await client.publish("bacalhau.global.compute.n-1.out.msgs", ended(number, job))
                await until(lambda sent=number + 1: len(daemon.lines("read.failed")) >= sent, "a read of nobody")  # type: ignore[misc]
            assert (await daemon.get("/readyz"))[0] == HTTPStatus.OK
            numbers = await daemon.numbers("jobstate_reads_total")
            assert sum(count for labels, count in numbers.items() if "not-askable" in labels) == 3
        finally:
            await client.close()
            daemon.kill()


async def test_an_orchestrator_of_another_cluster_is_named(tmp_path: Path) -> None:
    """Frames of jobs that the API does not know: /readyz says that the two addresses may not belong together."""
    missing = says(404, b'{"Status":404,"Message":"job not found","Code":"NotFound"}')

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await (orchestrator.healthy if request.path.endswith("/jobs") else missing)(request)

    async with Server(tmp_path / "nats") as server, Orchestrator() as orchestrator:
        orchestrator.answer = answer
        daemon = Daemon(
            tmp_path / "daemon",
            {
                "JOBSTATE_NATS__URL": server.url,
                "JOBSTATE_BACALHAU__URL": server.url,
                "JOBSTATE_ORCHESTRATOR__URL": orchestrator.url,
            },
        )
        client = Client()
        await client.connect(server.url, allow_reconnect=False)
        try:
            await daemon.until_ready()
            for number in range(3):
                await client.publish("bacalhau.global.compute.n-1.out.msgs", ended(number, f"j-{number}"))
            answered = await daemon.until_status(503, "the same cluster")
            assert "none of the last 3 jobs" in answered["parts"]["orchestrator"]
            numbers = await daemon.numbers("jobstate_reads_total")
            assert sum(count for labels, count in numbers.items() if "missing" in labels) >= 3
        finally:
            await client.close()
            daemon.kill()


async def test_a_nats_server_that_is_not_the_orchestrators_is_told_and_nothing_more(tmp_path: Path) -> None:
    """Our own in place of Bacalhau's: ready, each update is found without frames, and one warning has both names."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/agent/node"):
            return web.json_response({"NodeID": "n-orchestrator", "NodeType": "Requester"})
        return await orchestrator.healthy(request)

    async with Server(tmp_path / "nats", "server_name: ours\n") as server, Orchestrator() as orchestrator:
        orchestrator.answer = answer
        daemon = Daemon(
            tmp_path / "daemon",
            {
                "JOBSTATE_NATS__URL": server.url,
                "JOBSTATE_BACALHAU__URL": server.url,
                "JOBSTATE_ORCHESTRATOR__URL": orchestrator.url,
            },
        )
        try:
            line = await daemon.line("tap.other_server")
            assert (line["level"], line["server"], line["node"]) == ("warning", "ours", "n-orchestrator")
            assert "check bacalhau.url" in line["next_step"]
            await daemon.until_ready()
            assert await daemon.stop() == ExitCode.OK
            assert len(daemon.lines("tap.other_server")) == 1
        finally:
            daemon.kill()
