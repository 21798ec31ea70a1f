"""How long each open job has stood in its state, and which of them stand too long: the rules' dwell limits. No I/O.

A job that is over its limit is announced, as a `Notice` whose origin names the job, its update and the state: so the
log keeps it once, whoever announces it, however often. Nothing here decides a state. Bounded by the open jobs whose
state has a limit; finished ones are not here.

**Time.** Since when a job stands is what its update says (`Time`: the orchestrator's clock, or a producer's), where it
says nothing when the log stored it (the server's). It is compared with this machine's clock, and these are three: who
is behind another by a minute announces a minute late or early. What lies ahead of our clock is never over its limit.
When our own clock jumps nobody is announced for a while, until it has gone on from there as a clock does.

**What the log does not know yet.** After a stop, or while the orchestrator is away, a job may have moved on long ago.
So one that is due is announced only when whoever has the say about it was asked after that, and had nothing newer.
Without an orchestrator nobody can be asked about a job of frames: what is announced then says so (`source`).
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from consumer.model import JobKey, LastUpdate, Notice, Source, Update
from consumer.rules import Rules
from consumer.wire.subjects import escape

JUMP_S: Final = 5.0
"""Our two clocks go apart by more than this from one look to the next: the one of the wall has jumped."""
SETTLE_S: Final = 60.0
"""So long it must go on after that to be believed."""
LOOK_MAX: Final = 1_000
"""Jobs that one look asks about: it must not keep updates waiting."""
_SLACK: Final = 1_024


class _Stand(msgspec.Struct, eq=False, gc=False):
    """Where a job stands: its update's state, source, version and `Sequence`, and since when (Unix seconds)."""

    state: str
    source: Source
    version: int | None
    sequence: int
    since: float
    over: bool = False


class Dwell:
    """The open jobs of one daemon. *wall*: what our clock says now, Unix seconds."""

    def __init__(self, rules: Rules, wall: float) -> None:
        self._limits: Final = rules.dwell
        self._stands: Final[dict[JobKey, _Stand]] = {}
        self._due: list[tuple[float, JobKey]] = []
        # Over their limit by the clock, with when that was seen; to be asked about, oldest question first.
        self._waiting: Final[dict[JobKey, float]] = {}
        self._over: Final[Counter[str]] = Counter()
        self._wall = wall
        self._ahead: float | None = None
        self._settled_at = float("-inf")

    @property
    def over(self) -> Mapping[str, int]:
        """How many jobs stand over their limit now, by state; every state with a limit is there."""
        return {state: self._over[state] for state in self._limits}

    def __len__(self) -> int:
        """How many jobs are watched."""
        return len(self._stands)

    def follow(self, key: JobKey, known: LastUpdate | None, since: float) -> None:
        """The job stands at *known* now, since *since* (Unix seconds; 0: from now on); None: the log has forgotten it.

        Every update counts anew, one with the same state and another message too: it is a sign of life.
        """
        before = self._stands.get(key)
        limit = self._limits.get(known.state) if known is not None else None
        if before is not None:
            self._waiting.pop(key, None)
            if before.over:
                self._over[before.state] -= 1
            if limit is None:
                del self._stands[key]
        if known is None or limit is None:
            return
        since = since or self._wall
        stand = self._stands[key] = _Stand(known.state, known.source, known.version, known.sequence, since)
        heapq.heappush(self._due, (self._due_of(stand), key))
        if len(self._due) > 2 * len(self._stands) + _SLACK:
            self._compact()

    def _compact(self) -> None:
        """Leave out what is due of jobs that have moved on since: there may be many times as many as open jobs."""
        self._due = [(self._due_of(stand), key) for key, stand in self._stands.items() if not stand.over]
        heapq.heapify(self._due)

    def _due_of(self, stand: _Stand) -> float:
        return stand.since + self._limits[stand.state]

    def take(self, now: float, wall: float, seen_at: Callable[[JobKey], float | None]) -> list[Notice]:
        """The jobs that have come to stand over their limit, each once. *now*: seconds that never go back.

        *seen_at* says when (by the clock of *now*) whoever has the say about a job was last seen to have nothing newer
        than the log; None: it is not known.
        """
        if not self._is_steady(now, wall):
            return []
        while self._due and self._due[0][0] <= wall:
            _, key = heapq.heappop(self._due)
            stand = self._stands.get(key)
            # What an older state of the job left here is not its own; that one is still in the heap.
            if stand is not None and not stand.over and self._due_of(stand) <= wall:
                self._waiting.setdefault(key, now)
        notices = []
        for _ in range(min(len(self._waiting), LOOK_MAX)):
            key = next(iter(self._waiting))
            asked_at = self._waiting.pop(key)
            stand = self._stands[key]
            if self._due_of(stand) > wall:  # our clock went back since
                heapq.heappush(self._due, (self._due_of(stand), key))
                continue
            seen = seen_at(key)
            if seen is None or seen < asked_at:
                self._waiting[key] = asked_at
                continue
            stand.over = True
            self._over[stand.state] += 1
            notices.append(self._notice(key, stand))
        return notices

    def _is_steady(self, now: float, wall: float) -> bool:
        before, self._ahead = self._ahead, wall - now
        self._wall = wall
        if before is not None and abs(self._ahead - before) > JUMP_S:
            self._settled_at = now + SETTLE_S
        return now >= self._settled_at

    def _notice(self, key: JobKey, stand: _Stand) -> Notice:
        return Notice(
            kind="stuck",
            # The key as one token, escaped once more: two jobs never have one origin.
            origin=f"{escape(key)}-{stand.sequence}-{escape(stand.state)}",
            text=f"the job stands in {stand.state} for longer than the rules' limit",
            key=key,
            facts={
                "state": stand.state,
                "since": datetime.fromtimestamp(stand.since, UTC).isoformat().replace("+00:00", "Z"),
                "limit_s": self._limits[stand.state],
                "source": stand.source,
                "version": stand.version,
                "sequence": stand.sequence,
            },
        )


def since_of(update: Update, stored_ns: int = 0) -> float:
    """Since when a job stands at *update*, Unix seconds: by its own time, else by when the log stored it; 0: unknown.

    A time before 1970 is none: where Go has no time it writes the year 1.
    """
    since = update.Time.timestamp() if update.Time is not None else 0.0
    return since if since > 0 else stored_ns / 1e9
