"""Bodies of what the log and the refused stream hold beside updates: shapes, and bytes there and back.

Keys are capitalised like an update's. A frame's bytes and a record's messages are in none of them.
"""

import base64
from datetime import datetime
from typing import Final

import msgspec

from consumer.errors import DecodeError
from consumer.model import NOWHERE, InputPosition, Job, LastUpdate, Malformed, Notice, Record, Rejected, Report
from consumer.wire.decoding import MESSAGE_MAX, decode
from consumer.wire.subjects import unescape

INT64: Final = 2**63
"""Nanoseconds and sequences that are real are below it."""


class InputPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the input: stream sequence and time (Unix nanoseconds)."""

    Sequence: int
    Time: int


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Everything up to this place of the input is decided and confirmed."""

    Input: InputPlace


class RulesStamp(msgspec.Struct, frozen=True, kw_only=True):
    """By which rules the log was made."""

    Name: str
    Hash: str


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """How this log was made. `Since`: jobs that ended before (Unix nanoseconds) are left out; None: not agreed yet."""

    Format: int = 1
    Rules: RulesStamp
    Since: int | None = None
    Cluster: str


class JobName(msgspec.Struct, frozen=True, kw_only=True):
    """The job that an advisory is about."""

    ID: str
    Namespace: str


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """Something a reader of the log must be told."""

    Kind: str
    Text: str
    Job: JobName | None = None
    Facts: dict[str, str | int | None] = {}


class UndecodableBody(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that could not be read. `Data` is base64, of reports only, maybe cut; `Size` and `SHA256` tell of all."""

    Reason: str
    Source: str
    Subject: str
    Size: int
    SHA256: str
    Detail: str = ""
    Input: InputPlace | None = None
    Data: str | None = None


class RefusedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a record, without its message."""

    StateType: str
    Version: int
    Revision: int | None
    Time: datetime | None = None


class PlaceBody(msgspec.Struct, frozen=True, kw_only=True):
    """The update that a record's steps follow; `Sequence` 0: none."""

    Sequence: int
    StateType: str
    Version: int | None = None
    Revision: int | None = None


class RefusedReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="Kind", tag="report"):
    """A rejected report, with all that it takes to put it back."""

    StateType: str
    Message: str
    Job: Job
    Time: datetime | None
    Input: InputPlace


class RefusedRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="Kind", tag="record"):
    """Rejected steps of a record. Their messages can be read from the orchestrator, which has them.

    `Left`: how many of the steps are not here, because there are more than `STEPS_MAX`.
    """

    Job: Job
    After: PlaceBody
    Steps: tuple[RefusedStep, ...]
    Left: int | msgspec.UnsetType = msgspec.UNSET


class KnownBody(msgspec.Struct, frozen=True, kw_only=True):
    """The state that a rejected event met."""

    Sequence: int
    StateType: str
    Version: int | None
    Revision: int | None
    Source: str
    Input: InputPlace | None = None


class Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    """A rejected event, the state it met, the rule it broke."""

    Reason: str
    Rule: str
    Event: RefusedReport | RefusedRecord
    Known: KnownBody | None


STEPS_MAX: Final = 128
"""Steps of a rejected record that are kept: the one that was rejected, and those after it."""
FACT_MAX: Final = 1024
SUBJECT_MAX: Final = 4096
"""Characters of a fact, and of a subject, that are kept: both may come from a stranger."""

_encoder: Final = msgspec.json.Encoder()
_checkpoint: Final = msgspec.json.Decoder(Checkpoint)
_format: Final = msgspec.json.Decoder(Format)
_advisory: Final = msgspec.json.Decoder(Advisory)
_undecodable: Final = msgspec.json.Decoder(UndecodableBody)
_quarantine: Final = msgspec.json.Decoder(Quarantine)


def encode_checkpoint(position: InputPosition) -> bytes:
    """Where a restart may begin to read the input."""
    return _encoder.encode(Checkpoint(Input=_input(position)))


def decode_checkpoint(data: bytes) -> InputPosition:
    """Raises `DecodeError`, also for a place that no input has: asked for it, the server would refuse us for ever."""
    place = decode(_checkpoint, data).Input
    if not (0 < place.Sequence < INT64 and 0 < place.Time < INT64):
        raise DecodeError("out-of-range", "sequence and time of a place in the input are between 1 and 2**63 - 1")
    return InputPosition(place.Time, place.Sequence)


def encode_format(body: Format) -> bytes:
    """By which format and rules the log is made."""
    return _encoder.encode(body)


def decode_format(data: bytes) -> Format:
    """Raises `DecodeError`. A higher `Format` than 1 is decoded as far as it is known: look at it first."""
    body = decode(_format, data)
    if body.Since is not None and not 0 <= body.Since < INT64:
        raise DecodeError("out-of-range", "Since is between 0 and 2**63 - 1")
    return body


def encode_advisory(notice: Notice) -> bytes:
    """The body of *notice*. A name that is a digest in subjects stays a digest."""
    job = None
    if notice.key is not None:
        namespace, _, name = notice.key.partition(".")
        job = JobName(ID=_text(name), Namespace=_text(namespace))
    facts = {
        key: _shorten(_writable(fact), FACT_MAX) if isinstance(fact, str) else fact
        for key, fact in notice.facts.items()
    }
    return _encoder.encode(Advisory(Kind=notice.kind, Text=_writable(notice.text), Job=job, Facts=facts))


def decode_advisory(data: bytes) -> Advisory:
    """Raises `DecodeError`."""
    return decode(_advisory, data)


def encode_undecodable(junk: Malformed, most: int = MESSAGE_MAX) -> bytes:
    """The body of *junk*, with as much of its data as *most* bytes hold. A frame's has none, whatever *junk* holds."""
    data = junk.data if junk.source == "report" else None
    body = _undecodable_of(junk, data)
    if data is not None and (over := len(body) - most) > 0:
        groups = -(-len(data) // 3) - -(-over // 4)  # of three bytes, each four characters of base64
        body = _undecodable_of(junk, data[: 3 * max(groups, 0)])
    return body


def _undecodable_of(junk: Malformed, data: bytes | None) -> bytes:
    return _encoder.encode(
        UndecodableBody(
            Reason=junk.reason,
            Source=junk.source,
            Subject=_shorten(_writable(junk.subject), SUBJECT_MAX),
            Size=junk.size,
            SHA256=junk.sha256,
            Detail=_shorten(_writable(junk.detail), FACT_MAX),
            Input=_input(junk.position) if junk.position > NOWHERE else None,
            Data=base64.b64encode(data).decode("ascii") if data is not None else None,
        )
    )


def decode_undecodable(data: bytes) -> UndecodableBody:
    """Raises `DecodeError`."""
    return decode(_undecodable, data)


def encode_quarantine(event: Report | Record, rejected: Rejected, known: LastUpdate | None) -> bytes:
    """The body of a rejected event: it, the state it met, the rule it broke."""
    return _encoder.encode(
        Quarantine(
            Reason=rejected.reason,
            Rule=rejected.rule,
            Event=_refused_report(event) if isinstance(event, Report) else _refused_record(event, rejected),
            Known=_known(known) if known is not None else None,
        )
    )


def decode_quarantine(data: bytes) -> Quarantine:
    """Raises `DecodeError`."""
    return decode(_quarantine, data)


def _refused_report(report: Report) -> RefusedReport:
    return RefusedReport(
        StateType=report.state,
        Message=report.message,
        Job=Job(
            ID=report.job.id,
            Namespace=report.job.namespace,
            Name=report.job.name,
            Type=report.job.type,
            Version=report.version,
            Revision=report.revision,
        ),
        Time=report.time,
        Input=_input(report.position),
    )


def _refused_record(record: Record, rejected: Rejected) -> RefusedRecord:
    after, steps = record.after, record.steps
    if len(steps) > STEPS_MAX:
        steps = steps[rejected.step : rejected.step + STEPS_MAX]
    return RefusedRecord(
        Job=Job(ID=record.job.id, Namespace=record.job.namespace, Name=record.job.name, Type=record.job.type),
        After=PlaceBody(Sequence=after.sequence, StateType=after.state, Version=after.version, Revision=after.revision),
        Steps=tuple(
            RefusedStep(StateType=step.state, Version=step.version, Revision=step.revision, Time=step.time)
            for step in steps
        ),
        Left=len(record.steps) - len(steps) or msgspec.UNSET,
    )


def _known(known: LastUpdate) -> KnownBody:
    return KnownBody(
        Sequence=known.sequence,
        StateType=known.state,
        Version=known.version,
        Revision=known.revision,
        Source=known.source,
        Input=_input(known.input) if known.input > NOWHERE else None,
    )


def _input(position: InputPosition) -> InputPlace:
    return InputPlace(Sequence=position.sequence, Time=position.time_ns)


def _text(token: str) -> str:
    text = unescape(token)
    return token if text is None else _writable(text)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _writable(text: str) -> str:
    r"""*text*, with what is no Unicode (bytes of a subject that is not UTF-8) spelled `\udcXX`: JSON must carry it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
