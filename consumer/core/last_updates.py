"""What is known of the log: each job's last confirmed update, and the number that its next entry follows. No I/O."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from consumer.core.dwell import Dwell
from consumer.core.verify import VerifiedJob
from consumer.model import JobKey, LastUpdate


class LastUpdates:
    """Every job that the log has. *dwell* is told where each comes to stand, whoever wrote that."""

    def __init__(self, known: Mapping[JobKey, LastUpdate] | None = None, dwell: Dwell | None = None) -> None:
        self._by_key: Final[dict[JobKey, LastUpdate]] = dict(known or {})
        self._by_state: Final = Counter(one.state for one in self._by_key.values())
        # Jobs of which the log has foreign entries only: what the first of ours must expect.
        self._foreign: Final[dict[JobKey, int]] = {}
        self._dwell: Final = dwell
        self.last = max((one.number for one in self._by_key.values()), default=0)
        """The number of the last entry that the log has of any job, as far as is known; 0: none."""

    def get(self, key: JobKey) -> LastUpdate | None:
        """The job's last confirmed update."""
        return self._by_key.get(key)

    @property
    def by_key(self) -> Mapping[JobKey, LastUpdate]:
        """Every job's last confirmed update. Not to be changed."""
        return self._by_key

    @property
    def by_state(self) -> Mapping[str, int]:
        """How many jobs stand in each state; those that nobody stands in may be missing. Not to be changed."""
        return self._by_state

    def expected(self, key: JobKey) -> int:
        """The number that the job's next entry must follow; 0: it is the first."""
        known = self._by_key.get(key)
        return known.number if known is not None else self._foreign.get(key, 0)

    def confirm(self, key: JobKey, known: LastUpdate | None, since: float) -> None:
        """From now on the log has the job at *known*; None: it has forgotten the job. *since*: Unix seconds."""
        self._foreign.pop(key, None)
        before = self._by_key.pop(key, None) if known is None else self._by_key.get(key)
        if before is not None:
            self._by_state[before.state] -= 1
        if known is not None:
            self._by_key[key] = known
            self._by_state[known.state] += 1
            self.last = max(self.last, known.number)
        if self._dwell is not None:
            self._dwell.follow(key, known, since)

    def adopt(self, key: JobKey, found: VerifiedJob) -> None:
        """Take the log's word for the job, whatever was known before."""
        self.confirm(key, found.known, found.since)
        if found.known is None and found.number:
            self._foreign[key] = found.number
