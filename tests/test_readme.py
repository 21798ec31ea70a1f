"""What is generated is as it would be generated now. `make docs` mends it."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from tests.test_lock import FROM_THE_LOCK

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The generator, docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PATHS: Final = ("README.md", "config/jobstate.toml", "docs/reference/config.md", "docs/reference/rules.md")
BY_TYPER: Final = "docs/reference/cli.md"
"""Typer words a part of it, each release in its own way."""


def test_every_generated_file_is_looked_at(generate: ModuleType) -> None:
    """A page that is generated from now on must be in the list of the next test."""
    assert {str(path.relative_to(ROOT)) for path in generate.generated()} == {*PATHS, BY_TYPER}


@pytest.mark.parametrize("path", [*PATHS, pytest.param(BY_TYPER, marks=FROM_THE_LOCK)])
def test_what_is_generated_is_in_step(generate: ModuleType, path: str) -> None:
    """The file holds what the rules, the settings and the verbs say."""
    expected = generate.generated()[ROOT / path]
    assert (ROOT / path).read_text(encoding="utf-8") == expected, "run `make docs`"


def test_only_what_is_between_the_markers_is_written(generate: ModuleType) -> None:
    """The rest of a README is left alone, and writing it twice is writing it once."""
    once = generate.with_rules("before <!-- rules:begin -->old<!-- rules:end --> after")
    assert once.startswith("before <!-- rules:begin -->\n")
    assert once.endswith("<!-- rules:end --> after")
    assert "old" not in once
    assert "| Queued |" in once
    assert generate.with_rules(once) == once


@pytest.mark.parametrize("text", ["", "<!-- rules:begin -->", "<!-- rules:end --><!-- rules:begin -->"])
def test_a_readme_without_markers_is_refused(generate: ModuleType, text: str) -> None:
    """A README that lost its markers is an error, not a README without rules."""
    with pytest.raises(ValueError, match="lacks"):
        generate.with_rules(text)
