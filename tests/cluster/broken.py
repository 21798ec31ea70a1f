"""Each rule of the join taken out on purpose, one by one: a seed must turn red, or the rule is superfluous.

Mutations, put in from outside for as long as a `with` lasts; the program has no switch for any of them.
"""

# ruff: noqa: ANN401 - a mutation takes whatever the private part takes that it stands in for

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from unittest.mock import patch

import msgspec

from consumer.bacalhau.pace import Pace
from consumer.join import Join, JoinSettings
from consumer.join.doubt import Contests, _Contest
from consumer.join.early import NOWHERE_HEARD, Execution, Where, runs_early
from consumer.join.history import Contradicted, Joined, Old, join_history, steps_of, went_back
from consumer.model import Frame, HistoryEntry, Known, Place, Record, Snapshot, place_of
from consumer.rules import Rules, load
from tests.cluster import rest
from tests.cluster.daemon import Life
from tests.cluster.record import Job
from tests.cluster.rest import Reply
from tests.cluster.world import World
from tests.seeds import Break
from tests.simulation.broken import first_page_only

JOIN: Final = "consumer.join.join"
EARLY: Final = "consumer.join.early"

# -- Running early ----------------------------------------------------------------------------------------------------


@contextmanager
def _early_on_any_snapshot() -> Iterator[Rules]:
    """Running is published also if the snapshot was neither Pending nor Queued."""
    with (
        patch(f"{EARLY}._WAITING", ("Pending", "Queued", "Running")),
        patch.object(Execution, "runs_at", property(lambda self: self.revision + 1)),
    ):
        yield load()


@contextmanager
def _early_from_anywhere() -> Iterator[Rules]:
    """Running is published wherever the log stands."""

    def believes(execution: Execution, standing: Place, disturbed: Where, heard_from_ns: int | None) -> bool:
        there = Place(standing.sequence, execution.version, execution.revision, execution.state)
        return runs_early(execution, there, disturbed, heard_from_ns)

    with patch(f"{JOIN}.runs_early", believes):
        yield load()


@contextmanager
def _early_for_any_count() -> Iterator[Rules]:
    """Running is published also for a job of several executions."""
    with patch(f"{EARLY}._ONE", 99):
        yield load()


# The next two are a second line behind `Count`: Bacalhau's schedulers make a job Queued beside an execution that they
# will approve only if it asks for several. So both lift that bound as well, and find more than it alone does.


@contextmanager
def _early_after_an_end() -> Iterator[Rules]:
    """Running is published also if an execution ended, or was refused, at or after the snapshot's revision."""

    def believes(execution: Execution, standing: Place, _disturbed: Where, heard_from_ns: int | None) -> bool:
        return runs_early(execution, standing, NOWHERE_HEARD, heard_from_ns)

    with patch(f"{JOIN}.runs_early", believes), patch(f"{EARLY}._ONE", 99):
        yield load()


@contextmanager
def _early_unheard() -> Iterator[Rules]:
    """Running is published also at the revision that was found after a start or a reconnect."""

    def believes(execution: Execution, standing: Place, disturbed: Where, _heard_from_ns: int | None) -> bool:
        return runs_early(execution, standing, disturbed, -1)

    with patch(f"{JOIN}.runs_early", believes), patch(f"{EARLY}._ONE", 99):
        yield load()


@contextmanager
def _early_when_expired() -> Iterator[Rules]:
    """Running is published for a direct start also if the job has a total timeout."""
    ask_for_bid = Join._ask_for_bid

    def believes(self: Any, frame: Frame, snapshot: Snapshot, now: float) -> None:
        ask_for_bid(self, frame, msgspec.structs.replace(snapshot, expires=False), now)

    with patch.object(Join, "_ask_for_bid", believes):
        yield load()


# -- from record to event ---------------------------------------------------------------------------------------------


@contextmanager
def _joined_by_count() -> Iterator[Rules]:
    """What is new in a history is what comes after as many entries as the log has updates, whatever they say."""

    def counts(known: Known | None, entries: list[HistoryEntry]) -> Joined | Old | Contradicted:
        if known is None:
            return join_history(known, entries)
        if len(entries) < known.sequence:
            return Old()
        steps = steps_of(entries, known.sequence, (known.version, known.state))
        return Joined(after=place_of(known), steps=steps)

    with patch(f"{JOIN}.join_history", counts):
        yield load()


@contextmanager
def _joined_unlooked() -> Iterator[Rules]:
    """Nobody looks whether the history says, where the log stands, what the log says."""

    def believes(known: Known | None, entries: list[HistoryEntry]) -> Joined | Old | Contradicted:
        found = join_history(known, entries)
        if not isinstance(found, Contradicted) or known is None or known.revision is None:
            return found
        return Joined(after=found.after, steps=steps_of(entries, known.revision))

    with patch(f"{JOIN}.join_history", believes):
        yield load()


@contextmanager
def _old_answers_believed() -> Iterator[Rules]:
    """A history that is shorter than what the log has is taken for the truth."""

    def believes(known: Known | None, entries: list[HistoryEntry]) -> Joined | Old | Contradicted:
        found = join_history(known, entries)
        return went_back(known, entries) if isinstance(found, Old) and entries else found

    with patch(f"{JOIN}.join_history", believes):
        yield load()


@contextmanager
def _any_snapshot_published() -> Iterator[Rules]:
    """The snapshot of an `AskForBid` is published however far it is ahead of the log."""
    ahead = Join._ask_for_bid.__globals__["steps_ahead"]

    def counts(rules: Rules, known: Known | None, snapshot: Snapshot, entries_seen: int) -> int | None:
        found: int | None = ahead(rules, known, snapshot, entries_seen)
        further = known is None or (snapshot.version, snapshot.revision) > (known.version or 0, known.revision or 0)
        return 1 if found is None and further else found

    with patch(f"{JOIN}.steps_ahead", counts):
        yield load()


@contextmanager
def _revision_for_entry() -> Iterator[Rules]:
    """Bacalhau's revision is taken for the number of the history's entry, also where one left two."""
    ahead = Join._ask_for_bid.__globals__["steps_ahead"]

    def counts(rules: Rules, known: Known | None, snapshot: Snapshot, _entries_seen: int) -> int | None:
        if known is not None and known.revision is not None:
            known = msgspec.structs.replace(known, sequence=known.revision)
        found: int | None = ahead(rules, known, snapshot, known.revision if known is not None else 0)
        return found

    with patch(f"{JOIN}.steps_ahead", counts):
        yield load()


@contextmanager
def _latest_version_only() -> Iterator[Rules]:
    """The history is asked for without `all_job_versions`."""

    def asks(_self: World, job: Job | None, ns: int, limit: int, token: str) -> Reply:
        return rest.get_history(job, ns, all_versions=False, limit=limit, token=token)

    with patch.object(World, "history", asks):
        yield load()


# -- what to read, and when -------------------------------------------------------------------------------------------


@contextmanager
def _hints_once() -> Iterator[Rules]:
    """A hint that the record does not answer is not read again."""
    with patch("tests.cluster.world.JoinSettings", partial(JoinSettings, repeats=())):
        yield load()


@contextmanager
def _under_way_answers() -> Iterator[Rules]:
    """What is under way to the log already answers a hint that came after it."""
    emit = Join._emit

    def says_so(self: Any, job: Any, record: Record) -> bool:
        emit(self, job, record)
        return True

    with patch.object(Join, "_emit", says_so):
        yield load()


@contextmanager
def _no_list_after_gap() -> Iterator[Rules]:
    """A gap of the tap is answered by nothing."""
    with patch.object(Life, "miss_frames", lambda _self: None):
        yield load()


@contextmanager
def _long_list_paid() -> Iterator[Rules]:
    """The pause after a list is as many times as long as it seemed, whoever stood still."""
    with patch("tests.cluster.world.JoinSettings", partial(JoinSettings, list_max_s=float("inf"))):
        yield load()


@contextmanager
def _no_rate() -> Iterator[Rules]:
    """Reads leave as soon as they are asked for."""
    begin = Pace.__init__

    def hurries(self: Any, options: Any, dice: Any) -> None:
        begin(self, options, dice)
        self._interval_s = 0.0

    with patch.object(Pace, "__init__", hurries):
        yield load()


@contextmanager
def _one_answer_contradicts() -> Iterator[Rules]:
    """One answer that agrees with the log, some time after a list that does not, is enough to blame the lists."""

    def blames(self: Any, name: str, claim: Any, now: float, doubt_s: float) -> bool:
        contest = self._open.setdefault(name, _Contest(claim, now))
        return bool(contest.agreed_at > contest.since and now - contest.since >= doubt_s)

    with patch.object(Contests, "claim", blames):
        yield load()


@contextmanager
def _labels_believed() -> Iterator[Rules]:
    """The version of an entry is what it is labelled with."""
    with patch(f"{JOIN}.read_versions", lambda entries: entries):
        yield load()


@contextmanager
def _nobody_forgotten() -> Iterator[Rules]:
    """A job that is over stays in the join's memory."""
    with patch.object(Join, "_forget", lambda *_: None):
        yield load()


BROKEN: Final[dict[str, Break]] = {
    "early-on-any-snapshot": _early_on_any_snapshot,
    "early-from-anywhere": _early_from_anywhere,
    "early-for-any-count": _early_for_any_count,
    "early-after-an-end": _early_after_an_end,
    "early-unheard": _early_unheard,
    "early-when-expired": _early_when_expired,
    "joined-by-count": _joined_by_count,
    "joined-unlooked": _joined_unlooked,
    "old-answers-believed": _old_answers_believed,
    "any-snapshot-published": _any_snapshot_published,
    "revision-for-entry": _revision_for_entry,
    "first-page-only": first_page_only,
    "latest-version-only": _latest_version_only,
    "hints-once": _hints_once,
    "under-way-answers": _under_way_answers,
    "no-list-after-gap": _no_list_after_gap,
    "long-list-paid": _long_list_paid,
    "no-rate": _no_rate,
    "one-answer-contradicts": _one_answer_contradicts,
    "labels-believed": _labels_believed,
    "nobody-forgotten": _nobody_forgotten,
}
