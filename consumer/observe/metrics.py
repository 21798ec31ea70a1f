"""The daemon's numbers, each with its name, labels and meaning. One registry for each `Metrics`: none is global.

A label value is one of a bounded number: what comes after that many is `other`. A job's id, name, namespace or message
is never one. Every `…(labels)` gives the child to count with; it costs a look into a dictionary.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Final, Generic, Literal, TypeVar, TypeVarTuple, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import values as prometheus_values
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from consumer.core.appends import APPEND_STREAMS, OUTCOMES, AppendStream, Outcome
from consumer.defaults import LABEL_VALUES
from consumer.faults import OrchestratorFault
from consumer.model import (
    BYTES_FROM,
    NOTICE_KINDS,
    PROFILES,
    REJECTED_REASONS,
    SOURCES,
    UNCHANGED_REASONS,
    UNDECODABLE_REASONS,
    BytesFrom,
    FrameKind,
    GapCause,
    NoticeKind,
    Profile,
    ReadCause,
    Source,
    UndecodableReason,
)
from consumer.observe.log import lost_lines
from consumer.wire.subjects import STREAM_NAMES, StreamName

# PROMETHEUS_MULTIPROC_DIR is meant for a web server of many processes: with it the library counts in files of that
# folder, and a scrape of ours would see none of it.
prometheus_values.ValueClass = prometheus_values.MutexValue

OTHER: Final = "other"
Surprise = Literal["adopted", "forgotten", "foreign", "stale"]
"""The kinds of surprises in the log, as `consumer.core.lanes` counts it."""
SURPRISES: Final[tuple[Surprise, ...]] = get_args(Surprise)
TAP_GAPS: Final[tuple[GapCause, ...]] = get_args(GapCause)
ConnectionName = Literal["writer", "reader", "tap"]
"""Our connections to NATS; the tap's is to Bacalhau's."""
CONNECTIONS: Final[tuple[ConnectionName, ...]] = get_args(ConnectionName)
ReadKind = Literal["list", "history", "job"]
"""The reads of the orchestrator."""
OF_ONE_JOB: Final[tuple[ReadKind, ...]] = ("history", "job")
READS: Final[tuple[tuple[ReadKind, ReadCause], ...]] = (("list", ReadCause.SCAN), *product(OF_ONE_JOB, ReadCause))
"""Each with its causes."""
ReadOutcome = Literal["answered", "missing"]
"""The results of a read that does not fail."""
READ_OUTCOMES: Final[tuple[ReadOutcome, ...]] = get_args(ReadOutcome)
LABEL_MAX: Final = 64
"""Characters: whoever can choose a label's value must not choose its size."""

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

M = TypeVar("M", Counter, Gauge, Histogram)
Values = TypeVarTuple("Values")


class Family(Generic[M, *Values]):
    """A metric with labels. Called with a value for each label it gives the metric of these.

    *known*: the values of its labels, where they are known: each is there from the beginning, at 0. A counter that
    only appears with its first event has not risen, as Prometheus sees it: `increase(…) > 0` would miss that one.
    """

    def __init__(self, metric: M, bound: int, known: Iterable[tuple[*Values]] = ()) -> None:
        self._metric: M = metric
        rows = tuple(known)
        self._bound = max(bound, *(len(set(values)) for values in zip(*rows, strict=True)), 0)
        self._seen: dict[int, set[str]] = {}
        self._children: dict[tuple[*Values], M] = {}
        for values in rows:
            self(*values)

    def __call__(self, *values: *Values) -> M:
        """The metric of these label values, in the order in which `Metrics` names the labels."""
        child = self._children.get(values)
        if child is None:
            labels: tuple[object, ...] = values
            admitted = tuple(self._admit(index, str(value)) for index, value in enumerate(labels))
            child = self._metric.labels(*admitted)
            if admitted == labels:
                self._children[values] = child
        return child

    def _admit(self, index: int, value: str) -> str:
        seen = self._seen.setdefault(index, set())
        if value in seen:
            return value
        if len(seen) >= self._bound or len(value) > LABEL_MAX:
            return OTHER
        seen.add(value)
        return value


class _LostLines(Collector):
    """The log's own count, read when somebody asks: a thread counts there, and nobody is told of each line."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The one metric."""
        yield CounterMetricFamily(
            "jobstate_log_lines_lost", "Log lines that standard error did not take.", value=lost_lines()
        )


class Metrics:
    """Everything that is counted. `label_values` is `limits.label_values` of the settings.

    *states*: those of the rules. *read_faults*: the kinds of error that a read of the orchestrator may end with.
    """

    def __init__(
        self,
        label_values: int = LABEL_VALUES,
        *,
        states: Sequence[str] = (),
        read_faults: Iterable[OrchestratorFault] = (),
    ) -> None:
        self.registry: Final = CollectorRegistry()
        self._bound = label_values
        ProcessCollector(registry=self.registry)
        self.registry.register(_LostLines())

        # The decisions of events.
        decisions = (
            ("accepted", ""),
            *(("unchanged", reason) for reason in UNCHANGED_REASONS),
            *(("rejected", reason) for reason in REJECTED_REASONS),
            *(("undecodable", reason) for reason in UNDECODABLE_REASONS),
        )
        self.decisions: Final[Family[Counter, str, str]] = self._counters(
            "decisions", "Events by their decision.", "decision", "reason", known=decisions
        )
        self.updates: Final[Family[Counter, str, Source]] = self._counters(
            "updates",
            "Updates that the log has confirmed.",
            "state",
            "source",
            known=product(states, SOURCES),
        )
        self.undecodable: Final[Family[Counter, UndecodableReason, BytesFrom]] = self._counters(
            "undecodable",
            "Bytes that could not be read.",
            "reason",
            "source",
            known=product(UNDECODABLE_REASONS, BYTES_FROM),
        )
        self.advisories: Final[Family[Counter, NoticeKind]] = self._counters(
            "advisories", "Notices put into the log by us.", "kind", known=product(NOTICE_KINDS)
        )

        # Bacalhau's side.
        self.frames: Final[Family[Counter, FrameKind, Profile]] = self._counters(
            "frames", "Frames of Bacalhau's that were read.", "kind", "profile", known=product(FrameKind, PROFILES)
        )
        self.reads: Final[Family[Counter, ReadKind, ReadCause, OrchestratorFault | ReadOutcome]] = self._counters(
            "reads",
            "Requests to the orchestrator.",
            "kind",
            "cause",
            "outcome",
            known=((*read, outcome) for read in READS for outcome in (*READ_OUTCOMES, *sorted(read_faults))),
        )
        self.tap_gaps: Final[Family[Counter, GapCause]] = self._counters(
            "tap_gaps", "Times at which frames may have been missed.", "cause", known=product(TAP_GAPS)
        )
        self.tap_drops: Final = self._counter("tap_drops", "Frames that came and were dropped: too many waited.")

        # Connections: the writer's, the reader's (both to our own NATS), the tap's (to Bacalhau's).
        self.reconnects: Final[Family[Counter, ConnectionName]] = self._counters(
            "reconnects", "Connections that were made anew.", "connection", known=product(CONNECTIONS)
        )
        self.deaf: Final[Family[Counter, ConnectionName]] = self._counters(
            "deaf",
            "Times at which a connection looked alive and nobody read it any more.",
            "connection",
            known=product(CONNECTIONS),
        )
        self.slow_consumers: Final[Family[Counter, ConnectionName]] = self._counters(
            "slow_consumers",
            "Times at which a client dropped messages because we read too slowly.",
            "connection",
            known=product(CONNECTIONS),
        )

        # The log's side.
        self.appends: Final[Family[Counter, AppendStream, Outcome]] = self._counters(
            "appends",
            "Entries sent, by their result.",
            "stream",
            "outcome",
            known=product(APPEND_STREAMS, OUTCOMES),
        )
        self.resends: Final = self._counter("resends", "Asks of the log sent again because no answer came.")
        self.read_backs: Final = self._counter("read_backs", "Times a job was read back from the log.")
        self.surprises: Final[Family[Counter, Surprise]] = self._counters(
            "surprises", "Surprises in the log, by kind.", "kind", known=product(SURPRISES)
        )
        self.reports: Final = self._counter("reports", "Entries of the input that were read.")
        self.input_restarts: Final = self._counter(
            "input_restarts", "Times at which the reader of the input was given up, and another one made."
        )
        self.streams_lost: Final[Family[Counter, StreamName]] = self._counters(
            "streams_lost", "Times at which a stream of ours was gone.", "stream", known=product(STREAM_NAMES)
        )
        self.bucket_renewals: Final = self._counter(
            "bucket_renewals", "Times at which the KV bucket was no copy of the log, and was deleted and made anew."
        )

        # How it stands now.
        self.bucket_lacks: Final = self._gauge(
            "bucket_lacks", "Jobs of the log that the KV bucket did not have when it was last looked at."
        )
        self.lanes_active: Final = self._gauge("lanes_active", "Jobs with an event under way.")
        self.events_waiting: Final = self._gauge("events_waiting", "Events that the log has not confirmed.")
        self.in_flight: Final = self._gauge("in_flight", "Entries sent and not yet answered.")
        self.input_lag: Final = self._gauge("input_lag", "Entries of the input that were not read yet.")
        self.hints_waiting: Final = self._gauge("hints_waiting", "Jobs that wait to be read because of a message.")
        self.reads_in_flight: Final = self._gauge("reads_in_flight", "Requests that the orchestrator has not answered.")
        self.reads_waiting: Final = self._gauge("reads_waiting", "Reads that are due and have not left.")
        self.reads_waited: Final = self._gauge(
            "reads_waited_seconds",
            "How long the oldest of these has waited: above two seconds, orchestrator.max_rate holds them back.",
        )
        self.jobs: Final[Family[Gauge, str]] = Family(
            Gauge(
                "jobstate_jobs",
                "Jobs of the log by their present state, reported ones too; other: a state that the rules do not know.",
                ["state"],
                registry=self.registry,
            ),
            self._bound,
            product((*states, OTHER)),
        )
        self.jobs_open: Final = self._gauge("jobs_open", "Jobs of the log that have not ended, reported ones too.")
        self.discovery: Final = self._gauge(
            "discovery_seconds", "Within how many seconds a change that no frame tells of is found, as lists come now."
        )
        self.jobs_known: Final = self._gauge("jobs_known", "Jobs in memory.")
        self.executions_known: Final = self._gauge("executions_known", "Executions whose job is remembered.")
        self.jobs_stuck: Final[Family[Gauge, str]] = Family(
            Gauge(
                "jobstate_jobs_stuck",
                "Jobs that stand in a state for longer than the rules' limit.",
                ["state"],
                registry=self.registry,
            ),
            self._bound,
        )
        self.stream_full: Final[Family[Gauge, AppendStream]] = Family(
            Gauge(
                "jobstate_stream_full",
                "1 while a stream refuses entries for want of room.",
                ["stream"],
                registry=self.registry,
            ),
            self._bound,
        )

        # How long it takes.
        self.lag: Final[Family[Histogram, ReadCause | Literal["report"]]] = Family(
            Histogram(
                "jobstate_lag_seconds",
                "From the change, by its own time, to the confirmed update, by our clock.",
                ["cause"],
                buckets=_SECONDS,
                registry=self.registry,
            ),
            self._bound,
        )
        self.read_seconds: Final = self._histogram("read_seconds", "From a request to the orchestrator's answer.")

    def expose(self) -> bytes:
        """Everything in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"jobstate_{name}", text, registry=self.registry)

    def _counters(
        self, name: str, text: str, *labels: str, known: Iterable[tuple[*Values]]
    ) -> Family[Counter, *Values]:
        return Family(Counter(f"jobstate_{name}", text, labels, registry=self.registry), self._bound, known)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"jobstate_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"jobstate_{name}", text, buckets=_SECONDS, registry=self.registry)
