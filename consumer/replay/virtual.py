"""Recordings through the real core in virtual time: no server, no waiting, the same verdict.

The orchestrator is the recording's record at the time of the answer (`consumer.replay.simulated`), the log a list.
Nothing here knows a scenario.
"""

import heapq
import random
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from consumer.core import (
    Core,
    Lanes,
    Missing,
    OrchestratorRead,
    Published,
    Readers,
    ReadingOptions,
    ReadJob,
    ReadJobs,
    Settled,
)
from consumer.core.reads import HISTORY_LIMIT
from consumer.errors import DecodeError
from consumer.model import DERIVED, HistoryPage, JobDocument, JobPage, Record, Rejected, Undecodable
from consumer.replay.memory import MemoryLog
from consumer.replay.recording import Recording
from consumer.replay.simulated import READ_COST_S, SimulatedOrchestrator
from consumer.rules import Rules
from consumer.wire import decode_frame, malformed_frame
from consumer.wire.rest import decode_history, decode_job, decode_jobs
from consumer.wire.subjects import Names

NOT_FOUND: Final = 404

READ_S: Final = 0.01
"""How long a read takes, in virtual time: the record is taken as it is when the read is answered."""
BEFORE_S: Final = 1.0
"""Seconds by which the daemon is up before the first happening, as it is when a demo is played: it misses nothing."""
SETTLE_S: Final = 10.0
"""Seconds after the last frame or change within which the log must be right, and stay so."""
LAST_LIST_S: Final = 7.0
"""With one list at the end: when it comes, after the last happening; every hint has been given up by then."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay: the updates in the order of the log, and the counts of the summary."""

    published: tuple[tuple[str, Published], ...]
    rejected: int
    undecodable: int
    by_hint: int
    by_scan: int
    reads: int
    reads_by: dict[str, int]
    """The reads by what made us read: "hint", "scan" (open jobs in turn, what a list found), "list"."""
    cost_s: float
    """How long the reads would have kept a core of a real orchestrator, in seconds."""
    hint_lags_ms: tuple[float, ...]
    scan_lags_ms: tuple[float, ...]
    derived: int
    """Published from a frame: none."""
    corrected: int


Lists = Literal["as they come", "one at the end"]
"""When jobs are listed. Open jobs are read in turn only where lists come as they do in a daemon."""


class VirtualReplay:
    """One recording through one daemon's core."""

    def __init__(
        self, recording: Recording, rules: Rules, *, lists: Lists = "as they come", loss: float = 0.0, seed: int = 0
    ) -> None:
        self._recording = recording
        self._orchestrator = SimulatedOrchestrator([recording])
        self._names = Names()
        lanes = Lanes(rules, self._names)
        settings = ReadingOptions() if lists == "as they come" else ReadingOptions(lists=False, turn_rate=0)
        self._readers = Readers(rules, lanes.known, settings, since_ns=0)
        self._core = Core(lanes, self._readers)
        self._lists = lists
        self._log = MemoryLog()
        self._dice = random.Random(seed)
        self._loss = loss
        self._agenda: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = 0
        self._wake: float | None = None
        self._published: list[tuple[str, Published]] = []
        self._reads_by = {"hint": 0, "scan": 0, "list": 0}
        self._cost_s = 0.0
        self._lags: dict[str, list[float]] = {"hint": [], "scan": []}
        self._counts = {"rejected": 0, "undecodable": 0, "derived": 0, "corrected": 0}
        self._changed = {
            (job.id, change.version, change.number): change.time_ns for job in recording.jobs for change in job.expected
        }

    def run(self) -> Outcome:
        """Play it all. Times of the agenda are seconds on the recording's own clock."""
        recording = self._recording
        for frame in recording.frames:
            if self._loss and self._dice.random() < self._loss:
                continue
            self._at(frame.t, lambda now, frame=frame: self._frame(frame.subject, frame.data, now))  # type: ignore[misc]
        start = min(0.0, recording.first_t) - BEFORE_S
        end = recording.last_t
        self._at(start, lambda _now: None)
        if self._lists == "one at the end":
            self._readers.look_nowhere()
            self._at(end + LAST_LIST_S, lambda _now: self._readers.look_everywhere())
        while self._agenda and self._agenda[0][0] <= end + SETTLE_S:
            now, _, action = heapq.heappop(self._agenda)
            action(now)
            self._follow(now)
        return Outcome(
            published=tuple(self._published),
            rejected=self._counts["rejected"],
            undecodable=self._counts["undecodable"],
            by_hint=len(self._lags["hint"]),
            by_scan=len(self._lags["scan"]),
            reads=sum(self._reads_by.values()),
            reads_by=dict(self._reads_by),
            cost_s=self._cost_s,
            hint_lags_ms=tuple(self._lags["hint"]),
            scan_lags_ms=tuple(self._lags["scan"]),
            derived=self._counts["derived"],
            corrected=self._counts["corrected"],
        )

    def _at(self, time: float, action: Callable[[float], None]) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (time, self._order, action))

    def _frame(self, subject: str, data: bytes, now: float) -> None:
        try:
            frame = decode_frame(subject, data)
        except DecodeError as error:
            self._core.offer(malformed_frame(subject, data, error))
            return
        if frame is not None:
            self._core.frame(frame, now)

    def _follow(self, now: float) -> None:
        """Let everything go on that can at *now*: the log answers at once, reads take their time."""
        core = self._core
        while True:
            settled = core.settle(now)
            self._take_stock(settled, now)
            for read in settled.reads:
                self._reads_by["list" if isinstance(read, ReadJobs) else read.cause] += 1
                self._at(now + READ_S, lambda then, read=read: self._answer(read, then))  # type: ignore[misc]
            if not (asks := core.appends(now)):
                break
            for ask in asks:
                core.log_answered(ask.token, self._log.answer(ask), now)
        due = core.wake_at()
        if due is not None and (self._wake is None or due < self._wake or self._wake <= now):
            self._wake = due
            self._at(max(due, now), lambda _now: None)

    def _take_stock(self, settled: Settled, now: float) -> None:
        for one in settled.decided:
            self._counts["rejected"] += isinstance(one.decision, Rejected)
            self._counts["undecodable"] += isinstance(one.decision, Undecodable)
        for published in settled.published:
            update, event = published.update, published.event
            if not isinstance(event, Record):
                continue  # a recording has no reports
            self._published.append((self._names.state(event.key, update.StateType), published))
            self._counts["derived"] += update.Source == DERIVED
            self._counts["corrected"] += "corrected" in update.Flags
            # By the record's own time of the change: what is derived has the frame's, or none.
            changed = self._changed.get((update.Job.ID, update.Job.Version or 0, update.Job.Revision or 0))
            if changed is not None:
                self._lags[event.cause].append(now * 1e3 - (changed - self._recording.start_ns) / 1e6)

    def _answer(self, read: OrchestratorRead, now: float) -> None:
        self._core.orchestrator_answered(read, self._ask(read, now), now)

    def _ask(self, read: OrchestratorRead, now: float) -> HistoryPage | JobPage | JobDocument | Missing:
        now_ns = self._recording.ns_of(now)
        self._cost_s += self._orchestrator.list_cost_s(now_ns) if isinstance(read, ReadJobs) else READ_COST_S
        if isinstance(read, ReadJobs):
            query = {"namespace": "*", "order_by": "modified_at", "reverse": "true", "limit": str(read.limit)}
            reply = self._orchestrator.jobs(now_ns, query | _token(read.next_token))
            return decode_jobs(reply.body)
        if isinstance(read, ReadJob):
            reply = self._orchestrator.job(now_ns, read.job, {"include": "history"})
            return Missing() if reply.status == NOT_FOUND else decode_job(reply.body)
        query = {"event_type": "job", "all_job_versions": "true", "limit": str(HISTORY_LIMIT)}
        reply = self._orchestrator.history(now_ns, read.job, query | _token(read.next_token))
        return Missing() if reply.status == NOT_FOUND else decode_history(reply.body)


def _token(next_token: str) -> dict[str, str]:
    return {"next_token": next_token} if next_token else {}
