"""Bacalhau's subjects, listened to: what comes is put aside, unread, until `batch` takes it.

An observer and nothing else: it publishes nothing, answers nothing, takes part in no queue group, makes no stream. What
a frame says is `consumer.wire`; what a gap asks for is `consumer.join`.
"""

import asyncio
import ssl
from collections.abc import Callable
from random import random
from typing import Final, NoReturn, Self

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoServersError, SlowConsumerError

from consumer.client import MendedClient
from consumer.errors import ServerError, SettingsError
from consumer.ports import RawFrame
from consumer.settings import Bacalhau as BacalhauSettings
from consumer.settings import read_secret

NCL: Final = "bacalhau.global.compute.*.*.msgs"
"""Both directions in one subscription: the order between two is not kept (`BACALHAU.md` 1.1)."""
BPROTOCOL: Final = "node.*.*.*"
"""Requests and callbacks of 1.5 in one subscription; it brings others, which are dropped unread (`BACALHAU.md` 1.2)."""

_KEPT: Final = ("bacalhau.global.compute.", "node.compute.", "node.orchestrator.")
_LOGS: Final = ".ExecutionLogs/v1"


class TapOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where Bacalhau's NATS is, who we are to it, and how much may wait to be taken.

    *tls* refuses a server without TLS before the token is sent; *tls_ca* and *tls_first* (the handshake before anything
    else, Bacalhau's `RequireTLS`) imply it.
    """

    urls: tuple[str, ...]
    token_file: str = ""
    tls: bool = False
    tls_ca: str = ""
    tls_first: bool = False
    frames_max: int = 65_536
    bytes_max: int = 64 * 1024 * 1024
    connect_timeout_s: int = 2
    pause_s: float = 0.5
    pause_max_s: float = 10.0
    ping_interval_s: int = 5

    @classmethod
    def of(cls, settings: BacalhauSettings) -> Self:
        """What the settings say; the bounds that they do not name stay as they are here."""
        return cls(
            urls=tuple(url.strip() for url in settings.url.split(",") if url.strip()),
            token_file=settings.token_file,
            tls_ca=settings.tls_ca,
            tls_first=settings.tls_first,
        )


class _Listener(MendedClient):
    """An observer's client: it tells when it is deaf, and reads no headers."""

    def when_deaf(self, tell: Callable[[], None]) -> None:
        """Call *tell* when the task that reads has ended, for whatever reason."""
        reader = self._reading_task
        if reader is None:
            tell()
        else:
            reader.add_done_callback(lambda _: tell())

    async def _process_headers(self, headers: bytes | None) -> None:
        """Frames need no headers: what they would say is in the body (`BACALHAU.md` 2.3)."""


class Tap:
    """`consumer.ports.Tap` on a connection of its own. `run` listens; `batch` takes what came, in the order it came.

    Order holds within each of the two subscriptions, so within everything that one execution says. A frame may be
    missed, and then `gaps` has risen: after a lost connection (a new one is made, always), and when more came than the
    bounds hold. `batch` returns at once then, with nothing if nothing came.
    """

    def __init__(self, options: TapOptions, dice: Callable[[], float] = random) -> None:
        """Raises SettingsError for a CA or a token file that cannot be used. *dice*: numbers in [0, 1), for pauses."""
        if not options.urls:
            raise SettingsError("bacalhau.url is empty; name the NATS of Bacalhau, like nats://host:4222")
        self._options: Final = options
        self._dice: Final = dice
        self._tls: Final = _tls(options)
        self._token()
        self._frames: list[RawFrame] = []
        self._bytes = 0
        self._gap_told = False
        self._something: Final = asyncio.Event()
        self._listening: Final = asyncio.Event()
        self._may_have_missed = False
        self._denied = ""
        self._gaps = 0
        self.taken = 0
        """Frames put aside so far."""
        self.dropped = 0
        """Frames that came and were dropped because too many waited."""
        self.connections = 0
        """Connections that have listened so far; one more than there were reconnects."""
        self.last_error = ""
        """Why the last connection failed or ended, in a few words."""

    @property
    def gaps(self) -> int:
        """How often frames may have been missed so far: each asks for a full list."""
        return self._gaps

    @property
    def connected(self) -> bool:
        """Whether both subscriptions stand."""
        return self._listening.is_set()

    async def listening(self) -> None:
        """Wait until both subscriptions stand: what is published from now on is heard."""
        await self._listening.wait()

    async def batch(self) -> list[RawFrame]:
        """Wait until frames came, or a gap; then all that did."""
        await self._something.wait()
        self._something.clear()
        frames, self._frames = self._frames, []
        self._bytes = 0
        self._gap_told = False
        return frames

    async def run(self) -> NoReturn:
        """Listen until cancelled, on one connection after the other.

        Raises ServerError if Bacalhau's NATS refuses us before it ever let us in; refused later, it is tried again.
        """
        failures = 0
        while True:
            url = self._options.urls[(self.connections + failures) % len(self._options.urls)]
            before = self.connections
            try:
                await self._listen(url)
            except (NatsError, OSError, TimeoutError, SettingsError) as error:
                if not isinstance(error, NoServersError):  # the errors that led to it say more
                    self.last_error = _why(error)
                if not self.connections and "authorization" in self.last_error.lower():
                    raise ServerError(
                        f"Bacalhau's NATS refuses us ({self.last_error}); check bacalhau.token_file"
                    ) from error
            if self.connections > before:
                failures = 0
            else:
                failures += 1
                self._may_have_missed = True  # somebody may have spoken while nobody listened
            pause = min(self._options.pause_s * 2.0 ** min(failures, 30), self._options.pause_max_s)
            await asyncio.sleep(pause * (0.5 + self._dice() / 2))

    async def _listen(self, url: str) -> None:
        """Connect to *url* and listen until that connection ends."""
        options = self._options
        client = _Listener(tls=self._tls is not None)
        ended = asyncio.Event()

        async def closed() -> None:
            ended.set()

        try:
            async with asyncio.timeout(3 * options.connect_timeout_s):
                await client.connect(
                    url,
                    name="jobstate tap",
                    token=self._token(),
                    tls=self._tls,
                    tls_handshake_first=options.tls_first,
                    allow_reconnect=False,  # one way to recover for whatever ended: a new client
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=options.connect_timeout_s,
                    ping_interval=options.ping_interval_s,
                    max_outstanding_pings=2,
                    error_cb=self._hear_error,
                    closed_cb=closed,
                )
                for subject in (NCL, BPROTOCOL):
                    await client.subscribe(
                        subject,
                        cb=self._take,
                        pending_msgs_limit=options.frames_max,
                        pending_bytes_limit=options.bytes_max,
                    )
                # nats-py writes flush's PING at once, ahead of a SUB that still waits for its flusher: only the second
                # PONG says that the server has both subscriptions.
                await client.flush(options.connect_timeout_s)
                await client.flush(options.connect_timeout_s)
                if self._denied:
                    denied, self._denied = self._denied, ""
                    raise NatsError(denied)  # it would be connected, and deaf
            # A reader that dies leaves a client that looks connected and is deaf (`NATS.md` 3).
            client.when_deaf(ended.set)
            self.connections += 1
            if self._may_have_missed:
                self._tell_gap()
            self._may_have_missed = True  # whenever the next one listens
            self._listening.set()
            await ended.wait()
            self.last_error = _why(client.last_error) if client.last_error else "the connection ended"
        finally:
            self._listening.clear()
            await client.close()

    async def _take(self, msg: Msg) -> None:
        if not msg.subject.startswith(_KEPT) or msg.subject.endswith(_LOGS):
            return
        size = len(msg.data)
        if len(self._frames) >= self._options.frames_max or self._bytes + size > self._options.bytes_max:
            self._drop()
            return
        self._frames.append(RawFrame(msg.subject, msg.data))
        self._bytes += size
        self.taken += 1
        self._something.set()

    async def _hear_error(self, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            self._drop()
        else:
            self.last_error = _why(error)
            if "permissions violation for subscription" in self.last_error.lower():
                self._denied = self.last_error

    def _drop(self) -> None:
        self.dropped += 1
        if not self._gap_told:  # one gap for all that is dropped before the next batch
            self._gap_told = True
            self._tell_gap()

    def _tell_gap(self) -> None:
        self._gaps += 1
        self._something.set()

    def _token(self) -> str | None:
        path = self._options.token_file
        return read_secret(path, "bacalhau.token_file") if path else None


def _tls(options: TapOptions) -> ssl.SSLContext | None:
    by_url = any(url.startswith("tls://") for url in options.urls)
    if not (options.tls or options.tls_ca or options.tls_first or by_url):
        return None
    try:
        return ssl.create_default_context(cafile=options.tls_ca or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"bacalhau.tls_ca: {options.tls_ca} is no certificate authority in PEM; check the file"
        ) from error


def _why(error: BaseException) -> str:
    """A few words for the operator: one line, bounded, no control characters of a stranger."""
    text = str(error) or type(error).__name__
    return "".join(char for char in text if char.isprintable())[:200]
