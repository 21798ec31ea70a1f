"""How large the program is: `make sizes`, or `python tools/sizes.py [FOLDER…]` for several trees side by side.

A FOLDER is one that has `consumer`, such as this repository or a worktree of an older commit. Lines are those of the
files. A class's variables are what its methods assign to `self`, and its annotated fields.
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

FUNCTION_LINES: Final = 50
MODULE_LINES: Final = 400
SHOWN: Final = 8
"""Classes of each table."""


class Class(NamedTuple):
    """A class: where it is, how many methods and variables it has, and its lines."""

    name: str
    methods: int
    variables: int
    lines: int


class Sizes(NamedTuple):
    """What one tree has."""

    modules: list[tuple[int, str]]
    """Lines and name of each, the longest first."""
    functions: list[tuple[int, str]]
    """The same of each function."""
    classes: list[Class]

    @property
    def lines(self) -> int:
        """All lines."""
        return sum(lines for lines, _ in self.modules)


def measure(folder: Path) -> Sizes:
    """The sizes of `consumer` in *folder*."""
    found = Sizes([], [], [])
    for path in sorted((folder / "consumer").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(folder).with_suffix("").parts)
        found.modules.append((text.count("\n"), name))
        for node, owner in _walk(ast.parse(text), name):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in node.body)
                found.classes.append(Class(f"{owner}.{node.name}", methods, len(_variables(node)), lines))
            else:
                found.functions.append((lines, f"{owner}.{node.name}"))
    found.modules.sort(reverse=True)
    found.functions.sort(reverse=True)
    found.classes.sort(key=lambda one: (one.methods + one.variables, one.lines), reverse=True)
    return found


def _walk(tree: ast.AST, owner: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node, owner
            yield from _walk(node, f"{owner}.{node.name}")
        else:
            yield from _walk(node, owner)


def _variables(node: ast.ClassDef) -> set[str]:
    """Annotated fields, and what is assigned to `self`."""
    names = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}
    for one in ast.walk(node):
        targets = one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                match part:
                    case ast.Attribute(value=ast.Name(id="self"), attr=name):
                        names.add(name)
    return names


def show(title: str, sizes: Sizes) -> None:
    """One tree as Markdown."""
    long_functions = [(lines, name) for lines, name in sizes.functions if lines > FUNCTION_LINES]
    long_modules = [(lines, name) for lines, name in sizes.modules if lines > MODULE_LINES]
    print(f"## {title}\n")
    print("| what | how much |\n|---|---|")
    print(f"| lines of `consumer` | {sizes.lines:,} in {len(sizes.modules)} modules |")
    print(f"| modules over {MODULE_LINES} lines | {len(long_modules)}: {_list(long_modules)} |")
    print(f"| functions over {FUNCTION_LINES} lines | {len(long_functions)}: {_list(long_functions)} |")
    print("\n| largest classes | methods | variables | lines |\n|---|---|---|---|")
    for one in sizes.classes[:SHOWN]:
        print(f"| `{one.name.removeprefix('consumer.')}` | {one.methods} | {one.variables} | {one.lines} |")
    print()


def _list(items: list[tuple[int, str]]) -> str:
    return ", ".join(f"`{name.removeprefix('consumer.')}` {lines}" for lines, name in items) or "none"


def main() -> None:
    """Print the sizes of each folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path()], help="trees that have consumer (this one)")
    for folder in parser.parse_args().folders:
        show(folder.resolve().name, measure(folder))


if __name__ == "__main__":
    main()
