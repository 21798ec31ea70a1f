"""The simulated orchestrator as an HTTP server on the loopback. `consumer.replay.simulated` makes the answers."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from aiohttp import hdrs, web

from consumer.replay.clock import ReplayClock
from consumer.replay.simulated import READ_COST_S, SimulatedOrchestrator

_VERSION: Final = "X-Bacalhau-Git-Version"


class OrchestratorServer:
    """Serves *orchestrator* as it is at *clock*, for as long as the `async with` lasts; then `url` says where.

    An answer takes as long as it would keep a core of a real orchestrator (design/bacalhau.md 6.3), and says what the
    record is when it leaves; nothing is logged.
    """

    def __init__(self, orchestrator: SimulatedOrchestrator, clock: ReplayClock) -> None:
        self._orchestrator: Final = orchestrator
        self._clock: Final = clock
        self._runner: web.ServerRunner | None = None
        self._port = 0
        self.url: str = ""
        self.reads_by: Final[Counter[str]] = Counter()
        """Requests so far, by what they asked for: "list", "job", "history", "other"."""
        self.fault: Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]] | None = None
        """Answers in place of the record while it is set: to see what becomes of that."""
        self.asked_at: Final[list[float]] = []
        """When each of them came, by the loop's clock."""
        self.cost_s = 0.0
        """How long they would have kept a core of a real orchestrator."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen: on any port the first time, on the same one after a `stop`."""
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Listen no more; who is connected is cut off."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return web.Response(status=405, headers={hdrs.ALLOW: hdrs.METH_GET})
        kind = _kind(request.path)
        self.reads_by[kind] += 1
        self.asked_at.append(asyncio.get_running_loop().time())
        if self.fault is not None and (wrong := await self.fault(request)) is not None:
            return wrong
        cost_s = self._orchestrator.list_cost_s(self._clock.now_ns) if kind == "list" else READ_COST_S
        self.cost_s += cost_s
        await asyncio.sleep(cost_s)
        # As it stood on the request line: an escaped slash belongs to an id, not to the path.
        reply = self._orchestrator.answer(self._clock.now_ns, request.raw_path)
        return web.Response(
            status=reply.status,
            body=reply.body,
            content_type="application/json",
            headers={_VERSION: self._orchestrator.release},
        )


def _kind(path: str) -> str:
    """Parse a request: the path's last word tells lists and histories, what stands before it a job."""
    *_, before, last = ["", *path.rstrip("/").split("/")]
    if before == "orchestrator" and last == "jobs":
        return "list"
    return "history" if last == "history" else "job" if before == "jobs" else "other"
