"""What several verbs take, each stated once: its name, its type, its help.

Options that go together are a `Group`: a verb that takes one (`@with_groups`) has all of its options. An option of one
verb alone stands in the signature of that verb.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from consumer.cli.parsing import read_count, read_job, read_name, read_output

if TYPE_CHECKING:
    from consumer.cli.display import Heads

_KINDS: Final = "`open` and `terminal` name all of a kind. Repeatable."

Nats = Annotated[
    str | None,
    typer.Option(
        "--nats",
        metavar="URL",
        help="Read from this NATS server. [env var: JOBSTATE_NATS__URL; default: nats://127.0.0.1:4222]",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="NAME", help="Read the log of this cluster. [env var: JOBSTATE_CLUSTER; default: main]"
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read these settings from a jobstate.toml, and TLS and credentials of NATS, which have no option "
        "(nats.tls_ca, nats.user and its password, nats.credentials_file, or their variables). "
        "[env var: JOBSTATE_CONFIG]",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Read the token for NATS from this file. [env var: JOBSTATE_NATS__TOKEN_FILE]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object per line (the same as -o json).")]
OutputForm = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="json|text",
        parser=read_output,
        help="Write one JSON object per line, or text. [default: text]",
    ),
]
Headers = Annotated[
    bool,
    typer.Option("--headers", help="Write the column names first, also if the output is not a terminal."),
]

Limit = Annotated[
    int, typer.Option("--limit", metavar="N", parser=read_count, help="Show only the newest N entries. 0: all.")
]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("--namespace", metavar="NS", parser=read_name, help="Show only this namespace. Repeatable."),
]
JobStates = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE,...", help=f"Show only jobs in these states; {_KINDS}"),
]
StateChanges = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE,...", help=f"Show only changes to these states; {_KINDS}"),
]
Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        parser=read_job,
        help="The job's id, the beginning of its id (j-1234abcd), or its name; NAMESPACE/ may stand before it.",
    ),
]
Jobs = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB...",
        parser=read_job,
        help="Ids, beginnings of ids (j-1234abcd) or names; NAMESPACE/ may stand before each.",
    ),
]

Form = Literal["json", "text"]
"""What a verb writes: a line of JSON for each thing, or text for people and for `cut`."""


class Group:
    """A dataclass whose fields are options, in the order of `--help`."""


class _Formed(Group):
    """What says in which form a verb writes. Raises typer's usage error where it says two."""

    as_json: bool
    output: str | None

    def __post_init__(self) -> None:
        if self.as_json and self.output == "text":
            raise typer.BadParameter("does not go together with -o text: give one of them", param_hint="'--json'")

    @property
    def form(self) -> Form:
        """JSON where one of the two asks for it."""
        return "json" if self.as_json or self.output == "json" else "text"


@dataclasses.dataclass(frozen=True)
class Output(_Formed):
    """How a verb writes."""

    as_json: AsJson = False
    output: OutputForm = None


@dataclasses.dataclass(frozen=True)
class Rows(_Formed):
    """How a verb writes that writes rows."""

    headers: Headers = False
    as_json: AsJson = False
    output: OutputForm = None

    @property
    def heads(self) -> "Heads":
        """Where the names of the columns come first."""
        return "always" if self.headers else "on a terminal"


def with_groups(verb: Callable[..., None]) -> Callable[..., None]:
    """Have typer see the options of each group that *verb* takes in the group's place, and *verb* the group."""
    groups: dict[str, type[Group]] = {}
    seen: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        kind: Any = parameter.annotation
        if isinstance(kind, type) and issubclass(kind, Group):
            groups[name] = kind
            options = inspect.signature(kind).parameters.values()
            seen += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
        else:
            seen.append(parameter)

    @functools.wraps(verb)
    def with_options(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{option: given.pop(option) for option in inspect.signature(kind).parameters})
        verb(**given)

    with_options.__dict__["__signature__"] = inspect.Signature(seen)
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return with_options
