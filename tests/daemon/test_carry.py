"""The carrier with small fakes of its ports: what it does when a port fails, is full, or comes back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest

from consumer.core import Core, Decided, Lanes, Published, Readers, ReadingOptions, lanes
from consumer.core.appends import Answer, Append, Busy, ReadBack, Unanswered
from consumer.core.reads import Missing, OrchestratorAnswer, OrchestratorRead, ReadJob, ReadJobs
from consumer.daemon.carry import Carrier, Sources
from consumer.daemon.supervise import end
from consumer.derive import Derivation, DerivationSettings
from consumer.errors import ConnectionLostError, LogWentBackError, OrchestratorError
from consumer.faults import OrchestratorFault
from consumer.model import Frame, InputPosition, JobPage, Notice
from consumer.ports import Answered, Delivery, RawFrame
from consumer.replay.memory import MemoryLog
from consumer.rules import load
from consumer.wire.subjects import Names
from tests.waiting import DEADLINE_S, until
from tests.wire.samples import IN, JOB, ask_payload, ncl

NAMES = Names()
NO_JOBS = JobPage(jobs=(), next_token="")


class Clock:
    """Real time, as the daemon's."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 0.0


class Log:
    """A log in memory. `lost`: the connection is gone; `silent`: nothing is answered; `room` cleared: nothing goes out.

    `busy`: so many appends are told that another one of the job is in flight.
    """

    def __init__(self, memory: MemoryLog) -> None:
        self.memory = memory
        self.lost = False
        self.silent = False
        self.busy = 0
        self.room = asyncio.Event()
        self.room.set()
        self.sent: list[Append | ReadBack] = []
        self._answers: list[tuple[int, Answer]] = []
        self._something = asyncio.Event()

    async def send(self, asks: Sequence[Append | ReadBack]) -> None:
        if self.lost:
            raise ConnectionLostError("gone")
        self.sent += asks
        await self.room.wait()
        if self.busy:
            self.busy -= len(asks)
            self._answers += [(ask.token, Busy()) for ask in asks]
            self._something.set()
        elif not self.silent:
            self._answers += [(ask.token, self.memory.answer(ask)) for ask in asks]
            self._something.set()

    async def answers(self) -> list[tuple[int, Answer]]:
        await self._something.wait()
        self._something.clear()
        if self.lost:
            raise ConnectionLostError("gone")
        answers, self._answers = self._answers, []
        return answers

    def lose(self) -> None:
        """The connection goes."""
        self.lost = True
        self._something.set()

    def refuse_to_answer(self, token: int) -> None:
        """The time of the ask *token* is over."""
        self._answers.append((token, Unanswered("timeout")))
        self._something.set()


class Reports:
    """The input: batches of reports, when there are some."""

    def __init__(self) -> None:
        self.taken = 0
        self._number = 0
        self._queue: asyncio.Queue[list[Delivery]] = asyncio.Queue()

    def say(self, *states: str, job: str = "j-1") -> None:
        """Put a batch of reports into the input."""
        batch = []
        for state in states:
            self._number += 1
            body = b'{"StateType":"%s"}' % state.encode()
            batch.append(Delivery(f"{NAMES.in_prefix}default.{job}", body, InputPosition(self._number, self._number)))
        self._queue.put_nowait(batch)

    async def batch(self) -> list[Delivery]:
        found = await self._queue.get()
        self.taken += 1
        return found


class Tap:
    """Bacalhau's subjects."""

    def __init__(self) -> None:
        self.gaps = self.connections = self.hurries = 0
        self.frames: asyncio.Queue[list[RawFrame]] = asyncio.Queue()

    async def batch(self) -> list[RawFrame]:
        return await self.frames.get()

    def reconnect_now(self) -> None:
        self.hurries += 1


class Reads:
    """The orchestrator's answers, as the test gives them."""

    def __init__(self) -> None:
        self.asked: list[OrchestratorRead] = []
        self.answered: asyncio.Queue[list[Answered]] = asyncio.Queue()

    def send(self, reads: Iterable[OrchestratorRead]) -> None:
        self.asked += reads

    async def answers(self) -> list[Answered]:
        return await self.answered.get()

    def answer(self, read: OrchestratorRead, answer: OrchestratorAnswer) -> None:
        """*read* comes back."""
        self.answered.put_nowait([Answered(read, answer, asyncio.get_running_loop().time())])

    def last_list(self) -> ReadJobs:
        """The list that was asked for last."""
        return [read for read in self.asked if isinstance(read, ReadJobs)][-1]

    @property
    def lists(self) -> int:
        """Lists asked for so far."""
        return sum(isinstance(read, ReadJobs) for read in self.asked)


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.decisions: list[str] = []
        self.rounds: Counter[str] = Counter()

    def frame(self, frame: Frame) -> None:
        self.said.append(f"frame {frame.kind}")

    def decided(self, decided: Sequence[Decided]) -> None:
        self.decisions += [type(one.decision).__name__ for one in decided]

    def published(self, published: Sequence[Published], now: float) -> None:
        self.said += [f"{one.update.StateType} at {now > 0}" for one in published]

    def reports(self, count: int) -> None:
        self.said.append(f"{count} reports")

    def announced(self, notice: Notice) -> None:
        self.said.append(f"advisory {notice.kind}")

    def asked(self, reads: Sequence[OrchestratorRead]) -> None:
        self.said += [type(read).__name__ for read in reads]

    def answered(self, answered: Sequence[Answered], away: OrchestratorFault | None) -> None:
        self.said.append(f"{len(answered)} answered, away: {away}")

    def gap(self, count: int) -> None:
        self.said.append(f"gap {count}")

    def went_round(self, loop: str) -> None:
        self.rounds[loop] += 1

    def log_connection(self, *, up: bool) -> None:
        self.said.append(f"log {'up' if up else 'down'}")


class Life:
    """One carrier and all that it touches."""

    def __init__(
        self,
        *,
        events_max: int = 100,
        joined: bool = False,
        pause_s: float = ReadingOptions().pause_s,
    ) -> None:
        rules = load()
        self.memory = MemoryLog()
        self.log = Log(self.memory)
        self.logs = [self.log]
        self.input, self.tap, self.reads, self.watcher = Reports(), Tap(), Reads(), Watcher()
        self.lanes = Lanes(rules, NAMES)
        options = ReadingOptions(pause_s=pause_s, pause_max_s=2 * pause_s)
        self.join = Readers(rules, self.lanes.known, options, since_ns=0)
        self.reopened: list[int] = []
        self.went_back = False
        sources = Sources(reports=self.input)
        if joined:
            sources = Sources(reports=self.input, tap=self.tap, reads=self.reads)
        self.carrier = Carrier(
            names=NAMES,
            core=Core(self.lanes, self.join if joined else None),
            sources=sources,
            writer=self.log,
            reopen=self._reopen,
            clock=Clock(),
            watcher=self.watcher,
            events_max=events_max,
            message_max=1 << 20,
            checkpoint_every_s=0.02,
        )

    async def _reopen(self, confirmed: int) -> Log:
        self.reopened.append(confirmed)
        if self.went_back:
            raise LogWentBackError("shorter")
        self.log = Log(self.memory)
        self.logs.append(self.log)
        return self.log

    def states(self, job: str = "j-1") -> list[str]:
        """The states of a job in the log, in order."""
        prefix = f"{NAMES.state_prefix}default.{job}."
        return [e.subject.removeprefix(prefix) for e in self.memory.entries if e.subject.startswith(prefix)]

    def subjects(self, kind: str) -> list[str]:
        """Subjects of the log's other entries."""
        return [entry.subject for entry in self.memory.entries if entry.subject.startswith(f"{NAMES.prefix}.{kind}.")]

    @asynccontextmanager
    async def lived(self) -> AsyncIterator[dict[str, "asyncio.Task[None]"]]:
        """All its loops, for as long as the context is open."""
        loops = {**self.carrier.source_loops(), **self.carrier.log_loops()}
        tasks = {name: asyncio.create_task(loop(), name=name) for name, loop in loops.items()}
        try:
            yield tasks
        finally:
            await end(tasks.values())


async def test_reports_become_updates_and_a_checkpoint() -> None:
    """Each in order, each told to the watcher, and then the log says how far the input is confirmed."""
    life = Life()
    async with life.lived():
        life.input.say("Pending", "Running", "Nonsense", "Completed")
        await until(lambda: life.subjects("checkpoint"), "a checkpoint")
    assert life.states() == ["pending", "running", "completed"]
    assert life.watcher.decisions == ["Accepted", "Accepted", "Rejected", "Accepted"]
    assert life.watcher.said[0] == "4 reports"


async def test_a_lost_writer_is_replaced_and_told_how_far_the_log_had_confirmed() -> None:
    """What was sent and not answered is sent again to the new one, and is in the log once."""
    life = Life()
    async with life.lived():
        life.input.say("Pending")
        await until(lambda: life.states() == ["pending"], "the first")
        confirmed = len(life.memory.entries)
        first = life.log
        first.silent = True
        life.input.say("Running")
        await until(lambda: any(b'"Running"' in ask.body for ask in first.sent if isinstance(ask, Append)), "sent")
        first.lose()
        await until(lambda: "running" in life.states(), "sent again")
    assert life.reopened[0] in {1, confirmed}
    assert life.states() == ["pending", "running"]
    assert [said for said in life.watcher.said if said.startswith("log")] == ["log down", "log up"]


async def test_whatever_the_log_has_confirmed_counts() -> None:
    """An advisory, a checkpoint: a log that lost them has gone back too (design/design.md 7.7)."""
    life = Life()
    async with life.lived():
        life.carrier.announce(Notice(kind="input", origin="1", text="t"))
        await until(lambda: life.watcher.said, "the advisory")
        life.log.lose()
        await until(lambda: life.reopened == [1], "the advisory's number")
        life.input.say("Running")
        await until(lambda: life.lanes.tally.checkpoints and not life.lanes.waiting, "a checkpoint")
        assert [entry.subject for entry in life.memory.entries][2:] == [NAMES.checkpoint("0")]
        life.log.lose()
        await until(lambda: life.reopened == [1, 3], "the checkpoint's number")


async def test_while_the_log_takes_nothing_the_timer_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An append is due again, and cannot go out: the loop that is due would go round and round at full speed."""
    life = Life()
    async with life.lived():
        monkeypatch.setattr(lanes, "BUSY_WAIT_S", 0.2)
        life.log.busy = 1
        life.input.say("Running", job="a")
        await until(lambda: not life.log.busy, "sent, and to be sent again later")
        life.log.room.clear()
        life.input.say("Running", job="b")
        await until(lambda: len(life.log.sent) == 2, "held up")
        assert not life.states("a")
        due = life.lanes.wake_at()
        assert due is not None
        await until(lambda: Clock().now() > due + 0.1, "long due")
        assert life.watcher.rounds["timer"] < 20
        life.log.room.set()
        await until(lambda: life.states("a") and life.states("b"), "both")


async def test_a_log_that_went_back_ends_the_life() -> None:
    """The loop of the answers ends with the error: another life begins with what the log has now."""
    life = Life()
    life.went_back = True
    async with life.lived() as tasks:
        life.log.lose()
        with pytest.raises(LogWentBackError):
            await asyncio.wait_for(tasks["answers of the log"], DEADLINE_S)


async def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    """After its wait, which the timer keeps; and the update is in the log once."""
    life = Life()
    async with life.lived():
        life.log.silent = True
        life.input.say("Running")
        await until(lambda: life.log.sent, "sent")
        life.log.silent = False
        life.log.refuse_to_answer(life.log.sent[0].token)
        await until(lambda: life.states() == ["running"], "sent again")
    assert len(life.log.sent) >= 2


async def test_the_input_is_not_read_on_while_too_much_waits() -> None:
    """With `events_max` under way the next batch stays where it is, until there is room."""
    life = Life(events_max=2)
    async with life.lived():
        life.log.silent = True
        life.input.say("Running", job="a")
        life.input.say("Running", job="b")
        life.input.say("Running", job="c")
        await until(lambda: life.lanes.waiting == 2, "two wait")
        await asyncio.sleep(0.03)
        assert life.input.taken == 2
        life.log.silent = False
        for ask in list(life.log.sent):
            life.log.refuse_to_answer(ask.token)
        await until(lambda: life.states("c") == ["running"], "the third")
    assert life.input.taken == 3


async def test_the_drain_ends_when_all_is_confirmed() -> None:
    """Not before; and the checkpoint behind it is in the log."""
    life = Life()
    async with life.lived() as tasks:
        life.log.silent = True
        life.input.say("Running")
        await until(lambda: life.log.sent, "sent")
        await end([tasks["reports"], tasks["checkpoint"]])
        drain = asyncio.create_task(life.carrier.drain())
        await asyncio.sleep(0.02)
        assert not drain.done()
        life.log.silent = False
        life.log.refuse_to_answer(life.log.sent[0].token)
        async with asyncio.timeout(DEADLINE_S):
            await drain
    assert life.states() == ["running"]
    assert not life.lanes.waiting


async def test_frames_and_their_junk() -> None:
    """A frame that can be read is a hint, so a read; one that cannot is described in the log; a gap is a full list."""
    life = Life(joined=True)
    async with life.lived():
        life.tap.frames.put_nowait([RawFrame(IN, ncl("AskForBid", ask_payload())), RawFrame(IN, b"junk")])
        await until(lambda: life.subjects("undecodable"), "the junk")
        await until(lambda: life.reads.lists, "a list")
        life.tap.gaps = 3
        life.tap.frames.put_nowait([])
        await until(lambda: "gap 3" in life.watcher.said, "the gap")
        life.reads.answer(life.reads.last_list(), NO_JOBS)
        await until(lambda: life.reads.lists > 1, "another list")
        assert life.reads.last_list().limit == ReadingOptions().full_limit
    assert "frame AskForBid" in life.watcher.said
    assert "gap 3" in life.watcher.said


async def test_a_tap_that_listens_again_has_the_orchestrator_asked_at_once() -> None:
    """Bacalhau's NATS comes back with the orchestrator, which must not wait for the end of a long pause."""
    life = Life(joined=True, pause_s=1000.0)
    async with life.lived():
        life.carrier.look_everywhere()
        await until(lambda: life.reads.lists, "a list")
        life.reads.answer(life.reads.last_list(), OrchestratorError("unreachable"))
        await until(lambda: life.join.away, "an orchestrator that is away")
        life.tap.frames.put_nowait([])
        await until(lambda: life.watcher.rounds["frames"] == 1, "the first round")
        life.tap.gaps = 1  # frames were dropped: nobody was away
        life.tap.frames.put_nowait([])
        await until(lambda: "gap 1" in life.watcher.said, "the gap")
        due = life.join.wake_at()
        assert due is not None
        assert due > Clock().now() + 100.0
        life.tap.gaps, life.tap.connections = 2, 1
        life.tap.frames.put_nowait([])
        await until(lambda: life.reads.lists > 1, "a probe")


async def test_an_error_of_the_orchestrator_is_no_answer() -> None:
    """Nothing is written for it; the job is asked for again; back from being away, everything is looked at."""
    life = Life(joined=True)
    async with life.lived():
        life.tap.frames.put_nowait([RawFrame(IN, ncl("AskForBid", ask_payload()))])
        await until(lambda: any(isinstance(read, ReadJob) for read in life.reads.asked), "a read of the job")
        read = next(read for read in life.reads.asked if isinstance(read, ReadJob))
        assert read.job == JOB
        life.reads.answer(life.reads.last_list(), NO_JOBS)
        await until(lambda: "1 answered, away: None" in life.watcher.said, "the list")
        life.reads.answer(read, OrchestratorError("html"))
        await until(lambda: "1 answered, away: html" in life.watcher.said, "the error")
        assert life.states(JOB) == [], "a frame is only a hint"
        before = len(life.reads.asked)
        await until(lambda: len(life.reads.asked) > before, "a probe")
        probe = life.reads.asked[-1]
        life.reads.answer(probe, NO_JOBS if isinstance(probe, ReadJobs) else Missing())
        everything = ReadJobs(limit=ReadingOptions().full_limit)
        await until(lambda: everything in life.reads.asked[before:], "a list of everything, not of the last changes")
        assert life.tap.hurries == 1
    assert life.states(JOB) == []


async def test_without_an_orchestrator_frames_and_time_bring_events() -> None:
    """Nothing is read: frames become updates, a gap a notice, and an end that nothing follows one when time is up."""
    life = Life()
    derivation = Derivation(load(), life.lanes.known, DerivationSettings(verdict_wait_s=0.05))
    life.carrier = Carrier(
        names=NAMES,
        core=Core(life.lanes, derivation),
        sources=Sources(reports=life.input, tap=life.tap),
        writer=life.log,
        reopen=life._reopen,
        clock=Clock(),
        watcher=life.watcher,
        events_max=100,
        message_max=1 << 20,
        checkpoint_every_s=0.02,
    )
    execution = ask_payload()["Execution"]["ID"]
    error = ncl("ComputeError", {"ExecutionID": execution, "JobID": JOB, "Events": [{"Message": "no"}]}, SeqNum="9")
    async with life.lived():
        life.tap.frames.put_nowait([RawFrame(IN, ncl("AskForBid", ask_payload(), SeqNum="1"))])
        await until(lambda: "Pending at True" in life.watcher.said, "the first state")
        life.tap.gaps = 1
        life.tap.frames.put_nowait([])
        await until(lambda: "advisory gap" in life.watcher.said, "the gap, announced")
        life.tap.frames.put_nowait([RawFrame(IN.replace("in.msgs", "out.msgs"), error)])
        await until(lambda: "advisory undecided" in life.watcher.said, "the verdict that nobody knows")
    assert not life.reads.asked
