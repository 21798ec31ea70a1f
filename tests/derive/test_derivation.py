"""What frames alone prove, rule by rule (design/bacalhau.md 6.1), and what is announced where they do not."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from consumer.core import Lanes
from consumer.core.appends import Append
from consumer.core.verify import VerifiedJob
from consumer.derive.derivation import Derivation, DerivationSettings
from consumer.derive.executions import WHY
from consumer.model import (
    DERIVED,
    OBSERVED,
    REPORTED,
    Frame,
    FrameKind,
    Identity,
    InputPosition,
    LastUpdate,
    Notice,
    Profile,
    Record,
    Rejected,
    Report,
    Snapshot,
    Source,
    Step,
    Update,
    log_point_of,
)
from consumer.model import START as START_PLACE
from consumer.replay.memory import MemoryLog
from consumer.rules import load
from consumer.wire.subjects import Names, job_key

RULES = load(None)
START = datetime(2026, 11, 24, 5, tzinfo=UTC)
SETTLE_S = 0.3
"""A verdict that is due in this time is said."""

JOB = "j-1"
KEY = job_key("default", JOB)
PROFILES: Final[tuple[Profile, ...]] = ("1.5.0", "1.5.2", "1.6-1.7", "1.8+")
BEFORE_1_8 = PROFILES[:3]


class Cluster:
    """One job's frames, said to a derivation, and the log that comes of them. The clock is `now`, in seconds."""

    def __init__(
        self,
        profile: Profile = "1.8+",
        *,
        kind: str = "batch",
        count: int = 1,
        log: MemoryLog | None = None,
        settings: DerivationSettings | None = None,
        known: LastUpdate | None = None,
    ) -> None:
        self.profile, self.kind, self.count = profile, kind, count
        self.now = 0.0
        self.lanes = Lanes(RULES, Names())
        if known is not None:
            self.lanes.learn(KEY, VerifiedJob(known=known, number=known.number))
        self.log = log or MemoryLog()
        self.hears = True
        self.derivation = Derivation(RULES, self.lanes.known, settings, hears=lambda: self.hears)
        self.published: list[Update] = []
        self.notices: list[Notice] = []
        self.rejected = 0
        self._number = 0

    # -- what is said -------------------------------------------------------------------------------------------------

    def ask(
        self,
        execution: str = "e-1",
        state: str = "Pending",
        revision: int = 1,
        *,
        version: int | None = None,
        partition: int = 0,
        job: str = JOB,
        message: str = "",
        number: int | None = None,
    ) -> None:
        """An execution is asked for, of the job as it was before."""
        version = (1 if self.profile == "1.8+" else 0) if version is None else version
        self.say(
            FrameKind.ASK_FOR_BID,
            execution,
            job=job,
            snapshot=Snapshot(
                job=Identity(id=job, namespace="default", name="a name", type=self.kind),
                count=self.count,
                version=version,
                revision=revision,
                state=state,
                message=message,
            ),
            version=version,
            partition=partition,
            direct=self.kind in {"ops", "daemon"},
            number=number,
        )

    def approve(self, execution: str = "e-1") -> None:
        """The orchestrator takes the bid."""
        self.say(FrameKind.BID_ACCEPTED, execution)

    def result(self, execution: str = "e-1", *, job: str = JOB, number: int | None = None) -> None:
        """The execution ended on its node."""
        self.say(FrameKind.RUN_RESULT, execution, job=job, number=number)

    def error(self, execution: str = "e-1", reason: str = "it trapped", *, job: str = JOB) -> None:
        """The execution failed."""
        self.say(FrameKind.COMPUTE_ERROR, execution, job=job, reason=reason)

    def refuse(self, execution: str = "e-1") -> None:
        """The node does not want it."""
        self.say(FrameKind.BID_RESULT, execution, job=JOB, accepted=False)

    def cancel(self, execution: str = "e-1", *, stopped: bool = False) -> None:
        """A real cancel."""
        self.say(FrameKind.CANCEL_EXECUTION, execution, stopped=stopped)

    def echo(self, execution: str = "e-1") -> None:
        """The receipt of an end (1.8+)."""
        self.say(FrameKind.CANCEL_EXECUTION, execution, echo=True)

    def complete(self, execution: str = "e-1") -> None:
        """The execution ends well, and the record took that as far as this profile tells."""
        self.result(execution)
        if self.profile == "1.8+":
            self.echo(execution)
        if self.kind == "batch":
            self.wait(SETTLE_S)

    def say(
        self,
        kind: FrameKind,
        execution: str,
        *,
        job: str = "",
        snapshot: Snapshot | None = None,
        number: int | None = None,
        version: int = 0,
        partition: int = 0,
        direct: bool = False,
        accepted: bool = False,
        echo: bool = False,
        stopped: bool = False,
        reason: str = "",
        ended_ago_s: float = 0.0,
    ) -> None:
        """Any frame; 1.5 has neither number nor time."""
        old = self.profile.startswith("1.5")
        self._number += 1
        self.now += 0.001
        frame = Frame(
            kind=kind,
            execution=execution,
            node="n-1",
            profile=self.profile if snapshot is not None else ("1.5" if old else "ncl"),
            job=job,
            snapshot=snapshot,
            direct=direct,
            accepted=accepted,
            echo=echo,
            stopped=stopped,
            version=version,
            partition=partition,
            reason=reason,
            ended_ago_s=ended_ago_s,
            number=None if old else number or self._number,
            event_time=None if old else START + timedelta(seconds=self.now),
        )
        self.derivation.frame(frame, self.now)
        self.follow()

    def wait(self, seconds: float) -> None:
        """Time passes and nothing is said."""
        until = self.now + seconds
        while (due := self.derivation.wake_at()) is not None and due <= until:
            assert self.derivation.due_reads(max(due, self.now)) == []
            self.follow()
        self.now = until

    def miss(self) -> None:
        """The tap was away."""
        self.derivation.look_everywhere()
        self.wait(0.0)

    # -- what comes of it ---------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Carry on until nothing is left to do."""
        lanes = self.lanes
        while True:
            events, self.derivation.events = self.derivation.events, []
            self.notices += [event for event in events if isinstance(event, Notice)]
            for event in events:
                lanes.offer(event)
            asks = lanes.take(self.now)
            for ask in asks:
                lanes.answer(ask.token, self.log.answer(ask), self.now)
            for one in lanes.decided:
                self.rejected += type(one.decision).__name__ == "Rejected"
                self.derivation.decided(one.event, one.decision)
            self.published += [one.update for one in lanes.published]
            lanes.decided, lanes.published = [], []
            if not asks and not self.derivation.events:
                break
        asking = sum(1 for job in self.derivation._jobs.values() if job.questions)
        assert self.derivation.hints_open == asking

    @property
    def states(self) -> list[str]:
        """What the log says of the job: states, with the version where that is above the first."""
        return [
            update.StateType if (update.Job.Version or 0) <= 1 else f"{update.StateType} v{update.Job.Version}"
            for update in self.published
        ]

    @property
    def why(self) -> list[object]:
        """Why the job is announced as undecided, each time that it is."""
        return [notice.facts["why"] for notice in self.notices if notice.kind == "undecided"]


def running(profile: Profile = "1.8+", *, kind: str = "batch", count: int = 1) -> Cluster:
    """A job with one execution that runs."""
    cluster = Cluster(profile, kind=kind, count=count)
    cluster.ask()
    if kind not in {"ops", "daemon"}:
        cluster.approve()
    return cluster


def restarted(state: str, *, source: Source = DERIVED, revision: int | None = None, kind: str = "batch") -> Cluster:
    """A daemon that finds the job at *state* in the log, as its second update."""
    job = Identity(id=JOB, namespace="default", type=kind)
    before = Cluster()
    for number, one in enumerate(("Pending", state), 1):
        event: Record | Report
        if source == REPORTED:
            event = Report(key=KEY, job=job, position=InputPosition(number, number), state=one)
        else:
            step = Step(version=1, revision=number if revision else None, state=one)
            after = log_point_of(before.lanes.known(KEY))
            event = Record(key=KEY, job=job, after=after, steps=(step,), source=source)
        before.lanes.offer(event)
        before.follow()
    assert [update.StateType for update in before.published] == ["Pending", state]
    cluster = Cluster(kind=kind, log=before.log, known=before.lanes.known(KEY))
    cluster.derivation.resume(job)
    return cluster


# -- steps 2 to 4: from asking to running -----------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_batch_job_from_its_first_frame_to_its_end(profile: Profile) -> None:
    """Pending by the snapshot, Running by the approval, Completed by the result: every profile alike."""
    cluster = running(profile)
    assert cluster.states == ["Pending", "Running"]
    cluster.complete()
    assert cluster.states == ["Pending", "Running", "Completed"]
    cluster.wait(100)
    assert not cluster.notices


def test_every_update_says_that_it_is_derived_and_when_its_frame_was_sent() -> None:
    """Source and EventTime; name and type of the job; no revision, which nobody told; the deciding frame's time."""
    cluster = running()
    cluster.complete()
    assert {update.Source for update in cluster.published} == {DERIVED}
    assert [update.Time for update in cluster.published] == [
        START + timedelta(seconds=second) for second in (0.001, 0.002, 0.004)
    ]
    assert {(update.Job.Name, update.Job.Type, update.Job.Revision) for update in cluster.published} == {
        ("a name", "batch", None)
    }
    assert [update.Sequence for update in cluster.published] == [1, 2, 3]


def test_1_5_tells_no_time() -> None:
    """Raw JSON has no EventTime: Time is null, never our clock."""
    cluster = running("1.5.2")
    cluster.complete()
    assert [update.Time for update in cluster.published] == [None, None, None]


@pytest.mark.parametrize("kind", ["ops", "daemon"])
def test_a_direct_start_runs_at_once(kind: str) -> None:
    """Desired state Running: the record is Running at the next revision already."""
    cluster = running(kind=kind)
    assert cluster.states == ["Pending", "Running"]


def test_an_accepted_bid_changes_nothing() -> None:
    """Only the orchestrator's approval does."""
    cluster = Cluster()
    cluster.ask()
    cluster.say(FrameKind.BID_RESULT, "e-1", job=JOB, accepted=True)
    assert cluster.states == ["Pending"]


def test_a_job_that_was_queued_is_so_by_its_snapshot() -> None:
    """The snapshot of an execution that a queued job got at last tells of the queue, and of its reason."""
    cluster = Cluster()
    cluster.ask(state="Queued", revision=2, message="Job queued. no node")
    cluster.approve()
    assert cluster.states == ["Queued", "Running"]
    assert [update.Message for update in cluster.published] == ["Job queued. no node", ""]


def test_a_running_job_that_went_back_into_the_queue() -> None:
    """Count 2 on one node: the second execution's snapshot is Queued, at a revision after Running."""
    cluster = running(count=2)
    cluster.complete()
    cluster.ask("e-2", "Queued", 3, partition=1)
    cluster.approve("e-2")
    assert cluster.states == ["Pending", "Running", "Queued", "Running"]
    cluster.complete("e-2")
    assert cluster.states[-1] == "Completed"


def test_an_old_snapshot_moves_nothing_back() -> None:
    """Repeated after a restart: the job as it was then, for an execution that is known, and for one that is not."""
    cluster = running()
    cluster.ask("e-2", "Queued", 3)
    cluster.approve("e-2")
    before = list(cluster.states)
    for execution, state, revision in (("e-1", "Pending", 1), ("e-3", "Pending", 1), ("e-4", "Queued", 3)):
        cluster.ask(execution, state, revision)
    assert cluster.states == before == ["Pending", "Running", "Queued", "Running"]


def test_a_late_approval_does_not_answer_a_later_queue() -> None:
    """The approval of an execution that was asked for before the job went back into the queue came before that."""
    cluster = Cluster(count=2)
    cluster.ask()
    cluster.ask("e-2", "Queued", 3, partition=1)
    cluster.approve("e-1")
    assert cluster.states == ["Pending", "Queued"]
    cluster.approve("e-2")
    assert cluster.states == ["Pending", "Queued", "Running"]


def test_a_retry_changes_nothing() -> None:
    """A failure, and another execution in its place: the job ran all the time, and nothing is announced."""
    cluster = running()
    cluster.error()
    cluster.ask("e-2", "Running", 2)
    cluster.echo()  # the receipt may come behind the retry
    cluster.approve("e-2")
    cluster.wait(100)
    assert cluster.states == ["Pending", "Running"]
    assert not cluster.notices


# -- reruns and updates -----------------------------------------------------------------------------------------------


def test_a_rerun_begins_at_pending() -> None:
    """A higher JobVersion is a new run: Pending first, with the reason that the snapshot gives, then as ever."""
    cluster = running()
    cluster.complete()
    cluster.ask("e-2", "Pending", 4, version=2, message="job rerun")
    cluster.approve("e-2")
    cluster.complete("e-2")
    assert cluster.states == ["Pending", "Running", "Completed", "Pending v2", "Running v2", "Completed v2"]
    assert cluster.published[3].Message == "job rerun"
    assert not cluster.rejected


def test_a_rerun_first_heard_of_on_its_retry_still_begins_at_pending() -> None:
    """Whatever the snapshot says by then: every version begins so, and no update is flagged `skipped`."""
    cluster = running()
    cluster.ask("e-2", "Running", 5, version=2)
    assert cluster.states == ["Pending", "Running", "Pending v2", "Running v2"]
    assert not any(update.Flags for update in cluster.published)


def test_executions_of_an_older_version_count_no_more() -> None:
    """An update takes the job away from them: their ends, approvals and receipts are late, and so is a new one."""
    cluster = running()
    cluster.ask("e-2", "Pending", 3, version=2)
    cluster.complete("e-1")
    cluster.approve("e-1")
    cluster.ask("e-0", "Running", 2, version=1)
    cluster.complete("e-0")
    assert cluster.states == ["Pending", "Running", "Pending v2"]
    cluster.wait(100)
    assert not cluster.notices


def test_nothing_follows_an_end_in_the_same_version() -> None:
    """Repeats, results and new executions of a finished job are late."""
    cluster = running()
    cluster.complete()
    cluster.ask("e-1")
    cluster.ask("e-2", "Running", 2)
    cluster.approve("e-2")
    cluster.result("e-2")
    cluster.error("e-3")
    cluster.wait(100)
    assert cluster.states == ["Pending", "Running", "Completed"]
    assert not cluster.notices


# -- step 5: results --------------------------------------------------------------------------------------------------


def test_from_1_8_a_result_counts_when_its_receipt_comes() -> None:
    """Acks say nothing; only the echo says that the record took the end. Without one the job is undecided."""
    cluster = running()
    cluster.result()
    assert cluster.states[-1] == "Running"
    cluster.wait(9.9)
    assert not cluster.why
    cluster.wait(0.2)
    assert cluster.why == ["unconfirmed"]
    cluster.echo()
    cluster.wait(SETTLE_S)
    assert cluster.states[-1] == "Completed"


def test_a_real_cancel_between_result_and_receipt_voids_the_result() -> None:
    """The store refused that result: a stop won the race."""
    cluster = running()
    cluster.result()
    cluster.cancel()
    cluster.echo()
    cluster.wait(11)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["unconfirmed"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_result_after_a_real_cancel_is_void(profile: Profile) -> None:
    """The execution was cancelled already."""
    cluster = running(profile)
    cluster.cancel()
    cluster.complete()
    cluster.wait(11)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["cancelled"]


@pytest.mark.parametrize("profile", ["1.6-1.7", "1.8+"])
def test_each_partition_must_complete(profile: Profile) -> None:
    """Several completed executions of one partition count once."""
    cluster = Cluster(profile, count=3)
    for number in range(3):
        cluster.ask(f"e-{number}", partition=number)
        cluster.approve(f"e-{number}")
    cluster.ask("e-again", "Running", 2, partition=1)
    for execution in ("e-0", "e-1", "e-again"):
        cluster.complete(execution)
        assert cluster.states == ["Pending", "Running"]
    cluster.complete("e-2")
    assert cluster.states == ["Pending", "Running", "Completed"]


@pytest.mark.parametrize("profile", BEFORE_1_8)
def test_without_partitions_executions_are_counted(profile: Profile) -> None:
    """1.5 and 1.6.0 know no index: as many completed executions as the job has Count."""
    cluster = Cluster(profile, count=3)
    for number in range(3):
        cluster.ask(f"e-{number}")
        cluster.approve(f"e-{number}")
    for number in range(3):
        assert cluster.states[-1] == "Running"
        cluster.complete(f"e-{number}")
    assert cluster.states[-1] == "Completed"


@pytest.mark.parametrize("kind", ["service", "daemon"])
def test_a_long_running_job_is_never_completed(kind: str) -> None:
    """A result of a service is a failed execution: a replacement follows, or the verdict is open."""
    cluster = running(kind=kind)
    cluster.complete()
    cluster.ask("e-2", "Running", 2)
    cluster.complete("e-2")
    cluster.wait(11)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["ended"]


# -- steps 6, 7 and 9: failures, cancels, verdicts --------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_failure_leaves_the_verdict_open(profile: Profile) -> None:
    """No state is invented; after the wait, and not before, the job is announced once, by name, with the reason."""
    cluster = running(profile)
    cluster.error()
    cluster.wait(9.9)
    assert not cluster.notices
    cluster.wait(100)
    assert cluster.states == ["Pending", "Running"]
    version = 1 if profile == "1.8+" else 0
    (notice,) = cluster.notices
    assert (notice.kind, notice.origin, notice.key) == ("undecided", f"j-1-{version}", KEY)
    assert notice.text.startswith(WHY["failed"])
    assert notice.facts == {"why": "failed", "version": version, "state": "Running", "execution": "e-1"}


def test_another_execution_of_another_partition_is_no_answer() -> None:
    """A retry is one of the same job and partition."""
    cluster = running(count=2)
    cluster.error()
    cluster.ask("e-2", "Running", 2, partition=1)
    cluster.wait(11)
    assert cluster.why == ["failed"]


def test_a_job_is_announced_once_a_version() -> None:
    """However much of it is open; a rerun that is open too is another."""
    cluster = running(count=2)
    cluster.ask("e-2", "Running", 2, partition=1)
    cluster.error("e-1")
    cluster.cancel("e-2")
    cluster.wait(11)
    cluster.ask("e-3", "Running", 2)
    cluster.error("e-3")
    cluster.wait(11)
    assert len(cluster.why) == 1
    cluster.ask("e-4", "Pending", 4, version=2)
    cluster.refuse("e-4")
    cluster.wait(11)
    assert cluster.why == ["failed", "rejected"]
    assert [notice.origin for notice in cluster.notices] == ["j-1-1", "j-1-2"]


def test_a_partition_that_waits_for_a_node_is_announced() -> None:
    """One has completed, the other was never asked for: nothing is under way, and nothing tells what comes."""
    cluster = running(count=2)
    cluster.complete()
    cluster.wait(11)
    assert cluster.why == ["idle"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_cancel_is_a_stop_only_where_it_says_so(profile: Profile) -> None:
    """1.5.0 gives the reason; elsewhere a stop, a failure, a time-out, an update and a lost node look the same."""
    cluster = running(profile)
    cluster.cancel(stopped=profile == "1.5.0")
    cluster.wait(11)
    if profile == "1.5.0":
        assert cluster.states == ["Pending", "Running", "Stopped"]
        assert not cluster.notices
    else:
        assert cluster.states == ["Pending", "Running"]
        assert cluster.why == ["cancelled"]


def test_1_5_0_fails_executions_that_were_cancelled() -> None:
    """Its OnComputeFailure after a cancel is an echo, before a stop is known and after it."""
    cluster = running("1.5.0", count=2)
    cluster.ask("e-2")
    cluster.cancel("e-2")
    cluster.error("e-2")
    cluster.cancel("e-1", stopped=True)
    cluster.say(FrameKind.CANCEL_RESULT, "e-1", job=JOB)
    cluster.error("e-1")
    cluster.wait(11)
    assert cluster.states == ["Pending", "Running", "Stopped"]
    assert not cluster.notices


@pytest.mark.parametrize("profile", BEFORE_1_8)
def test_a_cancel_of_an_execution_that_ended_is_ignored(profile: Profile) -> None:
    """It says nothing of an end that counts already."""
    cluster = running(profile, count=2)
    cluster.ask("e-2", partition=1)
    cluster.result("e-1")
    cluster.cancel("e-1")
    cluster.wait(11)
    assert not cluster.notices
    cluster.complete("e-2")
    assert cluster.states[-1] == "Completed"


def test_a_receipt_of_an_end_that_was_not_heard() -> None:
    """It says that the execution ended, not how."""
    cluster = running()
    cluster.echo()
    cluster.wait(11)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["unseen"]


# -- step 8: ops ------------------------------------------------------------------------------------------------------


def ops(profile: Profile = "1.8+", *, nodes: int = 3) -> Cluster:
    """An ops job on some nodes, `e-0` and on."""
    cluster = Cluster(profile, kind="ops", count=0)
    for number in range(nodes):
        cluster.ask(f"e-{number}")
    return cluster


@pytest.mark.parametrize("profile", PROFILES)
def test_an_ops_job_ends_a_moment_after_its_last_execution(profile: Profile) -> None:
    """All ended well: Completed, with the time of the last end; more executions may still be made, so it waits."""
    cluster = ops(profile)
    for number in range(3):
        assert cluster.states == ["Pending", "Running"]
        cluster.complete(f"e-{number}")
    ended = cluster.now
    cluster.wait(0.2)
    assert cluster.states == ["Pending", "Running"]
    cluster.wait(0.1)
    assert cluster.states == ["Pending", "Running", "Completed"]
    assert cluster.published[-1].Time in (None, START + timedelta(seconds=ended))


@pytest.mark.parametrize("profile", PROFILES)
def test_an_ops_job_fails_if_one_of_its_executions_did(profile: Profile) -> None:
    """Failed, with that one's reason, but not before the last has ended."""
    cluster = ops(profile, nodes=2)
    cluster.error("e-0", "it trapped")
    if profile == "1.8+":
        cluster.echo("e-0")
    cluster.wait(5)
    assert cluster.states == ["Pending", "Running"]
    cluster.complete("e-1")
    cluster.wait(1)
    assert cluster.states == ["Pending", "Running", "Failed"]
    assert cluster.published[-1].Message == "it trapped"
    assert not cluster.notices


def test_an_execution_that_comes_late_keeps_an_ops_job_open() -> None:
    """Beyond 20 nodes others are made 0.1 s later."""
    cluster = ops(nodes=1)
    cluster.complete("e-0")
    cluster.wait(0.1)
    cluster.ask("e-9", "Running", 2)
    cluster.wait(5)
    assert cluster.states == ["Pending", "Running"]
    cluster.complete("e-9")
    cluster.wait(1)
    assert cluster.states[-1] == "Completed"


def test_a_refused_bid_leaves_an_ops_job_undecided() -> None:
    """Its record says Completed (recording `ops_with_rejection`), but not all that it wanted has completed."""
    cluster = ops(nodes=2)
    cluster.refuse("e-0")
    cluster.echo("e-0")
    cluster.complete("e-1")
    cluster.wait(1)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["rejected"]


def test_an_end_without_its_receipt_leaves_an_ops_job_undecided() -> None:
    """As for a batch job, for each execution by itself: the receipt of another does not answer it."""
    cluster = ops(nodes=3)
    cluster.result("e-0")
    cluster.result("e-1")
    cluster.echo("e-0")
    cluster.wait(11)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["unconfirmed"]


def test_receipts_leave_nothing_open_while_others_run() -> None:
    """One execution runs for long after another has ended and was confirmed."""
    cluster = ops(nodes=2)
    cluster.complete("e-0")
    cluster.wait(100)
    assert not cluster.notices


def test_a_cancelled_execution_leaves_an_ops_job_undecided() -> None:
    """It may have been stopped, or be over its time."""
    cluster = ops(nodes=2)
    cluster.complete("e-0")
    cluster.cancel("e-1")
    cluster.wait(11)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["cancelled"]


def test_a_rerun_of_a_failed_ops_job_may_be_failed_by_its_past() -> None:
    """Failed executions of earlier versions are said to count: if none of this one failed, nobody can tell."""
    cluster = ops(nodes=1)
    cluster.error("e-0")
    cluster.echo("e-0")
    cluster.wait(1)
    cluster.ask("e-1", "Pending", 4, version=2)
    cluster.complete("e-1")
    cluster.wait(1)
    assert cluster.states == ["Pending", "Running", "Failed", "Pending v2", "Running v2"]
    assert cluster.why == ["earlier"]


def test_a_rerun_of_an_ops_job_with_a_refused_bid_is_judged_by_itself() -> None:
    """A refused bid does not count as failed, in no version."""
    cluster = ops(nodes=2)
    cluster.complete("e-0")
    cluster.refuse("e-1")
    cluster.echo("e-1")
    cluster.wait(1)
    cluster.ask("e-2", "Pending", 4, version=2)
    cluster.complete("e-2")
    cluster.wait(1)
    assert cluster.states[-1] == "Completed v2"
    assert cluster.why == ["rejected"]


@pytest.mark.parametrize("known", ["nothing", "cancelled", "its result"])
def test_a_rerun_of_an_ops_job_that_lost_a_node_may_be_failed_by_its_past(known: str) -> None:
    """The record says that the lost execution failed, and all later versions end Failed; frames show nothing of it."""
    cluster = ops(nodes=2)
    cluster.complete("e-0")
    if known == "cancelled":
        cluster.cancel("e-1")
    elif known == "its result":
        cluster.result("e-1")
    cluster.ask("e-2", "Pending", 4, version=2)
    cluster.complete("e-2")
    cluster.wait(1)
    assert cluster.states == ["Pending", "Running", "Pending v2", "Running v2"]
    assert cluster.why == ["earlier"]


# -- repeats, holes, restarts -----------------------------------------------------------------------------------------


def test_repeats_are_dropped() -> None:
    """Same number, type and execution, with a new time: nothing happens twice (design/bacalhau.md 2.5)."""
    cluster = Cluster()
    cluster.ask(number=1)
    cluster.ask(number=1)
    cluster.say(FrameKind.BID_ACCEPTED, "e-1", number=2)
    cluster.say(FrameKind.BID_ACCEPTED, "e-1", number=2)
    cluster.result(number=9)
    cluster.result(number=9)
    cluster.echo()
    cluster.wait(SETTLE_S)
    assert cluster.states == ["Pending", "Running", "Completed"]
    assert cluster.derivation.counts.repeats == 3


def test_a_gap_is_announced_and_then_each_open_job() -> None:
    """At the start, and when the tap was away: nobody can be asked what happened meanwhile."""
    cluster = running()
    cluster.miss()
    (gap,) = cluster.notices
    assert (gap.kind, gap.facts) == ("gap", {"open": 1})
    cluster.wait(11)
    assert cluster.why == ["missed"]
    cluster.complete()
    assert cluster.states[-1] == "Completed"


def test_a_gap_in_which_nothing_was_heard_is_one() -> None:
    """A server that comes and goes is announced once until something is heard again; then it is another gap."""
    cluster = running()
    cluster.miss()
    cluster.miss()
    assert len(cluster.notices) == 1
    cluster.say(FrameKind.BID_RESULT, "e-1", job=JOB, accepted=True)
    cluster.miss()
    assert len({notice.origin for notice in cluster.notices}) == 2


def test_a_sign_of_life_after_a_gap_is_enough() -> None:
    """A new execution of the same version says that the job goes on."""
    cluster = running()
    cluster.miss()
    cluster.ask("e-2", "Running", 2)
    cluster.wait(100)
    assert not cluster.why


def test_an_orchestrator_that_is_lost_just_after_an_end_may_not_have_concluded_the_job() -> None:
    """Killed between the receipt and its next write it never does: the record stays Running."""
    cluster = running()
    cluster.result()
    cluster.echo()
    cluster.hears = False
    cluster.wait(1)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["restart"]


def test_an_end_before_a_gap_that_is_over_already_proves_nothing() -> None:
    """The tap has another connection before the verdict is due."""
    cluster = running()
    cluster.result()
    cluster.echo()
    cluster.miss()
    cluster.wait(1)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["restart"]


@pytest.mark.parametrize(("ended_ago_s", "why"), [(5.0, ["restart"]), (0.01, [])])
def test_an_end_that_is_told_after_a_gap(ended_ago_s: float, why: list[str]) -> None:
    """A node repeats what ended before: nobody knows whether the record took that then. A new end is proof again."""
    cluster = running()
    cluster.wait(100)
    cluster.miss()
    cluster.wait(1)
    cluster.say(FrameKind.RUN_RESULT, "e-1", job=JOB, ended_ago_s=ended_ago_s)
    cluster.echo()
    cluster.wait(SETTLE_S)
    assert cluster.why == why
    assert cluster.states[2:] == ([] if why else ["Completed"])


def test_a_rerun_ends_the_version_before_at_once() -> None:
    """All of its executions have completed: it does not wait for its verdict to be due."""
    cluster = running()
    cluster.result()
    cluster.echo()
    cluster.ask("e-2", "Pending", 4, version=2)
    assert cluster.states == ["Pending", "Running", "Completed", "Pending v2"]


def test_an_ops_job_with_a_hole_in_it_is_not_concluded() -> None:
    """Executions that nobody heard of may still run, or have failed."""
    cluster = ops(nodes=1)
    cluster.miss()
    cluster.complete("e-0")
    cluster.wait(1)
    assert cluster.states == ["Pending", "Running"]
    assert cluster.why == ["unseen"]


def test_an_ops_job_of_which_others_were_asked_before_is_not_concluded() -> None:
    """The first snapshot that is heard is Running already: so there are executions that nobody heard of."""
    cluster = Cluster(kind="ops")
    cluster.ask("e-9", "Running", 2)
    cluster.complete("e-9")
    cluster.wait(1)
    assert cluster.states == ["Running"]
    assert cluster.why == ["unseen"]


@pytest.mark.parametrize("unheard", ["before a restart", "between others"])
def test_an_execution_that_was_not_heard_of_keeps_an_ops_job_from_its_verdict(unheard: str) -> None:
    """Whether the log or a frame of it says that there was one."""
    if unheard == "before a restart":
        cluster = restarted("Running", kind="ops")
        cluster.ask("e-1", "Running", 2)
    else:
        cluster = ops(nodes=1)
        cluster.ask("e-1", "Running", 2)
        cluster.error("e-unheard")
        cluster.complete("e-0")
    cluster.complete("e-1")
    cluster.wait(1)
    assert not {"Completed", "Failed"} & set(cluster.states)
    assert cluster.why == ["unseen"]


@pytest.mark.parametrize(
    ("ended", "told"), [("Completed", ["Pending v2", "Running v2", "Completed v2"]), ("Failed", None)]
)
def test_a_rerun_of_an_ops_job_from_before_a_restart(ended: str, told: list[str] | None) -> None:
    """Of one that was Completed no execution had failed; of another some may have, and may count."""
    cluster = restarted(ended, kind="ops")
    cluster.ask("e-1", "Pending", 4, version=2)
    cluster.complete("e-1")
    cluster.wait(1)
    assert cluster.states == (told or ["Pending v2", "Running v2"])
    assert cluster.why == ([] if told else ["earlier"])


def test_after_a_restart_the_open_jobs_of_the_log_are_known_and_undecided() -> None:
    """What was seen before is gone. Ends of executions from before decide nothing; a new run begins at Pending."""
    cluster = restarted("Running")
    cluster.miss()
    cluster.complete("e-before")
    cluster.wait(11)
    assert cluster.states == []
    assert cluster.why == ["missed"]
    cluster.ask("e-2", "Pending", 4, version=2)
    assert cluster.states == ["Pending v2"]
    assert cluster.published[0].Sequence == 3


def test_after_a_restart_a_retry_goes_on_where_the_log_stands() -> None:
    """The snapshot is no step back, and the retry's result counts."""
    cluster = restarted("Running")
    cluster.ask("e-2", "Running", 2)
    cluster.complete("e-2")
    assert cluster.states == ["Completed"]


@pytest.mark.parametrize(("stands", "told"), [("Running", "Queued"), ("Queued", "Running")])
def test_of_two_states_that_follow_each_other_the_log_keeps_its_own(stands: str, told: str) -> None:
    """After a restart nobody knows which of Queued and Running was the later: a snapshot may be an old one."""
    cluster = restarted(stands)
    cluster.ask("e-2", told, 3)
    assert cluster.states == []


def test_a_finished_job_of_the_log_stays_finished() -> None:
    """An old AskForBid that comes back after a restart is late."""
    cluster = restarted("Stopped")
    cluster.ask()
    cluster.approve()
    cluster.complete()
    cluster.wait(11)
    assert cluster.states == []
    assert not cluster.notices


def test_an_execution_from_before_anybody_listened_is_announced_by_its_job() -> None:
    """Its namespace is in no such frame, so there is no update: the notice has the job's id. Once."""
    cluster = Cluster()
    cluster.result("e-1", job="j-before")
    cluster.result("e-2", job="j-before")
    cluster.approve("e-3")  # names no job at all
    (notice,) = cluster.notices
    assert (notice.kind, notice.key, notice.facts["job"]) == ("undecided", None, "j-before")
    assert not cluster.published


# -- one authority ----------------------------------------------------------------------------------------------------


def test_a_job_that_was_observed_is_carried_on() -> None:
    """Record and frames tell of the same thing: where the record's revision stands is known, so old news is too."""
    cluster = restarted("Running", source=OBSERVED, revision=2)
    cluster.ask("e-0", "Pending", 1)
    cluster.ask("e-2", "Queued", 3)
    cluster.approve("e-2")
    cluster.complete("e-2")
    assert cluster.states == ["Queued", "Running", "Completed"]
    assert {update.Source for update in cluster.published} == {DERIVED}


def test_a_job_that_was_reported_is_the_producers() -> None:
    """An inference is no record that could take over: nothing is published, and nothing announced."""
    cluster = restarted("Running", source=REPORTED)
    cluster.miss()
    cluster.wait(11)
    cluster.ask()
    cluster.approve()
    cluster.error()
    cluster.miss()
    cluster.wait(11)
    assert not cluster.published
    assert not cluster.why


def test_a_report_about_a_derived_job_is_rejected() -> None:
    """Frames came first: the job is theirs."""
    cluster = running()
    cluster.lanes.offer(
        Report(key=KEY, job=Identity(id=JOB, namespace="default"), position=InputPosition(1, 1), state="Failed")
    )
    cluster.follow()
    assert cluster.rejected == 1
    assert cluster.states == ["Pending", "Running"]


def test_a_report_that_was_first_in_the_log_keeps_the_job() -> None:
    """It was written while our first update was on its way: that does not fit, and the job is left alone."""
    cluster = Cluster()
    report = Report(key=KEY, job=Identity(id=JOB, namespace="default"), position=InputPosition(1, 1), state="Running")
    cluster.lanes.offer(report)
    cluster.ask()
    cluster.approve()
    cluster.complete()
    assert [update.Source for update in cluster.published] == [REPORTED]


# -- two daemons, bounds, rules ---------------------------------------------------------------------------------------


def test_two_daemons_write_one_log() -> None:
    """Both hear the same, the second later: each update is there once, and both go on."""
    log = MemoryLog()
    first, second = Cluster(log=log), Cluster(log=log)
    for cluster in (first, second):
        cluster.ask()
        cluster.approve()
    for cluster in (second, first):
        cluster.complete()
    assert [entry.subject.rpartition(".")[2] for entry in log.entries] == ["pending", "running", "completed"]


def test_a_daemon_that_heard_less_says_what_the_log_has_not() -> None:
    """The other one missed the queue: it follows the log, and takes no state back."""
    log = MemoryLog()
    first, second = Cluster(log=log, count=2), Cluster(log=log, count=2)
    first.ask()
    second.ask()
    first.approve()
    first.ask("e-2", "Queued", 3, partition=1)
    first.approve("e-2")
    second.approve()
    second.ask("e-2", "Running", 4, partition=1)
    second.complete("e-1")
    second.complete("e-2")
    states = [entry.subject.rpartition(".")[2] for entry in log.entries]
    assert states == ["pending", "running", "queued", "running", "completed"]


def test_a_daemon_that_was_paused_does_not_queue_what_runs() -> None:
    """Its Queued is old by now: of states that lead to each other the log's word stands."""
    log = MemoryLog()
    first, second = Cluster(log=log, count=2), Cluster(log=log, count=2)
    for cluster in (first, second):
        cluster.ask()
    first.approve()
    first.ask("e-2", "Queued", 3, partition=1)
    first.approve("e-2")
    second.ask("e-2", "Queued", 3, partition=1)
    assert [entry.subject.rpartition(".")[2] for entry in log.entries] == ["pending", "running", "queued", "running"]
    second.complete("e-1")
    second.complete("e-2")
    assert [entry.subject.rpartition(".")[2] for entry in log.entries[4:]] == ["completed"]


def test_what_the_rules_reject_stands_still() -> None:
    """It is in quarantine, and announced at once; nothing of that version is published after it."""
    cluster = running()
    record = Record(key=KEY, job=Identity(id=JOB, namespace="default"), after=START_PLACE, steps=())
    cluster.derivation.decided(record, Rejected(reason="illegal-transition", rule="no"))
    cluster.complete()
    assert cluster.why == ["halted"]
    assert cluster.states == ["Pending", "Running"]
    cluster.ask("e-2", "Pending", 4, version=2)
    assert cluster.states[-1] == "Pending v2"


def test_a_job_agrees_with_the_log_while_frames_leave_nothing_open() -> None:
    """What a warning of a stuck job rests on: the last moment at which nothing spoke against the log."""
    cluster = running()
    derivation = cluster.derivation
    derivation.due_reads(5.0)
    assert derivation.agreed_at(JOB) == 5.0
    assert derivation.agreed_at("j-2") is None
    cluster.result()
    cluster.echo()
    assert derivation.agreed_at(JOB) is None
    cluster.ask("e-2", "Running", 2)
    assert derivation.agreed_at(JOB) == 5.0
    cluster.error("e-2")
    assert derivation.agreed_at(JOB) is None


def test_finished_jobs_leave_next_to_nothing() -> None:
    """Their executions are forgotten with them; what is kept of both is bounded."""
    cluster = Cluster(settings=DerivationSettings(executions_max=10, jobs_max=10))
    for number in range(50):
        cluster.ask(f"e-{number}", job=f"j-{number}")
        cluster.say(FrameKind.RUN_RESULT, f"e-{number}", job=f"j-{number}")
        cluster.echo(f"e-{number}")
        cluster.wait(SETTLE_S)
    derivation = cluster.derivation
    assert (derivation.open_jobs, derivation.executions_known) == (0, 0)
    assert len(derivation._ended) == len(derivation._past) == 10
    assert not cluster.notices


def test_what_is_forgotten_for_want_of_room_is_announced() -> None:
    """The oldest open job, or the job of the oldest execution."""
    cluster = Cluster(settings=DerivationSettings(executions_max=100, jobs_max=2))
    for number in range(3):
        cluster.ask(f"e-{number}", job=f"j-{number}")
    assert [notice.origin for notice in cluster.notices] == ["j-0-1"]
    cluster = Cluster(count=3, settings=DerivationSettings(executions_max=2, jobs_max=100))
    for number in range(3):
        cluster.ask(f"e-{number}", partition=number)
    cluster.wait(11)
    assert cluster.why == ["forgotten"]
    assert cluster.derivation.executions_known == 2


def test_each_record_names_the_update_that_it_follows() -> None:
    """Several steps of one job may be under way at once: each names what the one before it will make of the log."""
    derivation = Derivation(RULES, lambda _: None)
    cluster = Cluster()
    cluster.derivation = derivation
    cluster.follow = lambda: None  # type: ignore[method-assign]  # nothing is decided yet
    cluster.ask()
    cluster.approve()
    cluster.complete()
    records = [event for event in derivation.events if isinstance(event, Record)]
    assert [(record.after.sequence, record.after.state, record.steps[0].state) for record in records] == [
        (0, "", "Pending"),
        (1, "Pending", "Running"),
        (2, "Running", "Completed"),
    ]
    assert appended(records) == ["pending", "running", "completed"]


def appended(records: Sequence[Record]) -> list[str]:
    """The states that lanes write of *records*."""
    lanes, log = Lanes(RULES, Names()), MemoryLog()
    for record in records:
        lanes.offer(record)
    while asks := lanes.take(0.0):
        for ask in asks:
            assert isinstance(ask, Append)
            lanes.answer(ask.token, log.answer(ask), 0.0)
    return [entry.subject.rpartition(".")[2] for entry in log.entries]
