"""How entries are shown: a line of JSON, tab-separated text, or on a terminal a table. Nothing is read or asked here.

Text of others (messages, names, namespaces) goes through `printable` before a person sees it; a line of JSON is
plain ASCII, so no terminal acts on it.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Literal

from consumer.errors import DecodeError
from consumer.wire.display import printable, printable_lines
from consumer.wire.update import decode_update, encode_update

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from consumer.cli.shapes import UpdateLine
    from consumer.core.appends import Entry
    from consumer.model import Update

HEAD: Final = ("TIME", "STATE", "NAMESPACE", "JOB", "NAME", "SEQUENCE", "VERSION", "SOURCE", "MESSAGE")
"""The columns of an update, on a terminal and (without this line) in tab-separated text."""
AGED: Final = ("TIME", "AGE", *HEAD[1:])
"""`HEAD` with how long ago that was: the time is the cell before it. On a terminal only, where it is read at once."""
MESSAGE_MAX: Final = 500
"""Characters of a message in a row. JSON has it whole, and `get`."""
LINES_MAX: Final = 10
"""Lines of a message in a row of a terminal."""

WIDTH: Final = 80
"""Columns of a terminal that does not say how many it has."""

INDENT: Final = 4
"""Blanks before what a table has on the second line of a row."""

_SHORT_HEAD: Final = {"SEQUENCE": "SEQ", "VERSION": "VER"}
"""Heads that are wider than what stands below them."""
_TEXT: Final = {"NAME": 10, "TO": 10, "MESSAGE": 24, "RULE": 24, "TEXT": 24, "FACTS": 24, "WHEN": 24}
"""Columns that may wrap, and the least width at which one can still read them."""
_LONG_ID: Final = re.compile(r"(j-[0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_LIVE: Final = {"TIME": 9, "STATE": 9, "NAMESPACE": 10, "JOB": 10, "NAME": 16, "SEQUENCE": 3, "VERSION": 3, "SOURCE": 8}
"""How wide the columns of live lines are, at least: what comes is not known."""
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
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


def update_object(entry: "Entry", update: "Update | None", *, foreign: bool = False) -> "UpdateLine":
    """Build what `--json` writes for an entry of the log. `foreign`: no daemon of ours wrote it."""
    line: UpdateLine = {
        "subject": entry.subject,
        "sequence": entry.number,
        "stored": say_ns(entry.time_ns),
        "update": None if update is None else json.loads(encode_update(update)),
    }
    if foreign or update is None:
        line["foreign"] = True
    return line


def update_row(entry: "Entry", update: "Update | None", *, foreign: bool = False) -> tuple[str, ...]:
    """The cells of an update, in the order of `HEAD`, fit to be shown. The message has its line breaks."""
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
    )
    return (*(printable(cell) for cell in cells), printable_lines(shorten(update.Message)))


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
        "age": "" if update.Time is None else say_age(update.Time, datetime.now(UTC)),
        "sequence": str(update.Sequence),
        "version": "" if job.Version is None else str(job.Version),
        "revision": "" if job.Revision is None else str(job.Revision),
        "source": update.Source,
        "flags": ",".join(update.Flags),
        "entry": f"{entry.number} of the log",
    }
    say_facts({name: text for name, text in facts.items() if text})


def say_facts(facts: Mapping[str, str]) -> None:
    """Show names and texts, one a line, the texts one below the other, and so the lines of a text that has several."""
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        first, *rest = printable_lines(text).split("\n")
        sys.stdout.write(f"{name:<{width}}  {first}\n")
        sys.stdout.writelines(f"{'':<{width}}  {line}\n" for line in rest)


def shorten(text: str, limit: int = MESSAGE_MAX) -> str:
    """At most *limit* characters of *text*, and then how many it has."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def say_age(time: datetime, now: datetime) -> str:
    """How long before *now* that was, in the largest unit of which it is at least two: `0s`, `90s`, `45m`, `12d`."""
    seconds = max(int((now - time).total_seconds()), 0)
    found = next((size, unit) for size, unit in _UNITS if seconds >= 2 * size or size == 1)
    return f"{seconds // found[0]}{found[1]}"


def say_time(time: datetime | None) -> str:
    """UTC ISO 8601 with Z, to the microsecond; `-` for none."""
    return "-" if time is None else time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def say_ns(time_ns: int) -> str:
    """`say_time` of nanoseconds since 1970, cut to the microsecond."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return say_time(datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000))


Heads = Literal["on a terminal", "always", "never"]
"""Where the names of the columns come before the rows. Never: they stand above already."""


class Page:
    """Where rows go: tab-separated lines as they come, or on a terminal one table at the end.

    On a terminal nothing is cut but long messages; elsewhere each row is one line. Columns for which a line of a
    terminal has no room stand on the next one, indented, each below its head; only texts wrap, and the lines of a
    message stand one below the other.

    A column AGE of *head* is made of the TIME before it. It is on terminals only: it says how long ago that was.
    """

    def __init__(self, head: Sequence[str] = HEAD, heads: Heads = "on a terminal") -> None:
        self._head = head
        self._rows: list[tuple[str, ...]] = []
        self._console = terminal()
        self._begun = heads == "never" or (heads == "on a terminal" and self._console is None)

    def add(self, row: tuple[str, ...]) -> None:
        """Show a row, without its AGE; *row* is printable already, but for its line breaks."""
        if self._console is None:
            self._begin(lambda: self._write(self._titles()))
            self._write(cell.replace("\n", "\\n") for cell in row)
        else:
            self._add_to_terminal(self._console, row)

    def _add_to_terminal(self, _console: "Console", row: tuple[str, ...]) -> None:
        self._rows.append(row)

    def _titles(self) -> list[str]:
        """The columns that a row has: an age is made of its time."""
        return [title for title in self._head if title != "AGE"]

    def _begin(self, show: Callable[[], None]) -> None:
        if not self._begun:
            self._begun = True
            show()

    def _write(self, cells: Iterable[str]) -> None:
        sys.stdout.write("\t".join(cells) + "\n")

    def end(self) -> None:
        """Show what is still to be shown."""
        if self._console is None:
            self._begin(lambda: self._write(self._titles()))
        if self._console is None or not self._rows:
            return
        from rich.text import Text

        table = [self._heads(), *(self._cells(row) for row in self._rows)]
        natural = [max(map(_width, column)) for column in zip(*table, strict=True)]
        least = [min(width, _TEXT.get(title, width)) for title, width in zip(self._head, natural, strict=True)]
        lines, gap = lay_out(natural, least, self._console.width)
        shown = [line for row in table for line in self._lines(self._console, row, lines, gap)]
        self._console.print(Text("\n").join(shown), no_wrap=True, overflow="ignore", crop=False)

    def _lines(self, console: "Console", row: "list[Text]", lines: list[dict[int, int]], gap: int) -> "Iterator[Text]":
        from rich.text import Text

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

    def _heads(self) -> "list[Text]":
        from rich.text import Text

        return [Text(_SHORT_HEAD.get(title, title), style="bold") for title in self._head]

    def _cells(self, row: Iterable[str]) -> list["Text"]:
        """For eyes: short times, ids as Bacalhau's own CLI shortens them, states in color. Never read as markup."""
        from rich.text import Text

        cells, now = [], datetime.now(UTC)
        for title, text in zip(self._titles(), row, strict=True):
            if title == "TIME":
                cells.append(Text(shorten_time(text, now), style="dim"))
                if "AGE" in self._head:
                    cells.append(Text(_age(text, now)))
            elif title == "JOB":
                cells.append(Text(_LONG_ID.sub(r"\1", text)))
            elif title == "STATE":
                cells.append(Text(text, style=_COLORS.get(text, "bold")))
            else:
                cells.append(Text(_cut_lines(text)))
        return cells


class LivePage(Page):
    """A page whose rows are shown as they come, on a terminal too: there each is a line of its own."""

    def __init__(self, head: Sequence[str] = HEAD, heads: Heads = "on a terminal") -> None:
        super().__init__(head, heads)
        self._widths = dict(_LIVE)

    def add(self, row: tuple[str, ...]) -> None:
        """As `Page.add`, and at once."""
        super().add(row)
        sys.stdout.flush()

    def _add_to_terminal(self, console: "Console", row: tuple[str, ...]) -> None:
        cells = self._cells(row)
        self._widths["TIME"] = max(self._widths["TIME"], cells[0].cell_len)  # not of today, it has a date
        self._begin(lambda: self._line(console, self._heads()))
        self._line(console, cells)

    def _line(self, console: "Console", cells: "Sequence[Text]") -> None:
        """Show cells as a line that is as wide as they want; further lines of a message are indented."""
        from rich.text import Text

        line = Text()
        for title, cell in zip(self._head, cells, strict=True):
            first, *rest = cell.split("\n", allow_blank=True)
            line.append_text(first).append(" " * max(self._widths.get(title, 0) - first.cell_len, 0) + " ")
            for further in rest:
                line.rstrip()
                line.append("\n" + " " * INDENT).append_text(further)
        line.rstrip()
        console.print(line, soft_wrap=True)


def _width(cell: "Text") -> int:
    """How wide the widest line of a cell is."""
    return max(line.cell_len for line in cell.split("\n", allow_blank=True))


def _cut_lines(text: str) -> str:
    lines = text.split("\n")
    return text if len(lines) <= LINES_MAX else "\n".join([*lines[:LINES_MAX], f"… ({len(lines)} lines)"])


def _age(text: str, now: datetime) -> str:
    """`say_age` of what `say_time` said; nothing where it knew no time."""
    try:
        return say_age(datetime.fromisoformat(text), now)
    except ValueError:
        return ""


def shorten_time(text: str, now: datetime) -> str:
    """Shorten what `say_time` returned for people: to the second, in UTC, without the date if *now* (UTC) is that day.

    `05:00:02Z` for a time of today, else `2026-11-24 05:00:02Z`: without a year a month and a day can be mixed up.
    """
    date, letter, time = text.partition("T")
    if not letter:
        return text  # no time is known
    time = re.sub(r"\.\d+Z\Z", "Z", time)
    return time if date == f"{now:%Y-%m-%d}" else f"{date} {time}"


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
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if console.width < 1:  # COLUMNS=0, or a terminal that does not know its size: nothing would be shown
        console.width = WIDTH
    return console
