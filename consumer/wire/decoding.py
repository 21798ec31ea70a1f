"""The one way in: bytes to structs, and `DecodeError` for whatever is not as it should be.

Nothing else in this package catches what the decoder raises, and nothing after it checks again. Errors here name
reasons and paths, never the bytes' contents: a detail goes to logs and streams, the bytes may hold secrets.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeVar

import msgspec

from consumer import defaults
from consumer.errors import DecodeError
from consumer.model import NUMBER_MAX, UndecodableReason

T = TypeVar("T")

MESSAGE_MAX: Final = defaults.MESSAGE_BYTES
"""Bytes of one message. Bacalhau leaves NATS's `max_payload` at this (design/bacalhau.md 2.1), headers included."""

NAME_MAX: Final = 1024
"""Characters of a job's name or type. Both stand in every later update of the job."""

ID_MAX: Final = 1024
"""Characters of what names a job, a namespace, an execution or a node: each is remembered, and each is asked for."""

TEXT_MAX: Final = 128 * 1024
"""Characters of a message in a record that are kept: an update must fit into one NATS message, whatever is in it."""

UINT64_MAX: Final = 2**64 - 1
_DIGITS: Final = len(str(UINT64_MAX))

Id = Annotated[str, msgspec.Meta(max_length=ID_MAX)]
"""The largest length of an id or a namespace; a longer one is refused."""

Unsigned = Annotated[int, msgspec.Meta(ge=0)]
"""A Go uint64. The decoder checks the lower bound; it has none as high as the upper: see `check_counts`."""

NO_TIME: Final = msgspec.Raw(b"null")
NO_TEXT: Final = msgspec.Raw(b'""')

_CLEAN: Final = re.compile(r"[!-~]{1,64}\Z")
# The only messages of msgspec 0.20 to 0.23 that quote what stood there: a tag or an enum's value that is unknown.
_QUOTED: Final = re.compile(r"Invalid (?:enum )?value .*?(?= - at |$)", re.DOTALL)
_TOO_DEEP: Final = "nested deeper than the reader goes"
_TRUNCATED: Final = "Input data was truncated"
"""msgspec's words for JSON that ends too early (`ms_err_truncated` in its `_core.c`); nothing else says it."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_GO_ZERO: Final = datetime(1, 1, 1, tzinfo=UTC)

_time: Final = msgspec.json.Decoder(datetime)
_integer: Final = msgspec.json.Decoder(int)
_text: Final = msgspec.json.Decoder(str)


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """An object that is there; what it holds is skipped, not decoded."""


def decode(decoder: msgspec.json.Decoder[T], data: bytes | memoryview | msgspec.Raw) -> T:
    """Read *data*. Raises `DecodeError` and nothing else: 200,000 mutated inputs raised only what is caught here."""
    reason: UndecodableReason | None
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        reason, detail = "wrong-shape", _QUOTED.sub("Invalid value", str(error))
    except (msgspec.MsgspecError, UnicodeError):
        reason, detail = None, ""
    except RecursionError:
        reason, detail = "too-deep", _TOO_DEEP
    # Raised out here, so that no error is chained to it: a UnicodeDecodeError carries the bytes it stumbled over.
    if reason is None:
        reason, detail = _unreadable(decoder, data)
    raise DecodeError(reason, detail, cut=reason == "not-json" and detail == _TRUNCATED)


def _unreadable(
    decoder: msgspec.json.Decoder[T], data: bytes | memoryview | msgspec.Raw
) -> tuple[UndecodableReason, str]:
    """Whether *data*, which cannot be read, is no JSON at all, or JSON with a text that is not UTF-8.

    Releases of msgspec do not agree on the error for the latter: before 0.23 it was a UnicodeDecodeError, since then
    it is the same as for what is no JSON, but for its words. This asks whether *data* can be read once each wrong
    byte is replaced.
    """
    try:
        decoder.decode(bytes(data).decode("utf-8", "replace"))
    except msgspec.ValidationError:
        pass  # a wrong shape behind the text that is not UTF-8
    except msgspec.MsgspecError as error:
        return "not-json", str(error)
    except RecursionError:
        return "too-deep", _TOO_DEEP
    return "not-utf8", "a text that is read is not UTF-8"


def check_size(data: bytes, max_bytes: int) -> None:
    """Refuse what is empty or has more than *max_bytes* before anything reads it."""
    if not data:
        raise DecodeError("empty", "no bytes at all")
    if len(data) > max_bytes:
        raise DecodeError("too-large", f"{len(data)} bytes, the bound is {max_bytes}")


def check_counts(*counts: int | None) -> None:
    """For a struct's `__post_init__`: the decoder says of a number above 2**64-1 what it says of any wrong shape."""
    for count in counts:
        if count is not None and count > UINT64_MAX:
            raise ValueError("Integer value out of range")


def check_place(version: int, revision: int) -> None:
    """Refuse a place in a record that cannot be real, as `out-of-range`: all that follows would be late, for ever."""
    for name, number in (("version", version), ("revision", revision)):
        if number > NUMBER_MAX:
            raise DecodeError("out-of-range", f"a {name} of {number}, the highest that can be real is {NUMBER_MAX}")


def name_clean(text: str) -> str:
    """*text* if it is a short word of printable ASCII, else its digest: what may be named in a detail."""
    if _CLEAN.match(text):
        return text
    return f"={hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def read_time(raw: msgspec.Raw) -> datetime | None:
    """The RFC 3339 time that *raw* spells, in UTC, rounded to microseconds; None for anything else.

    A time is a detail and never worth an error. None too: a time without a zone (whose clock?), and Go's zero time
    (1.5.2 sends it for "none").
    """
    try:
        time = _time.decode(raw)
        if time.tzinfo is None:
            return None
        time = time.astimezone(UTC)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError, ValueError):
        return None
    return None if time == _GO_ZERO else time


def read_text(raw: msgspec.Raw) -> str:
    """The text that *raw* spells; empty for anything else: why an execution failed is never worth an error."""
    try:
        return _text.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""


def read_nanoseconds(raw: msgspec.Raw) -> int:
    """The Unix nanoseconds that *raw* spells as an integer; 0 for anything else, and for what no int64 holds."""
    try:
        count = _integer.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0
    return count if 0 < count < 2**63 else 0


def time_of(nanoseconds: int) -> datetime | None:
    """Unix nanoseconds as a time in UTC, rounded to microseconds; None for 0 and below."""
    if not 0 < nanoseconds < 2**63:
        return None
    return _EPOCH + timedelta(microseconds=(nanoseconds + 500) // 1000)


def read_decimal(text: str | None) -> int | None:
    """The uint64 that *text* spells in decimal digits, as NCL's metadata do; None for anything else."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > _DIGITS:
        return None
    count = int(text)
    return count if count <= UINT64_MAX else None
