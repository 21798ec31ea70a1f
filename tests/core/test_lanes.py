"""How events get into the log once: `consumer.core.lanes`. Answers are given by hand, and time is a number."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from consumer.core.appends import Append, Busy, Entry, Read, ReadBack, Refused, Stored, Unanswered
from consumer.core.compose import HEADERS_MAX
from consumer.core.flight import BACKOFF_FIRST_S, BACKOFF_MAX_S, Tally
from consumer.core.lanes import BUSY_WAIT_S, STALE_WAIT_S, Lanes
from consumer.core.verify import VerifiedJob
from consumer.model import (
    NOWHERE,
    OBSERVED,
    REPORTED,
    START,
    Accepted,
    Identity,
    InputPosition,
    Job,
    JobKey,
    LastUpdate,
    LogPoint,
    Malformed,
    Notice,
    Record,
    Rejected,
    Report,
    Source,
    Step,
    Unchanged,
    Undecodable,
    Update,
)
from consumer.rules import load
from consumer.wire.subjects import Names
from consumer.wire.update import decode_update, encode_update

RULES = load(None)
NAMES = Names()
KEY, OTHER = JobKey("default.j-1"), JobKey("default.j-2")


def report(state: str, sequence: int, key: JobKey = KEY, *, traceparent: str = "", message: str = "") -> Report:
    """A report at *sequence* of the input, stored at ten times that."""
    return Report(
        key=key,
        job=Identity(id=key.partition(".")[2], namespace="default"),
        position=InputPosition(sequence * 10, sequence),
        state=state,
        message=message,
        traceparent=traceparent,
    )


def record(after: LogPoint, *steps: tuple[int, str], corrected: bool = False) -> Record:
    """Steps (revision, state) of version 0 that follow *after*."""
    return Record(
        key=KEY,
        job=Identity(id="j-1", namespace="default"),
        after=after,
        steps=tuple(Step(version=0, revision=revision, state=state) for revision, state in steps),
        corrected=corrected,
    )


def junk(origin: str, sequence: int = 0) -> Malformed:
    """Bytes that could not be read: a report's at *sequence* of the input, or (0) a frame's."""
    return Malformed(
        reason="not-json",
        origin=origin,
        source="report" if sequence else "frame",
        subject="x",
        size=1,
        sha256="0" * 64,
        position=InputPosition(sequence * 10, sequence) if sequence else NOWHERE,
    )


def entry(
    number: int,
    sequence: int,
    state: str,
    *,
    expected: int | None = None,
    previous: str | None = None,
    report_at: int = 0,
    source: Source = REPORTED,
) -> Entry:
    """An update of the job that another daemon of ours stored as the log's entry *number*."""
    update = Update(
        StateType=state,
        Job=Job(ID="j-1", Namespace="default"),
        Previous=previous,
        Sequence=sequence,
        Time=None,
        Source=source,
    )
    return Entry(
        number=number,
        subject=NAMES.state(KEY, state),
        body=encode_update(update),
        input=f"{report_at}@{report_at * 10}" if report_at else "",
        expected=expected,
        filter=NAMES.states(KEY),
    )


def stored_as(number: int, append: Append) -> Entry:
    """What *append* is once it is the log's entry *number*."""
    return Entry(
        number=number,
        subject=append.subject,
        body=append.body,
        input=append.input,
        expected=append.expected,
        filter=append.filter,
    )


def appends(lanes: Lanes, now: float = 0.0) -> list[Append]:
    """What is to be sent now: appends only."""
    asks = lanes.take(now)
    assert all(isinstance(ask, Append) for ask in asks), asks
    return [ask for ask in asks if isinstance(ask, Append)]


def only_append(lanes: Lanes, now: float = 0.0) -> Append:
    """The one append that is to be sent now."""
    (ask,) = appends(lanes, now)
    return ask


def only_read_back(lanes: Lanes, now: float = 0.0) -> ReadBack:
    """The one read-back that is to be sent now."""
    (ask,) = lanes.take(now)
    assert isinstance(ask, ReadBack), ask
    return ask


def log_states(lanes: Lanes) -> list[tuple[int, str]]:
    """Number and state of what was published since the last look."""
    published, lanes.published = lanes.published, []
    return [(one.number, one.update.StateType) for one in published]


def at(
    state: str, number: int, sequence: int = 1, *, source: Source = REPORTED, revision: int | None = None
) -> LastUpdate:
    """A job whose last entry is *number*, from the report at 1 of the input."""
    return LastUpdate(
        number=number,
        sequence=sequence,
        state=state,
        version=0 if revision else None,
        revision=revision,
        source=source,
        input_time_ns=10,
        input_sequence=1,
    )


class TestConfirmed:
    """How far the log reaches at least, as its answers say."""

    def test_of_every_kind_but_of_the_log_alone(self) -> None:
        """The refused stream has numbers of its own."""
        lanes = Lanes(RULES, NAMES)
        assert lanes.confirmed == 0
        for number, work in (
            (3, Notice(kind="gap", origin="1", text="t")),
            (2, report("Running", 1)),
            (900, junk("1")),
        ):
            lanes.offer(work)
            lanes.answer(only_append(lanes).token, Stored(number), 0.0)
            assert lanes.confirmed == 3
        lanes.checkpoint()
        lanes.answer(only_append(lanes).token, Stored(5), 0.0)
        assert lanes.confirmed == 5


class TestKnown:
    """What the lanes say of the jobs and of themselves."""

    def test_where_the_jobs_stand(self) -> None:
        """Each job's last update, how many stand in each state, and the last entry of any job."""
        lanes = Lanes(RULES, NAMES, {KEY: at("Running", 4), OTHER: at("Running", 9)})
        assert (lanes.jobs, lanes.last) == ({KEY: at("Running", 4), OTHER: at("Running", 9)}, 9)
        assert +Counter(lanes.by_state) == {"Running": 2}
        lanes.offer(report("Completed", 2))
        lanes.answer(only_append(lanes).token, Stored(12), 0.0)
        assert +Counter(lanes.by_state) == {"Completed": 1, "Running": 1}
        assert (lanes.jobs[KEY].number, lanes.last) == (12, 12)
        lanes.learn(JobKey("default.j-3"), VerifiedJob(known=at("Running", 3), number=3))
        assert +Counter(lanes.by_state) == {"Completed": 1, "Running": 2}
        assert lanes.last == 12
        assert Lanes(RULES, NAMES).last == 0

    def test_a_job_that_the_log_forgot_stands_nowhere(self) -> None:
        """It is counted no more."""
        lanes = Lanes(RULES, NAMES, {KEY: at("Queued", 4)})
        lanes.offer(report("Running", 6))
        lanes.answer(only_append(lanes).token, Refused(0), 0.0)
        lanes.answer(only_read_back(lanes).token, Read(()), 0.0)
        assert (lanes.jobs, +Counter(lanes.by_state), lanes.tally.forgotten) == ({}, {}, 1)

    def test_a_job_is_idle_while_nothing_of_it_is_under_way(self) -> None:
        """From its event to the confirmation it is not; others are."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Running", 1))
        assert (lanes.is_idle(KEY), lanes.is_idle(OTHER)) == (False, True)
        lanes.answer(only_append(lanes).token, Stored(1), 0.0)
        assert lanes.is_idle(KEY)

    def test_what_is_over_is_held_behind_what_is_not(self) -> None:
        """A report stays in memory until all before it in the input are over; of a record nothing does."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Running", 1))
        lanes.offer(report("Running", 2, OTHER))
        first, second = appends(lanes)
        lanes.answer(second.token, Stored(1), 0.0)
        assert (lanes.waiting, lanes.held, lanes.floor) == (1, 2, NOWHERE)
        lanes.answer(first.token, Stored(2), 0.0)
        assert (lanes.waiting, lanes.held, lanes.floor) == (0, 0, InputPosition(20, 2))
        lanes.offer(msgspec.structs.replace(record(START, (1, "Pending")), key=JobKey("default.j-3")))
        assert (lanes.waiting, lanes.held) == (1, 1)

    def test_a_foreign_entry_under_no_job_is_announced(self) -> None:
        """As a notice that names it."""
        lanes = Lanes(RULES, NAMES)
        lanes.announce_foreign(7, "somebody's")
        append = only_append(lanes)
        assert append.subject == NAMES.advisory("foreign", "7")
        lanes.answer(append.token, Stored(8), 0.0)
        assert lanes.announced == [Notice(kind="foreign", origin="7", text="somebody's", facts={"number": 7})]
        assert lanes.tally == Tally(foreign=1, appends=1)

    def test_everything_is_counted(self) -> None:
        """Each answer of each kind once; a copy stays as it was."""
        lanes = Lanes(RULES, NAMES)
        before = lanes.tally.copy()
        lanes.offer(report("Running", 1))
        append = only_append(lanes)
        lanes.answer(append.token, Busy(), 0.0)
        assert lanes.tally == Tally(appends=1, busy=1)
        assert only_append(lanes, 1.0) == append
        lanes.answer(append.token, Unanswered("10077", full=True), 1.0)
        assert lanes.tally == Tally(appends=1, busy=1, unanswered=1, full=1, resends=1)
        assert only_append(lanes, 2.0) == append
        lanes.answer(append.token, Refused(9), 2.0)
        read = only_read_back(lanes, 2.0)
        lanes.answer(read.token, Read((stored_as(9, append),)), 2.0)
        assert lanes.tally == Tally(appends=1, busy=1, unanswered=1, full=1, resends=1, refused=1, read_backs=1)
        lanes.checkpoint()
        lanes.checkpoint()
        assert (lanes.tally.checkpoints, lanes.tally.appends) == (1, 2)
        assert before == Tally()


class TestBounds:
    """What is larger than an entry may be is cut: the server would hang up, on this daemon and the next one."""

    def test_a_records_message(self) -> None:
        """The update in memory is the one in the log; two daemons cut alike, and each takes the other's for its own."""
        event = Record(
            key=KEY,
            job=Identity(id="j-1", namespace="default"),
            after=START,
            steps=(Step(version=0, revision=1, state="Pending", message="\x01" * 100_000),),
        )
        first, second = (Lanes(RULES, NAMES, message_max=65_536) for _ in range(2))
        first.offer(event)
        second.offer(event)
        append = only_append(first)
        assert append.body == only_append(second).body
        assert 65_536 - HEADERS_MAX - 6 < len(append.body) <= 65_536 - HEADERS_MAX
        first.answer(append.token, Stored(7), 0.0)
        (published,) = first.published
        assert encode_update(published.update) == append.body
        assert published.update.Flags == ("cut",)

    def test_a_reports_bytes(self) -> None:
        """Base64 makes them longer by a third."""
        work = msgspec.structs.replace(junk("1-1", 1), data=b"x" * 64_000)
        lanes = Lanes(RULES, NAMES, message_max=65_536)
        lanes.offer(work)
        assert 65_536 - HEADERS_MAX - 4 < len(only_append(lanes).body) <= 65_536 - HEADERS_MAX


class TestOneAtATime:
    """A lane per job, one entry in flight, nothing between jobs."""

    def test_the_next_event_of_a_job_waits_for_the_confirmation(self) -> None:
        """One entry of a job is in flight; the next is decided when the log has confirmed it, in order."""
        lanes = Lanes(RULES, NAMES)
        for sequence, state in enumerate(("Pending", "Queued", "Running"), 1):
            lanes.offer(report(state, sequence))
        for number, state in ((11, "pending"), (12, "queued"), (13, "running")):
            append = only_append(lanes)
            assert append.subject == f"jobstate.v1.main.state.default.j-1.{state}"
            assert lanes.take(0.0) == []
            lanes.answer(append.token, Stored(number), 0.0)
        assert log_states(lanes) == [(11, "Pending"), (12, "Queued"), (13, "Running")]
        assert (lanes.waiting, lanes.active, lanes.in_flight) == (0, 0, 0)

    def test_jobs_do_not_wait_for_each_other(self) -> None:
        """A job whose append is unanswered holds up no other."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1))
        lanes.offer(report("Pending", 2, OTHER))
        first, second = appends(lanes)
        lanes.answer(second.token, Stored(1), 0.0)
        lanes.offer(report("Running", 3, OTHER))
        assert only_append(lanes).filter == NAMES.states(OTHER)
        assert first.filter == NAMES.states(KEY)

    def test_the_steps_of_a_record_go_one_by_one(self) -> None:
        """Each step is an append of its own on the one before; the event is over with the last."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(record(START, (1, "Pending"), (2, "Running")))
        append = only_append(lanes)
        lanes.answer(append.token, Stored(5), 0.0)
        assert lanes.decided == []
        following = only_append(lanes)
        assert following.expected == 5
        lanes.answer(following.token, Stored(6), 0.0)
        assert log_states(lanes) == [(5, "Pending"), (6, "Running")]
        (decided,) = lanes.decided
        assert isinstance(decided.decision, Accepted)

    def test_what_changes_nothing_writes_nothing(self) -> None:
        """An event that is `Unchanged` is over at once."""
        lanes = Lanes(RULES, NAMES, {KEY: at("Running", 4)})
        lanes.offer(report("Running", 2))
        assert lanes.take(0.0) == []
        (decided,) = lanes.decided
        assert isinstance(decided.decision, Unchanged)
        assert lanes.waiting == 0

    def test_only_so_many_are_in_flight(self) -> None:
        """`flight_max` asks are out at most; an answer makes room."""
        lanes = Lanes(RULES, NAMES, flight_max=2)
        for number in range(3):
            lanes.offer(report("Pending", number + 1, JobKey(f"default.j-{number}")))
        first, _ = appends(lanes)
        assert lanes.take(0.0) == []
        assert lanes.in_flight == 2
        lanes.answer(first.token, Stored(1), 0.0)
        assert len(appends(lanes)) == 1


class TestCompareAndSet:
    """Each update names the one it follows, by a number that the server gave."""

    def test_a_first_update_expects_nothing(self) -> None:
        """0 under all of the job's states."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1, traceparent="00-a-b-01"))
        append = only_append(lanes)
        assert (append.filter, append.expected) == ("jobstate.v1.main.state.default.j-1.*", 0)
        assert (append.stream, append.rollup, append.traceparent) == ("log", False, "00-a-b-01")

    def test_an_update_expects_the_jobs_last_confirmed_entry(self) -> None:
        """What a start found, and then what the server answered."""
        lanes = Lanes(RULES, NAMES, {KEY: at("Pending", 40)})
        lanes.offer(report("Queued", 2))
        lanes.offer(report("Running", 3))
        append = only_append(lanes)
        assert append.expected == 40
        lanes.answer(append.token, Stored(77), 0.0)
        assert only_append(lanes).expected == 77
        known = lanes.known(KEY)
        assert known is not None
        assert (known.number, known.state, known.sequence) == (77, "Queued", 2)

    def test_an_update_by_a_report_names_it(self) -> None:
        """`Jobstate-Input` is the report's place in the input."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 6))
        assert only_append(lanes).input == "6@60"

    def test_the_covered_report_goes_along_when_the_record_took_over(self) -> None:
        """The record's updates name the last report before them, so that a restart knows it for covered."""
        lanes = Lanes(RULES, NAMES, {KEY: at("Running", 4)})
        lanes.offer(record(LogPoint(1, None, None, "Running"), (2, "Running"), corrected=True))
        append = only_append(lanes)
        assert append.input == "1@10"
        lanes.answer(append.token, Stored(5), 0.0)
        lanes.offer(record(LogPoint(2, 0, 2, "Running"), (3, "Completed")))
        assert only_append(lanes).input == "1@10"

    def test_a_job_of_the_record_alone_names_no_report(self) -> None:
        """Nothing stands in the header where there was never a report."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(record(START, (1, "Pending")))
        assert only_append(lanes).input == ""


class TestRefused:
    """10071: another entry stands where ours was to follow."""

    def refused(self, *, number: int = 9, known: LastUpdate | None = None) -> tuple[Lanes, Append, ReadBack]:
        """A Running that was refused with *number*, and the read-back that it brought."""
        lanes = Lanes(RULES, NAMES, {KEY: known} if known is not None else None)
        lanes.offer(report("Running", 6))
        append = only_append(lanes)
        lanes.answer(append.token, Refused(number), 0.0)
        read = only_read_back(lanes)
        assert (read.filter, read.whole) == (append.filter, False)
        return lanes, append, read

    def test_ours_is_there_already(self) -> None:
        """The log says what we wanted to say: it is done, and published once."""
        lanes, append, read = self.refused()
        lanes.answer(read.token, Read((stored_as(9, append),)), 0.0)
        assert log_states(lanes) == [(9, "Running")]
        assert lanes.take(0.0) == []
        assert lanes.waiting == 0
        known = lanes.known(KEY)
        assert known is not None
        assert (known.number, known.input) == (9, InputPosition(60, 6))

    def test_a_stale_answer_is_not_taken(self) -> None:
        """Below the number that the server named nothing is adopted: a little later the append itself asks again."""
        before = at("Queued", 4)
        lanes, append, read = self.refused(known=before)
        lanes.answer(read.token, Read((entry(4, 1, "Queued", expected=0, report_at=1),)), 1.0)
        assert lanes.known(KEY) == before
        assert lanes.take(1.0) == []
        assert lanes.wake_at() == 1.0 + STALE_WAIT_S
        assert only_append(lanes, 1.0 + STALE_WAIT_S) == append
        assert (lanes.tally.stale, lanes.tally.adopted) == (1, 0)

    def test_another_daemons_update_is_adopted_and_the_event_decided_again(self) -> None:
        """What follows what we know is the job's next, whoever wrote it; ours goes behind it."""
        lanes, append, read = self.refused()
        lanes.answer(read.token, Read((entry(9, 1, "Queued", expected=append.expected, report_at=5),)), 0.0)
        again = only_append(lanes)
        assert (again.expected, again.input) == (9, "6@60")
        update = decode_update(again.body)
        assert (update.Previous, update.Sequence) == ("Queued", 2)
        assert lanes.tally.adopted == 1

    def test_an_event_that_the_adopted_update_covers_is_over(self) -> None:
        """The other daemon was further: our report is covered, and nothing is written."""
        lanes, append, read = self.refused()
        lanes.answer(read.token, Read((entry(9, 1, "Failed", expected=append.expected, report_at=7),)), 0.0)
        assert lanes.take(0.0) == []
        (decided,) = lanes.decided
        assert decided.decision == Unchanged(reason="covered")

    @pytest.mark.parametrize(
        "other",
        [{"revision": 2}, {"version": 1}, {"source": REPORTED}, {"state": "Queued"}],
        ids=["revision", "version", "source", "state"],
    )
    def test_what_differs_in_one_thing_is_not_ours(self, other: dict[str, Any]) -> None:
        """It is another daemon's: adopted, and the event decided again."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(record(START, (1, "Pending")))
        append = only_append(lanes)
        lanes.answer(append.token, Refused(9), 0.0)
        said: dict[str, Any] = {"state": "Pending", "source": OBSERVED, "version": 0, "revision": 1} | other
        job = Job(ID="j-1", Namespace="default", Version=said["version"], Revision=said["revision"])
        update = Update(StateType=said["state"], Job=job, Sequence=1, Previous=None, Time=None, Source=said["source"])
        found = msgspec.structs.replace(
            stored_as(9, append), subject=NAMES.state(KEY, said["state"]), body=encode_update(update)
        )
        lanes.answer(only_read_back(lanes).token, Read((found,)), 0.0)
        assert log_states(lanes) == []
        assert lanes.tally.adopted == 1

    def test_the_same_state_from_another_report_is_not_ours(self) -> None:
        """Of a report the `Jobstate-Input` must be the same too: else ours is still to be decided."""
        lanes, append, read = self.refused()
        found = msgspec.structs.replace(stored_as(9, append), input="5@50")
        lanes.answer(read.token, Read((found,)), 0.0)
        assert log_states(lanes) == []
        (decided,) = lanes.decided
        assert decided.decision == Unchanged(reason="same")

    def test_several_of_another_daemons_need_the_whole_job(self) -> None:
        """An entry that does not directly follow what we know is believed only with all before it."""
        lanes, _, read = self.refused()
        second = entry(9, 2, "Queued", previous="Pending", expected=8, report_at=5)
        lanes.answer(read.token, Read((second,)), 0.0)
        whole = only_read_back(lanes)
        assert whole.whole
        lanes.answer(whole.token, Read((entry(8, 1, "Pending", expected=0, report_at=4), second)), 0.0)
        again = only_append(lanes)
        assert again.expected == 9
        assert decode_update(again.body).Sequence == 3

    def test_a_copy_of_ours_that_follows_something_else_is_not_believed(self) -> None:
        """What says the same as ours, but was stored after another entry, needs the whole job."""
        lanes, append, read = self.refused()
        found = msgspec.structs.replace(stored_as(9, append), expected=8)
        lanes.answer(read.token, Read((found,)), 0.0)
        assert log_states(lanes) == []
        assert only_read_back(lanes).whole

    @pytest.mark.parametrize(
        "wrong", [{"expected": None, "filter": ""}, {"filter": ""}, {"filter": NAMES.state(KEY, "Running")}]
    )
    def test_an_imitation_of_ours_without_our_headers_is_not_believed(self, wrong: dict[str, Any]) -> None:
        """The very body of ours, but no compare-and-set over all of the job's subjects: all of them must tell."""
        lanes, append, read = self.refused()
        lanes.answer(read.token, Read((msgspec.structs.replace(stored_as(9, append), **wrong),)), 0.0)
        assert log_states(lanes) == []
        assert only_read_back(lanes).whole

    def test_an_imitation_that_names_another_state_before_it_is_not_believed(self) -> None:
        """Headers and `Sequence` follow, `Previous` does not."""
        lanes, append, read = self.refused(known=at("Queued", 4))
        found = entry(9, 2, "Running", previous="Pending", expected=append.expected, report_at=6)
        lanes.answer(read.token, Read((found,)), 0.0)
        assert log_states(lanes) == []
        assert only_read_back(lanes).whole

    def test_a_foreign_entry_is_announced_and_its_number_expected(self) -> None:
        """Its content counts for nothing; ours follows it, and an advisory tells of it."""
        lanes, _, read = self.refused(known=at("Queued", 4))
        foreign = Entry(number=9, subject=NAMES.state(KEY, "Failed"), body=b"{}")
        lanes.answer(read.token, Read((foreign,)), 0.0)
        whole = only_read_back(lanes)
        lanes.answer(whole.token, Read((entry(4, 1, "Queued", expected=0, report_at=1), foreign)), 0.0)
        by_subject = {append.subject: append for append in appends(lanes)}
        assert set(by_subject) == {NAMES.state(KEY, "Running"), NAMES.advisory("foreign", "9")}
        assert by_subject[NAMES.state(KEY, "Running")].expected == 9
        assert lanes.tally.foreign == 1

    def test_only_foreign_entries_leave_the_job_unknown(self) -> None:
        """The first of ours counts from 1 and expects the stranger's number."""
        lanes, _, read = self.refused()
        foreign = Entry(number=9, subject=NAMES.state(KEY, "Failed"), body=b"{}")
        lanes.answer(read.token, Read((foreign,)), 0.0)
        lanes.answer(only_read_back(lanes).token, Read((foreign,)), 0.0)
        assert lanes.known(KEY) is None
        (ours,) = (append for append in appends(lanes) if append.filter == NAMES.states(KEY))
        assert ours.expected == 9
        assert decode_update(ours.body).Sequence == 1

    def test_a_forgotten_job_begins_again(self) -> None:
        """Refused at 0 and nothing there: the job was forgotten, and its next update is a first one."""
        lanes, _, read = self.refused(number=0, known=at("Queued", 4))
        lanes.answer(read.token, Read(()), 0.0)
        again = only_append(lanes)
        assert again.expected == 0
        update = decode_update(again.body)
        assert (update.Previous, update.Sequence) == (None, 1)
        assert lanes.tally.forgotten == 1

    def test_a_record_that_the_log_has_overtaken_is_read_again(self) -> None:
        """After the other daemon's update a record's steps may not join: the event ends as `unjoined`."""
        lanes = Lanes(RULES, NAMES, {KEY: at("Pending", 4, source=OBSERVED, revision=1)})
        lanes.offer(record(LogPoint(1, 0, 1, "Pending"), (2, "Running")))
        append = only_append(lanes)
        lanes.answer(append.token, Refused(9), 0.0)
        found = entry(9, 2, "Failed", previous="Pending", expected=4, source=OBSERVED)
        lanes.answer(only_read_back(lanes).token, Read((found,)), 0.0)
        (decided,) = lanes.decided
        assert decided.decision == Unchanged(reason="unjoined")
        assert lanes.take(0.0) == []


class TestNoAnswer:
    """Another append is in flight, or nobody answers: the same is sent again."""

    def test_busy_waits_a_little_and_sends_the_same(self) -> None:
        """10164 brings no read: the same append, with the same token, after 10 ms."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1))
        append = only_append(lanes)
        lanes.answer(append.token, Busy(), 2.0)
        assert lanes.take(2.0) == []
        assert lanes.wake_at() == 2.0 + BUSY_WAIT_S
        assert only_append(lanes, 2.0 + BUSY_WAIT_S) == append
        assert not lanes.backing_off

    def test_the_writer_backs_off_as_a_whole(self) -> None:
        """After a timeout nothing is sent for a while, of no job; then one ask alone, until an answer comes."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1))
        lanes.offer(report("Pending", 2, OTHER))
        first, second = appends(lanes)
        lanes.answer(first.token, Unanswered(), 0.0)
        lanes.answer(second.token, Unanswered(), 0.0)
        lanes.offer(report("Pending", 3, JobKey("default.j-3")))
        assert lanes.take(0.0) == []
        assert lanes.wake_at() == BACKOFF_FIRST_S
        assert only_append(lanes, BACKOFF_FIRST_S) == first
        assert lanes.take(BACKOFF_FIRST_S) == []
        lanes.answer(first.token, Stored(1), BACKOFF_FIRST_S)
        assert not lanes.backing_off
        assert len(appends(lanes, BACKOFF_FIRST_S)) == 2

    def test_the_pause_doubles_up_to_a_bound(self) -> None:
        """Each probe without an answer doubles the pause; many timeouts of one moment count once."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1))
        now, pauses = 0.0, []
        for _ in range(8):
            append = only_append(lanes, now)
            lanes.answer(append.token, Unanswered(), now)
            wake = lanes.wake_at()
            assert wake is not None
            pauses.append(round(wake - now, 3))
            now = wake
        assert pauses[:4] == [0.05, 0.1, 0.2, 0.4]
        assert pauses[-1] == BACKOFF_MAX_S

    def test_a_late_answer_counts_and_the_repeat_is_not_sent(self) -> None:
        """The answer to the first sending settles the append that waits to be sent again."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1))
        append = only_append(lanes)
        lanes.answer(append.token, Unanswered(), 0.0)
        lanes.answer(append.token, Stored(3), 0.01)
        assert log_states(lanes) == [(3, "Pending")]
        assert lanes.take(10.0) == []

    def test_a_second_answer_is_nothing(self) -> None:
        """Whatever it says: the append is settled."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1))
        lanes.offer(report("Running", 2))
        append = only_append(lanes)
        lanes.answer(append.token, Stored(3), 0.0)
        following = only_append(lanes)
        for answer in (Stored(3), Refused(3), Busy(), Read(()), Stored(99)):
            lanes.answer(append.token, answer, 0.0)
        assert lanes.take(1.0) == []
        assert log_states(lanes) == [(3, "Pending")]
        lanes.answer(following.token, Stored(4), 0.0)
        assert log_states(lanes) == [(4, "Running")]

    def test_a_lost_connection_sends_what_was_unanswered_again(self) -> None:
        """The very same asks, appends and read-backs; what was answered is not sent again."""
        lanes = Lanes(RULES, NAMES)
        for number, key in enumerate((KEY, OTHER, JobKey("default.j-3")), 1):
            lanes.offer(report("Pending", number, key))
        first, second, third = appends(lanes)
        lanes.answer(first.token, Refused(5), 0.0)
        lanes.answer(third.token, Stored(1), 0.0)
        read = only_read_back(lanes)
        lanes.disconnected()
        assert lanes.take(0.0) == [second, read]
        assert lanes.tally.resends == 2


class TestCheckpoint:
    """Where a restart may begin to read the input: never above what is confirmed."""

    def test_the_floor_is_below_what_is_not_confirmed(self) -> None:
        """Later reports that are confirmed do not lift it over an earlier one that is not."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1))
        lanes.offer(report("Pending", 2, OTHER))
        first, second = appends(lanes)
        lanes.answer(second.token, Stored(1), 0.0)
        assert lanes.floor == NOWHERE
        lanes.checkpoint()
        assert lanes.take(0.0) == []
        lanes.answer(first.token, Stored(2), 0.0)
        assert lanes.floor == InputPosition(20, 2)

    def test_a_checkpoint_follows_the_one_before_and_replaces_it(self) -> None:
        """It is rolled up on a subject of its own, with the compare-and-set of its predecessor."""
        lanes = Lanes(RULES, NAMES, shard="3")
        lanes.restore_checkpoint(InputPosition(5, 1), 30)
        lanes.offer(report("Pending", 2))
        lanes.answer(only_append(lanes).token, Stored(31), 0.0)
        lanes.checkpoint()
        append = only_append(lanes)
        assert append.subject == append.filter == NAMES.checkpoint("3")
        assert (append.expected, append.rollup) == (30, True)
        assert msgspec.json.decode(append.body) == {"Input": {"Sequence": 2, "Time": 20}}
        lanes.answer(append.token, Stored(32), 0.0)
        lanes.offer(report("Running", 3))
        lanes.answer(only_append(lanes).token, Stored(33), 0.0)
        lanes.checkpoint()
        assert only_append(lanes).expected == 32

    def test_it_is_written_only_when_it_moved_and_one_at_a_time(self) -> None:
        """A floor that is written already, or on its way, is not written again."""
        lanes = Lanes(RULES, NAMES)
        lanes.checkpoint()
        assert lanes.take(0.0) == []
        lanes.offer(report("Pending", 1))
        lanes.answer(only_append(lanes).token, Stored(1), 0.0)
        lanes.checkpoint()
        lanes.checkpoint()
        append = only_append(lanes)
        lanes.answer(append.token, Stored(2), 0.0)
        lanes.checkpoint()
        assert lanes.take(0.0) == []
        assert lanes.waiting == 0

    def test_another_daemons_checkpoint_is_as_good(self) -> None:
        """Refused: the other's stands, and ours expects it the next time."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Pending", 1))
        lanes.answer(only_append(lanes).token, Stored(1), 0.0)
        lanes.checkpoint()
        lanes.answer(only_append(lanes).token, Refused(50), 0.0)
        assert lanes.take(0.0) == []
        lanes.checkpoint()
        assert only_append(lanes).expected == 50

    def test_what_a_start_found_is_not_written_again(self) -> None:
        """The checkpoint that was found is the floor."""
        lanes = Lanes(RULES, NAMES)
        lanes.restore_checkpoint(InputPosition(50, 5), 7)
        assert lanes.floor == InputPosition(50, 5)
        lanes.checkpoint()
        assert lanes.take(0.0) == []

    def test_a_rejection_and_junk_hold_the_floor_until_they_are_kept(self) -> None:
        """They do not show in any update: only their confirmation lifts the floor over them."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Nonsense", 1))
        lanes.offer(junk("2-20", sequence=2))
        rejection, undecodable = appends(lanes)
        lanes.answer(undecodable.token, Stored(1), 0.0)
        assert lanes.floor == NOWHERE
        lanes.answer(rejection.token, Stored(2), 0.0)
        assert lanes.floor == InputPosition(20, 2)


class TestKept:
    """What is kept beside the updates: once, whoever keeps it."""

    def test_a_rejection_is_kept_once_whatever_its_reason(self) -> None:
        """It expects nothing under all reasons: two daemons may reject one event for two reasons."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Nonsense", 6, traceparent="00-a-b-01"))
        append = only_append(lanes)
        assert append.subject == "jobstate.v1.main.quarantine.unknown-state.default.j-1.6-60"
        assert append.filter == "jobstate.v1.main.quarantine.*.default.j-1.6-60"
        assert (append.expected, append.stream, append.traceparent) == (0, "refused", "00-a-b-01")

    @pytest.mark.parametrize("answer", [Stored(5), Refused(4)])
    def test_the_lane_goes_on_when_the_rejection_is_kept(self, answer: Stored | Refused) -> None:
        """By us or by somebody before us; until then the job's next event waits."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(report("Nonsense", 6))
        lanes.offer(report("Running", 7))
        append = only_append(lanes)
        assert lanes.take(0.0) == []
        assert lanes.decided == []
        lanes.answer(append.token, answer, 0.0)
        (decided,) = lanes.decided
        assert isinstance(decided.decision, Rejected)
        following = only_append(lanes)
        assert (following.subject, following.expected) == (NAMES.state(KEY, "Running"), 0)

    def test_a_rejected_step_is_named_by_its_place_in_the_record(self) -> None:
        """Version and revision of the step that the rules forbid, not of the record's first."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(record(START, (1, "Completed"), (2, "Running")))
        lanes.answer(only_append(lanes).token, Stored(1), 0.0)
        assert only_append(lanes).subject == NAMES.quarantine("after-terminal", KEY, "0-2")

    def test_junk_is_a_lane_of_its_own(self) -> None:
        """It is described once, whatever the reason, and holds up no job."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(junk("abc"))
        lanes.offer(junk("abc"))
        lanes.offer(report("Pending", 1))
        undecodable, update = appends(lanes)
        assert undecodable.subject == NAMES.undecodable("not-json", "abc")
        assert (undecodable.filter, undecodable.expected) == (NAMES.undecodable("*", "abc"), 0)
        assert undecodable.stream == "refused"
        assert update.filter == NAMES.states(KEY)
        lanes.answer(undecodable.token, Stored(1), 0.0)
        lanes.answer(only_append(lanes).token, Refused(1), 0.0)
        assert [one.decision for one in lanes.decided] == [Undecodable(reason="not-json")] * 2

    @pytest.mark.parametrize("answer", [Stored(5), Refused(4)])
    def test_a_notice_is_said_once_per_cause(self, answer: Stored | Refused) -> None:
        """An advisory expects nothing on its own subject; somebody else's is as good. It is no event."""
        lanes = Lanes(RULES, NAMES)
        lanes.offer(Notice(kind="gap", origin="7", text="gone"))
        append = only_append(lanes)
        assert append.subject == append.filter == NAMES.advisory("gap", "7")
        assert (append.expected, append.stream) == (0, "log")
        lanes.answer(append.token, answer, 0.0)
        assert (lanes.waiting, lanes.decided, lanes.take(0.0)) == (0, [], [])


class TestLearn:
    """What a start found in the log."""

    def test_the_last_update_is_known(self) -> None:
        """The first event after a start is decided on it."""
        lanes = Lanes(RULES, NAMES)
        lanes.learn(KEY, VerifiedJob(known=at("Queued", 4), number=4))
        lanes.offer(report("Running", 2))
        assert only_append(lanes).expected == 4

    def test_foreign_entries_are_announced_and_their_number_expected(self) -> None:
        """A job of which the log has foreign entries only is new, and follows them."""
        lanes = Lanes(RULES, NAMES)
        lanes.learn(KEY, VerifiedJob(known=None, number=4, foreign=(3, 4)))
        lanes.offer(report("Running", 2))
        found = {append.subject: append.expected for append in appends(lanes)}
        assert found == {
            NAMES.advisory("foreign", "3"): 0,
            NAMES.advisory("foreign", "4"): 0,
            NAMES.state(KEY, "Running"): 4,
        }
