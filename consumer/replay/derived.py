"""Recordings through the mode without an orchestrator, in virtual time, and how near the log comes to the record.

Frames are all that goes in. The verdict is one of its own kind: much of a record is not on NATS, so what is missing is
counted and no fault; what is published and not in the record is one. Nothing here knows a scenario.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from consumer.core import Core, Lanes, Published
from consumer.derive.derivation import Derivation
from consumer.errors import DecodeError
from consumer.model import JobKey, Notice, Record, Rejected, Undecodable, Update
from consumer.replay.memory import MemoryLog
from consumer.replay.record import Change, JobRecord
from consumer.replay.recording import Recording
from consumer.replay.summary import SHOWN_MAX, DerivedSummaryLine
from consumer.rules import Rules
from consumer.wire import decode_frame, malformed_frame
from consumer.wire.display import printable
from consumer.wire.subjects import Names, job_key

SETTLE_S: Final = 30.0
"""Seconds after the last frame until every verdict is either published or announced."""

COMPLETED: Final = "Completed"
STOPPED: Final = "Stopped"


class DerivedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay: updates and notices in the order of the log."""

    published: tuple[tuple[str, Published], ...]
    notices: tuple[Notice, ...]
    rejected: int
    undecodable: int


class DerivedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A derived log beside the record. Items read like `j-… v1 Completed`, with the reason."""

    jobs: int
    unseen: int
    """Jobs of which no update was published: no message named them, or none in time."""
    ended: int
    """Jobs of which the log has the record's last state, as its last."""
    undecided: int
    """Jobs that were announced as undecided; some are decided later."""
    updates: int
    matched: int
    """Updates that are changes of the record, in its order."""
    expected: int
    states: dict[str, tuple[int, int]]
    """By state: changes of the record that were derived, and all of them."""
    wrong: tuple[str, ...]
    """Updates that the record does not have there."""
    underivable: tuple[str, ...]
    """Those among the published that design/bacalhau.md 6.1 calls not derivable at all: see `judge_derived`."""
    rejected: int = 0
    undecodable: int = 0

    @property
    def ok(self) -> bool:
        """Nothing wrong was published that could be known to be wrong, and every frame could be read and judged."""
        return not (self.wrong or self.rejected or self.undecodable)


class DerivedReplay:
    """One recording through one daemon's derivation and lanes. *loss*: share of the frames that never arrive."""

    def __init__(self, recording: Recording, rules: Rules, *, loss: float = 0.0, seed: int = 0) -> None:
        self._recording = recording
        self._names = Names()
        lanes = Lanes(rules, self._names)
        self._core = Core(lanes, Derivation(rules, lanes.known))
        self._log = MemoryLog()
        self._loss = loss
        self._dice = random.Random(seed)
        self._published: list[tuple[str, Published]] = []
        self._notices: list[Notice] = []
        self._rejected = self._undecodable = 0

    def run(self) -> DerivedOutcome:
        """Play all frames, each at its recorded second, and wait for what is announced after them."""
        frames = self._recording.frames
        for frame in frames:
            if not self._loss or self._dice.random() >= self._loss:
                self._let_pass(frame.t)
                self._hear(frame.subject, frame.data, frame.t)
                self._follow(frame.t)
        self._let_pass((frames[-1].t if frames else 0.0) + SETTLE_S)
        return DerivedOutcome(
            published=tuple(self._published),
            notices=tuple(self._notices),
            rejected=self._rejected,
            undecodable=self._undecodable,
        )

    def _let_pass(self, until: float) -> None:
        """Let come what time alone brings."""
        while (due := self._core.wake_at()) is not None and due <= until:
            self._follow(due)

    def _hear(self, subject: str, data: bytes, now: float) -> None:
        try:
            frame = decode_frame(subject, data)
        except DecodeError as error:
            self._core.offer(malformed_frame(subject, data, error))
            return
        if frame is not None:
            self._core.frame(frame, now)

    def _follow(self, now: float) -> None:
        """Let everything go on that can at *now*: the log answers at once."""
        core = self._core
        while True:
            settled = core.settle(now)
            self._notices += [event for event in settled.events if isinstance(event, Notice)]
            for decided in settled.decided:
                self._rejected += isinstance(decided.decision, Rejected)
                self._undecodable += isinstance(decided.decision, Undecodable)
            for published in settled.published:
                assert isinstance(published.event, Record)  # a recording has no reports
                subject = self._names.state(published.event.key, published.update.StateType)
                self._published.append((subject, published))
            if not (asks := core.appends(now)):
                return
            for ask in asks:
                core.log_answered(ask.token, self._log.answer(ask), now)


def judge_derived(records: Iterable[JobRecord], outcome: DerivedOutcome) -> DerivedVerdict:
    """Lay the updates of *outcome* beside *records*: each must be a change of the record, after the one before it.

    Not derivable at all, so counted apart: a job whose executions all ended well, and which was stopped before the
    scheduler wrote that it is Completed. On NATS both look the same (design/bacalhau.md 6.1; on 1.7 no stop is heard).
    """
    logged: dict[JobKey, list[Update]] = {}
    for _, published in outcome.published:
        update = published.update
        logged.setdefault(job_key(update.Job.Namespace, update.Job.ID), []).append(update)
    total = sum(len(updates) for updates in logged.values())
    announced = {notice.key for notice in outcome.notices if notice.kind == "undecided"}
    jobs = unseen = ended = undecided = 0
    matched: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    wrong: list[str] = []
    underivable: list[str] = []
    for record in records:
        key = job_key(record.namespace, record.id)
        updates = logged.pop(key, [])
        steps = record.expected
        jobs += 1
        unseen += not updates
        undecided += key in announced
        found, strays = _compare(steps, updates)
        matched.update(found)
        expected.update(step.state for step in steps)
        ended += bool(updates) and _same(steps[-1], updates[-1])
        for update in strays:
            (underivable if _is_lost_race(steps, update) else wrong).append(_spell(update, steps))
    for updates in logged.values():
        wrong += [f"{_spell(update, ())} (no such job in the record)" for update in updates]
    return DerivedVerdict(
        jobs=jobs,
        unseen=unseen,
        ended=ended,
        undecided=undecided,
        updates=total,
        matched=matched.total(),
        expected=expected.total(),
        states={state: (matched[state], expected[state]) for state in sorted(expected)},
        wrong=tuple(wrong),
        underivable=tuple(underivable),
        rejected=outcome.rejected,
        undecodable=outcome.undecodable,
    )


def derived_object(scenario: str, verdict: DerivedVerdict) -> DerivedSummaryLine:
    """The summary line of `--derived --json`. Its keys are promised."""
    return {
        "scenario": scenario,
        "summary": {
            "jobs": verdict.jobs,
            "unseen": verdict.unseen,
            "ended": verdict.ended,
            "undecided": verdict.undecided,
            "updates": verdict.updates,
            "matched": verdict.matched,
            "expected": verdict.expected,
            "states": verdict.states,
            "wrong": list(verdict.wrong),
            "underivable": list(verdict.underivable),
            "rejected": verdict.rejected,
            "undecodable": verdict.undecodable,
            "ok": verdict.ok,
        },
    }


def derived_lines(verdict: DerivedVerdict) -> list[str]:
    """The verdict for a person: one line, and below it what was published and is not so."""
    by_state = ", ".join(f"{state} {found} of {all_}" for state, (found, all_) in verdict.states.items())
    first = (
        f"{'nothing wrong' if verdict.ok else 'WRONG'}: {verdict.matched} of {verdict.expected} updates derived "
        f"({by_state}); of {verdict.jobs} jobs {verdict.ended} to their end, {verdict.undecided} undecided, "
        f"{verdict.unseen} unseen; {len(verdict.wrong)} wrong, {len(verdict.underivable)} not derivable, "
        f"{verdict.rejected} rejected, {verdict.undecodable} undecodable"
    )
    lines = [first]
    for kind, found in (("wrong", verdict.wrong), ("not derivable", verdict.underivable)):
        lines += [f"  {kind}: {printable(item)}" for item in found[:SHOWN_MAX]]
        if len(found) > SHOWN_MAX:
            lines.append(f"  {kind}: and {len(found) - SHOWN_MAX} more (--json has them all)")
    return lines


def add_up(verdicts: Sequence[DerivedVerdict]) -> DerivedVerdict:
    """One verdict over all."""
    states: dict[str, tuple[int, int]] = {}
    for verdict in verdicts:
        for state, (found, all_) in verdict.states.items():
            before = states.get(state, (0, 0))
            states[state] = (before[0] + found, before[1] + all_)
    return DerivedVerdict(
        jobs=sum(one.jobs for one in verdicts),
        unseen=sum(one.unseen for one in verdicts),
        ended=sum(one.ended for one in verdicts),
        undecided=sum(one.undecided for one in verdicts),
        updates=sum(one.updates for one in verdicts),
        matched=sum(one.matched for one in verdicts),
        expected=sum(one.expected for one in verdicts),
        states=dict(sorted(states.items())),
        wrong=tuple(item for one in verdicts for item in one.wrong),
        underivable=tuple(item for one in verdicts for item in one.underivable),
        rejected=sum(one.rejected for one in verdicts),
        undecodable=sum(one.undecodable for one in verdicts),
    )


def _compare(steps: Sequence[Change], updates: Sequence[Update]) -> tuple[list[str], list[Update]]:
    """The states that *updates* have of *steps*, in order, and the updates that are none of them."""
    found: list[str] = []
    strays: list[Update] = []
    place = 0
    for update in updates:
        here = next((number for number in range(place, len(steps)) if _same(steps[number], update)), None)
        if here is None:
            strays.append(update)
        else:
            place = here + 1
            found.append(update.StateType)
    return found, strays


def _is_lost_race(steps: Sequence[Change], update: Update) -> bool:
    """Whether *update* says Completed of a version that the record stopped."""
    return update.StateType == COMPLETED and any(
        step.state == STOPPED and step.version == update.Job.Version for step in steps
    )


def _same(step: Change, update: Update) -> bool:
    return (step.version, step.state) == (update.Job.Version, update.StateType)


def _spell(update: Update, steps: Sequence[Change]) -> str:
    record = " ".join(f"v{step.version} {step.state}" for step in steps)
    return f"{update.Job.ID} v{update.Job.Version} {update.StateType} (the record: {record or 'nothing'})"
