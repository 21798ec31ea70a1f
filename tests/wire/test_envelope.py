"""Envelopes: length, version, checksum, metadata."""

from datetime import UTC, datetime

import pytest

from consumer.errors import DecodeError
from consumer.wire import open_envelope
from tests.wire.samples import seal

JSON_VECTOR = bytes.fromhex(
    "012fac6c747b226d65746164617461223a7b22426163616c6861752d54797065223a2278227d2c227061796c6f6164223a7b2261223a317d7d"
)
PROTOBUF_VECTOR = bytes.fromhex("02440c94f50a140a120a0d426163616c6861752d5479706512017812090a077b2261223a317d")
TYPED = b'{"metadata":{"Bacalhau-Type":"x"},"payload":null}'


def test_the_json_vector_opens() -> None:
    """Bacalhau's message as json-v1 opens: type x, payload {"a":1}, no number, no time."""
    envelope = open_envelope(JSON_VECTOR)
    assert (envelope.type, bytes(envelope.payload)) == ("x", b'{"a":1}')
    assert (envelope.source, envelope.number, envelope.time) == ("", None, None)


def test_the_protobuf_vector_is_named_protobuf() -> None:
    """The same message as protobuf-v1 is undecodable, with a reason of its own."""
    with pytest.raises(DecodeError) as caught:
        open_envelope(PROTOBUF_VECTOR)
    assert caught.value.reason == "protobuf"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too-short"),
        (JSON_VECTOR[:4], "too-short"),
        (b"\x00" + JSON_VECTOR[1:], "unknown-version"),
        (b"\x03" + JSON_VECTOR[1:], "unknown-version"),
        (b"\xff" + JSON_VECTOR[1:], "unknown-version"),
        (JSON_VECTOR[:5] + TYPED, "bad-crc"),
        (b"\x01\0\0\0\0" + TYPED, "bad-crc"),
        (b"\x01" + seal(TYPED)[4:0:-1] + TYPED, "bad-crc"),
        (JSON_VECTOR[:-1], "bad-crc"),
        (JSON_VECTOR + b"\0", "bad-crc"),
        (b"\x02" + JSON_VECTOR[1:5] + TYPED, "bad-crc"),
        (seal(b""), "no-body"),
        (seal(b"", 2), "no-body"),
        (seal(b"\x0a\x80", 2), "protobuf"),
        (seal(b"\x0a\xff\x01x", 2), "protobuf"),
        (seal(b"\x00\x00", 2), "protobuf"),
        (seal(b"\x0b\x0c", 2), "protobuf"),
        (seal(b"\x38\x01" * 1000, 2), "protobuf"),
        (seal(TYPED, 2), "protobuf"),
        (seal(PROTOBUF_VECTOR[5:]), "not-json"),
        (seal(b"[]"), "wrong-shape"),
        (seal(b'{"metadata":[],"payload":1}'), "wrong-shape"),
        (seal(b'{"metadata":{"Bacalhau-Type":1}}'), "wrong-shape"),
        (seal(b'{"metadata":null,"payload":{}}'), "no-type"),
        (seal(b'{"payload":{}}'), "no-type"),
        (seal(b'{"metadata":{},"payload":{}}'), "no-type"),
        (seal(b'{"metadata":{"bacalhau-type":"x"}}'), "no-type"),
        (seal(b'{"metadata":{"Bacalhau-Type":"x","Bacalhau-PayloadEncoding":"cbor"}}'), "unknown-encoding"),
    ],
)
def test_a_broken_envelope_is_named(data: bytes, reason: str) -> None:
    """Each way in which an envelope can be wrong has its reason; the order is Bacalhau's."""
    with pytest.raises(DecodeError) as caught:
        open_envelope(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("metadata", "type_name"),
    [
        (b'{"Bacalhau-Type":"new","Type":"old"}', "new"),
        (b'{"Type":"old","Bacalhau-Type":"new"}', "new"),
        (b'{"Type":"old","PayloadEncoding":"json"}', "old"),
        (b'{"Bacalhau-Type":"","Type":"old"}', "old"),
        (b'{"x":{"deep":[1]},"Type":"old","Type":"last"}', "last"),
        (b'{"\\u0054ype":"\\u003cold\\u003e"}', "<old>"),
    ],
)
def test_the_type_is_read_from_either_spelling(metadata: bytes, type_name: str) -> None:
    """`Bacalhau-Type` wins over `Type`; order, escapes and unknown keys do not matter, the last of two keys counts."""
    assert open_envelope(seal(b'{"metadata":' + metadata + b',"payload":1} \n')).type == type_name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("6", 6),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", None),
        ("-1", None),
        ("1e3", None),
        ("NaN", None),
        ("", None),
        ("9" * 4000, None),
        ("٣", None),
        ("1.0", None),
        (" 1", None),
    ],
)
def test_a_number_that_is_no_uint64_is_none(text: str, number: int | None) -> None:
    """A `SeqNum` that no sender could count to is left out; the message stands."""
    body = b'{"metadata":{"Bacalhau-Type":"x","Bacalhau-SeqNum":"%s"}}' % text.encode()
    assert open_envelope(seal(body)).number == number


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1795503263448525091", datetime(2026, 11, 24, 6, 54, 23, 448525, UTC)),
        ("1795503263448525500", datetime(2026, 11, 24, 6, 54, 23, 448526, UTC)),
        ("-6795364578871345152", None),
        ("0", None),
        ("9223372036854775808", None),
        ("2026-11-24T06:54:23Z", None),
    ],
)
def test_the_event_time_is_nanoseconds(text: str, time: datetime | None) -> None:
    """`EventTime` is Unix nanoseconds, rounded to microseconds; what is not (a BacError's zero time) is None."""
    body = b'{"metadata":{"Type":"x","Bacalhau-EventTime":"%s"}}' % text.encode()
    assert open_envelope(seal(body)).time == time
