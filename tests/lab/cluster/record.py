"""The orchestrator's record: jobs, executions, histories, and what its store lets through (design/bacalhau.md 4, 5.1).

Whatever was there at a time can be asked for later: a stale read is an answer as of then. Who writes what is
`tests.lab.cluster.scheduler`'s and `tests.lab.cluster.cluster`'s.
"""

from bisect import bisect_right
from typing import Any, Final

import msgspec

from tests.lab.cluster.releases import Release

BASE_NS: Final = 1_795_500_000 * 10**9
"""Time 0 of every run, 2026-11-24T06:00:00Z."""

OVER: Final = frozenset({"Completed", "Failed", "Stopped"})
ENDED: Final = frozenset({"AskForBidRejected", "BidRejected", "Completed", "Failed", "Cancelled"})

PENDING: Final = 0
RUNNING: Final = 1
STOPPED: Final = 2

Document = dict[str, Any]


def spell_time(ns: int) -> str:
    """RFC 3339 with nine digits; the runs are shorter than an hour."""
    seconds, rest = divmod(ns - BASE_NS, 10**9)
    return f"2026-11-24T06:{seconds // 60:02d}:{seconds % 60:02d}.{rest:09d}Z"


class Event(msgspec.Struct, frozen=True):
    """Why something changed. `state`: the job's state that a job-level entry brings."""

    topic: str
    message: str
    state: str = ""
    details: dict[str, str] | None = None


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks for. Timeouts in whole seconds, 0: none. `zone`: only nodes there match.

    `fails`: share of the executions that fail. `takes`: seconds that one runs, from and to.
    """

    type: str = "batch"
    count: int = 1
    queue_timeout: int = 0
    total_timeout: int = 0
    zone: str = ""
    fails: float = 0.0
    takes: tuple[float, float] = (0.01, 0.4)

    @property
    def long_running(self) -> bool:
        """Service and daemon."""
        return self.type in ("service", "daemon")

    @property
    def direct(self) -> bool:
        """Ops and daemon: run at once, no approval."""
        return self.type in ("ops", "daemon")


class Change(msgspec.Struct, frozen=True):
    """One job-level entry: the state it brought. `number` counts them from 1."""

    number: int
    version: int
    state: str
    message: str
    time_ns: int


class Standing(msgspec.Struct, frozen=True):
    """The job as its own document shows it. `revision` is Bacalhau's count."""

    version: int
    revision: int
    state: str
    message: str
    modified_ns: int
    spec: Spec


class Execution:
    """One execution, as the store has it."""

    __slots__ = (
        "compute",
        "created_ns",
        "desired",
        "direct",
        "id",
        "job",
        "modified_ns",
        "node",
        "partition",
        "revision",
        "snapshot",
        "version",
    )

    def __init__(
        self,
        name: str,
        job: "Job",
        before: "Standing",
        *,
        node: str,
        partition: int,
        desired: int,
        now_ns: int,
    ) -> None:
        self.id = name
        self.job = job
        self.version = before.version
        self.node = node
        self.partition = partition
        self.desired = desired
        self.direct = desired == RUNNING
        self.compute = "New"
        self.revision = 1
        self.created_ns = now_ns
        self.modified_ns = now_ns
        self.snapshot = job.document(before, wire=True)
        """The job before the write that made this: as the scheduler had read it."""

    @property
    def ended(self) -> bool:
        """Whether its compute state is terminal."""
        return self.compute in ENDED


class Job:
    """One job and its whole history."""

    __slots__ = (
        "changes",
        "created_ns",
        "executions",
        "id",
        "kept",
        "name",
        "namespace",
        "release",
        "row_ns",
        "rows",
        "spec",
        "standing",
        "standing_ns",
        "standings",
    )

    def __init__(self, release: Release, name: str, namespace: str, spec: Spec, now_ns: int) -> None:
        self.release = release
        self.id = name
        self.name = f"name of {name[:6]}"
        self.namespace = namespace
        self.created_ns = now_ns
        self.executions: dict[str, Execution] = {}
        self.rows: list[tuple[bool, int, msgspec.Raw]] = []
        """(job level, version, document) by SeqNum from 1."""
        self.row_ns: list[int] = []
        self.changes: list[Change] = []
        self.kept: list[Change] = []
        """The changes with equal neighbours merged: what a log must say."""
        self.spec = spec
        self.standing = Standing(int(release.versioned), 1, "Pending", "", now_ns, spec)
        self.standings = [self.standing]
        self.standing_ns = [now_ns]

    @property
    def version(self) -> int:
        """The present version: 0 before 1.8."""
        return self.standing.version

    @property
    def over(self) -> bool:
        """Whether its state is terminal."""
        return self.standing.state in OVER

    @property
    def may_be_late(self) -> bool:
        """Whether it has a total timeout."""
        return self.spec.total_timeout > 0 and not self.spec.long_running

    def is_late(self, now_ns: int) -> bool:
        """Whether its total timeout has passed. It counts from the first submission, whatever the version."""
        return self.may_be_late and now_ns - self.created_ns > self.spec.total_timeout * 10**9

    # -- writes -------------------------------------------------------------------------------------------------------

    def stand(self, state: str, message: str, now_ns: int, *, spec: Spec | None = None) -> None:
        """Write the state (revision + 1), or (*spec*) begin the next version."""
        before = self.standing
        self.spec = spec or self.spec
        self.standing = Standing(
            before.version + (spec is not None), before.revision + 1, state, message, now_ns, self.spec
        )
        self.standings.append(self.standing)
        self.standing_ns.append(now_ns)

    def add_row(
        self, event: Event, now_ns: int, *, execution: str = "", version: int | None = None, label: int | None = None
    ) -> None:
        """Add an entry to the history: of the job, or of *execution*. *label*: the version that it says, if another."""
        number = len(self.rows) + 1
        told: Document = {"Message": event.message, "Topic": event.topic, "Timestamp": spell_time(now_ns - 1000)}
        if event.details is not None:
            told["Details"] = event.details
        version = self.version if version is None else version
        row: Document = {"SeqNum": number, "Type": "ExecutionLevel" if execution else "JobLevel", "JobID": self.id}
        if self.release.versioned:
            row["JobVersion"] = version if label is None else label
        if execution:
            row["ExecutionID"] = execution
        row["Event"] = told
        row["Time"] = spell_time(now_ns)
        self.rows.append((not execution, version, msgspec.Raw(msgspec.json.encode(row))))
        self.row_ns.append(now_ns)
        if not execution:
            state = event.state
            message = self.standing.message if state == "Pending" else event.message if state in _TOLD else ""
            change = Change(len(self.changes) + 1, version, state, message, now_ns)
            self.changes.append(change)
            if not self.kept or (self.kept[-1].version, self.kept[-1].state) != (version, state):
                self.kept.append(change)

    def go_back(self, ns: int) -> None:
        """Forget what came after *ns*."""
        standings, rows = bisect_right(self.standing_ns, ns), self.rows_at(ns)
        del self.standings[standings:], self.standing_ns[standings:], self.rows[rows:], self.row_ns[rows:]
        self.standing = self.standings[-1]
        self.spec = self.standing.spec
        self.changes = [change for change in self.changes if change.time_ns <= ns]
        self.kept = [change for change in self.kept if change.time_ns <= ns]
        self.executions = {name: one for name, one in self.executions.items() if one.created_ns <= ns}

    # -- as it was ----------------------------------------------------------------------------------------------------

    def standing_at(self, ns: int) -> Standing | None:
        """How it stood at *ns*; None: not yet."""
        number = bisect_right(self.standing_ns, ns)
        return self.standings[number - 1] if number else None

    def rows_at(self, ns: int) -> int:
        """How many rows there were at *ns*."""
        return bisect_right(self.row_ns, ns)

    def document(self, standing: Standing, *, wire: bool) -> msgspec.Raw:
        """The job's JSON, over REST or (*wire*) as an AskForBid carries it."""
        spec = standing.spec
        timeouts = {}
        if spec.total_timeout:
            timeouts["TotalTimeout"] = spec.total_timeout
        if spec.queue_timeout:
            timeouts["QueueTimeout"] = spec.queue_timeout
        state = {"StateType": standing.state}
        if standing.message:
            state["Message"] = standing.message
        tasks = self.release.tasks(msgspec.json.encode(timeouts).decode(), wire=wire)
        return msgspec.Raw(
            msgspec.json.encode(
                {
                    "ID": self.id,
                    "Name": self.name,
                    "Namespace": self.namespace,
                    "Type": spec.type,
                    "Priority": 0,
                    "Count": spec.count,
                    "Constraints": [],
                    "Meta": self.release.meta,
                    "Labels": {},
                    "Tasks": tasks,
                    "State": state,
                    "Version": standing.version,
                    "Revision": standing.revision,
                    "CreateTime": self.created_ns,
                    "ModifyTime": standing.modified_ns,
                }
            )
        )


_TOLD: Final = frozenset({"Queued", "Failed"})
