"""The process's one log, for tests that set it up anew. What lines look like is in tests/observe."""

import contextlib
import logging
from collections.abc import Iterator

import structlog


@contextlib.contextmanager
def untouched_log() -> Iterator[None]:
    """Leave the log as it was: other tests follow, and the stream of this one will be closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
