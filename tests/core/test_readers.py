"""Which job is read when, and what its record comes to: `consumer.core.readers`. Time is a number; nobody waits."""

import itertools
from typing import Literal

import msgspec
import pytest

from consumer.core import Missing, ReadHistory, ReadingOptions, ReadJob, ReadJobs, Scope
from consumer.core.answers import UNREADABLE_AFTER
from consumer.faults import OrchestratorFault
from consumer.model import (
    OBSERVED,
    REPORTED,
    BadJob,
    Frame,
    FrameKind,
    HistoryPage,
    Identity,
    JobDocument,
    JobKey,
    LastUpdate,
    ReadCause,
    Record,
    Rejected,
    Unchanged,
)
from consumer.wire.subjects import job_key
from tests.core.scene import (
    HINTS_ONLY,
    KEY,
    TURNS_ONLY,
    Scene,
    ask_for_bid,
    document,
    history,
    identity,
    message,
    page,
    snapshot,
)

RUN_RESULT, BID_ACCEPTED = FrameKind.RUN_RESULT, FrameKind.BID_ACCEPTED
FORGED = [
    ask_for_bid(snapshot("Pending", 1, job="j-forged")),
    ask_for_bid(snapshot("Running", 7, job="j-forged", version=9), direct=True),
    message(BID_ACCEPTED, job="j-forged"),
    message(FrameKind.BID_REJECTED, job="j-forged"),
    message(FrameKind.BID_RESULT, job="j-forged"),
    message(RUN_RESULT, job="j-forged"),
    message(FrameKind.COMPUTE_ERROR, job="j-forged"),
    message(FrameKind.CANCEL_EXECUTION, job="j-forged"),
    message(FrameKind.CANCEL_EXECUTION, job="j-forged", echo=True),
]


class TestForged:
    """Whoever may publish on Bacalhau's NATS can only make us look."""

    @pytest.mark.parametrize("answer", ["404", "other-job", "not-askable"])
    @pytest.mark.parametrize("frame", FORGED, ids=lambda frame: f"{frame.kind}{'-echo' if frame.echo else ''}")
    def test_a_job_that_nobody_gives_costs_two_requests_and_is_forgotten(
        self, frame: Frame, answer: Literal["404"] | OrchestratorFault
    ) -> None:
        """Asked for at once, and once more a second later; then nothing of it is left, and nothing is announced."""
        scene = Scene()
        scene.readers.frame(frame, 0.0)
        asked = []
        now = 0.0
        while scene.readers.wake_at() is not None:
            now, read = scene.wait(now)
            asked.append((round(now, 3), read))
            assert len(asked) < 10
            if answer == "404":
                scene.answer(read, Missing(), now)
            else:
                assert scene.fail(read, answer, now) is Scope.READ
        assert [read for _, read in asked] == [ReadJob(job="j-forged", cause=ReadCause.HINT)] * 2
        assert asked[1][0] == pytest.approx(1.0, abs=0.01)
        assert (scene.readers.events, scene.readers.leftovers, scene.readers.open_jobs) == ([], [], 0)

    @pytest.mark.parametrize("kind", ["forbidden", "server-error"])
    @pytest.mark.parametrize("frame", FORGED, ids=lambda frame: f"{frame.kind}{'-echo' if frame.echo else ''}")
    def test_one_that_is_refused_while_others_are_served_costs_no_more(
        self, frame: Frame, kind: OrchestratorFault
    ) -> None:
        """Until somebody else is answered the error counts for all reads; then it is the job's, and it is forgotten."""
        scene = Scene(ReadingOptions())
        scene.readers.frame(frame, 0.0)
        now, asked = 0.0, 0
        while now < 100.0:
            for read in scene.reads(now):
                if isinstance(read, ReadJobs):
                    scene.answer(read, page(), now + 0.001)
                else:
                    asked += 1
                    scene.fail(read, kind, now + 0.001)
            now += 0.05
        assert (asked, scene.readers.away) == (2, None)
        assert (scene.readers.events, scene.readers.leftovers, scene.readers.open_jobs) == ([], [], 0)

    def test_a_hint_that_came_while_an_old_answer_was_on_its_way_is_read(self) -> None:
        """The record may have the job by then: a 404 from before says nothing of that."""
        scene = Scene()
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.answer(scene.read(0.0), document(snapshot("Pending", 1), "Pending", rows=100), 0.01)
        read = scene.read(0.01)
        scene.readers.frame(ask_for_bid(snapshot("Running", 5)), 0.02)
        scene.answer(read, Missing(), 0.03)
        now, read = scene.wait(0.03)
        assert now < 2.0
        scene.answer(read, history("Pending", "Running"), now)
        assert scene.published() == [(1, "Pending"), (2, "Running")]

    @pytest.mark.parametrize("namespace", ["theirs", "default"])
    def test_whose_a_job_is_the_record_tells(self, namespace: str) -> None:
        """A frame that invents a namespace, a name or a type writes nothing under it."""
        scene = Scene()
        lie = Identity(id="j-1", namespace=namespace, name="lie", type="service")
        shown = snapshot("Pending", 1)
        scene.readers.frame(ask_for_bid(msgspec.structs.replace(shown, job=lie)), 0.0)
        scene.answer(scene.read(0.0), document(shown, "Pending"), 0.001)
        (event,) = scene.readers.events
        assert isinstance(event, Record)
        assert (event.job, event.key) == (identity(), KEY)

    def test_a_job_that_the_log_has_elsewhere_is_none_of_the_frames(self) -> None:
        """The namespace that a frame invents is looked up in the log, found empty, and forgotten."""
        scene = Scene()
        scene.has("Running", 2)
        shown = snapshot("Pending", 1)
        lie = Identity(id="j-1", namespace="theirs", name="one", type="batch")
        scene.readers.frame(ask_for_bid(msgspec.structs.replace(shown, job=lie)), 0.0)
        scene.answer(scene.read(0.0), document(snapshot("Running", 2), "Pending", "Running"), 0.001)
        assert scene.readers.events == []

    def test_whose_a_job_is_stays_as_the_record_has_told_it(self) -> None:
        """Somebody has written another job of that id into the log; a frame that names it changes nothing."""
        scene = Scene()
        scene.has("Running", 2)
        scene.log[JobKey("theirs.j-1")] = scene.log[KEY]
        shown = snapshot("Running", 2)
        scene.readers.frame(ask_for_bid(shown), 0.0)
        scene.readers.frame(message(RUN_RESULT), 0.0)
        lie = Identity(id="j-1", namespace="theirs", name="one", type="batch")
        scene.readers.frame(ask_for_bid(msgspec.structs.replace(shown, job=lie, revision=9), "e-2"), 0.001)
        read = scene.read(0.001)
        assert isinstance(read, ReadHistory)
        assert read.namespace == "default"

    def test_a_namespace_that_the_log_has_as_a_digest_the_record_tells(self) -> None:
        """It cannot be read from the key: so whose the job is, is asked for."""
        scene = Scene()
        long = Identity(id="j-1", namespace="n" * 200, name="one", type="batch")
        scene.has("Running", 2)
        scene.log[job_key(long.namespace, "j-1")] = scene.log[KEY]
        scene.readers.frame(ask_for_bid(msgspec.structs.replace(snapshot("Running", 3), job=long)), 0.0)
        assert isinstance(scene.read(0.0), ReadJob)

    def test_one_that_a_list_names_too_is_not_asked_for_again(self) -> None:
        """The record has named it, then it is gone, and the log has nothing of it: nothing is left to ask."""
        scene = Scene()
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.answer(scene.read(0.0), document(snapshot("Pending", 1), "Pending", rows=100), 0.01)
        scene.answer(scene.read(0.01), Missing(), 0.02)
        assert (scene.readers.wake_at(), scene.readers.leftovers) == (None, [])

    def test_a_new_job_is_not_given_up_while_nobody_is_answered(self) -> None:
        """The orchestrator is away for a while: errors of all say nothing of a job, however many there are."""
        scene = Scene(ReadingOptions(lists=False, turn_rate=0, pause_s=0.1, pause_max_s=0.2))
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        now = 0.0
        for _ in range(5):
            now, read = scene.wait(now)
            assert scene.fail(read, "unreachable", now) is Scope.ALL
        now, read = scene.wait(now)
        scene.answer(read, document(snapshot("Pending", 1), "Pending"), now)
        assert scene.published() == [(1, "Pending")]

    def test_a_job_of_reports_that_nobody_knows_is_not_gone(self) -> None:
        """The orchestrator may never have known it: a frame that names it is a stranger's."""
        scene = Scene()
        scene.has("Running", None, source=REPORTED)
        scene.readers.frame(message(RUN_RESULT, job="j-1"), 0.0)
        now = 0.0
        for _ in range(2):
            now, read = scene.wait(now)
            scene.answer(read, Missing(), now)
        assert (scene.readers.wake_at(), scene.readers.events) == (None, [])


class TestFrames:
    """A frame says how many entries the record has, or may soon have."""

    def test_a_new_job_is_one_request(self) -> None:
        """The job with its history tells whose it is and what it went through."""
        scene = Scene()
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        read = scene.read(0.0)
        assert read == ReadJob(job="j-1", cause=ReadCause.HINT)
        scene.answer(read, document(snapshot("Running", 2), "Pending", "Running"), 0.01)
        assert scene.published() == [(1, "Pending"), (2, "Running")]

    @pytest.mark.parametrize(("version", "rows"), [(2, None), (1, 100)])
    def test_a_job_that_has_lived_before_or_long_is_read_whole(self, version: int, rows: int | None) -> None:
        """What comes along is the latest version's, and at most a hundred rows of both levels."""
        scene = Scene()
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.answer(scene.read(0.0), document(snapshot("Pending", 3, version=version), "Pending", rows=rows), 0.01)
        assert scene.read(0.01) == ReadHistory(job="j-1", namespace="default", cause=ReadCause.HINT)

    def test_what_was_seen_already_is_no_hint(self) -> None:
        """An AskForBid at the entry that the log has, an approval of what runs: nothing is read."""
        scene = Scene()
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.readers.frame(message(BID_ACCEPTED), 0.0)
        assert (scene.reads(0.0), scene.readers.leftovers) == ([], [])

    def test_a_frame_of_a_life_that_ended_is_no_hint(self) -> None:
        """What comes late of an execution whose job has ended says nothing."""
        scene = Scene()
        scene.has("Completed", 3)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        for kind in (BID_ACCEPTED, RUN_RESULT, FrameKind.COMPUTE_ERROR):
            scene.readers.frame(message(kind), 0.0)
        assert scene.reads(1.0) == []

    def test_a_new_life_is_a_hint_however_low_its_revision(self) -> None:
        """Bacalhau counts revisions and we count entries: a higher version than seen is at least one entry more."""
        scene = Scene()
        scene.has("Completed", 9, version=1)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 4, version=2)), 0.0)
        assert isinstance(scene.read(0.0), ReadHistory)

    def test_an_end_is_read_a_moment_later(self) -> None:
        """The record follows it by 3 ms at the median, so a read at once would be too early."""
        scene = Scene()
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.readers.frame(message(RUN_RESULT), 1.0)
        assert scene.reads(1.0) == []
        now, _ = scene.wait(1.0)
        assert now == pytest.approx(1.005)

    def test_an_echo_is_read_only_where_no_end_is_watched(self) -> None:
        """It repeats an end: one that was heard is being read already."""
        scene = Scene()
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.readers.frame(message(FrameKind.CANCEL_EXECUTION, echo=True), 1.0)
        scene.answer(scene.read(1.0), history("Pending", "Running"), 1.01)
        due = scene.readers.wake_at()
        scene.readers.frame(message(FrameKind.CANCEL_EXECUTION, echo=True), 1.011)
        assert scene.readers.wake_at() == due

    def test_an_unknown_execution_hurries_a_list(self) -> None:
        """Whose it is, only a list can tell."""
        scene = Scene(ReadingOptions(turn_rate=0))
        first = scene.read_list(0.0)
        scene.answer(first, page(), 0.01)
        due = scene.readers.wake_at()
        scene.readers.frame(message(BID_ACCEPTED, "e-unheard"), 0.5)
        hurried = scene.readers.wake_at()
        assert due is not None
        assert hurried is not None
        assert hurried < due
        assert scene.readers.counts.unknown_executions == 1

    def test_executions_are_remembered_up_to_a_bound(self) -> None:
        """The oldest is forgotten."""
        scene = Scene(ReadingOptions(lists=False, turn_rate=0, executions_max=2))
        for number in range(5):
            scene.readers.frame(ask_for_bid(snapshot("Pending", 1), f"e-{number}"), 0.0)
        assert scene.readers.executions_known == 2


class TestRepeats:
    """A hint that the record does not answer is read again, and given up."""

    def watch(self, scene: Scene) -> list[float]:
        """The times of all reads of an end at 0 that the record never shows."""
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), -1.0)
        scene.readers.frame(message(RUN_RESULT), 0.0)
        times, now = [], 0.0
        while scene.readers.wake_at() is not None:
            now, read = scene.wait(now)
            times.append(now)
            scene.answer(read, history("Pending", "Running"), now + 0.001)
            assert len(times) < 100
        return times

    def test_they_come_soon_and_last_until_bacalhau_has_tried_again(self) -> None:
        """5, 25, 105 ms, 1 s, then once a turn; the last is behind 5.0 s."""
        times = self.watch(Scene())
        assert times[:4] == pytest.approx([0.005, 0.025, 0.105, 1.005])
        assert 5.0 < times[-1] < 5.2
        assert len(times) <= 9

    def test_an_answer_that_reaches_the_hint_ends_them(self) -> None:
        """The number of entries that was said is there."""
        scene = Scene()
        scene.has("Pending", 1)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.readers.frame(message(BID_ACCEPTED), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.01)
        assert scene.published() == [(2, "Running")]
        assert scene.readers.wake_at() is None

    def test_another_hint_does_not_put_an_end_off(self) -> None:
        """The record follows the end in 5 ms. A read before that, for another frame, is not the one of the end."""
        scene = Scene()
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Running", 2)), -1.0)
        scene.readers.frame(message(RUN_RESULT), 0.0)
        scene.readers.frame(ask_for_bid(snapshot("Running", 3), "e-2"), 0.001)
        scene.answer(scene.read(0.001), history("Pending", "Running"), 0.002)
        assert scene.readers.wake_at() == pytest.approx(0.005)

    def test_an_end_ends_every_hope(self) -> None:
        """Whatever more was said: after the end of a version nothing is expected of it."""
        scene = Scene()
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Running", 2)), 0.0)
        for _ in range(3):
            scene.readers.frame(message(RUN_RESULT), 0.0)
        _, read = scene.wait(0.0)
        scene.answer(read, history("Pending", "Running", "Completed"), 0.01)
        assert scene.published() == [(3, "Completed")]
        assert (scene.readers.wake_at(), scene.readers.leftovers) == (None, [])

    def test_a_thousand_hints_are_one_read(self) -> None:
        """While the job waits, or its read is under way, hints only raise its numbers."""
        scene = Scene()
        scene.has("Pending", 1)
        for number in range(1000):
            scene.readers.frame(ask_for_bid(snapshot("Pending", 2), f"e-{number}"), 0.0)
        read = scene.read(0.0)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 2), "e-x"), 0.001)
        assert scene.reads(0.001) == []
        scene.answer(read, history("Pending", "Queued"), 0.002)
        assert scene.published() == [(2, "Queued")]
        assert scene.reads(0.003) == []

    def test_nothing_is_read_while_an_event_is_written(self) -> None:
        """One thing at a time: what was read is not in the log yet, so another read could bring the same again."""
        scene = Scene(TURNS_ONLY)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        scene.answer(scene.read(0.0), document(snapshot("Pending", 1), "Pending"), 0.01)
        scene.readers.frame(message(BID_ACCEPTED), 0.02)
        assert scene.reads(10.0) == []
        scene.published()
        assert isinstance(scene.read(10.0), ReadHistory)


class TestTurns:
    """An open job that nobody looked at for a while."""

    def test_it_is_read_again_and_again(self) -> None:
        """1.3 s after the last look, however long the answer took."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 2)
        scene.follows()
        times, now = [], 0.0
        for _ in range(3):
            now, read = scene.wait(now)
            assert read == ReadHistory(job="j-1", namespace="default", cause=ReadCause.SCAN)
            times.append(now)
            scene.answer(read, history("Pending", "Running"), now + 0.2)
        assert times == pytest.approx([0.0, 1.3, 2.6])

    def test_an_end_closes_it(self) -> None:
        """Finished jobs are not looked at, and not remembered."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 2)
        scene.follows()
        assert scene.readers.open_jobs == 1
        _, read = scene.wait(0.0)
        scene.answer(read, history("Pending", "Running", "Failed"), 0.1)
        assert scene.published() == [(3, "Failed")]
        assert (scene.readers.open_jobs, scene.readers.wake_at(), scene.readers.leftovers) == (0, None, [])

    def test_a_row_that_agrees_is_a_look(self) -> None:
        """Lists a second apart leave nothing to turns."""
        scene = Scene(ReadingOptions())
        scene.has("Running", 2)
        scene.follows()
        now, reads = 0.0, 0
        for _ in range(2000):
            for read in scene.reads(now):
                if isinstance(read, ReadJobs):
                    scene.answer(read, page(snapshot("Running", 2)), now + 0.001)
                else:
                    reads += 1
                    scene.answer(read, history("Pending", "Running"), now + 0.001)
            now += 0.005
        assert reads <= 1
        agreed_at = scene.readers.agreed_at("j-1")
        assert agreed_at is not None
        assert agreed_at > now - 1.5

    def test_a_row_with_more_entries_than_were_seen_is_no_look(self) -> None:
        """The same state, two entries on, and not new to the lists: lists that agree must not keep its turn away."""
        scene = Scene(ReadingOptions())
        scene.has("Running", 2)
        scene.follows()
        scene.has("Failed", 2, job="j-newer")
        states, now = ["Pending", "Running"], 0.0
        published: list[tuple[int | None, str]] = []
        while now < 9.0 and not published:
            if now > 3.0:
                states = ["Pending", "Running", "Queued", "Running"]
            for read in scene.reads(now):
                if isinstance(read, ReadJobs):
                    newer = snapshot("Failed", 2, job="j-newer", modified_ns=9)
                    scene.answer(read, page(newer, snapshot("Running", len(states))), now + 0.001)
                else:
                    scene.answer(read, history(*states), now + 0.001)
            published = scene.published()
            now += 0.05
        assert published == [(3, "Queued"), (4, "Running")]

    def test_jobs_of_reports_alone_are_not_followed(self) -> None:
        """The orchestrator may never have known them."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", None, source=REPORTED)
        scene.follows()
        assert (scene.readers.open_jobs, scene.readers.wake_at()) == (0, None)

    def test_while_hints_wait_one_read_in_eight_is_a_turn(self) -> None:
        """Hints go first, but a state that has no frame must still be found."""
        scene = Scene(ReadingOptions(lists=False, turn_rate=1000.0, concurrency=1))
        for number in range(50):
            scene.has("Running", 2, job=f"j-open-{number}")
            scene.follows(f"j-open-{number}")
            scene.readers.frame(ask_for_bid(snapshot("Pending", 1, job=f"j-new-{number}"), f"e-{number}"), 0.0)
        causes = []
        for number in range(40):
            read = scene.read(number * 0.001)
            causes.append(read.cause)
            shown = snapshot("Pending", 1, job=read.job)
            scene.answer(
                read, document(shown, "Pending") if isinstance(read, ReadJob) else history("Pending"), number * 0.001
            )
        assert causes.count(ReadCause.SCAN) == 5

    def test_room_is_kept(self) -> None:
        """No more reads are given than may leave; which job is read is decided when one may."""
        scene = Scene(ReadingOptions(lists=False, turn_rate=0, concurrency=2))
        for number in range(5):
            scene.readers.frame(ask_for_bid(snapshot("Pending", 1, job=f"j-{number}"), f"e-{number}"), 0.0)
        first, _ = scene.reads(0.0)
        assert (scene.reads(0.1), scene.readers.wake_at()) == ([], None)
        assert (scene.readers.waiting(0.1), scene.readers.waited_s(0.1), scene.readers.in_flight) == (3, 0.1, 2)
        assert scene.readers.hints_open == 3
        scene.answer(first, document(snapshot("Pending", 1, job="j-0"), "Pending"), 0.2)
        assert [getattr(read, "job", "") for read in scene.reads(0.2)] == ["j-2"]


class TestClaims:
    """What answers say against the log is believed after a minute, in at least eight of them."""

    def repeat(self, scene: Scene, answer: HistoryPage | Missing, seconds: float) -> None:
        """Answer every read of the job so, for that long."""
        now = 0.0
        while (due := scene.readers.wake_at()) is not None and max(now, due) <= seconds:
            now = max(now, due)
            for read in scene.reads(now):
                if isinstance(read, ReadHistory):
                    scene.answer(read, answer, now)
                elif isinstance(read, ReadJob):
                    scene.answer(read, Missing(), now)

    def test_a_shorter_history_is_an_old_answer_until_then(self) -> None:
        """Then the log is corrected, once, and that is announced."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 3)
        scene.follows()
        self.repeat(scene, history("Pending"), 59.0)
        assert scene.readers.events == []
        self.repeat(scene, history("Pending"), 62.0)
        notice, record = scene.readers.events
        assert isinstance(record, Record)
        assert (record.corrected, record.steps[0].state) == (True, "Pending")
        assert getattr(notice, "kind", "") == "diverged"

    def test_one_good_answer_begins_the_count_anew(self) -> None:
        """A proxy that was old for a while has said nothing."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 2)
        scene.follows()
        self.repeat(scene, history("Pending"), 50.0)
        _, read = scene.wait(50.0)
        scene.answer(read, history("Pending", "Running"), 51.5)
        self.repeat(scene, history("Pending"), 100.0)
        assert scene.readers.events == []

    @pytest.mark.parametrize("answer", [Missing(), history()])
    def test_an_unknown_job_is_gone_then(self, answer: HistoryPage | Missing) -> None:
        """404, or (before 1.8) an empty history and then 404 of the job: announced once, and looked at no more."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 2)
        scene.follows()
        self.repeat(scene, answer, 59.0)
        assert scene.readers.events == []
        self.repeat(scene, answer, 70.0)
        assert [notice.kind for notice in scene.announced()] == ["gone"]
        assert (scene.readers.wake_at(), scene.readers.leftovers) == (None, [])

    def test_a_job_from_before_histories_is_joined_as_it_is(self) -> None:
        """It has none, however often it is asked for: after a minute its present state is published."""
        scene = Scene(TURNS_ONLY)
        scene.readers.frame(ask_for_bid(snapshot("Running", 2)), 0.0)
        now = 0.0
        while not scene.readers.events and now < 100.0:
            now, read = scene.wait(now)
            answer = document(snapshot("Running", 2)) if isinstance(read, ReadJob) else history()
            scene.answer(read, answer, now)
        (event,) = scene.readers.events
        assert isinstance(event, Record)
        assert (event.flags, [step.state for step in event.steps]) == (("joined",), ["Running"])
        assert 60.0 <= now < 62.0

    def test_one_that_had_ended_when_the_log_began_is_not(self) -> None:
        """It is left out, as any other is."""
        scene = Scene(TURNS_ONLY, since_ns=10)
        scene.readers.frame(ask_for_bid(snapshot("Running", 2)), 0.0)
        now = 0.0
        while scene.readers.wake_at() is not None:
            now, read = scene.wait(now)
            assert now < 100.0
            answer = document(snapshot("Failed", 2, modified_ns=9)) if isinstance(read, ReadJob) else history()
            scene.answer(read, answer, now)
        assert (scene.readers.events, scene.readers.leftovers) == ([], [])

    def test_a_job_of_the_log_that_has_no_history_is_announced(self) -> None:
        """It is there, and nothing can be told of it: `unreadable`, and not `gone`."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 2)
        scene.follows()
        now = 0.0
        while not scene.readers.events and now < 100.0:
            now, read = scene.wait(now)
            answer = document(snapshot("Running", 2)) if isinstance(read, ReadJob) else history()
            scene.answer(read, answer, now)
        assert [notice.facts["error"] for notice in scene.announced()] == ["no-history"]

    def test_the_record_takes_a_job_of_reports_over(self) -> None:
        """Corrected, once, and no contradiction: nobody said that reports and record agree."""
        scene = Scene()
        scene.has("Running", None, source=REPORTED)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.0)
        read = scene.read(0.0)
        assert isinstance(read, ReadJob), "whose a job is no report tells"
        scene.answer(read, document(snapshot("Pending", 1), "Pending"), 0.01)
        (event,) = scene.readers.events
        assert isinstance(event, Record)
        assert event.corrected

    def test_a_job_of_the_log_is_told_to_its_end_whenever_that_was(self) -> None:
        """A start with an earlier `scan.backfill` has begun to tell it: it is not left out half told."""
        scene = Scene(TURNS_ONLY, since_ns=10 * 10**9)
        scene.has("Pending", 1)
        scene.follows()
        now, read = scene.wait(0.0)
        scene.answer(read, history("Pending", "Failed", at_s=5), now)
        assert scene.published() == [(2, "Failed")]

    @pytest.mark.parametrize(("at_s", "corrected"), [(90, False), (100, False), (110, True)])
    def test_an_end_with_a_later_time_is_another_one(self, at_s: int, *, corrected: bool) -> None:
        """An older copy of the data was restored, and what had been lost was done again, alike."""
        scene = Scene()
        scene.log[KEY] = ended(100)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 4)), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running", "Completed", at_s=at_s), 0.01)
        assert any(isinstance(event, Record) for event in scene.readers.events) is corrected

    def test_lists_that_contradict_the_history_for_a_minute_are_announced(self) -> None:
        """The history agrees with the log, and every list says otherwise."""
        scene = Scene(ReadingOptions())
        scene.has("Running", 2)
        scene.follows()
        now = 0.0
        kinds: list[object] = []
        while now < 75.0 and not kinds:
            for read in scene.reads(now):
                if isinstance(read, ReadJobs):
                    scene.answer(read, page(snapshot("Failed", 3, modified_ns=int(now * 1e9) + 1)), now + 0.001)
                else:
                    scene.answer(read, history("Pending", "Running"), now + 0.001)
            kinds = [notice.facts["error"] for notice in scene.announced()]
            now += 0.05
        assert kinds == ["contradicts-list"]
        assert now > 60.0

    def test_a_list_that_was_old_is_followed_until_it_is_over(self) -> None:
        """A row from before the end: the job is read in turn until the lists agree, and nothing of it is left then."""
        scene = Scene(ReadingOptions())
        scene.has("Running", 2)
        scene.answer(scene.read_list(0.0), page(), 0.01)
        scene.readers.frame(ask_for_bid(snapshot("Running", 2)), 0.5)
        old = scene.read_list(1.1)
        scene.readers.frame(message(RUN_RESULT, job="j-1"), 1.12)
        scene.answer(scene.read(1.13), history("Pending", "Running", "Completed"), 1.14)
        assert scene.published() == [(3, "Completed")]
        scene.answer(old, page(snapshot("Running", 2, modified_ns=5)), 1.2)
        now, reads = 1.2, 0
        while now < 80.0:
            for read in scene.reads(now):
                if isinstance(read, ReadJobs):
                    scene.answer(read, page(snapshot("Completed", 3, modified_ns=6)), now + 0.001)
                else:
                    reads += 1
                    scene.answer(read, history("Pending", "Running", "Completed"), now + 0.001)
            assert scene.readers.leftovers == []
            now += 0.05
        assert reads <= 2 + 61 / 1.3
        assert scene.readers.agreed_at("j-1") is None
        assert scene.readers.events == []

    def test_answers_that_say_less_count_together(self) -> None:
        """404 and a shorter history by turns: none of them has said what the log says, for a minute."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 3)
        scene.follows()
        now, answers = 0.0, 0
        while not scene.readers.events and now < 200.0:
            now, read = scene.wait(now)
            scene.answer(read, Missing() if answers % 2 else history("Pending"), now)
            answers += 1
        assert 60.0 <= now < 62.0

    def test_a_job_that_stands_still_counts_a_good_answer_too(self) -> None:
        """The rules rejected its next step; an old answer now and then, between good ones, contradicts nothing."""
        scene = Scene(TURNS_ONLY)
        scene.has("Running", 2)
        scene.follows()
        now, read = scene.wait(0.0)
        scene.answer(read, history("Pending", "Running", "Weird"), now)
        (event,) = scene.readers.events
        scene.readers.events = []
        assert isinstance(event, Record)
        scene.readers.decided(event, Rejected(step=0, reason="unknown-state", rule="x"))
        assert [notice.kind for notice in scene.announced()] == ["halted"]
        for number in range(100):
            now, read = scene.wait(now)
            scene.answer(read, history(*(("Pending",) if number % 2 else ("Pending", "Running", "Weird"))), now)
        assert scene.readers.events == []

    def test_a_claim_ends_with_a_job_that_had_ended_when_the_log_began(self) -> None:
        """Once without a history, then with one that is left out: nothing of the job is left."""
        scene = Scene(TURNS_ONLY, since_ns=10 * 10**9)
        scene.readers.frame(ask_for_bid(snapshot("Running", 2)), 0.0)
        scene.answer(scene.read(0.0), document(snapshot("Completed", 3, modified_ns=5 * 10**9)), 0.01)
        now, read = scene.wait(0.02)
        scene.answer(read, history("Pending", "Running", "Completed", at_s=5), now)
        assert (scene.readers.wake_at(), scene.readers.leftovers, scene.readers.events) == (None, [], [])


def ended(at_s: int) -> LastUpdate:
    """The log has the job Completed, at that second."""
    return LastUpdate(
        number=9, sequence=3, state="Completed", version=0, revision=3, source=OBSERVED, time_ns=at_s * 1_000_000_000
    )


class TestFailures:
    """A job whose reads fail is asked ever more seldom, and hints do not change that."""

    def fail(self, scene: Scene, times: int) -> list[float]:
        """When each of so many failing reads of the job left."""
        left, now = [], 0.0
        for _ in range(times):
            now, read = scene.wait(now)
            left.append(now)
            scene.fail(read, "wrong-shape", now)
            scene.readers.frame(ask_for_bid(snapshot("Pending", 9)), now)
        return left

    def test_alone_it_waits_ever_longer_and_is_announced(self) -> None:
        """1, 2, 4 … at most 60 s; after five it is told, once."""
        scene = Scene()
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 9)), 0.0)
        left = self.fail(scene, 9)
        pauses = [after - before for before, after in itertools.pairwise(left)]
        assert pauses == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])
        (notice,) = scene.announced()
        assert (notice.kind, notice.facts["error"]) == ("unreadable", "wrong-shape")
        assert UNREADABLE_AFTER == 5

    def test_with_all_others_it_says_nothing_of_the_job(self) -> None:
        """The pace decides when; the job is asked again as soon as that lets it."""
        scene = Scene()
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 9)), 0.0)
        for number in range(20):
            _, read = scene.wait(20.0 * number)
            assert scene.fail(read, "unreachable", 20.0 * number) is Scope.ALL
        assert scene.readers.events == []

    @pytest.mark.parametrize(("kind", "cost"), [("unreachable", False), ("unresolved", False), ("slow", True)])
    def test_a_list_that_was_given_up_is_paused_for_by_what_it_cost(
        self, kind: OrchestratorFault, *, cost: bool
    ) -> None:
        """Whoever was not reached has not worked: its list comes a second after, and not after a share of our wait."""
        scene = Scene(ReadingOptions())
        scene.fail(scene.read_list(0.0), kind, 3.0)
        due = scene.readers.wake_at()
        assert due is not None
        assert (due - 3.0 > ReadingOptions().retry_s) is cost

    def test_an_answer_ends_it(self) -> None:
        """Whatever it says: the job can be read."""
        scene = Scene()
        scene.has("Running", 2)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 3)), 0.0)
        left = self.fail(scene, 3)
        now, read = scene.wait(left[-1])
        scene.answer(read, history("Pending", "Running", "Queued"), now)
        assert scene.published() == [(3, "Queued")]
        scene.readers.frame(ask_for_bid(snapshot("Pending", 12)), now + 0.1)
        assert isinstance(scene.read(now + 0.1), ReadHistory)


class TestPages:
    """Histories longer than a page."""

    OPTIONS = ReadingOptions(lists=False, turn_rate=50.0, history_limit=3)

    def read_all(self, scene: Scene, states: list[str], now: float) -> list[str]:
        """Let the job be read from its pages; gives the tokens that were asked for."""
        tokens = []
        _, read = scene.wait(now)
        while True:
            assert isinstance(read, ReadHistory)
            tokens.append(read.next_token)
            first = int(read.next_token or 0)
            rows = states[first : first + 3]
            more = str(first + 3) if len(rows) == 3 else ""
            scene.answer(read, history(*rows, more=more, first=first + 1), now)
            further = [one for one in scene.reads(now) if isinstance(one, ReadHistory)]
            if not further:
                return tokens
            (read,) = further

    def test_they_are_read_on_from_the_last_page(self) -> None:
        """The whole once; after that from where the last page began, so each entry is counted right."""
        states = ["Pending", "Running", "Queued", "Running", "Queued", "Running", "Queued"]
        scene = Scene(self.OPTIONS)
        scene.has("Pending", 1)
        scene.follows()
        assert self.read_all(scene, states, 0.0) == ["", "3", "6"]
        assert [revision for revision, _ in scene.published()] == [2, 3, 4, 5, 6, 7]
        states += ["Running", "Failed"]
        assert self.read_all(scene, states, 2.0) == ["6", "9"]
        assert scene.published() == [(8, "Running"), (9, "Failed")]

    def test_a_page_that_is_full_may_be_the_last(self) -> None:
        """The next one is empty then: it is read on from the last that had entries."""
        states = ["Pending", "Running", "Queued", "Running", "Queued", "Running"]
        scene = Scene(self.OPTIONS)
        scene.has("Pending", 1)
        scene.follows()
        assert self.read_all(scene, states, 0.0) == ["", "3", "6"]
        assert len(scene.published()) == 5
        assert self.read_all(scene, states, 2.0) == ["3", "6"]

    @pytest.mark.parametrize(
        ("states", "more"), [(("Pending", "Running"), "2"), (("Pending", "Running", "Queued"), "")]
    )
    def test_a_page_is_followed_only_if_it_is_full_and_says_so(self, states: tuple[str, ...], more: str) -> None:
        """An open job's token is a cursor, not a promise; and without a token there is nothing to ask for."""
        scene = Scene(self.OPTIONS)
        scene.has("Pending", 1)
        scene.follows()
        now, read = scene.wait(0.0)
        scene.answer(read, history(*states, more=more), now)
        assert len(scene.published()) == len(states) - 1
        assert scene.reads(now) == []

    def test_a_history_that_has_become_empty_is_read_whole(self) -> None:
        """Behind the last page's token there is nothing any more: what is there is another history."""
        states = ["Pending", "Running", "Queued", "Running"]
        scene = Scene(self.OPTIONS)
        scene.has("Pending", 1)
        scene.follows()
        self.read_all(scene, states, 0.0)
        scene.published()
        now, read = scene.wait(2.0)
        scene.answer(read, history(), now)
        assert scene.read(now) == ReadHistory(job="j-1", namespace="default", cause=ReadCause.SCAN)

    def test_a_history_has_an_end(self) -> None:
        """More entries than any can have: an error of the job's own, and no memory without bounds."""
        scene = Scene(msgspec.structs.replace(self.OPTIONS, history_max=8))
        scene.has("Pending", 1)
        scene.follows()
        now, read = scene.wait(0.0)
        for number in range(2):
            scene.answer(read, history("Queued", "Running", "Queued", more=str(number + 1)), now)
            read = scene.read(now)
        scene.answer(read, history("Queued", "Running", "Queued", more="3"), now)
        assert scene.reads(now) == []
        assert scene.readers.wake_at() == pytest.approx(1.0)

    def test_what_contradicts_the_log_there_is_read_whole(self) -> None:
        """Before anything is believed against the log, the whole history is asked for."""
        states = ["Pending", "Running", "Queued", "Running", "Queued"]
        scene = Scene(self.OPTIONS)
        scene.has("Pending", 1)
        scene.follows()
        self.read_all(scene, states, 0.0)
        scene.published()
        assert self.read_all(scene, ["Pending", "Running", "Queued", "Queued", "Running"], 2.0) == ["3", "", "3"]

    @pytest.mark.parametrize(("kind", "tokens"), [("wrong-shape", {""}), ("unreachable", {"3"})])
    def test_a_page_that_is_refused_is_read_from_the_first_entry(
        self, kind: OrchestratorFault, tokens: set[str]
    ) -> None:
        """The token of a page may be none any more, and the job would stand still for ever. Not if all reads fail."""
        states = ["Pending", "Running", "Queued", "Running"]
        scene = Scene(self.OPTIONS)
        scene.has("Pending", 1)
        scene.follows()
        assert self.read_all(scene, states, 0.0) == ["", "3"]
        scene.published()
        now, read = scene.wait(2.0)
        assert isinstance(read, ReadHistory)
        assert read.next_token == "3"
        asked = set()
        for _ in range(3):
            scene.fail(read, kind, now)
            now, read = scene.wait(now)
            assert isinstance(read, ReadHistory)
            asked.add(read.next_token)
        assert asked == tokens

    def test_endless_pages_are_an_error_of_the_jobs_own(self) -> None:
        """The same token again and again: given up, and asked again later."""
        scene = Scene(self.OPTIONS)
        scene.has("Pending", 1)
        scene.follows()
        _, read = scene.wait(0.0)
        for _ in range(2):
            scene.answer(read, history("Pending", "Running", "Queued", more="3"), 0.0)
            further = scene.reads(0.0)
            if further:
                (read,) = further  # type: ignore[assignment]
        assert scene.reads(0.0) == []
        due = scene.readers.wake_at()
        assert due == pytest.approx(1.0)


class TestDecided:
    """What became of an event."""

    def emitted(self, scene: Scene) -> Record:
        """An event of the job that is on its way."""
        scene.has("Pending", 1)
        scene.readers.frame(ask_for_bid(snapshot("Pending", 2)), 0.0)
        scene.answer(scene.read(0.0), history("Pending", "Running"), 0.01)
        (event,) = scene.readers.events
        scene.readers.events = []
        assert isinstance(event, Record)
        return event

    def test_one_that_no_longer_fits_is_read_again(self) -> None:
        """Another daemon was first: the log stands elsewhere now."""
        scene = Scene()
        event = self.emitted(scene)
        scene.readers.decided(event, Unchanged(reason="unjoined"))
        assert isinstance(scene.read(0.02), ReadHistory)

    def test_one_that_the_rules_reject_stands_still(self) -> None:
        """Announced once; read again in turn, it says no more."""
        scene = Scene(TURNS_ONLY)
        event = self.emitted(scene)
        scene.readers.decided(event, Rejected(reason="illegal-transition", rule="no", step=0))
        assert [notice.kind for notice in scene.announced()] == ["halted"]
        now = 0.02
        for _ in range(3):
            now, read = scene.wait(now)
            scene.answer(read, history("Pending", "Running", "Queued"), now)
        assert scene.readers.events == []
        assert scene.readers.leftovers == []


class TestRows:
    """A row of a list is a hint, or a look that found nothing."""

    def listed(self, scene: Scene, *rows: object, now: float = 0.0, bad: tuple[BadJob, ...] = ()) -> None:
        """Answer the list that is due."""
        scene.answer(scene.read_list(now), page(*rows, bad=bad), now + 0.001)  # type: ignore[arg-type]

    def test_a_job_that_the_log_has_not_is_read(self) -> None:
        """The row says whose it is, so its history is asked for; the state comes from there."""
        scene = Scene(ReadingOptions())
        self.listed(scene, snapshot("Queued", 2))
        read = scene.read(0.01)
        assert read == ReadHistory(job="j-1", namespace="default", cause=ReadCause.SCAN)
        scene.answer(read, history("Pending", "Queued"), 0.02)
        assert scene.published() == [(1, "Pending"), (2, "Queued")]

    def test_what_had_ended_when_the_log_began_is_left_out(self) -> None:
        """Neither read as a row nor published if a frame names it."""
        scene = Scene(ReadingOptions(), since_ns=5_000_000_000)
        self.listed(scene, snapshot("Failed", 2, modified_ns=4_000_000_000))
        assert scene.reads(0.01) == []
        scene.readers.frame(ask_for_bid(snapshot("Pending", 1)), 0.02)
        whole = JobDocument(job=snapshot("Failed", 2), history=history("Pending", "Failed", at_s=4))
        scene.answer(scene.read(0.02), whole, 0.03)
        assert scene.readers.events == []

    def test_one_that_could_not_be_read_is_read_by_itself(self) -> None:
        """What a list cannot tell of a job, a read of its own may."""
        scene = Scene(ReadingOptions())
        self.listed(scene, bad=(BadJob(id="j-odd", reason="wrong-shape", modified_ns=7),))
        assert scene.read(0.01) == ReadJob(job="j-odd", cause=ReadCause.SCAN)

    def test_one_that_no_read_gives_either_is_announced(self) -> None:
        """A list has named it, so it is there: it is asked for ever more seldom, and never forgotten for that."""
        scene = Scene(ReadingOptions(lists=False))
        scene.readers.look_everywhere()
        self.listed(scene, bad=(BadJob(id="j-odd", reason="wrong-shape", modified_ns=7),))
        now = 0.01
        for _ in range(UNREADABLE_AFTER):
            now, read = scene.wait(now)
            scene.fail(read, "wrong-shape", now)
        assert [notice.kind for notice in scene.announced()] == ["unreadable"]

    def test_there_is_room_for_so_many_jobs(self) -> None:
        """What has no room is counted, and found by a later list."""
        scene = Scene(ReadingOptions(jobs_max=2))
        self.listed(scene, *(snapshot("Running", 2, job=f"j-{number}") for number in range(5)))
        assert scene.readers.counts.dropped == 3
        assert len([read for read in scene.reads(0.01) if isinstance(read, ReadHistory)]) == 2

    def test_an_open_job_that_nobody_follows_has_its_turn_again(self) -> None:
        """Listed as open, with an entry more than the log has and not new to the lists: it is read all the same."""
        scene = Scene(ReadingOptions())
        scene.has("Running", 2)
        self.listed(scene, snapshot("Failed", 2, job="j-newer", modified_ns=99))
        now, read = scene.wait(0.01)
        scene.answer(read, history("Pending", "Failed"), now)
        scene.published()
        self.listed(scene, snapshot("Running", 4, modified_ns=50), now=1.1)
        now, read = scene.wait(1.11)
        assert read == ReadHistory(job="j-1", namespace="default", cause=ReadCause.SCAN)
        scene.answer(read, history("Pending", "Running", "Queued", "Running"), now)
        assert scene.published() == [(3, "Queued"), (4, "Running")]


def test_the_options_of_hints_alone_bring_no_read_by_themselves() -> None:
    """What the tests above rest on."""
    scene = Scene(HINTS_ONLY)
    scene.log[JobKey("default.j-1")] = ended(1)
    assert scene.readers.wake_at() is None
