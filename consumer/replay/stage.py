"""The demo's stage: a real nats-server, the simulated orchestrator, the player, and the real daemon as its own process.

Daemon and server are kept alive as an operator would keep them: one that dies is started again, and that is told. A
person, or a test, may kill either at any moment and see that the log comes out the same.
"""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from consumer.core.appends import Entry
from consumer.errors import ExitCode, JobstateError, ServerError
from consumer.jetstream.server import EmbeddedServer, end_with_parent
from consumer.jetstream.topology import ensure
from consumer.jetstream.view import FIRST, View, after
from consumer.model import Update
from consumer.nats.address import Address
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.replay.clock import ReplayClock
from consumer.replay.player import Player, Progress
from consumer.replay.recording import Recording
from consumer.replay.server import OrchestratorServer
from consumer.replay.simulated import SimulatedOrchestrator
from consumer.rules.file import DEFAULT
from consumer.settings import MIB, Streams
from consumer.wire.entries import decode_format
from consumer.wire.subjects import Names
from consumer.wire.update import decode_update

START_S: Final = 30.0
LOOK_S: Final = 0.1
AGAIN_S: Final = 0.2
STOP_S: Final = 15.0
TRIES: Final = 5

STREAMS: Final = Streams(log_max_bytes=256 * MIB, input_max_bytes=64 * MIB, refused_max_bytes=16 * MIB)
"""Small enough for a laptop; the daemon is told the same."""


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """Facts from the daemon's own log lines: where it serves, and which update came by which cause."""

    event: str = ""
    http: str = ""
    job_id: str = ""
    sequence: int = 0
    cause: str = ""


class DaemonProcess:
    """`jobstate run` as a process of its own, started again when it dies."""

    def __init__(self, folder: Path, variables: dict[str, str], tell: Callable[[str], None]) -> None:
        self.log: Final = folder / "daemon.log"
        self._variables: Final = variables
        self._tell: Final = tell
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that is on now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def __aenter__(self) -> Self:
        await self._start()
        self._keeper = asyncio.create_task(self._keep(), name="keep the daemon")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def check(self) -> None:
        """Raise what made the daemon impossible to keep."""
        if self._keeper is not None and self._keeper.done() and not self._keeper.cancelled():
            self._keeper.result()

    async def _start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "consumer",
                "run",
                env={**_without_ours(os.environ), **self._variables},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent(),  # as the server: nothing of a demo that was killed stays behind
            )

    async def _keep(self) -> None:
        while True:
            process = self._process
            assert process is not None
            code = await process.wait()
            if code in {ExitCode.USAGE, ExitCode.TOPOLOGY}:
                raise JobstateError(f"the daemon refuses to run (exit code {code}): {_last_line(self.log)}")
            await asyncio.sleep(AGAIN_S)
            await self._start()
            self._tell(f"the daemon {process.pid} ended ({_ending(code)}): started again as process {self.pid}")


class Stage:
    """Everything that a demo needs, up for as long as the `async with` lasts. *speed* None is `max`."""

    def __init__(
        self, recordings: Sequence[Recording], folder: Path, speed: float | None, tell: Callable[[str], None]
    ) -> None:
        self.names: Final = Names()
        self.clock: Final = ReplayClock(recordings)
        self.server: Final = EmbeddedServer(folder / "nats")
        self.orchestrator: Final = OrchestratorServer(SimulatedOrchestrator(recordings), self.clock)
        self._player: Final = Player(recordings, self.clock, speed)
        self._folder: Final = folder
        self._rules_file: Final = folder / "rules.toml"
        self._tell: Final = tell
        self._stack: Final = contextlib.AsyncExitStack()
        self._connection: Connection | None = None
        self._view: View | None = None
        self.daemon: DaemonProcess | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._rise()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _rise(self) -> None:
        await self._stack.enter_async_context(self.server)
        await self._stack.enter_async_context(self.orchestrator)
        connection = await connect_reader(Address(urls=(self.server.url,)), "demo")
        self._stack.push_async_callback(connection.close)
        await ensure(connection, self.names, STREAMS)
        self._connection = connection
        self._view = View(connection, self.names, where=self.server.url, tell=self._tell)
        keeper = asyncio.create_task(self.server.keep(self._tell), name="keep the server")
        self._stack.push_async_callback(_end, keeper)
        self._rules_file.write_text(_without_dwell(DEFAULT.read_text(encoding="utf-8")), encoding="utf-8")
        self.daemon = DaemonProcess(self._folder, self.variables(), self._tell)
        await self._stack.enter_async_context(self.daemon)
        await self._until_begun()

    def variables(self) -> dict[str, str]:
        """The daemon's settings, as environment."""
        return {
            "JOBSTATE_RULES__FILE": str(self._rules_file),
            "JOBSTATE_NATS__URL": self.server.url,
            "JOBSTATE_BACALHAU__URL": self.server.url,
            "JOBSTATE_ORCHESTRATOR__URL": self.orchestrator.url,
            "JOBSTATE_HTTP__PORT": "0",
            "JOBSTATE_LOG__FORMAT": "json",
            "JOBSTATE_LOG__LEVEL": os.environ.get("JOBSTATE_LOG__LEVEL", "info"),
            "JOBSTATE_LOG__LINES_PER_S": "100000",
            "JOBSTATE_STREAMS__LOG_MAX_BYTES": str(STREAMS.log_max_bytes),
            "JOBSTATE_STREAMS__INPUT_MAX_BYTES": str(STREAMS.input_max_bytes),
            "JOBSTATE_STREAMS__REFUSED_MAX_BYTES": str(STREAMS.refused_max_bytes),
        }

    def write_settings(self) -> Path:
        """The daemon's settings as a file of the stage's folder, for whoever wants to look as it does."""
        lines: list[str] = []
        for variable, text in self.variables().items():
            section, _, key = variable.removeprefix("JOBSTATE_").lower().partition("__")
            lines += [f"[{section}]"] if f"[{section}]" not in lines else []
            lines.append(f"{key} = {text if text.isdecimal() else msgspec.json.encode(text).decode()}")
        file = self._folder / "jobstate.toml"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    async def _until_begun(self) -> None:
        """Wait until the daemon has agreed with the log on where it begins: from then on nothing is left out."""
        assert self._view is not None
        assert self.daemon is not None
        try:
            async with asyncio.timeout(START_S), self._view.follow(self.names.format, start=FIRST) as entries:
                async for entry in entries:
                    if decode_format(entry.body).Since is not None:
                        break
        except TimeoutError:
            self.daemon.check()
            raise JobstateError(
                f"the daemon did not begin within {START_S:.0f} s: {_last_line(self.daemon.log)}"
            ) from None

    @property
    def metrics_url(self) -> str:
        """Where the daemon that is on now serves its numbers; empty if it does not say."""
        assert self.daemon is not None
        started = [line.http for line in _lines(self.daemon.log, b'"daemon.started"')]
        return f"{started[-1]}/metrics" if started else ""

    async def play(self) -> AsyncIterator[Progress]:
        """Play the recordings; ends when every frame has been given to the server."""
        assert self._connection is not None
        async for progress in self._player.play(self._connection):
            assert self.daemon is not None
            self.daemon.check()
            yield progress

    async def feed(self) -> AsyncIterator[tuple[Entry, Update]]:
        """Every update of the log from the first on, as it comes."""
        assert self._view is not None
        number = 0
        while True:
            try:
                async with self._view.follow(f"{self.names.state_prefix}>", start=after(number)) as entries:
                    async for entry in entries:
                        number = entry.number
                        yield entry, decode_update(entry.body)
            except ServerError:  # the server was killed just when it was asked; it comes back
                await asyncio.sleep(AGAIN_S)

    async def refused(self) -> tuple[int, int]:
        """How many events were rejected, and how many undecodable."""
        for _ in range(TRIES - 1):
            try:
                return await self._count_refused()
            except ServerError:  # the server was killed while it was read
                await asyncio.sleep(AGAIN_S)
        return await self._count_refused()

    async def _count_refused(self) -> tuple[int, int]:
        assert self._view is not None
        found = [0, 0]
        async with self._view.refused() as entries:
            async for entry in entries:
                found[entry.subject.startswith(f"{self.names.prefix}.undecodable.")] += 1
        return found[0], found[1]

    def causes(self) -> dict[tuple[str, int], str]:
        """Why each update was looked for, "hint" or "scan", by (job, sequence): as the daemon's log lines say.

        An update whose confirmation came after its daemon was killed is in the log, and in none of these lines.
        """
        assert self.daemon is not None
        return {(said.job_id, said.sequence): said.cause for said in _lines(self.daemon.log, b'"update.published"')}


def _lines(log: Path, event: bytes) -> Iterator[_Line]:
    """The daemon's lines of *event*, as it is spelled there."""
    for line in log.read_bytes().splitlines():
        if event in line:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeError):  # a line that a kill cut
                yield msgspec.json.decode(line, type=_Line)


def _without_dwell(rules: str) -> str:
    """The text of a rules file without its limits: by today's clock every recorded job stands still for weeks.

    They are no part of the rules' hash, so a log is stamped as ever.
    """
    return re.sub(r"(?ms)^\[dwell\]\n.*?(?=^\[|\Z)", "", rules)


def _without_ours(environ: "os._Environ[str]") -> dict[str, str]:
    """The environment without settings: the demo's daemon has its own."""
    return {name: value for name, value in environ.items() if not name.startswith("JOBSTATE_")}


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else f"it wrote nothing to {file}"


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
