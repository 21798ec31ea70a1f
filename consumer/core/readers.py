"""The readers of all jobs: frames and rows of lists say which job to look at, its history says what it came to.

Pure: frames, answers and the time go in; reads and events come out (design/design.md 6). Every step of an event comes
from a history, never from a frame or a row, so whoever forges these can only make us look.

Here are the ways in and out. `registry` has the jobs, `frames` what a message says, `requests` what leaves next,
`answers` and `listing` what comes of it; `reader` says when one job is read, `schedule` which of many, `lists` when all
are listed, `pace` how much the orchestrator is to feel.
"""

from collections.abc import Callable
from typing import Final

from consumer.core import notices
from consumer.core.answers import Answers
from consumer.core.frames import FrameHints
from consumer.core.listing import Listing
from consumer.core.lists import Lists
from consumer.core.options import ReadingOptions
from consumer.core.reader import LONG_AGO, Cause, Reader
from consumer.core.reads import Missing, OrchestratorRead, ReadJobs
from consumer.core.registry import Counts, Registry
from consumer.core.requests import Requests
from consumer.errors import OrchestratorError
from consumer.faults import OrchestratorFault, Scope
from consumer.model import (
    REPORTED,
    Accepted,
    Decision,
    Event,
    Frame,
    HistoryPage,
    Identity,
    JobDocument,
    JobKey,
    JobPage,
    LastUpdate,
    Record,
    Rejected,
    Unchanged,
    Work,
)
from consumer.rules import Rules
from consumer.wire.subjects import job_key

UNTOUCHED: Final = frozenset({"unreachable", "unresolved"})
"""Kinds of errors that took none of the orchestrator's time."""


class Readers:
    """One cluster's readers. *known* gives the log's last update of a job.

    Published is what is open, and what ended after *since_ns* (the orchestrator's clock; 0: everything).

    After each call drain `events`, and carry out `due_reads`; `wake_at` says when the time alone brings more.
    """

    def __init__(
        self,
        rules: Rules,
        known: Callable[[JobKey], LastUpdate | None],
        options: ReadingOptions | None = None,
        *,
        since_ns: int,
        dice: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """*dice* gives numbers in [0, 1), for pauses that do not end at one instant everywhere."""
        self._options: Final = options or ReadingOptions()
        self._lists: Final = Lists(self._options)
        self._jobs: Final = Registry(rules, known, self._options, self._lists.want_room, since_ns)
        self._lists.high_water = since_ns
        self._frames: Final = FrameHints(self._jobs)
        self._requests: Final = Requests(self._jobs, self._lists, dice)
        self._answers: Final = Answers(self._jobs, self._requests)
        self._listing: Final = Listing(self._jobs, self._lists)
        self._pace: Final = self._requests.pace
        self._returns = 0

    @property
    def events(self) -> list[Work]:
        """What there is to decide and to announce."""
        return self._jobs.events

    @events.setter
    def events(self, events: list[Work]) -> None:
        self._jobs.events = events

    @property
    def counts(self) -> Counts:
        """What was done, since the start."""
        return self._jobs.counts

    # -- what begins, and what was missed -----------------------------------------------------------------------------

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
        known = self._jobs.known(job_key(job.namespace, job.id))
        if known is None or known.source == REPORTED:
            return
        reader = self._jobs.reader(job.id)
        if reader is not None:
            reader.name_by(job)
            self._jobs.set_open(reader, is_open=True)
            self._jobs.plan(reader, LONG_AGO)

    # -- what comes in, and what goes out -----------------------------------------------------------------------------

    def frame(self, frame: Frame, now: float) -> None:
        """Take a frame as the hint that it is."""
        if not self._frames.take_frame(frame, now):
            self._lists.list_soon(now)

    def due_reads(self, now: float) -> list[OrchestratorRead]:
        """Give the reads that leave now, the most urgent first. Each comes back through `answered` or `failed`."""
        return self._requests.due_reads(now)

    def wake_at(self) -> float | None:
        """When `due_reads` will have more if nothing comes before, in seconds; None: never."""
        return self._requests.wake_at()

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
            self._listing.take_page(answer, now)
        elif (reader := self._jobs.get(read.job)) is not None:
            assert not isinstance(answer, JobPage)
            self._answers.take_answer(reader, read, answer, now)

    def failed(self, read: OrchestratorRead, error: OrchestratorError, now: float) -> Scope:
        """*read* was answered with *error*, or not at all. Gives what that says something of."""
        reader = None if isinstance(read, ReadJobs) else self._jobs.get(read.job)
        scope = self._pace.failed(read, error, now, is_again=self._is_again(reader, error))
        self._look_after_return()
        if isinstance(read, ReadJobs):
            is_untouched = error.kind in UNTOUCHED
            self._lists.failed(now, too_large=error.kind == "too-large", is_untouched=is_untouched)
        elif reader is not None:
            self._answers.fail(reader, error.kind, now, scope)
        return scope

    def _look_after_return(self) -> None:
        """The orchestrator is back: what it wrote meanwhile, nobody may have heard of."""
        if self._pace.returns != self._returns:
            self._returns = self._pace.returns
            self.look_everywhere()

    def _is_again(self, reader: Reader | None, error: OrchestratorError) -> bool:
        """Whether the job had such an error before, and others were answered since.

        A list has no job: however well each of them is answered, without lists no new one is found.
        """
        if reader is None or error.fault.scope is not Scope.UNSURE:
            return False
        failed_after, reader.failed_after = reader.failed_after, self._pace.answers
        return reader.failures > 0 or (failed_after is not None and failed_after < self._pace.answers)

    def decided(self, event: Event, decision: Decision) -> None:
        """Learn what an event of ours came to: one that no longer fits is read again, a rejected one stands still."""
        reader = self._jobs.get(event.job.id) if isinstance(event, Record) else None
        if reader is None or (isinstance(decision, Accepted) and decision.more):
            return
        assert isinstance(event, Record)
        reader.busy = False
        if isinstance(decision, Rejected):
            step = reader.halted = event.steps[decision.step]
            self._jobs.events.append(notices.halted(reader.name, event.key, step, decision.reason))
        elif isinstance(decision, Unchanged) and decision.reason == "unjoined":
            reader.seen, reader.last, reader.tail = 0, None, None
            self._jobs.schedule.put(reader, reader.looked_at, Cause.HINT)
            return
        self._jobs.plan(reader, reader.looked_at)

    def probe_now(self) -> None:
        """Something says that an orchestrator that is away may be back: ask it at once, not after the pause."""
        self._pace.probe_now()

    def turn_s(self, now: float) -> float | None:
        """Seconds until a request may leave that is no read of ours: it takes a place of the rate. None: it is away."""
        return None if self._pace.away else self._pace.turn(now) - now

    # -- how it stands ------------------------------------------------------------------------------------------------

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
        return self._jobs.open_jobs

    def agreed_at(self, name: str) -> float | None:
        """When the record of the job *name* was last seen to have nothing newer than the log; None: never yet."""
        reader = self._jobs.get(name)
        return reader.agreed_at if reader is not None else None

    @property
    def executions_known(self) -> int:
        """Executions whose job is remembered."""
        return self._frames.executions_known

    @property
    def leftovers(self) -> list[str]:
        """Jobs that are remembered though nothing will have them read: none, ever, but those that stand still."""
        return self._jobs.leftovers

    @property
    def hints_open(self) -> int:
        """Jobs that are due because of a hint, or will be."""
        return self._jobs.schedule.hinted

    @property
    def in_flight(self) -> int:
        """Requests that are under way."""
        return self._pace.in_flight

    def waiting(self, now: float) -> int:
        """Reads that are due and have not left."""
        return self._requests.waiting(now)

    def waited_s(self, now: float) -> float:
        """How long the oldest of these has waited: above some seconds, rate or orchestrator cannot keep up."""
        return self._requests.waited_s(now)

    @property
    def away(self) -> OrchestratorFault | None:
        """Kind of the error that keeps the orchestrator away."""
        return self._pace.away

    @property
    def away_since(self) -> float | None:
        """Since when it is away."""
        return self._pace.away_since

    @property
    def returns(self) -> int:
        """How often it came back so far."""
        return self._pace.returns
