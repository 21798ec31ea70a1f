"""Whether the daemon lives and is ready, and the HTTP server that says so: /metrics, /livez, /readyz.

Alive means that each loop goes round, not that the process exists; ready means that each part can do its work. The
parts say it of themselves; nobody is asked, so an answer costs nothing and hangs on nothing.
"""

import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from aiohttp import web

from consumer.errors import ListenError, SettingsError
from consumer.observe.metrics import CONTENT_TYPE, Metrics
from consumer.resolve import Resolver, join_host_port
from consumer.settings import Http
from consumer.wire.subjects import StreamName

Part = StreamName | Literal["bacalhau", "orchestrator"]
"""The parts of the daemon's work: our streams, Bacalhau's NATS and its orchestrator."""

STARTING: Final = "has not been ready yet"
EVERYWHERE: Final = "*"
"""The setting `http.host` for every address of this machine, of IPv4 and IPv6."""
_AT_HOME: Final = {EVERYWHERE: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listened on

_OF_THE_PORT: Final = frozenset({errno.EADDRINUSE, errno.EACCES})
"""Errors of listening that another port ends; all others are the address's."""
_PORT: Final = ("http.port", "set http.port (JOBSTATE_HTTP__PORT) to a free one, or to 0 for any")
_HOST: Final = ("http.host", "set http.host (JOBSTATE_HTTP__HOST) to an address of this machine, or to * for all")


class Health:
    """The state of each part, as it reports it. *now* gives seconds that never go back."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._allowance: dict[str, float] = {}
        self._round: dict[str, float] = {}
        self._unready: dict[Part, str] = {}
        self._parts: list[Part] = []

    def expect(self, loop: str, within_s: float) -> None:
        """The *loop* must go round (`alive`) at least every *within_s* seconds, from now on."""
        self._allowance[loop] = within_s
        self._round[loop] = self._now()

    def alive(self, loop: str, now: float | None = None) -> None:
        """The *loop* has gone round. Cheap: call it on every round. Before `expect` nothing is asked of it."""
        self._round[loop] = self._now() if now is None else now

    def done(self, loop: str) -> None:
        """The *loop* has ended as it should: nothing is expected of it any more."""
        self._allowance.pop(loop, None)

    def need(self, *parts: Part) -> None:
        """Without these *parts* the daemon is not ready; each must say that it is."""
        for part in parts:
            self.failing(part, STARTING)

    def failing(self, part: Part, reason: str) -> None:
        """The *part* cannot do its work, because of *reason* (a sentence without secrets)."""
        self._name(part)
        self._unready[part] = reason

    def ready(self, part: Part) -> None:
        """The *part* does its work."""
        self._name(part)
        self._unready.pop(part, None)

    def late(self) -> dict[str, str]:
        """Every loop that has not gone round within its allowance, and since when. Empty: the daemon lives."""
        now = self._now()
        return {
            loop: f"has not gone round for {now - self._round[loop]:.1f} s (allowed: {allowance:g} s)"
            for loop, allowance in self._allowance.items()
            if now - self._round[loop] > allowance
        }

    def unready(self) -> dict[Part, str]:
        """Every part that is not ready, and why. Empty: the daemon is ready."""
        return dict(self._unready)

    def parts(self) -> dict[Part, str]:
        """Every part: `ready`, or why not."""
        return {part: self._unready.get(part, "ready") for part in self._parts}

    def _name(self, part: Part) -> None:
        if part not in self._parts:
            self._parts.append(part)


@contextlib.asynccontextmanager
async def serve(settings: Http, metrics: Metrics, health: Health, cluster: str) -> AsyncIterator[int]:
    """Serve /metrics, /livez and /readyz while the context is open; gives the port. *cluster*: whose log it is about.

    Raises `ListenError` if the address cannot be listened on.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", _metrics(metrics)),
            web.get("/livez", _livez(health)),
            web.get("/readyz", _readyz(health, cluster)),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            # asyncio takes several, and aiohttp hands them on; None is every address.
            hosts: Any = None if settings.host == EVERYWHERE else list(await Resolver().addresses(settings.host))
            await web.TCPSite(runner, hosts, settings.port).start()
        except OSError as error:
            # asyncio's own words say the address once more; a name that is not found has no number of the system's.
            number = error.errno or 0
            why = os.strerror(number) if number > 0 else error.strerror
            where, step = _PORT if number in _OF_THE_PORT else _HOST
            listened = join_host_port(settings.host, settings.port)
            raise ListenError(f"{where}: cannot listen on {listened} ({why})", step) from error
        # With port 0 asyncio chooses one for each address, in any order. Ours is IPv4's: its sockets have short names.
        port = min(runner.addresses, key=len)[1]
        with _written(settings.address_file, url_of(settings.host, port)):
            yield port
    finally:
        await runner.cleanup()


def url_of(host: str, port: int) -> str:
    """The URL at which this machine asks a server that listens on *host* (`http.host`) and *port*."""
    return f"http://{join_host_port(_AT_HOME.get(host, host), port)}"


@contextlib.contextmanager
def _written(name: str, url: str) -> Iterator[None]:
    """Keep *url* in the file *name* while the context is open; nobody reads half of it. Raises `SettingsError`."""
    if not name:
        yield
        return
    file, fresh = Path(name), Path(f"{name}.new")
    try:
        fresh.write_text(f"{url}\n", encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        raise SettingsError(
            f"http.address_file: cannot write {name} ({error.strerror}); name a file in a folder that this user may "
            "write to (JOBSTATE_HTTP__ADDRESS_FILE), or leave it empty"
        ) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


_Answer = Callable[[web.Request], Awaitable[web.Response]]


def _metrics(metrics: Metrics) -> _Answer:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.expose(), headers={"Content-Type": CONTENT_TYPE})

    return answer


def _livez(health: Health) -> _Answer:
    async def answer(_request: web.Request) -> web.Response:
        late = health.late()
        return web.json_response({"alive": not late, "late": late}, status=503 if late else 200)

    return answer


def _readyz(health: Health, cluster: str) -> _Answer:
    async def answer(_request: web.Request) -> web.Response:
        unready = health.unready()
        body = {"ready": not unready, "cluster": cluster, "parts": health.parts()}
        return web.json_response(body, status=503 if unready else 200)

    return answer
