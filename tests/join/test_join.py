"""What is read and when, and what comes of it: `consumer.join.join`. Time is a number; nobody waits."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest

from consumer.fold import decide, follow
from consumer.join import Join, JoinSettings, Missing, OrchestratorRead, ReadHistory, ReadJob, ReadJobs
from consumer.model import (
    OBSERVED,
    REPORTED,
    Accepted,
    BadJob,
    Frame,
    FrameKind,
    HistoryEntry,
    HistoryPage,
    Identity,
    JobKey,
    JobPage,
    Known,
    Notice,
    Record,
    Rejected,
    Snapshot,
    Unchanged,
)
from consumer.rules import load

RULES = load(None)
HINTS_ONLY = JoinSettings(lists=False, scan_rate=0)
NEVER_EARLY = msgspec.structs.replace(HINTS_ONLY, derive=False)
TURNS_ONLY = JoinSettings(lists=False)


def identity(job: str = "j-1") -> Identity:
    """Whose job it is."""
    return Identity(id=job, namespace="default", name="one", type="batch")


def snapshot(state: str, revision: int, *, version: int = 0, job: str = "j-1", modified_ns: int = 1) -> Snapshot:
    """The job as an `AskForBid` or a list shows it."""
    return Snapshot(
        job=identity(job), count=1, version=version, revision=revision, state=state, modified_ns=modified_ns
    )


def ask_for_bid(shown: Snapshot, execution: str = "e-1", *, direct: bool = False) -> Frame:
    """The frame that shows the job."""
    return Frame(
        kind=FrameKind.ASK_FOR_BID,
        execution=execution,
        node="n-1",
        profile="1.8+",
        job=shown.job.id,
        snapshot=shown,
        direct=direct,
    )


def message(
    kind: FrameKind, execution: str = "e-1", *, job: str = "", accepted: bool = False, echo: bool = False
) -> Frame:
    """A frame about an execution."""
    return Frame(kind=kind, execution=execution, node="n-1", profile="1.8+", job=job, accepted=accepted, echo=echo)


def history(*states: str, more: str = "", rows: int | None = None, at_s: int | None = None) -> HistoryPage:
    """A page of history with these states in one version, all written at *at_s*."""
    time = None if at_s is None else datetime.fromtimestamp(at_s, UTC)
    entries = tuple(
        HistoryEntry(number=number, version=0, state=state, message="", time=time)
        for number, state in enumerate(states, 1)
    )
    return HistoryPage(entries=entries, items=len(entries) if rows is None else rows, next_token=more)


class Scene:
    """A join, what the log has, and what the join came to."""

    def __init__(self, settings: JoinSettings = HINTS_ONLY, *, since_ns: int | None = 0) -> None:
        self.log: dict[JobKey, Known] = {}
        self.join = Join(RULES, self.log.get, settings, since_ns=since_ns)
        if not settings.lists and since_ns is not None:
            self.join.look_nowhere()

    def has(
        self, state: str, revision: int | None, *, version: int = 0, job: str = "j-1", source: str = OBSERVED
    ) -> None:
        """The log stands there, an update for each entry."""
        self.log[JobKey(f"default.{job}")] = Known(
            number=100, sequence=revision or 1, state=state, version=version, revision=revision, source=source
        )

    def published(self) -> list[tuple[int | None, str]]:
        """Let the fold decide what the join brought; revision and state of each update since the last look."""
        updates: list[tuple[int | None, str]] = []
        events, self.join.events = self.join.events, []
        for event in events:
            assert isinstance(event, Record), event
            decision = decide(RULES, self.log.get(event.key), event)
            while isinstance(decision, Accepted):
                update = decision.update
                self.log[event.key] = follow(self.log.get(event.key), update, 200 + len(updates))
                updates.append((update.Job.Revision, update.StateType))
                if not decision.more:
                    break
                decision = decide(RULES, self.log.get(event.key), event)
            self.join.decided(event, decision)
        return updates

    def reads(self, now: float) -> list[OrchestratorRead]:
        """What is to be read now."""
        return self.join.take(now)

    def read(self, now: float) -> OrchestratorRead:
        """The one read that is to be made now."""
        (read,) = self.join.take(now)
        return read

    def wait(self, now: float) -> tuple[float, OrchestratorRead]:
        """The next read that time alone brings, and when."""
        reads: list[OrchestratorRead] = []
        while not reads:
            due = self.join.wake_at()
            assert due is not None
            now = max(now, due)
            reads = self.join.take(now)
        (read,) = reads
        return now, read

    def read_list(self, now: float) -> OrchestratorRead:
        """The one list among the reads that are to be made now."""
        (read,) = (read for read in self.join.take(now) if isinstance(read, ReadJobs))
        return read

    def answer(self, read: OrchestratorRead, answer: HistoryPage | Snapshot | JobPage | Missing, now: float) -> None:
        """The orchestrator answers, and the fold follows."""
        self.join.answered(read, answer, now)


class TestSnapshot:
    """An `AskForBid` shows the job as it was before the write."""

    def test_a_new_job_at_its_first_revision_is_published_without_a_read(self) -> None:
        """Exactly one ahead of nothing: Pending at revision 1."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        assert scene.published() == [(1, "Pending")]
        assert scene.reads(0.0) == []

    def test_one_ahead_is_published_without_a_read(self) -> None:
        """The next revision of the same version."""
        scene = Scene()
        scene.has("Pending", 1)
        scene.join.frame(ask_for_bid(snapshot("Queued", 2)), 0.0)
        assert scene.published() == [(2, "Queued")]
        assert scene.reads(0.0) == []

    @pytest.mark.parametrize(
        ("known", "shown"),
        [
            (None, snapshot("Running", 2)),
            (None, snapshot("Running", 1)),
            (("Pending", 1), snapshot("Running", 3)),
            (("Pending", 1), snapshot("Failed", 2)),
            (("Running", 2), snapshot("Completed", 3)),
            (("Pending", 1), snapshot("Running", 1)),
            (("Queued", 2), snapshot("Pending", 3)),
            (("Failed", 3), snapshot("Running", 4, version=1)),
            (("Failed", 3), snapshot("Pending", 4, version=1)),
        ],
    )
    def test_anything_else_is_a_hint(self, known: tuple[str, int] | None, shown: Snapshot) -> None:
        """Further ahead, another state there, a forbidden step, an end, an unseen life: the record is asked."""
        scene = Scene()
        if known is not None:
            scene.has(*known)
        scene.join.frame(ask_for_bid(shown), 0.0)
        assert scene.join.events == []
        assert isinstance(scene.read(0.0), ReadHistory)

    def test_a_new_life_is_published_if_the_record_was_seen_to_end_where_the_log_does(self) -> None:
        """Pending of the next version is one ahead when the last history read had nothing that the log has not."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        assert scene.published() == [(1, "Pending")]
        scene.join.frame(message(FrameKind.COMPUTE_ERROR), 0.0)
        read = scene.read(0.0)
        scene.join.frame(message(FrameKind.COMPUTE_ERROR), 0.0)
        scene.answer(read, history("Pending", "Running"), 0.0)
        assert scene.published() == [(2, "Running")]
        scene.join.frame(ask_for_bid(snapshot("Pending", 3, version=1), "e-2"), 0.0)
        assert scene.published() == [(3, "Pending")]

    def test_a_log_that_left_an_entry_out_is_not_counted_by_revision(self) -> None:
        """Where an entry was merged Bacalhau's revision is no entry's number: only the history can tell."""
        scene = Scene()
        scene.has("Running", 3)
        key = JobKey("default.j-1")
        scene.log[key] = msgspec.structs.replace(scene.log[key], sequence=2)
        scene.join.frame(ask_for_bid(snapshot("Queued", 4)), 0.0)
        assert scene.join.events == []
        assert isinstance(scene.read(0.0), ReadHistory)

    def test_a_record_that_was_seen_further_is_not_counted_by_the_log(self) -> None:
        """One revision left two equal entries, one update: the next revision is not the number of the next entry."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        assert scene.published() == [(1, "Pending")]
        scene.join.frame(message(FrameKind.COMPUTE_ERROR), 0.0)
        read = scene.read(0.0)
        scene.join.frame(message(FrameKind.COMPUTE_ERROR), 0.005)  # so that it is looked at, and remembered, on
        scene.answer(read, history("Pending", "Queued", "Queued"), 0.01)
        assert scene.published() == [(2, "Queued")]
        scene.join.frame(ask_for_bid(snapshot("Running", 3), "e-2"), 0.02)
        assert scene.join.events == []

    def test_a_job_of_reports_is_asked_for(self) -> None:
        """What producers said gives no place in the record."""
        scene = Scene()
        scene.has("Pending", None, source=REPORTED)
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        assert scene.join.events == []
        assert isinstance(scene.read(0.0), ReadHistory)

    def test_what_the_log_has_already_needs_no_read(self) -> None:
        """A second `AskForBid` of the same place, and one from before, bring no update; the first also no read."""
        scene = Scene(TURNS_ONLY)
        scene.has("Queued", 2)
        scene.join.frame(ask_for_bid(snapshot("Queued", 2)), 0.0)
        assert (scene.join.events, scene.reads(0.0)) == ([], [])
        assert scene.wait(0.0)[0] == 1.0  # from now on it is open, and has its turn

    def test_of_a_job_that_is_over_nothing_is_remembered(self) -> None:
        """A node is asked once more about a job whose end the log has."""
        scene = Scene(TURNS_ONLY)
        scene.has("Completed", 3)
        scene.join.frame(ask_for_bid(snapshot("Completed", 3)), 0.0)
        assert (scene.join.events, scene.reads(9.0), scene.join._jobs) == ([], [], {})

    def test_a_bid_that_runs_at_once_is_read_until_it_does(self) -> None:
        """Desired state Running: the record is Running at the next revision, so that is waited for."""
        scene = Scene(NEVER_EARLY)
        scene.join.frame(ask_for_bid(snapshot("Pending", 1), direct=True), 0.0)
        assert scene.published() == [(1, "Pending")]
        scene.answer(scene.read(0.0), history("Pending"), 0.01)
        assert scene.join.hints_open == 1
        scene.answer(scene.read(0.06), history("Pending", "Running"), 0.07)
        assert scene.published() == [(2, "Running")]
        assert scene.join.hints_open == 0


class TestHints:
    """A frame is a hint, and a hint is a read."""

    def scene(self, state: str = "Running", revision: int = 2) -> Scene:
        """The log stands at a snapshot that was just shown, in execution e-1."""
        scene = Scene()
        scene.has(state, revision)
        scene.join.frame(ask_for_bid(snapshot(state, revision)), 0.0)
        assert scene.reads(0.0) == []
        return scene

    def test_the_history_is_read_and_its_steps_published(self) -> None:
        """All versions of the job, in its namespace, because of a hint."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        read = scene.read(0.0)
        assert read == ReadHistory(job="j-1", namespace="default", cause="hint")
        scene.answer(read, history("Pending", "Running", "Completed"), 0.01)
        (event,) = scene.join.events
        assert isinstance(event, Record)
        assert (event.cause, event.after.revision) == ("hint", 2)
        assert scene.published() == [(3, "Completed")]
        assert scene.join.wake_at() is None

    def test_one_read_is_in_flight_and_one_pending(self) -> None:
        """Ten hints while a read is out are one more read."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        read = scene.read(0.0)
        for _ in range(10):
            scene.join.frame(message(FrameKind.RUN_RESULT), 0.001)
        assert scene.reads(0.005) == []
        scene.answer(read, history("Pending", "Running"), 0.01)
        read = scene.read(0.01)
        scene.answer(read, history("Pending", "Running"), 0.02)
        assert scene.reads(0.02) == []

    def test_an_unanswered_hint_is_read_again_four_times(self) -> None:
        """50 ms, 200 ms, 1 s and 5.05 s after it, and then no more."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.01)
        for due in (0.05, 0.2, 1.0, 5.05):
            assert scene.join.wake_at() == due
            assert scene.reads(due - 0.001) == []
            scene.answer(scene.read(due), history("Pending", "Running"), due + 0.01)
        assert scene.join.hints_open == 0
        assert scene.join.wake_at() is None

    def test_a_read_in_between_takes_no_repeat_away(self) -> None:
        """An echo is read before the first repeat is due: that one is due all the same (1.9.3/ops, live: 199 ms)."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.COMPUTE_ERROR), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.002)
        scene.join.frame(message(FrameKind.CANCEL_EXECUTION, echo=True), 0.003)
        scene.answer(scene.read(0.003), history("Pending", "Running"), 0.004)
        assert scene.join.wake_at() == 0.05
        scene.answer(scene.read(0.05), history("Pending", "Running", "Failed"), 0.06)
        assert scene.published() == [(3, "Failed")]

    def test_one_read_serves_every_repeat_that_was_due_when_it_left(self) -> None:
        """An answer that takes its time is followed by the repeats that were due meanwhile, as one read."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.3)
        scene.answer(scene.read(0.3), history("Pending", "Running"), 0.31)
        assert scene.join.wake_at() == 1.0

    def test_what_waited_for_its_turn_left_later_than_it_was_asked_for(self) -> None:
        """A repeat that was due while the read waited for `max_rate` is served by that read: it left after it."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        read = scene.read(0.0)
        scene.join.answered(read, history("Pending", "Running"), 3.0, started=2.9)
        assert scene.join.wake_at() == 5.05

    def test_a_job_that_is_not_there_is_asked_for_as_often_and_no_more(self) -> None:
        """A frame names a job that the orchestrator does not know (404): at once, and at each repeat."""
        scene = Scene()
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-9"), 0.0)
        for due in (0.0, 0.05, 0.2, 1.0, 5.05):
            read = scene.read(due)
            assert isinstance(read, ReadJob)
            scene.answer(read, Missing(), due + 0.01)
        assert scene.join.wake_at() is None

    def test_news_in_the_record_ends_the_repeats(self) -> None:
        """A repeat that the record has answered is the last."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.01)
        scene.answer(scene.read(0.05), history("Pending", "Running", "Queued"), 0.06)
        assert scene.published() == [(3, "Queued")]
        assert scene.join.hints_open == 0
        assert scene.join.wake_at() is None

    def test_news_that_a_later_hint_may_follow_do_not_end_it(self) -> None:
        """A hint that came after the read was sent is open still: the answer may be older than it."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        read = scene.read(0.0)
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.005)
        scene.answer(read, history("Pending", "Running", "Queued"), 0.01)
        assert scene.published() == [(3, "Queued")]
        assert scene.join.hints_open == 1
        assert isinstance(scene.read(0.01), ReadHistory)

    def test_an_approval_waits_for_the_running_that_it_brings(self) -> None:
        """News before it do not answer it: the record is read until it has the entry after the snapshot."""
        scene = Scene()
        scene.has("Pending", 1)
        scene.join.frame(ask_for_bid(snapshot("Queued", 2)), 0.0)
        scene.log.clear()
        scene.has("Pending", 1)
        (event,) = scene.join.events
        assert isinstance(event, Record)
        scene.join.events.clear()
        scene.join.decided(event, Unchanged(reason="late"))
        scene.join.frame(message(FrameKind.BID_ACCEPTED), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Queued"), 0.01)
        assert scene.published() == [(2, "Queued")]
        assert scene.join.hints_open == 1
        scene.answer(scene.read(0.05), history("Pending", "Queued", "Running"), 0.06)
        assert scene.published() == [(3, "Running")]
        assert scene.join.hints_open == 0

    def test_a_hint_for_anything_new_outlasts_one_that_knows(self) -> None:
        """An approval after an end that is not answered yet does not shorten the wait for it."""
        scene = self.scene("Queued", 2)
        scene.join.frame(message(FrameKind.COMPUTE_ERROR), 0.0)
        scene.join.frame(message(FrameKind.BID_ACCEPTED), 0.0)
        assert scene.join._jobs["j-1"].hint.until == 0

    def test_an_accepted_bid_is_no_hint(self) -> None:
        """The approval follows, and says more."""
        scene = self.scene("Pending", 1)
        scene.join.frame(message(FrameKind.BID_RESULT, job="j-1", accepted=True), 0.0)
        assert scene.reads(0.0) == []
        scene.join.frame(message(FrameKind.BID_RESULT, job="j-1"), 0.0)
        assert isinstance(scene.read(0.0), ReadHistory)

    def test_the_approval_of_a_running_job_is_no_hint(self) -> None:
        """The job runs already; so does one that another execution made Running."""
        scene = self.scene("Running", 2)
        scene.join.frame(message(FrameKind.BID_ACCEPTED), 0.0)
        assert scene.reads(0.0) == []

    def test_a_frame_of_a_finished_job_is_no_hint(self) -> None:
        """After the end of its version nothing of the execution moves the job."""
        scene = self.scene()
        scene.has("Completed", 3)
        scene.join.frame(message(FrameKind.CANCEL_EXECUTION), 0.0)
        assert scene.reads(0.0) == []

    @pytest.mark.parametrize(
        "frame",
        [
            message(FrameKind.BID_REJECTED),
            message(FrameKind.CANCEL_RESULT),
            message(FrameKind.CANCEL_EXECUTION, echo=True),
        ],
    )
    def test_what_moves_no_job_is_worth_one_look(self, frame: Frame) -> None:
        """A bid turned down, the end of a cancel, the echo of an end: read once, not watched."""
        scene = self.scene()
        scene.join.frame(frame, 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.01)
        assert scene.join.hints_open == 0
        assert scene.join.wake_at() is None

    def test_a_job_that_is_not_there_yet_is_asked_for_again(self) -> None:
        """404 after a frame means "not yet"."""
        scene = Scene()
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        read = scene.read(0.0)
        scene.answer(read, Missing(), 0.01)
        assert scene.join.counts.missing == 1
        assert scene.join.wake_at() == 0.05
        assert scene.read(0.05) == read

    def test_only_the_id_is_known_so_the_job_is_read_once(self) -> None:
        """The job itself at first contact, for its namespace and type; then, and ever after, its history."""
        scene = Scene()
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        read = scene.read(0.0)
        assert read == ReadJob(job="j-1", cause="hint")
        scene.answer(read, snapshot("Running", 2), 0.01)
        read = scene.read(0.01)
        assert read == ReadHistory(job="j-1", namespace="default", cause="hint")
        scene.answer(read, history("Pending", "Running"), 0.02)
        (event,) = scene.join.events
        assert isinstance(event, Record)
        assert event.job == identity()
        assert scene.published() == [(1, "Pending"), (2, "Running")]
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 1.0)
        assert isinstance(scene.read(1.0), ReadHistory)

    def test_a_read_that_failed_is_asked_again(self) -> None:
        """A second later, as the hint that it was; no page of the failed one is kept."""
        scene = Scene(msgspec.structs.replace(HINTS_ONLY, history_limit=2))
        scene.join.frame(ask_for_bid(snapshot("Running", 2)), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running", more="t"), 0.01)
        scene.join.failed(scene.read(0.01), 0.02)
        assert scene.reads(1.0) == []
        read = scene.read(1.02)
        assert read == ReadHistory(job="j-1", namespace="default", cause="hint")
        scene.answer(read, history("Pending", "Running", rows=2), 1.03)
        assert scene.published() == [(1, "Pending"), (2, "Running")]

    def test_a_hint_that_came_after_the_read_left_outlasts_the_end_that_it_brings(self) -> None:
        """The job was over when the record was read, and lives again since: the frame of that is not forgotten."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        read = scene.read(0.0)
        scene.join.frame(ask_for_bid(snapshot("Pending", 4, version=1), "e-2"), 0.008)
        scene.answer(read, history("Pending", "Running", "Completed"), 0.01)
        assert scene.published() == [(3, "Completed")]
        read = scene.read(0.01)
        assert read == ReadHistory(job="j-1", namespace="default", cause="hint")
        scene.answer(read, history("Pending", "Running", "Completed"), 0.02)
        assert scene.wait(0.02)[0] == pytest.approx(0.058)  # it is watched for on

    def test_a_later_hint_does_not_forget_what_a_frame_has_shown(self) -> None:
        """A frame showed the fifth entry: a history that ends before it is an old one, whatever came since."""
        scene = Scene()
        scene.has("Completed", 3)
        scene.join.frame(ask_for_bid(snapshot("Pending", 5, version=1)), 0.0)
        old = history("Pending", "Running", "Completed")
        scene.answer(scene.read(0.0), old, 0.01)
        scene.join.frame(message(FrameKind.RUN_RESULT, "e-7", job="j-1"), 0.02)
        scene.answer(scene.read(0.02), old, 0.03)
        assert scene.join.hints_open == 1

    def test_what_is_decided_of_an_older_event_is_not_the_newer_one_s(self) -> None:
        """Pending and Running are under way, and Pending is decided: Running still is, so a read brings nothing."""
        scene = Scene(TURNS_ONLY)
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.join.frame(message(FrameKind.BID_ACCEPTED), 0.0)
        pending, _ = scene.join.events
        assert isinstance(pending, Record)
        scene.join.events = []
        scene.join.decided(pending, Unchanged(reason="late"))
        scene.answer(scene.read(1.0), history("Pending", "Running"), 1.0)
        assert scene.join.events == []

    def test_the_echo_of_an_end_that_is_being_read_costs_no_read(self) -> None:
        """It confirms what the frame before said: the read that is under way will tell, or be repeated."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        read = scene.read(0.0)
        scene.join.frame(message(FrameKind.CANCEL_EXECUTION, echo=True), 0.004)
        scene.answer(read, history("Pending", "Running", "Completed"), 0.01)
        assert scene.published() == [(3, "Completed")]
        assert scene.reads(60.0) == []

    def test_a_read_that_failed_is_not_forgotten_when_the_log_catches_up(self) -> None:
        """The log is slow, a list tells of a new life, and its read fails: what is confirmed then ends no wait."""
        scene = self.scene("Pending", 1)
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Completed"), 0.01)
        scene.answer(ReadJobs(limit=100), JobPage(jobs=(snapshot("Pending", 3, version=1),), next_token=""), 1.0)
        scene.join.failed(scene.read(1.0), 1.1)
        assert scene.published() == [(2, "Completed")]
        assert scene.read(2.1) == ReadHistory(job="j-1", namespace="default", cause="scan")

    def test_a_list_that_differs_overtakes_a_read_in_flight(self) -> None:
        """What the list says may be newer than the read that is under way."""
        scene = self.scene("Pending", 1)
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        read = scene.read(0.0)
        scene.answer(ReadJobs(limit=100), JobPage(jobs=(snapshot("Running", 2),), next_token=""), 0.005)
        scene.answer(read, history("Pending"), 0.01)
        assert isinstance(scene.read(0.01), ReadHistory)

    @pytest.mark.parametrize("settings", [HINTS_ONLY, TURNS_ONLY], ids=["finished", "open"])
    def test_a_job_that_cannot_be_read_is_asked_for_ever_more_seldom_and_announced(
        self, settings: JoinSettings
    ) -> None:
        """After 1, 2, 4 … s, at last once a minute, also if it is open; the first answer makes all as it was."""
        scene = Scene(settings)
        scene.has("Running", 2)
        scene.join.resume(identity())
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        now, times = 0.0, [0.0]
        (read,) = scene.reads(0.0)
        for _ in range(9):
            scene.join.failed(read, now, alone="wrong-shape")
            now, read = scene.wait(now)
            times.append(now)

        assert [after - before for before, after in itertools.pairwise(times)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        (notice,) = scene.join.events
        assert isinstance(notice, Notice)
        assert (notice.kind, notice.origin, notice.facts) == (
            "unreadable",
            "j-1-wrong-shape",
            {"job": "j-1", "error": "wrong-shape"},
        )
        scene.answer(read, history("Pending", "Running"), now)
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), now)
        scene.join.failed(scene.read(now), now, alone="wrong-shape")
        assert scene.wait(now)[0] == now + 1

    def test_a_list_that_differs_does_not_hurry_a_job_that_cannot_be_read(self) -> None:
        """It says each second that the job is another than in the log; the job's next try has its time all the same."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        read, now = scene.read(0.0), 0.0
        for _ in range(4):
            scene.join.failed(read, now, alone="wrong-shape")
            now, read = scene.wait(now)
        scene.join.failed(read, now, alone="wrong-shape")
        page = JobPage(jobs=(snapshot("Completed", 3),), next_token="")
        scene.answer(ReadJobs(limit=100), page, now + 1)
        assert scene.reads(now + 1) == []
        assert scene.wait(now + 1)[0] == now + 16

    def test_what_a_list_says_is_looked_at_though_the_read_before_answers_the_frame(self) -> None:
        """The read in flight left before the list: its answer may be older than that."""
        scene = self.scene("Pending", 1)
        scene.join.frame(ask_for_bid(snapshot("Running", 3)), 0.0)
        read = scene.read(0.0)
        scene.answer(ReadJobs(limit=100), JobPage(jobs=(snapshot("Completed", 4),), next_token=""), 0.001)
        scene.answer(read, history("Pending", "Queued", "Running"), 0.01)
        assert isinstance(scene.read(0.01), ReadHistory)

    def test_frames_of_a_job_that_cannot_be_read_hurry_nobody(self) -> None:
        """Each has it read at once, and each of these reads fails: the next try has its time, and nothing is blamed."""
        scene = self.scene()
        for number in range(20):
            now = number / 1000
            scene.join.frame(message(FrameKind.RUN_RESULT), now)
            scene.join.failed(scene.read(now), now, alone="wrong-shape")
        assert scene.join.events == []
        assert scene.wait(0.02)[0] == 1.019

    def test_while_nobody_is_answered_a_job_is_not_blamed(self) -> None:
        """An orchestrator that is away says nothing of a job: it is asked again each second, however long that is."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        for second in range(20):
            scene.join.failed(scene.read(float(second)), float(second))
        assert scene.join.events == []

    @pytest.mark.parametrize(
        ("tokens", "most"), [(itertools.repeat("same"), 2), (map(str, itertools.count()), 11)], ids=["same", "others"]
    )
    def test_a_history_without_an_end_is_no_history(self, tokens: Iterator[str], most: int) -> None:
        """A token that repeats, or pages beyond all bounds: given up as a read that failed, and nothing is kept."""
        scene = Scene(msgspec.structs.replace(HINTS_ONLY, history_limit=2, history_max=20))
        scene.has("Running", 2)
        scene.join.resume(identity())
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        pages = 0
        while (reads := scene.reads(0.0)) and pages < 100:
            pages += 1
            scene.answer(reads[0], history("Pending", "Running", more=next(tokens)), 0.0)
        assert pages == most
        assert scene.join.events == []
        assert scene.join.counts.failed == 1
        assert scene.read(1.0) == ReadHistory(job="j-1", namespace="default", cause="hint")

    def test_an_old_answer_is_read_again(self) -> None:
        """A history shorter than what the log has says nothing of the job."""
        scene = self.scene("Running", 2)
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        scene.answer(scene.read(0.0), history("Pending"), 0.01)
        assert scene.join.events == []
        assert scene.join.counts.old_answers == 1
        assert isinstance(scene.read(0.05), ReadHistory)

    def test_what_no_longer_joins_is_read_again(self) -> None:
        """The fold found that the log went on meanwhile: the record is asked anew."""
        scene = self.scene()
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running", "Queued"), 0.01)
        (event,) = scene.join.events
        assert isinstance(event, Record)
        scene.join.decided(event, Unchanged(reason="unjoined"))
        assert isinstance(scene.read(0.01), ReadHistory)

    def test_a_step_that_the_rules_forbid_is_not_brought_again(self) -> None:
        """It stands in quarantine, the job stands still there, and that is announced once."""
        scene = self.scene("Queued", 2)
        for now in (0.0, 1.0):
            scene.join.frame(message(FrameKind.COMPUTE_ERROR), now)
            scene.answer(scene.read(now), history("Pending", "Queued", "Pending"), now + 0.01)
            if now:
                break
            (event,) = scene.join.events
            scene.join.events = []
            assert isinstance(event, Record)
            scene.join.decided(event, Rejected(reason="illegal-transition", rule="no"))
            (notice,) = scene.join.events
            assert isinstance(notice, Notice)
            assert notice.kind == "halted"
            scene.join.events = []
        assert scene.join.events == []


class TestPages:
    """A history that one page cannot hold."""

    def test_the_empty_page_behind_a_full_one_is_the_end(self) -> None:
        """The token of an open job is a cursor: behind the last entry the same comes again (design/bacalhau.md 6.3)."""
        scene = Scene(msgspec.structs.replace(HINTS_ONLY, history_limit=2))
        scene.has("Pending", 1)
        scene.join.resume(identity())
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running", more="cursor"), 0.0)
        scene.answer(scene.read(0.0), history(more="cursor"), 0.001)
        assert scene.published() == [(2, "Running")]
        assert scene.join.counts.failed == 0

    def test_further_pages_only_if_one_is_full(self) -> None:
        """A token after a page that is not full leads nowhere new; after a full one it is followed."""
        scene = Scene(msgspec.structs.replace(HINTS_ONLY, history_limit=2))
        scene.join.frame(ask_for_bid(snapshot("Queued", 3)), 0.0)
        read = scene.read(0.0)
        scene.answer(read, history("Pending", "Running", more="t2"), 0.01)
        assert scene.join.events == []
        read = scene.read(0.01)
        assert read == ReadHistory(job="j-1", namespace="default", next_token="t2", cause="hint")
        scene.answer(read, history("Queued", more="t3"), 0.02)
        assert scene.published() == [(1, "Pending"), (2, "Running"), (3, "Queued")]
        assert scene.reads(0.02) == []

    def test_rows_of_executions_count_as_rows(self) -> None:
        """Before `event_type` was understood a page may be full of other rows."""
        scene = Scene(msgspec.structs.replace(HINTS_ONLY, history_limit=2))
        scene.join.frame(ask_for_bid(snapshot("Queued", 3)), 0.0)
        scene.answer(scene.read(0.0), history("Pending", more="t2", rows=2), 0.01)
        assert isinstance(scene.read(0.01), ReadHistory)


class TestAgainstTheLog:
    """The record is the authority."""

    def test_a_log_that_contradicts_is_announced_and_corrected(self) -> None:
        """An advisory `diverged`, and the record's present state once, exempt from the rules."""
        scene = Scene()
        scene.has("Stopped", 2)
        scene.join.frame(ask_for_bid(snapshot("Running", 4)), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Queued", "Running"), 0.01)
        notice, event = scene.join.events
        assert isinstance(notice, Notice)
        assert (notice.kind, notice.key) == ("diverged", JobKey("default.j-1"))
        assert (notice.facts["log"], notice.facts["record"]) == ("v0 r2 Stopped", "v0 r3 Running")
        assert isinstance(event, Record)
        assert event.corrected
        scene.join.events = [event]
        assert scene.published() == [(3, "Running")]

    def test_while_the_log_takes_nothing_it_is_announced_once(self) -> None:
        """Each turn finds the same again: what is under way is offered no second time, nor is its advisory."""
        scene = Scene(TURNS_ONLY)
        scene.has("Queued", 2)
        scene.join.resume(identity())
        now = 0.0
        for _ in range(10):
            now, read = scene.wait(now)
            scene.answer(read, history("Pending", "Running"), now)
        assert [type(event) for event in scene.join.events] == [Notice, Record]
        assert scene.join.counts.diverged == 1

    def test_a_correction_is_made_where_the_job_stood_still_before_that_step(self) -> None:
        """The rules rejected the step; then the log is found to say otherwise, and a correction is exempt from them."""
        scene = Scene()
        scene.has("Queued", 2)
        scene.join.frame(message(FrameKind.COMPUTE_ERROR, job="j-1"), 0.0)
        read = scene.read(0.0)
        scene.answer(read, snapshot("Pending", 3), 0.01)
        scene.answer(scene.read(0.01), history("Pending", "Queued", "Pending"), 0.02)
        (event,) = scene.join.events
        assert isinstance(event, Record)
        scene.join.decided(event, Rejected(reason="illegal-transition", rule="no"))
        scene.has("Running", 2)
        scene.join.frame(message(FrameKind.COMPUTE_ERROR, job="j-1"), 0.03)
        scene.answer(scene.read(0.03), history("Pending", "Queued", "Pending"), 0.04)
        scene.join.events = [event for event in scene.join.events if isinstance(event, Record)]
        assert scene.published() == [(3, "Pending")]
        assert scene.join._jobs["j-1"].halted is None

    def test_a_job_of_reports_is_taken_over(self) -> None:
        """No contradiction and no advisory: the record's present state, corrected."""
        scene = Scene()
        scene.has("Failed", None, source=REPORTED)
        scene.join.frame(ask_for_bid(snapshot("Running", 2)), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.01)
        (event,) = scene.join.events
        assert isinstance(event, Record)
        assert event.corrected
        assert scene.published() == [(2, "Running")]


class TestTurns:
    """Open jobs are read in turn: what has no frame is found so."""

    def opened(self, jobs: int, settings: JoinSettings = TURNS_ONLY) -> Scene:
        """So many jobs that are Pending."""
        scene = Scene(settings)
        for number in range(jobs):
            shown = snapshot("Pending", 1, job=f"j-{number}")
            scene.join.frame(ask_for_bid(shown, f"e-{number}"), 0.0)
        assert len(scene.published()) == jobs
        assert scene.join.open_jobs == jobs
        return scene

    def run(self, scene: Scene, until: float, *, start: float = 0.0) -> list[tuple[float, str]]:
        """Answer every read 10 ms later with a job that is Pending; when which job was read."""
        found: list[tuple[float, str]] = []
        asked: list[OrchestratorRead] = []
        for tick in range(round(start * 100) + 1, round(until * 100) + 1):
            now = tick / 100
            for read in asked:
                scene.answer(read, history("Pending"), now)
            asked = scene.reads(now)
            for read in asked:
                assert isinstance(read, ReadHistory)
                assert read.cause == "scan"
                found.append((now, read.job))
        return found

    def test_an_open_job_is_read_once_a_second(self) -> None:
        """Each of a few jobs in each second."""
        found = self.run(self.opened(3), 4.5)
        for job in ("j-0", "j-1", "j-2"):
            times = [time for time, name in found if name == job]
            assert len(times) == 4
            assert all(1.0 <= after - before < 1.05 for before, after in itertools.pairwise(times))

    def test_many_are_read_at_the_rate(self) -> None:
        """No more than so many a second, and all in turn."""
        settings = msgspec.structs.replace(TURNS_ONLY, scan_rate=10)
        found = self.run(self.opened(30, settings), 7.0)
        for second in range(7):
            assert sum(second < time <= second + 1 for time, _ in found) <= 11
        assert {name for _, name in found} == {f"j-{number}" for number in range(30)}
        assert len(found) >= 55

    def test_no_more_turns_than_a_second_s_are_out(self) -> None:
        """Where reads wait for `max_rate`, more of them would only wait longer; each that comes back makes room."""
        scene = self.opened(30, msgspec.structs.replace(TURNS_ONLY, scan_rate=10))
        out = [read for tick in range(1, 1000) for read in scene.reads(tick / 100)]
        assert len(out) == 10
        assert scene.join.wake_at() is None
        scene.answer(out[0], history("Pending"), 10.0)
        scene.join.failed(out[1], 10.0)
        assert len([*scene.reads(10.0), *scene.reads(10.1), *scene.reads(10.2), *scene.reads(10.3)]) == 2

    def test_no_rate_is_no_turn(self) -> None:
        """Rate 0: open jobs are not read by themselves."""
        scene = self.opened(2, HINTS_ONLY)
        assert scene.join.wake_at() is None
        assert self.run(scene, 3.0) == []

    def test_a_job_that_was_just_read_waits(self) -> None:
        """A read by a hint is a turn as well."""
        scene = self.opened(1)
        scene.join.frame(message(FrameKind.CANCEL_EXECUTION, "e-0", echo=True), 0.9)
        scene.answer(scene.read(0.9), history("Pending"), 0.9)
        assert [time for time, _ in self.run(scene, 2.0, start=0.9)] == [1.9]

    def test_an_old_answer_in_a_turn_is_read_again_soon(self) -> None:
        """Whoever asked: a history shorter than what the log has is asked for until it is not."""
        scene = self.opened(1)
        scene.has("Running", 2, job="j-0")
        scene.answer(scene.read(1.0), history("Pending"), 1.01)
        assert isinstance(scene.read(1.06), ReadHistory)

    def test_a_job_that_is_answered_again_has_its_turn_again(self) -> None:
        """It failed by itself and was put off; a frame has it read, which goes well: its next turn is in a second."""
        scene = self.opened(1)
        now = 0.0
        for _ in range(5):
            now, read = scene.wait(now)
            scene.join.failed(read, now, alone="forbidden")
        scene.join.frame(message(FrameKind.CANCEL_EXECUTION, "e-0", echo=True), now)
        scene.answer(scene.read(now), history("Pending"), now)
        assert scene.wait(now)[0] == pytest.approx(now + 1.0)

    def test_a_finished_job_is_read_no_more(self) -> None:
        """Its end closes it; the log has it, and the join forgets it."""
        scene = self.opened(1)
        scene.answer(scene.read(1.0), history("Pending", "Failed"), 1.0)
        assert scene.published() == [(2, "Failed")]
        assert scene.join.open_jobs == 0
        assert self.run(scene, 4.0) == []
        assert scene.join._jobs == {}


class TestLists:
    """The list of all jobs finds what no frame named."""

    def test_the_pause_is_twenty_times_the_last_lists_duration(self) -> None:
        """So that lists take at most a twentieth of the time; but a second at least."""
        scene = Scene(JoinSettings())
        scene.answer(scene.read(0.0), JobPage(jobs=(), next_token=""), 0.5)
        assert scene.reads(10.4) == []
        scene.answer(scene.read(10.5), JobPage(jobs=(), next_token=""), 10.501)
        assert scene.reads(11.5) == []
        assert isinstance(scene.read(11.501), ReadJobs)

    def test_the_time_in_our_own_queue_does_not_count(self) -> None:
        """The duration is the orchestrator's: from when the request left."""
        scene = Scene(JoinSettings())
        read = scene.read(0.0)
        scene.join.answered(read, JobPage(jobs=(), next_token=""), 5.0, started=4.9)
        assert scene.join.wake_at() == pytest.approx(7.0)

    def test_one_list_at_a_time(self) -> None:
        """However long one takes, no other begins."""
        scene = Scene(JoinSettings())
        scene.read(0.0)
        assert scene.reads(100.0) == []
        assert scene.join.wake_at() is None

    def test_an_unknown_execution_is_a_hint_for_the_list(self) -> None:
        """No frame named its job: a list finds it, at once if the last one was long ago for what it took."""
        scene = Scene(JoinSettings())
        scene.answer(scene.read(0.0), JobPage(jobs=(), next_token=""), 0.001)
        scene.join.frame(message(FrameKind.BID_ACCEPTED, "e-9"), 0.3)
        assert scene.join.counts.unknown_executions == 1
        assert isinstance(scene.read(0.3), ReadJobs)

    def test_an_unknown_execution_brings_no_list_above_its_share(self) -> None:
        """A list that took half a second is 10 s away, however many frames ask for it."""
        scene = Scene(JoinSettings())
        scene.answer(scene.read(0.0), JobPage(jobs=(), next_token=""), 0.5)
        scene.join.frame(message(FrameKind.BID_ACCEPTED, "e-9"), 0.6)
        assert scene.reads(10.4) == []
        assert isinstance(scene.read(10.5), ReadJobs)

    def test_what_differs_from_the_log_is_read(self) -> None:
        """A job that the log does not have or has elsewhere; one that it has as it is is not."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.has("Running", 2, job="j-1")
        scene.has("Running", 2, job="j-2")
        scene.has("Running", 2, job="j-4")
        jobs = (
            snapshot("Running", 2, job="j-1"),
            snapshot("Completed", 3, job="j-2"),
            snapshot("Pending", 1, job="j-3"),
            snapshot("Running", 2, job="j-4", version=1),
        )
        scene.answer(scene.read(0.0), JobPage(jobs=jobs, next_token=""), 0.001)
        assert scene.reads(0.001) == [
            ReadHistory(job=job, namespace="default", cause="scan") for job in ("j-2", "j-3", "j-4")
        ]
        assert "j-1" in scene.join._turns

    def test_the_first_list_is_of_all_pages_and_the_next_of_what_is_new(self) -> None:
        """After start all jobs are looked at; later a page below what was seen before ends the list."""
        scene = Scene(JoinSettings(scan_rate=0))
        done = (snapshot("Completed", 3, modified_ns=9), snapshot("Completed", 3, job="j-2", modified_ns=8))
        scene.has("Completed", 3, job="j-1")
        scene.has("Completed", 3, job="j-2")
        read = scene.read(0.0)
        assert read == ReadJobs(limit=5000)
        scene.answer(read, JobPage(jobs=done[:1], next_token="t"), 0.0)
        read = scene.read(0.0)
        assert read == ReadJobs(limit=5000, next_token="t")
        scene.answer(read, JobPage(jobs=done[1:], next_token=""), 0.001)
        read = scene.read(2.0)
        assert read == ReadJobs(limit=10)
        scene.answer(read, JobPage(jobs=done, next_token="t"), 2.001)
        assert scene.reads(2.001) == []

    def test_all_pages_again_after_a_reconnect_and_once_an_hour(self) -> None:
        """What was missed meanwhile may be anywhere."""
        scene = Scene(JoinSettings(scan_rate=0))
        full, short = ReadJobs(limit=5000), ReadJobs(limit=10)
        nothing = JobPage(jobs=(), next_token="")
        for now, wanted in ((0.0, full), (2.0, short)):
            assert scene.read(now) == wanted
            scene.answer(wanted, nothing, now)
        scene.join.look_everywhere()
        for now, wanted in ((2.0, full), (4.0, short), (3601.0, short), (3602.5, full)):
            assert scene.read(now) == wanted
            scene.answer(wanted, nothing, now)

    def test_a_reconnect_during_a_list_brings_another(self) -> None:
        """What is missed while a list is read is the next one's."""
        scene = Scene(JoinSettings(scan_rate=0))
        read = scene.read(0.0)
        scene.join.look_everywhere()
        scene.answer(read, JobPage(jobs=(), next_token=""), 0.001)
        assert scene.read(1.001) == ReadJobs(limit=5000)

    def test_a_list_that_failed_is_asked_again_as_it_was(self) -> None:
        """A second later, if it took the orchestrator no longer than a twentieth of that, and still of all pages."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.answer(scene.read(0.0), JobPage(jobs=(), next_token=""), 0.0)
        scene.join.look_everywhere()
        scene.join.failed(scene.read(2.0), 2.5, started=2.46)
        assert scene.reads(3.4) == []
        assert scene.read(3.5) == ReadJobs(limit=5000)

    def test_a_page_that_is_too_large_is_halved(self) -> None:
        """So that an orchestrator with huge jobs can be listed at all."""
        scene = Scene(JoinSettings(scan_rate=0))
        for now, limit in ((0.0, 5000), (2.0, 2500), (4.0, 1250)):
            read = scene.read(now)
            assert read == ReadJobs(limit=limit)
            scene.join.failed(read, now, too_large=True)

    def test_a_job_that_a_list_cannot_tell_is_read_by_itself(self) -> None:
        """The others are looked at all the same, and each list counts it; while it fails it waits for its own turn."""
        scene = Scene(JoinSettings(scan_rate=0))
        bad = (BadJob(id="j-9", reason="unknown-state", modified_ns=9), BadJob(id="", reason="wrong-shape"))
        page = JobPage(jobs=(snapshot("Running", 2, modified_ns=8),), next_token="", bad=bad)
        scene.answer(scene.read(0.0), page, 0.001)
        other, alone = scene.reads(0.001)
        assert (other, alone) == (
            ReadHistory(job="j-1", namespace="default", cause="scan"),
            ReadJob(job="j-9", cause="hint"),
        )
        scene.answer(other, history("Pending", "Running"), 0.002)
        assert scene.published() == [(1, "Pending"), (2, "Running")]
        scene.join.failed(alone, 0.002, alone="unknown-state")
        assert scene.reads(1.0) == []
        again, top = scene.reads(1.5)
        assert again == msgspec.structs.replace(alone, cause="scan")
        scene.answer(top, page, 1.501)
        scene.answer(again, snapshot("Pending", 1, job="j-9"), 1.501)
        scene.answer(scene.read(1.501), history("Pending"), 1.502)
        assert scene.published() == [(1, "Pending")]
        scene.answer(scene.read_list(3.0), page, 3.001)
        assert scene.reads(3.001) == []
        assert scene.join.counts.bad == 6

    def test_a_revision_that_is_no_state_is_looked_at_once(self) -> None:
        """A job may be written without a change of state: worth one look, not one with every list."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.has("Running", 2)
        page = JobPage(jobs=(snapshot("Running", 3, modified_ns=7),), next_token="")
        scene.answer(scene.read(0.0), page, 0.001)
        scene.answer(scene.read(0.001), history("Pending", "Running"), 0.002)
        scene.answer(scene.read(2.0), page, 2.001)
        assert scene.reads(2.001) == []


class TestBad:
    """Jobs of a list that could not be read there."""

    def scene(self, *bad_ns: int) -> Scene:
        """After a sweep of such jobs, in a log that began at 9."""
        scene = Scene(JoinSettings(scan_rate=0), since_ns=9)
        scene.join.look_everywhere()
        scene.answer(scene.read_list(0.0), self.page(*bad_ns), 0.0)
        return scene

    def page(self, *bad_ns: int) -> JobPage:
        """So many of them, by when they were written."""
        bad = tuple(BadJob(id=f"j-{ns}", reason="wrong-shape", modified_ns=ns) for ns in bad_ns)
        return JobPage(jobs=(), next_token="", bad=bad)

    def test_a_sweep_looks_at_each(self) -> None:
        """Also at one that was written before: its read says by itself what is wrong."""
        assert [read.job for read in self.scene(5, 12).reads(0.0) if isinstance(read, ReadJob)] == ["j-5", "j-12"]

    def test_one_that_is_put_off_is_not_read_by_each_list(self) -> None:
        """Its own read failed too, and is tried ever more seldom."""
        scene, read_at = self.scene(12), []
        for tick in range(1, 300):
            now = tick / 10
            scene.join.look_everywhere()
            for read in scene.reads(now):
                if isinstance(read, ReadJobs):
                    scene.answer(read, self.page(12), now)
                else:
                    read_at.append(now)
                    scene.join.failed(read, now, alone="wrong-shape")
        assert read_at == pytest.approx([0.1, 1.1, 3.1, 7.1, 15.1], abs=0.3)


class TestBeginning:
    """What was over when the log began is left out; what was open, or made later, is told from its first state."""

    def test_before_it_is_known_only_a_list_is_read_and_hints_wait(self) -> None:
        """The first list says how new the record is; until it is agreed nothing else is read, and nothing published."""
        scene = Scene(JoinSettings(), since_ns=None)
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.join.frame(message(FrameKind.BID_ACCEPTED), 0.0)
        read = scene.read(0.0)
        assert isinstance(read, ReadJobs)
        jobs = (snapshot("Pending", 1, job="j-7", modified_ns=70), snapshot("Failed", 3, job="j-6", modified_ns=60))
        scene.answer(read, JobPage(jobs=jobs, next_token="t"), 0.001)
        assert scene.join.newest_ns == 70
        assert (scene.reads(0.5), scene.join.events) == ([], [])
        scene.join.begin(70)
        history_read, full = scene.reads(0.5)
        assert history_read == ReadHistory(job="j-1", namespace="default", cause="hint")
        assert full == ReadJobs(limit=5000)

    def test_an_orchestrator_without_jobs_begins_at_nothing(self) -> None:
        """0: everything is newer."""
        scene = Scene(JoinSettings(), since_ns=None)
        scene.answer(scene.read(0.0), JobPage(jobs=(), next_token=""), 0.001)
        assert scene.join.newest_ns == 0

    def test_the_newest_is_that_of_the_first_list(self) -> None:
        """It is what the log's beginning is agreed by, so later lists leave it alone."""
        scene = Scene(JoinSettings(), since_ns=None)
        for now, newest in ((0.0, 70), (2.0, 90)):
            page = JobPage(jobs=(snapshot("Failed", 3, modified_ns=newest),), next_token="")
            scene.answer(scene.read(now), page, now)
        assert scene.join.newest_ns == 70

    def test_older_finished_jobs_are_left_out(self) -> None:
        """Open ones and newer ones are read; so is an older one that the log knows otherwise."""
        scene = Scene(JoinSettings(scan_rate=0), since_ns=50)
        scene.has("Running", 2, job="j-4")
        jobs = (
            snapshot("Failed", 3, job="j-1", modified_ns=51),
            snapshot("Failed", 3, job="j-2", modified_ns=50),
            snapshot("Running", 2, job="j-3", modified_ns=10),
            snapshot("Failed", 3, job="j-4", modified_ns=10),
        )
        scene.answer(scene.read(0.0), JobPage(jobs=jobs, next_token=""), 0.001)
        assert [read.job for read in scene.reads(0.001) if isinstance(read, ReadHistory)] == ["j-1", "j-3", "j-4"]

    def test_a_frame_does_not_bring_an_older_finished_job(self) -> None:
        """The record says that it was over before the log began: nothing is published of it."""
        scene = Scene(since_ns=2_000_000_000)
        for ended_s, expected in ((2, []), (3, [(1, "Pending"), (2, "Failed")])):
            scene.join.frame(message(FrameKind.CANCEL_RESULT, job="j-1"), 0.0)
            scene.answer(scene.read(0.0), snapshot("Failed", 2), 0.0)
            scene.answer(scene.read(0.0), history("Pending", "Failed", at_s=ended_s), 0.0)
            assert scene.published() == expected

    def test_an_old_frame_does_not_bring_a_job_that_is_left_out(self) -> None:
        """Sent again after years: its history tells that it was over when the log began."""
        scene = Scene(since_ns=100 * 10**9)
        scene.join.frame(ask_for_bid(snapshot("Pending", 1, modified_ns=50 * 10**9)), 0.0)
        assert scene.join.events == []
        scene.answer(scene.read(0.0), history("Pending", "Running", "Failed", at_s=60), 0.0)
        assert scene.join.events == []

    def test_what_ended_just_when_the_log_began_is_left_out_however_its_time_is_rounded(self) -> None:
        """The list tells it to the nanosecond, the history is read to the nearest microsecond: 700 ns are one."""
        at = datetime(2026, 11, 24, 5, 0, 0, 123457, tzinfo=UTC)  # of …456700 ns
        since_ns = 1_795_496_400_123_456_700
        entry = history("Pending", "Failed").entries
        page = HistoryPage(
            entries=tuple(msgspec.structs.replace(one, time=at) for one in entry), items=2, next_token=""
        )
        scene = Scene(since_ns=since_ns)
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        scene.answer(scene.read(0.0), snapshot("Failed", 2, modified_ns=since_ns), 0.0)
        scene.answer(scene.read(0.0), page, 0.0)
        assert scene.join.events == []

    def test_an_open_job_is_told_from_its_first_state(self) -> None:
        """However old its first states are."""
        scene = Scene(JoinSettings(scan_rate=0), since_ns=50)
        page = JobPage(jobs=(snapshot("Running", 2, modified_ns=10),), next_token="")
        scene.answer(scene.read(0.0), page, 0.001)
        scene.answer(scene.read(0.001), history("Pending", "Running"), 0.002)
        assert scene.published() == [(1, "Pending"), (2, "Running")]


class TestWentBack:
    """A record that says less than the log, for so long that it is no old answer."""

    def shown(self, scene: Scene, answer: HistoryPage | Missing, *, until: float) -> list[object]:
        """Each read is answered so, until then; what the join came to."""
        now = 0.0
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), now)
        while now < until:
            while reads := scene.reads(now):
                for read in reads:
                    scene.answer(read, snapshot("Running", 2) if isinstance(read, ReadJob) else answer, now)
            due = scene.join.wake_at()
            if due is None:
                break
            now = max(due, now + 0.001)
        return list(scene.join.events)

    def test_a_shorter_history_for_long_is_a_record_that_went_back(self) -> None:
        """Announced, and the record's present state follows once, corrected: it is not invented."""
        earlier, scene = Scene(), Scene()
        for one in (earlier, scene):
            one.has("Completed", 3)
        assert self.shown(earlier, history("Pending", "Running"), until=59.9) == []
        notice, correction = self.shown(scene, history("Pending", "Running"), until=90.0)
        assert isinstance(notice, Notice)
        assert notice.kind == "diverged"
        assert isinstance(correction, Record)
        assert (correction.corrected, correction.steps[0].state, correction.steps[0].revision) == (True, "Running", 2)

    def test_a_job_that_is_gone_is_announced_and_let_go(self) -> None:
        """404 for long: the log's last update stands, nothing is published, and it is not read for ever."""
        scene = Scene()
        scene.has("Running", 2)
        scene.join.resume(identity())
        events = self.shown(scene, Missing(), until=90.0)
        assert [(event.kind, event.origin) for event in events if isinstance(event, Notice)] == [("gone", "j-1-2")]
        assert scene.join.open_jobs == 0
        assert scene.join._jobs == {}

    def test_a_job_that_only_reports_told_of_is_not_gone(self) -> None:
        """The orchestrator never knew it."""
        scene = Scene()
        scene.has("Running", 2, source=REPORTED)
        assert self.shown(scene, Missing(), until=90.0) == []

    def test_a_life_that_was_lost_and_made_again_alike_is_announced(self) -> None:
        """A restored copy, and the same again: version, revision and state are equal, and the times are not."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.has("Failed", 2)
        key = JobKey("default.j-1")
        scene.log[key] = msgspec.structs.replace(scene.log[key], time_ns=1_000_000_000_000)
        scene.join.look_everywhere()
        listed = snapshot("Failed", 2, modified_ns=1_020_000_000_000)
        scene.answer(scene.read_list(0.0), JobPage(jobs=(listed,), next_token=""), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Failed", at_s=1_020), 0.0)
        notice, correction = scene.join.events
        assert isinstance(notice, Notice)
        assert notice.kind == "diverged"
        scene.join.events = [correction]
        assert scene.published() == [(2, "Failed")]
        assert scene.log[key].time_ns == 1_020_000_000_000
        for read in scene.reads(5.0):
            assert isinstance(read, ReadJobs)
            scene.answer(read, JobPage(jobs=(listed,), next_token=""), 5.0)
        assert (scene.reads(5.0), scene.join.events) == ([], [])

    def test_an_end_at_an_earlier_time_is_an_old_answer_for_a_minute(self) -> None:
        """A cache gives the copy from before: believed at once, the next answer would take it back."""
        scene = Scene()
        scene.has("Failed", 2)
        key = JobKey("default.j-1")
        scene.log[key] = msgspec.structs.replace(scene.log[key], time_ns=1_020_000_000_000)
        early, late = Scene(), Scene()
        for one in (early, late):
            one.log = dict(scene.log)
            one.join._known = one.log.get
        before = history("Pending", "Failed", at_s=1_000)
        assert self.shown(early, before, until=50.0) == []
        assert [type(event) for event in self.shown(late, before, until=90.0)] == [Notice, Record]

    def test_what_is_not_there_any_more_is_not_asked_for_for_ever(self) -> None:
        """A job without a history, as one answer says, and then none at all: nobody waits for it."""
        scene = Scene()
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        scene.answer(scene.read(0.0), snapshot("Running", 2), 0.0)
        scene.answer(scene.read(0.0), history(), 0.0)
        scene.answer(scene.read(0.0), snapshot("Running", 2), 0.0)
        now = 0.0
        while scene.join.wake_at() is not None:
            now, read = scene.wait(now)
            scene.answer(read, Missing(), now)
        assert now < 10
        assert scene.join._jobs == {}

    def test_a_store_that_took_its_time_is_no_other_life(self) -> None:
        """The list's time is the job's, some seconds before the entry's: it is not even looked at."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.has("Failed", 2)
        key = JobKey("default.j-1")
        scene.log[key] = msgspec.structs.replace(scene.log[key], time_ns=1_000_000_000_000)
        scene.join.look_everywhere()
        listed = snapshot("Failed", 2, modified_ns=991_000_000_000)
        scene.answer(scene.read_list(0.0), JobPage(jobs=(listed,), next_token=""), 0.0)
        assert scene.reads(0.0) == []

    def test_a_log_that_began_by_a_clock_that_was_ahead_leaves_nothing_out_that_ends_now(self) -> None:
        """It is set back by half an hour: what ends then is older than the log by its time, and is told; announced."""
        now_s, ahead_s = 1_000, 2_800
        scene = Scene(JoinSettings(scan_rate=0), since_ns=ahead_s * 10**9)
        scene.join.look_everywhere()
        listed = snapshot("Failed", 2, modified_ns=(now_s + 1) * 10**9)
        page = JobPage(jobs=(listed,), next_token="", clock_ns=now_s * 10**9)
        scene.answer(scene.read_list(0.0), page, 0.0)
        (notice,) = scene.join.events
        assert isinstance(notice, Notice)
        assert (notice.kind, notice.origin) == ("diverged", f"beginning-{ahead_s * 10**9}")
        scene.join.events = []
        (read,) = (read for read in scene.reads(0.0) if isinstance(read, ReadHistory))  # beside it a sweep
        scene.answer(read, history("Pending", "Failed", at_s=now_s + 1), 0.0)
        assert scene.published() == [(1, "Pending"), (2, "Failed")]

    def test_a_record_that_went_back_as_a_whole_is_announced(self) -> None:
        """The newest change of all jobs is older than one seen before, for a minute."""
        scene = Scene(JoinSettings(scan_rate=0))
        for now, newest in ((0.0, 9), (2.0, 5), (63.0, 5)):
            page = JobPage(jobs=(snapshot("Failed", 2, job="j-9", modified_ns=newest),), next_token="")
            scene.has("Failed", 2, job="j-9")
            scene.answer(scene.read(now), page, now)
        (notice,) = scene.join.events
        assert isinstance(notice, Notice)
        assert (notice.kind, notice.origin) == ("diverged", "record-5")


class TestContested:
    """An orchestrator that does not agree with itself: nothing is guessed, and it is said."""

    @pytest.mark.parametrize(
        ("answer", "why"),
        [(history("Pending", "Running"), "contradicts-list"), (history(), "no-history")],
        ids=["frozen", "empty"],
    )
    @pytest.mark.parametrize("state", ["Running", "Completed"], ids=["open", "finished"])
    def test_a_list_that_says_otherwise_than_the_history_is_told_after_a_minute(
        self, answer: HistoryPage, why: str, state: str
    ) -> None:
        """The log says what the history says, the list something else, for long: once, and no update."""
        scene = Scene(JoinSettings())
        entries = history("Pending", "Running", "Completed") if state == "Completed" else history("Pending", "Running")
        scene.has(state, len(entries.entries))
        if answer.entries:
            answer = entries
        listed = snapshot("Failed", 4, modified_ns=5)
        now, told = 0.0, []
        while now < 150:
            for read in scene.reads(now):
                page = JobPage(jobs=(listed,), next_token="")
                said = page if isinstance(read, ReadJobs) else listed if isinstance(read, ReadJob) else answer
                scene.answer(read, said, now)
            told += [(now, event) for event in scene.join.events]
            scene.join.events = []
            due = scene.join.wake_at()
            assert due is not None
            now = max(due, now + 0.001)
        assert {getattr(event, "kind", "update") for _, event in told} == {"unreadable"}
        assert [getattr(event, "facts", {})["error"] for _, event in told][:1] == [why]
        assert told[0][0] == pytest.approx(60, abs=3)
        if why == "contradicts-list":
            assert len(told) == 1

    def test_a_list_that_was_older_is_nothing(self) -> None:
        """It says what the log said before, once: the job is read, agrees, and that is all."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.has("Completed", 3)
        for now in (0.0, 90.0):
            scene.join.look_everywhere()
            old = JobPage(jobs=(snapshot("Running", 2, modified_ns=5),), next_token="")
            scene.answer(scene.read_list(now), old, now)
            scene.answer(scene.read(now), history("Pending", "Running", "Completed"), now)
            new = JobPage(jobs=(snapshot("Completed", 3, modified_ns=6),), next_token="")
            scene.answer(scene.read_list(now + 2), new, now + 2)
        assert scene.join.events == []
        assert scene.join._jobs == {}

    def test_two_old_lists_are_no_contradiction(self) -> None:
        """The same old list two minutes apart, and lists that agree between: nothing is announced."""
        scene = Scene(JoinSettings())
        scene.has("Running", 2)
        scene.join.resume(identity())
        scene.join.look_everywhere()
        now, lists, old = 0.0, 0, (3, 150)
        while now < 200:
            for read in scene.reads(now):
                if isinstance(read, ReadJobs):
                    lists += 1
                    listed = snapshot("Pending", 1) if lists in old else snapshot("Running", 2)
                    scene.answer(read, JobPage(jobs=(listed,), next_token=""), now)
                else:
                    scene.answer(read, history("Pending", "Running"), now)
            now += 0.25
        assert lists > max(old)
        assert scene.join.events == []

    def test_what_the_log_has_moved_on_from_is_contested_anew(self) -> None:
        """Lists said Failed while the log had Running; it went on to Queued: the same claim is another one."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.has("Running", 2)
        claim = JobPage(jobs=(snapshot("Failed", 9, modified_ns=5),), next_token="")
        told = []
        running = ("Pending", "Running")
        for now, states in (
            (0.0, running),
            (30.0, (*running, "Queued")),
            (65.0, (*running, "Queued")),
            (70.0, running),
        ):
            scene.join.look_everywhere()
            scene.answer(scene.read_list(now), claim, now)
            told += [event for event in scene.join.events if isinstance(event, Notice)]
            scene.answer(scene.read(now), history(*states), now)
            scene.published()
        assert told == []

    def test_one_old_answer_is_no_contradiction(self) -> None:
        """The list was right, the history read after it old; two minutes later it is read again before it is blamed."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.has("Running", 2)
        listed = JobPage(jobs=(snapshot("Failed", 3, modified_ns=5),), next_token="")
        scene.join.look_everywhere()
        scene.answer(scene.read_list(0.0), listed, 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.0)
        scene.join.look_everywhere()
        scene.answer(scene.read_list(120.0), listed, 120.0)
        assert scene.join.events == []
        scene.answer(scene.read(120.0), history("Pending", "Running", "Failed"), 120.0)
        assert scene.published() == [(3, "Failed")]


class TestWhose:
    """Whose job it is: the orchestrator has the last word."""

    def test_a_frame_that_says_otherwise_is_only_a_hint(self) -> None:
        """Another namespace, name or type than what was learnt before: nothing of it is published."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        assert scene.published() == [(1, "Pending")]
        liar = msgspec.structs.replace(snapshot("Queued", 2), job=msgspec.structs.replace(identity(), namespace="evil"))
        scene.join.frame(ask_for_bid(liar, "e-2"), 0.1)
        assert scene.join.events == []
        assert scene.read(0.1) == ReadHistory(job="j-1", namespace="default", cause="hint")

    def test_what_a_frame_said_gives_way_to_a_list(self) -> None:
        """A frame called a batch job a service, and its end is rejected; a list mends that, and it is published."""
        scene = Scene(JoinSettings(scan_rate=0))
        called = msgspec.structs.replace(identity(), type="service")
        scene.join.frame(ask_for_bid(msgspec.structs.replace(snapshot("Pending", 1), job=called)), 0.0)
        scene.join.frame(message(FrameKind.RUN_RESULT), 0.0)
        assert scene.published() == [(1, "Pending")]
        reads = {type(read): read for read in scene.reads(0.0)}
        scene.answer(reads[ReadHistory], history("Pending", "Completed"), 0.0)
        assert scene.published() == []
        scene.answer(reads[ReadJobs], JobPage(jobs=(snapshot("Completed", 2),), next_token=""), 0.1)
        scene.join.events = []  # the job is halted
        scene.answer(scene.read(0.1), history("Pending", "Completed"), 0.1)
        assert scene.published() == [(2, "Completed")]

    def test_a_name_that_nobody_can_ask_for_is_not_asked_for_again(self) -> None:
        """Only a frame has it: no read is spent on it any more, and it is forgotten."""
        scene = Scene()
        scene.join.frame(message(FrameKind.RUN_RESULT, job="../.."), 0.0)
        scene.join.failed(scene.read(0.0), 0.0, alone="not-askable")
        assert scene.reads(600.0) == []
        assert scene.join._jobs == {}


class TestResume:
    """What the log has open is read, whether or not the orchestrator lists it."""

    def test_an_open_job_is_read_in_turn_from_the_start(self) -> None:
        """A restart: it may have ended meanwhile, or be gone."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 2)
        scene.join.resume(identity())
        assert scene.read(0.0) == ReadHistory(job="j-1", namespace="default", cause="scan")


class TestWithoutHistory:
    """An empty history: of a job from before 1.5, of one that is not known (before 1.8), or an old answer."""

    def scene(self) -> Scene:
        """A frame named a job, and it is there."""
        scene = Scene()
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        scene.answer(scene.read(0.0), snapshot("Running", 2), 0.0)
        return scene

    def is_empty(self, scene: Scene, now: float) -> None:
        """Its history is read, and the job itself then."""
        read = scene.read(now)
        assert isinstance(read, ReadHistory)
        scene.answer(read, history(), now)
        read = scene.read(now)
        assert isinstance(read, ReadJob)
        scene.answer(read, snapshot("Running", 2), now)

    def test_its_present_state_is_published_and_flagged(self) -> None:
        """After a minute of such answers: the job's state is `joined`."""
        scene, now = self.scene(), 0.0
        while not scene.join.events:
            self.is_empty(scene, now)
            now = scene.join.wake_at() or now
        assert now == pytest.approx(60, abs=8)  # as long as an answer may be an old one
        (event,) = scene.join.events
        assert isinstance(event, Record)
        assert event.flags == ("joined",)
        assert scene.published() == [(2, "Running")]

    def test_many_empty_answers_in_a_moment_are_old_ones(self) -> None:
        """A cache gave them: the job's own frames had it read again and again meanwhile, and that proves nothing."""
        scene = self.scene()
        for tick in range(20):
            self.is_empty(scene, tick / 100)
            scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), (tick + 1) / 100)
        scene.answer(scene.read(0.2), history("Pending", "Running"), 0.2)
        assert scene.published() == [(1, "Pending"), (2, "Running")]

    def test_one_empty_answer_is_an_old_one(self) -> None:
        """Every job since 1.5 has a history: it is read again, and told from its first state."""
        scene = self.scene()
        self.is_empty(scene, 0.0)
        now, read = scene.wait(0.0)
        scene.answer(read, history("Pending", "Running"), now)
        assert scene.published() == [(1, "Pending"), (2, "Running")]
        assert scene.reads(120.0) == []

    def test_a_job_that_is_not_there_is_gone_whatever_its_history_says(self) -> None:
        """1.5 to 1.7 know no job of that id and answer its history with nothing, 200: `gone` after a minute."""
        scene, now = Scene(TURNS_ONLY), 0.0
        told: list[object] = []
        scene.has("Running", 2)
        scene.join.resume(identity())
        while now < 90 and not told:
            for read in scene.reads(now):
                scene.answer(read, Missing() if isinstance(read, ReadJob) else history(), now)
            told += scene.join.events
            scene.join.events = []
            now += 0.05
        assert [event.kind for event in told if isinstance(event, Notice)] == ["gone"]
        assert now == pytest.approx(60, abs=8)
        assert scene.join.open_jobs == 0


class TestBounds:
    """Everything has an end."""

    def test_the_oldest_execution_is_forgotten_first(self) -> None:
        """`executions_max`: what is forgotten is an unknown execution."""
        scene = Scene(msgspec.structs.replace(HINTS_ONLY, executions_max=2))
        for number in range(3):
            scene.join.frame(ask_for_bid(snapshot("Pending", 1, job=f"j-{number}"), f"e-{number}"), 0.0)
        assert scene.join.executions_known == 2
        scene.join.frame(message(FrameKind.CANCEL_EXECUTION, "e-0"), 0.0)
        assert scene.join.counts.unknown_executions == 1
        scene.join.frame(message(FrameKind.CANCEL_EXECUTION, "e-2"), 0.0)
        assert isinstance(scene.read(0.0), ReadHistory)

    def test_a_job_too_many_is_left_to_a_list(self) -> None:
        """`jobs_max`: it is counted, and a list of all pages finds it when there is room."""
        scene = Scene(JoinSettings(jobs_max=1, scan_rate=0))
        scene.answer(scene.read(0.0), JobPage(jobs=(), next_token=""), 0.0)
        for job in ("j-1", "j-2"):
            scene.join.frame(message(FrameKind.RUN_RESULT, job=job), 0.1)
        assert scene.reads(0.1) == [ReadJob(job="j-1", cause="hint")]
        assert scene.join.counts.dropped == 1
        assert scene.reads(1.0) == [ReadJobs(limit=5000)]


class TestAgreed:
    """When the record was last seen to have nothing newer than the log: so a job that stands too long is known to."""

    def test_only_a_read_that_brings_nothing_says_so(self) -> None:
        """No job is known to stand still that was never read, or whose read brought a step, or is old."""
        scene = Scene()
        scene.has("Pending", 1)
        assert scene.join.agreed_at("j-1") is None
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        scene.answer(scene.read(0.0), snapshot("Running", 2), 0.1)
        scene.answer(scene.read(0.1), history("Pending", "Running"), 0.2)
        assert scene.join.agreed_at("j-1") is None
        assert scene.published() == [(2, "Running")]
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 1.0)
        scene.answer(scene.read(1.0), history("Pending"), 1.1)
        assert scene.join.agreed_at("j-1") is None
        scene.answer(scene.read(1.2), history("Pending", "Running"), 1.3)
        assert scene.join.agreed_at("j-1") == 1.3

    def test_an_answer_that_a_hint_overtook_does_not(self) -> None:
        """The hint came while it was under way: it may be older, so the next one tells."""
        scene = Scene()
        scene.has("Running", 2)
        for now in (0.0, 0.1):
            scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), now)
        scene.answer(scene.read(0.1), snapshot("Running", 2), 0.2)
        read = scene.read(0.2)
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.3)
        scene.answer(read, history("Pending", "Running"), 0.4)
        assert scene.join.agreed_at("j-1") is None
        scene.answer(scene.read(0.4), history("Pending", "Running"), 0.5)
        assert scene.join.agreed_at("j-1") == 0.5

    def test_no_job_without_a_record_agrees(self) -> None:
        """Neither one that the orchestrator does not know, nor one whose next step the rules reject."""
        scene = Scene()
        scene.has("Running", 2)
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.0)
        scene.answer(scene.read(0.0), Missing(), 0.1)
        assert scene.join.agreed_at("j-1") is None
        scene.answer(scene.read(1.0), snapshot("Pending", 3), 1.1)
        scene.answer(scene.read(1.1), history("Pending", "Running", "Pending"), 1.2)
        assert scene.published() == []
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 2.0)
        scene.answer(scene.read(2.0), history("Pending", "Running", "Pending"), 2.1)
        assert scene.join.agreed_at("j-1") is None
