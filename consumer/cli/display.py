"""How entries are shown: a line of JSON, tab-separated text, or on a terminal a table. Nothing is read or asked here.

What others wrote (messages, names, namespaces) goes through `printable` before a person sees it; a line of JSON is
plain ASCII, so no terminal acts on it.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from consumer.errors import DecodeError
from consumer.model import JobKey
from consumer.wire.display import printable
from consumer.wire.update import decode_update, encode_update

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from consumer.fold.asks import Entry
    from consumer.model import Update
    from consumer.wire.subjects import Names

HEAD: Final = ("TIME", "STATE", "NAMESPACE", "JOB", "NAME", "SEQUENCE", "VERSION", "SOURCE", "MESSAGE")
"""The columns of an update, on a terminal and (without this line) in tab-separated text."""
MESSAGE_MAX: Final = 500
"""Characters of a message in a line. JSON has it whole."""

_LONG_ID: Final = re.compile(r"(j-[0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_COLORS: Final = {
    "Pending": "yellow",
    "Queued": "yellow",
    "Running": "cyan",
    "Completed": "green",
    "Failed": "red",
    "Stopped": "magenta",
}


def read_entry(entry: "Entry") -> "Update | None":
    """The update that *entry* holds, or None if its bytes are no update (nobody of ours wrote it)."""
    try:
        return decode_update(entry.body)
    except DecodeError:
        return None


def write_json(value: object) -> None:
    """One line of ASCII JSON on stdout, at once."""
    sys.stdout.write(json.dumps(value, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def update_object(
    names: "Names", entry: "Entry", update: "Update | None", *, foreign: bool = False
) -> dict[str, object]:
    """What `--json` says of an entry of the log or of its copy in the bucket. The keys are promised.

    `subject` and `sequence` are the log's, and so is `stored`: when the log stored it (not there where only the copy
    was read, which knows when it was copied). `update` is the body as it is on the wire (null if it is none). `foreign`
    is there, and true, only for an entry that nobody of ours wrote.
    """
    subject = entry.subject
    bucket = names.key_in_bucket(JobKey(""))
    copied = subject.startswith(bucket)
    if update is not None and copied:
        subject = names.state(JobKey(subject.removeprefix(bucket)), update.StateType)
    said: dict[str, object] = {
        "subject": subject,
        "sequence": entry.number,
        **({} if copied else {"stored": say_ns(entry.time_ns)}),
        "update": None if update is None else json.loads(encode_update(update)),
    }
    return said | {"foreign": True} if foreign or update is None else said


def update_row(entry: "Entry", update: "Update | None", *, foreign: bool = False) -> tuple[str, ...]:
    """The cells of an update, in the order of `HEAD`, fit to be shown."""
    if update is None:
        return (say_ns(entry.time_ns), "?", "", "", "", str(entry.number), "", "foreign", printable(entry.subject))
    job = update.Job
    source = ",".join((update.Source, *update.Flags, *(("foreign",) if foreign else ())))
    cells = (
        say_time(update.Time),
        update.StateType,
        job.Namespace,
        job.ID,
        job.Name,
        str(update.Sequence),
        "" if job.Version is None else str(job.Version),
        source,
        shorten(update.Message),
    )
    return tuple(printable(cell) for cell in cells)


def say_update(entry: "Entry", update: "Update") -> None:
    """Show one update whole: a line for each thing known of it."""
    job = update.Job
    facts = {
        "job": job.ID,
        "namespace": job.Namespace,
        "name": job.Name,
        "type": job.Type,
        "state": update.StateType,
        "message": update.Message,
        "previous": update.Previous or "",
        "time": say_time(update.Time),
        "sequence": str(update.Sequence),
        "version": "" if job.Version is None else str(job.Version),
        "revision": "" if job.Revision is None else str(job.Revision),
        "source": update.Source,
        "flags": ",".join(update.Flags),
        "entry": f"{entry.number} of the log",
    }
    say_facts({name: text for name, text in facts.items() if text})


def say_facts(facts: Mapping[str, str]) -> None:
    """Show names and texts, one a line, the texts one below the other."""
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        sys.stdout.write(f"{name:<{width}}  {printable(text)}\n")


def shorten(text: str, limit: int = MESSAGE_MAX) -> str:
    """At most *limit* characters of *text*, and then how many it has."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def say_time(time: datetime | None) -> str:
    """UTC ISO 8601 with Z, to the microsecond; `-` for none."""
    return "-" if time is None else time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def say_ns(time_ns: int) -> str:
    """`say_time` of nanoseconds since 1970, cut to the microsecond."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return say_time(datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000))


class Page:
    """Where rows go: tab-separated lines as they come, or on a terminal one table at the end, or (*live*) lines."""

    def __init__(self, head: Sequence[str] = HEAD, *, live: bool = False) -> None:
        self._head = head
        self._live = live
        self._rows: list[tuple[str, ...]] = []
        self._console = terminal()

    def add(self, row: tuple[str, ...]) -> None:
        """Show a row; *row* is printable already."""
        if self._console is None:
            sys.stdout.write("\t".join(row) + "\n")
            if self._live:
                sys.stdout.flush()
        elif self._live:
            self._line(self._console, row)
        else:
            self._rows.append(row)

    def end(self) -> None:
        """Show what is still to be shown."""
        if self._console is None or self._live or not self._rows:
            return
        from rich.table import Table  # noqa: PLC0415 (only a terminal needs it)

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in self._head:
            wide = title in {"MESSAGE", "RULE"}
            table.add_column(title, overflow="fold" if wide else "ellipsis", no_wrap=not wide)
        for row in self._rows:
            table.add_row(*self._cells(row))
        self._console.print(table)

    def _line(self, console: "Console", row: tuple[str, ...]) -> None:
        from rich.text import Text  # noqa: PLC0415

        widths = (20, 9, 10, 10)
        cells = self._cells(row)
        for cell, width in zip(cells, widths, strict=False):
            cell.pad_right(max(0, width - len(cell)))
        console.print(Text(" ").join(cell for cell in cells if cell.plain), soft_wrap=True)

    def _cells(self, row: Iterable[str]) -> list["Text"]:
        """For eyes: seconds, ids as Bacalhau's own CLI shortens them, states in their color. Never read as markup."""
        from rich.text import Text  # noqa: PLC0415

        cells = []
        for title, text in zip(self._head, row, strict=True):
            if title == "TIME":
                cells.append(Text(re.sub(r"\.\d+Z\Z", "Z", text), style="dim"))
            elif title == "JOB":
                cells.append(Text(_LONG_ID.sub(r"\1", text)))
            elif title == "STATE":
                cells.append(Text(text, style=_COLORS.get(text, "bold")))
            else:
                cells.append(Text(text))
        return cells


def terminal() -> "Console | None":
    """The console that stdout is, or None where it is a pipe or a file."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False, markup=False, emoji=False)
