"""The read side: what is in a cluster's streams now, and what comes next. For verbs, the demo and tests.

Asks the server for entries, and gives them as they are; what an entry says is read elsewhere (`consumer.wire`). Writes
nothing, decides nothing, needs only a reader's permissions (NATS.md 8). The daemon does not read through this: what it
decides on is read by the writer and the recovery.

Every read is an ephemeral pull consumer without acknowledgements on an inbox of its own (NATS.md 1.4): an ordered
consumer or `kv.watch` of nats-py would be shorter, and end without a word (NATS.md 3).
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from consumer.errors import AbsentError, LogWentBackError, ServerError
from consumer.fold.asks import Entry
from consumer.jetstream import connection
from consumer.jetstream.api import NO_STREAM, Problem, PubAck, read_ack
from consumer.jetstream.connection import Address, Connection
from consumer.model import JobKey
from consumer.settings import Nats as NatsSettings
from consumer.wire.subjects import Names

BATCH: Final = 500
"""Entries in one pull request: some 150 kB of updates."""
EXPIRES_S: Final = 20.0
HEARTBEAT_S: Final = 2.0
DOUBT_S: Final = 2.25 * HEARTBEAT_S
"""Two heartbeats missed: the server, the way to it or the consumer is gone (`kill -9` says nothing, NATS.md 1.4)."""
LOOK_S: Final = 0.25
"""How often a reading that is silent looks whether it is connected at all."""
INACTIVE_S: Final = 30.0
RETRY_S: Final = 0.5
REQUEST_S: Final = 5.0
CONNECT_S: Final = 3.0


T = TypeVar("T")


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From where a stream is read, as a consumer's configuration spells it."""

    deliver_policy: str
    opt_start_seq: int = 0
    opt_start_time: datetime | None = None


FIRST: Final = Start(deliver_policy="all")
"""From the first entry."""
NEW: Final = Start(deliver_policy="new")
"""What is stored from now on."""
LAST: Final = Start(deliver_policy="last_per_subject")
"""The last entry of each subject, in the order of the stream, and then what is stored from now on."""


def after(number: int) -> Start:
    """What was stored after entry *number*."""
    return Start(deliver_policy="by_start_sequence", opt_start_seq=number + 1)


def since(time: datetime) -> Start:
    """What was stored at *time* (with a zone) or later, by the server's clock."""
    return Start(deliver_policy="by_start_time", opt_start_time=time.astimezone(UTC))


class _StreamState(msgspec.Struct, frozen=True, kw_only=True):
    last_seq: int = 0
    subjects: dict[str, int] = {}


class _StreamPage(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an answer to `STREAM.INFO` that is used here."""

    error: Problem | None = None
    created: str = ""
    state: _StreamState = _StreamState()
    total: int = 0


class _Delivered(msgspec.Struct, frozen=True, kw_only=True):
    stream_seq: int = 0


class _Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an answer to `CONSUMER.CREATE` that is used here."""

    error: Problem | None = None
    num_pending: int = 0
    delivered: _Delivered = _Delivered()


async def connect_reader(settings: NatsSettings, cluster: str) -> Connection:
    """A connection for reading that is given up where no server answers at first, and never again after that.

    Raises `ServerError`: what failed, where, and what to look at.
    """
    return await connection.connect_reader(Address.of(settings, cluster), "reader", within_s=CONNECT_S)


class View:
    """One cluster's streams, to be read through *client*. Holds nothing; many reads may go on at once.

    *tell* is called with a sentence when a live read is interrupted and when it goes on: silence would look like peace.
    """

    def __init__(self, client: Client, names: Names, *, where: str, tell: Callable[[str], None] | None = None) -> None:
        self._client = client
        self._where = where
        self.names: Final = names
        self.tell: Final = tell if tell is not None else _silent

    # -- the log ------------------------------------------------------------------------------------------------------

    def follow(self, *filters: str, start: Start = NEW) -> "Reading":
        """The log's entries under *filters* (no two may overlap), from *start*, and then for ever as they are stored.

        Survives the loss of the consumer, of the server and of the connection: goes on after the last entry given.
        """
        return Reading(self, self.names.log, filters, start, live=True)

    def entries(self, *filters: str, start: Start = FIRST) -> "Reading":
        """The log's entries under *filters* that are stored by now, in order."""
        return Reading(self, self.names.log, filters, start, live=False)

    # -- the bucket ---------------------------------------------------------------------------------------------------

    def present(self, namespace: str = "*", job: str = "*") -> "Reading":
        """The last update of each job, the one that changed last comes last. *namespace*, *job*: subject tokens or `*`.

        From the KV bucket, which is a moment behind the log. `Entry.number` is the log's, where the copy names it.
        """
        filters = (self.names.key_in_bucket(JobKey(f"{namespace}.{job}")),)
        return Reading(self, self.names.bucket_stream, filters, LAST, live=False)

    async def keys(self, namespace: str = "*", job: str = "*") -> list[JobKey]:
        """The keys of all jobs in the bucket whose tokens match. One request for each 100,000 of them."""
        pattern = self.names.key_in_bucket(JobKey(f"{namespace}.{job}"))
        prefix = self.names.key_in_bucket(JobKey(""))
        keys: list[JobKey] = []
        while True:
            page = await self.info(self.names.bucket_stream, filter=pattern, offset=len(keys))
            keys += (JobKey(subject.removeprefix(prefix)) for subject in page.state.subjects)
            if not page.state.subjects or len(keys) >= page.total:
                return keys

    # -- what was refused ---------------------------------------------------------------------------------------------

    def refused(self, *filters: str) -> "Reading":
        """The quarantined and undecodable entries under *filters* that are stored by now, in order."""
        return Reading(self, self.names.refused, filters, FIRST, live=False)

    # -- requests -----------------------------------------------------------------------------------------------------

    async def report(self, key: JobKey, body: bytes) -> int:
        """Publish a report to the input and wait until it is stored. Its sequence in the input."""
        try:
            message = await self.request(self.names.report(key), body)
        except nats.errors.NoRespondersError:
            raise await self.absent(self.names.input) from None
        answer = self._read(message, PubAck)
        if answer.error is not None:
            raise ServerError(f"{self._where} did not store the report: {answer.error}")
        return answer.seq

    async def info(self, stream: str, *, filter: str = "", offset: int = 0) -> _StreamPage:  # noqa: A002 (its name there)
        """What the server says of *stream*. Raises `AbsentError` if there is none."""
        body = msgspec.json.encode({"subjects_filter": filter, "offset": offset}) if filter else b""
        page = self._read(await self._ask(f"STREAM.INFO.{stream}", body), _StreamPage)
        await self._check(page.error, stream, f"the stream {stream}")
        return page

    async def create(self, stream: str, name: str, filters: Sequence[str], start: Start) -> _Consumer:
        """Make the ephemeral consumer of a `Reading`."""
        config = {
            "name": name,
            "filter_subjects": filters,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _ns(INACTIVE_S),
            **msgspec.to_builtins(start),
        }
        body = msgspec.json.encode({"stream_name": stream, "config": config, "action": "create"})
        consumer = self._read(await self._ask(f"CONSUMER.CREATE.{stream}.{name}", body), _Consumer)
        await self._check(consumer.error, stream, f"a reader of {stream}")
        return consumer

    async def request(self, subject: str, body: bytes = b"") -> Msg:
        """One request, one answer. Raises `ServerError` for none in time, `NoRespondersError` where nobody listens."""
        try:
            return await self._client.request(subject, body, timeout=REQUEST_S)
        except nats.errors.NoRespondersError:
            raise
        except (nats.errors.Error, TimeoutError) as error:
            why = f"no answer within {REQUEST_S:.0f} s" if isinstance(error, TimeoutError) else str(error)
            raise ServerError(f"{self._where}: {why}: is the server up, and may this user ask {subject}?") from error

    async def _ask(self, verb: str, body: bytes) -> Msg:
        try:
            return await self.request(f"$JS.API.{verb}", body)
        except nats.errors.NoRespondersError:
            raise ServerError(f"{self._where} has no JetStream: start nats-server with -js") from None

    def _read(self, answer: Msg, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.data, type=type_)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ServerError(f"{self._where} gave an answer that cannot be read: {error}") from error

    async def _check(self, problem: Problem | None, stream: str, what: str) -> None:
        if problem is None:
            return
        if problem.err_code == NO_STREAM:
            raise await self.absent(stream)
        raise ServerError(f"{self._where} refused {what}: {problem}")

    async def absent(self, stream: str) -> AbsentError:
        """The error that says that *stream* is not there: it alone, or the whole log of the cluster."""
        names = self.names
        if stream != names.log:
            page = self._read(await self._ask(f"STREAM.INFO.{names.log}", b""), _StreamPage)
            if page.error is None:
                return AbsentError(
                    f"the stream {stream} is gone from {self._where}, and the log {names.log} is there: `jobstate run` "
                    'makes it anew within seconds with streams.mode = "create"; /readyz says what it lacks'
                )
        return AbsentError(f"no log of cluster {names.cluster} on {self._where}: has `jobstate run` been started?")

    @property
    def client(self) -> Client:
        """The connection that this reads through."""
        return self._client


class Reading:
    """One way through a stream: an asynchronous context manager, and in it an asynchronous iterator of entries.

    Live: goes on for ever; what is lost on the way (a hole in the consumer's count, missed heartbeats) is asked for
    again after the last entry given, so no entry is left out and none comes twice. Not live: ends with the last entry
    that was stored when it began, and raises `ServerError` if the way is lost.
    """

    def __init__(self, view: View, stream: str, filters: Sequence[str], start: Start, *, live: bool) -> None:
        self._view = view
        self._client = view.client
        self._stream = stream
        self._filters = tuple(filters)
        self._start = start
        self._live = live
        self._created = ""
        self._name = ""
        self._inbox = ""
        self._subscription: object | None = None
        self._arrived: deque[Msg] = deque()
        self._something = asyncio.Event()
        self._asked = 0
        self._count = 0
        self._number = 0
        self._given = 0
        self._stored = 0
        self._pending = 0

    @property
    def caught_up(self) -> bool:
        """Everything that was stored when the reading began has been given."""
        return self._given >= self._stored or (self._given > 0 and self._pending == 0)

    async def __aenter__(self) -> Self:
        if self._live:
            self._created = (await self._view.info(self._stream)).created
        consumer = await self._open(self._start)
        self._stored = consumer.num_pending
        self._number = consumer.delivered.stream_seq
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def __aiter__(self) -> AsyncIterator[Entry]:
        return self

    async def __anext__(self) -> Entry:
        while True:
            if not self._live and self.caught_up:
                raise StopAsyncIteration
            message = await self._next()
            if message is None:
                await self._again("the server went silent" if self._client.is_connected else "the connection is lost")
            elif message.subject == self._inbox:
                await self._status(message)
            elif (ack := read_ack(message.reply.encode("utf-8", "surrogateescape"))) is not None:
                self._asked -= 1
                number, nth, time_ns, pending = ack
                if nth != self._count + 1:
                    await self._again("an entry was lost on the way")
                    continue
                self._count = nth
                self._number = number
                self._pending = pending
                self._given += 1
                return _entry(message, number, time_ns)
            # Anything else is of somebody who published to the inbox (the server lets nobody reply to `$JS.ACK.`).

    async def _next(self) -> Msg | None:
        """The next message, or None if the connection is gone or the server was silent for longer than it may be."""
        silent_s = 0.0
        while not self._arrived:
            if self._asked <= 0:
                await self._pull()
            self._something.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._something.wait()
            except TimeoutError:
                silent_s += LOOK_S
                if silent_s >= DOUBT_S or not self._client.is_connected:
                    return None
        return self._arrived.popleft()

    async def _pull(self) -> None:
        self._asked = BATCH
        body = msgspec.json.encode(
            {"batch": BATCH, "expires": _ns(EXPIRES_S), "idle_heartbeat": _ns(HEARTBEAT_S)},
        )
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        try:
            await self._client.publish(subject, body, reply=self._inbox)
        except nats.errors.Error as error:
            if self._client.is_closed:
                raise ServerError(f"the connection to NATS was closed: {error}") from error
            # Otherwise nothing will come, and that is noticed.

    async def _status(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status", "")
        if status == "100":
            return
        if status in {"404", "408"}:
            self._asked = 0
            return
        description = (message.headers or {}).get("Description", "")
        if status == "400":
            raise ServerError(f"the server refused to read {self._stream}: {description}")
        await self._again("the reader is gone at the server")

    async def _open(self, start: Start) -> _Consumer:
        self._name = f"view-{secrets.token_hex(8)}"
        self._inbox = self._client.new_inbox()
        self._arrived = deque()
        self._asked = self._count = 0
        arrived, something = self._arrived, self._something

        async def take(message: Msg) -> None:
            arrived.append(message)
            something.set()

        subscription = await self._client.subscribe(self._inbox, cb=take)
        self._subscription = subscription
        try:
            return await self._view.create(self._stream, self._name, self._filters, start)
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None or not self._client.is_connected:
            return
        await subscription.unsubscribe()  # type: ignore[attr-defined]
        # The server forgets the consumer by itself; this is sooner, and nothing waits for the answer.
        await self._client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}", b"")

    async def _again(self, why: str) -> None:
        """Make the consumer anew, after the last entry given; try until the server answers."""
        if not self._live:
            raise ServerError(f"{why} while {self._stream} was read: try again")
        told = False
        while True:
            if self._client.is_closed:
                raise ServerError(f"{why}, and the connection to NATS was closed")
            try:
                if not self._client.is_connected:
                    raise ServerError("not connected")  # noqa: TRY301 (as any other reason to wait)
                await self._close()
                info = await self._view.info(self._stream)
                if info.created != self._created or info.state.last_seq < self._number:
                    raise LogWentBackError(
                        f"{self._stream} was made anew, or lost its end, while it was read: start again"
                    )
                await self._open(after(self._number))
            except (ServerError, nats.errors.Error) as error:
                if not told:
                    self._view.tell(f"{why} ({error}); waiting for it")
                    told = True
                await asyncio.sleep(RETRY_S)
                continue
            if told:
                self._view.tell(f"reading again after entry {self._number}")
            return


def _entry(message: Msg, number: int, time_ns: int) -> Entry:
    headers = message.headers or {}
    # Of a copy in the bucket: where it stands in the log ("<stream> <sequence> <transform> …", NATS.md 1.3).
    source = headers.get("Nats-Stream-Source", "").split(" ")
    if len(source) > 1 and source[1].isdecimal():
        number = int(source[1])
    expected = headers.get("Nats-Expected-Last-Subject-Sequence", "")[:20]
    return Entry(
        number=number,
        subject=headers.get("Nats-Subject", message.subject),
        body=message.data,
        input=headers.get("Jobstate-Input", ""),
        time_ns=time_ns,
        expected=int(expected) if expected.isascii() and expected.isdecimal() else None,
        filter=headers.get("Nats-Expected-Last-Subject-Sequence-Subject", ""),
    )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _silent(sentence: str) -> None:
    del sentence
