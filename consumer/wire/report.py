"""A report: a `State` that a producer published by itself. The hot path: every event of the input passes here.

It reads, and says whether subject and body agree about the job. Whether the state is one is for the rules to say.
"""

import hashlib
import re
from typing import Annotated, Final

import msgspec

from consumer.errors import DecodeError
from consumer.model import Identity, InputPosition, JobKey, Malformed, Report
from consumer.wire.decoding import MESSAGE_MAX, NAME_MAX, NO_TIME, Unsigned, check_counts, check_size, decode, read_time
from consumer.wire.subjects import DIGEST, TOKEN_MAX, Names, escape, unescape

JUNK_MAX: Final = 64 * 1024
"""Bytes of an unreadable report that are kept: enough to see what it was. Fewer where they do not fit into an entry."""

_PLAIN: Final = re.compile(rf"([A-Za-z0-9_-]{{1,{TOKEN_MAX}}})\.([A-Za-z0-9_-]{{1,{TOKEN_MAX}}})\Z")
_DIGEST: Final = re.compile(rf"{DIGEST}[0-9a-f]{{64}}\Z")

_Name = Annotated[str, msgspec.Meta(max_length=NAME_MAX)]


class _Job(msgspec.Struct, frozen=True):
    ID: str | None = None
    Namespace: str | None = None
    Name: _Name = ""
    Type: _Name = ""
    Version: Unsigned | None = None
    Revision: Unsigned | None = None

    def __post_init__(self) -> None:
        check_counts(self.Version, self.Revision)


class _Body(msgspec.Struct, frozen=True):
    StateType: str
    Message: str = ""
    Job: _Job | None = None
    Time: msgspec.Raw = NO_TIME


_decoder: Final = msgspec.json.Decoder(_Body)
_NOBODY: Final = _Job()


def decode_report(
    names: Names,
    subject: str,
    data: bytes,
    position: InputPosition,
    traceparent: str = "",
    *,
    max_bytes: int = MESSAGE_MAX,
) -> Report:
    """Read the report *data* that stands at *position* of the input under *subject*. Raises `DecodeError`.

    The subject names the job. A body that says otherwise, or that owes us what the subject has only a digest of,
    makes a report with a `problem`. `foreign`: no producer's job has such a subject.
    """
    if not 0 < len(data) <= max_bytes:
        check_size(data, max_bytes)
    prefix = names.in_prefix
    plain = _PLAIN.match(subject, len(prefix)) if subject.startswith(prefix) else None
    if plain is None:
        return _decode_escaped(names, subject, data, position, traceparent)
    body = decode(_decoder, data)
    namespace, job = plain.groups()
    told = body.Job
    if told is None:
        return Report(
            key=JobKey(plain.group()),
            job=Identity(id=job, namespace=namespace),
            position=position,
            state=body.StateType,
            message=body.Message,
            time=None if body.Time is NO_TIME else read_time(body.Time),
            traceparent=traceparent,
        )
    return _make(
        JobKey(plain.group()),
        body,
        namespace=namespace,
        job=job,
        problem=_differs(told, namespace, job),
        position=position,
        traceparent=traceparent,
    )


def malformed_report(subject: str, data: bytes, position: InputPosition, error: DecodeError) -> Malformed:
    """Describe a report that could not be read, with its bytes up to `JUNK_MAX`: they are a producer's own words."""
    return Malformed(
        reason=error.reason,
        origin=f"{position.sequence}-{position.time_ns}",
        source="report",
        subject=subject,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        detail=error.detail,
        data=data[:JUNK_MAX],
        position=position,
    )


def _decode_escaped(names: Names, subject: str, data: bytes, position: InputPosition, traceparent: str) -> Report:
    """The uncommon case: a name that had to be escaped, or that stands in the subject as a digest only."""
    key = names.key_of_report(subject)
    if key is None:
        raise DecodeError("foreign", "the subject is none of the input's")
    namespace_token, _, job_token = key.partition(".")
    namespace, job = _read_token(namespace_token), _read_token(job_token)
    if not job:
        raise DecodeError("no-job", "the job's id is empty")
    body = decode(_decoder, data)
    told = body.Job or _NOBODY
    problem = ""
    if namespace == namespace_token and namespace.startswith(DIGEST):
        namespace, problem = _settle(namespace_token, told.Namespace, "namespace")
    if job == job_token and job.startswith(DIGEST):
        job, missing = _settle(job_token, told.ID, "job")
        problem = problem or missing
    return _make(
        key,
        body,
        namespace=namespace,
        job=job,
        problem=problem or _differs(told, namespace, job),
        position=position,
        traceparent=traceparent,
    )


def _read_token(token: str) -> str:
    """The text of *token*, or the token itself where only a digest stands."""
    if _DIGEST.match(token):
        return token
    text = unescape(token)
    if text is None or not _is_text(text):
        raise DecodeError("foreign", "the subject is not spelled as names in subjects are (docs: escaping)")
    return text


def _is_text(text: str) -> bool:
    # A lone surrogate can be escaped into a subject, but no JSON body could ever name that job.
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _settle(token: str, text: str | None, what: str) -> tuple[str, str]:
    """The text that the digest *token* stands for, and the problem if the body does not have it."""
    if text is None:
        return token, f"the subject has only a digest of the {what}, and the body does not name it"
    if escape(text) != token:
        return token, f"the body's {what} is not the one of which the subject has the digest"
    return text, ""


def _differs(told: _Job, namespace: str, job: str) -> str:
    if told.ID not in {None, job}:
        return "subject and body name different jobs"
    if told.Namespace not in {None, namespace}:
        return "subject and body name different namespaces"
    return ""


def _make(
    key: JobKey, body: _Body, *, namespace: str, job: str, problem: str, position: InputPosition, traceparent: str
) -> Report:
    told = body.Job or _NOBODY
    return Report(
        key=key,
        job=Identity(id=job, namespace=namespace, name=told.Name, type=told.Type),
        position=position,
        state=body.StateType,
        message=body.Message,
        version=told.Version,
        revision=told.Revision,
        time=read_time(body.Time),
        problem=problem,
        traceparent=traceparent,
    )
