"""Bodies of the orchestrator's REST API, 1.5 to 1.9 (design/bacalhau.md 4.7, 6.3); `consumer.bacalhau` asks."""

from operator import attrgetter
from typing import Final

import msgspec

from consumer.errors import DecodeError, OrchestratorError
from consumer.model import (
    BadJob,
    HistoryEntry,
    HistoryPage,
    JobDocument,
    JobPage,
    JobStateType,
    Snapshot,
    UndecodableReason,
)
from consumer.wire.decoding import (
    NO_TIME,
    TEXT_MAX,
    Id,
    Unsigned,
    check_counts,
    check_place,
    decode,
    name_clean,
    read_nanoseconds,
    read_time,
)
from consumer.wire.document import JobDocument as JobBody
from consumer.wire.document import snapshot_of
from consumer.wire.states import read_state

KNOWN_VERSIONS: Final = ((1, 5), (1, 9))
"""The first and the last release whose bodies are known."""

UPDATE_MESSAGE: Final = "Job update requested by user"
"""The job's own `State.Message` after an update; the entry has no reason (recording 1.9.3 `update`)."""

_PENDING: Final = JobStateType.PENDING.value
_QUEUED: Final = JobStateType.QUEUED.value
_FAILED: Final = JobStateType.FAILED.value
_STOPPED: Final = JobStateType.STOPPED.value

_BY_MESSAGE: Final = (
    # topic, how the message begins, state: entries without `Details.NewState`
    ("Submission", "Job submitted", _PENDING),
    ("Submission", "Job tasks translated", _PENDING),  # beside the submission; the state stays what it is
    ("Submission", "Job updated", _PENDING),
    ("Submission", "Job rerun requested", _PENDING),
    ("Queueing", "Job queued", _QUEUED),
    ("Scheduling", "Job requested to stop", _STOPPED),
    ("Scheduling", "not enough nodes to run job", _FAILED),
    ("Scheduling", "not matching nodes to run job", _FAILED),
    ("Scheduling", "Job failed because", _FAILED),
    ("Job Timeout", "Job timed out", _FAILED),
)


_BEGINNINGS: Final = ("Job updated", "Job rerun requested")


class _JobList(msgspec.Struct, frozen=True):
    Items: list[msgspec.Raw] | None  # null is an empty page; without it this is no page at all
    NextToken: str = ""


class _AnyJob(msgspec.Struct, frozen=True):
    """The readable part of a job that could not be read."""

    ID: str
    ModifyTime: msgspec.Raw = NO_TIME


class _Details(msgspec.Struct, frozen=True):
    NewState: str = ""
    Reason: str = ""


class _Event(msgspec.Struct, frozen=True):
    Message: str = ""
    Topic: str = ""
    Details: _Details | None = None


class _Row(msgspec.Struct, frozen=True):
    Type: str
    SeqNum: Unsigned
    JobID: Id = ""
    JobVersion: Unsigned = 0
    Event: _Event | None = None
    Time: msgspec.Raw = NO_TIME

    def __post_init__(self) -> None:
        check_counts(self.SeqNum, self.JobVersion)


class _History(msgspec.Struct, frozen=True):
    Items: list[_Row] | None
    NextToken: str = ""


class _JobAnswer(msgspec.Struct, frozen=True):
    Job: JobBody
    History: _History | None = None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers.

    `type`: `Compute` of a node that computes, whether it is an orchestrator besides or not; else `Requester`.
    """

    id: str
    type: str = ""


class _NodeInfo(msgspec.Struct, frozen=True):
    NodeID: Id = ""
    NodeType: str = ""


class _NodeAnswer(_NodeInfo, frozen=True):
    Info: _NodeInfo | None = None  # 1.5 has the same within it


_job: Final = msgspec.json.Decoder(_JobAnswer)
_jobs: Final = msgspec.json.Decoder(_JobList)
_listed: Final = msgspec.json.Decoder(JobBody)
_any_job: Final = msgspec.json.Decoder(_AnyJob)
_history: Final = msgspec.json.Decoder(_History)
_node: Final = msgspec.json.Decoder(_NodeAnswer)


def decode_job(data: bytes) -> JobDocument:
    """`GET …/jobs/<id>?include=history`. Raises `DecodeError`, as `decode_history` does for its history."""
    answer = decode(_job, data)
    job = snapshot_of(answer.Job)
    return JobDocument(job=job, history=_read_page(answer.History or _History(Items=None), job.job.id))


def decode_jobs(data: bytes) -> JobPage:
    """`GET …/jobs`: one page of the list. A job that cannot be read hides no other: it is among the page's `bad`.

    Raises `DecodeError`, also for a page none of whose items is a job at all.
    """
    page = decode(_jobs, data)
    jobs: list[Snapshot] = []
    bad: list[BadJob] = []
    first: DecodeError | None = None
    for item in page.Items or ():
        try:
            jobs.append(snapshot_of(decode(_listed, item)))
        except DecodeError as error:
            first = first or error
            bad.append(_bad_job(item, error.reason))
    if first is not None and not jobs and not any(job.id for job in bad):
        raise first
    return JobPage(jobs=tuple(jobs), next_token=page.NextToken, bad=tuple(bad))


def decode_history(data: bytes, job: str = "") -> HistoryPage:
    """`GET …/jobs/<id>/history`: the job-level entries of one page in the order of their `SeqNum`.

    Raises `DecodeError`; a job-level entry that tells no state is `unknown-history-entry`, never skipped: the number of
    an entry is its revision. Raises `OrchestratorError` (other-job) for a row that is of another job than *job*.
    """
    return _read_page(decode(_history, data), job)


def _read_page(page: _History, job: str) -> HistoryPage:
    rows = page.Items or []
    if job and any(row.JobID not in ("", job) for row in rows):
        raise OrchestratorError("other-job", "a row is of another job than the one that was asked for")
    entries = [_read_row(row) for row in rows if row.Type == "JobLevel"]
    entries.sort(key=attrgetter("number"))
    return HistoryPage(entries=tuple(entries), items=len(rows), next_token=page.NextToken)


def decode_node(data: bytes) -> Node:
    """`GET /agent/node`. Raises `DecodeError`, also for what names no node."""
    answer = decode(_node, data)
    told = answer.Info or answer
    if not told.NodeID:
        raise DecodeError("wrong-shape", "it names no node")
    return Node(id=told.NodeID, type=told.NodeType)


def _bad_job(item: msgspec.Raw, reason: UndecodableReason) -> BadJob:
    try:
        told = decode(_any_job, item)
    except DecodeError:
        return BadJob(id="", reason=reason)
    return BadJob(id=told.ID, reason=reason, modified_ns=read_nanoseconds(told.ModifyTime))


def _read_row(row: _Row) -> HistoryEntry:
    check_place(row.JobVersion, row.SeqNum)
    event = row.Event
    if event is None:
        raise DecodeError("unknown-history-entry", f"entry {row.SeqNum} has no event")
    details = event.Details or _Details()
    state = read_state(details.NewState) if details.NewState else _state_by_message(row.SeqNum, event)
    return HistoryEntry(
        number=row.SeqNum,
        version=row.JobVersion,
        state=state,
        message=_message(state, event, details)[:TEXT_MAX],
        time=read_time(row.Time),
        begins=event.Topic == "Submission" and event.Message.startswith(_BEGINNINGS),
    )


def _state_by_message(number: int, event: _Event) -> str:
    for topic, beginning, state in _BY_MESSAGE:
        if event.Topic == topic and event.Message.startswith(beginning):
            return state
    raise DecodeError("unknown-history-entry", f"entry {number}, topic {name_clean(event.Topic)}, tells no known state")


def _message(state: str, event: _Event, details: _Details) -> str:
    """The job's own `State.Message` after this entry (design/bacalhau.md 4.3)."""
    if state in {_QUEUED, _FAILED}:
        return event.Message
    if state == _PENDING:
        if event.Message.startswith("Job updated"):
            return details.Reason or UPDATE_MESSAGE
        return details.Reason
    return ""
