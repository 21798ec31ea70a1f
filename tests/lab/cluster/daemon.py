"""One life of a daemon in virtual time: the real core, and around it what the adapters would do.

It hears bytes and reads bodies; `consumer.wire` decodes both, as live. A life ends by a kill, and nothing of it stays
but what it had sent; the next begins with what the log has.
"""

from collections import defaultdict, deque
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
    ReadJob,
    ReadJobs,
    Settled,
)
from consumer.core.appends import Answer, Entry
from consumer.core.beginning import propose
from consumer.core.pace import WINDOW_S
from consumer.core.verify import verify_all, verify_last
from consumer.errors import DecodeError, OrchestratorError
from consumer.faults import of_body
from consumer.model import HistoryPage, Identity, JobDocument, JobKey, JobPage, Record, Rejected
from consumer.rules import Rules
from consumer.wire import decode_frame
from consumer.wire.rest import decode_history, decode_job, decode_jobs
from consumer.wire.subjects import Names
from consumer.wire.update import decode_update
from tests.lab.cluster.rest import Reply
from tests.lab.seeds import ViolationError

if TYPE_CHECKING:
    from tests.lab.cluster.world import World

NAMES: Final = Names("main")
FIRST_PAGE: Final = ReadJobs(limit=ReadingOptions().list_limit)


class Life:
    """From a start to a kill. Its own clock may be another than the world's."""

    def __init__(self, world: "World", name: str, rules: Rules, settings: ReadingOptions, skew: float) -> None:
        self.world: Final = world
        self.name: Final = name
        self.skew = skew
        self.alive = True
        self.paused_until = 0.0
        self.connected = True
        self.lanes: Final = Lanes(rules, NAMES)
        since_ns = world.oracle.since_ns
        self.readers: Final = (
            None
            if since_ns is None
            else Readers(rules, self.lanes.known, settings, since_ns=since_ns, dice=world.rng.random)
        )
        """None while the log has no beginning."""
        self.core: Final = Core(self.lanes, self.readers)
        self.frames_at = 0.0
        """When its last frame came, or will: the next is not before it, unless that goes wrong."""
        self._asked: deque[float] = deque()
        self._wake = float("inf")
        self._recover()

    @property
    def now(self) -> float:
        """Its clock."""
        return self.world.now + self.skew

    def jump(self, seconds: float) -> None:
        """Its clock is ahead from now on."""
        self.skew += seconds
        self._asked.clear()  # by its own clock what it has asked is long ago
        self.pump()

    def asked(self, now: float) -> None:
        """A request of its has reached the orchestrator: on average no more than the rate in any ten seconds."""
        asked = self._asked
        while asked and asked[0] <= now - WINDOW_S:
            asked.popleft()
        asked.append(now)
        if len(asked) > self.world.max_rate * WINDOW_S:
            raise ViolationError(f"{self.name} has asked {len(asked)} times in {WINDOW_S:g} seconds")

    def _recover(self) -> None:
        log = self.world.log
        by_job: dict[JobKey, list[Entry]] = defaultdict(list)
        for entry in log.last_per_subject(NAMES.state_prefix, log.version):
            key = NAMES.key_of_state(entry.subject)
            if key is not None:
                by_job[key].append(entry)
        for key, entries in by_job.items():
            truth = verify_last(NAMES, key, entries)
            if truth is None:
                truth = verify_all(NAMES, key, log.view(NAMES.states(key)))
            self.lanes.learn(key, truth)
            update = decode_update(entries[-1].body)
            if self.readers is not None and update.StateType not in ("Completed", "Failed", "Stopped"):
                job = update.Job
                self.readers.resume(Identity(id=job.ID, namespace=job.Namespace, name=job.Name, type=job.Type))
        if self.readers is None:
            self.world.ask(self, FIRST_PAGE)
        self.pump()

    def _begin(self, answer: OrchestratorAnswer) -> None:
        """As `consumer.daemon.beginning`: ask until there is an answer, and begin another session by it."""
        if isinstance(answer, JobPage):
            self.world.begin(self, propose(answer, self.world.time_ns).since_ns)
        else:
            self.world.ask_later(self, FIRST_PAGE)

    # -- what comes in ------------------------------------------------------------------------------------------------

    def hear(self, subject: str, data: bytes) -> None:
        """A frame."""
        frame = decode_frame(subject, data)
        if frame is None:
            raise ViolationError(f"a frame on {subject} is taken for none of ours")
        self.core.frame(frame, self.now)
        self.pump()

    def miss_frames(self) -> None:
        """The tap was away: whatever was said meanwhile is lost, and it knows."""
        self.world.say(self.name, "has missed frames")
        self.core.look_everywhere()
        if self.readers is not None:
            self.readers.probe_now()
        self.pump()

    def log_answered(self, token: int, answer: Answer) -> None:
        """An answer of the log."""
        self.core.log_answered(token, answer, self.now)
        self.pump()

    def answered(self, read: OrchestratorRead, reply: Reply | OrchestratorError) -> None:
        """An answer of the orchestrator, or none."""
        answer: OrchestratorAnswer
        try:
            answer = _decode(read, reply)
        except OrchestratorError as error:
            answer = error
        if self.world.trace is not None:
            self.world.say(self.name, f"{_spell(read)}: {_spell_answer(answer)}")
        if self.readers is None:
            self._begin(answer)
            return
        self.core.orchestrator_answered(read, answer, self.now)
        self.pump()

    # -- what goes out ------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Let everything go on that can."""
        world, now = self.world, self.now
        self._carry_out(self.core.settle(now))
        for ask in self.core.appends(now):
            world.append(self, ask)
        self._sleep()

    def _carry_out(self, settled: Settled) -> None:
        for one in settled.decided:
            if isinstance(one.decision, Rejected):
                raise ViolationError(f"{self.name} rejects a step of the record: {one.decision.rule}")
        if self.world.trace is not None:
            for event in settled.events:
                if isinstance(event, Record):
                    steps = ", ".join(f"v{one.version} r{one.revision} {one.state}" for one in event.steps)
                    said = f"{event.source} {event.job.id[:10]} after {event.after.sequence}: {steps}"
                    self.world.say(self.name, said)
        for read in settled.reads:
            self.world.ask(self, read)

    def _sleep(self) -> None:
        due = self.core.wake_at()
        wake = float("inf") if due is None else due - self.skew
        if wake < self._wake or self._wake <= self.world.now:
            self._wake = wake
            if wake != float("inf"):
                self.world.wake(self, wake)

    def wakes(self, due: float) -> None:
        """Its timer."""
        if due == self._wake:
            self._wake = float("inf")
            self.pump()

    @property
    def leftovers(self) -> list[str]:
        """Jobs that are remembered though nothing is expected of them."""
        return [] if self.readers is None else self.readers.leftovers

    @property
    def at_rest(self) -> bool:
        """Whether everything that came in is in the log."""
        return not self.lanes.waiting


def _decode(read: OrchestratorRead, reply: Reply | OrchestratorError) -> HistoryPage | JobDocument | JobPage | Missing:
    """As `consumer.bacalhau.orchestrator` does it."""
    if isinstance(reply, OrchestratorError):
        raise reply
    if reply.status == 404:
        return Missing()
    if reply.body[:1] == b"<":
        raise OrchestratorError("html")
    try:
        match read:
            case ReadHistory():
                return decode_history(reply.body)
            case ReadJob():
                return decode_job(reply.body)
            case ReadJobs():
                return decode_jobs(reply.body)
    except DecodeError as error:
        raise OrchestratorError(of_body(error.reason, cut=error.cut), error.detail) from None


def _spell(read: OrchestratorRead) -> str:
    if isinstance(read, ReadJobs):
        return f"reads a list{' further' if read.next_token else ''}"
    what = "history" if isinstance(read, ReadHistory) else "job"
    return f"reads {what} {read.job[:10]} ({read.cause}{', further' if getattr(read, 'next_token', '') else ''})"


def _spell_answer(answer: OrchestratorAnswer) -> str:
    match answer:
        case OrchestratorError():
            return answer.kind
        case HistoryPage():
            return ", ".join(f"v{one.version} {one.state}" for one in answer.entries) + (" …" * bool(answer.next_token))
        case JobPage():
            return ", ".join(f"{one.job.id[:10]} v{one.version} r{one.revision} {one.state}" for one in answer.jobs)
        case JobDocument():
            job = answer.job
            return f"v{job.version} r{job.revision} {job.state}, {_spell_answer(answer.history)}"
        case Missing():
            return "404"
