"""The profiles `1.5.0` and `1.5.2`: raw JSON on `node.*` subjects, one method each (design/bacalhau.md 1.2, 3.4, 0.3).

No envelope, no number, no time of sending. A message that both releases write alike is "1.5".
"""

from collections.abc import Callable
from typing import Final

import msgspec

from consumer.errors import DecodeError
from consumer.model import Frame, FrameKind, Profile
from consumer.wire.decoding import Id, Skipped, decode, name_clean
from consumer.wire.document import EventDocument, ExecutionDocument, job_of, reason_of

OLD: Final[Profile] = "1.5.0"
NEW: Final[Profile] = "1.5.2"
EITHER: Final[Profile] = "1.5"

_STOP: Final = "job has been stopped"
"""The `Justification` of a cancel on 1.5.0 when a user stopped the job (design/bacalhau.md 3.4)."""
_ZERO_TIME: Final = b'"0001-01-01T00:00:00Z"'


class _AskForBid(msgspec.Struct, frozen=True):
    Execution: ExecutionDocument
    WaitForApproval: bool


class _Order(msgspec.Struct, frozen=True):
    ExecutionID: Id
    Justification: str = ""


class _Result(msgspec.Struct, frozen=True):
    ExecutionID: Id
    JobID: Id = ""
    SourcePeerID: Id = ""
    Accepted: bool = False
    Event: EventDocument | None = None
    PublishResult: Skipped | None = None


_ask: Final = msgspec.json.Decoder(_AskForBid)
_order: Final = msgspec.json.Decoder(_Order)
_result: Final = msgspec.json.Decoder(_Result)


def read_request(node: str, method: str, data: bytes) -> Frame:
    """A request of the orchestrator to *node*. Raises `DecodeError`."""
    if method == "AskForBid/v1":
        return _read_ask(node, data)
    kind = _ORDERS.get(method)
    if kind is None:
        raise DecodeError("unknown-type", name_clean(method))
    order = decode(_order, data)
    if not order.ExecutionID:
        raise DecodeError("no-job", f"{kind} names no execution")
    profile: Profile = EITHER
    if kind is FrameKind.CANCEL_EXECUTION:
        profile = OLD if order.Justification else NEW
    # `Accepted` of a BidAccepted is never set, false even when it approves: the subject says it.
    return Frame(
        kind=kind,
        execution=order.ExecutionID,
        node=node,
        profile=profile,
        stopped=kind is FrameKind.CANCEL_EXECUTION and _STOP in order.Justification,
    )


def read_callback(method: str, data: bytes) -> Frame:
    """A node's answer to the orchestrator. Raises `DecodeError`."""
    found = _CALLBACKS.get(method)
    if found is None:
        raise DecodeError("unknown-type", name_clean(method))
    kind, profile = found
    result = decode(_result, data)
    if not result.JobID or not result.ExecutionID:
        raise DecodeError("no-job", f"{kind} without the id of its job or execution")
    return Frame(
        kind=kind,
        execution=result.ExecutionID,
        node=result.SourcePeerID,
        profile=profile(result),
        job=result.JobID,
        accepted=kind is FrameKind.BID_RESULT and result.Accepted,
        reason=reason_of(result.Event) if kind is FrameKind.COMPUTE_ERROR else "",
    )


def _read_ask(node: str, data: bytes) -> Frame:
    ask = decode(_ask, data)
    job, snapshot = job_of(ask.Execution)
    return Frame(
        kind=FrameKind.ASK_FOR_BID,
        execution=ask.Execution.ID,
        node=node,
        profile=OLD if ask.Execution.RunOutput is None and not ask.Execution.Revision else NEW,
        job=job,
        snapshot=snapshot,
        direct=not ask.WaitForApproval,
        version=ask.Execution.JobVersion,
        partition=ask.Execution.PartitionIndex,
    )


def _of_bid(result: _Result) -> Profile:
    # A refused bid has a real event in both.
    if not result.Accepted:
        return EITHER
    return NEW if result.Event is not None and bytes(result.Event.Timestamp) == _ZERO_TIME else OLD


_ORDERS: Final = {
    "BidAccepted/v1": FrameKind.BID_ACCEPTED,
    "BidRejected/v1": FrameKind.BID_REJECTED,
    "CancelExecution/v1": FrameKind.CANCEL_EXECUTION,
}
_CALLBACKS: Final[dict[str, tuple[FrameKind, Callable[[_Result], Profile]]]] = {
    "OnBidComplete/v1": (FrameKind.BID_RESULT, _of_bid),
    "OnRunComplete/v1": (FrameKind.RUN_RESULT, lambda result: OLD if result.PublishResult is None else NEW),
    "OnComputeFailure/v1": (FrameKind.COMPUTE_ERROR, lambda _: EITHER),
    "OnCancelComplete/v1": (FrameKind.CANCEL_RESULT, lambda _: OLD),
}
