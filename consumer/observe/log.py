"""The daemon's log lines: structlog, set up by `configure`. Dotted event names, facts as fields, on standard error.

Every line is bounded (lines a second of one kind, length of a value) and fit to be shown: no terminal
escapes, no secrets in URLs or in fields that are named after one. Lines of libraries come the same way. The place
where something happens decides whether it is worth a line.
"""

import atexit
import contextlib
import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TextIO, cast

import structlog
from structlog.processors import NAME_TO_LEVEL
from structlog.typing import EventDict, WrappedLogger

from consumer.observe.output import QueuedStream
from consumer.settings import Log

VALUE_MAX: Final = 2_000
"""Characters of one value; the rest is cut off and says so."""

TRACEBACK_MAX: Final = 20_000
"""The same of a traceback, whose end is what matters."""

LEFT_OUT_EVERY_S: Final = 60.0
"""Seconds between two lines `log.left-out` about the same event."""

LOST: Final = "standard error took no more: it was full, or whoever reads it stood still"

_SECRET_NAME: Final = re.compile(r"token|password|secret|authorization|credential", re.IGNORECASE)
_SECRET_IN_URL: Final = re.compile(r"(?<=://)[^/\s]+(?=@)")
_SHOWN: Final = frozenset("\n\t")


class LeftOut(NamedTuple):
    """Lines of one event that were left out: how many, and the highest of their levels."""

    lines: int
    level: int


class RateBound:
    """A structlog processor that lets through *lines_per_s* lines a second of one event name, and counts the rest.

    The next line of that name says how many were left out (`left_out`); `take_due` tells of those without a next line.
    """

    def __init__(self, lines_per_s: int, now: Callable[[], float] = time.monotonic) -> None:
        self._lines_per_s = lines_per_s
        self._now = now
        self._windows: dict[str, tuple[float, int]] = {}
        self._left_out: dict[str, LeftOut] = {}
        self._told_at: dict[str, float] = {}

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Raises `structlog.DropEvent` for one line too many."""
        name = str(event.get("event", ""))
        now = self._now()
        since, count = self._windows.get(name, (now, 0))
        if now - since >= 1:
            since, count = now, 0
        self._windows[name] = (since, count + 1)
        if count >= self._lines_per_s:
            before = self._left_out.get(name, LeftOut(0, logging.NOTSET))
            self._left_out[name] = LeftOut(before.lines + 1, max(before.level, NAME_TO_LEVEL[method]))
            raise structlog.DropEvent
        left_out = self._left_out.pop(name, None)
        if left_out is not None:
            event["left_out"] = left_out.lines
        return event

    def take_due(self) -> dict[str, LeftOut]:
        """Counts of lines left out since they were last told, by event; an event at most once in `LEFT_OUT_EVERY_S`."""
        now = self._now()
        due = [name for name in self._left_out if now - self._told_at.get(name, -LEFT_OUT_EVERY_S) >= LEFT_OUT_EVERY_S]
        self._told_at |= dict.fromkeys(due, now)
        return {name: self._left_out.pop(name) for name in due}

    def take_all(self) -> dict[str, LeftOut]:
        """As `take_due`, and of every event, however short ago it was told of."""
        left_out, self._left_out = self._left_out, {}
        return left_out


_NOISE: Final = "returning true from eof_received() has no effect when using ssl"
"""The warning of asyncio and uvloop whenever a server ends a connection with TLS: nothing is wrong, nothing to do."""


class _Library(logging.Handler):
    """Brings what a library logs into our lines, under one event name."""

    def emit(self, record: logging.LogRecord) -> None:
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        text = record.getMessage()
        level = logging.DEBUG if text.startswith(_NOISE) else record.levelno
        _write(level, "library.said", library=record.name, text=text, exc_info=exc_info)


class _Lossy:
    """A stream that a full disk or a reader that went away cannot make raise: a lost line must not stop the work."""

    def __init__(self, out: TextIO) -> None:
        self._out: Final = out

    def write(self, text: str) -> None:
        """Hand *text* on."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._out.write(text)

    def flush(self) -> None:
        """End a line."""
        with contextlib.suppress(OSError, ValueError):
            self._out.flush()


def never_wait() -> None:
    """Put a stream in the place of standard error that nobody who writes to it waits for (`QueuedStream`).

    For the daemon, once and before `configure`. At the end of the process what waits is written if somebody reads.
    """
    out = sys.stderr
    queued = QueuedStream(out, _render_lost)
    sys.stderr = queued
    atexit.register(_end_waiting, queued, out)


def _end_waiting(queued: QueuedStream, out: TextIO) -> None:
    if queued.drain():  # else whoever writes now would wait, too
        sys.stderr = out


def lost_lines() -> int:
    """Lines that could not be written since the start of the process."""
    return sys.stderr.lost if isinstance(sys.stderr, QueuedStream) else 0


def _render_lost(lines: int) -> str:
    """The line that tells of *lines* lost; empty if lines of its level are not wanted."""
    out = io.StringIO()
    structlog.wrap_logger(structlog.WriteLogger(out)).warning("log.lost", lines=lines, reason=LOST)
    return out.getvalue()


def configure(settings: Log, stream: TextIO | None = None) -> None:
    """Send every line of the program to *stream* (standard error) as *settings* say. May be called again."""
    out = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
            timestamp_key="time",
            exception_formatter=structlog.dev.plain_traceback,
            sort_keys=False,
        )
        if console
        else structlog.processors.JSONRenderer(serializer=_encode)
    )
    structlog.configure(
        processors=[
            RateBound(settings.lines_per_s),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,  # text: without the values of local variables
            _show,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lossy(out))),
        cache_logger_on_first_use=False,
    )
    # Debug lines of libraries may hold whole messages: theirs begin at warning, whatever ours do.
    logging.basicConfig(handlers=[_Library()], level=max(level, logging.WARNING), force=True)


def tell_left_out() -> None:
    """Say how many lines of each event were left out, once a minute at most."""
    _tell_left_out(RateBound.take_due)


def tell_left_out_at_end() -> None:
    """Say how many lines of each event were left out and not told of yet."""
    _tell_left_out(RateBound.take_all)


def _tell_left_out(take: Callable[[RateBound], Mapping[str, LeftOut]]) -> None:
    """Say what *take* gives. A line has the level of what was left out: a busy second of updates is no warning."""
    for bound in structlog.get_config()["processors"]:
        if isinstance(bound, RateBound):
            for event, left_out in take(bound).items():
                _write(left_out.level, "log.left-out", of=event, lines=left_out.lines)
    if isinstance(sys.stderr, QueuedStream):
        sys.stderr.tell_lost()


def _write(level: int, event: str, **facts: object) -> None:
    structlog.get_logger().log(level, event, **facts)


def _show(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make every value fit to be shown."""
    for name, value in event.items():
        if _SECRET_NAME.search(name) and not name.endswith("_file"):
            event[name] = "***"
        elif isinstance(value, str):
            event[name] = _fit(value, TRACEBACK_MAX if name == "exception" else VALUE_MAX)
        elif not isinstance(value, bool | int | float | None):
            event[name] = _fit(str(value))
    return event


def _fit(text: str, limit: int = VALUE_MAX) -> str:
    """*text* on a terminal: bounded, without escapes, without what an URL holds before its host."""
    cut = text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
    shown = cut if cut.isprintable() else "".join(c if c.isprintable() or c in _SHOWN else _escaped(c) for c in cut)
    return _SECRET_IN_URL.sub("***", shown)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _encode(event: EventDict, **_options: object) -> str:
    """One line of JSON in ASCII: a subject that is not UTF-8 has lone surrogates, which no other spelling carries."""
    return json.dumps(event)
