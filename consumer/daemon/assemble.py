"""The daemon, put together: one session after the other, each recovered from the log. Each part is elsewhere.

A session (`consumer.daemon.session`) ends when it is told to stop, or when the log is not the one that it was recovered
from; then another begins.
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import structlog

from consumer import __version__
from consumer.bacalhau.orchestrator import Orchestrator
from consumer.core import Lanes
from consumer.core.appends import Outcomes
from consumer.core.dwell import Dwell
from consumer.core.verify import EntryVerifier, verify_last
from consumer.daemon.following import Following, follow_frames, follow_orchestrator
from consumer.daemon.runtime import Runtime
from consumer.daemon.session import ENDING, Session
from consumer.daemon.supervise import beside, unless
from consumer.daemon.watch import LOG
from consumer.errors import (
    ConnectionLostError,
    ExitCode,
    ListenError,
    LogWentBackError,
    MissingStreamError,
    RefusedError,
    UnreachableError,
)
from consumer.jetstream.format import open_format
from consumer.jetstream.input import JetStreamInput
from consumer.jetstream.pull import DoubtError
from consumer.jetstream.recovery import Recovered, read_whole, recover
from consumer.jetstream.server import DISK_FULL, MEND_AFTER_S, EmbeddedServer
from consumer.jetstream.writer import open_writer
from consumer.model import NOWHERE, JobKey
from consumer.nats.address import Address
from consumer.nats.api import time_ns
from consumer.nats.compat import check_client
from consumer.nats.connect import connect_reader, connect_writer
from consumer.nats.connection import Connection
from consumer.nats.outage import Outage
from consumer.nats.require import require_payload, require_server
from consumer.observe import Health, Metrics, serve, url_of
from consumer.rules import load
from consumer.settings import RULES_FILE, Http, Settings, redact

log = structlog.get_logger()

RETRY_S: Final = 1.0


async def run_daemon(settings: Settings, stop: asyncio.Event, *, embedded: bool = False) -> ExitCode:
    """Follow the cluster until *stop*. Gives OK, or DRAIN if the drain's deadline passed; raises `JobstateError`.

    *embedded*: with a nats-server of our own in `embedded.folder`, in place of `nats.url`.
    """
    check_client()
    for warning in settings.warnings:
        log.warning("settings.warning", text=warning)
    daemon = _Daemon(settings, load(settings.rules.path, RULES_FILE))
    async with contextlib.AsyncExitStack() as stack:
        url = settings.nats.url
        server: EmbeddedServer | None = None
        if embedded:
            server = EmbeddedServer(Path(settings.embedded.folder), start_s=settings.embedded.start_s)
            stack.push_async_callback(server.stop)
            await unless(stop, server.launch())
        port = await stack.enter_async_context(_serve(settings, daemon.metrics, daemon.health))
        http = url_of(settings.http.host, port)
        if server is not None:
            # To recover its streams may take long: /readyz says so meanwhile.
            log.info("server.starting", folder=settings.embedded.folder, http=http)
            if not stop.is_set():
                await unless(stop, beside(server.until_ready(), daemon.tell_recovery(server)))
            if stop.is_set():
                return ExitCode.OK
            url = server.url
            daemon.watch.look_at = f"{server.log_file} and its disk"
        log.info(
            "daemon.started",
            version=__version__,
            cluster=settings.cluster,
            nats=redact(url),
            bacalhau=redact(settings.bacalhau.url),
            orchestrator=redact(settings.orchestrator.url),
            http=http,
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
        mending = server.mend(lambda: daemon.watch.unconfirmed_s, daemon.tell_of_server, after_s=MEND_AFTER_S)
        keeping = beside(daemon.run(url, stop), server.keep(_tell_restart))
        return await beside(beside(keeping, mending), daemon.tell_recovery(server))


def _tell_restart(sentence: str) -> None:
    log.warning("server.ended", text=sentence)


def _settle_memory() -> None:
    """Have the collector leave alone what is there when a session begins: modules, rules, the jobs that are known.

    It stays as long as the session. To look at all of it takes 8 ms (56,000 objects), and every update waits meanwhile.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextlib.asynccontextmanager
async def _serve(settings: Settings, metrics: Metrics, health: Health) -> AsyncIterator[int]:
    """Serve on the port of the settings; a second daemon on one machine takes any where the default one is taken."""
    http, cluster = settings.http, settings.cluster
    async with contextlib.AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(serve(http, metrics, health, cluster))
        except ListenError as error:
            if http.port != Http().port:
                raise
            anywhere = msgspec.structs.replace(http, port=0)
            port = await stack.enter_async_context(serve(anywhere, metrics, health, cluster))
            log.warning(
                "http.port_taken",
                reason=error.reason,
                next_step=f"another port was chosen: {port}; set http.port (JOBSTATE_HTTP__PORT) for one that stays",
            )
        yield port


class _Daemon(Runtime):
    """One session after the other."""

    async def run(self, url: str, stop: asyncio.Event) -> ExitCode:
        """Until *stop*, and until all that came in before is confirmed or the drain's deadline is over."""
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    session = await unless(stop, self._begin(url, stack))
                    if session is None:
                        return ExitCode.OK
                    _settle_memory()
                    drained = await session.run(stop)
                if not stop.is_set():
                    continue  # the log has a beginning now
            except LogWentBackError as error:
                log.warning("log.went_back", reason=str(error), next_step="everything is read again")
                self.health.failing(LOG, f"everything is read again: {error}")
                await unless(stop, asyncio.sleep(RETRY_S))
                if stop.is_set():
                    return ExitCode.OK
                continue
            finally:
                self.health.done(ENDING)
            log.info("daemon.stopped", drained=drained)
            return ExitCode.OK if drained else ExitCode.DRAIN

    async def tell_recovery(self, server: EmbeddedServer) -> NoReturn:
        """Say that our own server recovers its streams: in /readyz at once, in the log less and less often."""
        outage = Outage("server")
        while True:
            self.server_recovery = server.recovery
            if self.server_recovery:
                self.health.failing(LOG, self.server_recovery)
                step = "wait: nothing is lost, and it takes connections when all is recovered (embedded.start_s)"
                outage.tell("server.recovering", server.folder, self.server_recovery, step)
            else:
                outage.end()
            await asyncio.sleep(RETRY_S)

    def tell_of_server(self, event: str, sentence: str) -> None:
        """Log a finding about our own server (`EmbeddedServer.mend`)."""
        log.warning(event, reason=sentence)
        self.watch.server_trouble = sentence if event == DISK_FULL else ""

    async def _begin(self, url: str, stack: contextlib.AsyncExitStack) -> Session:
        """Connect, see to the streams, and read the log; tried until the server is there."""
        address = Address.of(self.settings.nats, self.settings.cluster, url, self.settings.bacalhau.url)
        while True:
            try:
                return await self._recover(address, stack)
            except (UnreachableError, RefusedError, ConnectionLostError, DoubtError, TimeoutError) as error:
                await stack.aclose()
                if isinstance(error, RefusedError) and not self.outages["writer"].worked:
                    raise  # at the start: somebody sees it, and mends it
                self.wait_for_server(address, error)
                await asyncio.sleep(RETRY_S)
            except MissingStreamError as error:
                if not self.upkeep.begun:
                    raise
                await stack.aclose()
                self.health.failing(LOG, str(error))
                self.say_streams()
                await asyncio.sleep(RETRY_S)

    async def _recover(self, address: Address, stack: contextlib.AsyncExitStack) -> Session:
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
        outcomes = Outcomes()
        writer = await open_writer(writing, names, created=recovered.mark.created, outcomes=outcomes)
        dwell = Dwell(self.rules, self.clock.wall())
        lanes = Lanes(
            self.rules,
            names,
            flight_max=settings.lanes.flight_max,
            message_max=settings.limits.message_bytes,
            dwell=dwell,
        )
        form = await open_format(
            reading,
            names,
            self.rules,
            accept=settings.rules.accept,
            found=recovered.format,
            made_ns=time_ns(recovered.mark.created),
            announce=lanes.announce_foreign,
        )
        await self._learn(lanes, recovered, reading)
        reports = JetStreamInput(reading, names)
        await reports.start(recovered.checkpoint)
        stack.push_async_callback(reports.stop)
        log.info("log.recovered", jobs=len(lanes.jobs), last_seq=recovered.mark.last_seq, input=str(reports.position))
        self.outages["log"].end()
        self.health.ready(LOG)
        following = Following()
        if settings.orchestrator.url:
            orchestrator = await stack.enter_async_context(Orchestrator(settings.orchestrator))
            following = follow_orchestrator(self, lanes, orchestrator, form)
        elif settings.derives:
            following = follow_frames(self, lanes, recovered.mark.last_seq)
        session = Session(
            self,
            address=address,
            mark=recovered.mark,
            reading=reading,
            writer=writer,
            outcomes=outcomes,
            lanes=lanes,
            dwell=dwell,
            reports=reports,
            following=following,
        )
        stack.push_async_callback(session.close_writer)
        return session

    async def _learn(self, lanes: Lanes, recovered: Recovered, reading: Connection) -> None:
        """Take in what the log has of each job; where its last entries do not tell, read all of the job's.

        That is so of every job whose last two updates have one state, as a producer's that tells of its progress.
        """
        unsure: dict[JobKey, int] = {}
        for key, entries in recovered.entries.items():
            truth = verify_last(self.names, key, entries)
            if truth is None:
                unsure[key] = entries[-1].number
            else:
                lanes.learn(key, truth)
        judges = {key: EntryVerifier(self.names, key) for key in unsure}
        async for key, entry in read_whole(reading, self.names, unsure):
            judges[key].take(entry)
        for key, judge in judges.items():
            lanes.learn(key, judge.truth)
        if not recovered.checkpoint_number:
            return
        lanes.restore_checkpoint(recovered.checkpoint or NOWHERE, recovered.checkpoint_number)
        if recovered.checkpoint is None:
            lanes.announce_foreign(
                recovered.checkpoint_number,
                "no daemon of ours wrote the checkpoint that stood in the log; it is ignored, and the input is read "
                "from its first entry",
            )
