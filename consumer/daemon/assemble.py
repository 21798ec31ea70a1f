"""The daemon, put together: the one place that knows every class. What each does is elsewhere.

A life is a memory recovered from the log and the loops that carry on from it. It ends when it is told to stop, or when
the log is not the one that it was recovered from; then another life begins.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from consumer import __version__
from consumer.bacalhau.orchestrator import Orchestrator, OrchestratorOptions
from consumer.bacalhau.pace import PaceOptions
from consumer.bacalhau.reads import Reads
from consumer.bacalhau.tap import Tap, TapOptions
from consumer.daemon.carry import Carrier, Sources
from consumer.daemon.supervise import Loop, end, run_until, unless
from consumer.daemon.watch import INPUT, LOG, ORCHESTRATOR, TAP, Watch
from consumer.errors import (
    ConnectionLostError,
    ExitCode,
    LogWentBackError,
    ServerError,
    SettingsError,
    UnreachableError,
)
from consumer.fold import Lanes
from consumer.fold.asks import Read as FoundEntries
from consumer.fold.asks import ReadBack
from consumer.fold.truth import judge_all, judge_last
from consumer.jetstream.api import StreamInfo
from consumer.jetstream.connection import (
    Address,
    Connection,
    check_client,
    connect_reader,
    connect_writer,
    require_payload,
    require_server,
)
from consumer.jetstream.format import LogFormat, open_format
from consumer.jetstream.input import Break, JetStreamInput
from consumer.jetstream.pull import DoubtError
from consumer.jetstream.recovery import Mark, Recovered, probe, recover
from consumer.jetstream.server import EmbeddedServer
from consumer.jetstream.topology import ensure
from consumer.jetstream.writer import JetStreamWriter, open_writer
from consumer.join import Join, JoinSettings
from consumer.model import NOWHERE, Notice
from consumer.observe import Health, Metrics, serve, tell_left_out
from consumer.rules import Rules, load
from consumer.settings import Http, Settings, redact
from consumer.wire.subjects import Names

log = structlog.get_logger()

RETRY_S: Final = 1.0
LISTEN_S: Final = 5.0
"""So long the first list waits for the tap: what is published while it is read should be heard."""
STOCK_S: Final = 1.0
LOOK_EVERY: Final = 5
ALLOWANCE_S: Final = 15.0
"""A loop that goes round every second and has not for so long: the daemon does not live."""


class MonotonicClock:
    """Implements `ports.Clock`."""

    def now(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()


async def run_daemon(settings: Settings, stop: asyncio.Event, *, embedded: bool = False) -> ExitCode:
    """Follow the cluster until *stop*. Gives OK, or DRAIN if the drain's deadline passed; raises `JobstateError`.

    *embedded*: with a nats-server of our own in `embedded.folder`, in place of `nats.url`.
    """
    check_client()
    for warning in settings.warnings:
        log.warning("settings.warning", text=warning)
    daemon = _Daemon(settings, load(settings.rules.path))
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(_serve(settings.http, daemon.metrics, daemon.health))
        url = settings.nats.url
        if embedded:
            server = await stack.enter_async_context(EmbeddedServer(Path(settings.embedded.folder)))
            url = server.url
            keeper = asyncio.create_task(server.keep(_tell_restart), name="keep the server")
            stack.push_async_callback(end, [keeper])
        log.info(
            "daemon.started",
            version=__version__,
            cluster=settings.cluster,
            nats=redact(url),
            bacalhau=redact(settings.bacalhau.url),
            orchestrator=redact(settings.orchestrator.url),
            http=f"http://{settings.http.host}:{port}",
            rules=daemon.rules.name,
        )
        return await daemon.run(url, stop)


def _tell_restart(sentence: str) -> None:
    log.warning("server.ended", text=sentence)


def _settle_memory() -> None:
    """Have the collector leave alone what is there when a life begins: modules, rules, the jobs that are known.

    It stays as long as the life. To look at all of it takes 8 ms (56,000 objects), and every update waits meanwhile.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextlib.asynccontextmanager
async def _serve(http: Http, metrics: Metrics, health: Health) -> AsyncIterator[int]:
    """Serve on the port of the settings; a second daemon on one machine takes any where the default one is taken."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(serve(http, metrics, health))
        except SettingsError as error:
            if http.port != Http().port:
                raise
            log.warning("http.port_taken", reason=str(error), next_step="any free one is taken")
            port = await stack.enter_async_context(serve(msgspec.structs.replace(http, port=0), metrics, health))
        yield port


class _Daemon:
    """What outlives a life: the numbers, the health, the rules."""

    def __init__(self, settings: Settings, rules: Rules) -> None:
        self.settings: Final = settings
        self.rules: Final = rules
        self.names: Final = Names(settings.cluster)
        self.clock: Final = MonotonicClock()
        self.metrics: Final = Metrics(settings.limits.label_values)
        self.health: Final = Health()
        self.watch: Final = Watch(self.metrics, self.health, self.clock, settings.log.lines_per_s)
        self.health.need(LOG, INPUT)
        if settings.bacalhau.url:
            self.health.need(TAP)
        if settings.orchestrator.url:
            self.health.need(ORCHESTRATOR)

    async def run(self, url: str, stop: asyncio.Event) -> ExitCode:
        """One life after the other."""
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    life = await unless(stop, self._begin(url, stack))
                    if life is None:
                        return ExitCode.OK
                    _settle_memory()
                    drained = await life.run(stop)
            except LogWentBackError as error:
                log.warning("log.went_back", reason=str(error), next_step="everything is read again")
                self.health.failing(LOG, "the log went back; everything is read again")
                await unless(stop, asyncio.sleep(RETRY_S))
                if stop.is_set():
                    return ExitCode.OK
                continue
            log.info("daemon.stopped", drained=drained)
            return ExitCode.OK if drained else ExitCode.DRAIN

    async def _begin(self, url: str, stack: contextlib.AsyncExitStack) -> "_Life":
        """Connect, see to the streams, and read the log; tried until the server is there."""
        address = Address.of(self.settings.nats, self.settings.cluster, url)
        while True:
            try:
                return await self._recover(address, stack)
            except (UnreachableError, ConnectionLostError, DoubtError, TimeoutError) as error:
                await stack.aclose()
                self.health.failing(LOG, f"no connection: {error}")
                log.warning("connection.waiting", connection="log", reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _recover(self, address: Address, stack: contextlib.AsyncExitStack) -> "_Life":
        settings, names = self.settings, self.names
        writing = await connect_writer(address, "writer")
        stack.push_async_callback(writing.close)
        await require_server(writing)
        require_payload(writing, settings.limits.message_bytes)
        await ensure(writing, names, settings.streams)
        reading = await connect_reader(address, "reader")
        stack.push_async_callback(reading.close)
        recovered = await recover(reading, names)
        form = await open_format(reading, names, self.rules, accept=settings.rules.accept, found=recovered.format)
        writer = await open_writer(writing, names, created=recovered.mark.created)
        lanes = Lanes(self.rules, names, flight_max=settings.lanes.flight_max)
        await self._learn(lanes, recovered, writer)
        reports = JetStreamInput(reading, names)
        await reports.start(recovered.checkpoint)
        stack.push_async_callback(reports.stop)
        log.info("log.recovered", jobs=len(lanes.jobs), last_seq=recovered.mark.last_seq, input=str(reports.place))
        self.health.ready(LOG)
        self.health.ready(INPUT)
        life = _Life(
            self,
            address=address,
            mark=recovered.mark,
            reading=reading,
            writer=writer,
            lanes=lanes,
            reports=reports,
        )
        stack.push_async_callback(life.close_writer)
        if settings.orchestrator.url:
            orchestrator = Orchestrator(OrchestratorOptions.of(settings.orchestrator))
            await stack.enter_async_context(orchestrator)
            life.follow_orchestrator(orchestrator, form)
        return life

    async def _learn(self, lanes: Lanes, recovered: Recovered, writer: JetStreamWriter) -> None:
        """Take in what the log has of each job; where its last entries do not tell, read all of the job's."""
        unsure = []
        for key, entries in recovered.entries.items():
            truth = judge_last(self.names, key, entries)
            if truth is None:
                unsure.append(key)
            else:
                lanes.learn(key, truth)
        for key in unsure:
            found = await _read_whole(writer, self.names.states(key))
            lanes.learn(key, judge_all(self.names, key, found.entries))
        if recovered.checkpoint is not None or recovered.checkpoint_number:
            lanes.restore_checkpoint(recovered.checkpoint or NOWHERE, recovered.checkpoint_number)


class _Life:
    """One life: its parts, and the loops that they make."""

    def __init__(  # noqa: PLR0913 - what a recovery found, given once
        self,
        daemon: _Daemon,
        *,
        address: Address,
        mark: Mark,
        reading: Connection,
        writer: JetStreamWriter,
        lanes: Lanes,
        reports: JetStreamInput,
    ) -> None:
        self._daemon: Final = daemon
        self._address: Final = address
        self._mark: Final = mark
        self._reading: Final = reading
        self._writer = writer
        self._lanes: Final = lanes
        self._reports: Final = reports
        self._sources = Sources(reports=reports)
        self._tap: Tap | None = None
        self._reads: Reads | None = None
        self._join: Join | None = None
        self._rounds = 0

    def follow_orchestrator(self, orchestrator: Orchestrator, form: LogFormat) -> None:
        """Read the record too, and listen to Bacalhau's frames if its NATS is named."""
        settings, daemon = self._daemon.settings, self._daemon
        backfill = settings.scan.backfill_s
        backfill_ns = None if backfill == float("inf") else int(backfill * 1e9)
        since = form.since_ns
        self._join = Join(
            daemon.rules,
            self._lanes.known,
            _join_settings(settings),
            since_ns=None if since is None else 0 if backfill_ns is None else max(since - backfill_ns, 0),
        )
        self._reads = Reads(orchestrator, daemon.clock, PaceOptions.of(settings.orchestrator))
        self._tap = Tap(TapOptions.of(settings.bacalhau)) if settings.bacalhau.url else None
        self._sources = Sources(
            reports=self._reports,
            join=self._join,
            tap=self._tap,
            reads=self._reads,
            beginning=form if since is None else None,
            backfill_ns=backfill_ns,
        )

    async def run(self, stop: asyncio.Event) -> bool:
        """Carry on until *stop* and the drain after it; gives whether that came to its end."""
        daemon, settings = self._daemon, self._daemon.settings
        daemon.watch.follow_life(self._lanes, self._join)
        carrier = Carrier(
            names=daemon.names,
            lanes=self._lanes,
            sources=self._sources,
            writer=self._writer,
            reopen=self._reopen,
            clock=daemon.clock,
            watcher=daemon.watch,
            events_max=settings.lanes.events_max,
            message_max=settings.limits.message_bytes,
            checkpoint_every_s=settings.checkpoint.every_s,
        )
        sources: dict[str, Loop] = dict(carrier.source_loops())
        if self._tap is not None:
            sources["tap"] = self._tap.run
        if self._reads is not None:
            sources["requests to the orchestrator"] = self._reads.run
        if self._join is not None:
            sources["first look"] = lambda: self._first_look(carrier)
        rest: dict[str, Loop] = dict(carrier.log_loops())
        rest["stock"] = lambda: self._stock_loop(carrier)
        for name, allowance in (("stock", ALLOWANCE_S), ("checkpoint", ALLOWANCE_S + settings.checkpoint.every_s)):
            daemon.health.expect(name, allowance)
        try:
            return await run_until(
                stop, sources=sources, rest=rest, drain=carrier.drain, deadline_s=settings.drain.deadline_s
            )
        finally:
            # The next life may have to wait for the server: that is no loop that stands still.
            for name in ("stock", "checkpoint"):
                daemon.health.done(name)
            daemon.health.failing(INPUT, "the life that read it has ended")

    async def close_writer(self) -> None:
        """End the connection of the writer that is on now."""
        await self._writer.close()

    async def _reopen(self, confirmed: int) -> JetStreamWriter:
        """Another connection for the writer, and a look at the log before anything is sent (`DESIGN.md` 7.7)."""
        await self._writer.close()
        while True:
            try:
                connection = await connect_writer(self._address, "writer")
            except UnreachableError as error:
                self._daemon.health.failing(LOG, f"no connection: {error}")
                log.warning("connection.waiting", connection="log", reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            try:
                mark = await probe(connection, self._daemon.names)
                _compare(mark, msgspec.structs.replace(self._mark, last_seq=max(confirmed, self._mark.last_seq)))
                self._writer = await open_writer(connection, self._daemon.names, created=mark.created)
            except UnreachableError as error:
                await connection.close()
                log.warning("connection.waiting", connection="log", reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            except BaseException:
                await connection.close()
                raise
            return self._writer

    async def _first_look(self, carrier: Carrier) -> None:
        """List all jobs once the tap listens, or without it where it does not; and again when it does after that."""
        assert self._join is not None
        if self._tap is not None:
            try:
                async with asyncio.timeout(LISTEN_S):
                    await self._tap.listening()
            except TimeoutError:
                log.warning("tap.waiting", next_step="jobs are listed all the same, and again when it listens")
                carrier.look_everywhere()
                await self._tap.listening()
        carrier.look_everywhere()
        await asyncio.Event().wait()

    async def _stock_loop(self, carrier: Carrier) -> None:
        """Once a second: how it all stands."""
        daemon = self._daemon
        slow = 0
        while True:
            daemon.watch.take_stock()
            tell_left_out()
            for found in self._reports.breaks:
                carrier.announce(_notice_of(found))
            self._reports.breaks.clear()
            self._say_connections()
            if self._reading.slow != slow:
                daemon.metrics.slow_consumers("reader").inc(self._reading.slow - slow)
                slow = self._reading.slow
            if self._rounds % LOOK_EVERY == 0:
                await self._look_at_streams()
            self._rounds += 1
            daemon.health.alive("stock")
            await asyncio.sleep(STOCK_S)

    def _say_connections(self) -> None:
        health = self._daemon.health
        if self._reading.is_connected:
            health.ready(INPUT)
        else:
            health.failing(INPUT, f"the connection is lost ({self._reading.last_trouble}); it is tried again")
        if self._tap is not None:
            if self._tap.connected:
                health.ready(TAP)
            else:
                health.failing(TAP, f"not connected ({self._tap.last_error}); changes are found by reading in turn")
        if self._reads is not None:
            self._daemon.metrics.reads_in_flight.set(self._reads.in_flight)

    async def _look_at_streams(self) -> None:
        """Whether the log is still the one that we know, and how far behind the input we are.

        Between two appends a log can be made anew without any connection being lost: nothing else would show it.
        """
        if not self._reading.is_connected:
            return
        names = self._daemon.names
        try:
            mark = await probe(self._reading, names)
            _compare(mark, msgspec.structs.replace(self._mark, last_seq=0))
            info = await self._reading.ask(f"$JS.API.STREAM.INFO.{names.input}", b"", StreamInfo, within_s=STOCK_S)
        except ServerError as error:
            log.warning("stock.unanswered", reason=str(error))
            return  # what is wrong with the connection, it says by itself
        if info.error is None:
            self._daemon.metrics.input_lag.set(max(info.state.last_seq - self._reports.place.sequence, 0))


async def _read_whole(writer: JetStreamWriter, subjects: str) -> FoundEntries:
    """All entries of a job, read through the writer before any lane uses it."""
    while True:
        await writer.send([ReadBack(token=0, filter=subjects, whole=True)])
        for _, answer in await writer.answers():
            if isinstance(answer, FoundEntries):
                return answer


def _compare(found: Mark, known: Mark) -> None:
    """Raise `LogWentBackError` unless *found* is the log that we know, at least as long as we know it."""
    if found.created != known.created:
        raise LogWentBackError(f"the log was made anew at {found.created}")
    if found.last_seq < known.last_seq:
        raise LogWentBackError(f"the log ends at {found.last_seq}, and had confirmed {known.last_seq}")


def _join_settings(settings: Settings) -> JoinSettings:
    chosen = JoinSettings(
        scan_rate=settings.scan.rate,
        executions_max=settings.limits.executions,
        jobs_max=settings.limits.jobs,
    )
    if settings.scan.list == "auto":
        return chosen
    return msgspec.structs.replace(chosen, list_every_s=float(settings.scan.list), list_share=0.0)


def _notice_of(found: Break) -> Notice:
    texts = {
        "gap": "entries of the input are gone: reports between these two may be missing",
        "anew": "the input was made anew: it is read from its first entry",
        "tail": "the input has lost its tail: it is read from its first entry; reports after it may be missing",
    }
    return Notice(
        kind="input",
        origin=f"{found.kind}-{found.after.sequence}-{found.after.time_ns}-{found.next}",
        text=texts.get(found.kind, found.kind),
        facts={"kind": found.kind, "after": str(found.after), "next": found.next},
    )
