"""`python -m tests.simulation`: three daemons and every fault, seed by seed."""

import argparse
import sys
import time
from typing import Final

from consumer.rules import load
from tests.simulation.broken import BROKEN, break_for_good
from tests.simulation.runs import Result, run_in_processes, run_seed, run_seeds
from tests.simulation.world import FAULTS

SHOWN_MAX: Final = 20
"""Violations that are printed; of the first one the whole trace."""


def main() -> int:
    """0: no violation and, in a run of some length, every kind of fault was there; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--trace", type=int, metavar="SEED", help="run this seed alone and print every step")
    parser.add_argument(
        "--broken", choices=[*BROKEN, "all"], default="", help="break this on purpose, and say which seed finds it"
    )
    options = parser.parse_args()
    if options.trace is not None:
        return _trace(options.trace, options.broken)
    if options.broken:
        names = list(BROKEN) if options.broken == "all" else [options.broken]
        return max(_hunt(name, options.first, options.seeds) for name in names)
    return _run(options.first, options.seeds, options.jobs)


def _run(first: int, seeds: int, jobs: int) -> int:
    total = Result()
    began = time.perf_counter()
    for result in run_in_processes(first, seeds, jobs=jobs):
        total.add(result)
        for seed, violation in result.violations[: max(SHOWN_MAX - len(total.violations), 1)]:
            print(f"seed {seed}: {violation}", flush=True)
    seconds = time.perf_counter() - began
    print(f"{total.seeds} seeds, {total.steps} steps, {seconds:.0f} s, {total.seeds / seconds:.0f} seeds/s")
    print("what went wrong, by kind:")
    for kind in FAULTS:
        print(f"  {kind:34} {total.faults[kind]:>9}")
    absent = [kind for kind in FAULTS if not total.faults[kind]]
    print(f"violations: {len(total.violations)}")
    if total.violations:
        seed = min(seed for seed, _ in total.violations)
        print(f"\nthe first, step by step (again: python -m tests.simulation --trace {seed}):\n")
        _trace(seed, "")
        return 1
    if absent and seeds >= 1000:  # fewer need not have had each kind
        print(f"never happened: {', '.join(absent)}")
        return 1
    return 0


def _trace(seed: int, broken: str) -> int:
    lines: list[str] = []
    _, violation = run_seed(seed, break_for_good(broken), trace=lines)
    print("\n".join(lines))
    print(f"seed {seed}: {violation or 'no violation'}")
    return 1 if violation else 0


def _hunt(name: str, first: int, seeds: int) -> int:
    """0: a seed found it."""
    with BROKEN[name]() as rules:
        result = run_seeds(range(first, first + seeds), rules, stop_at_first=True)
    if not result.violations:
        print(f"{name:22} NOT found in {result.seeds} seeds")
        return 1
    seed, violation = result.violations[0]
    print(f"{name:22} seed {seed} (of {result.seeds}, {result.seconds:.1f} s): {violation[:160]}", flush=True)
    return 0


if __name__ == "__main__":
    load()
    sys.exit(main())
