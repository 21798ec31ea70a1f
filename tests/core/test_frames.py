"""What each message of Bacalhau says of the length of a job's record, beside what the log has of the job."""

import msgspec
import pytest

from consumer.core.frames import FrameHints
from consumer.core.options import ReadingOptions
from consumer.core.reader import Reader
from consumer.core.registry import Registry
from consumer.model import Frame, FrameKind, Snapshot
from tests.core.scene import HINTS_ONLY, KEY, RULES, ask_for_bid, logged, message, snapshot

NOW = 10.0
ACCEPTED, ANSWER = FrameKind.BID_ACCEPTED, FrameKind.BID_RESULT
RESULT, ERROR, CANCEL = FrameKind.RUN_RESULT, FrameKind.COMPUTE_ERROR, FrameKind.CANCEL_EXECUTION


class Hearing:
    """Frames, and what they hint at. The log has *state* with *revision* entries of *version*, or nothing ("")."""

    def __init__(
        self, state: str = "", revision: int = 0, version: int = 0, options: ReadingOptions = HINTS_ONLY
    ) -> None:
        log = {KEY: logged(state, revision, version=version)} if state else {}
        self.jobs = Registry(RULES, log.get, options, lambda: None, 0)
        if state and not RULES.is_terminal(state):  # an open job is followed, one that has ended is not
            reader = self.jobs.reader("j-1", KEY)
            assert reader is not None
            self.jobs.set_open(reader, is_open=True)
        self.frames = FrameHints(self.jobs)

    def hear(self, *frames: Frame) -> None:
        """Take *frames*, of which somebody can tell the job."""
        for frame in frames:
            assert self.frames.take_frame(frame, NOW)

    @property
    def reader(self) -> Reader:
        """The job's."""
        reader = self.jobs.get("j-1")
        assert reader is not None
        return reader

    @property
    def hints(self) -> tuple[int, int]:
        """How many entries the record has, and how many are hoped for; nothing of a job that nobody remembers."""
        reader = self.jobs.get("j-1")
        return (0, 0) if reader is None else (reader.said, reader.hoped)


def named(kind: FrameKind, *, accepted: bool = False, echo: bool = False) -> Frame:
    """A message that names its job (1.8+), of an execution whose AskForBid nobody heard."""
    return message(kind, "e-unheard", job="j-1", accepted=accepted, echo=echo)


@pytest.mark.parametrize(
    ("state", "revision", "frame", "hints"),
    [
        # Somebody runs the job: an entry more than the log has, whatever that is.
        ("Pending", 1, named(ACCEPTED), (2, 0)),
        ("Running", 2, named(ACCEPTED), (3, 0)),
        ("", 0, named(ACCEPTED), (1, 0)),
        # An execution ends, is refused or stopped: an entry more may follow.
        ("Running", 2, named(RESULT), (0, 3)),
        ("Running", 2, named(ERROR), (0, 3)),
        ("Running", 2, named(CANCEL), (0, 3)),
        ("Running", 2, named(CANCEL, echo=True), (0, 3)),
        ("Pending", 1, named(ANSWER), (0, 2)),
        # Ended jobs are not remembered. A frame may name the wrong namespace, so jobstate asks for the job itself.
        ("Completed", 3, named(ACCEPTED), (1, 0)),
        ("Completed", 3, named(RESULT), (0, 1)),
        # A node that takes the job says nothing: the approval follows, and says more.
        ("Pending", 1, named(ANSWER, accepted=True), (0, 0)),
    ],
)
def test_a_message_whose_ask_for_bid_nobody_heard(
    state: str, revision: int, frame: Frame, hints: tuple[int, int]
) -> None:
    """After a start, or a gap: the message alone says that the record may have gone on."""
    hearing = Hearing(state, revision)
    hearing.hear(frame)
    assert hearing.hints == hints


@pytest.mark.parametrize(
    ("state", "revision", "kind", "hints"),
    [
        ("Pending", 1, ACCEPTED, (2, 0)),
        ("Running", 2, ACCEPTED, (0, 0)),  # what it tells of is in the log
        ("", 0, RESULT, (1, 3)),  # the AskForBid told of the first entry; an end follows Running
        ("Pending", 1, RESULT, (0, 3)),
        ("Running", 5, RESULT, (0, 6)),
        ("Completed", 3, RESULT, (0, 0)),  # that life has ended
        ("Completed", 3, ACCEPTED, (0, 0)),
    ],
)
def test_a_message_of_an_execution_that_was_asked_for(
    state: str, revision: int, kind: FrameKind, hints: tuple[int, int]
) -> None:
    """The AskForBid showed a pending job with one entry: once it runs, the record has two."""
    hearing = Hearing(state, revision)
    hearing.hear(ask_for_bid(snapshot("Pending", 1)), message(kind))
    assert hearing.hints == hints


@pytest.mark.parametrize(("kind", "hints"), [(ACCEPTED, (4, 0)), (RESULT, (4, 4))])
def test_a_message_of_a_later_life_goes_on_behind_the_end(kind: FrameKind, hints: tuple[int, int]) -> None:
    """A rerun: Bacalhau may count its revisions from 1 again, so at least one entry more than the log has."""
    hearing = Hearing("Completed", 3)
    hearing.hear(ask_for_bid(snapshot("Pending", 1, version=1)), message(kind))
    assert hearing.hints == hints


@pytest.mark.parametrize(
    ("shown", "direct", "hints"),
    [
        (snapshot("Pending", 3), False, (3, 0)),
        (snapshot("Pending", 3), True, (4, 0)),  # ops and daemon jobs run at once
        (snapshot("Running", 3), True, (3, 0)),
        (snapshot("Running", 2), False, (0, 0)),
        (snapshot("Running", 1), False, (0, 0)),
    ],
)
def test_an_ask_for_bid_says_how_many_entries_there_are(
    shown: Snapshot, hints: tuple[int, int], *, direct: bool
) -> None:
    """The log has two: more are a hint, and no more are none."""
    hearing = Hearing("Running", 2)
    hearing.hear(ask_for_bid(shown, direct=direct))
    assert hearing.hints == hints


@pytest.mark.parametrize(("revision", "hoped"), [(2, 0), (1, 3)])
def test_a_retry_answers_the_hope_for_an_end(revision: int, hoped: int) -> None:
    """The scheduler has seen the end and asks again, and the record has no new entry; an older frame says nothing."""
    hearing = Hearing("Running", 2)
    hearing.hear(named(RESULT), ask_for_bid(snapshot("Running", revision)))
    assert hearing.hints == (0, hoped)


@pytest.mark.parametrize(
    ("kind", "wait_s"), [(RESULT, HINTS_ONLY.end_wait_s), (ERROR, HINTS_ONLY.end_wait_s), (CANCEL, 0.0), (ANSWER, 0.0)]
)
def test_an_end_is_looked_for_when_the_record_may_have_followed(kind: FrameKind, wait_s: float) -> None:
    """It follows by 3 ms at the median (recordings): a read at once would find nothing."""
    hearing = Hearing("Running", 2)
    hearing.hear(named(kind))
    assert (hearing.reader.hinted_at, hearing.reader.due) == (NOW + wait_s, NOW + wait_s)


def test_an_echo_says_nothing_where_the_end_was_told() -> None:
    """It would have the record looked for anew, though it only repeats what is looked for."""
    hearing = Hearing("Running", 2)
    hearing.hear(named(RESULT))
    due = hearing.reader.due
    hearing.hear(named(CANCEL, echo=True))
    assert (hearing.hints, hearing.reader.due) == ((0, 3), due)


def test_an_execution_that_is_asked_for_again_takes_nobodys_room() -> None:
    """Only a new one does; and one that was forgotten cannot be told of any more."""
    hearing = Hearing("Running", 2, options=msgspec.structs.replace(HINTS_ONLY, executions_max=2))
    shown = snapshot("Running", 2)
    hearing.hear(ask_for_bid(shown, "e-1"), ask_for_bid(shown, "e-2"), ask_for_bid(shown, "e-2"))
    hearing.hear(message(RESULT, "e-1"))
    hearing.hear(ask_for_bid(shown, "e-3"))
    assert not hearing.frames.take_frame(message(RESULT, "e-1"), NOW)
    assert (hearing.jobs.counts.frames, hearing.jobs.counts.unknown_executions) == (6, 1)


@pytest.mark.parametrize("frame", [ask_for_bid(snapshot("Completed", 3)), message(RESULT)])
def test_nothing_is_remembered_of_a_job_that_has_ended(frame: Frame) -> None:
    """What a repeat tells of is in the log: the job is not kept for it."""
    hearing = Hearing("Completed", 3)
    hearing.hear(ask_for_bid(snapshot("Running", 2)), frame)
    assert hearing.jobs.all() == []


def test_an_end_in_doubt_may_be_another_lifes() -> None:
    """The job is still remembered, and the message does not say which life it is of."""
    hearing = Hearing("Completed", 3)
    reader = hearing.jobs.reader("j-1", KEY)
    assert reader is not None
    hearing.hear(named(RESULT))
    assert hearing.hints == (0, 4)


def test_the_end_of_another_execution_is_looked_for_anew() -> None:
    """The record follows each of them by itself."""
    hearing = Hearing("Running", 2)
    hearing.hear(named(RESULT))
    assert hearing.frames.take_frame(named(RESULT), NOW + 2)
    assert hearing.reader.hinted_at == NOW + 2 + HINTS_ONLY.end_wait_s


@pytest.mark.parametrize("frame", [ask_for_bid(snapshot("Pending", 1)), named(RESULT)])
def test_a_job_without_room_is_left_to_a_list(frame: Frame) -> None:
    """It is counted, and nothing else comes of it."""
    hearing = Hearing(options=msgspec.structs.replace(HINTS_ONLY, jobs_max=0))
    hearing.hear(frame)
    assert (hearing.jobs.all(), hearing.jobs.counts.dropped) == ([], 1)
