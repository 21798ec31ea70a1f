"""What the writer makes of every answer, and of none. What a log must do at all is `tests/ports/log_suite.py`."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.core.appends import Answer, Append, Outcomes, ReadBack, Refused, Stored, Unanswered
from consumer.errors import ConnectionLostError, JobstateError, LogWentBackError
from consumer.jetstream.recovery import probe
from consumer.jetstream.topology import configs, ensure
from consumer.jetstream.writer import JetStreamWriter, open_writer
from consumer.nats.address import Address
from consumer.nats.api import Problem
from consumer.nats.connect import connect_reader, connect_writer
from consumer.nats.connection import Connection
from consumer.settings import Streams
from consumer.wire.subjects import Names, job_key
from tests.ports.log_suite import carry
from tests.server import Server, api
from tests.waiting import DEADLINE_S, given_time, until

MIB = 1 << 20
SMALL = Streams(log_max_bytes=8 * MIB, input_max_bytes=MIB, refused_max_bytes=MIB)


@pytest.fixture
async def writer(shared_server: Server, reader: Connection, names: Names) -> AsyncIterator[JetStreamWriter]:
    """A writer on the streams of a cluster of its own."""
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    writer = await open_writer(
        await connect_writer(shared_server.address(names.cluster), "log"), names, within_s=DEADLINE_S
    )
    yield writer
    await writer.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that the test may treat badly."""
    async with Server(tmp_path) as server:
        yield server


def update(names: Names, job: str = "j-1", *, token: int = 1, expected: int = 0, body: bytes = b"{}") -> Append:
    """An append of the job."""
    key = job_key("default", job)
    return Append(
        token=token, subject=names.state(key, "Running"), filter=names.states(key), expected=expected, body=body
    )


async def alter(reader: Connection, names: Names, **fields: object) -> None:
    """Change the log's configuration, as an operator may."""
    body = json.dumps({**configs(names, SMALL)[0], **fields}).encode()
    assert b"error" not in await api(reader, f"STREAM.UPDATE.{names.log}", body)


async def next_answers(writer: JetStreamWriter) -> list[tuple[int, Answer]]:
    """The next ones, in time."""
    async with asyncio.timeout(DEADLINE_S):
        return await writer.answers()


async def test_an_entry_is_stored_as_it_was_asked_for(
    writer: JetStreamWriter, reader: Connection, names: Names
) -> None:
    """Body byte by byte; the compare-and-set, `Jobstate-Input` and `traceparent` as headers, and no others."""
    key = job_key("a b", "j.1")
    ask = Append(
        token=1,
        subject=names.state(key, "Running"),
        filter=names.states(key),
        expected=0,
        body=bytes(range(256)) + b"\r\n",
        input="5@6",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert await carry(writer, ask) == [Stored(1)]
    found = await reader.jetstream().get_msg(names.log, 1)
    assert found.subject == f"{names.state_prefix}a=20b.j=2E1.running"
    assert found.data == ask.body
    assert found.headers == {
        "Nats-Expected-Last-Subject-Sequence": "0",
        "Nats-Expected-Last-Subject-Sequence-Subject": f"{names.state_prefix}a=20b.j=2E1.*",
        "Jobstate-Input": "5@6",
        "traceparent": ask.traceparent,
    }


async def test_a_server_that_says_nothing_leaves_it_unanswered(
    server: Server, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen: each ask comes back once, when its time is over; the late answers to them are nothing."""
    reader = await connect_reader(server.address(names.cluster), "test")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    writer = await open_writer(await connect_writer(server.address(names.cluster), "log"), names, within_s=0.3)
    server.freeze()
    await writer.send([update(names, "j-1", token=1), update(names, "j-2", token=2)])
    assert sorted(await next_answers(writer)) == [(1, Unanswered()), (2, Unanswered())]
    assert writer.in_flight == 0
    server.thaw()
    monkeypatch.setattr(writer, "_within_s", DEADLINE_S)
    # Both were stored all the same: the same again is told so, by its own number, and only once.
    assert await carry(writer, update(names, "j-1", token=1)) == [Refused(1)]
    assert await carry(writer, update(names, "j-2", token=2)) == [Refused(2)]
    await writer.close()
    await reader.close()


async def test_asks_sent_later_are_not_given_up_earlier(server: Server, names: Names) -> None:
    """Each has its own time: what is sent while somebody waits without anything open is seen too."""
    reader = await connect_reader(server.address(names.cluster), "test")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    writer = await open_writer(await connect_writer(server.address(names.cluster), "log"), names, within_s=0.4)
    loop = asyncio.get_running_loop()
    server.freeze()
    sent_at, given_up_at = dict[int, float](), dict[int, float]()

    async def collect() -> None:
        while len(given_up_at) < 2:
            for token, answer in await next_answers(writer):
                assert answer == Unanswered()
                given_up_at[token] = loop.time()

    collecting = asyncio.create_task(collect())
    await asyncio.sleep(0)
    for token in (1, 2):
        sent_at[token] = loop.time()
        await writer.send([update(names, f"j-{token}", token=token)])
        await asyncio.sleep(0.2)
    await collecting
    assert {token: given_up_at[token] - at < 0.4 for token, at in sent_at.items()} == {1: False, 2: False}
    server.thaw()
    await writer.close()
    await reader.close()


async def test_a_lost_connection_ends_it_after_the_answers_that_came(server: Server, names: Names) -> None:
    """What came counts; then `answers` and `send` raise, for ever: the owner makes another."""
    reader = await connect_reader(server.address(names.cluster), "test")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    connection = await connect_writer(server.address(names.cluster), "log")
    writer = await open_writer(connection, names)
    await writer.send([update(names)])
    await until(lambda: writer._arrived, "the answer")
    await server.kill()
    await until(lambda: connection.is_closed, "the end")
    assert await next_answers(writer) == [(1, Stored(1))]
    for _ in range(2):
        with pytest.raises(ConnectionLostError):
            await next_answers(writer)
        with pytest.raises(ConnectionLostError):
            await writer.send([update(names)])
    await reader.close()


async def test_whoever_waits_for_answers_learns_of_the_loss(server: Server, names: Names) -> None:
    """With and without anything open."""
    reader = await connect_reader(server.address(names.cluster), "test")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    for sent in (False, True):
        await server.start()
        writer = await open_writer(
            await connect_writer(server.address(names.cluster), "log"), names, within_s=DEADLINE_S
        )
        if sent:
            server.freeze()
            await writer.send([update(names)])
        waiting = asyncio.create_task(next_answers(writer))
        await asyncio.sleep(0)
        await server.kill()
        with pytest.raises(ConnectionLostError, match="is gone"):
            await waiting
    await reader.close()


async def test_nothing_that_was_sent_over_a_lost_connection_lands_later(server: Server, names: Names) -> None:
    """A new writer's log has what the server took before, and nothing after that."""
    reader = await connect_reader(server.address(names.cluster), "test")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    connection = await connect_writer(server.address(names.cluster), "log")
    writer = await open_writer(connection, names)
    assert await carry(writer, update(names)) == [Stored(1)]
    await server.kill()
    await until(lambda: connection.is_closed, "the end")
    with pytest.raises(ConnectionLostError):
        await writer.send([update(names, "late", token=2)])
    await server.start()
    again = await connect_writer(server.address(names.cluster), "log")
    assert (await probe(again, names)).last_seq == 1
    await again.close()
    await reader.close()


async def test_a_log_that_is_gone_is_noticed(writer: JetStreamWriter, reader: Connection, names: Names) -> None:
    """Nobody answers for a deleted stream: first that is told, then what it means; not waited for for ever."""
    await api(reader, f"STREAM.DELETE.{names.log}")
    await writer.send([update(names)])
    assert await next_answers(writer) == [(1, Unanswered("no responders"))]
    with pytest.raises(LogWentBackError, match=f"{names.log} is gone"):
        await next_answers(writer)


async def test_a_read_back_of_a_log_that_is_gone_says_so(
    writer: JetStreamWriter, reader: Connection, names: Names
) -> None:
    """The server knows no such stream."""
    await api(reader, f"STREAM.DELETE.{names.log}")
    await writer.send([ReadBack(token=1, filter=names.states(job_key("default", "j-1")))])
    with pytest.raises(LogWentBackError, match=f"{names.log} is gone"):
        await next_answers(writer)


async def test_a_log_that_was_made_anew_is_noticed(shared_server: Server, reader: Connection, names: Names) -> None:
    """Deleted, asked for while it is not there, and made again by somebody else: another `created`."""
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    created = (await probe(reader, names)).created
    connection = await connect_writer(shared_server.address(names.cluster), "log")
    writer = await open_writer(connection, names, created=created)
    await api(reader, f"STREAM.DELETE.{names.log}")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    # What a look finds that was begun while the stream was away.
    await connection.send_raw(writer._look(names.log))
    with pytest.raises(LogWentBackError, match="was deleted and made anew"):
        await next_answers(writer)
    await writer.close()


async def test_a_full_log_is_waited_for(writer: JetStreamWriter, reader: Connection, names: Names) -> None:
    """Nothing is forgotten to make room: unanswered, with the reason; when there is room, stored."""
    await alter(reader, names, max_bytes=2000)
    body = b"x" * 900
    answers = await carry(writer, *(update(names, f"j-{number}", token=number, body=body) for number in range(4)))
    assert [type(answer) for answer in answers] == [Stored, Unanswered, Unanswered, Unanswered]
    assert answers[3] == Unanswered("maximum bytes exceeded (10077)", full=True)
    await alter(reader, names, max_bytes=-1)
    assert await carry(writer, update(names, "j-3", token=9)) == [Stored(2)]


@pytest.mark.parametrize(
    ("fields", "ask", "said"),
    [
        ({"sealed": True}, {}, r"sealed.*\(10109\).*another cluster name"),
        ({"max_msg_size": 100}, {"body": b"x" * 200}, r"message size exceeds maximum.*\(10054\).*max_msg_size"),
        ({"allow_rollup_hdrs": False}, {"rollup": True}, r"\(10111\).*allow_rollup_hdrs"),
    ],
)
async def test_what_no_repeat_can_mend_ends_the_writer(
    *,
    writer: JetStreamWriter,
    reader: Connection,
    names: Names,
    fields: dict[str, Any],
    ask: dict[str, Any],
    said: str,
) -> None:
    """The error names the stream, what the server said, its code, and what to do."""
    await alter(reader, names, **fields)
    key = job_key("default", "j-1")
    filled = {"body": b"", "token": 1, "expected": 0, **ask}
    await writer.send([Append(subject=names.state(key, "Running"), filter=names.states(key), **filled)])
    with pytest.raises(JobstateError, match=rf"(?s){names.log} refuses an entry: .*{said}"):
        await next_answers(writer)


async def test_an_entry_beyond_the_servers_bound_is_never_sent(writer: JetStreamWriter, names: Names) -> None:
    """Body and headers together: sent, it would close this connection and every one after it."""
    with pytest.raises(JobstateError, match=r"an entry of \d+ bytes is more than the server takes .*max_payload"):
        await writer.send([update(names, body=b"x" * (MIB - 20))])
    assert await carry(writer, update(names, token=2)) == [Stored(1)]


async def test_what_the_user_may_not_do_is_the_reason(
    tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish that is not permitted is never answered: the reason is what the server said beside it."""
    config = """
    authorization { users: [
      { user: "admin", password: "p" }
      { user: "reader", password: "p", permissions: { publish: "$JS.API.>" } }
    ] }
    """
    async with Server(tmp_path, config) as server:
        admin = await connect_reader(Address(urls=(server.url.replace("//", "//admin:p@"),)), "test")
        await ensure(admin, names, SMALL, leave={names.bucket_stream})
        address = Address(urls=(server.url.replace("//", "//reader:p@"),))
        writer = await open_writer(await connect_writer(address, "log"), names)

        async def attempt(within_s: float) -> str:
            monkeypatch.setattr(writer, "_within_s", within_s)
            await writer.send([update(names)])
            ((_, answer),) = await next_answers(writer)
            assert isinstance(answer, Unanswered)
            return answer.why

        why = await given_time(attempt, lambda why: why != "timeout")
        assert "permissions violation for publish" in why
        assert names.prefix in why
        server.freeze()
        await writer.send([ReadBack(token=2, filter=names.states(job_key("default", "j-1")))])
        assert await next_answers(writer) == [(2, Unanswered("timeout"))], "that was allowed: it is no reason"
        server.thaw()
        await writer.close()
        await admin.close()


@pytest.mark.parametrize(
    ("code", "err_code", "description", "kind"),
    [
        (400, 10164, "wrong last sequence", "Busy"),
        (409, 10158, "message id in process", "Busy"),
        (429, 10167, "too many requests", "Unanswered"),
        (503, 10008, "JetStream system temporarily unavailable", "Unanswered"),
        (503, 10077, "maximum bytes exceeded", "Unanswered"),
        (503, 10023, "insufficient resources", "Unanswered"),
        (400, 10002, "resource limits exceeded for account", "Unanswered"),
    ],
)
async def test_errors_that_pass_are_no_faults(
    writer: JetStreamWriter, code: int, err_code: int, description: str, kind: str
) -> None:
    """Those that one server alone does not show (design/nats.md 2): by `err_code`, whatever the class says."""
    answer = writer._refusal("S", Problem(code=code, err_code=err_code, description=description))
    assert type(answer).__name__ == kind


async def test_a_refusal_without_its_number_is_a_fault(writer: JetStreamWriter) -> None:
    """What the lanes do next depends on the number: a server that words it differently is not guessed at."""
    with pytest.raises(JobstateError, match="without the number"):
        writer._refusal("S", Problem(code=400, err_code=10071, description="wrong last sequence"))


async def test_thousands_are_in_flight_and_each_is_answered_once(writer: JetStreamWriter, names: Names) -> None:
    """Megabytes at once, over more than nats-py would put aside: back pressure, no loss."""
    asks = [update(names, f"j-{number}", token=number, body=b"x" * 1000) for number in range(4000)]
    answers = await carry(writer, *asks)
    assert {answer.number for answer in answers if isinstance(answer, Stored)} == set(range(1, 4001))
    assert writer.in_flight == 0


async def test_what_strangers_send_to_the_inbox_is_nothing(
    writer: JetStreamWriter, reader: Connection, names: Names
) -> None:
    """No token of ours, no number at all, or an answer to nothing."""
    for token in ("999", "x", "-1", "\N{SUPERSCRIPT TWO}"):
        await reader.publish(f"{writer._inbox}{token}", b'{"seq": 1}')
    await reader.flush()
    assert await carry(writer, update(names)) == [Stored(1)]


@pytest.mark.parametrize("what", ["a look", "a whole read-back"])
async def test_answers_that_came_before_the_loss_are_given(
    shared_server: Server, reader: Connection, names: Names, what: str
) -> None:
    """Something of what arrived has to be asked on, and the connection is gone: what else arrived is not lost."""
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    connection = await connect_writer(shared_server.address(names.cluster), "log")
    writer = await open_writer(connection, names)
    assert await carry(writer, update(names)) == [Stored(1)]
    if what == "a look":
        await api(reader, f"STREAM.DELETE.{names.refused}")
        other = update(names, "x", token=8)
        asked: Append | ReadBack = msgspec.structs.replace(other, subject=names.refused_subjects[0], stream="refused")
        asked = msgspec.structs.replace(asked, subject=names.undecodable("empty", "y"))
        expected: list[tuple[int, Answer]] = [(8, Unanswered("no responders"))]
    else:
        asked = ReadBack(token=8, filter=names.states(job_key("default", "j-1")), whole=True)
        expected = []
    await writer.send([asked, update(names, "j-2", token=9)])
    await until(lambda: len(writer._arrived) == 2, "both answers")
    await connection.close()
    assert sorted(await next_answers(writer)) == [*expected, (9, Stored(2))]
    with pytest.raises(ConnectionLostError):
        await next_answers(writer)


async def test_each_append_that_was_sent_comes_to_one_outcome(
    server: Server, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By stream: stored, refused, full, unanswered and lost are counted, each once, and their sum is what was sent."""
    reader = await connect_reader(server.address(names.cluster), "test")
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    outcomes = Outcomes()
    connection = await connect_writer(server.address(names.cluster), "log")
    writer = await open_writer(connection, names, within_s=DEADLINE_S, outcomes=outcomes)
    refused = Append(
        token=3,
        subject=names.undecodable("empty", "y"),
        filter=names.undecodable("*", "y"),
        expected=0,
        body=b"",
        stream="refused",
    )
    await carry(writer, update(names), update(names, token=2), refused)
    assert outcomes == {("log", "stored"): 1, ("log", "refused"): 1, ("refused", "stored"): 1}
    await alter(reader, names, max_bytes=500)
    await carry(writer, update(names, "j-2", token=4, body=b"x" * 900))
    assert outcomes["log", "full"] == 1
    server.freeze()
    monkeypatch.setattr(writer, "_within_s", 0.3)
    await carry(writer, update(names, "j-3", token=5))
    monkeypatch.setattr(writer, "_within_s", DEADLINE_S)
    assert outcomes["log", "unanswered"] == 1
    await writer.send(
        [update(names, "j-4", token=6), ReadBack(token=7, filter=names.states(job_key("default", "j-4")))]
    )
    await writer.close()
    await writer.close()
    server.thaw()
    assert outcomes["log", "lost"] == 1
    assert outcomes.total() == 6
    await reader.close()
