"""The options that verbs share: where the log is, how it is shown, and how what is typed is read.

A reader of what is typed (`read_…`) raises typer's usage error: it quotes the text and says what may be written.
Importing this is cheap on purpose (`jobstate VERB --help`): what talks to NATS is imported when it is used.
"""

import asyncio
import difflib
import os
import re
import resource
import shlex
import shutil
import signal
import sys
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from consumer.cli.streams import let_go_of_unread, write_stderr
from consumer.errors import ExitCode, JobstateError, ServerError, SettingsError, quoted

if TYPE_CHECKING:
    from consumer.core.appends import Entry
    from consumer.jetstream.view import View
    from consumer.rules import Rules
    from consumer.settings import Settings

Nats = Annotated[
    str | None,
    typer.Option(
        "--nats",
        metavar="URL",
        help="Read from this NATS server. [env var: JOBSTATE_NATS__URL; default: nats://127.0.0.1:4222]",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="NAME", help="Read the log of this cluster. [env var: JOBSTATE_CLUSTER; default: main]"
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read these settings from a jobstate.toml, and TLS and credentials of NATS, which have no option "
        "(nats.tls_ca, nats.user and its password, nats.credentials_file, or their variables). "
        "[env var: JOBSTATE_CONFIG]",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Read the token for NATS from this file. [env var: JOBSTATE_NATS__TOKEN_FILE]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object per line (the same as -o json).")]

_GRANT: Final = "grant this user what docs/operations/running.md#permissions lists for a reader (to send: a producer)"
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhd]))+\Z")
_PART: Final = re.compile(r"([0-9.]+)(ms|[smhd])")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
FILES_MIN: Final = 32
"""Open files that are enough for a verb, and for a daemon that has just begun."""
_COUNT: Final = re.compile(r"[0-9]{1,20}\Z")
_COUNT_MAX: Final = 2**63 - 1
_OURS: Final = ("JOBSTATE_NATS__", "JOBSTATE_CLUSTER", "JOBSTATE_RULES__FILE")
"""Prefixes of the variables that a reading verb uses."""


OPEN: Final = "open"
"""The word of `--state` for every state in which a job has not ended."""
TERMINAL: Final = "terminal"
"""The word of `--state` for every state that ends a job."""


def read_output(text: str) -> str:
    """`json` or `text`."""
    if text not in {"json", "text"}:
        raise typer.BadParameter(f"{quoted(text)} is no form: write json or text")
    return text


Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="json|text",
        parser=read_output,
        help="Write one JSON object per line, or text. [default: text]",
    ),
]
Headers = Annotated[
    bool,
    typer.Option("--headers", help="Write the column names first, also if the output is not a terminal."),
]


class Shown(NamedTuple):
    """How rows are shown: as JSON; else with a head also where the output is no terminal."""

    as_json: bool
    headers: bool


def wants_json(output: str | None, *, as_json: bool) -> bool:
    """Whether JSON is asked for, by `-o json` or by `--json`."""
    if as_json and output == "text":
        raise typer.BadParameter("does not go together with -o text: give one of them", param_hint="'--json'")
    return as_json or output == "json"


def read_count(text: str | int) -> int:
    """A whole number that a signed counter of 64 bits can hold, 0 or more."""
    return _read_whole(text, _COUNT_MAX)


def read_number(text: str | int) -> int:
    """A version or a revision: a whole number that no daemon refuses as `out-of-range`."""
    from consumer.model import NUMBER_MAX

    return _read_whole(text, NUMBER_MAX)


def _read_whole(text: str | int, most: int) -> int:
    digits = str(text)  # a default comes as it is
    if not _COUNT.match(digits) or int(digits) > most:
        raise typer.BadParameter(f"{quoted(digits)} is no count: write a whole number from 0 to {most}")
    return int(digits)


def read_duration(text: str) -> float:
    """Seconds of `30s`, `5m`, `1h`, `250ms`, `1h30m`."""
    if not _DURATION.match(text):
        raise typer.BadParameter(f"{quoted(text)} is no duration: write 250ms, 30s, 5m, 1h, 2d or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def read_time(text: str, now: datetime, option: str, *words: str) -> datetime:
    """The moment that an ISO time (no zone: UTC) or a duration before *now* names.

    *option*, and *words* that it takes besides, are for the error.
    """
    try:
        time = now - timedelta(seconds=read_duration(text)) if _DURATION.match(text) else datetime.fromisoformat(text)
    except OverflowError:
        raise typer.BadParameter(
            f"{quoted(text)} is longer ago than time can be written", param_hint=f"'{option}'"
        ) from None
    except ValueError:
        allowed = ", ".join((*words, "2026-11-24T05:00:00Z"))
        raise typer.BadParameter(
            f"{quoted(text)} is no time: write {allowed} or 10m (so long ago)", param_hint=f"'{option}'"
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def read_text(text: str) -> str:
    """Any text that is UTF-8, whatever the locale: nobody could store another."""
    if text.isascii():
        return text
    from consumer.settings import utf8_of

    try:
        return utf8_of(text)
    except UnicodeError:
        raise typer.BadParameter(f"{quoted(text)} is no text: write UTF-8") from None


def read_path(text: str) -> str:
    """Read a name of a file or folder: anything that is not blank, and on Linux any bytes."""
    if not text.strip():
        raise typer.BadParameter(f"{quoted(text)} names nothing: write text that is not blank")
    return text


def read_name(text: str) -> str:
    """Read a name of a namespace or a job: any text that is not blank."""
    return read_text(read_path(text))


def read_job(text: str) -> str:
    """Read a name of a job: an id, the beginning of one, a name, or one of these after its namespace and a slash."""
    namespace, slash, job = text.rpartition("/")
    if slash and not (namespace.strip() and job.strip()):
        raise typer.BadParameter(f"{quoted(text)} names no job: write an id, a name, or NAMESPACE/JOB with both")
    return read_name(text)


def read_state(rules: "Rules", text: str, option: str, *words: str, else_: str = "") -> str:
    """The state of the rules that *text* spells, in whatever case, or one of *words*. *else_* ends the error."""
    found = rules.find(text) or next((word for word in words if word == text.lower()), None)
    if found is None:
        allowed = (*rules.states, *words)
        near = difflib.get_close_matches(text.lower(), [word.lower() for word in allowed], n=1)
        meant = next((f"; did you mean {word}?" for word in allowed if word.lower() in near), "")
        raise typer.BadParameter(
            f"{quoted(text)} is no state: write {', '.join(allowed)} (rules {quoted(rules.name)}){meant}{else_}",
            param_hint=f"'{option}'",
        )
    return found


def read_states(rules: "Rules", texts: Iterable[str], option: str) -> list[str]:
    """The states that *texts* name, each once, in the order of the rules. A text may be several, parted by commas."""
    found: set[str] = set()
    for part in ",".join(texts).split(","):
        word = read_state(rules, part.strip(), option, OPEN, TERMINAL)
        if word in {OPEN, TERMINAL}:
            found.update(state for state in rules.states if rules.is_terminal(state) == (word == TERMINAL))
        else:
            found.add(word)
    return [state for state in rules.states if state in found]


Limit = Annotated[
    int, typer.Option("--limit", metavar="N", parser=read_count, help="Show only the newest N entries. 0: all.")
]


async def newest(entries: AsyncIterable["Entry"], limit: int) -> "Sequence[Entry]":
    """The last *limit* of *entries*, in their order; all of them if it is 0."""
    found: deque[Entry] = deque(maxlen=limit or None)
    async for entry in entries:
        found.append(entry)
    return found


INTERRUPTED: Final = 130
"""As a shell has it for Ctrl-C."""


def require_files() -> None:
    """Refuse to begin where the system gives us too few open files: what fails then fails anywhere. `SettingsError`."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < FILES_MIN:
        raise SettingsError(
            f"the limit of open files is {limit}, and at least {FILES_MIN} are needed: raise it (`ulimit -n`, or "
            "LimitNOFILE of a service)"
        )


def carry_out(work: Coroutine[None, None, ExitCode], *, interrupted: int = INTERRUPTED) -> None:
    """Run *work* and end with its exit code. Ctrl-C ends it quietly, with *interrupted* (130: as a shell expects)."""
    try:
        require_files()
        code = int(asyncio.run(_interruptible(work)))
    except KeyboardInterrupt:
        code = interrupted
    finally:
        work.close()  # it may not have begun
    if code:
        raise typer.Exit(code)


async def _interruptible(work: Coroutine[None, None, ExitCode]) -> ExitCode:
    """Do *work*, and let Ctrl-C end it also while it waits for somebody to read what it writes.

    asyncio's own handler cancels the work, and that takes effect only when such a write has ended.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # it is ignored: we were started in the background
        return await work

    def interrupt(number: int, frame: FrameType | None) -> None:
        let_go_of_unread()
        handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        return await work
    finally:
        signal.signal(signal.SIGINT, handler)


def end_at_signals(told: asyncio.Event) -> None:
    """Set *told* at SIGINT and SIGTERM, also while something waits for somebody to read what it writes."""
    loop = asyncio.get_running_loop()

    def take(_number: int, _frame: FrameType | None) -> None:
        let_go_of_unread()
        loop.call_soon_threadsafe(told.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, take)  # the loop's own handlers run only when such a write has ended


def tell(sentence: str) -> None:
    """Say something about the run itself: on stderr, so that the output stays what was asked for."""
    from consumer.wire.display import printable

    write_stderr(f"jobstate: {printable(sentence)}\n")


def tell_error(error: JobstateError) -> None:
    """Say an error, whose further lines are its own, as the end of a verb would; what goes on after it is shown."""
    from consumer.wire.display import printable_lines

    write_stderr(f"jobstate: {printable_lines(str(error))}\n")


def called() -> str:
    """How a shell calls this program again, as it was called now: it may not be on PATH."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m consumer"
    found = shutil.which(program.name)
    if found is not None and Path(found).resolve() == program.resolve():
        return program.name
    return shlex.quote(sys.argv[0])


class Where(NamedTuple):
    """The options that say where the log is. None: from the environment, the file or the default."""

    nats: str | None
    cluster: str | None
    config: Path | None
    token_file: Path | None

    def settings(self) -> "Settings":
        """The settings, as far as a reader needs them. Raises `SettingsError`."""
        from consumer.settings import CONFIG, Given, check_names, load

        token_file = None if self.token_file is None else str(self.token_file)
        said = (
            ("--nats", "nats.url", self.nats),
            ("--cluster", "cluster", self.cluster),
            ("--token-file", "nats.token_file", token_file),
        )
        check_names(os.environ)
        # The daemon's other variables may name files that a reader may not open.
        environ = {name: text for name, text in os.environ.items() if name.startswith(_OURS)}
        file = os.environ.get(CONFIG)
        return load(
            self.config or (Path(file) if file else None),
            environ,
            [Given(option, name, text) for option, name, text in said if text is not None],
        )

    def rules(self) -> "Rules":
        """The rules by which states are spelled. Raises `SettingsError`, `RulesError`."""
        from consumer.rules import load
        from consumer.settings import RULES_FILE

        return load(self.settings().rules.path, RULES_FILE)


@asynccontextmanager
async def connected(where: Where, within_s: float | None = None) -> AsyncIterator["View"]:
    """The cluster's streams, through a connection of their own. Raises `ServerError`: nobody answers, or we may not.

    *within_s*: so long it is tried, if that is shorter than usual.
    """
    from consumer.jetstream.view import CONNECT_S, View, connect_reader
    from consumer.observe.log import configure
    from consumer.settings import Log, redact
    from consumer.wire.subjects import Names

    settings = where.settings()
    # Troubles of a connection belong into the daemon's log; a verb says them in a sentence of its own.
    configure(Log(level="error", format="console"))
    for sentence in settings.warnings:
        tell(sentence)
    bound_s = CONNECT_S if within_s is None else min(within_s, CONNECT_S)
    client = await connect_reader(settings.nats, settings.cluster, within_s=bound_s)
    try:
        yield View(client, Names(settings.cluster), where=redact(settings.nats.url), tell=tell)
    except ServerError as error:
        if not error.is_denied:
            raise
        raise ServerError(f"{error}: {_GRANT}", fault=error.fault) from error
    finally:
        await client.close()
