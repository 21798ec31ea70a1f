"""The command `jobstate`, from its first instant to its exit code. Which verbs there are is `consumer.cli.verbs`.

Nothing that takes time is imported before `main` is at work: whoever presses Ctrl-C as soon as the command is typed
gets what a later Ctrl-C gets.
"""

import errno
import os
import signal
import sys

from consumer.cli.streams import let_go, let_go_of_unread, prepare, write_stderr
from consumer.errors import ExitCode, JobstateError, SettingsError

INTERRUPTED = 130
"""As a shell has it for Ctrl-C."""

_TERMINATED = 128 + signal.SIGTERM
"""The same for a process that SIGTERM ended."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main() -> None:
    """Run the command line. An error of ours is one line on stderr and its exit code, never a traceback.

    The reader of the output may stop reading (`| head`), or never have read: neither is an error. A full disk is one.
    """
    if os.getpid() == 1:
        # The process 1 of a container: the kernel ignores each signal that it has no handler for. SIGTERM does here
        # as it does everywhere else, until a verb has something better to do.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(_TERMINATED))
    prepare()
    try:
        code = _run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        let_go_of_unread()
    try:
        code = _end_output(code)
    except KeyboardInterrupt:
        let_go_of_unread()
        code = _end_output(INTERRUPTED)
    sys.exit(code)


def _run() -> str | int | None:
    """Do what the command line says. Its exit code."""
    try:
        _require_key_log()
        from consumer.cli.verbs import app

        app(prog_name="jobstate")
    except JobstateError as error:
        from consumer.wire.display import printable

        write_stderr("jobstate: " + "\n".join(printable(line) for line in str(error).splitlines()) + "\n")
        return error.exit_code
    except SystemExit as end:
        # Typer makes 1 of a reader that went away, and that is our "no".
        return ExitCode.OK if isinstance(end.__context__, BrokenPipeError) else end.code
    except OSError as error:
        return _say_unwritten(error)
    return ExitCode.OK


def _require_key_log() -> None:
    """Refuse a `SSLKEYLOGFILE` that cannot be written: each TLS context would raise that, wherever it is made."""
    path = os.environ.get("SSLKEYLOGFILE")
    if not path:
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SettingsError(
            f"environment: SSLKEYLOGFILE: TLS keys cannot be appended to {path} ({error.strerror}); unset it, or name "
            "a file that this user may write"
        ) from error


def _end_output(code: str | int | None) -> str | int | None:
    """Flush what was written, here and not at exit, where a reader that went away would be complained of."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        let_go(sys.stdout.fileno())
    except OSError as error:
        if code != ExitCode.OUTPUT:  # it was said already
            code = _say_unwritten(error)
        let_go(sys.stdout.fileno())
    return code


def _say_unwritten(error: OSError) -> ExitCode:
    """Say that the output went nowhere. Any other error of the system is a bug of ours, and goes on."""
    if error.errno not in _NO_ROOM:
        raise error
    write_stderr(
        f"jobstate: what was to be written could not be ({error.strerror}): make room there, or write elsewhere\n"
    )
    return ExitCode.OUTPUT
