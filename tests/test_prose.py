"""The check of language finds riddles, and nothing in sentences that say who does what."""

import re
from pathlib import Path

import pytest

from tools import prose
from tools.prose import Finding, documents, in_markdown, in_python

ROOT = Path(__file__).parents[1]


def found(findings: list[Finding]) -> list[tuple[int, str]]:
    """Line and first two words of each."""
    return [(finding.line, " ".join(finding.words.split()[:2])) for finding in findings]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Of a list only what came last is kept.", ["Of a"]),
        ("It stops. What it came to is in the log.", ["What it"]),
        ("Whose it is, the subject says.", ["Whose it"]),
        ("**Whoever** may write, may lie.", ["**Whoever** may"]),
        ("It fails. So nothing is read.", ["So nothing"]),
        ("It is tried so many times.", ["so many"]),
        ("A server that cannot be had is told.", ["cannot be"]),
        ("A path that is none is refused.", ["is none"]),
        ("It is asked ever more seldom.", ["ever more"]),
        ("The daemon reads the job's history.", []),
        ("What does the daemon read? It reads histories.", []),
        ("The reader sees what changed, so it stops.", []),
        ("Without it there is none.", []),
    ],
)
def test_a_riddle_is_found(sentence: str, words: list[str], tmp_path: Path) -> None:
    """Each kind, wherever in a paragraph; a plain sentence and a question are none."""
    page = tmp_path / "page.md"
    page.write_text(sentence)
    assert [words for _, words in found(list(in_markdown(page)))] == words


def test_a_page_is_read_by_paragraphs_items_and_cells(tmp_path: Path) -> None:
    """Also across line breaks; code and comments are left out."""
    page = tmp_path / "page.md"
    page.write_text(
        "# What it is\n\nIt is a\ndaemon. Of\ncourse.\n\n- So it\n  is.\n\n| a | What b |\n\n"
        "```sh\n# What is code is left out\n```\n<!-- So is this. -->\n"
    )
    assert found(list(in_markdown(page))) == [(1, "What it"), (3, "Of course."), (7, "So it"), (10, "What b")]


def test_a_changelog_is_read_as_far_as_it_is_unreleased(tmp_path: Path) -> None:
    """A released line stays as it was."""
    page = tmp_path / "CHANGELOG.md"
    page.write_text("# Changelog\n\n## [Unreleased]\n\n- So it is.\n\n## [0.1.0]\n\n- So it was.\n")
    assert found(list(in_markdown(page))) == [(5, "So it")]


def test_code_is_read_by_its_texts_and_comments(tmp_path: Path) -> None:
    """A docstring, an error, a comment of two lines; no short word."""
    file = tmp_path / "code.py"
    file.write_text(
        '"""Law of the file.\n\nWhat is not ours is ignored.\n"""\n\nKIND = "So"\n'
        'ERROR = f"{KIND} is tried so many times"\n# Whose\n# it is, the subject says.\nX = 1  # So it is.\n'
    )
    assert found(list(in_python(file))) == [(3, "What is"), (7, "so many"), (8, "Whose it"), (10, "So it")]


def test_pages_have_no_findings() -> None:
    """`make check` says the same: every page is among those that are read."""
    assert {ROOT / name for name in ("README.md", "CHANGELOG.md", "docs/reference/cli.md")} <= set(documents())
    assert [str(finding) for page in documents() for finding in in_markdown(page)] == []


def test_make_check_looks_at_the_language() -> None:
    """It runs this module, and the allowed number of findings in consumer/ is no larger than there are."""
    check = re.findall(r"(?ms)^check: .*?\n(?=\n)", (ROOT / "Makefile").read_text(encoding="utf-8"))[0]
    assert "-m tools.prose" in check
    assert prose.main() == 0
