"""`jobstate replay`, as a script runs it: exit codes, and the lines of `--json` with nothing else between them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from consumer.errors import ExitCode
from tests.waiting import DEADLINE_S

ROOT: Final = Path(__file__).parents[2]
RERUN: Final = "tests/recordings/bacalhau-v1.9.3/rerun"
QUEUED: Final = "tests/recordings/bacalhau-v1.9.3/queued_then_runs"
SUMMARY: Final = [
    *("jobs", "updates", "expected", "missing", "surplus", "misordered", "rejected", "undecodable"),
    *("by_hint", "by_scan", "reads", "reads_by", "orchestrator_ms", "derived", "corrected", "lag_ms", "ok"),
]


def replay(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`jobstate replay` with *arguments*."""
    return subprocess.run(
        [sys.executable, "-m", "consumer", "replay", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        cwd=ROOT,
    )


def objects(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Its output, every line of which is a JSON object."""
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_the_promised_lines_and_nothing_else() -> None:
    """One line per update, then one per scenario, with exactly the promised keys; the scenario is the path as given."""
    folder = f"./{QUEUED}/"
    ended = replay("--json", RERUN, folder)
    assert ended.returncode == ExitCode.OK
    assert ended.stderr == ""
    said = objects(ended)
    assert [one["scenario"] for one in said] == sorted((one["scenario"] for one in said), key=[RERUN, folder].index)
    for scenario in (RERUN, folder):
        *updates, last = [one for one in said if one["scenario"] == scenario]
        assert list(last) == ["scenario", "summary"]
        assert list(last["summary"]) == SUMMARY
        assert list(last["summary"]["lag_ms"]) == ["hint", "scan"]
        assert all(list(lags) == ["p50", "p99"] for lags in last["summary"]["lag_ms"].values())
        assert last["summary"]["ok"] is True
        assert last["summary"]["updates"] == last["summary"]["expected"] == len(updates) > 0
        for update in updates:
            assert list(update) == ["scenario", "subject", "update"]
            assert update["subject"].startswith("jobstate.v1.main.state.default.")
            assert update["update"]["Source"] in {"observed", "derived"}


def test_the_same_seed_says_the_same() -> None:
    """Byte for byte; another seed loses other frames."""
    burst = ("--json", "--loss", "0.5", "tests/recordings/bacalhau-v1.9.3/burst")
    first, again, other = replay(*burst, "--seed", "1"), replay(*burst, "--seed", "1"), replay(*burst, "--seed", "2")
    assert first.stdout == again.stdout
    assert first.stdout != other.stdout
    assert {one.returncode for one in (first, again, other)} == {ExitCode.OK}


def test_a_person_reads_a_line_per_scenario() -> None:
    """And one over all of them."""
    ended = replay("--no-scan", RERUN, QUEUED)
    first, second, total = ended.stdout.splitlines()
    assert first.startswith(f"[1/2] {RERUN}: right: 3 jobs, 20 of 20 updates")
    assert second.startswith(f"[2/2] {QUEUED}: right: ")
    assert total.startswith("2 of 2 scenarios right by rules bacalhau")


def test_a_wrong_scenario_ends_with_1(tmp_path: Path) -> None:
    """By rules that forbid what happened the log is not the record: it says what is missing, and `ok` is false."""
    rules = tmp_path / "rules.toml"
    whole = (ROOT / "config" / "rules" / "bacalhau.toml").read_text()
    blocks = whole.split("[[transitions]]\n")
    rules.write_text("[[transitions]]\n".join(b for b in blocks if 'from = "Queued"\nto = "Running"' not in b))
    ended = replay("--json", "--rules", str(rules), RERUN, QUEUED)
    assert ended.returncode == ExitCode.WRONG
    summaries = {one["scenario"]: one["summary"] for one in objects(ended) if "summary" in one}
    assert summaries[RERUN]["ok"] is True
    assert summaries[QUEUED]["ok"] is False
    assert summaries[QUEUED]["rejected"] > 0
    assert summaries[QUEUED]["missing"]

    ended = replay("--rules", str(rules), QUEUED)
    assert ended.returncode == ExitCode.WRONG
    assert "WRONG" in ended.stdout
    assert "  missing: j-" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["no/such/folder"], ExitCode.NO_INPUT, "no/such/folder"),
        ([RERUN, "tests/recordings"], ExitCode.NO_INPUT, "tests/recordings: no recording"),
        ([RERUN, "--rules", "no/such.toml"], ExitCode.USAGE, "no/such.toml"),
        ([RERUN, "--rules", "README.md"], ExitCode.USAGE, "README.md"),
        ([RERUN, "--loss", "1.5"], ExitCode.USAGE, "--loss"),
        ([RERUN, "--loss", "half"], ExitCode.USAGE, "--loss"),
        ([], ExitCode.USAGE, "PATH"),
    ],
)
def test_what_cannot_be_played(arguments: list[str], code: ExitCode, named: str) -> None:
    """3 for a path that is no recording, 2 for options that cannot be; named on stderr, and stdout stays empty."""
    ended = replay("--json", *arguments)
    assert ended.returncode == code, ended.stderr
    assert named in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_a_recording_that_is_cut_is_named(tmp_path: Path) -> None:
    """The file and the line that cannot be read."""
    for file in (ROOT / RERUN).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    messages = tmp_path / "messages.jsonl"
    messages.write_bytes(messages.read_bytes()[:-20])
    ended = replay(str(tmp_path))
    assert ended.returncode == ExitCode.NO_INPUT
    assert "messages.jsonl, line " in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_without_an_orchestrator() -> None:
    """`--derived`: updates that say so, a summary of its own kind, and 0 although the record has more."""
    ended = replay("--derived", "--json", QUEUED)
    assert ended.returncode == ExitCode.OK
    assert ended.stderr == ""
    *updates, last = objects(ended)
    assert {update["update"]["Source"] for update in updates} == {"derived"}
    assert last["summary"]["matched"] == len(updates) < last["summary"]["expected"]
    assert last["summary"]["ok"] is True


def test_without_an_orchestrator_for_a_person() -> None:
    """A line each, and one over all."""
    ended = replay("--derived", RERUN, QUEUED)
    assert ended.returncode == ExitCode.OK
    lines = ended.stdout.splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == ["nothing wrong"] * 3
    assert lines[-1].startswith("all: ")
