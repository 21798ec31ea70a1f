"""Bad input through the real daemon, row by row (design/design.md 10, design/nats.md 7).

Each row ends in exactly one decision, is counted and kept once; and the reader lives: what comes after it goes through.
One server, one daemon and one orchestrator for all rows, so each row also meets what the rows before it did.
"""

import asyncio
import base64
import contextlib
import json
import threading
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final, NamedTuple
from uuid import uuid4

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from consumer.daemon.carry import UPDATE_ROOM
from consumer.replay.clock import ReplayClock
from consumer.replay.recording import Recording
from consumer.replay.server import OrchestratorServer
from consumer.replay.simulated import SimulatedOrchestrator
from consumer.wire.decoding import NAME_MAX
from consumer.wire.subjects import escape, job_key
from tests.daemon.process import NAMES, Daemon, entries, updates_of
from tests.replay.shared import recording
from tests.server import Server, keeps_status_lines, pub, speak
from tests.waiting import DEADLINE_S, until
from tests.wire.samples import ask_payload, ncl, seal

pytestmark = pytest.mark.server

MIB: Final = 1 << 20
NODE: Final = b"bacalhau.global.compute.n-1.in.msgs"
OLD_NODE: Final = b"node.compute.n-1.BidAccepted/v1"
RECORDED: Final = "bacalhau-v1.9.3/success"
KNOWN_JOB: Final = recording(RECORDED).jobs[0].id


@contextlib.contextmanager
def orchestrator(recorded: Recording) -> Iterator[str]:
    """The simulated orchestrator at the end of *recorded*, in a thread of its own; its URL."""
    clock = ReplayClock([recorded])
    clock.advance(recorded.ns_of(recorded.last_t) + 1)
    told: list[str] = []
    up, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with OrchestratorServer(SimulatedOrchestrator([recorded]), clock) as server:
            told.append(server.url)
            up.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert up.wait(DEADLINE_S)
        yield told[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Place(NamedTuple):
    """Where all rows happen."""

    server: Server
    daemon: Daemon


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Server, orchestrator and daemon, started once: they are processes or threads, with no event loop of a test."""
    folder = tmp_path_factory.mktemp("bad-input")
    server = Server(folder / "nats")
    asyncio.run(server.start())
    with orchestrator(recording(RECORDED)) as url:
        settings = {
            "JOBSTATE_NATS__URL": server.url,
            "JOBSTATE_BACALHAU__URL": server.url,
            "JOBSTATE_ORCHESTRATOR__URL": url,
            "JOBSTATE_SCAN__BACKFILL": "all",
            "JOBSTATE_LOG__LEVEL": "debug",
            "JOBSTATE_LOG__LINES_PER_S": "100000",
        }
        daemon = Daemon(folder, settings)
        yield Place(server, daemon)
        daemon.kill()
    asyncio.run(server.stop())


@pytest.fixture
async def stream(place: Place) -> AsyncIterator[JetStreamContext]:
    """A client's JetStream, when the daemon listens and knows what the record has."""
    client = Client()
    await client.connect(place.server.url, allow_reconnect=False)
    await place.daemon.until_ready()
    await updates_of(client.jetstream(), job_key("default", KNOWN_JOB), len(recording(RECORDED).jobs[0].expected))
    yield client.jetstream()
    await client.close()


async def decisions(place: Place) -> dict[tuple[str, str], float]:
    """How many events came to what so far, as /metrics says."""
    found = await place.daemon.numbers("jobstate_decisions_total")
    return {(decision, reason): count for (_, decision, reason), count in found.items()}


Decisions = Mapping[tuple[str, str], float]


def more(after: Decisions, before: Decisions) -> dict[tuple[str, str], float]:
    """What came to the counts of *before*."""
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


async def others_go_on(place: Place, stream: JetStreamContext) -> None:
    """The report of another job still becomes an update."""
    key = job_key("default", f"after-{uuid4()}")
    await speak(place.server, pub(NAMES.report(key).encode(), b'{"StateType":"Running"}'))
    (update,) = await updates_of(stream, key, 1)
    assert update.StateType == "Running"


async def decided_once(
    place: Place, stream: JetStreamContext, said: bytes, decision: str, reason: str
) -> tuple[str, dict[str, Any]]:
    """Say *said* to the server: it comes to *decision*, once, and others go on. Subject and body of what was kept."""
    before, kept = await decisions(place), await entries(stream, NAMES.refused, ">")
    await speak(place.server, said)
    await others_go_on(place, stream)
    wanted = {(decision, reason): 1.0, ("accepted", ""): 1.0}
    if decision == "accepted":
        wanted = {("accepted", ""): 2.0}
    after = before
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while sum(more(after, before).values()) < 2:
                after = await decisions(place)
    assert more(after, before) == wanted
    assert place.daemon.process.poll() is None
    found = (await entries(stream, NAMES.refused, ">"))[len(kept) :]
    if decision in {"accepted", "unchanged"}:
        assert found == []
        return "", {}
    ((subject, body),) = found
    return subject, json.loads(body)


# -- frames ------------------------------------------------------------------------------------------------------------


def with_crc(body: bytes, crc: int) -> bytes:
    """An envelope whose checksum is *crc*, whatever its body is."""
    return b"\x01" + crc.to_bytes(4, "big") + body


BODY: Final = ncl("BidAccepted", {"ExecutionID": "e-1"})[5:]
OTHER: Final = ncl("BidAccepted", {"ExecutionID": "e-2"})[5:]

FRAMES: Final = {
    "empty": (NODE, b"", "empty"),
    "short": (NODE, b"\x01\x00", "too-short"),
    "no body": (NODE, seal(b""), "no-body"),
    "version byte": (NODE, b"\xff" + ncl("BidAccepted", {"ExecutionID": "e-1"})[1:], "unknown-version"),
    "protobuf": (NODE, seal(b"\x0a\x04abcd", version=2), "protobuf"),
    "CRC of another body": (NODE, with_crc(BODY, zlib.crc32(OTHER)), "bad-crc"),
    "CRC 0": (NODE, with_crc(BODY, 0), "bad-crc"),
    "CRC little-endian": (NODE, b"\x01" + zlib.crc32(BODY).to_bytes(4, "little") + BODY, "bad-crc"),
    "cut": (NODE, ncl("BidAccepted", {"ExecutionID": "e-1"})[:-3], "bad-crc"),
    "cut before it was sealed": (NODE, seal(BODY[:-3]), "not-json"),
    "longer than it says": (NODE, seal(BODY + b"{}"), "not-json"),
    "objects nested 100,000 deep": (
        NODE,
        seal(b'{"metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001),
        "too-deep",
    ),
    "nested 200,000 deep": (NODE, seal(b'{"payload":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "too-deep"),
    "1 MiB": (NODE, b"\x01" * MIB, "bad-crc"),
    "unknown type": (NODE, ncl("Gossip/v9", {"a": 1}), "unknown-type"),
    "no type": (NODE, seal(b'{"metadata":{},"payload":{}}'), "no-type"),
    "NaN": (NODE, seal(b'{"metadata":{"Bacalhau-Type":"BidAccepted"},"payload":NaN}'), "not-json"),
    "wrong shape": (NODE, ncl("BidAccepted", ["e-1"]), "wrong-shape"),
    "version 2^64": (NODE, ncl("AskForBid", ask_payload(Version=2**64)), "wrong-shape"),
    "revision -1": (NODE, ncl("AskForBid", ask_payload(Revision=-1)), "wrong-shape"),
    "not UTF-8": (NODE, seal(b'{"metadata":{"Bacalhau-Type":"\xff"},"payload":{}}'), "not-utf8"),
    "1.5: not JSON": (OLD_NODE, b"ExecutionID", "not-json"),
    "1.5: no execution": (OLD_NODE, b'{"ExecutionID":""}', "no-job"),
    "1.5: unknown method": (b"node.orchestrator.n-0.Gossip/v9", b"{}", "unknown-type"),
}


@pytest.mark.parametrize("row", FRAMES)
async def test_a_frame_that_cannot_be_read(place: Place, stream: JetStreamContext, row: str) -> None:
    """Undecodable with its own reason; described by size and digest, none of its bytes; and the tap still hears."""
    subject, data, reason = FRAMES[row]
    before = await place.daemon.numbers("jobstate_frames_total")
    kept, body = await decided_once(place, stream, pub(subject, data), "undecodable", reason)
    assert kept.startswith(f"{NAMES.prefix}.undecodable.{reason}.sha256-")
    assert (body["Reason"], body["Source"], body["Size"]) == (reason, "frame", len(data))
    assert body["Subject"] == subject.decode()
    assert body.get("Data") is None
    counted = await place.daemon.numbers("jobstate_undecodable_total")
    assert counted["jobstate_undecodable_total", reason, "frame"] >= 1

    await speak(place.server, pub(NODE, ncl("BidAccepted", {"ExecutionID": "e-9"})))
    after = before
    async with asyncio.timeout(DEADLINE_S):
        while sum(after.values()) <= sum(before.values()):
            after = await place.daemon.numbers("jobstate_frames_total")


async def test_the_same_frame_twice_is_kept_once(place: Place, stream: JetStreamContext) -> None:
    """Its digest is its name: two decisions, both counted, and one entry."""
    junk = pub(NODE, b"\x01 the same junk, sent again")
    await decided_once(place, stream, junk, "undecodable", "bad-crc")
    before, kept = await decisions(place), await entries(stream, NAMES.refused, ">")
    await speak(place.server, junk)
    after = before
    async with asyncio.timeout(DEADLINE_S):
        while not more(after, before):
            after = await decisions(place)
    assert more(after, before) == {("undecodable", "bad-crc"): 1}
    assert await entries(stream, NAMES.refused, ">") == kept


# -- reports -----------------------------------------------------------------------------------------------------------


def report(job: str, body: object, namespace: str = "default", headers: bytes | None = None) -> bytes:
    """A report about *job*; *body* as it is if it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return pub(NAMES.report(job_key(namespace, job)).encode(), data, headers)


UNREADABLE: Final = {
    "empty": (b"", "empty"),
    "not JSON": (b"Running", "not-json"),
    "two documents": (b'{"StateType":"Running"}{"StateType":"Failed"}', "not-json"),
    "a list": (b'["Running"]', "wrong-shape"),
    "no state": (b"{}", "wrong-shape"),
    "state null": (b'{"StateType":null}', "wrong-shape"),
    "not UTF-8": (b'{"StateType":"Running","Message":"\xff"}', "not-utf8"),
    "lone surrogate": (b'{"StateType":"Running","Message":"\\ud800"}', "not-json"),
    "version NaN": (b'{"StateType":"Running","Job":{"Version":NaN}}', "not-json"),
    "version Infinity": (b'{"StateType":"Running","Job":{"Version":Infinity}}', "not-json"),
    "version 1e400": (b'{"StateType":"Running","Job":{"Version":1e400}}', "wrong-shape"),
    "version 2^64": (b'{"StateType":"Running","Job":{"Version":18446744073709551616}}', "wrong-shape"),
    "version of 4,300 digits": (b'{"StateType":"Running","Job":{"Version":' + b"9" * 4_300 + b"}}", "wrong-shape"),
    "version of 5,001 digits": (b'{"StateType":"Running","Job":{"Version":' + b"9" * 5_001 + b"}}", "wrong-shape"),
    "version below 0": (b'{"StateType":"Running","Job":{"Version":-1}}', "wrong-shape"),
    "version is text": (b'{"StateType":"Running","Job":{"Version":"1"}}', "wrong-shape"),
    "nested 100,000 deep": (b'{"StateType":"Running","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too-deep"),
    "1 MiB": (b'{"StateType":"Running","Message":"' + b"x" * (MIB - 36) + b'"}', "too-large"),
    "a name of half a MiB": (b'{"StateType":"Running","Job":{"Name":"' + b"x" * (MIB // 2) + b'"}}', "wrong-shape"),
}


@pytest.mark.parametrize("row", UNREADABLE)
async def test_a_report_that_cannot_be_read(place: Place, stream: JetStreamContext, row: str) -> None:
    """Undecodable with its own reason; its bytes are kept (bounded), to be mended and put back."""
    data, reason = UNREADABLE[row]
    kept, body = await decided_once(place, stream, report("unreadable", data), "undecodable", reason)
    assert kept.startswith(f"{NAMES.prefix}.undecodable.{reason}.")
    assert (body["Reason"], body["Source"], body["Size"]) == (reason, "report", len(data))
    assert base64.b64decode(body["Data"]) == data[: 64 * 1024]


NATS_LEVEL: Final = {
    "subject that is not UTF-8": pub(NAMES.in_prefix.encode() + b"default.j-\xff\xfe", b'{"StateType":"Running"}'),
    "subject that is escaped wrongly": pub(NAMES.in_prefix.encode() + b"default.a=b", b'{"StateType":"Running"}'),
    "no NATS/1.0": report("s", {"StateType": "Running"}, headers=b"garbage that is long enough\r\n\r\n"),
    "an entry of another stream": report(
        "s", {"StateType": "Running"}, headers=b"NATS/1.0\r\nNats-Stream: X\r\nNats-Sequence: 1\r\n\r\n"
    ),
}


@pytest.mark.parametrize("row", NATS_LEVEL)
async def test_what_is_no_producers_report(place: Place, stream: JetStreamContext, row: str) -> None:
    """Undecodable `foreign`: nothing that the server passes on ends the reader, or passes for a report."""
    kept, body = await decided_once(place, stream, NATS_LEVEL[row], "undecodable", "foreign")
    assert kept.startswith(f"{NAMES.prefix}.undecodable.foreign.")
    assert body["Source"] == "report"


REJECTED: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "unknown state": ("r-1", {"StateType": "Exploded"}, "unknown-state"),
    "empty state": ("r-2", {"StateType": ""}, "unknown-state"),
    "huge state": ("r-3", {"StateType": "x" * 100_000}, "unknown-state"),
    "Completed for a service": ("r-4", {"StateType": "Completed", "Job": {"Type": "service"}}, "not-completable"),
    "another job": ("r-5", {"StateType": "Running", "Job": {"ID": "j-other"}}, "identity"),
    "another namespace": ("r-6", {"StateType": "Running", "Job": {"Namespace": "Default"}}, "identity"),
    "version 2^64-1": ("r-7", {"StateType": "Running", "Job": {"Version": 2**64 - 1}}, "out-of-range"),
    "the record's job": (KNOWN_JOB, {"StateType": "Failed"}, "authority"),
}


@pytest.mark.parametrize("row", REJECTED)
async def test_a_report_that_is_refused(place: Place, stream: JetStreamContext, row: str) -> None:
    """Rejected with its own reason; the event is kept with the rule that it broke."""
    job, said, reason = REJECTED[row]
    kept, body = await decided_once(place, stream, report(job, said), "rejected", reason)
    assert kept.startswith(f"{NAMES.prefix}.quarantine.{reason}.default.{escape(job)}.")
    assert (body["Reason"], body["Event"]["StateType"]) == (reason, said["StateType"])
    assert body["Rule"]


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        (("Queued", "Pending"), "illegal-transition"),
        (("Failed", "Running"), "after-terminal"),
        (("Completed", "Completed", "Failed"), "after-terminal"),
    ],
)
async def test_a_transition_that_is_forbidden(
    place: Place, stream: JetStreamContext, states: tuple[str, ...], reason: str
) -> None:
    """Rejected with the state that it met; the job goes on as if nothing had been said."""
    job = f"forbidden-{'-'.join(states)}"
    for state in states[:-1]:
        await speak(place.server, report(job, {"StateType": state}))
    await updates_of(stream, job_key("default", job), 1)
    await others_go_on(place, stream)
    kept, body = await decided_once(place, stream, report(job, {"StateType": states[-1]}), "rejected", reason)
    assert f".quarantine.{reason}.default.{job}." in kept
    assert body["Known"]["StateType"] == states[0]
    (update,) = await updates_of(stream, job_key("default", job), 1)
    assert update.StateType == states[0]


ODD: Final = {
    "state in another case": ("o-1", "default", {"StateType": " rUNNING "}, "Running"),
    "the documentation's spelling": ("o-2", "default", {"StateType": "JobStateTypeStopped"}, "Stopped"),
    "namespace with dots and wildcards": ("o-3", "a.b.*.>", {"StateType": "Running"}, "Running"),
    "namespace with =": ("o-4", "a=2E", {"StateType": "Running"}, "Running"),
    "job id with spaces": ("my job / \x00\n", "default", {"StateType": "Running"}, "Running"),
    "job id with a wildcard": ("*", "default", {"StateType": "Running"}, "Running"),
    "not ASCII": ("j-\N{PILE OF POO}", "größe", {"StateType": "Running"}, "Running"),
    "terminal escapes": ("o-5", "default", {"StateType": "Failed", "Message": "\x1b[2J\x07<b>\u202e\x00"}, "Failed"),
    "1,000 unknown fields": (
        "o-6",
        "default",
        {"StateType": "Running"} | {f"x{n}": n for n in range(1_000)},
        "Running",
    ),
    "nested 400 deep": (
        "o-7",
        "default",
        b'{"StateType":"Running","x":' + b"[" * 400 + b"]" * 400 + b"}",
        "Running",
    ),
    "half a MiB of message": ("o-8", "default", {"StateType": "Failed", "Message": "x" * (MIB // 2)}, "Failed"),
    "nearly too large": ("o-9", "default", {"StateType": "Failed", "Message": "x" * (MIB - 20_000)}, "Failed"),
    "a time that is none": ("o-10", "default", {"StateType": "Running", "Time": "2026-02-30T24:00:60Z"}, "Running"),
}


@pytest.mark.parametrize("row", ODD)
async def test_odd_but_legal(place: Place, stream: JetStreamContext, row: str) -> None:
    """Accepted: names are escaped in subjects and whole in the body, a message is what it was."""
    job, namespace, said, state = ODD[row]
    await decided_once(place, stream, report(job, said, namespace), "accepted", "")
    (update,) = await updates_of(stream, job_key(namespace, job), 1)
    assert (update.Job.ID, update.Job.Namespace, update.StateType) == (job, namespace, state)
    if isinstance(said, dict):
        assert update.Message == said.get("Message", "")


async def test_an_id_that_is_too_long_for_a_subject(place: Place, stream: JetStreamContext) -> None:
    """With its id in the body: accepted, whole. Without: nobody could say whose it is, rejected as `identity`."""
    job = "j-" + "x" * 10_000
    said = {"StateType": "Running", "Job": {"ID": job}}
    await decided_once(place, stream, report(job, said), "accepted", "")
    (update,) = await updates_of(stream, job_key("default", job), 1)
    assert job == update.Job.ID
    await decided_once(place, stream, report(job + "y", {"StateType": "Running"}), "rejected", "identity")


async def test_the_largest_that_can_come_of_reports_fits_into_a_message(place: Place, stream: JetStreamContext) -> None:
    """Name and type as long as they may be and told before, then the largest message: accepted, and rejected, too."""
    long = "\x01" * NAME_MAX  # each takes six bytes in JSON
    first = {"StateType": "Running", "Job": {"Name": long, "Type": long}}
    await decided_once(place, stream, report("largest", first), "accepted", "")
    room = MIB - UPDATE_ROOM - len(b'{"StateType":"Failed","Message":""}')
    last = b'{"StateType":"Failed","Message":"' + b"x" * room + b'"}'
    await decided_once(place, stream, report("largest", last), "accepted", "")
    assert (await updates_of(stream, job_key("default", "largest"), 2))[1].Job.Name == long
    await decided_once(
        place, stream, report("largest", last.replace(b"Failed", b"Exited")), "rejected", "unknown-state"
    )


STATUS_LINES: Final = {"a status line": b"404 No Messages", "a status line that is not UTF-8": b"404 \xff"}

HEADERS: Final = {
    **STATUS_LINES,
    "a header called Status": b"Status: 404\r\nDescription: No Messages\r\n",
    "Nats-Msg-Id": b"Nats-Msg-Id: 1\r\n",
    "Jobstate-Input": b"Jobstate-Input: 999999999@9999999999999999999\r\n",
    "a name twice": b"A: 1\r\nA: 2\r\n",
    "a value that is not UTF-8": b"A: \xff\xfe\r\n",
    "a traceparent that is none": b"traceparent: \r\n",
    "16 KB of headers": b"".join(b"A%d: %s\r\n" % (number, b"x" * 100) for number in range(150)),
}


@pytest.mark.parametrize("row", HEADERS)
async def test_headers_of_a_producer_mean_nothing(place: Place, stream: JetStreamContext, row: str) -> None:
    """The report goes through: no header of a producer's says what is done with it, or hides it from the reader."""
    block = HEADERS[row]
    headers = b"NATS/1.0\r\n%s\r\n" % block if block.endswith(b"\r\n") else b"NATS/1.0 %s\r\n\r\n" % block
    job = f"headers-{row}"
    said = report(job, {"StateType": "Running"}, headers=headers)
    if row in STATUS_LINES and keeps_status_lines():
        await decided_once(place, stream, said, "undecodable", "foreign")  # nothing tells it from a server's answer
        return
    await decided_once(place, stream, said, "accepted", "")
    await decided_once(place, stream, report(job, {"StateType": "Completed"}), "accepted", "")
    assert [update.StateType for update in await updates_of(stream, job_key("default", job), 2)] == [
        "Running",
        "Completed",
    ]


async def test_a_thousand_copies_are_one_update(place: Place, stream: JetStreamContext) -> None:
    """The first is accepted, 999 are unchanged."""
    before = await decisions(place)
    await speak(place.server, *(report("copies", {"StateType": "Running"}) for _ in range(1_000)))
    after = before
    async with asyncio.timeout(DEADLINE_S):
        while sum(more(after, before).values()) < 1_000:
            after = await decisions(place)
    assert more(after, before) == {("accepted", ""): 1, ("unchanged", "same"): 999}
    assert len(await updates_of(stream, job_key("default", "copies"), 1)) == 1


async def test_a_late_report_is_late(place: Place, stream: JetStreamContext) -> None:
    """A lower version than the known one is unchanged, never an error."""
    later = {"StateType": "Running", "Job": {"Version": 3}}
    await decided_once(place, stream, report("late", later), "accepted", "")
    earlier = {"StateType": "Failed", "Job": {"Version": 2}}
    await decided_once(place, stream, report("late", earlier), "unchanged", "late")


async def test_after_all_of_it(place: Place, stream: JetStreamContext) -> None:
    """The daemon is the one that was started, ready, and has lost no connection; no control byte is in its lines."""
    await decided_once(place, stream, pub(NODE, b"\x01 the last junk"), "undecodable", "bad-crc")
    assert place.daemon.process.poll() is None
    assert (await place.daemon.get("/readyz"))[0] == 200
    counted = (
        "jobstate_reconnects_total",
        "jobstate_tap_gaps_total",
        "jobstate_deaf_total",
        "jobstate_tap_drops_total",
    )
    assert set((await place.daemon.numbers(*counted)).values()) == {0}
    await until(lambda: place.daemon.lines("decision.undecodable"), "a line about what could not be read")
    assert all(character.isprintable() for character in place.daemon.said() if character != "\n")
