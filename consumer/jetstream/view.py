"""The read side: what is in a cluster's streams now, and what comes next. For verbs, the demo and tests.

Asks the server for entries, and gives them as they are; what an entry says is read elsewhere (`consumer.wire`). Writes
nothing, decides nothing, needs only a reader's permissions (design/nats.md 8). The daemon does not read through this:
what it decides on is read by the writer and the recovery.

Every read is a `Pull`, as the daemon's own are: an ordered consumer or `kv.watch` of nats-py would be shorter, and end
without a word (design/nats.md 3).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import msgspec
import nats.errors

from consumer.core.appends import Entry
from consumer.errors import AbsentError, LogWentBackError, ServerError, UnreachableError
from consumer.jetstream.pull import DoubtError, Pull, Pulled
from consumer.model import JobKey
from consumer.nats import connect
from consumer.nats.address import Address
from consumer.nats.api import NO_STREAM, Problem, PubAck, StreamInfo, entry_of
from consumer.nats.connection import Connection
from consumer.nats.requests import stream_info
from consumer.settings import Nats as NatsSettings
from consumer.wire.subjects import Names

RETRY_S: Final = 0.5
QUIET_S: Final = 30.0
"""A live read to which nothing came for so long looks whether something should have."""
CONNECT_S: Final = 3.0


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From where a stream is read, as a consumer's configuration spells it."""

    deliver_policy: str
    opt_start_seq: int = 0
    opt_start_time: datetime | None = None


FIRST: Final = Start(deliver_policy="all")
"""From the first entry."""
NEW: Final = Start(deliver_policy="new")
"""Entries that are stored from now on."""
LAST: Final = Start(deliver_policy="last_per_subject")
"""The last entry of each subject, in the order of the stream, and then what is stored from now on."""


def after(number: int) -> Start:
    """Entries that were stored after entry *number*."""
    return Start(deliver_policy="by_start_sequence", opt_start_seq=number + 1)


def since(time: datetime) -> Start:
    """Entries that were stored at *time* (with a zone) or later, by the server's clock."""
    return Start(deliver_policy="by_start_time", opt_start_time=time.astimezone(UTC))


async def connect_reader(settings: NatsSettings, cluster: str, *, within_s: float = CONNECT_S) -> Connection:
    """A connection for reading that is given up where no server answers at first, and never again after that.

    Raises `ServerError`: what failed, where, and what to look at.
    """
    return await connect.connect_reader(Address.of(settings, cluster), "reader", within_s=within_s)


class View:
    """One cluster's streams, to be read through *connection*; many reads may go on at once.

    *tell* is called with a sentence when a live read is interrupted and when it goes on: silence would look like peace.
    """

    def __init__(
        self, connection: Connection, names: Names, *, where: str, tell: Callable[[str], None] | None = None
    ) -> None:
        self._where = where
        self.connection: Final = connection
        self.names: Final = names
        self.tell: Final = tell if tell is not None else _silent
        self.readings: Final[set[Reading]] = set()
        """Those that go on: told when the connection changes."""
        connection.watch(self._hear_connection)

    def _hear_connection(self) -> None:
        for reading in self.readings:
            reading.doubt("the connection is lost, or is another")

    # -- the log ------------------------------------------------------------------------------------------------------

    async def reached(self) -> int:
        """The number of the log's last entry; 0: there was none yet."""
        return (await self.info(self.names.log)).state.last_seq

    def follow(self, *filters: str, start: Start = NEW) -> "LiveReading":
        """The log's entries under *filters* (no two may overlap), from *start*, and then for ever as they are stored.

        Survives the loss of the consumer, of the server and of the connection: goes on after the last entry given.
        """
        return LiveReading(self, self.names.log, filters, start)

    def entries(self, *filters: str, start: Start = FIRST) -> "Reading":
        """The log's entries under *filters* that are stored by now, in order."""
        return Reading(self, self.names.log, filters, start)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def present(self, *namespaces: str) -> "Present":
        """The last entry of each job, in the order of the log. *namespaces*: subject tokens; none: all.

        From the log, not from the KV bucket: the bucket may be behind, for a moment or because its source stands still.
        """
        # The server looks the last entries of all subjects up in half the time that it needs for a filter of states.
        filters = [f"{self.names.state_prefix}{namespace}.*.*" for namespace in namespaces] or [">"]
        return Present(Reading(self, self.names.log, filters, LAST), self.names)

    async def keys(self, namespace: str = "*", job: str = "*") -> list[JobKey]:
        """The keys of all jobs in the log that match. One request for one *job*; for all as slow as `present`."""
        if job == "*":
            async with self.present(*(() if namespace == "*" else (namespace,))) as entries:
                found = [self.names.key_of_state(entry.subject) async for entry in entries]
        else:
            subjects = await self.subjects(self.names.log, f"{self.names.state_prefix}{namespace}.{job}.*")
            found = [self.names.key_of_state(subject) for subject in subjects]
        return list(dict.fromkeys(key for key in found if key is not None))

    # -- what was refused, what was announced --------------------------------------------------------------------------

    def refused(self, *filters: str) -> "Reading":
        """The quarantined and undecodable entries under *filters* that are stored by now, in order."""
        return Reading(self, self.names.refused, filters, FIRST)

    def advisories(self) -> "Reading":
        """The advisories that are stored by now, in order."""
        return Reading(self, self.names.log, (self.names.advisory("*", "*"),), FIRST)

    # -- requests -----------------------------------------------------------------------------------------------------

    async def report(self, key: JobKey, body: bytes) -> int:
        """Publish a report to the input and wait until it is stored. Its sequence in the input."""
        try:
            answer = await self.connection.ask(self.names.report(key), body, PubAck)
        except UnreachableError as error:
            if isinstance(error.__cause__, nats.errors.NoRespondersError):
                raise await self.absent(self.names.input) from None
            raise
        if answer.error is not None:
            raise ServerError(f"{self._where} did not store the report: {answer.error}")
        return answer.seq

    async def info(self, stream: str, *, pattern: str = "", offset: int = 0) -> StreamInfo:
        """Ask the server for *stream*. Raises `AbsentError` if there is none."""
        page = await stream_info(self.connection, stream, subjects=pattern, offset=offset)
        await self._check(page.error, stream, f"the stream {stream}")
        return page

    async def subjects(self, stream: str, pattern: str = ">") -> list[str]:
        """The subjects of *stream*'s entries that match. One request for each 100,000 of them."""
        found: list[str] = []
        while True:
            page = await self.info(stream, pattern=pattern, offset=len(found))
            found += page.state.subjects or ()
            if not page.state.subjects or len(found) >= page.total:
                return found

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
            page = await stream_info(self.connection, names.log)
            if page.error is None:
                return AbsentError(
                    f"the stream {stream} is gone from {self._where}, and the log {names.log} is there: `jobstate run` "
                    'makes it anew within seconds with streams.mode = "create"; /readyz says what it lacks'
                )
        return AbsentError(f"no log of cluster {names.cluster} on {self._where}: has `jobstate run` been started?")


class Reading:
    """One way through a stream: an asynchronous context manager, and in it an asynchronous iterator of entries.

    It ends with the last entry that was stored when it began, and raises `ServerError` if the way is lost.
    """

    def __init__(self, view: View, stream: str, filters: Sequence[str], start: Start) -> None:
        self._view = view
        self._connection = view.connection
        self._stream = stream
        self._filters = tuple(filters)
        self._start = start
        self._created = ""
        self._pull: Pull | None = None
        self._arrived: deque[Pulled] = deque()
        self._number = 0
        self._given = 0
        self._stored = 0
        self._checked = 0  # nothing under the filters waits up to this sequence of the stream

    @property
    def caught_up(self) -> bool:
        """Everything that was stored when the reading began has been given."""
        if self._given >= self._stored:
            return True
        return self._given > 0 and not self._arrived and self._pull is not None and self._pull.pending == 0

    def doubt(self, why: str) -> None:
        """Say that what is read through may be gone."""
        if self._pull is not None:
            self._pull.doubt(why)

    async def __aenter__(self) -> Self:
        self._created = (await self._view.info(self._stream)).created
        pull = await self._open(self._start)
        self._stored, self._number = pull.pending, pull.reached
        self._view.readings.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.readings.discard(self)
        await self._close()

    def __aiter__(self) -> AsyncIterator[Entry]:
        return self

    async def __anext__(self) -> Entry:
        if self.caught_up:
            raise StopAsyncIteration
        return await self._next()

    async def _next(self) -> Entry:
        while not self._arrived:
            assert self._pull is not None
            try:
                async with asyncio.timeout(QUIET_S):
                    self._arrived.extend(await self._pull.batch())
            except TimeoutError:
                await self._look_for_more(self._pull)
            except DoubtError as error:
                await self._again(str(error))
        number, time_ns, subject, body, headers = self._arrived.popleft()
        self._number = number
        self._given += 1
        return entry_of(subject.decode("utf-8", "surrogateescape"), body, headers, number, time_ns)

    async def _open(self, start: Start) -> Pull:
        self._pull = pull = Pull(self._connection, self._stream)
        try:
            await pull.open(msgspec.to_builtins(start), self._filters)
        except BaseException:
            await self._close()
            raise
        return pull

    async def _close(self) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            await pull.close()

    async def _look_for_more(self, pull: Pull) -> None:
        """Tell *pull*, which has heard nothing but heartbeats, if entries wait: another consumer counts them.

        Nothing is asked of the server but the stream's last sequence, while that does not move.
        """
        try:
            last = (await self._view.info(self._stream)).state.last_seq
            if last <= max(self._number, self._checked):
                return
            other = Pull(self._connection, self._stream)
            try:
                await other.open(msgspec.to_builtins(after(self._number)), self._filters)
            finally:
                await other.close()
        except (ServerError, AbsentError, LogWentBackError):
            return  # that a stream or connection is gone, the consumer tells by itself
        if other.pending:
            pull.owe()
        else:
            self._checked = last

    async def _again(self, why: str) -> None:
        """Deal with *why* what is read through may be gone."""
        raise ServerError(f"{why} while {self._stream} was read: try again")


class LiveReading(Reading):
    """A reading that goes on for ever.

    What is in doubt (a hole in the consumer's count, missed heartbeats, another connection) is asked for again after
    the last entry given, so no entry is left out and none comes twice.
    """

    async def __anext__(self) -> Entry:
        return await self._next()

    async def _again(self, why: str) -> None:
        """Make the consumer anew, after the last entry given; try until the server answers."""
        told = False
        while True:
            if self._connection.is_closed:
                raise ServerError(f"{why}, and the connection to NATS was closed")
            try:
                await self._close()
                info = await self._view.info(self._stream)
                if info.created != self._created or info.state.last_seq < self._number:
                    raise LogWentBackError(
                        f"{self._stream} was made anew, or lost its end, while it was read: start again"
                    )
                await self._open(after(self._number))
            except ServerError as error:
                if not told:
                    self._view.tell(f"{why} ({error}); waiting for it")
                    told = True
                await asyncio.sleep(RETRY_S)
                continue
            if told:
                self._view.tell(f"reading again after entry {self._number}")
            return


class Present:
    """The last entry of each job, as an asynchronous context manager, and in it an asynchronous iterator of entries.

    The state stands in the subject, so the last entry of each subject is up to six for a job: the highest number is it.
    """

    def __init__(self, reading: Reading, names: Names) -> None:
        self._reading: Final = reading
        self._names: Final = names

    async def __aenter__(self) -> AsyncIterator[Entry]:
        await self._reading.__aenter__()
        return self._last_entries()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reading.__aexit__(kind, error, trace)

    async def _last_entries(self) -> AsyncIterator[Entry]:
        found: dict[JobKey, Entry] = {}
        async for entry in self._reading:
            key = self._names.key_of_state(entry.subject)
            if key is not None:
                found.pop(key, None)  # so that they stand in the order of the log
                found[key] = entry
        for entry in found.values():
            yield entry


def _silent(sentence: str) -> None:
    del sentence
