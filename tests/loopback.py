"""Ports of the loopback for servers that must have one before they start, and the same after each start."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

import pytest

PORTS: Final = range(15_000, 32_000)
"""Below those that the kernel gives to connections and to whoever asks for any (Linux: from 32,768).

So nobody else gets one between the moment it is chosen and its use, or while its server is down.
"""
_given: Final = set[int]()
_locks: Final = (Path(tempfile.gettempdir()) / f"jobstate-ports-{os.getuid()}").open("wb")
"""A byte of it for each port. Whoever has locked that byte has the port, until its process ends."""


def free_port() -> int:
    """A port that nobody uses now, and that no test of any process on this machine is given until this process ends."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in _given and _take(port):
            _given.add(port)
            return port
    raise AssertionError("no port is free")


def _take(port: int) -> bool:
    try:
        fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:  # other tests have it, or another program listens there
        return False
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6: Final = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")
