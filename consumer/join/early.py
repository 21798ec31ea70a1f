"""What a frame proves by itself, before the record is read: the next state, or Running (design/design.md 6).

Pure, and only the questions. Who asks them, and what is read where the answer is no, is `consumer.join.join`.
"""

from typing import Final

from consumer.model import NOWHERE, NUMBER_MAX, REPORTED, JobStateType, Known, Place, Snapshot
from consumer.rules import Rules
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
    written while we listened; None: nothing yet. Each condition is needed (the numbers of design/design.md 6): a job
    that stood elsewhere had another revision next, one that ran already none; an end or a refusal, heard or missed, may
    have brought Queued between; and with a `Count` above 1 one lost refusal would hide that.
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


def steps_ahead(rules: Rules, known: Known | None, snapshot: Snapshot, entries_seen: int) -> int | None:
    """How many steps the snapshot of an `AskForBid` is ahead of the log: 0 or less, exactly 1, or None (cannot tell).

    Only exactly one may be published without a read (design/design.md 6.4). Bacalhau's revision is the number of the
    entry as long as no entry was merged; once one was, only the history can tell.
    """
    if known is None:
        return 1 if snapshot.revision == 1 and snapshot.state == rules.initial else None
    if known.source == REPORTED or known.version is None or known.revision is None:
        return None
    if entries_seen > known.revision:
        return None
    if known.sequence != known.revision or known.input > NOWHERE:
        # Not an update for each entry: one revision may have left two (`total_timeout`), and then Bacalhau's count is
        # not that of the entries any more.
        return None
    if (snapshot.version, snapshot.revision) == (known.version, known.revision):
        return 0 if snapshot.state == known.state else None
    if (snapshot.version, snapshot.revision) < (known.version, known.revision):
        return -1
    if snapshot.revision != known.revision + 1 or rules.is_terminal(snapshot.state):
        return None  # no execution is made for a job that is over: that is for the record to say
    if snapshot.version == known.version:
        # What the rules forbid is no step to take without having seen the history.
        return 1 if rules.allows(known.state, snapshot.state) else None
    if snapshot.version == known.version + 1 and snapshot.state == rules.initial and entries_seen == known.revision:
        return 1
    return None
