"""What the join remembers of one job. Finished ones are forgotten: the log has them."""

from typing import Final

from consumer.join.doubt import Doubt
from consumer.join.early import NOWHERE_HEARD, Where
from consumer.join.hint import Hint
from consumer.model import HistoryEntry, Identity, JobKey, Place, Step
from consumer.wire.subjects import job_key


class Job:
    """A job that is open, or looked at just now. It decides nothing: `consumer.join.join` does."""

    __slots__ = (
        "agreed_at",
        "bare",
        "disturbed",
        "doubt",
        "entries_seen",
        "halted",
        "hint",
        "identity",
        "key",
        "pages",
        "read_at",
        "way",
    )

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.key: JobKey | None = None
        self.hint: Final = Hint()
        self.bare = False  # its history was empty: the job itself is read in place of it
        self.pages: list[HistoryEntry] = []
        self.read_at = float("-inf")
        self.agreed_at: float | None = None  # when the record was last seen to say just what the log has
        self.way: tuple[Place, ...] = ()  # from where to where the events lead that are not decided yet
        self.disturbed: Where = NOWHERE_HEARD  # where an execution ended or was refused last, or may have, unheard
        self.doubt: Final = Doubt()
        self.entries_seen = 0  # how long the history was when it was last read whole
        self.halted: Step | None = None  # the step that the rules reject: the job stands still there

    def name(self, identity: Identity) -> None:
        """Whose job it is, if that was not known."""
        if self.identity is None:
            self._be(identity)

    def rename(self, identity: Identity) -> None:
        """Whose job it is, as the orchestrator says: a frame may have told otherwise."""
        if self.identity != identity:
            self._be(identity)
            self.halted = None  # by what it was taken for, perhaps

    def _be(self, identity: Identity) -> None:
        self.identity, self.key = identity, job_key(identity.namespace, identity.id)
