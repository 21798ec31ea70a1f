"""The cluster's streams while the daemon lives: one that is lost is made anew, or named where it is not ours to make.

What a stream must be is `consumer.jetstream.topology`. Whether the log is still the one that is known, the daemon
itself looks: nothing can mend that but to begin again.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import structlog

from consumer.errors import MissingStreamError, ServerError, TopologyError
from consumer.jetstream import topology
from consumer.jetstream.connection import Connection
from consumer.settings import Streams
from consumer.wire.subjects import Names

log = structlog.get_logger()


class Upkeep:
    """Looks after the streams of one cluster, for as long as the process lives: `begin` each life, then `look`.

    After each of these `troubles` says which stream is not as it must be, and why; empty: all are.
    """

    def __init__(self, names: Names, streams: Streams) -> None:
        self._names: Final = names
        self._streams: Final = streams
        self.begun = False
        """Whether all streams were there once."""
        self.troubles: dict[str, str] = {}
        self.lost: Final[Counter[str]] = Counter()
        """How often each stream was found to be gone after it had been there."""

    async def begin(self, connection: Connection) -> None:
        """Before a life: all streams are there, and the bucket is a copy of this log.

        Raises as `topology.ensure`. A bucket that cannot be made right is no reason not to begin: the log is the truth.
        """
        names = self._names
        try:
            made = await topology.ensure(connection, names, self._streams)
        except MissingStreamError as error:
            self._find_gone(error.streams)
            self._complain(error.streams, str(error))
            raise
        if self.begun:
            self._find_gone(made)
        self.begun = True
        self._settle(self.troubles)
        if names.bucket_stream in made:
            return
        if names.log in made:
            await self._renew_bucket(connection, "the log was made anew")
        elif why := await topology.find_fault_of_bucket(connection, names):
            await self._renew_bucket(connection, why)

    async def look(self, connection: Connection) -> None:
        """See which streams are gone, and make them anew, where that is ours; but for the log: that is another life's.

        Raises `ServerError` where it cannot be told what is there.
        """
        names = self._names
        absent = await topology.find_absent(connection, names)
        if names.log in absent:
            return
        if self.troubles.get(names.bucket_stream) and names.bucket_stream not in absent:
            if why := await topology.find_fault_of_bucket(connection, names):
                await self._renew_bucket(connection, why)
            else:
                self._settle([names.bucket_stream])
        self._settle(set(self.troubles) - {*absent, names.bucket_stream})
        if not absent:
            return
        self._find_gone(absent)
        if self._streams.mode == "bind":
            self._complain(absent, str(MissingStreamError(absent, connection.address)))
            return
        for stream in absent:
            try:
                await topology.remake(connection, names, self._streams, {stream})
            except (TopologyError, ServerError) as error:
                self._complain([stream], f"it is gone, and cannot be made anew: {error}")
            else:
                self._settle([stream])

    async def _renew_bucket(self, connection: Connection, why: str) -> None:
        stream = self._names.bucket_stream
        if self._streams.mode == "bind":
            self._complain(
                [stream],
                f"it is no copy of the log ({why}), and streams.mode is bind: delete it and make it anew, and the "
                "server fills it from the log",
            )
            return
        log.warning("bucket.renewed", stream=stream, reason=why, next_step="the server fills it from the log")
        try:
            await topology.remake_bucket(connection, self._names, self._streams)
        except (TopologyError, ServerError) as error:
            self._complain([stream], f"it is no copy of the log ({why}), and cannot be made anew: {error}")
        else:
            self._settle([stream])

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
