"""Frames and the orchestrator's answers, decoded: the core's input.

Shapes only. Which bytes become these is `consumer.wire`; what follows from them is `consumer.core`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, get_args

import msgspec

from consumer.model.event import Identity
from consumer.model.words import UndecodableReason

GapCause = Literal[
    "late",
    "reconnect",
    "restart",
    "server-change",
    "lame-duck",
    "silent",
    "dead-reader",
    "slow-consumer",
    "denied",
]
"""Why frames may have been missed. `consumer.bacalhau.tap` says when each is the cause."""


Profile = Literal["1.5", "1.5.0", "1.5.2", "1.6-1.7", "1.8+", "ncl"]
"""The releases that write a message as it is; "1.5" and "ncl": it cannot tell which (design/bacalhau.md 0.3)."""
PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)


class FrameKind(StrEnum):
    """Bacalhau's message types of the data plane, by their NCL names (`pkg/models/messages`; 1.5 names mapped)."""

    ASK_FOR_BID = "AskForBid"
    BID_ACCEPTED = "BidAccepted"
    BID_REJECTED = "BidRejected"
    CANCEL_EXECUTION = "CancelExecution"
    BID_RESULT = "BidResult"
    RUN_RESULT = "RunResult"
    COMPUTE_ERROR = "ComputeError"
    CANCEL_RESULT = "CancelResult"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A job as an `AskForBid` or the REST API shows it: its present state and where that stands in the record.

    `revision` is Bacalhau's own count. `modified` is when the state was written (ModifyTime), None if unreadable.
    `expires`: the job has a total timeout, after which any evaluation fails it, also one that starts executions.
    """

    job: Identity
    count: int
    version: int
    revision: int
    state: str
    message: str = ""
    created: datetime | None = None
    modified: datetime | None = None
    modified_ns: int = 0
    expires: bool = False


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the data plane. `job` is empty where the message does not name it (BidAccepted, CancelExecution).

    `accepted`: of a BidResult. `direct`: an AskForBid that runs at once (desired state Running: ops, daemon).
    `echo`: a CancelExecution that only repeats an end (1.8+, `Events` filled). `stopped`: one that says that the job
    was stopped (1.5.0, `Justification`). `version` (0 before 1.8) and `partition` are the execution's, in an AskForBid.
    `reason`: why an execution failed (of a ComputeError). `ended_ago_s`: of a RunResult, for how long the execution had
    ended when the node sent this, both by the node's clock: a repeat after a restart is old (design/bacalhau.md 2.5).
    """

    kind: FrameKind
    execution: str
    node: str
    profile: Profile
    job: str = ""
    snapshot: Snapshot | None = None
    direct: bool = False
    accepted: bool = False
    echo: bool = False
    stopped: bool = False
    version: int = 0
    partition: int = 0
    reason: str = ""
    number: int | None = None
    event_time: datetime | None = None
    ended_ago_s: float = 0.0


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One job-level entry of a job's history, read as a state. `number` is Bacalhau's SeqNum (both levels count).

    `begins`: an update or a rerun, which begins a version of its own. `version` is what the entry is labelled with: see
    `consumer.core.history.read_versions`.
    """

    number: int
    version: int
    state: str
    message: str
    time: datetime | None
    begins: bool = False


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of job-level history, oldest first. `items` is how many rows the page had, of any level."""

    entries: tuple[HistoryEntry, ...]
    items: int
    next_token: str


class JobDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is asked for by its id: its present row, and the beginning of its latest version's history.

    *history* has at most a hundred rows, of both levels (design/bacalhau.md 6.3).
    """

    job: Snapshot
    history: HistoryPage


class BadJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a list that could not be read: its id (empty where not even that is told) and the reason.

    `modified_ns` as in a `Snapshot`; 0 if unreadable.
    """

    id: str
    reason: UndecodableReason
    modified_ns: int = 0


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the job list. `bad`: those of its jobs that could not be read, and so are not among `jobs`.

    `clock_ns`: what the orchestrator's clock said when it answered, to the second; 0: it does not say.
    """

    jobs: tuple[Snapshot, ...]
    next_token: str
    bad: tuple[BadJob, ...] = ()
    clock_ns: int = 0
