"""`jobstate` as the first process of a container: there the kernel gives SIGTERM no effect by itself."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.waiting import DEADLINE_S, until

NAMESPACE: Final = ("unshare", "--pid", "--fork", "--kill-child")
TERMINATED: Final = 128 + signal.SIGTERM

pytestmark = pytest.mark.skipif(
    shutil.which("unshare") is None or os.geteuid() != 0, reason="a process namespace takes unshare, and root"
)


class First:
    """A command that is process 1 of a namespace of its own."""

    def __init__(self, outside: asyncio.subprocess.Process) -> None:
        self._outside: Final = outside

    @property
    def pid(self) -> int:
        """Its number outside."""
        outside = self._outside.pid
        return int(Path(f"/proc/{outside}/task/{outside}/children").read_text())

    async def end(self) -> int:
        """Send SIGTERM. Its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            return await self._outside.wait()


@contextlib.asynccontextmanager
async def first(*arguments: str, **environ: str) -> AsyncIterator[First]:
    """Start `jobstate` with *arguments* as process 1."""
    outside = await asyncio.create_subprocess_exec(
        *(*NAMESPACE, sys.executable, "-m", "consumer", *arguments),
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        yield First(outside)
    finally:
        if outside.returncode is None:
            outside.kill()
            await outside.wait()


async def test_it_ends_while_it_is_still_importing(tmp_path: Path) -> None:
    """SIGTERM in the first second: nothing has been imported that could hear it. An import waits here for ever."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "typer.py").write_text(f"open({str(gate)!r}).read()\n")
    async with first("run", PYTHONPATH=str(tmp_path)) as process:
        opened: list[int] = []

        def importing() -> bool:
            with contextlib.suppress(OSError):  # nobody reads yet
                opened.append(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
            return bool(opened)

        await until(importing, "the import of typer")
        try:
            assert await process.end() == TERMINATED
        finally:
            os.close(opened[0])


@pytest.mark.parametrize("verb", ["watch", "wait"])
async def test_a_verb_that_goes_on_for_ever_ends(verb: str) -> None:
    """A verb has no handler of its own: SIGTERM does what it does to any other process."""
    connected = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        job = ["j-1"] if verb == "wait" else []
        async with first(verb, *job, "--nats", f"nats://127.0.0.1:{port}") as process:
            async with asyncio.timeout(DEADLINE_S):
                await connected.wait()
            assert await process.end() == TERMINATED
