"""What outlives the sessions of the daemon: settings, rules, clock, metrics, health, and the care for the streams."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from consumer.daemon.watch import BUCKET, INPUT, LOG, ORCHESTRATOR, REFUSED, TAP, Watch
from consumer.errors import JobstateError
from consumer.faults import NEXT_STEP
from consumer.jetstream.upkeep import Upkeep
from consumer.nats import faults
from consumer.nats.address import Address
from consumer.nats.outage import Outage
from consumer.observe import Health, Metrics
from consumer.rules import Rules
from consumer.settings import Settings
from consumer.wire.subjects import Names, StreamName


class MonotonicClock:
    """Implements `ports.Clock`."""

    def now(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()


class Runtime:
    """What outlives a session: the numbers, the health, the rules."""

    def __init__(self, settings: Settings, rules: Rules) -> None:
        self.settings: Final = settings
        self.rules: Final = rules
        self.names: Final = Names(settings.cluster)
        self.clock: Final = MonotonicClock()
        self.metrics: Final = Metrics(settings.limits.label_values, states=rules.states, read_faults=NEXT_STEP)
        self.health: Final = Health()
        self.watch: Final = Watch(self.metrics, self.health, self.clock, settings.log.lines_per_s)
        self.upkeep: Final = Upkeep(self.names, settings.streams)
        self.parts: Final[Mapping[str, StreamName]] = {
            self.names.log: LOG,
            self.names.input: INPUT,
            self.names.refused: REFUSED,
            self.names.bucket_stream: BUCKET,
        }
        self.server_recovery = ""
        """What a server of our own is at while it recovers its streams; empty: it does not."""
        self.lost_told: Counter[str] = Counter()
        self.renewals_told = 0
        self.outages: Final = {name: Outage(name) for name in ("writer", "reader", "log")}
        self.health.need(*self.parts.values())
        if settings.bacalhau.url:
            self.health.need(TAP)
        if settings.orchestrator.url:
            self.health.need(ORCHESTRATOR)

    def wait_for_server(self, address: Address, error: Exception) -> None:
        """Say that the log cannot be reached, and is waited for."""
        self.health.failing(LOG, self.server_recovery or faults.with_step(error))
        is_denied = isinstance(error, JobstateError) and error.is_denied
        step = faults.next_step("nats", faults.DENIED) if is_denied else "it is tried again until it answers"
        self.outages["log"].tell("connection.waiting", address, str(error), step)

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
        renewals, self.renewals_told = self.upkeep.renewals - self.renewals_told, self.upkeep.renewals
        self.metrics.bucket_renewals.inc(renewals)
        self.metrics.bucket_lacks.set(self.upkeep.lacking)
