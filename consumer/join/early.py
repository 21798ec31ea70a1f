"""Running early: whether a frame proves that the record says Running at the next revision (`DESIGN.md` 6).

Pure, and only the question. Who asks it, and what is read where the answer is no, is `consumer.join.join`.
"""

from typing import Final

from consumer.model import NUMBER_MAX, JobStateType, Place, Snapshot
from consumer.wire.subjects import job_key

Where = tuple[int, int]
"""A place in a job's record: (version, revision)."""

NOWHERE_HEARD: Final[Where] = (-1, -1)
"""Before every place: no end or refusal was heard."""
ANYWHERE: Final[Where] = (NUMBER_MAX + 1, 0)
"""Behind every place that can be real: one was heard, and where that was is not known."""

_WAITING: Final = (JobStateType.PENDING, JobStateType.QUEUED)
_ONE: Final = 1


class Execution:
    """What an `AskForBid` said of its execution and of the job as it was just before the execution was written.

    The messages that follow name neither version nor (BidAccepted, CancelExecution) the job.
    """

    __slots__ = ("count", "job", "key", "modified_ns", "revision", "state", "version")

    def __init__(self, snapshot: Snapshot) -> None:
        self.job = snapshot.job.id
        self.key = job_key(snapshot.job.namespace, snapshot.job.id)
        self.modified_ns = snapshot.modified_ns
        self.version = snapshot.version
        self.revision = snapshot.revision
        self.state = snapshot.state
        self.count = snapshot.count

    @property
    def runs_at(self) -> int:
        """The revision at which its approval makes the job Running; 0 if the job ran before."""
        return 0 if self.state == JobStateType.RUNNING else self.revision + 1

    @property
    def where(self) -> Where:
        """The place in the record that its snapshot showed."""
        return self.version, self.revision


def runs_early(execution: Execution, standing: Place, disturbed: Where, heard_from_ns: int | None) -> bool:
    """Whether this execution's approval (or direct start) means Running at its `runs_at`, without a look at the record.

    *standing*: where the log stands, or will when what is under way is written. *disturbed*: the last place at which an
    execution of the job ended or was refused. *heard_from_ns*: what was written after it (the orchestrator's clock) was
    written while we listened; None: nothing yet. Each condition is needed (the numbers of `DESIGN.md` 6): a job that
    stood elsewhere had another revision next, one that ran already none; an end or a refusal, heard or missed, may have
    brought Queued between; and with a `Count` above 1 one lost refusal would hide that.
    """
    return (
        heard_from_ns is not None
        and execution.modified_ns > heard_from_ns
        and execution.state in _WAITING
        and execution.count <= _ONE
        and (standing.version, standing.revision, standing.state)
        == (execution.version, execution.revision, execution.state)
        and execution.where > disturbed
    )
