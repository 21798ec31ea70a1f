"""`replay`: recordings through the core in virtual time, and the verdict. Needs no server."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from consumer.cli.display import write_json
from consumer.cli.options import Form, Output, with_groups
from consumer.cli.parsing import read_count, read_path
from consumer.core import Published
from consumer.errors import ExitCode, quoted
from consumer.replay.derived import DerivedReplay, DerivedVerdict, add_up, derived_lines, derived_object, judge_derived
from consumer.replay.recording import Recording
from consumer.replay.summary import PlayedLine, Tallies, is_right, percentile, say_ms, summary_lines, summary_object
from consumer.replay.verdict import Verdict, judge
from consumer.replay.virtual import Outcome, VirtualReplay
from consumer.rules import Rules, load
from consumer.wire import encode_update
from consumer.wire.display import printable


def _read_share(text: str | float) -> float:
    """A number from 0 to 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{quoted(str(text))} is no share: write a number from 0 to 1")
    return share


@with_groups
def replay(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", parser=read_path, help="Folders, each with one recording.")
    ],
    *,
    output: Output,
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge by this rules file. [default: Bacalhau's rules]")
    ] = None,
    no_scan: Annotated[
        bool, typer.Option("--no-scan", help="Do not read open jobs in turn, and list jobs only once, at the end.")
    ] = False,
    loss: Annotated[
        float,
        typer.Option("--loss", metavar="P", parser=_read_share, help="Lose this share of the messages, from 0 to 1."),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", parser=read_count, help="Choose the lost messages by this seed.")
    ] = 0,
    derived: Annotated[
        bool, typer.Option("--derived", help="Judge the updates that messages alone prove, without an orchestrator.")
    ] = False,
) -> None:
    """Judge whether the log that comes of a recording equals the orchestrator's job histories.

    It exits 0 if every recording is right, 1 if one is not, and 3 if a path is not a recording. With --derived missing
    updates are no fault; a recording is right if every update is in the histories.

    Example: jobstate replay tests/recordings/bacalhau-v1.9.3/rerun
    """
    table = load(rules, "--rules")
    recordings = [Recording.load(path) for path in paths]
    if derived:
        _replay_derived(recordings, table, output.form, loss=loss, seed=seed)
        return
    right = True
    totals: list[tuple[Verdict, Tallies]] = []
    for number, recording in enumerate(recordings, 1):
        outcome = VirtualReplay(
            recording, table, lists="one at the end" if no_scan else "as they come", loss=loss, seed=seed
        ).run()
        verdict, tallies = _judge(recording, outcome)
        totals.append((verdict, tallies))
        right = right and is_right(verdict, tallies)
        if output.form == "json":
            _write(recording.name, outcome, verdict, tallies)
            continue
        first, *findings = summary_lines(verdict, tallies)
        sys.stdout.write(f"[{number}/{len(recordings)}] {printable(recording.name)}: {first}\n")
        sys.stdout.writelines(f"{line}\n" for line in findings)
    if output.form == "text" and len(totals) > 1:
        _sum_up(totals, table)
    if not right:
        raise typer.Exit(ExitCode.WRONG)


def _replay_derived(recordings: list[Recording], table: Rules, form: Form, *, loss: float, seed: int) -> None:
    """The same without an orchestrator, and the verdict of that kind."""
    verdicts: list[DerivedVerdict] = []
    for number, recording in enumerate(recordings, 1):
        outcome = DerivedReplay(recording, table, loss=loss, seed=seed).run()
        verdict = judge_derived(recording.jobs, outcome)
        verdicts.append(verdict)
        if form == "json":
            _write_updates(recording.name, outcome.published)
            write_json(derived_object(recording.name, verdict))
            continue
        first, *findings = derived_lines(verdict)
        sys.stdout.write(f"[{number}/{len(recordings)}] {printable(recording.name)}: {first}\n")
        sys.stdout.writelines(f"{line}\n" for line in findings)
    if form == "text" and len(verdicts) > 1:
        sys.stdout.write(f"all: {derived_lines(add_up(verdicts))[0]}\n")
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(ExitCode.WRONG)


def _judge(recording: Recording, outcome: Outcome) -> tuple[Verdict, Tallies]:
    verdict = judge(recording.jobs, (published.update for _, published in outcome.published))
    return verdict, Tallies(
        rejected=outcome.rejected,
        undecodable=outcome.undecodable,
        by_hint=outcome.by_hint,
        by_scan=outcome.by_scan,
        reads=outcome.reads,
        reads_by=outcome.reads_by,
        cost_s=outcome.cost_s,
        derived=outcome.derived,
        corrected=outcome.corrected,
        hint_lags_ms=outcome.hint_lags_ms,
        scan_lags_ms=outcome.scan_lags_ms,
    )


def _write(scenario: str, outcome: Outcome, verdict: Verdict, tallies: Tallies) -> None:
    _write_updates(scenario, outcome.published)
    write_json(summary_object(scenario, verdict, tallies))


def _write_updates(scenario: str, updates: Iterable[tuple[str, Published]]) -> None:
    for subject, published in updates:
        update = json.loads(encode_update(published.update))
        line: PlayedLine = {"scenario": scenario, "subject": subject, "update": update}
        write_json(line)


def _sum_up(totals: list[tuple[Verdict, Tallies]], rules: Rules) -> None:
    """One line over all scenarios."""
    right = sum(is_right(verdict, tallies) for verdict, tallies in totals)
    updates = sum(verdict.updates for verdict, _ in totals)
    expected = sum(verdict.expected for verdict, _ in totals)
    hints = [lag for _, tallies in totals for lag in tallies.hint_lags_ms]
    scans = [lag for _, tallies in totals for lag in tallies.scan_lags_ms]
    reads = sum(tallies.reads for _, tallies in totals)
    by_hint = sum(tallies.reads_by["hint"] for _, tallies in totals)
    cost = sum(tallies.cost_s for _, tallies in totals)
    sys.stdout.write(
        f"{right} of {len(totals)} scenarios right by rules {printable(rules.name)}: {updates} of {expected} updates, "
        f"{len(hints)} by hint (p50 {say_ms(percentile(hints, 0.5))}, p99 {say_ms(percentile(hints, 0.99))}), "
        f"{len(scans)} by scan (p50 {say_ms(percentile(scans, 0.5))}, p99 {say_ms(percentile(scans, 0.99))}), "
        f"{sum(tallies.derived for _, tallies in totals)} derived, "
        f"{sum(tallies.corrected for _, tallies in totals)} corrected; "
        f"{reads} reads ({reads / max(updates, 1):.2f} an update, {by_hint / max(updates, 1):.2f} by hint), "
        f"{cost / max(updates, 1) * 1e3:.2f} ms of an orchestrator's core an update\n"
    )
