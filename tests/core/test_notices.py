"""What an advisory names: `consumer.core.notices`. When one is made, the readers' tests say."""

from typing import Final

import pytest

from consumer.core import notices
from consumer.core.options import SLOW_S, slow_lists_s
from consumer.model import OBSERVED, JobKey, LastUpdate, LogPoint, Notice, Step

KEY: Final = JobKey("default.j-1")
KNOWN: Final = LastUpdate(
    number=9, sequence=3, state="Running", version=1, revision=5, source=OBSERVED, message="canary-7f3a"
)
STEP: Final = Step(version=2, revision=6, state="Failed", message="canary-7f3a")


@pytest.mark.parametrize(
    ("notice", "kind", "origin", "facts"),
    [
        (notices.gone("j.1", KEY, KNOWN), "gone", "j=2E1-3", {"sequence": 3, "log": "v1 r5 Running"}),
        (
            notices.diverged("j-1", KEY, LogPoint(3, 1, 5, "Running"), STEP),
            "diverged",
            "j-1-3",
            {"sequence": 3, "log": "v1 r5 Running", "record": "v2 r6 Failed"},
        ),
        (notices.record_went_back(5, 9), "diverged", "record-5", {"newest_ns": 5, "seen_ns": 9}),
        (notices.began_ahead(9, 5), "diverged", "beginning-9", {"since_ns": 9, "clock_ns": 5}),
        (
            notices.halted("j-1", KEY, STEP, "after-terminal"),
            "halted",
            "j-1-2-6",
            {"step": "v2 r6 Failed", "reason": "after-terminal"},
        ),
        (notices.unreadable("j-1", KEY, "endless"), "unreadable", "j-1-endless", {"job": "j-1", "error": "endless"}),
    ],
    ids=["gone", "diverged", "record went back", "began ahead", "halted", "unreadable"],
)
def test_a_notice_names_the_job_and_both_sides(
    notice: Notice, kind: str, origin: str, facts: dict[str, str | int]
) -> None:
    """Its origin makes it one however often it is found; nothing that a job or its record says is in it."""
    assert (notice.kind, notice.origin, notice.facts) == (kind, origin, facts)
    assert notice.key == (KEY if "sequence" in facts or kind in {"halted", "unreadable"} else None)
    assert "canary" not in repr(notice)


@pytest.mark.parametrize(("every_s", "slow_s"), [(0.1, SLOW_S), (SLOW_S / 1.5, SLOW_S), (60.0, 90.0)])
def test_lists_are_slow_only_beyond_what_was_asked_for(every_s: float, slow_s: float) -> None:
    """Ten seconds, or half as long again as the time between two."""
    assert slow_lists_s(every_s) == pytest.approx(slow_s)
