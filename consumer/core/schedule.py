"""Which job is read next: those with a hint by due time, and beside them rows of lists, and turns at their rate. Pure.

The schedule holds readers, not requests: which job is read is decided when a request may leave, so what came meanwhile
is answered by the same read. Nothing else queues reads.
"""

import heapq
from typing import Final

from consumer.core.options import ReadingOptions
from consumer.core.reader import NEVER, Cause, Reader

Entry = tuple[float, int, Reader]

_STRONGEST_FIRST: Final = (Cause.HINT, Cause.ROW, Cause.TURN)


class Schedule:
    """Readers by due time, in seconds. While hints wait, one read in `turn_each` is of a row or a turn."""

    def __init__(self, options: ReadingOptions) -> None:
        self._options: Final = options
        self._heaps: Final[dict[Cause, list[Entry]]] = {cause: [] for cause in Cause}
        self._order = 0
        self._turn_at = float("-inf")
        self._hints_in_row = 0
        self.hinted = 0
        """Readers that are due because of a hint, or will be."""

    def put(self, reader: Reader, due: float, cause: Cause) -> None:
        """Have *reader* read at *due*. One that waits already keeps the stronger cause, and what is sooner.

        Only its turn it gives up: what a hint tells of may come later than that.
        """
        if reader.queued:
            if reader.cause is not Cause.TURN or cause is Cause.TURN:
                due = min(due, reader.due)
            cause = min(cause, reader.cause, key=_STRONGEST_FIRST.index)
            if (due, cause) == (reader.due, reader.cause):
                return
            self.drop(reader)
        self._order += 1
        self.hinted += cause is Cause.HINT
        reader.due, reader.cause, reader.queued = due, cause, self._order
        if cause is not Cause.TURN or self._options.turn_rate:  # else it waits for a hint or a row
            heapq.heappush(self._heaps[cause], (due, self._order, reader))

    def drop(self, reader: Reader) -> None:
        """Have *reader* wait for nothing. Its cause stays: a read that leaves now leaves for that."""
        if reader.queued:
            self.hinted -= reader.cause is Cause.HINT
            reader.due, reader.queued = NEVER, 0

    def next(self, now: float) -> Reader | None:
        """Take the reader that is to be read at *now*; None: nobody is due."""
        due, cause = min((self._due(cause), cause) for cause in (Cause.ROW, Cause.TURN))
        hinted = self._due(Cause.HINT) <= now
        if due > now and not hinted:
            return None
        if hinted and (due > now or self._hints_in_row < self._options.turn_each - 1):
            self._hints_in_row += 1
            return self._pop(Cause.HINT)
        self._hints_in_row = 0
        if cause is Cause.TURN:
            self._turn_at = max(self._turn_at, now) + 1 / self._options.turn_rate
        return self._pop(cause)

    def wake_at(self) -> float:
        """When `next` may have somebody; `NEVER`: not before something is put."""
        return min(self._due(cause) for cause in Cause)

    def overdue(self, now: float) -> int:
        """How many readers `next` would give at *now*, one after the other; of turns at most one."""
        of_turns = self._due(Cause.TURN) <= now
        return of_turns + sum(_overdue(self._heaps[cause], now) for cause in (Cause.HINT, Cause.ROW))

    def _pop(self, cause: Cause) -> Reader:
        reader = heapq.heappop(self._heaps[cause])[2]
        self.drop(reader)
        return reader

    def _due(self, cause: Cause) -> float:
        """When the first of them is due that still stands; entries that do not are thrown away."""
        heap = self._heaps[cause]
        while heap and heap[0][2].queued != heap[0][1]:
            heapq.heappop(heap)
        if not heap:
            return NEVER
        return max(heap[0][0], self._turn_at) if cause is Cause.TURN else heap[0][0]


def _overdue(heap: list[Entry], now: float) -> int:
    """How many entries of *heap* still stand and are due: no more is looked at than these, and a child of each."""
    found, places = 0, [0]
    while places:
        place = places.pop()
        if place < len(heap) and heap[place][0] <= now:
            _, order, reader = heap[place]
            found += reader.queued == order
            places += (2 * place + 1, 2 * place + 2)
    return found
