"""The log's `format` entry: by which format and rules it was made, and since when it tells of jobs. Written with care.

One entry, replaced by compare-and-set; so of two daemons that begin a log at once, one is first and the other follows.
An entry without that is a stranger's: what it says does not count, and ours is written over it (decision 0009).
"""

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from consumer.core.appends import Entry
from consumer.core.verify import is_guarded
from consumer.errors import DecodeError, ServerError, TopologyError, UnreachableError
from consumer.jetstream.recovery import first_entry, last_entry
from consumer.nats.api import PubAck
from consumer.nats.connection import Connection
from consumer.rules import Rules
from consumer.wire.entries import Format, RulesStamp, decode_format, encode_format
from consumer.wire.subjects import Names

log = structlog.get_logger()

FORMAT: Final = 1
TRIES: Final = 20
_REFUSED: Final = frozenset({10071, 10164})


Announce = Callable[[int, str], None]
"""Is told of an entry that none of ours wrote: its number, and what it means."""


class LogFormat:
    """Implements `ports.Beginning`. Made by `open_format`."""

    def __init__(self, log: "_Log", body: Format, number: int) -> None:
        self._log: Final = log
        self._body = body
        self._number = number

    @property
    def since_ns(self) -> int | None:
        """Jobs that ended until then (the orchestrator's clock) are left out; None: not agreed yet."""
        return self._body.Since

    async def agree(self, newest_ns: int) -> int:
        """Write *newest_ns* as the log's beginning, unless somebody did before; gives what the log says."""
        while self._body.Since is None:
            wanted = msgspec.structs.replace(self._body, Since=newest_ns)
            number = await self._log.put(wanted, self._number)
            if number is not None:
                self._body, self._number = wanted, number
                continue
            entry = await self._log.last()
            if entry is None:
                names = self._log.names
                raise TopologyError(
                    f"the log {names.log} has lost its entry {names.format}: somebody purged it; start again"
                )
            self._body, self._number = await self._log.told(entry, self._body.Rules), entry.number
        return self._body.Since


async def open_format(
    connection: Connection,
    names: Names,
    rules: Rules,
    *,
    accept: bool,
    found: Entry | None,
    made_ns: int,
    announce: Announce,
) -> LogFormat:
    """Read the entry *found* (None: the log is new) and see that it is ours to write. *made_ns*: when the log was made.

    One that none of ours wrote is replaced, and *announce* told. Raises `TopologyError` for another format, or for
    other rules unless *accept*.
    """
    stamp = RulesStamp(Name=rules.name, Hash=rules.hash)
    store = _Log(connection, names, made_ns, announce)
    for _ in range(TRIES):
        before = None if found is None else read_format(found)
        told = await store.told(found, stamp)
        wanted = msgspec.structs.replace(told, Rules=stamp)
        expected = 0 if found is None else found.number
        if wanted == before:
            return LogFormat(store, wanted, expected)
        if told.Rules != stamp:
            if not accept:
                raise TopologyError(
                    f"the log {names.log} was made by the rules {told.Rules.Name} ({told.Rules.Hash[:12]}), these are "
                    f"{stamp.Name} ({stamp.Hash[:12]}): name the rules it was made by with rules.file, or set "
                    "rules.accept (JOBSTATE_RULES__ACCEPT=true) to go on by these"
                )
            log.warning("log.rules", before=told.Rules.Hash[:12], now=stamp.Hash[:12])
        number = await store.put(wanted, expected)
        if number is not None:
            return LogFormat(store, wanted, number)
        found = await store.last()
    raise ServerError(f"{names.format} cannot be written: other writers are always first; is there a loop of starts?")


def read_format(entry: Entry) -> Format | None:
    """Decode *entry*; None if no daemon wrote it."""
    if not is_guarded(entry):
        return None
    try:
        return decode_format(entry.body)
    except DecodeError:
        return None


class _Log:
    """The log, as far as its format entry goes."""

    def __init__(self, connection: Connection, names: Names, made_ns: int, announce: Announce) -> None:
        self.names: Final = names
        self._connection: Final = connection
        self._made_ns: Final = made_ns
        self._announce: Final = announce

    async def last(self) -> Entry | None:
        """The entry that stands there."""
        return await last_entry(self._connection, self.names, self.names.format)

    async def told(self, entry: Entry | None, stamp: RulesStamp) -> Format:
        """The format of the log whose last one is *entry*; for a new log the format to write. Raises `TopologyError`.

        Ours replaces what was before it, so behind a stranger's entry it is the first, if it is there at all. Where it
        is not (the stranger replaced it), the log begins when it was made: a job too many is no harm, one too few is.
        """
        if entry is None:
            return Format(Format=FORMAT, Rules=stamp, Since=None, Cluster=self.names.cluster)
        body = read_format(entry)
        if body is None:
            first = await first_entry(self._connection, self.names, self.names.format)
            body = None if first is None else read_format(first)
            counts = "ours, which it was to hide, counts" if body is not None else "the log begins when it was made"
            self._announce(
                entry.number,
                f"no daemon of ours wrote the format entry that stood in the log; it is ignored: {counts}",
            )
        if body is None:
            return Format(Format=FORMAT, Rules=stamp, Since=self._made_ns, Cluster=self.names.cluster)
        if body.Format != FORMAT:
            raise TopologyError(
                f"the log {self.names.log} has format {body.Format}, this program writes {FORMAT}: use the program "
                "that made the log, or another cluster name"
            )
        return body

    async def put(self, body: Format, expected: int) -> int | None:
        """Store *body*; its number, or None where another entry was first. An unknown outcome is tried again."""
        subject = self.names.format
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(expected),
            "Nats-Expected-Last-Subject-Sequence-Subject": subject,
            "Nats-Rollup": "sub",
        }
        ack = await self._connection.ask(subject, encode_format(body), PubAck, headers=headers)
        if ack.error is None and ack.seq:
            return ack.seq
        if ack.error is not None and ack.error.err_code in _REFUSED:
            return None
        raise UnreachableError(f"{subject} could not be written: {ack.error}")
