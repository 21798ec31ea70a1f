"""Who is read next of many: `consumer.core.schedule`, and what the readers' numbers say of those that wait."""

from consumer.core import ReadHistory, ReadingOptions, ReadJob
from consumer.core.reader import Cause, Reader
from consumer.core.schedule import Schedule
from consumer.model import FrameKind
from tests.core.scene import TURNS_ONLY, Scene, ask_for_bid, document, history, message, snapshot


def schedule(turn_rate: float = 1000.0) -> Schedule:
    """An empty one."""
    return Schedule(ReadingOptions(turn_rate=turn_rate))


def put(it: Schedule, cause: Cause, count: int, due: float = 0.0) -> list[Reader]:
    """So many readers that are due then."""
    readers = [Reader(f"{cause}-{number}") for number in range(count)]
    for reader in readers:
        it.put(reader, due, cause)
    return readers


def order(it: Schedule, now: float, most: int) -> list[str]:
    """The causes of the next readers."""
    found: list[str] = []
    while len(found) < most and (reader := it.next(now)) is not None:
        found.append(str(reader.cause))
    return found


class TestOrder:
    """Hints first, and one in eight of the others."""

    def test_one_in_eight_is_of_a_row_while_hints_wait(self) -> None:
        """A list of thousands of jobs that are new keeps no hint waiting, and is kept waiting by none."""
        it = schedule()
        put(it, Cause.ROW, 100)
        put(it, Cause.HINT, 14, due=1.0)
        assert order(it, 1.0, 16) == (["hint"] * 7 + ["row"]) * 2
        assert order(it, 1.0, 3) == ["row"] * 3

    def test_rows_and_turns_go_by_due_time(self) -> None:
        """Neither keeps the other waiting for ever."""
        it = schedule()
        put(it, Cause.TURN, 1, due=1.0)
        put(it, Cause.ROW, 2, due=2.0)
        put(it, Cause.TURN, 1, due=3.0)
        assert order(it, 5.0, 1) == ["turn"]
        assert order(it, 5.1, 9) == ["row", "row", "turn"]

    def test_turns_have_a_rate(self) -> None:
        """However many are due."""
        it = schedule(turn_rate=10.0)
        put(it, Cause.TURN, 5)
        assert [order(it, now, 9) for now in (0.0, 0.05, 0.11, 0.22)] == [["turn"], [], ["turn"], ["turn"]]

    def test_the_stronger_cause_stays_and_what_is_sooner(self) -> None:
        """A row of a job that is hinted at brings it forward, and does not put it behind all other rows."""
        it = schedule()
        put(it, Cause.ROW, 50)
        (hinted,) = put(it, Cause.HINT, 1, due=9.0)
        it.put(hinted, 0.0, Cause.ROW)
        assert (it.next(0.0), hinted.cause, it.hinted) == (hinted, Cause.HINT, 0)
        (listed,) = put(it, Cause.ROW, 1)
        it.put(listed, 5.0, Cause.HINT)
        assert (it.next(0.0), listed.cause) == (listed, Cause.HINT)

    def test_a_turn_waits_for_what_a_hint_tells_of(self) -> None:
        """The record follows an end by some milliseconds: a turn just before that would be for nothing."""
        it = schedule()
        (reader,) = put(it, Cause.TURN, 1, due=1.0)
        it.put(reader, 1.005, Cause.HINT)
        assert (it.next(1.0), it.wake_at()) == (None, 1.005)

    def test_without_turns_nothing_of_them_is_kept(self) -> None:
        """A job that is hinted at again and again leaves no entry of its turns behind."""
        it = schedule(turn_rate=0.0)
        put(it, Cause.TURN, 1)
        (reader,) = put(it, Cause.TURN, 1)
        for now in range(1000):
            it.put(reader, float(now), Cause.HINT)
            assert it.next(float(now)) is reader
            it.put(reader, now + 1.3, Cause.TURN)
        assert sum(len(heap) for heap in it._heaps.values()) == 0

    def test_those_that_are_due_are_counted(self) -> None:
        """Not who was dropped, nor who is due later; and of turns the one whose time has come."""
        it = schedule()
        due, later = put(it, Cause.HINT, 40), put(it, Cause.HINT, 40, due=2.0)
        put(it, Cause.ROW, 3)
        put(it, Cause.TURN, 9)
        for reader in (*due[::2], *later[::2]):
            it.drop(reader)
        assert (it.overdue(1.0), it.overdue(2.0), it.hinted) == (24, 44, 40)


class TestWaiting:
    """What may not leave yet stays in the schedule."""

    def test_a_hint_goes_before_turns_that_wait(self) -> None:
        """The orchestrator is behind: fifty open jobs wait for their turn. The one that a frame names goes next."""
        options = ReadingOptions(lists=False, concurrency=1, turn_rate=1000.0)
        scene = Scene(options)
        for number in range(50):
            scene.has("Running", 2, job=f"j-{number}")
            scene.follows(f"j-{number}")
        (first,) = scene.reads(0.0)
        assert scene.reads(1.0) == []
        scene.readers.frame(message(FrameKind.CANCEL_EXECUTION, job="j-49"), 1.0)
        scene.answer(first, history("Pending", "Running"), 1.001)
        assert scene.read(1.001) == ReadHistory(job="j-49", namespace="default", cause="hint")

    def test_how_many_wait_and_how_long_is_told(self) -> None:
        """Three thousand hints at once: eight leave, and the others are told of."""
        scene = Scene(TURNS_ONLY)
        for number in range(3000):
            scene.readers.frame(ask_for_bid(snapshot("Pending", 1, job=f"j-{number}"), f"e-{number}"), 0.5)
        reads = scene.reads(0.5)
        assert (len(reads), scene.readers.in_flight) == (8, 8)
        assert (scene.readers.hints_open, scene.readers.waiting(2.5), scene.readers.waited_s(2.5)) == (2992, 2992, 2.0)
        now = 0.501
        while reads:
            for read in reads:
                assert isinstance(read, ReadJob)
                scene.answer(read, document(snapshot("Failed", 2, job=read.job), "Pending", "Failed"), now)
            scene.published()
            now += 0.001
            reads = scene.reads(now)
            if not reads and scene.readers.hints_open:  # two thousand have left: the window is full
                due = scene.readers.wake_at()
                assert due is not None
                now = max(now, due)
                reads = scene.reads(now)
        assert (scene.readers.hints_open, scene.readers.waiting(now), scene.readers.waited_s(now)) == (0, 0, 0.0)
        assert 10.0 < now - 0.5 < 11.0
