"""Run a command where a name server takes every question and answers none: `unshare` it, then exec this.

`python tests/silent_names.py COMMAND…` within `unshare --map-root-user --mount --net` (see `BESIDE`): the loopback is
up, one UDP socket on port 53 is never read, and `/etc/resolv.conf` names it three times. A lookup lasts 450 s there.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from functools import cache
from typing import Final

BESIDE: Final = ("unshare", "--map-root-user", "--mount", "--net")
_RESOLV: Final = "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\noptions timeout:30 attempts:5\n"
_SIOCSIFFLAGS: Final = 0x8914
_UP_AND_RUNNING: Final = 0x1 | 0x40


@cache
def why_not() -> str:
    """Why this cannot be had on this machine; empty: it can."""
    try:
        tried = subprocess.run([*BESIDE, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"unshare: {error.strerror}"
    return tried.stderr.strip()


def command(*words: str) -> list[str]:
    """The command that runs *words* there."""
    return [*BESIDE, sys.executable, __file__, *words]


def _main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 53))
    server.set_inheritable(True)  # it stays open, unread, in what takes our place
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as resolv:
        resolv.write(_RESOLV)
        resolv.flush()
        subprocess.run(["mount", "--bind", resolv.name, "/etc/resolv.conf"], check=True)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    _main()
