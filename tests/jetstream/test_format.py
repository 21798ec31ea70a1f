"""The log's format entry: agreed once, replaced with care, and never believed of a stranger."""

import msgspec
import pytest

from consumer.errors import TopologyError
from consumer.jetstream.format import LogFormat, open_format, read_format
from consumer.jetstream.recovery import last_entry
from consumer.jetstream.topology import ensure
from consumer.nats.connection import Connection
from consumer.rules import Rules, load
from consumer.settings import Streams
from consumer.wire.entries import Format, RulesStamp, encode_format
from consumer.wire.subjects import Names

MIB = 1 << 20
MADE = 1_000
RULES = load()
FAR = 2**62


@pytest.fixture
async def log(reader: Connection, names: Names) -> Connection:
    """A connection to a server that has the streams of a cluster of its own."""
    await ensure(
        reader,
        names,
        Streams(log_max_bytes=MIB, input_max_bytes=MIB, refused_max_bytes=MIB),
        leave={names.bucket_stream},
    )
    return reader


async def begin(log: Connection, names: Names, told: list[tuple[int, str]], rules: Rules = RULES) -> LogFormat:
    """As a start does; *told* is what it announces."""
    found = await last_entry(log, names, names.format)
    return await open_format(
        log,
        names,
        rules,
        accept=False,
        found=found,
        made_ns=MADE,
        announce=lambda number, text: told.append((number, text)),
    )


async def forge(log: Connection, names: Names, since: int | None, headers: dict[str, str] | None = None) -> int:
    """A likely entry of somebody who does not replace ours by compare-and-set; its number."""
    body = Format(Rules=RulesStamp(Name=RULES.name, Hash=RULES.hash), Since=since, Cluster=names.cluster)
    return (await log.jetstream().publish(names.format, encode_format(body), headers=headers)).seq


async def test_a_beginning_is_agreed_once(log: Connection, names: Names) -> None:
    """Whoever comes later finds it, whatever it would have proposed."""
    told: list[tuple[int, str]] = []
    first, second = await begin(log, names, told), await begin(log, names, told)
    assert first.since_ns is second.since_ns is None
    assert (await first.agree(70), await second.agree(80)) == (70, 70)
    assert (await begin(log, names, told)).since_ns == 70
    assert told == []


async def test_ours_counts_where_a_stranger_wrote_behind_it(log: Connection, names: Names) -> None:
    """A Since of far away would leave out every new job: it is ignored, announced once, and ours written over it."""
    told: list[tuple[int, str]] = []
    await (await begin(log, names, told)).agree(70)
    await forge(log, names, 90)
    number = await forge(log, names, FAR)
    assert (await begin(log, names, told)).since_ns == 70
    assert [one for one, _ in told] == [number]
    assert (await begin(log, names, told)).since_ns == 70
    assert len(told) == 1
    last = await last_entry(log, names, names.format)
    assert last is not None
    written = read_format(last)
    assert written is not None
    assert written.Since == 70


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Rollup": "sub"},
        {"Nats-Rollup": "sub", "Nats-Expected-Last-Subject-Sequence": "1"},
    ],
)
async def test_where_a_stranger_replaced_ours_the_log_begins_when_it_was_made(
    log: Connection, names: Names, headers: dict[str, str]
) -> None:
    """Nothing tells any more what was agreed: no job that ended since the log was made is left out."""
    told: list[tuple[int, str]] = []
    await begin(log, names, told)
    number = await forge(log, names, FAR, headers)
    assert (await begin(log, names, told)).since_ns == MADE
    assert [one for one, _ in told] == [number]


async def test_a_stranger_does_not_stand_between_two_that_agree(log: Connection, names: Names) -> None:
    """After the start and before the first list: ours goes over it; where another of ours was first, that counts."""
    told: list[tuple[int, str]] = []
    first, second = await begin(log, names, told), await begin(log, names, told)
    number = await forge(log, names, FAR)
    assert await first.agree(70) == 70
    assert [one for one, _ in told] == [number]
    await forge(log, names, FAR)
    assert await second.agree(80) == 70


async def test_other_rules_are_refused_behind_a_strangers_entry_too(log: Connection, names: Names) -> None:
    """It may say that the log is of these rules: the entry of ours says of which it is."""
    told: list[tuple[int, str]] = []
    other = load()
    object.__setattr__(other, "hash", "ab" * 32)
    await begin(log, names, told, other)
    await forge(log, names, 70)
    with pytest.raises(TopologyError, match="was made by the rules"):
        await begin(log, names, told)


async def test_a_newer_format_is_refused(log: Connection, names: Names) -> None:
    """Ours, of a later program: it is not written over."""
    body = Format(Format=2, Rules=RulesStamp(Name="n", Hash="h"), Cluster=names.cluster)
    headers = {
        "Nats-Expected-Last-Subject-Sequence": "0",
        "Nats-Expected-Last-Subject-Sequence-Subject": names.format,
    }
    await log.jetstream().publish(names.format, msgspec.json.encode(body), headers=headers)
    with pytest.raises(TopologyError, match="has format 2"):
        await begin(log, names, [])
