"""How entries are shown: a line of JSON, tab-separated text, or on a terminal a table. Nothing is read or asked here.

What others wrote (messages, names, namespaces) goes through `printable` before a person sees it; a line of JSON is
plain ASCII, so no terminal acts on it.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
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

INDENT: Final = 4
"""Blanks before what a table has on the second line of a row."""

_SHORT_HEAD: Final = {"SEQUENCE": "SEQ", "VERSION": "VER"}
"""Heads that are wider than what stands below them."""
_TEXT: Final = {"NAME": 10, "TO": 10, "MESSAGE": 24, "RULE": 24, "TEXT": 24, "FACTS": 24, "WHEN": 24}
"""Columns that may wrap, and the least width at which one can still read them."""
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
    """Where rows go: tab-separated lines as they come, or on a terminal one table at the end, or (*live*) lines.

    On a terminal nothing is cut. Columns for which a line has no room stand on the next one, indented, each below its
    head; only texts wrap.
    """

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
        from rich.text import Text  # noqa: PLC0415 (only a terminal needs it)

        head = [Text(_SHORT_HEAD.get(title, title), style="bold") for title in self._head]
        table = [head, *(self._cells(row) for row in self._rows)]
        natural = [max(cell.cell_len for cell in column) for column in zip(*table, strict=True)]
        least = [min(width, _TEXT.get(title, width)) for title, width in zip(self._head, natural, strict=True)]
        lines, gap = lay_out(natural, least, self._console.width)
        shown = [line for row in table for line in self._lines(self._console, row, lines, gap)]
        self._console.print(Text("\n").join(shown), no_wrap=True, overflow="ignore", crop=False)

    def _lines(self, console: "Console", row: "list[Text]", lines: list[dict[int, int]], gap: int) -> "Iterator[Text]":
        from rich.text import Text  # noqa: PLC0415

        for number, line in enumerate(lines):
            cells = [row[column].wrap(console, width, overflow="fold") for column, width in line.items()]
            if number and not any(cell.plain for wrapped in cells for cell in wrapped):
                continue  # there is nothing to say below the first line
            for pieces in zip_longest(*cells, fillvalue=Text()):
                shown = Text(" " * INDENT if number else "")
                for piece, width in zip(pieces, line.values(), strict=True):
                    shown.append_text(piece).append(" " * (width - piece.cell_len + gap))
                shown.rstrip()
                yield shown

    def _line(self, console: "Console", row: tuple[str, ...]) -> None:
        from rich.text import Text  # noqa: PLC0415

        widths = (9, 9, 10, 10)
        cells = self._cells(row)
        for cell, width in zip(cells, widths, strict=False):
            cell.pad_right(max(0, width - len(cell)))
        console.print(Text(" ").join(cell for cell in cells if cell.plain), soft_wrap=True)

    def _cells(self, row: Iterable[str]) -> list["Text"]:
        """For eyes: short times, ids as Bacalhau's own CLI shortens them, states in color. Never read as markup."""
        from rich.text import Text  # noqa: PLC0415

        cells, now = [], datetime.now(UTC)
        for title, text in zip(self._head, row, strict=True):
            if title == "TIME":
                cells.append(Text(shorten_time(text, now), style="dim"))
            elif title == "JOB":
                cells.append(Text(_LONG_ID.sub(r"\1", text)))
            elif title == "STATE":
                cells.append(Text(text, style=_COLORS.get(text, "bold")))
            else:
                cells.append(Text(text))
        return cells


def shorten_time(text: str, now: datetime) -> str:
    """What `say_time` said, to the second, and without the date that *now* (UTC) has: `05:00:02Z`, `11-24 05:00:02Z`.

    With the year if that is another. It stays UTC.
    """
    date, letter, time = text.partition("T")
    if not letter:
        return text  # no time is known
    time = re.sub(r"\.\d+Z\Z", "Z", time)
    if date == f"{now:%Y-%m-%d}":
        return time
    return f"{date.removeprefix(f'{now:%Y}-')} {time}"


def lay_out(natural: Sequence[int], least: Sequence[int], room: int) -> tuple[list[dict[int, int]], int]:
    """On which line each column stands and how wide it is (column: width), and the blanks between two.

    Each column gets what it wants (*natural*) or, where *room* is short, not less than *least*. A column that is wider
    than a whole line has a line for itself. Fewer lines, and more on the first of them, are better than wider gaps.
    """
    layouts = ((_lay_out(natural, least, room, gap), gap) for gap in (2, 1))
    return min(layouts, key=lambda layout: (len(layout[0]), -len(layout[0][0])))


def _lay_out(natural: Sequence[int], least: Sequence[int], room: int, gap: int) -> list[dict[int, int]]:
    lines: list[dict[int, int]] = [{}]
    left = room
    for column, width in enumerate(least):
        if lines[-1] and width + gap > left:
            _widen(lines[-1], natural, left)
            lines.append({})
            left = room - INDENT
        lines[-1][column] = max(min(width, left), 1)
        left -= lines[-1][column] + (gap if len(lines[-1]) > 1 else 0)
    _widen(lines[-1], natural, left)
    return lines


def _widen(line: dict[int, int], natural: Sequence[int], left: int) -> None:
    """Give what is left of a line to those who want more, the narrowest first."""
    while left > 0 and (wanting := [column for column, width in line.items() if width < natural[column]]):
        line[min(wanting, key=line.__getitem__)] += 1
        left -= 1


def terminal() -> "Console | None":
    """The console that stdout is, or None where it is a pipe or a file."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False, markup=False, emoji=False)
