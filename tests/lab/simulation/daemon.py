"""One life of a daemon: the real core, and around it what `consumer.daemon` and the adapters would do.

A life ends by a kill, and nothing of it stays but what it had sent. The next begins with what a start reads
(design/design.md 7.4): the checkpoint, then the last updates from the log, not older than that checkpoint.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from consumer.core import (
    Core,
    Lanes,
    Missing,
    OrchestratorAnswer,
    OrchestratorRead,
    Readers,
    ReadHistory,
    ReadingOptions,
    ReadJobs,
    Settled,
)
from consumer.core.appends import Answer, Entry
from consumer.core.beginning import propose
from consumer.core.verify import verify_all, verify_last
from consumer.errors import OrchestratorError
from consumer.model import (
    Frame,
    HistoryPage,
    InputPosition,
    JobDocument,
    JobKey,
    JobPage,
    Record,
    Rejected,
    Report,
    Unchanged,
)
from consumer.rules import Rules
from consumer.wire.entries import decode_checkpoint
from consumer.wire.subjects import Names
from tests.lab.seeds import ViolationError
from tests.lab.simulation.oracle import decode

if TYPE_CHECKING:
    from tests.lab.simulation.world import World

NAMES: Final = Names("main")
SHARD: Final = "0"
READING: Final = ReadingOptions(
    claim_s=10.0,
    included_rows=3,
    list_limit=2,
    full_limit=3,
    list_share=2.0,
    history_limit=3,
    full_every_s=15.0,
    executions_max=8,
)
"""Small numbers: pages must be turned, executions forgotten, the hourly list must come.

Frames are noise here, sent for no reason; what real ones say is `tests.lab.cluster`'s question.
"""


FIRST_PAGE: Final = ReadJobs(limit=READING.list_limit)


class Life:
    """From a start to a kill."""

    def __init__(self, world: "World", name: str, rules: Rules) -> None:
        self.world: Final = world
        self.name: Final = name
        self.lanes: Final = Lanes(rules, NAMES, flight_max=3 + int(world.rng.random() * 6), shard=SHARD)
        self.readers: Final = (
            None
            if world.since is None
            else Readers(rules, self.lanes.known, READING, since_ns=world.since, dice=world.rng.random)
        )
        """None while the log has no beginning: then only reports are followed."""
        self.core: Final = Core(self.lanes, self.readers)
        self.answers: list[tuple[int, Answer]] = []
        self.reads: list[OrchestratorRead] = []
        self.frames: list[Frame] = []
        self.index = 0
        self.incarnation = world.input.incarnation
        self.last_read: InputPosition | None = None
        self.alive = True
        self.paused = False
        self.dirty = True
        self.wake: float = world.now
        self._recover()

    # -- a start ------------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        world = self.world
        subject = NAMES.checkpoint(SHARD)
        found = world.log.view(subject, world.stale_version("checkpoint stale"))
        checkpoint: InputPosition | None = None
        born = 0
        if found:
            checkpoint = decode_checkpoint(found[-1].body)
            self.lanes.restore_checkpoint(checkpoint, found[-1].number)
            born = next(kept.born for kept in reversed(world.log.kept) if kept.entry is found[-1])
        upto = world.recovery_version(born)
        by_job: dict[JobKey, list[Entry]] = defaultdict(list)
        for entry in world.log.last_per_subject(NAMES.state_prefix, upto):
            key = NAMES.key_of_state(entry.subject)
            if key is not None:
                by_job[key].append(entry)
        for key, entries in by_job.items():
            truth = verify_last(NAMES, key, entries)
            if truth is None:
                truth = verify_all(NAMES, key, world.log.view(NAMES.states(key), upto))
            self.lanes.learn(key, truth)
        self.index = world.input.resume(checkpoint)
        self.last_read = checkpoint
        if self.readers is None:
            self.reads.append(FIRST_PAGE)
        if world.trace is not None:
            known = ", ".join(f"{key} {one.sequence}:{one.state}#{one.number}" for key, one in self.lanes.jobs.items())
            world.say(
                self.name, f"starts: checkpoint {checkpoint}, reads the input from {self.index + 1}, knows {known}"
            )
        self.pump()

    # -- a step -------------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Do one thing of what is there to do, if anything is."""
        world = self.world
        kinds = []
        if self.answers:
            kinds += [self._answer, self._answer]
        if self.reads:
            kinds.append(self._read)
        if self.frames:
            kinds.append(self._frame)
        if (self.index < len(world.input.entries) or self.incarnation != world.input.incarnation) and (
            self.lanes.waiting < 8
        ):
            kinds.append(self._report)
        if self.dirty or self.wake <= world.now:
            kinds.append(self._nothing)
        if not kinds:
            return False
        roll = world.rng.random()
        kinds[int(roll * len(kinds))]()
        if world.calm or world.rng.random() < 0.85:
            self.pump()
        else:
            self.dirty = True
        return True

    def checkpoint(self) -> None:
        """It is time for a checkpoint."""
        if self.world.trace is not None:
            self.world.say(self.name, f"writes a checkpoint, if it moved: {self.lanes.floor}")
        self.lanes.checkpoint()
        self.pump()

    def _nothing(self) -> None:
        """Only time has gone by."""

    def _answer(self) -> None:
        world = self.world
        index = int(world.rng.random() * len(self.answers))
        token, answer = self.answers[index]
        if world.fault("answers twice", 0.02):
            pass
        else:
            del self.answers[index]
        if index:
            world.faults["answers out of order"] += 1
        if world.trace is not None:
            world.say(self.name, f"is answered on {token}: {_short(answer)}")
        self.core.log_answered(token, answer, world.now)

    def _read(self) -> None:
        world = self.world
        read = self.reads.pop(int(world.rng.random() * len(self.reads)))
        found = world.ask_orchestrator(read)
        if world.trace is not None:
            world.say(self.name, f"{_short_read(read)}: {_short_answer(found)}")
        answer: OrchestratorAnswer
        if found is not None:
            answer = found
        elif isinstance(read, ReadJobs) and world.rng.random() < 0.3:
            answer = OrchestratorError("too-large")
        else:
            answer = OrchestratorError("slow")
        if self.readers is None:
            self._begin(answer)
        else:
            self.core.orchestrator_answered(read, answer, world.now)

    def _begin(self, answer: OrchestratorAnswer) -> None:
        """As `consumer.daemon.beginning`: ask until there is an answer, and have another session begin by it."""
        world = self.world
        if not isinstance(answer, JobPage):
            self.reads.append(FIRST_PAGE)
            return
        world.begin(self, propose(answer, world.time_ns).since_ns)

    def _frame(self) -> None:
        world = self.world
        index = 0
        if len(self.frames) > 1 and world.fault("frame late", 0.15):
            index = 1 + int(world.rng.random() * (len(self.frames) - 1))
        frame = self.frames.pop(index)
        if world.trace is not None:
            said = frame.snapshot
            text = f" {said.job.id} v{said.version} r{said.revision} {said.state}" if said else ""
            world.say(self.name, f"hears {frame.kind} of {frame.execution}{text}")
        self.core.frame(frame, world.now)

    def _report(self) -> None:
        world = self.world
        stream = world.input
        if self.incarnation != stream.incarnation:
            self.incarnation = stream.incarnation
            self.index = stream.resume(self.last_read)
            if world.trace is not None:
                world.say(self.name, f"finds the input made anew, reads from {self.index + 1}")
        for _ in range(1 + int(world.rng.random() * 3)):
            if self.index >= len(stream.entries):
                break
            entry = stream.entries[self.index]
            self.index += 1
            self.last_read = entry.position
            world.was_read.add(entry.position)
            if world.trace is not None:
                text = f"{entry.key} {entry.state}" if isinstance(entry, Report) else "junk"
                world.say(self.name, f"reads {entry.position.sequence} of the input: {text}")
            self.core.offer(entry)

    # -- what came of it ----------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Have the core settle what came in, and carry out its reads and appends."""
        world, now = self.world, self.world.now
        self.dirty = False
        self._carry_out(self.core.settle(now))
        for ask in self.core.appends(now):
            world.send(self, ask)
        wake = self.core.wake_at()
        self.wake = float("inf") if wake is None else wake

    def _carry_out(self, settled: Settled) -> None:
        world = self.world
        for published in settled.published:
            world.confirmed(self, published)
        for one in settled.decided:
            if world.trace is not None:
                world.say(self.name, f"has decided {_short_event(one.event)}: {one.decision!r}"[:300])
            if isinstance(one.event, Report) and isinstance(one.decision, Unchanged):
                world.oracle.books[one.event.key].unchanged(one.event)
            if isinstance(one.decision, Rejected) and not isinstance(one.event, Record):
                world.rejected(self, one.event)
        if world.trace is not None:
            for event in settled.events:
                if isinstance(event, Record):
                    steps = ", ".join(f"v{step.version} r{step.revision} {step.state}" for step in event.steps)
                    flag = "corrected " if event.corrected else ""
                    world.say(self.name, f"joins {event.key} after {event.after.sequence}: {flag}{steps}")
        self.reads += settled.reads

    def disconnect(self) -> None:
        """Both connections are lost and replaced: answers on their way are gone, and frames may have been."""
        self.answers.clear()
        self.frames.clear()
        self.lanes.disconnected()
        self.core.look_everywhere()
        self.pump()

    @property
    def at_rest(self) -> bool:
        """Whether it has nothing to do but to look."""
        return not (self.lanes.waiting or self.answers or self.frames) and self.index >= len(self.world.input.entries)

    def assert_nothing_leaks(self) -> None:
        """At rest nothing is open in the lanes."""
        lanes = self.lanes
        if lanes.active or not lanes.flight.is_empty:
            raise ViolationError(f"{self.name} is at rest, and its lanes are not")


def _short(answer: Answer) -> str:
    text = repr(answer)
    return text if len(text) < 160 else text[:160] + "…"


def _short_read(read: OrchestratorRead) -> str:
    if isinstance(read, ReadJobs):
        return f"list from {read.next_token or 0}"
    return f"{'history' if isinstance(read, ReadHistory) else 'job'} of {read.job} ({read.cause})"


def _short_answer(answer: HistoryPage | JobDocument | JobPage | Missing | None) -> str:
    match answer:
        case None:
            return "fails"
        case HistoryPage():
            entries = ", ".join(f"v{entry.version} {entry.state}" for entry in answer.entries)
            return f"[{entries}] next {answer.next_token or 'none'}"
        case JobPage():
            return (
                ", ".join(f"{one.job.id} v{one.version} r{one.revision} {one.state}" for one in answer.jobs) or "none"
            )
        case JobDocument():
            return f"v{answer.job.version} r{answer.job.revision} {answer.job.state}, {_short_answer(answer.history)}"
        case Missing():
            return "404"


def _short_event(event: object) -> str:
    if isinstance(event, Report):
        return f"report {event.position.sequence} of {event.key} ({event.state})"
    if isinstance(event, Record):
        return f"record of {event.key} after {event.after.sequence}"
    return type(event).__name__


__all__ = ["NAMES", "READING", "Life", "decode"]
