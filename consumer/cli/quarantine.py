"""`quarantine list`, `quarantine show`: what was refused, and why. Putting back is not here yet."""

import base64
import json
import re
import sys
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from consumer.cli.connecting import LogTarget, connected, newest
from consumer.cli.naming import enumerate_some, say_key
from consumer.cli.options import Form, Limit, Output, Rows, with_groups
from consumer.cli.parsing import read_name
from consumer.cli.running import carry_out, tell
from consumer.errors import AbsentError, ExitCode

if TYPE_CHECKING:
    from consumer.cli.shapes import RefusedLine
    from consumer.core.appends import Entry
    from consumer.jetstream.view import View
    from consumer.wire.subjects import Names, RefusedKind

HEAD: Final = ("TIME", "AGE", "KIND", "REASON", "JOB", "ORIGIN", "RULE")
DATA_MAX: Final = 2000
"""Characters of one text of a refused event that are shown to a person. JSON has it whole."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_=-]+\Z")

quarantine = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@quarantine.callback()
def about() -> None:
    """Show rejected events (quarantine) and bytes that could not be read (undecodable)."""


@quarantine.command("list")
@with_groups
def list_refused(
    *,
    limit: Limit = 0,
    rows: Rows,
    log: LogTarget,
) -> None:
    """Show rejected and undecodable events, newest last.

    In a pipe the columns are tab-separated (--headers adds their names): time, kind, reason, job, origin, rule.

    Example: jobstate quarantine list --limit 20
    """
    carry_out(_list(limit, log, rows))


@quarantine.command("show")
@with_groups
def show_refused(
    origin: Annotated[
        str,
        typer.Argument(
            metavar="ORIGIN",
            parser=read_name,
            help="An origin as `list` shows it, its beginning, or the whole subject as --json shows it.",
        ),
    ],
    *,
    output: Output,
    log: LogTarget,
) -> None:
    """Show one rejected event whole: the event, the job's state then, and the rule that it broke.

    Exit 3: there is no such event.

    Example: jobstate quarantine show 12-1764000000000000000
    """
    carry_out(_show(origin, log, output.form))


class _Place(NamedTuple):
    """The parts of the subject of a refused entry."""

    kind: "RefusedKind"
    reason: str
    job: str
    origin: str


def _read_place(names: "Names", subject: str) -> _Place:
    from consumer.model import JobKey

    kind, *tokens = subject.removeprefix(f"{names.prefix}.").split(".")
    if kind == "quarantine":
        job = say_key(JobKey(".".join(tokens[1:-1])))
        return _Place(kind="quarantine", reason=tokens[0], job=job, origin=tokens[-1])
    return _Place(kind="undecodable", reason=tokens[0], job="", origin=tokens[-1])


async def _list(limit: int, log: LogTarget, rows: Rows) -> ExitCode:
    from consumer.cli.display import Page, say_ns, shorten, write_json
    from consumer.wire.display import printable

    async with connected(log) as view, view.refused() as entries:
        found = await newest(entries, limit)
    if not found:
        tell(f"nothing was refused in cluster {view.names.cluster}")
    page = Page(HEAD, heads=rows.heads)
    for entry in found:
        if rows.form == "json":
            write_json(_line(view.names, entry))
        else:
            place = _read_place(view.names, entry.subject)
            cells = (say_ns(entry.time_ns), *place, shorten(_why(entry)))
            page.add(tuple(printable(cell) for cell in cells))
    page.end()
    return ExitCode.OK


async def _show(origin: str, log: LogTarget, form: Form) -> ExitCode:
    from consumer.cli.display import say_facts, say_ns, write_json
    from consumer.model import JobKey
    from consumer.wire.subjects import escape

    async with connected(log) as view:
        names = view.names
        if origin.startswith(f"{names.prefix}.") and all(map(_TOKEN.match, origin.split("."))):
            filters: tuple[str, ...] = (origin,)
        else:
            token = await _find_origin(view, origin if _TOKEN.match(origin) else escape(origin))
            filters = (names.quarantine("*", JobKey("*.*"), token), names.undecodable("*", token))
        async with view.refused(*filters) as entries:
            found = [entry async for entry in entries]
    if not found:
        raise AbsentError(f"nothing of origin {origin} was refused: `jobstate quarantine list` shows what was")
    for number, entry in enumerate(found):
        if form == "json":
            write_json(_line(names, entry))
            continue
        if number:
            sys.stdout.write("\n")
        place = _read_place(names, entry.subject)
        facts = {**place._asdict(), "stored": say_ns(entry.time_ns), **_flatten(_readable(_body(entry)))}
        say_facts({name: text for name, text in facts.items() if text})
    return ExitCode.OK


async def _find_origin(view: "View", begun: str) -> str:
    """The origin that *begun* is or alone begins as; *begun* itself if none does. Raises `AbsentError` for several."""
    origins = sorted({subject.rpartition(".")[2] for subject in await view.subjects(view.names.refused)})
    meant = [origin for origin in origins if origin.startswith(begun)]
    if begun in meant or not meant:
        return begun
    if len(meant) > 1:
        raise AbsentError(f"{begun} may be {enumerate_some(meant)}: give more of the origin")
    return meant[0]


def _body(entry: "Entry") -> dict[str, object]:
    """Decode the entry's body; {} if it is not an object: then somebody else wrote it."""
    try:
        body = json.loads(entry.body)
    except (ValueError, RecursionError):  # ValueError: not JSON, not UTF-8
        return {}
    return body if isinstance(body, dict) else {}


def _readable(body: dict[str, object]) -> dict[str, object]:
    """*body* with the bytes of an undecodable report as text, as far as they are text."""
    data = body.get("Data")
    if not isinstance(data, str):
        return body
    try:
        return body | {"Data": base64.b64decode(data, validate=True).decode("utf-8", "backslashreplace")}
    except ValueError:
        return body  # not base64: somebody else wrote it, and it is shown as it is


def _why(entry: "Entry") -> str:
    """The sentence that says why: the rule of a rejection, the detail of what could not be read."""
    body = _body(entry)
    return str(body.get("Rule") or body.get("Detail") or "")


def _line(names: "Names", entry: "Entry") -> "RefusedLine":
    """Build what `--json` writes for a refused entry."""
    from consumer.cli.display import say_ns

    place = _read_place(names, entry.subject)
    return {
        "subject": entry.subject,
        "sequence": entry.number,
        "stored": say_ns(entry.time_ns),
        "kind": place.kind,
        "reason": place.reason,
        "job": place.job,
        "origin": place.origin,
        "refused": _body(entry),
    }


def _flatten(value: object, name: str = "") -> dict[str, str]:
    """Names and texts of all that *value* holds, `Event.StateType` style; a text only so long as a person reads."""
    from consumer.cli.display import shorten

    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= _flatten(inner, f"{name}.{key}" if name else str(key))
        return found
    if isinstance(value, list):
        return {name: ", ".join(shorten(str(inner), DATA_MAX) for inner in value)}
    return {name: "" if value is None else shorten(str(value), DATA_MAX)}
