"""What one event comes to, given what is known: `consumer.core.decide`. Which transitions are allowed: tests/rules."""

import itertools
from datetime import UTC, datetime

import msgspec
import pytest

from consumer.core.decide import MESSAGE_KEPT, decide, follow
from consumer.model import (
    NOWHERE,
    NUMBER_MAX,
    OBSERVED,
    REPORTED,
    START,
    Accepted,
    Decision,
    Identity,
    InputPosition,
    JobKey,
    LastUpdate,
    LogPoint,
    Malformed,
    Record,
    Rejected,
    Report,
    Step,
    Unchanged,
    Undecodable,
    log_point_of,
)
from consumer.rules import load

RULES = load(None)
KEY = JobKey("default.j-1")
JOB = Identity(id="j-1", namespace="default", name="one", type="batch")


def known(state: str, *, source: str = REPORTED, **fields: object) -> LastUpdate:
    """A job that stands at *state*, as its third update."""
    given: dict[str, object] = {"number": 9, "sequence": 3, "version": None, "revision": None, "input_sequence": 5}
    given |= {"input_time_ns": 50} | fields
    return msgspec.convert({"state": state, "source": source, **given}, LastUpdate)


def report(state: str, sequence: int = 6, **fields: object) -> Report:
    """A report of the job at *sequence* of the input, stored at ten times that."""
    given = {"key": KEY, "job": JOB, "position": InputPosition(sequence * 10, sequence), "state": state}
    return Report(**(given | fields))  # type: ignore[arg-type]


def record(after: LogPoint, *steps: tuple[int, int, str], corrected: bool = False) -> Record:
    """Steps (version, revision, state) that follow *after*."""
    return Record(
        key=KEY,
        job=JOB,
        after=after,
        steps=tuple(Step(version=version, revision=revision, state=state) for version, revision, state in steps),
        corrected=corrected,
    )


def accepted(decision: Decision) -> tuple[str, str | None, int, tuple[str, ...]]:
    """State, previous state, sequence and flags of the update that *decision* wants."""
    assert isinstance(decision, Accepted), decision
    update = decision.update
    return update.StateType, update.Previous, update.Sequence, update.Flags


def refused(decision: Decision) -> str:
    """Why *decision* keeps the event in quarantine."""
    assert isinstance(decision, Rejected), decision
    assert decision.rule
    return decision.reason


def unchanged(decision: Decision) -> str:
    """Why *decision* writes nothing."""
    assert isinstance(decision, Unchanged), decision
    return decision.reason


class TestReport:
    """Reports: the input's order, the rules, and the record's authority."""

    def test_a_first_report_is_the_first_update(self) -> None:
        """A job that nobody knew may be found in any state, as update 1 of nothing before."""
        decision = decide(RULES, None, report("Running", message="hi"))
        assert accepted(decision) == ("Running", None, 1, ())
        assert isinstance(decision, Accepted)
        assert (decision.update.Source, decision.update.Message) == (REPORTED, "hi")
        assert decision.update.Job.Version is None

    def test_an_allowed_transition_is_the_next_update(self) -> None:
        """Running to Completed is update 4 after update 3."""
        assert accepted(decide(RULES, known("Running"), report("Completed"))) == ("Completed", "Running", 4, ())

    @pytest.mark.parametrize("position", [InputPosition(50, 5), InputPosition(50, 4), InputPosition(49, 99)])
    def test_what_is_covered_is_unchanged(self, position: InputPosition) -> None:
        """A report not above the last covered position was decided before, whatever it says."""
        assert unchanged(decide(RULES, known("Running"), report("Completed", position=position))) == "covered"

    @pytest.mark.parametrize("position", [InputPosition(51, 1), InputPosition(50, 6)])
    def test_time_comes_before_sequence_in_covering(self, position: InputPosition) -> None:
        """An input made anew counts from below: a later time is news, even under a lower sequence."""
        assert accepted(decide(RULES, known("Running"), report("Completed", position=position)))[0] == "Completed"

    def test_a_wrong_subject_is_rejected_before_anything_else_is_read(self) -> None:
        """Subject and body that disagree are `identity`, even with a state that nobody knows."""
        event = report("No such state", problem="the subject says j-1, the body j-2")
        assert refused(decide(RULES, None, event)) == "identity"

    @pytest.mark.parametrize("state", ["", "Undefined", "Pausing", "9", "Run ning"])
    def test_an_unknown_state_is_rejected(self, state: str) -> None:
        """What the rules do not know is never guessed."""
        assert refused(decide(RULES, None, report(state))) == "unknown-state"

    @pytest.mark.parametrize("state", ["running", " Running ", "RUNNING"])
    def test_case_and_blanks_are_read_as_bacalhau_reads_them(self, state: str) -> None:
        """The update says `Running`, however the report spelled it."""
        assert accepted(decide(RULES, None, report(state)))[0] == "Running"

    @pytest.mark.parametrize("source", [OBSERVED, "derived"])
    def test_what_the_record_knows_is_the_records(self, source: str) -> None:
        """A report about a job of the record is `authority`."""
        assert refused(decide(RULES, known("Running", source=source), report("Completed"))) == "authority"

    def test_a_terminal_state_is_final(self) -> None:
        """After Completed nothing of the same version is accepted; the same again is no change."""
        assert refused(decide(RULES, known("Completed"), report("Running"))) == "after-terminal"
        assert unchanged(decide(RULES, known("Completed"), report("Completed", message="again"))) == "same"

    def test_an_illegal_transition_is_rejected_with_its_rule(self) -> None:
        """Running does not go back to Pending within one version."""
        assert refused(decide(RULES, known("Running"), report("Pending"))) == "illegal-transition"

    def test_a_long_message_is_remembered_by_its_digest(self) -> None:
        """Told from another that differs in its last letter, and no change if it is the same; a job costs no more."""
        long = "x" * 1_000_000
        decision = decide(RULES, None, report("Running", message=long))
        assert isinstance(decision, Accepted)
        before = follow(None, decision.update, 1)
        assert len(before.message) < 100
        assert unchanged(decide(RULES, before, report("Running", message=long))) == "same"
        assert accepted(decide(RULES, before, report("Running", message=f"{long[:-1]}y")))[3] == ("message",)

    @pytest.mark.parametrize(("length", "kept"), [(MESSAGE_KEPT, "x" * MESSAGE_KEPT), (MESSAGE_KEPT + 1, "=sha256=")])
    def test_a_short_message_is_remembered_as_it_is(self, length: int, kept: str) -> None:
        """Up to so many characters; of a record's message nothing is."""
        decision = decide(RULES, None, report("Running", message="x" * length))
        assert isinstance(decision, Accepted)
        assert follow(None, decision.update, 1).message.startswith(kept)
        observed = msgspec.structs.replace(decision.update, Source=OBSERVED)
        assert follow(None, observed, 1).message == ""

    def test_a_new_message_of_the_same_state_is_an_update(self) -> None:
        """The same state with another message is flagged `message`; with the same one it is no change."""
        before = known("Running", message="10 %")
        told = accepted(decide(RULES, before, report("Running", message="20 %")))
        assert told == ("Running", "Running", 4, ("message",))
        assert unchanged(decide(RULES, before, report("Running", message="10 %"))) == "same"

    @pytest.mark.parametrize("job_type", ["service", "daemon"])
    def test_only_what_ends_by_itself_completes(self, job_type: str) -> None:
        """Completed of a service or daemon is rejected, also where only an earlier report gave the type."""
        typed = msgspec.structs.replace(JOB, type=job_type)
        assert refused(decide(RULES, None, report("Completed", job=typed))) == "not-completable"
        untyped = report("Completed", job=msgspec.structs.replace(JOB, type=""))
        assert refused(decide(RULES, known("Running", type=job_type), untyped)) == "not-completable"

    def test_a_lower_version_or_revision_is_late(self) -> None:
        """What is older than what is known is unchanged, never an error."""
        before = known("Running", version=2, revision=5)
        assert unchanged(decide(RULES, before, report("Stopped", version=1, revision=9))) == "late"
        assert unchanged(decide(RULES, before, report("Stopped", version=2, revision=4))) == "late"

    def test_the_same_revision_with_another_state_is_a_conflict(self) -> None:
        """One revision is one state."""
        before = known("Running", version=2, revision=5)
        assert refused(decide(RULES, before, report("Stopped", version=2, revision=5))) == "conflict"

    def test_a_higher_version_is_a_new_life(self) -> None:
        """It begins at Pending; where that was missed, the update is flagged `skipped`."""
        before = known("Failed", version=1, revision=3)
        assert accepted(decide(RULES, before, report("Pending", version=2))) == ("Pending", "Failed", 4, ())
        assert accepted(decide(RULES, before, report("Running", version=2))) == ("Running", "Failed", 4, ("skipped",))

    def test_a_higher_version_begins_where_its_type_allows(self) -> None:
        """A new version of a service is not found Completed, whoever told the type: this report, or an earlier one."""
        service = msgspec.structs.replace(JOB, type="service")
        untyped = msgspec.structs.replace(JOB, type="")
        before = known("Failed", version=1)
        assert refused(decide(RULES, before, report("Completed", version=2, job=service))) == "not-completable"
        before = known("Failed", version=1, type="service")
        assert refused(decide(RULES, before, report("Completed", version=2, job=untyped))) == "not-completable"

    @pytest.mark.parametrize("field", ["version", "revision"])
    def test_a_number_that_cannot_be_real_is_rejected(self, field: str) -> None:
        """A version or revision of 2**64 - 1 would make every later report late, for ever."""
        assert refused(decide(RULES, None, report("Running", **{field: NUMBER_MAX + 1}))) == "out-of-range"
        assert accepted(decide(RULES, None, report("Running", **{field: NUMBER_MAX})))[0] == "Running"

    @pytest.mark.parametrize(
        ("before", "now"),
        [
            ({"revision": 5}, {}),
            ({}, {"revision": 5}),
            ({"revision": 5}, {"revision": 6}),
            ({"version": 2, "revision": 5}, {"revision": 6}),
            ({"revision": 5}, {"version": 2, "revision": 6}),
        ],
    )
    def test_a_number_that_one_of_them_does_not_tell_decides_nothing(
        self, before: dict[str, int], now: dict[str, int]
    ) -> None:
        """Without a version or revision on both sides there is no late report, no conflict and no new life."""
        there = msgspec.structs.replace(known("Running"), **before)
        assert accepted(decide(RULES, there, report("Completed", **now)))[0] == "Completed"

    def test_a_version_that_is_not_told_is_the_one_before(self) -> None:
        """The same life goes on, and the update says its version; of a job that nobody knew there is none."""
        there = decide(RULES, known("Running", version=2), report("Completed"))
        told = decide(RULES, known("Running", version=2), report("Completed", version=2))
        new = decide(RULES, None, report("Completed"))
        assert [one.update.Job.Version for one in (there, told, new) if isinstance(one, Accepted)] == [2, 2, None]

    def test_its_time_is_the_reports_or_when_the_input_stored_it(self) -> None:
        """In microseconds: what the input has beyond is cut off."""
        time = datetime(2026, 12, 1, tzinfo=UTC)
        stored = InputPosition(1_500_000_001_999, 6)
        told = decide(RULES, None, report("Running", time=time, position=stored))
        untold = decide(RULES, None, report("Running", position=stored))
        assert isinstance(told, Accepted)
        assert isinstance(untold, Accepted)
        assert told.update.Time == time
        assert untold.update.Time == datetime(1970, 1, 1, 0, 25, 0, 1, tzinfo=UTC)

    def test_name_and_type_outlive_a_report_without_them(self) -> None:
        """What this report tells of the job goes before what an earlier one told."""
        untold = msgspec.structs.replace(JOB, name="", type="")
        before = known("Running", name="two", type="ops")
        for job, expected in ((untold, ("two", "ops")), (JOB, ("one", "batch"))):
            decision = decide(RULES, before, report("Completed", job=job))
            assert isinstance(decision, Accepted)
            assert (decision.update.Job.Name, decision.update.Job.Type) == expected
        new = decide(RULES, None, report("Completed", job=untold))
        assert isinstance(new, Accepted)
        assert (new.update.Job.Name, new.update.Job.Type) == ("", "")


class TestRecord:
    """Steps of the orchestrator's record: they join, or they are dropped and read again."""

    def test_steps_are_accepted_one_by_one(self) -> None:
        """A whole history becomes one update after the other; `more` says that the event is not over."""
        event = record(START, (1, 1, "Pending"), (1, 2, "Running"), (1, 3, "Completed"))
        now: LastUpdate | None = None
        seen = []
        for number in itertools.count(1):
            decision = decide(RULES, now, event)
            if not isinstance(decision, Accepted):
                assert unchanged(decision) == "late"
                break
            seen.append((decision.update.StateType, decision.update.Sequence, decision.more))
            now = follow(now, decision.update, number)
        assert seen == [("Pending", 1, True), ("Running", 2, True), ("Completed", 3, False)]

    def test_a_run_that_the_log_is_in_the_middle_of_goes_on_there(self) -> None:
        """Another daemon wrote the first step: only the rest is news."""
        event = record(START, (1, 1, "Pending"), (1, 2, "Running"))
        there = known("Pending", source=OBSERVED, sequence=1, version=1, revision=1)
        assert accepted(decide(RULES, there, event)) == ("Running", "Pending", 2, ())

    @pytest.mark.parametrize(
        "there",
        [
            {"sequence": 3, "version": 1, "revision": 2, "state": "Running"},
            {"sequence": 2, "version": 1, "revision": 3, "state": "Running"},
            {"sequence": 2, "version": 1, "revision": 2, "state": "Queued"},
            {"sequence": 2, "version": 2, "revision": 2, "state": "Running"},
            {"sequence": 1, "version": 1, "revision": 2, "state": "Running"},
        ],
    )
    def test_what_does_not_join_is_dropped(self, there: dict[str, object]) -> None:
        """Sequence, version, revision and state of the update that an event follows must all be the log's."""
        event = record(LogPoint(2, 1, 2, "Running"), (1, 3, "Completed"))
        state = str(there.pop("state"))
        assert unchanged(decide(RULES, known(state, source=OBSERVED, **there), event)) == "unjoined"

    def test_a_later_part_does_not_join_an_empty_log(self) -> None:
        """The log forgot the job: its record is read again from the first state."""
        assert unchanged(decide(RULES, None, record(LogPoint(2, 1, 2, "Running"), (1, 3, "Completed")))) == "unjoined"

    def test_a_rerun_begins_again_after_an_end(self) -> None:
        """A higher version starts at Pending, and the end before it is what it follows."""
        there = known("Completed", source=OBSERVED, version=1, revision=3)
        event = record(log_point_of(there), (2, 4, "Pending"))
        assert accepted(decide(RULES, there, event)) == ("Pending", "Completed", 4, ())

    def test_a_rerun_whose_beginning_was_missed_is_flagged(self) -> None:
        """The first update of a version that is not Pending says `skipped`."""
        there = known("Completed", source=OBSERVED, version=1, revision=3)
        event = record(log_point_of(there), (2, 5, "Running"))
        assert accepted(decide(RULES, there, event))[3] == ("skipped",)

    def test_what_the_rules_forbid_is_rejected_also_of_a_record(self) -> None:
        """The job stands still until an operator decides."""
        there = known("Completed", source=OBSERVED, version=1, revision=3)
        assert refused(decide(RULES, there, record(log_point_of(there), (1, 4, "Running")))) == "after-terminal"

    def test_a_version_that_the_log_does_not_know_is_no_rerun(self) -> None:
        """A job whose version nobody told goes on by the rules."""
        there = known("Completed", source=OBSERVED, version=None, revision=None)
        assert refused(decide(RULES, there, record(log_point_of(there), (2, 4, "Running")))) == "after-terminal"

    def test_a_record_that_its_type_forbids_is_rejected(self) -> None:
        """A service does not reach Completed, whatever the record says."""
        there = known("Running", source=OBSERVED, version=1, revision=2)
        event = record(log_point_of(there), (1, 3, "Completed"))
        service = msgspec.structs.replace(event, job=msgspec.structs.replace(JOB, type="service"))
        assert refused(decide(RULES, there, service)) == "not-completable"

    def test_only_a_correction_takes_over_from_a_report(self) -> None:
        """And it begins where the report stands: a step that the log has already may be the producer's."""
        there = known("Running", version=1, revision=2)
        assert unchanged(decide(RULES, there, record(log_point_of(there), (1, 3, "Completed")))) == "unjoined"
        taken = record(log_point_of(there), (1, 3, "Completed"), corrected=True)
        assert accepted(decide(RULES, there, taken))[3] == ("corrected",)
        before = record(LogPoint(2, 1, 1, "Pending"), (1, 2, "Running"), (1, 3, "Completed"), corrected=True)
        assert unchanged(decide(RULES, there, before)) == "unjoined"

    def test_a_rejection_says_which_step_of_the_run_it_is(self) -> None:
        """From there the quarantine keeps it, and there the join has the job stand still."""
        there = known("Completed", source=OBSERVED, sequence=2, version=1, revision=2)
        event = record(LogPoint(1, 1, 1, "Pending"), (1, 2, "Completed"), (1, 3, "Running"))
        decision = decide(RULES, there, event)
        assert isinstance(decision, Rejected)
        assert decision.step == 1

    def test_a_correction_is_exempt_from_the_rules(self) -> None:
        """Where the log contradicts the record, the record's present state follows once, flagged."""
        there = known("Completed", source=OBSERVED, version=1, revision=3)
        event = record(log_point_of(there), (1, 4, "Running"), corrected=True)
        assert accepted(decide(RULES, there, event)) == ("Running", "Completed", 4, ("corrected",))

    def test_the_covered_position_outlives_the_record(self) -> None:
        """After the record took over, a report that was accepted before is still covered."""
        there = known("Running", sequence=1, input_time_ns=50, input_sequence=5)
        event = record(log_point_of(there), (1, 2, "Running"), corrected=True)
        decision = decide(RULES, there, event)
        assert isinstance(decision, Accepted)
        after = follow(there, decision.update, 10)
        assert after.input == InputPosition(50, 5)
        assert unchanged(decide(RULES, after, report("Running", position=InputPosition(50, 5)))) == "covered"
        assert refused(decide(RULES, after, report("Running", position=InputPosition(60, 6)))) == "authority"


@pytest.mark.parametrize(
    ("source", "time", "kept"),
    [
        (OBSERVED, datetime(1970, 1, 1, 0, 0, 2, 7, tzinfo=UTC), 2_000_007_000),
        (OBSERVED, None, 0),
        (REPORTED, datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC), 0),
    ],
)
def test_the_time_of_what_the_record_says_is_known(source: str, time: datetime | None, kept: int) -> None:
    """In nanoseconds since 1970. A producer's time is its own clock's: it is not kept."""
    decision = decide(RULES, None, report("Running"))
    assert isinstance(decision, Accepted)
    assert follow(None, msgspec.structs.replace(decision.update, Source=source, Time=time), 1).time_ns == kept


def test_junk_is_undecodable() -> None:
    """Bytes that could not be read keep their reason."""
    junk = Malformed(
        reason="not-json", origin="1-2", source="report", subject="s", size=1, sha256="0", position=NOWHERE
    )
    assert decide(RULES, None, junk) == Undecodable(reason="not-json")


def test_asking_twice_gives_the_same_answer() -> None:
    """`decide` changes nothing: neither what is known nor the event, so the same question has the same answer."""
    for there in (None, known("Running"), known("Completed", source=OBSERVED, version=1, revision=3)):
        for event in (
            report("Completed"),
            record(START, (1, 1, "Pending")),
            record(log_point_of(there), (1, 4, "Failed")),
        ):
            before = msgspec.json.encode((there, event))
            assert decide(RULES, there, event) == decide(RULES, there, event)
            assert msgspec.json.encode((there, event)) == before
