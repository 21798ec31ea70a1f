"""What one event comes to, given what is known: `consumer.fold.decide`. Which transitions are allowed: tests/rules."""

import itertools

import msgspec
import pytest

from consumer.fold.decide import decide, follow
from consumer.model import (
    NOWHERE,
    NUMBER_MAX,
    OBSERVED,
    REPORTED,
    START,
    Accepted,
    Decision,
    Identity,
    JobKey,
    Junk,
    Known,
    Place,
    Position,
    Record,
    Rejected,
    Report,
    Step,
    Unchanged,
    Undecodable,
    place_of,
)
from consumer.rules import load

RULES = load(None)
KEY = JobKey("default.j-1")
JOB = Identity(id="j-1", namespace="default", name="one", type="batch")


def known(state: str, *, source: str = REPORTED, **fields: object) -> Known:
    """A job that stands at *state*, as its third update."""
    given: dict[str, object] = {"number": 9, "sequence": 3, "version": None, "revision": None, "input_sequence": 5}
    given |= {"input_time_ns": 50} | fields
    return msgspec.convert({"state": state, "source": source, **given}, Known)


def report(state: str, sequence: int = 6, **fields: object) -> Report:
    """A report of the job at *sequence* of the input, stored at ten times that."""
    given = {"key": KEY, "job": JOB, "position": Position(sequence * 10, sequence), "state": state}
    return Report(**(given | fields))  # type: ignore[arg-type]


def record(after: Place, *steps: tuple[int, int, str], corrected: bool = False) -> Record:
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

    @pytest.mark.parametrize("position", [Position(50, 5), Position(50, 4), Position(49, 99)])
    def test_what_is_covered_is_unchanged(self, position: Position) -> None:
        """A report not above the last covered position was decided before, whatever it says."""
        assert unchanged(decide(RULES, known("Running"), report("Completed", position=position))) == "covered"

    @pytest.mark.parametrize("position", [Position(51, 1), Position(50, 6)])
    def test_time_comes_before_sequence_in_covering(self, position: Position) -> None:
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

    def test_a_revision_that_cannot_be_real_is_rejected(self) -> None:
        """A revision of 2**64 - 1 would make every later report late, for ever."""
        assert refused(decide(RULES, None, report("Running", revision=2**64 - 1))) == "out-of-range"
        assert accepted(decide(RULES, None, report("Running", revision=NUMBER_MAX)))[0] == "Running"


class TestRecord:
    """Steps of the orchestrator's record: they join, or they are dropped and read again."""

    def test_steps_are_accepted_one_by_one(self) -> None:
        """A whole history becomes one update after the other; `more` says that the event is not over."""
        event = record(START, (1, 1, "Pending"), (1, 2, "Running"), (1, 3, "Completed"))
        now: Known | None = None
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
        event = record(Place(2, 1, 2, "Running"), (1, 3, "Completed"))
        state = str(there.pop("state"))
        assert unchanged(decide(RULES, known(state, source=OBSERVED, **there), event)) == "unjoined"

    def test_a_later_part_does_not_join_an_empty_log(self) -> None:
        """The log forgot the job: its record is read again from the first state."""
        assert unchanged(decide(RULES, None, record(Place(2, 1, 2, "Running"), (1, 3, "Completed")))) == "unjoined"

    def test_a_rerun_begins_again_after_an_end(self) -> None:
        """A higher version starts at Pending, and the end before it is what it follows."""
        there = known("Completed", source=OBSERVED, version=1, revision=3)
        event = record(place_of(there), (2, 4, "Pending"))
        assert accepted(decide(RULES, there, event)) == ("Pending", "Completed", 4, ())

    def test_a_rerun_whose_beginning_was_missed_is_flagged(self) -> None:
        """The first update of a version that is not Pending says `skipped`."""
        there = known("Completed", source=OBSERVED, version=1, revision=3)
        event = record(place_of(there), (2, 5, "Running"))
        assert accepted(decide(RULES, there, event))[3] == ("skipped",)

    def test_what_the_rules_forbid_is_rejected_also_of_a_record(self) -> None:
        """The job stands still until an operator decides."""
        there = known("Completed", source=OBSERVED, version=1, revision=3)
        assert refused(decide(RULES, there, record(place_of(there), (1, 4, "Running")))) == "after-terminal"

    def test_a_rejection_says_which_step_of_the_run_it_is(self) -> None:
        """From there the quarantine keeps it, and there the join has the job stand still."""
        there = known("Completed", source=OBSERVED, sequence=2, version=1, revision=2)
        event = record(Place(1, 1, 1, "Pending"), (1, 2, "Completed"), (1, 3, "Running"))
        decision = decide(RULES, there, event)
        assert isinstance(decision, Rejected)
        assert decision.step == 1

    def test_a_correction_is_exempt_from_the_rules(self) -> None:
        """Where the log contradicts the record, the record's present state follows once, flagged."""
        there = known("Completed", source=OBSERVED, version=1, revision=3)
        event = record(place_of(there), (1, 4, "Running"), corrected=True)
        assert accepted(decide(RULES, there, event)) == ("Running", "Completed", 4, ("corrected",))

    def test_the_covered_position_outlives_the_record(self) -> None:
        """After the record took over, a report that was accepted before is still covered."""
        there = known("Running", sequence=1, input_time_ns=50, input_sequence=5)
        event = record(place_of(there), (1, 2, "Running"), corrected=True)
        decision = decide(RULES, there, event)
        assert isinstance(decision, Accepted)
        after = follow(there, decision.update, 10)
        assert after.input == Position(50, 5)
        assert unchanged(decide(RULES, after, report("Running", position=Position(50, 5)))) == "covered"
        assert refused(decide(RULES, after, report("Running", position=Position(60, 6)))) == "authority"


def test_junk_is_undecodable() -> None:
    """Bytes that could not be read keep their reason."""
    junk = Junk(reason="not-json", origin="1-2", source="report", subject="s", size=1, sha256="0", position=NOWHERE)
    assert decide(RULES, None, junk) == Undecodable(reason="not-json")


def test_asking_twice_gives_the_same_answer() -> None:
    """`decide` changes nothing: neither what is known nor the event, so the same question has the same answer."""
    for there in (None, known("Running"), known("Completed", source=OBSERVED, version=1, revision=3)):
        for event in (report("Completed"), record(START, (1, 1, "Pending")), record(place_of(there), (1, 4, "Failed"))):
            before = msgspec.json.encode((there, event))
            assert decide(RULES, there, event) == decide(RULES, there, event)
            assert msgspec.json.encode((there, event)) == before
