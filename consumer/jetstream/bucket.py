"""Whether the KV bucket has a copy of what the log has. The server copies; it tells nobody what the bucket lacks.

A bucket can lack jobs of the log for good: it was purged, its sources were taken away, or its source stands still. The
configuration of a bucket is in `consumer.jetstream.topology`; `consumer.jetstream.upkeep` makes it anew.
"""

import asyncio
from base64 import b64decode
from collections.abc import Collection, Mapping
from typing import Final

from consumer.jetstream.pull import refusal
from consumer.jetstream.recovery import last_entry
from consumer.jetstream.topology import look_at
from consumer.model import JobKey, LastUpdate
from consumer.nats.api import NO_STREAM, SOURCE, StreamInfo, header, time_ns
from consumer.nats.connection import Connection
from consumer.nats.requests import get_message, stream_info
from consumer.wire.subjects import Names

STUCK_S: Final = 60.0
"""Updates wait to be copied, and none was for so long. After a broken link a server may take 20 s (1.3)."""
VERIFIED: Final = 20
"""Jobs that the bucket seems to lack, and that are looked up in the log before that is believed."""
SUBJECTS_MAX: Final = 200_000
"""In a log with more subjects `find_lack` does not compare every job: the server would be busy for seconds."""
CATCH_UP_S: Final = 20.0
LOOK_S: Final = 0.2
FRESH_NS: Final = 10 * 10**9
"""A source that was heard of less long ago is there: its server sends heartbeats."""

LACKS: Final = "it lacks {} of the log's {} jobs"
WITHOUT_SOURCES: Final = "its sources were taken away, so the server copies nothing"


class BucketCheck:
    """Looks for what the bucket lacks, once for each look of its owner at the streams.

    It costs one request at most. It is exact: at one look the bucket had taken the last update of N jobs, and at
    the next one of fewer. In this way neither a burst nor a bucket that is being filled looks faulty.
    """

    def __init__(self, names: Names) -> None:
        self._names: Final = names
        self.lacking = 0
        """Jobs that the bucket lacked when it was last looked at. While it is being filled it lacks some, too."""
        self.forget()

    def forget(self, created: str = "") -> None:
        """Begin to watch anew, the bucket that was made at *created*: nobody knows what happened meanwhile."""
        self._created = created
        self._copied = 0
        self._moved_at = asyncio.get_running_loop().time() if created else 0.0
        self._last = 0  # the log's last update at the look before
        self._must_have = self._up_to = 0  # this number of jobs, the updates up to this one, had been taken then
        self._excused = 0

    async def find(
        self, connection: Connection, info: StreamInfo, jobs: Mapping[JobKey, LastUpdate], count: int, last: int
    ) -> str:
        """Why the bucket is no copy of the log; empty if it is one, or is on its way to be.

        *info*: the bucket's. *jobs*: each job of the log that is known; *count* and *last*: how many there were, and
        the number of the last of their entries, before the server was asked for *info*. Raises `ServerError`.
        """
        now = asyncio.get_running_loop().time()
        if info.created != self._created:
            self.forget(info.created)
        have = info.state.messages
        self.lacking = max(count - have, 0)
        copied = await copied_until(connection, self._names, info)
        if copied > self._copied:
            self._copied, self._moved_at = copied, now
        taken = copied >= last or (last <= self._last and _is_idle(info))
        missing, before = self._must_have - have, self._up_to
        self._last = last
        if taken:
            self._must_have, self._up_to, self._moved_at = count, last, now
        if missing > self._excused:
            if await self._lacks(connection, jobs, before):
                return LACKS.format(missing, count)
            self._excused = missing
        if not taken and now - self._moved_at >= STUCK_S:
            return (
                f"the server has copied nothing for {now - self._moved_at:.0f} s: its last copy is of the log's entry "
                f"{copied}, and the last update is entry {last}"
            )
        self.lacking = max(self.lacking - self._excused, 0)
        return ""

    async def _lacks(self, connection: Connection, jobs: Mapping[JobKey, LastUpdate], until: int) -> bool:
        """Whether the log has a job, of those up to entry *until*, that the bucket has not.

        It may be our memory that has too many: an operator removed a job from both.
        """
        names = self._names
        prefix = names.key_in_bucket(JobKey(""))
        there = {text.removeprefix(prefix) for text in await list_subjects(connection, names.bucket_stream)}
        absent = [key for key, known in jobs.items() if known.number <= until and key not in there]
        for key in absent[:VERIFIED]:
            if await last_entry(connection, names, names.states(key)) is not None:
                return True
        return False


def has_lost_sources(info: StreamInfo) -> bool:
    """Whether the stream *info* is a bucket that nothing is copied to any more, and that nobody else can write to."""
    config = info.config
    subjects = config.get("subjects") or []
    return not config.get("sources") and not config.get("mirror") and subjects in ([], [config.get("name")])


async def copied_until(connection: Connection, names: Names, info: StreamInfo) -> int:
    """The number in the log of the entry that the bucket copied last, as far as can be told; 0: it cannot.

    *info*: the bucket's. A server before 2.15 does not say it: there the bucket's last entry does, while it has it.
    """
    if (seq := max((source.seq for source in info.sources), default=0)) or not info.state.messages:
        return seq
    found = await get_message(connection, names.bucket_stream, {"seq": info.state.last_seq})
    if found.message is None:
        return 0
    source = header(b64decode(found.message.hdrs), SOURCE).split(" ")
    return int(source[1]) if len(source) > 1 and source[1].isdecimal() else 0


def _is_idle(info: StreamInfo) -> bool:
    """Whether the bucket has nothing to copy, as its server heard from the log's a moment ago."""
    return bool(info.sources) and all(not one.lag and 0 <= one.active < FRESH_NS for one in info.sources)


async def find_fault_of_bucket(connection: Connection, names: Names) -> str:
    """Why the bucket is the copy of another log; empty if nothing says so. Both must be there.

    Two signs: it is older than the log (the log alone was made anew), or it has copied an entry that the log does not
    have (the log lost its end). The server goes on copying after the entry that it copied last, so such a bucket would
    miss, for ever, whatever the log stores below that number, and keep what the log has forgotten.
    """
    bucket = await look_at(connection, names.bucket_stream)
    # The bucket first: what it copies while the log is looked at must not seem to be ahead of it.
    copied = 0 if bucket is None else await copied_until(connection, names, bucket)
    log_stream = await look_at(connection, names.log)
    if bucket is None or log_stream is None:
        return ""
    if time_ns(bucket.created) < time_ns(log_stream.created):
        return f"it was made at {bucket.created}, before the log ({log_stream.created})"
    if copied > log_stream.state.last_seq:
        return f"it has a copy of the log's entry {copied}, and the log ends at {log_stream.state.last_seq}"
    return ""


async def find_lack(connection: Connection, names: Names) -> str:
    """Find the jobs that the bucket lacks, without a memory of it: all jobs of both are listed and compared.

    Waits until the bucket has copied what the log has now, for `CATCH_UP_S` at most. Empty: it lacks nothing, or the
    log has more than `SUBJECTS_MAX` subjects and only how far the bucket has copied was seen. Raises `ServerError`.
    """
    last = await last_entry(connection, names, f"{names.state_prefix}*.*.*")
    if last is None:
        return ""
    log_stream = await look_at(connection, names.log)
    small = log_stream is not None and log_stream.state.num_subjects <= SUBJECTS_MAX
    in_log = await list_subjects(connection, names.log, f"{names.state_prefix}*.*.*") if small else ()
    jobs = {key for text in in_log if (key := names.key_of_state(text)) is not None}
    deadline = asyncio.get_running_loop().time() + CATCH_UP_S
    while True:
        bucket = await look_at(connection, names.bucket_stream)
        if bucket is None:
            return ""
        if has_lost_sources(bucket):
            return WITHOUT_SOURCES
        copied = await copied_until(connection, names, bucket)
        if copied >= last.number or (not bucket.state.messages and bucket.state.last_seq) or _is_idle(bucket):
            break
        if asyncio.get_running_loop().time() > deadline:
            return f"it has a copy of the log's entry {copied}, and none of entry {last.number}, the last update"
        await asyncio.sleep(LOOK_S)
    prefix = names.key_in_bucket(JobKey(""))
    there = (
        {text.removeprefix(prefix) for text in await list_subjects(connection, names.bucket_stream)} if small else ()
    )
    lacking = jobs.difference(there)
    return LACKS.format(len(lacking), len(jobs)) if lacking else ""


async def list_subjects(connection: Connection, stream: str, pattern: str = ">") -> Collection[str]:
    """The subjects of *stream*'s entries that match; none if there is no such stream. 100,000 of them a request."""
    found: list[str] = []
    while True:
        page = await stream_info(connection, stream, subjects=pattern, offset=len(found))
        if page.error is not None and page.error.err_code != NO_STREAM:
            raise refusal(connection, stream, page.error)
        found += page.state.subjects or ()
        if not page.state.subjects or len(found) >= page.total:
            return found
