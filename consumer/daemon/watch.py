"""Who is told what happens in the daemon, and says it on: to the metrics, the health and the log. Decides nothing.

Batches are counted here, not events, so that watching costs little beside deciding. Messages of jobs are never shown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import structlog

from consumer.core import Decided, Lanes, OrchestratorRead, Published, Readers, ReadHistory, ReadJobs
from consumer.core.appends import APPEND_STREAMS, AppendStream, Outcomes
from consumer.core.dwell import Dwell
from consumer.core.flight import Tally
from consumer.core.options import COST_OF_LISTS, slow_lists_s
from consumer.core.reads import Missing
from consumer.daemon.agreement import Agreement
from consumer.derive import Derivation
from consumer.errors import OrchestratorError
from consumer.faults import OrchestratorFault
from consumer.model import (
    Accepted,
    Event,
    Frame,
    Malformed,
    Notice,
    ReadCause,
    Record,
    Rejected,
    Report,
    Source,
    Undecodable,
)
from consumer.observe import Health, Metrics
from consumer.observe.metrics import OTHER, SURPRISES, ReadKind, ReadOutcome
from consumer.ports import Answered, Clock

log = structlog.get_logger()

LOG: Final = "log"
INPUT: Final = "input"
REFUSED: Final = "refused"
BUCKET: Final = "bucket"
TAP: Final = "bacalhau"
ORCHESTRATOR: Final = "orchestrator"

STUCK_S: Final = 10.0
"""Events wait and nothing was confirmed for so long: the daemon is not ready, whatever its connections say."""

FRESH_S: Final = 5.0
"""Seconds after which an observation says nothing of now."""

BEHIND_S: Final = 2.0
"""Reads that wait for so long are held back by `orchestrator.max_rate`, which somebody should know."""

WRONG_IN_ROW: Final = 3
"""After this many failed lists, or reads of one job each, in a row: not ready, however well the others go."""

READ_AGAIN_S: Final = 120.0
"""A job that fails is read at least once a minute (`ReadingOptions.retry_max_s`): an older error is over."""

WORDS: Final[Mapping[AppendStream, str]] = {"log": "the log", "refused": "the stream of what was refused"}
"""The texts about the streams that are appended to."""


class _Failures:
    """The reads of one kind that failed in a row; *fresh_s* after the last one they say nothing of now."""

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s: Final = fresh_s
        self._in_row = 0
        self._last_at = float("-inf")
        self.error: OrchestratorError | None = None
        """The last one."""

    def add(self, error: OrchestratorError, now: float) -> None:
        """One more failed."""
        self._in_row = self.in_row(now) + 1
        self._last_at, self.error = now, error

    def end(self) -> None:
        """One was answered."""
        self._in_row, self.error = 0, None

    def in_row(self, now: float) -> int:
        """How many."""
        return self._in_row if now - self._last_at <= self._fresh_s else 0


class _Life:
    """Facts about one life of the daemon's core; they end with it."""

    def __init__(self, lanes: Lanes, source: Readers | Derivation | None, dwell: Dwell, outcomes: Outcomes) -> None:
        self.lanes: Final = lanes
        self.source: Final = source
        self.dwell: Final = dwell
        self.outcomes: Final = outcomes
        self.tally = Tally()
        """The part of the lanes' tally that was told."""
        self.outcomes_told = Outcomes()
        self.full: set[AppendStream] = set()
        """The streams that have no room."""
        self.crowded = False
        """Whether it was told that there is no room for some jobs."""
        self.failed_lists: Final = _Failures(fresh_s=float("inf"))
        """A list that failed is asked for again whatever happens, if ten minutes later (`consumer.core.lists`)."""
        self.failed_jobs: Final = _Failures(fresh_s=READ_AGAIN_S)
        """Reads of one job, the job itself or its history: a job that fails with one may be read by the other next."""


class Watch:
    """Tells metrics, health and log. One for the whole process; `follow_life` names the life that is on."""

    def __init__(self, metrics: Metrics, health: Health, clock: Clock, lines_per_s: int = 20) -> None:
        self._lines_per_s: Final = lines_per_s
        self._metrics: Final = metrics
        self._health: Final = health
        self._clock: Final = clock
        self._life: _Life | None = None
        self._log_down = False
        self._agreement: Final = Agreement()
        self._behind = False
        self._slow_lists = False
        self._away: tuple[OrchestratorFault, float] | None = None  # what keeps the orchestrator away, and since when
        self._confirmed_at = clock.now()
        self._unconfirmed = (0.0, clock.now())
        self._unconfirmed_told = False
        self.look_at = "the server's own log and its disk"
        """Where to look when nothing is confirmed."""
        self.server_trouble = ""
        """The known fault of the server: it takes nothing until that is mended. Empty: nothing."""
        self._lags: Final = {cause: metrics.lag(cause) for cause in (*ReadCause, "report")}

    def follow_life(self, lanes: Lanes, source: Readers | Derivation | None, dwell: Dwell, outcomes: Outcomes) -> None:
        """From now on the numbers are those of *lanes*, *source*, *dwell* and the writer's *outcomes*."""
        self._life = _Life(lanes, source, dwell, outcomes)
        self._log_down = False
        self._confirmed_at = self._clock.now()
        self._unconfirmed = (0.0, self._confirmed_at)

    @property
    def unconfirmed_s(self) -> float:
        """For so long events have waited, and nothing was confirmed, though the connection is up and there is room.

        As of the last stock that was taken; 0 where that is long ago, as between two lives.
        """
        seconds, as_of = self._unconfirmed
        return seconds if self._clock.now() - as_of < FRESH_S else 0.0

    # -- what happens -------------------------------------------------------------------------------------------------

    def frame(self, frame: Frame) -> None:
        """A frame was read."""
        self._metrics.frames(frame.kind, frame.profile).inc()
        log.debug("frame.read", kind=frame.kind.value, job_id=frame.job, execution_id=frame.execution, echo=frame.echo)

    def decided(self, decided: Sequence[Decided]) -> None:
        """Events are over."""
        counts: Counter[tuple[str, str]] = Counter()
        for one in decided:
            decision = one.decision
            if isinstance(decision, Accepted):
                counts["accepted", ""] += 1
                continue
            counts[type(decision).__name__.lower(), decision.reason] += 1
            if isinstance(decision, Rejected):
                self._tell_rejected(one, decision)
            elif isinstance(decision, Undecodable):
                self._tell_undecodable(one, decision)
        for (decision_name, reason), count in counts.items():
            self._metrics.decisions(decision_name, reason).inc(count)

    def _tell_rejected(self, one: Decided, decision: Rejected) -> None:
        event = one.event
        if isinstance(event, Report):
            where = f"input {event.position.sequence}"
        elif isinstance(event, Record):
            where = "record"
        else:
            where = event.source
        job_id = event.job.id if isinstance(event, Report | Record) else ""
        log.warning("decision.rejected", job_id=job_id, reason=decision.reason, rule=decision.rule, source=where)

    def _tell_undecodable(self, one: Decided, decision: Undecodable) -> None:
        assert isinstance(one.event, Malformed)
        source = one.event.source
        self._metrics.undecodable(decision.reason, source).inc()
        log.warning(
            "decision.undecodable", reason=decision.reason, source=source, origin=one.event.origin, size=one.event.size
        )

    def published(self, published: Sequence[Published], now: float) -> None:
        """Updates are in the log."""
        self._confirmed_at = now
        self._health.ready(LOG)
        counts: Counter[tuple[str, Source]] = Counter()
        wall = self._clock.wall()
        for one in published:
            update = one.update
            counts[update.StateType, update.Source] += 1
            if update.Time is not None:
                self._lags[_cause(one.event)].observe(max(wall - update.Time.timestamp(), 0.0))
            if "corrected" in update.Flags:
                log.warning("update.corrected", job_id=update.Job.ID, previous=update.Previous, state=update.StateType)
        for (state, source), count in counts.items():
            self._metrics.updates(state, source).inc(count)
        for one in published[: self._lines_per_s]:  # more a second would be left out anyway
            update = one.update
            log.info(
                "update.published",
                job_id=update.Job.ID,
                namespace=update.Job.Namespace,
                previous=update.Previous,
                state=update.StateType,
                sequence=update.Sequence,
                source=update.Source,
                cause=_cause(one.event),
            )

    def reports(self, count: int) -> None:
        """Entries of the input were read."""
        self._metrics.reports.inc(count)

    def announced(self, notice: Notice) -> None:
        """A notice is in the log by us, and was not before."""
        self._metrics.advisories(notice.kind).inc()
        log.warning("advisory", kind=notice.kind, job=notice.key, text=notice.text, facts=notice.facts)

    def asked(self, reads: Sequence[OrchestratorRead]) -> None:
        """Reads are on their way to the orchestrator."""
        for read in reads:
            log.debug("read.asked", read=type(read).__name__, job_id=getattr(read, "job", ""))

    def answered(self, answered: Sequence[Answered], away: OrchestratorFault | None) -> None:
        """Reads came back. *away*: what keeps the orchestrator away."""
        assert self._life is not None
        now = self._clock.now()
        for one in answered:
            read = one.read
            kind: ReadKind = (
                "list" if isinstance(read, ReadJobs) else "history" if isinstance(read, ReadHistory) else "job"
            )
            cause = ReadCause.SCAN if isinstance(read, ReadJobs) else read.cause
            self._metrics.reads(kind, cause, _outcome(one)).inc()
            self._metrics.read_seconds.observe(max(now - one.started_at, 0.0))
        said = [one for one in answered if _was_asked(one)]
        self._count_failures(self._life, said, now)
        self._agreement.take(answered)
        self._tell_return(away)
        kinds = (self._life.failed_lists, self._life.failed_jobs)
        failed = sorted(kinds, key=lambda kind: kind.in_row(now), reverse=True)
        if away or failed[0].in_row(now) >= WRONG_IN_ROW:
            errors = [kind.error for kind in failed if kind.error is not None]
            why = next((error for error in errors if away in {None, error.kind}), away)
            self._health.failing(ORCHESTRATOR, f"its responses are invalid: {why}; updates of its jobs wait")
        elif doubt := self._agreement.doubt:
            self._health.failing(ORCHESTRATOR, doubt)
        elif said:
            self._health.ready(ORCHESTRATOR)

    def _count_failures(self, life: _Life, answered: Sequence[Answered], now: float) -> None:
        for one in answered:
            failures = life.failed_lists if isinstance(one.read, ReadJobs) else life.failed_jobs
            if isinstance(one.answer, OrchestratorError):
                failures.add(one.answer, now)
            else:
                failures.end()

    def _tell_return(self, away: OrchestratorFault | None) -> None:
        """`read.failed` told that it went away; that it is back is told too."""
        if away and self._away is None:
            self._away = away, self._clock.now()
        elif self._away is not None and not away:
            why, since = self._away
            self._away = None
            log.info("orchestrator.answers", after=why, away_s=round(self._clock.now() - since, 1))

    def reads_wait(self, waiting: int, waited_s: float, in_flight: int, *, away: bool) -> None:
        """How the reads stand: *waiting* have not left, the oldest since *waited_s*, and *in_flight* are under way.

        Where they are held back by the rate, it is said once, and again when it is over: nothing is forgotten.
        """
        self._metrics.reads_waiting.set(waiting)
        self._metrics.reads_waited.set(waited_s)
        self._metrics.reads_in_flight.set(in_flight)
        if waited_s > BEHIND_S and not away and not self._behind:
            self._behind = True
            log.warning(
                "orchestrator.behind",
                waiting=waiting,
                waited_s=round(waited_s, 1),
                next_step="the oldest go first and none is forgotten; raise orchestrator.max_rate, if it can bear more",
            )
        elif self._behind and waited_s < BEHIND_S / 2:
            self._behind = False
            log.info("orchestrator.caught-up", waiting=waiting)

    def gap(self, count: int) -> None:
        """Frames may have been missed: all jobs are listed, or, where nobody can be asked, it is announced."""
        derives = self._life is not None and isinstance(self._life.source, Derivation)
        answer = "it is announced: nobody can be asked" if derives else "every job is looked at in a full list"
        log.warning("tap.gap", count=count, next_step=answer)

    def went_round(self, loop: str) -> None:
        """A loop has gone round."""
        self._health.alive(loop)

    def log_connection(self, *, up: bool) -> None:
        """The connection to the log was lost, or (*up*) replaced."""
        self._log_down = not up
        if up:
            if self._life is None or not self._life.lanes.waiting:  # else `published` is the proof
                self._health.ready(LOG)
            log.info("connection.replaced", connection=LOG)
        else:
            self._health.failing(LOG, "the connection is lost and being replaced")

    def silent(self) -> None:
        """The log's server takes connections again, and of the log it says nothing: that is no lost connection."""
        self._log_down = False

    # -- how it stands ------------------------------------------------------------------------------------------------

    def take_stock(self) -> None:
        """Once a second: the gauges, and whether what waits goes on."""
        life, metrics = self._life, self._metrics
        if life is None:
            return
        lanes = life.lanes
        metrics.events_waiting.set(lanes.waiting)
        metrics.lanes_active.set(lanes.active)
        metrics.in_flight.set(lanes.in_flight)
        metrics.jobs_known.set(len(lanes.jobs))
        for state, count in life.dwell.over.items():
            metrics.jobs_stuck(state).set(count)
        self._take_stock_of_jobs(lanes)
        if life.source is not None:
            metrics.hints_waiting.set(life.source.hints_open)
            metrics.executions_known.set(life.source.executions_known)
        if isinstance(life.source, Readers):
            self._say_discovery(life.source)
        before, life.tally = life.tally, lanes.tally.copy()
        for kind in SURPRISES:
            if more := getattr(life.tally, kind) - getattr(before, kind):
                metrics.surprises(kind).inc(more)
        metrics.resends.inc(life.tally.resends - before.resends)
        metrics.read_backs.inc(life.tally.read_backs - before.read_backs)
        if life.source is not None and life.source.counts.dropped and not life.crowded:
            life.crowded = True
            step = "raise limits.jobs; until then they are looked at by the lists that follow, as others end"
            log.warning("jobs.crowded", looked_at=life.source.open_jobs, next_step=step)
        self._take_stock_of_appends(life)
        self._say_log(life)

    def _say_discovery(self, readers: Readers) -> None:
        """How soon a change without a frame is found; where that is late, once, and again when it is over."""
        found_within_s = readers.found_within_s(self._clock.now())
        self._metrics.discovery.set(found_within_s)
        late_s = slow_lists_s(readers.list_every_s)
        if found_within_s > late_s and self._away is None and not self._slow_lists:  # of an absence more is said
            self._slow_lists = True
            log.warning(
                "lists.slow",
                found_within_s=round(found_within_s, 1),
                list_took_s=round(readers.list_took_s, 3),
                reason="a change that no frame tells of is found this late: lists take a twentieth of the time at most",
                next_step=COST_OF_LISTS,
            )
        elif self._slow_lists and found_within_s < late_s / 2:
            self._slow_lists = False
            log.info("lists.quick", found_within_s=round(found_within_s, 1))

    def _take_stock_of_jobs(self, lanes: Lanes) -> None:
        by_state, rules = lanes.by_state, lanes.rules
        for state in rules.states:
            self._metrics.jobs(state).set(by_state.get(state, 0))
        # Other rules, accepted before, may have left them.
        self._metrics.jobs(OTHER).set(sum(count for state, count in by_state.items() if state not in rules.states))
        self._metrics.jobs_open.set(sum(count for state, count in by_state.items() if not rules.is_terminal(state)))

    def _say_log(self, life: _Life) -> None:
        lanes = life.lanes
        if not lanes.waiting:
            self._confirmed_at = self._clock.now()
        waited = self._clock.now() - self._confirmed_at
        self._note_unconfirmed(0.0 if life.full or self._log_down else waited, lanes.waiting)
        if not lanes.waiting:
            if not lanes.backing_off and not self._log_down:
                self._health.ready(LOG)
        elif life.full:
            which = " and ".join(WORDS[stream] for stream in sorted(life.full))
            self._health.failing(LOG, f"{which} has no room: nothing is forgotten, and everything waits; give it more")
        elif self._log_down:
            pass  # whoever replaces the connection says more
        elif waited > STUCK_S or lanes.backing_off:
            step = f"; {self._next_step}" if waited > STUCK_S else ""
            self._health.failing(LOG, f"{lanes.waiting} events wait, nothing was confirmed for {waited:.0f} s{step}")

    def _note_unconfirmed(self, seconds: float, waiting: int) -> None:
        self._unconfirmed = (seconds, self._clock.now())
        if seconds > STUCK_S and not self._unconfirmed_told:
            log.warning("log.unconfirmed", waiting=waiting, waited_s=round(seconds), next_step=self._next_step)
        self._unconfirmed_told = seconds > STUCK_S
        if not self._unconfirmed_told:
            self.server_trouble = ""

    @property
    def _next_step(self) -> str:
        return self.server_trouble or (
            f"look at {self.look_at}: a disk that was full needs room, and a server restarted; and in a cluster "
            "whether the stream has a leader (nats stream info)"
        )

    def _take_stock_of_appends(self, life: _Life) -> None:
        now = life.outcomes.copy()
        rose, life.outcomes_told = now - life.outcomes_told, now
        for (stream, outcome), count in rose.items():
            self._metrics.appends(stream, outcome).inc(count)
        for stream in APPEND_STREAMS:
            if rose[stream, "stored"]:
                self._confirmed_at = self._clock.now()  # a rejection that is kept, too
            # Full until something is stored again: between two tries nothing comes. Or until it says nothing any more:
            # a server whose disk was full in mid-write says it once, and never stores again.
            if rose[stream, "full"]:
                life.full.add(stream)
            elif rose[stream, "stored"] or rose[stream, "refused"] or rose[stream, "unanswered"]:
                life.full.discard(stream)
            self._metrics.stream_full(stream).set(stream in life.full)


def _was_asked(one: Answered) -> bool:
    """Whether the orchestrator was asked at all: for a job that no path can name it is not, and has said nothing."""
    return not (isinstance(one.answer, OrchestratorError) and one.answer.kind == "not-askable")


def _outcome(one: Answered) -> OrchestratorFault | ReadOutcome:
    """The result of a read, as a label."""
    if isinstance(one.answer, OrchestratorError):
        return one.answer.kind
    return "missing" if isinstance(one.answer, Missing) else "answered"


def _cause(event: Event) -> ReadCause | Literal["report"]:
    """The cause of an event: "hint" or "scan" for a record, else "report"."""
    return event.cause if isinstance(event, Record) else "report"
