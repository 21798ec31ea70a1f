"""What answers say against the log, and when that is believed: one rule for every kind.

A single answer may be an old one (a proxy's cache, a follower), so nothing is changed by it. What is repeated for a
minute, in at least eight answers, is believed (decision 0012). Answers that say less than the log count together,
whichever way each of them does: what the last one says is believed. Pure, and of one job.
"""

from enum import StrEnum


class ClaimKind(StrEnum):
    """What an answer says against the log."""

    SHORTER = "shorter"
    """The history has fewer entries than the log knows, or says of an end an earlier time."""
    UNKNOWN = "unknown"
    """The orchestrator does not know the job."""
    NO_HISTORY = "no-history"
    """The job is there, and its history is empty."""
    LISTED = "contradicts-list"
    """Lists show another state than the history, which agrees with the log."""


class Claim:
    """One job's claim: its kind, since when, and how often it was repeated. Its content may change meanwhile."""

    __slots__ = ("_answers", "_since", "kind")

    def __init__(self) -> None:
        self.kind: ClaimKind | None = None
        self._since = 0.0
        self._answers = 0

    def end(self) -> None:
        """An answer says what it should: whatever comes counts anew."""
        self.kind = None

    def repeated(self, kind: ClaimKind, now: float, *, answers: int, seconds: float) -> bool:
        """Count an answer of *kind*. Gives True, once, when it is believed: after *answers* of them over *seconds*.

        What lists say and what the job's own answers say are counted apart: where lists differ, these agree.
        """
        of_lists = kind is ClaimKind.LISTED
        if self.kind is None or of_lists is not (self.kind is ClaimKind.LISTED):
            self._since, self._answers = now, 0
        self.kind = kind
        self._answers += 1
        if self._answers < answers or now - self._since < seconds:
            return False
        self.kind = None
        return True
