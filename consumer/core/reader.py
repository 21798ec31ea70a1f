"""One job's reader: when its record is read next, and why. A state machine of one job, without I/O.

It knows numbers of history entries, never states: a hint says how many entries the record has, or may soon have, and an
answer how many there are. One thing happens at a time: a read, then the event that it brought, then the next read. Who
is read among many is `consumer.core.schedule`'s, what a history says is `consumer.core.history`'s.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from consumer.core.backlog import PROMPT_S
from consumer.core.claim import Claim
from consumer.core.options import ReadingOptions
from consumer.faults import Scope
from consumer.model import HistoryEntry, Identity, JobKey, Step
from consumer.wire.subjects import job_key

NEVER: Final = float("inf")
LONG_AGO: Final = float("-inf")


class Cause(StrEnum):
    """Why a job is due."""

    HINT = "hint"
    """A frame came, or what it told of is not in the record yet."""
    ROW = "row"
    """A list says otherwise than the log."""
    TURN = "turn"
    """It is open, and nobody has looked at it for a while."""


class Last(NamedTuple):
    """The last entry that was read, or that the log has: its version and state, and whether that ends the version."""

    version: int
    state: str
    ends: bool


class Tail(NamedTuple):
    """Where the last page of a long history begins: behind *entries* of them, at *token*.

    *version* and *state* are those of the last entry before it, *newest* the highest version up to there.
    """

    entries: int
    token: str
    version: int
    state: str
    newest: int


class Due(NamedTuple):
    """When to read again (seconds), and why."""

    at: float
    cause: Cause


class Reader:
    """What the core remembers of one job between two looks at its record. Times are seconds that never go back."""

    __slots__ = (
        "agreed_at",
        "asked_once",
        "busy",
        "cause",
        "claim",
        "due",
        "failed_after",
        "failures",
        "flying",
        "halted",
        "hinted_at",
        "hoped",
        "identity",
        "key",
        "last",
        "last_page",
        "listed_at",
        "looked_at",
        "name",
        "named",
        "not_before",
        "open",
        "pages",
        "patient",
        "queued",
        "read_at",
        "said",
        "seen",
        "shown_at",
        "tail",
    )

    def __init__(self, name: str) -> None:
        self.name: Final = name
        """The job's id."""
        self.identity: Identity | None = None
        """The job's identity, from the record or the log; never from a frame, which may lie."""
        self.key: JobKey | None = None
        self.named = False
        """The record or the log has named it. Else only a frame has, and there may be no such job."""
        # -- what is known, in numbers of job-level history entries --
        self.said = 0
        """The record has so many: a frame or a row says so. 0: nothing is said."""
        self.hoped = 0
        """It may soon have so many: an execution has ended. 0: nothing is hoped for."""
        self.hinted_at = LONG_AGO
        """When the last of these came; of an end, when the record may have followed."""
        self.patient = False
        """Lists are the first to show the hoped-for entries."""
        self.seen = 0
        """So many were read."""
        self.last: Last | None = None
        self.tail: Tail | None = None
        self.pages: list[HistoryEntry] = []
        """Entries of the pages read so far, of a history that is being read."""
        self.last_page: tuple[str, int] = ("", 0)
        """The token of the last of these that had entries, and how many entries stand before it in `pages`."""
        # -- one thing at a time --
        self.flying = False
        """A read is under way."""
        self.busy = False
        """An event is being written: what was read is not in the log yet."""
        self.looked_at = LONG_AGO
        """When the last look left: a read, or a list whose row agrees, or that shows no change of the job."""
        self.read_at = self.shown_at = LONG_AGO
        """When the last read left, and the last list that showed a change of the job."""
        self.agreed_at: float | None = None
        """When the record was last seen to have nothing that the log has not."""
        self.open = False
        """The job has not ended, or that is in doubt: it is looked at in turn."""
        # -- what is wrong --
        self.claim: Final = Claim()
        self.listed_at = LONG_AGO
        """When a list last showed another state than the log."""
        self.asked_once = False
        """The record was asked for the job that only a frame has named, and did not give it."""
        self.failures = 0
        """Reads in a row that failed by themselves, while others were answered."""
        self.failed_after: int | None = None
        """How many reads had been answered, of all jobs, when its last one failed; None: that was answered."""
        self.not_before = LONG_AGO
        """Hints do not hurry a job that fails."""
        self.halted: Step | None = None
        """The step that the rules reject: the job stands still before it."""
        # -- the schedule's --
        self.due, self.cause, self.queued = NEVER, Cause.TURN, 0

    def name_by(self, identity: Identity) -> None:
        """Take whose job it is from the record or the log."""
        self.named = True
        if self.identity != identity:
            self.identity, self.key, self.halted = identity, job_key(identity.namespace, identity.id), None

    @property
    def waits(self) -> bool:
        """Whether it may be read: nothing of the job is under way."""
        return not self.flying and not self.busy

    @property
    def fails(self) -> bool:
        """Whether its last read failed, whoever's fault that is."""
        return bool(self.failures) or self.failed_after is not None

    @property
    def is_asking(self) -> bool:
        """Whether a hint is not answered yet."""
        return bool(self.said or self.hoped)

    def hint(self, at: float, *, said: int = 0, hoped: int = 0, patient: bool = False) -> None:
        """Take a hint that came, or is due, at *at*: the record has *said* entries, or may soon have *hoped*.

        *patient*: lists are the first to show what is hoped for.
        """
        self.patient = patient and not self.said
        self.said, self.hoped = max(self.said, said), max(self.hoped, hoped)
        self.hinted_at = max(self.hinted_at, at)

    def leaves(self, now: float) -> None:
        """A read of it leaves."""
        self.flying, self.looked_at, self.read_at, self.pages = True, now, now, []

    def spare(self, quiet_at: float, options: ReadingOptions) -> bool:
        """Take the list that left at *quiet_at*, and showed no change of the job, for a look. Gives whether it is one.

        Not where a list has shown a change that was not read since, or an answer is in doubt. And now and then only a
        read will do: what a list leaves out may be gone, or written by a clock that was set back.
        """
        is_settled = self.cause is not Cause.ROW and self.shown_at < self.read_at and self.claim.kind is None
        if not is_settled or quiet_at <= self.looked_at or quiet_at - self.read_at > options.read_every_s:
            return False
        self.looked_at = quiet_at
        return True

    def end_look(self) -> None:
        """A look is over: strike what it has answered. An end answers every hope, and so does the entry hoped for."""
        self.flying = False
        if self._has_hoped_for:
            self.hoped = 0
        if self.said <= self.seen:
            self.said = 0

    @property
    def _has_hoped_for(self) -> bool:
        return self.hoped <= self.seen or (self.last is not None and self.last.ends)

    def was_prompt(self) -> bool | None:
        """Whether the look that is over found the end that was hoped for; None: that is not to be told from it."""
        if not self.hoped or self.patient or self.cause is not Cause.HINT:
            return None
        if self._has_hoped_for:
            return True
        return False if PROMPT_S <= self.looked_at - self.hinted_at < 10 * PROMPT_S else None

    def drop_hints(self) -> None:
        """Nothing more is expected of the record."""
        self.said = self.hoped = 0

    def give_up(self, now: float, options: ReadingOptions) -> None:
        """Drop the hints that the record has not answered for too long."""
        if now - self.hinted_at >= options.watch_s:
            self.drop_hints()

    def next_due(self, now: float, options: ReadingOptions) -> Due | None:
        """When to read again, once nothing is under way; None: not before something comes."""
        if self.is_asking:
            return Due(max(self.hint_due(options), now, self.not_before), Cause.HINT)
        if self.open or self.claim.kind is not None:
            return Due(max(self.looked_at + options.turn_s, now, self.not_before), Cause.TURN)
        return None

    def hint_due(self, options: ReadingOptions) -> float:
        """When to look for what the hint tells of, by how old it was at the last look."""
        age = self.looked_at - self.hinted_at
        if age < 0 and not self.patient:
            return self.hinted_at  # it came after the last look
        age = max(age, 0.0)
        after = None if self.patient else next((each for each in options.repeats if each > age), None)
        if after is None:
            # The last look is just behind the time at which Bacalhau has tried again.
            after = min(age + options.turn_s, max(options.watch_s, age + options.repeats[0]))
        return self.hinted_at + after

    def failed(self, now: float, options: ReadingOptions, scope: Scope) -> float:
        """A read failed, alone while others were answered, or as all do. When to read it again."""
        self.flying = False
        self.pages = []
        if scope is Scope.READ:
            self.failures += 1
            self.not_before = now + options.retry_after(self.failures)
            return self.not_before
        # By then somebody else was answered, so that the next error is the job's own if it is.
        return now + (options.retry_s / 5 if self.named else options.retry_s)

    def end_failures(self) -> None:
        """A read was answered, whatever with."""
        self.failures, self.failed_after, self.not_before = 0, None, LONG_AGO
