"""What is asked of real servers comes back as facts."""

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web

from consumer.bacalhau.orchestrator import Orchestrator
from consumer.doctor.facts import LogHead, Readiness
from consumer.doctor.finding import Verdict
from consumer.doctor.probing.agreement import is_due, read_frames
from consumer.doctor.probing.contact import is_loopback, knock, knock_silently
from consumer.doctor.probing.http import read_monitor, read_readiness
from consumer.doctor.probing.orchestrator import look_up, read_history
from consumer.errors import OrchestratorError
from consumer.model import Identity, Snapshot
from consumer.observe import Health, Metrics, serve
from consumer.ports import RawFrame
from consumer.settings import Http
from consumer.settings import Orchestrator as OrchestratorSettings
from tests.bacalhau.servers import http_server, nats_server
from tests.daemon.test_secrets import found_in
from tests.doctor.world import CANARY, says, world
from tests.loopback import free_port
from tests.replay.shared import recording

pytestmark = pytest.mark.server


async def test_a_knock_tells_who_is_there(tmp_path: Path) -> None:
    """A NATS server by its first line; who says something else, or nothing; nobody. A URL's secret is not told."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    mail = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = mail.sockets[0].getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as mute:
        async with nats_server(tmp_path) as server:
            found = await knock(server.url.replace("://", f"://{CANARY}@"))
            assert found.info is not None
            assert (found.fault, found.info.version.count(".")) == (None, 2)
            assert CANARY not in found.where
            plain = await knock(f"127.0.0.1:{server.port}")
            assert plain.info == found.info
        assert (await knock(f"nats://127.0.0.1:{port}")).fault == "alien"
        silent = await knock(f"nats://127.0.0.1:{mute.getsockname()[1]}")
        assert silent.fault == "silent"
        assert (await knock_silently(f"nats://127.0.0.1:{mute.getsockname()[1]}")).fault is None
    away = await knock(f"nats://127.0.0.1:{free_port()}")
    assert (away.fault, away.why) == ("away", "connection refused")
    mail.close()


async def test_the_monitoring_port_tells_how_the_server_syncs(tmp_path: Path) -> None:
    """`sync_interval: always` and the server's own limit; whatever else answers there is a fault of it, in words."""
    port = free_port()
    config = (
        f'http: "127.0.0.1:{port}"\n'
        f'jetstream {{ store_dir: "{tmp_path}/store", max_file_store: 1000000, sync_interval: always }}\n'
    )
    async with nats_server(tmp_path, config):
        found = await read_monitor(f"http://127.0.0.1:{port}")
    assert (found.fault, found.sync_always, found.storage_max) == ("", True, 1_000_000)
    async with http_server(says(200, b"<html>")) as url:
        assert (await read_monitor(url)).fault == "its answer is no /jsz"
    assert (await read_monitor(f"http://127.0.0.1:{free_port()}")).fault == "connection refused"


async def test_a_daemon_says_how_it_is() -> None:
    """Ready, or the parts that are not, and of which cluster; another service at its address is none."""
    health = Health()
    async with serve(Http(port=0), Metrics(), health, "lab") as port:
        ready = Readiness(address=f"http://127.0.0.1:{port}", cluster="lab", ready=True)
        assert await read_readiness(Http(port=port)) == ready
        health.failing("log", "no connection")
        found = await read_readiness(Http(host="0.0.0.0", port=port))
        assert found is not None
        assert (found.ready, found.unready) == (False, {"log": "no connection"})
    gone = await read_readiness(Http(port=port))
    assert gone is not None
    assert gone.away == "connection refused"
    async with http_server(says(404, b"not found", "text/plain")) as url:
        other = await read_readiness(Http(port=int(url.rpartition(":")[2])))
    assert other is not None
    assert other.alien
    assert await read_readiness(Http(port=0)) is None


@pytest.mark.parametrize("head", [b"X: " + b"y" * 100_000, b"\r\n".join([b"X: y"] * 100_000), b"no header"])
async def test_a_head_beyond_all_bounds_is_another_service(head: bytes) -> None:
    """At the daemon's address and at the monitoring port: a finding in words, whatever aiohttp makes of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await read_readiness(Http(port=port))
        assert found is not None
        assert (found.alien, found.away) == (True, "")
        assert (await read_monitor(f"http://127.0.0.1:{port}")).fault == "its answer is no /jsz"


async def test_a_job_whose_id_is_the_name_of_another_is_found() -> None:
    """The client's first request is answered with that one, and its next one with the job: of both kinds of reads."""

    async def answer(request: web.BaseRequest) -> web.Response:
        id_ = "j-1" if request.query.get("namespace") == "*" else "j-other"
        if not request.path.endswith("/history"):
            job = {"ID": id_, "Name": id_, "Namespace": "ours", "Type": "batch", "Count": 1, "Version": 1}
            now = {"State": {"StateType": "Pending"}, "Revision": 1, "CreateTime": 1, "ModifyTime": 1}
            return web.json_response({"Job": job | now})
        row = {"Type": "JobLevel", "JobID": id_, "SeqNum": 1, "Event": {"Details": {"NewState": "Pending"}}}
        return web.json_response({"NextToken": "", "Items": [row]})

    async with http_server(answer) as url:
        async with Orchestrator(OrchestratorSettings(url=url)) as orchestrator:
            assert (await look_up(orchestrator, [("j-1", "ours")])).known == ("j-1",)
        async with Orchestrator(OrchestratorSettings(url=url)) as orchestrator:
            page = await read_history(orchestrator, "j-1", "ours")
            assert page is not None
            assert len(page.entries) == 1
        async with Orchestrator(OrchestratorSettings(url=url)) as orchestrator:
            with pytest.raises(OrchestratorError, match="other-job"):
                await read_history(orchestrator, "j-2", "ours")


def test_of_frames_only_what_tells_them_apart_is_kept() -> None:
    """Kinds, profiles, ids; and why some could not be read. Nothing of what a job carries."""
    frames = [RawFrame(frame.subject, frame.data) for frame in recording("bacalhau-v1.9.3/secret").frames]
    heard = read_frames([*frames, RawFrame(frames[0].subject, b"\1")], 1.0, 1 << 20, 0)
    assert heard.frames == len(frames) + 1
    assert heard.unread == {"too-short": 1}
    assert set(heard.profiles) <= {"1.8+", "ncl"}
    assert {job for job, _ in heard.jobs} == {job.id for job in recording("bacalhau-v1.9.3/secret").jobs}
    assert sum(heard.kinds.values()) == len(frames)
    assert found_in(repr(heard).encode()) == []


@pytest.mark.parametrize(
    ("after_ns", "due"), [(-1, False), (0, False), (200, False), (1_000, True), (59 * 10**9, True), (70 * 10**9, False)]
)
def test_the_log_should_have_what_changed_after_it_began(after_ns: int, due: bool) -> None:
    """Not the job with whose change it began, nor what a join cannot tell from it; nor what changed just now."""
    since_ns = 1_763_966_400_123_456_200
    job = Snapshot(
        job=Identity(id="j-1", namespace="default"),
        count=1,
        version=1,
        revision=1,
        state="Completed",
        modified_ns=since_ns + after_ns,
    )
    now_s = since_ns / 1e9 + 90
    assert is_due(job, LogHead(since_ns=since_ns), now_s) is due
    assert is_due(job, LogHead(since_ns=0), now_s) is (after_ns < 60 * 10**9), "0: the log has everything"
    assert not is_due(job, LogHead(), now_s), "it is not agreed yet"
    assert not is_due(job, None, now_s)


async def test_one_address_of_several_is_enough(tmp_path: Path) -> None:
    """The one where nobody answers is told, and is no fault: on both sides."""
    async with world(tmp_path) as made:
        await made.rise()
        for side in ("NATS", "BACALHAU"):
            made.variables[f"JOBSTATE_{side}__URL"] += f",nats://127.0.0.1:{free_port()}"
        findings = {finding.check: finding for finding in await made.examine()}
    assert [one for one in findings.values() if one.verdict is Verdict.FAIL] == []
    for side in ("nats", "bacalhau"):
        assert findings[f"{side}.reach"].verdict is Verdict.WARN
        assert "but not nats://127.0.0.1:" in findings[f"{side}.reach"].found


async def test_without_bacalhau_its_checks_are_skipped_with_the_reason(tmp_path: Path) -> None:
    """Reports alone: both of Bacalhau's sides are skipped. Frames alone: that is told, and the record is skipped."""
    async with world(tmp_path) as made:
        await made.rise()
        made.variables["JOBSTATE_ORCHESTRATOR__URL"] = ""
        derived = {finding.check: finding for finding in await made.examine()}
        made.variables["JOBSTATE_BACALHAU__URL"] = ""
        reports = {finding.check: finding for finding in await made.examine()}
    assert derived["settings"].verdict is Verdict.WARN
    assert "states are derived from frames alone" in derived["settings"].found
    assert derived["frames.heard"].verdict is Verdict.OK
    assert derived["frames.known"].found == "orchestrator.url is not set: no record is read"
    for check in ("bacalhau.subscribe", "orchestrator.answer", "frames.heard", "record.agrees"):
        assert reports[check].verdict is Verdict.SKIPPED
    assert reports["settings"].verdict is Verdict.OK
    assert [one for one in (*derived.values(), *reports.values()) if one.verdict is Verdict.FAIL] == []


def test_only_this_machine_is_loopback() -> None:
    """A name that is not localhost may be anybody."""
    found = [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "10.0.0.1", "nats", None)]
    assert found == [True, True, True, False, False, False]
