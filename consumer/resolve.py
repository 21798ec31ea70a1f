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

from aiohttp.abc import AbstractResolver, ResolveResult

WITHIN_S: Final = 2.0
"""Seconds that an answer is waited for. The lookup goes on after that: the next who asks waits for the same one."""
KEEP_S: Final = 30.0
"""Seconds that an answer is kept which came when nobody waited any more: a slow name server is of use all the same."""


class UnresolvedError(OSError):
    """The host's name has no address, or no name server says which. `strerror` is the sentence for an operator."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(socket.EAI_NONAME, f"the name {host} does not resolve: {why}")


class _Answer(NamedTuple):
    """What a lookup came to: addresses, or why there are none; and when (monotonic seconds)."""

    addresses: tuple[str, ...]
    why: str
    at: float


_lookups: Final[dict[tuple[str, int], Future[_Answer]]] = {}
"""Those under way, and those that have ended and whose answer nobody has taken; by host and family."""


async def resolve(host: str, *, family: int = socket.AF_UNSPEC, within_s: float = WITHIN_S) -> Sequence[str]:
    """Give the addresses of *host*, the system's first choice first. An address is its own.

    The answer is waited for *within_s* seconds. Raises `UnresolvedError`.
    """
    if is_address(host):
        return (host,)
    key = (host, int(family))
    lookup = _lookups.get(key)
    if lookup is None or (lookup.done() and time.monotonic() - lookup.result().at > KEEP_S):
        lookup = _lookups[key] = Future()
        lookup.set_running_or_notify_cancel()  # so that a waiter who leaves does not cancel it for the others
        threading.Thread(target=_look_up, args=(host, family, lookup), name=f"lookup of {host}", daemon=True).start()
    try:
        async with asyncio.timeout(within_s):
            found = await asyncio.wrap_future(lookup)
    except TimeoutError:
        raise UnresolvedError(host, f"no name server has answered within {within_s:g} s") from None
    if _lookups.get(key) is lookup:
        del _lookups[key]
    if found.why:
        raise UnresolvedError(host, found.why)
    return found.addresses


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


async def open_connection(
    host: str, port: int, *, limit: int, within_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to *host* as `asyncio.open_connection` does: each of its addresses in turn, all of them *within_s*.

    The lookup has the same time again. Raises `UnresolvedError`, another `OSError`, `TimeoutError`.
    """
    addresses = await resolve(host, within_s=within_s)
    failed: list[OSError] = []
    async with asyncio.timeout(within_s):
        for address in addresses:
            try:
                return await asyncio.open_connection(address, port, limit=limit)
            except OSError as error:
                failed.append(error)
    raise failed[0]


class Resolver(AbstractResolver):
    """The same for aiohttp's connections."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Give the addresses of *host*. Raises `UnresolvedError`."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await resolve(host, family=family)
        ]

    async def close(self) -> None:
        """Do nothing: the lookups are shared."""


def _look_up(host: str, family: int, lookup: "Future[_Answer]") -> None:
    addresses: tuple[str, ...] = ()
    why = ""
    try:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys(_spelled(sockaddr) for _, _, _, _, sockaddr in found))
    except OSError as error:
        why = error.strerror or type(error).__name__
    except UnicodeError:
        why = "it is no name that DNS could have"
    lookup.set_result(_Answer(addresses, why, time.monotonic()))


def _spelled(sockaddr: tuple[object, ...]) -> str:
    """The address with its scope, where it has one: a link-local address is none without it."""
    scope = sockaddr[3] if len(sockaddr) > 3 else 0  # noqa: PLR2004 - (address, port, flow, scope) of IPv6
    return f"{sockaddr[0]}%{scope}" if scope else str(sockaddr[0])
