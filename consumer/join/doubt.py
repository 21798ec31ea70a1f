"""When an orchestrator that contradicts itself, or the log, is believed: of one job, and by the time alone.

Pure, and bounded. What contradicts what, and what is then announced, is `consumer.join.join`'s
([decision 0012](docs/decisions/0012-a-record-that-went-back.md)).
"""

from typing import Final

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

    def is_certain(self, now: float, settings: JoinSettings) -> bool:
        """Whether they are so many, over so long, that the last is no old one."""
        return self.answers >= settings.doubts and now - self._since >= settings.doubt_s

    def end(self) -> None:
        """An answer says what it must, or they are believed: what comes counts anew."""
        self.answers = 0


class _Contest:
    """What lists say of one job, since when, and when its history said what the log says."""

    __slots__ = ("agreed_at", "claim", "since")

    def __init__(self, claim: Claim, now: float) -> None:
        self.claim = claim
        self.since = now
        self.agreed_at = float("-inf")


class Contests:
    """By job: lists that say another state than the log, though the job's history agrees with the log.

    They outlive what the join remembers of a job; of more than *most* the oldest is forgotten, and begins anew.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most: Final = most
        self._open: Final[dict[str, _Contest]] = {}

    def claim(self, name: str, claim: Claim, now: float, doubt_s: float) -> bool:
        """A list says *claim*. Whether to announce it: once, when the history still agreed *doubt_s* after the first.

        A list that says something else than that is one of another moment: the log was behind, then and now.
        """
        contest = self._open.get(name)
        if contest is None or contest.claim != claim:
            self._open.pop(name, None)
            if len(self._open) >= self._most:
                del self._open[next(iter(self._open))]
            self._open[name] = _Contest(claim, now)
            return False
        if contest.agreed_at - contest.since < doubt_s:
            return False
        contest.since = float("inf")
        return True

    def agree(self, name: str, now: float) -> None:
        """The job's history says what the log says."""
        if name in self._open:
            self._open[name].agreed_at = now

    def end(self, name: str) -> None:
        """A list agrees, or the log has moved."""
        self._open.pop(name, None)
