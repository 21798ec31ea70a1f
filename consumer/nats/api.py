"""The part of JetStream's API that is used here: subjects, the shapes of answers, and an entry on the wire.

Shapes and bytes only; who asks is `consumer.nats.requests`. Errors are known by `err_code`: the texts change
(design/nats.md 2).
"""

from base64 import b64decode
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from consumer.core.appends import Entry

NO_STREAM: Final = 10059
NO_MESSAGE: Final = 10037
NO_QUORUM: Final = 10008
OFFLINE: Final = 10118
"""The servers that hold the stream are away."""
UNAVAILABLE: Final = 503
"""Class of the errors that pass by themselves (`Problem.code`)."""

ACCOUNT_INFO: Final = "$JS.API.INFO"
STREAM_INFO: Final = "$JS.API.STREAM.INFO.{}"
STREAM_CREATE: Final = "$JS.API.STREAM.CREATE.{}"
STREAM_DELETE: Final = "$JS.API.STREAM.DELETE.{}"
MESSAGE_GET: Final = "$JS.API.STREAM.MSG.GET.{}"
CONSUMER_CREATE: Final = "$JS.API.CONSUMER.CREATE.{}.{}"
CONSUMER_DELETE: Final = "$JS.API.CONSUMER.DELETE.{}.{}"
CONSUMER_NEXT: Final = "$JS.API.CONSUMER.MSG.NEXT.{}.{}"
"""Where requests go: to be formatted with the stream, and the consumer."""

INPUT: Final = b"\r\nJobstate-Input:"
EXPECTED: Final = b"\r\nNats-Expected-Last-Subject-Sequence:"
FILTER: Final = b"\r\nNats-Expected-Last-Subject-Sequence-Subject:"
TRACEPARENT: Final = b"\r\ntraceparent:"
SOURCE: Final = b"\r\nNats-Stream-Source:"
PENDING: Final = b"\r\nNats-Pending-Messages:"
BODY_SIZE: Final = b"\r\nNats-Msg-Size:"
"""Headers, as `header` looks for them."""

_ACK: Final = b"$JS.ACK."
_ACK_TOKENS_V1: Final = 9
_ACK_TOKENS_V2: Final = 11


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why the server did not do it."""

    code: int = 0
    err_code: int = 0
    description: str = ""

    def __str__(self) -> str:
        return f"{self.description} ({self.err_code})"

    @property
    def passes(self) -> bool:
        """Whether it passes by itself, when servers are back or a leader is chosen: asking again may help."""
        return self.err_code in {NO_QUORUM, OFFLINE} or self.code == UNAVAILABLE


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an account allows its streams; -1 is "no limit"."""

    max_storage: int = -1
    max_streams: int = -1
    storage_max_stream_bytes: int = -1
    max_bytes_required: bool = False


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of streams with so many copies."""

    limits: Limits = Limits()


class ApiInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster's leader can do: 0 is a server before 2.11."""

    level: int = 0


class AccountInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `INFO`. *tiers*: by copies, `R1` or `R3`, where there are. *storage*, *reserved_storage*: bytes."""

    error: Problem | None = None
    storage: int = 0
    reserved_storage: int = 0
    streams: int = 0
    limits: Limits = Limits()
    tiers: dict[str, Tier] = {}
    api: ApiInfo = ApiInfo()


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """How much a stream holds. *subjects*: how many entries each has, where they were asked for."""

    first_seq: int = 0
    last_seq: int = 0
    messages: int = 0
    bytes: int = 0
    num_subjects: int = 0
    subjects: dict[str, int] | None = None


class SourceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How far a stream has copied one of its sources. *active*: ns since the source was heard of; below 0: never.

    *lag*: entries of the source that it had to copy then. *seq*: the last one that it took; 0 before server 2.15.
    """

    lag: int = 0
    active: int = -1
    seq: int = 0


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a stream on another server than its leader."""

    name: str = ""
    current: bool = False
    offline: bool = False


class ClusterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers have the stream."""

    name: str = ""
    leader: str = ""
    replicas: tuple[Replica, ...] = ()


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `STREAM.INFO`, `STREAM.CREATE` and `STREAM.DELETE`.

    *created* tells a stream from one made anew under the same name. *ts*: the server's time. *total*: how many subjects
    match, of which `state.subjects` has one page.
    """

    error: Problem | None = None
    created: str = ""
    config: dict[str, Any] = {}
    state: StreamState = StreamState()
    sources: list[SourceInfo] = []
    cluster: ClusterInfo = ClusterInfo()
    ts: str = ""
    total: int = 0


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """How far a consumer has come in its stream."""

    stream_seq: int = 0


class ConsumerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `CONSUMER.CREATE`. *num_pending*: entries that it will deliver of those stored by now."""

    error: Problem | None = None
    num_pending: int = 0
    delivered: Delivered = Delivered()


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One entry as `STREAM.MSG.GET` gives it: headers and body in base64, time with nine digits."""

    subject: str
    seq: int
    time: str
    hdrs: str = ""
    data: str = ""

    def entry(self) -> Entry:
        """The same as an entry."""
        headers = b64decode(self.hdrs)
        return entry_of(self.subject, b64decode(self.data), headers, self.seq, time_ns(self.time))


class MessageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `STREAM.MSG.GET`."""

    error: Problem | None = None
    message: StoredMessage | None = None


class PubAck(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Answer to a publish into a stream."""

    error: Problem | None = None
    seq: int = 0


def time_ns(text: str) -> int:
    """*text* (RFC 3339, up to nine digits of a second) in nanoseconds since 1970. Raises ValueError."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])


def header(headers: bytes | None, name: bytes) -> str:
    """The value of *name* (a constant from above) in a header block, empty if it is not there. The first of two."""
    start = headers.find(name) if headers else -1
    if start < 0 or headers is None:
        return ""
    start += len(name)
    return headers[start : headers.find(b"\r\n", start)].strip().decode("utf-8", "replace")


def entry_of(subject: str, body: bytes, headers: bytes | None, number: int, time: int) -> Entry:
    """An entry of the log, with what its headers say."""
    expected = header(headers, EXPECTED)[:20]
    return Entry(
        number=number,
        subject=subject,
        body=body,
        input=header(headers, INPUT),
        time_ns=time,
        expected=int(expected) if expected.isascii() and expected.isdecimal() else None,
        filter=header(headers, FILTER),
    )


def read_ack(reply: bytes) -> tuple[int, int, int, int] | None:
    """Parse the reply subject of a pulled entry; None if it is another subject.

    (stream sequence, consumer sequence, time in ns, entries that follow). v1 has 9 tokens, v2 also domain and account
    before them and may have more after (design/nats.md 1.9).
    """
    if not reply.startswith(_ACK):
        return None
    tokens = reply.split(b".")
    if len(tokens) == _ACK_TOKENS_V1:
        at = 5
    elif len(tokens) >= _ACK_TOKENS_V2:
        at = 7
    else:
        return None
    try:
        return int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2]), int(tokens[at + 3])
    except ValueError:
        return None
