"""The read side on a real server: nothing left out, nothing twice, and errors that say what and where."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from consumer.errors import AbsentError, LogWentBackError, ServerError
from consumer.jetstream.view import FIRST, LAST, View, connect_reader
from consumer.settings import Nats
from consumer.wire.subjects import job_key
from consumer.wire.update import encode_update
from tests.bacalhau.servers import free_port, nats_server, until
from tests.cli.conftest import DEADLINE_S, Stage, life, make_streams, staged

KEY = job_key("default", "j-1")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A server with the streams of cluster `main`."""
    async with staged(tmp_path) as bare:
        await make_streams(bare.client, bare.names)
        yield bare


def view_of(stage: Stage, told: list[str] | None = None) -> View:
    """A view through the stage's own client."""
    return View(stage.client, stage.names, where=stage.server.url, tell=None if told is None else told.append)


async def store(stage: Stage, count: int) -> None:
    """Store *count* updates of the job, all of state Running."""
    for update in life("j-1", *["Running"] * count):
        await stage.client.publish(stage.names.state(KEY, "Running"), encode_update(update))
    await stage.bucket_has(1, stage.names.key_in_bucket(KEY), encode_update(life("j-1", *["Running"] * count)[-1]))


async def test_a_stored_stream_is_read_to_its_end_and_no_further(stage: Stage) -> None:
    """1,300 entries come in three requests, in order; of an empty filter nothing, at once."""
    await store(stage, 1300)
    view = view_of(stage)

    async with view.entries(stage.names.states(KEY)) as entries:
        assert [entry.number async for entry in entries] == list(range(1, 1301))
        assert entries.caught_up
    async with view.entries(stage.names.states(job_key("default", "j-2"))) as entries:
        assert [entry async for entry in entries] == []


async def test_a_follower_whose_consumer_is_deleted_goes_on_after_its_last_entry(stage: Stage) -> None:
    """Deleted in the middle of a pull, with 700 entries on their way: each comes once."""
    await store(stage, 700)
    view = view_of(stage)
    numbers = []
    async with asyncio.timeout(DEADLINE_S), view.follow(stage.names.states(KEY), start=FIRST) as entries:
        async for entry in entries:
            numbers.append(entry.number)
            if entry.number in {1, 400, 699}:
                for consumer in await stage.client.jsm().consumers_info(stage.names.log):
                    await stage.client.jsm().delete_consumer(stage.names.log, consumer.name)
            if len(numbers) == 700:
                break

    assert numbers == list(range(1, 701))


async def test_an_entry_that_is_lost_on_the_way_is_asked_for_again(stage: Stage) -> None:
    """What the client dropped (a slow consumer) leaves a hole in the consumer's count: no entry is left out."""
    await store(stage, 50)
    async with asyncio.timeout(DEADLINE_S), view_of(stage).follow(stage.names.states(KEY), start=FIRST) as entries:
        numbers = [(await anext(entries)).number]
        await until(lambda: len(entries._arrived) == 49, "what was asked for")
        del entries._arrived[20]
        numbers += [(await anext(entries)).number for _ in range(49)]

    assert numbers == list(range(1, 51))


async def test_a_follower_says_that_the_server_is_frozen_and_that_it_goes_on(stage: Stage) -> None:
    """SIGSTOP: silence is told; SIGCONT: it reads on, and says from where."""
    told: list[str] = []
    await store(stage, 1)
    async with asyncio.timeout(2 * DEADLINE_S), view_of(stage, told).follow(">", start=LAST) as entries:
        assert (await anext(entries)).number == 1
        stage.server.pause()
        following = asyncio.ensure_future(anext(entries))
        await until(lambda: bool(told), "a word of the silence")
        stage.server.resume()
        await store(stage, 2)
        assert (await following).number == 2

    assert told[0].startswith("the server went silent (")
    assert told[-1] == "reading again after entry 1"


async def test_a_log_made_anew_is_not_read_on(stage: Stage) -> None:
    """Deleted and made again with as many entries: the follower does not take them for a continuation."""
    await store(stage, 2)
    async with asyncio.timeout(DEADLINE_S), view_of(stage).follow(">", start=FIRST) as entries:
        assert [(await anext(entries)).number for _ in range(2)] == [1, 2]
        for stream in (stage.names.log, stage.names.input, stage.names.refused, stage.names.bucket_stream):
            await stage.client.jsm().delete_stream(stream)
        await make_streams(stage.client, stage.names)
        await store(stage, 3)
        with pytest.raises(LogWentBackError, match="made anew"):
            await anext(entries)


async def test_what_is_published_to_an_inbox_by_others_is_no_entry(stage: Stage) -> None:
    """Whoever guesses the inbox may send there: only what our consumer delivered counts."""
    async with asyncio.timeout(DEADLINE_S), view_of(stage).follow(">", start=FIRST) as entries:
        following = asyncio.ensure_future(anext(entries))
        await stage.client.flush()
        for reply in ("", "x"):
            await stage.client.publish(entries._inbox, b"{}", reply=reply)
        await store(stage, 1)
        assert (await following).number == 1


async def test_a_jobs_entry_in_the_bucket_has_the_number_of_the_log(stage: Stage) -> None:
    """`present` reads the copy, and says where the original stands."""
    await stage.store(stage.names.advisory("gap", "1"), b"{}")
    await store(stage, 3)
    view = view_of(stage)

    body = encode_update(life("j-1", *["Running"] * 3)[-1])
    async with view.present() as present:
        assert [(one.number, one.body) async for one in present] == [(4, body)]
    assert await view.keys() == [KEY]
    assert await view.keys(job="j-2") == []


async def test_a_server_without_jetstream_is_named(tmp_path: Path) -> None:
    """Each way to read says that JetStream is off, not that the log is missing."""
    async with nats_server(tmp_path) as server:
        client = await connect_reader(Nats(url=server.url), "main")
        try:
            view = View(client, Stage(server, client).names, where=server.url)
            with pytest.raises(ServerError, match="no JetStream"):
                await view.keys()
            with pytest.raises(ServerError, match="no JetStream"):
                async with view.follow(">"):
                    pass
        finally:
            await client.close()


async def test_a_reading_of_no_stream_says_so(tmp_path: Path) -> None:
    """JetStream is there, the streams are not."""
    async with staged(tmp_path) as bare:
        with pytest.raises(AbsentError, match="no log of cluster main"):
            async with view_of(bare).entries(">"):
                pass


async def test_a_stream_that_alone_is_gone_is_named(stage: Stage) -> None:
    """The log is there: it is not said that there is none. Of each of the others, by whatever way it is read."""
    names, view = stage.names, view_of(stage)
    for stream in (names.bucket_stream, names.refused, names.input):
        await stage.client.jsm().delete_stream(stream)
    for stream, reading in ((names.bucket_stream, view.present()), (names.refused, view.refused(">"))):
        with pytest.raises(AbsentError, match=f"the stream {stream} is gone from .* the log {names.log} is there"):
            async with reading:
                pass
    with pytest.raises(AbsentError, match=f"the stream {names.input} is gone"):
        await view.report(KEY, b"{}")
    await stage.client.jsm().delete_stream(names.log)
    with pytest.raises(AbsentError, match="no log of cluster main"):
        await view.report(KEY, b"{}")


async def test_a_token_that_is_wrong_is_refused_at_once(tmp_path: Path) -> None:
    """A wrong token: one error, soon, without the token; the right one connects."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct-horse\n")
    wrong.write_text("battery-staple\n")
    async with nats_server(tmp_path, "authorization { token: correct-horse }\n") as server, asyncio.timeout(4):
        with pytest.raises(ServerError, match=r"(?i)authorization violation") as refused:
            await connect_reader(Nats(url=server.url, token_file=str(wrong)), "main")
        assert "battery" not in str(refused.value)
        client = await connect_reader(Nats(url=server.url, token_file=str(right)), "main")
        await client.close()


async def test_one_server_of_several_is_enough(tmp_path: Path) -> None:
    """Where one does not answer the other is taken; where none does it is an error."""
    async with nats_server(tmp_path) as server, asyncio.timeout(8):
        dead = f"nats://127.0.0.1:{free_port()}"
        client: Client = await connect_reader(Nats(url=f"{dead},{server.url}"), "main")
        assert client.is_connected
        await client.close()
        with pytest.raises(ServerError, match="no connection to"):
            await connect_reader(Nats(url=f"{dead},{dead}"), "main")
