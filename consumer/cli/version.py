"""`version`: what this is and what it stands on."""

import sys
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Annotated

import typer

import consumer
from consumer.cli.connecting import LogTarget, connected
from consumer.cli.options import Cluster, Config, Form, Output, TokenFile, with_groups
from consumer.cli.running import carry_out
from consumer.errors import ExitCode

if TYPE_CHECKING:
    from consumer.cli.shapes import VersionLine


@with_groups
def version(
    *,
    nats: Annotated[
        str | None, typer.Option("--nats", metavar="URL", help="Print the version of this NATS server too.")
    ] = None,
    output: Output,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Print the versions of jobstate, Python, nats-py and msgspec; with --nats that of the server too.

    Example: jobstate version --nats nats://127.0.0.1:4222
    """
    for option, given in (("--cluster", cluster), ("--config", config), ("--token-file", token_file)):
        if nats is None and given is not None:
            raise typer.BadParameter("says how a server is asked: name it with --nats URL", param_hint=f"'{option}'")
    carry_out(_version(None if nats is None else LogTarget(nats, cluster, config, token_file), output.form))


async def _version(where: LogTarget | None, form: Form) -> ExitCode:
    from consumer.cli.display import say_facts, write_json

    said: VersionLine = {
        "jobstate": consumer.__version__,
        "python": sys.version.partition(" ")[0],
        "nats-py": version_of("nats-py"),
        "msgspec": version_of("msgspec"),
    }
    if where is not None:
        async with connected(where) as view:
            server = view.connection.connected_server_version
            said["nats-server"] = f"{server.major}.{server.minor}.{server.patch}"
    if form == "json":
        write_json(said)
    else:
        say_facts({name: str(text) for name, text in said.items()})
    return ExitCode.OK
