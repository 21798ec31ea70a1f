"""The summary: its numbers, its promised keys, and what a person reads of it."""

import json

import pytest

from consumer.replay.summary import SHOWN_MAX, Tallies, is_right, percentile, summary_lines, summary_object
from consumer.replay.verdict import Verdict

RIGHT = Verdict(jobs=2, updates=6, expected=6, missing=(), surplus=(), misordered=())
SHORT = Verdict(
    jobs=1, updates=1, expected=3, missing=("j-1 v1 r2 Running", "j-1 v1 r3 Failed"), surplus=(), misordered=()
)
TALLIES = Tallies(
    by_hint=4,
    by_scan=2,
    reads=7,
    reads_by={"hint": 5, "scan": 1, "list": 1},
    cost_s=0.0056,
    hint_lags_ms=(1.0, 2.0, 3.0, 40.12345),
    scan_lags_ms=(500.0, 900.0),
)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.5, 7.0),
        ([7.0], 0.99, 7.0),
        ([2.0, 1.0], 0.5, 1.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 3.0, 2.0, 1.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.5, 3.0),
        (list(range(1, 101)), 0.5, 50.0),
        (list(range(1, 101)), 0.99, 99.0),
        (list(range(1, 101)), 1.0, 100.0),
        (list(range(1, 201)), 0.99, 198.0),
        (list(range(1, 101)), 0.0, 1.0),
        ([1.23456], 0.5, 1.235),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float | None) -> None:
    """The smallest value that the share of all do not exceed, to the microsecond; of nothing there is none."""
    assert percentile(values, share) == expected


def test_the_object_has_the_promised_keys_and_what_it_cost() -> None:
    """Scripts read this line. Behind the reads stand their kinds, their cost, and what came from a frame."""
    said = json.loads(json.dumps(summary_object("a/b", RIGHT, TALLIES)))
    assert said == {
        "scenario": "a/b",
        "summary": {
            "jobs": 2,
            "updates": 6,
            "expected": 6,
            "missing": [],
            "surplus": [],
            "misordered": [],
            "rejected": 0,
            "undecodable": 0,
            "by_hint": 4,
            "by_scan": 2,
            "reads": 7,
            "reads_by": {"hint": 5, "scan": 1, "list": 1},
            "orchestrator_ms": 5.6,
            "derived": 0,
            "corrected": 0,
            "lag_ms": {"hint": {"p50": 2.0, "p99": 40.123}, "scan": {"p50": 500.0, "p99": 900.0}},
            "ok": True,
        },
    }


def test_without_a_lag_there_is_no_number() -> None:
    """Null, not nought: nothing was measured."""
    said = summary_object("a", RIGHT, Tallies())
    summary = said["summary"]
    assert isinstance(summary, dict)
    assert summary["lag_ms"] == {"hint": {"p50": None, "p99": None}, "scan": {"p50": None, "p99": None}}


@pytest.mark.parametrize(
    ("verdict", "tallies", "right"),
    [
        (RIGHT, TALLIES, True),
        (SHORT, TALLIES, False),
        (RIGHT, Tallies(rejected=1), False),
        (RIGHT, Tallies(undecodable=1), False),
        (RIGHT, Tallies(derived=1), False),
    ],
)
def test_right_is_the_record_and_nothing_refused(verdict: Verdict, tallies: Tallies, right: bool) -> None:
    """A log that is the record is still not right if an event of a real orchestrator was refused."""
    assert is_right(verdict, tallies) is right
    said = summary_object("a", verdict, tallies)["summary"]
    assert isinstance(said, dict)
    assert said["ok"] is right
    assert summary_lines(verdict, tallies)[0].startswith("right: " if right else "WRONG: ")


def test_a_person_reads_what_is_wrong_below_the_verdict() -> None:
    """One line for all, one for each finding, and of many only how many more there are."""
    first, *findings = summary_lines(SHORT, TALLIES)
    assert first == (
        "WRONG: 1 jobs, 1 of 3 updates; 4 by hint (p50 2 ms), 2 by scan (p50 500 ms); "
        "7 reads, 0 rejected, 0 undecodable"
    )
    assert findings == ["  missing: j-1 v1 r2 Running", "  missing: j-1 v1 r3 Failed"]
    many = Verdict(
        jobs=1, updates=0, expected=0, missing=(), surplus=tuple("\x1b[2J" for _ in range(SHOWN_MAX + 5)), misordered=()
    )
    _, *findings = summary_lines(many, Tallies())
    assert len(findings) == SHOWN_MAX + 1
    assert findings[-1] == "  surplus: and 5 more (--json has them all)"
    assert "\x1b" not in "".join(findings)
