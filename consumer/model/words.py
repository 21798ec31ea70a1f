"""The sets of words that an update, a notice and a decision are described with: each a type, and its words in order.

Subjects, labels of metrics and documents spell them as here. The states are the rules', and no set of ours.
"""

from typing import Final, Literal, get_args

Source = Literal["observed", "derived", "reported"]
"""Who says what an update says: the orchestrator's record, a frame that proves it, or a producer."""
OBSERVED: Final = "observed"
DERIVED: Final = "derived"
REPORTED: Final = "reported"
SOURCES: Final[tuple[Source, ...]] = get_args(Source)

Flag = Literal["corrected", "message", "skipped", "joined", "cut"]
"""What is unusual about an update. docs/reference/streams.md says of each what it means."""

NoticeKind = Literal["input", "diverged", "gone", "unreadable", "halted", "stuck", "foreign", "gap", "undecided"]
"""The kinds of notices. docs/guide/promise.md says of each what it means and what to do."""
NOTICE_KINDS: Final[tuple[NoticeKind, ...]] = get_args(NoticeKind)

UnchangedReason = Literal["same", "late", "covered", "unjoined"]
"""Why an event changes nothing. `unjoined`: of a record that no longer fits the log; the job is read again."""
UNCHANGED_REASONS: Final[tuple[UnchangedReason, ...]] = get_args(UnchangedReason)

RejectedReason = Literal[
    "identity",
    "unknown-state",
    "out-of-range",
    "authority",
    "conflict",
    "after-terminal",
    "illegal-transition",
    "not-completable",
]
"""Why an event is refused."""
REJECTED_REASONS: Final[tuple[RejectedReason, ...]] = get_args(RejectedReason)

UndecodableReason = Literal[
    "bad-crc",
    "empty",
    "foreign",
    "no-body",
    "no-job",
    "no-type",
    "not-json",
    "not-utf8",
    "out-of-range",
    "protobuf",
    "too-deep",
    "too-large",
    "too-short",
    "unknown-encoding",
    "unknown-history-entry",
    "unknown-state",
    "unknown-type",
    "unknown-version",
    "wrong-shape",
]
"""Why bytes cannot be read (design/design.md 10, design/nats.md 7)."""
UNDECODABLE_REASONS: Final[tuple[UndecodableReason, ...]] = get_args(UndecodableReason)

BytesFrom = Literal["frame", "report"]
"""Where bytes that cannot be read came from."""
BYTES_FROM: Final[tuple[BytesFrom, ...]] = get_args(BytesFrom)
