"""The log's `format` entry: by which format and rules it was made, and since when it tells of jobs. Written with care.

One entry, replaced by compare-and-set; so of two daemons that begin a log at once, one is first and the other follows.
"""

from typing import Final

import msgspec
import structlog

from consumer.errors import DecodeError, ServerError, TopologyError, UnreachableError
from consumer.fold.asks import Entry
from consumer.jetstream.api import PubAck
from consumer.jetstream.connection import Connection
from consumer.jetstream.recovery import last_entry
from consumer.rules import Rules
from consumer.wire.entries import Format, RulesStamp, decode_format, encode_format
from consumer.wire.subjects import Names

log = structlog.get_logger()

FORMAT: Final = 1
TRIES: Final = 20
_REFUSED: Final = frozenset({10071, 10164})


class LogFormat:
    """Implements `ports.Beginning`. Made by `open_format`."""

    def __init__(self, connection: Connection, names: Names, body: Format, number: int) -> None:
        self._connection: Final = connection
        self._names: Final = names
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
            number = await _put(self._connection, self._names, wanted, self._number)
            if number is not None:
                self._body, self._number = wanted, number
            else:
                entry = await last_entry(self._connection, self._names, self._names.format)
                self._body, self._number = _read(self._names, entry)
        return self._body.Since


async def open_format(
    connection: Connection, names: Names, rules: Rules, *, accept: bool, found: Entry | None
) -> LogFormat:
    """Read the entry *found* (None: the log is new) and see that it is ours to write.

    Raises `TopologyError` for another format, or for other rules unless *accept*.
    """
    stamp = RulesStamp(Name=rules.name, Hash=rules.hash)
    for _ in range(TRIES):
        if found is None:
            body = Format(Format=FORMAT, Rules=stamp, Since=None, Cluster=names.cluster)
            expected = 0
        else:
            body, expected = _read(names, found)
            if body.Rules == stamp:
                return LogFormat(connection, names, body, expected)
            if not accept:
                raise TopologyError(
                    f"the log {names.log} was made by the rules {body.Rules.Name} ({body.Rules.Hash[:12]}), these are "
                    f"{stamp.Name} ({stamp.Hash[:12]}): name the rules it was made by with rules.file, or set "
                    "rules.accept (JOBSTATE_RULES__ACCEPT=true) to go on by these"
                )
            log.warning("log.rules", before=body.Rules.Hash[:12], now=stamp.Hash[:12])
            body = msgspec.structs.replace(body, Rules=stamp)
        number = await _put(connection, names, body, expected)
        if number is not None:
            return LogFormat(connection, names, body, number)
        found = await last_entry(connection, names, names.format)
    raise ServerError(f"{names.format} cannot be written: other writers are always first; is there a loop of starts?")


def _read(names: Names, entry: Entry | None) -> tuple[Format, int]:
    if entry is None:
        raise TopologyError(f"the log {names.log} has lost its entry {names.format}: somebody purged it; start again")
    try:
        body = decode_format(entry.body)
    except DecodeError as error:
        raise TopologyError(
            f"entry {entry.number} of {names.log} ({names.format}) cannot be read ({error}): nobody of ours wrote it; "
            f"remove it (nats stream rmm {names.log} {entry.number}) and start again"
        ) from error
    if body.Format != FORMAT:
        raise TopologyError(
            f"the log {names.log} has format {body.Format}, this program writes {FORMAT}: use the program that made "
            "the log, or another cluster name"
        )
    return body, entry.number


async def _put(connection: Connection, names: Names, body: Format, expected: int) -> int | None:
    """Store *body*; its number, or None where another entry was first. An unknown outcome is tried again."""
    subject = names.format
    headers = {
        "Nats-Expected-Last-Subject-Sequence": str(expected),
        "Nats-Expected-Last-Subject-Sequence-Subject": subject,
        "Nats-Rollup": "sub",
    }
    ack = await connection.ask(subject, encode_format(body), PubAck, headers=headers)
    if ack.error is None and ack.seq:
        return ack.seq
    if ack.error is not None and ack.error.err_code in _REFUSED:
        return None
    raise UnreachableError(f"{names.format} could not be written: {ack.error}")
