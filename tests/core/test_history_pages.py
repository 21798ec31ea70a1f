"""What a later page of a history tells beside the log, and what only the whole can: `consumer.core.history`."""

from datetime import UTC, datetime

import pytest

from consumer.core.history import Contradicted, Joined, Old, Part, lay_beside
from consumer.core.reader import Tail
from consumer.model import DERIVED, OBSERVED, REPORTED, HistoryEntry, LastUpdate, Source
from tests.core.scene import RULES

S = 1_000_000_000


def entry(number: int, state: str, *, version: int = 0, at_s: float | None = None) -> HistoryEntry:
    """One entry of a history."""
    time = None if at_s is None else datetime.fromtimestamp(at_s, UTC)
    return HistoryEntry(number=number, version=version, state=state, message="", time=time)


def whole(*states: str, at_s: float | None = None) -> Part:
    """A whole history of one version, each entry written at *at_s*."""
    return Part.after(None, [entry(number, state, at_s=at_s) for number, state in enumerate(states, 1)])


def behind(tail: Tail, *states: str, at_s: float | None = None) -> Part:
    """What follows *tail*."""
    return Part.after(tail, [entry(number, state, at_s=at_s) for number, state in enumerate(states, tail.entries + 1)])


def known(
    state: str, revision: int | None, *, sequence: int = 1, source: Source = OBSERVED, at_s: float = 0.0
) -> LastUpdate:
    """Where the log stands."""
    return LastUpdate(
        number=9, sequence=sequence, state=state, version=0, revision=revision, source=source, time_ns=int(at_s * S)
    )


def steps(found: object) -> list[tuple[int | None, str]]:
    """Revision and state of what follows."""
    assert isinstance(found, Joined), found
    return [(step.revision, step.state) for step in found.steps]


PAGE = Tail(3, "t", 0, "Running", 0)
"""Three entries, the last of them Running, stand before the last page."""


class TestPage:
    """A later page, laid beside the log."""

    def test_a_later_page_is_enough_where_the_log_stands_in_it_or_just_before(self) -> None:
        """The state before the page is known, so the log may stand there."""
        assert steps(lay_beside(RULES, known("Running", 3), behind(PAGE, "Queued"))) == [(4, "Queued")]
        assert steps(lay_beside(RULES, known("Queued", 4), behind(PAGE, "Queued", "Failed"))) == [(5, "Failed")]

    def test_the_time_before_a_page_nobody_knows(self) -> None:
        """The log stands at the entry before it: that its time is another, the page does not tell."""
        tail = Tail(3, "t", 0, "Failed", 0)
        assert steps(lay_beside(RULES, known("Failed", 3, at_s=100.0), behind(tail, "Pending", at_s=500.0))) == [
            (4, "Pending")
        ]


class TestWhole:
    """What only the whole history can tell: None."""

    @pytest.mark.parametrize(
        "log",
        [
            None,
            known("Running", None, source=REPORTED),
            known("Running", None, source=DERIVED),
            known("Running", 9),
            known("Running", 2),
            known("Failed", 4),
            known("Completed", 5, at_s=100.0),
            known("Completed", 5, at_s=300.0),
        ],
        ids=lambda log: "none" if log is None else f"{log.source} {log.state} {log.revision} {log.time_ns // S}",
    )
    def test_a_page_cannot(self, log: LastUpdate | None) -> None:
        """Nothing, reports, inferences, a shorter one, an entry before, another state, another time."""
        assert lay_beside(RULES, log, behind(PAGE, "Queued", "Completed", at_s=200.0)) is None

    def test_an_empty_page_cannot(self) -> None:
        """There was more when this was a page's beginning."""
        assert lay_beside(RULES, known("Running", 3), behind(PAGE)) is None


class TestNumbers:
    """An update of the log that names no entry of a history."""

    def test_entry_zero_is_contradicted_by_any(self) -> None:
        """It would be read whole, and again, without a pause."""
        assert isinstance(lay_beside(RULES, known("Running", 0), whole("Pending", "Running")), Contradicted)
        assert lay_beside(RULES, known("Running", 0), whole()) == Old()
