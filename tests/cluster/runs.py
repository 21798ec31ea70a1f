"""Many seeds, over some processes: what was violated, what happened how often, how fast."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from consumer.rules import Rules
from tests.cluster.broken import break_for_good
from tests.cluster.oracle import ViolationError
from tests.cluster.world import World

CHUNK: Final = 50


class Result(msgspec.Struct, kw_only=True):
    """What some seeds came to. `violations`: seed and sentence. `running`, `derived`: updates to Running, and early."""

    seeds: int = 0
    steps: int = 0
    updates: int = 0
    running: int = 0
    derived: int = 0
    seconds: float = 0.0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    violations: list[tuple[int, str]] = msgspec.field(default_factory=list)

    def add(self, other: "Result") -> None:
        """Take another's seeds in. Seconds are the caller's to say."""
        self.seeds += other.seeds
        self.steps += other.steps
        self.updates += other.updates
        self.running += other.running
        self.derived += other.derived
        self.faults += other.faults
        self.violations += other.violations


def run_seed(seed: int, rules: Rules, *, trace: list[str] | None = None) -> tuple[World | None, str]:
    """One seed: its world, and what it violated (empty: nothing). Anything that our code raises is a violation, too."""
    world: World | None = None
    try:
        world = World(seed, rules, trace=trace)
        world.run()
    except ViolationError as error:
        return world, str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding of this seed
        return world, f"{type(error).__name__}: {error}"
    return world, ""


def run_seeds(seeds: Iterable[int], rules: Rules, *, stop_at_first: bool = False) -> Result:
    """Run *seeds* here, one after another."""
    result = Result()
    began = time.perf_counter()
    for seed in seeds:
        world, violation = run_seed(seed, rules)
        result.seeds += 1
        if world is not None:
            result.steps += world.steps
            result.faults += world.faults
            result.updates += sum(map(len, world.oracle.logs.values()))
            result.running += world.oracle.running
            result.derived += world.oracle.derived
        if violation:
            result.violations.append((seed, violation))
            if stop_at_first:
                break
    result.seconds = time.perf_counter() - began
    return result


_rules: list[Rules] = []


def _begin(name: str) -> None:
    _rules[:] = [break_for_good(name)]


def _run_chunk(seeds: range) -> Result:
    return run_seeds(seeds, _rules[0])


def run_in_processes(first: int, count: int, *, jobs: int, broken: str = "") -> Iterator[Result]:
    """Run *count* seeds from *first* on in *jobs* processes; gives what each chunk of them came to."""
    last = first + count
    chunks = [range(begin, min(begin + CHUNK, last)) for begin in range(first, last, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_begin, initargs=(broken,)) as pool:
        yield from pool.imap(_run_chunk, chunks)
