"""Which job is read next: those with a hint by due time, those in turn at their rate. Pure.

The queue holds readers, not requests: which job is read is decided when a request may leave, so what came meanwhile is
answered by the same read.
"""

import heapq
from typing import Final

from consumer.core.options import ReadingOptions
from consumer.core.reader import NEVER, Cause, Reader

Entry = tuple[float, int, Reader]


class Schedule:
    """Readers by due time, in seconds. While both wait, one read in `turn_each` is a turn."""

    def __init__(self, options: ReadingOptions) -> None:
        self._options: Final = options
        self._soon: list[Entry] = []
        self._turns: list[Entry] = []
        self._order = 0
        self._turn_at = float("-inf")
        self._hints_in_row = 0
        self.waiting = 0
        """Readers that are due because of a hint or a row, or will be."""

    def put(self, reader: Reader, due: float, cause: Cause) -> None:
        """Have *reader* read at *due*. One that waits already stays where it is, if that is sooner and no turn."""
        if reader.due <= due and (reader.cause is not Cause.TURN or cause is Cause.TURN):
            return
        self.drop(reader)
        self._order += 1
        self.waiting += cause is not Cause.TURN
        reader.due, reader.cause, reader.queued = due, cause, self._order
        heapq.heappush(self._turns if cause is Cause.TURN else self._soon, (due, self._order, reader))

    def drop(self, reader: Reader) -> None:
        """Have *reader* wait for nothing. Its cause stays: a read that leaves now leaves for that."""
        if reader.queued:
            self.waiting -= reader.cause is not Cause.TURN
            reader.due, reader.queued = NEVER, 0

    def next(self, now: float) -> Reader | None:
        """Take the reader that is to be read at *now*; None: nobody is due."""
        soon = self._head(self._soon) <= now
        turn = max(self._head(self._turns), self._turn_at) <= now
        if turn and not (soon and self._hints_in_row < self._options.turn_each - 1):
            self._turn_at = max(self._turn_at, now) + 1 / self._options.turn_rate
            self._hints_in_row = 0
            return self._pop(self._turns)
        if soon:
            self._hints_in_row += 1
            return self._pop(self._soon)
        return None

    def wake_at(self) -> float:
        """When `next` may have somebody; `NEVER`: not before something is put."""
        return min(self._head(self._soon), max(self._head(self._turns), self._turn_at))

    def _pop(self, heap: list[Entry]) -> Reader:
        reader = heapq.heappop(heap)[2]
        self.drop(reader)
        return reader

    def _head(self, heap: list[Entry]) -> float:
        """The due time of the first entry that still stands; those that do not are thrown away."""
        if heap is self._turns and not self._options.turn_rate:
            return NEVER
        while heap and heap[0][2].queued != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][0] if heap else NEVER
