"""Which request leaves next, and when: pages that go on, lists, and jobs, as the pace lets them. Pure.

The one place where reads wait. What comes of them is `consumer.core.answers`' and `consumer.core.listing`'s.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from consumer.core.lists import Lists
from consumer.core.pace import Pace
from consumer.core.reader import LONG_AGO, NEVER, Cause, Reader
from consumer.core.reads import OrchestratorRead, ReadHistory, ReadJob
from consumer.core.registry import Registry
from consumer.model import ReadCause


class Requests:
    """Gives the reads that leave now: the next page of a history, then a list, then jobs by the schedule.

    A list goes before jobs: there is one at a time, it has paid for its time with a pause, and nothing else finds what
    no frame tells of.
    """

    def __init__(self, jobs: Registry, lists: Lists, dice: Callable[[], float]) -> None:
        self._jobs: Final = jobs
        self._lists: Final = lists
        self.pace: Final = Pace(jobs.options, dice)
        self._next_pages: Final[deque[OrchestratorRead]] = deque()
        """Reads that go on with one that was answered: the next page, or the history after the job."""
        self._began_at: float | None = None

    def go_on(self, read: OrchestratorRead) -> None:
        """Have *read* leave next: it goes on with one that was answered."""
        self._next_pages.append(read)

    def of_job(self, reader: Reader) -> OrchestratorRead:
        """The read for a job: its history from its last page on, or the job itself while its identity is unknown."""
        cause = ReadCause.HINT if reader.cause is Cause.HINT else ReadCause.SCAN
        if reader.identity is None:
            return ReadJob(job=reader.name, cause=cause)
        token = reader.tail.token if reader.tail is not None else ""
        return ReadHistory(job=reader.name, namespace=reader.identity.namespace, next_token=token, cause=cause)

    def due_reads(self, now: float) -> list[OrchestratorRead]:
        """Give the reads that leave now, the most urgent first. Each comes back once."""
        if self._began_at is None:
            self._began_at = now
        reads: list[OrchestratorRead] = []
        while self.pace.is_free(now) and (read := self._next_read(now)) is not None:
            self.pace.leaves(read, now)
            reads.append(read)
        return reads

    def wake_at(self) -> float | None:
        """When `due_reads` will have more if nothing comes before, in seconds; None: never."""
        due, free_at = self._next_due(), self.pace.free_at()
        return None if due is None or free_at is None else max(due, free_at)

    def _next_due(self) -> float | None:
        """When the next read is due, whether or not it may leave then; None: not before something comes."""
        if self._next_pages:
            return LONG_AGO
        list_due, due = self._lists.wake_at(), self._jobs.schedule.wake_at()
        due = due if list_due is None else min(due, list_due)
        return None if due == NEVER else due

    def waiting(self, now: float) -> int:
        """Reads that are due and have not left."""
        lists_due = self._lists.wake_at()
        of_jobs = self._jobs.schedule.overdue(now)
        return len(self._next_pages) + of_jobs + (lists_due is not None and lists_due <= now)

    def waited_s(self, now: float) -> float:
        """How long the oldest job among these has waited: above some seconds, rate or orchestrator cannot keep up."""
        due = self._jobs.schedule.wake_at()
        return 0.0 if self._began_at is None else max(now - max(due, self._began_at), 0.0)

    def _next_read(self, now: float) -> OrchestratorRead | None:
        if self.pace.away:
            return self._next_probe(now)
        return self._next_page() or self._lists.next_page(now) or self._next_of_job(now)

    def _next_probe(self, now: float) -> OrchestratorRead | None:
        """One that tells whether the orchestrator is back: not of a job that fails, which proves nothing.

        A list last: it may take a second, or a minute.
        """
        failing: list[Reader] = []
        while (reader := self._next_reader(now)) is not None and reader.fails:
            failing.append(reader)
        read = self._leaves(reader, now) if reader is not None else self._next_page() or self._lists.next_page(now)
        if read is None and failing:
            read = self._leaves(failing.pop(0), now)
        for one in failing:
            self._jobs.schedule.put(one, now, one.cause)
        return read

    def _next_page(self) -> OrchestratorRead | None:
        return self._next_pages.popleft() if self._next_pages else None

    def _next_of_job(self, now: float) -> OrchestratorRead | None:
        reader = self._next_reader(now)
        return self._leaves(reader, now) if reader is not None else None

    def _next_reader(self, now: float) -> Reader | None:
        """The job to read now. One that a list has just shown to be unchanged waits for its next time."""
        while (reader := self._jobs.schedule.next(now)) is not None:
            if not reader.spare(self._lists.quiet_at, self._jobs.options):
                break
            self._jobs.plan(reader, now)
        return reader

    def _leaves(self, reader: Reader, now: float) -> OrchestratorRead:
        reader.leaves(now)
        return self.of_job(reader)
