"""Recordings without an orchestrator: how much of the record frames alone tell, and that the rest is announced."""

from functools import cache

import msgspec
import pytest

from consumer.core import Published
from consumer.model import Job, Notice, Record, Step, Update
from consumer.model.event import START, Identity
from consumer.replay.derived import (
    DerivedOutcome,
    DerivedReplay,
    DerivedVerdict,
    add_up,
    derived_lines,
    derived_object,
    judge_derived,
)
from consumer.rules import load
from consumer.wire.subjects import job_key
from tests.replay.shared import SCENARIOS, recording

UPDATES = 1_359
"""Changes in the records of all recordings, equal neighbours merged."""

RUNNING = "bacalhau-v1.9.3/stop_running"


@cache
def outcome(scenario: str) -> DerivedOutcome:
    """What the frames of *scenario* came to."""
    return DerivedReplay(recording(scenario), load()).run()


@cache
def verdict_of(scenario: str) -> DerivedVerdict:
    """That beside the record."""
    return judge_derived(recording(scenario).jobs, outcome(scenario))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_wrong_is_published(scenario: str) -> None:
    """Each update is a change of the record, in its order, but for a race that cannot be seen on NATS."""
    verdict = verdict_of(scenario)
    assert verdict.wrong == ()
    assert (verdict.rejected, verdict.undecodable) == (0, 0)
    assert verdict.matched + len(verdict.underivable) == verdict.updates
    assert len(verdict.underivable) <= 3


def test_how_much_is_derived() -> None:
    """Every Running, every Completed but two of ops jobs with refused bids; the five races are all that is not so."""
    whole = add_up([verdict_of(scenario) for scenario in SCENARIOS])
    assert whole.expected == UPDATES
    assert whole.states["Completed"] == (204, 206)
    assert whole.states["Running"] == (397, 397)
    assert whole.matched / UPDATES > 0.76
    assert len(whole.underivable) == 5
    assert whole.ended + whole.undecided + whole.unseen > 0.95 * whole.jobs


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if "v1.7.0" not in name and "node_loss" not in name])
def test_a_job_that_is_not_told_to_its_end_is_announced(scenario: str) -> None:
    """Undecided, or no frame ever named it. Left out: 1.7 never tells of a stop, and a lost node says nothing."""
    verdict = verdict_of(scenario)
    announced = {notice.key for notice in outcome(scenario).notices}
    told = {published.event.key for _, published in outcome(scenario).published if isinstance(published.event, Record)}
    for job in recording(scenario).jobs:
        key = job_key(job.namespace, job.id)
        last = [one.update for _, one in outcome(scenario).published if job.id == one.update.Job.ID][-1:]
        ended = [(update.Job.Version, update.StateType) for update in last] == [(job.last.version, job.last.state)]
        raced = any(item.startswith(job.id) for item in verdict.underivable)
        assert ended or raced or key in announced or key not in told


def published(*states: tuple[int, str], job: str = "", namespace: str = "default") -> DerivedOutcome:
    """A log of these (version, state) of the job of `RUNNING`, or of *job*."""
    job = job or recording(RUNNING).jobs[0].id
    key = job_key(namespace, job)
    rows = []
    for number, (version, state) in enumerate(states, 1):
        update = Update(
            StateType=state,
            Job=Job(ID=job, Namespace=namespace, Version=version),
            Previous=None,
            Sequence=number,
            Time=None,
            Source="derived",
        )
        step = Step(version=version, revision=None, state=state)
        event = Record(key=key, job=Identity(id=job, namespace=namespace), after=START, steps=(step,))
        rows.append(("subject", Published(event=event, update=update, number=number)))
    return DerivedOutcome(published=tuple(rows), notices=(), rejected=0, undecodable=0)


def judged(*states: tuple[int, str], job: str = "") -> DerivedVerdict:
    """Such a log beside the record of `RUNNING`: v1 Pending, Running, Stopped."""
    return judge_derived(recording(RUNNING).jobs[:1], published(*states, job=job))


def test_the_verdict_misses_nothing_that_is_published() -> None:
    """Left out is no fault; another order, a state or a version that the record has not, another job are."""
    assert judged((1, "Pending"), (1, "Stopped")).ok
    assert judged((1, "Pending"), (1, "Stopped")).matched == 2
    assert judged().unseen == 1
    for states in ([(1, "Running"), (1, "Pending")], [(1, "Failed")], [(2, "Pending")], [(1, "Running")] * 2):
        verdict = judged(*states)
        assert not verdict.ok
        assert len(verdict.wrong) == 1
    assert not judged((1, "Pending"), job="j-unheard").ok


def test_only_a_lost_race_is_not_derivable() -> None:
    """Completed where the record of that version is Stopped; nothing else is excused."""
    verdict = judged((1, "Pending"), (1, "Running"), (1, "Completed"))
    assert verdict.ok
    assert len(verdict.underivable) == 1
    assert verdict.ended == 0
    assert not judged((1, "Pending"), (2, "Completed")).ok
    rejected = msgspec.structs.replace(published((1, "Pending")), rejected=1)
    assert not judge_derived(recording(RUNNING).jobs[:1], rejected).ok


def test_an_undecided_job_is_counted_once() -> None:
    """By its notice; other notices are not of that kind."""
    key = job_key("default", recording(RUNNING).jobs[0].id)
    notices = [Notice(kind=kind, origin=kind, text="", key=key) for kind in ("undecided", "gap")]
    found = msgspec.structs.replace(published((1, "Pending")), notices=tuple(notices))
    assert judge_derived(recording(RUNNING).jobs[:1], found).undecided == 1


def test_the_object_has_the_promised_keys() -> None:
    """Scripts read this line."""
    said = derived_object("a/b", judged((1, "Pending")))
    assert said["scenario"] == "a/b"
    summary = said["summary"]
    assert isinstance(summary, dict)
    assert list(summary) == [
        *("jobs", "unseen", "ended", "undecided", "updates", "matched", "expected", "states", "wrong", "underivable"),
        *("rejected", "undecodable", "ok"),
    ]
    assert summary["states"] == {"Pending": (1, 1), "Running": (0, 1), "Stopped": (0, 1)}


def test_a_person_reads_what_is_wrong() -> None:
    """One line if nothing is, and below it each update that is not the record's, beside the record."""
    assert derived_lines(judged((1, "Pending")))[0].startswith("nothing wrong: 1 of 3 updates derived")
    first, finding = derived_lines(judged((1, "Failed")))
    assert first.startswith("WRONG: 0 of 3 updates derived")
    assert finding.endswith("v1 Failed (the record: v1 Pending v1 Running v1 Stopped)")
