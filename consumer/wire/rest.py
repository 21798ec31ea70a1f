"""Bodies of the orchestrator's REST API, 1.5 to 1.9 (`BACALHAU.md` 4.7, 6.3); `consumer.bacalhau` asks for them."""

from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from consumer.errors import DecodeError
from consumer.model import HistoryEntry, HistoryPage, JobPage, JobStateType, Snapshot
from consumer.wire.decoding import (
    NO_TIME,
    TEXT_MAX,
    Unsigned,
    check_counts,
    decode,
    name_clean,
    read_decimal,
    read_time,
)
from consumer.wire.document import JobDocument, snapshot_of
from consumer.wire.states import read_state

UPDATE_MESSAGE: Final = "Job update requested by user"
"""What the job's own `State.Message` says after an update; the entry has no reason (recording 1.9.3 `update`)."""

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


class Version(NamedTuple):
    """Which Bacalhau answers. *git* is as it says it (`v1.9.3`), empty if it does not."""

    major: int
    minor: int
    git: str


class _JobAnswer(msgspec.Struct, frozen=True):
    Job: JobDocument


class _JobList(msgspec.Struct, frozen=True):
    Items: list[JobDocument] | None  # null is an empty page; without it this is no page at all
    NextToken: str = ""


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
    JobVersion: Unsigned = 0
    Event: _Event | None = None
    Time: msgspec.Raw = NO_TIME

    def __post_init__(self) -> None:
        check_counts(self.SeqNum, self.JobVersion)


class _History(msgspec.Struct, frozen=True):
    Items: list[_Row] | None
    NextToken: str = ""


class _Version(msgspec.Struct, frozen=True):
    Major: str
    Minor: str
    GitVersion: str = ""


_job: Final = msgspec.json.Decoder(_JobAnswer)
_jobs: Final = msgspec.json.Decoder(_JobList)
_history: Final = msgspec.json.Decoder(_History)
_version: Final = msgspec.json.Decoder(_Version)


def decode_job(data: bytes) -> Snapshot:
    """`GET …/jobs/<id>`. Raises `DecodeError`."""
    return snapshot_of(decode(_job, data).Job)


def decode_jobs(data: bytes) -> JobPage:
    """`GET …/jobs`: one page of the list. Raises `DecodeError`."""
    page = decode(_jobs, data)
    return JobPage(jobs=tuple(map(snapshot_of, page.Items or ())), next_token=page.NextToken)


def decode_history(data: bytes) -> HistoryPage:
    """`GET …/jobs/<id>/history`: the job-level entries of one page in the order of their `SeqNum`.

    Raises `DecodeError`; a job-level entry that tells no state is `unknown-history-entry`, never skipped: the number of
    an entry is its revision.
    """
    page = decode(_history, data)
    rows = page.Items or []
    entries = [_read_row(row) for row in rows if row.Type == "JobLevel"]
    entries.sort(key=attrgetter("number"))
    return HistoryPage(entries=tuple(entries), items=len(rows), next_token=page.NextToken)


def decode_version(data: bytes) -> Version:
    """`GET …/agent/version`. Raises `DecodeError`."""
    said = decode(_version, data)
    major, minor = read_decimal(said.Major), read_decimal(said.Minor)
    if major is None or minor is None:
        raise DecodeError("wrong-shape", "Major and Minor are no numbers")
    return Version(major, minor, said.GitVersion)


def _read_row(row: _Row) -> HistoryEntry:
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
    )


def _state_by_message(number: int, event: _Event) -> str:
    for topic, beginning, state in _BY_MESSAGE:
        if event.Topic == topic and event.Message.startswith(beginning):
            return state
    raise DecodeError("unknown-history-entry", f"entry {number}, topic {name_clean(event.Topic)}, tells no known state")


def _message(state: str, event: _Event, details: _Details) -> str:
    """What the job's own `State.Message` says after this entry (`BACALHAU.md` 4.3)."""
    if state in {_QUEUED, _FAILED}:
        return event.Message
    if state == _PENDING:
        if event.Message.startswith("Job updated"):
            return details.Reason or UPDATE_MESSAGE
        return details.Reason
    return ""
