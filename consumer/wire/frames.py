"""Which of Bacalhau's messages are for us, and what they say: bytes to `Frame`, or to a `Malformed`.

The profile belongs to the message, never to the cluster: mixed clusters are real (design/bacalhau.md 1.2).
"""

import hashlib

from consumer.errors import DecodeError
from consumer.model import Frame, Malformed
from consumer.wire.bprotocol import read_callback, read_request
from consumer.wire.decoding import MESSAGE_MAX, check_size
from consumer.wire.envelope import open_envelope
from consumer.wire.ncl import read_ncl


def decode_frame(subject: str, data: bytes, *, max_bytes: int = MESSAGE_MAX) -> Frame | None:
    """Read one message of Bacalhau's subjects; None for what is not for us, which is not even looked at.

    For us are `bacalhau.global.compute.<node>.{in,out}.msgs` and, of `node.{compute,orchestrator}.<id>`, all but
    `ExecutionLogs` (output). Raises `DecodeError` and nothing else.
    """
    match subject.split("."):
        case ["bacalhau", "global", "compute", node, "in" | "out", "msgs"]:
            check_size(data, max_bytes)
            return read_ncl(node, open_envelope(data))
        case ["node", "compute", node, method] if not method.startswith("ExecutionLogs/"):
            check_size(data, max_bytes)
            return read_request(node, method, data)
        case ["node", "orchestrator", _, method]:
            check_size(data, max_bytes)
            return read_callback(method, data)
        case _:
            return None


def malformed_frame(subject: str, data: bytes, error: DecodeError) -> Malformed:
    """Describe a frame that could not be read: where it was, how large, its digest. Never what was in it."""
    digest = hashlib.sha256(data).hexdigest()
    return Malformed(
        reason=error.reason,
        origin=f"sha256-{digest[:32]}",
        source="frame",
        subject=subject,
        size=len(data),
        sha256=digest,
        detail=error.detail,
    )
