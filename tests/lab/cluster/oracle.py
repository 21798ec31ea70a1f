"""What must hold: at every moment the log of each job is a prefix of its record, in the end it is all of it.

Told about every entry when the log takes it. The record is the model's own; nothing here asks the daemon.
"""

from collections.abc import Container, Mapping
from typing import Final

import msgspec

from tests.lab.cluster.record import OVER, Change, Job
from tests.lab.seeds import ViolationError


class _Job(msgspec.Struct, frozen=True):
    ID: str
    Version: int
    Revision: int


class Entry(msgspec.Struct, frozen=True):
    """An update, as a reader of the log decodes it."""

    StateType: str
    Message: str
    Job: _Job
    Previous: str | None
    Sequence: int
    Source: str
    Flags: tuple[str, ...]


_update: Final = msgspec.json.Decoder(Entry)


class Oracle:
    """The books of one run."""

    def __init__(self) -> None:
        self.gone_back = False
        """From now on the record itself is another: what the log said before it need not say."""
        self.forgetful = False
        """From now on a job, or what happened to it, may be missing from the record, and that may be announced."""
        self.since_ns: int | None = None
        """Jobs that were over by then may be left out."""
        self.logs: dict[str, list[Entry]] = {}
        self.derived = 0
        self.running = 0
        self.notices: list[str] = []

    def stored(self, jobs: Mapping[str, Job], body: bytes) -> Entry:
        """An update is in the log: it must be the record's next."""
        entry = _update.decode(body)
        job = jobs.get(entry.Job.ID)
        if job is None:
            raise ViolationError(f"the log names a job that never was: {entry.Job.ID}")
        log = self.logs.setdefault(job.id, [])
        if entry.Sequence != len(log) + 1:
            raise ViolationError(f"{job.id}: update {entry.Sequence} after {len(log)}")
        log.append(entry)
        self.running += entry.StateType == "Running"
        self.derived += entry.Source == "derived"
        if self.gone_back:
            return entry
        if entry.Flags:
            raise ViolationError(f"{job.id}: {_spell(entry)} is {entry.Flags[0]}, and the record never went back")
        if entry.Previous != (log[-2].StateType if len(log) > 1 else None):
            raise ViolationError(f"{job.id}: {_spell(entry)} follows {entry.Previous}, it says")
        number = len(log) - 1
        if number >= len(job.kept):
            raise ViolationError(f"{job.id}: {_spell(entry)}, and the record has only {_spell_all(job.kept)}")
        change = job.kept[number]
        if (entry.Job.Version, entry.Job.Revision, entry.StateType) != (change.version, change.number, change.state):
            raise ViolationError(f"{job.id}: {_spell(entry)}, and the record says {_spell_all(job.kept[: number + 1])}")
        if entry.Message != change.message:
            raise ViolationError(f"{job.id}: {_spell(entry)} says {entry.Message!r}, the record {change.message!r}")
        return entry

    def noticed(self, kind: str, body: bytes, refused: Container[str]) -> None:
        """An advisory is in the log. *refused*: jobs that the orchestrator does not give."""
        self.notices.append(kind)
        if kind == "unreadable" and msgspec.json.decode(body)["Facts"]["job"] in refused:
            return
        if not self.forgetful or kind not in ("gone", "diverged"):
            raise ViolationError(f"the advisory {kind}, for no reason")

    def is_unannounced(self, job: Job) -> bool:
        """Whether the log has the vanished *job* open, and nobody has said that it is gone."""
        log = self.logs.get(job.id)
        return log is not None and log[-1].StateType not in OVER and "gone" not in self.notices

    def missing(self, job: Job) -> str:
        """What the log lacks of *job*, in words; empty: nothing."""
        log = self.logs.get(job.id, [])
        if not log and job.over and self.since_ns and job.standing.modified_ns <= self.since_ns:
            return ""
        if self.gone_back:
            last = job.changes[-1]
            if log and (log[-1].Job.Version, log[-1].StateType) == (last.version, last.state):
                return ""
            there = _spell(log[-1]) if log else "nothing"
            return f"{job.id}: the record stands at {_spell_all([last])}, the log at {there}"
        if len(log) < len(job.kept):
            return f"{job.id}: the log has {len(log)} of {_spell_all(job.kept)}"
        return ""


def _spell(entry: Entry) -> str:
    return f"update {entry.Sequence}: v{entry.Job.Version} r{entry.Job.Revision} {entry.StateType} ({entry.Source})"


def _spell_all(changes: list[Change]) -> str:
    return ", ".join(f"v{one.version} r{one.number} {one.state}" for one in changes)
