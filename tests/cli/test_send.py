"""`send` on a real server."""

import json
from pathlib import Path

import pytest

from consumer.errors import ExitCode
from consumer.model import NUMBER_MAX
from consumer.rules import load
from consumer.wire.subjects import job_key
from tests.cli.conftest import Stage, make_streams, staged


async def test_a_report_is_stored_before_its_sequence_is_printed(stage: Stage) -> None:
    """The printed number is the entry's in the input; the body is a bare `State`, under the job's subject."""
    assert await stage.verb("send", "j 1", "Running", "--namespace", "n.s", "--message", "é \x1b") == (0, "1\n", "")

    stored = await stage.client.jsm().get_msg(stage.names.input, 1)
    assert stored.subject == stage.names.report(job_key("n.s", "j 1"))
    assert json.loads(stored.data or b"") == {"StateType": "Running", "Message": "é \x1b"}


async def test_what_is_known_of_the_job_goes_with_the_report(stage: Stage) -> None:
    """Version, revision, type, name and time stand where an update has them."""
    flags = ["--version", "0", "--revision", "3", "--type", "batch", "--name", "x"]
    flags += ["--time", "2026-11-24T06:00:00+01:00", "--json"]
    (said,) = (await stage.verb("send", "j-1", "Failed", *flags)).objects

    assert (said["subject"], said["sequence"]) == (stage.names.report(job_key("default", "j-1")), 1)
    stored = await stage.client.jsm().get_msg(stage.names.input, 1)
    assert json.loads(stored.data or b"") == said["report"]
    assert said["report"] == {
        "StateType": "Failed",
        "Message": "",
        "Job": {"ID": "j-1", "Namespace": "default", "Name": "x", "Type": "batch", "Version": 0, "Revision": 3},
        "Time": "2026-11-24T05:00:00Z",
    }


async def test_a_name_too_long_for_a_subject_is_in_the_body(stage: Stage) -> None:
    """The subject has a digest of it, so the body says whose the report is."""
    (said,) = (await stage.verb("send", "j" * 200, "Running", "--json")).objects

    assert "=sha256=" in said["subject"]
    assert said["report"]["Job"]["ID"] == "j" * 200


@pytest.mark.parametrize("state", ["running", "RUNNING", " Running ", "JobStateTypeStopped"])
async def test_a_state_goes_in_every_spelling_that_the_input_takes(stage: Stage, state: str) -> None:
    """As it is typed: whatever case, blanks around, the spelling of Bacalhau's page."""
    assert await stage.verb("send", "j-1", state) == (0, "1\n", "")

    stored = await stage.client.jsm().get_msg(stage.names.input, 1)
    assert json.loads(stored.data or b"")["StateType"] == state
    assert load().find(state)


async def test_a_state_that_the_rules_do_not_know_is_sent_only_if_that_is_meant(stage: Stage) -> None:
    """A slip of the hand is refused with the nearest name, and stored nowhere; a daemon of other rules is a flag."""
    refused = await stage.verb("send", "j-1", "Runing")
    assert (refused.code, refused.out) == (ExitCode.USAGE, "")
    assert "did you mean Running? (--any-state sends it all the same)" in refused.err

    assert await stage.verb("send", "j-1", "Runing", "--any-state") == (0, "1\n", "")


async def test_a_namespace_is_said_as_in_every_verb(stage: Stage) -> None:
    """NAMESPACE/ID is no id; the namespace once more is no harm, another one is exit 2."""
    for number, arguments in enumerate(
        (["n.s/j-1"], ["n.s/j-1", "--namespace", "n.s"], ["j-1", "--namespace", "n.s"]), 1
    ):
        assert (await stage.verb("send", *arguments, "Running")).out == f"{number}\n"
        stored = await stage.client.jsm().get_msg(stage.names.input, number)
        assert stored.subject == stage.names.report(job_key("n.s", "j-1"))
    ended = await stage.verb("send", "n.s/j-1", "Running", "--namespace", "default")
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert "'n.s/j-1' is in namespace 'n.s', and --namespace says 'default'" in ended.err


async def test_the_highest_number_that_a_daemon_takes_is_the_highest_that_is_sent(stage: Stage) -> None:
    """2^32 - 1; one more is `test_usage`'s."""
    flags = ("--version", str(NUMBER_MAX), "--revision", str(NUMBER_MAX))
    assert (await stage.verb("send", "j-1", "Running", *flags)).code == ExitCode.OK


async def test_a_report_that_the_server_would_not_take_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    """Above the server's largest payload: exit 2, both sizes, and what to do; nothing is stored."""
    async with staged(tmp_path, "max_payload: 2048") as stage:
        await make_streams(stage.client, stage.names)
        ended = await stage.verb("send", "j-1", "Running", "--message", "x" * 3000)
        info = await stage.client.jsm().stream_info(stage.names.input)

    assert (ended.code, ended.out, info.state.messages) == (ExitCode.USAGE, "", 0)
    assert "3039 bytes, and the server takes 2048: shorten it" in ended.err
