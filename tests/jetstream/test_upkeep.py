"""The streams while the daemon lives: what is gone is made anew or named, and the bucket is a copy of this log."""

import asyncio
import json
import shutil
from pathlib import Path

import msgspec
import pytest

from consumer.errors import MissingStreamError, TopologyError
from consumer.jetstream.connection import Connection, connect_reader
from consumer.jetstream.topology import configs, ensure, find_absent, find_fault_of_bucket
from consumer.jetstream.upkeep import Upkeep
from consumer.settings import Streams
from consumer.wire.subjects import Names, job_key
from tests.server import Server, api
from tests.waiting import DEADLINE_S, until

SMALL = Streams(log_max_bytes=16 << 20, input_max_bytes=16 << 20, refused_max_bytes=1 << 20)
BOUND = msgspec.structs.replace(SMALL, mode="bind")


async def put(reader: Connection, names: Names, *jobs: str) -> None:
    """Store an entry of each of *jobs* in the log, and wait until the bucket has copied them all."""
    for job in jobs:
        await reader.request(names.state(job_key("default", job), "Running"), b"{}", timeout=DEADLINE_S)
    async with asyncio.timeout(DEADLINE_S):
        while not set(jobs) <= await copied(reader, names):  # noqa: ASYNC110 - the server's fact
            await asyncio.sleep(0.01)


async def copied(reader: Connection, names: Names) -> set[str]:
    """The jobs that the bucket has."""
    answer = await api(reader, f"STREAM.INFO.{names.bucket_stream}", b'{"subjects_filter":">"}')
    subjects = json.loads(answer).get("state", {}).get("subjects") or {}
    return {subject.rpartition(".")[2] for subject in subjects}


async def make(reader: Connection, names: Names, stream: str) -> None:
    """Make the stream as an operator would."""
    (config,) = (one for one in configs(names, SMALL) if one["name"] == stream)
    assert b'"error"' not in await api(reader, f"STREAM.CREATE.{stream}", json.dumps(config).encode())


async def test_a_stream_that_is_gone_is_made_anew_and_counted_once(reader: Connection, names: Names) -> None:
    """Input, refused stream and bucket; and the server fills the bucket from the log again, whole."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    await put(reader, names, "j-1", "j-2")
    gone = (names.input, names.refused, names.bucket_stream)
    for stream in gone:
        await api(reader, f"STREAM.DELETE.{stream}")
    await upkeep.look(reader)
    await upkeep.look(reader)
    assert upkeep.troubles == {}
    assert upkeep.lost == dict.fromkeys(gone, 1)
    assert await find_absent(reader, names) == ()
    await put(reader, names, "j-3")
    assert await copied(reader, names) == {"j-1", "j-2", "j-3"}


async def test_the_first_start_of_all_has_lost_nothing(reader: Connection, names: Names) -> None:
    """Streams that were never there are made, and not counted."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    await upkeep.begin(reader)
    assert not upkeep.lost
    assert upkeep.troubles == {}


async def test_a_log_that_is_gone_is_another_lifes(reader: Connection, names: Names) -> None:
    """A look makes no log: whoever knew the old one must forget it first. Nothing else is touched meanwhile."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    for stream in (names.log, names.refused):
        await api(reader, f"STREAM.DELETE.{stream}")
    await upkeep.look(reader)
    assert await find_absent(reader, names) == (names.log, names.refused)
    await upkeep.begin(reader)
    assert await find_absent(reader, names) == ()
    assert upkeep.lost == {names.log: 1, names.refused: 1}


async def test_bound_streams_are_named_until_somebody_makes_them(reader: Connection, names: Names) -> None:
    """With `bind`: why, for each; nothing is made; and what is there again is no trouble any more."""
    await ensure(reader, names, SMALL)
    upkeep = Upkeep(names, BOUND)
    await upkeep.begin(reader)
    for stream in (names.refused, names.bucket_stream):
        await api(reader, f"STREAM.DELETE.{stream}")
    for _ in range(2):
        await upkeep.look(reader)
    assert set(upkeep.troubles) == {names.refused, names.bucket_stream}
    assert "streams.mode is bind" in upkeep.troubles[names.refused]
    assert await find_absent(reader, names) == (names.refused, names.bucket_stream)
    await make(reader, names, names.refused)
    await upkeep.look(reader)
    assert set(upkeep.troubles) == {names.bucket_stream}
    await make(reader, names, names.bucket_stream)
    await upkeep.look(reader)
    assert upkeep.troubles == {}
    assert upkeep.lost == {names.refused: 1, names.bucket_stream: 1}


async def test_a_bound_log_that_is_gone_is_named_at_each_beginning(reader: Connection, names: Names) -> None:
    """The error is raised, the trouble is there, and it was lost once, however often it is tried."""
    await ensure(reader, names, SMALL)
    upkeep = Upkeep(names, BOUND)
    await upkeep.begin(reader)
    await api(reader, f"STREAM.DELETE.{names.log}")
    for _ in range(3):
        with pytest.raises(MissingStreamError):
            await upkeep.begin(reader)
    assert set(upkeep.troubles) == {names.log}
    assert upkeep.lost == {names.log: 1}


async def test_a_stream_that_cannot_be_made_is_named_with_the_reason(reader: Connection, names: Names) -> None:
    """Somebody has its subjects; when they are free again it is made, and nothing is wrong any more."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    await api(reader, f"STREAM.DELETE.{names.refused}")
    thief = {"name": f"X-{names.cluster}", "subjects": list(names.refused_subjects), "max_bytes": 1024}
    await api(reader, f"STREAM.CREATE.{thief['name']}", json.dumps(thief).encode())
    await upkeep.look(reader)
    assert "cannot be made anew" in upkeep.troubles[names.refused]
    assert "another stream has its subjects" in upkeep.troubles[names.refused]
    await api(reader, f"STREAM.DELETE.{thief['name']}")
    await upkeep.look(reader)
    assert upkeep.troubles == {}


async def test_with_the_log_the_bucket_is_made_anew(reader: Connection, names: Names) -> None:
    """The log alone was deleted: the next life's bucket has nothing of the old one, and all of the new one."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    await put(reader, names, "old-1", "old-2", "old-3")
    await api(reader, f"STREAM.DELETE.{names.log}")
    await upkeep.begin(reader)
    await put(reader, names, "new-1")
    assert await copied(reader, names) == {"new-1"}
    assert upkeep.troubles == {}


async def test_a_bucket_that_is_older_than_its_log_is_made_anew(reader: Connection, names: Names) -> None:
    """Whoever made the log anew (an operator, a daemon that ended then): the next that begins sees it, and says why."""
    await ensure(reader, names, SMALL)
    await put(reader, names, "old-1", "old-2")
    await api(reader, f"STREAM.DELETE.{names.log}")
    await make(reader, names, names.log)
    assert "before the log" in await find_fault_of_bucket(reader, names)

    bound = Upkeep(names, BOUND)
    await bound.begin(reader)
    assert "it is no copy of the log" in bound.troubles[names.bucket_stream]
    await bound.look(reader)
    assert set(bound.troubles) == {names.bucket_stream}
    assert await copied(reader, names) == {"old-1", "old-2"}

    await Upkeep(names, SMALL).begin(reader)
    await put(reader, names, "new-1")
    assert await copied(reader, names) == {"new-1"}
    assert await find_fault_of_bucket(reader, names) == ""
    await bound.look(reader)
    assert bound.troubles == {}


async def test_a_bucket_that_is_ahead_of_its_log_is_made_anew(tmp_path: Path, names: Names) -> None:
    """A power loss took the log's end and not the bucket's: it would miss what the log stores in place of that."""
    async with Server(tmp_path) as server:
        reader = await connect_reader(server.address(names.cluster), "test")
        await ensure(reader, names, SMALL)
        await put(reader, names, "j-1")
        await server.stop()
        stored = next(tmp_path.rglob(names.log))  # noqa: ASYNC240 - a few files
        shutil.copytree(stored, tmp_path / "before")
        await server.start()
        await until(lambda: reader.connects == 2, "the reconnect")
        await put(reader, names, "lost-1", "lost-2")
        assert await find_fault_of_bucket(reader, names) == ""
        await server.stop()
        shutil.rmtree(stored)
        shutil.copytree(tmp_path / "before", stored)
        await server.start()
        await until(lambda: reader.connects == 3, "the second reconnect")
        assert "a copy of the log's entry 3, and the log ends at 1" in await find_fault_of_bucket(reader, names)

        await Upkeep(names, SMALL).begin(reader)
        await put(reader, names, "j-2")
        assert await copied(reader, names) == {"j-1", "j-2"}
        await reader.close()


async def test_a_stream_that_differs_is_refused_at_a_beginning(reader: Connection, names: Names) -> None:
    """As at the start: it is not ours to alter."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    await api(reader, f"STREAM.DELETE.{names.refused}")
    other = {**configs(names, SMALL)[2], "max_bytes": 2 << 20}
    await api(reader, f"STREAM.CREATE.{names.refused}", json.dumps(other).encode())
    with pytest.raises(TopologyError, match="max_bytes: needed 1048576, found 2097152"):
        await upkeep.begin(reader)
