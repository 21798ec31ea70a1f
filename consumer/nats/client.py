"""nats-py's client, mended where both sides of us need it: no bytes end its reader, and no token goes in the clear.

Its owners, who also act when it is lost, are `consumer.nats.connection` and `consumer.bacalhau.tap`.
The mends lean on private names of nats-py; `consumer.nats.compat` looks whether they still hold.
"""

import asyncio
import contextlib
import errno
import ssl
from collections.abc import Sequence
from typing import Any, ClassVar, Final
from urllib.parse import ParseResult, unquote

import aiohttp
import nats.errors
import structlog
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport, WebSocketTransport

from consumer.faults import Fault, NatsFault, of_certificate
from consumer.nats import faults
from consumer.nats.faults import Side
from consumer.resolve import Resolver, UnresolvedError

log = structlog.get_logger()

CLOSE_S: Final = 1.0
BROKEN_HEADERS: Final = "Jobstate-Broken-Headers"
"""Marks a message whose header block could not be read."""


class MetError(nats.errors.Error):
    """What our own client met, among the errors of nats-py. *kind*: the fault."""

    def __init__(self, kind: NatsFault, text: str) -> None:
        super().__init__(text)
        self.kind: Final = kind


class _Transport(TcpTransport):
    """nats-py's, on every event loop alike: what is written to a socket that is gone is dropped, and `drain` says so.

    asyncio does it like this, and nats-py expects it; uvloop raises `RuntimeError`, which would end whoever closes or
    connects at the moment that the server dies. And what is written in pieces is written as one: CPython's own
    `writelines` forgets back pressure in 3.12.0 to 3.12.8 and 3.13.0 to 3.13.1 (its issue 127655), and memory fills.
    A host's name is looked up by *resolver*, so that a name server that hangs delays no end of the process.
    """

    def __init__(self, resolver: Resolver) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # nats-py has no types here
        self._resolver: Final = resolver

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        assert uri.hostname is not None
        assert uri.port is not None
        found = await self._resolver.open_connection(
            uri.hostname, uri.port, limit=buffer_size, within_s=connect_timeout
        )
        self._bare_io_reader, self._bare_io_writer = self._io_reader, self._io_writer = found

    def write(self, payload: bytes) -> None:
        with contextlib.suppress(RuntimeError):
            super().write(payload)  # type: ignore[no-untyped-call]

    def writelines(self, payload: Sequence[bytes]) -> None:
        with contextlib.suppress(RuntimeError):
            super().write(b"".join(payload))  # type: ignore[no-untyped-call]


class _Uri(ParseResult):
    """A server's address, whose user, password or token may be percent-encoded, as every other client of NATS has it.

    Without that a secret with `@`, `:` or `/` could not be written into an URL.
    """

    @property
    def username(self) -> str | None:
        found = super().username
        return None if found is None else unquote(found)

    @property
    def password(self) -> str | None:
        found = super().password
        return None if found is None else unquote(found)


async def _make_web_transport(resolver: Resolver) -> WebSocketTransport:
    """nats-py's, with a lookup of names as in `_Transport`."""
    made = WebSocketTransport()
    await made._client.close()
    made._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver))
    return made


class MendedClient(Client):
    """A client whose reader lives through what the server passes on (design/nats.md 3, the first trap).

    *tls*: refuse a server that does not speak it (design/bacalhau.md 7: it may offer TLS without asking for it).
    *resolver*: whoever makes one client after the other gives each the same.
    """

    side: ClassVar[Side] = "nats"
    """Whose server it is."""

    def __init__(self, *, tls: bool, resolver: Resolver) -> None:
        super().__init__()
        self._resolver: Final = resolver
        self._tls_wanted: Final = tls
        self._taken = self._introduced = False
        self.tried = False
        """Whether any server was tried. An error before that is one of the settings: no further try can mend it."""

    def fault_of(self, error: BaseException, *, worked: bool) -> Fault:
        """Why it cannot be used, by *error* and how far the connection had come. *worked*: one stood there before."""
        why = _reason(error)
        return faults.make(self.side, self._kind_of(error), why, worked=worked, denied=faults.read_denied(why))

    def _kind_of(self, error: BaseException) -> NatsFault:
        if isinstance(error, MetError):
            return error.kind
        if isinstance(error, aiohttp.ClientResponseError):  # the handshake's answer is none, or no HTTP at all
            return faults.NO_WEBSOCKET
        if not self._taken:
            if isinstance(getattr(error, "os_error", error), UnresolvedError):
                return faults.UNRESOLVED
            if isinstance(error, OSError | nats.errors.TimeoutError) and not isinstance(error, ssl.SSLError):
                return faults.AWAY
        elif not self._introduced and isinstance(error, TimeoutError | nats.errors.TimeoutError):
            return faults.SILENT
        return of_certificate(error) or faults.kind_of_text(_reason(error))

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return Msg(
            _client=self,
            subject=subject.decode("utf-8", "surrogateescape"),
            reply=reply.decode("utf-8", "surrogateescape"),
            data=data,
            headers=headers,
            _sid=sid,
        )

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (ValueError, IndexError):  # no `NATS/1.0`, no line end, a status that is not UTF-8
            return {BROKEN_HEADERS: ""}

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # Before CONNECT is sent, and with it the token: nats-py would send it in the clear.
        if initial_connection and self._tls_wanted and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise MetError(faults.NO_TLS, "the server offers no TLS, and the settings ask for it")
            info["tls_required"] = True
        self._introduced = True
        await super()._process_info(info, initial_connection)

    async def connect(self, *arguments: Any, **options: Any) -> None:
        """nats-py's `connect`; where something else than NATS answers, that is an error of NATS too.

        An error that it raises before it has *tried* a server is one too.
        """
        try:
            await super().connect(*arguments, **options)
        except ssl.SSLError:  # that of a certificate is a ValueError, too
            raise
        except (ValueError, TypeError, AttributeError, LookupError, ImportError) as error:
            await self.close()
            if not self.tried:
                raise nats.errors.Error(f"nats: {_reason(error)}") from error
            raise MetError(faults.ALIEN, f"nats: what answers speaks no NATS ({type(error).__name__})") from error

    async def close(self) -> None:
        """End it. Waiting messages are sent, unless the server does not take it within a second."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await super().close()
        except TimeoutError:
            self._abort()

    def _abort(self) -> None:
        """Let go of the socket and of what waits to be sent: nats-py would wait until a frozen server takes it."""
        self._pending = []
        self._pending_data_size = 0
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _connect_to_server(self, s: Srv) -> None:
        self._taken = self._introduced = False
        self.tried = True
        s.uri = _Uri(*s.uri)
        if s.uri.scheme in {"ws", "wss"}:
            self._transport = self._transport or await _make_web_transport(self._resolver)
            await super()._connect_to_server(s)
        else:
            if isinstance(self._transport, TcpTransport):  # of a try that the server took, and that came to nothing
                self._transport.close()  # type: ignore[no-untyped-call]
            transport = _Transport(self._resolver)
            await transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])
            self._transport = transport
        self._taken = True

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if self._flush_queue is None:  # it never began: an address that nats-py cannot read
            self._status = status
            return
        try:
            await super()._close(status, do_cbs)
        except OSError:
            # The socket went while the last bytes were sent: nats-py would leave the rest of its closing undone.
            self._pending, self._pending_data_size = [], 0
            self._status = Client.DISCONNECTED
            await super()._close(status, do_cbs)


def _reason(error: BaseException) -> str:
    """A few words for the operator: one line, bounded, no control characters of a stranger."""
    text = str(error) or type(error).__name__
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in text:
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        text = error.strerror
    return "".join(character for character in text if character.isprintable())[:200]
