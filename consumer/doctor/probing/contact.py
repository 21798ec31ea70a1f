"""The way to a NATS server: first a knock, which tells who is there, then the very client that the daemon uses."""

import asyncio
import contextlib
import ipaddress
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from consumer.bacalhau.tap import Tap, speaks_tls
from consumer.doctor.facts import Contact
from consumer.errors import JobstateError, ServerError
from consumer.faults import Fault, NatsFault
from consumer.nats.address import Address
from consumer.nats.connect import connect_writer
from consumer.nats.connection import Connection
from consumer.nats.faults import OTHER, UNRESOLVED, addresses
from consumer.patience import look_until
from consumer.resolve import Resolver, UnresolvedError
from consumer.settings import Settings, redact

KNOCK_S: Final = 2.0
CONNECT_S: Final = 3.0
SUBSCRIBE_S: Final = 8.0
LOOK_S: Final = 0.02
_LINE_MAX: Final = 64 * 1024
_PORTS_OF_WEB: Final = {"ws": 80, "wss": 443}


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a server's first line that is used here."""

    version: str = "unknown"
    server_name: str = ""
    max_payload: int = 0
    tls_required: bool = False
    tls_available: bool = False


class Knock(msgspec.Struct, frozen=True, kw_only=True):
    """The greeting of one address. `fault`: as of a `Contact`; None with `info` None: not told."""

    where: str
    fault: NatsFault | None = None
    why: str = ""
    info: Info | None = None


async def knock(address: str) -> Knock:
    """Connect to *address*, and read the first line that a NATS server says there. A WebSocket has none."""
    if _split(address).scheme in _PORTS_OF_WEB:
        return await knock_silently(address)
    met = await _connect(address)
    if isinstance(met, Knock):
        return met
    reader, writer = met
    where = redact(address)
    try:
        async with asyncio.timeout(KNOCK_S):
            line = await reader.readline()
    except TimeoutError:
        return Knock(where=where, fault="silent")
    except (OSError, ValueError):
        return Knock(where=where, fault="alien")
    finally:
        await _close(writer)
    with contextlib.suppress(msgspec.MsgspecError, UnicodeError):
        if line.startswith(b"INFO "):
            return Knock(where=where, info=msgspec.json.decode(line[5:], type=Info))
    return Knock(where=where, fault="alien")


async def knock_silently(address: str) -> Knock:
    """Connect to *address*. No more can be learnt of a server that says nothing before TLS."""
    met = await _connect(address)
    if isinstance(met, Knock):
        return met
    await _close(met[1])
    return Knock(where=redact(address))


def _split(address: str) -> SplitResult:
    return urlsplit(address if "://" in address else f"nats://{address}")


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | Knock:
    """A connection to *address*; or why there is none."""
    url, where = _split(address), redact(address)
    port = url.port or _PORTS_OF_WEB.get(url.scheme, 4222)
    try:
        return await Resolver().open_connection(url.hostname or "", port, limit=_LINE_MAX, within_s=KNOCK_S)
    except UnresolvedError as error:
        return Knock(where=where, fault=UNRESOLVED, why=_reason(error))
    except TimeoutError:
        return Knock(where=where, fault="away", why=f"no connection within {KNOCK_S:g} s")
    except OSError as error:
        return Knock(where=where, fault="away", why=_reason(error))


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def reach_ours(address: Address) -> tuple[Contact, Connection | None]:
    """Connect to our NATS as the daemon's writer does. The connection is None where there is a fault."""
    knocks = await asyncio.gather(*map(knock_silently if address.tls_first else knock, address.urls))
    private = address.tls_context is not None
    contact = _met(knocks, private=private, secret=bool(address.token or address.user or address.credentials_file))
    if contact.fault:
        return contact, None
    try:
        connection = await connect_writer(address, "doctor", within_s=CONNECT_S)
    except ServerError as error:
        return _failed(contact, error), None
    return (
        msgspec.structs.replace(contact, version=connection.server_version, max_payload=connection.max_payload),
        connection,
    )


class Listening:
    """Bacalhau's subjects, listened to with the daemon's own tap, until `stop`."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError as `Tap`."""
        self._settings: Final = settings.bacalhau
        self.tap: Final = Tap(settings.bacalhau)
        self.began_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Contact:
        """Connect and subscribe all; gives how that went."""
        settings, tap = self._settings, self.tap
        urls = addresses(settings.url)
        knocks = await asyncio.gather(*map(knock_silently if settings.tls_first else knock, urls))
        secret = bool(settings.token or settings.token_file)
        contact = _met(knocks, private=speaks_tls(settings), secret=secret)
        if contact.fault:
            return contact
        task = self._task = asyncio.create_task(self._listen(), name="doctor's tap")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SUBSCRIBE_S
        # It tries for ever; once every address was tried it is known how it goes.
        await look_until(
            lambda: tap.connected or task.done() or tap.tries > len(urls) or loop.time() > deadline, LOOK_S
        )
        if task.done() and (error := task.exception()) is not None:
            return _failed(contact, error)
        if not tap.connected:
            return _with(contact, tap.fault)
        self.began_at = loop.time()
        return msgspec.structs.replace(contact, version=tap.server.version, server=tap.server.name)

    async def stop(self) -> None:
        """End the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ServerError):
                await task

    async def _listen(self) -> None:
        await self.tap.run()


def is_loopback(host: str | None) -> bool:
    """Whether nobody but this machine is on the way there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _met(knocks: list[Knock], *, private: bool, secret: bool) -> Contact:
    """Sum up the knocks: it is enough if one address answers."""
    there = [one for one in knocks if not one.fault] or knocks
    best = there[0]
    urls = [one.where if "://" in one.where else f"nats://{one.where}" for one in there]
    info = best.info or Info()
    return Contact(
        address=best.where,
        fault=best.fault,
        why=best.why,
        others_away=tuple(one.where for one in knocks if one is not best and one.fault),
        private=private or info.tls_required,
        offers_tls=info.tls_required or info.tls_available,
        secret=secret or any("@" in one.where for one in knocks),
        loopback=all(is_loopback(urlsplit(url).hostname) for url in urls),
        version=info.version,
        server=info.server_name,
        max_payload=info.max_payload,
    )


def _failed(contact: Contact, error: BaseException) -> Contact:
    """*contact* with the fault that *error* carries."""
    return _with(contact, error.fault if isinstance(error, JobstateError) else None, str(error))


def _with(contact: Contact, fault: Fault | None, why: str = "no answer") -> Contact:
    """*contact* with a *fault* of a NATS server's; where there is none, *why* it came to nothing."""
    if fault is None:
        return msgspec.structs.replace(contact, fault=OTHER, why=why)
    return msgspec.structs.replace(contact, fault=fault.kind, why=fault.detail)


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error) or type(error).__name__
