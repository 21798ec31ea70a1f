"""A compute node: it bids, runs what is approved, tells how it ended, and remembers what it was told and what it told.

What the orchestrator makes of that is `tests.lab.cluster.cluster`'s.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVarTuple

from tests.lab.cluster.frames import Message
from tests.lab.cluster.record import Event, Execution

if TYPE_CHECKING:
    from tests.lab.cluster.cluster import Cluster

Given = TypeVarTuple("Given")

_TRAP: Final = Event("Running Execution", "wasm error: unreachable", details={"IsError": "true"})
_TIMED_OUT: Final = Event("Running Execution", "Execution timed out after 1s", details={"IsError": "true"})
DONE: Final = Event("Execution", "Completed successfully")
_RESTARTED: Final = Event("Execution", "Failing due to node restart", details={"FailsExecution": "true"})
_REFUSED: Final = Event("Exec Scanning", "rejected bid: this node does not accept jobs like that")


class Node:
    """One of them. `connected` is the orchestrator's word for it."""

    def __init__(self, cluster: "Cluster", name: str, zones: set[str]) -> None:
        self.cluster: Final = cluster
        self.name: Final = name
        self.zones: Final = zones
        self.alive = True
        self.connected = True
        self.life = 0
        """Counts its restarts: what one life had in mind, the next does not do."""
        self.orders: Final[list[Message]] = []
        """Since its last handshake: sent again with the next one."""
        self.orders_at = 0.0
        """When the last of them was sent, or will be."""
        self.sent: Final[list[Message]] = []
        self.picky: float = cluster.rng.choice((0.0, 0.0, 0.3, 0.6))
        """Share of the bids that it turns down."""
        self._slow_s: Final = cluster.rng.choice((0.006, 0.006, 0.05, 0.4))
        """The longest that it takes to bid."""
        self._number = 1
        self._asked: Final[set[str]] = set()
        self._begun: Final[set[str]] = set()
        self._running: Final[dict[str, Execution]] = {}

    def _later(self, low: float, high: float, act: Callable[[*Given], None], *given: *Given) -> None:
        """Do *act* between *low* and *high* seconds from now, if it is still the same life."""
        life = self.life

        def acts() -> None:
            if self.alive and self.life == life:
                act(*given)

        self.cluster.at(self.cluster.between(low, high), acts)

    def get(self, message: Message) -> None:
        """An order has come. One that comes again changes nothing."""
        if self.alive:
            self._later(0.0003, 0.003, self._take, message)

    def _take(self, message: Message) -> None:
        one, kind = message.execution, message.kind
        if kind == "AskForBid" and one.id not in self._asked:
            self._asked.add(one.id)
            self._later(0.001, self._slow_s, self._bid, one)
        elif kind == "BidAccepted" and one.id in self._asked and one.id not in self._begun:
            self._start(one)
        elif kind == "CancelExecution" and message.event is None and one.id in self._running:
            del self._running[one.id]
            if self.cluster.release.is_oldest:
                self._later(0.002, 0.002, self._answer_cancel, one)

    def _answer_cancel(self, one: Execution) -> None:
        self._say("CancelResult", one, None)
        text = f"execution {one.id} is in state Cancelled but expected one of [Running]"
        self._say("ComputeError", one, Event("Running Execution", text, details={"IsError": "true"}))

    def _bid(self, one: Execution) -> None:
        if self.cluster.chance(self.picky):
            self._say("BidResult", one, _REFUSED)
            return
        if not one.direct or self.cluster.release.direct_bids:
            self._say("BidResult", one, None, accepted=True)
        if one.direct:
            self._start(one)

    def _start(self, one: Execution) -> None:
        self._begun.add(one.id)
        self._running[one.id] = one
        spec = one.job.spec
        if spec.type == "daemon" or (spec.type == "service" and not self.cluster.chance(spec.fails)):
            return  # it runs until it is stopped
        self._later(*spec.takes, self._end, one)

    def _end(self, one: Execution) -> None:
        if self._running.pop(one.id, None) is None:
            return
        if self.cluster.chance(one.job.spec.fails) and one.job.spec.type != "service":
            self._say("ComputeError", one, _TRAP if self.cluster.chance(0.7) else _TIMED_OUT)
        else:
            self._say("RunResult", one, DONE)

    def _say(self, kind: str, one: Execution, event: Event | None, *, accepted: bool = False) -> None:
        message = self._message(kind, one, event, accepted=accepted)
        self.sent.append(message)
        self.cluster.hear(self, message)

    def _message(self, kind: str, one: Execution, event: Event | None, *, accepted: bool = False) -> Message:
        self._number += 2 + int(self.cluster.chance(0.5))
        if kind == "RunResult" and not self.cluster.release.ncl:
            event = None
        return Message(
            kind=kind,
            execution=one,
            number=self._number,
            accepted=accepted,
            event=event,
            event_ns=self.cluster.now_ns(),
        )

    def die(self) -> None:
        """It is gone at once; its data are not."""
        self.alive = False
        self.life += 1

    def recover(self) -> None:
        """It is back and shakes hands; what ran, and is not long-running, has failed meanwhile."""
        failed = [one for one in self._running.values() if not one.job.spec.long_running]
        for one in failed:
            del self._running[one.id]
        messages = [self._message("ComputeError", one, _RESTARTED) for one in failed]
        self.cluster.shake_hands(self)
        for message in messages:
            self.sent.append(message)
            self.cluster.hear(self, message)
