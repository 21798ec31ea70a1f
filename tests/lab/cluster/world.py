"""One run: a cluster, one or two daemons, one log, in virtual time; what happens, what goes wrong, what must hold.

Everything follows from the seed. Here it is carried: time, frames, requests, the log. What happens is
`tests.lab.cluster.plot`'s and `tests.lab.cluster.cluster`'s, what must hold `tests.lab.cluster.oracle`'s.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVarTuple

from consumer.core import OrchestratorRead, ReadHistory, ReadingOptions, ReadJob
from consumer.core.appends import Append, ReadBack, Stored, Unanswered
from consumer.errors import OrchestratorError
from consumer.rules import Rules
from tests.lab.cluster import rest
from tests.lab.cluster.cluster import Cluster
from tests.lab.cluster.daemon import NAMES, Life
from tests.lab.cluster.oracle import Oracle
from tests.lab.cluster.plot import FORGOTTEN, KINDS, Kind, Plot
from tests.lab.cluster.record import Job
from tests.lab.cluster.releases import RELEASES, Release
from tests.lab.cluster.rest import Reply
from tests.lab.seeds import ViolationError
from tests.lab.simulation.log import SimulatedLog

FAULTS: Final = (
    "orchestrator slow",
    "orchestrator away",
    "orchestrator away for half of it",
    "orchestrator restart",
    "answer 500",
    "one job always refused",
    "answer html",
    "answer cut",
    "answer too large",
    "answer stale",
    "answer lost by the log",
    "node restart",
    "node lost",
    "order sent again",
    "result sent again",
    "frame lost",
    "frame repeated",
    "frame late",
    "frames out of order",
    "tap gap",
    "daemon restart",
    "daemon paused",
    "clock jump",
    "two daemons",
    "rerun",
    "update",
    "stop",
    "changed in a gap",
    "history of many pages",
    "evaluation tried again",
    "evaluation twice",
    "two entries for one revision",
    "job forgotten",
    "record went back",
    "version mislabelled",
)

SHIPPED_RATE: Final = ReadingOptions().max_rate

REST_S: Final = 1000.0
"""A run that lasts longer never ends."""
LIST_MAX_S: Final = 30.0
"""No list takes longer: so much of it at most is paid for with a pause."""

Given = TypeVarTuple("Given")


class World:
    """A run by its seed, *kind* and *release* too unless they are given. With *trace* every step is told in words."""

    def __init__(
        self,
        seed: int,
        rules: Rules,
        *,
        kind: Kind | None = None,
        release: Release | None = None,
        trace: list[str] | None = None,
    ) -> None:
        self.rng: Final = random.Random(seed)
        self.trace: Final = trace
        self.now = 0.0
        self.faults: Counter[str] = Counter()
        self.steps = 0
        self.calm = False
        """Nothing goes wrong any more."""
        self.log: Final = SimulatedLog()
        self.oracle: Final = Oracle()
        self.jobs: Final[dict[str, Job]] = {}
        """Every job that ever was."""
        self.lives: Final[dict[str, Life]] = {}
        self.away: Final[dict[str, float]] = {}
        """Until when a daemon does not reach the orchestrator."""
        self._rules: Final = rules
        self._agenda: Final[list[tuple[float, int, Callable[[], None]]]] = []
        self._order = 0
        rng = self.rng
        self.kind: Final = kind or rng.choices(KINDS, [one.weight for one in KINDS])[0]
        self.release: Final = release or rng.choice((*RELEASES, *(RELEASES[-1:] * 3)))
        self.cluster: Final = Cluster(
            self.release,
            rng,
            at=self.at,
            clock=lambda: self.now,
            publish=self._publish,
            say=self.say if trace is not None else None,
            steady=not self.kind.harm,
        )
        self.backfill: Final = rng.random() < 0.7
        self._plot: Final = Plot(self, self.kind)
        self._stored: Final = rng.choice((0, 100, 1000, 3000))
        """Finished jobs that a list costs, though nobody asks for them."""
        self._bad: Final = rng.choice((0.0, 0.05, 0.2)) if self.kind.harm else 0.0
        """Share of the answers that are none, or old."""
        self._refused: Final[set[str]] = set()
        """Jobs that the orchestrator does not give, while it serves all others."""
        self._lossy: Final = rng.choice((0.0, 0.05, 0.3)) if self.kind.harm else 0.0
        """Share of the frames that do not come as they should."""
        self.max_rate: Final = rng.choice((14.0, SHIPPED_RATE, SHIPPED_RATE))
        """Requests a second that a daemon may send."""
        self._settings: Final = ReadingOptions(
            claim_s=10.0,
            retry_max_s=4.0,
            list_limit=rng.choice((2, 100)),
            full_limit=rng.choice((3, 100)),
            history_limit=rng.choice((2, 3, 1000)),
            list_share=5.0,
            full_every_s=10.0 if self.kind.harm else 3600.0,  # a page that is stale may lack a job: the next one has it
            lists=self.kind.lists,
            turn_rate=50.0 if self.kind.turns else 0.0,
            max_rate=self.max_rate,
            pause_max_s=2.0,
        )

    # -- time ---------------------------------------------------------------------------------------------------------

    def at(self, delay: float, act: Callable[[*Given], None], *given: *Given) -> None:
        """Do *act* after *delay* seconds of the world's."""
        self._order += 1
        heapq.heappush(self._agenda, (self.now + delay, self._order, partial(act, *given) if given else act))

    def say(self, who: str, text: str) -> None:
        """For the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.now:9.4f}  {who:<8}  {text}")

    def fault(self, kind: str, share: float) -> bool:
        """Whether *kind* goes wrong now."""
        if self.calm or self.rng.random() >= share:
            return False
        self.faults[kind] += 1
        return True

    @property
    def counts(self) -> dict[str, int]:
        """How many updates there are, how many of them are to Running, and how many of these came early."""
        return {
            "updates": sum(map(len, self.oracle.logs.values())),
            "running": self.oracle.running,
            "early": self.oracle.derived,
        }

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it. Raises ViolationError."""
        self.say("world", f"{self.release.name}, a run of the kind {self.kind.name!r}")
        self._plot.begin()
        done_at: float | None = None
        looked_at = moved_at = 0.0
        while self._agenda:
            self.now, _, act = heapq.heappop(self._agenda)
            act()
            self.steps += 1
            if not self.calm or self.now < looked_at:
                continue
            looked_at = self.now + 0.2
            if not self.cluster.quiet:
                moved_at = self.now
            done_at = (done_at or self.now) if self._is_done() else None
            if done_at is not None and self.now >= done_at + 0.6:
                self._check_memory()
                break
            if self.now > REST_S:
                raise ViolationError("the cluster does not come to rest: a fault of the model")
            if self.now > max(moved_at, self._plot.until) + self._patience_s:
                raise ViolationError(f"{self._patience_s:g} s after anything happened: {self._unfinished()}")
        self.faults += self.cluster.happened
        if self._settings.history_limit < 1000:
            self.faults["history of many pages"] += sum(
                len(job.changes) >= self._settings.history_limit for job in self.jobs.values()
            )

    def _check_memory(self) -> None:
        for life in self.lives.values():
            if left := life.leftovers:
                raise ViolationError(f"{life.name} remembers {', '.join(left)} for nothing")

    @property
    def _patience_s(self) -> float:
        # A clock that jumped while a list was under way has made that list a long one, which is paid for.
        jump = min(self._plot.longest_jump_s, LIST_MAX_S)
        return self.kind.patience_s + self._settings.list_share * jump

    def _is_done(self) -> bool:
        if not self.cluster.quiet or len(self.lives) < self._plot.daemons:
            return False
        return all(life.at_rest for life in self.lives.values()) and not self._unfinished()

    def _unfinished(self) -> str:
        for job in self.jobs.values():
            if job.id in self.cluster.jobs:
                if text := self.oracle.missing(job):
                    return text
            elif self.kind is FORGOTTEN and self.oracle.is_unannounced(job):
                return f"{job.id} is gone, and nobody says so"
        return ""

    # -- daemons ------------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """A daemon starts. It hears frames once Bacalhau's NATS is there."""
        self.say(name, "starts")
        life = self.lives[name] = Life(self, name, self._rules, self._settings, self.rng.uniform(0.0, 1000.0))
        life.connected = self.cluster.up
        if not life.connected:
            self.at(0.1, self._wait_for_nats, life)

    def _wait_for_nats(self, life: Life) -> None:
        if self.cluster.up:
            self.connect(life)
        else:
            self.at(0.1, self._wait_for_nats, life)

    def begin(self, life: Life, since_ns: int) -> None:
        """A daemon knows where the log may begin: whoever is first has agreed on that, and another session begins."""
        if self.oracle.since_ns is None:
            self.oracle.since_ns = 0 if self.backfill else since_ns
            self.say(life.name, f"the log begins at {self.oracle.since_ns}")
        life.alive = False
        self.start(life.name)

    def connect(self, life: Life) -> None:
        """Its tap hears again, and knows that it did not."""
        if not life.connected:
            life.connected = True
            self._to(life, 0.0, life.miss_frames)

    def wake(self, life: Life, due: float) -> None:
        """Have *life* woken just after *due*: by its own clock a timer must not be early."""
        self._to(life, max(due - self.now, 0.0) + 1e-6, life.wakes, due)

    def _to(self, life: Life, delay: float, act: Callable[[*Given], None], *given: *Given) -> None:
        """Something comes to *life*, if it still is when it comes; one that stands still takes it afterwards."""

        def comes() -> None:
            if not life.alive:
                return
            if self.now < life.paused_until:
                self.at(life.paused_until - self.now, comes)
            else:
                act(*given)

        self.at(delay, comes)

    # -- Bacalhau's NATS ----------------------------------------------------------------------------------------------

    def _publish(self, subject: str, data: bytes, what: str) -> None:
        if self.trace is not None:
            self.say("nats", what)
        for life in self.lives.values():
            if not life.connected or self.fault("frame lost", self._lossy):
                if self.trace is not None:
                    self.say(life.name, f"does not hear {what}")
                continue
            delay = self.rng.uniform(0.0001, 0.002)
            if self.fault("frame late", self._lossy / 5):
                delay += self.rng.uniform(0.05, 2.0)
            elif self.fault("frames out of order", self._lossy / 2):
                delay += self.rng.uniform(0.002, 0.03)
            else:
                life.frames_at = max(life.frames_at, self.now + delay)
                delay = life.frames_at - self.now
            self._to(life, delay, life.hear, subject, data)
            if self.fault("frame repeated", self._lossy / 3):
                again = self.rng.uniform(0.0, 1.5)
                self._to(life, delay + again, life.hear, subject, data)

    # -- the orchestrator's REST --------------------------------------------------------------------------------------

    def ask(self, life: Life, read: OrchestratorRead) -> None:
        """A request leaves."""
        self.at(self.rng.uniform(0.0003, 0.002), self._serve, life, read)

    def ask_later(self, life: Life, read: OrchestratorRead) -> None:
        """A request leaves after a pause."""
        self._to(life, self._settings.pause_s, self.ask, life, read)

    @property
    def time_ns(self) -> int:
        """The orchestrator's clock."""
        return self.cluster.ns_of(self.now)

    def _serve(self, life: Life, read: OrchestratorRead) -> None:
        life.asked(self.now)
        rng = self.rng
        reply: Reply | OrchestratorError
        of_list = not isinstance(read, (ReadHistory, ReadJob))
        takes = rest.READ_COST_S + (rest.LIST_COST_S * (len(self.cluster.jobs) + self._stored) if of_list else 0.0)
        if not self.cluster.up or self.now < self.away.get(life.name, 0.0):
            reply, takes = OrchestratorError("unreachable"), rng.choice((0.001, 0.2))
        elif isinstance(read, (ReadHistory, ReadJob)) and self._refuses(read.job):
            reply = OrchestratorError("forbidden")
        elif self.fault("answer 500", self._bad / 4):
            reply = OrchestratorError("server-error")
        elif self.fault("answer html", self._bad / 8):
            reply = Reply(200, b"<html>")
        elif self.fault("answer too large", self._bad / 8):
            reply = OrchestratorError("too-large")
        else:
            now = self.now
            if self.fault("answer stale", self._bad):
                now = max(now - rng.uniform(0.01, 1.0), 0.0)
            reply = self._answer(read, self.cluster.ns_of(now))
            if self.fault("answer cut", self._bad / 8):
                reply = Reply(200, reply.body[: len(reply.body) // 2])
            if self.fault("orchestrator slow", self._bad / 2):
                takes += rng.uniform(0.02, 1.0)
        self._to(life, takes + rng.uniform(0.0003, 0.002), life.answered, read, reply)

    def _refuses(self, job: str) -> bool:
        """Whether *job* is refused, whoever asks; for some that begins now."""
        if job in self._refused and not self.calm:
            return True
        if not self.fault("one job always refused", self._bad / 40):
            return False
        self._refused.add(job)
        return True

    def _answer(self, read: OrchestratorRead, ns: int) -> Reply:
        jobs = self.cluster.jobs
        if isinstance(read, ReadHistory):
            limit = self._settings.history_limit
            return self.history(jobs.get(read.job), ns, limit, read.next_token)
        if isinstance(read, ReadJob):
            return rest.get_job_with_history(jobs.get(read.job), ns)
        return rest.list_jobs(jobs.values(), ns, limit=read.limit, token=read.next_token)

    def history(self, job: Job | None, ns: int, limit: int, token: str) -> Reply:
        """What the adapter asks for: job level, all versions. Before 1.8 that of a job that is not known is empty."""
        if job is None and not self.release.versioned:
            return rest.no_history()
        return rest.get_history(job, ns, all_versions=True, limit=limit, token=token)

    # -- the log ------------------------------------------------------------------------------------------------------

    def append(self, life: Life, ask: Append | ReadBack) -> None:
        """What a lane asks leaves."""
        self.at(self.rng.uniform(0.0002, 0.001), self._land, life, ask)

    def _land(self, life: Life, ask: Append | ReadBack) -> None:
        answer = self.log.append(ask) if isinstance(ask, Append) else self.log.read(ask)
        if isinstance(ask, Append) and isinstance(answer, Stored):
            self._stored_in_log(life, ask)
        delay = self.rng.uniform(0.0002, 0.001)
        if self.fault("answer lost by the log", 0.02):
            self._to(life, 0.5, life.log_answered, ask.token, Unanswered())
        else:
            self._to(life, delay, life.log_answered, ask.token, answer)

    def _stored_in_log(self, life: Life, ask: Append) -> None:
        if ask.stream != "log":
            raise ViolationError(f"{life.name} refuses something: {ask.subject}")
        key = NAMES.key_of_state(ask.subject)
        if key is None:
            kind = ask.subject.split(".")[4]
            self.say(life.name, f"announces {kind}: {ask.body.decode()}")
            self.oracle.noticed(kind, ask.body, self._refused)
            return
        entry = self.oracle.stored(self.jobs, ask.body)
        self.say(
            life.name,
            f"publishes {entry.Job.ID[:10]} {entry.Sequence}: v{entry.Job.Version} r{entry.Job.Revision}"
            f" {entry.StateType} ({entry.Source})",
        )
