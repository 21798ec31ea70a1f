"""`advisories`: what readers of the log were told besides the updates (docs/guide/promise.md has the kinds)."""

from typing import TYPE_CHECKING, Final

from consumer.cli.connecting import LogTarget, connected, newest
from consumer.cli.options import Limit, Rows, with_groups
from consumer.cli.running import carry_out, tell
from consumer.errors import DecodeError, ExitCode

if TYPE_CHECKING:
    from consumer.cli.shapes import AdvisoryLine
    from consumer.core.appends import Entry
    from consumer.wire.entries import Advisory

HEAD: Final = ("TIME", "AGE", "KIND", "JOB", "TEXT", "FACTS")


@with_groups
def advisories(
    *,
    limit: Limit = 0,
    rows: Rows,
    log: LogTarget,
) -> None:
    """Show warnings: jobs that are stuck, missing or unreadable, and log entries from other writers; newest last.

    In a pipe the columns are tab-separated (--headers adds their names): time, kind, job, text, facts.
    docs/guide/promise.md explains each kind and says what to do.

    Example: jobstate advisories --limit 20
    """
    carry_out(_list(limit, log, rows))


async def _list(limit: int, log: LogTarget, rows: Rows) -> ExitCode:
    from consumer.cli.display import Page, say_ns, shorten, write_json
    from consumer.wire.display import printable

    async with connected(log) as view, view.advisories() as entries:
        found = await newest(entries, limit)
    if not found:
        tell(f"nothing was announced in cluster {view.names.cluster}")
    page = Page(HEAD, heads=rows.heads)
    for entry in found:
        kind, said = entry.subject.split(".")[-2], _read(entry)
        job = f"{said.Job.Namespace}/{said.Job.ID}" if said is not None and said.Job is not None else ""
        if rows.form == "json":
            line: AdvisoryLine = {
                "subject": entry.subject,
                "sequence": entry.number,
                "stored": say_ns(entry.time_ns),
                "kind": kind,
                "job": job,
                "text": "" if said is None else said.Text,
                "facts": {} if said is None else said.Facts,
            }
            write_json(line)
        else:
            text = "no daemon of ours wrote this" if said is None else said.Text
            facts = "" if said is None else " ".join(f"{name}={fact}" for name, fact in said.Facts.items())
            page.add(tuple(map(printable, (say_ns(entry.time_ns), kind, job, shorten(text), shorten(facts)))))
    page.end()
    return ExitCode.OK


def _read(entry: "Entry") -> "Advisory | None":
    """Read the entry's body; None if no daemon wrote it: anybody who may publish there can store anything."""
    from consumer.wire.entries import decode_advisory

    try:
        return decode_advisory(entry.body)
    except DecodeError:
        return None
