"""Looks for sentences that a stranger would have to read twice: `make prose`, a part of `make check`.

It reads README.md, the pages of docs/, what CHANGELOG.md has not released yet, and the texts of consumer/: docstrings,
comments, `--help`, errors, log lines. It knows a small vocabulary; a sentence that passes is not good for that reason.

    python -m tools.prose            # 1 if a page has a finding, or consumer/ has more of them than `ALLOWED`
    python -m tools.prose consumer   # every finding in the files below this folder, too
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]

ALLOWED: Final = 150
"""Findings in consumer/ that are still to be mended. The number only goes down."""

_START: Final = r"(?:\A|(?<=[.!?:;*] )|(?<=\| )|(?<=^[-#*] )|(?<=\) ))(?:\*\*)?"

RULES: Final = {
    rf"{_START}(?:Of|What|Whose|Whoever|Whatever|So)\b(?![^.!]*\?)": "turn the sentence round: who does what",
    r"\bso many\b": "name the number: at most N",
    r"\bwhose (?:it|they) (?:is|are|be)\b": "name the owner",
    r"\bwhat (?:it|this|that|each|they|\w+ \w+) came to\b": "name the result",
    r"\bto have it said\b": "say who says what",
    r"\bof an? \w+ only what\b": "say which part",
    r"\b(?:can|could|cannot|may|to) be had\b": "say what is available, and from where",
    r"(?<![Tt]here )\b(?:is|are|was|were) none\b(?! of)": "say what it is not: `is not a recording`",
    r"\blets? us in\b": "say which credential is accepted",
    r"\bever more seldom\b": "less and less often",
    r"\bstands? on what\b": "name the versions",
    r"\b[Tt]he way of the\b": "How … flows",
    r"\bthat has not both\b": "that lacks either",
    r"\bwhat (?:no|an?) \w+ is\b": "name the thing",
    r"\bmakes? nothing of\b": "ignores",
    r"\bto (?:his|her|its) word\b": "as it is written",
}
"""Pattern: what to do in its place."""


class Finding(NamedTuple):
    """A sentence that is to be rewritten."""

    file: Path
    line: int
    words: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.words!r}: {self.advice}"


def main() -> int:
    """Print the findings that count. 1 if there are any."""
    pages = [finding for page in documents() for finding in in_markdown(page)]
    code = [finding for file in sorted((ROOT / "consumer").rglob("*.py")) for finding in in_python(file)]
    shown = [*pages, *(code if len(code) > ALLOWED else ())]
    for folder in sys.argv[1:]:
        shown += [one for one in code if one not in shown and one.file.is_relative_to(ROOT / folder)]
    for finding in shown:
        print(finding)
    if len(code) > ALLOWED:
        print(f"consumer/ has {len(code)} findings; {ALLOWED} are allowed (`ALLOWED` in tools/prose.py)")
    return int(bool(pages) or len(code) > ALLOWED)


def documents() -> list[Path]:
    """Every page that a reader meets."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def in_markdown(page: Path) -> Iterator[Finding]:
    """Findings in a page, code left out; in the changelog only above the first release."""
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":
        text = re.sub(r"(?s)(\n## \[Unreleased\].*?)\n## \[.*", r"\1", text)
    text = re.sub(r"(?s)```.*?```|<!--.*?-->", lambda code: "\n" * code[0].count("\n"), text)
    for line, paragraph in _paragraphs(text.splitlines()):
        yield from _search(page, line, paragraph)


def _paragraphs(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Each paragraph, list item, heading and table cell, on one line, with the number of its first one."""
    begun, gathered = 1, list[str]()
    for number, line in enumerate([*lines, ""], 1):
        text = line.strip()
        if gathered and (not text or re.match(r"(?:[-*#>]+|\d+\.) |\|", text)):
            yield begun, " ".join(gathered)
            gathered = []
        if text.startswith("|"):
            yield from ((number, cell.strip()) for cell in text.split("|"))
        elif text:
            begun = begun if gathered else number
            gathered.append(re.sub(r"^(?:[-*#>]+|\d+\.) ", "", text))


def in_python(file: Path) -> Iterator[Finding]:
    """Findings in docstrings, comments and other texts of more than two words."""
    source = file.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    pieces = {piece for node in nodes if isinstance(node, ast.JoinedStr) for piece in node.values}
    for node in nodes:
        match node:
            case _ if node in pieces:
                continue
            case ast.JoinedStr(values=values):
                text = "".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in values)
            case ast.Constant(value=str() as text):
                pass
            case _:
                continue
        if text.count(" ") > 1:
            for line, paragraph in _paragraphs(text.splitlines()):
                yield from _search(file, node.lineno + line - 1, paragraph)
    for line, comment in _comments(source):
        yield from _search(file, line, comment)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """The comments; those on lines that follow one another are one text."""
    begun = last = -1
    gathered: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1 or not token.line.strip().startswith("#"):
            if gathered:
                yield begun, " ".join(gathered)
            gathered, begun = [], token.start[0]
        last = token.start[0]
        gathered.append(token.string.lstrip("# "))
    if gathered:
        yield begun, " ".join(gathered)


def _search(file: Path, line: int, text: str) -> Iterator[Finding]:
    for pattern, advice in RULES.items():
        for found in re.finditer(pattern, text):
            words = text[found.start() : found.start() + 60]
            yield Finding(file, line, words, advice)


if __name__ == "__main__":
    sys.exit(main())
