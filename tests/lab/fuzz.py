"""Bend real inputs for as long as you want: `python -m tests.lab.fuzz [SEEDS] [FIRST]`, 10,000 inputs a seed.

It prints how often each outcome occurred. An input that raises anything but `DecodeError` ends it, with the seed that
repeats it.
"""

import argparse
import sys
from collections import Counter

from tests.wire.mutations import run

PER_SEED = 10_000


def main() -> int:
    """Run the seeds; 1 if one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("seeds", type=int, nargs="?", default=20, help="how many seeds (20)")
    parser.add_argument("first", type=int, nargs="?", default=0, help="the first of them (0)")
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    for seed in range(options.first, options.first + options.seeds):
        try:
            outcomes.update(outcome for _, outcome in run(seed, PER_SEED))
        except Exception as error:
            print(f"seed {seed}: {type(error).__name__}: {error}")
            print(f"again: python -m tests.lab.fuzz 1 {seed}")
            return 1
        total = (seed - options.first + 1) * PER_SEED
        print(f"seed {seed}: {total} inputs so far, {outcomes['read']} read, nothing but DecodeError", flush=True)
    for outcome, count in outcomes.most_common():
        print(f"{count:9}  {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
