"""How far the input is confirmed, and the checkpoint that says so: where a restart may begin to read it. No I/O."""

from collections import deque
from typing import Final

import msgspec

from consumer.model import NOWHERE, InputPosition, Work


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything of the input up to *position* is confirmed. It replaces the log's entry *follows* (0: none)."""

    position: InputPosition
    follows: int


# There is one for each event in memory. They are in no reference cycle, so the garbage collector need not track them.
class Item(msgspec.Struct, eq=False, gc=False):
    """One piece of work on its way, and whether it is over."""

    work: Work | Checkpoint
    position: InputPosition
    done: bool = False


class InputOrder:
    """The items of the input in its order. They may be over in any other order: `floor` waits for the oldest."""

    def __init__(self) -> None:
        self._items: Final[deque[Item]] = deque()
        self._written = NOWHERE
        self._number = 0
        self.floor = NOWHERE
        """The last position of the input up to which everything is confirmed."""

    def __len__(self) -> int:
        """Items in memory: those that are not over, and those that are, behind one that is not."""
        return len(self._items)

    def add(self, item: Item) -> None:
        """Add the next item of the input."""
        self._items.append(item)

    def advance(self) -> None:
        """Raise the floor over what is over."""
        items = self._items
        while items and items[0].done:
            self.floor = items.popleft().position

    def checkpoint(self) -> Checkpoint | None:
        """What is to be written; None if the last checkpoint says as much."""
        if self.floor in (self._written, NOWHERE):
            return None
        return Checkpoint(position=self.floor, follows=self._number)

    def written(self, position: InputPosition, number: int) -> None:
        """The log has a checkpoint of ours, *position*, as its entry *number*."""
        self._written = position
        self._number = number

    def overtaken(self, number: int) -> None:
        """The log has another daemon's checkpoint as its entry *number*, below what that has confirmed."""
        self._number = number

    def restore(self, position: InputPosition, number: int) -> None:
        """Take the checkpoint that a start found."""
        self.floor = position
        self.written(position, number)
