"""Which entries of a job's subjects are true: ours, in their place. The rest is foreign (design/design.md 7.9).

One of ours has a subject that fits its body; was stored with a compare-and-set over all of the job's subjects, after
the entry that stands before it; and has the `Sequence` and the `Previous` that follow. A foreign entry's number counts
(the next compare-and-set expects it), its content does not. One that is right in all of this cannot be told from ours.

Pure; who reads the entries is `consumer.jetstream`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from consumer.core.appends import Entry
from consumer.core.decide import follow
from consumer.core.dwell import since_of
from consumer.errors import DecodeError
from consumer.model import NOWHERE, InputPosition, JobKey, LastUpdate, Update
from consumer.wire.subjects import Names
from consumer.wire.update import decode_update, fits

_POSITION_MAX: Final = 40
"""Digits and the `@` of a position that can be real: two numbers of 64 bits."""


class VerifiedJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a job's entries come to.

    `known` is the last true update with the number of the last entry; None if there is no true one. `number` is that of
    the last entry, true or not (0: none). `foreign` are the numbers of those that nobody of ours wrote. `since` is when
    the job came to stand at `known` (Unix seconds; 0: not known).
    """

    known: LastUpdate | None
    number: int
    foreign: tuple[int, ...] = ()
    since: float = 0.0


NOTHING = VerifiedJob(known=None, number=0)


def read_update(names: Names, key: JobKey, entry: Entry) -> Update | None:
    """The update of *key* that *entry*, seen by itself, may be: subject, body and compare-and-set are as ours. Or None.

    Whether it is in its place only the entries before it tell: `EntryVerifier`.
    """
    states = names.states(key)
    if entry.expected is None or entry.filter != states or not entry.subject.startswith(states[:-1]):
        return None
    try:
        update = decode_update(entry.body)
    except DecodeError:
        return None
    return update if fits(names, entry.subject, update) else None


def is_next(known: LastUpdate | None, update: Update) -> bool:
    """Whether *update* says of itself that it follows *known*, the job's last true one."""
    return _follows(update, 0, None) if known is None else _follows(update, known.sequence, known.state)


def read_position(text: str) -> InputPosition:
    """The report that a header `Jobstate-Input` names; `NOWHERE` if there is none or it cannot be read."""
    sequence, _, time_ns = text.partition("@")
    if sequence.isdecimal() and time_ns.isdecimal() and len(text) <= _POSITION_MAX:
        return InputPosition(int(time_ns), int(sequence))
    return NOWHERE


def is_guarded(entry: Entry) -> bool:
    """Whether *entry* was stored as those of ours are that have a subject to themselves: checkpoint and format.

    By a compare-and-set over just that subject, which the server has checked; a stranger's plain publish has none.
    """
    return entry.filter == entry.subject and entry.expected is not None and entry.expected < entry.number


class EntryVerifier:
    """Says of a job's entries, one after another from the first in stream order, which are true."""

    def __init__(self, names: Names, key: JobKey) -> None:
        self._names: Final = names
        self._key: Final = key
        self._known: LastUpdate | None = None
        self._number = 0
        self._since = 0.0
        self._foreign: list[int] = []

    def take(self, entry: Entry) -> Update | None:
        """The update that *entry* is; None if it is foreign."""
        before, self._number = self._number, entry.number
        update = read_update(self._names, self._key, entry)
        if update is None or not _is_after(entry, before) or not is_next(self._known, update):
            self._foreign.append(entry.number)
            return None
        self._known = follow(self._known, update, entry.number, read_position(entry.input))
        self._since = since_of(update, entry.time_ns)
        return update

    @property
    def truth(self) -> VerifiedJob:
        """What the entries that were taken come to."""
        known = self._known
        if known is not None and known.number != self._number:
            known = msgspec.structs.replace(known, number=self._number)
        return VerifiedJob(known=known, number=self._number, foreign=tuple(self._foreign), since=self._since)


def verify_all(names: Names, key: JobKey, entries: Iterable[Entry]) -> VerifiedJob:
    """The truth of all of a job's entries, in stream order: each true one follows the true one before it, from 1."""
    judge = EntryVerifier(names, key)
    for entry in entries:
        judge.take(entry)
    return judge.truth


def verify_last(names: Names, key: JobKey, entries: Sequence[Entry]) -> VerifiedJob | None:
    """The truth by the last entry of each of the job's state subjects, in stream order; None if only all can tell.

    Where an entry was stored directly after the one that stands before it here, it must be the next; else others of
    ours are hidden between them. So whatever is foreign shows, unless a later entry of the same state hides it. Of the
    last one nothing may be hidden: a stranger's copies could hide a later update of ours behind them; but not with the
    compare-and-set that says that the last one directly follows the one before it.
    """
    number, sequence, state = 0, 0, None
    direct = True
    last: Update | None = None
    for entry in entries:
        update = read_update(names, key, entry)
        if update is None or not _is_after(entry, number):
            return None
        direct = entry.expected == number
        if not _follows(update, sequence, state) if direct else update.Sequence < sequence + 2:
            return None
        number, sequence, state = entry.number, update.Sequence, update.StateType
        last = update
    if last is None:
        return NOTHING
    if not direct:
        return None
    entry = entries[-1]
    known = follow(None, last, number, read_position(entry.input))
    return VerifiedJob(known=known, number=number, since=since_of(last, entry.time_ns))


def _follows(update: Update, sequence: int, state: str | None) -> bool:
    return update.Sequence == sequence + 1 and update.Previous == state


def _is_after(entry: Entry, before: int) -> bool:
    """Whether *entry* was stored after entry *before* of the job, and after no other that is still there.

    The server checked the number. What stood there may be gone since: an operator who removes a stranger's entry takes
    nothing away from what follows it.
    """
    return entry.expected is not None and before <= entry.expected < entry.number
