"""Every wrong answer that design/nats.md 7 lists for the orchestrator, from real HTTP servers on the loopback."""

import asyncio
import contextlib
import gzip
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, get_args

import aiohttp
import msgspec
import pytest
import structlog
from aiohttp import web

from consumer.bacalhau.orchestrator import Orchestrator, api_base
from consumer.core.reads import Missing, ReadHistory, ReadJob, ReadJobs
from consumer.errors import OrchestratorError, SettingsError
from consumer.faults import NEXT_STEP, OrchestratorFault
from consumer.model import HistoryPage, JobDocument
from consumer.settings import Orchestrator as OrchestratorSettings
from consumer.settings import Secret
from consumer.wire.rest import Node
from tests.bacalhau.servers import OUT_OF_TIME, certificate, certificate_of, http_server
from tests.loopback import free_port
from tests.waiting import DEADLINE_S, given_time, until

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
CANARY = "canary-5f1c"
JOB = "j-00000000-0000-0000-0000-000000000001"
HISTORY = ReadHistory(job=JOB, namespace="default")
EMPTY = b'{"NextToken":"","Items":[]}'
NOT_FOUND = b'{"Status":404,"Message":"job not found","RequestID":"","Code":"","Component":"JobStore"}'


def says(status: int, body: bytes = b"", content_type: str = "application/json", **headers: str) -> Answer:
    """A server that gives this answer to everything."""

    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(
            status=status,
            body=body,
            content_type=content_type,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    return answer


LONG_S: Final = 2 * DEADLINE_S
"""A limit that no test waits for."""


def patient(url: str, **others: object) -> Orchestrator:
    """One with limits that do not run out, but for the *others*: else a slow machine is an orchestrator's fault."""
    settings = msgspec.structs.replace(OrchestratorSettings(url=url, timeout_s=LONG_S), **others)
    return Orchestrator(settings, connect_timeout_s=LONG_S)


async def error_of(
    answer: Answer, read: ReadHistory | ReadJob | ReadJobs = HISTORY, timeout_s: float = LONG_S, body_max: int = 1 << 20
) -> OrchestratorError:
    """The error that *read* ends in; it must have nothing of a body in it."""
    async with http_server(answer) as url:
        limited = patient(url, timeout_s=timeout_s, answer_bytes=body_max)
        async with limited as orchestrator, asyncio.timeout(DEADLINE_S):
            with pytest.raises(OrchestratorError) as caught:
                await send(orchestrator, read)
    return checked(caught.value)


def checked(error: OrchestratorError) -> OrchestratorError:
    """*error*, which must say what to do next, on one line, and nothing of what the server sent."""
    assert str(error).endswith(f"; {NEXT_STEP[error.kind]}")
    assert str(error).isprintable()
    assert CANARY not in str(error)
    return error


async def send(orchestrator: Orchestrator, read: ReadHistory | ReadJob | ReadJobs) -> object:
    """Whatever *read* is answered with."""
    match read:
        case ReadHistory():
            return await orchestrator.history(read)
        case ReadJob():
            return await orchestrator.job(read)
        case ReadJobs():
            return await orchestrator.jobs(read)


def job_body(job: str) -> bytes:
    """The document of a pending job as 1.9 gives it."""
    return (
        f'{{"Job":{{"ID":"{job}","Name":"{job}","Namespace":"default","Type":"batch","Priority":0,"Count":1,'
        '"Constraints":[],"Meta":{},"Labels":{},"Tasks":[],"State":{"StateType":"Pending"},"Version":1,"Revision":1,'
        '"CreateTime":1763900000000000000,"ModifyTime":1763900000000000000}}'
    ).encode()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (says(200, f"<html>{CANARY}</html>".encode(), "text/html"), "html"),
        (says(200, f"  <!doctype html>{CANARY}".encode()), "html"),
        (says(200, EMPTY, "text/html"), "html"),
        (says(200, b'{"NextToken":"","Items":[{"SeqNum":1,"Type":"JobLev'), "cut"),
        (says(200, f"pong {CANARY}".encode(), "text/plain"), "not-json"),
        (says(200, b""), "cut"),
        (says(200, f'{{"Items":"{CANARY}"}}'.encode()), "wrong-shape"),
        (says(200, b'{"Other":' + b"[" * 30_000 + b"]" * 30_000 + b"}"), "too-deep"),
        (
            says(200, b'{"Items":[{"Type":"JobLevel","SeqNum":1,"Event":{"Topic":"' + CANARY.encode() * 9 + b'"}}]}'),
            "unknown-history-entry",
        ),
        (says(200, b'{"Items":[{"Type":"' + CANARY.encode() + b'\xff"}]}'), "not-utf8"),
        (says(200, f'["{CANARY}"]'.encode()), "wrong-shape"),
        (says(204), "wrong-status"),
        (says(301, Location=f"http://127.0.0.1:1/{CANARY}"), "redirect"),
        (says(307, Location=f"http://127.0.0.1:1/{CANARY}"), "redirect"),
        (says(400, CANARY.encode()), "refused"),
        (says(400, b""), "refused"),
        (says(400, b"Client sent an HTTP request to an HTTPS server."), "needs-tls"),
        (says(400, b"Client sent an HTTP request to an HTTPS server.\n"), "needs-tls"),
        (says(400, b"Client sent an HTTP request to an HTTPS server.\n" + CANARY.encode()), "refused"),
        (says(400, b"Client sent an HTTP request to an HTTPS server.\n" * 100_000), "refused"),
        (says(422, b"Client sent an HTTP request to an HTTPS server.\n"), "refused"),
        (says(401, CANARY.encode()), "unauthorized"),
        (says(403, CANARY.encode()), "forbidden"),
        (says(404, f"<html>{CANARY}".encode(), "text/html"), "not-an-api"),
        (says(404, f'{{"message":"{CANARY}"}}'.encode()), "not-an-api"),
        (says(429, CANARY.encode()), "throttled"),
        (says(500, CANARY.encode()), "server-error"),
        (says(502, f"<html>{CANARY}".encode(), "text/html"), "server-error"),
        (says(503, CANARY.encode()), "server-error"),
    ],
)
async def test_each_wrong_answer_has_its_own_name(answer: Answer, kind: str) -> None:
    """No wrong answer becomes a page of history, and none of its text gets into the error."""
    assert (await error_of(answer)).kind == kind


def of_1_7(message: str) -> bytes:
    """An error document, as Bacalhau 1.7.0 wrote it."""
    document = {"Status": 500, "Message": message, "RequestID": "", "Code": "InternalError", "Component": "APIServer"}
    return msgspec.json.encode(document)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (of_1_7("missing authorization header"), "unauthorized"),
        (of_1_7("authentication failed: invalid basic auth credentials"), "unauthorized"),
        (of_1_7("authentication failed: invalid API key"), "unauthorized"),
        (of_1_7("authentication failed"), "unauthorized"),
        (of_1_7("unsupported authentication method"), "unauthorized"),
        (of_1_7("JWT authorization not configured"), "unauthorized"),
        (of_1_7(f"JWT validation failed: {CANARY}"), "unauthorized"),
        (of_1_7(f"user '{CANARY}' does not have the required capability 'read:job'"), "forbidden"),
        (of_1_7(f"user 'a'b\n{CANARY}' does not have the required capability 'read:agent'"), "forbidden"),
        (of_1_7("could not read the store: authentication failed"), "server-error"),
        (of_1_7("Internal server error"), "server-error"),
        (of_1_7("authentication failed: " + "x" * 5_000), "server-error"),
        (b'"missing authorization header"', "server-error"),
        (b'{"Status":500,"Message":7}', "server-error"),
        (b'{"Status":500,"Message":"\xff"}', "server-error"),
        (b'{"Status":500,"Message":' + b"[" * 2_000, "server-error"),
    ],
)
async def test_a_500_that_means_401_or_403_is_named_as_that(body: bytes, kind: str) -> None:
    """Bacalhau 1.7.0 with `API.Auth.Users`: by the words that it was heard to say, and by nothing like them."""
    error = await error_of(says(500, body))
    assert error.kind == kind
    assert ("by which Bacalhau 1.7 means 40" in str(error)) == (kind != "server-error")
    assert (await error_of(says(503, body))).kind == "server-error"


async def test_a_500_whose_body_never_comes_is_one() -> None:
    """Its length is told, and then nothing is said: whatever it might have meant, it is an error within the time."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=500, headers={"Content-Length": "118"})
        await response.prepare(request)
        await response.write(b'{"Status":500')
        await asyncio.Event().wait()
        raise AssertionError

    error = await given_time(
        lambda timeout_s: error_of(answer, timeout_s=timeout_s), lambda error: error.kind != "slow"
    )
    assert error.kind == "server-error"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("", None), ("-3", None), ("nan", None), ("inf", 60.0), ("soon", None)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_comes_with_the_error(status: int, value: str, seconds: float | None) -> None:
    """`Retry-After` in seconds is kept, bounded; a date or nonsense is as if it were not there."""
    assert (await error_of(says(status, Retry_After=value))).retry_after_s == seconds


@pytest.mark.parametrize("body", [NOT_FOUND, b"", b"\n"])
async def test_a_404_of_the_api_is_missing(body: bytes) -> None:
    """Bacalhau's error document, or no body at all, says that the job is not there (yet)."""
    async with http_server(says(404, body)) as url, patient(url) as orchestrator:
        assert await orchestrator.history(HISTORY) == Missing()
        assert await orchestrator.job(ReadJob(job=JOB)) == Missing()


async def test_an_api_without_a_list_of_jobs_is_none() -> None:
    """The list exists in every Bacalhau: its 404 means that the URL is wrong, not that there are no jobs."""
    assert (await error_of(says(404, NOT_FOUND), ReadJobs())).kind == "not-an-api"


def node(kind: str) -> bytes:
    """What a node of 1.9 says of itself."""
    return f'{{"NodeID":"n-1","NodeType":"{kind}","Labels":{{"os_type":"linux"}}}}'.encode()


def of_node(answer: Answer, otherwise: Answer, asked: list[str]) -> Answer:
    """*answer* to who is asked for the node, *otherwise* to the rest; the paths are kept in *asked*."""

    async def chosen(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return await (answer if request.path == "/api/v1/agent/node" else otherwise)(request)

    return chosen


async def test_a_compute_node_is_named_and_asked_for_no_more_than_once_a_minute() -> None:
    """It has no list of jobs. What it is, is asked within the read that fails, and not for each of them."""
    asked: list[str] = []
    answer = of_node(says(200, node("Compute")), says(404, NOT_FOUND), asked)
    async with http_server(answer) as url, patient(url) as orchestrator:
        for _ in range(3):
            with pytest.raises(OrchestratorError, match="this is a compute node's API") as caught:
                await orchestrator.jobs(ReadJobs())
            assert checked(caught.value).kind == "compute-node"
        assert asked.count("/api/v1/agent/node") == 1
        orchestrator._node_due = 0.0  # as a minute later
        with pytest.raises(OrchestratorError):
            await orchestrator.jobs(ReadJobs())
        assert asked.count("/api/v1/agent/node") == 2
        assert orchestrator.lists == 0


@pytest.mark.parametrize(
    "answer",
    [says(200, node("Requester")), says(404, NOT_FOUND), says(403, CANARY.encode()), says(500), says(200, b"{}"), None],
    ids=["an orchestrator's", "404", "403", "500", "no node", "no word"],
)
async def test_a_list_that_is_missing_is_no_compute_nodes_where_none_says_so(
    answer: Answer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the question for the node comes to, it is the list's error that is told; and none waits for long."""
    monkeypatch.setattr("consumer.bacalhau.orchestrator.NODE_TIMEOUT_S", 0.2)

    async def silent(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    error = await error_of(of_node(answer or silent, says(404, NOT_FOUND), []), ReadJobs())
    assert error.kind == "not-an-api"


async def test_an_orchestrator_that_computes_too_is_asked_for_its_node_only_by_who_wants_it() -> None:
    """It says Compute of itself, as real ones do, and has a list: nothing is wrong with it."""
    asked: list[str] = []
    answer = of_node(says(200, node("Compute")), says(200, EMPTY), asked)
    async with http_server(answer) as url, patient(url) as orchestrator:
        await orchestrator.jobs(ReadJobs())
        assert "/api/v1/agent/node" not in asked
        assert orchestrator.lists == 1
        assert await orchestrator.node() == Node(id="n-1", type="Compute")


async def test_another_job_than_asked_for_is_an_error() -> None:
    """Bacalhau finds jobs by name too, a proxy may mix answers up: the document must be of the job that was asked."""
    assert (await error_of(says(200, job_body("j-other")), ReadJob(job=JOB))).kind == "other-job"


async def test_a_history_with_rows_of_another_job_is_an_error() -> None:
    """Each row says whose it is: one of another job is no entry of this one's record."""
    row = {"Type": "JobLevel", "JobID": JOB, "SeqNum": 1, "Event": {"Details": {"NewState": "Pending"}}}
    body = msgspec.json.encode({"NextToken": "", "Items": [row, row | {"SeqNum": 2, "JobID": "j-other"}]})
    assert (await error_of(says(200, body), HISTORY)).kind == "other-job"


async def other_job(orchestrator: Orchestrator, read: ReadHistory | ReadJob) -> None:
    """Have *read* answered with another job."""
    with pytest.raises(OrchestratorError) as caught:
        await send(orchestrator, read)
    assert checked(caught.value).kind == "other-job"


async def test_a_job_whose_id_is_the_name_of_another_is_found_by_the_next_read() -> None:
    """Bacalhau looks for a name first, in the namespace asked for: its first page, a later one, and the job itself.

    The other job has fewer rows than the later page begins at, and says nothing there: that must not be this one's end.
    """
    asked: list[tuple[str, str]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        namespace, token = request.query.get("namespace", "default"), request.query.get("next_token", "")
        asked.append((namespace, token))
        whose = JOB if namespace == "*" else "j-other"
        if not request.path.endswith("/history"):
            return web.Response(body=job_body(whose), content_type="application/json")
        row = {"Type": "JobLevel", "JobID": whose, "SeqNum": 1, "Event": {"Details": {"NewState": "Pending"}}}
        items = [row] if whose == JOB or not token else []
        return web.json_response({"NextToken": "", "Items": items})

    async with http_server(answer) as url, patient(url) as orchestrator:
        await other_job(orchestrator, HISTORY)
        for token in ("", "1"):
            page = await orchestrator.history(ReadHistory(job=JOB, namespace="default", next_token=token))
            assert isinstance(page, HistoryPage)
            assert len(page.entries) == 1
        job = await orchestrator.job(ReadJob(job=JOB, namespace="default"))
        assert isinstance(job, JobDocument)
        assert job.job.job.id == JOB
    assert asked == [("default", ""), ("*", ""), ("*", "1"), ("*", "")]


async def namespaces_asked(jobs: Sequence[str], *, status: int = 200) -> list[str]:
    """Where each of *jobs* is looked for, one after the other, if each answer is of another job than asked for.

    *status*: of an answer in a namespace that nobody can know, which is "nobody" here.
    """
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        namespace = request.query["namespace"]
        asked.append("nobody" if re.fullmatch("nobody-[0-9a-f]{32}", namespace) else namespace)
        if asked[-1] == "nobody" and status != 200:
            return web.Response(status=status)
        return web.Response(body=job_body("j-other"), content_type="application/json")

    async with http_server(answer) as url, patient(url) as orchestrator:
        for job in jobs:
            with pytest.raises(OrchestratorError):
                await orchestrator.job(ReadJob(job=job, namespace="ours"))
    return asked


async def test_a_read_is_one_request_even_if_each_answer_is_of_another_job() -> None:
    """`orchestrator.max_rate` counts reads: a second request in one would be beneath it. The three ways take turns.

    In `*` a job can be hidden too: Bacalhau 1.8 and 1.9 take jobs that are submitted to it.
    """
    assert await namespaces_asked(["a"] * 5) == ["ours", "*", "nobody", "ours", "*"]


async def test_a_credential_that_may_not_ask_in_a_namespace_of_nobody_asks_in_its_own_again() -> None:
    """403 there says nothing of the job."""
    assert await namespaces_asked(["a"] * 5, status=403) == ["ours", "*", "nobody", "ours", "*"]


async def test_of_jobs_whose_id_is_a_name_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten for one more: it is asked for in its own namespace again, and the others are not."""
    monkeypatch.setattr("consumer.bacalhau.orchestrator._NAMED_MAX", 2)
    assert await namespaces_asked(["a", "b", "c", "b", "a"]) == ["ours", "ours", "ours", "*", "ours"]


async def test_another_error_says_nothing_of_whose_name_an_id_is() -> None:
    """The job is asked for in its own namespace again."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.query["namespace"])
        return web.Response(status=500)

    async with http_server(answer) as url, patient(url) as orchestrator:
        for _ in range(2):
            with pytest.raises(OrchestratorError, match="server-error"):
                await orchestrator.history(HISTORY)
    assert asked == ["default"] * 2


async def test_a_gzip_bomb_is_not_unpacked() -> None:
    """Compressed bodies are refused by their header: 100 MiB in 100 kB cost nothing."""
    bomb = gzip.compress(bytes(100 << 20), 9)
    assert (await error_of(says(200, bomb, Content_Encoding="gzip"))).kind == "encoded"


async def test_a_body_beyond_the_bound_is_refused_by_its_length() -> None:
    """10 MiB announced, 1 MiB allowed."""
    assert (await error_of(says(200, b'{"Items":"' + bytes(10 << 20)))).kind == "too-large"


async def test_the_bound_is_that_of_the_settings() -> None:
    """100 KiB of one job are more than a sixteenth of `answer_bytes`, and less than one of its default."""
    assert (await error_of(says(200, b'{"Items":"' + bytes(100 << 10)), body_max=1 << 20)).kind == "too-large"


async def test_a_body_without_end_is_refused_at_the_bound() -> None:
    """Chunks that never end are read up to the bound, and no further."""
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(64 * 1024))
            sent += 64 * 1024

    assert (await error_of(endless)).kind == "too-large"
    assert sent < 32 << 20  # what the sockets hold is more than the bound, but not endless


async def test_one_byte_at_a_time_ends_with_the_total_time() -> None:
    """A server that keeps sending, slowly, does not hold the read longer than its total time."""

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    assert (await error_of(drip, timeout_s=0.3)).kind == "slow"


async def test_a_server_that_never_answers_is_slow() -> None:
    """No header within the total time."""

    async def silent(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await error_of(silent, timeout_s=0.2)).kind == "slow"


async def raw(answer: bytes) -> OrchestratorError:
    """The error that *answer*, sent as it is before the connection is closed, ends in."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with patient(f"http://127.0.0.1:{port}") as orchestrator:
            with pytest.raises(OrchestratorError) as caught:
                await orchestrator.history(HISTORY)
    return checked(caught.value)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nContent-Type: application/json\r\n\r\n" + EMPTY, "cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n" + EMPTY[:9], "cut"),
        (b"SSH-2.0-" + CANARY.encode() + b"\r\n\r\n", "not-http"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", "not-http"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", "not-http"),
        (EMPTY, "not-http"),
        (b'INFO {"server_id":"' + CANARY.encode() + b'"}\r\n', "not-http"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "not-http"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "wrong-status"),
        (b"", "unreachable"),
    ],
)
async def test_connections_that_break_off(answer: bytes, kind: str) -> None:
    """A body that ends early, something that speaks no HTTP, headers without end, a connection that is just closed."""
    assert (await raw(answer)).kind == kind


@pytest.mark.parametrize(
    ("before", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: appl", b"i"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"\r\n"),
    ],
)
async def test_a_trickle_without_end_ends_with_the_total_time(before: bytes, again: bytes) -> None:
    """Chunks of one byte, a header that grows, a promise of an answer again and again: `slow`, and no memory of it."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(before)
            while not reader.at_eof():
                writer.write(again)
                await writer.drain()
                await asyncio.sleep(0.01)
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with patient(url, timeout_s=0.3) as orchestrator:
            with pytest.raises(OrchestratorError) as caught:
                await orchestrator.history(HISTORY)
        async with asyncio.timeout(DEADLINE_S):
            await over.wait()  # or the loop would end before it
    assert checked(caught.value).kind == "slow"


async def test_nobody_there() -> None:
    """A port where nobody listens."""
    async with patient(f"http://127.0.0.1:{free_port()}") as orchestrator:
        with pytest.raises(OrchestratorError, match="Connect") as caught:
            await orchestrator.history(HISTORY)
    assert checked(caught.value).kind == "unreachable"


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The orchestrator is asked itself: what `HTTP_PROXY` names is somebody's way to the internet."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    assert (await error_of(says(503))).kind == "server-error"


@pytest.mark.parametrize(
    ("head", "before"),
    [
        pytest.param(b"X: " + b"y" * 100_000, "not-http", id="long"),
        pytest.param(CANARY.encode() * 10_000 + b": y", "not-http", id="long name"),
        pytest.param(b"\r\n".join([b"X: y"] * 100_000), "cut", id="many"),
        pytest.param(b"\r\n".join([b"Set-Cookie: a=b"] * 300), "cut", id="cookies"),
    ],
)
async def test_headers_that_are_too_long_or_too_many_have_a_kind_of_their_own(head: bytes, before: str) -> None:
    """Named as what they are. An old aiohttp (3.10) does not say why it refuses them, or takes any number."""
    error = await raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
    version = tuple(int(part) for part in aiohttp.__version__.split(".")[:2])
    assert error.kind == ("headers" if version >= (3, 11) else before)


async def test_a_name_that_nobody_has() -> None:
    """A host name that is not known: said so, without a stack of words."""
    async with patient("http://no-such-host.invalid:1234") as orchestrator:
        with pytest.raises(OrchestratorError) as caught:
            await orchestrator.history(HISTORY)
    assert checked(caught.value).kind == "unresolved"


async def test_a_connection_that_does_not_come_about() -> None:
    """Nothing answers, as behind a firewall that drops: `unreachable` after the connect's own time, not `slow`."""
    with socket.socket() as deaf, contextlib.ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # the kernel takes one or two that nobody accepts
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        async with Orchestrator(OrchestratorSettings(url=url, timeout_s=9), connect_timeout_s=0.2) as orchestrator:
            with pytest.raises(OrchestratorError, match=r"no connection within 0\.2 s") as caught:
                await orchestrator.history(HISTORY)
    assert checked(caught.value).kind == "unreachable"


async def test_silence_is_told_before_it_is_an_error() -> None:
    """`silent_s` grows while requests wait and none ends; one that ends, whatever it came to, takes it back."""
    gone = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path.endswith("history"):
            await gone.wait()
        return web.Response(status=500)

    async with http_server(answer) as url, patient(url) as orchestrator:
        assert orchestrator.silent_s == 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.create_task(orchestrator.history(HISTORY))
        await until(lambda: orchestrator.silent_s > 0.1, "silence")
        with pytest.raises(OrchestratorError, match="server-error"):
            await orchestrator.jobs(ReadJobs())
        assert orchestrator.silent_s < loop.time() - began - 0.1, "it counts since the answer"
        await until(lambda: orchestrator.silent_s > 0.1, "silence again")
        gone.set()
        with pytest.raises(OrchestratorError, match="server-error"):
            await waiting
        assert orchestrator.silent_s == 0


async def test_a_list_is_silent_only_after_twice_the_time_that_the_last_one_took() -> None:
    """It takes its time by all that the orchestrator stores: one like the last one is no silence; a history is."""

    async def attempt(took_s: float) -> tuple[float, float]:
        """After how long the silence of a history counts where a list took *took_s*, and that; a list: twice that."""
        hangs = asyncio.Event()

        async def answer(_request: web.BaseRequest) -> web.Response:
            if not hangs.is_set():
                await asyncio.sleep(took_s)
                return web.Response(body=EMPTY, content_type="application/json")
            await asyncio.Event().wait()
            raise AssertionError

        async def silent_after_s(read: ReadJobs | ReadHistory) -> float:
            """How long after *read* was sent its silence begins to count."""
            began = now()
            waiting = asyncio.create_task(send(orchestrator, read))
            await until(lambda: orchestrator.silent_s > 0, "silence")
            silent_s = orchestrator.silent_s
            after_s = now() - began - silent_s
            waiting.cancel()
            await asyncio.wait([waiting])
            return after_s

        async with http_server(answer) as url, patient(url) as orchestrator:
            await orchestrator.jobs(ReadJobs())
            hangs.set()
            of_history = await silent_after_s(HISTORY)
            of_list = await silent_after_s(ReadJobs())
            assert of_list >= 2 * took_s
            return of_history, took_s

    now = asyncio.get_running_loop().time
    of_history, took_s = await given_time(attempt, lambda found: found[0] < found[1])
    assert of_history < took_s


async def test_a_listener_that_accepts_nothing_is_slow() -> None:
    """A process that hangs while its kernel still takes connections."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        async with patient(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.4) as orchestrator:
            with pytest.raises(OrchestratorError) as caught:
                await orchestrator.history(HISTORY)
    assert caught.value.kind == "slow"


def tls_server(cert: Path, key: Path) -> ssl.SSLContext:
    """What the server needs to speak TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


async def test_tls_with_an_own_ca(tmp_path: Path) -> None:
    """With the CA from the settings the answer is read; without it, or with another name in the certificate: `tls`."""
    right, wrong = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "elsewhere.example")
    for cert, ca, kind in ((right, right[0], None), (right, None, "tls"), (wrong, wrong[0], "tls")):
        async with (
            http_server(says(200, EMPTY), tls_server(*cert)) as url,
            patient(url, tls_ca=str(ca or "")) as orchestrator,
        ):
            if kind is None:
                assert isinstance(await orchestrator.history(HISTORY), HistoryPage)
                continue
            with pytest.raises(OrchestratorError) as caught:
                await orchestrator.history(HISTORY)
            assert checked(caught.value).kind == kind
            assert ("mismatch" if ca else "self-signed") in str(caught.value), "which of the two it is"


@pytest.mark.parametrize("kind", OUT_OF_TIME)
async def test_a_certificate_that_is_not_valid_now_has_its_own_kind(tmp_path: Path, kind: str) -> None:
    """Expired, or valid only later: its next step says nothing of authority and host name, which are right."""
    cert, key = certificate_of(tmp_path / "tls", OUT_OF_TIME[kind])
    async with (
        http_server(says(200, EMPTY), tls_server(cert, key)) as url,
        patient(url, tls_ca=str(cert)) as orchestrator,
    ):
        with pytest.raises(OrchestratorError) as caught:
            await orchestrator.history(HISTORY)
    assert checked(caught.value).kind == kind
    assert ("renew" if kind == "tls-expired" else "compare both clocks") in str(caught.value)
    assert "tls_ca" not in str(caught.value)


async def test_tls_where_plain_http_speaks() -> None:
    """https:// on a port that speaks http: that is what is said, and not of certificates."""
    async with (
        http_server(says(200, EMPTY)) as url,
        patient(url.replace("http:", "https:")) as orchestrator,
    ):
        with pytest.raises(OrchestratorError) as caught:
            await orchestrator.history(HISTORY)
    assert caught.value.kind == "not-tls"
    assert "write http:// in orchestrator.url" in str(caught.value)
    assert "tls_ca" not in str(caught.value)


async def test_plain_http_where_tls_alone_is_spoken() -> None:
    """http:// at a server of Go that speaks TLS, which answers in these bytes: what to write is said."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
        writer.close()
        await writer.wait_closed()
        over.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, patient(url) as orchestrator:
        with pytest.raises(OrchestratorError) as caught:
            await orchestrator.history(HISTORY)
        await over.wait()
    assert checked(caught.value).kind == "needs-tls"
    assert "write https:// in orchestrator.url" in str(caught.value)
    assert "Client sent" not in str(caught.value)


async def test_a_refusal_whose_body_never_ends_is_one() -> None:
    """What might become the sentence of TLS, and does not in time, is none."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        await response.write(b"Client sent")
        await asyncio.Event().wait()
        raise AssertionError

    error = await given_time(
        lambda timeout_s: error_of(answer, timeout_s=timeout_s), lambda error: error.kind != "slow"
    )
    assert error.kind == "refused"


async def asked(read: ReadHistory | ReadJob | ReadJobs, body: bytes, options: dict[str, Any]) -> web.BaseRequest:
    """The request that *read* makes."""
    given_path = str(options.pop("path", ""))
    requests: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        requests.append(request)
        return web.Response(body=body, content_type="application/json")

    async with http_server(answer) as url, patient(url + given_path, **options) as orchestrator:
        await send(orchestrator, read)
    (request,) = requests
    return request


@pytest.mark.parametrize("path", ["", "/", "/api/v1", "/api/v1/"])
async def test_what_is_asked_for(path: str) -> None:
    """History: all versions, job level, a thousand rows, the namespace if it is known; the page token as given."""
    request = await asked(ReadHistory(job=JOB, namespace="a b&c", next_token="T=="), EMPTY, {"path": path})
    assert request.path == f"/api/v1/orchestrator/jobs/{JOB}/history"
    assert dict(request.query) == {
        "event_type": "job",
        "all_job_versions": "true",
        "limit": "1000",
        "next_token": "T==",
        "namespace": "a b&c",
    }
    # Below 1.5 this header changes what the history says (design/bacalhau.md 6.3).
    assert "X-Bacalhau-Git-Version" not in request.headers
    assert request.headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in request.headers


async def test_the_list_is_asked_for_by_its_last_changes() -> None:
    """All namespaces, the last modified first."""
    request = await asked(ReadJobs(limit=7, next_token="x"), EMPTY, {})
    assert request.path == "/api/v1/orchestrator/jobs"
    assert dict(request.query) == {
        "namespace": "*",
        "order_by": "modified_at",
        "reverse": "true",
        "limit": "7",
        "next_token": "x",
    }


@pytest.mark.parametrize("job", ["a/../../b", "a?b#c", "a b%20c", "ünï\u202e", "\udcff", "*", ">", "a\nb", "%2e%2e"])
async def test_a_job_id_stays_one_segment_of_the_path(job: str) -> None:
    """Whatever a frame calls its job, the request is for that job's history, and for nothing beside it."""
    request = await asked(ReadHistory(job=job), EMPTY, {})
    raw_path = request.rel_url.raw_path
    assert raw_path.startswith("/api/v1/orchestrator/jobs/")
    assert raw_path.endswith("/history")
    assert raw_path.count("/") == "/api/v1/orchestrator/jobs/x/history".count("/")


@pytest.mark.parametrize("job", ["", ".", "..", "x" * 1_048_576])
async def test_what_no_path_can_name_is_not_asked(job: str) -> None:
    """No request leaves for it."""
    async with patient(f"http://127.0.0.1:{free_port()}") as orchestrator:
        for read in (ReadHistory(job=job), ReadJob(job=job)):
            with pytest.raises(OrchestratorError) as caught:
                await send(orchestrator, read)
            assert caught.value.kind == "not-askable"
            assert len(str(caught.value)) < 200


REFUSALS: Final = {
    "401": says(401),
    "403": says(403),
    "401 of 1.7": says(500, of_1_7("authentication failed: invalid API key")),
    "403 of 1.7": says(500, of_1_7("user 'x' does not have the required capability 'read:job'")),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("user", ["", "me"])
async def test_a_credential_that_was_mended_is_used_without_a_restart(tmp_path: Path, refusal: str, user: str) -> None:
    """While it is refused its file is read before each request; then no more."""
    file = tmp_path / "secret"
    file.write_text("old\n")
    right = {"Bearer new", "Basic " + b64encode(b"me:new").decode()}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") in right:
            return await says(200, EMPTY)(request)
        return await REFUSALS[refusal](request)

    name = "password_file" if user else "token_file"
    settings = msgspec.convert({"user": user, name: str(file)}, OrchestratorSettings)
    async with (
        http_server(answer) as url,
        Orchestrator(msgspec.structs.replace(settings, url=url)) as orchestrator,
    ):
        for _ in range(2):
            with pytest.raises(OrchestratorError, match=r"unauthorized|forbidden"):
                await orchestrator.history(HISTORY)
        file.unlink()
        with pytest.raises(OrchestratorError, match="cannot be read"):
            await orchestrator.history(HISTORY)
        file.write_text("new\n")
        assert isinstance(await orchestrator.history(HISTORY), HistoryPage)
        file.unlink()
        assert isinstance(await orchestrator.history(HISTORY), HistoryPage)


async def test_basic_auth(tmp_path: Path) -> None:
    """User from the settings, password from its file or the environment."""
    password = tmp_path / "password"
    password.write_text("pass:wörd\n")
    for given in ({"password_file": str(password)}, {"password": Secret("pass:wörd")}):
        request = await asked(HISTORY, EMPTY, {"user": "me", **given})
        assert request.headers["Authorization"] == "Basic bWU6cGFzczp3w7ZyZA=="


async def test_a_bearer_token_of_the_environment() -> None:
    """It needs no file."""
    request = await asked(HISTORY, EMPTY, {"token": Secret("t0ken")})
    assert request.headers["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize("options", [{"token": Secret(CANARY)}, {"user": "me", "password": Secret(CANARY)}])
@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 500])
async def test_a_credential_is_shown_nowhere(status: int, options: dict[str, Any]) -> None:
    """In no error, line or repr, whatever the answer; a redirect does not take it elsewhere."""
    given = OrchestratorSettings(url=f"http://127.0.0.1:{free_port()}", **options)
    secrets = (CANARY, b64encode(f"me:{CANARY}".encode()).decode())
    with structlog.testing.capture_logs() as lines:
        async with (
            http_server(says(status, NOT_FOUND, Location=f"http://127.0.0.1:{free_port()}/")) as url,
            Orchestrator(msgspec.structs.replace(given, url=url)) as orchestrator,
        ):
            try:
                shown = repr(await orchestrator.history(HISTORY))
            except OrchestratorError as error:
                shown = str(checked(error))
    assert not any(secret in shown + repr(lines) + repr(given) for secret in secrets)


async def test_a_refusal_says_whether_we_had_a_credential() -> None:
    """Without one the next step is to set it, not to mend it."""
    assert "we have no credential" in str(await error_of(says(401)))
    async with (
        http_server(says(401)) as url,
        patient(url, token=Secret("x")) as orchestrator,
    ):
        with pytest.raises(OrchestratorError) as caught:
            await orchestrator.history(HISTORY)
    assert "no credential" not in str(caught.value)


def test_every_kind_has_a_next_step() -> None:
    """Of one read or of all: there is a sentence for it, and nothing that only looks like one."""
    assert set(NEXT_STEP) == set(get_args(OrchestratorFault))
    assert all(len(step) > 20 and not step.endswith(".") for step in NEXT_STEP.values())


async def test_ipv6() -> None:
    """An address in brackets is asked as it is."""
    runner = web.ServerRunner(web.Server(says(200, EMPTY)), shutdown_timeout=0.1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "::1", 0).start()
        except OSError:
            pytest.skip("this machine has no ::1")
        url = f"http://[::1]:{runner.addresses[0][1]}"
        async with patient(url) as orchestrator:
            assert isinstance(await orchestrator.history(HISTORY), HistoryPage)
    finally:
        await runner.cleanup()


async def versions_heard(said: list[str], status: int = 200) -> tuple[list[str], int, list[str]]:
    """After each of the answers the version that is believed; how often it changed; the levels of the lines."""
    left = iter(said)
    body = job_body(JOB) if status == HTTPStatus.OK else NOT_FOUND

    async def answer(_request: web.BaseRequest) -> web.Response:
        headers = {"X-Bacalhau-Git-Version": version} if (version := next(left)) else {}
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)

    heard = []
    with structlog.testing.capture_logs() as lines:
        async with http_server(answer) as url, patient(url) as orchestrator:
            assert orchestrator.version == ""
            for _ in said:
                await orchestrator.job(ReadJob(job=JOB))
                heard.append(orchestrator.version)
    return heard, sum(bool(line["before"]) for line in lines), [line["log_level"] for line in lines]


@pytest.mark.parametrize("status", [200, 404])
async def test_the_version_is_what_the_last_answer_said(status: int) -> None:
    """Each answer tells Bacalhau's version; an orchestrator that was updated is seen at once and counted."""
    said = ["", "v1.8.0", "v1.8.0", "", "v1.9.3", "v1.9.3-rc1"]
    heard = ["", "v1.8.0", "v1.8.0", "v1.8.0", "v1.9.3", "v1.9.3-rc1"]
    assert await versions_heard(said, status) == (heard, 2, ["info"] * 3)


async def test_a_version_that_is_not_known_is_said() -> None:
    """Before 1.5, after 1.9, or built by hand: its answers are judged as ever, and a line says what to look at."""
    assert await versions_heard(["v1.4.0", "v2.0.0", "v1.10.0"]) == (
        ["v1.4.0", "v2.0.0", "v1.10.0"],
        2,
        ["warning"] * 3,
    )


@pytest.mark.parametrize("said", ["1.9", "dev", "v1.9.3 <b>", "v" + "1" * 100, "v1.9.3" + "x" * 100, "vx.y.z"])
async def test_what_is_no_version_is_not_believed(said: str) -> None:
    """A header that no Bacalhau writes changes nothing, and is shown nowhere."""
    assert await versions_heard(["v1.9.3", said]) == (["v1.9.3", "v1.9.3"], 0, ["info"])


async def test_a_version_in_something_else_than_an_answer_is_not_believed() -> None:
    """A page, an error, a redirect may have the header too: they are not the API's answer."""
    for status, body in ((200, b"<html>"), (500, b""), (302, b""), (404, b"<html>")):
        async with (
            http_server(says(status, body, X_Bacalhau_Git_Version="v1.9.3")) as url,
            patient(url) as orchestrator,
        ):
            with pytest.raises(OrchestratorError):
                await orchestrator.history(HISTORY)
            assert orchestrator.version == ""


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://host:1234", "http://host:1234/api/v1"),
        ("http://host:1234/", "http://host:1234/api/v1"),
        ("https://host/api/v1/", "https://host/api/v1"),
        ("http://[::1]:1234", "http://[::1]:1234/api/v1"),
        ("https://proxy.example/bacalhau", "https://proxy.example/bacalhau/api/v1"),
    ],
)
def test_the_base_of_the_api(url: str, base: str) -> None:
    """With or without `/api/v1`, with or without a slash at the end, also behind a proxy's path."""
    assert str(api_base(url)) == base


@pytest.mark.parametrize(
    "url",
    ["", "host:1234", "ftp://host", "http://", "http://u:hunter2@host", "http://host?x=hunter2", "http://host:99999"],
)
def test_what_is_no_base(url: str) -> None:
    """Refused with the key's name; a secret in it is not repeated."""
    with pytest.raises(SettingsError, match=r"orchestrator\.url") as caught:
        api_base(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_host_that_no_resolver_can_be_asked_for_is_no_base(host: str) -> None:
    """It would be an error of the resolver's with the first request."""
    with pytest.raises(SettingsError, match=r"orchestrator\.url"):
        api_base(f"http://{host}:1234")


def test_credentials_that_cannot_be_used_are_refused_at_start(tmp_path: Path) -> None:
    """Two ways at once, half of one, a missing or empty or two-line file, a CA that is none: each with a reason."""
    empty, lines, good = tmp_path / "empty", tmp_path / "lines", tmp_path / "good"
    empty.write_text("\n")
    lines.write_text("hunter2\nhunter3")
    good.write_text("hunter2")
    refused: list[dict[str, Any]] = [
        {"token_file": str(good), "user": "me", "password_file": str(good)},
        {"user": "me"},
        {"token": Secret("hunter2"), "user": "me", "password": Secret("hunter2")},
        {"password": Secret("hunter2")},
        {"user": "m:e", "password_file": str(good)},
        {"password_file": str(good)},
        {"token_file": str(tmp_path / "missing")},
        {"token_file": str(empty)},
        {"token_file": str(lines)},
        {"tls_ca": str(good)},
        {"tls_ca": str(tmp_path / "missing")},
    ]
    for wrong in refused:
        with pytest.raises(SettingsError) as caught:
            Orchestrator(OrchestratorSettings(url="http://host", **wrong))
        assert "hunter" not in str(caught.value)
