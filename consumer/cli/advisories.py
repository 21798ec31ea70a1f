"""`advisories`: what readers of the log were told besides the updates (docs/guide/promise.md has the kinds)."""

from typing import TYPE_CHECKING, Final

from consumer.cli.options import AsJson, Cluster, Config, Headers, Limit, Nats, Output, Shown, TokenFile, wants_json
from consumer.cli.reader import Where, connected, newest
from consumer.cli.running import carry_out, tell
from consumer.errors import DecodeError, ExitCode

if TYPE_CHECKING:
    from consumer.cli.shapes import AdvisoryLine
    from consumer.core.appends import Entry
    from consumer.wire.entries import Advisory

HEAD: Final = ("TIME", "AGE", "KIND", "JOB", "TEXT", "FACTS")


def advisories(
    *,
    limit: Limit = 0,
    headers: Headers = False,
    as_json: AsJson = False,
    output: Output = None,
    nats: Nats = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Show warnings: jobs that are stuck, missing or unreadable, and log entries from other writers; newest last.

    In a pipe the columns are tab-separated (--headers adds their names): time, kind, job, text, facts.
    docs/guide/promise.md explains each kind and says what to do.

    Example: jobstate advisories --limit 20
    """
    shown = Shown(wants_json(output, as_json=as_json), headers)
    carry_out(_list(limit, Where(nats, cluster, config, token_file), shown))


async def _list(limit: int, where: Where, shown: Shown) -> ExitCode:
    from consumer.cli.display import Page, say_ns, shorten, write_json
    from consumer.wire.display import printable

    async with connected(where) as view, view.advisories() as entries:
        found = await newest(entries, limit)
    if not found:
        tell(f"nothing was announced in cluster {view.names.cluster}")
    page = Page(HEAD, headers=shown.headers)
    for entry in found:
        kind, said = entry.subject.split(".")[-2], _read(entry)
        job = f"{said.Job.Namespace}/{said.Job.ID}" if said is not None and said.Job is not None else ""
        if shown.as_json:
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
