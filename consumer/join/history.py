"""A job's record, laid beside what the log has of it: the steps that join, or what stands against them.

Pure functions of (what the log has, the whole job-level history). When to read is `consumer.join.join`.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

from consumer.model import REPORTED, START, HistoryEntry, Known, Place, Step, place_of
from consumer.wire.decoding import time_of

_SAME_TIME: Final = timedelta(seconds=1)
"""Times of one entry are equal; this is far from any two writes of an end."""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The steps that follow *after*; none if the log has them all."""

    after: Place
    steps: tuple[Step, ...]


class Old(msgspec.Struct, frozen=True):
    """The history is shorter than what the log has: an answer from before. Read again."""


class Contradicted(msgspec.Struct, frozen=True, kw_only=True):
    """The log says what the record does not: *present* is to be published once, corrected.

    `reported`: no contradiction, but the record takes a job over of which there were only reports.
    """

    after: Place
    present: Step
    reported: bool


def read_versions(entries: Sequence[HistoryEntry]) -> Sequence[HistoryEntry]:
    """The whole history *entries* with the versions that they are of, where the label of an update or rerun is another.

    Bacalhau labels these by what it read before its transaction (`pkg/orchestrator/endpoint.go`, 1.8 and 1.9): when an
    update, a rerun and a stop of one job are under way at once, the label may be that of the version before, or older.
    Each of them begins a version of its own, and what follows is labelled rightly.
    """
    read: list[HistoryEntry] = []
    newest = -1
    for entry in entries:
        if entry.begins and read and entry.version <= newest:
            entry = msgspec.structs.replace(entry, version=newest + 1)  # noqa: PLW2901 - it is the same entry
        newest = max(newest, entry.version)
        read.append(entry)
    return read


def steps_of(
    entries: Sequence[HistoryEntry], first: int = 0, before: tuple[int | None, str] | None = None
) -> tuple[Step, ...]:
    """The entries from index *first* on as steps, equal neighbours merged; *before*: the (version, state) they follow.

    `Revision` is the number of the entry among the job-level ones, from 1 (design/design.md 6.2): in 789 of 790
    recorded jobs Bacalhau's own; in `total_timeout` one revision left two entries.
    """
    steps: list[Step] = []
    for number, entry in enumerate(entries[first:], first + 1):
        here = (entry.version, entry.state)
        if here != before:
            steps.append(
                Step(
                    version=entry.version,
                    revision=number,
                    state=entry.state,
                    message=entry.message,
                    time=entry.time,
                )
            )
        before = here
    return tuple(steps)


def join_history(known: Known | None, entries: Sequence[HistoryEntry]) -> Joined | Old | Contradicted:
    """Lay the whole history *entries* (oldest first) beside *known*, the log's last update of the job."""
    if known is None:
        return Joined(after=START, steps=steps_of(entries))
    after = place_of(known)
    if known.source == REPORTED:
        if not entries:
            return Old()
        return Contradicted(after=after, present=_present(entries), reported=True)
    revision = known.revision
    if revision is None:
        # Derived while there was no orchestrator: the record has at least as many entries as the log has updates, and
        # goes on behind the first of the others that says the same. What the frames did not tell, it then tells.
        same = (
            number for number, one in enumerate(entries, 1) if (one.version, one.state) == (known.version, known.state)
        )
        revision = next((number for number in same if number >= known.sequence), len(entries))
    if len(entries) < revision or not entries:
        return Old()
    there = entries[revision - 1]
    if (there.version, there.state) != (known.version, known.state):
        return Contradicted(after=after, present=_present(entries), reported=False)
    return Joined(after=after, steps=steps_of(entries, revision, (known.version, known.state)))


def time_apart(known: Known, entries: Sequence[HistoryEntry]) -> timedelta:
    """How much later the entry that the log stands at was written than the log says; 0 if not, or if nobody knows.

    An older copy of the orchestrator's data was restored, and what had been lost was done again, alike. Only of an end:
    what a frame's copy of the job told has the job's own time, which is another write's clock.
    """
    at = (known.revision or 0) - 1
    told, there = time_of(known.time_ns), entries[at].time if 0 <= at < len(entries) else None
    if told is None or there is None or abs(there - told) <= _SAME_TIME:
        return timedelta(0)
    return there - told


def went_back(known: Known | None, entries: Sequence[HistoryEntry]) -> Contradicted:
    """What follows when a history that is shorter than what the log has is no old answer: the record went back."""
    return Contradicted(after=place_of(known), present=_present(entries), reported=False)


def _present(entries: Sequence[HistoryEntry]) -> Step:
    last = entries[-1]
    return Step(version=last.version, revision=len(entries), state=last.state, message=last.message, time=last.time)
