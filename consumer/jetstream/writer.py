"""Carries out what the lanes ask of the log: appends with compare-and-set, and read-backs. Implements `ports.Log`.

Decides nothing: what an answer means for a job is `consumer.core.lanes`. Every request has a reply subject of its own
under one inbox, and one table says what is open and until when; so no append costs a task, a future or a timer.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import structlog
from nats.aio.subscription import Subscription

from consumer.core.appends import (
    Answer,
    Append,
    AppendStream,
    Busy,
    Entry,
    Outcome,
    Outcomes,
    Read,
    ReadBack,
    Refused,
    Stored,
    Unanswered,
)
from consumer.errors import ConnectionLostError, JobstateError, LogWentBackError
from consumer.nats.api import (
    MESSAGE_GET,
    NO_MESSAGE,
    NO_STREAM,
    STREAM_INFO,
    UNAVAILABLE,
    MessageAnswer,
    Problem,
    PubAck,
    StreamInfo,
)
from consumer.nats.connection import Connection
from consumer.wire.subjects import Names

log = structlog.get_logger()

ANSWER_S: Final = 2.0
"""Seconds to wait for an answer; then the lanes ask again."""
LOOK_S: Final = 1.0
"""Between two looks whether a stream that nobody answers for is still there."""
CHUNK: Final = 64 * 1024
"""Bytes that go to the socket at once: the server stores the first while the next are made."""

_NUMBER: Final = re.compile(r"wrong last sequence: (\d+)")
_BUSY: Final = frozenset({10164, 10158})
_WRONG_SEQUENCE: Final = 10071
_NO_ROOM: Final = frozenset({10077, 10023, 10002, 10047})
_TOO_MANY: Final = 10167
_FAULTS: Final = {
    10054: "an entry is larger than the stream's max_msg_size: raise it, or report this",
    10060: "another stream takes our subjects: remove it, or its subjects",
    10070: "somebody sent Nats-Expected-Last-Msg-Id, which stops a replicated stream for good: restore a backup",
    10097: "an entry's headers are larger than 64k: report this",
    10109: "the stream is sealed: nothing can be written to it any more; use another cluster name",
    10111: "the stream does not allow roll-ups: set allow_rollup_hdrs",
    10194: "the server is older than its data: upgrade it",
}

_pub_ack: Final = msgspec.json.Decoder(PubAck)
_message: Final = msgspec.json.Decoder(MessageAnswer)
_info: Final = msgspec.json.Decoder(StreamInfo)

T = TypeVar("T")


class _Open(msgspec.Struct, frozen=True, gc=False):
    """One request that is not answered. *entries*: what a read-back found before. *ask* None: a look at *stream*."""

    deadline: float
    ask: Append | ReadBack | None
    stream: str
    entries: tuple[Entry, ...] = ()


class JetStreamWriter:
    """Implements `consumer.ports.Log` over a writer's connection. Made by `open_writer`.

    Ends with its connection: `send` and `answers` raise `ConnectionLostError`; what was open may or may not be stored.
    """

    def __init__(self, connection: Connection, names: Names, created: str, within_s: float, outcomes: Outcomes) -> None:
        self._outcomes: Final = outcomes
        self._connection: Final = connection
        self._streams: Final[Mapping[AppendStream, str]] = {"log": names.log, "refused": names.refused}
        self._log: Final = names.log
        self._created: Final = created
        self._within_s: Final = within_s
        self._inbox: Final = connection.new_inbox() + "."
        self._subscription: Subscription | None = None
        self._serial = 0
        self._open: dict[int, _Open] = {}
        self._arrived: list[tuple[bytes, bytes, bytes | None]] = []
        self._something: Final = asyncio.Event()
        self._looks: dict[str, float] = {}

    async def open(self) -> None:
        """Subscribe to the answers."""
        self._connection.watch(self._something.set)
        self._subscription = await self._connection.listen(f"{self._inbox}*", self._put_aside)

    @property
    def in_flight(self) -> int:
        """Requests that are sent and unanswered."""
        return len(self._open)

    @property
    def deaf(self) -> int:
        """How often a task of the connection had ended while it looked alive: once ends it."""
        return self._connection.deaf

    async def close(self) -> None:
        """End the connection. An open append may or may not be stored."""
        for opened in self._open.values():
            self._count(opened, "lost")
        self._open.clear()
        await self._connection.close()

    # -- out ----------------------------------------------------------------------------------------------------------

    async def send(self, asks: Sequence[Append | ReadBack]) -> None:
        """Send them all. Returns when they are under way; waits where too much is. Raises `ConnectionLostError`."""
        deadline = asyncio.get_running_loop().time() + self._within_s
        if not self._open:
            self._something.set()  # whoever waits for answers waits without a deadline
        parts: list[bytes] = []
        size = 0
        for ask in asks:
            if type(ask) is Append:
                self._serial += 1
                self._open[self._serial] = _Open(deadline, ask, self._streams[ask.stream])
                head = self._head(ask)
                parts += (head, ask.body, b"\r\n")
                size += len(head) + len(ask.body)
            elif isinstance(ask, ReadBack):
                parts.append(self._get(ask, _Open(deadline, ask, self._log), 1 if ask.whole else None))
            if size > CHUNK:
                await self._connection.send_raw(b"".join(parts))
                parts.clear()
                size = 0
        if parts:
            await self._connection.send_raw(b"".join(parts))

    def _head(self, ask: Append) -> bytes:
        """Everything of an append that comes before its body. Made by hand: nats-py's way takes three times as long."""
        headers = (
            f"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {ask.expected}\r\n"
            f"Nats-Expected-Last-Subject-Sequence-Subject: {ask.filter}\r\n"
        )
        if ask.input:
            headers += f"Jobstate-Input: {ask.input}\r\n"
        if ask.traceparent:
            headers += f"traceparent: {ask.traceparent}\r\n"
        if ask.rollup:
            headers += "Nats-Rollup: sub\r\n"
        headers += "\r\n"
        size = len(headers)
        total = size + len(ask.body)
        if total > self._connection.max_payload:
            # Sent all the same, it would close the connection (design/nats.md 3), and the next one.
            raise JobstateError(
                f"{ask.subject}: an entry of {total} bytes is more than the server takes "
                f"({self._connection.max_payload}): raise its max_payload, or lower limits.message_bytes"
            )
        return f"HPUB {ask.subject} {self._inbox}{self._serial} {size} {total}\r\n{headers}".encode("ascii")

    def _get(self, ask: ReadBack, opened: _Open, first: int | None) -> bytes:
        """The request for the last entry under the filter, or for the first at or after number *first*."""
        which = {"last_by_subj": ask.filter} if first is None else {"seq": first, "next_by_subj": ask.filter}
        return self._request(MESSAGE_GET.format(opened.stream), msgspec.json.encode(which), opened)

    def _request(self, subject: str, body: bytes, opened: _Open) -> bytes:
        self._serial += 1
        self._open[self._serial] = opened
        return b"PUB %s %s%d %d\r\n%s\r\n" % (subject.encode(), self._inbox.encode(), self._serial, len(body), body)

    # -- in -----------------------------------------------------------------------------------------------------------

    async def answers(self) -> list[tuple[int, Answer]]:
        """Wait until something is answered (or its time is over), then everything that is: (token, answer).

        Raises `ConnectionLostError` when the connection is gone and all that came over it is given; `LogWentBackError`
        if the log is gone or another; `JobstateError` for an answer that says that something of ours is wrong.
        """
        while True:
            found, more = self._read() if self._arrived else ([], b"")
            if more:
                try:
                    await self._connection.send_raw(more)
                except ConnectionLostError as error:
                    # Earlier answers count; the next call raises that the connection is gone.
                    log.debug("writer.lost", reason=str(error))
            if not found:
                if not self._connection.is_connected:
                    raise ConnectionLostError(
                        f"the connection to {self._connection.address} is gone ({self._connection.last_trouble})"
                    )
                found = self._expire()
            if found:
                return found
            self._something.clear()
            deadline = next(iter(self._open.values())).deadline if self._open else None
            try:
                async with asyncio.timeout_at(deadline):
                    await self._something.wait()
            except TimeoutError:
                await asyncio.sleep(0)  # after a pause of ours the answers may be there, unread: they come first

    def _put_aside(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._arrived.append((subject, data, headers))
        self._something.set()

    def _expire(self) -> list[tuple[int, Answer]]:
        """Take the requests that waited too long: all wait equally long, so the oldest stand first."""
        now = asyncio.get_running_loop().time()
        over = []
        for serial, opened in self._open.items():
            if opened.deadline > now:
                break
            over.append(serial)
        found: list[tuple[int, Answer]] = []
        for serial in over:
            opened = self._open.pop(serial)
            self._count(opened, "unanswered")
            denied = self._connection.forbidden(_subject(opened), f"{self._inbox}*") if opened.ask is not None else None
            if denied is None:
                self._connection.unanswered(opened.deadline - self._within_s)
            if opened.ask is not None:
                found.append((opened.ask.token, Unanswered("timeout" if denied is None else denied.detail)))
        return found

    def _count(self, opened: _Open, outcome: Outcome) -> None:
        if type(opened.ask) is Append:
            self._outcomes[opened.ask.stream, outcome] += 1

    def _read(self) -> tuple[list[tuple[int, Answer]], bytes]:
        """Take the arrived answers, and the requests that follow. It does not wait, so no answer gets lost."""
        arrived, self._arrived = self._arrived, []
        self._connection.answered()
        found: list[tuple[int, Answer]] = []
        more: list[bytes] = []
        at = len(self._inbox)
        pop = self._open.pop
        for subject, data, headers in arrived:
            serial = subject[at:]
            opened = pop(int(serial), None) if serial.isdigit() else None
            if opened is None:
                continue  # too late: its ask was given up, and is asked again
            ask = opened.ask
            if not data and headers is not None and headers.startswith(b"NATS/1.0 503"):
                if ask is not None:
                    self._count(opened, "unanswered")
                    found.append((ask.token, Unanswered("no responders")))
                    more.append(self._look(opened.stream))
            elif type(ask) is Append:
                ack = _decode(data, _pub_ack, opened.stream)
                if ack.error is None and ack.seq:
                    self._outcomes[ask.stream, "stored"] += 1
                    found.append((ask.token, Stored(ack.seq)))
                else:
                    answer = self._refusal(opened.stream, ack.error)
                    self._count(opened, _outcome(answer))
                    found.append((ask.token, answer))
            elif isinstance(ask, ReadBack):
                self._read_back(ask, opened, data, found, more)
            else:
                self._see(opened.stream, data)
        return found, b"".join(more)

    def _refusal(self, stream: str, problem: Problem | None) -> Answer:
        """Read the meaning of an error for an append (design/nats.md 2)."""
        if problem is None:
            return Unanswered("an answer without a sequence")
        code = problem.err_code
        if code == _WRONG_SEQUENCE:
            number = _NUMBER.search(problem.description)
            if number is None:
                raise JobstateError(
                    f"{stream}: nats-server {self._connection.server_version} refuses an entry without the number that "
                    f"it found ({problem}): this version of the server is not known to jobstate; report it"
                )
            return Refused(int(number[1]))
        if code in _BUSY:
            return Busy()
        if code in _NO_ROOM:
            log.error("log.full", stream=stream, reason=str(problem))
            return Unanswered(str(problem), full=True)
        if code == NO_STREAM:
            raise _gone(stream)
        if code == _TOO_MANY or problem.code == UNAVAILABLE:
            return Unanswered(str(problem))
        raise JobstateError(f"{stream} refuses an entry: {problem}: {_FAULTS.get(code, 'report this')}")

    def _read_back(
        self, ask: ReadBack, opened: _Open, data: bytes, found: list[tuple[int, Answer]], more: list[bytes]
    ) -> None:
        answer = _decode(data, _message, opened.stream)
        if answer.message is not None:
            entries = (*opened.entries, answer.message.entry())
            if ask.whole:
                # A rare path: one request for each entry of a job that a stranger, or several of ours, wrote to.
                deadline = asyncio.get_running_loop().time() + self._within_s
                again = _Open(deadline, ask, opened.stream, entries)
                more.append(self._get(ask, again, entries[-1].number + 1))
                return
            found.append((ask.token, Read(entries)))
        elif answer.error is None or answer.error.err_code != NO_MESSAGE:
            if answer.error is not None and answer.error.err_code == NO_STREAM:
                raise _gone(opened.stream)
            found.append((ask.token, Unanswered(str(answer.error))))
        else:
            found.append((ask.token, Read(opened.entries)))

    def _look(self, stream: str) -> bytes:
        """Nobody answers for a stream: ask whether it is still there. A deleted one would be waited for for ever."""
        now = asyncio.get_running_loop().time()
        if self._looks.get(stream, 0.0) > now:
            return b""
        self._looks[stream] = now + LOOK_S
        opened = _Open(now + self._within_s, None, stream)
        return self._request(STREAM_INFO.format(stream), b"", opened)

    def _see(self, stream: str, data: bytes) -> None:
        info = _decode(data, _info, stream)
        if info.error is not None and info.error.err_code == NO_STREAM:
            raise _gone(stream)
        if stream == self._log and self._created and info.created and info.created != self._created:
            raise LogWentBackError(f"{stream} was deleted and made anew at {info.created}: everything is read again")


async def open_writer(
    connection: Connection,
    names: Names,
    *,
    created: str = "",
    within_s: float = ANSWER_S,
    outcomes: Outcomes | None = None,
) -> JetStreamWriter:
    """The writer on *connection* (from `connect_writer`). *created*: of the log that is known (`recovery.probe`).

    Before it sends anything, its owner checks whether the log went back (design/design.md 7.7).
    *within_s*: see `ANSWER_S`.
    *outcomes* counts the results of appends.
    """
    writer = JetStreamWriter(connection, names, created, within_s, Outcomes() if outcomes is None else outcomes)
    await writer.open()
    return writer


def _subject(opened: _Open) -> str:
    """Where the request went."""
    return opened.ask.subject if type(opened.ask) is Append else MESSAGE_GET.format(opened.stream)


def _outcome(answer: Answer) -> Outcome:
    """The word for an answer to an append that was not stored."""
    if isinstance(answer, Refused):
        return "refused"
    if isinstance(answer, Busy):
        return "busy"
    return "full" if isinstance(answer, Unanswered) and answer.full else "unanswered"


def _gone(stream: str) -> LogWentBackError:
    return LogWentBackError(
        f'the stream {stream} is gone: everything is read again, and with streams.mode = "create" it is made anew'
    )


def _decode(data: bytes, decoder: msgspec.json.Decoder[T], stream: str) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise JobstateError(f"{stream}: the server gave an answer that cannot be read: {error}: report this") from error
