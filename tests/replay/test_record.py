"""The oracle, held against what others say of the same jobs: the scenarios' own expectation, and the poller's view."""

from typing import Any

import pytest

from consumer.replay.record import Document, JobRecord, read_ns, read_records
from tests.replay.shared import SCENARIOS, expectation, polled, record, recording

JOB = "j-1"
PATH = f"/api/v1/orchestrator/jobs/{JOB}"
FINAL_NS = 1_800_000_000_000_000_000


def job_document(**changed: Any) -> dict[str, Any]:
    """A job's document as the real one spells it, as far as the record reads it."""
    return {
        "ID": JOB,
        "Name": "n",
        "Namespace": "default",
        "Type": "batch",
        "Count": 1,
        "State": {"StateType": "Running"},
        "Version": 1,
        "Revision": 2,
        "CreateTime": FINAL_NS,
        "ModifyTime": FINAL_NS,
        **changed,
    }


def row(number: int, topic: str, message: str, second: int, **details: str) -> dict[str, Any]:
    """A job-level row of history, *second* seconds into a minute."""
    return {
        "SeqNum": number,
        "Type": "JobLevel",
        "JobID": JOB,
        "JobVersion": 1,
        "Event": {"Topic": topic, "Message": message, "Details": details},
        "Time": f"2026-11-24T06:54:{second:02}.000000001Z",
    }


SUBMITTED = row(1, "Submission", "Job submitted", 10)
RUNNING = row(2, "State Update", "Running", 20, NewState="Running")


def read_one(rows: list[dict[str, Any]], **changed: Any) -> JobRecord:
    """The record of one job with these *rows*."""
    documents: dict[str, Document] = {
        PATH: {"Job": job_document(**changed)},
        f"{PATH}/history": {"NextToken": "", "Items": rows},
    }
    return read_records(documents)[0]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_record_holds_what_the_scenario_expects_and_beyond_it_only_missed_revisions(scenario: str) -> None:
    """Every expected state is in the record in order; the record's others are revisions that polling missed."""
    expect = expectation(scenario)
    jobs = {job.id: job for job in recording(scenario).jobs}
    assert set(jobs) == set(expect)
    for job, told in expect.items():
        steps = [(step.version, step.revision, step.state) for step in jobs[job].expected]
        states = [tuple(state) for state in told["states"]]
        assert [step for step in steps if step in states] == states
        assert {step[1] for step in steps if step not in states} <= set(told["missed_revisions"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_record_stands_as_polling_saw_it(scenario: str) -> None:
    """Each revision that polling saw has the same state, version, message and (within 10 ms) time in the record."""
    jobs = {job.id: job for job in recording(scenario).jobs}
    seen = polled(scenario)
    assert seen
    for poll in seen:
        job = jobs[poll["job"]]
        revisions = {change.revision: change for change in job.changes}
        standing = job.at(revisions[poll["revision"]].time_ns)
        assert standing is not None
        assert (standing.version, standing.revision, standing.state, standing.message) == (
            poll["version"],
            poll["revision"],
            poll["state"],
            poll["message"],
        )
        assert abs(standing.modified_ns - poll["modify_time"]) < 10_000_000


def test_the_shared_recordings_expect_1359_updates() -> None:
    """464 jobs of 74 recordings went through 1,360 job-level entries, of which one repeats its neighbour."""
    jobs = [job for scenario in SCENARIOS for job in recording(scenario).jobs]
    assert len(SCENARIOS) == 74
    assert len(jobs) == 464
    assert sum(len(job.changes) for job in jobs) == 1360
    assert sum(len(job.expected) for job in jobs) == 1359


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_in_the_end_every_job_stands_as_its_last_document_says(scenario: str) -> None:
    """State, Version, Revision, ModifyTime and Message at the end of time are the final document's own."""
    for job in recording(scenario).jobs:
        assert job.at(job.row_ns[-1]) is job.last
        assert job.document_at(job.row_ns[-1]) is job.document


def test_two_entries_of_one_revision_are_one_update() -> None:
    """TotalTimeout and the last retry's failure met: entries 3 and 4 are revision 3, and the log says the first."""
    job = record("bacalhau-v1.9.3/total_timeout", "total-timeout")
    assert [(change.number, change.revision, change.state) for change in job.changes] == [
        (1, 1, "Pending"),
        (2, 2, "Running"),
        (3, 3, "Failed"),
        (4, 3, "Failed"),
    ]
    assert [step.number for step in job.expected] == [1, 2, 3]
    assert job.expected[-1].message == "Job timed out. Job took longer than 2s"


def test_the_same_state_in_two_revisions_is_counted_twice_by_bacalhau_and_logged_once() -> None:
    """Queued again is a revision of its own, but no update; what follows keeps its number."""
    rows = [SUBMITTED, row(2, "Queueing", "Job queued. a", 20), row(3, "Queueing", "Job queued. b", 21)]
    job = read_one([*rows, row(4, "State Update", "Running", 22, NewState="Running")], Revision=4)
    assert [change.revision for change in job.changes] == [1, 2, 3, 4]
    assert [(step.number, step.state) for step in job.expected] == [(1, "Pending"), (2, "Queued"), (4, "Running")]


def test_before_its_submission_a_job_is_not_there() -> None:
    """At the nanosecond of its first entry the job is there, one before it is not, nor is any row of its history."""
    job = record("bacalhau-v1.9.3/rerun", "rerun-completed")
    first = job.changes[0].time_ns
    assert job.at(first - 1) is None
    assert job.document_at(first - 1) is None
    assert list(job.history_at(first - 1)) == []
    assert job.document_at(first) == {
        **job.document,
        "State": {"StateType": "Pending"},
        "Version": 1,
        "Revision": 1,
        "ModifyTime": first,
    }


def test_a_later_pending_says_why() -> None:
    """A rerun's Pending carries its reason, an update's the sentence that Bacalhau writes into the state."""
    rerun = record("bacalhau-v1.9.3/rerun", "rerun-completed")
    assert {step.message for step in rerun.expected if step.state == "Pending"} == {"", "job rerun"}
    updates = [step for job in recording("bacalhau-v1.9.3/update").jobs for step in job.expected if step.version > 1]
    assert {step.message for step in updates if step.state == "Pending"} == {"Job update requested by user"}


def test_a_clock_that_went_back_takes_nothing_out_of_the_record() -> None:
    """A row with an earlier time than the one before it is there from that one's time on."""
    job = read_one([SUBMITTED, row(2, "State Update", "Running", 5, NewState="Running")])
    standing = job.at(job.changes[0].time_ns)
    assert standing is not None
    assert standing.state == "Running"
    assert len(job.history_at(job.changes[1].time_ns)) == 0


def test_a_last_document_older_than_the_history_does_not_hide_its_end() -> None:
    """The job was read before it ended, its history after: the history is the record."""
    job = read_one([SUBMITTED, RUNNING, row(3, "State Update", "Completed", 30, NewState="Completed")])
    standing = job.at(FINAL_NS)
    assert standing is not None
    assert (standing.state, standing.revision) == ("Completed", 2 + 1)


def test_pages_of_a_history_are_joined_by_their_numbers() -> None:
    """Pages in any order, overlapping, with whatever query: one history, each row once."""
    documents: dict[str, Document] = {
        PATH + "?namespace=team.b+%3E+%2A": {"Job": job_document(Namespace="team.b > *")},
        f"{PATH}/history?all_job_versions=true&next_token=abc": {"NextToken": "abc", "Items": [RUNNING]},
        f"{PATH}/history?namespace=team.b+%3E+%2A": {"NextToken": "abc", "Items": [SUBMITTED, RUNNING]},
        f"{PATH}/history?next_token=empty": {"NextToken": "", "Items": None},
    }
    (job,) = read_records(documents)
    assert job.namespace == "team.b > *"
    assert list(job.rows) == [SUBMITTED, RUNNING]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no job-level history"),
        ([{**SUBMITTED, "Event": None}], "no event"),
        ([{**SUBMITTED, "Time": "yesterday"}], "RFC 3339"),
        ([row(1, "Weather", "rain", 1)], "topic 'Weather' tells no known state"),
        ([row(1, "State Update", "Running", 1)], "tells no known state"),
    ],
)
def test_a_history_that_tells_no_state_is_refused(rows: list[dict[str, Any]], reason: str) -> None:
    """What the oracle cannot read it does not guess."""
    with pytest.raises(ValueError, match=reason):
        read_one(rows)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-11-24T06:54:32.608067879Z", 1_795_503_272_608_067_879),
        ("2026-11-24T07:54:32.608067879+01:00", 1_795_503_272_608_067_879),
        ("2026-11-24T06:54:32.61165876Z", 1_795_503_272_611_658_760),
        ("2026-11-24T06:54:32Z", 1_795_503_272_000_000_000),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, ns: int) -> None:
    """Any offset, any number of digits."""
    assert read_ns(text) == ns
