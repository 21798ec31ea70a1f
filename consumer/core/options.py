"""How eagerly the core reads the record, and how much it may keep: one place for each default."""

from typing import Final

import msgspec

from consumer import defaults
from consumer.core.reads import HISTORY_LIMIT

LIST_TIMEOUT_S: Final = 30.0
"""Time limit of a list, that of Bacalhau's own server (design/bacalhau.md 6.3): it takes 40 us a stored job."""
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


class ReadingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds, rates in reads a second.

    `end_wait_s`: after an execution's end the record follows by 3 ms at the median (recordings), so reads wait.
    `repeats`: so long after its hint an unanswered one is read again, then every `turn_s`, in all for `watch_s`: where
    Bacalhau tries an evaluation again the record follows by 5.0 s (design/bacalhau.md 6.2).
    `turn_s`: an open job that nobody looked at for so long is read in turn; a little more than `list_every_s`, so that
    quick lists leave nothing to turns. `turn_rate`: turns a second, 0 for none. `turn_each`: one read in so many is a
    turn while hints wait.
    `read_every_s`: for so long a list that shows no change of a job stands for a read of it.
    `lists`: whether lists come by themselves at all. `list_every_s`: at least so long between two of them, and at least
    `list_share` times what the last one took (20: a twentieth of the time), of which no more than `list_max_s` counts,
    since an answer that took longer was given up. `list_limit`: rows that a round of changes asks for first,
    `full_limit`: most that a page may have. `list_debt_s`: so much of the orchestrator's time may lists of one round
    take before a pause pays for it. A sweep comes every `full_every_s`.
    `claim_s`, `claim_answers`: what so many answers over so long say against the log is believed.
    `retry_s`, `retry_max_s`: the pause after a failure, doubled for each further one of the same job alone.
    `included_rows`: the job's document brings at most so many rows of its history. `history_limit`: rows that a page of
    history is asked for. `history_max`: a history with more entries has no end.
    `executions_max`, `jobs_max`: how many are remembered.
    `concurrency`: requests under way at most. `max_rate`: requests a second, as an average over ten of them. `pause_s`:
    after a failure that is of all reads nothing leaves for so long, twice as long after each probe that fails, at most
    `pause_max_s`.
    """

    end_wait_s: float = 0.005
    repeats: tuple[float, ...] = (0.02, 0.1, 1.0)
    watch_s: float = 5.05
    turn_s: float = 1.3
    read_every_s: float = 10.0
    turn_rate: float = defaults.TURN_RATE
    turn_each: int = 8
    lists: bool = True
    list_every_s: float = 1.0
    list_share: float = 20.0
    list_max_s: float = LIST_TIMEOUT_S
    list_debt_s: float = 2.0
    list_limit: int = 10
    full_limit: int = 5000
    full_every_s: float = 3600.0
    claim_s: float = 60.0
    claim_answers: int = 8
    retry_s: float = 1.0
    retry_max_s: float = 60.0
    included_rows: int = 100
    history_limit: int = HISTORY_LIMIT
    history_max: int = 2_000_000
    executions_max: int = defaults.EXECUTIONS_MAX
    jobs_max: int = defaults.JOBS_MAX
    concurrency: int = defaults.CONCURRENCY
    max_rate: float = defaults.MAX_RATE
    pause_s: float = 0.2
    pause_max_s: float = 15.0

    def pause_after(self, failures: int) -> float:
        """Seconds until anything is asked after a failure of all reads that so many others preceded."""
        return min(self.pause_s * 2.0 ** min(failures, 30), self.pause_max_s)

    def retry_after(self, failures: int) -> float:
        """Seconds until what has failed so many times in a row is asked for again."""
        return min(self.retry_s * 2.0 ** min(max(failures - 1, 0), 30), self.retry_max_s)
