"""Real frames, encoded by hands of their own (design/bacalhau.md 2.1, 3.1, 3.4): NCL envelopes, or raw JSON of 1.5.

What is sent when is `tests.lab.cluster.cluster`'s.
"""

import zlib
from typing import Final

import msgspec

from tests.lab.cluster.record import Document, Event, Execution, spell_time
from tests.lab.cluster.releases import NEW_STATES, Release

ORCHESTRATOR: Final = "n-orch"
_ZERO_TIME: Final = "0001-01-01T00:00:00Z"
_NO_OUTPUT: Final = {
    "Stdout": "",
    "StdoutTruncated": False,
    "stderr": "",
    "StderrTruncated": False,
    "ExitCode": 0,
    "ErrorMsg": "",
}
_ORDERS: Final = frozenset({"AskForBid", "BidAccepted", "BidRejected", "CancelExecution"})
_METHODS: Final = {
    "BidResult": "OnBidComplete",
    "RunResult": "OnRunComplete",
    "ComputeError": "OnComputeFailure",
    "CancelResult": "OnCancelComplete",
}


class Message(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One message of the data plane before it is sent: a replay sends it again with the number it had.

    `kind` is the NCL type name, also where 1.5 has another. `accepted`: of a BidResult. `events`: why, or the end that
    an echo repeats. `reason`: 1.5.0's Justification.
    """

    kind: str
    execution: Execution
    number: int
    accepted: bool = False
    direct: bool = False
    event: Event | None = None
    event_ns: int = 0
    reason: str = ""

    @property
    def is_order(self) -> bool:
        """Whether it goes from the orchestrator to a node."""
        return self.kind in _ORDERS


def encode(release: Release, message: Message, now_ns: int) -> tuple[str, bytes]:
    """Subject and bytes, sent at *now_ns*."""
    if release.ncl:
        return _encode_ncl(message, _payload(release, message), now_ns)
    return _encode_old(release, message, now_ns)


def _encode_ncl(message: Message, payload: Document, now_ns: int) -> tuple[str, bytes]:
    node = message.execution.node
    subject = f"bacalhau.global.compute.{node}.{'in' if message.is_order else 'out'}.msgs"
    metadata = {
        "Bacalhau-EventTime": str(now_ns),
        "Bacalhau-MessageID": f"seq-{message.number}",
        "Bacalhau-PayloadEncoding": "json",
        "Bacalhau-SeqNum": str(message.number),
        "Bacalhau-Source": f"orchestrator-{node}" if message.is_order else node,
    }
    if message.is_order:
        metadata["Bacalhau-Subject"] = subject
    metadata |= {"Bacalhau-Type": message.kind, "PayloadEncoding": "json", "Type": message.kind}
    body = msgspec.json.encode({"metadata": metadata, "payload": payload})
    return subject, b"\x01" + zlib.crc32(body).to_bytes(4, "big") + body


def _payload(release: Release, message: Message) -> Document:
    one, kind = message.execution, message.kind
    told = _event(message)
    events = None if told is None else [told]
    if kind == "AskForBid":
        return {"Events": None, "Execution": _execution(release, one)}
    if kind in _ORDERS:
        payload: Document = {"Events": events, "ExecutionID": one.id}
        if kind == "BidAccepted":
            payload["Accepted"] = True
        return payload
    payload = {"ExecutionID": one.id, "JobID": one.job.id, "JobType": one.job.spec.type, "Events": events}
    if kind == "BidResult":
        payload["Accepted"] = message.accepted
    elif kind == "RunResult":
        payload |= {"PublishResult": {"Type": ""}, "RunCommandResult": _NO_OUTPUT}
    return payload


def _execution(release: Release, one: Execution) -> Document:
    old = release.is_oldest
    document: Document = {
        "ID": one.id,
        "Namespace": one.job.namespace,
        "EvalID": "ea37f6c9-69be-4883-a3c7-0968356c5fb9",
        "Name": "",
        "NodeID": one.node,
        "JobID": one.job.id,
        "Job": one.snapshot,
    }
    if release.versioned:
        document["JobVersion"] = one.version
    document |= {
        "AllocatedResources": {"Tasks": {}},
        "DesiredState": {"StateType": int(one.direct)},
        "ComputeState": {"StateType": NEW_STATES["New"]},
        "PublishedResult": {"Type": ""},
        "RunOutput": None if old else _NO_OUTPUT,
        "PreviousExecution": "",
        "NextExecution": "",
        "FollowupEvalID": "",
    }
    if release.partitions and one.partition:
        document["PartitionIndex"] = one.partition
    created = 0 if old else one.created_ns
    return document | {"Revision": int(not old), "CreateTime": created, "ModifyTime": created}


def _encode_old(release: Release, message: Message, now_ns: int) -> tuple[str, bytes]:
    kind = message.kind
    if message.is_order:
        return f"node.compute.{message.execution.node}.{kind}/v1", msgspec.json.encode(_old_order(release, message))
    body = _old_answer(release, message, now_ns)
    return f"node.orchestrator.{ORCHESTRATOR}.{_METHODS[kind]}/v1", msgspec.json.encode(body)


def _old_order(release: Release, message: Message) -> Document:
    one, kind = message.execution, message.kind
    body: Document = {"SourcePeerID": ORCHESTRATOR, "TargetPeerID": one.node}
    if kind == "AskForBid":
        return body | {"Execution": _execution(release, one), "WaitForApproval": not one.direct}
    if kind == "CancelExecution":
        return body | {"ExecutionID": one.id, "Justification": message.reason if release.is_oldest else ""}
    return body | {"ExecutionID": one.id, "Accepted": False, "Justification": ""}


def _old_answer(release: Release, message: Message, now_ns: int) -> Document:
    one = message.execution
    body: Document = {"SourcePeerID": one.node, "TargetPeerID": ORCHESTRATOR}
    body |= {"ExecutionID": one.id, "JobID": one.job.id}
    match message.kind:
        case "BidResult":
            nothing = {"Message": "", "Topic": "", "Timestamp": _ZERO_TIME}
            if release.is_oldest:
                nothing |= {"Topic": "Exec Scanning", "Timestamp": spell_time(now_ns)}
            return body | {"Accepted": message.accepted, "Wait": False, "Event": _event(message) or nothing}
        case "RunResult":
            published = None if release.is_oldest else {"Type": ""}
            return body | {"PublishResult": published, "RunCommandResult": _NO_OUTPUT}
        case "ComputeError":
            return body | {"Event": _event(message)}
    return body


def _event(message: Message) -> Document | None:
    """Why, as the node tells it."""
    if message.event is None:
        return None
    told: Document = {"Message": message.event.message, "Topic": message.event.topic}
    told["Timestamp"] = spell_time(message.event_ns)
    if message.event.details is not None:
        told["Details"] = message.event.details
    return told
