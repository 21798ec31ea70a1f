"""The appends that lanes send: the subject, body and compare-and-set of each kind of entry. No I/O."""

from typing import Final

from consumer.core.appends import Append
from consumer.core.input_order import Checkpoint
from consumer.model import (
    NOWHERE,
    Event,
    InputPosition,
    JobKey,
    LastUpdate,
    Malformed,
    Notice,
    Record,
    Rejected,
    Report,
    Update,
)
from consumer.wire import entries
from consumer.wire.subjects import Names
from consumer.wire.update import cut_update, encode_update

HEADERS_MAX: Final = 2048
"""Bytes of an entry's headers: its subjects, two numbers, a position and a `traceparent`."""


class Composer:
    """Composes the entries of one shard. *message_max* bounds each, body and headers."""

    def __init__(self, names: Names, message_max: int, shard: str) -> None:
        self._names: Final = names
        self._body_max: Final = message_max - HEADERS_MAX
        self._shard: Final = shard

    def lane_of(self, work: Malformed | Notice) -> JobKey:
        """The key of the lane of *work*, which names no job: its own subject, which is none of a job's."""
        if isinstance(work, Malformed):
            return JobKey(self._names.undecodable("*", work.origin))
        return JobKey(self._names.advisory(work.kind, work.origin))

    def fit(self, update: Update) -> tuple[Update, bytes]:
        """*update*, cut where an entry has no room for it, and its bytes.

        Only a record's message is too long: a report is bounded where it is read. Sent uncut it would end every daemon.
        """
        body = encode_update(update)
        if len(body) > self._body_max:
            update = cut_update(update, self._body_max)
            body = encode_update(update)
        return update, body

    def update(
        self, token: int, key: JobKey, state: str, body: bytes, *, expected: int, covered: InputPosition, event: Event
    ) -> Append:
        """Compose the update *body*, which follows entry *expected*; *covered* is the job's last report."""
        return Append(
            token=token,
            subject=self._names.state(key, state),
            filter=self._names.states(key),
            expected=expected,
            body=body,
            input=f"{covered.sequence}@{covered.time_ns}" if covered > NOWHERE else "",
            traceparent=event.traceparent if isinstance(event, Report) else "",
        )

    def notice(self, token: int, notice: Notice) -> Append:
        """Compose what is announced, once."""
        subject = self._names.advisory(notice.kind, notice.origin)
        return Append(token=token, subject=subject, filter=subject, expected=0, body=entries.encode_advisory(notice))

    def checkpoint(self, token: int, checkpoint: Checkpoint) -> Append:
        """Compose the checkpoint that replaces the one before."""
        subject = self._names.checkpoint(self._shard)
        return Append(
            token=token,
            subject=subject,
            filter=subject,
            expected=checkpoint.follows,
            body=entries.encode_checkpoint(checkpoint.position),
            rollup=True,
        )

    def undecodable(self, token: int, event: Malformed) -> Append:
        """Compose the description of what is malformed; it is kept once, whoever keeps it."""
        return Append(
            token=token,
            subject=self._names.undecodable(event.reason, event.origin),
            filter=self._names.undecodable("*", event.origin),
            expected=0,
            body=entries.encode_undecodable(event, self._body_max),
            stream="refused",
        )

    def rejected(self, token: int, event: Report | Record, rejected: Rejected, known: LastUpdate | None) -> Append:
        """Compose what is kept of a rejected event, *known* beside it.

        One event is kept once, also where two daemons reject it for two reasons.
        """
        origin = _origin(event, rejected)
        return Append(
            token=token,
            subject=self._names.quarantine(rejected.reason, event.key, origin),
            filter=self._names.quarantine("*", event.key, origin),
            expected=0,
            body=entries.encode_quarantine(event, rejected, known),
            traceparent=event.traceparent if isinstance(event, Report) else "",
            stream="refused",
        )


def _origin(event: Report | Record, rejected: Rejected) -> str:
    """What makes the rejection of *event* one, whoever rejects it: where in the input or the record it came from."""
    if isinstance(event, Report):
        return f"{event.position.sequence}-{event.position.time_ns}"
    step = event.steps[rejected.step]
    return f"{step.version}-{step.revision}"
