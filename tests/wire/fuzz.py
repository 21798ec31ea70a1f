"""Bend real inputs for as long as wanted: `python -m tests.wire.fuzz [SEEDS] [FIRST]`, 10,000 inputs a seed.

Prints what they came to. An input that raises anything but `DecodeError` ends it with the seed that repeats it.
"""

import sys
from collections import Counter

from tests.wire.mutations import run

PER_SEED = 10_000


def main(arguments: list[str]) -> int:
    """Run the seeds; 1 if one found something."""
    seeds = int(arguments[0]) if arguments else 20
    first = int(arguments[1]) if len(arguments) > 1 else 0
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + seeds):
        try:
            outcomes.update(outcome for _, outcome in run(seed, PER_SEED))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
            print(f"seed {seed}: {type(error).__name__}: {error}")
            print(f"again: python -m tests.wire.fuzz 1 {seed}")
            return 1
        total = (seed - first + 1) * PER_SEED
        print(f"seed {seed}: {total} inputs so far, {outcomes['read']} read, nothing but DecodeError", flush=True)
    for outcome, count in outcomes.most_common():
        print(f"{count:9}  {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
