"""Without an orchestrator: what Bacalhau's frames prove (design/bacalhau.md 6.1, design/design.md 6.7).

Frames are folded into executions in memory, and what those say of their job becomes a `Record` of source "derived".
A state that they cannot tell becomes a `Notice`, once per job and version. Pure: frames and time in, events out.
With an orchestrator `consumer.core.readers` stands in this place; it needs none of this.
"""

import heapq
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import msgspec

from consumer import defaults
from consumer.core.reads import OrchestratorRead
from consumer.derive.executions import (
    BATCH,
    END,
    HEARD_MAX,
    HOLES,
    OPS,
    VERDICT,
    WHY,
    DerivedJob,
    End,
    Execution,
    Question,
    Verdict,
    Why,
)
from consumer.model import (
    DERIVED,
    REPORTED,
    Decision,
    Event,
    Frame,
    FrameKind,
    Identity,
    JobKey,
    JobStateType,
    LastUpdate,
    LogPoint,
    Notice,
    ReadCause,
    Record,
    Rejected,
    Snapshot,
    Step,
    Unchanged,
    Work,
    log_point_of,
)
from consumer.rules import Rules
from consumer.wire.subjects import escape, job_key

T = TypeVar("T")


class DerivationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds; bounds.

    `verdict_wait_s`: so long after an execution's end another may be asked for in its place, before the job is said to
    be undecided. In the recordings that took 1.1 s at most where the orchestrator stayed up; an evaluation tried again
    takes 5.0 s (design/bacalhau.md 6.2). `settle_s`: so long a verdict waits after the last end. The orchestrator
    writes the job's end 1 to 30 ms after it, and one that is killed in between may never do so: then the tap loses its
    connection in that time. And other executions of an ops job may still be asked for (beyond 20 nodes 0.1 s later,
    design/bacalhau.md 5.3; in the recordings all within 0.04 s).
    """

    verdict_wait_s: float = 10.0
    settle_s: float = 0.25
    executions_max: int = defaults.EXECUTIONS_MAX
    jobs_max: int = defaults.JOBS_MAX


class DerivationCounts(msgspec.Struct, kw_only=True):
    """Counts of the frames' results, since the start."""

    frames: int = 0
    repeats: int = 0
    late: int = 0
    unknown_executions: int = 0
    undecided: int = 0
    gaps: int = 0
    dropped: int = 0


class Derivation:
    """One cluster's derivation. *known* gives the log's last update of a job.

    A `consumer.core.Source` that reads nothing. After each call drain `events`; call `due_reads` when `wake_at` has
    come: it asks nothing of anybody, and says what is overdue. *hears* tells whether frames reach us now. *origin* is a
    subject token that names this start.
    """

    def __init__(
        self,
        rules: Rules,
        known: Callable[[JobKey], LastUpdate | None],
        settings: DerivationSettings | None = None,
        *,
        hears: Callable[[], bool] = lambda: True,
        origin: str = "start",
    ) -> None:
        self._rules = rules
        self._known = known
        self._settings = settings or DerivationSettings()
        self._hears = hears
        self._heard_since = float("-inf")
        self._jobs: dict[str, DerivedJob] = {}
        self._ended: dict[str, DerivedJob] = {}
        self._strangers: dict[str, None] = {}
        self._executions: dict[str, Execution] = {}
        self._past: dict[str, None] = {}
        self._asking: set[str] = set()  # open jobs with a question, so that nobody has to count them
        self._due: list[tuple[float, str, str]] = []
        self._start = origin
        self._heard: Frame | None = None
        self._gap = False
        self._gap_told = ""
        self._listened_at: float | None = None
        self.events: list[Work] = []
        self.counts = DerivationCounts()

    # -- what is known, what was missed -------------------------------------------------------------------------------

    def resume(self, job: Identity) -> None:
        """The log has *job* open. Its executions before now are not known."""
        key = job_key(job.namespace, job.id)
        known = self._known(key)
        if known is None or job.id in self._jobs or self._rules.is_terminal(known.state):
            return
        if known.source == REPORTED:
            self._leave(job.id)
            return
        found = DerivedJob(job, key, known, 0)
        found.holes = True
        self._keep(job.id, found)

    def look_everywhere(self) -> None:
        """Frames may have been missed (start, reconnect, slow consumer). Nobody can be asked, so it is announced."""
        self._gap = True

    def agreed_at(self, name: str) -> float | None:
        """When the open job *name* was last what the log says, as far as frames tell; None if they do not tell."""
        job = self._jobs.get(name)
        if job is None or job.holes or job.announced or job.questions or job.verdict is not None:
            return None
        return self._listened_at

    @property
    def open_jobs(self) -> int:
        """Jobs that have not ended, as far as is known."""
        return len(self._jobs)

    @property
    def executions_known(self) -> int:
        """Executions of open jobs in memory."""
        return len(self._executions)

    @property
    def hints_open(self) -> int:
        """Jobs of which something is left open."""
        return len(self._asking)

    # -- frames -------------------------------------------------------------------------------------------------------

    def frame(self, frame: Frame, now: float) -> None:
        """Take a frame for what it says."""
        self.counts.frames += 1
        self._heard = frame
        if frame.kind is FrameKind.ASK_FOR_BID:
            self._ask_for_bid(frame, now)
            return
        execution = self._executions.get(frame.execution)
        if execution is None:
            self._take_unknown(frame, now)
            return
        # Bacalhau repeats whole runs of messages, under their numbers and with a new time (design/bacalhau.md 2.5). The
        # subject is the execution's node and the kind's direction.
        mark = (frame.kind, frame.echo, frame.number)
        if mark in execution.heard:
            self.counts.repeats += 1
            return
        if len(execution.heard) >= HEARD_MAX:
            del execution.heard[next(iter(execution.heard))]
        execution.heard[mark] = None
        self._take(self._jobs[execution.job], execution, frame, now)

    def _take(self, job: DerivedJob, execution: Execution, frame: Frame, now: float) -> None:
        match frame.kind:
            case FrameKind.BID_ACCEPTED:
                self._run(job, execution, frame)
            case FrameKind.BID_RESULT if not frame.accepted:
                self._end(job, execution, "rejected", frame, now)
            case FrameKind.BID_REJECTED:
                self._end(job, execution, "rejected", frame, now)
            case FrameKind.RUN_RESULT:
                runs_to_end = job.identity.type in {BATCH, OPS}
                self._end(job, execution, "completed" if runs_to_end else "ended", frame, now)
            case FrameKind.COMPUTE_ERROR:
                self._end(job, execution, "failed", frame, now)
            case FrameKind.CANCEL_EXECUTION if frame.echo:
                self._confirm(job, execution, frame, now)
            case FrameKind.CANCEL_EXECUTION:
                self._cancel(job, execution, frame, now)
            case _:
                pass  # an accepted bid, or the end of a cancel: the job does not change

    def _ask_for_bid(self, frame: Frame, now: float) -> None:
        if frame.execution in self._executions or frame.execution in self._past:
            self.counts.repeats += 1
            return
        snapshot = frame.snapshot
        if snapshot is None:
            self._take_unknown(frame, now)
            return
        job = self._job_of(snapshot, frame)
        if job is None:
            self.counts.late += 1
            self._put_past(frame.execution)
            return
        execution = Execution(frame, snapshot)
        self._remember(frame.execution, execution, job, now)
        job.identity, job.count = snapshot.job, snapshot.count
        job.partitioned |= execution.confirms or frame.partition > 0
        self._answer(job, execution.about, END, HOLES)
        job.verdict = None  # it has one execution more
        self._stand(job, snapshot, frame)
        if frame.direct:
            self._run(job, execution, frame)

    def _job_of(self, snapshot: Snapshot, frame: Frame) -> DerivedJob | None:
        """The job of an AskForBid at the version that it is of; None if that is over, or not ours to tell."""
        name = snapshot.job.id
        version = frame.version or snapshot.version
        job = self._jobs.get(name) or self._ended.get(name)
        if job is None:
            key = job_key(snapshot.job.namespace, name)
            known = self._known(key)
            if known is not None and known.source == REPORTED:
                # One authority: a producer said it first, and an inference is no record that could take over.
                self._leave(name)
                return None
            job = DerivedJob(snapshot.job, key, known, version)
            # One that was open before us, as the log or the snapshot says, had executions that we did not hear of.
            job.holes = known is not None or snapshot.revision > 1 or name in self._strangers
            self._keep(name, job)
        if version < job.version:
            return None
        if version > job.version:
            self._begin(name, job, version, snapshot, frame)
        elif self._rules.is_terminal(job.state):
            return None
        return job

    def _begin(self, name: str, job: DerivedJob, version: int, snapshot: Snapshot, frame: Frame) -> None:
        """A new run: its first state is Pending, whatever the job is by now."""
        if (verdict := job.verdict) is not None:
            job.verdict = None
            self._conclude(job, verdict)
        # The record may say of an execution without a known good end that it failed: so it does for a lost node.
        job.failed |= any(
            one.end not in {"completed", "rejected"} or not one.confirmed for one in job.executions.values()
        )
        self._end_executions(job)
        job.begin(version)
        initial = job.state = self._rules.initial
        self._keep(name, job)
        self._emit(job, initial, frame.event_time, snapshot.message if snapshot.state == initial else "")

    def _stand(self, job: DerivedJob, snapshot: Snapshot, frame: Frame) -> None:
        """The job was as *snapshot* says before the write that made the execution; it never moves a job back."""
        state, before = snapshot.state, job.state
        later = snapshot.revision > job.revision
        # Where Bacalhau's count is not known for what the log has, of Queued and Running either may be the later.
        either = not job.revision and self._rules.allows(state, before)
        job.revision = max(job.revision, snapshot.revision)
        if not before or (later and state != before and self._rules.allows(before, state) and not either):
            self._emit(job, state, frame.event_time, snapshot.message)

    def _run(self, job: DerivedJob, execution: Execution, frame: Frame) -> None:
        """An execution was approved, or started without asking: a job that waited is Running."""
        later = execution.runs_at > job.revision
        if later and job.state != JobStateType.RUNNING and self._rules.allows(job.state, JobStateType.RUNNING):
            job.revision = execution.runs_at
            self._emit(job, JobStateType.RUNNING, frame.event_time)

    # -- ends of executions -------------------------------------------------------------------------------------------

    def _end(self, job: DerivedJob, execution: Execution, end: End, frame: Frame, now: float) -> None:
        if execution.end is not None:
            return  # the store refuses a second one: so after a cancel a failure is its echo, and a result is void
        execution.end = end
        execution.ended_at = now - frame.ended_ago_s
        execution.confirmed = not execution.confirms
        if end == "failed":
            job.reason = frame.reason
            job.failed = True
        self._weigh(job, execution, frame, now)

    def _confirm(self, job: DerivedJob, execution: Execution, frame: Frame, now: float) -> None:
        """1.8+: the record took the end that this repeats."""
        if execution.confirmed:
            return
        execution.confirmed = True
        execution.end = execution.end or "unseen"
        # The rest was weighed at once, and may be answered by now.
        if execution.end in {"completed", "unseen"} or job.identity.type == OPS:
            self._weigh(job, execution, frame, now)

    def _cancel(self, job: DerivedJob, execution: Execution, frame: Frame, now: float) -> None:
        """A real cancel. One that comes between an end and its receipt says that the record did not take that end."""
        if execution.confirmed:
            return
        if frame.stopped:
            self._emit(job, JobStateType.STOPPED, frame.event_time)
            return
        execution.end = "cancelled"
        execution.confirmed = True
        self._weigh(job, execution, frame, now)

    def _weigh(self, job: DerivedJob, execution: Execution, frame: Frame, now: float) -> None:
        """Decide what the end of an execution means for its job."""
        end = execution.end
        assert end is not None
        job.time = frame.event_time
        if job.identity.type == OPS:
            self._weigh_ops(job, execution, frame, now)
        elif end == "completed" and execution.confirmed:
            self._count_completed(job, execution, frame, now)
        else:
            self._wonder(job, execution.about, "unconfirmed" if end == "completed" else end, now, frame.execution)

    def _count_completed(self, job: DerivedJob, execution: Execution, frame: Frame, now: float) -> None:
        """A batch job is Completed when each partition has completed; on 1.5 and 1.6.0, when `Count` executions have.

        In a job of several that never showed an index above 0 there are no partitions (design/bacalhau.md 5.3).
        """
        job.completed += 1
        job.done.add(execution.partition)
        question = job.questions.get(execution.about)
        if question is not None and (job.partitioned or question.execution == frame.execution):
            self._answer(job, execution.about)
        if (len(job.done) if job.partitioned else job.completed) >= job.count:
            self._conclude_later(job, execution, frame, now)
        elif all(one.end is not None for one in job.executions.values()):
            self._wonder(job, END, "idle", now, frame.execution)

    def _weigh_ops(self, job: DerivedJob, execution: Execution, frame: Frame, now: float) -> None:
        """An ops job ends with the last of its executions, but more may be made: what comes of it waits a little."""
        if not execution.confirmed:
            self._wonder(job, execution.about, "unconfirmed", now, frame.execution)
            return
        self._answer(job, execution.about)
        ends = [one.end if one.confirmed else None for one in job.executions.values()]
        if execution.end in {"cancelled", "unseen"}:
            self._wonder(job, execution.about, execution.end, now, frame.execution)
        elif not {None, "cancelled", "unseen"} & set(ends):
            self._conclude_later(job, execution, frame, now)

    def _conclude_later(self, job: DerivedJob, execution: Execution, frame: Frame, now: float) -> None:
        due = now + self._settings.settle_s
        job.verdict = Verdict(due, frame.execution, execution.ended_at, frame.event_time)
        heapq.heappush(self._due, (due, job.identity.id, VERDICT))

    def _conclude(self, job: DerivedJob, verdict: Verdict) -> None:
        """Say how the job ended, as far as the ends of its executions prove it."""
        if verdict.ended_at < self._heard_since or not self._hears():
            self._announce(job, Question(verdict.due, "restart", verdict.execution))
        elif job.identity.type == OPS:
            self._conclude_ops(job, verdict)
        else:
            self._emit(job, JobStateType.COMPLETED, verdict.time)

    def _conclude_ops(self, job: DerivedJob, verdict: Verdict) -> None:
        ends = {execution.end for execution in job.executions.values()}
        why: Why | None = None
        if job.holes:
            why = "unseen"
        elif "failed" in ends:
            self._emit(job, JobStateType.FAILED, verdict.time, job.reason)
        elif "rejected" in ends:
            why = "rejected"
        elif job.failed:
            # The failed executions of earlier versions count, also those of a lost node (design/bacalhau.md 6.2).
            why = "earlier"
        else:
            self._emit(job, JobStateType.COMPLETED, verdict.time)
        if why is not None:
            self._announce(job, Question(verdict.due, why, verdict.execution))

    # -- what cannot be known -----------------------------------------------------------------------------------------

    def _wonder(self, job: DerivedJob, about: str, why: Why, now: float, execution: str) -> None:
        """A verdict is pending: until it is over, or another execution is asked for, the first question stands."""
        if about not in job.questions:
            self._ask_later(job, about, Question(now + self._settings.verdict_wait_s, why, execution))

    def _ask_later(self, job: DerivedJob, about: str, question: Question) -> None:
        job.questions[about] = question
        self._asking.add(job.identity.id)
        heapq.heappush(self._due, (question.due, job.identity.id, about))

    def _answer(self, job: DerivedJob, *abouts: str) -> None:
        """Nothing is left open about these any more."""
        for about in abouts:
            job.questions.pop(about, None)
        if not job.questions:
            self._asking.discard(job.identity.id)

    def due_reads(self, now: float) -> list[OrchestratorRead]:
        """Tell what is overdue, in `events`. There is nobody to ask: no read ever."""
        self._listened_at = now
        if self._gap:
            self._tell_gap(now)
        while self._due and self._due[0][0] <= now:
            due, name, about = heapq.heappop(self._due)
            job = self._jobs.get(name)
            if job is None:
                continue
            if about == VERDICT:
                if (verdict := job.verdict) is not None and verdict.due == due:
                    job.verdict = None
                    self._conclude(job, verdict)
            elif (question := job.questions.get(about)) is not None and question.due == due:
                self._answer(job, about)
                self._announce(job, question)
        return []

    def wake_at(self) -> float | None:
        """When `due_reads` will have something to say if nothing comes before; None: never."""
        if self._gap:
            return 0.0
        return self._due[0][0] if self._due else None

    def _announce(self, job: DerivedJob, question: Question) -> None:
        """Say that the job is undecided: once per version, whatever the reasons."""
        if job.announced or self._rules.is_terminal(job.state):
            return
        job.announced = True
        self.counts.undecided += 1
        self.events.append(
            Notice(
                kind="undecided",
                origin=f"{escape(job.identity.id)}-{job.version}",
                text=f"{WHY[question.why]}; what the job is after {job.state}, only an orchestrator can tell",
                key=job.key,
                facts={
                    "why": question.why,
                    "version": job.version,
                    "state": job.state,
                    "execution": question.execution,
                },
            )
        )

    def _tell_gap(self, now: float) -> None:
        self._gap = False
        self._heard_since = now
        # The last frame that was heard names the gap: of two daemons that missed the same, one tells it.
        last = self._heard
        origin = self._start if last is None else f"{escape(last.execution)}-{last.kind}-{last.number or 0}"
        if self._gap_told == origin:
            return  # nothing was heard since the last: it is still the same one
        self._gap_told = origin
        self.counts.gaps += 1
        self.events.append(
            Notice(
                kind="gap",
                origin=origin,
                text="frames may have been missed, and nobody can be asked: jobs may have begun, changed or ended "
                "unheard; each that is open is announced as undecided unless a frame says that it goes on",
                facts={"open": len(self._jobs)},
            )
        )
        for job in self._jobs.values():
            job.holes = True
            self._answer(job, HOLES)
            self._wonder(job, HOLES, "missed", now, "")

    def _take_unknown(self, frame: Frame, now: float) -> None:
        """A frame of an execution whose AskForBid was not heard, or is long over."""
        name = frame.job
        if frame.execution in self._past or name in self._ended:
            self.counts.late += 1
            return
        self.counts.unknown_executions += 1
        job = self._jobs.get(name)
        if job is not None:
            job.holes = True
            self._wonder(job, HOLES, "unseen", now, frame.execution)
        elif name and name not in self._strangers:
            self._leave(name)
            self.counts.undecided += 1
            self.events.append(
                Notice(
                    kind="undecided",
                    origin=f"{escape(name)}-unseen",
                    text=f"{WHY['unseen']}: the job was asked for before this was heard, so it is in no update",
                    facts={"why": "unseen", "job": name, "execution": frame.execution},
                )
            )

    # -- decisions of the fold ----------------------------------------------------------------------------------------

    def decided(self, event: Event, decision: Decision) -> None:
        """Learn what an event of ours came to. One that does not fit is made anew, after what the log has."""
        if not isinstance(event, Record):
            return
        name = event.job.id
        job = self._jobs.get(name) or self._ended.get(name)
        if job is None or job.key != event.key:
            return
        if isinstance(decision, Unchanged) and decision.reason == "unjoined":
            self._rejoin(name, job)
        elif isinstance(decision, Rejected) and not job.halted:
            known = self._known(job.key)
            job.place = log_point_of(known)
            job.state = known.state if known is not None else ""
            self._announce(job, Question(0.0, "halted", ""))
            job.halted = True
            self._keep(name, job)

    def _rejoin(self, name: str, job: DerivedJob) -> None:
        """Another daemon wrote first, or the log forgot: say again what it does not know yet, and nothing that it does.

        If two states lead to each other, either may be the later: then the log stands.
        """
        rules, wanted = self._rules, job.state
        known = self._known(job.key)
        job.place = log_point_of(known)
        if known is not None and known.source == REPORTED:
            self._leave(name)
            return
        version = known.version or 0 if known is not None else -1
        if known is None or version < job.version:
            if known is not None and wanted != rules.initial:
                self._emit(job, rules.initial, None)
            self._emit(job, wanted, job.time)
            return
        forward = rules.allows(known.state, wanted) and not rules.allows(wanted, known.state)
        if version == job.version and forward:
            self._emit(job, wanted, job.time)
            return
        if version > job.version:
            self._end_executions(job)
            job.begin(version)
            job.holes = True
        assert known is not None
        job.state = known.state
        self._keep(name, job)

    def _emit(self, job: DerivedJob, state: str, time: datetime | None, message: str = "") -> None:
        if job.halted:
            return
        step = Step(version=job.version, revision=None, state=state, message=message, time=time)
        self.events.append(
            Record(key=job.key, job=job.identity, after=job.place, steps=(step,), cause=ReadCause.HINT, source=DERIVED)
        )
        job.place = LogPoint(job.place.sequence + 1, job.version, None, state)
        job.state = state
        self._keep(job.identity.id, job)

    # -- bounds -------------------------------------------------------------------------------------------------------

    def _keep(self, name: str, job: DerivedJob) -> None:
        """Have the job among those that are open, or, if it has ended, as a place among those."""
        self._strangers.pop(name, None)
        if self._rules.is_terminal(job.state):
            self._end_executions(job)
            job.finish()
            self._jobs.pop(name, None)
            _put(self._ended, name, job, self._settings.jobs_max)
        elif name not in self._jobs:
            self._ended.pop(name, None)
            if len(self._jobs) >= self._settings.jobs_max:
                self._let_go(next(iter(self._jobs)))
            self._jobs[name] = job

    def _let_go(self, name: str) -> None:
        """More is open than may be: the oldest is told of no more."""
        job = self._jobs.pop(name)
        self.counts.dropped += 1
        self._end_executions(job)
        self._announce(job, Question(0.0, "forgotten", ""))

    def _leave(self, name: str) -> None:
        """A job that is not ours to tell."""
        job = self._jobs.pop(name, None) or self._ended.pop(name, None)
        if job is not None:
            self._end_executions(job)
        _put(self._strangers, name, None, self._settings.jobs_max)

    def _end_executions(self, job: DerivedJob) -> None:
        """Later frames of them are late, and open verdicts of them are over."""
        self._asking.discard(job.identity.id)
        for execution in job.executions:
            del self._executions[execution]
            self._put_past(execution)
        job.executions = {}

    def _put_past(self, execution: str) -> None:
        _put(self._past, execution, None, self._settings.executions_max)

    def _remember(self, name: str, execution: Execution, job: DerivedJob, now: float) -> None:
        if len(self._executions) >= self._settings.executions_max:
            oldest = next(iter(self._executions))
            loser = self._jobs[self._executions.pop(oldest).job]
            del loser.executions[oldest]
            loser.holes = True
            self.counts.dropped += 1
            self._wonder(loser, oldest, "forgotten", now, oldest)
        self._executions[name] = job.executions[name] = execution


def _put(among: dict[str, T], name: str, what: T, bound: int) -> None:
    """Put it last, and let the first go if there are more than *bound*."""
    among.pop(name, None)
    if len(among) >= bound:
        del among[next(iter(among))]
    among[name] = what
