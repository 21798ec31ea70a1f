"""When an orchestrator that contradicts itself, or the log, is believed: of one job, and by the time alone.

Pure. What contradicts what, and what is then announced, is `consumer.join.join`'s
([decision 0012](docs/decisions/0012-a-record-that-went-back.md)).
"""

from consumer.join.options import JoinSettings

Claim = tuple[int, int, str]
"""What a list says of a job: version, revision, state."""


class Doubt:
    """Answers in a row that say less than the log: each alone may be an old one."""

    __slots__ = ("_since", "answers")

    def __init__(self) -> None:
        self.answers = 0
        self._since = 0.0

    def came(self, now: float) -> None:
        """One more."""
        if not self.answers:
            self._since = now
        self.answers += 1

    def is_over(self, now: float, settings: JoinSettings) -> bool:
        """Whether they are so many, over so long, that the last is none: then it counts anew."""
        if self.answers < settings.doubts or now - self._since < settings.doubt_s:
            return False
        self.answers = 0
        return True

    def end(self) -> None:
        """An answer says what it must."""
        self.answers = 0


class Contest:
    """Lists that say another state than the log, though the job's history agrees with the log."""

    __slots__ = ("_claim", "_since")

    def __init__(self) -> None:
        self._claim: Claim | None = None
        self._since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the last list said otherwise."""
        return self._claim is not None

    def says(self, claim: Claim, agreed_at: float | None, now: float, doubt_s: float) -> bool:
        """A list says *claim*; the history agreed with the log at *agreed_at*. Whether to announce it: once.

        That is when it still agrees so long after a list said this for the first time. A list that says something else
        is one of another moment: the log was behind, then and now.
        """
        if claim != self._claim:
            self._claim, self._since = claim, now
            return False
        if agreed_at is None or agreed_at - self._since < doubt_s:
            return False
        self._since = float("inf")
        return True

    def end(self) -> None:
        """A list agrees, or the log has moved."""
        self._claim = None
