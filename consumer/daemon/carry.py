"""The loops that carry: from input, tap and orchestrator to the core, and from there to the log.

They decide nothing. Every loop waits for one port, hands what came to the core, and `_follow` carries out what
came of it. The daemon is this file's handful of loops; everything that can be right or wrong about states is elsewhere.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, Protocol

import structlog

from consumer.core import Core, Decided, Published, Readers
from consumer.core.appends import Answer
from consumer.core.reads import OrchestratorRead
from consumer.errors import ConnectionLostError, DecodeError, OrchestratorError
from consumer.faults import OrchestratorFault
from consumer.model import Frame, Malformed, Notice, Work
from consumer.ports import Answered, Clock, Delivery, Input, Log, RawFrame, Reads, Tap
from consumer.wire import decode_frame, decode_report, malformed_frame, malformed_report
from consumer.wire.subjects import Names

log = structlog.get_logger()

UPDATE_ROOM: Final = 16 * 1024
"""Bytes by which an update, or what is kept of a rejection, may exceed its report: names, numbers, headers."""


def tell_failed(read: OrchestratorRead, error: OrchestratorError) -> None:
    """Say why *read* failed, and what to do about it."""
    log.warning(
        "read.failed",
        kind=error.kind,
        read=type(read).__name__,
        job_id=getattr(read, "job", ""),
        reason=error.fault.detail,
        next_step=error.fault.next_step,
    )


class Watcher(Protocol):
    """An observer of all that happens: metrics, health, log. Never decides, never raises."""

    def frame(self, frame: Frame) -> None:
        """A frame was read."""

    def decided(self, decided: Sequence[Decided]) -> None:
        """Events are over."""

    def published(self, published: Sequence[Published], now: float) -> None:
        """Updates are in the log."""

    def reports(self, count: int) -> None: ...

    def announced(self, notice: Notice) -> None:
        """A notice is in the log by us, and was not before."""

    def asked(self, reads: Sequence[OrchestratorRead]) -> None:
        """Reads are on their way to the orchestrator."""

    def answered(self, answered: Sequence[Answered], away: OrchestratorFault | None) -> None:
        """Reads came back. *away*: what keeps the orchestrator away."""

    def gap(self, count: int) -> None:
        """Frames may have been missed, *count* times."""

    def went_round(self, loop: str) -> None:
        """A loop has gone round."""

    def log_connection(self, *, up: bool) -> None:
        """The connection to the log was lost, or (*up*) replaced."""


class Sources:
    """The sources of one life of the daemon: without an orchestrator no *reads*, with reports only no *tap* either."""

    def __init__(
        self,
        *,
        reports: Input,
        tap: Tap | None = None,
        reads: Reads | None = None,
    ) -> None:
        self.reports: Final = reports
        self.tap: Final = tap
        self.reads: Final = reads


class Carrier:
    """One life: from a recovered memory until the log is another than the one it was recovered from.

    `source_loops` and `log_loops` run side by side; one that ends ends the life. `drain` comes when the sources are not
    to be read on.
    """

    def __init__(
        self,
        *,
        names: Names,
        core: Core,
        sources: Sources,
        writer: Log,
        reopen: Callable[[int], Awaitable[Log]],
        clock: Clock,
        watcher: Watcher,
        events_max: int,
        message_max: int,
        checkpoint_every_s: float,
    ) -> None:
        """*reopen* replaces a lost writer: it gets the highest number that the log confirmed.

        It raises `LogWentBackError` if the log does not reach so far any more.
        """
        self._names: Final = names
        self._core: Final = core
        self._sources: Final = sources
        self._writer = writer
        self._reopen: Final = reopen
        self._clock: Final = clock
        self._watcher: Final = watcher
        self._events_max: Final = events_max
        self._message_max: Final = message_max
        # The update of a report must fit into a message too: else one report would stop the daemon, for ever.
        self._report_max: Final = max(message_max - UPDATE_ROOM, message_max // 2)
        self._checkpoint_every_s: Final = checkpoint_every_s
        self._to_send: Final = asyncio.Event()
        self._writer_open: Final = asyncio.Event()
        self._writer_open.set()
        self._room: Final = asyncio.Event()
        self._room.set()
        self._sending = False
        self.frames_read = 0
        """Frames taken from the tap so far."""
        self.answers_read = 0
        """Answers of the orchestrator taken so far."""
        self._sooner: Final = asyncio.Event()
        self._sleeps_until: float | None = None
        self._idle: Final = asyncio.Event()

    def log_loops(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """The loops between lanes and log, by name. They go on while the daemon drains."""
        return {
            "send to the log": self._send_loop,
            "answers of the log": self._answer_loop,
            "timer": self._timer_loop,
            "checkpoint": self._checkpoint_loop,
        }

    def source_loops(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """The loops that bring events in."""
        found: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"reports": self._report_loop}
        if self._sources.tap is not None:
            found["frames"] = self._frame_loop
        if self._sources.reads is not None:
            found["answers of the orchestrator"] = self._read_loop
        return found

    def at_rest(self) -> Iterator[str]:
        """The loops that need not move now: nothing is there for them, or the log takes nothing of what they bring."""
        writer_open = self._writer_open.is_set()
        if not writer_open or not (self._sending or self._to_send.is_set()):
            yield "send to the log"
        if not writer_open or not self._core.lanes.in_flight:
            yield "answers of the log"
        due = self._wake_at()
        if due is None or due > self._clock.now():
            yield "timer"
        if not self._room.is_set():
            yield from self.source_loops()

    def look_everywhere(self) -> None:
        """Have all jobs listed, as soon as may be."""
        self._core.look_everywhere()
        self._follow()

    def announce(self, notice: Notice) -> None:
        """Have *notice* put into the log."""
        self._core.offer(notice)
        self._follow()

    async def drain(self) -> None:
        """After the sources have stopped: wait until everything that came in is confirmed, and have it said where."""
        await self._until_idle()
        self._core.lanes.checkpoint()
        self._follow()
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._core.lanes.waiting:
            self._idle.clear()
            await self._idle.wait()

    # -- the loops ----------------------------------------------------------------------------------------------------

    async def _report_loop(self) -> None:
        while True:
            await self._room.wait()
            deliveries = await self._sources.reports.batch()
            self._watcher.reports(len(deliveries))
            for delivery in deliveries:
                self._core.offer(self._report(delivery))
            self._follow()
            self._watcher.went_round("reports")

    def _report(self, delivery: Delivery) -> Work:
        if delivery.foreign:
            problem = DecodeError("foreign", delivery.foreign)
            return malformed_report(delivery.subject, delivery.data, delivery.position, problem)
        try:
            return decode_report(
                self._names,
                delivery.subject,
                delivery.data,
                delivery.position,
                delivery.traceparent,
                max_bytes=self._report_max,
            )
        except DecodeError as error:
            return malformed_report(delivery.subject, delivery.data, delivery.position, error)

    async def _frame_loop(self) -> None:
        tap = self._sources.tap
        assert tap is not None
        source, gaps, connections = self._core.source, tap.gaps, tap.connections
        while True:
            await self._room.wait()  # what comes meanwhile waits in the tap, which has a bound and tells a gap
            frames = await tap.batch()
            self.frames_read += len(frames)
            now = self._clock.now()
            if tap.gaps != gaps:
                self._watcher.gap(tap.gaps - gaps)
                gaps = tap.gaps
                self._core.look_everywhere()
            if tap.connections != connections:
                connections = tap.connections
                if isinstance(source, Readers):
                    source.probe_now()  # Bacalhau's NATS lives and dies with the orchestrator
            for raw in frames:
                frame = self._frame(raw)
                if isinstance(frame, Malformed):
                    self._core.offer(frame)
                elif frame is not None:
                    self._watcher.frame(frame)
                    self._core.frame(frame, now)
            self._follow()
            self._watcher.went_round("frames")

    def _frame(self, raw: RawFrame) -> Frame | Malformed | None:
        try:
            return decode_frame(raw.subject, raw.data, max_bytes=self._message_max)
        except DecodeError as error:
            return malformed_frame(raw.subject, raw.data, error)

    async def _read_loop(self) -> None:
        reads, readers = self._sources.reads, self._core.source
        assert reads is not None
        assert isinstance(readers, Readers)
        returns = readers.returns
        while True:
            await self._room.wait()
            answered = await reads.answers()
            self.answers_read += len(answered)
            now = self._clock.now()
            for one in answered:
                self._core.orchestrator_answered(one.read, one.answer, now)
                if isinstance(one.answer, OrchestratorError):
                    tell_failed(one.read, one.answer)
            self._watcher.answered(answered, readers.away)
            if readers.returns != returns:
                returns = readers.returns
                if self._sources.tap is not None:
                    self._sources.tap.reconnect_now()  # its NATS lives and dies with the orchestrator
            self._follow()
            self._watcher.went_round("answers of the orchestrator")

    async def _send_loop(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            await self._writer_open.wait()
            self._sending = True
            try:
                while asks := self._core.appends(self._clock.now()):
                    await self._writer.send(asks)
                    self._watcher.went_round("send to the log")
            except ConnectionLostError:
                continue  # the loop of the answers replaces the writer, and what was asked is asked again
            finally:
                self._sending = False
            self._watcher.went_round("send to the log")
            self._sleep_no_longer_than(self._core.lanes.wake_at())

    async def _answer_loop(self) -> None:
        while True:
            try:
                answers: list[tuple[int, Answer]] = await self._writer.answers()
            except ConnectionLostError as error:
                await self._replace_writer(error)
                continue
            now = self._clock.now()
            for token, answer in answers:
                self._core.log_answered(token, answer, now)
            self._follow()
            self._watcher.went_round("answers of the log")

    async def _replace_writer(self, error: ConnectionLostError) -> None:
        self._writer_open.clear()
        self._watcher.log_connection(up=False)
        log.warning("connection.lost", connection="log", reason=str(error))
        self._writer = await self._reopen(self._core.lanes.confirmed)
        self._core.lanes.disconnected()
        self._watcher.log_connection(up=True)
        self._writer_open.set()
        self._to_send.set()

    async def _timer_loop(self) -> None:
        while True:
            self._sooner.clear()
            now = self._clock.now()
            self._sleeps_until = self._wake_at()
            wait = None if self._sleeps_until is None else max(self._sleeps_until - now, 0.0)
            try:
                async with asyncio.timeout(wait):
                    await self._sooner.wait()
            except TimeoutError:
                self._to_send.set()
                self._follow()
            self._watcher.went_round("timer")

    async def _checkpoint_loop(self) -> None:
        while True:
            await asyncio.sleep(self._checkpoint_every_s)
            self._core.lanes.checkpoint()
            self._follow()
            self._watcher.went_round("checkpoint")

    # -- what came of it ----------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Have the core settle what came in, tell the watcher, ask the orchestrator, wake the sender."""
        lanes, reads, watcher = self._core.lanes, self._sources.reads, self._watcher
        now = self._clock.now()
        settled = self._core.settle(now)
        if settled.decided:
            watcher.decided(settled.decided)
        if settled.published:
            watcher.published(settled.published, now)
        for notice in settled.announced:
            watcher.announced(notice)
        if reads is not None and settled.reads:
            watcher.asked(settled.reads)
            reads.send(settled.reads)
        self._to_send.set()
        if lanes.held < self._events_max:
            self._room.set()
        else:
            self._room.clear()
        if not lanes.waiting:
            self._idle.set()
        self._sleep_no_longer_than(self._wake_at())

    def _wake_at(self) -> float | None:
        # While the writer is replaced nothing can be sent, however long it is due; nor while it takes nothing: the loop
        # that sends looks what is due when it has sent.
        return self._core.wake_at(log=self._writer_open.is_set() and not self._sending)

    def _sleep_no_longer_than(self, due: float | None) -> None:
        if due is not None and (self._sleeps_until is None or due < self._sleeps_until):
            self._sooner.set()
