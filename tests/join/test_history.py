"""A job's record beside what the log has of it: `consumer.join.history`."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from consumer.join.history import Contradicted, Joined, Old, join_history, read_versions, steps_of, time_apart
from consumer.model import DERIVED, OBSERVED, REPORTED, START, HistoryEntry, Known, Place

PENDING, QUEUED, RUNNING, FAILED = (0, "Pending"), (0, "Queued"), (0, "Running"), (0, "Failed")


def history(*states: tuple[int, str]) -> list[HistoryEntry]:
    """Entries (version, state), oldest first."""
    return [
        HistoryEntry(number=number, version=version, state=state, message=f"m{number}", time=None)
        for number, (version, state) in enumerate(states, 1)
    ]


def known(state: str, revision: int | None, *, version: int = 0, source: str = OBSERVED) -> Known:
    """The log's last update of the job, its second."""
    return Known(number=7, sequence=2, state=state, version=version, revision=revision, source=source)


def said(steps: tuple[object, ...]) -> list[tuple[int, int, str]]:
    """Version, revision and state of each step."""
    return [(step.version, step.revision, step.state) for step in steps]  # type: ignore[attr-defined]


def test_a_new_job_is_told_from_its_first_state() -> None:
    """All entries are steps that follow nothing; an entry's message goes with it."""
    found = join_history(None, history(PENDING, RUNNING))
    assert isinstance(found, Joined)
    assert found.after == START
    assert said(found.steps) == [(0, 1, "Pending"), (0, 2, "Running")]
    assert [step.message for step in found.steps] == ["m1", "m2"]


def test_what_is_new_comes_after_the_entry_that_the_log_has() -> None:
    """The steps join the log's last update and name it."""
    found = join_history(known("Running", 2), history(PENDING, RUNNING, QUEUED, FAILED))
    assert isinstance(found, Joined)
    assert found.after == Place(2, 0, 2, "Running")
    assert said(found.steps) == [(0, 3, "Queued"), (0, 4, "Failed")]


def test_a_record_that_the_log_has_brings_no_step() -> None:
    """Nothing after the log's entry is nothing new."""
    found = join_history(known("Running", 2), history(PENDING, RUNNING))
    assert isinstance(found, Joined)
    assert found.steps == ()


def test_equal_neighbours_are_one_step() -> None:
    """The first of them stands; a step's revision is its entry's number, so one is left out."""
    assert said(steps_of(history(PENDING, RUNNING, RUNNING, FAILED))) == [
        (0, 1, "Pending"),
        (0, 2, "Running"),
        (0, 4, "Failed"),
    ]
    found = join_history(known("Running", 2), history(PENDING, RUNNING, RUNNING))
    assert isinstance(found, Joined)
    assert found.steps == ()


def test_the_same_state_of_another_version_is_a_step() -> None:
    """A rerun begins at Pending again, also after Pending."""
    assert said(steps_of(history((1, "Pending"), (2, "Pending")))) == [(1, 1, "Pending"), (2, 2, "Pending")]


def test_what_frames_told_stands_where_the_record_can_have_got_to() -> None:
    """Derived: no revision is known. Of several entries that say the same it is none before the log's own number."""
    told = msgspec.structs.replace(known("Running", None, source=DERIVED), sequence=4)
    found = join_history(told, history(PENDING, RUNNING, QUEUED, RUNNING, FAILED))
    assert isinstance(found, Joined)
    assert said(found.steps) == [(0, 5, "Failed")]


@pytest.mark.parametrize(("told_s", "apart_s"), [(100.0, 0.0), (100.9, 0.0), (101.5, -1.5), (80.0, 20.0), (0.0, 0.0)])
def test_an_end_at_another_time_is_another_end(told_s: float, apart_s: float) -> None:
    """Of what was lost with the orchestrator's data and done again, alike: only the time tells. 0: it is not known."""
    entries = [
        msgspec.structs.replace(entry, time=datetime.fromtimestamp(number * 50, UTC))
        for number, entry in enumerate(history(PENDING, FAILED), 1)
    ]
    told = msgspec.structs.replace(known("Failed", 2), time_ns=int(told_s * 1e9))
    assert time_apart(told, entries) == timedelta(seconds=apart_s)
    assert not time_apart(told, entries[:1])


def test_a_shorter_history_is_an_old_answer() -> None:
    """What the log has already, and the answer has not, is no contradiction."""
    assert isinstance(join_history(known("Running", 2), history(PENDING)), Old)
    assert isinstance(join_history(known("Running", 2), []), Old)
    assert isinstance(join_history(known("Running", None, source=REPORTED), []), Old)


def test_another_state_at_the_logs_entry_contradicts() -> None:
    """The present state is to be published, with its revision at the history's end."""
    found = join_history(known("Queued", 2), history(PENDING, RUNNING, FAILED))
    assert isinstance(found, Contradicted)
    assert (found.after, said((found.present,))) == (Place(2, 0, 2, "Queued"), [(0, 3, "Failed")])
    assert not found.reported


def test_another_version_at_the_logs_entry_contradicts() -> None:
    """The entry that the log has must say what the log says, the version too."""
    assert isinstance(join_history(known("Running", 2, version=1), history(PENDING, RUNNING)), Contradicted)


def test_the_record_takes_reports_over() -> None:
    """Of a job that only producers told of the present state follows, whatever they said."""
    found = join_history(known("Failed", None, source=REPORTED), history(PENDING, RUNNING))
    assert isinstance(found, Contradicted)
    assert found.reported
    assert said((found.present,)) == [(0, 2, "Running")]


def test_a_record_takes_over_what_was_derived_without_it() -> None:
    """A derived update has no revision: the record goes on from its last entry that says the same, whatever it skips.

    What the frames did not tell of (Queued) is not told afterwards: the log would step back.
    """
    entries = history(PENDING, QUEUED, RUNNING, FAILED)
    found = join_history(known("Running", None, source=DERIVED), entries)
    assert isinstance(found, Joined)
    assert said(found.steps) == [(0, 4, "Failed")]
    found = join_history(known("Failed", None, source=DERIVED), entries)
    assert isinstance(found, Joined)
    assert found.steps == ()
    assert isinstance(join_history(known("Running", None, source=DERIVED), []), Old)


def test_a_record_corrects_what_was_derived_wrongly() -> None:
    """Completed by all its results, and stopped in that moment (design/bacalhau.md 6.1): no entry says the same."""
    found = join_history(known("Completed", None, source=DERIVED), history(PENDING, RUNNING, (0, "Stopped")))
    assert isinstance(found, Contradicted)
    assert (found.present.state, found.present.revision, found.reported) == ("Stopped", 3, False)


def test_a_record_goes_on_where_the_log_was_derived_at_the_first_place_that_fits() -> None:
    """Two updates are two entries at least: what frames did not tell before the orchestrator came, the record tells."""
    there = history(PENDING, RUNNING, QUEUED, RUNNING, FAILED)
    found = join_history(known("Running", None, source=DERIVED), there)
    assert isinstance(found, Joined)
    assert said(found.steps) == [(0, 3, "Queued"), (0, 4, "Running"), (0, 5, "Failed")]
    missed = join_history(known("Running", None, source=DERIVED), history(PENDING, QUEUED, RUNNING, FAILED))
    assert isinstance(missed, Joined)
    assert said(missed.steps) == [(0, 4, "Failed")]


def begun(*states: tuple[int, str], at: tuple[int, ...]) -> list[HistoryEntry]:
    """Entries (version as labelled, state), of which those *at* these places (from 1) are updates or reruns."""
    return [msgspec.structs.replace(one, begins=one.number in at) for one in history(*states)]


@pytest.mark.parametrize(
    ("labelled", "at", "versions"),
    [
        # Seen on real clusters of 1.8.0 and 1.9.3: a rerun, a stop and an update of one job, all at once.
        ([(1, "Completed"), (2, "Pending"), (2, "Stopped"), (2, "Pending"), (3, "Failed")], (2, 4), [1, 2, 2, 3, 3]),
        ([(2, "Pending"), (2, "Stopped"), (3, "Pending"), (2, "Pending"), (4, "Failed")], (1, 3, 4), [2, 2, 3, 4, 4]),
        ([(2, "Pending"), (2, "Pending"), (3, "Failed")], (1, 2), [2, 3, 3]),
        # One after the other each label is right.
        ([(1, "Pending"), (1, "Failed"), (2, "Pending"), (2, "Running"), (3, "Pending")], (3, 5), [1, 1, 2, 2, 3]),
        ([(0, "Pending"), (0, "Running"), (0, "Queued")], (), [0, 0, 0]),
    ],
)
def test_an_update_or_rerun_begins_a_version_whatever_its_label(
    labelled: list[tuple[int, str]], at: tuple[int, ...], versions: list[int]
) -> None:
    """Its label may be one of before, never a later one; states keep their order, and no other entry is touched."""
    entries = begun(*labelled, at=at)
    read = read_versions(entries)
    assert [one.version for one in read] == versions
    assert [msgspec.structs.replace(one, version=0) for one in read] == [
        msgspec.structs.replace(one, version=0) for one in entries
    ]
