"""The shared recordings, each loaded once, and what their scenarios expect."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from consumer.replay.record import JobRecord
from consumer.replay.recording import Recording

ROOT: Final = Path(__file__).parent.parent / "recordings"
SCENARIOS: Final = sorted(str(file.parent.relative_to(ROOT)) for file in ROOT.glob("*/*/final.json"))


@cache
def recording(scenario: str) -> Recording:
    """The recording of *scenario*, like `bacalhau-v1.9.3/rerun`."""
    return Recording.load(ROOT / scenario)


def record(scenario: str, name: str) -> JobRecord:
    """The record of the job that is called *name*."""
    return next(job for job in recording(scenario).jobs if job.name == name)


def expectation(scenario: str) -> dict[str, Any]:
    """What `scenario.json` says of each job's states."""
    expect: dict[str, Any] = json.loads((ROOT / scenario / "scenario.json").read_text())["expect"]
    return expect


def polled(scenario: str) -> list[dict[str, Any]]:
    """Every change that polling the real orchestrator saw."""
    return [json.loads(line) for line in (ROOT / scenario / "rest.jsonl").read_text().splitlines()]
