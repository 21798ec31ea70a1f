"""The core: one source of events, the lanes, and the only loop between them.

Frames, the orchestrator's answers, reports, the log's answers and the time go in; appends, reads and facts come out.
The daemon, the replays and both simulations drive this object and nothing beside it, so what is simulated is what ships
(design/design.md 3). It knows no socket and no clock. `decide` says what an event means, `Lanes` how it gets into the
log once, a source which job is read when.
"""

from typing import Final, Protocol

import msgspec

from consumer.core.appends import Answer, Append, ReadBack
from consumer.core.lanes import Decided, Lanes, Published
from consumer.core.readers import Readers
from consumer.core.reads import OrchestratorAnswer, OrchestratorRead
from consumer.errors import OrchestratorError
from consumer.faults import Scope
from consumer.model import Decision, Event, Frame, Notice, Work


class Source(Protocol):
    """What turns frames and answers into events: `Readers` with an orchestrator, `Derivation` without."""

    events: list[Work]
    """What it came to since the core last looked."""

    def frame(self, frame: Frame, now: float) -> None:
        """Take one of Bacalhau's messages. *now*: seconds that never go back."""

    def look_everywhere(self) -> None:
        """Frames may have been missed."""

    def decided(self, event: Event, decision: Decision) -> None:
        """Learn what an event came to."""

    def due_reads(self, now: float) -> list[OrchestratorRead]:
        """Give the reads that leave now. What the time alone brings may also stand in `events` afterwards."""

    def wake_at(self) -> float | None:
        """When `due_reads` may bring more if nothing comes before, in seconds; None: never."""


class Settled(msgspec.Struct, kw_only=True):
    """What one call of `Core.settle` came to, each list in order."""

    events: list[Work] = msgspec.field(default_factory=list)
    """Events that the source brought, all of them on their way through the lanes now."""
    reads: list[OrchestratorRead] = msgspec.field(default_factory=list)
    """Reads that leave now: at once, each of them."""
    decided: list[Decided] = msgspec.field(default_factory=list)
    """Events that are over."""
    published: list[Published] = msgspec.field(default_factory=list)
    """Updates that the log has confirmed."""
    announced: list[Notice] = msgspec.field(default_factory=list)
    """Advisories that the log has by us."""


class Core:
    """The deciding part of one daemon. *source* is None where only reports are followed.

    Put in what came: frames, reports, the answers of orchestrator and log. Then call `settle`, send its reads at once,
    and what `appends` gives. `wake_at` says when the time alone brings more. Which job is read, when, and how much the
    orchestrator is to feel, is decided in here: nothing waits between the core and the orchestrator.
    """

    def __init__(self, lanes: Lanes, source: Source | None = None) -> None:
        self.lanes: Final = lanes
        self.source: Final = source

    def offer(self, work: Work) -> None:
        """Queue a report, a notice, or what could not be read."""
        self.lanes.offer(work)

    def frame(self, frame: Frame, now: float) -> None:
        """Take one of Bacalhau's messages; without a source it is nothing."""
        if self.source is not None:
            self.source.frame(frame, now)

    def look_everywhere(self) -> None:
        """Frames may have been missed: have all jobs looked at, or the gap announced."""
        if self.source is not None:
            self.source.look_everywhere()

    def orchestrator_answered(self, read: OrchestratorRead, answer: OrchestratorAnswer, now: float) -> Scope | None:
        """Take what came of *read*. Gives what an error says something of; None: it is an answer."""
        assert isinstance(self.source, Readers), "whoever is asked is a Readers"
        if isinstance(answer, OrchestratorError):
            return self.source.failed(read, answer, now)
        self.source.answered(read, answer, now)
        return None

    def log_answered(self, token: int, answer: Answer, now: float) -> None:
        """Take the log's answer to the append or read-back *token*."""
        self.lanes.answer(token, answer, now)

    def settle(self, now: float) -> Settled:
        """Let everything go on that can at *now*, until neither side has anything for the other."""
        settled = Settled()
        source, lanes = self.source, self.lanes
        self._collect(settled)
        while source is not None:
            while source.events:
                events, source.events = source.events, []
                settled.events += events
                for event in events:
                    lanes.offer(event)
                # What writes nothing is over at once, and may bring the source to read again.
                self._collect(settled)
            settled.reads += source.due_reads(now)
            if not source.events:
                break
        return settled

    def _collect(self, settled: Settled) -> None:
        """Move the lanes' facts to *settled*, and tell the source what its events came to."""
        lanes, source = self.lanes, self.source
        if lanes.decided:
            decided, lanes.decided = lanes.decided, []
            settled.decided += decided
            if source is not None:
                for one in decided:
                    source.decided(one.event, one.decision)
        if lanes.published:
            settled.published += lanes.published
            lanes.published = []
        if lanes.announced:
            settled.announced += lanes.announced
            lanes.announced = []

    def appends(self, now: float) -> list[Append | ReadBack]:
        """Give what is to be sent to the log now."""
        return self.lanes.take(now)

    def wake_at(self, *, log: bool = True) -> float | None:
        """When `settle` or `appends` may bring more, in seconds; None: never. *log*: whether anything can be sent."""
        times = [self.lanes.wake_at() if log else None, self.source.wake_at() if self.source is not None else None]
        return min((time for time in times if time is not None), default=None)
