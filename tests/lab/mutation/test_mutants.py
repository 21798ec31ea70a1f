"""What may be changed in a module, and what of it is found: `make mutate` in small."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.lab.mutation.mutants import find, parse
from tests.waiting import DEADLINE_S

ROOT: Final = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("x = a < b <= c", ["x = a <= b <= c", "x = a < b < c"]),
        ("x = a is not None", ["x = a is None"]),
        ("x = a and b and c", ["x = b and c", "x = a and c", "x = a and b"]),
        ("x = not a", ["x = a"]),
        ("x = a + b", ["x = a - b"]),
        ("x = b if a else c", ["x = b", "x = c"]),
        ("x = 5", ["x = 6"]),
        ("x = True", ["x = False"]),
        ("x = 'word'", ["x = 'word~'"]),
        ("x = min(a, b)", ["x = max(a, b)"]),
        ("x = sorted(a, key=b)", ["x = list(a)"]),
        ("x = {a, b}", ["x = {b}", "x = {a}"]),
        ("x = {a: b, c: d}", ["x = {c: d}", "x = {a: b}"]),
        ("x = [a for a in b if a]", ["x = [a for a in b if True]"]),
        ("if a:\n    b", ["if True:\n    b", "if False:\n    b", "if a:\n    pass"]),
        ("while a:\n    continue", ["while False:\n    continue", "while a:\n    break"]),
        ("x += y", ["pass", "x -= y"]),
        ("x.y = z", ["pass"]),
        ("x = y", []),
        ("raise ThingError('it failed because', 5)", ["pass"]),
        ("def f(a: int = b) -> int:\n    return a", ["def f(a: int=b) -> int:\n    return None"]),
        (
            "match a:\n    case 'b' | c.d if e:\n        break\n    case _:\n        pass",
            [
                "match a:\n    case _:\n        pass",
                "match a:\n    case 'b' | c.d if e:\n        break",
                "match a:\n    case 'b' | c.d:\n        break\n    case _:\n        pass",
                "match a:\n    case c.d if e:\n        break\n    case _:\n        pass",
                "match a:\n    case 'b' if e:\n        break\n    case _:\n        pass",
                "match a:\n    case 'b~' | c.d if e:\n        break\n    case _:\n        pass",
                "match a:\n    case 'b' | c.d if e:\n        continue\n    case _:\n        pass",
            ],
        ),
    ],
)
def test_each_part_is_changed_in_its_ways(source: str, changed: list[str]) -> None:
    """All mutants of a text, in its order."""
    count = sum(1 for _ in find(ast.parse(source)))
    assert [ast.unparse(parse(source, number)[0]) for number in range(count)] == changed


@pytest.mark.parametrize(
    "source",
    [
        '"""Says what it is."""',
        "x: A | None",
        "assert a == 5",
        "__all__ = ['a', 'b']",
        "class A:\n    __slots__ = ('a', 'b')",
        "x = 'a sentence of some words'",
        "x = f'{a + 1}'",
        "Thing = Literal['a', 'b']",
        "class Thing(Other, frozen=True):\n    x: int",
    ],
)
def test_what_no_test_could_find_is_left_alone(source: str) -> None:
    """Types, sentences and what speaks to mypy have no mutant."""
    assert list(find(ast.parse(source))) == []


def test_a_mutant_says_where_it_is() -> None:
    """Its statement's first line, its own lines, and the outermost function that has it."""
    source = "x = 1\nclass A:\n  @b\n  def f(self):\n    def g():\n      return (\n        2\n      )\n"
    module, inner = find(ast.parse(source))
    assert (module.first, module.line, module.end, module.function) == (1, 1, 1, None)
    assert (inner.first, inner.line, inner.end, inner.function) == (6, 7, 7, ("A.f", 3))


def _mutate(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of a run."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.mutation", "--folder", folder, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_run_finds_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """Of ten mutants of the rules their tests find some; the same run again tries none, and says the same."""
    arguments = ("--parts", "rules", "--sample", "10", "--tests", "tests/rules")
    code, first = _mutate(tmp_path, *arguments)
    assert code == 0, first
    assert "10 mutants, 10 to try\n" in first
    (total, found) = map(int, re.findall(r"^all +(\d+) +(\d+) ", first, re.MULTILINE)[0])
    assert total == 10
    assert found > 0
    assert first.count(" -> ") == 10 - found
    _, second = _mutate(tmp_path, *arguments)
    head, told = second.split("0 to try\n")
    assert head == "10 mutants, "
    assert first.endswith(told)


def test_tests_that_are_red_find_nothing(tmp_path: Path) -> None:
    """The tests must pass without a mutant: else it tries none, and says which failed."""
    red = tmp_path / "test_red.py"
    red.write_text("def test_red():\n    assert False\n")
    code, said = _mutate(tmp_path, "--parts", "rules", "--tests", str(red))
    assert code == 1
    assert "must pass without a mutant first: pytest ended with 1: " in said
    assert "test_red" in said
