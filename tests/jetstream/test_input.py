"""The input is read in order, each entry once, through whatever happens to consumer, stream, server and connection."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from consumer.errors import ConnectionLostError, LogWentBackError, UnreachableError
from consumer.jetstream.input import Break, BreakKind, JetStreamInput, _foreign
from consumer.jetstream.pull import DoubtError, Pull
from consumer.jetstream.topology import ensure
from consumer.model import NOWHERE, InputPosition
from consumer.nats.address import Address
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.ports import Delivery
from consumer.settings import Streams
from consumer.wire.subjects import Names, job_key
from tests.jetstream.loss import Loss
from tests.server import Server, api, keeps_status_lines, pub, speak, strip_bodies, version
from tests.waiting import DEADLINE_S, until

KEY = job_key("default", "j-1")
MIB = 1 << 20
SMALL = Streams(log_max_bytes=16 * MIB, input_max_bytes=64 * MIB, refused_max_bytes=MIB)


@pytest.fixture
async def source(reader: Connection, names: Names) -> AsyncIterator[JetStreamInput]:
    """The input of a cluster of its own, not yet started."""
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    source = JetStreamInput(reader, names)
    yield source
    await source.stop()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that the test may treat badly."""
    async with Server(tmp_path) as server:
        yield server


async def put(reader: Connection, names: Names, first: int, last: int) -> None:
    """Store reports whose bodies are the numbers *first* to *last*."""
    for number in range(first, last):
        await reader.publish(names.report(KEY), b"%d" % number)
    # Answered when all before it are stored: they came over one connection.
    await reader.request(names.report(KEY), b"%d" % last, timeout=DEADLINE_S)


async def take(source: JetStreamInput, count: int) -> list[Delivery]:
    """The next *count* deliveries, and no more than those."""
    found: list[Delivery] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            found += await source.batch()
    assert len(found) == count
    return found


def bodies(found: list[Delivery]) -> list[int]:
    """The numbers that they are."""
    return [int(delivery.data) for delivery in found]


async def test_everything_comes_in_order_with_its_position(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """More than several requests hold; sequences without holes, times that never go back."""
    await put(reader, names, 1, 3500)
    await source.start(None)
    found = await take(source, 3500)
    assert bodies(found) == list(range(1, 3501))
    assert [delivery.position.sequence for delivery in found] == list(range(1, 3501))
    assert [delivery.position for delivery in found] == sorted(delivery.position for delivery in found)
    assert {delivery.subject for delivery in found} == {names.report(KEY)}
    assert source.position == found[-1].position
    await put(reader, names, 3501, 3510)
    assert bodies(await take(source, 10)) == list(range(3501, 3511))
    assert source.breaks == []


async def test_it_begins_after_the_position_that_is_given(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """The entry at the position is the one with its time, so it is not read again."""
    await put(reader, names, 1, 10)
    await source.start(None)
    places = [delivery.position for delivery in await take(source, 10)]
    for begin in (4, 10):
        again = JetStreamInput(reader, names)
        await again.start(places[begin - 1])
        if begin == 10:
            await put(reader, names, 11, 11)
        assert bodies(await take(again, 10 - begin or 1)) == list(range(begin + 1, 11)) or begin == 10
        assert again.breaks == []
        await again.stop()


async def test_what_a_producer_sends_never_stops_it(
    source: JetStreamInput, shared_server: Server, reader: Connection, names: Names
) -> None:
    """Any subject, any headers, any body: each is delivered, in order, with a reason where it is no report."""
    await source.start(None)
    base = f"{names.in_prefix}default.".encode()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    status_line = "a server's answer: it has a status line" if keeps_status_lines() else ""
    odd = {
        "plain": (pub(base + b"a", b"x"), "", ""),
        "status header": (pub(base + b"a", b"x", b"NATS/1.0\r\nStatus: 404\r\n\r\n"), "", ""),
        "status line": (pub(base + b"a", b"", b"NATS/1.0 404 No Messages\r\n\r\n"), status_line, ""),
        "heartbeat": (pub(base + b"a", b"", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"), status_line, ""),
        "status no UTF-8": (pub(base + b"a", b"", b"NATS/1.0 \xff\xff\xff \xff\r\n\r\n"), status_line, ""),
        "broken": (pub(base + b"a", b"x", b"junk"), "a broken header block", ""),
        "no end": (pub(base + b"a", b"x", b"NATS/1.0"), "a broken header block", ""),
        "bytes": (pub(base + b"a", b"x", b"NATS/1.0\r\n\xff: \xff\r\n\r\n"), "", ""),
        "subject": (pub(base + b"\xff\xfe", b"x"), "", ""),
        "trace": (pub(base + b"a", b"x", b"NATS/1.0\r\ntraceparent: " + trace + b"\r\n\r\n"), "", trace.decode()),
        "no trace": (pub(base + b"a", b"x", b"NATS/1.0\r\ntraceparent: 00-\xff\r\n\r\n"), "", ""),
        "big headers": (pub(base + b"a", b"x", b"NATS/1.0\r\nA: " + b"x" * 60_000 + b"\r\n\r\n"), "", ""),
        "steered": (
            pub(base + b"a", b"x", b"NATS/1.0\r\nNats-Stream: L\r\nNats-Sequence: 1\r\n\r\n"),
            "a server's answer: an entry of another stream",
            "",
        ),
        "empty": (pub(base + b"a"), "", ""),
    }
    await speak(shared_server, *(command for command, _, _ in odd.values()))
    found = await take(source, len(odd))
    for name, delivery, (_, foreign, traceparent) in zip(odd, found, odd.values(), strict=True):
        assert (delivery.foreign, delivery.traceparent) == (foreign, traceparent), name
    assert found[8].subject == f"{names.in_prefix}default.\udcff\udcfe"
    assert source.restarts == 0
    assert reader.connects == 1


async def test_an_entry_that_was_steered_in_keeps_its_own_subject(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """`MSG.NEXT` with a reply into the input stores a log entry there (design/nats.md 8): it comes, as foreign."""
    await reader.request(names.state(KEY, "Running"), b"an update", timeout=DEADLINE_S)
    config = {"stream_name": names.log, "config": {"name": "thief", "ack_policy": "none"}, "action": "create"}
    await api(reader, f"CONSUMER.CREATE.{names.log}.thief", json.dumps(config).encode())
    await reader.publish(f"$JS.API.CONSUMER.MSG.NEXT.{names.log}.thief", b"1", reply=names.report(KEY))
    await source.start(None)
    (delivery,) = await take(source, 1)
    assert delivery.subject == names.state(KEY, "Running")
    assert names.key_of_report(delivery.subject) is None


async def test_large_entries_are_bounded_by_bytes_and_all_come(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """Thirty megabytes do not fit in what may be on its way: requests end early, and are made again."""
    for number in range(40):
        body = str(number).rjust(900_000).encode()
        await reader.request(names.report(KEY), body, timeout=DEADLINE_S)
    await source.start(None)
    async with asyncio.timeout(DEADLINE_S):
        first = await source.batch()
    assert sum(len(delivery.data) for delivery in first) < 20 * MIB
    rest = await take(source, 40 - len(first))
    assert bodies(first + rest) == list(range(40))
    assert source.restarts == 0


async def test_a_deleted_consumer_is_replaced(source: JetStreamInput, reader: Connection, names: Names) -> None:
    """Nothing is left out, nothing comes twice; with entries on their way, and with none."""
    await put(reader, names, 1, 5000)
    await source.start(None)
    found = await source.batch()
    assert len(found) < 5000
    await delete_consumer(reader, names)
    found += await take(source, 5000 - len(found))
    restarts = source.restarts
    reading = asyncio.create_task(take(source, 1))
    await delete_consumer(reader, names)
    await until(lambda: source.restarts > restarts, "a doubt")
    await put(reader, names, 5001, 5001)
    assert bodies(found + await reading) == list(range(1, 5002))
    assert source.breaks == []


async def delete_consumer(reader: Connection, names: Names) -> None:
    """As an operator may, or a server that forgot it: the one that there is, once there is one."""
    for name in await consumers(reader, names):
        await api(reader, f"CONSUMER.DELETE.{names.input}.{name}")


async def consumers(reader: Connection, names: Names) -> list[str]:
    """Those of the input's stream, once there is one."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            answer = json.loads(await api(reader, f"CONSUMER.NAMES.{names.input}"))
            if answer["consumers"]:
                return list(answer["consumers"])


async def test_what_is_lost_on_the_way_is_asked_for_again(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """A hole in the consumer's count: what came before it counts, and the rest comes again."""
    loss = Loss(51, 400)
    loss.between(reader)
    await put(reader, names, 1, 500)
    await source.start(None)
    assert bodies(await take(source, 500)) == list(range(1, 501))
    assert loss.lost == [51, 400]
    assert source.restarts >= 1
    assert source.breaks == []


async def test_what_somebody_else_sends_to_the_inbox_is_nothing(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """No consumer sends it: no position, no delivery."""
    await source.start(None)
    assert source._pull is not None
    await reader.publish(source._pull._inbox, b"x", reply="answer")
    await reader.publish(source._pull._inbox, b"x", reply="$JS.ACK.1.2")
    await put(reader, names, 1, 3)
    assert bodies(await take(source, 3)) == [1, 2, 3]


async def test_a_deleted_stream_ends_it(source: JetStreamInput, reader: Connection, names: Names) -> None:
    """Nobody can read on: whoever owns it starts again, and the start makes the stream or refuses."""
    await put(reader, names, 1, 3)
    await source.start(None)
    await take(source, 3)
    await api(reader, f"STREAM.DELETE.{names.input}")
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(LogWentBackError, match=f"{names.input} is gone"):
            await source.batch()
    with pytest.raises(LogWentBackError, match=f"{names.input} is gone"):
        await JetStreamInput(reader, names).start(None)


async def remake(reader: Connection, names: Names) -> None:
    """Delete the input and make it again."""
    await api(reader, f"STREAM.DELETE.{names.input}")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})


async def purge(reader: Connection, names: Names) -> None:
    """Forget all but the newest two."""
    await api(reader, f"STREAM.PURGE.{names.input}", b'{"keep": 2}')


async def forget_one(reader: Connection, names: Names) -> None:
    """Delete the entry at the position, and only that."""
    await api(reader, f"STREAM.MSG.DELETE.{names.input}", b'{"seq": 5, "no_erase": true}')


@pytest.mark.parametrize(
    ("damage", "begin", "kinds", "found"),
    [
        (remake, 5, ["anew"], [11, 12, 13]),
        (purge, 5, ["gap"], [9, 10, 11, 12, 13]),
        (purge, 8, [], [9, 10, 11, 12, 13]),
        (forget_one, 5, [], [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13]),
    ],
)
@pytest.mark.parametrize("alive", [False, True])
async def test_a_position_that_is_not_there_any_more_is_announced(
    *,
    source: JetStreamInput,
    reader: Connection,
    names: Names,
    damage: Callable[[Connection, Names], object],
    begin: int,
    kinds: list[BreakKind],
    found: list[int],
    alive: bool,
) -> None:
    """Made anew, forgotten, deleted: begun again from the first, in a start and in the middle of a life alike."""
    await put(reader, names, 1, 10)
    await source.start(None)
    places = [delivery.position for delivery in await take(source, 10)]
    if alive:
        source._place = places[begin - 1]
        await source.stop()
    await damage(reader, names)  # type: ignore[misc]
    await put(reader, names, 11, 13)
    if not alive:
        await source.start(places[begin - 1])
    assert bodies(await take(source, len(found))) == found
    assert [one.kind for one in source.breaks if one.next != 6] == kinds
    if kinds:
        assert source.breaks[0] == Break(kind=kinds[0], after=places[begin - 1], next=9 if kinds == ["gap"] else 1)


async def test_an_input_that_lost_its_tail_is_announced(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """A position above the last, and one whose entry has another time: the stream is the same, its end is not."""
    await put(reader, names, 1, 10)
    await source.start(None)
    last = (await take(source, 10))[-1].position
    for lost in (InputPosition(last.time_ns + 5, 25), InputPosition(last.time_ns + 5, 10)):
        again = JetStreamInput(reader, names)
        await again.start(lost)
        assert bodies(await take(again, 10)) == list(range(1, 11))
        assert again.breaks == [Break(kind="tail", after=lost, next=1)]
        await again.stop()


async def test_a_hole_in_the_middle_is_announced(source: JetStreamInput, reader: Connection, names: Names) -> None:
    """Entries that were forgotten before they were read: the next one comes, and what is missing is said."""
    await put(reader, names, 1, 5)
    await source.start(None)
    place = (await take(source, 5))[-1].position
    await source.stop()
    await put(reader, names, 6, 9)
    for sequence in (7, 8):
        await api(reader, f"STREAM.MSG.DELETE.{names.input}", json.dumps({"seq": sequence}).encode())
    found = await take(source, 2)
    assert bodies(found) == [6, 9]
    assert source.breaks == [Break(kind="gap", after=found[0].position, next=9)]
    assert place == InputPosition(place.time_ns, 5)


async def test_nothing_given_is_nothing_missed(source: JetStreamInput, reader: Connection, names: Names) -> None:
    """The first start of all, on an input whose beginning is gone: no gap, for nobody asked for it."""
    await put(reader, names, 1, 10)
    await purge(reader, names)
    await source.start(NOWHERE)
    assert bodies(await take(source, 2)) == [9, 10]
    assert source.breaks == []


@pytest.mark.parametrize("how", ["restart", "kill", "freeze"])
async def test_it_survives_its_server(server: Server, names: Names, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM says so, SIGKILL and SIGSTOP say nothing at all: each entry comes once, all the same."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("consumer.jetstream.pull.DOUBT_S", 0.5)
    reader = await connect_reader(server.address(names.cluster), "test")
    producer = await connect_reader(server.address(names.cluster), "producer")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    source = JetStreamInput(reader, names)
    await put(producer, names, 1, 1500)
    await source.start(None)
    found = await source.batch()
    taking = asyncio.create_task(take(source, 1500 + 500 - len(found)))
    if how == "freeze":
        server.freeze()
        await until(lambda: source.restarts, "a doubt")
        server.thaw()
    elif how == "kill":
        await server.kill()
        await server.start()
    else:
        await server.restart()
    await until(lambda: producer.is_connected and producer.connects > (how != "freeze"), "the producer")
    await put(producer, names, 1501, 2000)
    found += await taking
    assert bodies(found) == list(range(1, 2001))
    assert source.restarts >= 1
    assert source.breaks == []
    await reader.close()
    await producer.close()


async def test_a_consumer_that_is_deleted_again_and_again_is_no_hot_loop(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made again at once, then after a pause, then after a longer one; what comes ends the pauses."""
    monkeypatch.setattr("consumer.jetstream.input.CALM_S", DEADLINE_S)
    loop = asyncio.get_running_loop()
    await source.start(None)
    reading = asyncio.create_task(take(source, 1))
    times = []
    for count in range(4):
        began = loop.time()
        await delete_consumer(reader, names)
        await until(lambda count=count: source.restarts > count, "a doubt")  # type: ignore[misc]
        await consumers(reader, names)
        times.append(loop.time() - began)
    assert times[1] > 0.1
    assert times[2] > 0.2
    assert times[3] > 0.4
    await put(reader, names, 1, 1)
    assert bodies(await reading) == [1]
    assert source._failures == 0


async def test_a_machine_that_slept_is_no_reason_for_doubt(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour passes at once, as for a process that was stopped: the heartbeats that came meanwhile count."""
    loop = asyncio.get_running_loop()
    slept_s, time = 0.0, loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + slept_s)
    await source.start(None)
    reading = asyncio.create_task(source.batch())
    for _ in range(3):
        turns = source.turns
        await until(lambda turns=turns: source.turns > turns, "a heartbeat, and that it waits for the next")  # type: ignore[misc]
        slept_s += 3600.0
    await put(reader, names, 1, 1)
    assert bodies(await reading) == [1]
    assert source.restarts == 0


async def test_a_server_that_is_away_is_waited_for(server: Server, names: Names) -> None:
    """Without asking at all: what wakes it is the connection that comes back."""
    reader = await connect_reader(server.address(names.cluster), "test")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    source = JetStreamInput(reader, names)
    await source.start(None)
    reading = asyncio.create_task(take(source, 1))
    await server.kill()
    await until(lambda: source.restarts >= 1, "the doubt")
    failed = reader.connects
    await until(lambda: "refused" in reader.last_trouble.lower() or "connect" in reader.last_trouble.lower(), "a try")
    assert source.restarts == failed == 1
    await server.start()
    await until(lambda: reader.connects >= 2, "the reconnect")
    await put(reader, names, 1, 1)
    assert bodies(await reading) == [1]
    await reader.close()


async def test_a_connection_that_was_closed_ends_it(shared_server: Server, names: Names) -> None:
    """Nobody would ever wake it."""
    reader = await connect_reader(shared_server.address(names.cluster), "test")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    source = JetStreamInput(reader, names)
    await source.start(None)
    reading = asyncio.create_task(source.batch())
    await asyncio.sleep(0)
    await reader.close()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ConnectionLostError, match="was closed"):
            await reading


def test_a_status_line_is_a_servers_answer() -> None:
    """Where a server stores it (2.11 does), it is seen for what it is."""
    assert _foreign(b"NATS/1.0 404 No Messages\r\n\r\n") == "a server's answer: it has a status line"
    assert _foreign(b"NATS/1.0\r\nStatus: 404\r\n\r\n") == ""


@pytest.mark.skipif(version() < (2, 14), reason="nats-server knows them from 2.14 on")
async def test_acknowledgement_subjects_of_version_2_are_read(tmp_path: Path, names: Names) -> None:
    """A server that sends them (2.14 can, 2.15 was announced to) is read like any other."""
    async with Server(tmp_path, "feature_flags { js_ack_fc_v2: true }\n") as server:
        reader = await connect_reader(server.address(names.cluster), "test")
        await ensure(reader, names, SMALL, leave={names.bucket_stream})
        await put(reader, names, 1, 3)
        loss = Loss()
        loss.between(reader)
        source = JetStreamInput(reader, names)
        await source.start(None)
        assert bodies(await take(source, 3)) == [1, 2, 3]
        assert [reply.count(b".") >= 10 for reply in loss.passed] == [True] * 3
        await reader.close()


async def test_it_says_why_it_does_not_go_on(tmp_path: Path, names: Names) -> None:
    """Connected is not enough: while no consumer can be made the reason stands in `trouble`, and goes when one is."""
    config = """
    authorization { users: [
      { user: "admin", password: "p" }
      { user: "reader", password: "p", permissions: { publish: { deny: [%s] } } }
    ] }
    """
    async with Server(tmp_path, config % "") as server:
        admin = await connect_reader(Address(urls=(server.url.replace("//", "//admin:p@"),)), "admin")
        address = Address(urls=(server.url.replace("//", "//reader:p@"),))
        reader = await connect_reader(address, "test")
        await ensure(admin, names, SMALL, leave={names.bucket_stream})
        source = JetStreamInput(reader, names)
        await source.start(None)
        reading = asyncio.create_task(take(source, 1))
        await until(lambda: source.trouble == "", "the first heartbeat")

        path = server.folder / "nats-server.conf"
        path.write_text(server.configuration().replace("deny: []", 'deny: ["$JS.API.CONSUMER.>"]'), encoding="utf-8")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGHUP)
        await until(lambda: "Reloaded server configuration" in (server.folder / "nats-server.log").read_text(), "it")
        await delete_consumer(admin, names)
        await until(lambda: "CONSUMER.CREATE" in source.trouble, "the reason")
        assert reader.is_connected
        turns = source.turns
        await until(lambda: source.turns > turns, "another try")
        assert source.restarts == 1, "it was given up once, however often it is tried"

        path.write_text(server.configuration(), encoding="utf-8")
        os.kill(server.pid, signal.SIGHUP)
        await until(lambda: source.trouble == "", "the end of it")
        await put(admin, names, 1, 1)
        assert bodies(await reading) == [1]
        await reader.close()
        await admin.close()


async def test_only_what_has_come_proves_that_it_is_read(
    tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that can be made and not be asked: `trouble` says all along why, with the permission, and never ''."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("consumer.jetstream.pull.DOUBT_S", 0.5)
    denied = f"$JS.API.CONSUMER.MSG.NEXT.{names.input}"
    user = f'{{ user: "reader", password: "p", permissions: {{ publish: {{ deny: ["{denied}.>"] }} }} }}'
    config = f'authorization {{ users: [ {{ user: "admin", password: "p" }}, {user} ] }}\n'
    async with Server(tmp_path, config) as server:
        admin = await connect_reader(Address(urls=(server.url.replace("//", "//admin:p@"),)), "admin")
        address = Address(urls=(server.url.replace("//", "//reader:p@"),), cluster=names.cluster)
        reader = await connect_reader(address, "test")
        await ensure(admin, names, SMALL, leave={names.bucket_stream})
        source = JetStreamInput(reader, names)
        said: list[str] = []
        source.tell = lambda: said.append(source.trouble)
        await source.start(None)
        assert "nothing has come from it yet" in source.trouble
        reading = asyncio.create_task(source.batch())
        # A server that is slow to refuse is doubted before it has: then the reason comes with a later try.
        violation = f'permissions violation for publish to "{denied}.jobstate-'
        await until(lambda: sum(violation in one for one in said) >= 3, lambda: f"three doubts with the reason: {said}")
        assert all(said)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await reader.close()
        await admin.close()


async def test_what_is_refused_at_once_is_no_hot_loop(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long after the last consumer that lived: each try is refused without any waiting, and the pauses grow."""
    monkeypatch.setattr("consumer.jetstream.input.CALM_S", 0.0)
    await source.start(None)
    reading = asyncio.create_task(take(source, 1))
    await until(lambda: source.trouble == "", "the first heartbeat")
    tries = 0

    async def ask(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        if tries > 5:
            reading.cancel()
            await asyncio.sleep(0)  # a loop that never waits would never be cancelled
        raise UnreachableError("permissions violation")

    with monkeypatch.context() as patch:
        patch.setattr(reader, "ask", ask)
        began = asyncio.get_running_loop().time()
        await delete_consumer(reader, names)
        await until(lambda: tries >= 4, "four tries")
        assert asyncio.get_running_loop().time() - began > (0.25 + 0.5) / 2
    await put(reader, names, 1, 1)
    assert bodies(await reading) == [1]


async def test_it_is_proven_before_the_first_ordinary_heartbeat(
    source: JetStreamInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is in the input, and the ordinary heartbeats come after the test's deadline: the first one sooner."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 2 * DEADLINE_S)
    monkeypatch.setattr("consumer.jetstream.pull.EXPIRES_S", 8 * DEADLINE_S)
    monkeypatch.setattr("consumer.jetstream.pull.DOUBT_S", 4 * DEADLINE_S)
    proven = asyncio.Event()
    source.tell = proven.set
    await source.start(None)
    reading = asyncio.create_task(source.batch())
    async with asyncio.timeout(DEADLINE_S):
        await proven.wait()
    assert (source.trouble, source.restarts) == ("", 0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_it_moves_while_nothing_comes(source: JetStreamInput, monkeypatch: pytest.MonkeyPatch) -> None:
    """By heartbeats alone: whoever asks whether it lives need not wait for a report."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.2)
    await source.start(None)
    reading = asyncio.create_task(source.batch())
    for _ in range(3):
        turns = source.turns
        await until(lambda turns=turns: source.turns > turns, "a turn")  # type: ignore[misc]
    await until(lambda: source.trouble == "", "the first heartbeat")
    assert source.restarts == 0
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


FAR: Final = "2199-01-01T00:00:00Z"
"""Until then nobody waits."""


async def pause(reader: Connection, stream: str) -> None:
    """Have each consumer of *stream* deliver nothing from now on. It goes on sending heartbeats."""
    for name in json.loads(await api(reader, f"CONSUMER.NAMES.{stream}"))["consumers"]:
        answer = json.loads(
            await api(reader, f"CONSUMER.PAUSE.{stream}.{name}", b'{"pause_until":"%s"}' % FAR.encode())
        )
        assert answer["paused"]


async def test_a_consumer_that_delivers_nothing_of_what_waits_is_replaced(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends heartbeats, and entries wait: a new one brings each entry once, and the restart is counted."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("consumer.jetstream.pull.STALL_S", 0.3)
    troubles: list[str] = []
    source.tell = lambda: troubles.append(source.trouble)
    await source.start(None)
    await pause(reader, names.input)
    await put(reader, names, 1, 5)
    reading = asyncio.create_task(take(source, 5))
    await until(lambda: source.trouble == "", "a heartbeat")
    source.reaches(5)
    assert bodies(await reading) == [1, 2, 3, 4, 5]
    assert source.restarts == 1
    assert f"entries wait in {names.input}, and its consumer has sent heartbeats only" in troubles[-2]
    assert troubles[-1] == ""


async def test_a_new_consumer_that_is_no_better_is_no_end_of_the_trouble(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each one hangs: its heartbeats prove nothing while entries wait. The first entry does."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("consumer.jetstream.pull.STALL_S", 0.3)
    opens, mended = Pull.open, False

    async def hang(self: Pull, start: dict[str, Any], filters: tuple[str, ...] = ()) -> None:
        await opens(self, start if mended else {**start, "pause_until": FAR}, filters)

    monkeypatch.setattr(Pull, "open", hang)
    await put(reader, names, 1, 3)
    await source.start(None)
    reading = asyncio.create_task(take(source, 3))
    await until(lambda: source.restarts >= 1, "the first restart")
    seen: set[bool] = set()
    source.tell = lambda: seen.add(bool(source.trouble))
    await until(lambda: source.restarts >= 3, "more restarts")
    assert seen == {True}, "it never said that all is well"
    mended = True
    assert bodies(await reading) == [1, 2, 3]
    assert source.trouble == ""


async def test_heartbeats_alone_are_no_trouble_while_nothing_waits(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle, also where the stream's last entry was deleted, so that its last sequence never comes."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("consumer.jetstream.pull.STALL_S", 0.0)
    await put(reader, names, 1, 3)
    answer = json.loads(await api(reader, f"STREAM.MSG.DELETE.{names.input}", b'{"seq":3}'))
    assert answer["success"]
    await source.start(None)
    assert bodies(await take(source, 2)) == [1, 2]
    for waits in (4, 5):
        reading = asyncio.create_task(source.batch())
        turns = source.turns
        await until(lambda turns=turns: source.turns > turns + 12, "many heartbeats")  # type: ignore[misc]
        assert source.restarts == 0
        await put(reader, names, waits, waits)
        assert bodies(await reading) == [waits]
        await source.stop()
        await put(reader, names, 9, 9)
        last = json.loads(await api(reader, f"STREAM.INFO.{names.input}"))["state"]["last_seq"]
        await api(reader, f"STREAM.MSG.DELETE.{names.input}", b'{"seq":%d}' % last)
        await source.start(source.position)
        source.reaches(last)


async def test_an_entry_that_is_deleted_while_it_is_waited_for_costs_one_restart(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new consumer says that nothing waits, and is believed."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("consumer.jetstream.pull.STALL_S", 0.0)
    await source.start(None)
    await pause(reader, names.input)
    await put(reader, names, 1, 1)
    await api(reader, f"STREAM.MSG.DELETE.{names.input}", b'{"seq":1}')
    reading = asyncio.create_task(source.batch())
    source.reaches(1)
    await until(lambda: source.restarts == 1 and source.trouble == "", "the restart")
    turns = source.turns
    source.reaches(1)
    await until(lambda: source.turns > turns + 12, "many heartbeats")
    assert source.restarts == 1
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_the_time_in_which_nobody_reads_is_not_the_servers(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon held back for an hour, and heartbeats came: what waits comes, with no restart."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("consumer.jetstream.pull.EXPIRES_S", 2)
    await source.start(None)
    await put(reader, names, 1, 1)
    assert bodies(await take(source, 1)) == [1]
    pull = source._pull
    assert pull is not None
    source.reaches(2)
    assert pull._owed_since is not None
    pull._owed_since -= 3600
    await until(lambda: len(pull._arrived) > 6, "heartbeats that nobody reads")
    turns = source.turns
    reading = asyncio.create_task(source.batch())
    await until(lambda: source.turns > turns + 2, "that it is read again")
    await put(reader, names, 2, 2)
    assert bodies(await reading) == [2]
    assert source.restarts == 0


async def test_a_consumer_that_somebody_edited_to_leave_out_bodies_is_replaced(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """A report without its body is none: nothing is taken from that consumer, and a new one brings each entry whole."""
    await put(reader, names, 1, 3)
    await source.start(None)
    assert bodies(await take(source, 3)) == [1, 2, 3]
    await strip_bodies(reader, names.input)
    await put(reader, names, 4, 6)
    assert bodies(await take(source, 3)) == [4, 5, 6]
    assert (source.restarts, source.breaks) == (1, [])


async def test_a_producer_may_send_the_header_of_a_left_out_body(
    source: JetStreamInput, reader: Connection, names: Names
) -> None:
    """Nobody left out a body, so the empty one is delivered as it is, and the reader does not begin anew."""
    await source.start(None)
    await reader.publish(names.report(KEY), b"", headers={"Nats-Msg-Size": "7"})
    await put(reader, names, 2, 2)
    assert [delivery.data for delivery in await take(source, 2)] == [b"", b"2"]
    assert source.restarts == 0


async def test_who_stops_waiting_loses_no_entry_that_is_asked_about(
    source: JetStreamInput, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits may be cancelled while the stream is asked whether it has a body; without an answer we doubt."""
    await source.start(None)
    await put(reader, names, 1, 1)
    await reader.publish(names.report(KEY), b"", headers={"Nats-Msg-Size": "7"})
    pull, real, asking = Pull(reader, names.input), reader.ask, asyncio.Event()
    given: list[bytes] = []

    async def read() -> None:
        while True:
            given.extend(data for _, _, _, data, _ in await pull.batch())

    async def wait_for_ever(*_: object, **__: object) -> None:
        asking.set()
        await asyncio.Event().wait()

    async def give_up(*_: object, **__: object) -> None:
        raise UnreachableError("no answer")

    try:
        await pull.open({"deliver_policy": "all"})
        monkeypatch.setattr(reader, "ask", wait_for_ever)
        waiting = asyncio.create_task(read())
        async with asyncio.timeout(DEADLINE_S):
            await asking.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        monkeypatch.setattr(reader, "ask", give_up)
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(DoubtError, match=r"entry 2 of .* came without its body \(no answer\)"):
                await pull.batch()
            monkeypatch.setattr(reader, "ask", real)
            given += [data for _, _, _, data, _ in await pull.batch()]
        assert given == [b"1", b""]
    finally:
        await pull.close()
