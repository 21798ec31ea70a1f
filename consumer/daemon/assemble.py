"""The daemon, put together: the one place that knows every class. What each does is elsewhere.

A life is a memory recovered from the log and the loops that carry on from it. It ends when it is told to stop, or when
the log is not the one that it was recovered from; then another life begins.
"""

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter as MetricCounter

from consumer import __version__
from consumer.bacalhau.orchestrator import NEXT_STEP, Orchestrator, OrchestratorOptions
from consumer.bacalhau.pace import PaceOptions
from consumer.bacalhau.reads import Reads
from consumer.bacalhau.tap import DEAD_READER, Tap, TapOptions
from consumer.daemon.carry import Carrier, Sources
from consumer.daemon.supervise import Loop, beside, run_until, unless
from consumer.daemon.watch import BUCKET, INPUT, LOG, ORCHESTRATOR, REFUSED, TAP, Watch
from consumer.errors import (
    ConnectionLostError,
    ExitCode,
    LogWentBackError,
    MissingStreamError,
    ServerError,
    SettingsError,
    UnreachableError,
)
from consumer.fold import Lanes
from consumer.fold.asks import Read as FoundEntries
from consumer.fold.asks import ReadBack
from consumer.fold.dwell import Dwell
from consumer.fold.truth import judge_all, judge_last
from consumer.jetstream.connection import (
    Address,
    Connection,
    Outage,
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
from consumer.jetstream.topology import look_at
from consumer.jetstream.upkeep import Upkeep
from consumer.jetstream.writer import JetStreamWriter, open_writer
from consumer.join import Derivation, DerivationSettings, Join, JoinSettings
from consumer.model import NOWHERE, REPORTED, Identity, JobKey, Notice
from consumer.observe import Health, Metrics, serve, tell_left_out
from consumer.rules import Rules, load
from consumer.settings import Http, Settings, redact
from consumer.wire.subjects import Names, unescape

log = structlog.get_logger()

RETRY_S: Final = 1.0
LISTEN_S: Final = 5.0
"""So long the first list waits for the tap: what is published while it is read should be heard."""
STOCK_S: Final = 1.0
SILENT_S: Final = 3.0
"""An orchestrator that has owed us answers for so long, and gave none, is not ready."""
LOOK_S: Final = 5.0
"""Between two looks at the streams: no server tells that one is gone."""
ALLOWANCE_S: Final = 60.0
"""A loop that has something to do, and has not gone round for so long: the daemon does not live.

It is more than any one wait on a server takes: pings find a dead connection within 15 s, an answer is waited for 5 s.
"""
SLOW_ALLOWANCE_S: Final = 180.0
"""Added where several answers are waited for in a row, each for as long as a cluster may take to find a leader."""


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
        server: EmbeddedServer | None = None
        if embedded:
            server = await stack.enter_async_context(EmbeddedServer(Path(settings.embedded.folder)))
            url = server.url
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
        if settings.derives:
            log.warning(
                "daemon.derives",
                reason="bacalhau.url is set and orchestrator.url is not: states are derived from frames alone",
                unknown="Queued, most of Failed, Stopped from 1.5.2 on, jobs that no node matches, whatever was missed",
                next_step="set orchestrator.url (JOBSTATE_ORCHESTRATOR__URL), or mind the advisories gap and undecided",
            )
        if server is None:
            return await daemon.run(url, stop)
        return await beside(daemon.run(url, stop), server.keep(_tell_restart))


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
        self.upkeep: Final = Upkeep(self.names, settings.streams)
        self.parts: Final = {
            self.names.log: LOG,
            self.names.input: INPUT,
            self.names.refused: REFUSED,
            self.names.bucket_stream: BUCKET,
        }
        self.lost_told: Counter[str] = Counter()
        self.outages: Final = {name: Outage(name) for name in ("writer", "reader", "log")}
        self.health.need(*self.parts.values())
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
                self.health.failing(LOG, f"everything is read again: {error}")
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
                self.wait_for_server(address, error)
                await asyncio.sleep(RETRY_S)
            except MissingStreamError as error:
                if not self.upkeep.begun:
                    raise
                await stack.aclose()
                self.health.failing(LOG, str(error))
                self.say_streams()
                await asyncio.sleep(RETRY_S)

    def wait_for_server(self, address: Address, error: Exception) -> None:
        """Say that the log cannot be reached, and is waited for."""
        self.health.failing(LOG, f"no connection: {error}")
        self.outages["log"].tell("connection.waiting", address, str(error))

    def say_streams(self) -> None:
        """Say which streams are not as they must be. Of log and input their readers say more, while they are there."""
        for stream, part in self.parts.items():
            if why := self.upkeep.troubles.get(stream):
                self.health.failing(part, f"{stream}: {why}")
            elif part not in {LOG, INPUT}:
                self.health.ready(part)
        lost, self.lost_told = self.upkeep.lost - self.lost_told, self.upkeep.lost.copy()
        for stream, count in lost.items():
            self.metrics.streams_lost(self.parts[stream]).inc(count)

    async def _recover(self, address: Address, stack: contextlib.AsyncExitStack) -> "_Life":
        settings, names = self.settings, self.names
        writing = await connect_writer(address, "writer", outage=self.outages["writer"])
        stack.push_async_callback(writing.close)
        await require_server(writing)
        require_payload(writing, settings.limits.message_bytes)
        await self.upkeep.begin(writing)
        self.say_streams()
        reading = await connect_reader(address, "reader", outage=self.outages["reader"])
        stack.push_async_callback(reading.close)
        recovered = await recover(reading, names)
        form = await open_format(reading, names, self.rules, accept=settings.rules.accept, found=recovered.format)
        outcomes: Counter[tuple[str, str]] = Counter()
        writer = await open_writer(writing, names, created=recovered.mark.created, outcomes=outcomes)
        dwell = Dwell(self.rules, self.clock.wall())
        lanes = Lanes(self.rules, names, flight_max=settings.lanes.flight_max, dwell=dwell)
        await self._learn(lanes, recovered, writer)
        reports = JetStreamInput(reading, names)
        await reports.start(recovered.checkpoint)
        stack.push_async_callback(reports.stop)
        log.info("log.recovered", jobs=len(lanes.jobs), last_seq=recovered.mark.last_seq, input=str(reports.place))
        self.outages["log"].end()
        self.health.ready(LOG)
        self.health.ready(INPUT)
        life = _Life(
            self,
            address=address,
            mark=recovered.mark,
            reading=reading,
            writer=writer,
            outcomes=outcomes,
            lanes=lanes,
            dwell=dwell,
            reports=reports,
        )
        stack.push_async_callback(life.close_writer)
        if settings.orchestrator.url:
            orchestrator = Orchestrator(OrchestratorOptions.of(settings.orchestrator))
            await stack.enter_async_context(orchestrator)
            life.follow_orchestrator(orchestrator, form)
        elif settings.derives:
            life.follow_frames()
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
        outcomes: Counter[tuple[str, str]],
        lanes: Lanes,
        dwell: Dwell,
        reports: JetStreamInput,
    ) -> None:
        self._daemon: Final = daemon
        self._address: Final = address
        self._mark: Final = mark
        self._reading: Final = reading
        self._writer = writer
        self._outcomes: Final = outcomes
        self._lanes: Final = lanes
        self._dwell: Final = dwell
        self._reports: Final = reports
        self._sources = Sources(reports=reports)
        self._tap: Tap | None = None
        self._orchestrator: Orchestrator | None = None
        self._reads: Reads | None = None
        self._join: Join | Derivation | None = None
        self._silent = False
        self._told: dict[MetricCounter, int] = {}
        self._moved: dict[str, int] = {}
        # How far the input reached when it was last looked at, and when that was; and as of when it is read.
        self._input_reached = (0, float("-inf"))
        self._input_read_at = float("-inf")

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
        for job in self._open_jobs():
            self._join.resume(job)
        self._orchestrator = orchestrator
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

    def _open_jobs(self) -> Iterator[Identity]:
        """The jobs that the log has open.

        One whose name stands in its key as a digest comes back with a list, or the next execution that is asked for.
        """
        for key, known in self._lanes.jobs.items():
            if self._daemon.rules.is_terminal(known.state):
                continue
            namespace, job = (unescape(token) for token in key.split("."))
            if namespace is not None and job is not None:
                yield Identity(id=job, namespace=namespace, name=known.name, type=known.type)

    def follow_frames(self) -> None:
        """Without an orchestrator: derive from Bacalhau's frames what can be (`BACALHAU.md` 6.1)."""
        settings, daemon, lanes = self._daemon.settings, self._daemon, self._lanes
        derivation = Derivation(
            daemon.rules,
            lanes.known,
            DerivationSettings(executions_max=settings.limits.executions, jobs_max=settings.limits.jobs),
            origin=f"start-{self._mark.last_seq}",
        )
        for job in self._open_jobs():
            derivation.resume(job)
        self._join = derivation
        self._tap = Tap(TapOptions.of(settings.bacalhau))
        self._sources = Sources(reports=self._reports, join=derivation, tap=self._tap)

    async def run(self, stop: asyncio.Event) -> bool:
        """Carry on until *stop* and the drain after it; gives whether that came to its end."""
        daemon, settings = self._daemon, self._daemon.settings
        daemon.watch.follow_life(self._lanes, self._join, self._dwell, self._outcomes)
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
        if self._join is not None:
            sources["first look"] = lambda: self._first_look(carrier)  # it waits, and then there is nothing more to it
        try:
            return await run_until(
                stop,
                sources=sources,
                rest={name: self._expected(name, loop, more.get(name, 0.0)) for name, loop in rest.items()},
                drain=carrier.drain,
                deadline_s=settings.drain.deadline_s,
            )
        finally:
            self._export()
            daemon.health.failing(INPUT, "the life that read it has ended")

    def _expected(self, name: str, loop: Loop, more_s: float) -> Loop:
        """The same loop; while it runs, it must go round whenever it is not at rest (`_tell_progress`)."""
        health = self._daemon.health

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
        """Another connection for the writer, and a look at the log before anything is sent (`DESIGN.md` 7.7)."""
        daemon = self._daemon
        daemon.metrics.deaf("writer").inc(self._writer.deaf)
        await self._writer.close()
        while True:
            try:
                connection = await connect_writer(self._address, "writer", outage=daemon.outages["writer"])
            except UnreachableError as error:
                daemon.wait_for_server(self._address, error)
                await asyncio.sleep(RETRY_S)
                continue
            try:
                mark = await probe(connection, daemon.names)
                _compare(mark, msgspec.structs.replace(self._mark, last_seq=max(confirmed, self._mark.last_seq)))
                writer = await open_writer(connection, daemon.names, created=mark.created, outcomes=self._outcomes)
            except UnreachableError as error:
                await connection.close()
                daemon.wait_for_server(self._address, error)
                await asyncio.sleep(RETRY_S)
                continue
            except BaseException:
                await connection.close()
                raise
            self._writer = writer
            daemon.outages["log"].end()
            daemon.metrics.reconnects("writer").inc()
            return writer

    async def _first_look(self, carrier: Carrier) -> None:
        """List all jobs once the tap listens, or without it where it does not; and again when it does after that.

        Without an orchestrator nothing can be listed: what was missed is announced, once the tap listens.
        """
        if self._tap is not None and self._reads is None:
            await self._tap.listening()
        elif self._tap is not None:
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
        while True:
            daemon.watch.take_stock()
            tell_left_out()
            for found in self._reports.breaks:
                carrier.announce(_notice_of(found))
            self._reports.breaks.clear()
            self._tell_stuck(carrier)
            daemon.say_streams()
            self._say_connections()
            self._export()
            self._tell_progress(carrier)
            await asyncio.sleep(STOCK_S)

    def _say_connections(self) -> None:
        health = self._daemon.health
        if not self._reading.is_connected:
            health.failing(INPUT, f"the connection is lost ({self._reading.last_trouble}); it is tried again")
        elif self._reports.trouble:
            health.failing(INPUT, f"it is not read, and tried again: {self._reports.trouble}")
        elif self._daemon.names.input not in self._daemon.upkeep.troubles:
            health.ready(INPUT)
        if self._tap is not None:
            if self._tap.connected:
                health.ready(TAP)
            else:
                meanwhile = "nothing is heard" if self._reads is None else "changes are found by reading in turn"
                health.failing(TAP, f"not connected ({self._tap.last_error}); {meanwhile}")
        if (reads := self._reads) is not None:
            self._daemon.watch.reads_wait(reads.waiting, reads.waited_s, reads.in_flight, away=bool(reads.away))
        if self._orchestrator is not None and (silent_s := self._orchestrator.silent_s) > SILENT_S:
            # Given up only later: a list may take long. The next answer makes it ready again.
            health.failing(ORCHESTRATOR, f"its answers are none: slow; it has not said a word for {silent_s:.0f} s")
            if not self._silent:
                log.warning("orchestrator.silent", kind="slow", silent_s=round(silent_s), next_step=NEXT_STEP["slow"])
            self._silent = True
        else:
            self._silent = False

    def _export(self) -> None:
        """What the parts have counted by themselves: to the metrics."""
        metrics, reading, tap = self._daemon.metrics, self._reading, self._tap
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
        health, tap, reads = self._daemon.health, self._tap, self._reads
        moves = {"reports": self._reports.turns}
        alive = ["stock", *carrier.at_rest()]
        if tap is not None:
            moves["tap"] = tap.tries
            alive += ["tap"] if tap.connected else []
            alive += ["frames"] if tap.taken == carrier.frames_read else []
        if reads is not None:
            moves["requests to the orchestrator"] = reads.carried
            alive += ["requests to the orchestrator"] if reads.away or not reads.waiting else []
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
                    log.warning("streams.unanswered", reason=str(error))
            self._daemon.health.alive("streams")
            await asyncio.sleep(LOOK_S)

    async def _look_at_streams(self) -> None:
        """Whether the log is still the one that we know, what else is gone, and how far behind the input we are.

        Between two appends a log can be made anew without any connection being lost: nothing else would show it.
        """
        names, asked_at = self._daemon.names, self._daemon.clock.now()
        mark = await probe(self._reading, names)
        _compare(mark, msgspec.structs.replace(self._mark, last_seq=0))
        await self._daemon.upkeep.look(self._reading)
        self._daemon.say_streams()
        found = await look_at(self._reading, names.input)
        if found is not None:
            place = max(self._reports.place.sequence, found.state.first_seq - 1)  # what was purged is not waited for
            lag = max(found.state.last_seq - place, 0)
            self._daemon.metrics.input_lag.set(lag)
            self._input_reached = (found.state.last_seq if lag else 0, asked_at)

    def _tell_stuck(self, carrier: Carrier) -> None:
        reached, asked_at = self._input_reached
        if self._reports.place.sequence >= reached:
            self._input_read_at = asked_at
        clock = self._daemon.clock
        for stuck in self._dwell.take(clock.now(), clock.wall(), self._seen_at):
            carrier.announce(stuck)

    def _seen_at(self, key: JobKey) -> float | None:
        """When whoever has the say about the job was last seen to have nothing newer than the log (`Dwell.take`)."""
        known = self._lanes.known(key)
        if known is None or not self._lanes.is_idle(key):
            return None
        if known.source == REPORTED:
            return self._input_read_at
        if isinstance(self._join, Join):
            job = key.partition(".")[2]
            return self._join.agreed_at(unescape(job) or job)
        # Without an orchestrator nobody can be asked: what the frames say is all that there is to know.
        return self._daemon.clock.now() if self._tap is not None and self._tap.connected else None


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
        derive=settings.bacalhau.derive == "running",
    )
    if settings.scan.list == "auto":
        return chosen
    return msgspec.structs.replace(chosen, list_every_s=float(settings.scan.list))


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
