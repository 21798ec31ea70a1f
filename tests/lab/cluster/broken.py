"""Each rule of reading the record taken out on purpose, one by one: a seed must turn red, or the rule is superfluous.

Mutations, put in from outside for as long as a `with` lasts; the program has no switch for any of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from consumer.core import ReadingOptions
from consumer.core.answers import Answers
from consumer.core.claim import Claim, ClaimKind
from consumer.core.history import Contradicted, Joined, Old, Part, correct, lay_beside
from consumer.core.pace import Pace
from consumer.core.reader import LONG_AGO, Reader
from consumer.core.registry import Registry
from consumer.model import LastUpdate, log_point_of
from consumer.rules import Rules, load
from tests.lab.cluster import rest
from tests.lab.cluster.daemon import Life
from tests.lab.cluster.record import Job
from tests.lab.cluster.rest import Reply
from tests.lab.cluster.world import World
from tests.lab.seeds import Break
from tests.lab.simulation.broken import first_page_only

ANSWERS: Final = "consumer.core.answers"
HISTORY: Final = "consumer.core.history"
OPTIONS: Final = "tests.lab.cluster.world.ReadingOptions"


def _with_options(**forced: float) -> Callable[..., ReadingOptions]:
    """Options as the world chooses them, but for these."""
    return lambda **chosen: ReadingOptions(**(chosen | forced))


# -- from record to event ---------------------------------------------------------------------------------------------


@contextmanager
def _joined_by_count() -> Iterator[Rules]:
    """What is new in a history is what comes after as many entries as the log has updates, whatever they say."""

    def counts(rules: Rules, known: LastUpdate | None, part: Part) -> Joined | Old | Contradicted | None:
        if known is None or part.first:
            return lay_beside(rules, known, part)
        if part.count < known.sequence:
            return Old()
        return Joined(after=log_point_of(known), steps=part.steps(known.sequence, (known.version, known.state)))

    with patch(f"{ANSWERS}.lay_beside", counts):
        yield load()


@contextmanager
def _joined_unlooked() -> Iterator[Rules]:
    """Nobody looks whether the history says, where the log stands, what the log says."""

    def believes(rules: Rules, known: LastUpdate | None, part: Part) -> Joined | Old | Contradicted | None:
        found = lay_beside(rules, known, part)
        if not isinstance(found, Contradicted) or known is None or known.revision is None:
            return found
        return Joined(after=found.after, steps=part.steps(known.revision))

    with patch(f"{ANSWERS}.lay_beside", believes):
        yield load()


@contextmanager
def _old_answers_believed() -> Iterator[Rules]:
    """A history that is shorter than what the log has is taken for the truth."""

    def believes(rules: Rules, known: LastUpdate | None, part: Part) -> Joined | Old | Contradicted | None:
        found = lay_beside(rules, known, part)
        return correct(known, part) if isinstance(found, Old) and part.entries else found

    with patch(f"{ANSWERS}.lay_beside", believes):
        yield load()


@contextmanager
def _latest_version_only() -> Iterator[Rules]:
    """The history is asked for without `all_job_versions`."""

    def asks(_self: World, job: Job | None, ns: int, limit: int, token: str) -> Reply:
        return rest.get_history(job, ns, all_versions=False, limit=limit, token=token)

    with patch.object(World, "history", asks):
        yield load()


@contextmanager
def _included_is_whole() -> Iterator[Rules]:
    """What comes along with a job is taken for its whole history, however often it has lived before."""
    take = Answers._take_job

    def believes(self: Any, reader: Any, read: Any, document: Any, now: float) -> None:
        if not document.history.entries:
            take(self, reader, read, document, now)
            return
        reader.name_by(document.job.job)
        self._take_history(reader, Part.after(None, document.history.entries), read.cause, now)

    with patch.object(Answers, "_take_job", believes):
        yield load()


@contextmanager
def _labels_believed() -> Iterator[Rules]:
    """The version of an entry is what it is labelled with."""
    with patch(f"{HISTORY}.read_versions", lambda entries, _newest=-1: tuple(entries)):
        yield load()


# -- what to read, and when -------------------------------------------------------------------------------------------


@contextmanager
def _hints_once() -> Iterator[Rules]:
    """A hint that the record does not answer is not read again."""
    with patch(OPTIONS, _with_options(watch_s=0.0)):
        yield load()


@contextmanager
def _watched_briefly() -> Iterator[Rules]:
    """A hint is given up before Bacalhau has tried an evaluation again."""
    with patch(OPTIONS, _with_options(watch_s=4.0)):
        yield load()


@contextmanager
def _ends_not_hoped_for() -> Iterator[Rules]:
    """An end of an execution is worth one read."""
    hint = Registry.hint

    def looks(self: Any, reader: Reader, at: float, *, said: int = 0, hoped: int = 0) -> None:
        hint(self, reader, at, said=max(said, 1 if hoped and not said else 0))

    with patch.object(Registry, "hint", looks):
        yield load()


@contextmanager
def _nobody_in_turn() -> Iterator[Rules]:
    """Open jobs are not looked at in turn."""
    with patch(OPTIONS, _with_options(turn_rate=0.0)):
        yield load()


@contextmanager
def _no_list_after_gap() -> Iterator[Rules]:
    """A gap of the tap is answered by nothing."""
    with patch.object(Life, "miss_frames", lambda _self: None):
        yield load()


@contextmanager
def _long_list_paid() -> Iterator[Rules]:
    """The pause after a list is as many times as long as it seemed, whoever stood still."""
    with patch(OPTIONS, _with_options(list_max_s=float("inf"))):
        yield load()


@contextmanager
def _no_rate() -> Iterator[Rules]:
    """Reads leave as soon as they are asked for."""
    with patch.object(Pace, "_window_free_at", LONG_AGO):
        yield load()


@contextmanager
def _one_answer_contradicts() -> Iterator[Rules]:
    """One answer that agrees with the log though a list did not is enough to blame the lists."""
    repeated = Claim.repeated

    def blames(self: Claim, kind: ClaimKind, now: float, *, answers: int, seconds: float) -> bool:
        if kind is ClaimKind.LISTED:
            answers, seconds = 1, 0.0
        return repeated(self, kind, now, answers=answers, seconds=seconds)

    with patch.object(Claim, "repeated", blames):
        yield load()


@contextmanager
def _claims_not_ended() -> Iterator[Rules]:
    """What is said against the log counts on, whatever good answers came between.

    Three in two seconds are believed then: these runs are too short for eight in ten. Where claims do end, three in two
    seconds violate nothing.
    """
    with patch(OPTIONS, _with_options(claim_s=2.0, claim_answers=3)), patch.object(Claim, "end", lambda _self: None):
        yield load()


@contextmanager
def _nobody_forgotten() -> Iterator[Rules]:
    """A job that is over stays in memory."""
    with patch.object(Registry, "forget", lambda *_: None):
        yield load()


BROKEN: Final[dict[str, Break]] = {
    "joined-by-count": _joined_by_count,
    "joined-unlooked": _joined_unlooked,
    "old-answers-believed": _old_answers_believed,
    "latest-version-only": _latest_version_only,
    "first-page-only": first_page_only,
    "included-is-whole": _included_is_whole,
    "labels-believed": _labels_believed,
    "hints-once": _hints_once,
    "watched-briefly": _watched_briefly,
    "ends-not-hoped-for": _ends_not_hoped_for,
    "nobody-in-turn": _nobody_in_turn,
    "no-list-after-gap": _no_list_after_gap,
    "long-list-paid": _long_list_paid,
    "no-rate": _no_rate,
    "one-answer-contradicts": _one_answer_contradicts,
    "claims-not-ended": _claims_not_ended,
    "nobody-forgotten": _nobody_forgotten,
}
