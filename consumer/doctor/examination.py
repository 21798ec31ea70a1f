"""The whole examination: each check in its order, one that needs another only after it, each with its time.

It knows every probe and every judge, and what one check leaves for the next; what is asked and what follows from an
answer stands in these.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from consumer.bacalhau.orchestrator import Orchestrator
from consumer.bacalhau.tap import SUBJECTS
from consumer.doctor.facts import Account, Answer, Contact, Heard, Listed, LogHead, Monitor, Permissions, Streams
from consumer.doctor.finding import CHECKS, Check, Finding, Verdict, fail, failed, held_up, ok, skipped, warn
from consumer.doctor.judging import agreement as judge_agreement
from consumer.doctor.judging import log as judge_log
from consumer.doctor.judging import orchestrator as judge_orchestrator
from consumer.doctor.judging import server as judge_server
from consumer.doctor.judging import streams as judge_streams
from consumer.doctor.probing import agreement, http, jetstream
from consumer.doctor.probing import orchestrator as asking
from consumer.doctor.probing.contact import Listening, reach_ours
from consumer.errors import JobstateError, RulesError, SettingsError
from consumer.jetstream.bucket import find_fault_of_bucket, find_lack
from consumer.nats.address import Address
from consumer.nats.connection import Connection
from consumer.rules import Rules, load
from consumer.settings import RULES_FILE, Settings, redact
from consumer.wire.display import printable
from consumer.wire.subjects import Names

BOUND_S: Final = 30.0
"""No check takes longer, but for the listening and the time that the settings give a request."""

Probe = Callable[[], Awaitable[Finding]]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's *settings* (or why there are none), how long to listen, a monitoring port."""

    settings: Settings | JobstateError
    listen_s: float = 5.0
    monitor: str = ""


async def examine(plan: Plan, tell: Callable[[Finding], None]) -> list[Finding]:
    """Make every check, give each finding to *tell* as it comes, and all of them in the end. Raises nothing of ours."""
    findings: list[Finding] = []
    async with contextlib.AsyncExitStack() as stack:
        examination = _Examination(plan, stack, findings)
        for check in CHECKS:
            found = held_up(check, findings) or await examination.make(check)
            found = msgspec.structs.replace(found, found=printable(found.found), next=printable(found.next))
            findings.append(found)
            tell(found)
    return findings


class _Examination:
    """One examination: what was found so far, by whoever needs it next."""

    def __init__(self, plan: Plan, stack: contextlib.AsyncExitStack, findings: list[Finding]) -> None:
        self._plan: Final = plan
        self._stack: Final = stack
        self._findings: Final = findings
        self._settings: Settings = Settings()
        self._names = Names()
        self._rules: Rules | None = None
        self._address: Address | None = None
        self._listening: Listening | None = None
        self._orchestrator: Orchestrator | None = None
        # -- facts that more than one check is made of --
        self._ours = Contact(address="")
        self._connection: Connection | None = None
        self._permissions: Permissions | None = None
        self._account = Account(level=0)
        self._streams: Streams | None = None
        self._head: LogHead | None = None
        self._monitor: Monitor | None = None
        self._bacalhau = Contact(address="")
        self._answer = Answer(address="")
        self._listed = Listed()
        self._heard = Heard(seconds=0.0)
        self._probes: Final[dict[str, Probe]] = {
            "settings": self._see_settings,
            "rules": self._see_rules,
            "nats.reach": self._reach_ours,
            "nats.tls": self._at_once(lambda: judge_server.tls("nats", self._ours)),
            "nats.auth": self._at_once(lambda: judge_server.auth("nats", self._ours)),
            "nats.version": self._at_once(lambda: judge_server.version(self._ours)),
            "nats.asks": self._see_permissions,
            "nats.writes": self._at_once(lambda: judge_server.writes(self._permissions, self._names)),
            "nats.jetstream": self._see_account,
            "nats.payload": self._at_once(
                lambda: judge_server.payload(self._ours, self._settings.limits.message_bytes)
            ),
            "nats.streams": self._at_once(lambda: judge_streams.streams(self._found, self._settings.streams.mode)),
            "nats.bucket": self._see_bucket,
            "nats.room": self._see_room,
            "nats.replicas": self._at_once(lambda: judge_streams.replicas(self._found)),
            "nats.sync": self._at_once(lambda: judge_streams.sync(self._found, self._monitor)),
            "nats.clock": self._at_once(lambda: judge_streams.clock(self._found)),
            "log.rules": self._see_head,
            "log.last": self._see_last,
            "log.input": self._see_input,
            "log.refused": self._see_refused,
            "log.advisories": self._see_advisories,
            "bacalhau.reach": self._reach_bacalhau,
            "bacalhau.tls": self._at_once(lambda: judge_server.tls("bacalhau", self._bacalhau)),
            "bacalhau.auth": self._at_once(lambda: judge_server.auth("bacalhau", self._bacalhau)),
            "bacalhau.subscribe": self._at_once(lambda: judge_server.subscribe(self._bacalhau, len(SUBJECTS))),
            "bacalhau.version": self._at_once(lambda: judge_server.bacalhau_version(self._bacalhau)),
            "orchestrator.reach": self._reach_orchestrator,
            "orchestrator.tls": self._at_once(lambda: judge_orchestrator.tls(self._answer)),
            "orchestrator.auth": self._at_once(lambda: judge_orchestrator.auth(self._answer)),
            "orchestrator.answer": self._at_once(lambda: judge_orchestrator.answers(self._answer)),
            "orchestrator.version": self._at_once(lambda: judge_orchestrator.version(self._answer)),
            "orchestrator.clock": self._at_once(
                lambda: judge_orchestrator.clock(self._answer, self._jetstream_ahead_s)
            ),
            "orchestrator.list": self._list,
            "orchestrator.history": self._read_history,
            "frames.server": self._at_once(lambda: judge_agreement.same_server(self._bacalhau, self._answer)),
            "frames.heard": self._hear,
            "frames.known": self._look_up,
            "record.agrees": self._compare,
            "daemon.ready": self._ask_daemon,
        }

    async def make(self, check: Check) -> Finding:
        """Make *check*, within its time. Any error in it becomes its finding."""
        bound_s = BOUND_S + self._plan.listen_s + 2 * self._settings.orchestrator.timeout_s
        try:
            async with asyncio.timeout(bound_s):
                return await self._probes[check.name]()
        except TimeoutError:
            return fail(
                check.name, f"nothing came of it within {bound_s:.0f} s", "run it again; is that server overloaded?"
            )
        except JobstateError as error:
            step = judge_server.step_for_denied(error.denied) or "look at the lines before this one"
            return fail(check.name, str(error), step)

    def _at_once(self, judge: Callable[[], Finding]) -> Probe:
        """A check that needs no question of its own: an earlier one has brought its facts."""

        async def probe() -> Finding:
            return judge()

        return probe

    # -- settings -----------------------------------------------------------------------------------------------------

    async def _see_settings(self) -> Finding:
        check, given = "settings", self._plan.settings
        if not isinstance(given, Settings):
            return fail(check, str(given), "mend it; docs/reference/config.md has every setting")
        self._settings, self._names = given, Names(given.cluster)
        try:
            self._address = Address.of(given.nats, given.cluster, bacalhau_url=given.bacalhau.url)
            _ = self._address.tls_context
            if given.bacalhau.url:
                self._listening = Listening(given)
            if given.orchestrator.url:
                self._orchestrator = Orchestrator(given.orchestrator)
        except SettingsError as error:
            return fail(check, str(error), "mend it; docs/reference/config.md has every setting")
        found = f"cluster {given.cluster}, our streams on {redact(given.nats.url)}"
        if given.warnings:
            return warn(check, f"{found}; {'; '.join(given.warnings)}", "as it says")
        if given.derives:
            return warn(
                check,
                f"{found}; bacalhau.url is set and orchestrator.url is not: states are derived from frames alone",
                "set orchestrator.url (JOBSTATE_ORCHESTRATOR__URL): frames tell nothing of Queued, little of Failed",
            )
        return ok(check, found)

    async def _see_rules(self) -> Finding:
        try:
            self._rules = rules = load(self._settings.rules.path, RULES_FILE)
        except RulesError as error:
            return fail("rules", str(error), "jobstate rules --check FILE")
        return ok("rules", f"{rules.name} ({rules.hash[:12]}), {len(rules.states)} states")

    # -- our NATS -----------------------------------------------------------------------------------------------------

    async def _reach_ours(self) -> Finding:
        assert self._address is not None
        self._ours, self._connection = await reach_ours(self._address)
        if self._connection is not None:
            self._stack.push_async_callback(self._connection.close)
        return judge_server.reach("nats", self._ours)

    async def _see_permissions(self) -> Finding:
        self._permissions = await jetstream.read_permissions(self._nats)
        return judge_server.asks(self._permissions, self._names, self._settings.streams.mode)

    async def _see_account(self) -> Finding:
        account, trouble, denied = await jetstream.read_account(self._nats)
        if account is not None:
            self._account = account
            self._streams = await jetstream.read_streams(self._nats, self._names, self._settings, time.time())
        return judge_server.jetstream(account, trouble, denied)

    async def _see_bucket(self) -> Finding:
        found, fault = self._found, ""
        if found.log.there and found.bucket.there:
            fault = await find_fault_of_bucket(self._nats, self._names) or await find_lack(self._nats, self._names)
        return judge_streams.bucket(found, fault)

    async def _see_room(self) -> Finding:
        if self._plan.monitor:
            self._monitor = await http.read_monitor(self._plan.monitor)
        found = judge_streams.room(self._found, self._account, self._monitor)
        if found.verdict is Verdict.FAIL or self._settings.streams.mode == "bind":
            return found
        why = await jetstream.find_misfit(self._nats, self._names, self._settings, self._found)
        return judge_streams.unfit(why) if why else found

    # -- what is in our streams ---------------------------------------------------------------------------------------

    async def _see_head(self) -> Finding:
        if self._rules is None:
            return skipped("log.rules", "rules failed")
        if self._found.log.there:
            self._head = await jetstream.read_head(self._nats, self._names)
        rules = self._rules
        return judge_log.rules(self._head, name=rules.name, hash_=rules.hash, accept=self._settings.rules.accept)

    async def _see_last(self) -> Finding:
        if not judge_streams.has(self._found.log):
            return judge_log.last(None)
        return judge_log.last(await jetstream.read_last(self._nats, self._names, self._server_s))

    async def _see_input(self) -> Finding:
        found = self._found
        checkpoint = await jetstream.read_checkpoint(self._nats, self._names) if found.log.there else None
        return judge_log.input_(found, checkpoint)

    async def _see_refused(self) -> Finding:
        if not self._found.refused.there:
            return skipped("log.refused", "the stream is not there")
        return judge_log.refused(*await jetstream.count_refused(self._nats, self._names))

    async def _see_advisories(self) -> Finding:
        if not self._found.log.there:
            return skipped("log.advisories", "nothing was written yet")
        return judge_log.advisories(await jetstream.read_advisories(self._nats, self._names, self._server_s))

    # -- Bacalhau's side ----------------------------------------------------------------------------------------------

    async def _reach_bacalhau(self) -> Finding:
        if self._listening is None:
            return skipped("bacalhau.reach", "bacalhau.url is not set: no frame is heard")
        self._stack.push_async_callback(self._listening.stop)
        self._bacalhau = await self._listening.start()
        return judge_server.reach("bacalhau", self._bacalhau)

    async def _reach_orchestrator(self) -> Finding:
        if self._orchestrator is None:
            return skipped("orchestrator.reach", "orchestrator.url is not set: no record is read")
        await self._stack.enter_async_context(self._orchestrator)
        self._answer = await asking.ask(self._orchestrator, self._settings.orchestrator)
        return judge_orchestrator.reach(self._answer)

    async def _list(self) -> Finding:
        self._listed = await asking.list_newest(self._record)
        every = self._settings.scan.list
        return judge_orchestrator.lists(self._listed, None if every == "auto" else float(every))

    async def _read_history(self) -> Finding:
        return judge_orchestrator.history(await asking.read_newest(self._record, self._listed))

    # -- both sides together ------------------------------------------------------------------------------------------

    async def _hear(self) -> Finding:
        assert self._listening is not None
        listening, message_max = self._listening, self._settings.limits.message_bytes
        self._heard = await agreement.hear(listening, self._plan.listen_s, message_max)
        await listening.stop()
        return judge_agreement.heard(self._heard, self._answer.version)

    async def _look_up(self) -> Finding:
        looked = await asking.look_up(self._record, self._heard.jobs)
        return judge_agreement.known(self._heard, looked)

    async def _compare(self) -> Finding:
        check = "record.agrees"
        if "frames.known" in failed(self._findings):
            return skipped(check, "frames.known failed")
        if not judge_streams.has(self._found.log):
            return skipped(check, "nothing was written yet")
        now_s = time.time() + (self._answer.ahead_s or 0.0)
        sample = await agreement.sample(
            self._nats,
            self._record,
            self._names,
            log=self._found.log,
            head=self._head,
            listed=self._listed,
            now_s=now_s,
        )
        return judge_agreement.agrees(sample, datetime.fromtimestamp(now_s, UTC))

    async def _ask_daemon(self) -> Finding:
        readiness = await http.read_readiness(self._settings.http)
        return judge_agreement.ready(readiness, failed(self._findings), self._settings.cluster)

    # -- what a check before has seen to ------------------------------------------------------------------------------

    @property
    def _nats(self) -> Connection:
        assert self._connection is not None
        return self._connection

    @property
    def _record(self) -> Orchestrator:
        assert self._orchestrator is not None
        return self._orchestrator

    @property
    def _found(self) -> Streams:
        assert self._streams is not None
        return self._streams

    @property
    def _jetstream_ahead_s(self) -> float | None:
        return None if self._streams is None else self._streams.ahead_s

    @property
    def _server_s(self) -> float:
        """Our server's clock now."""
        return time.time() + (self._jetstream_ahead_s or 0.0)
