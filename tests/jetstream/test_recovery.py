"""What a start finds: at least everything up to the log's end as it was after the checkpoint was read."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from consumer.core.appends import Append, Entry, Stored
from consumer.core.verify import verify_all, verify_last
from consumer.errors import LogWentBackError
from consumer.jetstream import recovery
from consumer.jetstream.pull import Pull
from consumer.jetstream.recovery import probe, recover
from consumer.jetstream.topology import ensure
from consumer.jetstream.writer import JetStreamWriter, open_writer
from consumer.model import InputPosition, JobKey
from consumer.nats.connect import connect_reader, connect_writer
from consumer.nats.connection import Connection
from consumer.settings import Streams
from consumer.wire.entries import encode_checkpoint
from consumer.wire.subjects import Names, job_key
from consumer.wire.update import encode_update
from tests.cli.conftest import life
from tests.ports.log_suite import carry
from tests.server import Server, api, strip_bodies
from tests.waiting import DEADLINE_S, until

MIB = 1 << 20
SMALL = Streams(log_max_bytes=64 * MIB, input_max_bytes=MIB, refused_max_bytes=MIB)


@pytest.fixture
async def writer(shared_server: Server, reader: Connection, names: Names) -> AsyncIterator[JetStreamWriter]:
    """A writer on the streams of a cluster of its own."""
    await ensure(reader, names, SMALL, leave={names.bucket_stream})
    writer = await open_writer(await connect_writer(shared_server.address(names.cluster), "log"), names)
    yield writer
    await writer.close()


async def live(writer: JetStreamWriter, names: Names, job: str, *states: str, source: str = "") -> list[int]:
    """Write the job's life; the numbers of its entries."""
    key = job_key("default", job)
    numbers = [0]
    for update in life(job, *states):
        (answer,) = await carry(
            writer,
            Append(
                token=1,
                subject=names.state(key, update.StateType),
                filter=names.states(key),
                expected=numbers[-1],
                body=encode_update(update),
                input=source,
            ),
        )
        assert isinstance(answer, Stored)
        numbers.append(answer.number)
    return numbers[1:]


async def put(writer: JetStreamWriter, subject: str, body: bytes, expected: int = 0) -> int:
    """Store one entry of another kind."""
    ask = Append(token=1, subject=subject, filter=subject, expected=expected, body=body, rollup=True)
    (answer,) = await carry(writer, ask)
    assert isinstance(answer, Stored)
    return answer.number


async def test_an_empty_log_is_found_empty(writer: JetStreamWriter, reader: Connection, names: Names) -> None:
    """No checkpoint, no format, no job; the log itself is known by when it was made."""
    assert writer.in_flight == 0
    found = await recover(reader, names)
    assert found.mark.last_seq == 0
    assert found.mark.created.startswith("20")
    assert (found.checkpoint, found.checkpoint_number, found.format, found.entries) == (None, 0, None, {})


async def test_of_each_job_the_last_entry_of_each_state_is_found(
    writer: JetStreamWriter, reader: Connection, names: Names
) -> None:
    """In stream order, with number, header and predecessor: enough to judge it."""
    numbers = await live(writer, names, "j-1", "Pending", "Running", "Queued", "Running", source="3@4")
    await live(writer, names, "j-2", "Pending")
    found = await recover(reader, names)
    key = job_key("default", "j-1")
    entries = found.entries[key]
    assert [entry.number for entry in entries] == [numbers[0], numbers[2], numbers[3]]
    assert entries[-1].input == "3@4"
    assert (entries[-1].expected, entries[-1].filter) == (numbers[2], names.states(key))
    assert entries[-1].time_ns > 0
    truth = verify_last(names, key, entries)
    assert truth is not None
    assert truth.known is not None
    assert (truth.known.state, truth.known.sequence, truth.number) == ("Running", 4, numbers[-1])
    assert len(found.entries) == 2
    assert found.mark.last_seq == 5


async def test_checkpoint_and_format_are_found_with_their_numbers(
    writer: JetStreamWriter, reader: Connection, names: Names
) -> None:
    """The next checkpoint expects the last one's number; another shard's is another's."""
    await put(writer, names.checkpoint("0"), encode_checkpoint(InputPosition(5, 6)))
    first = await put(writer, names.checkpoint("1"), encode_checkpoint(InputPosition(1, 2)))
    number = await put(writer, names.checkpoint("0"), encode_checkpoint(InputPosition(7, 8)), first - 1)
    form = await put(writer, names.format, b'{"x":1}')
    found = await recover(reader, names)
    assert (found.checkpoint, found.checkpoint_number) == (InputPosition(7, 8), number)
    assert found.format is not None
    assert (found.format.number, found.format.body) == (form, b'{"x":1}')
    assert (await recover(reader, names, shard="1")).checkpoint == InputPosition(1, 2)


async def test_a_checkpoint_that_cannot_be_read_counts_by_its_number_only(
    writer: JetStreamWriter, reader: Connection, names: Names
) -> None:
    """Nobody of ours wrote it: the input is read from its first entry, and ours replaces it."""
    number = await put(writer, names.checkpoint("0"), b"junk")
    found = await recover(reader, names)
    assert (found.checkpoint, found.checkpoint_number) == (None, number)


@pytest.mark.parametrize("guard", ["no headers", "no filter", "another filter"])
async def test_a_checkpoint_without_the_compare_and_set_is_not_believed(
    writer: JetStreamWriter, reader: Connection, names: Names, guard: str
) -> None:
    """It could name a report that nobody has read: without both headers, over just its subject, it is a stranger's."""
    await put(writer, names.checkpoint("0"), encode_checkpoint(InputPosition(7, 8)))
    headers = {}
    if guard == "no filter":
        headers = {"Nats-Expected-Last-Subject-Sequence": "1"}
    elif guard == "another filter":
        headers = {
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Nats-Expected-Last-Subject-Sequence-Subject": names.format,
        }
    body = encode_checkpoint(InputPosition(9, 9))
    number = (await reader.jetstream().publish(names.checkpoint("0"), body, headers=headers)).seq
    found = await recover(reader, names)
    assert (found.checkpoint, found.checkpoint_number) == (None, number)


async def test_what_is_written_between_checkpoint_and_end_is_found(
    writer: JetStreamWriter, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint first, then the end: an event below the checkpoint is never missing in what was read."""
    await live(writer, names, "j-1", "Pending")
    real = recovery.probe
    asked: list[int] = []

    async def probe_after_another_wrote(connection: Connection, names: Names) -> recovery.Mark:
        if not asked:
            asked.append(await put(writer, names.checkpoint("0"), encode_checkpoint(InputPosition(9, 9))))
            await live(writer, names, "j-2", "Pending")
        return await real(connection, names)

    monkeypatch.setattr(recovery, "probe", probe_after_another_wrote)
    found = await recover(reader, names)
    assert asked
    assert found.checkpoint is None  # it was read before the other daemon wrote it
    assert job_key("default", "j-2") in found.entries
    assert found.mark.last_seq == 3


async def test_what_strangers_put_into_the_log_does_not_stop_it(
    writer: JetStreamWriter, reader: Connection, names: Names
) -> None:
    """Its last entry has a subject that is none of the log's: read past, and reported by nobody here."""
    await live(writer, names, "j-1", "Pending")
    await reader.publish(f"{names.in_prefix}default.j-1", b"{}")
    config = {"stream_name": names.input, "config": {"name": "thief", "ack_policy": "none"}, "action": "create"}
    await api(reader, f"CONSUMER.CREATE.{names.input}.thief", json.dumps(config).encode())
    steered = names.state(job_key("default", "j-1"), "Failed")
    await reader.publish(f"$JS.API.CONSUMER.MSG.NEXT.{names.input}.thief", b"1", reply=steered)
    last = 0
    while last < 2:
        last = (await probe(reader, names)).last_seq
    found = await recover(reader, names)
    assert [entry.number for entry in found.entries[job_key("default", "j-1")]] == [1]


async def test_an_end_that_was_purged_is_not_waited_for(
    writer: JetStreamWriter, reader: Connection, names: Names
) -> None:
    """The count stays where it was, though nothing stands there any more."""
    await live(writer, names, "j-1", "Pending")
    await live(writer, names, "j-2", "Pending", "Running")
    for job, left in (("j-2", 1), ("j-1", 0)):
        body = json.dumps({"filter": names.states(job_key("default", job))}).encode()
        await api(reader, f"STREAM.PURGE.{names.log}", body)
        found = await recover(reader, names)
        assert found.mark.last_seq == 3
        assert len(found.entries) == left


@pytest.mark.parametrize("filters_max", [recovery.FILTERS_MAX, 1])
async def test_all_entries_of_the_jobs_that_are_named_are_read_in_one_pass(
    writer: JetStreamWriter, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch, filters_max: int
) -> None:
    """In stream order, and of no other job; by the jobs' own subjects, or where they are many by those of all."""
    monkeypatch.setattr(recovery, "FILTERS_MAX", filters_max)
    numbers = {job: await live(writer, names, job, "Running", "Running", "Queued") for job in ("j-1", "j-2", "j-3")}
    await put(writer, names.checkpoint("0"), encode_checkpoint(InputPosition(9, 9)))
    last = {job_key("default", job): numbers[job][-1] for job in ("j-1", "j-3")}
    found = [(key, entry) async for key, entry in recovery.read_whole(reader, names, last)]
    assert [(key, entry.number) for key, entry in found] == [
        (job_key("default", job), number) for job in ("j-1", "j-3") for number in numbers[job]
    ]
    truth = verify_all(names, job_key("default", "j-3"), [entry for key, entry in found if key.endswith("j-3")])
    assert truth.known is not None
    assert (truth.known.state, truth.known.sequence) == ("Queued", 3)
    assert [one async for one in recovery.read_whole(reader, names, {})] == []

    body = json.dumps({"filter": names.states(job_key("default", "j-3"))}).encode()
    await api(reader, f"STREAM.PURGE.{names.log}", body)
    async with asyncio.timeout(DEADLINE_S):
        left = [entry.number async for _, entry in recovery.read_whole(reader, names, last)]
    assert left == numbers["j-1"], "what was purged is not waited for"


async def test_a_log_that_is_made_anew_while_it_is_read_is_read_again(
    writer: JetStreamWriter, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the one and half of the other is nobody's truth."""
    await live(writer, names, "j-1", "Pending")
    real = recovery._read_jobs

    async def read_and_remake(connection: Connection, names: Names, last_seq: int) -> object:
        found = await real(connection, names, last_seq)
        await api(reader, f"STREAM.DELETE.{names.log}")
        await ensure(reader, names, SMALL, leave={names.bucket_stream})
        return found

    monkeypatch.setattr(recovery, "_read_jobs", read_and_remake)
    with pytest.raises(LogWentBackError, match="made anew"):
        await recover(reader, names)


async def test_a_log_whose_consumer_leaves_out_bodies_is_read_again(
    writer: JetStreamWriter, reader: Connection, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edited as soon as it is made: nothing is judged by an entry without its body."""
    await live(writer, names, "j-1", "Pending", "Running")
    real = Pull.open
    stripped: list[str] = []

    async def open_and_edit(pull: Pull, start: dict[str, Any], filters: Sequence[str] = ()) -> None:
        await real(pull, start, filters)
        if not stripped:
            stripped.append(pull.stream)
            await strip_bodies(reader, pull.stream)

    monkeypatch.setattr(Pull, "open", open_and_edit)
    found = await recover(reader, names)
    assert stripped == [names.log]
    assert [bool(entry.body) for entry in found.entries[job_key("default", "j-1")]] == [True, True]


async def test_a_log_that_is_not_there_is_said(reader: Connection, names: Names) -> None:
    """Neither to look at nor to read."""
    with pytest.raises(LogWentBackError, match=f"{names.log} is gone"):
        await probe(reader, names)
    with pytest.raises(LogWentBackError, match=f"{names.log} is gone"):
        await recover(reader, names)


async def test_the_mark_tells_one_log_from_another(tmp_path: Path, names: Names) -> None:
    """The same after a kill -9 of the server; another after the stream was made anew, and shorter."""
    async with Server(tmp_path) as server:
        reader = await connect_reader(server.address(names.cluster), "test")
        await ensure(reader, names, SMALL, leave={names.bucket_stream})
        writer = await open_writer(await connect_writer(server.address(names.cluster), "log"), names)
        await live(writer, names, "j-1", "Pending")
        before = await probe(reader, names)
        assert before.last_seq == 1
        await server.kill()
        await server.start()
        await until(lambda: reader.connects >= 2, "the reconnect")
        assert await probe(reader, names) == before
        await api(reader, f"STREAM.DELETE.{names.log}")
        await ensure(reader, names, SMALL, leave={names.bucket_stream})
        after = await probe(reader, names)
        assert after.created != before.created
        assert after.last_seq == 0
        await reader.close()


def test_an_entry_replaces_the_one_before_it_on_its_subject() -> None:
    """What is stored while the log is read comes as it is stored: still only the last of each subject counts."""
    found: dict[JobKey, list[Entry]] = {}
    key = job_key("default", "j-1")
    for number, subject in enumerate(["pending", "running", "queued", "running", "queued"], start=1):
        recovery._keep(found, key, Entry(number=number, subject=subject, body=b""))
    assert [(entry.number, entry.subject) for entry in found[key]] == [(1, "pending"), (4, "running"), (5, "queued")]
