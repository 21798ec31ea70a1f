"""Reads the log at a start: where the input was confirmed to, by which format, and the last entries of each job.

Reads in the order that design/design.md 7.4 needs; judges nothing: which entries are true is `consumer.core.verify`.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec

from consumer.core.appends import Entry
from consumer.core.verify import is_guarded
from consumer.errors import DecodeError, LogWentBackError
from consumer.jetstream.pull import DoubtError, Pull, refusal
from consumer.model import InputPosition, JobKey
from consumer.nats.api import NO_MESSAGE, NO_STREAM, Problem, StreamInfo, entry_of
from consumer.nats.connection import Connection
from consumer.nats.requests import get_message, stream_info
from consumer.wire.entries import decode_checkpoint
from consumer.wire.subjects import Names

TRIES: Final = 3
FILTERS_MAX: Final = 128
"""For at most this many jobs only their entries are read; for more, those of all jobs: always in one pass."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Which log it is, and how far it reaches: *created* is another for a stream made anew."""

    created: str
    last_seq: int


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """The log as a start found it.

    `checkpoint` is None if there is none of ours; `checkpoint_number` is its entry's all the same (0: none): the next
    one expects it. `entries`: of each job the last entry of each of its subjects, in stream order.
    """

    mark: Mark
    checkpoint: InputPosition | None
    checkpoint_number: int
    format: Entry | None
    entries: dict[JobKey, list[Entry]]


async def probe(connection: Connection, names: Names) -> Mark:
    """Which log there is now. A new writer looks before it sends anything (design/design.md 7.7).

    Raises `LogWentBackError` if there is none, `UnreachableError` where it is worth trying again.
    """
    info = await stream_info(connection, names.log)
    if info.error is not None:
        raise refusal(connection, names.log, info.error)
    return Mark(created=info.created, last_seq=info.state.last_seq)


def mark_of(connection: Connection, names: Names, info: StreamInfo | None) -> Mark:
    """The same of what the server has said already; None: there is no log."""
    if info is None:
        raise refusal(connection, names.log, Problem(err_code=NO_STREAM))
    return Mark(created=info.created, last_seq=info.state.last_seq)


async def recover(connection: Connection, names: Names, *, shard: str = "0") -> Recovered:
    """Read the log: first the checkpoint, then how far the log reaches, then every job at least so far.

    The other way round an event below the checkpoint could be missing in what was read. Raises as `probe`, and
    `DoubtError` if the way to the server is lost again and again.
    """
    marked = await last_entry(connection, names, names.checkpoint(shard))
    form = await last_entry(connection, names, names.format)
    mark = await probe(connection, names)
    for attempt in range(TRIES):
        try:
            entries = await _read_jobs(connection, names, mark.last_seq)
            break
        except DoubtError:
            if attempt == TRIES - 1:
                raise
    else:
        raise AssertionError
    again = await probe(connection, names)
    if again.created != mark.created or again.last_seq < mark.last_seq:
        raise LogWentBackError(f"the log {names.log} was made anew while it was read: it is read again")
    return Recovered(
        mark=mark,
        checkpoint=read_checkpoint(marked),
        checkpoint_number=marked.number if marked is not None else 0,
        format=form,
        entries=entries,
    )


async def read_whole(
    connection: Connection, names: Names, last: Mapping[JobKey, int]
) -> AsyncIterator[tuple[JobKey, Entry]]:
    """Every entry of the jobs in *last*, in stream order, at least up to the number that it has for each.

    Raises `UnreachableError` or `DoubtError` where it is worth trying again: from the first entry.
    """
    if not last:
        return
    filters = tuple(map(names.states, last)) if len(last) <= FILTERS_MAX else (f"{names.state_prefix}>",)
    async for key, entry in _entries_of_jobs(connection, names, "all", filters, max(last.values())):
        if key in last:
            yield key, entry


async def _entries_of_jobs(
    connection: Connection, names: Names, policy: str, filters: tuple[str, ...], until: int
) -> AsyncIterator[tuple[JobKey, Entry]]:
    """Read jobs' entries by a consumer with *policy* and *filters*, until it has reached the entry *until*."""
    pull = Pull(connection, names.log)
    try:
        await pull.open({"deliver_policy": policy}, filters)
        reached = 0
        left = pull.pending
        while reached < until:
            if left <= 0 and await _get(connection, names.log, {"seq": until}) is None:
                break  # it was purged: nothing more will come
            pull.owe()
            pulled = await pull.batch()
            left -= len(pulled)
            for number, time, subject, data, headers in pulled:
                text = subject.decode("utf-8", "surrogateescape")
                key = names.key_of_state(text)
                if key is not None:
                    yield key, entry_of(text, data, headers, number, time)
            reached = pulled[-1][0]
    finally:
        await pull.close()


async def first_entry(connection: Connection, names: Names, subject: str) -> Entry | None:
    """The log's first entry under *subject* (or a filter), as its leader knows it."""
    return await _get(connection, names.log, {"seq": 1, "next_by_subj": subject})


async def last_entry(connection: Connection, names: Names, subject: str) -> Entry | None:
    """The log's last entry under *subject* (or a filter), as its leader knows it."""
    return await _get(connection, names.log, {"last_by_subj": subject})


async def _get(connection: Connection, stream: str, which: dict[str, str | int]) -> Entry | None:
    found = await get_message(connection, stream, which)
    if found.message is not None:
        return found.message.entry()
    if found.error is not None and found.error.err_code != NO_MESSAGE:
        raise refusal(connection, stream, found.error)
    return None


def read_checkpoint(entry: Entry | None) -> InputPosition | None:
    """The place that *entry* names; None if it is none of ours, as if there were none.

    Then the input is read from its first entry, which costs time and nothing else.
    """
    if entry is None or not is_guarded(entry):
        return None
    try:
        return decode_checkpoint(entry.body)
    except DecodeError:
        return None


async def _read_jobs(connection: Connection, names: Names, last_seq: int) -> dict[JobKey, list[Entry]]:
    """The last entry of each subject, from a consumer that has seen *last_seq*.

    It may be on a server that is behind the leader. It reads the log's other subjects too: the entry at *last_seq*
    is the last of its subject, and when it or a later one has come, so has everything before it.
    """
    found: dict[JobKey, list[Entry]] = {}
    if not last_seq:
        return found
    async for key, entry in _entries_of_jobs(connection, names, "last_per_subject", (">",), last_seq):
        _keep(found, key, entry)
    return found


def _keep(found: dict[JobKey, list[Entry]], key: JobKey, entry: Entry) -> None:
    """Put *entry* behind the job's others; one of the same subject was its last until then."""
    entries = found.get(key)
    if entries is None:
        found[key] = [entry]
        return
    for index, other in enumerate(entries):
        if other.subject == entry.subject:
            del entries[index]
            break
    entries.append(entry)
