"""The model beside real Bacalhau: its frames, bodies and histories have the shapes and orders of the recorded ones.

Both sides are read as plain JSON here; no decoder of ours is asked.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import Any, Final

import msgspec
import pytest

from consumer.rules import load
from tests.lab.cluster import rest
from tests.lab.cluster.plot import USUAL
from tests.lab.cluster.record import Document
from tests.lab.cluster.releases import RELEASES, Release
from tests.lab.cluster.world import World
from tests.replay.shared import SCENARIOS, recording

RELEASE_NAMES: Final = [release.name for release in RELEASES]
SEEDS: Final = range(1, 101)
"""Enough for a release to have lived through what its recordings show."""

OPTIONAL: Final = frozenset({"Message", "PartitionIndex", "QueueTimeout", "TotalTimeout", "ExecutionTimeout", "Env"})
"""Left out where empty: a state's Message, a partition 0, a timeout 0; and an environment, which no model job has."""
FREE: Final = frozenset({"Meta", "Labels", "Params", "Details", "Constraints"})
"""Whose keys are the job's own, or told elsewhere."""

RESTARTED: Final = re.compile("orchestrator_restart|compute_restart|node_loss")
"""Scenarios in which messages are sent again, or never."""

BID: Final = "(BidResult|OnBidComplete) (yes|no)"
END: Final = "(RunResult|ComputeError|OnRunComplete|OnComputeFailure)"
UNRECORDED_LIVES: Final = re.compile(
    # A bid that is turned down, from either side: recorded on 1.9.3 only, and there BidRejected is none.
    f"AskForBid( direct)?, {BID}(, BidRejected)?"
    # A stop that crosses what a node says.
    f"|AskForBid( direct)?, CancelExecution(, {BID})?(, {END})?"
    f"|AskForBid( direct)?(, {BID})?(, BidAccepted)?, (CancelExecution, {END}|{END}, CancelExecution|CancelExecution)"
)
RACES: Final = {
    "AskForBid, BidResult yes, BidAccepted, CancelExecution, RunResult",
    "AskForBid, BidResult yes, BidAccepted, RunResult, CancelExecution",
}
"""Recorded: an end and a stop within some milliseconds of each other. No hundred runs of the model need have one."""
UNRECORDED_ENTRIES: Final = {"ExecutionLevel Scheduling Execution stopped due to job failure"}
"""Read in the source only (design/bacalhau.md 4.7)."""

STATES: Final = {
    "Submission": "Pending",
    "Queueing": "Queued",
    "State Update Running": "Running",
    "State Update Completed": "Completed",
    "Scheduling Job requested to stop before completion": "Stopped",
    "Scheduling": "Failed",
    "Job Timeout": "Failed",
}
"""By how an entry begins, the longer ones first (design/bacalhau.md 4.7)."""
OVER: Final = {"Completed", "Failed", "Stopped"}
LEGAL: Final = (
    {("new", "Pending"), ("Failed", "Failed")}  # two entries for one revision: `total_timeout`
    | {("Pending", state) for state in {"Queued", "Running", *OVER}}
    | {("Queued", state) for state in {"Queued", "Running", *OVER}}
    | {("Running", state) for state in {"Queued", *OVER}}
)
"""From entry to entry of one version (design/bacalhau.md 5.2)."""


class Side:
    """What one release showed, in the recordings or in the model."""

    def __init__(self) -> None:
        self.lives: set[str] = set()
        """The messages of an execution in the order of its life."""
        self.frames: dict[str, set[str]] = defaultdict(set)
        """The shape of each kind of message."""
        self.bodies: dict[str, set[str]] = defaultdict(set)
        """The shape of each kind of REST body."""
        self.entries: set[str] = set()
        """Level, topic and words of a history's entries; of the job's own also the keys of their details."""
        self.changes: set[tuple[str, str]] = set()
        """From state to state within a version."""
        self.lifted: set[str] = set()
        """The states that a new version was begun from."""


class Listener(World):
    """A run that keeps what was said on NATS."""

    def __init__(self, seed: int, release: Release) -> None:
        self.said: list[bytes] = []
        super().__init__(seed, load(), kind=USUAL, release=release)
        self.cluster.mislabels = False  # in the recordings nobody asks for two things at once

    def _publish(self, subject: str, data: bytes, what: str) -> None:
        self.said.append(_with_method(subject, data))
        super()._publish(subject, data, what)


def _with_method(subject: str, data: bytes) -> bytes:
    """The body, and of raw JSON the type, which only the subject has."""
    return data[5:] if data[:1] == b"\x01" else subject.rsplit(".", 1)[-1].encode() + b" " + data


def _read(said: bytes) -> tuple[str, Document, Document]:
    """Type, payload, and the whole document."""
    if said.startswith(b"{"):
        document = json.loads(said)
        return document["metadata"]["Type"], document["payload"], document
    method, _, body = said.partition(b" ")
    document = json.loads(body)
    return method.decode().removesuffix("/v1"), document, document


def _spell(kind: str, payload: Document) -> str:
    if kind in ("BidResult", "OnBidComplete"):
        return f"{kind} {'yes' if payload['Accepted'] else 'no'}"
    if kind == "CancelExecution" and payload.get("Events"):
        return "echo"
    if kind == "AskForBid" and payload["Execution"]["DesiredState"]["StateType"]:
        return "AskForBid direct"
    return kind


def _shape(value: Any) -> Any:
    """Keys without values; a list is its first."""
    if isinstance(value, dict):
        return {
            key: "free" if key in FREE else _shape(inner)
            for key, inner in sorted(value.items())
            if key not in OPTIONAL or "Topic" in value  # but an event always has its Message
        }
    if isinstance(value, list):
        return [_shape(inner) for inner in value[:1]]
    return None


def _shape_text(value: object) -> str:
    return json.dumps(_shape(value))


def _take_frames(side: Side, said: Iterable[bytes], *, again: bool) -> None:
    lives: dict[str, list[str]] = defaultdict(list)
    for one in said:
        kind, payload, document = _read(one)
        lives[payload.get("ExecutionID") or payload["Execution"]["ID"]].append(_spell(kind, payload))
        side.frames[kind].add(_shape_text(document))
    if not again:
        side.lives |= {", ".join(life) for life in lives.values()}


def _take_history(side: Side, items: list[Document]) -> None:
    before, version = "new", None
    for item in items:
        event, of_job = item["Event"], item["Type"] == "JobLevel"
        words = re.sub(r"\b[nej]-[-\w]+|\d+(\.\d+)?", "#", event["Message"].split("\n")[0])
        told = f"{event['Topic']} {words if of_job or event['Topic'] == 'Scheduling' else ''}".strip()
        side.entries.add(f"{item['Type']} {told}{' ' + str(sorted(event.get('Details') or {})) if of_job else ''}")
        side.bodies["history entry"].add(_shape_text(item))
        if of_job:
            state = next(state for start, state in STATES.items() if told.startswith(start))
            if version == item.get("JobVersion") or before == "new":
                side.changes.add((before, state))
            else:
                side.lifted.add(before)
            before, version = state, item.get("JobVersion")


@cache
def recorded() -> dict[str, Side]:
    """All recordings, by release."""
    sides: dict[str, Side] = defaultdict(Side)
    for scenario in SCENARIOS:
        found = recording(scenario)
        side = sides[found.release]
        again = RESTARTED.search(scenario) is not None
        _take_frames(side, (_with_method(frame.subject, frame.data) for frame in found.frames), again=again)
        for path, document in found.documents.items():
            if "/history" in path and "Items" in document:
                side.bodies["history page"].add(_shape_text({**document, "Items": []}))
                _take_history(side, document["Items"])
            elif re.search(r"/jobs/j-[-\w]+$", path) and "Job" in document:
                side.bodies["job"].add(_shape_text(document))
            elif "/jobs?" in path:
                side.bodies["list"] |= {_shape_text({**document, "Items": [item]}) for item in document["Items"]}
    return sides


@cache
def modelled() -> dict[str, Side]:
    """Some runs of the model, by release."""
    sides: dict[str, Side] = defaultdict(Side)
    for release, seed in product(RELEASES, SEEDS):
        world = Listener(seed, release)
        world.run()
        side = sides[release.name]
        again = any(world.faults[kind] for kind in ("node restart", "node lost", "orchestrator restart"))
        _take_frames(side, world.said, again=again)
        ns = world.cluster.ns_of(world.now) + 10**9
        for job in world.cluster.jobs.values():
            side.bodies["job"].add(_shape_text(_body(rest.get_job(job, ns))))
            side.bodies["list"].add(_shape_text(_body(rest.list_jobs([job], ns, limit=0, token=""))))
            history = _body(rest.get_history(job, ns, all_versions=True, limit=1000, token=""))
            side.bodies["history page"].add(_shape_text({**history, "Items": []}))
            _take_history(side, [json.loads(bytes(row)) for _, _, row in job.rows])
    return sides


def _body(reply: rest.Reply) -> Document:
    return msgspec.json.decode(reply.body, type=dict[str, Any])


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_messages_come_in_the_order_of_an_executions_life(name: str) -> None:
    """Each recorded life is one of the model's, and each of the model's is recorded, or named here with its reason."""
    real, ours = recorded()[name].lives, modelled()[name].lives
    assert real - ours - RACES == set()
    unknown = {life for life in ours - real if not any(one.startswith(life) for one in real)}
    assert {life for life in unknown if not UNRECORDED_LIVES.fullmatch(life)} == set()


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_frames_have_the_keys_of_the_recorded_ones(name: str) -> None:
    """Every kind of message of that release, key by key, and no other kind but what two bids would bring."""
    real, ours = recorded()[name].frames, modelled()[name].frames
    assert set(ours) - set(real) <= {"BidRejected"}
    for kind, shapes in real.items():
        # A refused bid has its reason; on 1.6.1 and 1.7.0 none was recorded (design/bacalhau.md 3).
        assert shapes <= ours[kind] if kind == "BidResult" else shapes == ours[kind], kind


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_bodies_have_the_keys_of_the_recorded_ones(name: str) -> None:
    """Job, list, page and entry of a history, key by key."""
    assert modelled()[name].bodies == recorded()[name].bodies


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_histories_say_what_recorded_ones_say(name: str) -> None:
    """Topics, words and details of each entry are those of some recorded history."""
    recorded_anywhere = set().union(*(side.entries for side in recorded().values()))
    assert modelled()[name].entries - recorded_anywhere - UNRECORDED_ENTRIES == set()
    of_job = {entry for entry in recorded()[name].entries if entry.startswith("JobLevel")}
    assert of_job - modelled()[name].entries == set()


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_histories_go_the_ways_of_the_recorded_ones(name: str) -> None:
    """Every recorded change of state is one of the model's, and the model makes none that Bacalhau does not."""
    real, ours = recorded()[name], modelled()[name]
    assert real.changes <= ours.changes
    assert ours.changes <= LEGAL
    assert real.lifted <= ours.lifted


def test_only_the_last_has_versions() -> None:
    """A rerun or an update is there from 1.8 on."""
    assert [name for name in RELEASE_NAMES if modelled()[name].lifted] == ["v1.9.3"]
