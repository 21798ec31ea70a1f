"""`wait` on a real server: the exit code is the answer."""

import re
from pathlib import Path

import msgspec
import pytest

from consumer.errors import ExitCode
from consumer.wire.subjects import job_key
from consumer.wire.update import encode_update
from tests.bacalhau.servers import mute_server, nats_server, peer
from tests.cli.conftest import UNKNOWN, Ended, Running, Stage, life, named
from tests.cli.test_watch import watching
from tests.waiting import DEADLINE_S, given_time


async def begin(stage: Stage, *arguments: str) -> Running:
    """A `wait` that is at work."""
    running = await stage.begin("wait", *arguments, "--timeout", f"{DEADLINE_S:g}s")
    await watching(stage)
    return running


async def timed(stage: Stage, *arguments: str) -> Ended:
    """A `wait` whose time is over before anything comes, and not before it knows how the jobs stand."""

    async def attempt(limit_s: float) -> Ended:
        return await stage.verb("wait", *arguments, "--timeout", f"{limit_s:g}s")

    return await given_time(attempt, lambda ended: ended.code != ExitCode.SERVER)


ALREADY = "jobstate: job {} is {} already, in version 1: to wait for a rerun that is to come, add --version 2\n"


@pytest.mark.parametrize("target", [("--for", "failed"), ("--for", "terminal")])
async def test_a_state_that_is_reached_already_is_reached(stage: Stage, target: tuple[str, ...]) -> None:
    """A job that has ended so is no wait: exit 0, and it is told which life that was."""
    await stage.live("j-1", "Pending", "Failed", version=1)

    said = ALREADY.format("default/j-1", "Failed")
    assert await stage.verb("wait", "j-1", *target) == (0, "default/j-1\tFailed\treached\n", said)


@pytest.mark.parametrize(
    ("state", "code", "outcome"),
    [("Completed", 0, "reached"), ("Failed", 1, "ended otherwise"), ("Stopped", 1, "ended otherwise")],
)
async def test_without_a_state_only_completed_is_0(stage: Stage, state: str, code: int, outcome: str) -> None:
    """`wait JOB && deploy` deploys what completed, and nothing else; whether it had ended before, or ends now."""
    await stage.live("j-1", "Pending", state)
    before = await stage.verb("wait", "j-1")
    running = await begin(stage, "j-2")
    await stage.live("j-2", "Pending", state)
    after = await running.end()

    assert before[:2] == (code, f"default/j-1\t{state}\t{outcome}\n")
    assert after[:2] == (code, f"default/j-2\t{state}\t{outcome}\n")


async def test_a_rerun_is_waited_for_and_not_the_life_before(stage: Stage) -> None:
    """The life that is open counts; that of a number may not be here yet; and one that can never be is told."""
    first = await stage.live("j-1", "Pending", "Completed")
    for update in life("j-1", "Pending", version=1, after=first):
        await stage.update(update)
    opened = life("j-1", "Pending", version=1, after=first)
    running = await begin(stage, "j-1")
    later = await begin(stage, "j-1", "--version", "2", "--for", "terminal")
    assert await running.complaint() == "jobstate: job default/j-1 is Pending: waiting for Completed"
    said = "jobstate: job default/j-1 is Pending in version 1: waiting for its end of version 2"
    assert await later.complaint() == said

    lives = first + opened
    for state, version in (("Failed", 1), ("Pending", 2), ("Stopped", 2)):
        for update in life("j-1", state, version=version, after=lives):
            await stage.update(update)
            lives = [*lives, update]

    assert (await running.end())[:2] == (1, "default/j-1\tFailed\tended otherwise\n")
    assert (await later.end())[:2] == (0, "default/j-1\tStopped\treached\n")
    for asked, answer in (
        ("0", (0, "default/j-1\tCompleted\treached\n", "")),
        ("1", (1, "default/j-1\tFailed\tended otherwise\n", "")),
        ("2", (1, "default/j-1\tStopped\tended otherwise\n", "")),
    ):
        assert await stage.verb("wait", "j-1", "--version", asked) == answer


async def test_beside_a_job_that_is_not_known_yet_the_life_that_is_open_counts(stage: Stage) -> None:
    """Two kinds of filter at once, by which nats-server 2.11.0 counts wrong: the earlier end is no answer."""
    first = await stage.live("j-1", "Completed")
    for update in life("j-1", "Pending", version=1, after=first):
        await stage.update(update)
    running = await begin(stage, "j-1", "j-later")

    assert await running.complaint() == f"jobstate: {UNKNOWN.format('j-later')}"
    assert await running.complaint() == "jobstate: job default/j-1 is Pending: waiting for Completed"


async def test_a_life_that_begins_before_the_one_waited_for_has_ended(stage: Stage) -> None:
    """Without a number the new one is waited for, and that is told; one asked for by number was replaced: exit 1."""
    first = await stage.live("j-1", "Pending", "Running")
    running = await begin(stage, "j-1")
    numbered = await begin(stage, "j-1", "--version", "0")
    for each in (running, numbered):  # both have seen the first life
        assert "job default/j-1 is Running" in await each.complaint()
    second = life("j-1", "Pending", "Completed", version=1, after=first)
    await stage.update(second[0])

    assert (await numbered.end())[:2] == (1, "default/j-1\tRunning\treplaced\n")
    assert await running.complaint() == ("jobstate: job default/j-1 was begun anew: waiting for Completed of version 1")
    await stage.update(second[1])
    assert (await running.end())[:2] == (0, "default/j-1\tCompleted\treached\n")


async def test_a_job_is_waited_for_by_its_name(stage: Stage) -> None:
    """As by its id; a name that two jobs have is exit 6 with both."""
    await stage.update(named("j-1", "nightly", "Running"))
    await stage.update(named("j-2", "weekly", "Running"))
    await stage.update(named("j-3", "weekly", "Running"))
    running = await begin(stage, "default/nightly")
    first = named("j-1", "nightly", "Running")
    (last,) = life("j-1", "Completed", after=[first])
    await stage.update(msgspec.structs.replace(last, Job=msgspec.structs.replace(last.Job, Name=first.Job.Name)))

    assert (await running.end())[:2] == (0, "default/j-1\tCompleted\treached\n")
    both = await stage.verb("wait", "weekly")
    assert (both.code, both.out) == (ExitCode.AMBIGUOUS, "")
    assert both.err.splitlines()[1:] == ["  default/j-2", "  default/j-3"]


async def test_a_state_that_comes_is_reached(stage: Stage) -> None:
    """Running and Completed in a breath: the wait for Running sees Running."""
    await stage.live("j-1", "Pending")
    running = await begin(stage, "j-1", "--for", "Running")
    for update in life("j-1", "Running", "Completed", after=life("j-1", "Pending")):
        await stage.append(update)

    assert (await running.end())[:2] == (0, "default/j-1\tRunning\treached\n")


async def test_what_is_waited_for_is_told(stage: Stage) -> None:
    """A job in another state, one that only strangers wrote of, one that nobody knows: a line each, at once."""
    await stage.live("j-1", "Pending", "Running")
    key = job_key("default", "j-2")
    await stage.store(stage.names.state(key, "Running"), b"{}")
    await stage.bucket_has(1, stage.names.key_in_bucket(key))

    running = await begin(stage, "j-1", "j-2", "default/later", "nosuch", "--for", "Completed", "--json")

    assert [await running.complaint() for _ in range(4)] == [
        f"jobstate: {UNKNOWN.format('default/later')}",
        f"jobstate: {UNKNOWN.format('nosuch')}",
        "jobstate: job default/j-1 is Running: waiting for Completed",
        "jobstate: the log holds no update of default/j-2 that is ours: waiting for one",
    ]


async def test_a_job_that_ends_otherwise_is_exit_1(stage: Stage) -> None:
    """Waited for Completed, and it was stopped: exit 1, and how it ended."""
    await stage.live("j-1", "Running")
    running = await begin(stage, "j-1", "--for", "Completed", "--json")
    (stopped,) = life("j-1", "Stopped", after=life("j-1", "Running"))
    number = await stage.update(stopped)

    ended = await running.end()
    assert ended.code == ExitCode.WRONG
    (said,) = ended.objects
    assert (said["job"], said["outcome"], said["sequence"]) == ("default/j-1", "ended otherwise", number)
    assert said["update"]["StateType"] == "Stopped"


async def test_a_wait_that_is_over_is_exit_4_and_says_where_the_job_stands(stage: Stage) -> None:
    """Running for ever, and a job nobody knows: exit 4 for both."""
    await stage.live("j-1", "Pending", "Running")

    ended = await timed(stage, "j-1", "j-unknown")

    assert ended.code == ExitCode.TIMEOUT
    assert ended.lines == ["default/j-1\tRunning\ttimeout", "*/j-unknown\tnot known\ttimeout"]
    said = ended.err.splitlines()
    assert f"jobstate: {UNKNOWN.format('j-unknown')}" in said
    assert said[-1].endswith("the log never had j-unknown: is a daemon running? jobstate doctor")


@pytest.mark.parametrize("flags", [(), ("--json",)])
async def test_a_time_that_passed_without_a_server_is_no_time_out(stage: Stage, flags: tuple[str, ...]) -> None:
    """Nobody at the address, and somebody who says nothing: exit 11 with the reason, never "it still runs"."""
    async with mute_server() as url:
        for where, why in (("nats://127.0.0.1:1", "connection refused"), (url, "a NATS server speaks first")):

            async def attempt(limit_s: float, where: str = where) -> Ended:
                ended = await stage.verb("wait", "my-job", "--timeout", f"{limit_s:g}s", "--nats", where, *flags)
                assert (ended.code, ended.out) == (ExitCode.SERVER, "")
                assert f"no connection to {where} within " in ended.err
                return ended

            ended = await given_time(attempt, lambda ended, why=why: why in ended.err)  # type: ignore[misc]
            assert why in ended.err


async def test_a_server_that_answers_nothing_is_no_time_out(stage: Stage, tmp_path: Path) -> None:
    """It lets us in, and answers nothing in time: it is not known how the job stands, so this is not exit 4."""
    (tmp_path / "mute").mkdir()
    async with nats_server(tmp_path / "mute") as server, peer(server) as client:
        await client.subscribe("$JS.API.>")  # somebody hears it, and says nothing
        await client.flush()

        async def attempt(limit_s: float) -> Ended:
            ended = await stage.verb("wait", "my-job", "--timeout", f"{limit_s:g}s", "--nats", server.url)
            assert (ended.code, ended.out) == (ExitCode.SERVER, "")
            return ended

        ended = await given_time(attempt, lambda ended: "no connection to" not in ended.err)
    assert re.search(r"had not said within [\d.]+ s how the jobs stand", ended.err)


async def test_all_jobs_are_waited_for(stage: Stage) -> None:
    """Three jobs, one of them not there yet and in another namespace: the wait ends with the last."""
    await stage.live("j-1", "Completed")
    await stage.live("j-2", "Running")
    running = await begin(stage, "j-1", "default/j-2", "j-3", "--for", "terminal")
    assert await running.line() == "default/j-1\tCompleted\treached"
    await stage.live("j-3", "Pending", "Failed", namespace="n.s")
    assert await running.line() == "n.s/j-3\tFailed\treached"
    await stage.update(life("j-2", "Stopped", after=life("j-2", "Running"))[0])

    told = f"jobstate: {UNKNOWN.format('j-3')}\n"
    told += "jobstate: job default/j-2 is Running: waiting for its end\n"
    assert await running.end() == (0, "default/j-2\tStopped\treached\n", told)


async def test_an_earlier_life_does_not_count(stage: Stage) -> None:
    """A job that had ended and runs again has not ended."""
    first = await stage.live("j-1", "Pending", "Completed")
    for update in life("j-1", "Pending", "Running", version=1, after=first):
        await stage.update(update)

    assert (await timed(stage, "j-1")).code == ExitCode.TIMEOUT


async def test_what_strangers_store_ends_no_wait(stage: Stage) -> None:
    """A Completed whose sequence does not follow, one that no daemon's headers come with, bytes: not believed."""
    await stage.live("j-1", "Pending", "Running")
    subject = stage.names.state(job_key("default", "j-1"), "Completed")
    running = await begin(stage, "j-1", "--for", "terminal")
    await stage.store(subject, encode_update(life("j-1", "Completed")[0]))
    await stage.store(subject, encode_update(life("j-1", "Completed", after=life("j-1", "Pending", "Running"))[0]))
    await stage.store(subject, b"{}")
    await stage.update(life("j-1", "Failed", after=life("j-1", "Pending", "Running"))[0])

    assert (await running.end())[:2] == (0, "default/j-1\tFailed\treached\n")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--for", "Ended"), "'Ended' is no state: write Pending, Queued, Running"),
        (("--timeout", "soon"), "'soon' is no duration"),
        (("--timeout", "30"), "'30' is no duration"),
    ],
)
async def test_what_cannot_be_waited_for_is_a_usage_error(stage: Stage, flags: tuple[str, str], complaint: str) -> None:
    """A state that is none, a duration that is none: exit 2, and what may be written."""
    ended = await stage.verb("wait", "j-1", *flags)

    assert ended.code == ExitCode.USAGE
    assert complaint in " ".join(ended.err.replace("│", " ").split())


async def test_a_short_id_can_only_name_a_known_job(stage: Stage) -> None:
    """Waiting for the beginning of an unknown id would wait for ever: exit 3 at once."""
    ended = await stage.verb("wait", "j-0123abcd")

    assert ended.code == ExitCode.NO_INPUT
    assert "no job j-0123abcd in cluster main" in ended.err
