"""Whether the orchestrator is behind: after a burst its record follows the end of an execution by seconds. Pure.

Bacalhau's scheduler works through a queue of evaluations (design/bacalhau.md 6.2). While that is long, reading each
job's history as soon as an execution has ended finds nothing, and the next list shows all that have changed at once.
"""

from typing import Final

SAMPLE: Final = 8
"""The last 8 ends count most. While the record is behind, the daemon reads one job in 8 as soon as its end is told."""
BEHIND: Final = 0.25
"""Fewer of the last ends than this share were in the record promptly."""
PROMPT_S: Final = 0.1
"""After this long an end is promptly in the record, or it is not."""


class Backlog:
    """How promptly the record has followed the ends of executions lately."""

    def __init__(self) -> None:
        self._prompt = 1.0
        self._untried = 0

    def saw(self, *, prompt: bool) -> None:
        """Take what became of an end that was looked for at once."""
        self._prompt += (prompt - self._prompt) / SAMPLE

    def can_wait(self) -> bool:
        """Whether the end that is told now is left to the next list."""
        if self._prompt >= BEHIND:
            return False
        self._untried = (self._untried + 1) % SAMPLE
        return self._untried != 0
