"""How a verb runs: its event loop, its signals, and what it says of the run itself on standard error."""

import asyncio
import resource
import shlex
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Final

import typer

from consumer.cli.streams import let_go_of_unread, write_stderr
from consumer.errors import ExitCode, JobstateError, SettingsError

INTERRUPTED: Final = 130
"""As a shell has it for Ctrl-C."""
FILES_MIN: Final = 32
"""Open files that are enough for a verb, and for a daemon that has just begun."""


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
