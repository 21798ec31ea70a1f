"""What is remembered of jobs and their executions, and the words for how executions end. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, NamedTuple

from consumer.model import (
    Frame,
    FrameKind,
    Identity,
    JobKey,
    JobStateType,
    LastUpdate,
    Profile,
    Snapshot,
    log_point_of,
)

BATCH: Final = "batch"
OPS: Final = "ops"
CONFIRMED: Final[Profile] = "1.8+"
"""The profile in which the orchestrator repeats each end that it took, as a CancelExecution with `Events`."""

End = Literal["completed", "failed", "ended", "rejected", "cancelled", "unseen"]
"""How an execution ended. "ended": by itself, of a job that should not end; "unseen": a receipt says so, not how."""

Why = Literal[
    "failed",
    "ended",
    "rejected",
    "cancelled",
    "unconfirmed",
    "idle",
    "unseen",
    "restart",
    "earlier",
    "missed",
    "forgotten",
    "halted",
]
"""Why a job is undecided: the word that stands in the notice's facts."""
WHY: Final[Mapping[Why, str]] = {
    "failed": "an execution failed and no other was asked for in its place",
    "ended": "an execution of a long-running job ended and no other was asked for in its place",
    "rejected": "a bid was refused and no other was asked for in its place",
    "cancelled": "an execution was cancelled: a stop, a failure, a time-out and a lost node look the same",
    "unconfirmed": "an execution ended, and no receipt says that the orchestrator took that end",
    "idle": "an execution ended well, and others are missing of which none was asked for",
    "unseen": "an execution ended of which not all was heard",
    "restart": "its last execution ended while the connection was lost, or just before: an orchestrator that is killed "
    "then may never conclude the job",
    "earlier": "executions of an earlier version failed, or are not known, and may count in this one",
    "missed": "frames may have been missed while the job was open",
    "forgotten": "too much was open at once, so the oldest was forgotten (limits.jobs, limits.executions)",
    "halted": "the rules reject what the frames say",
}
"""The same in words."""

HEARD_MAX: Final = 64
"""Messages of one execution that are known again; a true one has fewer than ten."""

END: Final = "end"
VERDICT: Final = "verdict"
HOLES: Final = "holes"
"""Questions about the job as a whole. Others are about a partition, by its index, or an execution, by its id."""


class Question(NamedTuple):
    """An open verdict until *due*: then the job is announced as undecided, for the reason *why*."""

    due: float
    why: Why
    execution: str


class Verdict(NamedTuple):
    """All known executions have ended, the last one, *execution*, at *ended_at*: *due* is when that is said."""

    due: float
    execution: str
    ended_at: float
    time: datetime | None


class Execution:
    """One execution of the present version of an open job."""

    __slots__ = ("about", "confirmed", "confirms", "end", "ended_at", "heard", "job", "partition", "runs_at")

    def __init__(self, frame: Frame, snapshot: Snapshot) -> None:
        self.job = snapshot.job.id
        self.partition = frame.partition
        # Its end may leave a verdict open: another one of its partition settles it; in an ops job only itself.
        self.about = frame.execution if snapshot.job.type == OPS else str(frame.partition)
        self.runs_at = snapshot.revision + 1
        self.confirms = frame.profile == CONFIRMED
        self.end: End | None = None
        self.ended_at = 0.0  # by our clock
        self.confirmed = False
        self.heard: dict[tuple[FrameKind, bool, int | None], None] = {}


class DerivedJob:
    """One job, at its present version. For a finished one only its last state is kept."""

    __slots__ = (
        "announced",
        "completed",
        "count",
        "done",
        "executions",
        "failed",
        "halted",
        "holes",
        "identity",
        "key",
        "partitioned",
        "place",
        "questions",
        "reason",
        "revision",
        "state",
        "time",
        "verdict",
        "version",
    )

    def __init__(self, identity: Identity, key: JobKey, known: LastUpdate | None, version: int) -> None:
        self.identity = identity
        self.key = key
        self.place = log_point_of(known)  # of the last event, whether or not it is decided yet
        self.state = known.state if known is not None else ""
        self.version = version if known is None or known.version is None else known.version
        self.revision = (known.revision or 0) if known is not None else 0  # which the record has reached at least
        self.holes = False  # not all of its executions were heard of
        self.failed = False  # an execution failed, in this version or an earlier one
        self._begin()

    def _begin(self) -> None:
        self.count = 0
        self.executions: dict[str, Execution] = {}
        self.done: set[int] = set()
        self.completed = 0
        self.partitioned = False
        self.reason = ""
        self.time: datetime | None = None
        self.questions: dict[str, Question] = {}
        self.verdict: Verdict | None = None
        self.announced = False
        self.halted = False

    def begin(self, version: int) -> None:
        """A rerun or an update: of the executions before counts at most that some failed (design/bacalhau.md 5.2)."""
        self.failed |= (self.holes and self.state != JobStateType.COMPLETED) or version > self.version + 1
        self.holes = False
        self.version = version
        self.revision = 0
        self._begin()

    def finish(self) -> None:
        """Keep only where the job stands."""
        self.executions = {}
        self.done = set()
        self.questions = {}
        self.verdict = None
