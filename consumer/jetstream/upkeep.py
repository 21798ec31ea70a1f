"""The cluster's streams while the daemon lives: one that is lost is made anew, or named where it is not ours to make.

`consumer.jetstream.topology` has the streams' configuration. Whether the log is still the one that is known, the daemon
itself looks: nothing can mend that but to begin again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import structlog

from consumer.errors import MissingStreamError, ServerError, TopologyError, UnreachableError
from consumer.jetstream import topology
from consumer.jetstream.bucket import WITHOUT_SOURCES, BucketCheck, find_fault_of_bucket, has_lost_sources
from consumer.model import JobKey, LastUpdate
from consumer.nats.api import StreamInfo
from consumer.nats.connection import Connection
from consumer.nats.faults import with_step
from consumer.settings import Streams
from consumer.wire.subjects import Names

log = structlog.get_logger()

RENEW_FIRST_S: Final = 60.0
RENEW_MAX_S: Final = 3600.0
"""The longest pause before the bucket is made anew once more: each try in a row that did not help doubles it."""
OUT_OF_REACH: Final = "it cannot be reached: {}"
NOT_COPIED: Final = "has it room (max_bytes), and does its server reach the log's? It is tried again within the hour"


class Memory(NamedTuple):
    """Known of the log: its *jobs*; how *many* they were, up to which *last* entry, before a look at it."""

    jobs: Mapping[JobKey, LastUpdate]
    many: int
    last: int


NO_MEMORY: Final = Memory({}, 0, 0)


class Upkeep:
    """Looks after the streams of one cluster, for as long as the process lives: `begin` each life, then `look`.

    After each of these `troubles` says which stream is not as it must be, and why; empty: all are.
    """

    def __init__(self, names: Names, streams: Streams) -> None:
        self._names: Final = names
        self._streams: Final = streams
        self._bucket: Final = BucketCheck(names)
        self._unchecked: set[str] = set()  # streams that nobody answered for when the life began
        self._tried_at = float("-inf")
        self._tries = 0  # to make the bucket anew, in a row, each of which did not help
        self._outcome = ""  # of the last one, if the bucket is still no copy of the log
        self.begun = False
        """Whether all streams were there once."""
        self.troubles: dict[str, str] = {}
        self.lost: Final[Counter[str]] = Counter()
        """How often each stream was found to be gone after it had been there."""
        self.renewals = 0
        """How often the bucket was deleted and made anew."""

    @property
    def lacking(self) -> int:
        """Jobs of the log that the bucket did not have when it was last looked at."""
        return self._bucket.lacking

    async def begin(self, connection: Connection) -> None:
        """Before a life: all streams are there, and the bucket is a copy of this log.

        Raises as `topology.ensure`. Bucket and refused stream are no reason not to begin, if nobody answers for them or
        the bucket cannot be made right: the log is the truth, and what is refused waits. `look` goes on with that.
        """
        names = self._names
        self._bucket.forget()
        found = await topology.survey(connection, names)
        away = {stream: state for stream, state in found.items() if isinstance(state, ServerError)}
        for stream, reason in away.items():
            if stream in {names.log, names.input} or not isinstance(reason, UnreachableError):
                raise reason
        bucket = found[names.bucket_stream]
        if isinstance(bucket, StreamInfo) and has_lost_sources(bucket) and self._streams.mode != "bind":
            await self._renew_bucket(connection, WITHOUT_SOURCES)
        try:
            made = await topology.ensure(connection, names, self._streams, leave=away)
        except MissingStreamError as error:
            self._find_gone(error.streams)
            self._complain(error.streams, str(error))
            raise
        if self.begun:
            self._find_gone(made)
        self.begun = True
        self._settle(set(self.troubles) - set(away))
        self._unchecked = set(away)
        for stream, reason in away.items():
            self._complain([stream], OUT_OF_REACH.format(with_step(reason)))
        if names.bucket_stream in made or names.bucket_stream in away:
            return
        if names.log in made:
            await self._renew_bucket(connection, "the log was made anew")
        elif why := await find_fault_of_bucket(connection, names):
            await self._renew_bucket(connection, why)

    async def look(self, connection: Connection, found: topology.Survey, memory: Memory = NO_MEMORY) -> None:
        """See which streams are gone, and make them anew, where that is ours; but for the log: that is another life's.

        *found*: how they stand. Raises `ServerError` where it cannot be told what is there.
        """
        names = self._names
        if found[names.log] is None:
            return
        there = {stream: state for stream, state in found.items() if isinstance(state, StreamInfo)}
        for stream, state in found.items():
            if isinstance(state, ServerError):
                self._complain([stream], OUT_OF_REACH.format(with_step(state)))
        for stream, info in there.items():
            if topology.is_sealed(info) and stream != names.bucket_stream:  # that one is a copy, and is made anew
                self._complain([stream], topology.SEALED.format(stream))
            elif self._check(connection, stream, info) and stream != names.bucket_stream:
                self._settle([stream])
        bucket = there.get(names.bucket_stream)
        if bucket is None or names.log not in there:
            self._bucket.forget()
        elif names.bucket_stream not in self._unchecked:
            await self._look_at_bucket(connection, bucket, memory)
        await self._make_absent(connection, tuple(stream for stream, state in found.items() if state is None))

    def _check(self, connection: Connection, stream: str, info: StreamInfo) -> bool:
        """Whether *stream* is what it must be; looked at once, when somebody answers for it after a life has begun."""
        if stream in self._unchecked:
            try:
                topology.require(connection, self._names, self._streams, stream, info)
            except TopologyError as error:
                if stream != self._names.bucket_stream or not has_lost_sources(info):
                    self._complain([stream], str(error))
                    return False
            self._unchecked.discard(stream)
        return True

    async def _make_absent(self, connection: Connection, absent: tuple[str, ...]) -> None:
        if not absent:
            return
        self._unchecked -= set(absent)
        self._find_gone(absent)
        if self._streams.mode == "bind":
            self._complain(absent, str(MissingStreamError(absent, connection.address)))
            return
        for stream in absent:
            try:
                await topology.remake(connection, self._names, self._streams, {stream})
            except (TopologyError, ServerError) as error:
                self._complain([stream], f"it is gone, and cannot be made anew: {with_step(error)}")
            else:
                self._settle([stream])

    async def _look_at_bucket(self, connection: Connection, info: StreamInfo, memory: Memory) -> None:
        stream = self._names.bucket_stream
        if has_lost_sources(info):
            why = WITHOUT_SOURCES
        else:
            why = await find_fault_of_bucket(connection, self._names) if self.troubles.get(stream) else ""
            why = why or await self._bucket.find(connection, info, memory.jobs, memory.many, memory.last)
        is_pausing = asyncio.get_running_loop().time() - self._tried_at <= self._pause_s
        if not why:
            self._settle([stream])
            if not is_pausing:
                self._tries = 0
        elif is_pausing:
            # Each time whoever watches it loses it, and it is empty at first.
            self._complain([stream], self._outcome)
        else:
            # A second daemon may have been first: then there is nothing wrong with the bucket that is there now.
            again = await topology.look_at(connection, stream)
            if again is not None and again.created == info.created:
                await self._renew_bucket(connection, why)

    @property
    def _pause_s(self) -> float:
        """How long the bucket is left alone after the last try to make it anew."""
        return min(RENEW_FIRST_S * 2.0 ** (self._tries - 1), RENEW_MAX_S) if self._tries else 0.0

    async def _renew_bucket(self, connection: Connection, why: str) -> None:
        stream = self._names.bucket_stream
        if self._streams.mode == "bind":
            self._complain(
                [stream],
                f"it is no copy of the log ({why}), and streams.mode is bind: delete it and make it anew, and the "
                "server fills it from the log",
            )
            return
        try:
            await topology.remake_bucket(connection, self._names, self._streams)
        except (TopologyError, ServerError) as error:
            self._note_try()
            self._outcome = (
                f"it is no copy of the log ({why}), and cannot be made anew: {with_step(error)}; the next try is in "
                f"{self._pause_s:g} s"
            )
            self._complain([stream], self._outcome)
        else:
            self._note_try()
            self._outcome = f"it is no copy of the log, and making it anew did not help: {NOT_COPIED}"
            self.renewals += 1
            log.warning("bucket.renewed", stream=stream, reason=why, next_step="the server fills it from the log")
            self._settle([stream])

    def _note_try(self) -> None:
        self._tries += 1
        self._tried_at = asyncio.get_running_loop().time()

    def _find_gone(self, streams: Iterable[str]) -> None:
        for stream in streams:
            if stream not in self.troubles:  # else it was found before
                self.lost[stream] += 1
                log.warning("stream.lost", stream=stream)

    def _complain(self, streams: Iterable[str], why: str) -> None:
        for stream in streams:
            if self.troubles.get(stream) != why:
                log.error("stream.trouble", stream=stream, reason=why)
            self.troubles[stream] = why

    def _settle(self, streams: Iterable[str]) -> None:
        """These are as they must be."""
        for stream in tuple(streams):
            if self.troubles.pop(stream, ""):
                log.info("stream.back", stream=stream)
