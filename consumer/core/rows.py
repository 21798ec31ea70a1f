"""What a list says of one job, laid beside what the log has of it: whether its history is worth a read.

Pure functions of (the rules, what the log has, the job as it is listed). A list shows a job's last state alone: what
came before it only the history tells (`consumer.core.history`), and when lists come is `consumer.core.lists`'s.
"""

from enum import StrEnum
from typing import Final

from consumer.model import REPORTED, LastUpdate, Snapshot
from consumer.rules import Rules


class Row(StrEnum):
    """What a row of a list says beside the log."""

    DIFFERS = "differs"
    """The log says otherwise, or nothing: read, whoever lists it and however often."""
    PERHAPS = "perhaps"
    """Something was written that need not be a state: worth one look, not one every second."""
    AGREES = "agrees"
    """The log says the same."""


ANEW_NS: Final = 10_000_000_000
"""A job's own time is that of its last write, give or take how long the orchestrator's store took for it."""


def lay_beside(rules: Rules, known: LastUpdate | None, listed: Snapshot, since_ns: int) -> Row:
    """What *listed* says beside *known*, in a log that began at *since_ns* (0: with the first job of all)."""
    if known is None:
        return Row.AGREES if is_left_out(rules, listed, since_ns) else Row.DIFFERS
    if known.source == REPORTED or (known.version, known.state) != (listed.version, listed.state):
        return Row.DIFFERS
    is_later = listed.revision > (known.revision or 0)
    return Row.PERHAPS if is_later or _ended_anew(rules, known, listed) else Row.AGREES


def is_left_out(rules: Rules, job: Snapshot, since_ns: int) -> bool:
    """Whether the job had ended when the log began, at *since_ns*."""
    return bool(since_ns) and rules.is_terminal(job.state) and job.modified_ns <= since_ns


def _ended_anew(rules: Rules, known: LastUpdate, listed: Snapshot) -> bool:
    """Whether the job was written at quite another time than the end that the log has.

    Then that may be another life's, which was lost with the orchestrator's data and made again alike.
    """
    return (
        listed.revision == known.revision
        and known.time_ns > 0
        and rules.is_terminal(known.state)
        and abs(listed.modified_ns - known.time_ns) > ANEW_NS
    )
