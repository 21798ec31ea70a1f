"""`replay`: recordings through join and fold in virtual time, and the verdict. Needs no server."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from consumer.cli.display import write_json
from consumer.cli.options import AsJson
from consumer.errors import ExitCode
from consumer.replay.recording import Recording
from consumer.replay.summary import Tallies, is_right, percentile, summary_lines, summary_object
from consumer.replay.verdict import Verdict, judge
from consumer.replay.virtual import Outcome, VirtualReplay
from consumer.rules import Rules, load
from consumer.wire import encode_update
from consumer.wire.display import printable


def replay(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders of one recording each.")],
    *,
    as_json: AsJson = False,
    rules: Annotated[Path | None, typer.Option(metavar="FILE", help="Rules in place of Bacalhau's.")] = None,
    no_scan: Annotated[
        bool, typer.Option("--no-scan", help="No open jobs in turn, and no list but one at the end.")
    ] = False,
    loss: Annotated[
        float, typer.Option(metavar="P", min=0.0, max=1.0, help="Share of the frames that never arrive.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Which frames those are.")] = 0,
) -> None:
    """Judge recordings: whether the log that comes of them is the orchestrator's record.

    Ends with 0 if every scenario is right, with 1 if one is not, with 3 if a path is no recording.

    Example: jobstate replay tests/recordings/bacalhau-v1.9.3/rerun
    """
    table = load(rules)
    recordings = [Recording.load(path) for path in paths]
    right = True
    totals: list[tuple[Verdict, Tallies]] = []
    for number, recording in enumerate(recordings, 1):
        outcome = VirtualReplay(recording, table, scan=not no_scan, loss=loss, seed=seed).run()
        verdict, tallies = _judge(recording, outcome)
        totals.append((verdict, tallies))
        right = right and is_right(verdict, tallies)
        if as_json:
            _write(recording.name, outcome, verdict, tallies)
            continue
        first, *findings = summary_lines(verdict, tallies)
        sys.stdout.write(f"[{number}/{len(recordings)}] {printable(recording.name)}: {first}\n")
        sys.stdout.writelines(f"{line}\n" for line in findings)
    if not as_json and len(totals) > 1:
        _sum_up(totals, table)
    if not right:
        raise typer.Exit(ExitCode.WRONG)


def _judge(recording: Recording, outcome: Outcome) -> tuple[Verdict, Tallies]:
    verdict = judge(recording.jobs, (published.update for _, published in outcome.published))
    return verdict, Tallies(
        rejected=outcome.rejected,
        undecodable=outcome.undecodable,
        by_hint=outcome.by_hint,
        by_scan=outcome.by_scan,
        reads=outcome.reads,
        hint_lags_ms=outcome.hint_lags_ms,
        scan_lags_ms=outcome.scan_lags_ms,
    )


def _write(scenario: str, outcome: Outcome, verdict: Verdict, tallies: Tallies) -> None:
    for subject, published in outcome.published:
        write_json({"scenario": scenario, "subject": subject, "update": json.loads(encode_update(published.update))})
    write_json(summary_object(scenario, verdict, tallies))


def _sum_up(totals: list[tuple[Verdict, Tallies]], rules: Rules) -> None:
    """One line over all scenarios."""
    right = sum(is_right(verdict, tallies) for verdict, tallies in totals)
    updates = sum(verdict.updates for verdict, _ in totals)
    expected = sum(verdict.expected for verdict, _ in totals)
    hints = [lag for _, tallies in totals for lag in tallies.hint_lags_ms]
    scans = [lag for _, tallies in totals for lag in tallies.scan_lags_ms]
    reads = sum(tallies.reads for _, tallies in totals)
    sys.stdout.write(
        f"{right} of {len(totals)} scenarios right by rules {printable(rules.name)}: {updates} of {expected} updates, "
        f"{len(hints)} by hint (p50 {percentile(hints, 0.5)} ms, p99 {percentile(hints, 0.99)} ms), "
        f"{len(scans)} by scan (p50 {percentile(scans, 0.5)} ms, p99 {percentile(scans, 0.99)} ms), "
        f"{reads} reads ({reads / max(updates, 1):.2f} an update)\n"
    )
