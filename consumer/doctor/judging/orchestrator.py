"""Bacalhau's API: is it that, does it let us read, which release, how far is its clock, what does a list cost."""

import re
from typing import Final

from consumer.core.options import COST_OF_LISTS, ReadingOptions, slow_lists_s
from consumer.doctor.facts import Answer, History, Listed
from consumer.doctor.finding import Finding, fail, ok, say_seconds, skipped, warn
from consumer.doctor.judging.streams import say_ahead
from consumer.faults import Fault, OrchestratorFault
from consumer.model import Profile
from consumer.wire.rest import KNOWN_VERSIONS

LIST_COST_S: Final = 40e-6
"""The time that a list costs an orchestrator for each job that it has ever stored (design/bacalhau.md 6.3)."""
CLOCK_WARN_S: Final = 5.0
CLOCK_FAIL_S: Final = 60.0
"""A minute is the precision for jobs that stand still (docs/operations/troubleshooting.md, a job is stuck)."""

_REACH: Final[frozenset[OrchestratorFault]] = frozenset({"unreachable", "unresolved"})
_TLS: Final[frozenset[OrchestratorFault]] = frozenset({"tls", "tls-expired", "tls-too-early", "not-tls", "needs-tls"})
_AUTH: Final[frozenset[OrchestratorFault]] = frozenset({"unauthorized", "forbidden"})
_VERSION: Final = re.compile(r"v(\d+)\.(\d+)\.(\d*)")


def reach(answer: Answer) -> Finding:
    """Whether anything is there."""
    return _by_kind("orchestrator.reach", answer, _REACH) or ok("orchestrator.reach", f"{answer.address} answers")


def tls(answer: Answer) -> Finding:
    """Whether the way to it is private, as far as that is asked for."""
    check = "orchestrator.tls"
    if found := _by_kind(check, answer, _TLS):
        return found
    if answer.private:
        return ok(check, "TLS is spoken, and the certificate holds")
    if answer.secret and not answer.loopback:
        return warn(
            check,
            f"no TLS: our credential goes to {answer.address} in the clear",
            "write https:// in orchestrator.url, if the way there is not your own",
        )
    return ok(check, "not asked for")


def auth(answer: Answer) -> Finding:
    """Whether we may read jobs."""
    check = "orchestrator.auth"
    if found := _by_kind(check, answer, _AUTH):
        return found
    if answer.fault is not None:
        return skipped(check, "no answer that could say so")
    return ok(check, "it takes our credential" if answer.secret else "it asks for no credential")


def answers(answer: Answer) -> Finding:
    """Whether it is Bacalhau's API that answers; each kind of wrong answer has its own reason."""
    check = "orchestrator.answer"
    fault = answer.fault
    if fault is None:
        return ok(check, "it answers as Bacalhau's API does")
    if fault.kind in _REACH | _TLS | _AUTH:
        return skipped(check, f"it lets nobody ask ({fault.kind})")
    return _failed(check, "its response is invalid: ", fault)


def version(answer: Answer) -> Finding:
    """Whether the release is one whose answers are known, and what its frames look like."""
    check, found = "orchestrator.version", _VERSION.match(answer.version)
    if found is None:
        return warn(
            check,
            "its answers name no version (X-Bacalhau-Git-Version)",
            "does a proxy drop headers? jobstate knows 1.5 to 1.9",
        )
    number = (int(found[1]), int(found[2]))
    if number < KNOWN_VERSIONS[0]:
        return warn(
            check,
            f"Bacalhau {answer.version} is older than what is known (1.5 to 1.9)",
            "upgrade it; states may be missed",
        )
    if number > KNOWN_VERSIONS[1]:
        return warn(
            check,
            f"Bacalhau {answer.version} is newer than what is known (1.5 to 1.9)",
            "see whether answers or frames are refused (jobstate_reads_total, …_undecodable_total), and report it",
        )
    return ok(check, f"Bacalhau {answer.version}, profile {profile_of(answer.version)}")


def profile_of(version_: str) -> Profile | None:
    """The profile of an orchestrator's frames, by its *version_* (design/bacalhau.md 0.3); None: unknown."""
    found = _VERSION.match(version_)
    if found is None:
        return None
    number = (int(found[1]), int(found[2]), int(found[3] or 0))
    if number[:2] == (1, 5):
        return "1.5.2" if number >= (1, 5, 2) else "1.5.0"
    return "1.6-1.7" if number < (1, 8) else "1.8+"


def clock(answer: Answer, jetstream_ahead_s: float | None) -> Finding:
    """How far its clock is from ours, and (by ours) from JetStream's. Its `Date` is in whole seconds."""
    check, ahead = "orchestrator.clock", answer.ahead_s
    if ahead is None:
        return skipped(check, "its answers name no time (Date)")
    said = f"its clock is {say_ahead(ahead)} ours"
    if jetstream_ahead_s is not None:
        said += f", and {say_ahead(ahead - jetstream_ahead_s)} JetStream's"
    step = "set the clocks (NTP): times of updates are the orchestrator's, and jobs that stand still are told by them"
    if abs(ahead) >= CLOCK_FAIL_S:
        return fail(check, said, step)
    if abs(ahead) >= CLOCK_WARN_S:
        return warn(check, said, step)
    return ok(check, f"{said} (to the second)")


def lists(listed: Listed, every_s: float | None) -> Finding:
    """How soon a change is found that no frame tells of: the pause between lists is a multiple of what one takes.

    *every_s*: `scan.list`, None: auto.
    """
    check, pacing = "orchestrator.list", ReadingOptions()
    if listed.fault is not None:
        return _failed(check, "the list of jobs is invalid: ", listed.fault)
    every_s = every_s or pacing.list_every_s
    within_s = max(every_s, pacing.list_share * listed.seconds) + 2 * listed.seconds
    took = say_seconds(listed.seconds)
    if not listed.complete:
        took = f"a list took {took}, as of some {int(listed.seconds / LIST_COST_S):,} stored jobs at most"
    elif listed.jobs:
        took = f"a list of all {len(listed.jobs)} jobs took {took}"
    else:
        took = f"it stores no job yet, and a list took {took}"
    said = f"{took}: a change that no frame tells of is found within {say_seconds(within_s)}"
    return warn(check, said, COST_OF_LISTS) if within_s > slow_lists_s(every_s) else ok(check, said)


def history(found: History | None) -> Finding:
    """Whether the newest job's history can be read. None: there is no job."""
    check = "orchestrator.history"
    if found is None:
        return skipped(check, "it has no job yet")
    said = f"the history of {found.job} cannot be read: "
    if found.fault is not None:
        return _failed(check, said, found.fault)
    if not found.states:
        step = "the list has it: look at the orchestrator's log, its store may be damaged"
        return fail(check, f"{said}missing: it has no history", step)
    return ok(check, f"{found.states} states of {found.job}, its newest job")


def _by_kind(check: str, answer: Answer, kinds: frozenset[OrchestratorFault]) -> Finding | None:
    return _failed(check, "", answer.fault) if answer.fault is not None and answer.fault.kind in kinds else None


def _failed(check: str, said: str, fault: Fault) -> Finding:
    return fail(check, f"{said}{fault.kind}: {fault.detail}", fault.next_step)
