"""What the verbs on a running log share: where it is, how it is shown, and how long things take.

Importing this is cheap on purpose (`jobstate VERB --help`): what talks to NATS is imported when it is used.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from consumer.errors import AbsentError, ExitCode

if TYPE_CHECKING:
    from consumer.jetstream.view import View
    from consumer.model import JobKey
    from consumer.settings import Settings

Nats = Annotated[
    str | None,
    typer.Option("--nats", envvar="JOBSTATE_NATS__URL", metavar="URL", help="The NATS server that holds the log."),
]
Cluster = Annotated[
    str | None, typer.Option("--cluster", envvar="JOBSTATE_CLUSTER", metavar="NAME", help="Whose log. [default: main]")
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="A jobstate.toml to take these from.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", envvar="JOBSTATE_NATS__TOKEN_FILE", metavar="FILE", help="A file with the token for NATS."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]

_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhd]))+\Z")
_PART: Final = re.compile(r"([0-9.]+)(ms|[smhd])")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHORT_ID: Final = re.compile(r"j-[0-9a-f]{8}\Z")
_NAMED_MAX: Final = 5


def read_duration(text: str) -> float:
    """Seconds of `30s`, `5m`, `1h`, `250ms`, `1h30m`. Raises typer's usage error for anything else."""
    if not _DURATION.match(text):
        raise typer.BadParameter(f"{text!r} is no duration: write 250ms, 30s, 5m, 1h, 2d or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def read_time(text: str, now: datetime) -> datetime:
    """The moment that an ISO time (no zone: UTC) or a duration before *now* names. Raises typer's usage error."""
    if _DURATION.match(text):
        try:
            return now - timedelta(seconds=read_duration(text))
        except OverflowError:
            raise typer.BadParameter(f"{text!r} is longer ago than time can be written") from None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time: write now, start, 2026-11-24T05:00:00Z or 10m") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def carry_out(work: Coroutine[None, None, ExitCode], *, interrupted: int = 130) -> None:
    """Run *work* and end with its exit code. Ctrl-C ends it quietly, with *interrupted* (130: as a shell expects)."""
    try:
        code = int(asyncio.run(work))
    except KeyboardInterrupt:
        code = interrupted
    if code:
        raise typer.Exit(code)


def tell(sentence: str) -> None:
    """Say something about the run itself: on stderr, so that the output stays what was asked for."""
    from consumer.wire.display import printable  # noqa: PLC0415

    sys.stderr.write(f"jobstate: {printable(sentence)}\n")
    sys.stderr.flush()


class Where(NamedTuple):
    """The options that say where the log is. What is None comes from the environment, the file or the default."""

    nats: str | None
    cluster: str | None
    config: Path | None
    token_file: Path | None

    def settings(self) -> "Settings":
        """The settings, as far as a reader needs them. Raises `SettingsError`."""
        from consumer.settings import CONFIG, load  # noqa: PLC0415

        given = {"JOBSTATE_NATS__URL": self.nats, "JOBSTATE_CLUSTER": self.cluster}
        if self.token_file is not None:
            given["JOBSTATE_NATS__TOKEN_FILE"] = str(self.token_file)
        # The daemon's other variables may name files that a reader may not open.
        environ = {name: text for name, text in os.environ.items() if name.startswith("JOBSTATE_NATS__")}
        environ |= {name: text for name, text in given.items() if text is not None}
        file = os.environ.get(CONFIG)
        return load(self.config or (Path(file) if file else None), environ)


@asynccontextmanager
async def connected(where: Where) -> AsyncIterator["View"]:
    """The cluster's streams, through a connection of their own. Raises `ServerError` where nobody answers."""
    from consumer.jetstream.view import View, connect_reader  # noqa: PLC0415
    from consumer.observe.log import configure  # noqa: PLC0415
    from consumer.settings import Log, redact  # noqa: PLC0415
    from consumer.wire.subjects import Names  # noqa: PLC0415

    # What a connection goes through is the daemon's log's; a verb tells it in a sentence of its own.
    configure(Log(level="error", format="console"))
    settings = where.settings()
    for sentence in settings.warnings:
        tell(sentence)
    client = await connect_reader(settings.nats, settings.cluster)
    try:
        yield View(client, Names(settings.cluster), where=redact(settings.nats.url), tell=tell)
    finally:
        await client.close()


async def find_key(view: "View", job: str) -> "JobKey":
    """The key of the job that *job* names: its id, the unique beginning of one, or `<namespace>/<id>`.

    Raises `AbsentError` for none and for more than one.
    """
    keys = await find_keys(view, job)
    if not keys:
        raise AbsentError(f"no job {job} in cluster {view.names.cluster}: `jobstate list` shows those there are")
    if len(keys) > 1:
        named = ", ".join(say_key(key) for key in keys[:_NAMED_MAX])
        more = f" and {len(keys) - _NAMED_MAX} more" if len(keys) > _NAMED_MAX else ""
        raise AbsentError(f"{job} may be {named}{more}: give more of the id, or NAMESPACE/JOB")
    return keys[0]


async def find_keys(view: "View", job: str) -> list["JobKey"]:
    """The keys of all jobs in the bucket that *job* may name; an id in full hides those that only begin with it."""
    from consumer.wire.subjects import escape  # noqa: PLC0415

    whole = await view.keys(job=escape(job))
    if whole:
        return sorted(whole)
    namespace, slash, name = job.rpartition("/")
    if slash and (keys := await view.keys(escape(namespace), escape(name))):
        return keys
    within = escape(namespace) if slash else "*"
    beginning = escape(name)
    return sorted(key for key in await view.keys(within) if key.partition(".")[2].startswith(beginning))


async def find_pattern(view: "View", job: str) -> "JobKey":
    """As `find_key`, but a job that is not known yet is taken at its word: a whole id, in any or the named namespace.

    What comes back for such a job is the pattern of its key, `*.<job>` if no namespace was named.
    """
    from consumer.model import JobKey  # noqa: PLC0415
    from consumer.wire.subjects import escape, job_key  # noqa: PLC0415

    namespace, slash, name = job.rpartition("/")
    if _SHORT_ID.match(name) or await find_keys(view, job):
        return await find_key(view, job)
    return job_key(namespace, name) if slash else JobKey(f"*.{escape(name)}")


def say_key(key: "JobKey") -> str:
    """`<namespace>/<job>`, as people write it."""
    from consumer.wire.subjects import unescape  # noqa: PLC0415

    namespace, _, job = key.partition(".")
    return "/".join(token if (text := unescape(token)) is None else text for token in (namespace, job))
