"""A job's history laid beside what the log has of it: the steps that follow, or what contradicts the log.

Pure functions of the log's last update and the job-level history, whole or from a later page on. When a history is read
is `consumer.core.reader`'s.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Self

import msgspec

from consumer.core.reader import Tail
from consumer.model import REPORTED, START, HistoryEntry, LastUpdate, LogPoint, Step, log_point_of
from consumer.rules import Rules
from consumer.wire.decoding import time_of

_SAME_TIME: Final = timedelta(seconds=1)
"""Times of one entry are equal; this is far from any two writes of an end."""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The steps that follow *after*; none if the log has them all."""

    after: LogPoint
    steps: tuple[Step, ...]


class Old(msgspec.Struct, frozen=True):
    """The history says less than the log has: one answer that does may be an old one."""


class Contradicted(msgspec.Struct, frozen=True, kw_only=True):
    """The log says what the record does not: *present* is to be published once, corrected.

    `reported`: no contradiction, but the record takes over a job of which there were only reports.
    """

    after: LogPoint
    present: Step
    reported: bool


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A history from entry *first* + 1 to its end, each entry with the version that it is of.

    *before* is the (version, state) of entry *first*; None in a whole history. *newest* is the highest version by then.
    """

    entries: tuple[HistoryEntry, ...]
    first: int = 0
    before: tuple[int, str] | None = None
    newest: int = -1

    @classmethod
    def after(cls, tail: Tail | None, entries: Sequence[HistoryEntry]) -> Self:
        """Read *entries*, which follow *tail* (None: they are the whole history)."""
        if tail is None:
            return cls(entries=read_versions(entries))
        return cls(
            entries=read_versions(entries, tail.newest),
            first=tail.entries,
            before=(tail.version, tail.state),
            newest=tail.newest,
        )

    @property
    def count(self) -> int:
        """How many entries the whole history has."""
        return self.first + len(self.entries)

    @property
    def last(self) -> tuple[int, str]:
        """Version and state of the last entry. There is one, here or before."""
        if self.entries:
            return self.entries[-1].version, self.entries[-1].state
        assert self.before is not None
        return self.before

    def tail(self, token: str, pages: int) -> Tail | None:
        """Where to read on: at *token*, behind *pages* of the entries here. None: there is nothing before it."""
        if not self.first + pages:
            return None
        version, state = self._at(self.first + pages)
        newest = max((entry.version for entry in self.entries[:pages]), default=self.newest)
        return Tail(self.first + pages, token, version, state, max(newest, self.newest))

    def _at(self, number: int) -> tuple[int, str]:
        if number == self.first:
            assert self.before is not None
            return self.before
        entry = self.entries[number - self.first - 1]
        return entry.version, entry.state

    def entry(self, number: int) -> HistoryEntry | None:
        """Entry *number*, from 1; None if it is not here."""
        return self.entries[number - self.first - 1] if self.first < number <= self.count else None

    def says(self, number: int) -> tuple[int, str] | None:
        """Version and state of entry *number*, from 1; None if that is not known here."""
        return self._at(number) if self.first <= number <= self.count and number else None

    def steps(self, behind: int, before: tuple[int | None, str] | None = None) -> tuple[Step, ...]:
        """The entries behind number *behind* as steps, equal neighbours merged; *before*: what they follow.

        `revision` is the number of the entry among the job-level ones, from 1 (design/design.md 6.2): in 789 of 790
        recorded jobs Bacalhau's own; in `total_timeout` one revision left two entries.
        """
        steps: list[Step] = []
        for number, entry in enumerate(self.entries[behind - self.first :], behind + 1):
            here = (entry.version, entry.state)
            if here != before:
                steps.append(_step(entry, number))
            before = here
        return tuple(steps)


def _step(entry: HistoryEntry, number: int) -> Step:
    return Step(version=entry.version, revision=number, state=entry.state, message=entry.message, time=entry.time)


def read_versions(entries: Sequence[HistoryEntry], newest: int = -1) -> tuple[HistoryEntry, ...]:
    """The *entries* with the versions that they are of, where the label of an update or rerun is another.

    Bacalhau labels these by what it read before its transaction (`pkg/orchestrator/endpoint.go`, 1.8 and 1.9): when an
    update, a rerun and a stop of one job are under way at once, the label may be that of the version before, or older.
    Each of them begins a version of its own, and what follows is labelled rightly. *newest*: the highest before.
    """
    read: list[HistoryEntry] = []
    for entry in entries:
        if entry.begins and newest >= 0 and entry.version <= newest:
            entry = msgspec.structs.replace(entry, version=newest + 1)  # noqa: PLW2901 - it is the same entry
        newest = max(newest, entry.version)
        read.append(entry)
    return tuple(read)


def lay_beside(rules: Rules, known: LastUpdate | None, part: Part) -> Joined | Old | Contradicted | None:
    """Lay *part* beside *known*, the log's last update of the job. None: only the whole history can tell."""
    if part.first and not part.entries:
        return None  # there was more when this was a page's beginning
    if known is None:
        return None if part.first else Joined(after=START, steps=part.steps(0))
    if known.source == REPORTED:
        return None if part.first else correct(known, part) if part.count else Old()
    if known.revision is None:
        return _lay_beside_derived(known, part)
    if part.count < known.revision or not part.count:
        return None if part.first else Old()
    if part.says(known.revision) != (known.version, known.state):  # before a page nobody knows
        return None if part.first else correct(known, part)
    if rules.is_terminal(known.state) and (apart := _time_apart(known, part)):
        # An earlier time may be that of an old answer; a later one is of what came since.
        return None if part.first else correct(known, part) if apart > timedelta(0) else Old()
    return Joined(after=log_point_of(known), steps=part.steps(known.revision, (known.version, known.state)))


def _lay_beside_derived(known: LastUpdate, part: Part) -> Joined | Old | Contradicted | None:
    """The log's last update was derived while there was no orchestrator, so nobody knows which entry brought it.

    The record has at least as many entries as the log has updates, and goes on behind the first of the others that says
    the same. What the frames did not tell, it then tells.
    """
    if part.first:
        return None
    if not part.entries:
        return Old()
    same = (
        number for number, one in enumerate(part.entries, 1) if (one.version, one.state) == (known.version, known.state)
    )
    revision = next((number for number in same if number >= known.sequence), part.count)
    there = part.says(revision)
    if there != (known.version, known.state):
        return correct(known, part)
    return Joined(after=log_point_of(known), steps=part.steps(revision, there))


def _time_apart(known: LastUpdate, part: Part) -> timedelta:
    """How much later the entry that the log stands at was written than the log says; 0 if not, or if nobody knows.

    An older copy of the orchestrator's data was restored, and what had been lost was done again, alike.
    """
    there = part.entry(known.revision or 0)
    told = time_of(known.time_ns)
    if told is None or there is None or there.time is None or abs(there.time - told) <= _SAME_TIME:
        return timedelta(0)
    return there.time - told


def correct(known: LastUpdate | None, part: Part) -> Contradicted:
    """What follows when the record, *part* whole and not empty, does not say what the log has: its present state."""
    is_reported = known is not None and known.source == REPORTED
    return Contradicted(after=log_point_of(known), present=_step(part.entries[-1], part.count), reported=is_reported)


def ended_before(rules: Rules, part: Part, since_ns: int) -> bool:
    """Whether the job had ended when the log began, at *since_ns* (0: with the first job of all)."""
    if not part.entries or not since_ns or not rules.is_terminal(part.entries[-1].state):
        return False
    ended, began = part.entries[-1].time, time_of(since_ns)  # both to the nearest microsecond
    return ended is not None and began is not None and ended <= began
