"""The streams while the daemon lives: what is gone is made anew or named, and the bucket is a copy of this log."""

import asyncio
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from consumer.errors import MissingStreamError, TopologyError
from consumer.jetstream.bucket import find_fault_of_bucket, find_lack
from consumer.jetstream.topology import configs, ensure, find_absent, remake_bucket, survey
from consumer.jetstream.upkeep import NO_MEMORY, Memory, Upkeep
from consumer.model import JobKey, LastUpdate
from consumer.nats.address import Address
from consumer.nats.api import StreamInfo
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
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
        while not set(jobs) <= await copied(reader, names):
            await asyncio.sleep(0.01)


async def copied(reader: Connection, names: Names) -> set[str]:
    """The jobs that the bucket has."""
    answer = await api(reader, f"STREAM.INFO.{names.bucket_stream}", b'{"subjects_filter":">"}')
    subjects = json.loads(answer).get("state", {}).get("subjects") or {}
    return {subject.rpartition(".")[2] for subject in subjects}


async def look(upkeep: Upkeep, reader: Connection, names: Names, memory: Memory = NO_MEMORY) -> None:
    """As the daemon does every few seconds."""
    await upkeep.look(reader, await survey(reader, names), memory)


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
    await look(upkeep, reader, names)
    await look(upkeep, reader, names)
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
    await look(upkeep, reader, names)
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
        await look(upkeep, reader, names)
    assert set(upkeep.troubles) == {names.refused, names.bucket_stream}
    assert "streams.mode is bind" in upkeep.troubles[names.refused]
    assert await find_absent(reader, names) == (names.refused, names.bucket_stream)
    await make(reader, names, names.refused)
    await look(upkeep, reader, names)
    assert set(upkeep.troubles) == {names.bucket_stream}
    await make(reader, names, names.bucket_stream)
    await look(upkeep, reader, names)
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
    await look(upkeep, reader, names)
    assert "cannot be made anew" in upkeep.troubles[names.refused]
    assert "another stream has its subjects" in upkeep.troubles[names.refused]
    await api(reader, f"STREAM.DELETE.{thief['name']}")
    await look(upkeep, reader, names)
    assert upkeep.troubles == {}


async def test_a_stream_that_somebody_sealed_is_named_until_it_is_deleted(reader: Connection, names: Names) -> None:
    """Producers are refused for ever: not ready while we live, refused at a beginning, made anew once it is gone."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    config = {**json.loads(await api(reader, f"STREAM.INFO.{names.input}"))["config"], "sealed": True}
    assert b'"error"' not in await api(reader, f"STREAM.UPDATE.{names.input}", json.dumps(config).encode())
    await look(upkeep, reader, names)
    assert list(upkeep.troubles) == [names.input]
    assert upkeep.troubles[names.input].startswith("it is sealed: ")
    assert f"nats stream rm {names.input}" in upkeep.troubles[names.input]
    with pytest.raises(TopologyError, match="it is sealed"):
        await Upkeep(names, SMALL).begin(reader)
    await api(reader, f"STREAM.DELETE.{names.input}")
    await look(upkeep, reader, names)
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
    await look(bound, reader, names)
    assert set(bound.troubles) == {names.bucket_stream}
    assert await copied(reader, names) == {"old-1", "old-2"}

    await Upkeep(names, SMALL).begin(reader)
    await put(reader, names, "new-1")
    assert await copied(reader, names) == {"new-1"}
    assert await find_fault_of_bucket(reader, names) == ""
    await look(bound, reader, names)
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
        await until(lambda: reader.connects >= 2, "the reconnect")
        await put(reader, names, "lost-1", "lost-2")
        assert await find_fault_of_bucket(reader, names) == ""
        await server.stop()
        shutil.rmtree(stored)
        shutil.copytree(tmp_path / "before", stored)
        await server.start()
        await until(lambda: reader.connects >= 3, "the second reconnect")
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


# -- a bucket behind the log -------------------------------------------------------------------------------------------


async def remember(reader: Connection, names: Names, *jobs: str) -> Memory:
    """What a daemon knows of *jobs* that it has published one after the other."""
    known = {}
    for job in jobs:
        ack = await reader.request(names.state(job_key("default", job), "Running"), b"{}", timeout=DEADLINE_S)
        known[job_key("default", job)] = known_at(json.loads(ack.data)["seq"])
    return Memory(known, len(known), max(one.number for one in known.values()))


def known_at(number: int) -> LastUpdate:
    """A job whose last entry is *number*."""
    return LastUpdate(number=number, sequence=1, state="Running", version=None, revision=None, source="reported")


async def has_copied(reader: Connection, names: Names, *jobs: str) -> None:
    """Wait until the bucket has exactly *jobs*."""
    async with asyncio.timeout(DEADLINE_S):
        while await copied(reader, names) != set(jobs):
            await asyncio.sleep(0.01)


async def look_until(upkeep: Upkeep, reader: Connection, names: Names, memory: Memory, renewals: int) -> None:
    """Look until the bucket was made anew *renewals* times."""
    async with asyncio.timeout(DEADLINE_S):
        while upkeep.renewals < renewals:
            await look(upkeep, reader, names, memory)


async def purge(reader: Connection, stream: str, subject: str = "") -> None:
    """As `nats stream purge`, and with *subject* as `nats kv purge` would if it could."""
    answer = json.loads(await api(reader, f"STREAM.PURGE.{stream}", json.dumps({"filter": subject}).encode()))
    assert answer["purged"]


def without_seq(info: StreamInfo) -> StreamInfo:
    """As servers before 2.15 say it."""
    return msgspec.structs.replace(info, sources=[msgspec.structs.replace(one, seq=0) for one in info.sources])


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("key", ["", "default.j-1", "default.j-3"])
async def test_a_bucket_that_lacks_jobs_of_the_log_is_made_anew(
    reader: Connection, names: Names, key: str, *, old: bool
) -> None:
    """All purged, the first one's key, the newest one's key: seen by the second or third look, and whole again."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    memory = await remember(reader, names, "j-1", "j-2", "j-3")
    await has_copied(reader, names, "j-1", "j-2", "j-3")
    await look(upkeep, reader, names, memory)
    assert (upkeep.renewals, upkeep.lacking) == (0, 0)
    await purge(reader, names.bucket_stream, f"$KV.{names.bucket}.{key}" if key else "")
    looks = 0
    async with asyncio.timeout(DEADLINE_S):
        while not upkeep.renewals:
            found = dict(await survey(reader, names))
            bucket = found[names.bucket_stream]
            assert isinstance(bucket, StreamInfo)
            if old:
                found[names.bucket_stream] = without_seq(bucket)
            await upkeep.look(reader, found, memory)
            looks += 1
            assert upkeep.lacking == (1 if key else 3)
    assert looks <= 3
    await has_copied(reader, names, "j-1", "j-2", "j-3")
    for _ in range(3):
        await look(upkeep, reader, names, memory)
    assert (upkeep.renewals, upkeep.lacking, upkeep.troubles) == (1, 0, {})


async def test_a_bucket_whose_sources_are_taken_away_is_made_anew(reader: Connection, names: Names) -> None:
    """While the daemon runs, and at a start; with `bind` it is named, and a start is refused as for any difference."""
    await ensure(reader, names, SMALL)
    memory = await remember(reader, names, "j-1")
    bare = {**configs(names, SMALL)[3]}
    del bare["sources"]
    running, bound = Upkeep(names, SMALL), Upkeep(names, BOUND)
    await running.begin(reader)
    await bound.begin(reader)

    async def take_away() -> None:
        assert b'"error"' not in await api(reader, f"STREAM.UPDATE.{names.bucket_stream}", json.dumps(bare).encode())

    await take_away()
    await look(bound, reader, names, memory)
    assert "its sources were taken away" in bound.troubles[names.bucket_stream]
    with pytest.raises(TopologyError, match="sources"):
        await Upkeep(names, BOUND).begin(reader)
    assert "its sources were taken away" in await find_lack(reader, names)

    await look(running, reader, names, memory)
    await has_copied(reader, names, "j-1")
    assert (running.renewals, running.troubles) == (1, {})
    await look(bound, reader, names, memory)
    assert bound.troubles == {}

    await take_away()
    await Upkeep(names, SMALL).begin(reader)
    await remember(reader, names, "j-2")
    await has_copied(reader, names, "j-1", "j-2")


async def test_a_bucket_that_is_somebodys_own_is_left_alone(reader: Connection, names: Names) -> None:
    """Without sources, but with subjects that others write to: refused, never deleted."""
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    own = {"name": names.bucket_stream, "subjects": [f"$KV.{names.bucket}.>"], "max_msgs_per_subject": 1}
    await api(reader, f"STREAM.CREATE.{names.bucket_stream}", json.dumps(own).encode())
    await reader.request(f"$KV.{names.bucket}.mine", b"{}", timeout=DEADLINE_S)
    with pytest.raises(TopologyError, match="sources"):
        await Upkeep(names, SMALL).begin(reader)
    assert await copied(reader, names) == {"mine"}


@pytest.mark.parametrize("idle", [False, True])
async def test_a_source_that_stands_still_is_noticed(
    reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch, *, idle: bool
) -> None:
    """It copies nothing, for ever: it says that it has nothing to copy (*idle*), or nothing at all."""
    if not idle:
        monkeypatch.setattr("consumer.jetstream.bucket._is_idle", lambda _: False)
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    config = configs(names, SMALL)[3]
    stands = {**config, "sources": [{**config["sources"][0], "opt_start_seq": 10**6}]}
    assert b'"error"' not in await api(reader, f"STREAM.CREATE.{names.bucket_stream}", json.dumps(stands).encode())
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    memory = await remember(reader, names, "j-1", "j-2")
    await look(upkeep, reader, names, memory)
    assert (upkeep.renewals, upkeep.lacking) == (0, 2)
    monkeypatch.setattr("consumer.jetstream.bucket.CATCH_UP_S", 0.0)
    lack = await find_lack(reader, names)
    # Once the server has had a heartbeat of the source it knows that nothing is on its way.
    assert "none of entry 2, the last update" in lack or (idle and lack == "it lacks 2 of the log's 2 jobs")
    if not idle:
        monkeypatch.setattr("consumer.jetstream.bucket.STUCK_S", 0.0)
    await look_until(upkeep, reader, names, memory, 1)
    await has_copied(reader, names, "j-1", "j-2")


async def test_a_burst_is_no_lack(reader: Connection, names: Names) -> None:
    """3,000 new jobs, looked at without a pause: the bucket is behind all the time, and is left alone."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    known: dict[JobKey, LastUpdate] = {}
    numbers = [0]

    async def publish(first: int) -> None:
        for number in range(first, 3000, 30):
            key = job_key("default", f"j-{number}")
            ack = await reader.request(names.state(key, "Running"), b"{}", timeout=DEADLINE_S)
            known[key] = known_at(json.loads(ack.data)["seq"])
            numbers[0] = max(numbers[0], known[key].number)

    async def look_once() -> None:
        await look(upkeep, reader, names, Memory(known, len(known), numbers[0]))

    publishing = asyncio.gather(*map(publish, range(30)))
    looks = 0
    while not publishing.done():
        await look_once()
        looks += 1
    await publishing
    assert looks > 3
    async with asyncio.timeout(DEADLINE_S):
        while upkeep.lacking:
            await look_once()
    for _ in range(3):
        await look_once()
    assert (upkeep.renewals, upkeep.troubles) == (0, {})


async def test_a_job_that_an_operator_removed_from_both_is_no_lack(reader: Connection, names: Names) -> None:
    """The daemon's memory has it still; the log has not, so no bucket ever will. What is lost beside it is found."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    memory = await remember(reader, names, "j-1", "j-2", "j-3")
    await has_copied(reader, names, "j-1", "j-2", "j-3")
    await look(upkeep, reader, names, memory)
    await purge(reader, names.log, names.states(job_key("default", "j-2")))
    await purge(reader, names.bucket_stream, f"$KV.{names.bucket}.default.j-2")
    for _ in range(4):
        await look(upkeep, reader, names, memory)
    assert (upkeep.renewals, upkeep.lacking, upkeep.troubles) == (0, 0, {})
    await purge(reader, names.bucket_stream, f"$KV.{names.bucket}.default.j-3")
    await look_until(upkeep, reader, names, memory, 1)
    await has_copied(reader, names, "j-1", "j-3")


async def test_two_daemons_make_the_bucket_anew_once(reader: Connection, names: Names) -> None:
    """Both see the lack in one look, and the second sees that the bucket is another by then."""
    both = [Upkeep(names, SMALL), Upkeep(names, SMALL)]
    for upkeep in both:
        await upkeep.begin(reader)
    memory = await remember(reader, names, "j-1", "j-2")
    await has_copied(reader, names, "j-1", "j-2")
    for upkeep in both:
        await look(upkeep, reader, names, memory)
    await purge(reader, names.bucket_stream)
    found = await survey(reader, names)
    for upkeep in both:
        await upkeep.look(reader, found, memory)
    assert sum(upkeep.renewals for upkeep in both) == 1
    await has_copied(reader, names, "j-1", "j-2")
    for _ in range(3):
        for upkeep in both:
            await look(upkeep, reader, names, memory)
    assert sum(upkeep.renewals for upkeep in both) == 1
    assert await copied(reader, names) == {"j-1", "j-2"}


async def test_a_bucket_that_is_not_helped_is_named_and_not_deleted_again_and_again(
    reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made anew, it lacks the same: /readyz says so, and it is tried again after a pause that doubles."""
    upkeep = Upkeep(names, SMALL)
    await upkeep.begin(reader)
    memory = await remember(reader, names, "j-1")
    await has_copied(reader, names, "j-1")
    await look(upkeep, reader, names, memory)
    await purge(reader, names.bucket_stream)
    await look_until(upkeep, reader, names, memory, 1)
    await has_copied(reader, names, "j-1")
    await look(upkeep, reader, names, memory)
    await purge(reader, names.bucket_stream)
    async with asyncio.timeout(DEADLINE_S):
        while not upkeep.troubles:
            await look(upkeep, reader, names, memory)
    assert "making it anew did not help" in upkeep.troubles[names.bucket_stream]
    assert upkeep.renewals == 1
    monkeypatch.setattr("consumer.jetstream.upkeep.RENEW_FIRST_S", 0.0)
    await look_until(upkeep, reader, names, memory, 2)
    await has_copied(reader, names, "j-1")
    await look(upkeep, reader, names, memory)
    assert upkeep.troubles == {}


async def test_a_bucket_that_may_not_be_made_anew_is_tried_seldom_and_never_called_renewed(
    tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is named until it helps to try again, after a pause; nothing claims what was not done."""
    tries: list[str] = []

    async def remake(connection: Connection, names: Names, streams: Streams) -> None:
        tries.append(names.bucket_stream)
        await remake_bucket(connection, names, streams)

    monkeypatch.setattr("consumer.jetstream.topology.remake_bucket", remake)
    monkeypatch.setattr("consumer.jetstream.upkeep.RENEW_FIRST_S", 1800.0)
    denied = f"$JS.API.STREAM.DELETE.{names.bucket_stream}"
    users = f'{{user: admin, password: p}}, {{user: u, password: p, permissions: {{publish: {{deny: "{denied}"}}}}}}'
    async with Server(tmp_path, f"authorization {{ users: [{users}] }}\n") as server:
        urls = (server.url,)
        admin = await connect_reader(Address(urls=urls, user="admin", password="p"), "admin")
        ours = await connect_reader(Address(urls=urls, user="u", password="p"), "test")
        upkeep = Upkeep(names, SMALL)
        await upkeep.begin(ours)
        memory = await remember(ours, names, "j-1")
        await has_copied(ours, names, "j-1")
        await look(upkeep, ours, names, memory)
        await purge(admin, names.bucket_stream)
        with capture_logs() as lines:
            async with asyncio.timeout(DEADLINE_S):
                while not tries:
                    await look(upkeep, ours, names, memory)
            for _ in range(5):
                await look(upkeep, ours, names, memory)
                trouble = upkeep.troubles[names.bucket_stream]
                assert "cannot be made anew" in trouble
                assert "permissions violation" in trouble
                assert trouble.endswith("the next try is in 1800 s")
            assert len(tries) == 1
            monkeypatch.setattr("consumer.jetstream.upkeep.RENEW_FIRST_S", 0.0)
            async with asyncio.timeout(DEADLINE_S):
                while len(tries) == 1:
                    await look(upkeep, ours, names, memory)
            assert upkeep.renewals == 0
            assert [line["event"] for line in lines if line["event"] != "nats.trouble"] == ["stream.trouble"] * 2
        for connection in (ours, admin):
            await connection.close()
