"""Two ports beside: the daemon's own health, and (where it is named) the monitoring port of our NATS server."""

from typing import Annotated, Final

import aiohttp
import msgspec
from yarl import URL

from consumer.doctor.facts import Monitor, Readiness
from consumer.observe import url_of
from consumer.resolve import Resolver
from consumer.settings import Http

ANSWER_S: Final = 3.0
BODY_MAX: Final = 1024 * 1024


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    ready: bool
    parts: dict[str, str]
    cluster: Annotated[str, msgspec.Meta(max_length=64)] = ""


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    max_storage: int = -1
    sync_interval: int = 0
    sync_always: bool = False


class _Jsz(msgspec.Struct, frozen=True, kw_only=True):
    """The part of `/jsz` that is used here."""

    config: _Config
    storage: int = 0
    reserved_storage: int = 0


async def read_readiness(http: Http) -> Readiness | None:
    """Ask the daemon at the configured address about itself; None where no port is configured."""
    if not http.port:
        return None
    url = URL(url_of(http.host, http.port))
    try:
        body = await _get(url / "readyz")
    except aiohttp.ClientResponseError:  # no HTTP, or a head beyond all bounds
        return Readiness(address=str(url), alien=True)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Readiness(address=str(url), away=_reason(error))
    try:
        said = msgspec.json.decode(body, type=_Ready)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return Readiness(address=str(url), alien=True)
    unready = {part: why for part, why in said.parts.items() if why != "ready"}
    return Readiness(address=str(url), cluster=said.cluster, ready=said.ready, unready=unready)


async def read_monitor(url: str) -> Monitor:
    """Ask `/jsz` of the monitoring port at *url*."""
    try:
        said = msgspec.json.decode(await _get(URL(url).with_path("/jsz")), type=_Jsz)
    except (aiohttp.ClientError, msgspec.MsgspecError, TimeoutError, OSError, ValueError) as error:
        return Monitor(fault=_reason(error))
    config = said.config
    return Monitor(
        sync_always=config.sync_always,
        sync_interval_s=config.sync_interval / 1e9,
        storage_max=config.max_storage,
        storage=said.storage,
        reserved=said.reserved_storage,
    )


async def _get(url: URL) -> bytes:
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Resolver()),
            timeout=timeout,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > BODY_MAX:
                break
        return bytes(body)


def _reason(error: Exception) -> str:
    if isinstance(error, msgspec.MsgspecError | ValueError | aiohttp.ClientResponseError):
        return "its answer is no /jsz"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    return getattr(cause, "strerror", None) or type(cause).__name__
