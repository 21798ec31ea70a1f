"""`doctor`: what is wrong, on either side, and what to do next. It is found in `consumer.doctor`, and shown here."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from consumer.cli.options import Form, Output, with_groups
from consumer.cli.parsing import read_duration
from consumer.cli.running import carry_out, tell
from consumer.errors import ExitCode, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from consumer.cli.shapes import ExaminedLine, FindingLine
    from consumer.doctor.examination import Plan
    from consumer.doctor.finding import Finding
    from consumer.errors import SettingsError
    from consumer.settings import Settings

STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}
WIDTH = 20
"""Columns for the name of a check."""


@with_groups
def doctor(
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Read the daemon's jobstate.toml. [env var: JOBSTATE_CONFIG]"),
    ] = None,
    listen: Annotated[
        float,
        typer.Option(
            "--listen", metavar="DURATION", parser=read_duration, help="Listen to Bacalhau's messages for this long."
        ),
    ] = "5s",  # type: ignore[assignment] # as it is typed
    monitor: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Ask the monitoring port of the NATS server that holds the log (http://host:8222) for sync_interval.",
        ),
    ] = "",
    output: Output,
) -> None:
    """Run about forty read-only checks on both NATS servers and the orchestrator.

    For each check it prints the result and the next step. It takes the daemon's settings: its file, its environment. It
    makes no stream, publishes nothing, and shows neither secrets nor contents of jobs. It exits 0 if no check failed
    (a `warn` is no failure), else 1.

    Example: jobstate doctor --config jobstate.toml --listen 30s
    """
    from consumer.doctor.examination import Plan

    if monitor and not monitor.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{quoted(monitor)} is no address: write http://host:8222", param_hint="'--monitor'")
    plan = Plan(settings=_settings(config), listen_s=listen, monitor=monitor)
    carry_out(_doctor(plan, output.form))


def _settings(config: Path | None) -> "Settings | SettingsError":
    """The daemon's settings, as `run` reads them; or what is wrong with them."""
    from consumer.errors import SettingsError
    from consumer.settings import CONFIG, load

    file = os.environ.get(CONFIG)
    try:
        return load(config or (Path(file) if file else None), os.environ)
    except SettingsError as error:
        if config is not None and not config.is_file():
            raise  # it is the command line that is wrong
        return error


async def _doctor(plan: "Plan", form: Form) -> ExitCode:
    from consumer.cli.display import terminal, write_json
    from consumer.doctor.examination import examine
    from consumer.doctor.finding import counts, exit_code, failed
    from consumer.observe.log import configure
    from consumer.settings import Log

    # Troubles of a connection become findings, not log lines.
    configure(Log(level="error", format="console"))
    if form == "json":
        findings = await examine(plan, lambda finding: write_json(_line(finding)))
    else:
        page = _Page(terminal())
        findings = await examine(plan, page.add)
        page.end()
    code, told, bad = exit_code(findings), counts(findings), failed(findings)
    if form == "json":
        last: ExaminedLine = {"summary": told, "failed": list(bad), "exit": int(code)}
        write_json(last)
    else:
        said = ", ".join(f"{count} {verdict}" for verdict, count in told.items())
        end = f"Look at {', '.join(bad)}." if bad else "Nothing failed."
        sys.stdout.write(f"{len(findings)} checks: {said}. {end}\n")
    if bad:
        first = next(finding for finding in findings if finding.check == bad[0])
        sys.stdout.flush()
        tell(f"{first.check} failed: {first.found}; {first.next}")
    return code


def _line(finding: "Finding") -> "FindingLine":
    """Build what `--json` writes for a check."""
    return {
        "check": finding.check,
        "verdict": finding.verdict.value,
        "found": finding.found,
        "next": finding.next,
    }


class _Page:
    """Findings for eyes, as they come; neighbours that are skipped for one reason are one line."""

    def __init__(self, console: "Console | None") -> None:
        self._console = console
        self._held: list[Finding] = []

    def add(self, finding: "Finding") -> None:
        """Show it, once it is clear that the next one does not belong to it."""
        held = self._held
        if held and (finding.verdict.value != "skipped" or finding.found != held[0].found):
            self.end()
        if finding.verdict.value == "skipped":
            self._held.append(finding)
        else:
            self._show(finding.verdict.value, finding.check, finding.found, finding.next)

    def end(self) -> None:
        """Show what is still held back."""
        held, self._held = self._held, []
        if held:
            name = held[0].check if len(held) == 1 else f"{held[0].check} … {held[-1].check}"
            number = f" ({len(held)} checks)" if len(held) > 1 else ""
            self._show("skipped", name, f"{held[0].found}{number}", held[0].next)

    def _show(self, verdict: str, name: str, found: str, step: str) -> None:
        if self._console is None:
            sys.stdout.write(f"{verdict:<7} {name:<{WIDTH}} {found}\n")
            if step:
                sys.stdout.write(f"{'':<7} {'':<{WIDTH}} -> {step}\n")
            sys.stdout.flush()
            return
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(width=7)
        table.add_column(width=WIDTH)
        table.add_column(ratio=1)
        table.add_row(Text(verdict, style=STYLES[verdict]), Text(name), Text(found))
        if step:
            table.add_row("", "", Text(f"→ {step}", style="italic"))
        self._console.print(table)
