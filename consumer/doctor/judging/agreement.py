"""Both sides together: are frames and record of one cluster, is the log what the record says, is a daemon at work."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from consumer.core.history import Part
from consumer.doctor.facts import Answer, Contact, Heard, Looked, Pair, Readiness, Sample
from consumer.doctor.finding import Finding, fail, ok, say_named, say_seconds, skipped, warn
from consumer.doctor.judging.orchestrator import profile_of
from consumer.model import OBSERVED, REPORTED, Profile

BEHIND_S: Final = 30.0
"""A step of the record that is older, and not in the log: nobody is about to write it."""

_RELEASES: Final[tuple[Profile, ...]] = ("1.5.0", "1.5.2", "1.6-1.7", "1.8+")

_CLUSTERS: Final = (
    "orchestrator.url and bacalhau.url lead to different clusters (or the orchestrator's data were replaced): mend one"
)


def same_server(bacalhau: Contact, answer: Answer) -> Finding:
    """Whether the NATS server has the name of the orchestrator's node, as Bacalhau's own has (design/bacalhau.md 7)."""
    check = "frames.server"
    if not answer.node:
        return skipped(
            check,
            f"the orchestrator does not say which node it is ({answer.untold})",
            "a credential needs the capability read:agent for that, which the daemon can do without",
        )
    if answer.node != bacalhau.server:
        return warn(
            check,
            f"the NATS server is named {bacalhau.server}, and the orchestrator's node {answer.node}: Bacalhau's own "
            "server has its node's name, on another one no frame may come",
            "check bacalhau.url: without frames changes are found by reading in turn, and by lists; it is right only "
            "if a NATS server of yours stands between (a leaf node, a cluster)",
        )
    return ok(check, f"it has the name of the orchestrator's node, {answer.node}")


def heard(found: Heard, version: str) -> Finding:
    """Judge the frames that came, and whether they fit the orchestrator's release. *version* empty: it said nothing."""
    check = "frames.heard"
    if not found.frames:
        return skipped(
            check,
            f"no frame within {say_seconds(found.seconds)}: the cluster is quiet, which is no fault",
            "start a job, or listen longer (--listen 60s)",
        )
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.kinds.items()))
    said = f"{found.frames} frames within {say_seconds(found.seconds)} ({kinds or 'none that is read'})"
    unread = sum(found.unread.values())
    if unread:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(found.unread.items()))
        judge = fail if unread == found.frames else warn
        return judge(
            check, f"{said}; not to be read: {reasons}", "is this Bacalhau newer than 1.9? Report it, with the reason"
        )
    profiles = ", ".join(sorted(found.profiles))
    if _ahead_of(found, version):
        return warn(check, f"{said}, profile {profiles}; the orchestrator says {version}", _CLUSTERS)
    if found.gaps:
        return warn(
            check,
            f"{said}; frames were missed {found.gaps} times",
            "the connection is lost again and again: see that server's log",
        )
    return ok(check, f"{said}, profile {profiles}")


def _ahead_of(found: Heard, version: str) -> bool:
    """Whether a frame is of a later release than the orchestrator that would have written it."""
    profile = profile_of(version)
    if profile is None:
        return False
    later = _RELEASES[_RELEASES.index(profile) + 1 :]
    return any(one in later for one in found.profiles)


def known(found: Heard, looked: Looked) -> Finding:
    """Whether the orchestrator knows the jobs that frames name: it stores a job before the first frame names it."""
    check = "frames.known"
    if not found.jobs:
        return skipped(check, "no frame named a job")
    if looked.trouble:
        return warn(check, f"it could not be told: {looked.trouble}", "run it again")
    if looked.unknown and not looked.known:
        return fail(
            check, f"the orchestrator knows none of the jobs that frames name ({say_named(looked.unknown)})", _CLUSTERS
        )
    if looked.unknown:
        return warn(
            check,
            f"of the jobs that frames name it knows {len(looked.known)}, and not {say_named(looked.unknown)}",
            "is there a second orchestrator on that NATS? Run it again",
        )
    return ok(check, f"it knows all {len(looked.known)} jobs that were looked up")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one job's log stands beside its record. `contradiction`: what differs; empty: the log is a prefix.

    `behind`: how many steps the log lacks; `since`: when the first of them happened (None: unknown, or none).
    """

    contradiction: str = ""
    behind: int = 0
    since: datetime | None = None


def compare(pair: Pair) -> Standing:
    """Lay a job's updates beside its history: each must be the step that it names, and they must follow each other.

    Updates before a correction are not compared: the log had been wrong, and said so.
    """
    part = Part.after(None, pair.entries or ())
    entries = part.entries
    corrected = [index for index, update in enumerate(pair.updates) if "corrected" in update.Flags]
    updates = pair.updates[corrected[-1] :] if corrected else pair.updates
    reached, before = 0, None
    for update in updates:
        if update.Source == REPORTED:
            continue
        here = (update.Job.Version, update.StateType)
        revision = update.Job.Revision
        if revision is None:  # derived while there was no orchestrator: what counts is what it says
            same = [number for number, one in enumerate(entries, 1) if (one.version, one.state) == here]
            revision = next((number for number in same if number > reached), None)
            if revision is None:
                return Standing(contradiction=f"the log says {update.StateType}, the record never did")
        elif revision > len(entries):
            return Standing(contradiction=f"the log is at revision {revision}, the record ends at {len(entries)}")
        there = entries[revision - 1]
        if (there.version, there.state) != here:
            said = f"revision {revision} is {update.StateType} in the log and {there.state} in the record"
            return Standing(contradiction=said)
        left_out = sum((step.revision or 0) <= revision for step in part.steps(reached, before)) - 1 if reached else 0
        if left_out > 0 and update.Source == OBSERVED and "skipped" not in update.Flags:
            said = f"the log has left out {left_out} states between revisions {reached} and {revision}"
            return Standing(contradiction=said)
        reached, before = revision, (there.version, there.state)
    left = part.steps(reached, before)
    return Standing(behind=len(left), since=left[0].time if left else None)


def agrees(sample: Sample, now: datetime) -> Finding:
    """Whether the log is what the record says, or a prefix. *now* by the orchestrator's clock."""
    check = "record.agrees"
    absent = [pair.job for pair in sample.pairs if pair.entries is None]
    standings = {pair.job: compare(pair) for pair in sample.pairs if pair.entries is not None}
    wrong = [f"{job}: {one.contradiction}" for job, one in standings.items() if one.contradiction]
    if absent and not standings:
        return fail(
            check,
            f"the orchestrator knows none of the log's jobs ({say_named(absent)})",
            "orchestrator.url is another cluster's than this log, or its data were replaced: mend it, or choose "
            "another `cluster`",
        )
    if wrong:
        return fail(
            check,
            f"of {len(standings)} jobs {len(wrong)} differ: {say_named(wrong)}",
            "a daemon that runs announces it (advisory diverged) and corrects it; if it stays: jobstate history JOB",
        )
    if sample.trouble:
        return warn(check, f"a part could not be read: {sample.trouble}", "run it again")
    if absent:
        return warn(
            check,
            f"the orchestrator does not know {say_named(absent)} any more, which the log has",
            "were its data replaced? A daemon announces such jobs (gone)",
        )
    late = [
        f"{job} ({one.behind} states since {one.since:%H:%M:%SZ})"
        for job, one in standings.items()
        if one.since is not None and now - one.since > timedelta(seconds=BEHIND_S)
    ]
    if late or sample.lacking:
        said = [f"the log is behind for {say_named(late)}"] if late else []
        said += [f"it lacks {say_named(sample.lacking)}"] if sample.lacking else []
        return warn(check, "; ".join(said), "is a daemon running, and is it ready? See daemon.ready")
    reported = f"; {sample.reported} more are of reports alone" if sample.reported else ""
    if not standings:
        return skipped(check, f"the log has no job of the record yet{reported}")
    behind = sum(one.behind > 0 for one in standings.values())
    same = f"{len(standings) - behind} of {len(standings)} jobs are in the log exactly as in the record"
    return ok(check, same + (f", {behind} a few states behind" if behind else "") + reported)


def ready(found: Readiness | None, failed: tuple[str, ...], cluster: str) -> Finding:
    """Judge a daemon's own answers. *failed*: checks before; a daemon that says the same is no second fault.

    *cluster*: ours; one that follows another's says nothing of it.
    """
    check = "daemon.ready"
    if found is None:
        return skipped(check, "http.port is 0: the daemon's log line daemon.started says which it took")
    if found.away:
        return warn(
            check,
            f"no daemon answers at {found.address}: {found.away}",
            "start `jobstate run`; one on another machine is not seen from here",
        )
    if found.alien:
        return warn(
            check,
            f"what answers at {found.address} is no daemon of ours",
            "set http.port: the daemon took another one (daemon.started says which)",
        )
    if found.cluster and found.cluster != cluster:
        return warn(
            check,
            f"the daemon at {found.address} follows the cluster {found.cluster}, and these settings are of {cluster}",
            f"start one for {cluster}; if one runs, set http.port to what its line daemon.started says (http)",
        )
    if found.ready:
        return ok(check, f"a daemon at {found.address} is ready")
    said = "; ".join(f"{part}: {why}" for part, why in found.unready.items())
    judge = warn if failed else fail
    return judge(
        check,
        f"a daemon at {found.address} is not ready: {said}",
        "docs/operations/troubleshooting.md (it runs, and updates do not come)",
    )
