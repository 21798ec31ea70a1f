"""How an entry reads on the wire: positions, times, headers."""

import pytest

from consumer.nats import api
from consumer.nats.api import entry_of, header, read_ack, time_ns


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (b"$JS.ACK.STREAM.consumer.1.42.7.1764030000123456789.3", (42, 7, 1764030000123456789, 3)),
        (b"$JS.ACK._.hash.STREAM.consumer.1.42.7.1764030000123456789.3", (42, 7, 1764030000123456789, 3)),
        (b"$JS.ACK.domain.hash.STREAM.consumer.1.42.7.1764030000123456789.3.random", (42, 7, 1764030000123456789, 3)),
        (b"$JS.ACK.a.STREAM.consumer.1.42.7.1764030000123456789.3", None),
        (b"$JS.ACK.STREAM.consumer.1.42.x.1764030000123456789.3", None),
        (b"$JS.ACK.1.2.3", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_a_reply_subject_is_read_by_its_count(reply: bytes, found: tuple[int, ...] | None) -> None:
    """Nine tokens are v1, eleven or more v2; anything else is nobody's."""
    assert read_ack(reply) == found


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-11-24T05:00:00.123456789Z", 1795496400123456789),
        ("2026-11-24T05:00:00.1Z", 1795496400100000000),
        ("2026-11-24T05:00:00Z", 1795496400000000000),
        ("1970-01-01T00:00:00.000000001Z", 1),
    ],
)
def test_times_keep_their_nanoseconds(text: str, ns: int) -> None:
    """A datetime would lose three digits, and the position would not be found again."""
    assert time_ns(text) == ns


def test_headers_are_read_where_they_stand() -> None:
    """The whole name counts: the filter's header begins with the number's."""
    block = (
        b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence-Subject: a.*\r\n"
        b"Nats-Expected-Last-Subject-Sequence: 12\r\nJobstate-Input:  3@4\r\n\r\n"
    )
    entry = entry_of("s", b"b", block, 5, 6)
    assert (entry.expected, entry.filter, entry.input, entry.number, entry.time_ns) == (12, "a.*", "3@4", 5, 6)
    assert header(block, api.TRACEPARENT) == ""
    assert header(None, api.INPUT) == ""
    bare = entry_of("s", b"b", None, 5, 6)
    assert (bare.expected, bare.filter) == (None, "")


@pytest.mark.parametrize("value", [b"", b"-1", b"x", b"1e3", "\N{SUPERSCRIPT TWO}".encode(), b"\xff"])
def test_a_number_that_is_none_is_none(value: bytes) -> None:
    """A stranger's header is no reason to fail."""
    block = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: " + value + b"\r\n\r\n"
    assert entry_of("s", b"b", block, 5, 6).expected is None
