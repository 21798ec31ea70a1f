"""The readers of all jobs beside what the log has of each: who is remembered, and when each is read next.

What the rooms of frames, rows and answers have in common. Pure: the time is passed in.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from consumer.core.backlog import Backlog
from consumer.core.options import ReadingOptions
from consumer.core.reader import Cause, Last, Reader
from consumer.core.rows import is_left_out
from consumer.core.schedule import Schedule
from consumer.model import REPORTED, Identity, JobKey, LastUpdate, Snapshot, Work
from consumer.rules import Rules
from consumer.wire.subjects import unescape


class Counts(msgspec.Struct, kw_only=True):
    """What the readers did, since the start."""

    frames: int = 0
    unknown_executions: int = 0
    """Frames of executions whose job nobody had named."""
    dropped: int = 0
    """Jobs that had no room."""


class Registry:
    """One cluster's readers by their jobs' ids, and the schedule that holds them.

    *known* gives the log's last update of a job. *crowded* is called where a job has no room.
    """

    def __init__(
        self,
        rules: Rules,
        known: Callable[[JobKey], LastUpdate | None],
        options: ReadingOptions,
        crowded: Callable[[], None],
        since_ns: int,
    ) -> None:
        self.rules: Final = rules
        self.known: Final = known
        self.options: Final = options
        self._crowded: Final = crowded
        self._readers: Final[dict[str, Reader]] = {}
        self._open = 0
        self.schedule: Final = Schedule(options)
        self.backlog: Final = Backlog()
        self.since_ns = since_ns
        """When the log begins, by the orchestrator's clock (ns; 0: with the first job of all)."""
        self.events: list[Work] = []
        """What there is to decide and to announce, since somebody looked."""
        self.counts: Final = Counts()

    # -- who is remembered --------------------------------------------------------------------------------------------

    def get(self, name: str) -> Reader | None:
        """The job's reader, if there is one."""
        return self._readers.get(name)

    def all(self) -> list[Reader]:
        """All of them."""
        return list(self._readers.values())

    def reader(self, name: str, key: JobKey | None = None) -> Reader | None:
        """The job's reader, made if there is room. *key*: where a frame says that the log would have the job.

        If the log has it there, the log gives the identity. Otherwise only the record does.
        """
        reader = self._readers.get(name)
        if reader is None:
            if len(self._readers) >= self.options.jobs_max:
                self.counts.dropped += 1  # a list finds it, when there is room
                self._crowded()
                return None
            reader = self._readers[name] = Reader(name)
        if reader.identity is None and key is not None and (known := self.known(key)) is not None:
            namespace = namespace_of(key)
            if known.source != REPORTED and namespace is not None:
                reader.name_by(Identity(id=name, namespace=namespace, name=known.name, type=known.type))
        return reader

    def forget(self, reader: Reader) -> None:
        """Let go of a job of which nothing is expected: the log has it."""
        expected = reader.queued or reader.open or reader.is_asking or reader.claim.kind is not None
        if reader.waits and not expected and reader.halted is None:
            self._readers.pop(reader.name, None)

    def set_open(self, reader: Reader, *, is_open: bool) -> None:
        """Have the job looked at in turn, or not."""
        self._open += is_open - reader.open
        reader.open = is_open

    @property
    def open_jobs(self) -> int:
        """Jobs that are looked at in turn."""
        return self._open

    @property
    def leftovers(self) -> list[str]:
        """Jobs that are remembered though nothing will have them read: none, ever, but those that stand still."""
        waiting = (reader for reader in self._readers.values() if reader.waits and not reader.queued)
        return [reader.name for reader in waiting if reader.halted is None]

    # -- what is known of a job ---------------------------------------------------------------------------------------

    def known_of(self, reader: Reader) -> LastUpdate | None:
        """The log's last update of the job. None if it has none, or while the job's identity is unknown."""
        return self.known(reader.key) if reader.key is not None else None

    def seen(self, reader: Reader) -> int:
        """How many entries of the job's record were seen, by a read or by the log."""
        known = self.known_of(reader)
        return max(reader.seen, (known.revision or 0) if known is not None else 0)

    def last(self, reader: Reader) -> Last | None:
        """The last entry that was seen, by a read or by the log."""
        known = self.known_of(reader)
        if reader.last is not None or known is None or known.source == REPORTED:
            return reader.last
        return Last(known.version or 0, known.state, self.rules.is_terminal(known.state))

    def is_left_out(self, job: Snapshot) -> bool:
        """Whether the job had ended when the log began."""
        return is_left_out(self.rules, job, self.since_ns)

    # -- when it is read ----------------------------------------------------------------------------------------------

    def hint(self, reader: Reader, at: float, *, said: int = 0, hoped: int = 0) -> None:
        """Take a hint that came, or is due, at *at* (`Reader.hint`)."""
        can_wait = bool(hoped) and self.options.lists and self.backlog.can_wait()
        reader.hint(at, said=said, hoped=hoped, patient=can_wait)
        if reader.waits:
            due = reader.hint_due(self.options) if reader.patient else at
            self.schedule.put(reader, max(due, reader.not_before), Cause.HINT)

    def after_look(self, reader: Reader, now: float) -> None:
        """A look is over: have the job read again when it is time for that, unless an event is being written."""
        reader.end_look()
        if not reader.busy:
            self.plan(reader, now)

    def plan(self, reader: Reader, now: float) -> None:
        """Have the job read when it is time for that, or forgotten."""
        reader.give_up(now, self.options)
        due = reader.next_due(now, self.options)
        if due is not None:
            self.schedule.put(reader, due.at, due.cause)
        else:
            self.forget(reader)


def namespace_of(key: JobKey) -> str | None:
    """The namespace in *key*; None where it stands there as a digest."""
    return unescape(key.partition(".")[0])
