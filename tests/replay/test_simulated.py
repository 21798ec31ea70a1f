"""The simulated orchestrator beside the real one's documents; its pages, tokens and versions beside the source's."""

from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from consumer.errors import RecordingError
from consumer.replay.record import JobRecord
from consumer.replay.simulated import SimulatedOrchestrator
from consumer.wire.rest import decode_history, decode_job, decode_jobs
from tests.replay.shared import SCENARIOS, record, recording

END_NS = 2**62
JOBS = "/api/v1/orchestrator/jobs"
RERUN = "bacalhau-v1.9.3/rerun"


def spelled(token: str) -> str:
    """What a next token says."""
    return urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()


def numbers(document: dict[str, Any]) -> list[int]:
    """The rows of a page of history, by number."""
    return [row["SeqNum"] for row in document["Items"]]


def names(document: dict[str, Any]) -> list[str]:
    """The jobs of a list, by name."""
    return [job["Name"] for job in document["Items"]]


@pytest.fixture
def rerun() -> SimulatedOrchestrator:
    """Three jobs of 1.9.3, each rerun."""
    return SimulatedOrchestrator([recording(RERUN)])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_in_the_end_it_answers_what_the_real_one_answered(scenario: str) -> None:
    """Version, list, every job and every page of history: the very documents, for the very requests."""
    one = recording(scenario)
    orchestrator = SimulatedOrchestrator([one])
    asked = [path for path in one.documents if "/executions" not in path]
    assert len(asked) == 2 + sum("/history" in path for path in asked) + len(one.jobs)
    for path in asked:
        reply = orchestrator.answer(END_NS, path)
        assert reply.status == 200
        assert reply.document == one.documents[path], path
        assert msgspec.json.decode(reply.body) == one.documents[path]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_daemon_reads_the_record_as_the_oracle_does(scenario: str) -> None:
    """`consumer.wire.rest` and the oracle were written apart, and read the same state, message and time everywhere."""
    one = recording(scenario)
    orchestrator = SimulatedOrchestrator([one])
    for job in one.jobs:
        page = decode_history(
            orchestrator.history(
                END_NS, job.id, {"event_type": "job", "all_job_versions": "true", "limit": "1000"}
            ).body
        )
        assert len(page.entries) == len(job.changes)
        for entry, change in zip(page.entries, job.changes, strict=True):
            assert (entry.version, entry.state, entry.message) == (change.version, change.state, change.message)
            assert entry.time is not None
            assert abs(entry.time.timestamp() - change.time_ns / 1e9) < 2e-6


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_at_every_change_job_list_and_history_say_the_same(scenario: str) -> None:
    """At a change's nanosecond the job, its place in the list and its history's end are that change's; before, not."""
    one = recording(scenario)
    orchestrator = SimulatedOrchestrator([one])
    for job in one.jobs:
        for change, since in zip(job.changes, job.change_ns, strict=True):
            snapshot = decode_job(orchestrator.job(since, job.id, {}).body).job
            assert (snapshot.version, snapshot.revision, snapshot.state, snapshot.message) == (
                change.version,
                change.revision,
                change.state,
                change.message,
            )
            history = orchestrator.history(since, job.id, {"event_type": "job", "all_job_versions": "true"})
            assert decode_history(history.body).items == change.number
            before = orchestrator.history(since - 1, job.id, {"event_type": "job", "all_job_versions": "true"})
            assert change.number == 1 or decode_history(before.body).items == change.number - 1
        listed = decode_jobs(orchestrator.jobs(job.change_ns[0], {}).body)
        assert [one.job.id for one in listed.jobs].count(job.id) == 1


def test_a_job_not_yet_submitted_is_404(rerun: SimulatedOrchestrator) -> None:
    """The error is Bacalhau's own document; the list is empty."""
    job = record(RERUN, "rerun-completed")
    before = job.change_ns[0] - 1
    for reply in (rerun.job(before, job.id, {}), rerun.history(before, job.id, {})):
        assert reply.status == 404
        assert reply.document["Code"] == "NotFound"
        assert reply.document["Message"] == f"job not found: {job.id}"
    assert rerun.jobs(before, {}).document == {"NextToken": "", "Items": []}


def test_a_job_is_found_by_a_short_id_that_only_it_has(rerun: SimulatedOrchestrator) -> None:
    """`j-` and eight digits; any other prefix is no id."""
    job = record(RERUN, "rerun-failed")
    assert rerun.job(END_NS, job.id[:10], {}).document == {"Job": job.document}
    assert rerun.job(END_NS, job.id[:9], {}).status == 404
    assert rerun.answer(END_NS, f"{JOBS}/{job.id[:10]}/history").document == rerun.history(END_NS, job.id, {}).document


def test_a_short_id_that_two_jobs_have_is_refused() -> None:
    """As the real one does: 500 MultipleJobsFound."""
    one = recording(RERUN)
    twin = msgspec.structs.replace(one.jobs[0], id=one.jobs[0].id[:10] + "-twin")
    orchestrator = SimulatedOrchestrator([msgspec.structs.replace(one, jobs=(*one.jobs, twin))])
    reply = orchestrator.job(END_NS, one.jobs[0].id[:10], {})
    assert (reply.status, reply.document["Code"]) == (500, "MultipleJobsFound")


def test_without_all_job_versions_history_is_of_the_latest_version(rerun: SimulatedOrchestrator) -> None:
    """Of a rerun job: version 2 alone, version 1 alone if asked, both if asked; at an earlier time version 1."""
    job = record(RERUN, "rerun-completed")

    def versions(t_ns: int, **query: str) -> set[int]:
        return {row["JobVersion"] for row in rerun.history(t_ns, job.id, query).document["Items"]}

    assert versions(END_NS) == {2}
    assert versions(END_NS, job_version="1") == {1}
    assert versions(END_NS, all_job_versions="true") == {1, 2}
    second = next(change for change in job.changes if change.version == 2)
    assert versions(second.time_ns - 1) == {1}
    assert versions(second.time_ns) == {2}


def test_before_1_8_versions_are_not_understood() -> None:
    """1.7 ignores both parameters, and its rows have no JobVersion."""
    job = recording("bacalhau-v1.7.0/trap").jobs[0]
    orchestrator = SimulatedOrchestrator([recording("bacalhau-v1.7.0/trap")])
    for query in ({}, {"all_job_versions": "true"}, {"job_version": "7"}):
        rows = orchestrator.history(END_NS, job.id, query).document["Items"]
        assert rows == list(job.rows)
        assert all("JobVersion" not in row for row in rows)


def test_history_is_paged_by_sequence_number(rerun: SimulatedOrchestrator) -> None:
    """Following the tokens gives every row once; the offset is the next SeqNum, the limit the query's."""
    job = record(RERUN, "rerun-completed")
    query = {"all_job_versions": "true", "limit": "2"}
    found: list[int] = []
    while True:
        document = rerun.history(END_NS, job.id, query).document
        found += numbers(document)
        if not document["NextToken"]:
            break
        assert spelled(document["NextToken"]) == f":N:2:{found[-1] + 1}"
        query = {**query, "next_token": document["NextToken"]}
    assert found == list(range(1, len(job.rows) + 1))


def test_a_page_of_job_level_history_skips_the_other_rows(rerun: SimulatedOrchestrator) -> None:
    """The token points behind the last row that was given, whatever was skipped before it."""
    job = record(RERUN, "rerun-completed")
    levels = [row["SeqNum"] for row in job.rows if row["Type"] == "JobLevel"]
    query = {"all_job_versions": "true", "limit": "3", "event_type": "job"}
    first = rerun.history(END_NS, job.id, query).document
    assert numbers(first) == levels[:3]
    second = rerun.history(END_NS, job.id, {**query, "next_token": first["NextToken"]}).document
    assert numbers(second) == levels[3:6]
    executions = rerun.history(END_NS, job.id, {"all_job_versions": "true", "event_type": "execution"}).document
    assert sorted(numbers(executions) + levels) == list(range(1, len(job.rows) + 1))


def test_an_open_job_has_a_token_even_on_an_empty_page() -> None:
    """A poll cursor: the same offset again until a row comes; without one when the job has ended and all is read."""
    one = recording("bacalhau-v1.9.3/stop_running")
    orchestrator, job = SimulatedOrchestrator([one]), one.jobs[0]
    running = job.changes[1].time_ns
    first = orchestrator.history(running, job.id, {}).document
    read = len(first["Items"])
    assert 0 < read < len(job.rows)
    assert spelled(first["NextToken"]) == f":N:0:{read + 1}"
    empty = orchestrator.history(running, job.id, {"next_token": first["NextToken"]}).document
    assert empty == {"NextToken": first["NextToken"], "Items": []}
    rest = orchestrator.history(END_NS, job.id, {"next_token": first["NextToken"]}).document
    assert numbers(rest) == list(range(read + 1, len(job.rows) + 1))
    assert rest["NextToken"] == ""


def test_a_page_has_100_rows_where_nobody_asks_for_another_number() -> None:
    """design/bacalhau.md 6.3: `:N:0:101` after 100 rows of history."""
    one = recording(RERUN)
    job = one.jobs[0]
    rows = tuple({**job.rows[0], "SeqNum": number} for number in range(1, 251))
    long = msgspec.structs.replace(job, rows=rows, row_ns=(job.row_ns[0],) * len(rows))
    orchestrator = SimulatedOrchestrator([msgspec.structs.replace(one, jobs=(long,))])
    first = orchestrator.history(END_NS, job.id, {"all_job_versions": "true"}).document
    assert numbers(first) == list(range(1, 101))
    assert spelled(first["NextToken"]) == ":N:0:101"
    whole = orchestrator.history(END_NS, job.id, {"all_job_versions": "true", "limit": "1000"}).document
    assert len(whole["Items"]) == 250


def test_the_list_is_ordered_as_asked() -> None:
    """By creation as the default, by modification for a change scan, either way round."""
    one = recording("bacalhau-v1.9.3/burst")
    orchestrator = SimulatedOrchestrator([one])
    t_ns = one.ns_of(one.last_t / 2)

    def listed(key: str, **query: str) -> list[int]:
        return [job[key] for job in orchestrator.jobs(t_ns, query).document["Items"]]

    assert 10 < len(listed("CreateTime")) <= 60
    assert listed("CreateTime") == sorted(listed("CreateTime"))
    assert listed("CreateTime", reverse="true") == sorted(listed("CreateTime"), reverse=True)
    newest = listed("ModifyTime", order_by="modified_at", reverse="true")
    assert newest == sorted(newest, reverse=True)
    assert max(newest) <= t_ns


def test_the_list_is_paged_by_offset_and_a_token_keeps_its_order() -> None:
    """A token replaces order, direction and limit of the query; limit 0 is all; the last page has no token."""
    one = recording("bacalhau-v1.9.3/burst")
    orchestrator = SimulatedOrchestrator([one])
    whole = names(orchestrator.jobs(END_NS, {"order_by": "modified_at", "reverse": "true", "limit": "0"}).document)
    document = orchestrator.jobs(END_NS, {"order_by": "modified_at", "reverse": "true", "limit": "25"}).document
    assert spelled(document["NextToken"]) == "modified_at:Y:25:25"
    paged = names(document)
    while document["NextToken"]:
        document = orchestrator.jobs(END_NS, {"next_token": document["NextToken"], "limit": "1"}).document
        paged += names(document)
    assert paged == whole
    assert len(whole) == 60
    assert orchestrator.jobs(END_NS, {"limit": "60"}).document["NextToken"] == ""


def test_the_list_is_of_one_namespace_or_all() -> None:
    """Empty and `*` are all; another is that one, whatever characters it has."""
    one = recording("bacalhau-v1.9.3/namespaces")
    orchestrator = SimulatedOrchestrator([one])
    assert len(orchestrator.answer(END_NS, f"{JOBS}?namespace=*").document["Items"]) == len(one.jobs)
    assert len(orchestrator.answer(END_NS, JOBS).document["Items"]) == len(one.jobs)
    some = orchestrator.answer(END_NS, f"{JOBS}?namespace=team.b+%3E+%2A").document["Items"]
    assert {job["Namespace"] for job in some} == {"team.b > *"}


def test_several_recordings_are_one_orchestrator() -> None:
    """Their jobs appear at their own recorded times on one time line."""
    early, late = recording("bacalhau-v1.9.3/queued_then_runs"), recording(RERUN)
    orchestrator = SimulatedOrchestrator([late, early])
    between = early.ns_of(early.last_t) + 1
    assert len(orchestrator.jobs(between, {}).document["Items"]) == len(early.jobs)
    assert len(orchestrator.jobs(END_NS, {}).document["Items"]) == len(early.jobs) + len(late.jobs)


def test_a_job_in_two_recordings_is_refused() -> None:
    """One time line has one history of a job."""
    with pytest.raises(RecordingError, match="in two recordings"):
        SimulatedOrchestrator([recording(RERUN), recording(RERUN)])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"{JOBS}?limit=-1", 400),
        (f"{JOBS}?limit=4294967296", 400),
        (f"{JOBS}?limit=" + "9" * 5000, 400),
        (f"{JOBS}?order_by=id", 400),
        (f"{JOBS}?next_token=%FF", 400),
        (f"{JOBS}?next_token=OjpO", 400),
        (f"{JOBS}/JOB/history?next_token=a", 400),
        (f"{JOBS}/JOB/history?event_type=none", 400),
        (f"{JOBS}/JOB/history?job_version=x", 400),
        (f"{JOBS}/a%2Fb/history", 404),
        (f"{JOBS}/JOB/logs", 404),
        ("/", 404),
        ("/api/v2/agent/version", 404),
    ],
)
def test_what_it_does_not_understand_it_refuses(rerun: SimulatedOrchestrator, target: str, status: int) -> None:
    """With Bacalhau's error document."""
    reply = rerun.answer(END_NS, target.replace("JOB", record(RERUN, "rerun-completed").id))
    assert reply.status == reply.document["Status"] == status


def test_secrets_of_a_job_are_in_its_documents_and_not_in_its_history() -> None:
    """As in the real ones: it is the daemon that must not let them through."""
    one = recording("bacalhau-v1.9.3/secret")
    orchestrator = SimulatedOrchestrator([one])

    def holding(read: Callable[[JobRecord], bytes]) -> int:
        return sum(b"canary-7f3a" in read(job) for job in one.jobs)

    assert holding(lambda job: orchestrator.job(job.change_ns[0], job.id, {}).body) > 0
    assert holding(lambda job: orchestrator.history(END_NS, job.id, {}).body) == 0
