"""The streams: made where they are absent, refused where they differ, never altered."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.errors import MissingStreamError, ServerError, TopologyError
from consumer.jetstream.topology import compare, configs, ensure, remake
from consumer.nats.connect import connect_reader
from consumer.nats.connection import Connection
from consumer.settings import Streams
from consumer.wire.subjects import Names, job_key
from tests.server import Server, api
from tests.waiting import DEADLINE_S, until

SMALL = Streams(log_max_bytes=16 << 20, input_max_bytes=16 << 20, refused_max_bytes=1 << 20)


async def config_of(reader: Connection, stream: str) -> dict[str, Any]:
    """What the server says of the stream."""
    found: dict[str, Any] = json.loads(await api(reader, f"STREAM.INFO.{stream}"))["config"]
    return found


async def test_absent_streams_are_made_and_found_again(reader: Connection, names: Names) -> None:
    """All four the first time, none the second."""
    four = (names.log, names.input, names.refused, names.bucket_stream)
    assert await ensure(reader, names, SMALL) == four
    assert await ensure(reader, names, SMALL) == ()
    assert await ensure(reader, names, msgspec.structs.replace(SMALL, mode="bind")) == ()


async def test_the_log_forgets_nothing_by_itself(reader: Connection, names: Names) -> None:
    """No age, no count, no old entry thrown away: a limit would let a late event make a forgotten job new."""
    await ensure(reader, names, SMALL)
    found = await config_of(reader, names.log)
    assert found["discard"] == "new"
    assert found["max_age"] == 0
    assert found["max_msgs"] == found["max_msgs_per_subject"] == -1
    assert found["max_bytes"] == 16 << 20
    assert found["allow_rollup_hdrs"] is True
    assert found["subjects"] == list(names.log_subjects)


async def test_no_bound_means_no_bound(reader: Connection, names: Names) -> None:
    """0 in the settings is -1 at the server."""
    await ensure(reader, names, Streams(log_max_bytes=0, input_max_bytes=0), leave={names.bucket_stream})
    assert (await config_of(reader, names.log))["max_bytes"] == -1
    assert (await config_of(reader, names.input))["max_bytes"] == -1


async def test_a_producer_cannot_empty_the_input(reader: Connection, names: Names) -> None:
    """`Nats-Rollup: all` is refused there (10111)."""
    await ensure(reader, names, SMALL)
    await reader.request(names.report(job_key("default", "j-1")), b"{}", timeout=DEADLINE_S)
    answer = await reader.request(names.report(job_key("default", "j-1")), b"{}", headers={"Nats-Rollup": "all"})
    assert json.loads(answer.data)["error"]["err_code"] == 10111
    assert json.loads(await api(reader, f"STREAM.INFO.{names.input}"))["state"]["messages"] == 1


async def test_the_bucket_is_fed_by_the_server_and_read_by_any_client(reader: Connection, names: Names) -> None:
    """The last update of a job under its key, whatever its state; advisories are not there."""
    await ensure(reader, names, SMALL)
    key = job_key("default", "j 1")
    for state, body in (("Pending", b"1"), ("Running", b"2")):
        await reader.request(names.state(key, state), body, timeout=DEADLINE_S)
    await reader.request(names.advisory("gap", "1"), b"3", timeout=DEADLINE_S)
    bucket = await reader.jetstream().key_value(names.bucket)

    async def held() -> tuple[int, int]:
        found = json.loads(await api(reader, f"STREAM.INFO.{names.bucket_stream}"))["state"]
        return found["last_seq"], found["messages"]

    async with asyncio.timeout(DEADLINE_S):
        while await held() != (2, 1):
            pass
    assert (await bucket.get("default.j=201")).value == b"2"


async def test_the_bucket_can_be_left_out(reader: Connection, names: Names) -> None:
    """A test or a measurement needs none."""
    assert names.bucket_stream not in await ensure(reader, names, SMALL, leave={names.bucket_stream})
    assert "error" in json.loads(await api(reader, f"STREAM.INFO.{names.bucket_stream}"))


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("max_bytes", 1 << 20),
        ("max_age", 3_600_000_000_000),
        ("max_msgs_per_subject", 1),
        ("discard", "old"),
        ("allow_rollup_hdrs", False),
        ("allow_direct", False),
        ("duplicate_window", 120_000_000_000),
        ("no_ack", True),
        ("storage", "memory"),
        ("retention", "interest"),
    ],
)
async def test_a_log_that_differs_is_refused_and_left_alone(
    reader: Connection, names: Names, field: str, other: object
) -> None:
    """The error names stream, field, what is needed and what was found; nothing is altered, nothing else made."""
    wanted = configs(names, SMALL)[0]
    body = json.dumps({**wanted, field: other}).encode()
    assert "error" not in json.loads(await api(reader, f"STREAM.CREATE.{names.log}", body))
    before = await config_of(reader, names.log)
    with pytest.raises(TopologyError) as refused:
        await ensure(reader, names, SMALL)
    text = str(refused.value)
    assert names.log in text
    assert f"  {field}: needed {wanted[field]}, found {before.get(field, 'nothing')}\n" in text
    assert text.count("needed") == 2  # "not what is needed", and one difference
    assert await config_of(reader, names.log) == before
    assert "error" in json.loads(await api(reader, f"STREAM.INFO.{names.input}"))


async def test_every_difference_is_named_at_once(reader: Connection, names: Names) -> None:
    """Subjects and bounds: an operator mends them in one go."""
    wanted = {**configs(names, SMALL)[0], "subjects": [f"{names.prefix}.state.*.*.*"], "max_bytes": -1}
    await api(reader, f"STREAM.CREATE.{names.log}", json.dumps(wanted).encode())
    with pytest.raises(TopologyError, match=r"(?s)subjects: needed .*max_bytes: needed 16777216, found -1"):
        await ensure(reader, names, SMALL)


async def test_a_bucket_fed_from_elsewhere_is_refused(reader: Connection, names: Names) -> None:
    """The source is compared to its last part."""
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    wanted = configs(names, SMALL)[3]
    wanted["sources"][0]["subject_transforms"][0]["dest"] = f"$KV.{names.bucket}.{{{{wildcard(2)}}}}"
    await api(reader, f"STREAM.CREATE.{names.bucket_stream}", json.dumps(wanted).encode())
    with pytest.raises(TopologyError, match=r"sources\[0\]\.subject_transforms\[0\]\.dest: needed "):
        await ensure(reader, names, SMALL)


async def test_bound_streams_are_never_made(reader: Connection, names: Names) -> None:
    """With `bind` an absent stream is refused by its name."""
    bound = msgspec.structs.replace(SMALL, mode="bind")
    with pytest.raises(MissingStreamError, match=f"the streams {names.log}, {names.input}, .* are not on .* is bind"):
        await ensure(reader, names, bound)
    assert "error" in json.loads(await api(reader, f"STREAM.INFO.{names.log}"))


async def test_one_missing_stream_is_named_alone(reader: Connection, names: Names) -> None:
    """With `bind`, which one: the error has it as a name too, for whoever waits for it."""
    await ensure(reader, names, SMALL)
    await api(reader, f"STREAM.DELETE.{names.refused}")
    with pytest.raises(MissingStreamError, match=f"the stream {names.refused} is not on ") as missing:
        await ensure(reader, names, msgspec.structs.replace(SMALL, mode="bind"))
    assert missing.value.streams == (names.refused,)


async def test_subjects_of_another_stream_are_not_taken(reader: Connection, names: Names) -> None:
    """Somebody's stream has them: refused by name."""
    await api(
        reader,
        f"STREAM.CREATE.X-{names.cluster}",
        json.dumps({"name": f"X-{names.cluster}", "subjects": [f"{names.prefix}.>"], "max_bytes": 1024}).encode(),
    )
    with pytest.raises(TopologyError, match=f"{names.log} cannot be made .*another stream has its subjects"):
        await ensure(reader, names, SMALL)


async def test_a_stream_that_somebody_made_first_is_compared(reader: Connection, names: Names) -> None:
    """Absent when it was looked for, there when it is made (10058): taken if it is what it must be, else named.

    A cluster refuses even a second stream that is the same; a server that is alone only one that is not quite.
    """
    bucket = configs(names, SMALL)[3]
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    for more, fault in (({"description": "made by a twin"}, ""), ({"max_msgs_per_subject": 2}, "max_msgs_per_subject")):
        body = json.dumps({**bucket, **more}).encode()
        assert "error" not in json.loads(await api(reader, f"STREAM.CREATE.{names.bucket_stream}", body))
        again = await api(reader, f"STREAM.CREATE.{names.bucket_stream}", json.dumps(bucket).encode())
        assert json.loads(again)["error"]["err_code"] == 10058
        if fault:
            with pytest.raises(TopologyError, match=f"(?s)nothing was altered.*{fault}: needed 1, found 2"):
                await remake(reader, names, SMALL, {names.bucket_stream})
        else:
            await remake(reader, names, SMALL, {names.bucket_stream})
        await api(reader, f"STREAM.DELETE.{names.bucket_stream}")


async def test_more_than_the_server_has_room_for_is_said(tmp_path: Path, names: Names) -> None:
    """The server's bound is smaller than `max_bytes`: which setting to lower."""
    store = tmp_path / "store"
    async with Server(tmp_path, f'jetstream {{ max_file_store: 10M, store_dir: "{store}" }}\n') as server:
        reader = await connect_reader(server.address(), "test")
        with pytest.raises(ServerError, match=f"no room for the stream {names.log}: .*lower the max_bytes"):
            await ensure(reader, names, SMALL)
        await reader.close()


async def test_more_streams_than_the_account_may_have_is_said(tmp_path: Path, names: Names) -> None:
    """No size helps there: how many streams it takes, and which limit."""
    account = "accounts { A { jetstream { max_streams: 2 }, users [{ user: a, password: b }] } }\nno_auth_user: a"
    store = tmp_path / "store"
    async with Server(tmp_path, f'jetstream {{ store_dir: "{store}" }}\n{account}\n') as server:
        reader = await connect_reader(server.address(), "test")
        with pytest.raises(ServerError, match=r"raise the account's max_streams \(jobstate keeps 4 ") as caught:
            await ensure(reader, names, SMALL)
        assert "max_bytes" not in str(caught.value)
        await reader.close()


async def test_more_copies_than_there_are_servers_is_said(reader: Connection, names: Names) -> None:
    """Three copies of a server that is alone: which setting to change, and no restart helps (exit 10)."""
    with pytest.raises(TopologyError, match=r"set streams.replicas \(JOBSTATE_STREAMS__REPLICAS\) to 1"):
        await ensure(reader, names, Streams(replicas=3))


async def test_streams_survive_their_server(tmp_path: Path, names: Names) -> None:
    """After a kill -9 they are what they were."""
    async with Server(tmp_path) as server:
        reader = await connect_reader(server.address(), "test")
        await ensure(reader, names, SMALL)
        await server.kill()
        await server.start()
        await until(lambda: reader.connects >= 2, "the reconnect")
        assert await ensure(reader, names, SMALL) == ()
        await reader.close()


def test_only_what_is_needed_is_compared() -> None:
    """Metadata, placement and what a newer server adds are nobody's business; order of subjects neither."""
    wanted = {"name": "a", "subjects": ["x", "y"], "no_ack": False, "limits": {"b": 1}}
    found = {"name": "a", "subjects": ["y", "x"], "metadata": {"_nats.level": "1"}, "limits": {"b": 1, "c": 2}}
    assert list(compare(wanted, found)) == []
    assert [str(one) for one in compare(wanted, {**found, "no_ack": True, "limits": {}})] == [
        "no_ack: needed False, found True",
        "limits.b: needed 1, found nothing",
    ]
