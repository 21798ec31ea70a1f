"""Ports of the loopback for servers that must have one before they start, and the same after each start."""

import random
import socket
from typing import Final

import pytest

PORTS: Final = range(15_000, 32_000)
"""Below those that the kernel gives to connections and to whoever asks for any (Linux: from 32,768).

So nobody else gets one between the moment it is chosen and its use, or while its server is down.
"""
_given: Final = set[int]()


def free_port() -> int:
    """A port that nobody uses now, and no test of this process has been given."""
    for port in random.sample(PORTS, len(PORTS)):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError("no port is free")


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6: Final = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")
