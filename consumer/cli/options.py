"""The options that verbs share, each stated once: its name, its type, its help."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from consumer.cli.parsing import read_count, read_output

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

Output = Annotated[
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


class Shown(NamedTuple):
    """How rows are shown: as JSON; else with a head also where the output is no terminal."""

    as_json: bool
    headers: bool


def wants_json(output: str | None, *, as_json: bool) -> bool:
    """Whether JSON is asked for, by `-o json` or by `--json`."""
    if as_json and output == "text":
        raise typer.BadParameter("does not go together with -o text: give one of them", param_hint="'--json'")
    return as_json or output == "json"
