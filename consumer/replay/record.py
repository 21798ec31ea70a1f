"""The oracle: a job's record at any time of a recording, and so the updates that the log must have.

Read from the recording's final documents, in other hands than the daemon's: nothing here comes from `consumer.wire`, so
that what is misread there cannot be misread here in the same way. No log, no verdict, no HTTP.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

Document = dict[str, Any]
"""A JSON object of the orchestrator, as it was recorded."""

TERMINAL: Final = frozenset({"Completed", "Failed", "Stopped"})
"""States after which a version of a job changes no more (design/bacalhau.md 4.2)."""

UPDATED: Final = "Job update requested by user"
"""The `State.Message` of an update; its history entry does not say it (recording `update`, 1.9.3)."""

_JOB_PATH: Final = re.compile(r"/api/v1/orchestrator/jobs/([^/]+)(/history)?")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One job-level entry of a job's history, read as the state that it brought.

    `number` counts these entries from 1: an update's `Revision` says this. `revision` is Bacalhau's own count, which is
    the same save where two entries were written as one revision (recording `total_timeout`).
    """

    number: int
    revision: int
    version: int
    state: str
    message: str
    time_ns: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its document shows it at a time. `revision` is Bacalhau's own."""

    version: int
    revision: int
    state: str
    message: str
    modified_ns: int


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The whole record of one job.

    `document` is the job's last word, `rows` the history of all versions and both levels by `SeqNum`, kept as they are;
    `row_ns` and `change_ns` say since when each row and each change was there (ns, never falling).
    """

    id: str
    namespace: str
    name: str
    type: str
    count: int
    document: Document
    rows: tuple[Document, ...]
    row_ns: tuple[int, ...]
    changes: tuple[Change, ...]
    change_ns: tuple[int, ...]
    last: Standing

    @property
    def created_ns(self) -> int:
        """`CreateTime` of the job."""
        return int(self.document["CreateTime"])

    @property
    def versioned(self) -> bool:
        """Whether this is of Bacalhau 1.8 or later: versions count from 1 there, and are all 0 before."""
        return self.last.version > 0

    @property
    def expected(self) -> tuple[Change, ...]:
        """The updates that the log must hold: the changes, with equal neighbours (version and state) merged."""
        steps: list[Change] = []
        for change in self.changes:
            if not steps or (steps[-1].version, steps[-1].state) != (change.version, change.state):
                steps.append(change)
        return tuple(steps)

    def at(self, t_ns: int) -> Standing | None:
        """The job as it stood at *t_ns*; None if it was not submitted yet."""
        number = bisect_right(self.change_ns, t_ns)
        if number == 0:
            return None
        change = self.changes[number - 1]
        # Only the job's last document tells the very ModifyTime (it is some 10 us before the entry's time).
        if number == len(self.changes) and (change.version, change.state) == (self.last.version, self.last.state):
            return self.last
        return Standing(
            version=change.version,
            revision=change.revision,
            state=change.state,
            message=change.message,
            modified_ns=change.time_ns,
        )

    def history_at(self, t_ns: int) -> Sequence[Document]:
        """The history's rows that were written by *t_ns*."""
        return self.rows[: bisect_right(self.row_ns, t_ns)]

    def document_at(self, t_ns: int) -> Document | None:
        """The job's document as it was at *t_ns*, or None before.

        Only its state and what counts it is of that time: what an update changed in the job is as it was in the end.
        """
        standing = self.at(t_ns)
        if standing is None:
            return None
        if standing is self.last:
            return self.document
        state = {"StateType": standing.state}
        if standing.message:
            state["Message"] = standing.message
        return {
            **self.document,
            "State": state,
            "Version": standing.version,
            "Revision": standing.revision,
            "ModifyTime": standing.modified_ns,
        }


class _Event(msgspec.Struct, frozen=True):
    Topic: str
    Message: str = ""
    Details: dict[str, str] | None = None


class _Row(msgspec.Struct, frozen=True):
    SeqNum: int
    Type: str
    Time: str
    JobVersion: int = 0
    Event: _Event | None = None


class _State(msgspec.Struct, frozen=True):
    StateType: str
    Message: str = ""


class _Job(msgspec.Struct, frozen=True):
    ID: str
    Namespace: str
    Type: str
    State: _State
    Revision: int
    CreateTime: int
    ModifyTime: int
    Name: str = ""
    Count: int = 0
    Version: int = 0


class _JobAnswer(msgspec.Struct, frozen=True):
    Job: Document


class _Rows(msgspec.Struct, frozen=True):
    Items: list[Document] | None


def read_records(documents: Mapping[str, Document]) -> tuple[JobRecord, ...]:
    """The record of every job in a recording's final *documents* (by request path), oldest job first.

    Pages of one history are joined, whatever else their paths ask. Raises ValueError with the reason (msgspec's
    a ValidationError for a document of the wrong shape is not: the caller catches both).
    """
    jobs: dict[str, Document] = {}
    histories: dict[str, dict[int, tuple[_Row, Document]]] = {}
    for path, document in documents.items():
        found = _JOB_PATH.fullmatch(urlsplit(path).path)
        if found is None:
            continue
        job = unquote(found[1])
        if found[2]:
            rows = histories.setdefault(job, {})
            for item in msgspec.convert(document, _Rows).Items or ():
                row = msgspec.convert(item, _Row)
                rows[row.SeqNum] = (row, item)
        else:
            jobs[job] = msgspec.convert(document, _JobAnswer).Job
    records = [_read_record(document, histories.get(job, {})) for job, document in jobs.items()]
    return tuple(sorted(records, key=lambda record: record.created_ns))


def read_ns(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time with any offset. Raises ValueError."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("a time is not RFC 3339")
    moment = datetime.fromisoformat(f"{found[1]}{'+00:00' if found[3] in 'Zz' else found[3]}")
    return (moment - _EPOCH) // timedelta(seconds=1) * 10**9 + int((found[2] or "").ljust(9, "0"))


def _read_record(document: Document, history: Mapping[int, tuple[_Row, Document]]) -> JobRecord:
    job = msgspec.convert(document, _Job)
    rows = [history[number] for number in sorted(history)]
    times = [read_ns(row.Time) for row, _ in rows]
    changes = tuple(_read_changes(job, [row for row, _ in rows], times))
    if not changes:
        raise ValueError(f"job {job.ID} has no job-level history")
    return JobRecord(
        id=job.ID,
        namespace=job.Namespace,
        name=job.Name,
        type=job.Type,
        count=job.Count,
        document=document,
        rows=tuple(item for _, item in rows),
        # A later row is never there before an earlier one, even if the orchestrator's clock went back.
        row_ns=tuple(accumulate(times, max)),
        changes=changes,
        change_ns=tuple(accumulate((change.time_ns for change in changes), max)),
        last=Standing(
            version=job.Version,
            revision=job.Revision,
            state=job.State.StateType,
            message=job.State.Message,
            modified_ns=job.ModifyTime,
        ),
    )


def _read_changes(job: _Job, rows: Sequence[_Row], times: Sequence[int]) -> Iterator[Change]:
    entries = [(row, time) for row, time in zip(rows, times, strict=True) if row.Type == "JobLevel"]
    # More entries than revisions: the surplus ones share the revision of the equal one before them.
    shared = len(entries) - job.Revision
    revision = 0
    before: tuple[int, str] | None = None
    for number, (row, time) in enumerate(entries, 1):
        state, message = _read_state(job.ID, row)
        here = (row.JobVersion, state)
        if shared > 0 and here == before:
            shared -= 1
        else:
            revision += 1
        before = here
        yield Change(
            number=number, revision=revision, version=row.JobVersion, state=state, message=message, time_ns=time
        )


def _read_state(job: str, row: _Row) -> tuple[str, str]:
    """The state that a job-level entry brought, and the job's message after it (design/bacalhau.md 4.3, 4.7)."""
    event = row.Event
    if event is None:
        raise ValueError(f"job {job}: history entry {row.SeqNum} has no event")
    details = event.Details or {}
    match event.Topic:
        case "State Update" if "NewState" in details:
            return details["NewState"], ""
        case "Submission":
            return "Pending", details.get("Reason") or (UPDATED if event.Message == "Job updated" else "")
        case "Queueing":
            return "Queued", event.Message
        case "Scheduling" if event.Message.startswith("Job requested to stop"):
            return "Stopped", ""
        case "Scheduling" | "Job Timeout":
            return "Failed", event.Message
    raise ValueError(f"job {job}: history entry {row.SeqNum} of topic {event.Topic!r} tells no known state")
