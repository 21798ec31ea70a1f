"""What the readers announce, in words: one function for each cause. When, is `consumer.core.answers`' to say."""

from consumer.core.claim import ClaimKind
from consumer.faults import OrchestratorFault
from consumer.model import JobKey, LastUpdate, LogPoint, Notice, RejectedReason, Step
from consumer.wire.subjects import escape


def gone(name: str, key: JobKey | None, known: LastUpdate) -> Notice:
    """The orchestrator answers 404 for the job *name*, of which the log has *known*."""
    return Notice(
        kind="gone",
        origin=f"{escape(name)}-{known.sequence}",
        text="the orchestrator does not know this job any more; the log's last update of it stands",
        key=key,
        facts={"sequence": known.sequence, "log": f"v{known.version} r{known.revision} {known.state}"},
    )


def diverged(name: str, key: JobKey, after: LogPoint, present: Step) -> Notice:
    """The log stands at *after*, and the record, at *present*, says nothing of that."""
    return Notice(
        kind="diverged",
        origin=f"{escape(name)}-{after.sequence}",
        text="the log says what the record does not; the record's present state follows, corrected",
        key=key,
        facts={
            "sequence": after.sequence,
            "log": f"v{after.version} r{after.revision} {after.state}",
            "record": f"v{present.version} r{present.revision} {present.state}",
        },
    )


def record_went_back(newest_ns: int, seen_ns: int) -> Notice:
    """The newest ModifyTime of all jobs (ns) is older than one that was seen."""
    return Notice(
        kind="diverged",
        origin=f"record-{newest_ns}",
        text="the record's newest change is older than one seen before: the orchestrator's data went back",
        facts={"newest_ns": newest_ns, "seen_ns": seen_ns},
    )


def began_ahead(since_ns: int, clock_ns: int) -> Notice:
    """The log begins at *since_ns* by the orchestrator's clock, which says *clock_ns* now: it was ahead then."""
    return Notice(
        kind="diverged",
        origin=f"beginning-{since_ns}",
        text="the orchestrator's clock was ahead when the log began and is set back: what ends now is told",
        facts={"since_ns": since_ns, "clock_ns": clock_ns},
    )


def halted(name: str, key: JobKey, step: Step, reason: RejectedReason) -> Notice:
    """The rules reject *step* of the record, for *reason*."""
    return Notice(
        kind="halted",
        origin=f"{escape(name)}-{step.version}-{step.revision}",
        text="the rules reject the record's next step: the job stands still until other rules are accepted",
        key=key,
        facts={"step": f"v{step.version} r{step.revision} {step.state}", "reason": reason},
    )


def unreadable(name: str, key: JobKey | None, kind: OrchestratorFault | ClaimKind) -> Notice:
    """The job's record could not be read several times in a row, while others could; *kind* names what it answered.

    That is an error's, or what the answers say against the log.
    """
    return Notice(
        kind="unreadable",
        origin=f"{escape(name)}-{kind}",
        text="the orchestrator returns no usable answer about this job; "
        "its updates wait, and jobstate retries less and less often",
        key=key,
        facts={"job": name, "error": kind},
    )
