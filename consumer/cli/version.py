"""`version`: what this is and what it stands on."""

import sys
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Annotated

import typer

import consumer
from consumer.cli.options import AsJson, Cluster, Config, Output, TokenFile, wants_json
from consumer.cli.reader import Where, connected
from consumer.cli.running import carry_out
from consumer.errors import ExitCode

if TYPE_CHECKING:
    from consumer.cli.shapes import VersionLine


def version(
    *,
    nats: Annotated[
        str | None, typer.Option("--nats", metavar="URL", help="Print the version of this NATS server too.")
    ] = None,
    as_json: AsJson = False,
    output: Output = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Print the versions of jobstate, Python, nats-py and msgspec; with --nats that of the server too.

    Example: jobstate version --nats nats://127.0.0.1:4222
    """
    as_json = wants_json(output, as_json=as_json)
    for option, given in (("--cluster", cluster), ("--config", config), ("--token-file", token_file)):
        if nats is None and given is not None:
            raise typer.BadParameter("says how a server is asked: name it with --nats URL", param_hint=f"'{option}'")
    carry_out(_version(None if nats is None else Where(nats, cluster, config, token_file), as_json=as_json))


async def _version(where: Where | None, *, as_json: bool) -> ExitCode:
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
    if as_json:
        write_json(said)
    else:
        say_facts({name: str(text) for name, text in said.items()})
    return ExitCode.OK
