"""A healthy pair of sides has nothing that fails; of each broken one the doctor names the one fault, and no other."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest
from aiohttp import web

from consumer.doctor.finding import CHECKS, Finding, Verdict
from consumer.jetstream.topology import ensure
from consumer.rules.file import DEFAULT
from tests.bacalhau.servers import (
    BEHIND_PROXY,
    OUT_OF_TIME,
    NatsServer,
    certificate,
    certificate_of,
    http_server,
    nats_server,
)
from tests.daemon.test_secrets import found_in
from tests.doctor.world import CANARY, ELSEWHERE, NODE, Answer, World, date_of, of, says, silent, world
from tests.loopback import free_port
from tests.replay.shared import recording
from tests.waiting import DEADLINE_S, given_time

pytestmark = pytest.mark.server

Break = Callable[[World], Awaitable[None]]


async def nothing(_: World) -> None:
    """Leave it as it is."""


class Broken(NamedTuple):
    """One fault: its name, the check that fails, words of what it found or advises, and how the world is broken."""

    name: str
    check: str
    words: tuple[str, ...]
    before: Break = nothing
    after: Break = nothing


def broken(check: str, *words: str, risen: bool = True) -> Callable[[Break], Broken]:
    """The function breaks a world that has *risen*, or one that has not; the doctor then says *check* and *words*."""

    def named(breaks: Break) -> Broken:
        name = breaks.__name__.replace("_", " ")
        return Broken(name, check, words, after=breaks) if risen else Broken(name, check, words, before=breaks)

    return named


# -- settings ---------------------------------------------------------------------------------------------------------


@broken("settings", "JOBSTATE_NATS__URL", "nats.url: is not what it must be")
async def a_setting_is_misspelt(world: World) -> None:
    world.variables["JOBSTATE_NATS__URL"] = "http://127.0.0.1:4222"


@broken("settings", "bacalhau.tls_ca", "no certificate authority in PEM")
async def a_certificate_file_is_none(world: World) -> None:
    (world.folder / "ca.pem").write_text("nothing")
    world.variables["JOBSTATE_BACALHAU__TLS_CA"] = str(world.folder / "ca.pem")


@broken("settings", "nats.tls_ca", "no certificate authority in PEM")
async def a_certificate_file_of_our_side_is_none(world: World) -> None:
    (world.folder / "ca.pem").write_text("nothing")
    world.variables["JOBSTATE_NATS__TLS_CA"] = str(world.folder / "ca.pem")


@broken("rules", "/nowhere/rules.toml", "cannot be read")
async def the_rules_are_missing(world: World) -> None:
    world.variables["JOBSTATE_RULES__FILE"] = "/nowhere/rules.toml"


# -- our NATS ---------------------------------------------------------------------------------------------------------


@broken("nats.reach", "nobody answers at", "connection refused", "is the server up")
async def our_nats_is_down(world: World) -> None:
    world.variables["JOBSTATE_NATS__URL"] = f"nats://127.0.0.1:{free_port()}"


@broken("nats.reach", "says nothing", "another port's (Bacalhau's API is 1234, NATS is 4222)")
async def our_nats_is_an_api(world: World) -> None:
    world.variables["JOBSTATE_NATS__URL"] = world.orchestrator.url.replace("http", "nats")


@broken("nats.auth", "refuses our credential", "nats.token_file", risen=False)
async def our_token_is_wrong(world: World) -> None:
    world.ours_config = 'authorization { token: "right" }\n'
    world.builder = {"token": "right"}
    world.variables["JOBSTATE_NATS__TOKEN"] = CANARY


@broken("nats.auth", "refuses us", "that is Bacalhau's own server")
async def our_nats_is_bacalhaus(world: World) -> None:
    (folder := world.folder / "guarded").mkdir()
    server = await world.stack.enter_async_context(nats_server(folder, 'authorization { token: "bacalhaus" }'))
    world.variables["JOBSTATE_NATS__URL"] = world.variables["JOBSTATE_BACALHAU__URL"] = server.url
    world.variables["JOBSTATE_BACALHAU__TOKEN"] = "bacalhaus"


@broken("nats.tls", "certificate has expired", "renew the server's certificate")
async def our_certificate_has_expired(world: World) -> None:
    cert, key = certificate_of(folder := world.folder / "tls", OUT_OF_TIME["tls-expired"])
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}'
    server = await world.stack.enter_async_context(nats_server(folder, tls))
    world.variables |= {"JOBSTATE_NATS__URL": server.url, "JOBSTATE_NATS__TLS_CA": str(cert)}


@broken("nats.tls", "TLS with", "certificate verify failed", "nats.tls_ca", risen=False)
async def our_certificate_is_of_another_authority(world: World) -> None:
    await _tls(world, ours=True)


@broken("nats.tls", "offers no TLS", "write nats:// in nats.url", "or enable TLS on that server")
async def our_nats_has_no_tls(world: World) -> None:
    world.variables["JOBSTATE_NATS__URL"] = world.ours.url.replace("nats:", "tls:")


@broken("nats.version", "nats-server 2.10.26; 2.11 or later is needed", "upgrade every server")
async def our_nats_is_too_old(world: World) -> None:
    info = {"server_id": "A", "version": "2.10.26", "max_payload": 1_048_576, "proto": 1, "headers": True}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    world.stack.callback(server.close)
    world.variables["JOBSTATE_NATS__URL"] = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@broken("nats.jetstream", "no JetStream for us", "start nats-server with -js")
async def our_nats_has_no_jetstream(world: World) -> None:
    server = NatsServer(world.folder)
    await server.start()
    world.stack.push_async_callback(server.stop)
    world.variables["JOBSTATE_NATS__URL"] = server.url


@broken(
    "nats.writes", "user doctor may not publish jobstate.v1.main.state.*.*.*", "running.md (permissions)", risen=False
)
async def we_may_not_write(world: World) -> None:
    _users(world, 'publish: { deny: ["jobstate.v1.main.state.>"] }')


@broken("nats.asks", "user doctor may not publish $JS.API.STREAM.INFO.JOBSTATE_main", risen=False)
async def we_may_not_ask(world: World) -> None:
    _users(world, 'publish: { allow: ["jobstate.v1.main.>", "$SYS.REQ.USER.INFO", "$JS.API.INFO"] }')


@broken(
    "nats.jetstream",
    "permissions violation for publish",
    "let this user publish $JS.API.INFO",
    "running.md",
    risen=False,
)
async def we_may_not_ask_jetstream_nor_what_we_may(world: World) -> None:
    _users(world, 'publish: { allow: ["jobstate.v1.main.>"] }')


@broken("nats.jetstream", "permissions violation for publish", "running.md (permissions)", risen=False)
async def we_may_not_ask_of_streams_nor_what_we_may(world: World) -> None:
    _users(world, 'publish: { allow: ["jobstate.v1.main.>", "$JS.API.INFO"] }')


@broken(
    "nats.jetstream", "permissions violation for subscription", "let this user subscribe _INBOX_jobstate_", risen=False
)
async def we_may_not_hear_answers(world: World) -> None:
    _users(world, 'subscribe: { deny: ["_INBOX_jobstate_main.>"] }')


@broken("nats.payload", "the largest message is 64.0 KiB", "limits.message_bytes", risen=False)
async def messages_are_too_small(world: World) -> None:
    world.ours_config = "max_payload: 64KB\n"


@broken("nats.streams", "JOBSTATE_main (max_bytes: needed 1000000, found 67108864)", "set [streams]")
async def a_stream_differs(world: World) -> None:
    world.variables["JOBSTATE_STREAMS__LOG_MAX_BYTES"] = "1000000"


@broken("nats.streams", "absent: JOBSTATE_other, ", "streams.mode is bind")
async def streams_are_to_be_bound_and_absent(world: World) -> None:
    world.variables |= {"JOBSTATE_STREAMS__MODE": "bind", "JOBSTATE_CLUSTER": "other"}


@broken("nats.streams", "absent: KV_jobstate_main; the others are there")
async def the_bucket_is_missing(world: World) -> None:
    await (await world.builds()).jsm().delete_stream(world.names.bucket_stream)


@broken("nats.bucket", "KV_jobstate_main is no copy of this log: it was made at", "delete KV_jobstate_main")
async def the_bucket_is_of_another_log(world: World) -> None:
    connection = await world.builds()
    await connection.jsm().delete_stream(world.names.log)
    await ensure(connection, world.names, world.streams)
    assert world.logged is not None
    await world.write(world.logged)


@broken("nats.room", "the log is full", "streams.log_max_bytes", risen=False)
async def the_log_is_full(world: World) -> None:
    world.streams = msgspec.structs.replace(world.streams, log_max_bytes=20_000)
    rise = world.rise

    async def fill() -> None:
        await rise()
        for number in range(1_000):
            body = b"{}" + b" " * 100
            subject = world.names.advisory("gap", f"{number}")
            answer = await (await world.builds()).request(subject, body, timeout=DEADLINE_S)
            if b'"error"' in answer.data:
                return

    world.rise = fill  # type: ignore[method-assign]


@broken("nats.room", "the account has room for 10.0 MiB more", "would reserve", risen=False)
async def the_account_has_no_room(world: World) -> None:
    world.ours_config = (
        "accounts { A { jetstream: { max_mem: 1MB, max_file: 10MB, max_streams: 10, max_consumers: 10 }\n"
        "users: [ { user: a, password: a } ] } }\nno_auth_user: a\n"
    )
    world.logged = None


# -- the log ----------------------------------------------------------------------------------------------------------


@broken("log.rules", "the log was made by the rules bacalhau (", "rules.accept")
async def the_log_was_made_by_other_rules(world: World) -> None:
    ours = DEFAULT.read_text()
    assert 'only = ["batch", "ops"]' in ours
    (world.folder / "rules.toml").write_text(ours.replace('only = ["batch", "ops"]', 'only = ["batch"]'))
    world.variables["JOBSTATE_RULES__FILE"] = str(world.folder / "rules.toml")


@broken("log.rules", "the log has format 2, this program writes 1", risen=False)
async def the_log_has_another_format(world: World) -> None:
    world.format = 2


# -- Bacalhau's NATS --------------------------------------------------------------------------------------------------


@broken("bacalhau.reach", "nobody answers at", "connection refused")
async def bacalhaus_nats_is_down(world: World) -> None:
    world.variables["JOBSTATE_BACALHAU__URL"] = f"nats://127.0.0.1:{free_port()}"


@broken("bacalhau.reach", "says nothing", "bacalhau.tls_first")
async def bacalhaus_nats_is_its_api(world: World) -> None:
    world.variables["JOBSTATE_BACALHAU__URL"] = world.orchestrator.url.replace("http", "nats")


@broken("bacalhau.auth", "refuses our credential", "Orchestrator.Auth.Token", risen=False)
async def bacalhaus_token_is_wrong(world: World) -> None:
    world.bacalhau_config = 'authorization { token: "right" }\n'
    world.peer = {"token": "right"}
    world.variables["JOBSTATE_BACALHAU__TOKEN"] = CANARY


@broken("bacalhau.auth", "wants a credential, and we have none", "bacalhau.token_file", risen=False)
async def bacalhaus_token_is_not_given(world: World) -> None:
    world.bacalhau_config = 'authorization { token: "right" }\n'
    world.peer = {"token": "right"}


@broken("bacalhau.subscribe", "node.orchestrator.*.*", "real-cluster.md", risen=False)
async def a_subscription_is_denied(world: World) -> None:
    allow = '"bacalhau.>", "node.compute.>"'
    world.bacalhau_config = (
        "authorization { users: [ { user: peer, password: peer }\n"
        f"{{ user: doctor, password: {CANARY}, permissions: {{ subscribe: {{ allow: [{allow}] }} }} }} ] }}\n"
    )
    world.peer = {"user": "peer", "password": "peer"}
    rise = world.rise

    async def risen() -> None:
        await rise()
        world.variables["JOBSTATE_BACALHAU__URL"] = world.bacalhau.url.replace("://", f"://doctor:{CANARY}@")

    world.rise = risen  # type: ignore[method-assign]


@broken("bacalhau.tls", "TLS with", "certificate verify failed", "bacalhau.tls_ca", risen=False)
async def bacalhaus_certificate_is_of_another_authority(world: World) -> None:
    await _tls(world, ours=False)


@broken("bacalhau.tls", "offers no TLS", "write nats:// in bacalhau.url and leave bacalhau.tls_ca out")
async def bacalhaus_nats_has_no_tls(world: World) -> None:
    ca, _ = certificate(world.folder, "127.0.0.1")
    world.variables["JOBSTATE_BACALHAU__TLS_CA"] = str(ca)


@broken("bacalhau.tls", "offers no TLS", "write nats:// in bacalhau.url", "or enable TLS on that server")
async def bacalhaus_nats_is_asked_for_tls_by_its_url(world: World) -> None:
    world.variables["JOBSTATE_BACALHAU__URL"] = world.bacalhau.url.replace("nats:", "tls:")


@broken("bacalhau.tls", "unrecognized name", "without a certificate", "write nats:// in bacalhau.url", risen=False)
async def bacalhaus_nats_is_for_a_reverse_proxy(world: World) -> None:
    world.bacalhau_config = BEHIND_PROXY
    rise = world.rise

    async def risen() -> None:
        await rise()
        world.variables["JOBSTATE_BACALHAU__URL"] = world.bacalhau.url.replace("nats:", "tls:")

    world.rise = risen  # type: ignore[method-assign]


# -- the orchestrator -------------------------------------------------------------------------------------------------


@broken("orchestrator.reach", "unreachable", "is the orchestrator up")
async def the_orchestrator_is_down(world: World) -> None:
    world.variables["JOBSTATE_ORCHESTRATOR__URL"] = f"http://127.0.0.1:{free_port()}"


@broken("orchestrator.answer", "not-http", "that of NATS 4222")
async def the_orchestrator_is_a_nats_server(world: World) -> None:
    world.variables["JOBSTATE_ORCHESTRATOR__URL"] = world.bacalhau.url.replace("nats", "http")


@broken("orchestrator.tls", "tls:", "orchestrator.tls_ca")
async def the_orchestrators_certificate_is_of_another_authority(world: World) -> None:
    tls = _server_tls(world.folder)
    url = await world.stack.enter_async_context(http_server(world.answer_right, tls))
    world.variables["JOBSTATE_ORCHESTRATOR__URL"] = url


@broken("orchestrator.tls", "tls-expired", "renew the server's certificate")
async def the_orchestrators_certificate_has_expired(world: World) -> None:
    cert, key = certificate_of(world.folder / "tls", OUT_OF_TIME["tls-expired"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    url = await world.stack.enter_async_context(http_server(world.answer_right, tls))
    world.variables |= {"JOBSTATE_ORCHESTRATOR__URL": url, "JOBSTATE_ORCHESTRATOR__TLS_CA": str(cert)}


@broken("orchestrator.tls", "not-tls", "write http:// in orchestrator.url")
async def the_orchestrator_speaks_no_tls(world: World) -> None:
    world.variables["JOBSTATE_ORCHESTRATOR__URL"] = world.orchestrator.url.replace("http:", "https:")


@broken("orchestrator.tls", "needs-tls", "write https:// in orchestrator.url")
async def the_orchestrator_speaks_tls_alone(world: World) -> None:
    world.answer_otherwise(says(400, b"Client sent an HTTP request to an HTTPS server.\n", "text/plain"))


@broken("orchestrator.answer", "this is a compute node's API", "name the orchestrator's API in orchestrator.url")
async def the_api_is_a_compute_nodes(world: World) -> None:
    body = b'{"Status":404,"Message":"The requested resource/URL was not found.","Code":"NotFound"}'
    world.answer_otherwise(_node_is("Compute", says(404, body)))


@broken("orchestrator.list", "not-an-api", "check orchestrator.url")
async def the_url_has_a_path_too_much(world: World) -> None:
    world.answer_otherwise(says(404, b"", "text/plain"))


@broken("orchestrator.auth", "unauthorized", "we have no credential", "orchestrator.token_file")
async def the_orchestrator_wants_a_credential(world: World) -> None:
    world.answer_otherwise(says(401, CANARY.encode()))


@broken("orchestrator.auth", "forbidden", "the capability read:job")
async def our_credential_may_not_read_jobs(world: World) -> None:
    world.variables["JOBSTATE_ORCHESTRATOR__TOKEN"] = CANARY
    world.answer_otherwise(says(403, CANARY.encode()))


@broken("orchestrator.auth", "unauthorized", "Bacalhau 1.7 means 401", "orchestrator.token_file")
async def an_orchestrator_of_1_7_refuses_our_credential(world: World) -> None:
    world.variables["JOBSTATE_ORCHESTRATOR__TOKEN"] = CANARY
    world.answer_otherwise(says(500, b'{"Status":500,"Message":"authentication failed: invalid API key"}'))


@broken("orchestrator.auth", "forbidden", "Bacalhau 1.7 means 403", "the capability read:job")
async def our_credential_may_not_read_jobs_of_1_7(world: World) -> None:
    world.variables["JOBSTATE_ORCHESTRATOR__TOKEN"] = CANARY
    message = f"user '{CANARY}' does not have the required capability 'read:job'"
    world.answer_otherwise(says(500, json.dumps({"Status": 500, "Message": message}).encode()))


@broken("orchestrator.answer", "html", "a proxy, a login page or the web interface")
async def a_page_answers(world: World) -> None:
    world.answer_otherwise(says(200, f"<html>{CANARY}".encode(), "text/html"))


@broken("orchestrator.answer", "redirect", "set orchestrator.url to where the API itself is")
async def it_sends_us_elsewhere(world: World) -> None:
    world.answer_otherwise(says(307, Location="http://127.0.0.1:1/"))


@broken("orchestrator.answer", "not-an-api", "check orchestrator.url")
async def something_else_does_not_know_us(world: World) -> None:
    world.answer_otherwise(says(404, b"nothing here", "text/plain"))


@broken("orchestrator.answer", "server-error", "the orchestrator's own log")
async def the_orchestrator_fails(world: World) -> None:
    world.answer_otherwise(says(500, CANARY.encode()))


@broken("orchestrator.answer", "slow: no whole answer within 1 s", "overloaded")
async def the_orchestrator_says_nothing(world: World) -> None:
    world.variables |= {"JOBSTATE_ORCHESTRATOR__TIMEOUT_S": "1"}
    world.answer_otherwise(silent)


@broken("orchestrator.list", "server-error")
async def its_lists_fail(world: World) -> None:
    world.answer_otherwise(_but(world, "/jobs", says(503)))


@broken("orchestrator.history", "cannot be read: unknown-history-entry", "newer than 1.9")
async def a_history_cannot_be_read(world: World) -> None:
    world.logged = None
    body = b'{"NextToken":"","Items":[{"Type":"JobLevel","SeqNum":1,"Event":{"Message":"x","Topic":"y"}}]}'
    once = _but(world, "/history", says(200, body))
    asked = 0

    async def first(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += request.path.endswith("/history")
        return await (once if asked == 1 else world.answer_right)(request)

    world.answer_otherwise(first)


@broken("orchestrator.clock", "its clock is 3 min ahead of ours", "NTP")
async def the_orchestrators_clock_is_ahead(world: World) -> None:
    async def ahead(request: web.BaseRequest) -> web.StreamResponse:
        return await world.answer_right(request, **date_of(200))

    world.answer_otherwise(ahead)


# -- both sides -------------------------------------------------------------------------------------------------------


@broken("frames.known", "knows none of the jobs that frames name", "different clusters", risen=False)
async def frames_are_of_another_cluster(world: World) -> None:
    world.heard = recording(ELSEWHERE)


@broken("frames.known", "knows none of the jobs that frames name", "different clusters", risen=False)
async def the_orchestrator_is_of_another_cluster(world: World) -> None:
    world.recorded = recording(ELSEWHERE)


@broken("frames.heard", "not to be read", "too-short", risen=False)
async def no_frame_can_be_read(world: World) -> None:
    assert world.heard is not None
    frames = [msgspec.structs.replace(frame, data=b"\1") for frame in world.heard.frames]
    world.heard = msgspec.structs.replace(world.heard, frames=tuple(frames))


@broken(
    "record.agrees", "the orchestrator knows none of the log's jobs", "another cluster's than this log", risen=False
)
async def the_log_is_of_another_cluster_and_all_is_quiet(world: World) -> None:
    world.recorded, world.heard = recording(ELSEWHERE), None


@broken("record.agrees", "is Failed in the log and Stopped in the record", "jobstate history JOB", risen=False)
async def the_log_says_what_the_record_does_not(world: World) -> None:
    world.last_state = "Failed"


@broken("daemon.ready", "is not ready: input: the connection is lost", "troubleshooting.md")
async def a_daemon_is_not_ready(world: World) -> None:
    parts = {"ready": False, "parts": {"log": "ready", "input": "the connection is lost"}}
    url = await world.stack.enter_async_context(http_server(says(503, json.dumps(parts).encode())))
    world.variables["JOBSTATE_HTTP__PORT"] = url.rpartition(":")[2]


def _users(world: World, permissions: str) -> None:
    """Two users on our NATS: one builds the log, the doctor has *permissions*."""
    world.ours_config = (
        "authorization { users: [ { user: builder, password: builder }\n"
        f"{{ user: doctor, password: {CANARY}, permissions: {{ {permissions} }} }} ] }}\n"
    )
    world.builder_user = "builder:builder"
    rise = world.rise

    async def risen() -> None:
        await rise()
        world.variables["JOBSTATE_NATS__URL"] = world.ours.url.replace("://", f"://doctor:{CANARY}@")

    world.rise = risen  # type: ignore[method-assign]


async def _tls(world: World, *, ours: bool) -> None:
    """A server with a certificate that the doctor's authority has not made."""
    cert, key = certificate(world.folder, "127.0.0.1")
    other, _ = certificate(world.folder, "localhost")
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\n'
    right = ssl.create_default_context(cafile=str(cert))
    if ours:
        world.ours_config, world.builder = config, {"tls": right}
    else:
        world.bacalhau_config, world.peer = config, {"tls": right}
    world.variables[f"JOBSTATE_{'NATS' if ours else 'BACALHAU'}__TLS_CA"] = str(other)


def _server_tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder, "127.0.0.1"))
    return context


def _but(world: World, ending: str, answer: Answer) -> Answer:
    """All as it is, but *answer* for paths with this *ending*."""

    async def chosen(request: web.BaseRequest) -> web.StreamResponse:
        return await (answer if request.path.endswith(ending) else world.answer_right)(request)

    return chosen


def _node_is(kind: str, otherwise: Answer) -> Answer:
    """*otherwise* to all but the question which node it is: one of this *kind*."""

    async def chosen(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/api/v1/agent/node":
            return web.json_response({"NodeID": NODE, "NodeType": kind})
        return await otherwise(request)

    return chosen


# -- the tests --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[World]:
    """A healthy world that has not risen yet."""
    async with world(tmp_path) as one:
        yield one


def _shown(findings: list[Finding]) -> str:
    return "\n".join(f"{one.verdict.value} {one.check}: {one.found} -> {one.next}" for one in findings)


async def test_nothing_that_a_job_carries_is_shown(made: World) -> None:
    """Frames and records of a job with a secret in its environment: read, compared, and none of it in any line."""
    made.logged = made.recorded = made.heard = recording("bacalhau-v1.9.3/secret")
    await made.rise()
    findings = await made.examine()
    assert of(findings, Verdict.FAIL) == {}, _shown(findings)
    assert "frames within" in of(findings, Verdict.OK)["frames.heard"]
    assert found_in(_shown(findings).encode()) == []


async def test_nothing_fails_of_what_is_healthy(made: World) -> None:
    """Every check is made, in order; nothing fails, and what warns is what a power loss takes, and nothing else."""
    await made.rise()
    findings = await made.examine()
    assert [finding.check for finding in findings] == [check.name for check in CHECKS]
    assert of(findings, Verdict.FAIL) == {}, _shown(findings)
    assert set(of(findings, Verdict.WARN)) == {"nats.sync"}, _shown(findings)
    assert set(of(findings, Verdict.SKIPPED)) == {"daemon.ready"}, _shown(findings)
    assert "exactly as in the record" in of(findings, Verdict.OK)["record.agrees"]


async def test_another_nats_server_than_the_orchestrators_is_a_warning(made: World) -> None:
    """It may be a leaf node's, so it is no fault; both names are told, what it means, and the next step."""
    made.heard = None
    await made.rise()
    made.variables["JOBSTATE_BACALHAU__URL"] = made.ours.url
    findings = await made.examine()
    assert of(findings, Verdict.FAIL) == {}, _shown(findings)
    warned = next(one for one in findings if one.check == "frames.server")
    assert warned.verdict is Verdict.WARN
    assert f"the orchestrator's node {NODE}" in warned.found
    assert "check bacalhau.url" in warned.next
    name = warned.found.split(",")[0].removeprefix("the NATS server is named ")
    version = of(findings, Verdict.OK)["bacalhau.version"]
    assert version.endswith(f", named {name}")  # and nothing of whose it is


async def test_an_orchestrator_that_computes_too_is_none_the_worse(made: World) -> None:
    """It says Compute of itself, as a compute node does, and has a list."""
    await made.rise()
    made.answer_otherwise(_node_is("Compute", made.answer_right))
    findings = await made.examine()
    assert of(findings, Verdict.FAIL) == {}, _shown(findings)
    assert of(findings, Verdict.OK)["frames.server"] == f"it has the name of the orchestrator's node, {NODE}"


async def test_who_may_not_ask_which_node_it_is_is_told_what_it_takes(made: World) -> None:
    """A credential for jobs alone is all that the daemon needs: nothing fails, nothing warns."""
    await made.rise()
    made.answer_otherwise(_but(made, "/agent/node", says(403)))
    findings = await made.examine()
    assert of(findings, Verdict.FAIL) == {}, _shown(findings)
    found = next(one for one in findings if one.check == "frames.server")
    assert (found.verdict, "forbidden" in found.found, "read:agent" in found.next) == (Verdict.SKIPPED, True, True)


async def test_a_fresh_log_beside_a_cluster_at_rest_lacks_nothing(made: World) -> None:
    """It begins with the newest change there is, to the nanosecond, and the job that has it had ended before."""
    # A microsecond that is rounded down is before it, which half of all are.
    job = next(one for one in made.recorded.jobs if one.last.modified_ns % 1_000 < 500)
    made.since_ns = job.last.modified_ns
    made.recorded = msgspec.structs.replace(made.recorded, jobs=(job,))
    made.logged, made.heard = msgspec.structs.replace(made.recorded, jobs=()), None
    await made.rise()
    finding = next(one for one in await made.examine() if one.check == "record.agrees")
    assert (finding.verdict, finding.found) == (Verdict.SKIPPED, "the log has no job of the record yet")


async def test_an_empty_orchestrator_is_no_guess(made: World) -> None:
    """It has no job, and so the list says."""
    made.logged = made.heard = None
    made.recorded = msgspec.structs.replace(made.recorded, jobs=())
    await made.rise()
    findings = await made.examine()
    assert of(findings, Verdict.OK)["orchestrator.list"].startswith("it stores no job yet")


async def test_the_daemon_of_another_cluster_is_told_apart(made: World) -> None:
    """Whoever listens where the settings say may be another's: a warning that names both, whatever it says."""
    await made.rise()
    said = {"ready": True, "cluster": "lab", "parts": {"log": "ready"}}
    url = await made.stack.enter_async_context(http_server(says(200, json.dumps(said).encode())))
    made.variables["JOBSTATE_HTTP__PORT"] = url.rpartition(":")[2]
    found = of(await made.examine(), Verdict.WARN)["daemon.ready"]
    assert found == f"the daemon at {url} follows the cluster lab, and these settings are of main"


FAULTS: Final = [one for one in tuple(globals().values()) if isinstance(one, Broken)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_the_one_fault_is_named(made: World, fault: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly one line fails; it says the fault, and what to do; no secret and no body of a peer is in any line."""
    await fault.before(made)
    await made.rise()
    await fault.after(made)

    async def attempt(connect_s: float) -> list[Finding]:
        if fault.check == "nats.tls":  # the only faults that this limit ends
            monkeypatch.setattr("consumer.doctor.probing.contact.CONNECT_S", connect_s)
        return await made.examine()

    findings = await given_time(attempt, lambda found: list(of(found, Verdict.FAIL)) == [fault.check])
    said = _shown(findings)
    assert list(of(findings, Verdict.FAIL)) == [fault.check], said
    line = next(one for one in findings if one.check == fault.check)
    assert [word for word in fault.words if word not in f"{line.found} -> {line.next}"] == [], said
    assert line.next
    assert CANARY not in said
