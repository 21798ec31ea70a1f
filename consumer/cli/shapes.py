"""The shapes of the lines that `--json` writes, by verb. The keys are promised; new ones may come.

The verbs' own functions return these types, so mypy holds them to it. docs/reference/cli.md is made of them, and
`tests/cli/test_shapes.py` lays real output beside them. No verb imports this when it runs.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NotRequired, TypedDict

from consumer.cli.wait import Outcome
from consumer.replay.summary import DerivedSummaryLine, PlayedLine, SummaryLine
from consumer.wire.subjects import RefusedKind


class UpdateLine(TypedDict):
    """An entry of the log."""

    subject: Annotated[str, "the entry's subject"]
    sequence: Annotated[int, "the entry's sequence in the stream"]
    stored: Annotated[str, "when the log stored it (UTC, ISO 8601)"]
    update: Annotated[
        dict[str, object] | None,
        "the [update](streams.md#update) as it is stored; null if the entry's bytes are no update",
    ]
    foreign: NotRequired[Annotated[bool, "true; only there if the entry is [foreign](../guide/promise.md#limits)"]]


class WaitLine(TypedDict):
    """A job whose outcome is known, or that was still open when the time was over."""

    job: Annotated[str, "`NAMESPACE/ID`; the id alone where no entry has named the namespace yet is `*/ID`"]
    outcome: Annotated[
        Outcome,
        "`reached`: the job is in the state that was waited for; `ended otherwise`: it ended in another; `replaced`: "
        "a later version began before this one had ended; `timeout`: it was still open",
    ]
    subject: Annotated[str | None, "the subject of the job's last entry; null if there is none"]
    sequence: Annotated[int | None, "its sequence in the stream"]
    stored: Annotated[str | None, "when the log stored it"]
    update: Annotated[dict[str, object] | None, "the job's last [update](streams.md#update)"]
    foreign: NotRequired[Annotated[bool, "true; only there if the entry is [foreign](../guide/promise.md#limits)"]]


class SentLine(TypedDict):
    """The report that was stored."""

    subject: Annotated[str, "the subject that the report was published to"]
    sequence: Annotated[int, "its sequence in the input stream; the origin of a rejection begins with it"]
    report: Annotated[dict[str, object], "the [report](streams.md#report) as it was published"]


class RefusedLine(TypedDict):
    """A rejected event, or bytes that could not be read."""

    subject: Annotated[str, "the entry's subject"]
    sequence: Annotated[int, "the entry's sequence in the stream"]
    stored: Annotated[str, "when it was stored (UTC, ISO 8601)"]
    kind: Annotated[RefusedKind, "`quarantine`: a rejected event; `undecodable`: bytes that could not be read"]
    reason: Annotated[str, "the [reason](../operations/troubleshooting.md#rejected-and-undecodable-events), a word"]
    job: Annotated[str, "`NAMESPACE/ID`; empty for `undecodable`"]
    origin: Annotated[str, "what `jobstate quarantine show` takes"]
    refused: Annotated[
        dict[str, object],
        "the [body](streams.md#quarantine) as it is stored; empty if somebody else stored something else",
    ]


class AdvisoryLine(TypedDict):
    """A warning that the daemon stored in the log."""

    subject: Annotated[str, "the entry's subject"]
    sequence: Annotated[int, "the entry's sequence in the stream"]
    stored: Annotated[str, "when it was stored (UTC, ISO 8601)"]
    kind: Annotated[str, "the [kind](../guide/promise.md#advisories), a word"]
    job: Annotated[str, "`NAMESPACE/ID`; empty if it is about no single job"]
    text: Annotated[str, "a sentence for people; empty if no daemon wrote the entry"]
    facts: Annotated[dict[str, str | int | None], "what was found, by name"]


class FindingLine(TypedDict):
    """One check."""

    check: Annotated[str, "the [check](../operations/doctor.md#the-checks)"]
    verdict: Annotated[Literal["ok", "warn", "fail", "skipped"], "its result"]
    found: Annotated[str, "what was found, a sentence"]
    next: Annotated[str, "what to do next; empty: nothing"]


class ExaminedLine(TypedDict):
    """The last line: the result of all checks."""

    summary: Annotated[dict[str, int], "the number of checks by verdict: `ok`, `warn`, `fail`, `skipped`"]
    failed: Annotated[list[str], "the checks that failed"]
    exit: Annotated[int, "the exit code"]


_Transition = TypedDict(
    "_Transition",
    {
        "from": Annotated[str, "the state before"],
        "to": Annotated[str, "the state after"],
        "when": Annotated[str, "when it happens"],
        "source": Annotated[str, "the evidence for it"],
    },
)


class RulesLine(TypedDict):
    """The rules."""

    file: NotRequired[Annotated[str, "with `--check` only: the file"]]
    verdict: NotRequired[Annotated[Literal["sound"], "with `--check` only; a file that is not sound is an error"]]
    name: Annotated[str, "the name of the rules"]
    hash: Annotated[str, "what logs are stamped with"]
    states: Annotated[list[str], "all states"]
    initial: Annotated[str, "the first state of a version"]
    terminal: Annotated[list[str], "the states that end a job"]
    new: Annotated[list[str], "the states in which a job may be seen first"]
    transitions: Annotated[list[_Transition], "all allowed transitions"]
    aliases: Annotated[dict[str, str], "other spellings, and the state that each one means"]
    restrictions: Annotated[dict[str, list[str]], "states that only these types of job reach"]
    dwell_s: Annotated[
        dict[str, float | None], "after how many seconds in a state a job is announced as stuck; null: never"
    ]


ExplainedLine = TypedDict(
    "ExplainedLine",
    {
        "from": Annotated[str | None, "the state before; null for a new job"],
        "to": Annotated[str, "the state after"],
        "allowed": Annotated[bool, "whether `to` may follow `from`"],
        "why": Annotated[str, "the reason, a sentence"],
    },
)

VersionLine = TypedDict(
    "VersionLine",
    {
        "jobstate": Annotated[str, "our version"],
        "python": Annotated[str, "the version of Python"],
        "nats-py": Annotated[str, "the version of the NATS client"],
        "msgspec": Annotated[str, "the version of msgspec"],
        "nats-server": NotRequired[Annotated[str, "with `--nats` only: the server's version"]],
    },
)

LINES: Final[Mapping[str, Mapping[str, type]]] = {
    "list": {"each line": UpdateLine},
    "get": {"each line": UpdateLine},
    "history": {"each line": UpdateLine},
    "watch": {"each line": UpdateLine},
    "wait": {"a line for each JOB": WaitLine},
    "send": {"the line": SentLine},
    "quarantine list": {"each line": RefusedLine},
    "quarantine show": {"each line": RefusedLine},
    "advisories": {"each line": AdvisoryLine},
    "doctor": {"a line for each check": FindingLine, "the last line": ExaminedLine},
    "rules": {"the line": RulesLine, "with `--explain`": ExplainedLine},
    "replay": {
        "a line for each update": PlayedLine,
        "the last line of a recording": SummaryLine,
        "the same with `--derived`": DerivedSummaryLine,
    },
    "demo": {"a line for each update": PlayedLine, "the last line": SummaryLine},
    "version": {"the line": VersionLine},
}
"""Verb: which lines it writes, and the shape of each. The verbs without `--json` are not here."""
