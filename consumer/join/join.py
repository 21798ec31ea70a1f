"""The join: frames are hints, the orchestrator's record is the truth; this says what to read, and what it came to.

Pure: frames, answers and the time go in; reads and events come out (design/design.md 6). No socket, no clock, so it
runs in virtual time over recordings and simulations exactly as it runs live. It decides nothing about states
(`consumer.fold`) and carries no read out (`consumer.bacalhau`).
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from consumer.join import notices
from consumer.join.doubt import Contests
from consumer.join.early import ANYWHERE, Execution, runs_early, steps_ahead
from consumer.join.hint import ECHO, FRAME, LIST, LOOK, WATCH
from consumer.join.history import Contradicted, Joined, Old, join_history, read_versions, time_apart, went_back
from consumer.join.job import Job
from consumer.join.listed import DIFFERS, PERHAPS, lay_beside
from consumer.join.lists import AHEAD_NS, Lists, agrees_with_clock
from consumer.join.options import JoinSettings
from consumer.join.reads import Missing, OrchestratorRead, ReadHistory, ReadJob, ReadJobs
from consumer.join.turns import Turns
from consumer.model import (
    DERIVED,
    REPORTED,
    START,
    BadJob,
    Decision,
    Event,
    Frame,
    FrameKind,
    HistoryEntry,
    HistoryPage,
    Identity,
    JobKey,
    JobPage,
    JobStateType,
    Known,
    Place,
    Record,
    Rejected,
    Snapshot,
    Step,
    Unchanged,
    Work,
    place_of,
)
from consumer.rules import Rules
from consumer.wire.decoding import time_of
from consumer.wire.subjects import job_key

HINT: Final = "hint"
SCAN: Final = "scan"

UNREADABLE_AFTER: Final = 5
"""So many tries of one job in a row failed by themselves, over some 15 s: it is announced."""


class Counts(msgspec.Struct, kw_only=True):
    """What the join did, since the start."""

    frames: int = 0
    snapshots: int = 0
    early: int = 0
    answered: int = 0
    hint_reads: int = 0
    scan_reads: int = 0
    lists: int = 0
    unknown_executions: int = 0
    diverged: int = 0
    gone: int = 0
    old_answers: int = 0
    missing: int = 0
    failed: int = 0
    dropped: int = 0
    bad: int = 0


class Join:
    """One cluster's join. *known* gives the log's last update of a job; *since_ns*: see `begin`.

    After each call drain `events`, and `take` the reads; `wake_at` says when time alone will bring more.
    """

    def __init__(
        self,
        rules: Rules,
        known: Callable[[JobKey], Known | None],
        settings: JoinSettings | None = None,
        *,
        since_ns: int | None = None,
    ) -> None:
        self._rules = rules
        self._known = known
        self._settings = settings or JoinSettings()
        self._since_ns = since_ns
        self._jobs: dict[str, Job] = {}
        self._executions: dict[str, Execution] = {}
        self._reads: deque[OrchestratorRead] = deque()
        self._held: dict[str, None] = {}
        self._due: list[tuple[float, str]] = []
        self._turns = Turns(self._settings)
        self._in_turn: set[str] = set()
        self._lists = Lists(self._settings)
        self._lists.high_water = since_ns or 0
        self._contests = Contests()
        self.events: list[Work] = []
        self.counts = Counts()

    # -- what begins, and what was missed -----------------------------------------------------------------------------

    def begin(self, since_ns: int) -> None:
        """Publish what is open, and what was written after *since_ns* (the orchestrator's clock, ns; 0: everything).

        It is the newest ModifyTime of the first list that the log's first daemon saw, kept in the log: so a restart, or
        a second daemon, leaves out the same finished jobs, whatever the clocks say. Until it is known nothing is read
        but that list; hints wait.
        """
        if self._since_ns == since_ns:
            return
        self._since_ns = since_ns
        self._lists.high_water = since_ns
        held, self._held = self._held, {}
        for job in held:
            self._read(job, HINT)
        self.look_everywhere()

    def look_everywhere(self) -> None:
        """Frames may have been missed (start, reconnect of either side): list all jobs, all pages, once it may."""
        self._lists.want_all()

    def hold(self) -> None:
        """No list until `look_everywhere`: at a start, until somebody listens."""
        self._lists.hold()

    def resume(self, job: Identity) -> None:
        """The log has *job* open: read it in turn, whether or not the orchestrator lists it.

        Not if only reports told of it: the orchestrator may never have known it.
        """
        known = self._known(job_key(job.namespace, job.id))
        if known is None or known.source == REPORTED:
            return
        known_job = self._job(job.id)
        if known_job is not None:
            known_job.name(job)
            self._turns.open(job.id, float("-inf"))

    def look_nowhere(self) -> None:
        """No list until `look_everywhere`, and nothing was missed: for a replay that shows what frames alone bring."""
        self._lists.want_none()

    @property
    def newest_ns(self) -> int | None:
        """The newest ModifyTime of the first list (0: no job at all); None until it was answered."""
        return self._lists.newest_ns

    def found_within_s(self, now: float) -> float:
        """Seconds within which a change is found that no frame tells of; 0: there was no list yet, or there is none."""
        return self._lists.found_within_s(now)

    @property
    def list_took_s(self) -> float:
        """What the last page of a list took."""
        return self._lists.took_s

    @property
    def list_every_s(self) -> float:
        """So long is between two lists at least, by the settings."""
        return self._settings.list_every_s

    @property
    def open_jobs(self) -> int:
        """Jobs that are read in turn."""
        return len(self._turns)

    def agreed_at(self, name: str) -> float | None:
        """When the record of the open job *name* was last seen to have nothing newer than the log; None: never yet."""
        job = self._jobs.get(name)
        return job.agreed_at if job is not None else None

    @property
    def executions_known(self) -> int:
        """Executions whose job is remembered."""
        return len(self._executions)

    @property
    def hints_open(self) -> int:
        """Hints that the record has not answered yet."""
        return sum(1 for job in self._jobs.values() if job.hint.tries is not None)

    # -- frames -------------------------------------------------------------------------------------------------------

    def frame(self, frame: Frame, now: float) -> None:
        """Take a frame as the hint that it is."""
        self.counts.frames += 1
        if frame.snapshot is not None:
            self._ask_for_bid(frame, frame.snapshot, now)
            return
        execution = self._executions.get(frame.execution)
        name = frame.job or (execution.job if execution is not None else "")
        if not name:
            # The AskForBid was before us: only a list can say which job this is. It need not wait its second, but it
            # keeps its share: after a restart there may be thousands of these, and a list may take a second.
            self.counts.unknown_executions += 1
            self._lists.hurry(now)
            return
        if frame.kind is FrameKind.BID_RESULT and frame.accepted:
            self.counts.answered += 1  # the approval follows, and says more
            return
        approval = frame.kind is FrameKind.BID_ACCEPTED
        known = self._known(execution.key) if execution is not None else None
        if execution is not None and known is not None and known.version == execution.version:
            runs = approval and (known.state == JobStateType.RUNNING or not execution.runs_at)
            if runs or self._rules.is_terminal(known.state):
                self.counts.answered += 1
                return
        if approval and execution is not None and self._run_early(execution, frame):
            self.counts.answered += 1
            return
        moves = frame.kind not in (FrameKind.BID_REJECTED, FrameKind.CANCEL_RESULT)
        what = ECHO if frame.echo else WATCH if moves else LOOK
        self._hint(name, now, what, until=execution.runs_at if approval and execution is not None else 0)
        if not approval:
            self._disturb(name, execution)

    def _ask_for_bid(self, frame: Frame, snapshot: Snapshot, now: float) -> None:
        name = snapshot.job.id
        execution = Execution(snapshot)
        self._remember(frame.execution, execution)
        job = self._learn(snapshot)
        if job is None or job.key is None:
            return
        if self._since_ns is None:
            self._hint(name, now, WATCH)
            return
        known = self._known(job.key)
        ahead = steps_ahead(self._rules, known, snapshot, job.entries_seen)
        if snapshot.job != job.identity or (known is None and snapshot.modified_ns <= self._since_ns):
            # It says otherwise than what was learnt before: whose it is, the record tells. Or it is a frame from before
            # the log began: whether the job is left out, its history tells.
            self._hint(name, now, WATCH, until=snapshot.revision)
            return
        if ahead == 1:
            self.counts.snapshots += 1
            self._emit(
                job,
                Record(key=job.key, job=snapshot.job, after=place_of(known), steps=(_step_of(snapshot),), cause=HINT),
            )
            job.hint.answered()
        if ahead in (0, 1) and not self._rules.is_terminal(snapshot.state):
            self._open_up(name, now)
        if frame.direct and (known is None or known.state != JobStateType.RUNNING or known.version != snapshot.version):
            # It runs at once: the record is Running at the next revision already. Unless the job's time was over: then
            # the write that made this execution made the job Failed, and the node is asked all the same (1.9.3,
            # `pkg/orchestrator/scheduler/ops_job.go`).
            if not snapshot.expires and self._run_early(execution, frame):
                return
            self._hint(name, now, WATCH, until=snapshot.revision + 1)
        elif ahead in (0, 1):
            job.hint.answered()  # a retry: the scheduler has seen the end that we asked about, and the job goes on
            self._forget(name)
        else:
            self._hint(name, now, WATCH if ahead is None else LOOK, until=snapshot.revision)

    def _run_early(self, execution: Execution, frame: Frame) -> bool:
        """Publish that the job runs, if the approval or direct start that *frame* is proves it (design/design.md 6)."""
        job = self._jobs.get(execution.job)
        if not self._settings.derive or job is None or job.key is None or job.identity is None:
            return False
        standing = self._standing(job)
        if not runs_early(execution, standing, job.disturbed, self._lists.heard_from_ns):
            return False
        self.counts.early += 1
        step = Step(
            version=execution.version,
            revision=execution.runs_at,
            state=JobStateType.RUNNING,
            time=frame.event_time,
        )
        self._emit(
            job, Record(key=job.key, job=job.identity, after=standing, steps=(step,), source=DERIVED, cause=HINT)
        )
        job.hint.answered()
        return True

    def _standing(self, job: Job) -> Place:
        """Where the log stands for the job, or will stand when what is under way is written."""
        if job.way:
            return job.way[-1]
        return place_of(self._known(job.key) if job.key is not None else None)

    def _disturb(self, name: str, execution: Execution | None) -> None:
        """An execution of the job ended, or was refused: what comes after the place where that was is not for sure."""
        job = self._jobs.get(name)
        if job is None:
            return  # no room for it
        standing = self._standing(job)
        if execution is None or standing.version is None or standing.revision is None:
            job.disturbed = ANYWHERE  # until it is read
        else:
            job.disturbed = max(job.disturbed, (standing.version, standing.revision), execution.where)

    def _remember(self, execution: str, what: Execution) -> None:
        if execution not in self._executions and len(self._executions) >= self._settings.executions_max:
            del self._executions[next(iter(self._executions))]
        self._executions[execution] = what

    # -- hints and reads ----------------------------------------------------------------------------------------------

    def _hint(self, name: str, now: float, what: str, *, until: int = 0) -> None:
        """*what* (of `consumer.join.hint`) came for the job: it may have changed, so it is read."""
        job = self._job(name)
        if job is None:
            return
        job.hint.came(what, now, until)
        if self._since_ns is None:
            self._held[name] = None
        elif not job.hint.reading:
            self._read(name, HINT)

    def _look(self, name: str, cause: str) -> None:
        """The job differs from the log: it is read, once more if a read is in flight, which may be older than that."""
        job = self._job(name)
        if job is not None and job.hint.reading:
            job.hint.overtaken = LIST
        elif job is None or not job.hint.failures or job.hint.due is None:
            self._read(name, cause)

    def _read(self, name: str, cause: str) -> None:
        job = self._job(name)
        if job is None or job.hint.reading:
            return
        job.hint.left(cause)
        job.pages = []
        if cause == HINT:
            self.counts.hint_reads += 1
        else:
            self.counts.scan_reads += 1
        if job.identity is None:
            self._reads.append(ReadJob(job=name, cause=cause))
        else:
            self._reads.append(ReadHistory(job=name, namespace=job.identity.namespace, cause=cause))

    def take(self, now: float) -> list[OrchestratorRead]:
        """The reads to carry out now, in the order in which they were asked for."""
        while self._due and self._due[0][0] <= now:
            due, name = heapq.heappop(self._due)
            job = self._jobs.get(name)
            if job is not None and job.hint.due == due:
                job.hint.due = None
                self._read(name, HINT if job.hint.tries is not None else SCAN)
        if self._may_turn and (whose := self._turns.take(now, lambda one: self._ready_at(one, now))):
            self._in_turn.add(whose)
            self._read(whose, SCAN)
        if (page := self._lists.take(now)) is not None:
            self.counts.lists += 1
            self._reads.append(page)
        reads = list(self._reads)
        self._reads.clear()
        for read in reads:
            if not isinstance(read, ReadJobs) and (asking := self._jobs.get(read.job)) is not None:
                asking.hint.asked_at = now
        return reads

    def wake_at(self) -> float | None:
        """When `take` will have more if nothing comes before; None: never."""
        times: list[float | None] = [self._due[0][0]] if self._due else []
        times += [self._lists.wake_at(), self._turns.wake_at() if self._may_turn else None]
        return min((time for time in times if time is not None), default=None)

    # -- open jobs in turn --------------------------------------------------------------------------------------------

    @property
    def _may_turn(self) -> bool:
        """Whether another job's turn may come: not before the log's beginning is known.

        Nor while a second's turns have not come back: who is held up would be held up more by the next ones.
        """
        return self._since_ns is not None and len(self._in_turn) < max(self._settings.scan_rate, 1.0)

    def _open_up(self, name: str, now: float) -> None:
        """From now on the job is open: it is read in turn."""
        self._turns.open(name, now + self._settings.scan_every_s)

    def _ready_at(self, name: str, now: float) -> float:
        """When the open job may be read in its turn: not while it is, nor just after, nor before its next try."""
        job, every_s = self._jobs[name], self._settings.scan_every_s
        return max(now + every_s / 2 if job.hint.reading else job.read_at + every_s, job.hint.put_off)

    # -- answers ------------------------------------------------------------------------------------------------------

    def answered(
        self,
        read: OrchestratorRead,
        answer: HistoryPage | JobPage | Snapshot | Missing,
        now: float,
        *,
        started: float | None = None,
    ) -> None:
        """Take the orchestrator's answer to *read*. *started*: when its request left; None: when `take` gave it."""
        if isinstance(read, ReadJobs):
            assert isinstance(answer, JobPage)
            if started is not None:
                self._lists.started(started)
            self._listed(answer, now)
            return
        self._in_turn.discard(read.job)
        job = self._jobs.get(read.job)
        if job is None:
            return
        if started is not None:
            job.hint.asked_at = started
        cause = read.cause
        if isinstance(answer, Missing):
            self.counts.missing += 1
            known = self._known(job.key) if job.key is not None else None
            job.bare = False
            if known is None or known.source == REPORTED:
                job.doubt.end()  # there is nothing to be let go: what an answer before this one said is over
            elif self._ends_doubt(job, now):
                self._let_go(read.job, job, known)
            self._read_over(read.job, job, now)
        elif isinstance(answer, Snapshot):
            self._take_job(read.job, job, answer, cause, now)
        elif isinstance(answer, HistoryPage):
            assert isinstance(read, ReadHistory)
            self._take_page(read, job, answer, cause, now)

    def _take_job(self, name: str, job: Job, snapshot: Snapshot, cause: str, now: float) -> None:
        self._relearn(snapshot)
        if job.bare:
            self._take_bare(name, job, snapshot, cause, now)
        elif job.identity is not None:
            self._reads.append(ReadHistory(job=name, namespace=job.identity.namespace, cause=cause))

    def _take_page(self, read: ReadHistory, job: Job, page: HistoryPage, cause: str, now: float) -> None:
        job.pages.extend(page.entries)
        # An open job's token is a cursor: an empty page gives the same one again (design/bacalhau.md 6.3).
        is_full = bool(page.next_token) and page.items >= self._settings.history_limit
        if is_full and (page.next_token == read.next_token or len(job.pages) > self._settings.history_max):
            self.failed(read, now, alone="endless")
        elif is_full:
            self._reads.append(msgspec.structs.replace(read, next_token=page.next_token))
        elif job.pages:
            self._join(read.job, job, job.pages, cause, now)
        else:
            # Of a job that it does not know Bacalhau before 1.8 has an empty history, and no 404: the job itself tells.
            job.bare = True
            self._reads.append(ReadJob(job=read.job, namespace=read.namespace, cause=cause))

    def _take_bare(self, name: str, job: Job, snapshot: Snapshot, cause: str, now: float) -> None:
        """The job is there, and its history was empty. Every job since 1.5 has one: it may be an old answer."""
        assert job.key is not None
        job.bare = False
        if self._known(job.key) is not None:
            self._join(name, job, (), cause, now)
            return
        if self._ends_doubt(job, now):
            self._join_bare(job, snapshot, cause)
        else:
            self.counts.old_answers += 1
        self._read_over(name, job, now)

    def failed(
        self,
        read: OrchestratorRead,
        now: float,
        *,
        alone: str = "",
        too_large: bool = False,
        started: float | None = None,
    ) -> None:
        """The orchestrator did not answer *read*, or with no answer: it waits, and is asked again.

        *alone*: the kind of an error that says nothing of other reads. A job that has it again and again is asked for
        ever more seldom, and it is announced.
        """
        self.counts.failed += 1
        if isinstance(read, ReadJobs):
            if started is not None:
                self._lists.started(started)
            self._lists.failed(now, too_large=too_large)
            return
        self._in_turn.discard(read.job)
        job = self._jobs.get(read.job)
        if job is None:
            return
        job.bare = False
        job.pages = []
        failures = job.hint.failures
        due = job.hint.failed(now, self._settings.retry_after, alone=bool(alone))
        if job.identity is None and alone == "not-askable":
            # Only a frame has named it, and nobody can be asked for a job of that name: it is none.
            job.hint.answered()
            self._forget(read.job)
            return
        if failures < job.hint.failures == UNREADABLE_AFTER:
            self.events.append(notices.unreadable(read.job, job.key, alone))
        self._again_at(read.job, job, due)

    def _join(self, name: str, job: Job, entries: Sequence[HistoryEntry], cause: str, now: float) -> None:
        assert job.key is not None
        assert job.identity is not None
        known = self._known(job.key)
        entries = read_versions(entries)
        found = self._lay_beside(known, entries)
        if isinstance(found, Old):
            self.counts.old_answers += 1
            if self._ends_doubt(job, now):
                if entries:
                    found = went_back(known, entries)
                else:
                    self.events.append(notices.unreadable(name, job.key, "no-history"))
        if not isinstance(found, Old):
            job.doubt.end()
            job.entries_seen = len(entries)
            if job.disturbed == ANYWHERE and entries and not job.hint.overtaken:
                job.disturbed = (entries[-1].version, len(entries))
            if isinstance(found, Contradicted):
                self._correct(job, found, cause)
                job.hint.answered()
            elif found.steps and (known is not None or not self._is_left_out(entries)):
                is_new = self._emit(
                    job, Record(key=job.key, job=job.identity, after=found.after, steps=found.steps, cause=cause)
                )
                # What is under way already answers nothing, and a hint that came after this read left is open still.
                if is_new and not job.hint.overtaken and not job.hint.until:
                    job.hint.answered()
            elif not found.steps and not job.hint.overtaken:
                job.agreed_at = now
                self._contests.agree(name, now)
        self._see_end(name, job, entries, now, old=isinstance(found, Old))
        self._read_over(name, job, now)

    def _lay_beside(self, known: Known | None, entries: Sequence[HistoryEntry]) -> Joined | Old | Contradicted:
        if known is not None and self._rules.is_terminal(known.state) and (apart := time_apart(known, entries)):
            # An earlier time may be that of an old answer; a later one is of what came since.
            return went_back(known, entries) if apart > timedelta(0) else Old()
        return join_history(known, entries)

    def _ends_doubt(self, job: Job, now: float) -> bool:
        """An answer says less than the log. Whether it is one of so many that it is no old one: then it is believed."""
        self._doubt(job, now)
        certain = job.doubt.is_certain(now, self._settings)
        if certain:
            job.doubt.end()
        return certain

    def _doubt(self, job: Job, now: float) -> None:
        """An answer says less than it must: whoever asked, it is read again until one does not."""
        if not job.doubt.answers and job.hint.tries is None:
            job.hint.watch(now)
        job.doubt.came(now)

    def _let_go(self, name: str, job: Job, known: Known) -> None:
        """The orchestrator does not know the job any more: announced, and read no more."""
        self.counts.gone += 1
        self.events.append(notices.gone(name, job.key, known))
        job.hint.answered()
        self._turns.close(name)

    def _see_end(self, name: str, job: Job, entries: Sequence[HistoryEntry], now: float, *, old: bool) -> None:
        """Before its end the job is open. An *old* history has ended nothing."""
        ended = bool(entries) and not old and self._rules.is_terminal(entries[-1].state)
        job.hint.answered_by(len(entries), ended=ended)
        if ended:
            self._turns.close(name)
        elif entries:
            self._open_up(name, now)

    def _join_bare(self, job: Job, snapshot: Snapshot, cause: str) -> None:
        """A job without a history (before 1.5): its present state, once, flagged `joined` (design/design.md 6.1)."""
        assert job.key is not None
        job.hint.answered()
        if not self._differs(snapshot):
            return
        self._emit(
            job,
            Record(
                key=job.key, job=snapshot.job, after=START, steps=(_step_of(snapshot),), flags=("joined",), cause=cause
            ),
        )

    def _is_left_out(self, entries: Sequence[HistoryEntry]) -> bool:
        """Whether the job was over when the log began: its first state is before our time, and so is its last."""
        if not entries or not self._since_ns or not self._rules.is_terminal(entries[-1].state):
            return False
        ended, began = entries[-1].time, time_of(self._since_ns)  # both to the nearest microsecond
        return ended is not None and began is not None and ended <= began

    def _correct(self, job: Job, found: Contradicted, cause: str) -> None:
        assert job.key is not None
        assert job.identity is not None
        record = Record(
            key=job.key, job=job.identity, after=found.after, steps=(found.present,), corrected=True, cause=cause
        )
        if _is_under_way(job, record):
            return
        if not found.reported:
            self.counts.diverged += 1
            self.events.append(notices.diverged(job.identity.id, job.key, found.after, found.present))
        job.halted = None  # it stands elsewhere from here on
        self._emit(job, record)

    def _emit(self, job: Job, record: Record) -> bool:
        """Put *record* on its way. Gives whether it says more than what is under way."""
        # A step that the rules reject stands in quarantine already: the job waits there for an operator.
        if job.halted is not None and record.steps[0] == job.halted and not record.corrected:
            return True
        if _is_under_way(job, record):
            return False
        places = _places(record)
        self._contests.end(record.job.id)
        job.way = job.way + places[1:] if job.way and job.way[-1] == record.after else places
        self.events.append(record)
        return True

    def _read_over(self, name: str, job: Job, now: float) -> None:
        """The read in flight is over: read again if a hint came meanwhile, later if the hint is not answered."""
        hint = job.hint
        hint.over()
        job.pages = []
        job.read_at = now
        if hint.overtaken:
            self._read(name, HINT if hint.overtaken == FRAME or hint.tries is not None else SCAN)
        elif hint.tries is not None:
            due = hint.next_due(now, self._settings.repeats)
            if due is not None:
                self._again_at(name, job, due)
                return
            hint.answered()  # the record will not answer this one; the job's turn, or a list, finds what comes
        if job.doubt.answers:
            self._again_at(name, job, now + self._settings.doubt_s / self._settings.doubts)
        else:
            self._forget(name)

    def _again_at(self, name: str, job: Job, due: float) -> None:
        job.hint.due = due
        heapq.heappush(self._due, (due, name))

    # -- what the fold came to ----------------------------------------------------------------------------------------

    def decided(self, event: Event, decision: Decision) -> None:
        """Learn what an event of ours came to: one that no longer fits is read again, a rejected one stands still."""
        if not isinstance(event, Record):
            return
        name = event.job.id
        known_job = self._jobs.get(name)
        if known_job is not None and known_job.way and known_job.way[-1] == _places(event)[-1]:
            known_job.way = ()
            self._forget(name)
        if isinstance(decision, Unchanged) and decision.reason == "unjoined":
            job = self._job(name)
            if job is not None:
                job.name(event.job)
                self._look(name, event.cause)
        elif isinstance(decision, Rejected):
            job = self._job(name)
            if job is not None:
                job.name(event.job)
                self._halt(job, event, decision)

    def _halt(self, job: Job, event: Record, decision: Rejected) -> None:
        """The rules reject a step of the record: the job stands still before it, which is announced once."""
        step = job.halted = event.steps[decision.step]
        self.events.append(notices.halted(event.job.id, event.key, step, decision.reason))

    # -- lists --------------------------------------------------------------------------------------------------------

    def _listed(self, page: JobPage, now: float) -> None:
        """One page of a list: whatever differs from the log is read."""
        begun = self._since_ns is not None
        if self._since_ns and page.clock_ns + AHEAD_NS < self._since_ns and agrees_with_clock(page):
            self.events.append(notices.began_ahead(self._since_ns, page.clock_ns))
            self._since_ns = page.clock_ns - AHEAD_NS  # what ended between the setting back and this list is told, too
        if begun:
            self._compare(page.jobs, now)
            self._look_at_bad(page.bad, now)
        before = self._lists.high_water
        if self._lists.answered(page, now, begun=begun):
            self.counts.diverged += 1
            self.events.append(notices.record_went_back(self._lists.high_water, before))

    def _compare(self, snapshots: Sequence[Snapshot], now: float) -> None:
        for snapshot in snapshots:
            name = snapshot.job.id
            job = self._relearn(snapshot) if name in self._jobs else None
            if self._differs(snapshot):
                job = job or self._learn(snapshot)
                if job is not None:
                    self._contest(name, job, snapshot, now)
                self._look(name, SCAN)
                continue
            self._contests.end(name)
            if not self._rules.is_terminal(snapshot.state):
                job = job or self._learn(snapshot)
                if job is not None:
                    self._open_up(name, now)

    def _contest(self, name: str, job: Job, snapshot: Snapshot, now: float) -> None:
        """A list says another state than the log. Where the history agrees with the log, for long, it is announced."""
        known = self._known(job.key) if job.key is not None else None
        if known is None or (known.version, known.state) == (snapshot.version, snapshot.state) or job.halted:
            return
        claim = (snapshot.version, snapshot.revision, snapshot.state)
        if self._contests.claim(name, claim, now, self._settings.doubt_s):
            self.events.append(notices.unreadable(name, job.key, "contradicts-list"))

    def _look_at_bad(self, bad: Sequence[BadJob], now: float) -> None:
        """What a list cannot tell of a job, a read of its own may; if not, that error is the job's alone."""
        self.counts.bad += len(bad)
        for one in bad:
            job = self._jobs.get(one.id)
            is_due = self._lists.sweeps or one.modified_ns > self._lists.high_water
            if one.id and is_due and (job is None or not job.hint.is_open):
                self._hint(one.id, now, LOOK)

    def _differs(self, snapshot: Snapshot) -> bool:
        """Whether to read the job that a list shows."""
        job = self._jobs.get(snapshot.job.id)
        if job is not None and job.halted is not None and not self._lists.sweeps:
            return False  # it stands still: whatever comes after waits for an operator, not for us
        known = self._known(job_key(snapshot.job.namespace, snapshot.job.id))
        said = lay_beside(self._rules, known, snapshot, self._since_ns or 0)
        if said == PERHAPS:
            return self._lists.sweeps or snapshot.modified_ns > self._lists.high_water
        return said == DIFFERS

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def _job(self, name: str) -> Job | None:
        job = self._jobs.get(name)
        if job is None:
            if len(self._jobs) >= self._settings.jobs_max:
                # Bounded: a list will find it, when there is room.
                self.counts.dropped += 1
                self._lists.want_room()
                return None
            job = self._jobs[name] = Job()
        return job

    def _forget(self, name: str) -> None:
        job = self._jobs.get(name)
        if job is None or job.hint.is_open or job.halted is not None or name in self._turns:
            return
        if not job.way:  # what is under way is not known yet
            del self._jobs[name]

    def _learn(self, snapshot: Snapshot) -> Job | None:
        """Whose job it is, if that was not known."""
        job = self._job(snapshot.job.id)
        if job is not None:
            job.name(snapshot.job)
        return job

    def _relearn(self, snapshot: Snapshot) -> Job | None:
        """Whose job it is, as the orchestrator says."""
        job = self._job(snapshot.job.id)
        if job is not None:
            job.rename(snapshot.job)
        return job


def _step_of(snapshot: Snapshot) -> Step:
    """The state that *snapshot* shows, as a step."""
    return Step(
        version=snapshot.version,
        revision=snapshot.revision,
        state=snapshot.state,
        message=snapshot.message,
        time=snapshot.modified,
    )


def _is_under_way(job: Job, record: Record) -> bool:
    """Whether the log is being told this already: while it takes its time, each read brings the same again."""
    return set(_places(record)) <= set(job.way)


def _places(record: Record) -> tuple[Place, ...]:
    """The place that *record* follows, and those that its steps lead to."""
    after = record.after
    return (
        after,
        *(
            Place(after.sequence + number, step.version, step.revision, step.state)
            for number, step in enumerate(record.steps, 1)
        ),
    )
