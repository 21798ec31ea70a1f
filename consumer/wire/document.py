"""Job and execution as Bacalhau writes them, on the wire and over REST alike (design/bacalhau.md 4.5, 4.6).

Only what we need has a field. Environment, Meta, inputs, results and output have none: the decoder steps over them, so
no object of ours ever held a secret.
"""

from typing import Final

import msgspec

from consumer.errors import DecodeError
from consumer.model import Identity, Snapshot
from consumer.wire.decoding import (
    NAME_MAX,
    NO_TEXT,
    NO_TIME,
    TEXT_MAX,
    Id,
    Skipped,
    Unsigned,
    check_counts,
    check_place,
    read_nanoseconds,
    read_text,
    time_of,
)
from consumer.wire.states import read_state

DIRECT: Final = 1
"""Desired state Running in an `AskForBid`: run at once (ops, daemon). Integers in every version."""


class StateDocument(msgspec.Struct, frozen=True):
    """A job's `State`."""

    StateType: str
    Message: str = ""


class TimeoutsDocument(msgspec.Struct, frozen=True):
    """A task's timeouts in seconds, 0 for none."""

    TotalTimeout: int = 0


class TaskDocument(msgspec.Struct, frozen=True):
    """A task, its work left out."""

    Timeouts: TimeoutsDocument | None = None


class JobDocument(msgspec.Struct, frozen=True):
    """A job. `Count` of ops and daemon says nothing (1 before 1.7, then 0).

    Its id and namespace stand whole in every update.
    """

    ID: Id
    Namespace: Id
    State: StateDocument
    Name: str = ""
    Type: str = ""
    Count: Unsigned = 1
    Version: Unsigned = 0
    Revision: Unsigned = 0
    Tasks: tuple[TaskDocument, ...] | None = None
    CreateTime: msgspec.Raw = NO_TIME
    ModifyTime: msgspec.Raw = NO_TIME

    def __post_init__(self) -> None:
        check_counts(self.Count, self.Version, self.Revision)


class DesiredDocument(msgspec.Struct, frozen=True):
    """An execution's `DesiredState`: 0 Pending, 1 Running, 2 Stopped."""

    StateType: int = 0


_PENDING: Final = DesiredDocument()


class ExecutionDocument(msgspec.Struct, frozen=True):
    """An execution, with the whole job before the write that made it."""

    ID: Id
    JobID: Id = ""
    Job: JobDocument | None = None
    JobVersion: Unsigned = 0
    PartitionIndex: Unsigned = 0
    DesiredState: DesiredDocument = _PENDING
    RunOutput: Skipped | None = None
    Revision: Unsigned = 0

    def __post_init__(self) -> None:
        check_counts(self.JobVersion, self.PartitionIndex, self.Revision)


class EventDocument(msgspec.Struct, frozen=True):
    """The result of an execution, as a node reports it (design/bacalhau.md 4.7). `Message`: see `reason_of`."""

    Message: msgspec.Raw = NO_TEXT
    Timestamp: msgspec.Raw = NO_TIME


def reason_of(event: EventDocument | None) -> str:
    """The event's message, cut to what an update may hold; empty where there is none."""
    return read_text(event.Message)[:TEXT_MAX] if event is not None else ""


def snapshot_of(job: JobDocument) -> Snapshot:
    """Read *job*. Raises `DecodeError` (`no-job`, `out-of-range`, `unknown-state`)."""
    if not job.ID:
        raise DecodeError("no-job", "the job's id is empty")
    check_place(job.Version, job.Revision)
    modified_ns = read_nanoseconds(job.ModifyTime)
    return Snapshot(
        job=Identity(id=job.ID, namespace=job.Namespace, name=job.Name[:NAME_MAX], type=job.Type[:NAME_MAX]),
        count=job.Count,
        version=job.Version,
        revision=job.Revision,
        state=read_state(job.State.StateType),
        message=job.State.Message[:TEXT_MAX],
        created=time_of(read_nanoseconds(job.CreateTime)),
        modified=time_of(modified_ns),
        modified_ns=modified_ns,
        expires=any(task.Timeouts is not None and task.Timeouts.TotalTimeout > 0 for task in job.Tasks or ()),
    )


def job_of(execution: ExecutionDocument) -> tuple[str, Snapshot | None]:
    """Read the identity of an execution, and the job in it. Raises `DecodeError`, also if the two differ."""
    check_place(execution.JobVersion, 0)
    snapshot = snapshot_of(execution.Job) if execution.Job is not None else None
    job = execution.JobID or (snapshot.job.id if snapshot is not None else "")
    if not job or not execution.ID:
        raise DecodeError("no-job", "an AskForBid without the id of its job or execution")
    if snapshot is not None and snapshot.job.id != job:
        raise DecodeError("wrong-shape", "Execution.JobID and Execution.Job.ID differ")
    return job, snapshot
