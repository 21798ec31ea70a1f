"""One session of the daemon: what is recovered from the log, the loops that go on from there, and what is told of them.

`consumer.daemon.assemble` recovers it, and begins another when it ends; `runtime` is what outlives it, `following` what
it listens to, `carry` its loops between core and world.
"""

import asyncio
import contextlib
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter as MetricCounter

from consumer.bacalhau.namesake import compare_names
from consumer.bacalhau.tap import DEAD_READER
from consumer.core import Core, Lanes, Readers
from consumer.core.appends import Outcomes
from consumer.core.dwell import Dwell
from consumer.daemon.carry import Carrier, Sources
from consumer.daemon.following import Following
from consumer.daemon.runtime import Runtime
from consumer.daemon.supervise import Loop, run_until, unless
from consumer.daemon.watch import INPUT, ORCHESTRATOR, TAP
from consumer.errors import LogWentBackError, RefusedError, ServerError, UnreachableError
from consumer.faults import NEXT_STEP
from consumer.jetstream.input import JetStreamInput, notice_of
from consumer.jetstream.recovery import Mark, mark_of, probe
from consumer.jetstream.topology import survey
from consumer.jetstream.upkeep import Memory
from consumer.jetstream.writer import JetStreamWriter, open_writer
from consumer.model import REPORTED, JobKey
from consumer.nats import faults
from consumer.nats.address import Address
from consumer.nats.api import StreamInfo
from consumer.nats.connect import connect_writer
from consumer.nats.connection import Connection
from consumer.observe import tell_left_out
from consumer.wire.subjects import unescape

log = structlog.get_logger()

RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 8.0
LISTEN_S: Final = 5.0
"""So long at most the first list waits for the tap: what is published while it is read should be heard."""
STOCK_S: Final = 1.0
SILENT_S: Final = 3.0
"""An orchestrator that has owed us answers for so long, and gave none, is not ready."""
LOOK_S: Final = 5.0
"""Between two looks at the streams: no server tells that one is gone."""
ALLOWANCE_S: Final = 60.0
"""A loop that has something to do, and has not gone round for so long: the daemon does not live.

It is more than any one wait on a server takes: pings find a dead connection within 15 s, an answer is waited for 5 s.
"""
ENDING: Final = "the end of a life"
ENDING_S: Final = 30.0
"""A life whose loops were told to end, and that has not ended for so long: the daemon does not live.

Each loop is cancelled once a second, and each connection closes within one.
"""
SLOW_ALLOWANCE_S: Final = 180.0
"""Added where several answers are waited for in a row, each for as long as a cluster may take to find a leader."""


class Session:
    """What one recovery found, and the loops that go on from there."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        address: Address,
        mark: Mark,
        reading: Connection,
        writer: JetStreamWriter,
        outcomes: Outcomes,
        lanes: Lanes,
        dwell: Dwell,
        reports: JetStreamInput,
        following: Following,
    ) -> None:
        self._runtime: Final = runtime
        self._address: Final = address
        self._mark: Final = mark
        self._reading: Final = reading
        self._writer = writer
        self._outcomes: Final = outcomes
        self._lanes: Final = lanes
        self._dwell: Final = dwell
        self._reports: Final = reports
        self._following: Final = following
        self._tap: Final = following.tap
        self._orchestrator: Final = following.orchestrator
        self._reads: Final = following.reads
        self._source: Final = following.source
        self._silent = False
        self._told: dict[MetricCounter, int] = {}
        self._moved: dict[str, int] = {}
        # How far the input reached when it was last looked at, and when that was; and as of when it is read.
        self._input_reached = (0, float("-inf"))
        self._input_read_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> bool:
        """Carry on until *stop* and the drain after it; gives whether that came to its end.

        While the log has no beginning, only until it has one: the next session reads the record by it.
        """
        runtime, settings = self._runtime, self._runtime.settings
        self._reports.tell = self._say_input
        runtime.watch.follow_life(self._lanes, self._source, self._dwell, self._outcomes)
        carrier = Carrier(
            names=runtime.names,
            core=Core(self._lanes, self._source),
            sources=Sources(
                reports=self._reports,
                tap=self._tap,
                reads=self._reads,
            ),
            writer=self._writer,
            reopen=self._reopen,
            clock=runtime.clock,
            watcher=runtime.watch,
            events_max=settings.lanes.events_max,
            message_max=settings.limits.message_bytes,
            checkpoint_every_s=settings.checkpoint.every_s,
        )
        sources: dict[str, Loop] = dict(carrier.source_loops())
        if self._tap is not None:
            sources["tap"] = self._tap.run
        if self._reads is not None:
            sources["requests to the orchestrator"] = self._reads.run
        rest: dict[str, Loop] = dict(carrier.log_loops())
        rest["stock"] = lambda: self._stock_loop(carrier)
        rest["streams"] = self._stream_loop
        more = {
            "checkpoint": settings.checkpoint.every_s,
            "requests to the orchestrator": settings.orchestrator.timeout_s,
            "streams": SLOW_ALLOWANCE_S,
            "reports": SLOW_ALLOWANCE_S,
        }
        sources = {name: self._expected(name, loop, more.get(name, 0.0)) for name, loop in sources.items()}
        if self._source is not None:
            sources["first look"] = lambda: self._first_look(carrier)  # it waits, and then there is nothing more to it
        if (
            (tap := self._tap) is not None
            and (asked := self._orchestrator) is not None
            and isinstance(readers := self._source, Readers)
        ):
            sources["names"] = lambda: compare_names(tap, asked, lambda: readers.turn_s(runtime.clock.now()))
        over = stop
        if self._following.beginning is not None:
            over = asyncio.Event()
            sources["beginning"] = lambda: self._begin(stop, over)
        try:
            return await run_until(
                over,
                sources=sources,
                rest={name: self._expected(name, loop, more.get(name, 0.0)) for name, loop in rest.items()},
                drain=carrier.drain,
                deadline_s=settings.drain.deadline_s,
                draining=lambda: self._say_drain(stop),
                ending=lambda: runtime.health.expect(ENDING, ENDING_S),
            )
        finally:
            self._export()
            runtime.health.failing(INPUT, "the life that read it has ended")

    def _expected(self, name: str, loop: Loop, more_s: float) -> Loop:
        """The same loop; while it runs, it must go round whenever it is not at rest (`_tell_progress`)."""
        health = self._runtime.health

        async def run() -> None:
            health.expect(name, ALLOWANCE_S + more_s)
            try:
                await loop()
            finally:
                # A drain may take long, and the next life may have to wait for the server: nothing stands still then.
                health.done(name)

        return run

    async def close_writer(self) -> None:
        """End the connection of the writer that is on now."""
        await self._writer.close()

    async def _reopen(self, confirmed: int) -> JetStreamWriter:
        """Another connection for the writer, and a look at the log before anything is sent (design/design.md 7.7)."""
        runtime = self._runtime
        runtime.metrics.deaf("writer").inc(self._writer.deaf)
        await self._writer.close()
        pause_s = RETRY_S
        while True:
            try:
                connection = await connect_writer(self._address, "writer", outage=runtime.outages["writer"])
            except (UnreachableError, RefusedError) as error:
                # It had let us in: a credential that was changed there is changed here too, sooner or later.
                runtime.wait_for_server(self._address, error)
                await asyncio.sleep(pause_s)
                if isinstance(error, RefusedError):
                    pause_s = min(2 * pause_s, RETRY_MAX_S)
                continue
            try:
                mark = await probe(connection, runtime.names)
                _compare(mark, msgspec.structs.replace(self._mark, last_seq=max(confirmed, self._mark.last_seq)))
                writer = await open_writer(connection, runtime.names, created=mark.created, outcomes=self._outcomes)
            except UnreachableError as error:
                await connection.close()
                runtime.wait_for_server(self._address, error)
                await asyncio.sleep(pause_s)
                if error.is_denied:  # somebody has to mend that, and each try is two lines of the log
                    pause_s = min(2 * pause_s, RETRY_MAX_S)
                else:
                    runtime.watch.silent()  # a server of our own is mended by how long that lasts
                continue
            except BaseException:
                await connection.close()
                raise
            self._writer = writer
            runtime.outages["log"].end()
            runtime.metrics.reconnects("writer").inc()
            return writer

    def _say_drain(self, stop: asyncio.Event) -> None:
        if stop.is_set():  # else another session follows at once
            log.info("drain.began", deadline_s=self._runtime.settings.drain.deadline_s)

    async def _begin(self, stop: asyncio.Event, over: asyncio.Event) -> None:
        """Have the log's beginning agreed on. Then, or with *stop*, this session is *over*."""
        assert self._following.beginning is not None
        await unless(stop, self._following.beginning.agree())
        over.set()
        await asyncio.Event().wait()

    async def _first_look(self, carrier: Carrier) -> None:
        """List all jobs once the tap listens, or without it where that fails; and again when it does after that.

        Without an orchestrator nothing can be listed: what was missed is announced, once the tap listens.
        """
        if self._tap is not None and self._reads is None:
            await self._tap.listening()
        elif self._tap is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_S):
                    await self._tap.tried()
            if not self._tap.connected:
                log.warning(
                    "tap.waiting",
                    server=self._tap.where,
                    reason=self._tap.last_error or "no answer yet",
                    meanwhile="jobs are listed all the same, and again when it listens",
                    next_step=self._tap.next_step,
                )
                carrier.look_everywhere()
                await self._tap.listening()
        carrier.look_everywhere()
        await asyncio.Event().wait()

    async def _stock_loop(self, carrier: Carrier) -> None:
        """Once a second: how it all stands."""
        runtime = self._runtime
        while True:
            runtime.watch.take_stock()
            tell_left_out()
            for found in self._reports.breaks:
                carrier.announce(notice_of(found))
            self._reports.breaks.clear()
            self._tell_stuck(carrier)
            runtime.say_streams()
            self._say_connections()
            self._export()
            self._tell_progress(carrier)
            await asyncio.sleep(STOCK_S)

    def _say_input(self) -> None:
        health = self._runtime.health
        if not self._reading.is_connected:
            health.failing(INPUT, f"the connection is lost ({self._reading.last_trouble}); it is tried again")
        elif self._reports.trouble:
            health.failing(INPUT, f"it is not read, and tried again: {self._reports.trouble}")
        elif self._runtime.names.input not in self._runtime.upkeep.troubles:
            health.ready(INPUT)

    def _say_connections(self) -> None:
        health = self._runtime.health
        self._say_input()
        if self._tap is not None:
            if self._tap.connected:
                health.ready(TAP)
            else:
                meanwhile = "nothing is heard" if self._reads is None else "changes are found by reading in turn"
                tap = self._tap
                reason = f" ({tap.last_error}): {tap.next_step}" if tap.last_error else ""
                health.failing(TAP, f"{meanwhile}: not connected to {tap.where}{reason}")
        if isinstance(readers := self._source, Readers):
            now = self._runtime.clock.now()
            waiting, waited_s = readers.waiting(now), readers.waited_s(now)
            self._runtime.watch.reads_wait(waiting, waited_s, readers.in_flight, away=bool(readers.away))
        if self._orchestrator is not None and (silent_s := self._orchestrator.silent_s) > SILENT_S:
            # Given up only later: a list may take long. The next answer makes it ready again.
            health.failing(
                ORCHESTRATOR, f"its responses are invalid: slow; it has not said a word for {silent_s:.0f} s"
            )
            if not self._silent:
                log.warning("orchestrator.silent", kind="slow", silent_s=round(silent_s), next_step=NEXT_STEP["slow"])
            self._silent = True
        else:
            self._silent = False

    def _export(self) -> None:
        """What the parts have counted by themselves: to the metrics."""
        metrics, reading, tap = self._runtime.metrics, self._reading, self._tap
        numbers = {
            metrics.reconnects("reader"): max(reading.connects - 1, 0),
            metrics.deaf("reader"): reading.deaf,
            metrics.slow_consumers("reader"): reading.slow,
            metrics.input_restarts: self._reports.restarts,
        }
        if tap is not None:
            numbers[metrics.reconnects("tap")] = max(tap.connections - 1, 0)
            numbers[metrics.deaf("tap")] = tap.gaps_by[DEAD_READER]
            numbers[metrics.tap_drops] = tap.dropped
            for cause, count in tap.gaps_by.items():
                numbers[metrics.tap_gaps(cause)] = count
        for counter, number in numbers.items():
            counter.inc(number - self._told.get(counter, 0))
        self._told |= numbers

    def _tell_progress(self, carrier: Carrier) -> None:
        """Say of every loop that it lives, if it has moved or need not: one with nothing to do stands still rightly.

        What it has moved by is told where it goes round (`Watch.went_round`), or by the part whose loop it is.
        """
        health, tap, reads = self._runtime.health, self._tap, self._reads
        moves = {"reports": self._reports.turns}
        alive = ["stock", *carrier.at_rest()]
        if tap is not None:
            moves["tap"] = tap.tries
            alive += ["tap"] if tap.connected else []
            alive += ["frames"] if tap.taken == carrier.frames_read else []
        if reads is not None:
            moves["requests to the orchestrator"] = reads.carried
            alive += ["requests to the orchestrator"] if reads.sent == reads.carried else []
            alive += ["answers of the orchestrator"] if reads.carried == carrier.answers_read else []
        alive += [name for name, count in moves.items() if count != self._moved.get(name)]
        self._moved = moves
        for name in alive:
            health.alive(name)

    async def _stream_loop(self) -> None:
        """Every few seconds: whether all streams are there. Nothing tells it otherwise, for most no entry comes."""
        while True:
            if self._reading.is_connected:  # what is wrong with the connection, it says by itself
                try:
                    await self._look_at_streams()
                except ServerError as error:
                    log.warning("streams.unanswered", reason=faults.with_step(error))
            self._runtime.health.alive("streams")
            await asyncio.sleep(LOOK_S)

    async def _look_at_streams(self) -> None:
        """Whether the log is still the one that we know, what else is gone, and how far behind the input we are.

        Between two appends a log can be made anew without any connection being lost: nothing else would show it.
        """
        runtime, names, asked_at = self._runtime, self._runtime.names, self._runtime.clock.now()
        memory = Memory(self._lanes.jobs, len(self._lanes.jobs), self._lanes.last)
        streams = await survey(self._reading, names)
        log_stream = streams[names.log]
        if not isinstance(log_stream, ServerError):
            known = msgspec.structs.replace(self._mark, last_seq=0)
            _compare(mark_of(self._reading, names, log_stream), known)
        await runtime.upkeep.look(self._reading, streams, memory)
        runtime.say_streams()
        found = streams[names.input]
        if isinstance(found, StreamInfo):
            place = max(self._reports.position.sequence, found.state.first_seq - 1)  # what was purged is not waited for
            lag = max(found.state.last_seq - place, 0)
            self._runtime.metrics.input_lag.set(lag)
            self._input_reached = (found.state.last_seq if lag else 0, asked_at)
            if lag:
                self._reports.reaches(found.state.last_seq)

    def _tell_stuck(self, carrier: Carrier) -> None:
        reached, asked_at = self._input_reached
        if self._reports.position.sequence >= reached:
            self._input_read_at = asked_at
        clock = self._runtime.clock
        for stuck in self._dwell.take(clock.now(), clock.wall(), self._seen_at):
            carrier.announce(stuck)

    def _seen_at(self, key: JobKey) -> float | None:
        """When whoever has the say about the job was last seen to have nothing newer than the log (`Dwell.take`)."""
        known = self._lanes.known(key)
        if known is None or not self._lanes.is_idle(key):
            return None
        if known.source == REPORTED:
            return self._input_read_at
        if isinstance(self._source, Readers):
            job = key.partition(".")[2]
            return self._source.agreed_at(unescape(job) or job)
        # Without an orchestrator nobody can be asked: what the frames say is all that there is to know.
        return self._runtime.clock.now() if self._tap is not None and self._tap.connected else None


def _compare(found: Mark, known: Mark) -> None:
    """Raise `LogWentBackError` unless *found* is the log that we know, at least as long as we know it."""
    if found.created != known.created:
        raise LogWentBackError(f"the log was made anew at {found.created}")
    if found.last_seq < known.last_seq:
        raise LogWentBackError(f"the log ends at {found.last_seq}, and had confirmed {known.last_seq}")
