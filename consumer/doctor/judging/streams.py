"""Our four streams: are they there and as configured, have they room, how many copies, what does a power loss take."""

from typing import Final, Literal

from consumer.doctor.facts import Account, Monitor, Stream, Streams
from consumer.doctor.finding import Finding, fail, ok, say_bytes, say_named, say_seconds, skipped, warn

FULL: Final = 0.98
FILLING: Final = 0.8
CLOCK_WARN_S: Final = 5.0
SAME_S: Final = 0.5


def streams(found: Streams, mode: Literal["create", "bind"]) -> Finding:
    """Whether all are there and none differs. *mode*: as the setting."""
    check = "nats.streams"
    absent = [stream.name for stream in found.all if not stream.there]
    differing = [stream for stream in found.all if stream.differences]
    if differing:
        said = "; ".join(f"{stream.name} ({', '.join(stream.differences)})" for stream in differing)
        return fail(
            check,
            f"not what is configured: {said}",
            "set [streams] to what is there, or edit the stream (nats stream edit): the daemon refuses to start",
        )
    if not absent:
        sizes = ", ".join(f"{one.name}: {one.messages} entries" for one in found.all)
        return ok(check, f"all there and as configured ({sizes})")
    if mode == "bind":
        return fail(
            check, f"absent: {', '.join(absent)}; and streams.mode is bind", 'make them, or set streams.mode = "create"'
        )
    if len(absent) == len(found.all):
        return warn(
            check,
            "none is there yet",
            "start `jobstate run`: it makes them. If it ran before, nats.url or cluster is another's",
        )
    return fail(
        check,
        f"absent: {', '.join(absent)}; the others are there",
        "somebody deleted it, or it could not be made: a daemon that runs makes it within seconds, so start one: it "
        "says what keeps it, at the start or at /readyz",
    )


def bucket(found: Streams, fault: str) -> Finding:
    """Whether the bucket is a copy of this log; *fault* says why not."""
    check = "nats.bucket"
    if not (found.log.there and found.bucket.there):
        return skipped(check, "log and bucket are not both there")
    if fault:
        return fail(
            check,
            f"{found.bucket.name} is no copy of this log: {fault}",
            f"delete {found.bucket.name}: the server fills a new one from the log (a daemon does it by itself)",
        )
    return ok(check, f"{found.bucket.name}: {found.bucket.messages} jobs, copied by the server from the log")


def unfit(why: str) -> Finding:
    """The account would not take what is absent: *why*, with each setting to change."""
    return fail("nats.room", why, "change these settings before the first start: a stream is never altered")


def room(found: Streams, account: Account, monitor: Monitor | None) -> Finding:
    """Whether what is there can grow, and what is absent can be made."""
    check, log = "nats.room", found.log
    absent = [stream for stream in found.all if not stream.there]
    needed = sum(max(stream.max_bytes, 0) * stream.copies for stream in absent)
    part = log.bytes / log.max_bytes if log.there and log.max_bytes > 0 else 0.0
    if part >= FULL:
        return fail(
            check,
            f"the log is full ({say_bytes(log.bytes)} of {say_bytes(log.max_bytes)}): updates wait",
            "raise max_bytes of the stream and streams.log_max_bytes, both: they must agree",
        )
    if account.streams_max >= 0 and account.streams + len(absent) > account.streams_max:
        return fail(
            check,
            f"the account may have {account.streams_max} streams, and has {account.streams}",
            "raise its max_streams",
        )
    bounds = [("the account", account.storage_max, account.storage, account.reserved)]
    if monitor is not None and not monitor.fault:
        bounds.append(("the server", monitor.storage_max, monitor.storage, monitor.reserved))
    for whose, most, used, reserved in bounds:
        if most < 0:
            continue
        left = most - max(used, reserved)
        if needed > left:
            wanting = say_named([stream.name for stream in absent])
            return fail(
                check,
                f"{whose} has room for {say_bytes(left)} more, and {wanting} would reserve {say_bytes(needed)}",
                "raise its storage limit (max_file, max_file_store), or lower the …_max_bytes in [streams]",
            )
        if used >= FULL * most:
            return fail(
                check,
                f"{whose} has used {say_bytes(used)} of {say_bytes(most)}",
                "raise its storage limit: nothing can be stored",
            )
        if used >= FILLING * most:
            return warn(
                check,
                f"{whose} has used {say_bytes(used)} of {say_bytes(most)}",
                "raise its storage limit before it is full",
            )
    if part >= FILLING:
        return warn(
            check,
            f"the log is {part:.0%} full ({say_bytes(log.bytes)} of {say_bytes(log.max_bytes)})",
            "raise max_bytes of the stream and streams.log_max_bytes before updates have to wait",
        )
    held = f"the log holds {say_bytes(log.bytes)} of {say_bytes(log.max_bytes) if log.max_bytes > 0 else 'no bound'}"
    limits = (
        "the account has no limit"
        if account.storage_max < 0
        else f"the account may take {say_bytes(account.storage_max)}"
    )
    return ok(check, f"{held if log.there else 'no log yet'}; {limits}")


def replicas(found: Streams) -> Finding:
    """How many copies of the log there are, and whether they keep up."""
    check, log = "nats.replicas", found.log
    if not log.there:
        return skipped(check, "no log yet")
    if log.cluster and not log.leader:
        return fail(
            check, f"{log.name} has no leader: nothing can be written", "bring the servers of that cluster back"
        )
    behind = [replica.name for replica in log.replicas if replica.offline or not replica.current]
    if behind:
        return warn(
            check,
            f"of {log.copies} copies {say_named(behind)} {'is' if len(behind) == 1 else 'are'} behind or away",
            "look at these servers",
        )
    if log.copies > 1:
        return ok(check, f"{log.copies} copies, all current, in the cluster {log.cluster} (leader {log.leader})")
    if log.cluster:
        return warn(
            check,
            f"one copy, on {log.leader} of the cluster {log.cluster}: while that server is away, updates wait",
            "streams.replicas = 3, and the same in the streams (nats stream edit)",
        )
    return ok(check, "one copy, and the server is not clustered: while it is away, updates wait")


def sync(found: Streams, monitor: Monitor | None) -> Finding:
    """Judge the loss in a power failure (design/nats.md 5). A process crash takes nothing that was acknowledged."""
    check, copies = "nats.sync", found.log.copies
    if monitor is not None and monitor.fault:
        return warn(check, f"the monitoring port says nothing: {monitor.fault}", "check --monitor (http://host:8222)")
    if monitor is not None and monitor.sync_always:
        return ok(check, "sync_interval: always; a power loss takes nothing that was acknowledged")
    if copies > 1:
        return ok(
            check,
            f"{copies} copies: a power loss takes acknowledged entries only where it takes all their servers at once",
            "see that these servers do not share their power, or set sync_interval: always",
        )
    known = (
        "cannot be seen through NATS; unless it is always,"
        if monitor is None
        else f"is {say_seconds(monitor.sync_interval_s)}:"
    )
    return warn(
        check,
        f"sync_interval {known} a power loss takes acknowledged entries, and all of a log that is younger than that "
        "(2 min by default); a crash of the process takes nothing",
        "jetstream { sync_interval: always }, or 3 copies on separate power, if the orchestrator's record is not "
        "enough to bring it back" + ("; to see how it is: --monitor http://host:8222" if monitor is None else ""),
    )


def clock(found: Streams) -> Finding:
    """The server's clock beside ours: it stamps reports that name no time, and entries."""
    check, ahead = "nats.clock", found.ahead_s
    if ahead is None:
        return skipped(check, "no stream is there that could say its time")
    if abs(ahead) > CLOCK_WARN_S:
        return warn(
            check,
            f"the server's clock is {say_ahead(ahead)} ours",
            "set both clocks (NTP): times of reports come from it",
        )
    return ok(check, f"the server's clock is {say_ahead(ahead)} ours")


def say_ahead(ahead_s: float) -> str:
    """`3.0 s ahead of`, `1 min behind`, `the same as`."""
    if abs(ahead_s) < SAME_S:
        return "the same as"
    return f"{say_seconds(abs(ahead_s))} {'ahead of' if ahead_s >= 0 else 'behind'}"


def has(stream: Stream) -> bool:
    """Whether there is anything in it to look at."""
    return stream.there and stream.last_seq > 0
