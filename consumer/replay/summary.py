"""The end of a replay or a demo: the verdict as one JSON object and as lines for people."""

import math
from collections.abc import Sequence
from typing import Annotated, TypedDict

import msgspec

from consumer.replay.verdict import Verdict
from consumer.wire.display import printable

SHOWN_MAX = 10
"""Findings of one kind that a person is shown; JSON has them all."""


class Tallies(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a replay. Lags are milliseconds from the record's change to the log.

    `reads_by`: the reads by what made us read; `cost_s`: how long they would have kept a core of a real orchestrator.
    `derived`: updates from a frame, of which there must be none; `corrected`: updates that take another one back.
    """

    rejected: int = 0
    undecodable: int = 0
    by_hint: int = 0
    by_scan: int = 0
    reads: int = 0
    reads_by: dict[str, int] = {}
    cost_s: float = 0.0
    derived: int = 0
    corrected: int = 0
    hint_lags_ms: tuple[float, ...] = ()
    scan_lags_ms: tuple[float, ...] = ()


class PlayedLine(TypedDict):
    """An update that was published."""

    scenario: Annotated[str | list[str], "the recording; of several that are played into one log a list"]
    subject: Annotated[str, "the subject of the update"]
    update: Annotated[dict[str, object], "the [update](streams.md#update)"]


class Lags(TypedDict):
    """Percentiles; null where nothing was counted."""

    p50: Annotated[float | None, "half of the updates came within this"]
    p99: Annotated[float | None, "99 of 100 came within this"]


class LagsByCause(TypedDict):
    """Milliseconds from the change to the update, by what made the daemon read the job."""

    hint: Annotated[Lags, "a message"]
    scan: Annotated[Lags, "a turn, or a list"]


class Summary(TypedDict):
    """The verdict, and what was counted."""

    jobs: Annotated[int, "jobs in the recording"]
    updates: Annotated[int, "updates that were published"]
    expected: Annotated[int, "updates that the orchestrator's final record asks for"]
    missing: Annotated[list[str], "updates that the record has and the log has not"]
    surplus: Annotated[list[str], "updates that the log has and the record has not"]
    misordered: Annotated[list[str], "updates that stand in the wrong order"]
    rejected: Annotated[int, "rejected events"]
    undecodable: Annotated[int, "messages and reports that could not be read"]
    by_hint: Annotated[int, "updates that a message led to"]
    by_scan: Annotated[int, "updates that a turn or a list led to"]
    reads: Annotated[int, "requests to the orchestrator"]
    reads_by: Annotated[dict[str, int], "the same by what made the daemon read"]
    orchestrator_ms: Annotated[float, "how long the requests would keep a core of a real orchestrator busy"]
    derived: Annotated[int, "updates that were published from a message; 0"]
    corrected: Annotated[int, "updates with the flag `corrected`"]
    lag_ms: Annotated[LagsByCause, "milliseconds from the change to the update"]
    ok: Annotated[bool, "whether the log equals the record, with nothing rejected, unreadable or derived"]


class SummaryLine(TypedDict):
    """The verdict on a recording."""

    scenario: Annotated[str | list[str], "the recording; of several that are played into one log a list"]
    summary: Annotated[Summary, "the verdict"]


class DerivedSummary(TypedDict):
    """The verdict on what the messages alone tell."""

    jobs: Annotated[int, "jobs in the recording"]
    unseen: Annotated[int, "jobs without an update"]
    ended: Annotated[int, "jobs whose last update is the record's last state"]
    undecided: Annotated[int, "jobs that were announced as undecided"]
    updates: Annotated[int, "updates that were published"]
    matched: Annotated[int, "updates that the record has, in its order"]
    expected: Annotated[int, "changes in the orchestrator's final record"]
    states: Annotated[dict[str, tuple[int, int]], "by state: published, and in the record"]
    wrong: Annotated[list[str], "updates that the record does not have, and that could be known to be wrong"]
    underivable: Annotated[list[str], "updates that the record does not have, where no message tells"]
    rejected: Annotated[int, "rejected events"]
    undecodable: Annotated[int, "messages that could not be read"]
    ok: Annotated[bool, "whether nothing wrong was published and every message could be read and judged"]


class DerivedSummaryLine(TypedDict):
    """The verdict on a recording without its orchestrator."""

    scenario: Annotated[str, "the recording"]
    summary: Annotated[DerivedSummary, "the verdict"]


def is_right(verdict: Verdict, tallies: Tallies) -> bool:
    """Whether the log is the record, and nothing was rejected, unreadable, or taken from a frame."""
    return verdict.ok and not (tallies.rejected or tallies.undecodable or tallies.derived)


def summary_object(scenario: str | Sequence[str], verdict: Verdict, tallies: Tallies) -> SummaryLine:
    """The summary line of `--json`. Its keys are promised."""
    return {
        "scenario": scenario if isinstance(scenario, str) else list(scenario),
        "summary": {
            "jobs": verdict.jobs,
            "updates": verdict.updates,
            "expected": verdict.expected,
            "missing": list(verdict.missing),
            "surplus": list(verdict.surplus),
            "misordered": list(verdict.misordered),
            "rejected": tallies.rejected,
            "undecodable": tallies.undecodable,
            "by_hint": tallies.by_hint,
            "by_scan": tallies.by_scan,
            "reads": tallies.reads,
            "reads_by": tallies.reads_by,
            "orchestrator_ms": round(tallies.cost_s * 1e3, 1),
            "derived": tallies.derived,
            "corrected": tallies.corrected,
            "lag_ms": {"hint": _lags(tallies.hint_lags_ms), "scan": _lags(tallies.scan_lags_ms)},
            "ok": is_right(verdict, tallies),
        },
    }


def summary_lines(verdict: Verdict, tallies: Tallies) -> list[str]:
    """The verdict for a person: one line if all is right, and below it what is not."""
    said = "right" if is_right(verdict, tallies) else "WRONG"
    hint, scan = _lags(tallies.hint_lags_ms)["p50"], _lags(tallies.scan_lags_ms)["p50"]
    first = (
        f"{said}: {verdict.jobs} jobs, {verdict.updates} of {verdict.expected} updates; "
        f"{tallies.by_hint} by hint (p50 {say_ms(hint)}), "
        f"{tallies.by_scan} by scan (p50 {say_ms(scan)}); "
        f"{tallies.reads} reads, {tallies.rejected} rejected, {tallies.undecodable} undecodable"
    )
    lines = [first]
    for kind, found in (
        ("missing", verdict.missing),
        ("surplus", verdict.surplus),
        ("misordered", verdict.misordered),
    ):
        lines += [f"  {kind}: {printable(item)}" for item in found[:SHOWN_MAX]]
        if len(found) > SHOWN_MAX:
            lines.append(f"  {kind}: and {len(found) - SHOWN_MAX} more (--json has them all)")
    return lines


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that *share* of *values* do not exceed (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    rank = max(math.ceil(share * len(ordered) - 1e-9), 1)  # 0.07 of 100 is a little above 7 in binary
    return round(ordered[rank - 1], 3)


def _lags(values: Sequence[float]) -> Lags:
    return {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99)}


def say_ms(value: float | None) -> str:
    """Milliseconds for a person; `-` of nothing."""
    return "-" if value is None else f"{value:.0f} ms"
