"""Every subject and stream name, made in one place from one value, so that a filter always matches its subject.

Prefix `jobstate.v1.<cluster>`. A token is `A-Za-z0-9_-`, everything else `=XX` per UTF-8 byte (design/design.md 4).
"""

import functools
import hashlib
import re
from typing import Final, Literal, get_args

from consumer.model import JobKey, NoticeKind, RejectedReason, UndecodableReason

StreamName = Literal["log", "input", "refused", "bucket"]
"""Our streams, as labels of metrics and parts of /readyz name them."""
STREAM_NAMES: Final[tuple[StreamName, ...]] = get_args(StreamName)

RefusedKind = Literal["quarantine", "undecodable"]
"""The kinds of entries in the stream of what was refused: a rejected event, and bytes that could not be read."""
AnyToken = Literal["*"]
"""In a filter: whatever stands there."""

TOKEN_MAX: Final = 128
"""Bytes: a longer token becomes `=sha256=` and the digest; the body has it in full."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_ESCAPED: Final = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+\Z")
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
DIGEST: Final = "=sha256="


def escape(text: str) -> str:
    """Spell *text* as one subject token. The empty text becomes `=`, which no other text does."""
    if _PLAIN.match(text) and len(text) <= TOKEN_MAX:
        return text
    if not text:
        return "="
    raw = text.encode("utf-8", "surrogatepass")
    token = "".join(chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in raw)
    if len(token) > TOKEN_MAX:
        return DIGEST + hashlib.sha256(raw).hexdigest()
    return token


def unescape(token: str) -> str | None:
    """The text that *token* spells, or None where only a digest stands or `escape` never made it."""
    if _PLAIN.match(token):
        return token if len(token) <= TOKEN_MAX else None
    if token == "=":
        return ""
    if not _ESCAPED.match(token) or len(token) > TOKEN_MAX:
        return None
    out = bytearray()
    index = 0
    while index < len(token):
        if token[index] == "=":
            out.append(int(token[index + 1 : index + 3], 16))
            index += 3
        else:
            out.append(ord(token[index]))
            index += 1
    try:
        text = out.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return text if escape(text) == token else None


def job_key(namespace: str, job: str) -> JobKey:
    """The one value from which a job's lane, subjects and filter are made."""
    return JobKey(f"{escape(namespace)}.{escape(job)}")


class Names:
    """The subjects and streams of one cluster."""

    def __init__(self, cluster: str = "main") -> None:
        self.cluster: Final = cluster
        self.prefix: Final = f"jobstate.v1.{cluster}"
        self.log: Final = f"JOBSTATE_{cluster}"
        self.input: Final = f"JOBSTATE_IN_{cluster}"
        self.refused: Final = f"JOBSTATE_REFUSED_{cluster}"
        self.bucket: Final = f"jobstate_{cluster}"
        self.bucket_stream: Final = f"KV_jobstate_{cluster}"
        self.in_prefix: Final = f"{self.prefix}.in."
        self.state_prefix: Final = f"{self.prefix}.state."
        self.format: Final = f"{self.prefix}.format"
        self.log_subjects: Final = (
            f"{self.prefix}.state.*.*.*",
            f"{self.prefix}.advisory.*.*",
            self.format,
            f"{self.prefix}.checkpoint.*",
        )
        self.refused_subjects: Final = (
            f"{self.prefix}.quarantine.*.*.*.*",
            f"{self.prefix}.undecodable.*.*",
        )

    def report(self, key: JobKey) -> str:
        """Where a report of the job is published."""
        return self.in_prefix + key

    def state(self, key: JobKey, state: str) -> str:
        """Where an update of the job is stored. The state is the last token, lower case, escaped."""
        return f"{self.state_prefix}{key}.{_state_token(state)}"

    def states(self, key: JobKey) -> str:
        """All updates of the job: the compare-and-set's filter."""
        return f"{self.state_prefix}{key}.*"

    def quarantine(self, reason: RejectedReason | AnyToken, key: JobKey, origin: str) -> str:
        """Where a rejected event is kept; one event is kept once, whatever its *reason*."""
        return f"{self.prefix}.quarantine.{reason}.{key}.{origin}"

    def undecodable(self, reason: UndecodableReason | AnyToken, origin: str) -> str:
        """Where unreadable bytes are described."""
        return f"{self.prefix}.undecodable.{reason}.{origin}"

    def advisory(self, kind: NoticeKind | AnyToken, origin: str) -> str:
        """Where a notice is kept, once per cause."""
        return f"{self.prefix}.advisory.{kind}.{origin}"

    def checkpoint(self, shard: str) -> str:
        """Where a restart learns from where to read the input."""
        return f"{self.prefix}.checkpoint.{shard}"

    def key_of_report(self, subject: str) -> JobKey | None:
        """The job that an input subject names, or None if it is none of the input's."""
        if not subject.startswith(self.in_prefix):
            return None
        return _two_tokens(subject[len(self.in_prefix) :])

    def key_of_state(self, subject: str) -> JobKey | None:
        """The job that a log subject names, or None if it is no update's."""
        if not subject.startswith(self.state_prefix):
            return None
        return _two_tokens(subject[len(self.state_prefix) :].rpartition(".")[0])

    def key_in_bucket(self, key: JobKey) -> str:
        """The subject of the job in the KV bucket's stream."""
        return f"$KV.{self.bucket}.{key}"


@functools.lru_cache(maxsize=64)
def _state_token(state: str) -> str:
    # The rules know a handful of states, and every update names one.
    return escape(state.lower())


def _two_tokens(tail: str) -> JobKey | None:
    namespace, dot, job = tail.partition(".")
    if dot and namespace and job and "." not in job:
        return JobKey(tail)
    return None
