"""Options that verbs share are stated once, and a group of them is taken as one."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Any, Final

import pytest
import typer
from typer.testing import CliRunner

from consumer.cli.options import Group, Limit, Output, with_groups
from consumer.cli.verbs import VERBS, Verb

APART: Final = {
    "--config": "the daemon's file, or one that says where the log is",
    "--namespace": "which jobs are shown, or whose job is reported",
    "--nats": "where the log is, or which server is asked for its version",
    "--state": "which jobs are shown, or which changes",
    "--version": "which life is waited for, or reported",
}
"""Options that do different things for different verbs."""


@dataclasses.dataclass(frozen=True)
class Pair(Group):
    """Two options."""

    left: Annotated[str, typer.Option("--left", help="L")] = "l"
    right: Annotated[int, typer.Option("--right", help="R")] = 2


def call(*arguments: str) -> tuple[int, str]:
    """What a verb of an option, a group and another option is given."""
    app = typer.Typer()

    @app.command()
    @with_groups
    def verb(name: str, *, limit: Limit = 0, pair: Pair, output: Output) -> None:
        """Say what was given."""
        print(name, limit, pair.left, pair.right, output.form)

    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["a"], "a 0 l 2 text"),
        (["a", "--right", "3", "--limit", "4"], "a 4 l 3 text"),
        (["a", "--left", "x", "--json"], "a 0 x 2 json"),
        (["a", "-o", "json"], "a 0 l 2 json"),
        (["a", "--json", "-o", "json"], "a 0 l 2 json"),
    ],
)
def test_a_group_is_given_as_one(arguments: list[str], given: str) -> None:
    """Its options by name, its defaults where none is named, and the others beside it."""
    assert call(*arguments) == (0, f"{given}\n")


def test_the_options_of_a_group_stand_in_its_place() -> None:
    """In the help they come in the order of the signature."""
    code, said = call("--help")
    assert code == 0
    places = [said.index(option) for option in ("--limit", "--left", "--right", "--json", "--output")]
    assert places == sorted(places)


def test_two_forms_are_a_usage_error() -> None:
    """`--json -o text` is no choice."""
    code, said = call("a", "--json", "-o", "text")
    assert code == 2
    assert "does not go together with -o text" in said


def every_option() -> Iterator[tuple[str, Any]]:
    """The options of all verbs by their longest names."""
    for name, (place, line) in VERBS.items():
        command = Verb(name, place, line).load()
        for one in getattr(command, "commands", {"": command}).values():
            yield from ((max(option.opts, key=len), option) for option in one.params if option.opts[0].startswith("-"))


def test_an_option_says_the_same_wherever_it_is() -> None:
    """One text and one form for all verbs that have it, but where it does another thing."""
    said: defaultdict[str, set[tuple[str | None, str | None]]] = defaultdict(set)
    for name, option in every_option():
        said[name].add((option.help, option.metavar))
    assert {name for name, ways in said.items() if len(ways) > 1} == set(APART)
