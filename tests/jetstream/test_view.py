"""The read side on a real server: nothing left out, nothing twice, and errors that say what and where."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from consumer.errors import AbsentError, LogWentBackError, ServerError
from consumer.jetstream.pull import Pull
from consumer.jetstream.view import FIRST, LAST, View, connect_reader
from consumer.nats.connection import Connection
from consumer.settings import Nats
from consumer.wire.subjects import job_key
from consumer.wire.update import encode_update
from tests.bacalhau.servers import nats_server
from tests.cli.conftest import Stage, life, make_streams, staged
from tests.jetstream.loss import Loss
from tests.loopback import free_port
from tests.server import strip_bodies
from tests.waiting import DEADLINE_S, until

KEY = job_key("default", "j-1")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A server with the streams of cluster `main`."""
    async with staged(tmp_path) as bare:
        await make_streams(bare.client, bare.names)
        yield bare


@pytest.fixture
async def connection(stage: Stage) -> AsyncIterator[Connection]:
    """A reader's connection to it."""
    connection = await connect_reader(Nats(url=stage.server.url), "main", within_s=DEADLINE_S)
    yield connection
    await connection.close()


@pytest.fixture
def told() -> list[str]:
    """What the view told."""
    return []


@pytest.fixture
def view(stage: Stage, connection: Connection, told: list[str]) -> View:
    """A view through that connection."""
    return View(connection, stage.names, where=stage.server.url, tell=told.append)


async def store(stage: Stage, count: int) -> None:
    """Store *count* updates of the job, all of state Running."""
    for update in life("j-1", *["Running"] * count):
        await stage.client.publish(stage.names.state(KEY, "Running"), encode_update(update))
    await stage.bucket_has(1, stage.names.key_in_bucket(KEY), encode_update(life("j-1", *["Running"] * count)[-1]))


async def test_a_stored_stream_is_read_to_its_end_and_no_further(stage: Stage, view: View) -> None:
    """2,300 entries come in three requests, in order; of an empty filter nothing, at once."""
    await store(stage, 2300)

    async with view.entries(stage.names.states(KEY)) as entries:
        assert [entry.number async for entry in entries] == list(range(1, 2301))
        assert entries.caught_up
    async with view.entries(stage.names.states(job_key("default", "j-2"))) as entries:
        assert [entry async for entry in entries] == []


async def test_a_follower_whose_consumer_is_deleted_goes_on_after_its_last_entry(stage: Stage, view: View) -> None:
    """Deleted in the middle of a pull, with 3,000 entries to come: each comes once."""
    await store(stage, 3000)
    numbers = []
    async with asyncio.timeout(DEADLINE_S), view.follow(stage.names.states(KEY), start=FIRST) as entries:
        async for entry in entries:
            numbers.append(entry.number)
            if entry.number in {1, 1500, 2999}:
                for consumer in await stage.client.jsm().consumers_info(stage.names.log):
                    await stage.client.jsm().delete_consumer(stage.names.log, consumer.name)
            if len(numbers) == 3000:
                break

    assert numbers == list(range(1, 3001))


async def test_an_entry_that_is_lost_on_the_way_is_asked_for_again(
    stage: Stage, connection: Connection, view: View
) -> None:
    """What the client dropped (a slow consumer) leaves a hole in the consumer's count: no entry is left out."""
    loss = Loss(21, 70)
    loss.between(connection)
    await store(stage, 50)
    async with asyncio.timeout(DEADLINE_S), view.follow(stage.names.states(KEY), start=FIRST) as entries:
        numbers = [(await anext(entries)).number]
        await store(stage, 50)
        numbers += [(await anext(entries)).number for _ in range(99)]

    assert numbers == list(range(1, 101))
    assert loss.lost == [21, 70]


async def test_a_follower_whose_consumer_leaves_out_bodies_goes_on_with_whole_entries(
    stage: Stage, connection: Connection, view: View
) -> None:
    """Edited to `headers_only`: the next entry comes whole, from a new consumer."""
    await store(stage, 1)
    async with asyncio.timeout(DEADLINE_S), view.follow(stage.names.states(KEY), start=FIRST) as entries:
        assert (await anext(entries)).number == 1
        await strip_bodies(connection, stage.names.log)
        await store(stage, 2)
        given = [await anext(entries) for _ in range(2)]
    assert [(entry.number, bool(entry.body)) for entry in given] == [(2, True), (3, True)]


async def test_a_follower_says_that_the_server_is_frozen_and_that_it_goes_on(
    stage: Stage, view: View, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP: silence is told; SIGCONT: it reads on, and says from where."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("consumer.jetstream.pull.DOUBT_S", 0.5)
    await store(stage, 1)
    async with asyncio.timeout(DEADLINE_S), view.follow(">", start=LAST) as entries:
        assert (await anext(entries)).number == 1
        stage.server.pause()
        following = asyncio.ensure_future(anext(entries))
        await until(lambda: bool(told), "a word of the silence")
        stage.server.resume()
        await store(stage, 2)
        assert (await following).number == 2

    assert told[0].startswith(f"nothing came from {stage.names.log} for 0.5 s, not even a heartbeat (")
    assert told[-1] == "reading again after entry 1"


@pytest.mark.parametrize("everything", [True, False])
async def test_a_follower_whose_consumer_only_sends_heartbeats_goes_on(
    stage: Stage, view: View, told: list[str], monkeypatch: pytest.MonkeyPatch, *, everything: bool
) -> None:
    """Paused by the server, or what looks the same: what is stored comes, once; of other jobs' entries nothing does."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("consumer.jetstream.pull.STALL_S", 0.3)
    monkeypatch.setattr("consumer.jetstream.view.QUIET_S", 0.5)
    await store(stage, 1)
    filters = ">" if everything else stage.names.states(KEY)
    async with asyncio.timeout(DEADLINE_S), view.follow(filters, start=LAST) as entries:
        assert (await anext(entries)).number == 1
        other = job_key("default", "j-2")
        await stage.client.jetstream().publish(stage.names.state(other, "Running"), b"{}")
        if everything:
            assert (await anext(entries)).number == 2
        following = asyncio.ensure_future(anext(entries))
        await until(lambda: everything or entries._checked >= 2, "that nothing waits")
        before = entries._pull
        for consumer in await stage.client.jsm().consumers_info(stage.names.log):
            body = b'{"pause_until":"2199-01-01T00:00:00Z"}'
            await stage.client.request(f"$JS.API.CONSUMER.PAUSE.{stage.names.log}.{consumer.name}", body)
        await stage.client.jetstream().publish(stage.names.state(KEY, "Running"), b"{}")
        assert (await following).number == 3
        assert entries._pull is not before
    assert told == []


async def test_a_stored_stream_that_does_not_come_is_an_error(
    stage: Stage, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are counted and never delivered: `get` does not wait for ever."""
    monkeypatch.setattr("consumer.jetstream.pull.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("consumer.jetstream.pull.STALL_S", 0.3)
    await store(stage, 1)
    opens = Pull.open

    async def hang(self: Pull, start: dict[str, Any], filters: tuple[str, ...]) -> None:
        await opens(self, {**start, "pause_until": "2199-01-01T00:00:00Z"}, filters)

    monkeypatch.setattr(Pull, "open", hang)
    async with asyncio.timeout(DEADLINE_S), view.entries(stage.names.states(KEY)) as entries:
        with pytest.raises(ServerError, match=r"entries wait in .* was read: try again"):
            await anext(entries)


async def test_a_log_made_anew_is_not_read_on(stage: Stage, view: View) -> None:
    """Deleted and made again with as many entries: the follower does not take them for a continuation."""
    await store(stage, 2)
    async with asyncio.timeout(DEADLINE_S), view.follow(">", start=FIRST) as entries:
        assert [(await anext(entries)).number for _ in range(2)] == [1, 2]
        for stream in (stage.names.log, stage.names.input, stage.names.refused, stage.names.bucket_stream):
            await stage.client.jsm().delete_stream(stream)
        await make_streams(stage.client, stage.names)
        await store(stage, 3)
        with pytest.raises(LogWentBackError, match="made anew"):
            await anext(entries)


async def test_what_is_published_to_an_inbox_by_others_is_no_entry(stage: Stage, view: View) -> None:
    """Whoever guesses the inbox may send there: only what our consumer delivered counts."""
    async with asyncio.timeout(DEADLINE_S), view.follow(">", start=FIRST) as entries:
        following = asyncio.ensure_future(anext(entries))
        await stage.client.flush()
        assert entries._pull is not None
        for reply in ("", "x"):
            await stage.client.publish(entries._pull._inbox, b"{}", reply=reply)
        await store(stage, 1)
        assert (await following).number == 1


async def test_no_header_makes_an_entry_another_jobs(stage: Stage, view: View) -> None:
    """Whoever may write to the log writes any header: what stands under a subject is shown under that one."""
    await store(stage, 1)
    forged = {"Nats-Subject": stage.names.state(KEY, "Failed"), **stage.after(KEY, 1)}
    subject = stage.names.state(job_key("default", "j-2"), "Failed")
    await stage.store(subject, b"{}", forged)

    async with view.entries(f"{stage.names.state_prefix}>") as entries:
        _, entry = [entry async for entry in entries]
    assert (entry.subject, entry.number) == (subject, 2)


async def test_of_each_job_the_last_entry_is_given_in_the_order_of_the_log(stage: Stage, view: View) -> None:
    """Of several states the last one, with the log's number; the bucket has nothing to do with it."""
    other = job_key("other", "j-2")
    for key, state in ((KEY, "Pending"), (other, "Running"), (KEY, "Running"), (KEY, "Pending")):
        await stage.store(stage.names.advisory("gap", "1"), b"{}")
        await stage.store(stage.names.state(key, state), b"{}")
    await stage.client.jsm().delete_stream(stage.names.bucket_stream)

    for namespaces, numbers in (((), [4, 8]), (("default",), [8]), (("other", "default"), [4, 8]), (("none",), [])):
        async with view.present(*namespaces) as present:
            assert [entry.number async for entry in present] == numbers
    assert sorted(await view.keys()) == [KEY, other]
    assert await view.keys("other") == [other]
    assert await view.keys(job="j-2") == [other]
    assert await view.keys("default", "j-2") == []


async def test_a_server_without_jetstream_is_named(tmp_path: Path) -> None:
    """Each way to read says that JetStream may be off, not that the log is missing."""
    async with nats_server(tmp_path) as server:
        client = await connect_reader(Nats(url=server.url), "main", within_s=DEADLINE_S)
        try:
            view = View(client, Stage(server, client).names, where=server.url)
            with pytest.raises(ServerError, match="is JetStream on"):
                await view.keys()
            with pytest.raises(ServerError, match="is JetStream on"):
                async with view.follow(">"):
                    pass
        finally:
            await client.close()


async def test_a_reading_of_no_stream_says_so(tmp_path: Path) -> None:
    """JetStream is there, the streams are not."""
    async with staged(tmp_path) as bare:
        client = await connect_reader(Nats(url=bare.server.url), "main", within_s=DEADLINE_S)
        try:
            reading = View(client, bare.names, where=bare.server.url).entries(">")
            with pytest.raises(AbsentError, match="no log of cluster main"):
                async with reading:
                    pass
        finally:
            await client.close()


async def test_a_stream_that_alone_is_gone_is_named(stage: Stage, view: View) -> None:
    """The log is there: it is not said that there is none. Of each of the others, by whatever way it is read."""
    names = stage.names
    for stream in (names.bucket_stream, names.refused, names.input):
        await stage.client.jsm().delete_stream(stream)
    with pytest.raises(AbsentError, match=f"the stream {names.refused} is gone from .* the log {names.log} is there"):
        async with view.refused(">"):
            pass
    with pytest.raises(AbsentError, match=f"the stream {names.input} is gone"):
        await view.report(KEY, b"{}")
    await stage.client.jsm().delete_stream(names.log)
    with pytest.raises(AbsentError, match="no log of cluster main"):
        await view.report(KEY, b"{}")


LONG_S = 2 * DEADLINE_S
"""A limit that no test waits for: what ends before it ends by itself."""


async def test_a_token_that_is_wrong_is_refused_at_once(tmp_path: Path) -> None:
    """A wrong token: one error, soon, without the token; the right one connects."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct-horse\n")
    wrong.write_text("battery-staple\n")
    async with nats_server(tmp_path, "authorization { token: correct-horse }\n") as server, asyncio.timeout(DEADLINE_S):
        with pytest.raises(ServerError, match=r"(?i)authorization violation") as refused:
            await connect_reader(Nats(url=server.url, token_file=str(wrong)), "main", within_s=LONG_S)
        assert "battery" not in str(refused.value)
        client = await connect_reader(Nats(url=server.url, token_file=str(right)), "main", within_s=DEADLINE_S)
        await client.close()


async def test_one_server_of_several_is_enough(tmp_path: Path) -> None:
    """Where one does not answer the other is taken; where none does it is an error."""
    async with nats_server(tmp_path) as server:
        dead = f"nats://127.0.0.1:{free_port()}"
        client: Client = await connect_reader(Nats(url=f"{dead},{server.url}"), "main", within_s=DEADLINE_S)
        assert client.is_connected
        await client.close()
        with pytest.raises(ServerError, match="no connection to"):
            await connect_reader(Nats(url=f"{dead},{dead}"), "main", within_s=0.1)
