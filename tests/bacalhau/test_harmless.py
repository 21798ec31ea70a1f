"""An observer must not harm: an orchestrator and a node talk on a real server while the tap listens, undisturbed.

Who plays them speaks as design/bacalhau.md 1 and 2.4 say; what a real one would do with an answer is not played.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from consumer.bacalhau.tap import SUBJECTS
from consumer.ports import RawFrame
from tests.bacalhau.listening import frames, quick, running
from tests.bacalhau.servers import NatsServer, nats_server, peer, settle
from tests.loopback import free_port
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

NODE: Final = "n-1"
IN: Final = f"bacalhau.global.compute.{NODE}.in.msgs"
OUT: Final = f"bacalhau.global.compute.{NODE}.out.msgs"
CTRL: Final = f"bacalhau.global.compute.{NODE}.out.ctrl"
REQUESTS: Final = f"bacalhau.global.compute.{NODE}.out.requests"
MANAGEMENT: Final = f"node.management.{NODE}.RegisterNode/v1"
LOGS: Final = f"node.compute.{NODE}.ExecutionLogs/v1"
ASK: Final = f"node.compute.{NODE}.AskForBid/v1"
APPROVE: Final = f"node.compute.{NODE}.BidAccepted/v1"
BID: Final = "node.orchestrator.n-orch.OnBidComplete/v1"
RAN: Final = "node.orchestrator.n-orch.OnRunComplete/v1"

SLOWLY_S: Final = 0.005
"""A peer answers after that: an answer of an observer's would be there first."""


class Bacalhau:
    """An orchestrator and a node, each on its own connection; every answer that comes to either is kept."""

    def __init__(self, orchestrator: Client, node: Client) -> None:
        self.orchestrator: Final = orchestrator
        self.node: Final = node
        self.answers: Final[dict[str, list[bytes]]] = defaultdict(list)
        self._more: Final = asyncio.Event()

    async def begin(self) -> None:
        """Subscribe as Bacalhau does: exact subjects for the node's messages, wildcards for the rest."""
        for client, subject, answer in (
            (self.node, IN, b"{}"),
            (self.orchestrator, OUT, b"{}"),
            (self.orchestrator, "bacalhau.global.compute.*.out.ctrl", b"a heartbeat's answer"),
            (self.orchestrator, "bacalhau.global.compute.*.out.requests", b"a signed URL"),
            (self.orchestrator, "node.management.>", b'{"value":{"Accepted":false}}'),
            (self.node, f"node.compute.{NODE}.>", b'{"value":{}}'),
        ):
            await client.subscribe(subject, cb=_answering(answer))
        for client, inbox in ((self.orchestrator, "_INBOX.orchestrator.*"), (self.node, "_INBOX.node.*")):
            await client.subscribe(inbox, cb=self._keep)
        await settle(self.node)
        await settle(self.orchestrator)

    async def ask(self, client: Client, subject: str, number: int) -> str:
        """Publish with an inbox of our own, as the ordered publisher does; gives the inbox."""
        inbox = f"_INBOX.{'node' if client is self.node else 'orchestrator'}.{subject.replace('.', '-')}-{number}"
        await client.publish(subject, b"%d" % number, reply=inbox)
        return inbox

    async def answered(self, number: int) -> None:
        """Wait until *number* questions have an answer."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.answers) < number:
                self._more.clear()
                await self._more.wait()

    async def _keep(self, msg: Msg) -> None:
        self.answers[msg.subject].append(msg.data or str(msg.headers).encode())
        self._more.set()


def _answering(answer: bytes) -> Any:
    async def callback(msg: Msg) -> None:
        if msg.reply:
            await asyncio.sleep(SLOWLY_S)
            await msg.respond(answer)

    return callback


@contextlib.asynccontextmanager
async def bacalhau(server: NatsServer) -> AsyncIterator[Bacalhau]:
    """The two of them, on *server*."""
    async with peer(server) as orchestrator, peer(server) as node:
        pair = Bacalhau(orchestrator, node)
        await pair.begin()
        yield pair


@contextlib.asynccontextmanager
async def monitored(folder: Path) -> AsyncIterator[tuple[NatsServer, str]]:
    """A server, and where it tells of its connections."""
    monitor = free_port()
    async with nats_server(folder, f'http: "127.0.0.1:{monitor}"\njetstream {{ store_dir: "{folder}/js" }}') as server:
        yield server, f"http://127.0.0.1:{monitor}"


async def tell(monitor: str, path: str) -> dict[str, Any]:
    """What the server's monitoring says."""
    async with ClientSession() as http, http.get(f"{monitor}/{path}") as answer:
        told: dict[str, Any] = await answer.json()
        return told


async def tap_as_seen(monitor: str) -> dict[str, Any]:
    """The tap's connection, as the server sees it."""
    told = await tell(monitor, "connz?subs=detail")
    (found,) = [one for one in told["connections"] if one.get("name") == "jobstate tap"]
    return dict(found)


async def test_every_answer_is_the_peers(tmp_path: Path) -> None:
    """Two hundred questions of seven kinds: each gets one answer, its peer's, though the peer answers late."""
    async with monitored(tmp_path) as (server, monitor), bacalhau(server) as pair:
        tap = quick(server.url)
        async with running(tap):
            expected = {}
            for number in range(30):
                for client, subject, answer in (
                    (pair.orchestrator, IN, b"{}"),
                    (pair.node, OUT, b"{}"),
                    (pair.node, CTRL, b"a heartbeat's answer"),
                    (pair.node, REQUESTS, b"a signed URL"),
                    (pair.node, MANAGEMENT, b'{"value":{"Accepted":false}}'),
                    (pair.orchestrator, ASK, b'{"value":{}}'),
                    (pair.orchestrator, LOGS, b'{"value":{}}'),
                ):
                    expected[await pair.ask(client, subject, number)] = [answer]
                await pair.node.publish(BID, b"%d" % number)
            await pair.answered(len(expected))
            for client in (pair.node, pair.orchestrator):
                await settle(client)
            assert pair.answers == expected

            heard = await frames(tap, 30 * 4)
            assert {frame.subject for frame in heard} == {IN, OUT, ASK, BID}

            seen = await tap_as_seen(monitor)
            assert (seen["in_msgs"], seen["in_bytes"]) == (0, 0), "the tap has published"
            assert sorted(sub["subject"] for sub in seen["subscriptions_list_detail"]) == sorted(SUBJECTS)
            assert not any(sub.get("qgroup") for sub in seen["subscriptions_list_detail"])
            streams = await tell(monitor, "jsz")
            assert (streams["streams"], streams["consumers"]) == (0, 0)


@pytest.mark.parametrize("subject", [CTRL, REQUESTS, MANAGEMENT, LOGS])
async def test_a_missing_peer_is_noticed_as_without_us(tmp_path: Path, subject: str) -> None:
    """Where nobody of Bacalhau's listens, its "no responders" comes as it would without us, and not a timeout."""
    async with nats_server(tmp_path) as server, peer(server) as alone:
        tap = quick(server.url)
        async with running(tap):
            with pytest.raises(NoRespondersError):
                await alone.request(subject, b"{}", timeout=DEADLINE_S)


@pytest.mark.parametrize("subject", [IN, OUT, ASK, APPROVE])
async def test_where_a_missing_peer_is_noticed_later(tmp_path: Path, subject: str) -> None:
    """On the subjects that we must hear there is no "no responders" while we do: the price, as the guide says it."""
    async with nats_server(tmp_path) as server, peer(server) as alone:
        tap = quick(server.url)
        async with running(tap):
            answers: list[Msg] = []

            async def keep(answer: Msg) -> None:
                answers.append(answer)

            await alone.subscribe("_INBOX.alone.*", cb=keep)
            # The server says "no responders" at once, on the connection of whoever asks: before its answer to a PING.
            for asked in (subject, CTRL):
                await alone.publish(asked, b"{}", reply=f"_INBOX.alone.{asked.split('.')[-1]}")
            await settle(alone)
            assert [answer.subject for answer in answers] == ["_INBOX.alone.ctrl"]


async def test_the_order_of_a_life_is_heard(tmp_path: Path) -> None:
    """Question, callback, approval, callback, of 400 executions side by side and over five subscriptions: in order.

    The observer is busy all the time, so that much is there whenever it reads.
    """
    async with nats_server(tmp_path) as server, peer(server) as orchestrator, peer(server) as node:
        calls: dict[bytes, asyncio.Queue[None]] = defaultdict(asyncio.Queue)

        async def serve(msg: Msg) -> None:
            await msg.respond(b'{"value":{}}')
            await node.publish(BID if msg.subject == ASK else RAN, msg.data)

        async def called(msg: Msg) -> None:
            calls[msg.data].put_nowait(None)

        async def life(name: bytes) -> None:
            for subject in (ASK, APPROVE):
                await orchestrator.request(subject, name, timeout=DEADLINE_S)
                await calls[name].get()

        await node.subscribe(f"node.compute.{NODE}.>", cb=serve)
        await orchestrator.subscribe("node.orchestrator.n-orch.>", cb=called)
        await settle(node)
        await settle(orchestrator)
        tap = quick(server.url)
        async with running(tap):
            for some in range(20):
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.gather(*(life(b"%d-%d" % (some, one)) for one in range(20)))
            lives: dict[bytes, list[str]] = defaultdict(list)
            for frame in await frames(tap, 400 * 4):
                lives[frame.data].append(frame.subject)
        assert len(lives) == 400
        assert {tuple(life_) for life_ in lives.values()} == {(ASK, BID, APPROVE, RAN)}


async def test_a_stranger_on_our_subjects_is_not_answered(tmp_path: Path) -> None:
    """Whoever asks on a subject that we hear gets no answer of ours, whatever the reply subject is."""
    async with monitored(tmp_path) as (server, monitor), peer(server) as stranger:
        tap = quick(server.url)
        async with running(tap):
            for reply in ("_INBOX.x", IN, "$JS.API.INFO", "jobstate.v1.main.in.default.x"):
                await stranger.publish(IN, b"{}", reply=reply)
            assert await frames(tap, 4) == [RawFrame(IN, b"{}")] * 4
            assert (await tap_as_seen(monitor))["in_msgs"] == 0
