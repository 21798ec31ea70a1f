"""One daemon's readers with what the log has, for tests: frames, answers and the time in; reads and events out.

Not a test itself. Time is a number; nobody waits.
"""

from datetime import UTC, datetime

from consumer.core import (
    Missing,
    OrchestratorRead,
    Readers,
    ReadHistory,
    ReadingOptions,
    ReadJob,
    ReadJobs,
    Scope,
    decide,
    follow,
)
from consumer.errors import OrchestratorError
from consumer.faults import OrchestratorFault
from consumer.model import (
    OBSERVED,
    Accepted,
    BadJob,
    Frame,
    FrameKind,
    HistoryEntry,
    HistoryPage,
    Identity,
    JobDocument,
    JobKey,
    JobPage,
    LastUpdate,
    Notice,
    Record,
    Snapshot,
    Source,
)
from consumer.rules import load

RULES = load(None)
HINTS_ONLY = ReadingOptions(lists=False, turn_rate=0)
TURNS_ONLY = ReadingOptions(lists=False)
KEY = JobKey("default.j-1")


def identity(job: str = "j-1") -> Identity:
    """Whose job it is."""
    return Identity(id=job, namespace="default", name="one", type="batch")


def logged(
    state: str, revision: int | None, *, version: int = 0, source: Source = OBSERVED, time_ns: int = 0
) -> LastUpdate:
    """The log's last update of a job, where it has one for each entry of the record."""
    return LastUpdate(
        number=100,
        sequence=revision or 1,
        state=state,
        version=version,
        revision=revision,
        source=source,
        name="one",
        type="batch",
        time_ns=time_ns,
    )


def snapshot(state: str, revision: int, *, version: int = 0, job: str = "j-1", modified_ns: int = 1) -> Snapshot:
    """The job as an `AskForBid` or a list shows it."""
    return Snapshot(
        job=identity(job), count=1, version=version, revision=revision, state=state, modified_ns=modified_ns
    )


def ask_for_bid(shown: Snapshot, execution: str = "e-1", *, direct: bool = False) -> Frame:
    """The frame that shows the job."""
    return Frame(
        kind=FrameKind.ASK_FOR_BID,
        execution=execution,
        node="n-1",
        profile="1.8+",
        job=shown.job.id,
        snapshot=shown,
        direct=direct,
    )


def message(
    kind: FrameKind, execution: str = "e-1", *, job: str = "", accepted: bool = False, echo: bool = False
) -> Frame:
    """A frame about an execution."""
    return Frame(kind=kind, execution=execution, node="n-1", profile="1.8+", job=job, accepted=accepted, echo=echo)


def history(
    *states: str, more: str = "", rows: int | None = None, at_s: int | None = None, first: int = 1, version: int = 0
) -> HistoryPage:
    """A page of history with these states in one version from entry *first* on, all written at *at_s*."""
    time = None if at_s is None else datetime.fromtimestamp(at_s, UTC)
    entries = tuple(
        HistoryEntry(number=number, version=version, state=state, message="", time=time)
        for number, state in enumerate(states, first)
    )
    return HistoryPage(entries=entries, items=len(entries) if rows is None else rows, next_token=more)


def document(shown: Snapshot, *states: str, rows: int | None = None) -> JobDocument:
    """The job itself, with the beginning of its history."""
    return JobDocument(job=shown, history=history(*states, rows=rows, version=shown.version))


def page(*jobs: Snapshot, more: str = "", bad: tuple[BadJob, ...] = (), clock_ns: int = 0) -> JobPage:
    """One page of a list."""
    return JobPage(jobs=jobs, next_token=more, bad=bad, clock_ns=clock_ns)


class Scene:
    """The readers, what the log has, and what the readers came to."""

    def __init__(self, options: ReadingOptions = HINTS_ONLY, *, since_ns: int = 0) -> None:
        self.log: dict[JobKey, LastUpdate] = {}
        self.readers = Readers(RULES, self.log.get, options, since_ns=since_ns)
        if not options.lists:
            self.readers.look_nowhere()

    def has(
        self, state: str, revision: int | None, *, version: int = 0, job: str = "j-1", source: Source = OBSERVED
    ) -> None:
        """The log stands there, an update for each entry."""
        self.log[JobKey(f"default.{job}")] = logged(state, revision, version=version, source=source)

    def follows(self, job: str = "j-1") -> None:
        """The readers look at a job that the log has open."""
        self.readers.resume(identity(job))

    def published(self) -> list[tuple[int | None, str]]:
        """Let the fold decide what the readers brought; revision and state of each update since the last look."""
        updates: list[tuple[int | None, str]] = []
        events, self.readers.events = self.readers.events, []
        for event in events:
            assert isinstance(event, Record), event
            decision = decide(RULES, self.log.get(event.key), event)
            while isinstance(decision, Accepted):
                update = decision.update
                self.log[event.key] = follow(self.log.get(event.key), update, 200 + len(updates))
                updates.append((update.Job.Revision, update.StateType))
                if not decision.more:
                    break
                decision = decide(RULES, self.log.get(event.key), event)
            self.readers.decided(event, decision)
        return updates

    def announced(self) -> list[Notice]:
        """What the readers had to say since the last look, and nothing else."""
        events, self.readers.events = self.readers.events, []
        assert all(isinstance(event, Notice) for event in events), events
        return [event for event in events if isinstance(event, Notice)]

    def reads(self, now: float) -> list[OrchestratorRead]:
        """What is to be read now."""
        return self.readers.due_reads(now)

    def read(self, now: float) -> ReadHistory | ReadJob:
        """The one read of a job that is to be made now."""
        (read,) = self.readers.due_reads(now)
        assert not isinstance(read, ReadJobs)
        return read

    def wait(self, now: float) -> tuple[float, ReadHistory | ReadJob]:
        """The next read that the time alone brings, and when."""
        reads: list[OrchestratorRead] = []
        while not reads:
            due = self.readers.wake_at()
            assert due is not None
            now = max(now, due)
            reads = self.readers.due_reads(now)
        (read,) = reads
        assert not isinstance(read, ReadJobs)
        return now, read

    def read_list(self, now: float) -> ReadJobs:
        """The one list among the reads that are to be made now."""
        (read,) = (read for read in self.readers.due_reads(now) if isinstance(read, ReadJobs))
        return read

    def answer(self, read: OrchestratorRead, answer: HistoryPage | JobDocument | JobPage | Missing, now: float) -> None:
        """The orchestrator answers."""
        self.readers.answered(read, answer, now)

    def fail(self, read: OrchestratorRead, kind: OrchestratorFault, now: float) -> Scope:
        """The orchestrator answers with an error; gives what it says something of."""
        return self.readers.failed(read, OrchestratorError(kind), now)
