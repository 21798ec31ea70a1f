"""The fold: (rules, what is known of a job, event) -> decision. A pure function; `follow` is its other half.

It names no state of Bacalhau's (those are data, `consumer.rules`) and knows no lane, log or clock. Asking twice gives
the same answer: nothing here changes anything.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from consumer.model import (
    NOWHERE,
    NUMBER_MAX,
    OBSERVED,
    REPORTED,
    Accepted,
    Decision,
    Event,
    Flag,
    Identity,
    InputPosition,
    Job,
    LastUpdate,
    Malformed,
    Record,
    Rejected,
    Report,
    Source,
    Step,
    Unchanged,
    Undecodable,
    Update,
    log_point_of,
)
from consumer.rules import Rules

MESSAGE_KEPT: Final = 64
"""Characters of a report's message that are remembered as they are; of a longer one its digest."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_SAME: Final = Unchanged(reason="same")
_LATE: Final = Unchanged(reason="late")
_COVERED: Final = Unchanged(reason="covered")
_UNJOINED: Final = Unchanged(reason="unjoined")


def decide(rules: Rules, known: LastUpdate | None, event: Event) -> Decision:
    """Say what *event* means for a job of which *known* is the last confirmed update. Changes nothing: see `follow`."""
    match event:
        case Report():
            return _decide_report(rules, known, event)
        case Record():
            return _decide_record(rules, known, event)
        case Malformed():
            return Undecodable(reason=event.reason)


def follow(known: LastUpdate | None, update: Update, number: int, position: InputPosition = NOWHERE) -> LastUpdate:
    """What is known once *update* is the log's entry *number*. *position* is the report it came from, if one did.

    The last covered report goes along with every later update of the job, so that a restart that reads it again still
    knows it for covered, whoever had the last word.
    """
    covered = position if position > NOWHERE else known.input if known is not None else NOWHERE
    job = update.Job
    return LastUpdate(
        number=number,
        sequence=update.Sequence,
        state=update.StateType,
        version=job.Version,
        revision=job.Revision,
        source=update.Source,
        message=_kept(update.Message) if update.Source == REPORTED else "",
        input_time_ns=covered.time_ns,
        input_sequence=covered.sequence,
        name=job.Name,
        type=job.Type,
        time_ns=_ns_of(update.Time) if update.Source == OBSERVED and update.Time is not None else 0,
    )


def _ns_of(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000


def _kept(message: str) -> str:
    """What is remembered of a message: enough to tell the next report's from it, and not more for every job there is.

    (A record's is never looked at again.)
    """
    if len(message) <= MESSAGE_KEPT:
        return message
    return f"=sha256={sha256(message.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _decide_report(rules: Rules, known: LastUpdate | None, report: Report) -> Decision:
    if known is not None and report.position <= known.input:
        return _COVERED
    if report.problem:
        return Rejected(reason="identity", rule=report.problem)
    state = rules.find(report.state)
    if state is None:
        return Rejected(reason="unknown-state", rule=f"the rules know only {', '.join(rules.states)}")
    if (report.version or 0) > NUMBER_MAX or (report.revision or 0) > NUMBER_MAX:
        return Rejected(reason="out-of-range", rule=f"a version or revision is at most {NUMBER_MAX}")
    if known is None:
        return _judge(rules, None, report, state)
    if known.source != REPORTED:
        return Rejected(reason="authority", rule="Bacalhau's record or frames tell of this job, so no producer does")
    return _decide_next(rules, known, report, state)


def _decide_next(rules: Rules, known: LastUpdate, report: Report, state: str) -> Decision:
    """Of a job that only producers told of: first where the report places itself, then what it says."""
    version = _compare(report.version, known.version)
    if version > 0:
        return _begin_life(rules, known, report, state)
    revision = _compare(report.revision, known.revision)
    if version < 0 or revision < 0:
        return _LATE
    if state == known.state:
        if _kept(report.message) == known.message or rules.is_terminal(state):
            return _SAME
        return _accept(known, report, state, ("message",))
    if report.revision is not None and revision == 0 and known.revision is not None:
        return Rejected(reason="conflict", rule=f"revision {report.revision} was {known.state} before")
    return _judge(rules, known, report, state)


def _compare(told: int | None, known: int | None) -> int:
    """Below, at or above zero as *told* is to *known*; zero where one of them was not given."""
    return 0 if told is None or known is None else told - known


def _begin_life(rules: Rules, known: LastUpdate, report: Report, state: str) -> Decision:
    # A higher version is a new life. Whoever reports it may have come late: it may begin anywhere, and that is flagged.
    flags: tuple[Flag, ...] = () if state == rules.initial else ("skipped",)
    if not rules.completable(report.job.type or known.type, state):
        return _not_completable(report.job.type or known.type, state)
    return _accept(known, report, state, flags)


def _judge(rules: Rules, known: LastUpdate | None, report: Report, state: str) -> Decision:
    previous = known.state if known is not None else None
    if not rules.allows(previous, state):
        return _forbidden(rules, previous, state)
    job_type = report.job.type or (known.type if known is not None else "")
    if not rules.completable(job_type, state):
        return _not_completable(job_type, state)
    return _accept(known, report, state, ())


def _accept(known: LastUpdate | None, report: Report, state: str, flags: tuple[Flag, ...]) -> Accepted:
    version = report.version
    if version is None and known is not None:
        version = known.version  # not told: the same life goes on
    update = _update(
        known,
        report.job,
        state=state,
        message=report.message,
        time=report.time or _stored(report.position),
        version=version,
        revision=report.revision,
        source=REPORTED,
        flags=flags,
    )
    return Accepted(update=update)


def _stored(position: InputPosition) -> datetime:
    """When the input stored the report: the update's time if the report names none (design/design.md 4)."""
    return _EPOCH + timedelta(microseconds=position.time_ns // 1000)


def _decide_record(rules: Rules, known: LastUpdate | None, record: Record) -> Decision:
    behind = _steps_behind(known, record)
    if behind is None:
        return _UNJOINED
    if behind >= len(record.steps):
        return _LATE
    step = record.steps[behind]
    flags = record.flags
    if record.corrected:
        flags = (*flags, "corrected")
    elif (refusal := _refusal(rules, known, record, step)) is not None:
        return Rejected(reason=refusal.reason, rule=refusal.rule, step=behind)
    elif known is not None and known.version != step.version and step.state != rules.initial:
        flags = (*flags, "skipped")
    update = _update(
        known,
        record.job,
        state=step.state,
        message=step.message,
        time=step.time,
        version=step.version,
        revision=step.revision,
        source=record.source,
        flags=flags,
    )
    return Accepted(update=update, more=behind + 1 < len(record.steps))


def _steps_behind(known: LastUpdate | None, record: Record) -> int | None:
    """How many of the record's steps the log has already; None if the log stands at no place of this run."""
    here = log_point_of(known)
    behind = here.sequence - record.after.sequence
    if behind < 0:
        return None
    if known is not None and known.source == REPORTED and not (record.corrected and behind == 0):
        return None  # a producer may have said the very same: the record takes over from there, corrected
    if behind == 0:
        return 0 if here == record.after else None
    if behind > len(record.steps):
        return None
    step = record.steps[behind - 1]
    if (here.version, here.revision, here.state) != (step.version, step.revision, step.state):
        return None
    return behind


def _refusal(rules: Rules, known: LastUpdate | None, record: Record, step: Step) -> Rejected | None:
    previous = known.state if known is not None else None
    new_life = known is not None and known.version is not None and step.version > known.version
    if not new_life and not rules.allows(previous, step.state):
        return _forbidden(rules, previous, step.state)
    if not rules.completable(record.job.type, step.state):
        return _not_completable(record.job.type, step.state)
    return None


def _forbidden(rules: Rules, previous: str | None, state: str) -> Rejected:
    after_end = previous is not None and rules.is_terminal(previous)
    return Rejected(
        reason="after-terminal" if after_end else "illegal-transition",
        rule=rules.explain(previous, state),
    )


def _not_completable(job_type: str, state: str) -> Rejected:
    return Rejected(reason="not-completable", rule=f"a job of type {job_type} does not reach {state}")


def _update(
    known: LastUpdate | None,
    identity: Identity,
    *,
    state: str,
    message: str,
    time: datetime | None,
    version: int | None,
    revision: int | None,
    source: Source,
    flags: tuple[Flag, ...],
) -> Update:
    return Update(
        StateType=state,
        Message=message,
        Job=Job(
            ID=identity.id,
            Namespace=identity.namespace,
            Name=identity.name or (known.name if known is not None else ""),
            Type=identity.type or (known.type if known is not None else ""),
            Version=version,
            Revision=revision,
        ),
        Previous=known.state if known is not None else None,
        Sequence=known.sequence + 1 if known is not None else 1,
        Time=time,
        Source=source,
        Flags=flags,
    )
