"""Two daemons' lanes over one log, as a machine that hypothesis drives: what it finds, it makes small.

The simulation (`tests.lab.simulation`) has more daemons and more faults, seed by seed; this one ends in few steps.
"""

from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.core.appends import Answer, Append, ReadBack, Unanswered
from consumer.core.lanes import Lanes
from consumer.core.verify import verify_all
from consumer.model import Identity, InputPosition, JobKey, Report
from consumer.rules import load
from consumer.wire.subjects import Names
from consumer.wire.update import decode_update
from tests.lab.simulation.log import SimulatedLog

RULES: Final = load(None)
NAMES: Final = Names()
KEYS: Final = tuple(JobKey(f"default.j-{number}") for number in range(2))
WAIT_S: Final = 0.03
STEPS_MAX: Final = 10_000

daemons = st.sampled_from((0, 1))
states = st.sampled_from((*RULES.states, "Elsewhere"))


class Daemon:
    """One daemon's lanes, and what it has asked the log."""

    def __init__(self, log: SimulatedLog) -> None:
        self.lanes = Lanes(RULES, NAMES)
        self.read = 0
        """How many reports of the input it has."""
        self.asked: list[Append | ReadBack] = []
        self.answers: list[tuple[int, Answer]] = []
        """What the log has answered, and the daemon has not heard."""
        for key in KEYS:
            self.lanes.learn(key, verify_all(NAMES, key, log.view(NAMES.states(key))))


class TwoDaemons(RuleBasedStateMachine):
    """One input, two daemons that read it, one log. Nobody has to be in time; answers may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.log = SimulatedLog()
        self.input: list[Report] = []
        self.late: list[Append] = []
        self.daemons = [Daemon(self.log), Daemon(self.log)]

    # -- what happens -------------------------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), state=states)
    def report(self, key: JobKey, state: str) -> None:
        """A producer says where a job stands."""
        number = len(self.input) + 1
        job = Identity(id=key.partition(".")[2], namespace="default")
        self.input.append(Report(key=key, job=job, position=InputPosition(number * 10, number), state=state))

    @rule(which=daemons)
    def read(self, which: int) -> None:
        """A daemon reads the next report."""
        daemon = self.daemons[which]
        if daemon.read < len(self.input):
            daemon.lanes.offer(self.input[daemon.read])
            daemon.read += 1

    @rule(which=daemons)
    def ask(self, which: int) -> None:
        """A daemon sends what is to be sent."""
        self.daemons[which].asked += self.daemons[which].lanes.take(self.now)

    @precondition(lambda self: any(daemon.asked for daemon in self.daemons))
    @rule(which=daemons, place=st.integers(0, 3), lost=st.booleans())
    def carry_out(self, which: int, place: int, *, lost: bool) -> None:
        """The log does one of the things that it was asked for, in any order; its answer may be lost."""
        daemon = self.daemons[which]
        if daemon.asked:
            ask = daemon.asked.pop(place % len(daemon.asked))
            answer = self._answer(ask)
            daemon.answers.append((ask.token, Unanswered() if lost else answer))

    @precondition(lambda self: any(daemon.asked for daemon in self.daemons))
    @rule(which=daemons)
    def lose(self, which: int) -> None:
        """The log never hears one of the things that it was asked for."""
        daemon = self.daemons[which]
        if daemon.asked:
            daemon.answers.append((daemon.asked.pop(0).token, Unanswered()))

    @precondition(lambda self: any(daemon.answers for daemon in self.daemons))
    @rule(which=daemons, place=st.integers(0, 3), twice=st.booleans())
    def hear(self, which: int, place: int, *, twice: bool) -> None:
        """A daemon hears one of the answers, in any order, perhaps once more later."""
        daemon = self.daemons[which]
        if daemon.answers:
            place %= len(daemon.answers)
            daemon.lanes.answer(*daemon.answers[place], self.now)
            if not twice:
                del daemon.answers[place]

    @rule(which=daemons)
    def die(self, which: int) -> None:
        """A daemon is killed, and one in its place knows what the log says. What was asked may be carried out later."""
        self.late += [ask for ask in self.daemons[which].asked if isinstance(ask, Append)]
        self.daemons[which] = Daemon(self.log)

    @precondition(lambda self: self.late)
    @rule()
    def carry_out_late(self) -> None:
        """The log does what a daemon asked for that is dead."""
        self.log.append(self.late.pop())

    @rule()
    def wait(self) -> None:
        """Time goes on."""
        self.now += WAIT_S

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def the_log_is_a_chain(self) -> None:
        """Each update is the next of its job, by the rules, of a later report; nothing says what the one before did."""
        for key in KEYS:
            previous, place = None, 0
            for sequence, entry in enumerate(self.log.view(NAMES.states(key)), 1):
                update = decode_update(entry.body)
                assert (update.Sequence, update.Previous) == (sequence, previous)
                assert RULES.allows(previous, update.StateType)
                report = self.input[int(entry.input.partition("@")[0]) - 1]
                assert (report.key, report.state) == (key, update.StateType)
                assert report.position.sequence > place
                previous, place = update.StateType, report.position.sequence

    def teardown(self) -> None:
        """Once nothing is lost any more, both daemons know what the reports come to, and the log says just that."""
        for step in range(STEPS_MAX):
            if not any(daemon.lanes.waiting or daemon.read < len(self.input) for daemon in self.daemons):
                break
            for which, daemon in enumerate(self.daemons):
                self.read(which)
                self.ask(which)
                for ask in daemon.asked:
                    daemon.lanes.answer(ask.token, self._answer(ask), self.now)
                daemon.asked = []
                for token, answer in daemon.answers:
                    daemon.lanes.answer(token, answer, self.now)
                daemon.answers = []
            self.now += WAIT_S
            assert step < STEPS_MAX - 1, "the daemons never came to an end"
        self.the_log_is_a_chain()
        for key in KEYS:
            accepted, refused = self._fold(key)
            said = [decode_update(entry.body).StateType for entry in self.log.view(NAMES.states(key))]
            assert said == accepted
            kept = self.log.view(NAMES.quarantine("*", key, "*"))
            assert len(kept) == refused
            for daemon in self.daemons:
                known = daemon.lanes.known(key)
                assert (known.state if known is not None else None) == (accepted[-1] if accepted else None)

    def _answer(self, ask: Append | ReadBack) -> Answer:
        return self.log.append(ask) if isinstance(ask, Append) else self.log.read(ask)

    def _fold(self, key: JobKey) -> tuple[list[str], int]:
        """The states that the job's reports lead through, and how many of the reports the rules refuse."""
        accepted: list[str] = []
        refused = 0
        for report in self.input:
            before = accepted[-1] if accepted else None
            if report.key != key or report.state == before:
                continue
            if RULES.allows(before, report.state):
                accepted.append(report.state)
            else:
                refused += 1
        return accepted, refused


TwoDaemons.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestTwoDaemons = TwoDaemons.TestCase
