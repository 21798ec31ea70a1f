"""The readers of all jobs: frames and rows of lists say which job to look at, its history says what it came to.

Pure: frames, answers and the time go in; reads and events come out (design/design.md 6). Every step of an event comes
from a history, never from a frame or a row, so whoever forges these can only make us look. When one job is read is
`consumer.core.reader`'s, which of many `consumer.core.schedule`'s, when lists are read `consumer.core.lists`'.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from consumer.core import notices
from consumer.core.claim import ClaimKind
from consumer.core.history import (
    Contradicted,
    Joined,
    Old,
    Part,
    correct,
    ended_before,
    lay_beside,
)
from consumer.core.lists import AHEAD_NS, Lists, agrees_with_clock
from consumer.core.options import ReadingOptions
from consumer.core.pace import Pace
from consumer.core.reader import LONG_AGO, Cause, Last, Reader
from consumer.core.reads import Missing, OrchestratorRead, ReadHistory, ReadJob, ReadJobs, Scope
from consumer.core.rows import DIFFERS, PERHAPS
from consumer.core.rows import lay_beside as lay_row_beside
from consumer.core.schedule import Schedule
from consumer.errors import MAYBE_OF_ONE_READ, OrchestratorError
from consumer.model import (
    REPORTED,
    START,
    Accepted,
    BadJob,
    Decision,
    Event,
    Frame,
    FrameKind,
    HistoryPage,
    Identity,
    JobDocument,
    JobKey,
    JobPage,
    JobStateType,
    Known,
    Record,
    Rejected,
    Snapshot,
    Step,
    Unchanged,
    Work,
)
from consumer.rules import Rules
from consumer.wire.subjects import job_key, unescape

UNREADABLE_AFTER: Final = 5
"""A job whose reads failed so often in a row, over some 15 s, is announced."""

UNTOUCHED: Final = frozenset({"unreachable", "unresolved"})
"""Kinds of errors that took none of the orchestrator's time."""

_ENDS: Final = (FrameKind.RUN_RESULT, FrameKind.COMPUTE_ERROR)


class Execution(msgspec.Struct, frozen=True, gc=False):
    """What an AskForBid said: of which job, of which version, and how many entries its record has once it runs.

    *key* is where the log would have the job if the frame told the truth about its namespace.
    """

    job: str
    key: JobKey
    version: int
    runs_at: int


class Counts(msgspec.Struct, kw_only=True):
    """What the readers did, since the start."""

    frames: int = 0
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


class Readers:
    """One cluster's readers. *known* gives the log's last update of a job; *since_ns*: see `begin`.

    After each call drain `events`, and carry out `due_reads`; `wake_at` says when the time alone brings more.
    """

    def __init__(
        self,
        rules: Rules,
        known: Callable[[JobKey], Known | None],
        options: ReadingOptions | None = None,
        *,
        since_ns: int | None = None,
        dice: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """*dice* gives numbers in [0, 1), for pauses that do not end at one instant everywhere."""
        self._rules: Final = rules
        self._known: Final = known
        self._options: Final = options or ReadingOptions()
        self._lists: Final = Lists(self._options)
        self._since_ns = since_ns
        self._lists.high_water = since_ns or 0
        self._readers: Final[dict[str, Reader]] = {}
        self._executions: Final[dict[str, Execution]] = {}
        self._schedule: Final = Schedule(self._options)
        self._pace: Final = Pace(self._options, dice)
        self._returns = 0
        self._began_at: float | None = None
        self._further: Final[deque[OrchestratorRead]] = deque()
        """Reads that go on with one that was answered: the next page, or the history after the job."""
        self._open = 0
        self.events: list[Work] = []
        self.counts: Final = Counts()

    # -- what begins, and what was missed -----------------------------------------------------------------------------

    def begin(self, since_ns: int) -> None:
        """Publish what is open, and what ended after *since_ns* (the orchestrator's clock, ns; 0: everything).

        Until it is known nothing is read but the first list, and frames say nothing: all jobs are listed then.
        """
        if self._since_ns != since_ns:
            self._since_ns = since_ns
            self._lists.high_water = since_ns
            self.look_everywhere()

    def look_everywhere(self) -> None:
        """Frames may have been missed (start, reconnect of either side): list all jobs, all pages, once it may."""
        self._lists.want_all()

    def hold(self) -> None:
        """No list until `look_everywhere`: at a start, until somebody listens."""
        self._lists.hold()

    def look_nowhere(self) -> None:
        """No list until `look_everywhere`, and nothing was missed: for a replay of what frames alone bring."""
        self._lists.want_none()

    def resume(self, job: Identity) -> None:
        """The log has *job* open: look at it in turn, whether or not the orchestrator lists it.

        Not if only reports told of it: the orchestrator may never have known it.
        """
        known = self._known(job_key(job.namespace, job.id))
        if known is None or known.source == REPORTED:
            return
        reader = self._reader(job.id)
        if reader is not None:
            reader.name_by(job)
            self._set_open(reader, is_open=True)
            self._plan(reader, LONG_AGO)

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
        return self._options.list_every_s

    @property
    def open_jobs(self) -> int:
        """Jobs that are looked at in turn."""
        return self._open

    def agreed_at(self, name: str) -> float | None:
        """When the record of the job *name* was last seen to have nothing newer than the log; None: never yet."""
        reader = self._readers.get(name)
        return reader.agreed_at if reader is not None else None

    @property
    def executions_known(self) -> int:
        """Executions whose job is remembered."""
        return len(self._executions)

    @property
    def leftovers(self) -> list[str]:
        """Jobs that are remembered though nothing will have them read: none, ever, but those that stand still."""
        waiting = (reader for reader in self._readers.values() if reader.waits and not reader.queued)
        return [reader.name for reader in waiting if reader.halted is None]

    @property
    def hints_open(self) -> int:
        """Jobs that are due because of a hint, or will be."""
        return self._schedule.hinted

    # -- the orchestrator, and what it is to feel ---------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests that are under way."""
        return self._pace.in_flight

    def waiting(self, now: float) -> int:
        """Reads that are due and have not left."""
        lists_due = self._lists.wake_at()
        of_jobs = self._schedule.overdue(now) if self._since_ns is not None else 0
        return len(self._further) + of_jobs + (lists_due is not None and lists_due <= now)

    def waited_s(self, now: float) -> float:
        """How long the oldest of these has waited: above some seconds, rate or orchestrator cannot keep up."""
        due = self._next_due()
        if due is None or self._began_at is None:
            return 0.0
        return max(now - max(due, self._began_at), 0.0)

    @property
    def away(self) -> str:
        """Kind of the error that keeps the orchestrator away, or empty."""
        return self._pace.away

    @property
    def away_since(self) -> float | None:
        """Since when it is away."""
        return self._pace.away_since

    @property
    def returns(self) -> int:
        """How often it came back so far."""
        return self._pace.returns

    def probe_now(self) -> None:
        """Something says that an orchestrator that is away may be back: ask it at once, not after the pause."""
        self._pace.probe_now()

    def turn_s(self, now: float) -> float | None:
        """Seconds until a request may leave that is no read of ours: it takes a place of the rate. None: it is away."""
        return None if self._pace.away else self._pace.turn(now) - now

    # -- frames: hints ------------------------------------------------------------------------------------------------

    def frame(self, frame: Frame, now: float) -> None:
        """Take a frame as the hint that it is."""
        self.counts.frames += 1
        if self._since_ns is None:
            if frame.snapshot is not None:
                self._remember(frame, frame.snapshot)
            return
        if frame.snapshot is not None:
            self._ask_for_bid(frame, frame.snapshot, now)
            return
        run = self._executions.get(frame.execution)
        name = frame.job or (run.job if run is not None else "")
        if not name:
            # The AskForBid was before us: only a list can say which job this is.
            self.counts.unknown_executions += 1
            self._lists.list_soon(now)
            return
        if frame.kind is FrameKind.BID_RESULT and frame.accepted:
            self.counts.answered += 1  # the approval follows, and says more
            return
        reader = self._reader(name, run.key if run is not None else None)
        if reader is not None:
            self._take_message(reader, frame, run, now)

    def _take_message(self, reader: Reader, frame: Frame, run: Execution | None, now: float) -> None:
        """A message of the execution *run* (None: its AskForBid was not heard): what it says of the record's length."""
        at, last = self._at(reader), self._last(reader)
        if last is not None and last.ends and run is not None and run.version <= last.version:
            self.counts.answered += 1  # that life has ended
            self._forget(reader)
            return
        runs_at = run.runs_at if run is not None else 0
        if frame.kind is FrameKind.BID_ACCEPTED:
            newer = run is not None and last is not None and run.version > last.version
            if run is None or newer or last is None or runs_at > at:
                self._hint(reader, now, said=max(runs_at, at + 1 if newer or not runs_at else 0))
            else:
                self.counts.answered += 1
                self._forget(reader)
        elif not frame.echo or not reader.hoped:  # an echo repeats an end that was told, if it was
            wait_s = self._options.end_wait_s if frame.kind in _ENDS else 0.0
            self._hint(reader, now + wait_s, hoped=max(at, runs_at) + 1)

    def _ask_for_bid(self, frame: Frame, snapshot: Snapshot, now: float) -> None:
        run = self._remember(frame, snapshot)
        reader = self._reader(run.job, run.key)
        if reader is None:
            return
        at, last = self._at(reader), self._last(reader)
        starts = frame.direct and snapshot.state != JobStateType.RUNNING
        said = snapshot.revision + starts
        if last is not None and snapshot.version > last.version:
            said = max(said, at + 1)  # Bacalhau counts revisions, we count entries: from life to life they may part
        if said > at:
            self._hint(reader, now, said=said)
            return
        if snapshot.revision == at:
            reader.hoped = 0  # a retry: the scheduler has seen the end that we asked about, and the job goes on
        self.counts.answered += 1
        self._forget(reader)

    def _remember(self, frame: Frame, snapshot: Snapshot) -> Execution:
        runs_at = snapshot.revision + (snapshot.state != JobStateType.RUNNING)
        key = job_key(snapshot.job.namespace, snapshot.job.id)
        run = Execution(snapshot.job.id, key, snapshot.version, runs_at)
        executions = self._executions
        if frame.execution not in executions and len(executions) >= self._options.executions_max:
            del executions[next(iter(executions))]
        executions[frame.execution] = run
        return run

    def _hint(self, reader: Reader, at: float, *, said: int = 0, hoped: int = 0) -> None:
        reader.hint(at, said=said, hoped=hoped)
        if reader.waits:
            self._schedule.put(reader, max(at, reader.not_before), Cause.HINT)

    def _at(self, reader: Reader) -> int:
        """How many entries of the job's record were seen, by a read or by the log."""
        known = self._known(reader.key) if reader.key is not None else None
        return max(reader.seen, (known.revision or 0) if known is not None else 0)

    def _last(self, reader: Reader) -> Last | None:
        if reader.last is not None or reader.key is None:
            return reader.last
        known = self._known(reader.key)
        if known is None or known.source == REPORTED:
            return None
        return Last(known.version or 0, known.state, self._rules.is_terminal(known.state))

    # -- reads --------------------------------------------------------------------------------------------------------

    def due_reads(self, now: float) -> list[OrchestratorRead]:
        """Give the reads that leave now, the most urgent first. Each comes back through `answered` or `failed`."""
        if self._began_at is None:
            self._began_at = now
        reads: list[OrchestratorRead] = []
        while self._pace.is_free(now) and (read := self._next_read(now)) is not None:
            self._pace.leaves(read, now)
            reads.append(read)
        return reads

    def _next_read(self, now: float) -> OrchestratorRead | None:
        if self._pace.away:
            return self._next_probe(now)
        return self._next_page() or self._next_list(now) or self._next_of_job(now)

    def _next_probe(self, now: float) -> OrchestratorRead | None:
        """One that tells whether the orchestrator is back: not of a job that fails, which proves nothing.

        A list last: it may take a second, or a minute.
        """
        failing: list[Reader] = []
        while (reader := self._next_reader(now)) is not None and reader.fails:
            failing.append(reader)
        read = self._leaves(reader, now) if reader is not None else self._next_page() or self._next_list(now)
        if read is None and failing:
            read = self._leaves(failing.pop(0), now)
        for one in failing:
            self._schedule.put(one, now, one.cause)
        return read

    def _next_page(self) -> OrchestratorRead | None:
        return self._further.popleft() if self._further else None

    def _next_list(self, now: float) -> ReadJobs | None:
        page = self._lists.next_page(now)
        self.counts.lists += page is not None
        return page

    def _next_of_job(self, now: float) -> OrchestratorRead | None:
        reader = self._next_reader(now)
        return self._leaves(reader, now) if reader is not None else None

    def _next_reader(self, now: float) -> Reader | None:
        return self._schedule.next(now) if self._since_ns is not None else None

    def _leaves(self, reader: Reader, now: float) -> OrchestratorRead:
        reader.leaves(now)
        if reader.cause is Cause.HINT:
            self.counts.hint_reads += 1
        else:
            self.counts.scan_reads += 1
        return self._read_of(reader)

    def _read_of(self, reader: Reader) -> OrchestratorRead:
        cause = "hint" if reader.cause is Cause.HINT else "scan"
        if reader.identity is None:
            return ReadJob(job=reader.name, cause=cause)
        token = reader.tail.token if reader.tail is not None else ""
        return ReadHistory(job=reader.name, namespace=reader.identity.namespace, next_token=token, cause=cause)

    def wake_at(self) -> float | None:
        """When `due_reads` will have more if nothing comes before, in seconds; None: never."""
        due, free_at = self._next_due(), self._pace.free_at()
        return None if due is None or free_at is None else max(due, free_at)

    def _next_due(self) -> float | None:
        """When the next read is due, whether or not it may leave then; None: not before something comes."""
        if self._further:
            return LONG_AGO
        times = [self._lists.wake_at(), self._schedule.wake_at() if self._since_ns is not None else None]
        due = min((time for time in times if time is not None), default=float("inf"))
        return None if due == float("inf") else due

    # -- answers ------------------------------------------------------------------------------------------------------

    def answered(
        self,
        read: OrchestratorRead,
        answer: HistoryPage | JobDocument | JobPage | Missing,
        now: float,
    ) -> None:
        """Take the orchestrator's answer to *read*, as `due_reads` gave it."""
        self._pace.answered(read)
        self._look_after_return()
        if isinstance(read, ReadJobs):
            assert isinstance(answer, JobPage)
            self._listed(answer, now, self._lists.asked_at)
            return
        reader = self._readers.get(read.job)
        if reader is None:
            return
        reader.answered()
        if isinstance(answer, Missing):
            self.counts.missing += 1
            self._take_missing(reader, now)
        elif isinstance(answer, JobDocument):
            self._take_job(reader, read, answer, now)
        else:
            assert isinstance(answer, HistoryPage)
            assert isinstance(read, ReadHistory)
            self._take_page(reader, read, answer, now)

    def _look_after_return(self) -> None:
        """The orchestrator is back: what it wrote meanwhile, nobody may have heard of."""
        if self._pace.returns != self._returns:
            self._returns = self._pace.returns
            self.look_everywhere()

    def _take_missing(self, reader: Reader, now: float) -> None:
        known = self._known(reader.key) if reader.key is not None else None
        if known is not None and known.source != REPORTED:
            self._say(reader, ClaimKind.UNKNOWN, now)
            return
        reader.claim.end()
        self._set_open(reader, is_open=False)
        self._ask_once_more(reader, now)

    def _ask_once_more(self, reader: Reader, now: float) -> None:
        """The record does not know the job, or does not give it, and the log has nothing of it.

        A job that only a frame has named is asked for twice: a frame follows the write, and so may an answer that is a
        little old. A hint that came after the read left is asked for too.
        """
        reader.flying = False
        if reader.hinted_at <= reader.looked_at:
            reader.drop_hints()
        if reader.is_asking or not (reader.named or reader.asked_once):
            self._schedule.put(reader, now + self._options.retry_s, Cause.HINT)
        else:
            self._forget(reader)
        reader.asked_once = True

    def _take_job(self, reader: Reader, read: OrchestratorRead, document: JobDocument, now: float) -> None:
        """The job itself: its identity, and the beginning of its latest version's history."""
        assert isinstance(read, ReadJob)
        job, history = document.job, document.history
        reader.name_by(job.job)
        if not history.entries:
            self._take_job_without_history(reader, job, read.cause, now)
        elif job.version > 1 or history.items >= self._options.included_rows:
            self._further.append(self._read_of(reader))  # it has lived before, or has more
        else:
            self._take_history(reader, Part.after(None, history.entries), read.cause, now)

    def _take_job_without_history(self, reader: Reader, job: Snapshot, cause: str, now: float) -> None:
        """Every job since 1.5 has a history: so this may be an old answer. A job from before is joined as it is."""
        assert reader.key is not None
        if self._known(reader.key) is not None:
            self._say(reader, ClaimKind.NO_HISTORY, now)
            return
        reader.last = Last(job.version, job.state, self._rules.is_terminal(job.state))
        if not self._repeated(reader, ClaimKind.NO_HISTORY, now):
            self._settle_doubted(reader, now)
            return
        reader.seen = job.revision
        if not self._is_left_out(job):
            step = Step(
                version=job.version, revision=job.revision, state=job.state, message=job.message, time=job.modified
            )
            record = Record(key=reader.key, job=job.job, after=START, steps=(step,), flags=("joined",), cause=cause)
            self._emit(reader, record)
        reader.drop_hints()
        self._set_open(reader, is_open=not reader.last.ends)
        self._settle(reader, now)

    def _is_left_out(self, job: Snapshot) -> bool:
        """Whether the job had ended when the log began."""
        return bool(self._since_ns) and self._rules.is_terminal(job.state) and job.modified_ns <= (self._since_ns or 0)

    def _take_page(self, reader: Reader, read: ReadHistory, page: HistoryPage, now: float) -> None:
        options = self._options
        pages = len(reader.pages)
        reader.pages.extend(page.entries)
        # An open job's token is a cursor: an empty page gives the same one again (design/bacalhau.md 6.3).
        is_full = bool(page.next_token) and page.items >= options.history_limit
        first = reader.tail.entries if reader.tail is not None else 0
        if is_full and (page.next_token == read.next_token or first + len(reader.pages) > options.history_max):
            self._fail(reader, now, "endless", Scope.READ)
        elif is_full:
            self._further.append(msgspec.structs.replace(read, next_token=page.next_token))
        elif reader.pages or first:
            part = Part.after(reader.tail, reader.pages)
            if read.next_token and page.entries:
                reader.tail = part.tail(read.next_token, pages)
            self._take_history(reader, part, read.cause, now)
        else:
            # Of a job that it does not know Bacalhau before 1.8 has an empty history and no 404: the job itself tells.
            self._further.append(ReadJob(job=read.job, namespace=read.namespace, cause=read.cause))

    def _take_history(self, reader: Reader, part: Part, cause: str, now: float) -> None:
        assert reader.key is not None
        assert reader.identity is not None
        known = self._known(reader.key)
        found = lay_beside(self._rules, known, part)
        if found is None:  # what was read on from does not reach back far enough: the whole
            reader.tail, reader.pages = None, []
            self._further.append(self._read_of(reader))
            return
        if isinstance(found, Old):
            if not self._repeated(reader, ClaimKind.SHORTER, now):
                self._settle_doubted(reader, now)
                return
            found = correct(known, part)
        reader.seen, reader.last = part.count, Last(*part.last, self._rules.is_terminal(part.last[1]))
        self._set_open(reader, is_open=not reader.last.ends)
        if isinstance(found, Joined) and not found.steps:
            reader.agreed_at = now
            self._weigh_lists(reader, now)
            self._settle(reader, now)
            return
        reader.claim.end()  # the answer says no less than the log, whatever comes of its steps
        if isinstance(found, Contradicted):
            self._correct(reader, found, cause)
        elif known is not None or not ended_before(self._rules, part, self._since_ns or 0):
            record = Record(key=reader.key, job=reader.identity, after=found.after, steps=found.steps, cause=cause)
            self._emit(reader, record)
        self._settle(reader, now)

    def _weigh_lists(self, reader: Reader, now: float) -> None:
        """The history agrees with the log. If lists have long said otherwise, that is announced."""
        if now - reader.listed_at >= self._options.claim_s:
            reader.claim.end()
        elif self._repeated(reader, ClaimKind.LISTED, now):
            reader.listed_at = LONG_AGO
            self.events.append(notices.unreadable(reader.name, reader.key, ClaimKind.LISTED))

    def _repeated(self, reader: Reader, kind: ClaimKind, now: float) -> bool:
        if kind is not ClaimKind.LISTED:
            self.counts.old_answers += 1
        options = self._options
        return reader.claim.repeated(kind, now, answers=options.claim_answers, seconds=options.claim_s)

    def _say(self, reader: Reader, kind: ClaimKind, now: float) -> None:
        """The answer says less than the log has, which may be an old answer. Believed, it is announced."""
        if not self._repeated(reader, kind, now):
            self._settle_doubted(reader, now)
            return
        known = self._known(reader.key) if reader.key is not None else None
        assert known is not None
        reader.drop_hints()
        self._set_open(reader, is_open=False)
        if kind is ClaimKind.UNKNOWN:
            self.counts.gone += 1
            self.events.append(notices.gone(reader.name, reader.key, known))
        else:
            self.events.append(notices.unreadable(reader.name, reader.key, kind))
        self._settle(reader, now)

    def _settle_doubted(self, reader: Reader, now: float) -> None:
        """Looked at again, in turn at the latest, until it says what it should or is believed."""
        self._set_open(reader, is_open=True)
        self._settle(reader, now)

    def _correct(self, reader: Reader, found: Contradicted, cause: str) -> None:
        assert reader.key is not None
        assert reader.identity is not None
        if not found.reported:
            self.counts.diverged += 1
            self.events.append(notices.diverged(reader.name, reader.key, found.after, found.present))
        reader.halted = None  # it stands elsewhere from here on
        reader.drop_hints()
        self._emit(
            reader,
            Record(
                key=reader.key,
                job=reader.identity,
                after=found.after,
                steps=(found.present,),
                corrected=True,
                cause=cause,
            ),
        )

    def _emit(self, reader: Reader, record: Record) -> None:
        """Put *record* on its way. A step that the rules rejected stands in quarantine already."""
        if record.corrected or record.steps[0] != reader.halted:
            reader.busy = True
            self.events.append(record)

    def failed(self, read: OrchestratorRead, error: OrchestratorError, now: float) -> Scope:
        """*read* was answered with *error*, or not at all. Gives what that says something of."""
        self.counts.failed += 1
        reader = None if isinstance(read, ReadJobs) else self._readers.get(read.job)
        scope = self._pace.failed(read, error, now, is_again=self._is_again(reader, error))
        self._look_after_return()
        if isinstance(read, ReadJobs):
            is_untouched = error.kind in UNTOUCHED
            self._lists.failed(now, too_large=error.kind == "too-large", is_untouched=is_untouched)
        elif reader is None:
            pass
        elif scope is Scope.READ and not reader.named:
            self._ask_once_more(reader, now)
        else:
            reader.asked_once = True
            self._fail(reader, now, error.kind, scope)
        return scope

    def _is_again(self, reader: Reader | None, error: OrchestratorError) -> bool:
        """Whether the job had such an error before, and others were answered since.

        A list has no job: however well each of them is answered, without lists no new one is found.
        """
        if reader is None or error.kind not in MAYBE_OF_ONE_READ:
            return False
        failed_after, reader.failed_after = reader.failed_after, self._pace.answers
        return reader.failures > 0 or (failed_after is not None and failed_after < self._pace.answers)

    def _fail(self, reader: Reader, now: float, kind: str, scope: Scope) -> None:
        due = reader.failed(now, self._options, scope)
        if scope is Scope.READ:
            reader.tail = None  # its token may be what fails: the next read is of the whole history
            if reader.failures == UNREADABLE_AFTER:
                self.events.append(notices.unreadable(reader.name, reader.key, kind))
        self._schedule.put(reader, due, reader.cause)

    # -- what is planned ----------------------------------------------------------------------------------------------

    def _settle(self, reader: Reader, now: float) -> None:
        reader.settle()
        if not reader.busy:
            self._plan(reader, now)

    def _plan(self, reader: Reader, now: float) -> None:
        due = reader.next_due(now, self._options)
        if due is not None:
            self._schedule.put(reader, due.at, due.cause)
        else:
            self._forget(reader)

    def decided(self, event: Event, decision: Decision) -> None:
        """Learn what an event of ours came to: one that no longer fits is read again, a rejected one stands still."""
        reader = self._readers.get(event.job.id) if isinstance(event, Record) else None
        if reader is None or (isinstance(decision, Accepted) and decision.more):
            return
        assert isinstance(event, Record)
        reader.busy = False
        if isinstance(decision, Rejected):
            step = reader.halted = event.steps[decision.step]
            self.events.append(notices.halted(reader.name, event.key, step, decision.reason))
        elif isinstance(decision, Unchanged) and decision.reason == "unjoined":
            reader.seen, reader.last, reader.tail = 0, None, None
            self._schedule.put(reader, reader.looked_at, Cause.HINT)
            return
        self._plan(reader, reader.looked_at)

    # -- lists: hints, and looks that found nothing -------------------------------------------------------------------

    def _listed(self, page: JobPage, now: float, left_at: float) -> None:
        begun = self._since_ns is not None
        if self._since_ns and page.clock_ns + AHEAD_NS < self._since_ns and agrees_with_clock(page):
            self.events.append(notices.began_ahead(self._since_ns, page.clock_ns))
            self._since_ns = page.clock_ns - AHEAD_NS  # what ended between the setting back and this list is told, too
        if begun:
            for row in page.jobs:
                self._compare(row, now, left_at)
            self._look_at_bad(page.bad, now)
        before = self._lists.high_water
        if self._lists.answered(page, now, begun=begun):
            self.counts.diverged += 1
            self.events.append(notices.record_went_back(self._lists.high_water, before))
            for reader in self._readers.values():
                reader.tail = None  # what was there may be another history now

    def _compare(self, row: Snapshot, now: float, left_at: float) -> None:
        """Lay a row beside the log: one that differs is a hint, one that agrees a look that found nothing."""
        reader = self._readers.get(row.job.id)
        if reader is not None:
            reader.name_by(row.job)
        known = self._known(job_key(row.job.namespace, row.job.id))
        said = lay_row_beside(self._rules, known, row, self._since_ns or 0)
        is_new = self._lists.sweeps or row.modified_ns > self._lists.high_water
        if said == DIFFERS or (said == PERHAPS and is_new):
            self._take_differing(row, known, now, left_at)
            return
        if reader is None and self._rules.is_terminal(row.state):
            return
        reader = reader or self._reader(row.job.id)
        if reader is None:
            return
        reader.name_by(row.job)
        reader.listed_at = LONG_AGO
        if known is not None and not self._rules.is_terminal(row.state):
            self._set_open(reader, is_open=True)
        # One that shows more entries than were seen is no look: whatever they are, the job's turn tells.
        is_look = row.revision <= self._at(reader) and reader.claim.kind is None
        if not reader.waits:
            return
        if is_look and reader.hinted_at < left_at:
            self._schedule.drop(reader)
            reader.looked_at = max(reader.looked_at, left_at)
            reader.agreed_at = now
            self._settle(reader, now)
        elif not reader.queued:
            self._plan(reader, now)

    def _take_differing(self, row: Snapshot, known: Known | None, now: float, left_at: float) -> None:
        reader = self._reader(row.job.id)
        if reader is None:
            return
        reader.name_by(row.job)
        if reader.halted is not None and not self._lists.sweeps:
            return  # it stands still: whatever comes after waits for an operator, not for us
        if known is not None and known.source != REPORTED and (known.version, known.state) != (row.version, row.state):
            reader.listed_at = now
        if not reader.waits:
            # Its answer, or what is being written, may be all that the row says; if not, it is read once more.
            if left_at > reader.looked_at:
                reader.hint(left_at, said=max(row.revision, reader.seen + 1 if reader.busy else 0))
        elif not reader.failures and reader.looked_at <= left_at:
            self._schedule.put(reader, now, Cause.ROW)

    def _look_at_bad(self, bad: Sequence[BadJob], now: float) -> None:
        """What a list cannot tell of a job, a read of its own may; if not, that error is the job's alone."""
        self.counts.bad += len(bad)
        for one in bad:
            if not one.id or not (self._lists.sweeps or one.modified_ns > self._lists.high_water):
                continue
            reader = self._reader(one.id)
            if reader is None:
                continue
            reader.named = True
            if reader.waits and not reader.failures:
                self._schedule.put(reader, now, Cause.ROW)

    # -- readers ------------------------------------------------------------------------------------------------------

    def _reader(self, name: str, key: JobKey | None = None) -> Reader | None:
        """The job's reader, made if there is room. *key*: where a frame says that the log would have the job.

        If the log has it there, the log gives the identity. Otherwise only the record does.
        """
        reader = self._readers.get(name)
        if reader is None:
            if len(self._readers) >= self._options.jobs_max:
                self.counts.dropped += 1  # a list finds it, when there is room
                self._lists.want_room()
                return None
            reader = self._readers[name] = Reader(name)
        if reader.identity is None and key is not None and (known := self._known(key)) is not None:
            namespace = namespace_of(key)
            if known.source != REPORTED and namespace is not None:
                reader.name_by(Identity(id=name, namespace=namespace, name=known.name, type=known.type))
        return reader

    def _set_open(self, reader: Reader, *, is_open: bool) -> None:
        self._open += is_open - reader.open
        reader.open = is_open

    def _forget(self, reader: Reader) -> None:
        """Let go of a job of which nothing is expected: the log has it."""
        if self._is_idle(reader):
            self._readers.pop(reader.name, None)

    @staticmethod
    def _is_idle(reader: Reader) -> bool:
        expected = reader.queued or reader.open or reader.is_asking or reader.claim.kind is not None
        return reader.waits and not expected and reader.halted is None


def namespace_of(key: JobKey) -> str | None:
    """The namespace in *key*; None where it stands there as a digest."""
    return unescape(key.partition(".")[0])
