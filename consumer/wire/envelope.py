"""The NCL envelope: version byte, CRC, JSON of metadata and payload (design/bacalhau.md 2.1, `pkg/lib/envelope`).

It opens envelopes; what the payload says is `consumer.wire.ncl`.
"""

import zlib
from datetime import datetime
from typing import Final

import msgspec

from consumer.errors import DecodeError
from consumer.wire.decoding import decode, name_clean, read_decimal, time_of

HEAD: Final = 5
"""Bytes before the body: one of version, four of CRC-32/IEEE, big-endian, over the body only."""
JSON_V1: Final = 1
PROTOBUF_V1: Final = 2


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One opened envelope.

    `number` is the sender's `SeqNum`, `time` its `EventTime` (of publishing); None where absent or unreadable.
    """

    type: str
    source: str
    number: int | None
    time: datetime | None
    payload: msgspec.Raw


class _Metadata(msgspec.Struct, frozen=True):
    type: str | None = msgspec.field(name="Bacalhau-Type", default=None)
    type_before: str | None = msgspec.field(name="Type", default=None)
    encoding: str | None = msgspec.field(name="Bacalhau-PayloadEncoding", default=None)
    encoding_before: str | None = msgspec.field(name="PayloadEncoding", default=None)
    source: str | None = msgspec.field(name="Bacalhau-Source", default=None)
    source_before: str | None = msgspec.field(name="Source", default=None)
    number: str | None = msgspec.field(name="Bacalhau-SeqNum", default=None)
    time: str | None = msgspec.field(name="Bacalhau-EventTime", default=None)
    time_before: str | None = msgspec.field(name="EventTime", default=None)


class _Message(msgspec.Struct, frozen=True):
    metadata: _Metadata | None = None
    payload: msgspec.Raw = msgspec.Raw(b"null")


_message: Final = msgspec.json.Decoder(_Message)
_NOTHING: Final = _Metadata()


def open_envelope(data: bytes) -> Envelope:
    """Open *data*, with Bacalhau's checks in Bacalhau's order: length, version, CRC, body. Raises `DecodeError`.

    The metadata in the body are the authority, not the NATS headers that repeat them: the CRC covers only the body.
    """
    if len(data) < HEAD:
        raise DecodeError("too-short", f"{len(data)} bytes, an envelope has at least {HEAD}")
    version = data[0]
    if version not in {JSON_V1, PROTOBUF_V1}:
        raise DecodeError("unknown-version", f"version byte 0x{version:02x}")
    body = memoryview(data)[HEAD:]
    if zlib.crc32(body) != int.from_bytes(data[1:HEAD], "big"):
        raise DecodeError("bad-crc", "the checksum is another body's")
    if not body:
        raise DecodeError("no-body", "an envelope with nothing in it")
    if version == PROTOBUF_V1:
        raise DecodeError("protobuf", "a protobuf body, which Bacalhau never sends")
    message = decode(_message, body)
    metadata = message.metadata or _NOTHING
    encoding = metadata.encoding or metadata.encoding_before or "json"
    if encoding != "json":
        raise DecodeError("unknown-encoding", f"payload encoding {name_clean(encoding)}")
    name = metadata.type or metadata.type_before
    if not name:
        raise DecodeError("no-type", "the metadata name no message type")
    return Envelope(
        type=name,
        source=metadata.source or metadata.source_before or "",
        number=read_decimal(metadata.number),
        time=time_of(read_decimal(metadata.time or metadata.time_before) or 0),
        payload=message.payload,
    )
