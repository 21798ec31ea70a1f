"""Whose turn it is: each open job once in a while, all together within a rate."""

from consumer.join import JoinSettings
from consumer.join.turns import Turns


def test_each_open_job_has_its_turn_within_the_rate() -> None:
    """Two jobs, a turn each second, ten a second together: they alternate, a tenth of a second apart."""
    turns = Turns(JoinSettings(scan_every_s=1.0, scan_rate=10.0))
    turns.open("a", 0.0)
    turns.open("b", 0.0)
    taken = []
    while (now := turns.wake_at()) is not None and now < 2.0:
        taken.append((now, turns.take(now, lambda _: 0.0)))
    assert taken == [(0.0, "a"), (0.1, "b"), (1.0, "a"), (1.1, "b")]


def test_a_job_that_is_not_ready_waits_and_wastes_no_turn() -> None:
    """It has its turn when it is ready, and the next one does not wait for it."""
    turns = Turns(JoinSettings(scan_every_s=1.0))
    turns.open("busy", 0.0)
    turns.open("free", 0.0)
    assert turns.take(0.0, lambda name: 0.7 if name == "busy" else 0.0) == "free"
    assert turns.take(0.6, lambda _: 0.0) is None
    assert turns.take(0.7, lambda _: 0.0) == "busy"


def test_a_job_that_was_closed_and_opened_again_has_one_turn() -> None:
    """What was queued for it before is nothing any more."""
    turns = Turns(JoinSettings(scan_every_s=1.0, scan_rate=1000.0))
    turns.open("a", 0.0)
    turns.close("a")
    assert "a" not in turns
    assert turns.take(0.0, lambda _: 0.0) is None
    turns.open("a", 0.5)
    turns.open("a", 0.2)  # is open: nothing changes
    assert (len(turns), turns.wake_at()) == (1, 0.5)
    assert turns.take(0.5, lambda _: 0.0) == "a"
    assert turns.take(0.9, lambda _: 0.0) is None


def test_what_is_remembered_is_bounded_by_the_jobs_that_are_open() -> None:
    """Ten thousand short jobs beside one that is long, and nobody's turn comes: no trace of them is left."""
    turns = Turns(JoinSettings(scan_rate=0))
    turns.open("long", 0.0)
    for number in range(10_000):
        turns.open(f"short-{number}", 1.0)
        turns.close(f"short-{number}")
    assert len(turns) == 1
    assert len(turns._heap) < 100


def test_without_a_rate_nobody_has_a_turn() -> None:
    """Rate 0: jobs are open, and never read for that."""
    turns = Turns(JoinSettings(scan_rate=0))
    turns.open("a", 0.0)
    assert (turns.take(9.0, lambda _: 0.0), turns.wake_at(), "a" in turns) == (None, None, True)
