"""`python -m tests.lab.mutation`: change one thing of the pure parts at a time, and see whether a test goes red.

What was found is kept in a folder: a run that was broken off goes on where it was, and a mutant whose module has not
changed since is not tried again, unless it survived and `--again` is given. `--sample N` takes N mutants of all that
there are, chosen by `--seed`. The score is the share of mutants that a test found; those that survived are listed, each
with the line to look at. Nothing is changed on disk.
"""

import argparse
import ast
import hashlib
import importlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.lab.mutation import mutants
from tests.lab.mutation.mutants import Mutant
from tests.lab.mutation.running import Reach, Try, measure, try_quickly, try_surely

PARTS: Final = ("model", "rules", "wire", "core", "derive")
TESTS: Final = (
    *("tests/core", "tests/derive", "tests/rules", "tests/wire"),
    *("tests/lab/cluster", "tests/lab/simulation", "tests/replay"),
)
IMPORTED_FIRST: Final = ("aiohttp", "msgspec", "nats", "prometheus_client", "rich", "structlog", "typer")
"""What the tests import of others: each fork has it already."""
SOON_S: Final = 5.0


class Found(NamedTuple):
    """What came of one mutant."""

    module: str
    digest: str
    """Of the module's text, and of what is changed in texts."""
    number: int
    line: int
    before: str
    after: str
    by: str
    """The test that went red, or why none could run. Empty if it survived."""
    reached: bool


def read_found(file: Path) -> dict[tuple[str, str, int], Found]:
    """What earlier runs found."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    all_found = (Found(*json.loads(line)) for line in lines)
    return {(one.module, one.digest, one.number): one for one in all_found}


def find_all(parts: Iterable[str], modules: Sequence[str] = ()) -> Iterator[tuple[Found, Mutant]]:
    """Every mutant of *parts*, of these *modules* if any is named (`core/lists.py`); none of them tried."""
    changes = Path(mutants.__file__).read_text(encoding="utf-8")
    for path in sorted(path for part in parts for path in Path("consumer", part).glob("**/*.py")):
        if modules and not str(path).endswith(tuple(modules)):
            continue
        source = path.read_text(encoding="utf-8")
        digest = hashlib.sha256(f"{changes}{source}".encode()).hexdigest()[:12]
        for number, mutant in enumerate(mutants.find(ast.parse(source))):
            texts = mutant.before(), mutant.after()
            yield Found(str(path), digest, number, mutant.line, *texts, "", reached=False), mutant


def digest_of_all(tests: Sequence[str]) -> str:
    """Changes when the program or a test does."""
    digest = hashlib.sha256(repr(tests).encode())
    for path in sorted(
        [*Path("consumer").rglob("*.py"), *Path("tests").rglob("*.py"), *Path("config").rglob("*.toml")]
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def show_progress(done: int, of_all: int, survived: int) -> None:
    """How far it is."""
    print(f"{done} of {of_all} mutants tried, {survived} survived", flush=True)


class Run:
    """One run: it tries what is to be tried, and writes each outcome down at once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._folder: Path = options.folder
        self._reach = Reach(self._folder)
        self._said_at = time.monotonic()
        self._done = 0
        self._survived = 0
        self._total = 0
        self._of: dict[tuple[str, int], Found] = {}

    def over(self, wanted: Sequence[tuple[Found, Mutant]]) -> None:
        """Try each of *wanted*."""
        self._total = len(wanted)
        quick: list[Try] = []
        sure: list[Try] = []
        for found, mutant in wanted:
            self._of[found.module, found.number] = found
            one = self._prepare(found, mutant)
            if not one.tests:
                self._note(one, "", reached=False)
            elif mutant.function is not None:
                quick.append(one)
            else:
                sure.append(one)
        for one, by in try_quickly(self._options.tests, quick, self._options.jobs) if quick else ():
            if by:
                self._note(one, by)
            else:
                sure.append(one)
        for one, by in try_surely(sure, self._options.jobs):
            self._note(one, by)

    def _prepare(self, found: Found, mutant: Mutant) -> Try:
        tests = self._reach.tests(Path(found.module).resolve(), mutant.first, mutant.end)
        chosen = self._reach.within(tests, self._options.budget)
        return Try(found.module, found.number, chosen, sum(self._reach.durations[test] for test in chosen))

    def _note(self, one: Try, by: str, *, reached: bool = True) -> None:
        """Write down what came of it, and now and then how far all is."""
        with (self._folder / "found.jsonl").open("a", encoding="utf-8") as file:
            found = self._of[one.module, one.number]
            file.write(json.dumps(found._replace(by=by, reached=reached)) + "\n")
        self._done += 1
        self._survived += not by
        if time.monotonic() - self._said_at > SOON_S:
            self._said_at = time.monotonic()
            show_progress(self._done, self._total, self._survived)


def report(found: Sequence[Found]) -> None:
    """Print what survived, then the score of each module."""
    for one in found:
        if not one.by:
            print(f"{one.module}:{one.line}: {one.before} -> {one.after}{'' if one.reached else ' (no test is here)'}")
    total, killed = Counter(one.module for one in found), Counter(one.module for one in found if one.by)
    print(f"{'module':32} {'mutants':>8} {'found':>8} {'score':>7}")
    for module in sorted(total):
        print(f"{module:32} {total[module]:8} {killed[module]:8} {killed[module] / total[module]:7.1%}")
    print(f"{'all':32} {total.total():8} {killed.total():8} {killed.total() / total.total():7.1%}")


def main() -> int:
    """Try mutants. 1 if the tests do not pass without one."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.mutation", description=__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="of these parts (all)")
    parser.add_argument("--modules", nargs="+", default=[], metavar="FILE", help="of these modules of them (all)")
    parser.add_argument(
        "--tests", nargs="+", default=list(TESTS), help="the tests that are to find them (the pure ones)"
    )
    parser.add_argument("--folder", type=Path, default=Path(".mutation"), help="what earlier runs found (.mutation)")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of them by chance, and no more (all)")
    parser.add_argument("--seed", type=int, default=1, help="which sample (1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds of tests for one mutant, at most (5)")
    parser.add_argument("--again", action="store_true", help="try those that survived once more")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    for name in IMPORTED_FIRST:
        importlib.import_module(name)
    state, digest = options.folder / "measured", digest_of_all(options.tests)
    if not state.exists() or state.read_text() != digest:
        print("running the tests once, to see what each reaches", flush=True)
        if problem := measure(options.tests, options.folder):
            print(f"the tests must pass without a mutant first: {problem}")
            return 1
        state.write_text(digest)
    every = list(find_all(options.parts, options.modules))
    if options.sample:
        chosen = sorted(random.Random(options.seed).sample(range(len(every)), min(options.sample, len(every))))
        every = [every[at] for at in chosen]
    known = read_found(options.folder / "found.jsonl")
    wanted = [one for one in every if (old := known.get(one[0][:3])) is None or (options.again and not old.by)]
    print(f"{len(every)} mutants, {len(wanted)} to try", flush=True)
    Run(options).over(wanted)
    known = read_found(options.folder / "found.jsonl")
    report([known[one[:3]] for one, _ in every])
    return 0


if __name__ == "__main__":
    sys.exit(main())
