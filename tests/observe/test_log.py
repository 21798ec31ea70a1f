"""What becomes of a line: shape, level, bound, and what is never in it."""

import contextlib
import errno
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from consumer.observe import configure, tell_left_out, tell_left_out_at_end
from consumer.observe.log import TRACEBACK_MAX, VALUE_MAX, RateBound
from consumer.settings import Log
from tests.logs import untouched_log


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """The log is one for the process: leave it as it was."""
    with untouched_log():
        yield


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """The lines of JSON in *stream*."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_object() -> None:
    """Event, level, UTC time and facts, on one line."""
    out = io.StringIO()
    configure(Log(), out)
    structlog.get_logger().info("decision.accepted", job_id="j-1", sequence=3, previous=None, echo=False)
    (line,) = lines(out)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "event": "decision.accepted",
        "level": "info",
        "job_id": "j-1",
        "sequence": 3,
        "previous": None,
        "echo": False,
    }


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_the_least_that_is_written(level: str, count: int) -> None:
    """A line below the level is not there."""
    out = io.StringIO()
    configure(Log(level=level), out)  # type: ignore[arg-type]
    log = structlog.get_logger()
    for say in (log.debug, log.info, log.warning, log.error):
        say("part.said")
    assert len(lines(out)) == count


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_people_get_text_and_machines_json(form: str, stream: type[io.StringIO], is_json: bool) -> None:
    """`auto` asks whether the stream is a terminal; the other two do not."""
    out = stream()
    configure(Log(format=form), out)  # type: ignore[arg-type]
    structlog.get_logger().info("daemon.started")
    assert out.getvalue().startswith("{") is is_json
    assert "daemon.started" in out.getvalue()


@pytest.mark.parametrize(("variable", "text"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "xterm")])
def test_who_wants_no_colors_gets_none(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    """On a terminal there are colors, unless a variable says otherwise."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, text)
    out = Terminal()
    configure(Log(), out)
    structlog.get_logger().info("daemon.started")
    assert ("\x1b[" in out.getvalue()) is (text == "xterm")


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_terminal_acts_on_a_value(form: str) -> None:
    """Escapes, bells, right-to-left marks and lone surrogates are spelled out, not sent."""
    out = io.StringIO()
    configure(Log(format=form), out)  # type: ignore[arg-type]
    structlog.get_logger().info("report.read", text="a\x1b[31m\x07\u202e\udc80b", other=b"\x1b[2J")
    written = out.getvalue()
    assert written.count("\n") == 1
    assert written.rstrip("\n").isprintable()
    assert "\\x1b[31m" in written


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_is_in_a_line(form: str) -> None:
    """Fields that are named after a secret, and what a URL holds before its host, are hidden."""
    out = io.StringIO()
    configure(Log(format=form), out)  # type: ignore[arg-type]
    structlog.get_logger().warning(
        "connection.lost",
        token="canary",
        Authorization="Bearer canary",
        password=["canary"],
        url="nats://canary@host:4222",
        error=OSError("cannot reach nats://user:canary@canary@host:4222"),
        token_file="/run/token",
    )
    assert "canary" not in out.getvalue()
    assert "***@host:4222" in out.getvalue()
    assert "/run/token" in out.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variable(form: str) -> None:
    """An exception is written with its lines, without the values that its frames held."""
    out = io.StringIO()
    configure(Log(format=form), out)  # type: ignore[arg-type]
    hidden = "can" + "ary"
    try:
        raise RuntimeError(str(len(hidden)))
    except RuntimeError:
        structlog.get_logger().exception("part.ended")
    assert "RuntimeError: 6" in out.getvalue()
    assert "canary" not in out.getvalue()


def test_a_value_is_bounded() -> None:
    """A message of a megabyte does not become a line of a megabyte."""
    out = io.StringIO()
    configure(Log(), out)
    structlog.get_logger().info("report.read", text="x" * 1_000_000, exception="y" * 1_000_000)
    (line,) = lines(out)
    assert str(line["text"]).endswith("… (1000000 characters)")
    assert len(str(line["text"])) < VALUE_MAX + 40
    assert len(str(line["exception"])) < TRACEBACK_MAX + 40


def test_lines_of_one_kind_are_bounded() -> None:
    """A flood of one event leaves the others alone, and is told of in the end."""
    out = io.StringIO()
    configure(Log(lines_per_s=3), out)
    log = structlog.get_logger()
    for _ in range(1_000):
        log.error("append.refused")
    log.info("daemon.ready")
    tell_left_out_at_end()
    tell_left_out_at_end()
    said = [line["event"] for line in lines(out)]
    assert said.count("daemon.ready") == 1
    assert said.count("append.refused") < 100
    (summary,) = [line for line in lines(out) if line["event"] == "log.left-out"]
    assert summary["of"] == "append.refused"
    assert int(str(summary["lines"])) > 900


@pytest.mark.parametrize(("levels", "told"), [(["info"], "info"), (["info", "warning", "info"], "warning")])
def test_what_was_left_out_is_told_at_its_own_level(levels: list[str], told: str) -> None:
    """A busy second of ordinary updates is no alarm; warnings that nobody saw are."""
    out = io.StringIO()
    configure(Log(lines_per_s=1), out)
    log = structlog.get_logger()
    log.info("update.published")
    for level in levels:
        getattr(log, level)("update.published")
    tell_left_out()
    (summary,) = [line for line in lines(out) if line["event"] == "log.left-out"]
    assert (summary["level"], summary["lines"]) == (told, len(levels))


def test_no_line_that_is_left_out_is_forgotten() -> None:
    """Three lines a second where one may be, for ten minutes: the other two are all told of, by either way."""
    now = 0.0
    bound, told = RateBound(1, lambda: now), 0
    for second in range(600):
        now = float(second)
        for _ in range(3):
            with contextlib.suppress(structlog.DropEvent):
                told += int(bound(None, "info", {"event": "a"}).get("left_out", 0))
        told += sum(left_out.lines for left_out in bound.take_due().values())
    told += sum(left_out.lines for left_out in bound.take_all().values())
    assert told == 1_200


def test_what_is_left_out_of_one_event_is_told_once_a_minute() -> None:
    """Ten minutes without a line that could say it: ten lines about it, not 600; another event is told on its own."""
    now = 0.0
    bound = RateBound(0, lambda: now)
    told: list[str] = []
    for second in range(600):
        now = float(second)
        for event in ("a", "b") if second == 90 else ("a",):
            with contextlib.suppress(structlog.DropEvent):
                bound(None, "info", {"event": event})
        told += bound.take_due()
    assert (told.count("a"), told.count("b")) == (10, 1)


def test_the_next_line_says_how_many_were_left_out() -> None:
    """Once the second is over, the first line of the kind carries the count, and only that one."""
    now = 0.0
    bound = RateBound(2, lambda: now)

    def offer(name: str) -> dict[str, object] | None:
        try:
            return dict(bound(None, "info", {"event": name}))
        except structlog.DropEvent:
            return None

    assert [offer("a") is not None for _ in range(5)] == [True, True, False, False, False]
    assert offer("b") == {"event": "b"}
    now = 0.99
    assert offer("a") is None
    now = 1.0
    assert offer("a") == {"event": "a", "left_out": 4}
    assert offer("a") == {"event": "a"}
    assert bound.take_due() == {}


def test_what_a_library_says_comes_the_same_way() -> None:
    """asyncio's own complaints are lines of ours; what libraries say at debug level is not (it may be whole bodies)."""
    out = io.StringIO()
    configure(Log(level="debug"), out)
    logging.getLogger("asyncio").error("Task was destroyed: %s", "x")
    logging.getLogger("aiohttp.client").debug("body: canary")
    (line,) = lines(out)
    assert line["event"] == "library.said"
    assert (line["library"], line["text"], line["level"]) == ("asyncio", "Task was destroyed: x", "error")


def test_what_a_library_warns_of_at_every_end_of_tls_is_kept_for_debugging() -> None:
    """asyncio warns whenever a server closes a connection with TLS: no warning of ours."""
    for level, found in (("info", []), ("debug", ["debug"])):
        out = io.StringIO()
        configure(Log(level=level), out)  # type: ignore[arg-type] # a Literal
        logging.getLogger("asyncio").warning("returning true from eof_received() has no effect when using ssl")
        assert [line["level"] for line in lines(out)] == found


class Full(io.StringIO):
    """A stream that cannot be written to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(), ValueError("closed file")]
)
def test_a_line_that_cannot_be_written_stops_nothing(error: Exception) -> None:
    """A log on a full disk must not end whoever writes it. What the daemon counts is in `test_output`."""
    configure(Log(format="json"), Full(error))
    structlog.get_logger().warning("one")
    logging.getLogger("nats").error("two")
    tell_left_out()
