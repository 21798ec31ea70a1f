"""The mends of design/nats.md 3, one by one: nothing that anybody may send makes a connection deaf or dead."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from consumer.errors import (
    ConnectionLostError,
    JobstateError,
    RefusedError,
    ServerError,
    SettingsError,
    UnreachableError,
)
from consumer.faults import Denied
from consumer.jetstream.server import find_binary
from consumer.nats import faults
from consumer.nats.address import Address
from consumer.nats.client import BROKEN_HEADERS
from consumer.nats.compat import check_client
from consumer.nats.connect import connect_reader, connect_writer
from consumer.nats.connection import FORBIDDEN_MAX, Connection
from consumer.nats.outage import Outage
from consumer.nats.require import require_payload, require_server
from consumer.settings import load
from consumer.wire.subjects import Names
from tests.bacalhau.servers import OUT_OF_TIME, certificate, certificate_of
from tests.loopback import free_port, needs_ipv6
from tests.server import Server, pub, speak
from tests.waiting import DEADLINE_S, given_time, until

LONG_S: Final = 2 * DEADLINE_S
"""A limit that no test waits for."""

Connect = Callable[..., Awaitable[Connection]]


class BareServer(Server):
    """Without JetStream."""

    def configuration(self) -> str:
        return "".join(
            line for line in super().configuration().splitlines(keepends=True) if not line.startswith("jetstream")
        )


HOSTILE = {
    "subject": pub(b"hostile.\xff\xfe", b"x"),
    "reply": pub(b"hostile.a", b"x", reply=b"answer.\xff"),
    "no NATS/1.0": pub(b"hostile.a", b"x", headers=b"garbage that is long enough\r\n\r\n"),
    "short": pub(b"hostile.a", b"x", headers=b"x"),
    "no line end": pub(b"hostile.a", b"x", headers=b"NATS/1.0"),
    "status": pub(b"hostile.a", b"x", headers=b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
    "status words": pub(b"hostile.a", b"x", headers=b"NATS/1.0 404 \xff\r\n\r\n"),
    "name": pub(b"hostile.a", b"x", headers=b"NATS/1.0\r\n\xff: \xff\r\n\r\n"),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that the test may treat badly."""
    async with Server(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def fake_server(version: str, level: int | None) -> AsyncIterator[Address]:
    """What says that it is nats-server *version*, and answers one question: which level JetStream's API has."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": version, "headers": True, "max_payload": 1024}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := (await reader.readline()).split():
            if line[0] == b"PING":
                writer.write(b"PONG\r\n")
            elif line[0] == b"PUB":
                body = json.dumps({"api": {} if level is None else {"level": level}}).encode()
                writer.write(b"MSG %s 1 %d\r\n%s\r\n" % (line[2], len(body), body))
        writer.close()

    fake = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with fake:
        yield Address(urls=(f"nats://127.0.0.1:{fake.sockets[0].getsockname()[1]}",))


async def test_hostile_bytes_do_not_end_the_reader(shared_server: Server, reader: Connection) -> None:
    """Each of them ends nats-py's reader for good; here each arrives, and so does what comes after."""
    found: list[str] = []

    async def take(message: object) -> None:
        found.append(message.subject)  # type: ignore[attr-defined]

    await reader.subscribe("hostile.*", cb=take)
    await reader.flush()
    for number, command in enumerate(HOSTILE.values()):
        await speak(shared_server, command, pub(b"hostile.ok%d" % number))
        await until(lambda number=number: f"hostile.ok{number}" in found, f"what follows {list(HOSTILE)[number]}")  # type: ignore[misc]
    assert len(found) == 2 * len(HOSTILE)
    assert found[0] == "hostile.\udcff\udcfe"
    assert reader.deaf == 0
    assert reader.connects == 1


async def test_a_broken_header_block_is_marked(shared_server: Server, reader: Connection) -> None:
    """Whoever gets such a message sees that its headers are none."""
    subscription = await reader.subscribe("marked")
    await reader.flush()
    await speak(shared_server, pub(b"marked", b"body", headers=b"x"))
    message = await subscription.next_msg(timeout=DEADLINE_S)
    assert message.data == b"body"
    assert message.headers == {BROKEN_HEADERS: ""}


async def test_a_sink_gets_the_bytes_as_they_came(shared_server: Server, reader: Connection) -> None:
    """Subject, reply, body and header block, undecoded, in order."""
    found: list[tuple[bytes, bytes, bytes, bytes | None]] = []
    subscription = await reader.listen("raw.>", lambda *parts: found.append(parts))
    await reader.flush()
    status = b"NATS/1.0 404\r\n\r\n"
    await speak(shared_server, pub(b"raw.\xff", b"1", reply=b"to"), pub(b"raw.b", b"2", headers=status))
    await until(lambda: len(found) == 2, "two messages")
    assert found == [(b"raw.\xff", b"to", b"1", None), (b"raw.b", b"", b"2", status)]
    await reader.unlisten(subscription)
    await speak(shared_server, pub(b"raw.c"))
    await reader.flush()
    assert len(found) == 2


async def test_an_error_of_the_server_does_not_close_a_reader(reader: Connection) -> None:
    """A message beyond `max_payload` makes the server say -ERR and hang up; nats-py would close for good."""
    found: list[bytes] = []
    await reader.listen("after", lambda _subject, _reply, data, _headers: found.append(data))
    await reader.send_raw(pub(b"x", b"y" * (reader.max_payload + 1)))
    await until(lambda: reader.connects >= 2 and reader.is_connected, "the reconnect")
    await reader.publish("after", b"all")
    await until(lambda: found == [b"all"], "a message over the old subscription")


async def test_a_reader_whose_task_ends_is_made_again(reader: Connection) -> None:
    """Cancelled or raised out of: `is_connected` would stay true and nothing would ever be read."""
    for times in (1, 2):
        if times == 1:
            assert reader._reading_task is not None
            reader._reading_task.cancel()
        else:

            def fail(*_: object) -> None:
                raise RuntimeError("a sink must not raise")

            await reader.listen("fail", fail)
            await reader.publish("fail")
        await until(lambda times=times: reader.connects > times, "the reconnect")  # type: ignore[misc]
        assert reader.deaf == times
    await reader.flush()


async def test_a_writer_whose_task_ends_ends(shared_server: Server) -> None:
    """Its owner is told, and replaces it."""
    told: list[bool] = []
    for name in ("_reading_task", "_flusher_task"):
        writer = await connect_writer(shared_server.address(), "test")
        writer.watch(lambda writer=writer: told.append(writer.is_connected))  # type: ignore[misc]
        getattr(writer, name).cancel()
        await until(lambda writer=writer: writer.is_closed, f"the end after that of {name}")  # type: ignore[misc]
        assert told[-1] is False
        with pytest.raises(ConnectionLostError):
            await writer.send_raw(b"PING\r\n")


async def test_a_reader_comes_back_after_a_restart_and_a_kill(server: Server) -> None:
    """For ever, and it says so each time."""
    changes: list[bool] = []
    reader = await connect_reader(server.address(), "test")
    reader.watch(lambda: changes.append(reader.is_connected))
    await server.kill()
    await until(lambda: reader.is_reconnecting, "the loss")
    await server.start()
    await until(lambda: reader.connects >= 2, "the reconnect")
    assert changes[0] is False
    assert changes[-1] is True
    await reader.close()


async def test_a_request_does_not_outlive_its_connection(server: Server) -> None:
    """nats-py would let it wait for its whole time; and none is put aside to land after a reconnect."""
    reader = await connect_reader(server.address(), "test")
    server.freeze()
    asking = asyncio.create_task(reader.ask("$JS.API.INFO", b"", dict, within_s=DEADLINE_S))
    await until(lambda: reader._resp_map, "the request")
    await server.kill()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(UnreachableError, match=r"\$JS.API.INFO"):
            await asking
    await until(lambda: not reader.is_connected, "the loss")
    with pytest.raises(UnreachableError, match="the connection is down"):
        await reader.ask("$JS.API.INFO", b"", dict)
    await reader.close()


async def test_a_writer_ends_with_its_connection(server: Server) -> None:
    """It never reconnects: what it had put aside would land later."""
    writer = await connect_writer(server.address(), "test")
    await server.kill()
    await until(lambda: writer.is_closed, "the end")
    await server.start()
    with pytest.raises(ConnectionLostError, match="is down"):
        await writer.send_raw(pub(b"late"))
    assert writer.connects == 1


async def test_too_many_waiting_messages_are_counted(reader: Connection) -> None:
    """nats-py drops them and tells only its error callback."""
    subscription = await reader.subscribe("slow", pending_msgs_limit=3)
    for _ in range(10):
        await reader.publish("slow", b"x")
    await reader.flush()
    assert reader.slow == 7
    assert subscription.pending_msgs == 3
    assert reader.deaf == 0


async def test_a_frozen_server_neither_swallows_a_cancellation_nor_a_close(server: Server) -> None:
    """Megabytes go to a server that takes nothing: the sender waits, can be cancelled, and the connection closed."""
    writer = await connect_writer(server.address(), "test")
    server.freeze()

    async def send() -> None:
        while True:
            await writer.send_raw(pub(b"x", b"y" * 500_000))

    sending = asyncio.create_task(send())
    await until(lambda: writer._no_room, "back pressure")
    sending.cancel()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(asyncio.CancelledError):
            await sending
        await writer.close()
    server.thaw()


async def test_whoever_waits_for_room_learns_that_the_connection_is_gone(server: Server) -> None:
    """Back pressure ends in an error when the server is killed, not in waiting for ever."""
    writer = await connect_writer(server.address(), "test")
    server.freeze()

    async def send() -> None:
        while True:
            await writer.send_raw(pub(b"x", b"y" * 500_000))

    sending = asyncio.create_task(send())
    await until(lambda: writer._no_room, "back pressure")
    await server.kill()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ConnectionLostError):
            await sending


async def test_a_silent_server_is_noticed_by_pings(server: Server) -> None:
    """Two pings without an answer, and the writer ends, though its socket is full and stays open."""
    writer = await connect_writer(server.address(), "test")
    assert writer.options["ping_interval"] == 5
    assert writer.options["max_outstanding_pings"] == 2
    server.freeze()
    sending = asyncio.create_task(writer.send_raw(pub(b"x", b"y" * 20_000_000)))
    await until(lambda: writer._no_room, "back pressure")
    # What the ping task does when two are unanswered.
    async with asyncio.timeout(DEADLINE_S):
        await writer._process_op_err(nats.errors.StaleConnectionError())
        with pytest.raises(ConnectionLostError):
            await sending
    assert writer.is_closed
    server.thaw()


async def test_user_and_password_come_from_the_settings(tmp_path: Path) -> None:
    """The password in a file or in the environment: the server lets us in; nothing shows it; another is refused."""
    file = tmp_path / "password"
    file.write_text("two words\n")
    file.chmod(0o600)
    config = 'authorization { users: [{ user: "u", password: "two words" }] }\n'
    async with Server(tmp_path / "nats", config) as server:
        for password in ({"NATS__PASSWORD": "two words"}, {"NATS__PASSWORD_FILE": str(file)}, {"NATS__PASSWORD": "no"}):
            given = {"NATS__URL": server.url, "NATS__USER": "u"} | password
            settings = load(None, {f"JOBSTATE_{name}": text for name, text in given.items()})
            address = Address.of(settings.nats, "main")
            assert "words" not in f"{address} {address!r} {settings}"
            if address.password == "no":
                with pytest.raises(ServerError, match=r"nats\.password_file"):
                    await connect_writer(address, "test", within_s=DEADLINE_S)
            else:
                connection = await connect_writer(address, "test", within_s=DEADLINE_S)
                assert connection.is_connected
                await connection.close()


async def test_a_refused_password_is_refused_at_start_and_never_shown(tmp_path: Path) -> None:
    """nats-py would try it for ever; and no error, repr or log line shows a token."""
    async with Server(tmp_path, 'authorization { token: "sesame-1" }\n') as server:
        address = server.address(token="wrong-canary")
        for connect in (connect_reader, connect_writer):
            with pytest.raises(ServerError, match=r"refuses us .*uthorization") as refused:
                await connect(address, "test")
            assert "canary" not in str(refused.value)
        assert "canary" not in repr(address)
        by_url = Address(urls=(server.url.replace("//", "//sesame-1@"),))
        assert "sesame" not in str(by_url)
        for good in (server.address(token="sesame-1"), by_url):
            connection = await connect_reader(good, "test")
            await connection.close()


async def test_no_server_is_given_up_in_time() -> None:
    """Within the time that was given, with what failed and what to look at."""
    address = Address(urls=("nats://127.0.0.1:1",))

    async def attempt(within_s: float) -> str:
        with pytest.raises(UnreachableError) as caught:
            await connect_writer(address, "test", within_s=within_s)
        assert f"within {within_s:g} s" in str(caught.value)
        return str(caught.value)

    async with asyncio.timeout(DEADLINE_S):
        said = await given_time(attempt, lambda said: "refused" in said)
    assert re.match(r"no connection to nats://127.0.0.1:1 within [\d.]+ s .connection refused.: is the server up", said)


async def test_what_a_user_may_not_do_is_named(tmp_path: Path) -> None:
    """The server's refusal is told, the connection lives on, and the request's error says it.

    Of no other subject, and not after the next connection.
    """
    config = 'authorization { users: [{ user: "u", password: "p", permissions: { publish: "good" } }] }\n'
    async with Server(tmp_path, config) as server:
        reader = await connect_reader(Address(urls=(server.url.replace("//", "//u:p@"),)), "test")
        with pytest.raises(UnreachableError, match="permissions violation"):
            await reader.ask("bad", b"", dict, within_s=DEADLINE_S)
        denied = reader.forbidden("bad")
        assert denied is not None
        assert denied.denied == Denied("publish", "bad")
        assert reader.connects == 1

        with pytest.raises(UnreachableError) as other:
            await reader.ask("good", b"", dict, within_s=0.1)
        assert "violation" not in str(other.value)
        assert not reader.forbidden("good")

        await reader._process_op_err(nats.errors.Error("lost"))
        await until(lambda: reader.connects >= 2, "the next connection")
        assert not reader.forbidden("bad")
        await reader.close()


async def test_nobody_waits_for_an_answer_that_is_forbidden(tmp_path: Path) -> None:
    """The request or its answers: the refusal ends it, long before its time is over, and what may be asked is not."""
    for denied in ('publish: "good"', 'subscribe: { deny: "_INBOX_jobstate_main.>" }'):
        config = f'authorization {{ users: [{{ user: "u", password: "p", permissions: {{ {denied} }} }}] }}\n'
        folder = tmp_path / denied.partition(":")[0]
        folder.mkdir()
        async with Server(folder, config) as server:
            reader = await connect_reader(Address(urls=(server.url.replace("//", "//u:p@"),)), "test")
            async with asyncio.timeout(DEADLINE_S):
                for _ in range(2):
                    with pytest.raises(UnreachableError, match="permissions violation") as error:
                        await reader.ask("bad", b"", dict, within_s=2 * DEADLINE_S)
                    assert "no answer" not in str(error.value)
            assert not reader._asking
            await reader.close()


@pytest.mark.parametrize("connect", [connect_reader, connect_writer])
async def test_a_connection_that_may_not_hear_is_made_anew(
    tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server drops the subscription for good when a reload takes the permission away.

    A reader heals when it is given back, though no connection was lost; a writer ends, and its owner replaces it.
    """
    monkeypatch.setattr("consumer.nats.connection.RENEW_FIRST_S", 0.05)
    monkeypatch.setattr("consumer.nats.connection.RENEW_MAX_S", 0.2)
    denied = 'subscribe: { deny: "_INBOX_jobstate_main.>" }'
    user = '{{ user: "u", password: "p", permissions: {{ publish: ">", {} }} }}'
    config = f"authorization {{ users: [{user.format('')}] }}\n"
    async with Server(tmp_path, config) as server:
        connection = await connect(Address(urls=(server.url.replace("//", "//u:p@"),)), "test")
        assert (await connection.ask("$JS.API.INFO", b"", dict))["type"].endswith("account_info_response")
        await server.reload(server.configuration().replace(user.format(""), user.format(denied)))
        if connect is connect_writer:
            await until(lambda: connection.is_closed, "the end of the writer")
            assert connection.deaf == 1
            return
        await until(lambda: connection.deaf >= 3 and connection.is_connected, "the third try")
        # Of a connection that stands now: between two of them nobody is asked.
        await until(
            lambda: connection.is_connected and connection.forbidden(connection._answers),
            "the refusal, told of this connection too",
        )
        with pytest.raises(UnreachableError, match='permissions violation for subscription to "_INBOX_jobstate_main'):
            await connection.ask("$JS.API.INFO", b"", dict)

        await server.reload(server.configuration())
        await until(lambda: connection.is_connected and not connection._forbidden, "what was given back")
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(UnreachableError):
                    await connection.ask("$JS.API.INFO", b"", dict)
                    break
                await asyncio.sleep(0.01)
        assert connection.connects == connection.deaf + 1
        await connection.close()


async def test_a_connection_on_which_nothing_is_answered_is_made_anew(
    reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: unanswered for long enough in a row, and only in a row."""
    monkeypatch.setattr("consumer.nats.connection.RENEW_FIRST_S", 0.01)
    await reader.subscribe("silent")

    async def ask_in_vain() -> None:
        with pytest.raises(UnreachableError):
            await reader.ask("silent", b"", dict, within_s=0.02)

    monkeypatch.setattr("consumer.nats.connection.DEAF_S", DEADLINE_S)
    rows = []
    for asking in (ask_in_vain(), reader.ask("$JS.API.INFO", b"", dict)):
        await asking
        rows.append(reader._unanswered_since is not None)
    assert rows == [True, False], "an answer ends the row"
    monkeypatch.setattr("consumer.nats.connection.DEAF_S", 0.2)
    async with asyncio.timeout(DEADLINE_S):
        while not reader.deaf:
            await ask_in_vain()
    await until(lambda: reader.connects >= 2 and reader.is_connected, "another connection")
    await reader.ask("$JS.API.INFO", b"", dict)


async def test_an_answer_that_came_while_we_were_stopped_counts(
    reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour passes at once, as for a process that is stopped, after the request: its answer is taken all the same."""
    loop = asyncio.get_running_loop()
    stopped_s, time = 0.0, loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + stopped_s)

    async def answer(message: Msg) -> None:
        nonlocal stopped_s
        stopped_s += 3600.0
        await message.respond(b'"in time"')

    await reader.subscribe(names.prefix, cb=answer)
    assert await reader.ask(names.prefix, b"", str, within_s=LONG_S) == "in time"


async def test_what_would_make_it_anew_ends_with_it(reader: Connection) -> None:
    """Closed while it pauses: nothing is left to run."""
    await reader.hear_error(nats.errors.Error('nats: permissions violation for subscription to "_INBOX_jobstate_x"'))
    inbox = f"{reader.address.inbox_prefix}.x".lower()
    await reader.hear_error(nats.errors.Error(f'nats: permissions violation for subscription to "{inbox}"'))
    renewing = reader._renewing
    assert renewing is not None
    await reader.close()
    await asyncio.wait((renewing,))
    assert renewing.cancelled()
    assert reader.deaf == 0


async def test_of_what_is_forbidden_no_more_is_remembered_than_the_bound(reader: Connection) -> None:
    """A daemon that may not write is told so for each job."""
    for number in range(FORBIDDEN_MAX + 1):
        await reader.hear_error(nats.errors.Error(f'nats: permissions violation for publish to "job.{number}"'))
    assert len(reader._forbidden) == 1
    assert reader.forbidden(f"job.{FORBIDDEN_MAX}") is not None
    assert reader.forbidden(f"job.{FORBIDDEN_MAX - 1}") is None


async def test_a_cancellation_that_comes_with_the_answer_is_heard(
    reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.wait_for` of Python 3.11, in which nats-py waits, swallows it: a loop that asks would go on."""
    request = reader.request

    async def swallow(subject: str, body: bytes, **_: object) -> Msg:
        answer = await request(subject, body)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return answer

    monkeypatch.setattr(reader, "request", swallow)
    asking = asyncio.ensure_future(reader.ask("$JS.API.INFO", b"", dict))
    await asyncio.wait((asking,))
    assert asking.cancelled()


async def why_not(address: Address, words: str) -> str:
    """Why nobody can be reached there, with enough time to find out *words*."""

    async def attempt(within_s: float) -> str:
        with pytest.raises(UnreachableError) as caught:
            await connect_reader(address, "test", within_s=within_s)
        return str(caught.value)

    return await given_time(attempt, lambda said: words in said)


async def test_tls_that_is_not_offered_ends_before_the_token_is_sent(shared_server: Server) -> None:
    """A server without TLS gets no token from somebody who asked for TLS."""
    address = Address(urls=(shared_server.url.replace("nats:", "tls:"),), token="t")
    said = await why_not(address, "offers no TLS")
    assert "offers no TLS" in said


@pytest.mark.parametrize("first", [False, True])
async def test_tls_before_or_after_the_server_has_spoken(tmp_path: Path, *, first: bool) -> None:
    """A server with `handshake_first` is spoken to with `nats.tls_first`; without it the error names that setting."""
    cert, key = certificate(tmp_path, "127.0.0.1")
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}", handshake_first: {str(first).lower()} }}\n'
    async with Server(tmp_path / "nats", config) as server:
        given = {"JOBSTATE_NATS__URL": server.url, "JOBSTATE_NATS__TLS_CA": str(cert)}
        right = load(None, given | {"JOBSTATE_NATS__TLS_FIRST": str(first).lower()})
        connection = await connect_reader(Address.of(right.nats, "main"), "test")
        await require_server(connection)
        await connection.close()
        wrong = load(None, given | {"JOBSTATE_NATS__TLS_FIRST": str(not first).lower()})
        assert "nats.tls_first" in await why_not(Address.of(wrong.nats, "main"), "nats.tls_first")


@pytest.mark.parametrize("fault", OUT_OF_TIME)
async def test_a_certificate_that_is_not_valid_now_has_its_own_next_step(tmp_path: Path, fault: str) -> None:
    """Expired, or valid only later: nothing is said of authority and host name, which are right."""
    cert, key = certificate_of(tmp_path / "tls", OUT_OF_TIME[fault])
    async with Server(tmp_path / "nats", f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\n') as server:
        given = {"JOBSTATE_NATS__URL": server.url, "JOBSTATE_NATS__TLS_CA": str(cert)}
        said = await why_not(
            Address.of(load(None, given).nats, "main"), "valid" if fault == faults.TOO_EARLY else "expired"
        )
    assert (
        ("certificate has expired" in said) == ("renew the server's certificate" in said) == (fault == faults.EXPIRED)
    )
    assert ("not yet valid" in said) == ("compare both clocks" in said) == (fault == faults.TOO_EARLY)
    assert "tls_ca" not in said


@pytest.mark.parametrize(
    ("bacalhau_url", "is_named"),
    [("{url}", True), ("nats://localhost:{port},nats://b:4222", True), ("", False), ("nats://127.0.0.1:1", False)],
)
async def test_who_is_refused_by_bacalhaus_own_server_is_told_so(
    tmp_path: Path, bacalhau_url: str, *, is_named: bool
) -> None:
    """nats.url and bacalhau.url name one host and port: our token is not what is wrong there."""
    async with Server(tmp_path, 'authorization { token: "bacalhaus" }\n') as server:
        settings = load(None, {"JOBSTATE_NATS__URL": server.url})
        given = bacalhau_url.format(url=server.url, port=server.url.rpartition(":")[2])
        with pytest.raises(ServerError) as refused:
            await connect_writer(Address.of(settings.nats, "main", bacalhau_url=given), "test")
    assert ("that is Bacalhau's own server" in str(refused.value)) == is_named
    assert ("check nats.token_file" in str(refused.value)) != is_named


async def test_answers_come_where_permissions_can_name_them(reader: Connection, names: object) -> None:
    """The inbox carries the cluster's name."""
    assert reader.new_inbox().startswith(f"_INBOX_jobstate_{names.cluster}.")  # type: ignore[attr-defined]


async def test_the_real_server_is_new_enough(reader: Connection) -> None:
    """2.11 or later, with JetStream: nothing is raised."""
    await require_server(reader)


@pytest.mark.parametrize("version", ["2.10.26", "1.4.1", "nonsense", "2.9.0-beta.1"])
async def test_an_old_server_is_refused_with_its_version(version: str) -> None:
    """What was found, what is needed, why, and what to do."""
    async with fake_server(version, 1) as address:
        connection = await connect_reader(address, "test")
        with pytest.raises(ServerError, match=rf"nats-server {version}; 2\.11 or later is needed .*upgrade"):
            await require_server(connection)
        await connection.close()


@pytest.mark.parametrize(("version", "level"), [("2.11.0", 1), ("2.15.1", 5), ("v3.0.0", 9)])
async def test_a_newer_server_is_taken(version: str, level: int) -> None:
    """From 2.11 on."""
    async with fake_server(version, level) as address:
        connection = await connect_reader(address, "test")
        await require_server(connection)
        await connection.close()


async def test_an_old_server_elsewhere_in_the_cluster_is_refused() -> None:
    """The one that we are connected to is new, the leader of the cluster is not: it has no API level."""
    async with fake_server("2.11.0", None) as address:
        connection = await connect_reader(address, "test")
        with pytest.raises(ServerError, match=r"a server of the cluster .*API level 0, needed is 1"):
            await require_server(connection)
        await connection.close()


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    """Off altogether, or not for this account: the error says what to do."""
    config = """accounts: { A: { users: [{ user: "a", password: "p" }] } }\n"""
    async with Server(tmp_path, config) as server:
        connection = await connect_reader(Address(urls=(server.url.replace("//", "//a:p@"),)), "test")
        with pytest.raises(ServerError, match="has no JetStream for us"):
            await require_server(connection)
        await connection.close()


async def test_jetstream_that_is_forbidden_is_not_off(tmp_path: Path) -> None:
    """What is missing is a permission: nobody is sent to start a server with JetStream."""
    config = 'jetstream {}\nauthorization { users: [{ user: "u", password: "p", permissions: { publish: "good" } }] }\n'
    async with Server(tmp_path, config) as server:
        connection = await connect_reader(Address(urls=(server.url.replace("//", "//u:p@"),)), "test")
        with pytest.raises(ServerError, match=r"permissions violation .*grant this user what docs/") as caught:
            await require_server(connection)
        assert "-js" not in str(caught.value)
        await connection.close()


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (None, True),
        ({"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}, True),
        ({"code": 503, "err_code": 10076, "description": "JetStream not enabled"}, False),
        ({"code": 503, "err_code": 10039, "description": "JetStream not enabled for account"}, False),
    ],
)
async def test_jetstream_that_does_not_answer_is_waited_for(
    tmp_path: Path, answer: dict[str, object] | None, *, wait: bool
) -> None:
    """Silent, as a cluster without a leader, or unavailable for now: worth trying again. Not enabled: not."""
    async with BareServer(tmp_path) as server:
        api = await connect_reader(server.address(), "its JetStream")

        async def reply(message: Msg) -> None:
            if answer is not None:
                await message.respond(json.dumps({"error": answer}).encode())

        await api.subscribe("$JS.API.INFO", cb=reply)
        await api.flush()
        connection = await connect_reader(server.address(), "test")
        with pytest.raises(ServerError) as caught:
            await require_server(connection, within_s=0.2 if answer is None else DEADLINE_S)
        assert isinstance(caught.value, UnreachableError) == wait
        assert ("does not answer now: it may have no leader" in str(caught.value)) == wait
        assert "-js" not in str(caught.value)
        await connection.close()
        await api.close()


async def test_a_server_without_any_jetstream_is_refused(tmp_path: Path) -> None:
    """Nobody listens there, and the server says so: how to start it."""
    async with BareServer(tmp_path) as server:
        connection = await connect_reader(server.address(), "test")
        with pytest.raises(ServerError, match="start nats-server with -js") as caught:
            await require_server(connection)
        assert not isinstance(caught.value, UnreachableError)
        await connection.close()


async def test_a_server_that_goes_away_while_it_is_looked_at_is_none_that_refuses(tmp_path: Path) -> None:
    """Killed between connecting and asking, or between asking and listening: worth trying again, so no other error."""
    async with Server(tmp_path) as server:
        connection = await connect_writer(server.address(), "test")
        await server.kill()
        await until(lambda: connection.is_closed, "the end of the writer's connection")
        with pytest.raises(UnreachableError):
            await require_server(connection)
        with pytest.raises(UnreachableError, match="the connection is closed"):
            await connection.listen("answers", lambda *_: None)


async def test_a_server_with_too_small_messages_is_refused(reader: Connection) -> None:
    """By the size of what is to be sent, before it is sent."""
    require_payload(reader, 1024 * 1024)
    with pytest.raises(ServerError, match=r"takes messages of 1048576 bytes, needed are 1048577: raise"):
        require_payload(reader, 1024 * 1024 + 1)


def test_a_nats_py_with_other_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mended method that is gone or has other parameters: the error names it and the version to install."""
    check_client()

    def changed(self: Client, message: object) -> None:
        del self, message

    monkeypatch.setattr(Client, "_build_message", changed)
    monkeypatch.delattr(Client, "_process_op_err")
    with pytest.raises(JobstateError, match=r"_build_message, _process_op_err changed.: pip install 'nats-py==2\.16"):
        check_client()


def test_an_outage_is_told_at_once_then_seldom_and_anew_after_its_end() -> None:
    """A try each half second for ten minutes: few lines, the last ones a minute apart, and how many were left out."""
    now = [1000.0]
    outage = Outage("writer", now=lambda: now[0])
    address = Address(urls=("nats://127.0.0.1:1",))
    with capture_logs() as lines:
        for _ in range(1200):
            outage.tell("nats.trouble", address, "refused", "start it")
            now[0] += 0.5
        assert outage.end() == 600.0
        assert outage.end() == 0.0
        outage.tell("nats.trouble", address, "again", "start it")
    assert [line["for_s"] for line in lines] == [0, 1, 3, 7, 15, 31, 63, *range(123, 600, 60), 0]
    assert [line["untold"] for line in lines[:4]] == [0, 1, 3, 7]
    assert lines[0] == {
        "event": "nats.trouble",
        "log_level": "warning",
        "connection": "writer",
        "server": "nats://127.0.0.1:1",
        "reason": "refused",
        "for_s": 0.0,
        "untold": 0,
        "next_step": "start it",
    }


@pytest.mark.parametrize("user", ["", "me"])
async def test_a_secret_that_was_changed_is_used_for_the_next_connection(tmp_path: Path, user: str) -> None:
    """Of the reader, which connects again by itself, and of the writer, whose owner makes another; from one address."""
    file = tmp_path / "secret"
    file.write_text("old-one")
    rule = 'user: me, password: "{}"' if user else 'token: "{}"'
    config = f"authorization {{{{ {rule} }}}}\n".format
    async with Server(tmp_path / "nats", config("old-one")) as server:
        secret = {"JOBSTATE_NATS__USER": user, "JOBSTATE_NATS__PASSWORD_FILE": str(file)}
        given = secret if user else {"JOBSTATE_NATS__TOKEN_FILE": str(file)}
        address = Address.of(load(None, given | {"JOBSTATE_NATS__URL": server.url}).nats, "main")
        reader = await connect_reader(address, "reader")
        await (await connect_writer(address, "writer")).close()
        await server.reload(server.configuration().replace("old-one", "new-one"))
        with pytest.raises(RefusedError):
            await connect_writer(address, "writer")
        await until(lambda: not reader.is_connected, "the loss of the reader's connection")
        file.write_text("new-one")
        await (await connect_writer(address, "writer")).close()
        await until(lambda: reader.is_connected, "the reader's return")
        await reader.close()


async def test_nobody_asks_whether_an_address_that_has_worked_is_the_right_one(server: Server) -> None:
    """The writer's connections are made one after the other; the outage that they share knows that one has stood."""
    now = [1000.0]
    address, outage = server.address(), Outage("writer", now=lambda: now[0])
    await (await connect_writer(address, "writer", outage=outage)).close()
    await server.kill()
    with pytest.raises(UnreachableError, match="It has answered at this address before"):
        await connect_writer(address, "writer", within_s=0.3, outage=outage)
    with pytest.raises(UnreachableError, match=r"is nats\.url right"):
        await connect_writer(address, "writer", within_s=0.3)


async def test_whoever_tries_again_and_again_tells_it_as_one_outage(server: Server) -> None:
    """Several connections for one purpose: one first line, and the return with how long it took."""
    now = [1000.0]
    address, outage = server.address(), Outage("writer", now=lambda: now[0])
    await server.kill()
    with capture_logs() as lines:
        while not lines:  # given up before it was refused, it has nothing to tell
            with pytest.raises(UnreachableError):
                await connect_writer(address, "writer", within_s=0.3, outage=outage)
        for _ in range(3):
            now[0] += 0.3
            with pytest.raises(UnreachableError):
                await connect_writer(address, "writer", within_s=0.3, outage=outage)
        tries = len(lines)
        await server.start()
        writer = await connect_writer(address, "writer", outage=outage)
    assert [line["event"] for line in lines[:1]] == ["nats.trouble"]
    assert tries == 1
    assert lines[-1]["event"] == "nats.connected"
    assert lines[-1]["away_s"] == 0.9
    await writer.close()


async def test_a_user_in_an_url_may_be_percent_encoded(tmp_path: Path) -> None:
    """As every other client of NATS has it: else a password with `@` or `/` could not be written there. IPv6, too."""
    users = 'authorization { users: [{ user: "a:b", password: "p@ss/w:rd%" }] }\n'
    async with Server(tmp_path, users) as server:
        where = f"a%3Ab:p%40ss%2Fw:rd%25@127.0.0.1:{server.port}"
        for url in (where, f"nats://{where}"):
            connection = await connect_writer(Address(urls=(url,)), "test", within_s=DEADLINE_S)
            await require_server(connection)
            assert "p%40" not in str(connection.address)
            await connection.close()
        with pytest.raises(ServerError, match="refuses us"):
            await connect_writer(Address(urls=(f"nats://a%3Ab:wrong@127.0.0.1:{server.port}",)), "test")


@needs_ipv6
async def test_a_token_in_an_url_may_be_percent_encoded(tmp_path: Path) -> None:
    """It stands in place of a user; and the server listens on IPv6."""
    port = free_port()
    (tmp_path / "conf").write_text(f'listen: "[::1]:{port}"\nauthorization {{ token: "t@k/n" }}\n')
    process = await asyncio.create_subprocess_exec(
        find_binary(), "-c", str(tmp_path / "conf"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        address = Address(urls=(f"nats://t%40k%2Fn@[::1]:{port}",))
        connection = await connect_reader(address, "test", within_s=DEADLINE_S)
        assert str(connection.address) == f"nats://***@[::1]:{port}"
        await connection.close()
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("urls", [("nats://127.0.0.1:1", "ws://127.0.0.1:1"), ("nats://:1",)])
async def test_what_no_retry_can_mend_ends_at_once(urls: tuple[str, ...]) -> None:
    """nats-py refuses it before it has tried any server: in its own words, and with exit 2."""
    with pytest.raises(SettingsError, match=r"nats\.url: .* cannot be used \(nats: "):
        await connect_writer(Address(urls=urls), "test", within_s=DEADLINE_S)


@pytest.mark.filterwarnings("default:parameter 'timeout':DeprecationWarning")  # nats-py's, of aiohttp
async def test_web_sockets_asked_of_a_port_that_has_none_are_named(tmp_path: Path) -> None:
    """A NATS port's INFO is no HTTP: the scheme is what to change, and the server's log says nothing of it."""
    async with Server(tmp_path) as server:
        address = Address(urls=(server.url.replace("nats://", "ws://"),))
        with pytest.raises(UnreachableError, match=r"speaks no WebSocket\): write nats:// .* in nats\.url") as caught:
            await connect_writer(address, "test", within_s=1)
        assert caught.value.fault is not None
        assert caught.value.fault.kind == faults.NO_WEBSOCKET
