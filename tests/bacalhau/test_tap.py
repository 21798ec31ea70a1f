"""The tap on a real nats-server: order, silence towards the others, gaps, and everything that must not kill it."""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientSession

from consumer.bacalhau.tap import (
    DEAD_READER,
    LAME_DUCK,
    LATE,
    RECONNECT,
    RESTART,
    SERVER_CHANGE,
    SILENT,
    SLOW_CONSUMER,
    SUBJECTS,
    Tap,
    _Listener,
)
from consumer.daemon.supervise import end
from consumer.errors import ServerError, SettingsError
from consumer.ports import RawFrame
from consumer.resolve import Resolver
from consumer.settings import Bacalhau as BacalhauSettings
from consumer.settings import Secret
from tests.bacalhau.listening import frames, quick, running
from tests.bacalhau.servers import (
    BEHIND_PROXY,
    NatsServer,
    certificate,
    mute_server,
    nats_server,
    peer,
    settle,
)
from tests.loopback import free_port
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.server

IN = "bacalhau.global.compute.n-1.in.msgs"
OUT = "bacalhau.global.compute.n-1.out.msgs"


async def test_frames_come_in_the_order_of_both_directions(tmp_path: Path) -> None:
    """Two thousand messages to and from two nodes come out in the one order in which the server took them."""
    async with nats_server(tmp_path) as server, peer(server) as bacalhau:
        tap = quick(server.url)
        async with running(tap):
            sent = []
            for n in range(2000):
                subject = f"bacalhau.global.compute.n-{n % 2}.{('in', 'out')[n // 2 % 2]}.msgs"
                sent.append(RawFrame(subject, b"%d" % n))
                await bacalhau.publish(subject, sent[-1].data, reply="_INBOX.ack")
            assert await frames(tap, 2000) == sent
        assert (tap.gaps, tap.dropped, tap.taken) == (0, 0, 2000)
    assert not tap.connected


async def test_listening_means_that_the_server_has_all_subscriptions() -> None:
    """What is published once `listening` has returned is heard: a PING after the last SUB was answered."""
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","headers":true,"max_payload":1048576}\r\n')
        while line := await reader.readline():
            lines.append(line.split()[0])
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        tap = quick(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with running(tap):
            before = list(lines)
    assert before.count(b"SUB") == len(SUBJECTS)
    assert b"PING" in before[before.index(b"SUB") + len(SUBJECTS) :]


async def test_only_job_traffic_is_kept(tmp_path: Path) -> None:
    """Requests and callbacks of 1.5 are kept in their order; management, logs and control are dropped unread."""
    kept = [
        "node.compute.n-1.AskForBid/v1",
        "node.orchestrator.n-0.OnRunComplete/v1",
        "node.compute.n-1.BidAccepted/v1",
    ]
    dropped = [
        "node.management.n-1.UpdateResources/v1",
        "node.compute.n-1.ExecutionLogs/v1",
        "node.other.n-1.x",
        "bacalhau.global.compute.n-1.out.ctrl",
        "bacalhau.global.compute.n-1.out.requests",
        "heartbeat",
    ]
    async with nats_server(tmp_path) as server, peer(server) as bacalhau:
        tap = quick(server.url)
        async with running(tap):
            for wanted, other in zip(kept * 2, dropped, strict=True):
                await bacalhau.publish(other, b"secret")
                await bacalhau.publish(wanted, b"frame")
            assert [frame.subject for frame in await frames(tap, 6)] == kept * 2


async def test_a_restart_of_the_server_is_a_gap_and_frames_flow_again(tmp_path: Path) -> None:
    """While the server is away it shows; when it is back `gaps` has risen by one, and `batch` returned to say so."""
    async with nats_server(tmp_path, "server_name: n-orch") as server:
        tap = quick(server.url)
        async with running(tap):
            assert (tap.connected, tap.gaps) == (True, 0)
            assert tap.server.name == "n-orch"
            for restart in (1, 2):
                await server.stop()
                await until(lambda: not tap.connected, "the loss of the connection")
                await server.start()
                async with asyncio.timeout(DEADLINE_S):
                    assert await tap.batch() == []
                    await tap.listening()
                assert (tap.gaps, tap.connections) == (restart, restart + 1)
                assert tap.gaps_by == {RESTART: restart}
                async with peer(server) as bacalhau:
                    await bacalhau.publish(IN, b"after")
                    await settle(bacalhau)
                    assert await frames(tap, 1) == [RawFrame(IN, b"after")]


async def test_a_frozen_server_is_noticed(tmp_path: Path) -> None:
    """A server that says nothing any more (no end of the connection either) is given up after two pings."""
    async with nats_server(tmp_path) as server:
        tap = quick(server.url, ping_interval_s=1, connect_timeout_s=1)
        async with running(tap):
            server.pause()
            await until(lambda: not tap.connected, "the end of a connection that is silent")
            server.resume()
            async with asyncio.timeout(DEADLINE_S):
                await tap.listening()
            assert set(tap.gaps_by) == {SILENT}  # a slow machine may have been silent for so long once more


async def test_a_server_that_comes_late_is_a_gap(tmp_path: Path) -> None:
    """What was said before the first connection is unknown, if somebody had to wait for it."""
    server = NatsServer(tmp_path)
    tap = quick(server.url)
    task = asyncio.create_task(tap.run())
    try:
        await until(lambda: bool(tap.last_error), "a failed connection")
        assert not tap.connected
        await server.start()
        async with asyncio.timeout(DEADLINE_S):
            await tap.listening()
        assert tap.gaps_by == {LATE: 1}
    finally:
        await end([task])
        await server.stop()


@pytest.mark.parametrize("bound", [{"frames_max": 10}, {"frames_bytes": 50}])
async def test_more_than_the_bound_is_dropped_and_is_one_gap(tmp_path: Path, bound: dict[str, Any]) -> None:
    """Nobody takes what comes: the first are kept, the rest is counted, one gap for each time it overflowed."""
    async with nats_server(tmp_path) as server, peer(server) as bacalhau:
        tap = quick(server.url, **bound)
        async with running(tap):
            for round_ in (1, 2):
                for n in range(30):
                    await bacalhau.publish(IN, b"%05d" % n)
                await settle(bacalhau)
                await until(lambda all_=30 * round_: tap.taken + tap.dropped == all_, "every frame counted")  # type: ignore[misc]
                kept = [frame.data for frame in await tap.batch()]
                assert kept == [b"%05d" % n for n in range(10)]
                assert tap.gaps_by == {SLOW_CONSUMER: round_}
            assert tap.connected


async def raw_publish(server: NatsServer, *lines: bytes) -> None:
    """Send protocol lines as no client would, and wait until the server has taken them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n' + b"".join(lines) + b"PING\r\n")
    async with asyncio.timeout(DEADLINE_S):
        while (line := await reader.readline()) != b"PONG\r\n":
            assert line, "the server refused these lines"
    writer.close()
    await writer.wait_closed()


async def test_bytes_that_no_client_sends_do_not_end_the_reader(tmp_path: Path) -> None:
    """Subject and reply that are not UTF-8, header blocks that are none: each frame comes, and the next one too."""
    blocks = [b"garbage", b"NATS/1.0", b"NATS/1.0 \xff\xfe\xfd\r\n\r\n", b"NATS/1.0 404\r\n\r\n", b"x"]
    blocks += [b"NATS/1.0\r\n\xff: \xfe\r\n\r\n", b"NATS/1.0 \r\n", b"\r\n\r\n", b"NATS/1.0\r\nno colon"]
    hostile = [
        b"PUB bacalhau.global.compute.n-\xff\xfe.in.msgs 1\r\na\r\n",
        b"PUB bacalhau.global.compute.n-1.in.msgs _INBOX.\xff\xfe 1\r\nb\r\n",
        *(
            b"HPUB bacalhau.global.compute.n-1.in.msgs %d %d\r\n%s%c\r\n" % (len(block), len(block) + 1, block, n)
            for n, block in enumerate(blocks, ord("c"))
        ),
    ]
    async with nats_server(tmp_path) as server, peer(server) as bacalhau:
        tap = quick(server.url)
        async with running(tap):
            await raw_publish(server, *hostile)
            await bacalhau.publish(OUT, b"after")
            came = await frames(tap, len(hostile) + 1)
        assert [frame.data for frame in came] == [
            *(b"%c" % n for n in range(ord("a"), ord("a") + len(hostile))),
            b"after",
        ]
        assert came[0].subject.encode("utf-8", "surrogateescape") == b"bacalhau.global.compute.n-\xff\xfe.in.msgs"
        assert (tap.gaps, tap.connections) == (0, 1)


async def test_a_reader_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends nats-py's reader while its client looks connected: a new client, a gap, frames again."""
    async with nats_server(tmp_path) as server, peer(server) as bacalhau:
        tap = quick(server.url)
        async with running(tap):
            with monkeypatch.context() as patch:
                patch.setattr(_Listener, "_process_msg", None)
                await bacalhau.publish(IN, b"deadly")
                await until(lambda: not tap.connected, "the end of the deaf connection")
            async with asyncio.timeout(DEADLINE_S):
                await tap.listening()
            assert tap.gaps_by == {DEAD_READER: 1}
            await bacalhau.publish(IN, b"after")
            assert await frames(tap, 1) == [RawFrame(IN, b"after")]


async def test_the_next_url_is_tried_when_one_is_dead(tmp_path: Path) -> None:
    """Of several URLs the one that answers is found."""
    async with nats_server(tmp_path) as server:
        tap = quick(f"nats://127.0.0.1:{free_port()}", server.url)
        async with running(tap):
            assert tap.connections == 1


async def test_the_token_comes_from_its_file(tmp_path: Path) -> None:
    """With the right token it listens; a wrong one ends it with an error that says what to check, not the token."""
    token = tmp_path / "token"
    async with nats_server(tmp_path, 'authorization { token: "right-one" }') as server:
        token.write_text("right-one\n")
        tap = quick(server.url, token_file=str(token))
        async with running(tap):
            assert tap.connected
        token.write_text("wrong-one\n")
        with pytest.raises(ServerError, match=r"bacalhau\.token_file") as caught:
            await asyncio.wait_for(quick(server.url, token_file=str(token)).run(), DEADLINE_S)
        assert "wrong-one" not in str(caught.value)
        with pytest.raises(ServerError):
            await asyncio.wait_for(quick(server.url).run(), DEADLINE_S)


async def test_a_token_in_an_url_may_be_percent_encoded(tmp_path: Path) -> None:
    """As every other client of NATS has it: a token with `@` or `/` could not be written there otherwise."""
    async with nats_server(tmp_path, 'authorization { token: "t@k/n" }') as server:
        url = server.url.replace("://", "://t%40k%2Fn@")
        async with running(quick(url)) as task:
            assert not task.done()


async def test_an_address_that_nobody_can_try_ends_it() -> None:
    """nats-py refuses it before it connects: no retry could mend that."""
    with pytest.raises(SettingsError, match=r"bacalhau\.url: nats://:1 cannot be used \(nats: invalid host"):
        await asyncio.wait_for(quick("nats://:1").run(), DEADLINE_S)


@pytest.mark.parametrize("first", [False, True])
async def test_tls_with_an_own_ca(tmp_path: Path, *, first: bool) -> None:
    """An own CA, the handshake before or after the server's INFO; a certificate of another name is refused."""
    for name, right in (("127.0.0.1", True), ("elsewhere.example", False)):
        cert, key = certificate(tmp_path, name)
        tls = f'tls {{ cert_file: "{cert}", key_file: "{key}", handshake_first: {str(first).lower()} }}'
        async with nats_server(tmp_path, tls) as server:
            tap = quick(server.url, tls_ca=str(cert), tls_first=first)
            if right:
                async with running(tap):
                    assert tap.connected
                continue
            task = asyncio.create_task(tap.run())
            await until(lambda tap=tap: bool(tap.last_error), "a refused certificate")  # type: ignore[misc]
            assert (tap.connected, tap.connections) == (False, 0)
            assert not task.done()
            await end([task])


async def test_the_token_is_not_sent_in_the_clear_where_tls_was_asked_for(tmp_path: Path) -> None:
    """A server (or somebody between) that offers no TLS gets no CONNECT, and so no token."""
    got = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","auth_required":true,"max_payload":1048576}\r\n')
        got += await reader.read(1000)
        writer.close()

    token = tmp_path / "token"
    token.write_text("secret-token")
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        tap = quick(url.replace("nats:", "tls:"), token_file=str(token))
        task = asyncio.create_task(tap.run())
        await until(lambda: "TLS" in tap.last_error, "the refusal of a server without TLS")
        await end([task])
    assert got == b""


async def test_tls_is_used_where_it_is_only_offered(tmp_path: Path) -> None:
    """Bacalhau behind a proxy offers TLS beside plain connections: asked for TLS, the tap takes it."""
    cert, key = certificate(tmp_path, "127.0.0.1")
    monitor = free_port()
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\nallow_non_tls: true\nhttp: "127.0.0.1:{monitor}"'
    async with nats_server(tmp_path, config) as server:
        tap = quick(server.url, tls_ca=str(cert))
        async with running(tap), ClientSession() as http, http.get(f"http://127.0.0.1:{monitor}/connz") as answer:
            connections = (await answer.json())["connections"]
        # Who only tried whether the server is up may be among them still, and has told no name.
        (ours,) = (one for one in connections if one.get("lang") == "python3")
        assert ours["tls_version"]


async def test_a_server_that_offers_a_tls_that_cannot_work_is_reached_without(tmp_path: Path) -> None:
    """Bacalhau's `SupportReverseProxy` without a certificate: asked for TLS it fails, and the next step is nats://."""
    async with nats_server(tmp_path, BEHIND_PROXY) as server:
        tap = quick(server.url.replace("nats:", "tls:"))
        task = asyncio.create_task(tap.run())
        await until(lambda: "without a certificate" in tap.next_step, "the next step")
        assert "write nats:// in bacalhau.url" in tap.next_step
        assert not tap.connected
        await end([task])
        async with running(quick(server.url)) as listening:
            assert not listening.done()


async def test_a_proxy_that_ends_tls_is_reached_with_tls_first(tmp_path: Path) -> None:
    """It speaks TLS from the first byte; the server behind it offers TLS once more, which is not taken up."""
    cert, key = certificate(tmp_path, "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with nats_server(tmp_path, BEHIND_PROXY) as server:

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65_536):
                writer.write(data)
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            behind, there = await asyncio.open_connection("127.0.0.1", server.port)
            await asyncio.gather(pass_on(reader, there), pass_on(behind, writer))

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as proxy:
            url = f"nats://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            tap = quick(url, tls_ca=str(cert), tls_first=True)
            async with running(tap):
                assert tap.connected


def test_what_cannot_be_used_is_refused_at_start(tmp_path: Path) -> None:
    """No URL, no token file, a CA that is none."""
    file = tmp_path / "file"
    file.write_text("not a certificate")
    for wrong in (
        BacalhauSettings(),
        BacalhauSettings(url="nats://h", token_file=str(tmp_path / "missing")),
        BacalhauSettings(url="nats://h", tls_ca=str(file)),
    ):
        with pytest.raises(SettingsError, match=r"bacalhau|Bacalhau"):
            Tap(wrong)


# -- what ends a connection, each by its name ------------------------------------------------------------------------


INFO = b'INFO {"server_id":"%s","server_name":"%s","version":"2.11.4","headers":true,"max_payload":1048576}\r\n'


@contextlib.asynccontextmanager
async def spoken(*, name: bytes = b"n-orch", cut_with: bytes | None = None) -> AsyncIterator[str]:
    """A server that speaks just enough NATS; *cut_with*: so the first one that listens is ended. Yields its URL."""
    is_cut = cut_with is None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal is_cut
        pings = 0
        writer.write(INFO % (name, name))
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
                pings += 1
            if pings == 3 and not is_cut:  # CONNECT's, and those after the subscriptions
                is_cut = True
                writer.write(cut_with or b"")
                break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("cut_with", "cause"),
    [(b"", RECONNECT), (b"-ERR 'Slow Consumer'\r\n", SLOW_CONSUMER), (b"nonsense\r\n", RECONNECT)],
)
async def test_a_connection_that_the_same_server_ends(cut_with: bytes, cause: str) -> None:
    """The network, a server that finds us too slow, bytes that are no NATS: another connection, and one gap."""
    async with spoken(cut_with=cut_with) as url:
        tap = quick(url, pause_s=0.02, pause_max_s=0.1)
        async with running(tap):
            await until(lambda: tap.connections >= 2, "the second connection")
            assert tap.gaps_by == {cause: 1}


async def test_the_next_server_of_the_list_is_another_one() -> None:
    """When the first goes, the second one listens: a gap, and it is said who answers now."""
    async with spoken(name=b"n-first", cut_with=b"") as first, spoken(name=b"n-second") as second:
        tap = quick(first, second, pause_s=0.02, pause_max_s=0.1)
        with structlog.testing.capture_logs() as lines:
            async with running(tap):
                await until(lambda: tap.connections >= 2, "the second connection")
                assert tap.gaps_by == {SERVER_CHANGE: 1}
                assert tap.server.name == "n-second"
        (changed,) = (line for line in lines if line["event"] == "tap.server_changed")
        assert (changed["before"], changed["server"]) == ("n-first", "n-second")


async def test_a_servers_name_is_shown_without_what_it_might_do_to_a_terminal() -> None:
    """Control characters of a stranger are left out, and of a long name there is only the beginning."""
    async with spoken(name=b"n\\u001b[31m\\n" + b"x" * 300) as url:
        tap = quick(url)
        async with running(tap):
            assert tap.server.name == tap.server.id == ("n[31m" + "x" * 300)[:200]


# -- how often it is tried ---------------------------------------------------------------------------------------------


async def test_pauses_grow_up_to_their_bound() -> None:
    """Each try that fails doubles the pause, and no pause is longer than `pause_max_s`."""
    tries: list[float] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(asyncio.get_running_loop().time())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        tap = quick(url, pause_s=0.02, pause_max_s=0.08, dice=lambda: 1.0)
        task = asyncio.create_task(tap.run())
        # Twice as long each time, without a bound, the last pause would be 20 minutes: longer than `until` waits.
        await until(lambda: len(tries) >= 17, "the last try")
        await end([task])
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries[:17])]
    assert all(found > wanted for found, wanted in zip(pauses, (0.039, *[0.079] * 15), strict=True))


async def test_pauses_begin_anew_after_a_connection() -> None:
    """A connection that stood and was lost is made anew at once, however often it had failed before it stood."""
    nobody = "nats://127.0.0.1:1"
    async with spoken(cut_with=b"") as url:
        # No pause while it fails, by a number outside of [0, 1): all of them would take hours.
        dice = itertools.chain([-1.0] * 14, itertools.repeat(0.0))
        urls = (*[nobody] * 14, url)
        # Nobody who answers is given up: then one round of them is all that it takes, and all that the dice are for.
        tap = quick(*urls, pause_s=0.1, pause_max_s=10_000, connect_timeout_s=600, dice=lambda: next(dice))
        async with running(tap):
            assert tap.tries >= 15
            await until(lambda: tap.tries >= 16, "a try 50 ms after the loss, and not a quarter of an hour")


async def test_an_outage_that_is_over_is_not_told_with_the_next(tmp_path: Path) -> None:
    """The server is away, there, and away again: that is told at once, and counted from then on."""
    server = NatsServer(tmp_path)
    tap = quick(server.url)
    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(tap.run())
        try:
            for outage in (1, 2):
                await until(lambda n=outage: told(lines).count(0.0) >= n, "the line at once")  # type: ignore[misc]
                await server.start()
                await asyncio.wait_for(tap.listening(), DEADLINE_S)
                await server.stop()
                await until(lambda: not tap.connected, "the loss of the connection")
        finally:
            await end([task])
            await server.stop()


async def test_a_pause_may_end_before_its_time(tmp_path: Path) -> None:
    """The orchestrator answers again: its NATS is tried at once, not after the pause (here an hour)."""
    server = NatsServer(tmp_path)
    tap = quick(server.url, pause_s=3600.0, pause_max_s=3600.0)
    task = asyncio.create_task(tap.run())
    try:
        await until(lambda: bool(tap.last_error), "the first try, in vain")
        await server.start()
        tap.reconnect_now()
        await asyncio.wait_for(tap.listening(), DEADLINE_S)
    finally:
        await end([task])
        await server.stop()


def told(lines: list[structlog.typing.EventDict]) -> list[float]:
    """For how long the server had been away, by each line that says so."""
    return [line["for_s"] for line in lines if line["event"] == "tap.trouble"]


async def test_a_token_that_is_refused_later_is_tried_again(tmp_path: Path) -> None:
    """Once it was let in, a refusal does not end it: it says what to do, and takes what the token's file says then."""
    file = tmp_path / "token"
    file.write_text("right-one")
    config = 'authorization {{ token: "{}" }}'
    async with nats_server(tmp_path, config.format("right-one")) as server:
        tap = quick(server.url, token_file=str(file))
        async with running(tap) as task:
            server.reload(config.format("another-one"))
            await until(lambda: tap.tries >= 4, "more tries")
            assert not task.done()
            assert not tap.connected
            assert "authorization" in tap.last_error.lower()
            assert tap.next_step.startswith("it has let us in before: if its credential was changed, change ours too")
            file.write_text("another-one")
            await asyncio.wait_for(tap.listening(), DEADLINE_S)


async def test_a_lame_duck_is_listened_to_until_it_goes(tmp_path: Path) -> None:
    """A server that says it will go serves on; when it has gone the next one of the list is listened to."""
    config = 'server_name: n-old\nlame_duck_duration: "30s"\nlame_duck_grace_period: "1s"'
    async with nats_server(tmp_path, config) as old, nats_server(tmp_path, "server_name: n-new") as new:
        tap = quick(old.url, new.url)
        async with running(tap):
            old.retire()
            await until(lambda: tap.connections >= 2, "a connection to the new server")
        assert tap.gaps_by == {LAME_DUCK: 1}
        assert tap.server.name == "n-new"


async def test_an_observer_cannot_publish() -> None:
    """Whatever is built upon the tap's client later: it has no way to say anything."""
    client = _Listener(tls=False, resolver=Resolver(), take=lambda _subject, _data: None)
    with pytest.raises(AssertionError, match="publishes nothing"):
        await client.publish("bacalhau.global.compute.n-1.in.msgs", b"{}")


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"INFO {}\r\n",
        b"INFO []\r\n",
        b"INFO 7\r\n",
        b"INFO {\r\n",
        b"INFO\r\n",
        b'INFO {"max_payload":"x","headers":7,"version":[],"server_id":{}}\r\n',
        b'INFO {"connect_urls":[7,null,{}],"server_id":"x"}\r\n',
        b'INFO {"connect_urls":"x","server_id":"x"}\r\n',
        b'INFO {"auth_required":true,"nonce":7}\r\n',
        b'INFO {"tls_required":true}\r\n',
        b"INFO " + b"x" * 200_000 + b"\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16" * 20,
        b"\xff" * 100 + b"\r\n",
        b"-ERR 'Authorization Violation'\r\n",
        b"",
    ],
)
@pytest.mark.parametrize("close", [True, False])
async def test_what_speaks_no_nats_is_tried_again(said: bytes, *, close: bool) -> None:
    """Whatever answers at the address, the tap goes on trying, and says why."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.write(said)
        if not close:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        tap = quick(url, pause_s=0.01, pause_max_s=0.02, connect_timeout_s=1)
        task = asyncio.create_task(tap.run())
        await until(lambda: (served > 1 and bool(tap.last_error)) or task.done(), "another try")
        assert not task.done()
        assert not tap.connected
        assert len(tap.last_error) <= 200
        assert tap.last_error.isprintable()
        await end([task])


async def test_a_port_that_says_nothing_is_told_with_what_to_do() -> None:
    """Bacalhau's API in place of its NATS: one line at once, with the address, what is the matter and the next step."""
    async with mute_server() as url:
        tap = quick(url, pause_s=0.01, pause_max_s=0.02, connect_timeout_s=1)
        with structlog.testing.capture_logs() as lines:
            task = asyncio.create_task(tap.run())
            await until(lambda: bool(lines), "a line")
            await end([task])
    line = lines[0]
    assert (line["event"], line["server"]) == ("tap.trouble", url)
    assert (
        line["reason"] == tap.last_error == "it takes the connection and says nothing, and a NATS server speaks first"
    )
    assert line["next_step"].startswith("is bacalhau.url another port's (Bacalhau's API is 1234, NATS is 4222)")


async def test_a_port_where_nobody_is_is_told_with_what_to_do() -> None:
    """Refused: the same, in its own words."""
    tap = quick("nats://127.0.0.1:1", pause_s=0.01, pause_max_s=0.02)
    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(tap.run())
        await until(lambda: bool(lines), "a line")
        await end([task])
    assert (lines[0]["reason"], lines[0]["next_step"]) == (
        "connection refused",
        "is the server up, and is bacalhau.url right?",
    )


async def test_nobody_asks_whether_an_address_that_has_worked_is_the_right_one(tmp_path: Path) -> None:
    """Away, frozen, or something else in its place: the next step looks for what has changed, not at the settings."""
    server = NatsServer(tmp_path)
    await server.start()
    tap = quick(server.url, pause_s=0.01, pause_max_s=0.02, connect_timeout_s=1)

    async def speaks_otherwise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with running(tap):
        await server.stop()
        await until(lambda: tap.next_step.startswith("is the server up?"), "the next step for one that is away")
        assert "bacalhau.url" not in tap.next_step
        async with await asyncio.start_server(speaks_otherwise, "127.0.0.1", server.port):
            await until(lambda: tap.next_step.startswith("a NATS server has answered"), "that of another service")
        async with await asyncio.start_server(says_nothing, "127.0.0.1", server.port):
            await until(lambda: "stand still" in tap.next_step, "that of a server that says nothing")


# -- secrets -----------------------------------------------------------------------------------------------------------


async def test_the_token_comes_from_the_environment_and_is_shown_nowhere(tmp_path: Path) -> None:
    """As `bacalhau.token` or in the URL: it opens the server, and is in no log line, error or repr, right or wrong."""
    canary = "canary-5f1c"
    for given, listens in ((canary, True), (f"{canary}-wrong", False)):
        async with nats_server(tmp_path, f'authorization {{ token: "{canary}" }}') as server:
            for url, token in ((server.url, Secret(given)), (f"nats://{given}@127.0.0.1:{server.port}", Secret())):
                tap = quick(url, token=token)
                with structlog.testing.capture_logs() as lines:
                    if listens:
                        async with running(tap):
                            assert tap.connected
                            await server.stop()
                            await until(lambda tap=tap: not tap.connected, "the loss of the connection")  # type: ignore[misc]
                            await server.start()
                            await until(lambda tap=tap: tap.connected, "the connection")  # type: ignore[misc]
                        shown = repr(lines)
                        assert "tap.listens" in shown
                    else:
                        with pytest.raises(ServerError, match="JOBSTATE_BACALHAU__TOKEN") as caught:
                            await asyncio.wait_for(tap.run(), DEADLINE_S)
                        shown = repr(lines) + str(caught.value)
                assert canary not in shown + tap.last_error
                assert canary not in repr(BacalhauSettings(url=url, token=token))
