"""Where a new log begins, by the top of a list."""

import pytest

from consumer.core.beginning import APART_NS, Proposal, propose, told_from
from consumer.model import BadJob, JobPage
from tests.core.scene import page, snapshot

S = 1_000_000_000
NOW_NS = 5 * 3_600 * S


def test_it_is_the_newest_change_and_without_a_job_everything_is_told() -> None:
    """Whatever the order of the rows; a job that cannot be read was written all the same."""
    assert propose(page(), NOW_NS) == Proposal(since_ns=0)
    rows = (snapshot("Running", 1, modified_ns=7), snapshot("Completed", 2, modified_ns=9))
    assert propose(page(*rows), NOW_NS) == Proposal(since_ns=9)
    bad = (BadJob(id="j", reason="unknown-state", modified_ns=11),)
    assert propose(page(*rows, bad=bad), NOW_NS) == Proposal(since_ns=11)


@pytest.mark.parametrize(("newest_ns", "ahead"), [(NOW_NS + APART_NS, False), (NOW_NS + APART_NS + 1, True)])
def test_a_record_from_far_ahead_is_not_where_the_log_begins(newest_ns: int, *, ahead: bool) -> None:
    """One wrong ModifyTime would leave out every job for ever: our own clock is taken, and what it said is kept."""
    proposal = propose(
        JobPage(jobs=(), next_token="", bad=(BadJob(id="j", reason="wrong-shape", modified_ns=newest_ns),)), NOW_NS
    )
    assert proposal == (Proposal(since_ns=NOW_NS, ahead_ns=newest_ns) if ahead else Proposal(since_ns=newest_ns))


def test_a_job_of_a_clock_that_was_ahead_does_not_count() -> None:
    """The orchestrator's clock says that it is earlier than that, and another job agrees with it."""
    rows = (snapshot("Running", 1, modified_ns=4000 * S), snapshot("Running", 1, modified_ns=990 * S))
    assert propose(page(*rows, clock_ns=1000 * S), NOW_NS) == Proposal(since_ns=990 * S)
    assert propose(page(rows[0], clock_ns=1000 * S), NOW_NS) == Proposal(since_ns=4000 * S)


def test_a_backfill_tells_what_ended_before() -> None:
    """By so long, or of everything; never before 1970."""
    assert [told_from(100, backfill_ns) for backfill_ns in (0, 30, 101, None)] == [100, 70, 0, 0]
