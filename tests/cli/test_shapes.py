"""What `--json` really writes has the shapes of `consumer.cli.shapes`, of which docs/reference/cli.md is made."""

from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import msgspec
import pytest

from consumer.cli.shapes import (
    LINES,
    AdvisoryLine,
    ExaminedLine,
    ExplainedLine,
    FindingLine,
    RefusedLine,
    RulesLine,
    SentLine,
    UpdateLine,
    VersionLine,
    WaitLine,
)
from consumer.cli.verbs import VERBS, Verb
from consumer.model import JobKey, Notice
from consumer.replay.summary import DerivedSummaryLine, PlayedLine, SummaryLine
from consumer.wire.entries import encode_advisory
from tests.cli.conftest import Stage
from tests.cli.test_quarantine import misread, reject

RECORDING = str(Path(__file__).parents[1] / "recordings/bacalhau-v1.9.3/queued_then_runs")


def check(line: object, shape: type) -> None:
    """*line* has the keys of *shape*, those that it needs and no other, and values of their types."""
    typed: Any = shape
    assert isinstance(line, dict)
    assert typed.__required_keys__ <= set(line) <= typed.__required_keys__ | typed.__optional_keys__
    msgspec.convert(line, shape, strict=True)
    for name, kind in get_type_hints(shape).items():
        inner = [one for one in (kind, *get_args(kind)) if is_typeddict(one)]
        for value in line[name] if inner and get_origin(kind) is list else [line.get(name)]:
            for one in inner:
                check(value, one)


def json_verbs() -> set[str]:
    """The verbs that have `--json`."""
    found = set()
    for name, (place, line) in VERBS.items():
        command = Verb(name, place, line).load()
        for inner, verb in (getattr(command, "commands", None) or {"": command}).items():
            if any("--json" in parameter.opts for parameter in verb.params):
                found.add(f"{name} {inner}".strip())
    return found


def test_every_verb_with_json_says_what_it_writes() -> None:
    """`LINES` has exactly these verbs: what writes JSON is documented."""
    assert set(LINES) == json_verbs()


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("get", "j-1", "j-2"),
        ("history", "j-1"),
        ("watch", "--since", "start", "--count", "4"),
    ],
)
async def test_updates(stage: Stage, arguments: tuple[str, ...]) -> None:
    """A line for each entry; one that no daemon wrote has `foreign`, and one that is no update has null."""
    await stage.live("j-1", "Pending", "Running")
    await stage.live("j-2", "Completed")
    await stage.store("jobstate.v1.main.state.default.j-3.running", b"nothing of ours")
    lines = (await stage.verb(*arguments, "--json")).objects
    assert len(lines) >= 2
    for line in lines:
        check(line, UpdateLine)
    if arguments[0] in {"list", "watch"}:
        assert [line.get("foreign") for line in lines if line["update"] is None] == [True]


async def test_waited_for(stage: Stage) -> None:
    """A job that completed, one that failed, and one that nobody knows yet when the time is over."""
    await stage.live("j-1", "Completed")
    await stage.live("j-2", "Failed")
    lines = (await stage.verb("wait", "j-1", "j-2", "--json")).objects
    lines += (await stage.verb("wait", "default/j-9", "--timeout", "1s", "--json")).objects
    for line in lines:
        check(line, WaitLine)
    assert [line["outcome"] for line in lines] == ["reached", "ended otherwise", "timeout"]


async def test_sent(stage: Stage) -> None:
    """The report as it was stored."""
    (line,) = (await stage.verb("send", "j-1", "Running", "--type", "batch", "--json")).objects
    check(line, SentLine)


async def test_refused(stage: Stage) -> None:
    """A rejected report and bytes that could not be read."""
    await reject(stage, "j-1", 12)
    await misread(stage, 13)
    lines = (await stage.verb("quarantine", "list", "--json")).objects
    lines += (await stage.verb("quarantine", "show", "12-7", "--json")).objects
    for line in lines:
        check(line, RefusedLine)
    assert [line["kind"] for line in lines] == ["quarantine", "undecodable", "quarantine"]


async def test_announced(stage: Stage) -> None:
    """A notice of ours, and an entry under its subject that is none."""
    notice = Notice(kind="gone", origin="1", text="the orchestrator does not know it", key=JobKey("default.j-1"))
    await stage.store("jobstate.v1.main.advisory.gone.1", encode_advisory(notice))
    await stage.store("jobstate.v1.main.advisory.gone.2", b"nothing of ours")
    lines = (await stage.verb("advisories", "--json")).objects
    for line in lines:
        check(line, AdvisoryLine)
    assert [line["job"] for line in lines] == ["default/j-1", ""]


async def test_examined(stage: Stage) -> None:
    """A line for each check, and the last one."""
    *findings, last = (await stage.verb("doctor", "--json")).objects
    for line in findings:
        check(line, FindingLine)
    check(last, ExaminedLine)
    assert sum(last["summary"].values()) == len(findings)


async def test_of_rules(bare: Stage) -> None:
    """The rules, those of a file that is checked, and one transition."""
    file = str(Path(__file__).parents[2] / "config/rules/bacalhau.toml")
    (line,) = (await bare.verb("rules", "--json")).objects
    (checked,) = (await bare.verb("rules", "--check", file, "--json")).objects
    (explained,) = (await bare.verb("rules", "--explain", "new", "Running", "--json")).objects
    check(line, RulesLine)
    check(checked, RulesLine)
    check(explained, ExplainedLine)
    assert checked == {"file": file, "verdict": "sound", **line}


async def test_played(bare: Stage) -> None:
    """A recording's updates and its verdict: `replay`, `replay --derived`, `demo`."""
    for arguments, last_shape in (
        (("replay", RECORDING), SummaryLine),
        (("replay", "--derived", RECORDING), DerivedSummaryLine),
        (("demo", "--speed", "max"), SummaryLine),
    ):
        *updates, last = (await bare.verb(*arguments, "--json")).objects
        assert updates
        for line in updates:
            check(line, PlayedLine)
        check(last, last_shape)


async def test_versions(bare: Stage) -> None:
    """With `--nats` the server's too."""
    (line,) = (await bare.verb("version", "--json")).objects
    (asked,) = (await bare.verb("version", "--nats", bare.server.url, "--json")).objects
    check(line, VersionLine)
    check(asked, VersionLine)
    assert set(asked) - set(line) == {"nats-server"}
