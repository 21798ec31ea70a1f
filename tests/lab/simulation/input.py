"""A model of the input: reports of jobs, in one stream that may be made anew, and the walk that producers take.

Most of a walk is legal; the rest is what producers do: repeats, steps that the rules forbid, words that nobody knows,
more after the end, numbers from before, another job's name, bytes that are nothing.
"""

import random
from typing import Final

from consumer.model import Identity, InputPosition, Malformed, Report
from consumer.wire.subjects import job_key
from tests.lab.simulation.orchestrator import ENDS, wall

STATES: Final = ("Pending", "Queued", "Running", "Completed", "Failed", "Stopped")
SPELT: Final = {"Stopped": ("JobStateTypeStopped", "stopped"), "Running": ("running", " Running ")}
FORWARD: Final = {
    "": ("Pending", "Pending", "Queued", "Running"),
    "Pending": ("Queued", "Running", "Running", "Failed", "Completed"),
    "Queued": ("Running", "Running", "Stopped"),
    "Running": ("Completed", "Failed", "Completed", "Queued", "Stopped"),
    "Completed": (),
    "Failed": (),
    "Stopped": (),
}


class Producer:
    """Whoever reports one job."""

    def __init__(self, rng: random.Random, name: str, namespace: str, job_type: str, *, versioned: bool) -> None:
        self._rng = rng
        self.identity: Final = Identity(id=name, namespace=namespace, type=job_type)
        self.key: Final = job_key(namespace, name)
        self._versioned = versioned
        self._state = ""
        self._version = 1
        self._revision = 0
        self._count = 0
        self._last: tuple[str, str, int | None, int | None] | None = None

    def report(self, position: InputPosition) -> Report:
        """What it says next."""
        rng = self._rng
        self._count += 1
        roll = rng.random()
        state, message, problem = self._state, "", ""
        version, revision = (self._version, self._revision) if self._versioned else (None, None)
        if roll < 0.1 and self._last is not None:
            state, message, version, revision = self._last
        elif roll < 0.16 and self._state:
            message = f"note {self._count}"
        elif roll < 0.28:
            state = rng.choice(STATES)  # forbidden, mostly
            if version is not None:
                self._revision += 1
                revision = self._revision
        elif roll < 0.31:
            state = "Exploded"
        elif roll < 0.34:
            state, problem = "Running", "subject and body name two jobs"
        elif roll < 0.38 and version is not None and self._count > 2:
            version, revision = version - rng.randrange(2), max(self._revision - 1 - rng.randrange(2), 0)
            state = rng.choice(STATES)
        else:
            forward = FORWARD[self._state]
            if forward:
                state = rng.choice(forward)
            elif version is not None:
                self._version += 1
                version = self._version
                state = "Pending" if rng.random() < 0.7 else "Running"
            else:
                state = rng.choice(STATES)
            if revision is not None:
                self._revision += 1
                revision = self._revision
            if self._state not in ENDS or version is not None:
                self._state = state
        if version is not None and rng.random() < 0.25:
            version = None
        self._last = (state, message, version, revision)
        if state in SPELT and rng.random() < 0.1:
            state = rng.choice(SPELT[state])
        return Report(
            key=self.key,
            job=self.identity,
            position=position,
            state=state,
            message=message,
            version=version,
            revision=revision,
            time=wall(position.time_ns) if rng.random() < 0.8 else None,
            problem=problem,
        )


class Input:
    """The stream: its entries since it was made. `incarnation` counts how often it was."""

    def __init__(self) -> None:
        self.entries: list[Report | Malformed] = []
        self.incarnation = 0
        self.lost: list[Report | Malformed] = []
        self._time_ns = 0

    def next_position(self, now_ns: int) -> InputPosition:
        """Where the next entry will stand. Its time is above that of every entry before, in every incarnation."""
        self._time_ns = max(self._time_ns + 1_000, now_ns)
        return InputPosition(self._time_ns, len(self.entries) + 1)

    def publish(self, entry: Report | Malformed) -> None:
        """Store it."""
        assert entry.position.sequence == len(self.entries) + 1
        self.entries.append(entry)

    def make_anew(self) -> list[Report | Malformed]:
        """The stream is gone and made again: it counts from 1. Returns what it had."""
        had, self.entries = self.entries, []
        self.incarnation += 1
        return had

    def resume(self, checkpoint: InputPosition | None) -> int:
        """The index to read from after *checkpoint*: behind its entry if that is the one, else from the first."""
        if checkpoint is None:
            return 0
        index = checkpoint.sequence - 1
        if index < len(self.entries) and self.entries[index].position == checkpoint:
            return checkpoint.sequence
        return 0


def junk(position: InputPosition, count: int) -> Malformed:
    """An entry of the input that cannot be read."""
    return Malformed(
        reason="not-json",
        origin=f"in-{position.sequence}-{position.time_ns}",
        source="report",
        subject="jobstate.v1.main.in.a.b",
        size=count,
        sha256=f"{count:064x}",
        data=b"\x00",
        position=position,
    )
