"""A history beside the log's last update of its job: `consumer.core.history`."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from consumer.core.history import (
    Contradicted,
    Joined,
    Old,
    Part,
    ended_before,
    lay_beside,
    read_versions,
)
from consumer.core.reader import Tail
from consumer.model import DERIVED, OBSERVED, REPORTED, START, HistoryEntry, LastUpdate, Source, Step, log_point_of
from consumer.rules import load

RULES: Final = load(None)
BEGAN: Final = datetime(2026, 12, 1, tzinfo=UTC)
WHOLE: Final = ("Pending", "Running", "Completed")


def entry(
    number: int, state: str, version: int = 0, *, at_s: float | None = None, begins: bool = False
) -> HistoryEntry:
    """One job-level entry; *at_s*: seconds after `BEGAN`."""
    time = None if at_s is None else BEGAN + timedelta(seconds=at_s)
    return HistoryEntry(number=number, version=version, state=state, message="", time=time, begins=begins)


def part(*states: str, version: int = 0, at_s: float | None = None) -> Part:
    """A whole history of one version, all written *at_s*."""
    entries = [entry(number, state, version, at_s=at_s) for number, state in enumerate(states, 1)]
    return Part.after(None, entries)


def rest(first: int, before: str, *states: str) -> Part:
    """A history that is read on behind entry *first*, which says *before*."""
    entries = [entry(number, state) for number, state in enumerate(states, first + 1)]
    return Part.after(Tail(first, "token", 0, before, 0), entries)


def known(
    state: str, revision: int | None, *, source: Source = OBSERVED, sequence: int = 1, at_s: float = 0.0
) -> LastUpdate:
    """The log's last update of the job."""
    since = BEGAN + timedelta(seconds=at_s)
    return LastUpdate(
        number=9,
        sequence=sequence,
        state=state,
        version=0,
        revision=revision,
        source=source,
        time_ns=round(since.timestamp()) * 10**9 if source == OBSERVED else 0,
    )


def states(laid: object) -> list[tuple[int | None, str]]:
    """Revision and state of the steps that follow."""
    assert isinstance(laid, Joined), laid
    return [(step.revision, step.state) for step in laid.steps]


def test_of_a_job_that_the_log_has_not_all_follows() -> None:
    """From nothing on; from the rest of a history nobody can tell."""
    laid = lay_beside(RULES, None, part(*WHOLE))
    assert states(laid) == [(1, "Pending"), (2, "Running"), (3, "Completed")]
    assert isinstance(laid, Joined)
    assert laid.after == START
    assert lay_beside(RULES, None, rest(1, "Pending", "Running")) is None


def test_what_the_log_has_not_follows_it() -> None:
    """Behind the entry that the log stands at; entries that say the same again are no step."""
    for history in (
        part("Pending", "Running", "Running", "Completed"),
        rest(1, "Pending", "Running", "Running", "Completed"),
    ):
        assert states(lay_beside(RULES, known("Running", 2), history)) == [(4, "Completed")]
    assert states(lay_beside(RULES, known("Completed", 3), part(*WHOLE))) == []


def test_a_shorter_history_is_old() -> None:
    """An answer may come from before what the log has; of a rest only the whole history can tell."""
    assert lay_beside(RULES, known("Completed", 3), part("Pending", "Running")) == Old()
    assert lay_beside(RULES, known("Completed", 3), part()) == Old()
    assert lay_beside(RULES, known("Completed", 5), rest(1, "Pending", "Running")) is None
    assert lay_beside(RULES, known("Pending", 1), rest(2, "Running", "Completed")) is None
    assert lay_beside(RULES, known("Pending", 1), rest(1, "Pending")) is None


@pytest.mark.parametrize("source", [OBSERVED, DERIVED])
def test_what_the_record_does_not_say_is_contradicted(source: Source) -> None:
    """The present state is to be published, corrected; of a rest only the whole history can tell."""
    there = known("Running", 1 if source == OBSERVED else None, source=source)
    laid = lay_beside(RULES, there, part("Pending", "Failed"))
    assert laid == Contradicted(
        after=log_point_of(there),
        present=Step(version=0, revision=2, state="Failed"),
        reported=False,
    )
    assert lay_beside(RULES, there, rest(1, "Pending", "Failed")) is None


def test_the_record_takes_over_from_reports() -> None:
    """With its present state, once it says anything at all."""
    there = known("Running", None, source=REPORTED)
    laid = lay_beside(RULES, there, part("Pending", "Running"))
    assert isinstance(laid, Contradicted)
    assert (laid.present.state, laid.reported) == ("Running", True)
    assert lay_beside(RULES, there, part()) == Old()
    assert lay_beside(RULES, there, rest(1, "Pending", "Running")) is None


@pytest.mark.parametrize(
    ("state", "sequence", "history", "following"),
    [
        ("Running", 2, WHOLE, [(3, "Completed")]),
        ("Running", 1, WHOLE, [(3, "Completed")]),  # the frames did not tell of Pending
        ("Pending", 1, WHOLE, [(2, "Running"), (3, "Completed")]),
        ("Running", 3, ("Pending", "Running", "Queued", "Running", "Failed"), [(5, "Failed")]),
        ("Completed", 3, WHOLE, []),
        ("Completed", 5, WHOLE, []),  # the log has more than the record; it ends alike
    ],
)
def test_a_derived_update_is_found_in_the_record(
    state: str, sequence: int, history: tuple[str, ...], following: list[tuple[int, str]]
) -> None:
    """At the first entry that says the same, no earlier than the log has updates; behind it the record goes on."""
    there = known(state, None, source=DERIVED, sequence=sequence)
    assert states(lay_beside(RULES, there, part(*history))) == following


def test_of_an_empty_history_a_derived_update_is_ahead() -> None:
    """The answer is older."""
    assert lay_beside(RULES, known("Running", None, source=DERIVED), part()) == Old()


@pytest.mark.parametrize(("later_s", "laid"), [(-5.0, Old), (0.0, Joined), (5.0, Contradicted)])
def test_an_end_at_another_time_is_another_end(later_s: float, laid: type) -> None:
    """A later one came since, from data that was restored; an earlier one may be that of an old answer."""
    assert isinstance(lay_beside(RULES, known("Completed", 3), part(*WHOLE, at_s=later_s)), laid)
    assert states(lay_beside(RULES, known("Running", 2), part(*WHOLE, at_s=later_s))) == [(3, "Completed")]
    if later_s:
        entries = [entry(3, "Completed", at_s=later_s)]
        assert lay_beside(RULES, known("Completed", 3), Part.after(Tail(2, "t", 0, "Running", 0), entries)) is None


def test_where_it_is_read_on() -> None:
    """Behind so many of its entries, with what the last of them says and the highest version by then."""
    history = Part.after(None, [entry(1, "Pending"), entry(2, "Failed"), entry(3, "Pending", 1)])
    assert history.tail("next", 0) is None
    assert history.tail("next", 2) == Tail(2, "next", 0, "Failed", 0)
    assert history.tail("next", 3) == Tail(3, "next", 1, "Pending", 1)
    assert rest(2, "Failed").tail("next", 0) == Tail(2, "next", 0, "Failed", 0)


def test_the_last_entry_of_a_part() -> None:
    """Here, or the one before it."""
    assert part(*WHOLE).last == (0, "Completed")
    assert Part.after(None, [entry(1, "Failed"), entry(2, "Pending", 1)]).last == (1, "Pending")
    assert rest(2, "Running").last == (0, "Running")


def test_a_beginning_under_the_label_of_the_version_before_begins_another() -> None:
    """What is labelled rightly stays as it is."""
    read = read_versions(
        [
            entry(1, "Pending", 0, begins=True),
            entry(2, "Running", 0),
            entry(3, "Pending", 0, begins=True),
            entry(4, "Pending", 1, begins=True),
            entry(5, "Running", 2),
        ]
    )
    assert [one.version for one in read] == [0, 0, 1, 2, 2]
    assert [one.version for one in read_versions([entry(1, "Pending", 0, begins=True)], newest=3)] == [4]


@pytest.mark.parametrize(
    ("state", "at_s", "since_s", "before"),
    [
        ("Completed", 5.0, 5.0, True),
        ("Completed", 5.1, 5.0, False),
        ("Running", 1.0, 5.0, False),
        ("Completed", None, 5.0, False),
    ],
)
def test_what_had_ended_when_the_log_began(state: str, at_s: float | None, since_s: float, *, before: bool) -> None:
    """At the very moment counts; without a time nobody knows, and a log of everything leaves nothing out."""
    since_ns = round((BEGAN.timestamp() + since_s) * 10**9)
    assert ended_before(RULES, part("Pending", state, at_s=at_s), since_ns) is before
    assert ended_before(RULES, part("Pending", state, at_s=at_s), 0) is False
    assert ended_before(RULES, part(), since_ns) is False
    later = Part.after(None, [entry(1, "Pending", at_s=1.0), entry(2, "Completed", at_s=since_s + 1)])
    assert ended_before(RULES, later, since_ns) is False
