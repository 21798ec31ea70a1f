"""The checks, the checks that each one needs first, and their findings. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from consumer.errors import ExitCode

KIB: Final = 1024


class Verdict(StrEnum):
    """How it is: a `warn` is worth knowing and stops nothing, a `fail` needs somebody."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what was found, and what to do next (empty: nothing). Neither holds a secret or a job's payload."""

    check: str
    verdict: Verdict
    found: str
    next: str = ""


class Check(NamedTuple):
    """A check by name: what it looks at, and those without which it is skipped."""

    name: str
    about: str
    needs: tuple[str, ...] = ()


CHECKS: Final = (
    Check("settings", "file, variables, secret files, certificate files, addresses"),
    Check("rules", "the rules file", ("settings",)),
    # -- our NATS --
    Check("nats.reach", "a NATS server answers at `nats.url`", ("settings",)),
    Check("nats.tls", "TLS, where it is asked for; no secret in the clear", ("nats.reach",)),
    Check("nats.auth", "it accepts our credentials", ("nats.tls",)),
    Check("nats.version", "nats-server 2.11 or later, on every server of the cluster", ("nats.auth",)),
    Check("nats.asks", "this user may ask JetStream's API", ("nats.version",)),
    Check("nats.writes", "this user may publish what the daemon publishes", ("nats.version",)),
    Check("nats.jetstream", "JetStream is there, for this account", ("nats.asks",)),
    Check("nats.payload", "the largest message that it takes", ("nats.auth",)),
    Check("nats.streams", "the four streams, and each setting of theirs", ("nats.jetstream",)),
    Check("nats.bucket", "the KV bucket is a copy of this log", ("nats.jetstream",)),
    Check("nats.room", "how full log and account are; room for streams that are absent", ("nats.jetstream",)),
    Check("nats.replicas", "how many copies, on which servers, are they current", ("nats.jetstream",)),
    Check("nats.sync", "what a power loss takes (`sync_interval`)", ("nats.jetstream",)),
    Check("nats.clock", "the server's clock beside ours", ("nats.jetstream",)),
    # -- what is in our streams --
    Check("log.rules", "by which format and rules the log was made, and by which we would write", ("nats.jetstream",)),
    Check("log.last", "the last entry: which, and when", ("nats.jetstream",)),
    Check("log.input", "reports that wait, by the checkpoint", ("nats.jetstream",)),
    Check("log.refused", "what was rejected or could not be read", ("nats.jetstream",)),
    Check("log.advisories", "what the daemons have announced", ("nats.jetstream",)),
    # -- Bacalhau's NATS --
    Check("bacalhau.reach", "a NATS server answers at `bacalhau.url`", ("settings",)),
    Check("bacalhau.tls", "TLS, where it is asked for; no secret in the clear", ("bacalhau.reach",)),
    Check("bacalhau.auth", "it accepts our credentials", ("bacalhau.tls",)),
    Check("bacalhau.subscribe", "all subjects may be subscribed", ("bacalhau.auth",)),
    Check("bacalhau.version", "which server it is", ("bacalhau.subscribe",)),
    # -- the orchestrator --
    Check("orchestrator.reach", "something answers at `orchestrator.url`", ("settings",)),
    Check("orchestrator.tls", "TLS, where the URL asks for it; no secret in the clear", ("orchestrator.reach",)),
    Check("orchestrator.auth", "it lets us read jobs", ("orchestrator.tls",)),
    Check("orchestrator.answer", "it is Bacalhau's API that answers, and in time", ("orchestrator.reach",)),
    Check("orchestrator.version", "a release that is known (1.5 to 1.9)", ("orchestrator.answer",)),
    Check("orchestrator.clock", "its clock beside ours and JetStream's", ("orchestrator.answer",)),
    Check("orchestrator.list", "what a list takes, and so how often there will be one", ("orchestrator.answer",)),
    Check("orchestrator.history", "the history of its newest job can be read", ("orchestrator.list",)),
    # -- both sides together --
    Check(
        "frames.server",
        "the NATS server has the name of the orchestrator's node",
        ("bacalhau.subscribe", "orchestrator.answer"),
    ),
    Check("frames.heard", "what was heard while it listened, and of which releases", ("bacalhau.subscribe",)),
    Check("frames.known", "the orchestrator knows the jobs that frames name", ("frames.heard", "orchestrator.list")),
    Check("record.agrees", "the log is what the record says, or a prefix", ("nats.jetstream", "orchestrator.list")),
    Check("daemon.ready", "a daemon at `http.host`, `http.port`, and what its /readyz says", ("settings",)),
)
"""Every check, in the order in which they are made and told."""


def ok(check: str, found: str, next_step: str = "") -> Finding:
    """It is as it should be."""
    return Finding(check=check, verdict=Verdict.OK, found=found, next=next_step)


def warn(check: str, found: str, next_step: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(check=check, verdict=Verdict.WARN, found=found, next=next_step)


def fail(check: str, found: str, next_step: str) -> Finding:
    """It does not work."""
    return Finding(check=check, verdict=Verdict.FAIL, found=found, next=next_step)


def skipped(check: str, why: str, next_step: str = "") -> Finding:
    """It was not looked at."""
    return Finding(check=check, verdict=Verdict.SKIPPED, found=why, next=next_step)


def held_up(check: Check, findings: Iterable[Finding]) -> Finding | None:
    """That *check* is skipped, if one that it needs failed or was skipped itself; else None."""
    by_name = {finding.check: finding for finding in findings}
    for need in check.needs:
        before = by_name[need]
        if before.verdict is Verdict.FAIL:
            return skipped(check.name, f"{need} failed")
        if before.verdict is Verdict.SKIPPED:
            return skipped(check.name, before.found)
    return None


def failed(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The checks that failed."""
    return tuple(finding.check for finding in findings if finding.verdict is Verdict.FAIL)


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """`WRONG` if anything failed: the examination itself went well, and its answer is no."""
    return ExitCode.WRONG if failed(findings) else ExitCode.OK


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many findings of each verdict."""
    found = Counter(finding.verdict for finding in findings)
    return {verdict.value: found[verdict] for verdict in Verdict}


def say_bytes(count: float) -> str:
    """*count* bytes for eyes: `3.4 MiB`."""
    unit = "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < KIB or unit == "TiB":
            break
        count /= KIB
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def say_seconds(seconds: float) -> str:
    """A duration for eyes: `250 ms`, `3.2 s`, `4 min`, `3 h`, `2 d`."""
    for factor, unit, below in ((1e3, "ms", 1.0), (1.0, "s", 120.0), (1 / 60, "min", 7_200.0), (1 / 3600, "h", 2e5)):
        if abs(seconds) < below:
            return f"{seconds * factor:.1f} {unit}" if unit == "s" else f"{seconds * factor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def say_named(names: Sequence[str], most: int = 3) -> str:
    """Some of *names*, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
