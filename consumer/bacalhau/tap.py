"""Bacalhau's subjects, listened to: what comes is put aside, unread, until `batch` takes it.

An observer and nothing else: it publishes nothing, answers nothing, is in no queue group, makes no stream. Frames
are read by `consumer.wire`; `consumer.core` reacts to a gap.
"""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from random import random
from typing import Any, Final, NoReturn

import msgspec
import structlog
from nats.errors import Error as NatsError
from nats.errors import NoServersError, StaleConnectionError, UnexpectedEOF

from consumer.errors import ServerError, SettingsError
from consumer.faults import Fault
from consumer.model import GapCause
from consumer.nats import faults
from consumer.nats.client import MendedClient
from consumer.nats.faults import read_denied
from consumer.nats.outage import Outage
from consumer.ports import RawFrame
from consumer.resolve import Resolver
from consumer.settings import Bacalhau as BacalhauSettings
from consumer.settings import redact, secret_of, trust

log = structlog.get_logger()

NCL: Final = "bacalhau.global.compute.*.*.msgs"
"""Both directions (design/bacalhau.md 1.1). Not `out.ctrl`, not `out.requests`: our interest there would take away the
"no responders" that a node gets at once when its orchestrator does not listen (2.6)."""

BPROTOCOL: Final = (
    "node.compute.*.AskForBid/v1",
    "node.compute.*.BidAccepted/v1",
    "node.compute.*.BidRejected/v1",
    "node.compute.*.CancelExecution/v1",
    "node.orchestrator.*.*",
)
"""Requests and callbacks of 1.5 (1.2), and neither `node.management` nor `ExecutionLogs`: docs/decisions/0013."""

SUBJECTS: Final = (NCL, *BPROTOCOL)
"""All that is subscribed, in one connection: whoever grants permissions grants these."""

LATE: Final = "late"
"""The first connection did not stand at once: somebody may have spoken before."""
RECONNECT: Final = "reconnect"
"""The connection was lost, and the same server is there again."""
RESTART: Final = "restart"
"""A server of the same name, started anew."""
SERVER_CHANGE: Final = "server-change"
"""Another server: the next one of `bacalhau.url`, or another one behind the same address."""
LAME_DUCK: Final = "lame-duck"
"""The server had said that it would go, and went."""
SILENT: Final = "silent"
"""Nothing came any more, no end of the connection either: pings were not answered."""
DEAD_READER: Final = "dead-reader"
"""The client's reading task had ended while it looked connected (design/nats.md 3)."""
SLOW_CONSUMER: Final = "slow-consumer"
"""More came than the bounds hold, or the server cut us off for reading too slowly."""
DENIED: Final = "denied"
"""The server took a subscription away, by a reload of its permissions, and kept the connection."""


class TapTiming(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a tap is, in seconds; `pause_s` after a failure, doubled for each further one up to `pause_max_s`."""

    connect_timeout_s: int = 2
    pause_s: float = 0.5
    pause_max_s: float = 10.0
    ping_interval_s: int = 5


TIMING: Final = TapTiming()
"""The daemon's."""


_CUT_FOR_SLOWNESS: Final = "slow consumer"
"""nats-server's `Slow Consumer` (`server/client.go`), as nats-py hands it on: as text."""


class Server(msgspec.Struct, frozen=True):
    """Which server answers, in its own words: Bacalhau names its NATS server by the orchestrator's node."""

    id: str = ""
    name: str = ""
    version: str = ""


class _Listener(MendedClient):
    """An observer's client: each message goes to *take* in the reader itself, and nothing can be published with it.

    In the reader, because a queue and a task for each subscription, nats-py's way, would lose the order between them.
    """

    side = "bacalhau"

    def __init__(self, *, tls: bool, resolver: Resolver, take: Callable[[bytes, bytes], None]) -> None:
        super().__init__(tls=tls, resolver=resolver)
        self._take: Final = take
        self.lame_duck = False
        """Whether the server has said that it will go. It serves on until it closes the connection."""
        self.denied: Exception | None = None
        """The server's words when it refused a subscription, or took one away: it keeps the connection."""

    def when_deaf(self, tell: Callable[[], None]) -> None:
        """Call *tell* when the task that reads has ended, for whatever reason."""
        reader = self._reading_task
        if reader is None:
            tell()
        else:
            reader.add_done_callback(lambda _: tell())

    @property
    def server(self) -> Server:
        """Who answered the connection."""
        said = self._server_info
        return Server(*(_clean(str(said.get(key, ""))) for key in ("server_id", "server_name", "version")))

    @property
    def end(self) -> GapCause:
        """Why the connection ended, of the reasons above; `RECONNECT` if nothing more is known."""
        if self.denied is not None:
            return DENIED
        if self.is_connected:  # and nobody reads
            return DEAD_READER
        if self.lame_duck:
            return LAME_DUCK
        if isinstance(self.last_error, StaleConnectionError) and not isinstance(self.last_error, UnexpectedEOF):
            return SILENT
        if _CUT_FOR_SLOWNESS in str(self.last_error).lower():
            return SLOW_CONSUMER
        return RECONNECT

    @property
    def trouble(self) -> Exception:
        """The same in the words of whoever ended it."""
        return self.denied or self.last_error or NatsError("nats: the connection ended")

    async def publish(self, *_arguments: Any, **_options: Any) -> NoReturn:
        """Nothing: an answer of ours would be taken for the peer's (design/bacalhau.md 2.6)."""
        raise AssertionError("an observer publishes nothing")

    async def _process_msg(self, _sid: int, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        # The headers' contents are in the body too (design/bacalhau.md 2.3), and nobody is answered.
        self._take(subject, data)


class Tap:
    """`consumer.ports.Tap` on a connection of its own. `run` listens; `batch` takes what came, in the order it came.

    The order is that of the server, over all subjects. A frame may be missed: between a lost connection and the next
    (there is one, always), and when more came than the bounds hold. Then `gaps` has risen before `batch` gives a frame
    that came after those; `batch` returns at once, with nothing if nothing came.
    """

    def __init__(
        self,
        settings: BacalhauSettings,
        timing: TapTiming = TIMING,
        dice: Callable[[], float] = random,
    ) -> None:
        """Raises SettingsError for a CA or a token file that cannot be used. *dice*: numbers in [0, 1), for pauses.

        A CA and a handshake before anything else (`RequireTLS`) are TLS, too: a server without it is refused before the
        token is sent. The token's file is read for each connection.
        """
        self._urls: Final = faults.addresses(settings.url)
        if not self._urls:
            raise SettingsError("bacalhau.url is empty; name the NATS of Bacalhau, like nats://host:4222")
        self._settings: Final = settings
        self._timing: Final = timing
        self._dice: Final = dice
        self._tls: Final = _tls(settings)
        self._token()
        self._frames: list[RawFrame] = []
        self._held: list[RawFrame] = []
        """Messages of a connection that does not listen yet: they may come after a gap that is still to be told."""
        self._bytes = 0
        self._gap_told = False
        self._something: Final = asyncio.Event()
        self._listening: Final = asyncio.Event()
        self._tried: Final = asyncio.Event()
        self._hurried: Final = asyncio.Event()
        self._missed_by: GapCause | None = None
        self.gaps_by: Final[Counter[GapCause]] = Counter()
        """How often frames may have been missed, by the reasons above. They are few and ours, so they may be labels."""
        self.taken = 0
        """Frames put aside so far."""
        self.dropped = 0
        """Frames that came and were dropped because too many waited."""
        self.tries = 0
        """Connections that were tried so far."""
        self.connections = 0
        """Connections that have listened so far; one more than there were reconnects."""
        self.server = Server()
        """The server that listened to us last."""
        self.fault: Fault | None = None
        """Why the last connection failed or ended."""
        self._resolver: Final = Resolver()
        self._outage: Final = Outage("jobstate tap")
        self._worked: Final[set[str]] = set()
        """The addresses at which it has listened."""

    @property
    def last_error(self) -> str:
        """Why the last connection failed or ended, in a few words; empty: none has."""
        return "" if self.fault is None else self.fault.detail

    @property
    def next_step(self) -> str:
        """What to do about that."""
        return "" if self.fault is None else self.fault.next_step

    @property
    def gaps(self) -> int:
        """How often frames may have been missed so far: each asks for a full list."""
        return self.gaps_by.total()

    @property
    def where(self) -> str:
        """The servers that are tried, fit to be shown."""
        return redact(",".join(self._urls))

    @property
    def connected(self) -> bool:
        """Whether all subscriptions stand."""
        return self._listening.is_set()

    async def listening(self) -> None:
        """Wait until all subscriptions stand: what is published from now on is heard."""
        await self._listening.wait()

    async def tried(self) -> None:
        """Wait until the first connection listens, or has come to nothing."""
        await self._tried.wait()

    async def batch(self) -> list[RawFrame]:
        """Wait until frames came, or a gap; then all that did."""
        await self._something.wait()
        self._something.clear()
        frames, self._frames = self._frames, []
        self._bytes = sum(len(frame.data) for frame in self._held)
        self._gap_told = False
        return frames

    async def run(self) -> NoReturn:
        """Listen until cancelled, on one connection after the other.

        Raises ServerError if Bacalhau's NATS rejects our credentials at first; later the tap tries again.
        Raises SettingsError for an address that no client can try.
        """
        failures = 0
        while True:
            url = self._urls[(self.connections + failures) % len(self._urls)]
            before = self.connections
            self.tries += 1
            client = _Listener(tls=self._tls is not None, resolver=self._resolver, take=self._take)
            try:
                await self._listen(url, client)
            except (NatsError, OSError, TimeoutError, SettingsError) as error:
                if not isinstance(error, NoServersError):  # the errors that led to it say more
                    self._note(client, error, url)
                if not client.tried and isinstance(error, NatsError):
                    raise SettingsError(
                        f"bacalhau.url: {redact(url)} cannot be used ({self.last_error}); write nats://HOST:PORT"
                    ) from error
                if not self.connections and self.fault is not None and self.fault.kind == faults.REFUSED:
                    raise ServerError(
                        f"Bacalhau's NATS refuses us ({self.last_error}); check {faults.SECRET['bacalhau']}",
                        fault=self.fault,
                    ) from error
            self._tried.set()
            if self.connections > before:
                failures = 0
            else:
                failures += 1
                self._outage.tell("tap.trouble", redact(url), self.last_error, self.next_step)
                self._missed_by = self._missed_by or LATE  # somebody may have spoken while nobody listened
            pause = min(self._timing.pause_s * 2.0 ** min(failures, 30), self._timing.pause_max_s)
            if await self._is_hurried(pause * (0.5 + self._dice() / 2)):
                failures = 0

    def reconnect_now(self) -> None:
        """Try again at once, if it is away: something says that Bacalhau may be back."""
        self._hurried.set()

    async def _is_hurried(self, pause_s: float) -> bool:
        """Wait until the pause is over; gives whether `reconnect_now` has ended it before its time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._hurried.wait()
        hurried = self._hurried.is_set()
        self._hurried.clear()
        return hurried

    async def _listen(self, url: str, client: _Listener) -> None:
        """Connect to *url* and listen until that connection ends."""
        settings, timing = self._settings, self._timing
        ended = asyncio.Event()

        async def closed() -> None:
            ended.set()

        async def hear_error(error: Exception) -> None:
            self._note(client, error, url)
            denied = read_denied(str(error))
            if denied is not None and denied.operation == "subscription":
                # nats-py never asks for it again: connected, and deaf, also when the permission is back.
                client.denied = error
                self._listening.clear()  # what the other subscriptions bring from now on comes after the gap
                ended.set()

        async def lame_duck() -> None:
            client.lame_duck = True
            log.warning("tap.lame_duck", server=client.server.name, next_step="it is listened to until it goes")

        try:
            async with asyncio.timeout(3 * timing.connect_timeout_s):
                await client.connect(
                    url,
                    name="jobstate tap",
                    token=self._token(),
                    tls=self._tls,
                    tls_handshake_first=settings.tls_first,
                    allow_reconnect=False,  # one way to recover for whatever ended: a new client
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=timing.connect_timeout_s,
                    ping_interval=timing.ping_interval_s,
                    max_outstanding_pings=2,
                    error_cb=hear_error,
                    closed_cb=closed,
                    lame_duck_mode_cb=lame_duck,
                )
                for subject in SUBJECTS:
                    await client.subscribe(subject)
                # nats-py writes flush's PING at once, ahead of a SUB that still waits for its flusher: only the second
                # PONG says that the server has all subscriptions.
                await client.flush(timing.connect_timeout_s)
                await client.flush(timing.connect_timeout_s)
                if client.denied is not None:
                    raise client.denied
            # A reader that dies leaves a client that looks connected and is deaf (design/nats.md 3).
            client.when_deaf(ended.set)
            self._begin(client.server, url)
            await ended.wait()
            self._missed_by = client.end
            self._note(client, client.trouble, url)
            log.warning(
                "tap.lost",
                server=self.server.name,
                cause=self._missed_by,
                reason=self.last_error,
                next_step=self.next_step,
            )
        finally:
            self._listening.clear()
            await client.close()
            self._bytes -= sum(len(frame.data) for frame in self._held)
            self._held.clear()  # the gap that is told next covers it

    def _begin(self, server: Server, url: str) -> None:
        """*server* has our subscriptions. Messages since the last one had them were missed, and why."""
        before, self.server = self.server, server
        cause = self._missed_by
        if cause == RECONNECT and server.id != before.id:
            cause = RESTART if server.name == before.name else SERVER_CHANGE
        self.connections += 1
        self._worked.add(url)
        self._outage.end()
        self._hurried.clear()  # it is back: what was said before is over
        log.info("tap.listens", url=redact(url), server=server.name, version=server.version, missed_by=cause)
        if before.name and server.name != before.name:
            step = "every job is looked at; is it the same cluster?"
            log.warning("tap.server_changed", before=before.name, server=server.name, next_step=step)
        if cause:
            self._tell_gap(cause)
        self._listening.set()
        self._tried.set()
        if self._held:
            held, self._held = self._held, []
            self._hand_out(held)

    def _take(self, subject: bytes, data: bytes) -> None:
        size = len(data)
        waiting = len(self._frames) + len(self._held)
        if waiting >= self._settings.frames_max or self._bytes + size > self._settings.frames_bytes:
            self.dropped += 1
            if not self._gap_told:  # one gap for all that is dropped before the next batch
                self._gap_told = True
                self._tell_gap(SLOW_CONSUMER)
            return
        frame = RawFrame(subject.decode("utf-8", "surrogateescape"), data)
        self._bytes += size
        if self._listening.is_set():
            self._hand_out((frame,))
        else:
            self._held.append(frame)

    def _hand_out(self, frames: Sequence[RawFrame]) -> None:
        self._frames += frames
        self.taken += len(frames)
        self._something.set()

    def _note(self, client: _Listener, error: Exception, url: str) -> None:
        self.fault = client.fault_of(error, worked=url in self._worked)

    def _tell_gap(self, cause: GapCause) -> None:
        self.gaps_by[cause] += 1
        self._something.set()

    def _token(self) -> str | None:
        return secret_of(self._settings.token, self._settings.token_file, "bacalhau.token_file") or None


def _tls(settings: BacalhauSettings) -> ssl.SSLContext | None:
    return trust(settings.tls_ca, "bacalhau.tls_ca") if speaks_tls(settings) else None


def speaks_tls(settings: BacalhauSettings) -> bool:
    """Whether a server without TLS is refused."""
    by_url = any(url.startswith("tls://") for url in faults.addresses(settings.url))
    return by_url or bool(settings.tls_ca) or settings.tls_first


def _clean(text: str) -> str:
    """A few words for the operator: one line, bounded, no control characters of a stranger."""
    return "".join(char for char in text if char.isprintable())[:200]
