"""Seed after seed of a simulation, over some processes: the runner, its result, its command line.

What a seed is, what goes wrong in it and what must hold are the simulations' own: `tests.lab.simulation`,
`tests.lab.cluster`.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final, Protocol

import msgspec

from consumer.rules import Rules, load

CHUNK: Final = 50
"""Seeds that a process runs before it says what they came to."""
SHOWN_MAX: Final = 20
"""Violations that are printed; of the first one the whole trace."""
SOON_S: Final = 5.0
"""So often it says how far it is."""
MANY: Final = 1000
"""In so many seeds each kind of fault must have been there; fewer need not have had each."""


class ViolationError(AssertionError):
    """Something that must hold does not."""


class World(Protocol):
    """One seed. `run` raises ViolationError, or ends."""

    steps: int
    faults: Counter[str]

    @property
    def counts(self) -> Mapping[str, int]:
        """What else there is to count, by the name that it has in the result."""

    def run(self) -> None:
        """All of it."""


class MakeWorld(Protocol):
    """A simulation's world by its seed. With *trace* every step is told in words."""

    def __call__(self, seed: int, rules: Rules, *, trace: list[str] | None = None) -> World:
        """The world before its first step."""


Break = Callable[[], AbstractContextManager[Rules]]
"""A context in which the program is broken on purpose, and the rules to run it with."""


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line runs. `title`: above the kinds of faults, with the world's counts by name in braces."""

    module: str
    about: str
    world: MakeWorld
    faults: tuple[str, ...]
    broken: Mapping[str, Break]
    title: str


class Result(msgspec.Struct, kw_only=True):
    """What some seeds came to. `violations`: seed and sentence."""

    seeds: int = 0
    steps: int = 0
    seconds: float = 0.0
    counts: Counter[str] = msgspec.field(default_factory=Counter)
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    violations: list[tuple[int, str]] = msgspec.field(default_factory=list)

    def add(self, other: "Result") -> None:
        """Take another's seeds in. Seconds are the caller's to say."""
        self.seeds += other.seeds
        self.steps += other.steps
        self.counts.update(other.counts)
        self.faults.update(other.faults)
        self.violations += other.violations


def run_seed(make: MakeWorld, seed: int, rules: Rules, *, trace: list[str] | None = None) -> tuple[World | None, str]:
    """One seed: its world, and what it violated (empty: nothing). Anything that our code raises is a violation, too."""
    world: World | None = None
    try:
        world = make(seed, rules, trace=trace)
        world.run()
    except ViolationError as error:
        return world, str(error)
    except Exception as error:
        return world, f"{type(error).__name__}: {error}"
    return world, ""


def run_seeds(make: MakeWorld, seeds: Iterable[int], rules: Rules, *, stop_at_first: bool = False) -> Result:
    """Run *seeds* here, one after another."""
    result = Result()
    began = time.perf_counter()
    for seed in seeds:
        world, violation = run_seed(make, seed, rules)
        result.seeds += 1
        if world is not None:
            result.steps += world.steps
            result.counts.update(world.counts)
            result.faults.update(world.faults)
        if violation:
            result.violations.append((seed, violation))
            if stop_at_first:
                break
    result.seconds = time.perf_counter() - began
    return result


def _run_chunk(make: MakeWorld, seeds: range) -> Result:
    return run_seeds(make, seeds, load())


def run_in_processes(make: MakeWorld, first: int, count: int, *, jobs: int) -> Iterator[Result]:
    """Run *count* seeds from *first* on in *jobs* processes at most; gives what each chunk of them came to."""
    last = first + count
    chunks = [range(begin, min(begin + CHUNK, last)) for begin in range(first, last, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(chunks))) as pool:
        yield from pool.imap(partial(_run_chunk, make), chunks)


# -- the command line -------------------------------------------------------------------------------------------------


def main(simulation: Simulation) -> int:
    """0: no violation and, in a run of some length, every kind of fault was there; 1 otherwise."""
    broken = simulation.broken
    parser = argparse.ArgumentParser(prog=f"python -m {simulation.module}", description=simulation.about)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the result as JSON, and nothing else")
    parser.add_argument("--trace", type=int, metavar="SEED", help="run this seed alone and print every step")
    parser.add_argument(
        "--broken", choices=[*broken, "all"], default="", help="break this on purpose, and say which seed finds it"
    )
    options = parser.parse_args()
    if options.trace is not None:
        return _trace(simulation, options.trace, options.broken)
    if options.broken:
        names = list(broken) if options.broken == "all" else [options.broken]
        return max(_hunt(simulation, name, options.first, options.seeds) for name in names)
    return _run(simulation, options.first, options.seeds, options.jobs, as_json=options.json)


def _run(simulation: Simulation, first: int, seeds: int, jobs: int, *, as_json: bool) -> int:
    total = Result()
    began = said = time.perf_counter()
    for result in run_in_processes(simulation.world, first, seeds, jobs=jobs):
        total.add(result)
        if not as_json and time.perf_counter() - said > SOON_S:
            said = time.perf_counter()
            print(f"{total.seeds} of {seeds} seeds, {len(total.violations)} violations", flush=True)
    total.seconds = time.perf_counter() - began
    total.violations.sort()
    if as_json:
        print(json.dumps(_spell(simulation, total)))
    else:
        _print(simulation, total)
    absent = [kind for kind in simulation.faults if not total.faults[kind]] if seeds >= MANY else []
    if absent:
        print(f"never happened: {', '.join(absent)}", file=sys.stderr)
    return 1 if total.violations or absent else 0


def _print(simulation: Simulation, total: Result) -> None:
    print(f"{total.seeds} seeds, {total.steps} steps, {total.seconds:.0f} s, {total.seeds / total.seconds:.0f} seeds/s")
    print(simulation.title.format_map(total.counts))
    for kind in simulation.faults:
        print(f"  {kind:34} {total.faults[kind]:>9}")
    print(f"violations: {len(total.violations)}")
    for seed, violation in total.violations[:SHOWN_MAX]:
        print(f"  seed {seed}: {violation}")
    if total.violations:
        seed, _ = total.violations[0]
        print(f"\nthe first, step by step (again: python -m {simulation.module} --trace {seed}):\n")
        _trace(simulation, seed, "")


def _spell(simulation: Simulation, total: Result) -> dict[str, object]:
    return {
        "seeds": total.seeds,
        "steps": total.steps,
        "seconds": round(total.seconds, 1),
        **total.counts,
        "faults": {kind: total.faults[kind] for kind in simulation.faults},
        "violations": [{"seed": seed, "what": what} for seed, what in total.violations],
    }


def _trace(simulation: Simulation, seed: int, broken: str) -> int:
    lines: list[str] = []
    with simulation.broken[broken]() if broken else nullcontext(load()) as rules:
        _, violation = run_seed(simulation.world, seed, rules, trace=lines)
    print("\n".join(lines))
    print(f"seed {seed}: {violation or 'no violation'}")
    return 1 if violation else 0


def _hunt(simulation: Simulation, name: str, first: int, seeds: int) -> int:
    """0: a seed found it."""
    with simulation.broken[name]() as rules:
        result = run_seeds(simulation.world, range(first, first + seeds), rules, stop_at_first=True)
    if not result.violations:
        print(f"{name:22} NOT found in {result.seeds} seeds", flush=True)
        return 1
    seed, violation = result.violations[0]
    print(f"{name:22} seed {seed} (of {result.seeds}, {result.seconds:.1f} s): {violation[:160]}", flush=True)
    return 0
