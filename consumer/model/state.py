"""The bodies that others read: `State`, and `Update`, a `State` that names its job.

Fields are spelled as on the wire. Nothing here knows which transitions are allowed (`consumer.rules`) or how bytes
become these (`consumer.wire`).
"""

from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

from consumer.model.words import Source

T = TypeVar("T")


class JobStateType(StrEnum):
    """The states of a Bacalhau job, as its REST API spells them (Bacalhau `pkg/models/job.go`, 1.5 to 1.9.3)."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


class State(msgspec.Struct, Generic[T], frozen=True, kw_only=True, gc=False):
    """Bacalhau's `State` of whatever *T* enumerates (documentation: `references/jobs/job-results/state`).

    `State[JobStateType]` is a job's. Inside the daemon states are the names that the rules know, so `State[str]`.
    """

    StateType: T
    Message: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Which job, and where in its record. `Version` and `Revision` are None (and absent) where nobody gave them.

    `Version` is 0 before Bacalhau 1.8; `Revision` is the number of the job-level history entry, from 1.
    """

    ID: str
    Namespace: str
    Name: str = ""
    Type: str = ""
    Version: int | None = None
    Revision: int | None = None


class Update(State[str], frozen=True, kw_only=True, gc=False):
    """One entry of the log: a changed state. A reader that knows only `State` decodes it unchanged.

    `Sequence` counts the updates of a job from 1 without holes. `Time` is UTC, the record's or the report's, never this
    daemon's clock, and None where nobody gave one. `Flags` are words of `Flag`: a later program may know more of them,
    and a reader of today takes its updates all the same.
    """

    Job: Job
    Previous: str | None
    Sequence: int
    Time: datetime | None
    Source: Source
    Flags: tuple[str, ...] = ()
