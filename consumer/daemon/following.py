"""What a session listens to, besides reports: the record and frames, frames alone, or nothing.

Each is made whole from what the log was recovered to; `consumer.daemon.session` runs it.
"""

from collections.abc import Iterator
from random import random

import msgspec

from consumer.bacalhau.orchestrator import Orchestrator
from consumer.bacalhau.reads import Reads
from consumer.bacalhau.tap import Tap
from consumer.core import Lanes, Readers, ReadingOptions
from consumer.core.beginning import told_from
from consumer.core.options import LIST_TIMEOUT_S
from consumer.daemon.beginning import BeginningAsker, tell_if_ahead
from consumer.daemon.runtime import Runtime
from consumer.derive import Derivation, DerivationSettings
from consumer.jetstream.format import LogFormat
from consumer.model import Identity
from consumer.rules import Rules
from consumer.settings import Settings
from consumer.wire.subjects import unescape


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """The source of events and what feeds it. With reports only there is nothing.

    *beginning*: who agrees with orchestrator and log on where the log begins. While it must, nothing else is read.
    """

    source: Readers | Derivation | None = None
    tap: Tap | None = None
    orchestrator: Orchestrator | None = None
    reads: Reads | None = None
    beginning: BeginningAsker | None = None


def follow_orchestrator(runtime: Runtime, lanes: Lanes, orchestrator: Orchestrator, form: LogFormat) -> Following:
    """Read the record, and listen to Bacalhau's frames if its NATS is named. A new log needs a beginning first."""
    settings, options = runtime.settings, reading_options(runtime.settings)
    tap = Tap(settings.bacalhau) if settings.bacalhau.url else None
    if form.since_ns is None:
        beginning = BeginningAsker(orchestrator, form, options, runtime.clock, runtime.watch)
        # What the tap hears until then is nothing to anybody; but what is wrong with it is said at once.
        return Following(tap=tap, orchestrator=orchestrator, beginning=beginning)
    tell_if_ahead(form.since_ns, int(runtime.clock.wall() * 1e9), runtime.names.format)
    backfill = settings.scan.backfill_s
    backfill_ns = None if backfill == float("inf") else int(backfill * 1e9)
    readers = Readers(
        runtime.rules,
        lanes.known,
        options,
        since_ns=told_from(form.since_ns, backfill_ns),
        dice=random,
    )
    readers.hold()  # until `Session._first_look`
    for job in _open_jobs(runtime.rules, lanes):
        readers.resume(job)
    return Following(
        source=readers,
        tap=tap,
        orchestrator=orchestrator,
        reads=Reads(orchestrator, runtime.clock),
    )


def follow_frames(runtime: Runtime, lanes: Lanes, last_seq: int) -> Following:
    """Without an orchestrator: derive from Bacalhau's frames what can be (design/bacalhau.md 6.1)."""
    settings = runtime.settings
    tap = Tap(settings.bacalhau)
    derivation = Derivation(
        runtime.rules,
        lanes.known,
        DerivationSettings(executions_max=settings.limits.executions, jobs_max=settings.limits.jobs),
        hears=lambda: tap.connected,
        origin=f"start-{last_seq}",
    )
    for job in _open_jobs(runtime.rules, lanes):
        derivation.resume(job)
    return Following(source=derivation, tap=tap)


def _open_jobs(rules: Rules, lanes: Lanes) -> Iterator[Identity]:
    """The jobs that the log has open.

    One whose name stands in its key as a digest comes back with a list, or the next execution that is asked for.
    """
    for key, known in lanes.jobs.items():
        if rules.is_terminal(known.state):
            continue
        namespace, job = (unescape(token) for token in key.split("."))
        if namespace is not None and job is not None:
            yield Identity(id=job, namespace=namespace, name=known.name, type=known.type)


def reading_options(settings: Settings) -> ReadingOptions:
    """How eagerly the record is read, as the settings say."""
    chosen = ReadingOptions(
        turn_rate=settings.scan.rate,
        concurrency=settings.orchestrator.concurrency,
        max_rate=settings.orchestrator.max_rate,
        executions_max=settings.limits.executions,
        list_max_s=max(settings.orchestrator.timeout_s, LIST_TIMEOUT_S),
        jobs_max=settings.limits.jobs,
    )
    if settings.scan.list == "auto":
        return chosen
    return msgspec.structs.replace(chosen, list_every_s=float(settings.scan.list))
