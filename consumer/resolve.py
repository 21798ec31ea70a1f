"""Look up the names of hosts so that a name server that does not answer holds nobody up, the end of the process least.

`getaddrinfo` cannot be cancelled. asyncio and uvloop run it in a pool of threads, and a loop that ends waits for its
pool: with a name server that hangs, for 9 to 41 s. Here each lookup has a daemon thread, which nothing waits for.
"""

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from aiohappyeyeballs import start_connection
from aiohttp.abc import AbstractResolver, ResolveResult

WITHIN_S: Final = 2.0
"""Seconds that an answer is waited for. The lookup goes on after that: the next who asks waits for the same one."""
KEEP_S: Final = 30.0
"""Seconds that an answer is kept which came when nobody waited any more: a slow name server is of use all the same."""
NEXT_ADDRESS_S: Final = 0.25
"""Seconds after which a host's next address is tried beside the one before: what RFC 8305 recommends."""


class UnresolvedError(OSError):
    """The host's name has no address, or no name server says which. `strerror` is the sentence for an operator."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(socket.EAI_NONAME, f"the name {host} does not resolve: {why}")


class _Answer(NamedTuple):
    """The result of a lookup: addresses, or *why* there are none; and when it came (monotonic seconds)."""

    addresses: tuple[str, ...]
    why: str
    at: float


class Resolver(AbstractResolver):
    """Looks up names, and remembers the lookups that are under way: one name has one lookup, however many wait for it.

    A client that connects to the same place again and again keeps one of these. It is aiohttp's resolver, too.
    """

    def __init__(self) -> None:
        self._lookups: Final[dict[tuple[str, int], Future[_Answer]]] = {}
        """Those under way, and those that have ended and whose answer nobody has taken; by host and family."""

    async def addresses(
        self, host: str, *, family: int = socket.AF_UNSPEC, within_s: float = WITHIN_S
    ) -> Sequence[str]:
        """Give the addresses of *host*, the system's first choice first. An address is its own.

        Waits at most *within_s* seconds for the answer. Raises `UnresolvedError`, whatever the lookup itself raised.
        """
        if is_address(host):
            return (host,)
        key = (host, int(family))
        lookup = self._lookups.get(key)
        if lookup is None or (lookup.done() and time.monotonic() - lookup.result().at > KEEP_S):
            lookup = self._lookups[key] = _begin(host, family)
        try:
            async with asyncio.timeout(within_s):
                found = await asyncio.wrap_future(lookup)
        except TimeoutError:
            raise UnresolvedError(host, f"no name server has answered within {within_s:g} s") from None
        if self._lookups.get(key) is lookup:
            del self._lookups[key]
        if found.why:
            raise UnresolvedError(host, found.why)
        return found.addresses

    async def open_connection(
        self, host: str, port: int, *, limit: int, within_s: float
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to *host* as `asyncio.open_connection` does, within *within_s* seconds.

        Each of its addresses is tried, the next one `NEXT_ADDRESS_S` after the one before (RFC 8305), so that one that
        takes no packet does not take the time of the others. asyncio has the same as an option that uvloop lacks.
        The lookup has *within_s* again. Raises `UnresolvedError`, another `OSError`, `TimeoutError`.
        """
        addresses = await self.addresses(host, within_s=within_s)
        async with asyncio.timeout(within_s):
            connected = await start_connection(
                [_numeric(address, port) for address in addresses], happy_eyeballs_delay=NEXT_ADDRESS_S
            )
            try:
                return await asyncio.open_connection(sock=connected, limit=limit)
            except BaseException:
                connected.close()  # nobody else has it yet
                raise

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Give the addresses of *host* to aiohttp. Raises `UnresolvedError`."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self.addresses(host, family=family)
        ]

    async def close(self) -> None:
        """Do nothing: aiohttp closes it with its session, and a lookup cannot be ended."""


def is_address(host: str) -> bool:
    """Whether *host* is an address of IPv4 or IPv6 (with or without its scope), and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def join_host_port(host: str, port: int) -> str:
    """Give `host:port` as a URL has it: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _begin(host: str, family: int) -> Future[_Answer]:
    """Begin a lookup in a thread of its own. Raises `UnresolvedError` where the system has no thread to give."""
    lookup: Future[_Answer] = Future()
    lookup.set_running_or_notify_cancel()  # so that a waiter who leaves does not cancel it for the others
    thread = threading.Thread(target=_look_up, args=(host, family, lookup), name=f"lookup of {host}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise UnresolvedError(host, str(error)) from error
    return lookup


def _look_up(host: str, family: int, lookup: Future[_Answer]) -> None:
    """Ask the system, and tell those who wait: they would wait for ever for a thread that ended without a word."""
    addresses: tuple[str, ...] = ()
    why = ""
    try:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys(_spelled(sockaddr) for _, _, _, _, sockaddr in found))
    except OSError as error:
        why = error.strerror or type(error).__name__
    except UnicodeError:
        why = "it is no name that DNS could have"
    except Exception as error:  # noqa: BLE001 - whatever it is, those who wait hear of it
        why = f"{type(error).__name__} {error}".rstrip()
    lookup.set_result(_Answer(addresses, why, time.monotonic()))


def _spelled(sockaddr: tuple[object, ...]) -> str:
    """The address with its scope, where it has one: a link-local address needs it."""
    address, _, *of_ipv6 = sockaddr  # flow and scope
    return f"{address}%{of_ipv6[1]}" if of_ipv6 and of_ipv6[1] else str(address)


def _numeric(address: str, port: int) -> tuple[int, int, int, str, tuple[str, int]]:
    """*address* as `getaddrinfo` gives it; the system itself reads a scope."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)
