"""`python -m tests.cluster`: a Bacalhau cluster, one or two daemons and every fault, seed by seed."""

import argparse
import json
import sys
import time
from typing import Final

from tests.cluster.broken import BROKEN, break_for_good
from tests.cluster.runs import CHUNK, Result, run_in_processes, run_seed, run_seeds
from tests.cluster.world import FAULTS

SHOWN_MAX: Final = 20
"""Violations that are printed; of the first one the whole trace."""
SOON_S: Final = 5.0
"""So often it says how far it is."""


def main() -> int:
    """0: no violation and, in a run of some length, every kind of fault was there; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the result as JSON, and nothing else")
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
    return _run(options.first, options.seeds, options.jobs, as_json=options.json)


def _run(first: int, seeds: int, jobs: int, *, as_json: bool) -> int:
    total = Result()
    began = said = time.perf_counter()
    for result in run_in_processes(first, seeds, jobs=min(jobs, -(-seeds // CHUNK))):
        total.add(result)
        if not as_json and time.perf_counter() - said > SOON_S:
            said = time.perf_counter()
            print(f"{total.seeds} of {seeds} seeds, {len(total.violations)} violations", flush=True)
    total.seconds = time.perf_counter() - began
    absent = [kind for kind in FAULTS if not total.faults[kind]]
    if as_json:
        print(json.dumps(_spell(total)))
    else:
        _print(total)
    if total.violations and not as_json:
        seed, _ = min(total.violations)
        print(f"\nthe first, step by step (again: python -m tests.cluster --trace {seed}):\n")
        _trace(seed, "")
    if absent and seeds >= 1000:  # fewer need not have had each kind
        print(f"never happened: {', '.join(absent)}", file=sys.stderr)
        return 1
    return 1 if total.violations else 0


def _print(total: Result) -> None:
    print(f"{total.seeds} seeds, {total.steps} steps, {total.seconds:.0f} s, {total.seeds / total.seconds:.0f} seeds/s")
    print(f"{total.updates} updates, {total.running} of them to Running, {total.derived} of these early")
    print("what happened and what went wrong, by kind:")
    for kind in FAULTS:
        print(f"  {kind:34} {total.faults[kind]:>9}")
    print(f"violations: {len(total.violations)}")
    for seed, violation in sorted(total.violations)[:SHOWN_MAX]:
        print(f"  seed {seed}: {violation}")


def _spell(total: Result) -> dict[str, object]:
    return {
        "seeds": total.seeds,
        "steps": total.steps,
        "seconds": round(total.seconds, 1),
        "updates": total.updates,
        "running": total.running,
        "early": total.derived,
        "faults": {kind: total.faults[kind] for kind in FAULTS},
        "violations": [{"seed": seed, "what": what} for seed, what in sorted(total.violations)],
    }


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
        print(f"{name:22} NOT found in {result.seeds} seeds", flush=True)
        return 1
    seed, violation = result.violations[0]
    print(f"{name:22} seed {seed} (of {result.seeds}, {result.seconds:.1f} s): {violation[:160]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
