"""`watch` on a real server."""

import asyncio
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumer.errors import ExitCode
from consumer.wire.subjects import job_key
from consumer.wire.update import encode_update
from tests.cli.conftest import UNKNOWN, Stage, life, make_streams
from tests.waiting import DEADLINE_S, LOOK_S


async def watching(stage: Stage) -> None:
    """Wait until a reader of the log is at work."""
    manager, now = stage.client.jsm(), asyncio.get_running_loop().time
    # No `asyncio.timeout`: `wait_for` of Python 3.11, in which nats-py waits, may swallow its one cancellation.
    deadline = now() + DEADLINE_S
    while not await manager.consumers_info(stage.names.log):
        assert now() < deadline, "no reader has come"
        await asyncio.sleep(LOOK_S)


async def test_watch_shows_what_comes_and_ends_at_ctrl_c_with_0(stage: Stage) -> None:
    """From now: not what was before; each update as it is stored; SIGINT is a good end."""
    await stage.live("j-1", "Pending")
    running = await stage.begin("watch")
    await watching(stage)

    for update in life("j-1", "Queued", "Running", after=life("j-1", "Pending")):
        await stage.update(update)
        assert (await running.line()).split("\t")[1] == update.StateType
    assert await running.end(signal.SIGINT) == (0, "", "")


async def test_watch_reads_from_the_start_and_goes_on_with_what_comes(stage: Stage) -> None:
    """What is stored and what comes is one row of numbers without a hole."""
    await stage.live("j-1", "Pending", "Running")
    running = await stage.begin("watch", "--since", "start", "--count", "4", "--json")
    await running.line()
    await stage.live("j-2", "Pending", "Failed")

    ended = await running.end()
    assert ended.code == ExitCode.OK
    assert [said["sequence"] for said in ended.objects] == [2, 3, 4]


@pytest.mark.parametrize("zone", ["+00:00", "Z", ""])
async def test_watch_reads_from_a_time(stage: Stage, zone: str) -> None:
    """What was stored at that time or later, and nothing from before; a time without a zone is UTC."""
    await stage.live("j-1", "Pending")
    info = await stage.client.jsm().stream_info(stage.names.log)
    assert info.state.messages == 1
    time = datetime.now(UTC).replace(tzinfo=None).isoformat()
    await stage.live("j-2", "Pending")

    ended = await stage.verb("watch", "--since", time + zone, "--count", "1", "--json")
    assert ended.objects[0]["update"]["Job"]["ID"] == "j-2"
    old = await stage.verb("watch", "--since", "1h", "--count", "1", "--json")
    assert old.objects[0]["update"]["Job"]["ID"] == "j-1"


async def test_watch_shows_only_what_is_asked_for(stage: Stage) -> None:
    """Two states, two namespaces (one with dots), two jobs: the product of what is asked for."""
    for namespace in ("default", "a.b", "other"):
        await stage.live("j-1", "Pending", "Running", "Failed", namespace=namespace)
    await stage.live("j-2", "Failed")

    async def shown(*flags: str) -> list[str]:
        ended = await stage.verb("watch", "--since", "start", "--json", *flags)
        updates = [said["update"] for said in ended.objects]
        return [f"{update['Job']['Namespace']}/{update['Job']['ID']} {update['StateType']}" for update in updates]

    assert await shown("--state", "FAILED", "--state", "running", "--namespace", "a.b", "--count", "2") == [
        "a.b/j-1 Running",
        "a.b/j-1 Failed",
    ]
    assert await shown("--job", "j-2", "--job", "a.b/j-1", "--state", "failed", "--count", "2") == [
        "a.b/j-1 Failed",
        "default/j-2 Failed",
    ]
    nothing = await stage.verb("watch", "--job", "j-2", "--namespace", "other")
    assert nothing == (3, "", "jobstate: none of j-2 is in namespace other\n")


async def test_watch_waits_for_a_job_that_is_not_there_yet(stage: Stage) -> None:
    """A job named by its whole id is shown once it comes, whatever its namespace."""
    running = await stage.begin("watch", "--job", "j-later", "--count", "1")
    await watching(stage)
    await stage.live("j-1", "Pending")
    await stage.live("j-later", "Pending", namespace="n.s")

    ended = await running.end()
    assert ended.lines[0].split("\t")[2:4] == ["n.s", "j-later"]
    assert ended.err == f"jobstate: {UNKNOWN.format('j-later')}\n"


async def test_watch_loses_and_doubles_nothing_when_the_server_is_killed(stage: Stage) -> None:
    """kill -9 of the server, 40 updates before, between and after: each is shown once; the break is told."""
    running = await stage.begin("watch", "--since", "start", "--json", "--count", "40")
    key = job_key("default", "j-1")
    updates = life("j-1", *["Running"] * 40)
    subject = stage.names.state(key, "Running")
    for update in updates[:20]:
        await stage.store(subject, encode_update(update))
    first = await running.line()

    await stage.server.stop()
    assert "waiting" in await running.complaint()
    await stage.server.start()
    for update in updates[20:]:
        await stage.store(subject, encode_update(update))

    ended = await running.end()
    assert '"sequence":1,' in first
    assert [said["update"]["Sequence"] for said in ended.objects] == list(range(2, 41))
    assert "reading again after entry" in ended.err


async def test_watch_does_not_mistake_a_new_log_for_the_old_one(stage: Stage, tmp_path: Path) -> None:
    """The server comes back without its data, and the log is made anew: the watch ends and says so."""
    running = await stage.begin("watch", "--since", "start")
    await stage.live("j-1", "Pending", "Running")
    await running.line()

    await stage.server.stop()
    assert "waiting" in await running.complaint()
    shutil.rmtree(tmp_path / "store")
    other = stage.server.url
    await stage.server.start()
    assert other == stage.server.url
    await stage.client.flush()
    await make_streams(stage.client, stage.names)

    ended = await running.end()
    assert ended.code in {ExitCode.FAULT, ExitCode.NO_INPUT}
    assert "made anew" in ended.err or "no log of cluster main" in ended.err


async def test_a_time_that_is_none_is_a_usage_error(stage: Stage) -> None:
    """`--since yesterday`: exit 2, and what may be written."""
    ended = await stage.verb("watch", "--since", "yesterday")

    assert ended.code == ExitCode.USAGE
    assert "is no time" in ended.err
