"""The pump between a source of events and the lanes: what goes in comes out once, and each side hears of the other."""

from consumer.core import Core, Lanes
from consumer.core.appends import Append, Unanswered
from consumer.core.reads import OrchestratorRead, ReadJobs
from consumer.model import (
    NOWHERE,
    START,
    Accepted,
    Decision,
    Event,
    Frame,
    FrameKind,
    Identity,
    InputPosition,
    Notice,
    ReadCause,
    Record,
    Step,
    Unchanged,
    Work,
)
from consumer.replay.memory import MemoryLog
from consumer.rules import load
from consumer.wire import decode_report
from consumer.wire.subjects import Names, job_key

NAMES = Names("main")
JOB = Identity(id="j-1", namespace="default", name="one", type="batch")
KEY = job_key("default", "j-1")


def record(*states: str, after: int = 0) -> Record:
    """Steps of the job's record that follow entry *after*."""
    steps = tuple(
        Step(version=1, revision=after + number, state=state, time=None, message="")
        for number, state in enumerate(states, 1)
    )
    return Record(key=KEY, job=JOB, after=START, steps=steps, corrected=False, cause=ReadCause.HINT)


class Script:
    """A source that brings the events it was given, and notes what it hears."""

    def __init__(self, *events: Work) -> None:
        self.events: list[Work] = list(events)
        self.heard: list[str] = []
        self.reads: list[OrchestratorRead] = []
        self.late: list[Work] = []
        self.due: float | None = None

    def frame(self, frame: Frame, now: float) -> None:
        self.heard.append(f"{frame.kind} at {now}")

    def look_everywhere(self) -> None:
        self.heard.append("gap")

    def decided(self, event: Event, decision: Decision) -> None:
        self.heard.append(f"{type(event).__name__} {type(decision).__name__}")
        self.reads.append(ReadJobs())

    def due_reads(self, now: float) -> list[OrchestratorRead]:
        """Give the reads; whatever time brings stands in `events` afterwards."""
        if self.due is not None and self.due <= now:
            self.events, self.late, self.due = self.late, [], None
        reads, self.reads = self.reads, []
        return reads

    def wake_at(self) -> float | None:
        return self.due


def answer_all(core: Core, log: MemoryLog, now: float = 0.0) -> list[Append]:
    """Have the log answer whatever is to be sent."""
    sent = core.appends(now)
    for ask in sent:
        core.log_answered(ask.token, log.answer(ask), now)
    return [ask for ask in sent if isinstance(ask, Append)]


def test_an_event_is_appended_and_its_facts_come_out_once() -> None:
    """A record's steps are one append after the other; each published once, and the end of the event is told once."""
    source = Script(record("Pending", "Running"))
    core, log = Core(Lanes(load(), NAMES), source), MemoryLog()
    published, decided = [], []
    for _ in range(5):
        settled = core.settle(0.0)
        published += [one.update.StateType for one in settled.published]
        decided += [type(one.decision) for one in settled.decided]
        answer_all(core, log)
    assert published == ["Pending", "Running"]
    assert decided == [Accepted]
    assert source.heard == ["Record Accepted"]


def test_what_writes_nothing_has_its_source_read_again_in_the_same_call() -> None:
    """An event that is Unchanged is over at once: the read that it brings comes out of the same `settle`."""
    source = Script(record("Pending"))
    lanes = Lanes(load(), NAMES)
    core, log = Core(lanes, source), MemoryLog()
    core.settle(0.0)
    answer_all(core, log)
    core.settle(0.0)
    source.events = [record("Pending")]
    settled = core.settle(0.0)
    assert [type(one.decision) for one in settled.decided] == [Unchanged]
    assert settled.reads == [ReadJobs()]
    assert not core.appends(0.0)


def test_what_time_brings_goes_through_the_lanes_in_the_same_call() -> None:
    """A source that tells of something overdue while its reads are taken is heard before `settle` returns."""
    source = Script()
    source.late, source.due = [Notice(kind="gap", origin="1", text="t")], 7.0
    core = Core(Lanes(load(), NAMES), source)
    assert core.wake_at() == 7.0
    assert not core.settle(6.9).events
    assert [event.origin for event in core.settle(7.0).events if isinstance(event, Notice)] == ["1"]
    assert len(core.appends(7.0)) == 1
    assert core.wake_at() is None


def test_frames_and_gaps_reach_the_source_and_nobody_without_one() -> None:
    """With reports only there is no source: a frame and a gap are nothing then."""
    frame = Frame(kind=FrameKind.RUN_RESULT, execution="e-1", node="n-1", profile="1.8+")
    source = Script()
    for core in (Core(Lanes(load(), NAMES), source), Core(Lanes(load(), NAMES))):
        core.frame(frame, 3.0)
        core.look_everywhere()
        assert not core.settle(3.0).events
    assert source.heard == [f"{FrameKind.RUN_RESULT} at 3.0", "gap"]


def test_reports_need_no_source() -> None:
    """A report goes through the lanes, and the advisory of a notice is told when the log has it."""
    core, log = Core(Lanes(load(), NAMES)), MemoryLog()
    subject = f"{NAMES.in_prefix}default.j-1"
    core.offer(decode_report(NAMES, subject, b'{"StateType":"Running"}', InputPosition(1, 1)))
    core.offer(Notice(kind="input", origin="1", text="t"))
    assert not core.settle(0.0).published
    answer_all(core, log)
    settled = core.settle(0.0)
    assert [one.update.StateType for one in settled.published] == ["Running"]
    assert [notice.kind for notice in settled.announced] == ["input"]
    again = core.settle(0.0)
    assert [again.published, again.announced, again.decided] == [[], [], []]
    assert core.lanes.floor > NOWHERE


def test_while_nothing_can_be_sent_only_the_source_wakes_the_core() -> None:
    """A log that is away is not waited for by the clock: its loop looks what is due once it can send again."""
    source = Script(record("Pending"))
    core = Core(Lanes(load(), NAMES), source)
    core.settle(0.0)
    (ask,) = core.appends(0.0)
    core.log_answered(ask.token, Unanswered("timeout"), 0.0)
    source.due = 90.0
    core.settle(0.0)
    retry = core.wake_at()
    assert retry is not None
    assert retry < 90.0
    assert core.wake_at(log=False) == 90.0
