"""`rules`: the table of states and transitions; check a file, draw it, explain one transition. Needs no server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from consumer.cli.display import Page, write_json
from consumer.cli.options import Form, Output, with_groups
from consumer.cli.parsing import read_state
from consumer.errors import ExitCode
from consumer.rules import Rules, graph, load
from consumer.wire.display import printable

if TYPE_CHECKING:
    from consumer.cli.shapes import ExplainedLine, RulesLine

NEW: Final = ("new", "none", "-")
"""The words of `--explain` for a new job."""

_APART: Final = (
    ("--check", "--file"),
    ("--check", "--mermaid"),
    ("--check", "--explain"),
    ("--mermaid", "--explain"),
    ("--mermaid", "--json"),
)
"""Each of these would leave out the other."""

File = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="Use this rules file. [default: Bacalhau's rules, which are installed]"
    ),
]


@with_groups
def rules(
    *,
    file: File = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check a rules file, and say what is wrong with it.")
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Draw the transitions as a Mermaid diagram.")] = False,
    explain: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="FROM TO", help="Say whether TO may follow FROM (`new`: a new job), and why."),
    ] = None,
    output: Output,
) -> None:
    """Print, check, draw or explain the states and transitions.

    --explain exits 0 for an allowed transition, 1 for a forbidden one and 2 for an unknown state; --check exits 2 for a
    file with an error.

    Example: jobstate rules --explain Running Pending
    """
    given = {
        "--check": check,
        "--mermaid": mermaid,
        "--explain": explain,
        "--json": output.form == "json",
        "--file": file,
    }
    for one, other in _APART:
        if given[one] and given[other]:
            raise typer.BadParameter(f"does not go together with {other}: give one of them", param_hint=f"'{one}'")
    table = load(check, "--check") if check is not None else load(file, "--file")
    if explain is not None:
        _explain(table, *explain, output.form)
    elif mermaid:
        sys.stdout.write(graph.mermaid(table) + "\n")
    elif output.form == "json":
        line = _line(table)
        write_json(line if check is None else {"file": str(check), "verdict": "sound", **line})
    elif check is not None:
        sys.stdout.write(
            f"{printable(str(check))}: sound. Rules {printable(table.name)}, {len(table.states)} states, "
            f"{len(table.edges)} transitions, hash {table.hash}\n"
        )
    else:
        _print(table)


def _explain(table: Rules, previous: str, state: str, form: Form) -> None:
    before = None if previous.lower() in NEW else read_state(table, previous, "--explain", NEW[0])
    after = read_state(table, state, "--explain")
    allowed = table.allows(before, after)
    sentence = table.explain(before, after)
    if form == "json":
        line: ExplainedLine = {"from": before, "to": after, "allowed": allowed, "why": sentence}
        write_json(line)
    else:
        sys.stdout.write(printable(sentence) + "\n")
    if not allowed:
        raise typer.Exit(ExitCode.WRONG)


def _print(table: Rules) -> None:
    page = Page(("FROM", "TO", "WHEN"))
    page.add(("(new)", ", ".join(table.following(None)), printable(table.entry.when)))
    for edge in table.edges:
        page.add((edge.previous, edge.state, printable(edge.when)))
    page.end()
    sys.stdout.writelines(f"{printable(line)}\n" for line in ("", *graph.notes(table).splitlines()))


def _line(table: Rules) -> "RulesLine":
    """Build what `--json` writes."""
    return {
        "name": table.name,
        "hash": table.hash,
        "states": list(table.states),
        "initial": table.initial,
        "terminal": [state for state in table.states if table.is_terminal(state)],
        "new": list(table.following(None)),
        "transitions": [
            {"from": edge.previous, "to": edge.state, "when": edge.when, "source": edge.source} for edge in table.edges
        ],
        "aliases": dict(table.aliases),
        "restrictions": {one.state: list(one.only) for one in table.restrictions},
        "dwell_s": {state: table.dwell.get(state) for state in table.states if not table.is_terminal(state)},
    }
