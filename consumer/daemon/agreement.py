"""Whether frames and record tell of the same cluster: of one that differs every read succeeds, and finds nothing.

It only watches. A job is in the orchestrator's store before the first frame names it, so a job that frames name and the
record does not know is strange once, and a wrong address if it goes on.
"""

from collections.abc import Iterable
from typing import Final

from consumer.core import OrchestratorRead, ReadJobs
from consumer.core.reads import Missing
from consumer.errors import OrchestratorError
from consumer.model import HistoryPage, ReadCause
from consumer.ports import Answered

DOUBT_JOBS: Final = 3
"""After this many jobs in a row that frames named and the orchestrator does not know, it is no coincidence."""
KEPT_MAX: Final = 1_000


class Agreement:
    """Counts the jobs that frames named and the orchestrator does not know, since it last knew one."""

    def __init__(self) -> None:
        self._unknown: set[str] = set()

    def take(self, answered: Iterable[Answered]) -> None:
        """Take in reads that came back. Those that no frame caused, and those that failed, tell nothing."""
        for one in answered:
            job = _hinted(one.read)
            if not job or isinstance(one.answer, OrchestratorError) or _is_empty(one.answer):
                continue
            if not isinstance(one.answer, Missing):
                self._unknown.clear()
            elif len(self._unknown) < KEPT_MAX:
                self._unknown.add(job)

    @property
    def doubt(self) -> str:
        """A sentence about what an operator should look at; empty while there is nothing."""
        if len(self._unknown) < DOUBT_JOBS:
            return ""
        return (
            f"it knows none of the last {len(self._unknown)} jobs that frames name: "
            "do orchestrator.url and bacalhau.url lead to the same cluster?"
        )


def _is_empty(answer: object) -> bool:
    """Whether it is a history without an entry, as that of an unknown job is before 1.8: the job itself tells."""
    return isinstance(answer, HistoryPage) and not answer.entries


def _hinted(read: OrchestratorRead) -> str:
    """The job that a frame made us read; empty for every other read."""
    return read.job if not isinstance(read, ReadJobs) and read.cause is ReadCause.HINT else ""
