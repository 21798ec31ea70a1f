"""The simulated orchestrator as an HTTP server on the loopback. What it answers is `consumer.replay.simulated`."""

from types import TracebackType
from typing import Final, Self

from aiohttp import hdrs, web

from consumer.replay.clock import ReplayClock
from consumer.replay.simulated import SimulatedOrchestrator

_VERSION: Final = "X-Bacalhau-Git-Version"


class OrchestratorServer:
    """Serves *orchestrator* as it is at *clock*, for as long as the `async with` lasts; then `url` says where.

    `reads` counts the requests. Every request gets an answer at once; nothing is logged.
    """

    def __init__(self, orchestrator: SimulatedOrchestrator, clock: ReplayClock) -> None:
        self._orchestrator: Final = orchestrator
        self._clock: Final = clock
        self._runner: web.ServerRunner | None = None
        self.url: str = ""
        self.reads: int = 0

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return web.Response(status=405, headers={hdrs.ALLOW: hdrs.METH_GET})
        self.reads += 1
        # As it stood on the request line: an escaped slash belongs to an id, not to the path.
        reply = self._orchestrator.answer(self._clock.now_ns, request.raw_path)
        return web.Response(
            status=reply.status,
            body=reply.body,
            content_type="application/json",
            headers={_VERSION: self._orchestrator.release},
        )
