"""Whether the tap listens on the orchestrator's own server, as far as names tell: it is its node's namesake.

Bacalhau names its NATS server by the orchestrator's node (design/bacalhau.md 7; 1.5.0 to 1.9.3 as run). On any other
server everything stands and no frame comes: all is found by reading in turn, and nothing shows why. A name is no proof,
a leaf node or a cluster of NATS may rightly stand between: so it is said, and nothing follows from it.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from consumer.bacalhau.orchestrator import Orchestrator
from consumer.bacalhau.tap import Tap
from consumer.errors import OrchestratorError
from consumer.wire.display import printable

log = structlog.get_logger()

LOOK_S: Final = 1.0
AGAIN_S: Final = 60.0
AGAIN_MAX_S: Final = 3_600.0
"""A credential may be good for jobs alone: after a refusal it is asked less and less often."""


async def compare_names(
    tap: Tap,
    orchestrator: Orchestrator,
    wait_s: Callable[[], float | None],
    *,
    look_s: float = LOOK_S,
    again_s: float = AGAIN_S,
) -> NoReturn:
    """Compare for each server that the tap listens on, by name: once the orchestrator has answered a list.

    One request for each server. Without an answer again after *again_s*, then twice that, or for the next server.
    *wait_s* takes a place of the orchestrator's rate: seconds until the request may leave, or None while it is away.
    """
    now = asyncio.get_running_loop().time
    compared: str | None = None
    tried, due, pause_s = "", 0.0, again_s
    while True:
        await tap.listening()
        name = tap.server.name
        if name != tried:
            tried, due, pause_s = name, 0.0, again_s
        if name != compared and now() >= due and orchestrator.lists and (turn_s := wait_s()) is not None:
            due, pause_s = now() + pause_s, min(2 * pause_s, AGAIN_MAX_S)
            await asyncio.sleep(turn_s)
            if await _compare(name, orchestrator):
                compared = name
        await asyncio.sleep(look_s)


async def _compare(server: str, orchestrator: Orchestrator) -> bool:
    """Say it if the orchestrator's node has another name than *server*. False: it does not tell."""
    try:
        node = await orchestrator.node()
    except OrchestratorError as error:
        log.debug("tap.server_unknown", server=server, kind=error.kind)
        return False
    if node.id != server:
        log.warning(
            "tap.other_server",
            server=server,
            node=printable(node.id),
            reason="Bacalhau's NATS server has the name of its orchestrator's node: on another one no frame may come",
            next_step="check bacalhau.url: until then changes are found by reading in turn, and by lists; it is right "
            "only if a NATS server of yours stands between (a leaf node, a cluster)",
        )
    return True
