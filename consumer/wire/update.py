"""An update as bytes, there and back. Which updates are made is `consumer.core`."""

from bisect import bisect_left
from typing import Final

import msgspec

from consumer.errors import DecodeError
from consumer.model import Flag, Update
from consumer.wire.decoding import UINT64_MAX, decode
from consumer.wire.subjects import Names, job_key

CUT: Final[Flag] = "cut"
"""The flag of an update whose message is not all of it."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Update)


def encode_update(update: Update) -> bytes:
    """The body of *update* (design/design.md 4). The same update is the same bytes, whoever writes it."""
    return _encoder.encode(update)


def cut_update(update: Update, most: int) -> Update:
    """*update* with as much of its message as a body of *most* bytes holds, and the flag that says so.

    A character may take six bytes: what fits is not known before it is encoded.
    """
    flagged = msgspec.structs.replace(update, Flags=(*update.Flags, CUT))

    def size(characters: int) -> int:
        return len(_encoder.encode(msgspec.structs.replace(flagged, Message=update.Message[:characters])))

    held = bisect_left(range(1, len(update.Message) + 1), most + 1, key=size)
    return msgspec.structs.replace(flagged, Message=update.Message[:held])


def decode_update(data: bytes) -> Update:
    """Read the update that *data* is. Raises `DecodeError`: a number that none of ours can have is `wrong-shape`."""
    update = decode(_decoder, data)
    if not 1 <= update.Sequence <= UINT64_MAX:
        raise DecodeError("wrong-shape", "Sequence counts from 1 - at `$.Sequence`")
    for count in (update.Job.Version, update.Job.Revision):
        if count is not None and not 0 <= count <= UINT64_MAX:
            raise DecodeError("wrong-shape", "Integer value out of range - at `$.Job`")
    if update.Time is not None and update.Time.tzinfo is None:
        raise DecodeError("wrong-shape", "a time without a zone - at `$.Time`")
    return update


def fits(names: Names, subject: str, update: Update) -> bool:
    """Whether *subject* is exactly the one under which *update* is stored."""
    return subject == names.state(job_key(update.Job.Namespace, update.Job.ID), update.StateType)
