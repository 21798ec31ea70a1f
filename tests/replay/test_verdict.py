"""The judge, held by broken logs: whatever is wrong with a log, it is not called right, and it says what is wrong."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from consumer.model import OBSERVED, Job, Update
from consumer.replay.record import Change, JobRecord
from consumer.replay.verdict import judge
from tests.replay.shared import SCENARIOS, recording

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RERUN = recording("bacalhau-v1.9.3/rerun")
JOB = RERUN.jobs[0]

Log = list[Update]


def update_of(job: JobRecord, step: Change, sequence: int, previous: str | None) -> Update:
    """The update that *step* should become."""
    return Update(
        StateType=step.state,
        Message=step.message,
        Job=Job(
            ID=job.id,
            Namespace=job.namespace,
            Name=job.name,
            Type=job.type,
            Version=step.version,
            Revision=step.number,
        ),
        Previous=previous,
        Sequence=sequence,
        Time=EPOCH + timedelta(microseconds=step.time_ns // 1000),
        Source=OBSERVED,
    )


def log_of(job: JobRecord) -> Log:
    """The log of *job* as it should be."""
    log: Log = []
    for sequence, step in enumerate(job.expected, 1):
        log.append(update_of(job, step, sequence, log[-1].StateType if log else None))
    return log


def numbered(log: Log) -> Log:
    """The same updates, counted anew: only their content is wrong."""
    return [msgspec.structs.replace(update, Sequence=sequence) for sequence, update in enumerate(log, 1)]


def moved(update: Update, **changed: object) -> Update:
    """*update* with something of its job changed."""
    return msgspec.structs.replace(update, Job=msgspec.structs.replace(update.Job, **changed))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_log_that_the_record_asks_for_is_right(scenario: str) -> None:
    """Whatever the order between jobs."""
    jobs = recording(scenario).jobs
    log = [update for job in jobs for update in log_of(job)]
    for order in (log, sorted(log, key=lambda update: (update.Sequence, update.Job.ID))):
        verdict = judge(jobs, order)
        assert verdict.ok
        assert (verdict.missing, verdict.surplus, verdict.misordered) == ((), (), ())
        assert verdict.jobs == len(jobs)
        assert verdict.updates == verdict.expected == len(log)


def spell(number: int) -> str:
    """How the verdict names the job's step *number*."""
    step = JOB.expected[number - 1]
    return f"{JOB.id} v{step.version} r{step.number} {step.state}"


def test_the_steps_of_the_broken_logs() -> None:
    """What the cases below are written for: completed, rerun, completed again."""
    assert [(step.version, step.number, step.state) for step in JOB.expected] == [
        (1, 1, "Pending"),
        (1, 2, "Running"),
        (1, 3, "Completed"),
        (2, 4, "Pending"),
        (2, 5, "Running"),
        (2, 6, "Completed"),
    ]


@pytest.mark.parametrize(
    ("damage", "missing", "surplus", "misordered"),
    [
        pytest.param(lambda log: log[:0], [1, 2, 3, 4, 5, 6], [], [], id="empty"),
        pytest.param(lambda log: log[:-1], [6], [], [], id="the last one missing"),
        pytest.param(lambda log: numbered(log[:2] + log[3:]), [3], [], [], id="one missing, counted over"),
        pytest.param(lambda log: log[:2] + log[3:], [3], [], [f"{spell(4)} (sequence 4 after 2)"], id="one missing"),
        pytest.param(lambda log: numbered([*log, log[-1]]), [], [spell(6)], [], id="doubled"),
        pytest.param(
            lambda log: [*log, log[-1]], [], [spell(6)], [f"{spell(6)} (sequence 6 after 6)"], id="stored twice"
        ),
        pytest.param(
            lambda log: numbered([log[1], log[0], *log[2:]]),
            [],
            [],
            [f"{spell(1)} (after {spell(2)})"],
            id="swapped",
        ),
        pytest.param(
            lambda log: [msgspec.structs.replace(update, Sequence=update.Sequence + 1) for update in log],
            [],
            [],
            [f"{spell(1)} (sequence 2 after 0)"],
            id="counted from 2",
        ),
        pytest.param(
            lambda log: [*log[:5], msgspec.structs.replace(log[5], StateType="Failed")],
            [6],
            [spell(6).replace("Completed", "Failed")],
            [],
            id="another state",
        ),
        pytest.param(
            lambda log: [*log[:3], moved(log[3], Version=1), *log[4:]],
            [4],
            [spell(4).replace("v2", "v1")],
            [],
            id="another version",
        ),
        pytest.param(
            lambda log: [*log[:3], moved(log[3], Revision=None), *log[4:]],
            [4],
            [spell(4).replace("r4", "r?")],
            [],
            id="no revision",
        ),
        pytest.param(
            lambda log: [*log[:3], msgspec.structs.replace(log[3], Message=""), *log[4:]],
            [4],
            [f"{spell(4)} (another message)"],
            [],
            id="another message",
        ),
        pytest.param(
            lambda log: [msgspec.structs.replace(log[0], Time=log[1].Time), *log[1:]],
            [1],
            [f"{spell(1)} (time {(JOB.changes[1].time_ns - JOB.changes[0].time_ns) / 1e6:.0f} ms off)"],
            [],
            id="another time",
        ),
        pytest.param(
            lambda log: [msgspec.structs.replace(log[0], Time=None), *log[1:]],
            [1],
            [f"{spell(1)} (no time)"],
            [],
            id="no time",
        ),
        pytest.param(
            lambda log: [*log, moved(log[0], ID="j-other")],
            [],
            ["j-other v1 r1 Pending (no such job in the record)"],
            [],
            id="another job",
        ),
        pytest.param(
            lambda log: [moved(update, Namespace="other") for update in log[:1]] + numbered(log[1:]),
            [1],
            [f"{spell(1)} (no such job in the record)"],
            [],
            id="another namespace",
        ),
    ],
)
def test_a_broken_log_is_called_wrong_and_by_what(
    damage: Callable[[Log], Log], missing: list[int], surplus: list[str], misordered: list[str]
) -> None:
    """What is missing, what is too much, what stands wrong: each is named, and nothing else is."""
    verdict = judge([JOB], damage(log_of(JOB)))
    assert list(verdict.missing) == [spell(number) for number in missing]
    assert list(verdict.surplus) == surplus
    assert list(verdict.misordered) == misordered
    assert not verdict.ok


def test_a_time_within_10_ms_is_right() -> None:
    """The record's time is the entry's: what is farther off is another update."""
    log = log_of(JOB)
    for off, right in ((timedelta(milliseconds=10), True), (timedelta(milliseconds=-10), True)):
        near = [msgspec.structs.replace(one, Time=one.Time + off) for one in log if one.Time]
        assert judge([JOB], near).ok is right
    far = [msgspec.structs.replace(one, Time=one.Time + timedelta(milliseconds=10.5)) for one in log if one.Time]
    assert len(judge([JOB], far).surplus) == len(log)
