"""REST bodies: the history of every recording says what `expect` names; jobs, lists; wrong answers."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import DecodeError, OrchestratorError
from consumer.model import NUMBER_MAX, BadJob, UndecodableReason
from consumer.wire import decode_history, decode_job, decode_jobs, decode_node
from consumer.wire.decoding import ID_MAX, NAME_MAX, TEXT_MAX
from consumer.wire.rest import Node
from tests.wire.samples import document, folders

API = "/api/v1/orchestrator/jobs/"


def history_of(folder: Path, job: str) -> bytes:
    """The whole history of *job* as the orchestrator answered it."""
    final = document(folder, "final.json")
    return json.dumps(next(body for path, body in final.items() if path.startswith(f"{API}{job}/history"))).encode()


def row(number: int, topic: str, message: str, **details: str) -> dict[str, Any]:
    """One job-level row of a history."""
    event = {"Message": message, "Topic": topic, "Timestamp": "2026-11-24T06:55:12.444Z", "Details": details or None}
    return {
        "SeqNum": number,
        "Type": "JobLevel",
        "JobID": "j",
        "Event": event,
        "Time": "2026-11-24T06:55:12.444148532Z",
    }


def page(*rows: dict[str, Any], token: str = "") -> bytes:
    """A page of history."""
    return json.dumps({"NextToken": token, "Items": list(rows)}).encode()


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_the_history_of_every_recording_is_what_polling_saw(folder: Path) -> None:
    """Read so, each history has the states of `expect` in their order; only at missed revisions has it others.

    The n-th entry is revision n, but for `total_timeout`, where one revision left two: there only the order holds.
    """
    for job, expected in document(folder, "scenario.json")["expect"].items():
        found = decode_history(history_of(folder, job)).entries
        assert [entry.number for entry in found] == sorted(entry.number for entry in found)
        steps = [(entry.version, revision, entry.state) for revision, entry in enumerate(found, 1)]
        states = [(version, state) for version, _, state in steps]
        merged = [state for index, state in enumerate(states) if index == 0 or states[index - 1] != state]
        missed = expected["missed_revisions"]
        if folder.name != "total_timeout":
            seen = [tuple(state) for state in expected["states"]]
            assert [step for step in steps if step[1] not in missed] == seen
        elif not missed:
            assert merged == [(version, state) for version, _, state in expected["states"]]


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_the_message_is_the_one_of_the_job_itself(folder: Path) -> None:
    """The message read from an entry is what the orchestrator showed as the job's `State.Message` at that revision."""
    if folder.name == "total_timeout":
        return  # two entries for one revision: the n-th entry is not revision n
    messages: dict[str, dict[int, str]] = {}
    for job in document(folder, "scenario.json")["expect"]:
        entries = decode_history(history_of(folder, job)).entries
        messages[job] = {revision: entry.message for revision, entry in enumerate(entries, 1)}
    polled = [json.loads(line) for line in (folder / "rest.jsonl").read_text().splitlines()]
    assert polled
    for seen in polled:
        assert messages[seen["job"]][seen["revision"]] == (seen["message"] or "")


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_every_recorded_document_decodes(folder: Path) -> None:
    """Job and list of every release: list and job say the same, and end where the history ends."""
    final = document(folder, "final.json")
    listed = {}
    for path, body in final.items():
        if "/jobs?" in path:
            found = decode_jobs(json.dumps(body).encode())
            assert found.next_token == ""
            listed = {snapshot.job.id: snapshot for snapshot in found.jobs}
    jobs = set(document(folder, "scenario.json")["expect"])
    assert jobs <= set(listed)
    for job in jobs:
        answer = next(body for path, body in final.items() if path.partition("?")[0] == API + job)
        snapshot = decode_job(json.dumps(answer).encode()).job
        assert snapshot == listed[job]
        last = decode_history(history_of(folder, job)).entries[-1]
        assert (snapshot.version, snapshot.state, snapshot.message) == (last.version, last.state, last.message)
        assert snapshot.modified is not None
        assert last.time is not None
        assert abs((snapshot.modified - last.time).total_seconds()) < 1


@pytest.mark.parametrize(
    ("topic", "message", "details", "state", "text"),
    [
        ("Submission", "Job submitted", {}, "Pending", ""),
        ("Submission", "Job tasks translated to new type", {}, "Pending", ""),
        ("Submission", "Job updated", {}, "Pending", "Job update requested by user"),
        ("Submission", "Job updated", {"Reason": "mine"}, "Pending", "mine"),
        ("Submission", "Job rerun requested", {"Reason": "job rerun"}, "Pending", "job rerun"),
        ("State Update", "Running", {"NewState": "Running"}, "Running", ""),
        ("State Update", "Completed", {"NewState": "Completed", "Reason": "mine"}, "Completed", ""),
        ("Queueing", "Job queued. not enough nodes", {}, "Queued", "Job queued. not enough nodes"),
        ("Scheduling", "Job requested to stop before completion", {"Reason": ""}, "Stopped", ""),
        ("Scheduling", "not enough nodes to run job. requested: 1", {"IsError": "true"}, "Failed", "="),
        ("Scheduling", "not matching nodes to run job", {}, "Failed", "="),
        ("Scheduling", "Job failed because it has been retried too many times", {}, "Failed", "="),
        ("Scheduling", "Job failed because one or more executions failed", {}, "Failed", "="),
        ("Job Timeout", "Job timed out. Job took longer than 2s", {"Hint": "h"}, "Failed", "="),
        ("New Topic", "anything", {"NewState": "Queued"}, "Queued", "anything"),
    ],
)
def test_an_entry_is_read_as_a_state(topic: str, message: str, details: dict[str, str], state: str, text: str) -> None:
    """The table of design/bacalhau.md 4.7, and what the job's State.Message says then (4.3)."""
    (entry,) = decode_history(page(row(1, topic, message, **details))).entries
    assert (entry.state, entry.message) == (state, message if text == "=" else text)
    assert (entry.version, entry.time) == (0, datetime(2026, 11, 24, 6, 55, 12, 444149, UTC))


@pytest.mark.parametrize(
    ("topic", "message"),
    [("Scheduling", "Job paused"), ("Submission", "Running"), ("", ""), ("Queueing", "job queued")],
)
def test_an_entry_that_tells_no_state_is_an_error(topic: str, message: str) -> None:
    """A job-level entry is never skipped: the error says which it was, and not what it said."""
    with pytest.raises(DecodeError) as caught:
        decode_history(page(row(1, "Submission", "Job submitted"), row(17, topic, message)))
    assert caught.value.reason == "unknown-history-entry"
    assert "entry 17" in caught.value.detail
    assert not message or message not in str(caught.value)


@pytest.mark.parametrize("field", ["SeqNum", "JobVersion"])
def test_an_entry_that_cannot_be_real_is_an_error(field: str) -> None:
    """A version beyond what can be would make all later ones late, for ever."""
    submitted = row(1, "Submission", "Job submitted")
    decode_history(page(submitted | {field: NUMBER_MAX}))
    with pytest.raises(DecodeError) as caught:
        decode_history(page(submitted | {field: NUMBER_MAX + 1}))
    assert caught.value.reason == "out-of-range"


def test_entries_come_in_the_order_of_their_numbers() -> None:
    """Rows in another order are sorted; execution-level rows count as items only; a token comes along."""
    execution = {"SeqNum": 2, "Type": "ExecutionLevel", "JobID": "j", "ExecutionID": "e", "Event": None, "Time": 5}
    stopped = row(3, "Scheduling", "Job requested to stop before completion")
    found = decode_history(page(stopped, execution, row(1, "Submission", "Job submitted"), token="next"))
    assert [(entry.number, entry.state) for entry in found.entries] == [(1, "Pending"), (3, "Stopped")]
    assert (found.items, found.next_token) == (3, "next")


def test_a_row_of_another_job_is_refused() -> None:
    """An answer may be somebody else's; a row that does not say whose it is, is taken."""
    submitted = row(1, "Submission", "Job submitted")
    for rows in ([submitted], [submitted | {"JobID": ""}]):
        assert len(decode_history(page(*rows), "j").entries) == 1
    assert len(decode_history(page(submitted | {"JobID": "other"})).entries) == 1
    with pytest.raises(OrchestratorError) as caught:
        decode_history(page(submitted, submitted | {"JobID": "other"}), "j")
    assert caught.value.kind == "other-job"


def test_a_job_brings_its_history() -> None:
    """As far as it was asked for: entries and the token of the next page; without one there are none."""
    job = {"ID": "j", "Namespace": "default", "State": {"StateType": "Running"}}
    history = {"Items": [row(1, "Submission", "Job submitted")], "NextToken": "more"}
    found = decode_job(json.dumps({"Job": job, "History": history}).encode()).history
    assert ([entry.state for entry in found.entries], found.items, found.next_token) == (["Pending"], 1, "more")
    for body in ({"Job": job}, {"Job": job, "History": None}):
        found = decode_job(json.dumps(body).encode()).history
        assert (found.entries, found.items, found.next_token) == ((), 0, "")


def test_the_first_wrong_item_says_why_a_list_is_none() -> None:
    """The others may be wrong because of it."""
    items = [{"ID": "", "Namespace": "d", "State": {"StateType": "Running"}}, 7]
    with pytest.raises(DecodeError) as caught:
        decode_jobs(json.dumps({"Items": items}).encode())
    assert caught.value.reason == "no-job"


def test_empty_pages() -> None:
    """A Go nil slice is null: an empty page, not an error."""
    assert decode_history(b'{"NextToken":"t","Items":null}').entries == ()
    assert decode_history(b'{"NextToken":"","Items":[]}').items == 0
    assert decode_jobs(b'{"NextToken":"","Items":null}').jobs == ()


@pytest.mark.parametrize(
    ("fields", "reason", "modified_ns"),
    [
        ({"State": {"StateType": "Undefined"}}, "unknown-state", 7),
        ({"State": {"StateType": "Paused"}}, "unknown-state", 7),
        ({"State": None, "ModifyTime": "soon"}, "wrong-shape", 0),
        ({"Revision": 2**32}, "out-of-range", 7),
        ({"Version": 2**64 - 1}, "out-of-range", 7),
    ],
)
def test_a_job_that_cannot_be_read_hides_no_other(
    fields: dict[str, object], reason: UndecodableReason, modified_ns: int
) -> None:
    """The page has the others, and says which one it was and why."""
    items: list[dict[str, object]] = [
        {"ID": f"j-{n}", "Namespace": "d", "State": {"StateType": "Running"}, "ModifyTime": 7} for n in range(3)
    ]
    items[1] |= fields
    found = decode_jobs(json.dumps({"Items": [*items, {"Nobody": 1}], "NextToken": "t"}).encode())
    assert ([job.job.id for job in found.jobs], found.next_token) == (["j-0", "j-2"], "t")
    assert found.bad == (
        BadJob(id="j-1", reason=reason, modified_ns=modified_ns),
        BadJob(id="", reason="wrong-shape"),
    )
    assert decode_jobs(json.dumps({"Items": items[1:2]}).encode()).bad == found.bad[:1]


@pytest.mark.parametrize("item", [None, 7, "x", {}, {"Nobody": 1}])
def test_a_list_of_something_else_is_no_list(item: object) -> None:
    """None of its items is a job: somebody else answers."""
    with pytest.raises(DecodeError) as caught:
        decode_jobs(json.dumps({"Items": [item, item]}).encode())
    assert caught.value.reason == "wrong-shape"


@pytest.mark.parametrize("time", ["", "2026-02-30T00:00:00Z", "2026-11-24T06:55:12", 5, None])
def test_an_entry_with_an_odd_time_has_none(time: object) -> None:
    """The time is a detail: the state stands."""
    entry = decode_history(page(row(1, "Submission", "Job submitted") | {"Time": time})).entries[0]
    assert (entry.state, entry.time) == ("Pending", None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not-json"),
        (b"<html><body>gateway</body></html>", "not-json"),
        (b'{"Job":{"ID":"j","Namespace":"default","State":{"StateType":"Runn', "not-json"),
        (b"null", "wrong-shape"),
        (b"[]", "wrong-shape"),
        (b"{}", "wrong-shape"),
        (b'{"Job":null}', "wrong-shape"),
        (b'{"Job":{"ID":"j","Namespace":"default"}}', "wrong-shape"),
        (b'{"Job":{"ID":"","Namespace":"default","State":{"StateType":"Running"}}}', "no-job"),
        (b'{"Job":{"ID":"j","Namespace":"d","State":{"StateType":"Undefined"}}}', "unknown-state"),
        (b'{"Job":{"ID":"j","Namespace":"d","State":{"StateType":"Running"},"Version":4294967296}}', "out-of-range"),
        (b'{"Job":{"ID":"\xff","Namespace":"d","State":{"StateType":"Running"}}}', "not-utf8"),
        (b'{"Job":' + b"[" * 100_000, "too-deep"),
    ],
)
def test_an_answer_that_is_no_job(body: bytes, reason: str) -> None:
    """Each wrong answer is an error with its reason, never a state."""
    if reason == "too-deep":
        body = b'{"x":' + b"[" * 500_000
    with pytest.raises(DecodeError) as caught:
        decode_job(body)
    assert caught.value.reason == reason


def test_a_job_with_a_total_timeout_says_so() -> None:
    """In seconds in its task; 0, or none, is no timeout."""
    found = set()
    for folder in folders():
        listed = next(body for path, body in document(folder, "final.json").items() if "/jobs?" in path)
        shown = decode_jobs(json.dumps(listed).encode()).jobs
        for job, snapshot in zip(listed["Items"], shown, strict=True):
            assert snapshot.expires == (job["Tasks"][0]["Timeouts"].get("TotalTimeout", 0) > 0)
            found |= {folder.name} if snapshot.expires else set()
    assert found == {"total_timeout"}


def test_what_would_not_fit_into_a_message_is_cut() -> None:
    """A message of a MiB, a name of a MiB: the state goes through, its texts bounded."""
    long = "x" * (1 << 20)
    (entry,) = decode_history(page(row(1, "Scheduling", long, NewState="Failed"))).entries
    assert (entry.state, entry.message) == ("Failed", "x" * TEXT_MAX)
    state = {"StateType": "Failed", "Message": long}
    job = {"ID": "j-1", "Namespace": "default", "Name": long, "Type": "batch", "State": state}
    snapshot = decode_job(json.dumps({"Job": job}).encode()).job
    assert (snapshot.state, snapshot.message, snapshot.job.name) == ("Failed", "x" * TEXT_MAX, "x" * NAME_MAX)


@pytest.mark.parametrize(
    "body",
    [
        {"Info": {"NodeID": "n-1", "NodeType": "Requester", "Labels": {}}, "Membership": "APPROVED"},
        {"NodeID": "n-1", "NodeType": "Requester", "ComputeNodeInfo": {"ExecutionEngines": None}, "New": [7]},
        {"NodeID": "n-1", "NodeType": "Requester", "Info": None},
    ],
)
def test_a_node_says_who_it_is(body: dict[str, Any]) -> None:
    """As 1.5 says it, and as all since 1.6 do, with whatever else there is."""
    assert decode_node(json.dumps(body).encode()) == Node(id="n-1", type="Requester")


@pytest.mark.parametrize("body", [{}, {"NodeID": ""}, {"Info": {}}, {"NodeID": "n" * (ID_MAX + 1)}, {"NodeID": 7}, []])
def test_what_names_no_node_is_none(body: object) -> None:
    """Without a name there is nothing to compare."""
    with pytest.raises(DecodeError) as caught:
        decode_node(json.dumps(body).encode())
    assert caught.value.reason == "wrong-shape"
