"""What the rules allow, drawn by hand: this table knows nothing of the file that it judges."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from consumer.model import JobStateType
from consumer.rules import Rules, load

# Read a row as "after …"; x: may follow.  (DESIGN 5; Bacalhau pkg/models/job.go, pkg/jobstore/boltdb/store.go)
GRID = """
              Pending  Queued  Running  Completed  Failed  Stopped
    new          x        x       x         x         x       x
    Pending      .        x       x         x         x       x
    Queued       .        .       x         x         x       x
    Running      .        x       .         x         x       x
    Completed    .        .       .         .         .       .
    Failed       .        .       .         .         .       .
    Stopped      .        .       .         .         .       .
"""

RECORDINGS = Path(__file__).parents[1] / "recordings"


def drawn() -> dict[tuple[str | None, str], bool]:
    """The grid as (previous, state) -> allowed."""
    head, *rows = [line.split() for line in GRID.split("\n") if line.strip()]
    return {
        (None if previous == "new" else previous, state): mark == "x"
        for previous, *marks in rows
        for state, mark in zip(head, marks, strict=True)
    }


@pytest.fixture(scope="module")
def rules() -> Rules:
    """Bacalhau's rules, as they come with the program."""
    return load()


@pytest.mark.parametrize(("edge", "allowed"), drawn().items())
def test_the_table_allows_what_was_drawn_by_hand(rules: Rules, edge: tuple[str | None, str], allowed: bool) -> None:
    """Each of the 42 pairs is allowed or forbidden as the grid says."""
    assert rules.allows(*edge) is allowed


def test_the_states_are_those_of_the_model(rules: Rules) -> None:
    """Rules and `JobStateType` name the same states, in the same order."""
    assert rules.states == tuple(JobStateType)
    assert rules.initial == "Pending"


@pytest.mark.parametrize("state", JobStateType)
def test_ends_are_completed_failed_and_stopped(rules: Rules, state: str) -> None:
    """Exactly three states are final."""
    assert rules.is_terminal(state) is (state in {"Completed", "Failed", "Stopped"})


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("Running", "Running"),
        ("running", "Running"),
        ("  RUNNING\t", "Running"),
        ("JobStateTypeStopped", "Stopped"),
        ("jobstatetypestopped", "Stopped"),
        ("Undefined", None),
        ("", None),
        ("Runn ing", None),
        ("Running.", None),
        ("3", None),
    ],
)
def test_a_state_is_found_as_bacalhau_reads_it(rules: Rules, text: str, state: str | None) -> None:
    """Case and blanks around do not matter, the documentation's spelling is understood, nothing else is."""
    assert rules.find(text) == state


@pytest.mark.parametrize(
    ("job_type", "state", "may"),
    [
        ("batch", "Completed", True),
        ("ops", "Completed", True),
        ("service", "Completed", False),
        ("daemon", "Completed", False),
        ("Service", "Completed", False),
        ("", "Completed", True),
        ("a-type-of-tomorrow", "Completed", True),
        ("service", "Failed", True),
        ("daemon", "Stopped", True),
    ],
)
def test_only_batch_and_ops_jobs_complete(rules: Rules, job_type: str, state: str, may: bool) -> None:
    """Completed is refused for the types that are known to run for ever, and for no other."""
    assert rules.completable(job_type, state) is may


@pytest.mark.parametrize(
    ("previous", "state", "words"),
    [
        ("Queued", "Running", ["is allowed", "a node was found", "queued_then_runs"]),
        (None, "Running", ["may be found at Running", "endpoint.go"]),
        ("Completed", "Running", ["is forbidden", "Completed is final", "new version"]),
        ("Running", "Pending", ["is forbidden", "Queued, Completed, Failed and Stopped", "new version"]),
        ("running", "PENDING", ["Running to Pending is forbidden"]),
        ("Queued", "Queued", ["no transition"]),
        ("Runing", "Failed", ["'Runing' is no state", "did you mean Running?"]),
        ("Running", "\x1b[31m", ["is no state", "they know Pending"]),
    ],
)
def test_explain_says_why_and_how_we_know(rules: Rules, previous: str | None, state: str, words: list[str]) -> None:
    """One sentence on one line for every question, with the source of what is allowed."""
    sentence = rules.explain(previous, state)
    assert sentence.isprintable()
    assert sentence.endswith((".", "?"))
    for word in words:
        assert word in sentence


def test_every_transition_is_explained_with_its_source(rules: Rules) -> None:
    """No edge lacks the sentence that says what makes it happen."""
    for edge in rules.edges:
        assert edge.when in rules.explain(edge.previous, edge.state)
        assert edge.source in rules.explain(edge.previous, edge.state)


def test_cited_recordings_show_the_transition(rules: Rules) -> None:
    """Where an edge cites a recording, that recording's history holds this very edge."""
    cited = [(edge, re.search(r"recording (\S+)", edge.source)) for edge in rules.edges]
    shown = [(edge, found[1]) for edge, found in cited if found]
    assert len(shown) == 11
    for edge, folder in shown:
        assert (edge.previous, edge.state) in recorded_edges(RECORDINGS / folder), f"{folder} does not show {edge}"


def test_no_recorded_history_has_a_forbidden_transition(rules: Rules) -> None:
    """All recordings, five releases: every change of state within a version is allowed."""
    folders = sorted(path.parent for path in RECORDINGS.glob("*/*/final.json"))
    assert len(folders) >= 74
    seen = {edge for folder in folders for edge in recorded_edges(folder)}
    assert {edge for edge in seen if not rules.allows(*edge)} == set()
    assert len(seen) >= 11


def recorded_edges(folder: Path) -> set[tuple[str, str]]:
    """The changes of state that the histories of a recording show, within one version (BACALHAU 4.7)."""
    documents = json.loads((folder / "final.json").read_text())
    edges: set[tuple[str, str]] = set()
    for path, body in documents.items():
        if "/history" not in path:
            continue
        told = [(item.get("JobVersion", 0), told_state(item["Event"])) for item in body["Items"] if is_of_job(item)]
        edges.update((a[1], b[1]) for a, b in pairwise(told) if a[0] == b[0] and a[1] != b[1])
    return edges


def is_of_job(item: dict[str, object]) -> bool:
    """Whether a row of the history is about the job, not about an execution."""
    return item["Type"] == "JobLevel"


def told_state(event: dict[str, object]) -> str:
    """The state that a job-level event tells, read without the code under test."""
    details = event.get("Details") or {}
    assert isinstance(details, dict)
    if "NewState" in details:
        return str(details["NewState"])
    if event["Topic"] == "Scheduling":
        return "Stopped" if "requested to stop" in str(event["Message"]) else "Failed"
    return {"Submission": "Pending", "Queueing": "Queued", "Job Timeout": "Failed"}[str(event["Topic"])]
