"""Bytes to words and back: frames, REST bodies, reports, updates, entries. Pure.

One way in, one error out (`consumer.errors.DecodeError`); after that nothing is checked again.
"""

from consumer.wire.decoding import MESSAGE_MAX
from consumer.wire.display import printable
from consumer.wire.envelope import Envelope, open_envelope
from consumer.wire.frames import decode_frame, malformed_frame
from consumer.wire.report import decode_report, malformed_report
from consumer.wire.rest import decode_history, decode_job, decode_jobs, decode_node
from consumer.wire.subjects import Names, escape, job_key, unescape
from consumer.wire.update import decode_update, encode_update, fits

__all__ = [
    "MESSAGE_MAX",
    "Envelope",
    "Names",
    "decode_frame",
    "decode_history",
    "decode_job",
    "decode_jobs",
    "decode_node",
    "decode_report",
    "decode_update",
    "encode_update",
    "escape",
    "fits",
    "job_key",
    "malformed_frame",
    "malformed_report",
    "open_envelope",
    "printable",
    "unescape",
]
