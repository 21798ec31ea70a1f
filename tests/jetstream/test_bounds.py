"""Accounts that say how large a stream may be, on a real server: our streams are made to fit, or none is made."""

import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from consumer.doctor.examination import Plan, examine
from consumer.doctor.finding import Verdict
from consumer.errors import ServerError, TopologyError
from consumer.jetstream.topology import configs, ensure, remake, remake_bucket
from consumer.jetstream.upkeep import Upkeep
from consumer.nats.address import Address
from consumer.nats.connect import connect_writer
from consumer.nats.connection import Connection
from consumer.settings import Streams, load
from consumer.wire.subjects import Names
from tests.daemon.process import SMALL_STREAMS, Daemon
from tests.server import Server, api
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

NAMES: Final = Names()
MIB: Final = 1 << 20
SMALL: Final = Streams(log_max_bytes=16 * MIB, input_max_bytes=16 * MIB, refused_max_bytes=MIB)
REQUIRED: Final = "max_store: 1G, max_bytes_required: true"


def server_with(folder: Path, limits: str) -> Server:
    """A server whose one account has these limits."""
    return Server(folder, f"accounts {{ A {{ users: [{{user: u, password: p}}], jetstream: {{ {limits} }} }} }}\n")


async def connected(server: Server) -> Connection:
    """Its account's user."""
    return await connect_writer(Address(urls=(server.url,), user="u", password="p"), "test", within_s=DEADLINE_S)


async def streams_of(connection: Connection) -> list[str]:
    """The names of all streams there."""
    return list(json.loads(await api(connection, "STREAM.NAMES"))["streams"] or ())


async def bound_of(connection: Connection, stream: str) -> int:
    """What the server says that it may take."""
    return int(json.loads(await api(connection, f"STREAM.INFO.{stream}"))["config"]["max_bytes"])


async def make(connection: Connection, config: dict[str, Any]) -> None:
    """Make a stream by hand."""
    made = json.loads(await api(connection, f"STREAM.CREATE.{config['name']}", json.dumps(config).encode()))
    assert "error" not in made, made


async def test_an_account_that_requires_bounds_is_given_them(tmp_path: Path) -> None:
    """The bucket has one by itself: a quarter more than the log. A second start finds all as it must be."""
    async with server_with(tmp_path, REQUIRED) as server:
        connection = await connected(server)
        assert len(await ensure(connection, NAMES, SMALL)) == 4
        assert await bound_of(connection, NAMES.bucket_stream) == 20 * MIB
        assert await ensure(connection, NAMES, SMALL) == ()
        await connection.close()


async def test_a_bound_of_the_settings_comes_first(tmp_path: Path) -> None:
    """And is asked for again when the streams are there: they are never altered."""
    bounded = msgspec.structs.replace(SMALL, bucket_max_bytes=3 * MIB)
    async with server_with(tmp_path, REQUIRED) as server:
        connection = await connected(server)
        await ensure(connection, NAMES, bounded)
        assert await bound_of(connection, NAMES.bucket_stream) == 3 * MIB
        with pytest.raises(TopologyError, match=f"max_bytes: needed {4 * MIB}, found {3 * MIB}"):
            await ensure(connection, NAMES, msgspec.structs.replace(SMALL, bucket_max_bytes=4 * MIB))
        assert await ensure(connection, NAMES, SMALL) == (), "without the setting any bound will do"
        await connection.close()


async def test_a_bucket_without_a_bound_is_continued_as_it_is(tmp_path: Path) -> None:
    """Every log that was made before the setting has one; where no bound is required none is set."""
    async with Server(tmp_path) as server:
        connection = await connect_writer(server.address(), "test", within_s=DEADLINE_S)
        await ensure(connection, NAMES, SMALL)
        assert await bound_of(connection, NAMES.bucket_stream) == -1
        assert await ensure(connection, NAMES, SMALL) == ()
        await remake_bucket(connection, NAMES, SMALL)
        assert await bound_of(connection, NAMES.bucket_stream) == -1
        await connection.close()


@pytest.mark.parametrize(
    ("limits", "changed", "words"),
    [
        (REQUIRED, {"log_max_bytes": 0}, "requires a bound for JOBSTATE_main: set streams.log_max_bytes (JOBSTATE_STR"),
        (REQUIRED, {"input_max_bytes": 0}, "requires a bound for JOBSTATE_IN_main: set streams.input_max_bytes"),
        (
            f"max_store: 1G, store_max_stream_bytes: {8 * MIB}",
            {"log_max_bytes": 4 * MIB},
            "in a stream: set streams.input_max_bytes (JOBSTATE_STREAMS__INPUT_MAX_BYTES), now 16777216, to no more",
        ),
        (
            f"max_store: 1G, store_max_stream_bytes: {16 * MIB}",
            {"refused_max_bytes": 17 * MIB},
            "set streams.refused_max_bytes",
        ),
        (
            f"max_store: 1G, store_max_stream_bytes: {16 * MIB}",
            {"bucket_max_bytes": 17 * MIB},
            "set streams.bucket_max_bytes",
        ),
        (f"max_store: {33 * MIB + 20 * MIB - 1}, max_bytes_required: true", {}, f"reserve {53 * MIB} (JOBSTATE_main "),
    ],
)
async def test_what_the_account_would_refuse_is_said_before_any_stream_is_made(
    tmp_path: Path, limits: str, changed: dict[str, int], words: str
) -> None:
    """The setting that is to be changed is named, and no part of the set is left behind."""
    async with server_with(tmp_path, limits) as server:
        connection = await connected(server)
        with pytest.raises(ServerError) as refused:
            await ensure(connection, NAMES, msgspec.structs.replace(SMALL, **changed))
        assert words in str(refused.value)
        assert "none was made" in str(refused.value)
        assert await streams_of(connection) == []
        await connection.close()


async def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """Nobody mends one setting, and then the next."""
    async with server_with(tmp_path, f"max_store: 1G, store_max_stream_bytes: {MIB}") as server:
        connection = await connected(server)
        with pytest.raises(ServerError, match=r"log_max_bytes .*; .*input_max_bytes "):
            await ensure(connection, NAMES, SMALL)
        await connection.close()


async def test_the_bucket_is_no_larger_than_a_stream_may_be(tmp_path: Path) -> None:
    """Its own bound is lowered to the account's largest."""
    async with server_with(tmp_path, f"{REQUIRED}, store_max_stream_bytes: {16 * MIB}") as server:
        connection = await connected(server)
        await ensure(connection, NAMES, SMALL)
        assert await bound_of(connection, NAMES.bucket_stream) == 16 * MIB
        await connection.close()


async def test_with_the_log_made_anew_the_bucket_is_made_anew_too(tmp_path: Path) -> None:
    """One that was made by hand keeps its bound; and what it reserves is no hindrance to its own successor."""
    most = 33 * MIB + 20 * MIB
    async with server_with(tmp_path, f"max_store: {most}, max_bytes_required: true") as server:
        connection = await connected(server)
        by_hand = {**configs(NAMES, SMALL)[3], "max_bytes": 20 * MIB}
        for config in (*configs(NAMES, SMALL)[:3], by_hand):
            await make(connection, config)
        upkeep = Upkeep(NAMES, SMALL)
        await upkeep.begin(connection)
        created = json.loads(await api(connection, f"STREAM.INFO.{NAMES.bucket_stream}"))["created"]
        await api(connection, f"STREAM.DELETE.{NAMES.log}")
        await upkeep.begin(connection)
        assert upkeep.troubles == {}
        assert json.loads(await api(connection, f"STREAM.INFO.{NAMES.bucket_stream}"))["created"] != created
        assert await bound_of(connection, NAMES.bucket_stream) == 20 * MIB
        await api(connection, f"STREAM.DELETE.{NAMES.bucket_stream}")
        await remake(connection, NAMES, SMALL, {NAMES.bucket_stream})
        assert await bound_of(connection, NAMES.bucket_stream) == 20 * MIB
        await connection.close()


async def test_a_bucket_that_could_not_be_made_again_is_not_deleted(tmp_path: Path) -> None:
    """One that is behind is better than none."""
    async with server_with(tmp_path, "max_store: 1G") as server:
        connection = await connected(server)
        await ensure(connection, NAMES, SMALL)
        wanted = msgspec.structs.replace(SMALL, bucket_max_bytes=1 << 40)
        with pytest.raises(ServerError, match="has room for"):
            await remake_bucket(connection, NAMES, wanted)
        assert NAMES.bucket_stream in await streams_of(connection)
        await connection.close()


async def test_the_daemon_runs_in_such_an_account(tmp_path: Path) -> None:
    """With the settings of everybody; and one that it cannot run in ends it with the setting to change."""
    async with server_with(tmp_path / "nats", REQUIRED) as server:
        variables = {
            "JOBSTATE_NATS__URL": server.url,
            "JOBSTATE_NATS__USER": "u",
            "JOBSTATE_NATS__PASSWORD": "p",
        }
        refused = Daemon(tmp_path / "refused", variables | {"JOBSTATE_STREAMS__LOG_MAX_BYTES": "0"})
        try:
            assert await refused.ended() == 11
            assert "set streams.log_max_bytes" in refused.said()
            examined = await examine(
                Plan(
                    settings=load(None, variables | SMALL_STREAMS | {"JOBSTATE_STREAMS__LOG_MAX_BYTES": "0"}),
                    listen_s=0.0,
                ),
                lambda _: None,
            )
            (room,) = (finding for finding in examined if finding.check == "nats.room")
            assert room.verdict is Verdict.FAIL
            assert "set streams.log_max_bytes" in room.found
        finally:
            refused.kill()
        daemon = Daemon(tmp_path / "daemon", variables)
        try:
            await daemon.until_ready()
            assert await daemon.stop() == 0
        finally:
            daemon.kill()
