"""A model of the orchestrator: records that grow, the answers it gives, and the frames that go around changes.

The walk of a job's state is spelled here a second time, in another hand than `config/rules/bacalhau.toml`.
"""

import random
from datetime import UTC, datetime, timedelta
from typing import Final

from consumer.core import Missing, ReadHistory, ReadJob, ReadJobs
from consumer.model import Frame, FrameKind, HistoryEntry, HistoryPage, Identity, JobDocument, JobPage, Snapshot

BASE_NS: Final = 1_795_500_000_000_000_000
_BASE: Final = datetime.fromtimestamp(BASE_NS // 1_000_000_000, tz=UTC)

WALK: Final = {
    "Pending": ("Running", "Running", "Running", "Queued", "Queued", "Failed", "Stopped", "Completed"),
    "Queued": ("Running", "Running", "Running", "Failed", "Stopped", "Completed"),
    "Running": ("Completed", "Completed", "Failed", "Queued", "Queued", "Stopped", "Running"),
}
"""What a job does next, as often as it stands there. `Running Running` is an equal neighbour."""

ENDS: Final = ("Completed", "Failed", "Stopped")


def wall(ns: int) -> datetime:
    """Nanoseconds of the orchestrator's clock as the datetime that a decoder would make of them."""
    return _BASE + timedelta(microseconds=(ns - BASE_NS) // 1000)


class Written:
    """One entry of a job's history, and which change of the orchestrator wrote it."""

    __slots__ = ("entry", "revision", "time_ns", "version_at")

    def __init__(self, entry: HistoryEntry, revision: int, time_ns: int, version_at: int) -> None:
        self.entry = entry
        self.revision = revision
        self.time_ns = time_ns
        self.version_at = version_at


class JobRecord:
    """A job as the orchestrator has it."""

    def __init__(self, name: str, namespace: str, job_type: str, version: int) -> None:
        self.identity: Final = Identity(id=name, namespace=namespace, name=f"the {name}", type=job_type)
        self.written: list[Written] = []
        self.version = version
        self.first_version: Final = version
        self.planned: tuple[str, ...] = ()
        self.execution = ""
        self.executions = 0
        self.forbidden: int | None = None

    @property
    def state(self) -> str:
        """The present state."""
        return self.written[-1].entry.state

    @property
    def modified_ns(self) -> int:
        """When it was last written."""
        return self.written[-1].time_ns

    @property
    def ended(self) -> bool:
        """Whether the present version is over."""
        return self.state in ENDS


class Orchestrator:
    """All records. `version` counts the changes, so that an answer can be as old as one likes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.version = 0
        self.jobs: dict[str, JobRecord] = {}
        self._time_ns = BASE_NS

    # -- changes ------------------------------------------------------------------------------------------------------

    def submit(self, job: JobRecord, now_ns: int) -> None:
        """A new job: Pending."""
        self.jobs[job.identity.id] = job
        self.write(job, "Pending", now_ns, message="Job submitted")

    def write(self, job: JobRecord, state: str, now_ns: int, *, message: str = "", twice: bool = False) -> None:
        """The job's record says *state* from now on. *twice*: two entries for the one revision (TotalTimeout)."""
        self.version += 1
        self._time_ns = max(self._time_ns + 1_000, now_ns // 1_000 * 1_000)
        revision = job.written[-1].revision + 1 if job.written else 1
        for text in (message, "again")[: 1 + twice]:
            entry = HistoryEntry(
                number=2 * len(job.written) + 1,
                version=job.version,
                state=state,
                message=text if state in ("Queued", "Failed") else "",
                time=wall(self._time_ns),
            )
            job.written.append(Written(entry, revision, self._time_ns, self.version))

    def again(self, job: JobRecord, now_ns: int) -> None:
        """A rerun or an update: the next version, Pending."""
        job.version += 1
        self.write(job, "Pending", now_ns)

    def next_of(self, job: JobRecord) -> str:
        """What the job does next."""
        while True:
            state = self._rng.choice(WALK[job.state])
            if state != "Completed" or job.identity.type == "batch":
                return state

    # -- answers ------------------------------------------------------------------------------------------------------

    def snapshot(self, job: JobRecord, at: int | None = None) -> Snapshot | None:
        """The job as it was at change *at*."""
        written = job.written[-1]
        if at is not None and written.version_at > at:
            before = [one for one in job.written if one.version_at <= at]
            if not before:
                return None
            written = before[-1]
        return Snapshot(
            job=job.identity,
            count=1,
            version=written.entry.version,
            revision=written.revision,
            state=written.entry.state,
            message=written.entry.message,
            created=job.written[0].entry.time,
            modified=written.entry.time,
            modified_ns=written.time_ns,
        )

    def history(self, read: ReadHistory, limit: int, at: int | None) -> HistoryPage | Missing:
        """One page of the history as it was at change *at*. A full page has a token, also if nothing follows."""
        job = self.jobs.get(read.job)
        if job is None:
            return Missing()
        # No page is older than the one before it.
        offset, _, version = read.next_token.partition(":")
        now = max(self.version if at is None else at, int(version or "0"))
        entries = [one.entry for one in job.written if one.version_at <= now]
        if not entries:
            return Missing()
        first = int(offset or "0")
        page = tuple(entries[first : first + limit])
        token = f"{first + len(page)}:{now}" if len(page) == limit else ""
        return HistoryPage(entries=page, items=len(page), next_token=token)

    def job(self, read: ReadJob, limit: int, at: int | None) -> JobDocument | Missing:
        """The job itself, with at most *limit* entries of its latest version's history."""
        job = self.jobs.get(read.job)
        snapshot = self.snapshot(job, at) if job is not None else None
        if job is None or snapshot is None:
            return Missing()
        now = self.version if at is None else at
        latest = [one.entry for one in job.written if one.version_at <= now and one.entry.version == snapshot.version][
            :limit
        ]
        history = HistoryPage(entries=tuple(latest), items=len(latest), next_token="")
        return JobDocument(job=snapshot, history=history)

    def listed(self, read: ReadJobs, at: int | None) -> JobPage:
        """One page of the list, by offset as the real one: it shifts while jobs change."""
        found = [one for job in self.jobs.values() if (one := self.snapshot(job, at)) is not None]
        found.sort(key=lambda one: one.modified_ns, reverse=True)
        first = int(read.next_token or "0")
        page = tuple(found[first : first + read.limit])
        more = first + read.limit < len(found)
        return JobPage(jobs=page, next_token=str(first + read.limit) if more else "")

    # -- frames -------------------------------------------------------------------------------------------------------

    def ask_for_bid(self, job: JobRecord, *, direct: bool = False) -> Frame:
        """A new execution is offered to a node; the job in it is the job before the write that made it."""
        job.executions += 1
        job.execution = f"e-{job.identity.id}-{job.executions}"
        return self._frame(FrameKind.ASK_FOR_BID, job, snapshot=self.snapshot(job), direct=direct)

    def before(self, job: JobRecord, state: str) -> list[Frame]:
        """What goes over the wire before the record says *state*."""
        if state == "Running" and job.state != "Running":
            frames = [self.ask_for_bid(job)]
            if self._rng.random() < 0.5:
                frames.append(self._frame(FrameKind.BID_RESULT, job, accepted=True, named=True))
            return frames
        if state == "Running":
            return [self._frame(FrameKind.COMPUTE_ERROR, job, named=True), self.ask_for_bid(job)]
        if state == "Completed":
            return [self._frame(FrameKind.RUN_RESULT, job, named=True)]
        if state == "Failed":
            return [self._frame(FrameKind.COMPUTE_ERROR, job, named=True)]
        return []

    def after(self, job: JobRecord, state: str) -> list[Frame]:
        """What goes over the wire once the record says *state*."""
        if state == "Running":
            return [self._frame(FrameKind.BID_ACCEPTED, job)]
        if state in ("Completed", "Failed"):
            return [self._frame(FrameKind.CANCEL_EXECUTION, job, echo=True)] if self._rng.random() < 0.5 else []
        if state == "Stopped":
            stop = self._frame(FrameKind.CANCEL_EXECUTION, job)
            return [stop, self._frame(FrameKind.CANCEL_RESULT, job, named=True)]
        if state == "Pending":
            return [self.ask_for_bid(job)] if self._rng.random() < 0.5 else []
        return [self._frame(FrameKind.BID_REJECTED, job)] if self._rng.random() < 0.2 else []

    def direct(self, job: JobRecord) -> Frame:
        """An AskForBid that runs at once, as ops and daemon jobs have it: the record is Running already."""
        before = job.written[-2].version_at
        job.executions += 1
        job.execution = f"e-{job.identity.id}-{job.executions}"
        return self._frame(FrameKind.ASK_FOR_BID, job, snapshot=self.snapshot(job, before), direct=True)

    def _frame(
        self,
        kind: FrameKind,
        job: JobRecord,
        *,
        snapshot: Snapshot | None = None,
        direct: bool = False,
        accepted: bool = False,
        echo: bool = False,
        named: bool = False,
    ) -> Frame:
        return Frame(
            kind=kind,
            execution=job.execution,
            node="n-1",
            profile="1.8+",
            job=job.identity.id if named or snapshot is not None else "",
            snapshot=snapshot,
            direct=direct,
            accepted=accepted,
            echo=echo,
        )
