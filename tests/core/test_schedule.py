"""Which job is read next: `consumer.core.schedule` beside a model that looks at all of them, driven by hypothesis."""

from typing import Final, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consumer.core.options import ReadingOptions
from consumer.core.reader import NEVER, Cause, Reader
from consumer.core.schedule import Schedule

NAMES: Final = ("j-0", "j-1", "j-2", "j-3", "j-4")
STRENGTH: Final = {Cause.TURN: 0, Cause.ROW: 1, Cause.HINT: 2}
TURN_EACH: Final = 2

readers = st.sampled_from(range(len(NAMES)))
delays = st.sampled_from((0.0, 0.25, 1.0))


class Waits(NamedTuple):
    """When a reader is due and what for; `order` is when it was put there."""

    due: float
    cause: Cause
    order: int


class Scheduling(RuleBasedStateMachine):
    """Readers are put, dropped and taken; the model says of each when it is due and what for."""

    @initialize(turn_rate=st.sampled_from((0.0, 2.0)))
    def begin(self, turn_rate: float) -> None:
        """An empty schedule."""
        self.turn_rate = turn_rate
        self.schedule = Schedule(ReadingOptions(turn_rate=turn_rate, turn_each=TURN_EACH))
        self.readers = [Reader(name) for name in NAMES]
        self.waits: dict[int, Waits] = {}
        self.now = 0.0
        self.order = 0
        self.turn_at = 0.0
        """Before that no turn leaves."""
        self.hints_in_row = 0

    # -- what happens -------------------------------------------------------------------------------------------------

    @rule(which=readers, delay=delays, cause=st.sampled_from(tuple(Cause)))
    def put(self, which: int, delay: float, cause: Cause) -> None:
        """What is stronger counts, and what is sooner; a turn that gets a hint or a row waits for that alone."""
        due, before = self.now + delay, self.waits.get(which)
        self.schedule.put(self.readers[which], due, cause)
        if before is not None:
            if before.cause is not Cause.TURN or cause is Cause.TURN:
                due = min(due, before.due)
            if STRENGTH[before.cause] > STRENGTH[cause]:
                cause = before.cause
        if before is None or (due, cause) != (before.due, before.cause):
            self.order += 1
            self.waits[which] = Waits(due, cause, self.order)

    @rule(which=readers)
    def drop(self, which: int) -> None:
        """It waits for nothing."""
        self.schedule.drop(self.readers[which])
        self.waits.pop(which, None)

    @rule()
    def take(self) -> None:
        """The first of its kind; hints go before others, and let one of those pass when it is their turn."""
        hints, rows, turns = (self._due(cause) for cause in (Cause.HINT, Cause.ROW, Cause.TURN))
        taken = self.schedule.next(self.now)
        if taken is None:
            assert not hints
            assert not rows
            assert not turns
            return
        which = self.readers.index(taken)
        kind = self.waits[which].cause
        if kind is Cause.HINT:
            assert which == hints[0]
            assert not (rows or turns) or self.hints_in_row < TURN_EACH - 1
            self.hints_in_row += 1
        else:
            assert which == (rows if kind is Cause.ROW else turns)[0]
            assert not hints or self.hints_in_row >= TURN_EACH - 1
            self.hints_in_row = 0
        if kind is Cause.TURN:
            self.turn_at = self.now + 1 / self.turn_rate
        del self.waits[which]
        assert (taken.due, taken.queued) == (NEVER, 0)

    @rule(delay=delays)
    def wait(self, delay: float) -> None:
        """Time goes on."""
        self.now += delay

    @rule()
    def wake(self) -> None:
        """The schedule says when it may have somebody: then it has, and not before."""
        at = self.schedule.wake_at()
        if at == NEVER:
            assert all(one.cause is Cause.TURN and not self.turn_rate for one in self.waits.values())
        elif at > self.now:
            assert self.schedule.next((self.now + at) / 2) is None
            self.now = at
            assert self._any_due()

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def it_counts_what_waits(self) -> None:
        """Hints that wait, and how many reads could leave now."""
        assert self.schedule.hinted == sum(one.cause is Cause.HINT for one in self.waits.values())
        due = len(self._due(Cause.HINT)) + len(self._due(Cause.ROW)) + bool(self._due(Cause.TURN))
        assert self.schedule.overdue(self.now) == due

    def _due(self, cause: Cause) -> list[int]:
        """Who is due for *cause* now, the first one first."""
        if cause is Cause.TURN and (not self.turn_rate or self.now < self.turn_at):
            return []
        found = [(one.due, one.order, which) for which, one in self.waits.items() if one.cause is cause]
        return [which for due, _, which in sorted(found) if due <= self.now]

    def _any_due(self) -> bool:
        return any(self._due(cause) for cause in Cause)


Scheduling.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestScheduling = Scheduling.TestCase
