"""The profiles `1.6-1.7` and `1.8+`: NCL's data plane (design/bacalhau.md 3.1, `pkg/models/messages`).

Only an AskForBid tells the two apart; any other message is "ncl". The envelope is `consumer.wire.envelope`.
"""

from typing import Final

import msgspec

from consumer.errors import DecodeError
from consumer.model import Frame, FrameKind
from consumer.wire.decoding import Id, Skipped, decode, name_clean, read_time
from consumer.wire.document import DIRECT, EventDocument, ExecutionDocument, job_of, reason_of
from consumer.wire.envelope import Envelope


class _AskForBid(msgspec.Struct, frozen=True):
    Execution: ExecutionDocument


class _Order(msgspec.Struct, frozen=True):
    """BidAccepted, BidRejected, CancelExecution: from the orchestrator, of an execution only."""

    ExecutionID: Id
    Events: list[Skipped] | None = None


class _Result(msgspec.Struct, frozen=True):
    """BidResult, RunResult, ComputeError: from a node, with the job."""

    ExecutionID: Id
    JobID: Id = ""
    Accepted: bool = False
    Events: list[EventDocument] | None = None


_ask: Final = msgspec.json.Decoder(_AskForBid)
_order: Final = msgspec.json.Decoder(_Order)
_result: Final = msgspec.json.Decoder(_Result)

_ORDERS: Final[dict[str, FrameKind]] = {
    kind.value: kind for kind in (FrameKind.BID_ACCEPTED, FrameKind.BID_REJECTED, FrameKind.CANCEL_EXECUTION)
}
_RESULTS: Final[dict[str, FrameKind]] = {
    kind.value: kind for kind in (FrameKind.BID_RESULT, FrameKind.RUN_RESULT, FrameKind.COMPUTE_ERROR)
}


def read_ncl(node: str, envelope: Envelope) -> Frame:
    """The frame that *envelope* holds. Raises `DecodeError`; of a type that does not belong here, `unknown-type`."""
    if envelope.type == FrameKind.ASK_FOR_BID:
        return _read_ask(node, envelope)
    if (kind := _ORDERS.get(envelope.type)) is not None:
        order = decode(_order, envelope.payload)
        if not order.ExecutionID:
            raise DecodeError("no-job", f"{kind} names no execution")
        return Frame(
            kind=kind,
            execution=order.ExecutionID,
            node=node,
            profile="ncl",
            # 1.8+: with the Events of an end it repeats that end; without it is a real cancel (design/bacalhau.md 5.4).
            echo=kind is FrameKind.CANCEL_EXECUTION and bool(order.Events),
            number=envelope.number,
            event_time=envelope.time,
        )
    if (kind := _RESULTS.get(envelope.type)) is not None:
        result = decode(_result, envelope.payload)
        if not result.JobID or not result.ExecutionID:
            raise DecodeError("no-job", f"{kind} without the id of its job or execution")
        return Frame(
            kind=kind,
            execution=result.ExecutionID,
            node=node,
            profile="ncl",
            job=result.JobID,
            accepted=kind is FrameKind.BID_RESULT and result.Accepted,
            reason=reason_of(result.Events[0]) if kind is FrameKind.COMPUTE_ERROR and result.Events else "",
            number=envelope.number,
            event_time=envelope.time,
            ended_ago_s=_ended_ago(envelope, result) if kind is FrameKind.RUN_RESULT else 0.0,
        )
    raise DecodeError("unknown-type", name_clean(envelope.type))


def _ended_ago(envelope: Envelope, result: _Result) -> float:
    """Seconds from the execution's end to the sending of *result*; 0 where either time is missing."""
    ended = read_time(result.Events[-1].Timestamp) if result.Events else None
    if ended is None or envelope.time is None:
        return 0.0
    return max((envelope.time - ended).total_seconds(), 0.0)


def _read_ask(node: str, envelope: Envelope) -> Frame:
    execution = decode(_ask, envelope.payload).Execution
    job, snapshot = job_of(execution)
    return Frame(
        kind=FrameKind.ASK_FOR_BID,
        execution=execution.ID,
        node=node,
        profile="1.8+" if execution.JobVersion else "1.6-1.7",
        job=job,
        snapshot=snapshot,
        direct=execution.DesiredState.StateType == DIRECT,
        version=execution.JobVersion,
        partition=execution.PartitionIndex,
        number=envelope.number,
        event_time=envelope.time,
    )
