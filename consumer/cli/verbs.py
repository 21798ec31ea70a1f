"""Which verbs there are, and where each one lives. Each verb has its own module.

A verb's module is imported when that verb is used: the list of verbs costs no import, and no verb pays for what another
needs.
"""

import importlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from consumer import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

VERBS: Final["Mapping[str, tuple[str, str]]"] = {
    "run": ("consumer.cli.run:run", "Run the daemon: follow a cluster and publish its job states."),
    "list": ("consumer.cli.jobs:list_jobs", "Show jobs with their latest states."),
    "get": ("consumer.cli.jobs:get", "Show the latest update of each job that you name."),
    "history": ("consumer.cli.jobs:history", "Show every update of one job, in order."),
    "watch": ("consumer.cli.watch:watch", "Show updates as they come."),
    "wait": ("consumer.cli.wait:wait", "Wait until jobs have completed, or are in a state."),
    "send": ("consumer.cli.send:send", "Publish a report: a job's state, by hand."),
    "quarantine": ("consumer.cli.quarantine:quarantine", "Show rejected events, and why they were rejected."),
    "advisories": (
        "consumer.cli.advisories:advisories",
        "Show warnings: stuck, missing or unreadable jobs, foreign entries.",
    ),
    "doctor": ("consumer.cli.doctor:doctor", "Check both NATS servers and the orchestrator, and say what to do next."),
    "rules": ("consumer.cli.rules:rules", "Print, check, draw or explain the states and transitions."),
    "replay": ("consumer.cli.replay:replay", "Judge recordings in virtual time, without a server."),
    "demo": ("consumer.cli.demo:demo", "Play recorded traffic through a real daemon and a real server."),
    "version": ("consumer.cli.version:version", "Print the versions of jobstate, Python and its libraries."),
    "completion": ("consumer.cli.completion:completion", "Write a script that completes this command in a shell."),
}
"""Verb: (module:function or module:typer app, one line of help). In the order in which they are listed."""


class Verb(TyperCommand):
    """A verb by name and one line; the real one takes its place when it is used."""

    def __init__(self, name: str, place: str, line: str) -> None:
        super().__init__(name, help=line)
        self._place = place

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the real verb and let it read its arguments; the context is that one's from here on."""
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> Any:
        """Import the real verb."""
        module, _, attribute = self._place.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(self.name)(found)
            found = app
        return typer.main.get_command(found)


class Verbs(TyperGroup):
    """All verbs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        verbs: MutableMapping[str, Any] = self.commands
        verbs.update({name: Verb(name, place, line) for name, (place, line) in VERBS.items()})


app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # every verb inherits it
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"jobstate {__version__}")
        raise typer.Exit


@app.callback()
def jobstate(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version of jobstate and exit."),
    ] = False,
) -> None:
    """Follow the jobs of a Bacalhau cluster and publish their states on NATS JetStream.

    Verbs that read need only the NATS server that holds the log. Each has --help with an example. `jobstate demo`
    shows jobstate at work.
    """
    del version
