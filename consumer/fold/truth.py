"""Which entries of a job's subjects are true: ours, in their place. The rest is foreign (`DESIGN.md` 7.9).

One of ours has a subject that fits its body, and a `Sequence` that follows. A foreign entry's number counts (the next
compare-and-set expects it), its content does not. Pure; who reads the entries is `consumer.jetstream`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from consumer.errors import DecodeError
from consumer.fold.asks import Entry
from consumer.fold.decide import follow
from consumer.model import NOWHERE, JobKey, Known, Position, Update
from consumer.wire.subjects import Names
from consumer.wire.update import decode_update, fits

_POSITION_MAX: Final = 40
"""Digits and the `@` of a position that can be real: two numbers of 64 bits."""


class Truth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a job's entries come to.

    `known` is the last true update with the number of the last entry; None if there is no true one. `number` is that of
    the last entry, true or not (0: none). `foreign` are the numbers of those that nobody of ours wrote.
    """

    known: Known | None
    number: int
    foreign: tuple[int, ...] = ()


NOTHING = Truth(known=None, number=0)


def read_update(names: Names, key: JobKey, entry: Entry) -> Update | None:
    """The update that *entry* is, or None if it is not one of *key*'s whose subject fits its body."""
    try:
        update = decode_update(entry.body)
    except DecodeError:
        return None
    if names.key_of_state(entry.subject) != key or not fits(names, entry.subject, update):
        return None
    return update


def read_position(text: str) -> Position:
    """The report that a header `Jobstate-Input` names; `NOWHERE` if there is none or it cannot be read."""
    sequence, _, time_ns = text.partition("@")
    if sequence.isdecimal() and time_ns.isdecimal() and len(text) <= _POSITION_MAX:
        return Position(int(time_ns), int(sequence))
    return NOWHERE


def judge_all(names: Names, key: JobKey, entries: Sequence[Entry]) -> Truth:
    """The truth of all of a job's entries, in stream order: each true one follows the true one before it, from 1."""
    known: Known | None = None
    foreign: list[int] = []
    for entry in entries:
        update = read_update(names, key, entry)
        following = 1 if known is None else known.sequence + 1
        if update is None or update.Sequence != following:
            foreign.append(entry.number)
        else:
            known = follow(known, update, entry.number, read_position(entry.input))
    number = entries[-1].number if entries else 0
    if known is not None and known.number != number:
        known = msgspec.structs.replace(known, number=number)
    return Truth(known=known, number=number, foreign=tuple(foreign))


def judge_last(names: Names, key: JobKey, entries: Sequence[Entry]) -> Truth | None:
    """The truth by the last entry of each of the job's state subjects, in stream order; None if only all can tell.

    The update before the last one is the last of its own subject, unless both have the same state: so a `Sequence` that
    does not follow shows here. A stranger's copies could hide a later update of ours behind them; but not with the
    compare-and-set that says that the last one directly follows the one before it.
    """
    if not entries:
        return NOTHING
    last = read_update(names, key, entries[-1])
    if last is None:
        return None
    before = entries[-2] if len(entries) > 1 else None
    if entries[-1].expected != (before.number if before is not None else 0):
        return None
    if before is None:
        return _truth_of(last, entries[-1]) if last.Sequence == 1 else None
    update = read_update(names, key, before)
    if update is None or update.Sequence + 1 != last.Sequence or update.StateType != last.Previous:
        return None
    return _truth_of(last, entries[-1])


def _truth_of(update: Update, entry: Entry) -> Truth:
    return Truth(known=follow(None, update, entry.number, read_position(entry.input)), number=entry.number)
