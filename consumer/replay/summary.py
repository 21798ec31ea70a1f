"""What a replay or a demo says in the end: the verdict as one JSON object and as lines for people."""

import math
from collections.abc import Sequence

import msgspec

from consumer.replay.verdict import Verdict
from consumer.wire.display import printable

SHOWN_MAX = 10
"""Findings of one kind that a person is shown; JSON has them all."""


class Tallies(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted on the way. Lags are milliseconds from the record's change to the log.

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


def is_right(verdict: Verdict, tallies: Tallies) -> bool:
    """Whether the log is the record, and nothing was rejected, unreadable, or taken from a frame."""
    return verdict.ok and not (tallies.rejected or tallies.undecodable or tallies.derived)


def summary_object(scenario: str | Sequence[str], verdict: Verdict, tallies: Tallies) -> dict[str, object]:
    """The summary line of `--json`. Its keys are promised."""
    return {
        "scenario": scenario,
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


def _lags(values: Sequence[float]) -> dict[str, float | None]:
    return {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99)}


def say_ms(value: float | None) -> str:
    """Milliseconds for a person; `-` of nothing."""
    return "-" if value is None else f"{value:.0f} ms"
