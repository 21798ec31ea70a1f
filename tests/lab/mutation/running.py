"""How a mutant is tried: which tests reach it, and two ways of running them. What is changed is `mutants`'.

The quick way collects all tests once and forks for each mutant; the fork gives the changed function its new code. The
sure way forks before anything of ours is imported, and imports the changed module; it takes seconds. Mutants outside
of functions take the sure way alone, and what survives the quick way has to survive the sure one, too.

Whoever uses this must not have imported `consumer`.
"""

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Final, NamedTuple, NoReturn

import coverage
import hypothesis
import pytest

from tests.lab.mutation import mutants

QUIET: Final = (
    *("-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "-m", "not server"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # hypothesis was imported before pytest ran
    *("--assert", "plain"),  # nobody reads why a test is red
)
CPU_S: Final = 20
"""A fork may use so much and ten times what its tests use: a mutant may loop for ever."""
MEMORY: Final = 2 << 30
ALARM_S: Final = 600
"""The same for what waits and uses no processor."""
TOO_LONG: Final = "ran too long"
NOT_IMPORTED: Final = "import"
"""What is found before any test runs: the changed module cannot be imported, or its tests cannot be collected."""

_Work = tuple[Callable[[], str], float | None]
"""What a fork does, and how long its tests took without a mutant; None if it is to have no bounds."""


class Try(NamedTuple):
    """One mutant of one module, and the tests that reach it, in the order in which they are run."""

    module: str
    number: int
    tests: tuple[str, ...]
    seconds: float
    """How long they take without a mutant."""


class Reach:
    """Which tests reach which line, as one run of all of them showed."""

    def __init__(self, folder: Path) -> None:
        self._data = coverage.CoverageData(str(folder / "coverage"))
        self._data.read()
        self.durations: dict[str, float] = json.loads((folder / "durations.json").read_text())
        self._lines: dict[str, dict[int, list[str]]] = {}

    def tests(self, path: Path, first: int, last: int) -> tuple[str, ...]:
        """The tests that run one of these lines. If an import does: all that run the module, or all, if none does."""
        lines = self._lines.get(str(path))
        if lines is None:
            lines = self._lines[str(path)] = self._data.contexts_by_lineno(str(path))
        found = {test for line in range(first, last + 1) for test in lines.get(line, ())}
        if "" in found:
            found |= {test for tests in lines.values() for test in tests}
            if found == {""}:
                found |= self.durations.keys()
        return tuple(sorted(found - {""}, key=lambda test: (_distance(path, test), self.durations[test])))

    def within(self, tests: Sequence[str], seconds: float) -> tuple[str, ...]:
        """As many of *tests*, from the first, as take *seconds*; at least one."""
        sums = accumulate(self.durations[test] for test in tests)
        return tuple(
            test for at, (test, total) in enumerate(zip(tests, sums, strict=True)) if not at or total < seconds
        )


def _distance(path: Path, test: str) -> int:
    """0: *test* is of the file that is named after the module; 1: of its folder; 2: of another."""
    folder, _, file = test.partition("::")[0].rpartition("/")
    if not folder.endswith(f"/{path.parent.name}"):
        return 2
    return 0 if file.startswith(f"test_{path.stem}") else 1


class _Recorder:
    """Tells coverage which test is running, and remembers how long each took."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured
        self.durations: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._measured.switch_context(item.nodeid)

    def pytest_runtest_logfinish(self) -> None:
        self._measured.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.durations[report.nodeid] = self.durations.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)


def measure(tests: Sequence[str], folder: Path) -> str:
    """Run *tests* once, write to *folder* what each reaches. Why that cannot be used, or an empty text."""

    def work() -> str:
        measured = coverage.Coverage(data_file=str(folder / "coverage"), source=["consumer"], config_file=False)
        recorder = _Recorder(measured)
        measured.start()
        code = pytest.main([*QUIET, *tests], plugins=[recorder])
        measured.stop()
        measured.save()
        (folder / "durations.json").write_text(json.dumps(recorder.durations))
        return f"pytest ended with {int(code)}: {', '.join(recorder.failed[:5])}" if code else ""

    ((_, said),) = _forked([(work, None)], 1)
    return said


def try_quickly(tests: Sequence[str], tries: Sequence[Try], jobs: int) -> Iterator[tuple[Try, str]]:
    """Each of *tries* by the quick way: with the test that found it, or an empty text if none did."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        with os.fdopen(write, "w", buffering=1) as out:
            _be_quiet(keep=(out.fileno(), 2))
            code = pytest.main([*QUIET, *tests], plugins=[_Swapping(tries, jobs, out.write)])
        os._exit(int(code))
    os.close(write)
    with os.fdopen(read) as lines:
        for line in lines:
            at, found_by = json.loads(line)
            yield tries[at], found_by
    if status := os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"the tests could not be collected and run without a mutant: status {status}")


class _Swapping:
    """A pytest session that runs no test itself: its forks do, each with one mutant."""

    def __init__(self, tries: Sequence[Try], jobs: int, write: Callable[[str], object]) -> None:
        self._tries = tries
        self._jobs = jobs
        self._write = write

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        functions: dict[str, list[FunctionType]] = {}
        for one in gc.get_objects():
            if isinstance(one, FunctionType):
                functions.setdefault(one.__code__.co_filename, []).append(one)

        def attempt(one: Try) -> str:
            if not _swap(one, functions):
                return ""  # the sure way shows it
            return _first_red(session, [items[test] for test in one.tests])

        works = [(partial(attempt, one), one.seconds) for one in self._tries]
        for at, found_by in _forked(works, self._jobs):
            self._write(json.dumps([at, found_by]) + "\n")
        return True


def _first_red(session: pytest.Session, items: Sequence[pytest.Item]) -> str:
    for at, item in enumerate(items):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=items[at + 1] if at + 1 < len(items) else None)
        if session.testsfailed:
            return item.nodeid
    return ""


def _swap(one: Try, functions: Mapping[str, Sequence[FunctionType]]) -> bool:
    """Give the function of the mutant its code. False if there is no such function, or other code does not fit it."""
    path = Path(one.module).resolve()
    tree, mutant = mutants.parse(path.read_text(encoding="utf-8"), one.number)
    codes = {(code.co_qualname, code.co_firstlineno): code for code in _all_codes(compile(tree, str(path), "exec"))}
    changed = False
    for function in functions.get(str(path), ()):
        key = (function.__code__.co_qualname, function.__code__.co_firstlineno)
        if key == mutant.function or key[0].startswith(f"{mutant.function and mutant.function[0]}.<locals>."):
            try:
                function.__code__ = codes[key]
            except (KeyError, ValueError):  # gone, or it closes over other names now
                return False
            changed = True
    return changed


def _all_codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_codes(constant)


def try_surely(tries: Sequence[Try], jobs: int) -> Iterator[tuple[Try, str]]:
    """Each of *tries* by the sure way: with the test that found it, or an empty text if none did."""

    def attempt(one: Try) -> str:
        path = Path(one.module)
        sys.meta_path.insert(0, _Finder(".".join(path.with_suffix("").parts).removesuffix(".__init__"), one))
        chosen = _Chosen(one.tests)
        files = sorted({test.partition("::")[0] for test in one.tests})
        code = pytest.main([*QUIET, "--exitfirst", *files], plugins=[chosen])
        if code in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            return chosen.red
        if code in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}:
            return NOT_IMPORTED
        raise RuntimeError(f"pytest ended with {int(code)}")

    works = [(partial(attempt, one), one.seconds) for one in tries]
    for at, found_by in _forked(works, jobs):
        yield tries[at], found_by


class _Chosen:
    """Of the collected tests, these alone, in this order; and which one was red."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._order = {test: at for at, test in enumerate(tests)}
        self.red = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._order), key=lambda item: self._order[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.red:
            self.red = report.nodeid


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, and finds it changed."""

    def __init__(self, name: str, one: Try) -> None:
        self._name = name
        self._one = one

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != self._name:
            return None
        file = str(Path(self._one.module).resolve())
        loader = _Loader(fullname, file)
        loader.number = self._one.number
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with one mutant made in it, and leaves the cache of compiled modules alone."""

    number = 0

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        tree, _ = mutants.parse(Path(self.path).read_text(encoding="utf-8"), self.number)
        return compile(tree, self.path, "exec")


def _forked(works: Iterable[_Work], jobs: int) -> Iterator[tuple[int, str]]:
    """Do each work in a process of its own, *jobs* at a time: which one, and what it returned, as they end."""
    running: dict[int, tuple[int, int]] = {}
    for key, (work, seconds) in enumerate(works):
        if len(running) >= jobs:
            yield _wait(running)
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            _child(work, write, seconds)
        os.close(write)
        running[pid] = (key, read)
    while running:
        yield _wait(running)


def _wait(running: dict[int, tuple[int, int]]) -> tuple[int, str]:
    pid, status = os.wait()
    key, read = running.pop(pid)
    with os.fdopen(read) as said:
        text = said.read()
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL}:
            return key, TOO_LONG
        return key, signal.Signals(os.WTERMSIG(status)).name
    if status:
        raise RuntimeError(f"no test could be run: {text}")
    return key, text


def _child(work: Callable[[], str], write: int, seconds: float | None) -> NoReturn:
    """Do the work with the bounds that its tests had, say what came of it, and end without cleaning up."""
    code = 1
    try:
        _be_quiet(keep=(write,))
        hypothesis.settings.register_profile("mutation", derandomize=True, database=None)
        hypothesis.settings.load_profile("mutation")
        if seconds is not None:
            signal.alarm(ALARM_S)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_S + int(10 * seconds),) * 2)
        os.write(write, work().encode())
        code = 0
    except BaseException as error:
        os.write(write, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _be_quiet(keep: Sequence[int]) -> None:
    """Neither input nor output, but for the descriptors that are kept."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for one in (0, 1, 2):
        if one not in keep:
            os.dup2(nothing, one)
