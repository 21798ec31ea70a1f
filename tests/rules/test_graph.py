"""How the rules are drawn."""

from pathlib import Path

import pytest

from consumer.rules import graph, load
from tests.rules.test_file import SOUND


def test_the_diagram_has_each_transition_once() -> None:
    """Mermaid's lines are the edges, one beginning and an end for each final state."""
    lines = graph.mermaid(load()).splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert "    [*] --> Pending" in lines
    assert "    Running --> Queued" in lines
    assert "    Running --> Pending" not in lines
    assert sum(line.endswith("--> [*]") for line in lines) == 3
    assert len(lines) == len(set(lines)) == 2 + 13 + 3


def test_the_grid_has_a_cross_for_each_allowed_pair() -> None:
    """6 entries and 13 transitions, and none behind an end."""
    table = graph.grid(load())
    assert table.count(" x ") == 19
    assert "| **Failed** |  |  |  |  |  |  |" in table


def test_the_table_of_transitions_has_each_source() -> None:
    """One row for each edge, one for a new job, two of head."""
    rows = graph.transitions(load()).splitlines()
    assert len(rows) == 2 + 1 + 13
    assert all(row.count(" | ") == 3 for row in rows)


def test_the_notes_say_what_the_tables_do_not_show() -> None:
    """Ends, the restriction, the alias, the dwell limits and the stamp."""
    notes = graph.notes(load())
    assert "Announced as stuck: Pending longer than 10m, Queued longer than 1h." in notes.splitlines()
    for words in ("Final: Completed, Failed, Stopped", "only for jobs of type batch, ops", "`JobStateTypeStopped`"):
        assert words in notes
    assert load().hash[:12] in notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('Open = "90s"', "Open longer than 90s"),
        ('Open = "120s"', "Open longer than 2m"),
        ('Open = "24h"\nBusy = "36h"', "Open longer than 1d, Busy longer than 36h"),
        ("", "nothing"),
    ],
)
def test_the_notes_say_each_limit_in_its_largest_unit(tmp_path: Path, text: str, said: str) -> None:
    """As an operator would have written it; and that there is none."""
    path = tmp_path / "rules.toml"
    path.write_text(SOUND.replace('Open = "90s"\nBusy = "none"', text))
    assert f"Announced as stuck: {said}." in graph.notes(load(path)).splitlines()
