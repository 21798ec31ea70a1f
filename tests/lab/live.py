"""The delay at the recordings' own pace, through real servers: `make live`. Not run by CI (two minutes).

`python -m tests.lab.live [--scenario NAME…] [--json]`: `jobstate demo --speed 1` on each scenario of each release, one
at a time. The delay is the demo's: from the record's change, by the simulated orchestrator's clock, to the update at a
subscriber on the log. Ends with 1 if a demo is not right or an aim of the issue is missed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

HINT_P99_MS: Final = 100.0
"""The aim, of updates that came by hint."""


def play(path: Path) -> dict[str, Any]:
    """The summary of a demo of *path*."""
    command = [sys.executable, "-m", "consumer", "demo", "--speed", "1", "--json", "--recording", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1:]
    if not last:
        raise SystemExit(f"{path}: the demo ended with {done.returncode} and said only: {done.stderr}")
    summary: dict[str, Any] = json.loads(last[0])["summary"]
    return summary


def main() -> int:
    """Play them; tell of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.live", description=__doc__.partition("\n")[0])
    parser.add_argument("--scenario", nargs="+", default=["burst", "ops"])
    parser.add_argument("--json", action="store_true", help="one object for each demo")
    given = parser.parse_args()
    wrong = 0
    for release in sorted(path for path in Path("tests/recordings").iterdir() if path.is_dir()):
        for name in given.scenario:
            path = release / name
            summary = play(path)
            hint, scan = summary["lag_ms"]["hint"], summary["lag_ms"]["scan"]
            good = bool(summary["ok"]) and (hint["p99"] is None or hint["p99"] <= HINT_P99_MS)
            wrong += not good
            if given.json:
                sys.stdout.write(json.dumps({"scenario": str(path), "good": good, "summary": summary}) + "\n")
            else:
                sys.stdout.write(
                    f"{release.name:16} {name:6} {summary['updates']:4} updates, {summary['by_hint']:4} by hint: "
                    f"p50 {hint['p50']} ms, p99 {hint['p99']} ms; by scan p99 {scan['p99']} ms: "
                    f"{'good' if good else 'MISSED'}\n"
                )
            sys.stdout.flush()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
