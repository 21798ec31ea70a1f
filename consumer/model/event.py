"""The question and the answer of deciding: `Event` in, `Decision` out.

An event names exactly one job, or none at all. Nothing here decides anything (`consumer.core`).
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, NewType

import msgspec

from consumer.model.state import Update
from consumer.model.words import (
    OBSERVED,
    BytesFrom,
    Flag,
    NoticeKind,
    RejectedReason,
    Source,
    UnchangedReason,
    UndecodableReason,
)

JobKey = NewType("JobKey", str)
"""`<namespace>.<job>` as escaped subject tokens: one value for the lane, the subject, the compare-and-set's filter.

Made by `consumer.wire.subjects.job_key` only."""

StreamSeq = NewType("StreamSeq", int)
"""NATS: position in a stream, from 1; 0 means none."""


class InputPosition(NamedTuple):
    """A report's place in the input. Time first: an input made anew counts from below (design/design.md 7.5)."""

    time_ns: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.sequence}@{self.time_ns}"


NOWHERE = InputPosition(0, 0)
"""Before every report."""


class Identity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The job's identity, as far as its source knows it. Empty strings where unknown."""

    id: str
    namespace: str
    name: str = ""
    type: str = ""


class LastUpdate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last confirmed update of a job, in short: all that the next decision needs.

    `number` is the stream sequence that the next compare-and-set expects: the job's last entry's, ours or foreign.
    `input_time_ns` and `input_sequence` are the last report that is covered, (0, 0) if there was none. `time_ns`:
    when the record says that it happened (Unix ns, to the microsecond); 0 of what is not observed.
    """

    number: int
    sequence: int
    state: str
    version: int | None
    revision: int | None
    source: Source
    message: str = ""
    input_time_ns: int = 0
    input_sequence: int = 0
    name: str = ""
    type: str = ""
    time_ns: int = 0

    @property
    def input(self) -> InputPosition:
        """The last report that this covers."""
        return InputPosition(self.input_time_ns, self.input_sequence)


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One change of state in a job's record. `revision` is the number of its job-level history entry, from 1.

    None where nobody knows it: inferred from frames alone, without an orchestrator.
    """

    version: int
    revision: int | None
    state: str
    message: str = ""
    time: datetime | None = None


NUMBER_MAX = 2**32 - 1
"""The highest version or revision that can be real: Bacalhau pages its history by 32 bits (design/bacalhau.md 6.3).

A higher one would make everything after it late, for ever (design/nats.md 7): every edge refuses it."""


class LogPoint(NamedTuple):
    """The update that an event follows; `sequence` 0 is "none yet"."""

    sequence: int
    version: int | None
    revision: int | None
    state: str


START = LogPoint(0, None, None, "")
"""Follows nothing: the event is the job's first."""


def log_point_of(known: LastUpdate | None) -> LogPoint:
    """Where the log stands for a job: what the next event must follow."""
    return START if known is None else LogPoint(known.sequence, known.version, known.revision, known.state)


class ReadCause(StrEnum):
    """The cause for reading a job's record."""

    HINT = "hint"
    """A frame named the job."""
    SCAN = "scan"
    """A list showed it otherwise, or it was its turn."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Steps of a job's record that join what was known when they were read (design/design.md 6, from record to event).

    `corrected`: one step, the record's present state, exempt from the rules because the log contradicts the record or
    followed reports before. `cause` says what made us look. `source` is `DERIVED` for an inference
    from a frame: what the record will say, or (without an orchestrator) what it must say as far as frames can tell.
    """

    key: JobKey
    job: Identity
    after: LogPoint
    steps: tuple[Step, ...]
    flags: tuple[Flag, ...] = ()
    corrected: bool = False
    cause: ReadCause = ReadCause.SCAN
    source: Source = OBSERVED


class Report(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A `State` that a producer published by itself, at *position* of the input.

    `problem` is set where subject and body disagree about the job: such a report is rejected, not read further.
    """

    key: JobKey
    job: Identity
    position: InputPosition
    state: str
    message: str = ""
    version: int | None = None
    revision: int | None = None
    time: datetime | None = None
    problem: str = ""
    traceparent: str = ""


class Malformed(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that could not be read. `data` only of a report, bounded; never of a frame (frames hold secrets).

    `origin` is one subject token, the same whoever sees these bytes. `position` is the input's, `NOWHERE` for a frame.
    """

    reason: UndecodableReason
    origin: str
    source: BytesFrom
    subject: str
    size: int
    sha256: str
    detail: str = ""
    data: bytes | None = None
    position: InputPosition = NOWHERE


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something a reader of the log must be told: gap, diverged, foreign, stuck … One entry per (kind, origin)."""

    kind: NoticeKind
    origin: str
    text: str
    key: JobKey | None = None
    facts: dict[str, str | int | None] = {}


Event = Record | Report | Malformed
"""An input from outside; it ends in exactly one decision."""

Work = Event | Notice
"""A lane's items: events, and our own notices."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The state changes: *update* is to be appended. `more`: the event has further steps after this one."""

    update: Update
    more: bool = False


class Unchanged(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to append."""

    reason: UnchangedReason


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """The event is kept in quarantine. `rule` is the sentence that an operator reads.

    `step`: which of a record's steps broke it, from 0.
    """

    reason: RejectedReason
    rule: str
    step: int = 0


class Undecodable(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes are kept (a report's) or only described (a frame's)."""

    reason: UndecodableReason


Decision = Accepted | Unchanged | Rejected | Undecodable
