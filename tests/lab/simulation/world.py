"""The scheduler of one seed: who takes the next step, and what goes wrong. The same seed is the same run.

First a few hundred steps with faults, then none: everything must come to rest, and the log must be right.
"""

import random
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from consumer.core import Missing, OrchestratorRead, Published, ReadHistory, ReadJob
from consumer.core.appends import Append, Busy, ReadBack, Refused, Stored, Unanswered
from consumer.model import (
    Event,
    Frame,
    HistoryPage,
    Identity,
    InputPosition,
    JobDocument,
    JobKey,
    JobPage,
    Malformed,
    Report,
)
from consumer.rules import Rules
from tests.lab.seeds import ViolationError
from tests.lab.simulation.daemon import NAMES, Life
from tests.lab.simulation.input import Input, Producer, junk
from tests.lab.simulation.log import SimulatedLog
from tests.lab.simulation.oracle import STATES, Book, Oracle, decode, merged
from tests.lab.simulation.orchestrator import BASE_NS, JobRecord, Orchestrator

REST_STEPS: Final = 12_000
"""So many steps are enough for everything to come to rest, once nothing goes wrong any more."""
DAEMONS: Final = "ABC"

FAULTS: Final = (
    "append lost",
    "append stored, answer lost",
    "append late",
    "append unanswered, then late",
    "landed after its writer's end",
    "busy",
    "old leader",
    "read-back stale",
    "read-back lost",
    "answers twice",
    "answers out of order",
    "checkpoint stale",
    "recovery stale",
    "killed",
    "paused",
    "reconnected",
    "foreign garbage",
    "foreign copy",
    "foreign number",
    "forged, no headers",
    "forged, wrong number",
    "forged, wrong filter",
    "forged, wrong Previous",
    "forged, as ours",
    "foreign entry removed",
    "job forgotten",
    "input made anew",
    "input lost its tail",
    "history stale",
    "job stale",
    "list stale",
    "read failed",
    "not found yet",
    "frame lost",
    "frame twice",
    "frame late",
    "frame from before",
    "two entries for one revision",
    "equal neighbours",
    "rerun",
    "update",
    "forbidden step in a record",
    "record takes over",
)


class Flight:
    """An append that the server has not judged yet."""

    __slots__ = ("answered", "ask", "life")

    def __init__(self, life: Life, ask: Append, *, answered: bool) -> None:
        self.life = life
        self.ask = ask
        self.answered = answered


class World:
    """One seed. `run` raises `ViolationError`, or ends."""

    def __init__(self, seed: int, rules: Rules, *, trace: list[str] | None = None) -> None:
        self.seed: Final = seed
        self.rng: Final = random.Random(seed)
        self.rules: Final = rules
        self.trace = trace
        self.now = 1000.0
        self.steps = 0
        self.calm = False
        self.faults: Counter[str] = Counter()
        self.counts: Final[Counter[str]] = Counter()
        """Nothing is counted but the faults."""
        self.log: Final = SimulatedLog()
        self.input: Final = Input()
        self.orchestrator: Final = Orchestrator(self.rng)
        self.oracle: Final = Oracle()
        self.was_read: set[InputPosition] = set()
        self.since: int | None = None
        self.pool: list[Flight] = []
        self.not_before = 0
        self._old_leader = (0, 0)
        self._entries: dict[int, bytes] = {}
        rng = self.rng
        self.backfill = rng.random() < 0.4
        self._harm = rng.choice((0.0, 0.5, 1.0, 1.0, 2.0))
        self._deaf = rng.choice((0.1, 0.1, 0.5, 1.0))
        self._lives_left = 3 + int(rng.random() * 6)
        self._frames_sent: list[Frame] = []
        self._restart_at_end = rng.random() < 0.25
        self.producers: list[Producer] = []
        self._coming: list[JobRecord] = []
        self._make_jobs()
        self.lives: Final[list[Life]] = []
        self._numbers = Counter(DAEMONS)
        for name in DAEMONS:
            self.lives.append(Life(self, f"{name}1", rules))

    # -- the cast -----------------------------------------------------------------------------------------------------

    def _make_jobs(self) -> None:
        rng = self.rng
        for index in range(1 + int(rng.random() * 3)):
            self._coming.append(self._record(f"r{index}"))
        for index in range(1 + int(rng.random() * 3)):
            self.producers.append(self._producer(f"p{index}"))
        if rng.random() < 0.45:
            record = self._record("b0")
            self._coming.append(record)
            producer = self._producer("b0", record.identity.namespace)
            self.producers.append(producer)
            self.oracle.book(Identity(id="b0", namespace=record.identity.namespace))
        rng.shuffle(self._coming)
        for _ in range(int(rng.random() * 3)):
            if self._coming:
                job = self._submit()
                for _ in range(int(rng.random() * 5)):
                    self._change(job, quiet=True)

    def _record(self, name: str) -> JobRecord:
        rng = self.rng
        return JobRecord(
            name,
            rng.choice(("default", "team")),
            rng.choice(("batch", "batch", "service")),
            version=1 if rng.random() < 0.8 else 0,
        )

    def _producer(self, name: str, namespace: str = "") -> Producer:
        rng = self.rng
        producer = Producer(
            rng,
            name,
            namespace or rng.choice(("default", "team")),
            rng.choice(("", "batch", "service")),
            versioned=rng.random() < 0.5,
        )
        self.oracle.book(producer.identity)
        return producer

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Faults, then rest, then (sometimes) a restart of all that must change nothing."""
        rng = self.rng
        steps = 120 + int(rng.random() * 260) if rng.random() < 0.97 else 1200
        for _ in range(steps):
            self._step()
        self._calm_down()
        self._rest(lenient=self._restart_at_end)
        if self._restart_at_end:
            self.say("world", "all daemons are started anew")
            for index, life in enumerate(self.lives):
                life.alive = False
                self._start(index)
            self._rest()
            if unannounced := self.oracle.unannounced(self.log):
                raise ViolationError(f"foreign, and a start has not announced it: {', '.join(unannounced)}")

    def _step(self) -> None:
        self.steps += 1
        rng = self.rng
        self.now += rng.random() * 0.004
        roll = rng.random()
        for below, step in STEPS:
            if roll < below:
                step(self)
                return

    def _let_live(self) -> None:
        """One of the daemons does something, or is started, or wakes up."""
        rng = self.rng
        index = int(rng.random() * 3)
        life = self.lives[index]
        if not life.alive:
            if rng.random() < 0.15:
                self._start(index)
        elif life.paused:
            if rng.random() < 0.08:
                life.paused = False
                self.say(life.name, "wakes up")
        elif not life.step() and rng.random() < 0.3:
            self._jump()

    def _have_checkpoint(self) -> None:
        life = self._someone()
        if life is not None:
            life.checkpoint()

    def _land_one(self) -> None:
        if self.pool:
            self._land(int(self.rng.random() * len(self.pool)))

    def _jump(self) -> None:
        """Nobody has anything to do: time goes on to the first who will."""
        wake = min((life.wake for life in self.lives if life.alive and not life.paused), default=float("inf"))
        if self.now < wake < float("inf"):
            self.now = wake

    def _calm_down(self) -> None:
        self.calm = True
        self.say("world", "nothing goes wrong any more")
        for index, life in enumerate(self.lives):
            life.paused = False
            if not life.alive:
                self._start(index)

    def _rest(self, *, lenient: bool = False) -> None:
        """No more faults: within a bounded number of steps the log is complete and every daemon is at rest."""
        quiet = 0
        for step in range(REST_STEPS):
            self._settle_a_little()
            if step % 8 == 0 and self._at_rest() and not self.oracle.missing(self.since or 0, lenient=lenient):
                quiet += 1
                if quiet > 3:
                    break
        missing = self.oracle.missing(self.since or 0, lenient=lenient)
        if quiet <= 3 or missing:
            restless = ", ".join(life.name for life in self.lives if not life.at_rest)
            raise ViolationError(
                f"no rest after {REST_STEPS} steps; missing: {'; '.join(missing)}; restless: {restless}"
            )
        for life in self.lives:
            life.checkpoint()
        while not self._at_rest():
            self._settle_a_little()
        for life in self.lives:
            life.assert_nothing_leaks()

    def _settle_a_little(self) -> None:
        """Everybody does one thing; if nobody has one, time goes on."""
        self.steps += 1
        self.now += 0.001
        self._land_one()
        busy = [life.step() for life in self.lives]
        if not any(busy):
            self._jump()

    def _at_rest(self) -> bool:
        return not self.pool and all(life.at_rest for life in self.lives)

    def _start(self, index: int) -> None:
        name = DAEMONS[index]
        self._numbers[name] += 1
        self.lives[index] = Life(self, f"{name}{self._numbers[name]}", self.rules)

    def begin(self, life: Life, since_ns: int) -> None:
        """A daemon knows where the log may begin: whoever is first has agreed on that, and another session begins."""
        if self.since is None:
            self.since = 0 if self.backfill else since_ns
            self.say(life.name, f"the log begins at {self.since}")
        life.alive = False
        self._start(self.lives.index(life))

    # -- what the record and the producers do -------------------------------------------------------------------------

    @property
    def time_ns(self) -> int:
        return BASE_NS + int((self.now - 1000.0) * 1e9)

    def _orchestrate(self) -> None:
        rng = self.rng
        if self._coming and rng.random() < 0.3:
            self._submit()
        elif self.orchestrator.jobs:
            jobs = list(self.orchestrator.jobs.values())
            self._change(jobs[int(rng.random() * len(jobs))])

    def _submit(self) -> JobRecord:
        job = self._coming.pop()
        self.oracle.book(job.identity).record = job
        self.orchestrator.submit(job, self.time_ns)
        self.say("orchestrator", f"{job.identity.id} ({job.identity.type}) is submitted")
        return job

    def _change(self, job: JobRecord, *, quiet: bool = False) -> None:
        rng = self.rng
        if job.planned:
            (state,) = job.planned
            job.planned = ()
            self._write(job, state)
            return
        if len(job.written) > 14 or job.forbidden is not None:
            return
        if job.ended:
            if job.first_version and rng.random() < 0.35:
                self.faults["rerun"] += 1
                self._again(job)
            elif rng.random() < 0.01 and not quiet:
                self._forbid(job)
            return
        if job.first_version and rng.random() < 0.07:
            self.faults["update"] += 1
            self._again(job)
            return
        state = self.orchestrator.next_of(job)
        if state == "Running" and job.state == "Pending" and rng.random() < 0.1:
            self._write(job, state, quiet=True)
            self._tell([self.orchestrator.direct(job)])
            return
        if not quiet:
            self._tell(self.orchestrator.before(job, state))
            if rng.random() < 0.4:
                job.planned = (state,)
                return
        self._write(job, state)

    def _again(self, job: JobRecord) -> None:
        self.orchestrator.again(job, self.time_ns)
        self.say("orchestrator", f"{job.identity.id} begins version {job.version}: Pending")
        self._tell(self.orchestrator.after(job, "Pending"))

    def _write(self, job: JobRecord, state: str, *, quiet: bool = False) -> None:
        rng = self.rng
        # Not of a forged job: one update too many and one too few, and nobody could tell by counting.
        twice = state == "Failed" and rng.random() < 0.4 and self.oracle.book(job.identity).forged is None
        if twice:
            self.faults["two entries for one revision"] += 1
        if state == job.state:
            self.faults["equal neighbours"] += 1
        self.orchestrator.write(job, state, self.time_ns, message=f"because {len(job.written)}", twice=twice)
        self.say("orchestrator", f"{job.identity.id} is {state}{' (two entries)' if twice else ''}")
        if not quiet:
            self._tell(self.orchestrator.after(job, state))

    def _forbid(self, job: JobRecord) -> None:
        book = self.oracle.book(job.identity)
        if book.mixed or book.forged is not None:
            return
        self.faults["forbidden step in a record"] += 1
        job.forbidden = len(job.written) + 1
        self.orchestrator.write(job, "Running", self.time_ns)
        self.say("orchestrator", f"{job.identity.id} is Running, which is forbidden")

    def _tell(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._frames_sent.append(frame)
            self._send_frame(frame)

    def _send_frame(self, frame: Frame) -> None:
        for life in self.lives if hasattr(self, "lives") else ():
            if not life.alive:
                continue
            if self.rng.random() < self._deaf:
                self.faults["frame lost"] += 1
                continue
            life.frames.append(frame)
            if self.fault("frame twice", 0.08):
                life.frames.append(frame)

    def _produce(self) -> None:
        rng = self.rng
        position = self.input.next_position(self.time_ns)
        if rng.random() < 0.05:
            nothing = junk(position, self.steps)
            self.oracle.junk[nothing.origin] = nothing
            self.input.publish(nothing)
            return
        if not self.producers:
            return
        producer = self.producers[int(rng.random() * len(self.producers))]
        report = producer.report(position)
        self.input.publish(report)
        self.oracle.book(producer.identity).report(report)
        if self.trace is not None:
            self.say("producer", f"{position}: {report.key} {report.state!r} v{report.version} r{report.revision}")

    # -- the log's side -----------------------------------------------------------------------------------------------

    def send(self, life: Life, ask: Append | ReadBack) -> None:
        """A daemon sends *ask*: what becomes of it."""
        if isinstance(ask, ReadBack):
            if self.fault("read-back lost", 0.05):
                life.answers.append((ask.token, Unanswered()))
                return
            version = None if self.calm else self.stale_version("read-back stale")
            answer = self.log.read(ask, version)
            if self.trace is not None:
                found = ", ".join(f"#{entry.number} {_body(entry.body)}" for entry in answer.entries)
                self.say("log", f"{life.name} reads back ({ask.token}) {ask.filter}: {found or 'nothing'}")
            life.answers.append((ask.token, answer))
            return
        if self.pool and any(one.ask.filter == ask.filter for one in self.pool) and self.rng.random() < 0.5:
            self.faults["busy"] += 1
            self._say_append(life, ask, "busy")
            life.answers.append((ask.token, Busy()))
            return
        roll = self.rng.random() if not self.calm and self._harm else 1.0
        harm = 0.05 * self._harm
        if roll < harm:
            self.faults["append lost"] += 1
            self._say_append(life, ask, "is lost")
            life.answers.append((ask.token, Unanswered()))
        elif roll < 2 * harm:
            self.faults["append stored, answer lost"] += 1
            self._judge(life, ask)
            life.answers.append((ask.token, Unanswered()))
        elif roll < 3 * harm:
            self.faults["append late"] += 1
            self._say_append(life, ask, "is under way")
            self.pool.append(Flight(life, ask, answered=True))
        elif roll < 4 * harm:
            self.faults["append unanswered, then late"] += 1
            self._say_append(life, ask, "is under way, and nothing answers")
            self.pool.append(Flight(life, ask, answered=False))
            life.answers.append((ask.token, Unanswered()))
        else:
            life.answers.append((ask.token, self._judge(life, ask)))

    def _judge(self, life: Life, ask: Append) -> Stored | Refused:
        answer = self.log.append(ask, self.time_ns)
        if self.trace is not None:
            self._say_append(life, ask, repr(answer))
        if isinstance(answer, Stored):
            entry = self.log.kept[-1].entry
            if ask.stream == "log":
                self._entries[entry.number] = entry.body
            book = self._book_of(entry.subject)
            before = book.by_record if book is not None else True
            self.oracle.stored(entry)
            if book is not None and book.count > 1 and book.by_record and not before:
                self.faults["record takes over"] += 1
        return answer

    def _book_of(self, subject: str) -> Book | None:
        key = NAMES.key_of_state(subject)
        return self.oracle.books.get(key) if key is not None else None

    def _land(self, index: int) -> None:
        flight = self.pool.pop(index)
        if not flight.life.alive:
            self.faults["landed after its writer's end"] += 1
        self.say("log", f"what {flight.life.name} sent lands")
        answer = self._judge(flight.life, flight.ask)
        if flight.answered and flight.life.alive:
            flight.life.answers.append((flight.ask.token, answer))

    def stale_version(self, kind: str) -> int:
        """The version of the log that an answer shows: now, or what a leader knows that was one."""
        now = self.log.version
        if self.calm or not self._harm:
            return now
        version, until = self._old_leader
        if self.steps < until and self.rng.random() < 0.7:
            self.faults[kind] += now > version
            return version
        # A read-back is asked for when something was stored just now: that is what an old leader does not have.
        if self.rng.random() < (0.4 if kind == "read-back stale" else 0.1) * self._harm:
            back = 1 + int(self.rng.random() * (8 if self.rng.random() < 0.8 else 30))
            if now - back >= self.not_before:
                self.faults[kind] += 1
                return now - back
        return now

    def recovery_version(self, checkpoint_born: int) -> int:
        """Up to where a start reads the log: its last sequence as it was after the checkpoint was read, or later."""
        return max(self.stale_version("recovery stale"), checkpoint_born)

    def confirmed(self, life: Life, published: Published) -> None:
        """A daemon believes that its update is the log's entry: it must be."""
        body = self._entries.get(published.number)
        if body is None:
            raise ViolationError(f"{life.name} says that {published.number} is its update: nobody stored that")
        found = decode(body)
        update = published.update
        if (found["Sequence"], found["StateType"]) != (update.Sequence, update.StateType):
            raise ViolationError(f"{life.name} says that {published.number} is {update}, and it is {found}")

    def rejected(self, life: Life, event: Event) -> None:
        """A daemon believes that its rejection is kept: it must be."""
        assert isinstance(event, Report)
        book = self.oracle.books[event.key]
        origin = f"{event.position.sequence}-{event.position.time_ns}"
        if origin not in book.quarantined:
            raise ViolationError(f"{life.name} says that {event.key} {origin} is in quarantine: it is not")

    # -- the orchestrator's side --------------------------------------------------------------------------------------

    def ask_orchestrator(self, read: OrchestratorRead) -> HistoryPage | JobDocument | JobPage | Missing | None:
        """The answer as of now, or of before; None: it fails."""
        if self.fault("read failed", 0.05):
            return None
        at: int | None = None
        if isinstance(read, ReadHistory):
            if self.fault("history stale", 0.12):
                at = self.orchestrator.version - 1 - int(self.rng.random() * 6)
            answer: HistoryPage | JobDocument | JobPage | Missing = self.orchestrator.history(read, 3, at)
        elif isinstance(read, ReadJob):
            if self.fault("job stale", 0.12):
                at = self.orchestrator.version - 1 - int(self.rng.random() * 6)
            answer = self.orchestrator.job(read, 3, at)
        else:
            if self.fault("list stale", 0.12):
                at = self.orchestrator.version - 1 - int(self.rng.random() * 6)
            answer = self.orchestrator.listed(read, at)
        if isinstance(answer, Missing):
            self.faults["not found yet"] += 1
        return answer

    # -- harm ---------------------------------------------------------------------------------------------------------

    def fault(self, kind: str, chance: float) -> bool:
        """Whether *kind* goes wrong now."""
        if self.calm or self.rng.random() >= chance * self._harm:
            return False
        self.faults[kind] += 1
        return True

    def _harm_something(self) -> None:
        harms: tuple[tuple[float, Callable[[], None]], ...] = (
            (0.20, self._kill),
            (0.14, self._pause),
            (0.11, self._reconnect),
            (0.13, self._foreign),
            (0.07, self._imitate),
            (0.02, self._remove_foreign),
            (0.08, self._freeze_leader),
            (0.05, self._lose_input),
            (0.04, self._forget),
            (0.03, self._forge),
            (0.13, self._repeat_frame),
        )
        if not self._harm:
            return
        roll = self.rng.random()
        for chance, harm in harms:
            roll -= chance
            if roll < 0:
                harm()
                return

    def _someone(self) -> Life | None:
        life = self.lives[int(self.rng.random() * 3)]
        return life if life.alive and not life.paused else None

    def _kill(self) -> None:
        life = self._someone()
        if life is not None and self._lives_left:
            self._lives_left -= 1
            self.faults["killed"] += 1
            self.say(life.name, "is killed")
            life.alive = False

    def _pause(self) -> None:
        life = self._someone()
        if life is not None:
            self.faults["paused"] += 1
            self.say(life.name, "is paused")
            life.paused = True

    def _reconnect(self) -> None:
        life = self._someone()
        if life is not None:
            self.faults["reconnected"] += 1
            self.say(life.name, "loses its connections, and has new ones")
            for flight in self.pool:
                if flight.life is life:
                    flight.answered = False
            life.disconnect()

    def _freeze_leader(self) -> None:
        """A server that led the log does not know yet that it does not any more, and answers reads for a while."""
        self.faults["old leader"] += 1
        self._old_leader = (self.log.version, self.steps + 20 + int(self.rng.random() * 60))
        self.say("log", "an old leader answers reads from now on")

    def _repeat_frame(self) -> None:
        if self._frames_sent:
            self.faults["frame from before"] += 1
            self._send_frame(self.rng.choice(self._frames_sent))

    def _pick_book(self) -> Book | None:
        books = [book for book in self.oracle.books.values() if book.reports or book.record is not None]
        return self.rng.choice(books) if books else None

    def _foreign(self) -> None:
        book = self._pick_book()
        if book is None:
            return
        roll = self.rng.random()
        prefix = f"jobstate.v1.main.state.{book.key}."
        ours = [one for one in self.log.view(prefix + "*") if one.number in self._entries]
        if roll < 0.4 or not ours:
            subject = prefix + self.rng.choice(("pending", "running", "completed", "junk"))
            body = self.rng.choice((b"", b"{}", b"not json", b'{"StateType":"Running","Message":""}', b"\xff\xfe"))
            self._put_foreign("foreign garbage", subject, body, "")
        elif roll < 0.7:
            one = self.rng.choice(ours)
            header = one.input
            if header and not book.by_record and self.rng.random() < 0.5:
                header = ""
            self._put_foreign("foreign copy", one.subject, one.body, header)
            after = ours[ours.index(one) + 1 :]
            if after and self.rng.random() < 0.4:
                self._put_foreign("foreign copy", after[0].subject, after[0].body, after[0].input)
        else:
            one = self.rng.choice(ours)
            body = one.body.replace(
                b'"Sequence":%d,' % decode(one.body)["Sequence"],
                b'"Sequence":%d,' % self.rng.choice((book.count + 2, book.count + 7, max(book.count - 1, 1) + 10)),
            )
            self._put_foreign("foreign number", one.subject, body, one.input)

    def _put_foreign(
        self, kind: str, subject: str, body: bytes, header: str, *, expected: int | None = None, pattern: str = ""
    ) -> None:
        self.faults[kind] += 1
        number = self.log.put("log", subject, body, header, self.time_ns, expected=expected, pattern=pattern)
        self.oracle.foreign.add(number)
        self.say("stranger", f"writes #{number} {subject} after {expected} of {pattern} {_body(body)} ({kind})")

    def _imitate(self) -> None:
        """A stranger writes what follows by its `Sequence`, and is wrong in one thing that tells it from ours."""
        rng = self.rng
        book = self._pick_book()
        if book is None:
            return
        subjects = f"{NAMES.state_prefix}{book.key}.*"
        there = self.log.view(subjects)
        last = there[-1].number if there else 0
        state = rng.choice(STATES)
        subject = NAMES.state(JobKey(book.key), state)
        job = {"ID": book.identity.id, "Namespace": book.identity.namespace, "Version": 1, "Revision": book.count + 1}
        body: dict[str, object] = {
            "StateType": state,
            "Message": "",
            "Job": job if book.version is None else job | {"Version": book.version},
            "Previous": book.state,
            "Sequence": book.count + 1,
            "Time": None,
            "Source": rng.choice(("observed", "reported")),
            "Flags": [],
        }
        header = there[-1].input if there else ""
        expected: int | None = last
        match rng.choice(("no headers", "wrong number", "wrong filter", "wrong Previous")):
            case "no headers":
                kind, expected, subjects = "forged, no headers", None, ""
            case "wrong number":
                # None, or one of no entry. Under the right filter a server stores no other entry's: it is what the
                # compare-and-set is, and a read-back relies on it.
                kind, expected = "forged, wrong number", rng.choice((None, last + 10_000))
            case "wrong filter":
                kind, subjects = "forged, wrong filter", rng.choice(("", subject, f"{NAMES.state_prefix}*.*.*"))
            case _:
                kind = "forged, wrong Previous"
                body["Previous"] = rng.choice([one for one in (*STATES, None) if one != book.state])
        self._put_foreign(kind, subject, msgspec.json.encode(body), header, expected=expected, pattern=subjects)

    def _remove_foreign(self) -> None:
        """An operator removes what a stranger wrote; what follows it stays true."""
        there = [one for one in self.log.view(f"{NAMES.state_prefix}*.*.*") if one.number in self.oracle.foreign]
        if there:
            one = self.rng.choice(there)
            self.faults["foreign entry removed"] += 1
            self.log.remove(one)
            self.say("operator", f"removes #{one.number} {one.subject}")

    def _forge(self) -> None:
        """A stranger writes what follows, and nobody could tell it from ours."""
        book = self._pick_book()
        if book is None or book.record is None or book.reports or not book.count or book.forged is not None:
            return
        if book.record.forbidden is not None or book.forgotten:
            return
        if book.record.written[-1].revision != len(book.record.written):
            return
        if any(step.number > book.behind for step in merged(book.record)) and self.rng.random() < 0.5:
            return
        prefix = f"jobstate.v1.main.state.{book.key}."
        last = self.log.view(prefix + "*")[-1]
        if last.number != book.number:
            return
        body = decode(last.body)
        state = "Stopped" if book.state != "Stopped" else "Completed"
        body.update(StateType=state, Previous=book.state, Sequence=book.count + 1)
        body["Job"]["Revision"] = book.behind
        self.faults["forged, as ours"] += 1
        number = self.log.put(
            "log",
            prefix + state.lower(),
            msgspec.json.encode(body),
            "",
            self.time_ns,
            expected=last.number,
            pattern=prefix + "*",
        )
        self._entries[number] = self.log.kept[-1].entry.body
        self.say("stranger", f"forges #{number} {state}")
        book.forge(self.log.kept[-1].entry)
        self._restart_at_end = True

    def _forget(self) -> None:
        book = self._pick_book()
        if book is None or not book.count or book.forged is not None or book.mixed:
            return
        self.faults["job forgotten"] += 1
        self.say("operator", f"has the log forget {book.key}")
        self.log.purge(f"jobstate.v1.main.state.{book.key}.*")
        book.forget()
        self._restart_at_end = True

    def _lose_input(self) -> None:
        stream = self.input
        if not stream.entries:
            return
        if self.rng.random() < 0.6:
            self.faults["input made anew"] += 1
            keep = 0
        else:
            self.faults["input lost its tail"] += 1
            keep = max(len(stream.entries) - 1 - int(self.rng.random() * 4), 0)
        had = stream.make_anew()
        stream.entries = had[:keep]
        lost = had[keep:]
        self.say("input", f"is made anew, with {keep} of {len(had)} entries")
        self.not_before = self.log.version
        self._old_leader = (0, 0)
        for entry in lost:
            if isinstance(entry, Malformed):
                # Who has read it may describe it yet; nobody must.
                self.oracle.junk_lost.add(entry.origin)
        for book in self.oracle.books.values():
            gone = {one.position for one in lost if isinstance(one, Report) and one.key == book.key}
            if gone:
                self._lose_reports(book, gone)

    def _lose_reports(self, book: Book, gone: set[InputPosition]) -> None:
        """What nobody read never was. What somebody read may be missing or late, unless all of it was settled."""
        read = gone & self.was_read
        if gone - read:
            book.lose(gone - read)
        if not read or book.loose:
            return
        settled = not book.settled(max(read))
        for life in self.lives:
            if life.alive:
                known = life.lanes.known(book.key)  # type: ignore[arg-type]
                settled &= life.lanes.is_idle(JobKey(book.key)) and (known.sequence if known else 0) == book.count
        settled &= not any(book.key in flight.ask.subject for flight in self.pool)
        book.loose = not settled

    # -- the trace ----------------------------------------------------------------------------------------------------

    def say(self, who: str, what: str) -> None:
        """One line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.steps:5d} {self.now - 1000:9.3f} s  {who:12} {what}")

    def _say_append(self, life: Life, ask: Append, what: str) -> None:
        if self.trace is not None:
            subject = ask.subject.removeprefix("jobstate.v1.main.")
            self.say(
                "log", f"{life.name} appends ({ask.token}) {subject} after {ask.expected} {_body(ask.body)}: {what}"
            )


def _body(body: bytes) -> str:
    try:
        spelt = decode(body)
        return (
            f"[{spelt['Sequence']} {spelt['StateType']} v{spelt['Job'].get('Version')} r{spelt['Job'].get('Revision')}]"
        )
    except Exception:
        return repr(body[:40])


STEPS: Final[tuple[tuple[float, Callable[[World], None]], ...]] = (
    (0.76, World._let_live),
    (0.80, World._have_checkpoint),
    (0.86, World._land_one),
    (0.93, World._orchestrate),
    (0.975, World._produce),
    (1.0, World._harm_something),
)
"""What the next step is: the first whose number is above the roll."""
