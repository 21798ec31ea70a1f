"""`jobstate run` from outside: what it refuses and how, that it ends in order and comes back whole, what it tells."""

import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web
from nats.aio.client import Client
from nats.js import JetStreamContext

from consumer.errors import ExitCode
from consumer.wire.subjects import job_key
from tests.bacalhau.servers import http_server, mute_server
from tests.cli.conftest import Ended, Stage, make_streams
from tests.daemon.process import NAMES, Daemon, entries, updates_of
from tests.nats.test_connection import fake_server

pytestmark = pytest.mark.server

JOB: Final = job_key("default", "j-1")
PARTS: Final = ("log", "input", "refused", "bucket")
"""Those of a daemon that follows reports only."""
RULES: Final = Path(__file__).parents[2] / "config" / "rules" / "bacalhau.toml"

Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts daemons with settings like `NATS__URL=…`; each ends with the test."""
    started: list[Daemon] = []

    def begin(*arguments: str, **settings: str) -> Daemon:
        variables = {f"JOBSTATE_{name}": text for name, text in settings.items()}
        started.append(Daemon(tmp_path / "daemon", variables, *arguments))
        return started[-1]

    yield begin
    for daemon in started:
        daemon.kill()


async def report(client: Client, state: str, message: str = "") -> None:
    """Publish a report about j-1, as any producer does."""
    body = json.dumps({"StateType": state, "Message": message}).encode()
    await client.jetstream().publish(NAMES.report(JOB), body)


async def states_of(stream: JetStreamContext, count: int) -> list[tuple[int, str]]:
    """Number and state of each update of j-1, once there are *count*."""
    return [(update.Sequence, update.StateType) for update in await updates_of(stream, JOB, count)]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"JOBSTATE_NATS__ULR": "nats://x"}, "JOBSTATE_NATS__URL"),
        ({"JOBSTATE_SCAN__RATE": "0"}, "scan.rate"),
        ({"JOBSTATE_LOG__LEVEL": "loud"}, "log.level"),
        ({"JOBSTATE_RULES__FILE": "no/such/rules"}, "rules.file (JOBSTATE_RULES__FILE): no/such/rules: "),
        ({"JOBSTATE_CONFIG": "no/such/jobstate.toml"}, "no/such/jobstate.toml"),
        (
            {
                "JOBSTATE_BACALHAU__URL": "nats://127.0.0.1:1",
                "JOBSTATE_ORCHESTRATOR__URL": "http://127.0.0.1:1",
                "JOBSTATE_BACALHAU__TOKEN_FILE": "no/such/token",
            },
            "bacalhau.token_file",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
async def test_bad_settings_are_refused_by_name(bare: Stage, variables: dict[str, str], named: str) -> None:
    """Exit 2 and one sentence that names the setting (or the right one, or the file): no traceback, nothing made."""
    ended: Ended = await bare.verb("run", **{"JOBSTATE_HTTP__PORT": "0", **variables})
    assert ended.code == ExitCode.USAGE, ended.err
    assert named in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert ended.out == ""


async def test_a_port_that_is_taken_is_refused_if_it_was_asked_for(bare: Stage) -> None:
    """Exit 2, and the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = await bare.verb("run", JOBSTATE_HTTP__PORT=str(taken.getsockname()[1]))
    assert ended.code == ExitCode.USAGE
    assert "http.port" in ended.err.splitlines()[-1]


async def test_more_copies_than_a_server_of_its_own_has(bare: Stage, tmp_path: Path) -> None:
    """Exit 2 before anything is started, and which setting: a restart would not help."""
    folder = tmp_path / "nats"
    ended = await bare.verb("run", "--embedded", "--folder", str(folder), JOBSTATE_STREAMS__REPLICAS="3")
    assert ended.code == ExitCode.USAGE
    assert "set streams.replicas (JOBSTATE_STREAMS__REPLICAS) to 1" in ended.err.splitlines()[-1]
    assert not folder.exists()


async def test_another_port_that_was_chosen_is_told_and_comes_after_a_true_fault(bare: Stage, start: Start) -> None:
    """The default port is taken: which one was chosen. It is no part of the error where the folder is in use."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # then somebody else has it, which is as good
            taken.bind(("127.0.0.1", 9090))
            taken.listen()
        daemon = start(NATS__URL=bare.server.url, HTTP__PORT="9090")
        line = await daemon.line("http.port_taken")
        port = (await daemon.line("daemon.started"))["http"].rpartition(":")[2]
        assert line["reason"].endswith("cannot listen on 127.0.0.1:9090 (Address already in use)")
        assert line["next_step"].startswith(f"another port was chosen: {port}")
        refused = start("--embedded", "--folder", "/dev/null", HTTP__PORT="9090")
        assert await refused.ended() == ExitCode.SERVER
        assert "http.port_taken" not in refused.said()


async def test_a_stream_that_differs_is_refused_with_the_difference(bare: Stage, start: Start) -> None:
    """Exit 10; the field, what is needed and what was found; and the stream is as it was."""
    await make_streams(bare.client, bare.names)
    before = (await bare.client.jsm().stream_info(bare.names.log)).config
    daemon = start(NATS__URL=bare.server.url)
    assert await daemon.ended() == ExitCode.TOPOLOGY
    assert f"the stream {bare.names.log}" in daemon.said()
    assert "discard: needed new, found old" in daemon.said()
    assert "Traceback" not in daemon.said()
    assert (await bare.client.jsm().stream_info(bare.names.log)).config == before


async def test_other_rules_are_refused_unless_accepted(bare: Stage, start: Start, tmp_path: Path) -> None:
    """A log made by other rules: exit 10 and which setting helps; with it the daemon goes on, and the log says so."""
    first = start(NATS__URL=bare.server.url)
    await first.until_ready()
    assert await first.stop() == ExitCode.OK
    other = tmp_path / "rules.toml"
    other.write_text(RULES.read_text().replace('name = "bacalhau"', 'name = "ours"'))

    refused = start(NATS__URL=bare.server.url, RULES__FILE=str(other))
    assert await refused.ended() == ExitCode.TOPOLOGY
    assert "JOBSTATE_RULES__ACCEPT=true" in refused.said().splitlines()[-1]

    accepted = start(NATS__URL=bare.server.url, RULES__FILE=str(other), RULES__ACCEPT="true")
    await accepted.until_ready()
    ((_, body),) = await entries(bare.client.jetstream(), bare.names.log, bare.names.format)
    assert json.loads(body)["Rules"]["Name"] == "ours"
    assert await accepted.stop() == ExitCode.OK


async def test_an_old_server_is_refused(start: Start) -> None:
    """2.10 would ignore the compare-and-set without a word: exit 11, with its version and the one that is needed."""
    async with fake_server("2.10.26", None) as address:
        daemon = start(NATS__URL=address.urls[0])
        assert await daemon.ended() == ExitCode.SERVER
    assert "2.10.26" in daemon.said().splitlines()[-1]
    assert "2.11" in daemon.said().splitlines()[-1]


# -- what it does ------------------------------------------------------------------------------------------------------


async def test_it_follows_reports(bare: Stage, start: Start) -> None:
    """With nothing but a NATS server: what `send` says, `watch` shows; SIGTERM ends it with 0, and nothing is lost."""
    daemon = start(NATS__URL=bare.server.url)
    await daemon.until_ready()
    watch = await bare.begin("watch", "--since", "start", "--json")
    for state in ("Pending", "Running", "Completed"):
        assert (await bare.verb("send", "j-1", state)).code == ExitCode.OK
    shown = [json.loads(await watch.line())["update"] for _ in range(3)]
    assert [update["StateType"] for update in shown] == ["Pending", "Running", "Completed"]
    assert {update["Source"] for update in shown} == {"reported"}

    assert (await bare.verb("send", "j-1", "Running")).code == ExitCode.OK
    assert await daemon.stop() == ExitCode.OK
    stopped = daemon.lines("daemon.stopped")
    assert [line["drained"] for line in stopped] == [True]
    assert await states_of(bare.client.jetstream(), 3) == [(1, "Pending"), (2, "Running"), (3, "Completed")]


async def test_sigint_ends_it_as_sigterm_does(bare: Stage, start: Start) -> None:
    """Ctrl-C is an order to stop, not an accident."""
    daemon = start(NATS__URL=bare.server.url)
    await daemon.until_ready()
    daemon.tell(signal.SIGINT)
    assert await daemon.ended() == ExitCode.OK
    assert "Traceback" not in daemon.said()


async def test_it_waits_for_a_server_and_can_be_stopped_meanwhile(start: Start) -> None:
    """No server: alive, not ready, with the reason; and SIGTERM still ends it with 0."""
    daemon = start(NATS__URL="nats://127.0.0.1:1")
    answer = await daemon.until_status(503)
    assert answer == {"ready": False, "cluster": "main", "parts": dict.fromkeys(PARTS, "has not been ready yet")}
    assert (await daemon.get("/livez"))[0] == 200
    assert await daemon.stop() == ExitCode.OK


async def test_a_nats_that_says_nothing_is_told_with_what_to_do(bare: Stage, start: Start) -> None:
    """A port of something else, for our streams and for Bacalhau's frames: address, reason, next step; /readyz too."""
    async with mute_server() as url:
        said = "it takes the connection and says nothing, and a NATS server speaks first"
        for name, event, side in (("NATS__URL", "nats.trouble", "nats"), ("BACALHAU__URL", "tap.trouble", "bacalhau")):
            daemon = start(**{"NATS__URL": bare.server.url, name: url})
            line = await daemon.line(event)
            assert (line["server"], line["reason"]) == (url, said)
            step = f"is {side}.url another port's (Bacalhau's API is 1234, NATS is 4222)"
            assert line["next_step"].startswith(step)
            if side == "bacalhau":
                await daemon.until_status(503, f"nothing is heard: not connected to {url} ({said}): {step}")
            daemon.kill()


async def test_a_drain_that_cannot_end_says_so(bare: Stage, start: Start) -> None:
    """The log is full: not ready; SIGTERM ends it with 13 after the deadline. With room again, nothing was lost."""
    settings = {"NATS__URL": bare.server.url, "DRAIN__DEADLINE_S": "0.2"}
    daemon = start(**settings, STREAMS__LOG_MAX_BYTES="1500")
    await daemon.until_ready()
    await report(bare.client, "Pending")
    assert await states_of(bare.client.jetstream(), 1) == [(1, "Pending")]
    await report(bare.client, "Running", message="x" * 2_000)
    await daemon.until_status(503, "no room")
    daemon.tell(signal.SIGTERM)
    assert await daemon.ended() == ExitCode.DRAIN
    assert [line["drained"] for line in daemon.lines("daemon.stopped")] == [False]

    config = (await bare.client.jsm().stream_info(bare.names.log)).config
    await bare.client.jsm().update_stream(config.evolve(max_bytes=100_000_000))
    start(**settings)
    assert await states_of(bare.client.jetstream(), 2) == [(1, "Pending"), (2, "Running")]


async def test_a_server_of_its_own_keeps_the_log_over_starts(start: Start, tmp_path: Path) -> None:
    """--embedded --folder: stopped, killed and started again, every report is in the log once."""
    folder = tmp_path / "nats"
    states = ["Pending", "Queued", "Running", "Queued", "Running", "Completed"]
    ends: list[Callable[[Daemon], None]] = [lambda one: one.tell(signal.SIGTERM), lambda one: one.kill()]
    for turn in range(3):
        daemon = start("--embedded", "--folder", str(folder))
        await daemon.until_ready()
        client = Client()
        await client.connect((await daemon.line("daemon.started"))["nats"], allow_reconnect=False)
        for state in states[2 * turn : 2 * turn + 2]:
            await report(client, state)
        found = await states_of(client.jetstream(), 2 * turn + 2)
        assert found == list(enumerate(states[: 2 * turn + 2], start=1))
        await client.close()
        ends[turn % 2](daemon)
        assert await daemon.ended() in {ExitCode.OK, -signal.SIGKILL}
    assert folder.is_dir()


# -- what it says of itself --------------------------------------------------------------------------------------------


async def test_it_says_how_it_is(bare: Stage, start: Start) -> None:
    """/livez and /readyz answer 200 while all is well; /metrics counts what was decided."""
    daemon = start(NATS__URL=bare.server.url)
    await daemon.until_ready()
    await report(bare.client, "Pending")
    await report(bare.client, "Pending")
    await report(bare.client, "Nonsense")
    await daemon.line("decision.rejected")
    numbers = await daemon.numbers("jobstate_decisions_total", "jobstate_updates_total")
    assert {labels: number for labels, number in numbers.items() if number} == {
        ("jobstate_decisions_total", "accepted", ""): 1,
        ("jobstate_decisions_total", "unchanged", "same"): 1,
        ("jobstate_decisions_total", "rejected", "unknown-state"): 1,
        ("jobstate_updates_total", "reported", "Pending"): 1,
    }
    status, body = await daemon.get("/livez")
    assert (status, json.loads(body)["alive"]) == (200, True)
    status, body = await daemon.get("/readyz")
    assert json.loads(body) == {"ready": True, "cluster": "main", "parts": dict.fromkeys(PARTS, "ready")}


async def test_not_ready_while_nats_is_away(bare: Stage, start: Start) -> None:
    """The server is stopped: 503 with the reason, but alive; it comes back: 200, and reports go on."""
    daemon = start(NATS__URL=bare.server.url)
    await daemon.until_ready()
    await report(bare.client, "Pending")
    await states_of(bare.client.jetstream(), 1)
    await bare.server.stop()
    answer = await daemon.until_status(503, "connection")
    assert not answer["ready"]
    assert (await daemon.get("/livez"))[0] == 200
    await bare.server.start()
    await daemon.until_ready()
    await report(bare.client, "Running")
    assert await states_of(bare.client.jetstream(), 2) == [(1, "Pending"), (2, "Running")]


class Fickle:
    """An orchestrator that answers with a page of HTML until it is told to answer."""

    def __init__(self) -> None:
        self.well = False
        self.asked = 0

    async def answer(self, _request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        if self.well:
            return web.json_response({"NextToken": "", "Items": []})
        return web.Response(text="<html>maintenance</html>", content_type="text/html")


@pytest.fixture
async def orchestrator() -> AsyncIterator[tuple[Fickle, str]]:
    """The orchestrator and its URL."""
    fickle = Fickle()
    async with http_server(fickle.answer) as url:
        yield fickle, url


async def test_not_ready_while_the_orchestrator_is_away(
    bare: Stage, start: Start, orchestrator: tuple[Fickle, str]
) -> None:
    """It answers HTML with 200: 503 with that reason, reports go through all the same; it mends itself: 200."""
    fickle, url = orchestrator
    daemon = start(NATS__URL=bare.server.url, BACALHAU__URL=bare.server.url, ORCHESTRATOR__URL=url)
    answer = await daemon.until_status(503, "html")
    assert "html" in answer["parts"]["orchestrator"]
    await report(bare.client, "Pending")
    await states_of(bare.client.jetstream(), 1)
    fickle.well = True
    answer = await daemon.until_status(200)
    assert answer["parts"] == dict.fromkeys((*PARTS, "bacalhau", "orchestrator"), "ready")
    counted = await daemon.numbers("jobstate_reads_total")
    assert counted["jobstate_reads_total", "scan", "list", "html"] >= 1
    assert counted["jobstate_reads_total", "scan", "list", "answered"] >= 1
    assert "maintenance" not in daemon.said()
