"""Judges the streams' contents: rules, last writer, waiting reports, rejections and advisories."""

from collections.abc import Sequence
from typing import Final

from consumer.doctor.facts import LastEntry, LogHead, Streams, Told
from consumer.doctor.finding import Finding, fail, ok, say_seconds, skipped, warn
from consumer.model import InputPosition
from consumer.wire.decoding import time_of

FORMAT: Final = 1
RECENT_S: Final = 86_400.0
"""Advisories stay in the log for ever; an older one is no news."""


def rules(head: LogHead | None, *, name: str, hash_: str, accept: bool) -> Finding:
    """Whether a daemon with these settings would write this log. *head* None: nothing was written yet."""
    check = "log.rules"
    if head is None:
        return skipped(check, "nothing was written yet")
    if head.unread:
        return warn(
            check,
            f"no daemon of ours wrote the log's format entry ({head.unread}): what it says does not count",
            "find out who publishes there, and take that away; the next daemon that starts writes ours over it",
        )
    if head.format != FORMAT:
        return fail(
            check,
            f"the log has format {head.format}, this program writes {FORMAT}",
            "use the program that made it, or another cluster name",
        )
    made = f"{head.rules} ({head.rules_hash[:12]})"
    if head.rules_hash != hash_ or head.rules != name:
        found = f"the log was made by the rules {made}, ours are {name} ({hash_[:12]})"
        if accept:
            return warn(check, found, "rules.accept is set: the next daemon that starts makes them the log's")
        return fail(
            check, found, "name the rules that it was made by (rules.file), or accept ours (rules.accept = true)"
        )
    began = time_of(head.since_ns or 0)
    since = "" if began is None else f"; it tells of jobs that were open at {began:%Y-%m-%d %H:%M:%SZ} or came later"
    return ok(check, f"format {head.format}, rules {made}: the same as ours{since}")


def last(entry: LastEntry | None) -> Finding:
    """Who wrote last, and when."""
    if entry is None:
        return skipped("log.last", "nothing was written yet")
    return ok("log.last", f"entry {entry.number}, of the kind {entry.kind}, {say_seconds(max(entry.age_s, 0.0))} ago")


def input_(found: Streams, checkpoint: InputPosition | None) -> Finding:
    """How many reports wait, by the last checkpoint (a running daemon writes one a second)."""
    check, stream = "log.input", found.input
    if not stream.there or not found.log.there:
        return skipped(check, "log and input are not both there")
    begun = 0 if checkpoint is None else checkpoint.sequence
    if begun > stream.last_seq:
        return warn(
            check,
            f"the log has decided reports up to {begun}, and the input ends at {stream.last_seq}: it lost its tail, or "
            "is another one",
            "reports that came after it are missing; a daemon announces it, and reads the input from its first entry",
        )
    waiting = stream.last_seq - max(begun, stream.first_seq - 1)
    if waiting > 0:
        return warn(
            check,
            f"{waiting} reports came after the checkpoint ({begun})",
            "is a daemon running? It takes them within seconds",
        )
    return ok(check, f"no report waits (checkpoint {begun})")


def refused(quarantined: int, undecodable: int) -> Finding:
    """How much was refused and is kept."""
    check = "log.refused"
    if not quarantined and not undecodable:
        return ok(check, "nothing was refused")
    return warn(
        check,
        f"{quarantined} events are in quarantine, {undecodable} could not be read",
        "jobstate quarantine list; jobstate quarantine show ORIGIN",
    )


def advisories(told: Sequence[Told]) -> Finding:
    """Judge the advisories of the daemons."""
    check = "log.advisories"
    if not told:
        return ok(check, "nothing was announced")
    said = ", ".join(f"{one.count} {one.kind} (last {say_seconds(max(one.last_age_s, 0.0))} ago)" for one in told)
    if min(one.last_age_s for one in told) > RECENT_S:
        return ok(check, f"nothing within a day; before: {said}")
    return warn(
        check,
        said,
        "jobstate advisories shows them; docs/guide/promise.md (Advisories) says what each means",
    )
