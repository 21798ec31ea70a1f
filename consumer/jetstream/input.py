"""The input stream, read in order from a position, without acknowledgements (design/design.md 7.5): `ports.Input`.

It begins, and begins again after whatever happened, in one way: if the entry at the last position is still the one with
its time, after it; else from the first. `consumer.wire` reads an entry; `consumer.core` decides.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from random import random
from typing import Final, Literal

import msgspec
import structlog

from consumer.errors import ConnectionLostError, UnreachableError
from consumer.jetstream.pull import DoubtError, Pull, Pulled, StallError, refusal
from consumer.model import NOWHERE, InputPosition, Notice
from consumer.nats.api import NO_MESSAGE, TRACEPARENT, StreamInfo, header, time_ns
from consumer.nats.connection import Connection
from consumer.nats.faults import with_step
from consumer.nats.requests import get_message, stream_info
from consumer.ports import Delivery
from consumer.wire.subjects import Names

log = structlog.get_logger()

RETRY_FIRST_S: Final = 0.25
RETRY_MAX_S: Final = 5.0
CALM_S: Final = 10.0
"""A consumer that lived so long was none of those that fail at once."""

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_HEADERS: Final = b"NATS/1.0\r\n"
_STATUS_LINE: Final = b"NATS/1.0 "


BreakKind = Literal["gap", "anew", "tail"]
"""`gap`: entries are gone. `anew`: the input was made anew. `tail`: it lost its end, or others are there."""

_TEXTS: Final[Mapping[BreakKind, str]] = {
    "gap": "entries of the input are gone: reports between these two may be missing",
    "anew": "the input was made anew: it is read from its first entry",
    "tail": "the input has lost its tail: it is read from its first entry; reports after it may be missing",
}


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """Where reading did not go on with the entry that followed *after*: something to announce.

    *next*: the sequence of the entry that comes next, or will.
    """

    kind: BreakKind
    after: InputPosition
    next: int


class JetStreamInput:
    """Implements `consumer.ports.Input`. `start` first; then `batch`, for ever.

    Everything that is stored after the position comes, in order; after a doubt nothing is left out and nothing comes
    twice. Where that cannot be, because the stream has lost it, `breaks` says so; whoever reads it empties it.
    """

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection: Final = connection
        self._stream: Final = names.input
        self._pull: Pull | None = None
        self._place = NOWHERE
        self._failures = 0
        self._opened_at = 0.0
        self._changed: Final = asyncio.Event()
        self._turns = 0
        self._stalled = False  # then a heartbeat proves nothing: only an entry does
        self._nothing_until = 0  # no entry waits up to this sequence: a new consumer said so
        self.breaks: list[Break] = []
        self.restarts = 0
        """How often a consumer that stood was given up, and another one made."""
        self.trouble = "nothing has come from it yet, not even a heartbeat"
        """Why nothing is read: what ended the last consumer, until something comes from the next. Empty: it goes on."""
        self.tell: Callable[[], None] = lambda: None
        """Called when `trouble` has changed. It must not raise, and not wait."""
        connection.watch(self._hear_connection)

    @property
    def position(self) -> InputPosition:
        """The last entry given, or where it began."""
        return self._place

    @property
    def turns(self) -> int:
        """Rises while it is read, or tried to be, whatever comes or does not: it stands still for 20 s at most."""
        return self._turns + (0 if self._pull is None else self._pull.turns)

    def reaches(self, last_seq: int) -> None:
        """Say that the stream holds an entry *last_seq*. If none comes for a while, the consumer is made anew."""
        if self._pull is not None and last_seq > max(self._place.sequence, self._nothing_until):
            self._pull.owe()

    async def start(self, after: InputPosition | None) -> None:
        """Begin after the entry at *after* (None: with the first).

        Raises `LogWentBackError` if there is no such stream, `UnreachableError` if nobody answers.
        """
        self._place = after or NOWHERE
        await self._begin()

    async def stop(self) -> None:
        """End the consumer. Entries that were not taken are not lost: the next start reads them."""
        pull, self._pull = self._pull, None
        if pull is not None:
            self._turns += pull.turns
            await pull.close()

    async def batch(self) -> list[Delivery]:
        """Wait until something has come, then everything that has.

        Raises `LogWentBackError` if the stream is gone, `ConnectionLostError` if somebody closed the connection.
        """
        while True:
            self._turns += 1
            pull = self._pull
            try:
                if pull is None:
                    await self._begin()
                    continue
                return self._deliver(await pull.batch())
            except (DoubtError, UnreachableError) as error:
                await self._doubt(error)

    async def _doubt(self, error: Exception) -> None:
        if self._pull is not None:  # else it is the same trouble, and was told
            self.restarts += 1
            log.warning("input.doubt", stream=self._stream, reason=str(error))
        self._stalled = isinstance(error, StallError)
        self._settle(with_step(error) or type(error).__name__)
        await self.stop()
        if self._connection.is_closed:
            raise ConnectionLostError(f"the connection to {self._connection.address} was closed while it was read")
        if not self._connection.is_connected:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_MAX_S):
                    await self._changed.wait()
            return
        now = asyncio.get_running_loop().time()
        if self._opened_at and now - self._opened_at > CALM_S:
            self._failures = 0
        self._opened_at = 0.0  # what fails after this one has not lived at all
        if self._failures:
            pause = min(RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 10), RETRY_MAX_S)
            await asyncio.sleep(pause * (0.5 + random() / 2))
        self._failures += 1

    def _prove(self) -> None:
        if not self._stalled:
            self._settle("")

    def _settle(self, trouble: str) -> None:
        self.trouble = trouble
        self.tell()

    def _hear_connection(self) -> None:
        self._changed.set()
        if self._pull is not None:
            self._pull.doubt("the connection was lost, or is another")

    async def _begin(self) -> None:
        info = await stream_info(self._connection, self._stream)
        if info.error is not None:
            raise refusal(self._connection, self._stream, info.error)
        first = await self._first(info)
        pull = Pull(self._connection, self._stream, self._prove)
        try:
            await pull.open(
                {"deliver_policy": "by_start_sequence", "opt_start_seq": first} if first else {"deliver_policy": "all"}
            )
        except BaseException:
            await pull.close()
            raise
        if not pull.pending:
            # An entry may have been deleted by itself: its sequence is the stream's last, and it never comes.
            self._nothing_until, self._stalled = info.state.last_seq, False
        self._pull = pull
        self._opened_at = asyncio.get_running_loop().time()

    async def _first(self, info: StreamInfo) -> int:
        """The sequence to begin with; 0: the first that there is. Beyond the last a consumer waits for ever (1.4)."""
        place = self._place
        if place == NOWHERE:
            return 0
        found = await get_message(self._connection, self._stream, {"seq": place.sequence})
        if found.message is not None and time_ns(found.message.time) == place.time_ns:
            return place.sequence + 1
        if found.error is not None and found.error.err_code != NO_MESSAGE:
            raise refusal(self._connection, self._stream, found.error)
        first = max(info.state.first_seq, 1)
        if time_ns(info.created) > place.time_ns:
            self._break("anew", first)
        elif found.message is None and place.sequence < first:
            if first > place.sequence + 1:
                self._break("gap", first)
        elif found.message is not None or place.sequence > info.state.last_seq:
            self._break("tail", first)
        # Else the entry was deleted by itself: those after it come again with the ones before, and are known.
        self._place = NOWHERE
        return 0

    def _break(self, kind: BreakKind, goes_on_with: int) -> None:
        found = Break(kind=kind, after=self._place, next=goes_on_with)
        self.breaks.append(found)
        log.warning("input.break", stream=self._stream, kind=kind, after=str(found.after), next=found.next)

    def _deliver(self, pulled: list[Pulled]) -> list[Delivery]:
        self._failures = 0
        if self._stalled:
            self._stalled = False
            self._settle("")
        found = []
        place = self._place
        for number, time, subject, data, headers in pulled:
            if number != place.sequence + 1 and place.sequence:
                self._place = place
                self._break("gap", number)
            place = InputPosition(time, number)
            if headers is None:
                found.append(Delivery(subject.decode("utf-8", "surrogateescape"), data, place))
            else:
                trace = header(headers, TRACEPARENT)
                found.append(
                    Delivery(
                        subject.decode("utf-8", "surrogateescape"),
                        data,
                        place,
                        trace if _TRACEPARENT.match(trace) else "",
                        _foreign(headers),
                    )
                )
        self._place = place
        return found


def _foreign(headers: bytes) -> str:
    """Why an entry with such headers is no producer's report; empty if it may be one.

    A server's answer that was steered into the stream (design/nats.md 8) has a status line, or says whose entry it is.
    """
    if not headers.startswith(_HEADERS):
        return (
            "a server's answer: it has a status line" if headers.startswith(_STATUS_LINE) else "a broken header block"
        )
    if b"\r\nNats-Sequence:" in headers and b"\r\nNats-Stream:" in headers:
        return "a server's answer: an entry of another stream"
    return ""


def notice_of(found: Break) -> Notice:
    """What a reader of the log is told of a break of the input."""
    return Notice(
        kind="input",
        origin=f"{found.kind}-{found.after.sequence}-{found.after.time_ns}-{found.next}",
        text=_TEXTS[found.kind],
        facts={"kind": found.kind, "after": str(found.after), "next": found.next},
    )
