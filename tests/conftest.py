"""What holds for every test, however it was started, and by whom: the environment of that shell is not the tests'."""

import os
import signal
import time
from typing import Final

# Started in the background of a shell, a process ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Under nohup it ignores SIGHUP. A handler that does nothing leaves that so for the tests, and not for what they start.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

FOREIGN: Final = (
    "JOBSTATE_",
    "PYTHON",  # all but the path: buffering, warnings, encodings
    "PROMETHEUS_",
    "SSL_CERT_",
    "LC_",
    "LANG",
    "GITHUB_",  # typer and rich take a run of such a workflow for a terminal
)
"""Beginnings of the names of variables that change what a program says or does."""
NAMES: Final = frozenset(
    {
        *("COLUMNS", "LINES", "TERMINAL_WIDTH", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "PY_COLORS"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC"),
    }
)

for name in list(os.environ):
    if name.upper() in NAMES or (name.startswith(FOREIGN) and name != "PYTHONPATH"):
        del os.environ[name]
os.environ |= {"LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "xterm-256color"}
time.tzset()
