"""Whether a log says what the record says: the judge of `jobstate replay` and `jobstate demo`. Pure.

It compares; it knows neither rules nor how the log came to be. `consumer.replay.record` makes the expected updates.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from consumer.model import Update
from consumer.replay.record import Change, JobRecord

TIME_TOLERANCE: Final = timedelta(milliseconds=10)
"""The largest distance of an update's `Time` from the record's."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A log compared with the record. Items read like `j-… v1 r2 Queued`, with the reason where there is one."""

    jobs: int
    updates: int
    expected: int
    missing: tuple[str, ...]
    """Updates that the record has and the log has not."""
    surplus: tuple[str, ...]
    """Updates that the log has and the record has not, or has otherwise, or once less."""
    misordered: tuple[str, ...]
    """Updates that stand before the one they follow, or have a wrong `Sequence`."""

    @property
    def ok(self) -> bool:
        """Whether the log is the record: nothing missing, nothing surplus, nothing out of order."""
        return not (self.missing or self.surplus or self.misordered)


def judge(records: Iterable[JobRecord], updates: Iterable[Update]) -> Verdict:
    """Lay *updates*, in the order of the log, beside *records*, job by job."""
    logged: dict[tuple[str, str], list[Update]] = {}
    for update in updates:
        logged.setdefault((update.Job.Namespace, update.Job.ID), []).append(update)
    total = sum(len(of_job) for of_job in logged.values())
    findings = _Findings()
    jobs = expected = 0
    for record in records:
        steps = record.expected
        jobs += 1
        expected += len(steps)
        findings.compare(record.id, steps, logged.pop((record.namespace, record.id), []))
    for stray in logged.values():
        findings.surplus += [f"{_spell_update(update)} (no such job in the record)" for update in stray]
    return Verdict(
        jobs=jobs,
        updates=total,
        expected=expected,
        missing=tuple(findings.missing),
        surplus=tuple(findings.surplus),
        misordered=tuple(findings.misordered),
    )


class _Findings:
    """The findings so far, job after job."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.surplus: list[str] = []
        self.misordered: list[str] = []

    def compare(self, job: str, steps: Sequence[Change], updates: Sequence[Update]) -> None:
        """Judge one job. An update that is not quite a step is surplus, and the step it should be missing."""
        waiting = {_key(step.version, step.number, step.state): (place, step) for place, step in enumerate(steps)}
        furthest = -1
        sequence = 0
        for update in updates:
            label = _spell_update(update)
            if update.Sequence != sequence + 1:
                self.misordered.append(f"{label} (sequence {update.Sequence} after {sequence})")
            sequence = update.Sequence
            key = _key(update.Job.Version, update.Job.Revision, update.StateType)
            if key not in waiting:
                self.surplus.append(label)
                continue
            place, step = waiting[key]
            if difference := _difference(step, update):
                self.surplus.append(f"{label} ({difference})")
                continue
            del waiting[key]
            if place < furthest:
                self.misordered.append(f"{label} (after {_spell(job, steps[furthest])})")
            furthest = max(furthest, place)
        self.missing += [_spell(job, step) for _, step in waiting.values()]


def _key(version: int | None, revision: int | None, state: str) -> tuple[int | None, int | None, str]:
    return version, revision, state


def _difference(step: Change, update: Update) -> str:
    if update.Message != step.message:
        return "another message"
    if update.Time is None:
        return "no time"
    off = abs(update.Time - (_EPOCH + timedelta(microseconds=step.time_ns // 1000)))
    return f"time {off / timedelta(milliseconds=1):.0f} ms off" if off > TIME_TOLERANCE else ""


def _spell(job: str, step: Change) -> str:
    return f"{job} v{step.version} r{step.number} {step.state}"


def _spell_update(update: Update) -> str:
    version, revision = update.Job.Version, update.Job.Revision
    return f"{update.Job.ID} v{_known(version)} r{_known(revision)} {update.StateType}"


def _known(number: int | None) -> str:
    return "?" if number is None else str(number)
