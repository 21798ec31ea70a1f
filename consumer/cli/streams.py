"""The standard streams as we are given them: closed, read-only, in any encoding, full, or read by nobody.

Imports nothing that takes time: `consumer.cli.main` begins with it.
"""

import fcntl
import io
import os
import select
import sys
from typing import Final

_NAMES: Final = {1: "stdout", 2: "stderr"}


def prepare() -> None:
    """Make all three usable, before anything opens a file.

    A descriptor that is closed leads to nowhere: a socket would get its number, and with it what is written there. An
    output that was opened for reading only leads to nowhere too. Characters that an output cannot spell are escaped. If
    an encoding (`PYTHONIOENCODING`) cannot do that, or begins each text of stderr anew, the output is UTF-8.
    """
    for descriptor in range(3):
        if not _is_usable(descriptor):
            let_go(descriptor)
    for descriptor, name in _NAMES.items():
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115 (open to the end)
        elif isinstance(stream, io.TextIOWrapper):
            can = _can_escape_in_pieces if name == "stderr" else _can_escape
            encoding = stream.encoding if can(stream.encoding) else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _can_escape(encoding: str) -> bool:
    try:
        "\ud800é\n".encode(encoding, "backslashreplace")
    except UnicodeError:  # idna knows no error handler
        return False
    return True


def _can_escape_in_pieces(encoding: str) -> bool:
    """Whether two texts one after the other are also one text: UTF-16 begins each with a mark."""
    if not _can_escape(encoding):
        return False
    one, two, both = (text.encode(encoding, "backslashreplace") for text in ("\ud800", "é\n", "\ud800é\n"))
    return one + two == both


def _is_usable(descriptor: int) -> bool:
    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    except OSError:  # closed by whoever started us
        return False
    return descriptor not in _NAMES or flags & os.O_ACCMODE != os.O_RDONLY


def let_go(descriptor: int) -> None:
    """Send to nowhere what waits to be written there, and what still comes."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere == descriptor:
        os.set_inheritable(descriptor, True)
    else:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def let_go_of_unread() -> None:
    """Let go of each output that would make a writer wait: nobody reads it. For whoever ends us meanwhile.

    A write that waits already goes on at once.
    """
    for descriptor in _NAMES:
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        if not ready.poll(0):
            let_go(descriptor)


def write_stderr(text: str) -> None:
    """Write *text* on standard error, if that can be written: where nobody can be told, the exit code says it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        let_go(sys.stderr.fileno())
