"""The tap on a real nats-server: order, silence towards the others, gaps, and everything that must not kill it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession
from nats.aio.client import Client
from nats.aio.msg import Msg

from consumer.bacalhau.tap import Tap, TapOptions
from consumer.errors import ServerError, SettingsError
from consumer.ports import RawFrame
from consumer.settings import Bacalhau as BacalhauSettings
from tests.bacalhau.servers import DEADLINE_S, NatsServer, certificate, free_port, nats_server, peer, settle, until

pytestmark = pytest.mark.server

IN = "bacalhau.global.compute.n-1.in.msgs"
OUT = "bacalhau.global.compute.n-1.out.msgs"


def options(server: NatsServer, **others: object) -> TapOptions:
    """Options for *server* with short pauses."""
    return msgspec.structs.replace(TapOptions(urls=(server.url,), pause_s=0.02, pause_max_s=0.1), **others)


@contextlib.asynccontextmanager
async def running(tap: Tap) -> AsyncIterator[asyncio.Task[None]]:
    """*tap*, listening until the context ends."""
    task: asyncio.Task[None] = asyncio.create_task(tap.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await tap.listening()
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def frames(tap: Tap, number: int) -> list[RawFrame]:
    """The next *number* frames."""
    came: list[RawFrame] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(came) < number:
            came += await tap.batch()
    assert len(came) == number
    return came


async def test_frames_come_in_the_order_of_both_directions(tmp_path: Path) -> None:
    """Two thousand messages to and from two nodes come out in the one order in which the server took them."""
    async with nats_server(tmp_path) as server, peer(server) as bacalhau:
        tap = Tap(options(server))
        async with running(tap):
            sent = []
            for n in range(2000):
                subject = f"bacalhau.global.compute.n-{n % 2}.{('in', 'out')[n // 2 % 2]}.msgs"
                sent.append(RawFrame(subject, b"%d" % n))
                await bacalhau.publish(subject, sent[-1].data, reply="_INBOX.ack")
            assert await frames(tap, 2000) == sent
        assert (tap.gaps, tap.dropped, tap.taken) == (0, 0, 2000)
    assert not tap.connected


async def test_listening_means_that_the_server_has_both_subscriptions() -> None:
    """What is published once `listening` has returned is heard: a PING after both SUB was answered."""
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","headers":true,"max_payload":1048576}\r\n')
        while line := await reader.readline():
            lines.append(line.split()[0])
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        tap = Tap(TapOptions(urls=(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}",)))
        async with running(tap):
            before = list(lines)
    assert before.count(b"SUB") == 2
    assert b"PING" in before[before.index(b"SUB") + 2 :]


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
        tap = Tap(options(server))
        async with running(tap):
            for wanted, other in zip(kept * 2, dropped, strict=True):
                await bacalhau.publish(other, b"secret")
                await bacalhau.publish(wanted, b"frame")
            assert [frame.subject for frame in await frames(tap, 6)] == kept * 2


async def test_the_observer_does_not_disturb_a_request(tmp_path: Path) -> None:
    """A node that answers slowly is the one whose answer arrives; the tap sends nothing, and takes nobody's turn."""
    async with nats_server(tmp_path) as server, peer(server) as orchestrator, peer(server) as node:
        served = 0

        async def answer(msg: Msg) -> None:
            nonlocal served
            served += 1
            await asyncio.sleep(0.02)  # an answer of the tap's would be first
            await msg.respond(b"from the node")

        await node.subscribe(IN, cb=answer)
        await node.subscribe("node.compute.n-1.>", queue="nodes", cb=answer)
        await settle(node)
        tap = Tap(options(server))
        async with running(tap):
            for subject in (IN, "node.compute.n-1.AskForBid/v1") * 5:
                assert (await orchestrator.request(subject, b"ask", timeout=DEADLINE_S)).data == b"from the node"
            await frames(tap, 10)
        assert served == 10


async def test_a_restart_of_the_server_is_a_gap_and_frames_flow_again(tmp_path: Path) -> None:
    """While the server is away it shows; when it is back `gaps` has risen by one, and `batch` returned to say so."""
    async with nats_server(tmp_path) as server:
        tap = Tap(options(server))
        async with running(tap):
            assert (tap.connected, tap.gaps) == (True, 0)
            for restart in (1, 2):
                await server.stop()
                await until(lambda: not tap.connected, "the loss of the connection")
                await server.start()
                async with asyncio.timeout(DEADLINE_S):
                    assert await tap.batch() == []
                    await tap.listening()
                assert (tap.gaps, tap.connections) == (restart, restart + 1)
                async with peer(server) as bacalhau:
                    await bacalhau.publish(IN, b"after")
                    await settle(bacalhau)
                    assert await frames(tap, 1) == [RawFrame(IN, b"after")]


async def test_a_frozen_server_is_noticed(tmp_path: Path) -> None:
    """A server that says nothing any more (no end of the connection either) is given up after two pings."""
    async with nats_server(tmp_path) as server:
        tap = Tap(options(server, ping_interval_s=1, connect_timeout_s=1))
        async with running(tap):
            server.pause()
            await until(lambda: not tap.connected, "the end of a connection that is silent")
            server.resume()
            async with asyncio.timeout(DEADLINE_S):
                await tap.listening()
            assert tap.gaps == 1


async def test_a_server_that_comes_late_is_a_gap(tmp_path: Path) -> None:
    """What was said before the first connection is unknown, if somebody had to wait for it."""
    server = NatsServer(tmp_path)
    tap = Tap(options(server))
    task = asyncio.create_task(tap.run())
    try:
        await until(lambda: bool(tap.last_error), "a failed connection")
        assert not tap.connected
        await server.start()
        async with asyncio.timeout(DEADLINE_S):
            await tap.listening()
        assert tap.gaps == 1
    finally:
        task.cancel()
        await asyncio.wait([task])
        await server.stop()


@pytest.mark.parametrize("bound", [{"frames_max": 10}, {"bytes_max": 50}])
async def test_more_than_the_bound_is_dropped_and_is_one_gap(tmp_path: Path, bound: dict[str, int]) -> None:
    """Nobody takes what comes: the first are kept, the rest is counted, one gap for each time it overflowed."""
    async with nats_server(tmp_path) as server, peer(server) as bacalhau:
        tap = Tap(options(server, **bound))
        async with running(tap):
            for round_ in (1, 2):
                for n in range(30):
                    await bacalhau.publish(IN, b"%05d" % n)
                await settle(bacalhau)
                await until(lambda all_=30 * round_: tap.taken + tap.dropped == all_, "every frame counted")  # type: ignore[misc]
                kept = [frame.data for frame in await tap.batch()]
                assert 9 <= len(kept) <= 10  # nats-py's own bound in bytes is one lower
                assert kept == [b"%05d" % n for n in range(len(kept))]
                assert tap.gaps == round_
            assert tap.connected


async def test_a_slow_consumer_of_the_client_is_a_gap(tmp_path: Path) -> None:
    """What nats-py itself drops, because our loop was busy while a flood came, is counted as well."""
    async with nats_server(tmp_path) as server, peer(server) as bacalhau:
        tap = Tap(options(server, frames_max=100))
        async with running(tap):
            await bacalhau.publish("bacalhau.global.compute.n-1.in.msgs", b"first")
            await frames(tap, 1)
            # One write of the peer is one read of the tap: the client's queue is filled before any callback runs.
            for n in range(1000):
                await bacalhau.publish(IN, b"%d" % n)
            await until(lambda: tap.taken + tap.dropped == 1001, "every frame taken or counted as dropped")
            assert tap.dropped > 0
            assert tap.gaps >= 1
            await tap.batch()
            await bacalhau.publish(IN, b"last")
            assert (await frames(tap, 1))[0].data == b"last"


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
        tap = Tap(options(server))
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
        tap = Tap(options(server))
        async with running(tap):
            with monkeypatch.context() as patch:
                patch.setattr(Client, "_process_msg", None)
                await bacalhau.publish(IN, b"deadly")
                await until(lambda: not tap.connected, "the end of the deaf connection")
            async with asyncio.timeout(DEADLINE_S):
                await tap.listening()
            assert tap.gaps == 1
            await bacalhau.publish(IN, b"after")
            assert await frames(tap, 1) == [RawFrame(IN, b"after")]


async def test_the_next_url_is_tried_when_one_is_dead(tmp_path: Path) -> None:
    """Of several URLs the one that answers is found."""
    async with nats_server(tmp_path) as server:
        tap = Tap(TapOptions(urls=(f"nats://127.0.0.1:{free_port()}", server.url), pause_s=0.02))
        async with running(tap):
            assert tap.connections == 1


async def test_the_token_comes_from_its_file(tmp_path: Path) -> None:
    """With the right token it listens; a wrong one ends it with an error that says what to check, not the token."""
    token = tmp_path / "token"
    async with nats_server(tmp_path, 'authorization { token: "right-one" }') as server:
        token.write_text("right-one\n")
        tap = Tap(options(server, token_file=str(token)))
        async with running(tap):
            assert tap.connected
        token.write_text("wrong-one\n")
        with pytest.raises(ServerError, match=r"bacalhau\.token_file") as caught:
            await asyncio.wait_for(Tap(options(server, token_file=str(token))).run(), DEADLINE_S)
        assert "wrong-one" not in str(caught.value)
        with pytest.raises(ServerError):
            await asyncio.wait_for(Tap(options(server)).run(), DEADLINE_S)


@pytest.mark.parametrize("first", [False, True])
async def test_tls_with_an_own_ca(tmp_path: Path, *, first: bool) -> None:
    """An own CA, the handshake before or after the server's INFO; a certificate of another name is refused."""
    for name, right in (("127.0.0.1", True), ("elsewhere.example", False)):
        cert, key = certificate(tmp_path, name)
        tls = f'tls {{ cert_file: "{cert}", key_file: "{key}", handshake_first: {str(first).lower()} }}'
        async with nats_server(tmp_path, tls) as server:
            tap = Tap(options(server, tls_ca=str(cert), tls_first=first))
            if right:
                async with running(tap):
                    assert tap.connected
                continue
            task = asyncio.create_task(tap.run())
            await until(lambda tap=tap: bool(tap.last_error), "a refused certificate")  # type: ignore[misc]
            assert (tap.connected, tap.connections) == (False, 0)
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])


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
        tap = Tap(TapOptions(urls=(url,), token_file=str(token), tls=True))
        task = asyncio.create_task(tap.run())
        await until(lambda: "TLS" in tap.last_error, "the refusal of a server without TLS")
        task.cancel()
        await asyncio.wait([task])
    assert got == b""


async def test_tls_is_used_where_it_is_only_offered(tmp_path: Path) -> None:
    """Bacalhau behind a proxy offers TLS beside plain connections: asked for TLS, the tap takes it."""
    cert, key = certificate(tmp_path, "127.0.0.1")
    monitor = free_port()
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\nallow_non_tls: true\nhttp: "127.0.0.1:{monitor}"'
    async with nats_server(tmp_path, config) as server:
        tap = Tap(options(server, tls_ca=str(cert)))
        async with running(tap), ClientSession() as http, http.get(f"http://127.0.0.1:{monitor}/connz") as answer:
            (connection,) = (await answer.json())["connections"]
        assert connection["tls_version"]


def test_options_come_from_the_settings() -> None:
    """Every key of `[bacalhau]` reaches the tap; several URLs with commas."""
    settings = BacalhauSettings(url="nats://a:1, tls://b:2", token_file="t", tls_ca="c", tls_first=True)
    assert TapOptions.of(settings) == TapOptions(
        urls=("nats://a:1", "tls://b:2"), token_file="t", tls_ca="c", tls_first=True
    )


def test_what_cannot_be_used_is_refused_at_start(tmp_path: Path) -> None:
    """No URL, no token file, a CA that is none."""
    file = tmp_path / "file"
    file.write_text("not a certificate")
    for wrong in (
        TapOptions(urls=()),
        TapOptions(urls=("nats://h",), token_file=str(tmp_path / "missing")),
        TapOptions(urls=("nats://h",), tls_ca=str(file)),
    ):
        with pytest.raises(SettingsError, match=r"bacalhau|Bacalhau"):
            Tap(wrong)
