"""How eagerly the join reads, and what it may keep: its settings, as the pure part takes them."""

from typing import Final

import msgspec

from consumer.join.reads import HISTORY_LIMIT

SLOW_S: Final = 10.0
"""Where a change without a frame is found later than this, and nobody has asked for that, it is said."""

COST_OF_LISTS: Final = (
    "a list costs the orchestrator 40 us for each job that it has ever stored, and the bytes of all their "
    "specifications: keep large inputs out of inline sources; only a new database has fewer jobs"
)
"""What to do about lists that are slow."""


def slow_lists_s(list_every_s: float) -> float:
    """From how many seconds on a change without a frame is found late, where lists are *list_every_s* apart at least.

    Whoever sets a longer time between two lists has asked for it.
    """
    return max(SLOW_S, 1.5 * list_every_s)


class JoinSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How eagerly the join reads. Times in seconds.

    `repeats`: so long after a hint it is read again while unanswered. The record follows the frame by milliseconds, or
    by 5.0 s where Bacalhau tried an evaluation again (design/bacalhau.md 6.2): the last is just behind that.
    `scan_rate`: reads a second of open jobs in turn, 0 for none. `list_every_s`: at least so long between two lists;
    `list_share`: and the pause is so many times what one costs (20: at most a twentieth of the time), of which no more
    than `list_max_s` is counted: an answer that took longer was given up (`consumer.bacalhau.orchestrator`).
    `list_limit`: jobs that a round of changes asks for first; `full_limit`: most that a page may have. `list_debt_s`:
    so much of the orchestrator's time may lists of one round take before a pause pays for it.
    `lists`: whether lists come by themselves at all. `history_limit`: rows a page of history is asked for;
    `history_max`: a history of more entries has no end. `retry_s`: after a read that failed; doubled up to
    `retry_max_s` for a job whose reads alone fail, and for lists.
    `derive`: whether Running is published when a frame proves it. `doubts`, `doubt_s`: after so many answers in a row
    that are shorter than the log, or know no job, over so long, they are no old answers: the record went back.
    """

    repeats: tuple[float, ...] = (0.05, 0.2, 1.0, 5.05)
    scan_every_s: float = 1.0
    scan_rate: float = 50.0
    list_every_s: float = 1.0
    list_share: float = 20.0
    list_max_s: float = 30.0
    list_debt_s: float = 2.0
    list_limit: int = 10
    full_limit: int = 5000
    lists: bool = True
    full_every_s: float = 3600.0
    retry_s: float = 1.0
    retry_max_s: float = 60.0
    history_limit: int = HISTORY_LIMIT
    history_max: int = 100_000
    executions_max: int = 100_000
    jobs_max: int = 200_000
    derive: bool = True
    doubts: int = 8
    doubt_s: float = 60.0

    def retry_after(self, failures: int) -> float:
        """Seconds until what has failed so many times in a row is asked for again."""
        return min(self.retry_s * 2.0 ** min(max(failures - 1, 0), 30), self.retry_max_s)
