"""The open jobs in turn: each is read again once in a while, all together not more often than a rate allows.

Pure, and only whose turn it is. Which jobs are open, and what a read is, is `consumer.join.join`'s.
"""

import heapq
from collections.abc import Callable
from typing import Final

from consumer.join.options import JoinSettings

_SLACK: Final = 64


class Turns:
    """Names of open jobs, each with the time (seconds) when it is due."""

    def __init__(self, settings: JoinSettings) -> None:
        self._settings = settings
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # with turns of before: those that `_due` does not confirm
        self._next = float("-inf")

    def __len__(self) -> int:
        """How many jobs are open."""
        return len(self._due)

    def __contains__(self, name: str) -> bool:
        """Whether the job is open."""
        return name in self._due

    def open(self, name: str, due: float) -> None:
        """The job is open from now on; its first turn comes at *due*."""
        if name not in self._due:
            self._queue(name, due)

    def close(self, name: str) -> None:
        """The job is open no more."""
        self._due.pop(name, None)
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            # Turns of before would be there until they are due: at a low rate, or none, many times the open jobs.
            self._heap = [(due, name) for name, due in self._due.items()]
            heapq.heapify(self._heap)

    def take(self, now: float, ready_at: Callable[[str], float]) -> str | None:
        """Whose turn it is, or None. A job that is not to be read before a later time (*ready_at*) waits until then."""
        settings = self._settings
        while self._heap and settings.scan_rate and now >= self._next and self._heap[0][0] <= now:
            due, name = heapq.heappop(self._heap)
            if self._due.get(name) != due:
                continue
            ready = ready_at(name)
            if ready > now:
                self._queue(name, ready)
                continue
            self._queue(name, now + settings.scan_every_s)
            self._next = max(self._next, now) + 1 / settings.scan_rate
            return name
        return None

    def wake_at(self) -> float | None:
        """When `take` may have somebody; None: never."""
        if not self._heap or not self._settings.scan_rate:
            return None
        return max(self._next, self._heap[0][0])

    def _queue(self, name: str, due: float) -> None:
        self._due[name] = due
        heapq.heappush(self._heap, (due, name))
