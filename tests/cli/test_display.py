"""How tables are laid out on a terminal: nothing is cut, whatever its width."""

import asyncio
import os
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.cli.display import INDENT, lay_out, shorten_time
from consumer.wire.subjects import job_key
from tests.cli.conftest import Stage, life
from tests.cli.test_advisories import announce
from tests.cli.test_quarantine import RULE, misread, reject
from tests.waiting import DEADLINE_S

LONG = "j-0123abcd-0000-4000-8000-000000000001"
MESSAGE = "not enough nodes to run job. requested: 1, available: 3, suitable: 0."


async def on_terminal(stage: Stage, *arguments: str, columns: int = 80) -> list[str]:
    """The lines that a verb shows on a terminal that is *columns* wide, without its colors."""
    ours, theirs = os.openpty()
    running = await stage.begin(*arguments, stdout=theirs, environ={"COLUMNS": str(columns), "TERM": "xterm"})
    os.close(theirs)
    async with asyncio.timeout(DEADLINE_S):
        shown = (await asyncio.to_thread(_read, ours)).decode()
    os.close(ours)
    assert (await running.end()).code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()


def _read(terminal: int) -> bytes:
    """All that is written to the other end, until it is closed."""
    found = b""
    while True:
        try:
            found += os.read(terminal, 65536)
        except OSError:  # so Linux says that nobody holds the other end any more
            return found


def rows(lines: list[str]) -> list[str]:
    """The words of each row, whatever lines they stand on, without the time, whose length is the day's."""
    found: list[str] = []
    for line in lines:
        if line.startswith(" "):
            found[-1] += f" {' '.join(line.split())}"
        else:
            found.append(" ".join(line.split()))
    return [re.sub(r"^([-\d]+ )?\d\d:\d\d:\d\dZ ", "", row) for row in found]


async def test_at_80_columns_a_list_has_state_id_and_message_whole(stage: Stage) -> None:
    """Of a job without a message and one with a long one, with a short id and a long one."""
    for update in life(LONG, "Pending", "Running", "Completed"):
        await stage.update(update)
    (failed,) = life("a-job-with-a-rather-long-id", "Failed", message=MESSAGE)
    await stage.update(failed)

    listed = await on_terminal(stage, "list")
    told = await on_terminal(stage, "history", LONG)

    head = "TIME STATE NAMESPACE JOB NAME SEQ VER SOURCE MESSAGE"
    assert rows(listed) == [
        head,
        "Completed default j-0123abcd n 3 0 observed",
        f"Failed default a-job-with-a-rather-long-id n 1 0 observed {MESSAGE}",
    ]
    states = ("Pending", "Running", "Completed")
    assert rows(told) == [
        head,
        *(f"{state} default j-0123abcd n {number} 0 observed" for number, state in enumerate(states, 1)),
    ]
    assert max(map(len, listed + told)) <= 80


async def test_at_80_columns_what_was_refused_has_its_origin_whole(stage: Stage) -> None:
    """What `show` asks for, and the rule."""
    why = " ".join(["why"] * 30)
    subject = stage.names.quarantine("illegal-transition", job_key("default", LONG), "1-1795614929617917218")
    await reject(stage, "j 1", 12)
    await misread(stage, 13)
    await stage.store(subject, f'{{"Rule":"{why}"}}'.encode())

    shown = await on_terminal(stage, "quarantine", "list")

    assert rows(shown) == [
        "TIME KIND REASON JOB ORIGIN RULE",
        f"quarantine after-terminal n.s/j 1 12-7 {RULE}",
        "undecodable not-json 13-7 byte 13",
        f"quarantine illegal-transition default/j-0123abcd 1-1795614929617917218 {why}",
    ]
    assert max(map(len, shown)) <= 80


async def test_at_80_columns_an_advisory_is_whole(stage: Stage) -> None:
    """Kind, job, text and facts."""
    await announce(stage, "unreadable", "1", MESSAGE, LONG, error="contradicts-list", sequence=3)

    shown = await on_terminal(stage, "advisories")

    assert rows(shown) == [
        "TIME KIND JOB TEXT FACTS",
        f"unreadable n.s/j-0123abcd {MESSAGE} error=contradicts-list sequence=3",
    ]
    assert max(map(len, shown)) <= 80


@given(
    st.lists(st.tuples(st.integers(1, 120), st.integers(1, 40)), min_size=1, max_size=12),
    st.integers(20, 200),
)
def test_every_column_has_its_place(columns: list[tuple[int, int]], room: int) -> None:
    """Whatever they want: each stands once, in order, no line is wider than the room, and none gets less than it must.

    Only one that alone is wider than a line gets that line.
    """
    natural = [width for width, _ in columns]
    least = [min(pair) for pair in columns]
    lines, gap = lay_out(natural, least, room)

    assert [column for line in lines for column in line] == list(range(len(columns)))
    for number, line in enumerate(lines):
        space = room - (INDENT if number else 0)
        assert sum(line.values()) + gap * (len(line) - 1) <= space
        for column, width in line.items():
            assert min(least[column], space) <= width <= natural[column]


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-11-24T05:00:02.123456Z", "05:00:02Z"),
        ("2026-11-23T05:00:02.123456Z", "11-23 05:00:02Z"),
        ("2025-11-24T05:00:02.000000Z", "2025-11-24 05:00:02Z"),
        ("-", "-"),
    ],
)
def test_a_time_is_as_short_as_it_may_be(time: str, shown: str) -> None:
    """Of today the time, of this year the day, else all of it; to the second, in UTC."""
    assert shorten_time(time, datetime(2026, 11, 24, 23, 0, tzinfo=UTC)) == shown
