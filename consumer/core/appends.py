"""What the lanes ask of the log, and what the log may answer. Shapes only; `consumer.core.lanes` decides.

Every entry carries a compare-and-set: it is stored after the entry that its filter names, and after no other.
"""

from collections import Counter
from typing import Final, Literal, get_args

import msgspec

AppendStream = Literal["log", "refused"]
"""The streams that the lanes append to: updates, notices and checkpoints; and what was refused."""
APPEND_STREAMS: Final[tuple[AppendStream, ...]] = get_args(AppendStream)

Outcome = Literal["stored", "refused", "busy", "full", "unanswered", "lost"]
"""What came of one sending of an append.

`stored`: it is confirmed. `refused`: another entry stood there (`Refused`). `busy`: another append of the same job was
in flight (`Busy`). `full`: the stream, or its server, has no room. `unanswered`: no answer within the time, or none
that says whether it is stored. `lost`: the connection ended before an answer came.
"""
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

Outcomes = Counter[tuple[AppendStream, Outcome]]
"""How many appends came to what. One that was sent twice counts twice."""


class Append(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Store *body* under *subject* if the last entry under *filter* has stream sequence *expected* (0: none).

    *token* comes back with the answer; a repeat of the same append keeps it. *input* is the header `Jobstate-Input`
    (`<sequence>@<time in ns>`, empty: none). *rollup*: replace what the subject held. *stream* is where it goes.
    """

    token: int
    subject: str
    filter: str
    expected: int
    body: bytes
    input: str = ""
    traceparent: str = ""
    rollup: bool = False
    stream: AppendStream = "log"


class ReadBack(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Read a job's entries from the log (its leader): the last one, or (*whole*) all of them in order."""

    token: int
    filter: str
    whole: bool = False


class Stored(msgspec.Struct, frozen=True, gc=False):
    """It is in the log, at this stream sequence."""

    number: int


class Refused(msgspec.Struct, frozen=True, gc=False):
    """10071: the last entry under the filter has another number, this one."""

    number: int


class Busy(msgspec.Struct, frozen=True, gc=False):
    """10164 (10158): another append of the same job is in flight; it may still fail."""


class Unanswered(msgspec.Struct, frozen=True, gc=False):
    """No answer, or none that says whether it is stored (timeout, 503, 10167, a *full* stream). *why*: in words."""

    why: str = "timeout"
    full: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry of the log as it was read.

    *expected* and *filter* are the compare-and-set that it was stored with (`Nats-Expected-Last-Subject-Sequence` and
    `…-Subject`), so the server saw that it follows that entry directly; None and empty: none, or not known.
    """

    number: int
    subject: str
    body: bytes
    input: str = ""
    time_ns: int = 0
    expected: int | None = None
    filter: str = ""


class Read(msgspec.Struct, frozen=True):
    """What a read-back found, oldest first; empty if nothing is under the filter."""

    entries: tuple[Entry, ...]


Answer = Stored | Refused | Busy | Unanswered | Read
