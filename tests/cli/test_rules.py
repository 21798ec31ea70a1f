"""`jobstate rules`, as a person calls it."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from consumer.cli.rules import rules
from consumer.errors import RulesError
from consumer.rules import DEFAULT, load

app = typer.Typer()
app.command()(rules)


def call(*arguments: str) -> tuple[int, str]:
    """Exit code and standard output."""
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, RulesError):
        raise result.exception
    return result.exit_code, result.stdout


def test_rules_prints_every_transition() -> None:
    """One line for each edge, tab-separated where nobody looks, and the notes below."""
    code, out = call()
    rows = [line.split("\t") for line in out.splitlines() if "\t" in line]
    assert code == 0
    assert [row[:2] for row in rows[1:]] == [[edge.previous, edge.state] for edge in load().edges]
    assert "Final: Completed, Failed, Stopped" in out
    assert "Announced as stuck: Pending longer than 10m, Queued longer than 1h." in out


@pytest.mark.parametrize(
    ("previous", "state", "code", "words"),
    [
        ("Running", "Queued", 0, "Running to Queued is allowed"),
        ("running", "QUEUED", 0, "Running to Queued is allowed"),
        ("Failed", "Running", 1, "Failed is final"),
        ("new", "Running", 0, "A new job may be found at Running"),
    ],
)
def test_rules_explains_one_transition(previous: str, state: str, code: int, words: str) -> None:
    """The sentence, and an exit code that a script can ask."""
    found, out = call("--explain", previous, state)
    assert found == code
    assert words in out


def test_rules_explains_in_json() -> None:
    """The same for machines."""
    code, out = call("--explain", "Failed", "stopped", "--json")
    said = json.loads(out)
    assert code == 1
    assert (said["from"], said["to"], said["allowed"]) == ("Failed", "Stopped", False)
    assert "Failed is final" in said["why"]


def test_rules_says_everything_in_json() -> None:
    """Name, hash, states, ends, dwell limits in seconds, and each transition with its source."""
    code, out = call("--json")
    said = json.loads(out)
    assert code == 0
    assert said["hash"] == load().hash
    assert said["terminal"] == ["Completed", "Failed", "Stopped"]
    assert said["dwell_s"] == {"Pending": 600, "Queued": 3_600, "Running": None}
    assert len(said["transitions"]) == 13
    assert all(edge["source"] for edge in said["transitions"])


def test_rules_draws_for_mermaid() -> None:
    """Nothing but the diagram, to be piped on."""
    code, out = call("--mermaid")
    assert code == 0
    assert out.startswith("stateDiagram-v2\n")


def test_rules_checks_a_sound_file() -> None:
    """A sound file is named with its stamp."""
    code, out = call("--check", str(DEFAULT))
    assert code == 0
    assert f"sound. Rules bacalhau, 6 states, 13 transitions, hash {load().hash}" in out
    code, out = call("--check", str(DEFAULT), "--json")
    said = json.loads(out)
    assert (code, said["file"], said["verdict"], said["hash"]) == (0, str(DEFAULT), "sound", load().hash)


def test_rules_refuses_a_wrong_file(tmp_path: Path) -> None:
    """The loader's error goes up to `main`, which ends with 2."""
    path = tmp_path / "rules.toml"
    path.write_text(DEFAULT.read_text().replace('to = "Queued"', 'to = "Queud"'))
    with pytest.raises(RulesError, match=r"did you mean Queued\?"):
        call("--check", str(path))


def test_rules_asks_another_file(tmp_path: Path) -> None:
    """`--file` is the table that is printed and asked."""
    path = tmp_path / "rules.toml"
    pieces = DEFAULT.read_text().split("[[transitions]]\n")
    path.write_text("[[transitions]]\n".join(pieces[:1] + pieces[2:]))
    code, out = call("--file", str(path), "--explain", "Pending", "Queued")
    assert code == 1
    assert "Pending to Queued is forbidden" in out
