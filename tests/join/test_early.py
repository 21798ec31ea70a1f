"""Running early: each condition alone says no. Pure: `consumer.join.early`, and what the join makes of it."""

from datetime import UTC, datetime

import msgspec
import pytest

from consumer.join import JoinSettings, ReadHistory
from consumer.join.early import ANYWHERE, NOWHERE_HEARD, Execution, Where, runs_early
from consumer.model import DERIVED, Frame, FrameKind, JobPage, Place, Record
from tests.join.test_join import HINTS_ONLY, Scene, ask_for_bid, history, message, snapshot

AT = datetime(2026, 11, 24, 6, tzinfo=UTC)
PENDING = Place(1, 1, 1, "Pending")


def execution(state: str = "Pending", *, revision: int = 1, count: int = 1, modified_ns: int = 100) -> Execution:
    """An execution whose `AskForBid` showed the job so, in version 1."""
    shown = snapshot(state, revision, version=1, modified_ns=modified_ns)
    return Execution(msgspec.structs.replace(shown, count=count))


class TestConditions:
    """All of them together, and each of them taken away."""

    @pytest.mark.parametrize(
        ("of", "standing"),
        [
            (execution(), PENDING),
            (execution("Queued", revision=2), Place(2, 1, 2, "Queued")),
            (execution(count=0), PENDING),  # ops and daemon jobs on 1.7
        ],
    )
    def test_where_all_hold_it_runs(self, of: Execution, standing: Place) -> None:
        """The log stands at the snapshot, which waited, and nothing happened since."""
        assert runs_early(of, standing, NOWHERE_HEARD, 99)

    @pytest.mark.parametrize(
        ("of", "standing", "disturbed", "heard_from_ns"),
        [
            pytest.param(execution("Running", revision=2), Place(2, 1, 2, "Running"), NOWHERE_HEARD, 99, id="ran"),
            pytest.param(execution(count=2), PENDING, NOWHERE_HEARD, 99, id="count"),
            pytest.param(execution(), Place(0, None, None, ""), NOWHERE_HEARD, 99, id="nothing in the log"),
            pytest.param(execution(), Place(2, 1, 2, "Queued"), NOWHERE_HEARD, 99, id="the log is further"),
            pytest.param(execution(), Place(1, 0, 1, "Pending"), NOWHERE_HEARD, 99, id="another version"),
            pytest.param(execution(), Place(1, 1, 1, "Queued"), NOWHERE_HEARD, 99, id="another state"),
            pytest.param(execution(), PENDING, (1, 1), 99, id="an end at this revision"),
            pytest.param(execution(), PENDING, ANYWHERE, 99, id="an end, who knows where"),
            pytest.param(execution(), PENDING, NOWHERE_HEARD, 100, id="written before we listened"),
            pytest.param(execution(), PENDING, NOWHERE_HEARD, None, id="not known since when we listen"),
        ],
    )
    def test_where_one_does_not_it_is_not_known(
        self, of: Execution, standing: Place, disturbed: Where, heard_from_ns: int | None
    ) -> None:
        """Each of them alone."""
        assert not runs_early(of, standing, disturbed, heard_from_ns)

    def test_an_end_at_an_earlier_revision_is_no_matter(self) -> None:
        """What happened before the state that the snapshot shows is in it."""
        assert runs_early(execution("Queued", revision=3), Place(3, 1, 3, "Queued"), (1, 2), 99)


def approved(name: str = "e-1") -> Frame:
    """The approval of that execution, with the time of the frame."""
    return msgspec.structs.replace(message(FrameKind.BID_ACCEPTED, name), event_time=AT)


class TestJoin:
    """What the join publishes, and does not read any more."""

    def test_an_approved_bid_is_published_without_a_read(self) -> None:
        """Pending by the snapshot, Running by the approval: two updates, no read, the frame's time."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.join.frame(approved(), 0.0)
        _, running = scene.join.events
        assert isinstance(running, Record)
        assert (running.source, running.steps[0].time, running.steps[0].revision) == (DERIVED, AT, 2)
        assert scene.published() == [(1, "Pending"), (2, "Running")]
        assert (scene.reads(10.0), scene.join.counts.early) == ([], 1)

    def test_a_direct_start_is_published_with_its_ask(self) -> None:
        """Ops and daemon jobs run as soon as they are asked."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1), direct=True), 0.0)
        assert scene.published() == [(1, "Pending"), (2, "Running")]
        assert scene.reads(10.0) == []

    def test_a_direct_start_of_a_job_that_may_be_late_is_a_hint(self) -> None:
        """Once its total timeout has passed, the very write that starts an execution fails an ops job."""
        scene = Scene()
        shown = msgspec.structs.replace(snapshot("Pending", 1), expires=True)
        scene.join.frame(ask_for_bid(shown, direct=True), 0.0)
        assert scene.published() == [(1, "Pending")]
        scene.answer(scene.read(0.0), history("Pending", "Failed"), 0.01)
        assert scene.published() == [(2, "Failed")]

    def test_it_can_be_switched_off(self) -> None:
        """`derive = "never"`: the approval is a hint like another."""
        scene = Scene(msgspec.structs.replace(HINTS_ONLY, derive=False))
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.join.frame(approved(), 0.0)
        assert scene.published() == [(1, "Pending")]
        assert isinstance(scene.read(0.0), ReadHistory)

    @pytest.mark.parametrize("kind", [FrameKind.BID_RESULT, FrameKind.COMPUTE_ERROR, FrameKind.CANCEL_EXECUTION])
    def test_another_executions_end_or_refusal_makes_it_a_hint(self, kind: FrameKind) -> None:
        """Queued may have come between: the approval is read."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.join.frame(ask_for_bid(snapshot("Pending", 1), "e-2"), 0.0)
        scene.join.frame(message(kind, "e-1", job="j-1"), 0.0)
        scene.join.frame(approved("e-2"), 0.0)
        assert scene.published() == [(1, "Pending")]
        assert scene.join.counts.early == 0

    def test_an_end_counts_where_its_execution_was_asked_for(self) -> None:
        """The log was behind it: what stands at that place later may be from before the end."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        assert scene.published() == [(1, "Pending")]
        scene.join.frame(ask_for_bid(snapshot("Queued", 3), "e-1"), 0.0)
        read = scene.read(0.0)
        scene.join.frame(message(FrameKind.COMPUTE_ERROR, "e-1", job="j-1"), 0.0)
        scene.answer(read, history("Pending", "Running", "Queued"), 0.01)
        assert scene.published() == [(2, "Running"), (3, "Queued")]
        scene.join.frame(ask_for_bid(snapshot("Queued", 3), "e-2"), 0.02)
        scene.join.frame(approved("e-2"), 0.02)
        assert scene.join.counts.early == 0

    def test_an_end_of_an_execution_that_nobody_knows_holds_until_the_job_was_read(self) -> None:
        """Its place is not known: whatever the record is found at is it."""
        scene = Scene()
        scene.join.frame(message(FrameKind.COMPUTE_ERROR, "e-0", job="j-1"), 0.0)
        scene.answer(scene.read(0.0), snapshot("Pending", 1), 0.0)
        scene.answer(scene.read(0.0), history("Pending"), 0.0)
        assert scene.published() == [(1, "Pending")]
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.join.frame(approved(), 0.0)
        assert scene.join.counts.early == 0
        # Queued came after it, and what is asked then stands on its own.
        scene.has("Queued", 2)
        scene.join.frame(ask_for_bid(snapshot("Queued", 2), "e-2"), 0.0)
        scene.join.frame(approved("e-2"), 0.0)
        assert scene.join.counts.early == 1

    def test_an_answer_that_was_sent_before_such_an_end_tells_nothing_of_its_place(self) -> None:
        """The read left before: the end may be behind all that it shows. The next one tells."""
        scene = Scene()
        scene.join.frame(message(FrameKind.COMPUTE_ERROR, "e-0", job="j-1"), 0.0)
        scene.answer(scene.read(0.0), snapshot("Queued", 2), 0.0)
        read = scene.read(0.0)
        scene.join.frame(message(FrameKind.COMPUTE_ERROR, "e-1", job="j-1"), 0.005)
        scene.answer(read, history("Pending", "Queued"), 0.01)
        assert scene.published() == [(1, "Pending"), (2, "Queued")]
        # What it was: Running, and Queued again by that end. Of that, the next execution's snapshot says nothing.
        scene.has("Queued", 4)
        scene.join.frame(ask_for_bid(snapshot("Queued", 4), "e-2"), 0.02)
        scene.join.frame(approved("e-2"), 0.02)
        assert scene.join.counts.early == 0
        scene.answer(scene.read(0.02), history("Pending", "Queued", "Running", "Queued"), 0.03)
        scene.join.frame(ask_for_bid(snapshot("Queued", 4), "e-3"), 0.04)
        scene.join.frame(approved("e-3"), 0.04)
        assert scene.join.counts.early == 0

    def test_what_was_written_before_we_listened_is_read(self) -> None:
        """After a start or a gap: only what is newer than the first list's newest was heard from its beginning."""
        scene = Scene(JoinSettings(scan_rate=0))
        scene.join.frame(ask_for_bid(snapshot("Pending", 1, job="j-0", modified_ns=90), "e-0"), 0.0)
        scene.join.frame(approved("e-0"), 0.0)
        assert scene.join.counts.early == 0
        scene.answer(
            scene.read_list(0.0), JobPage(jobs=(snapshot("Pending", 1, job="j-0", modified_ns=90),), next_token=""), 0.0
        )
        for job, modified_ns, early in (("j-1", 90, 0), ("j-2", 91, 1)):
            scene.join.frame(ask_for_bid(snapshot("Pending", 1, job=job, modified_ns=modified_ns), job), 0.1)
            scene.join.frame(approved(job), 0.1)
            assert scene.join.counts.early == early
        scene.join.look_everywhere()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1, job="j-3", modified_ns=99), "j-3"), 0.2)
        scene.join.frame(approved("j-3"), 0.2)
        assert scene.join.counts.early == 1

    def test_one_that_the_record_denies_is_taken_back(self) -> None:
        """Never seen; but then it is announced, and the record's present state follows, corrected."""
        scene = Scene()
        scene.join.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.join.frame(approved(), 0.0)
        assert scene.published() == [(1, "Pending"), (2, "Running")]
        scene.join.frame(message(FrameKind.RUN_RESULT, job="j-1"), 0.1)
        scene.answer(scene.read(0.1), history("Pending", "Stopped"), 0.1)
        notice, correction = scene.join.events
        assert isinstance(correction, Record)
        assert (correction.corrected, correction.source, correction.steps[0].state) == (True, "observed", "Stopped")
        assert getattr(notice, "kind", "") == "diverged"
