"""How tables are laid out on a terminal: nothing is cut, whatever its width."""

import asyncio
import os
import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.cli.display import INDENT, lay_out, say_age, shorten_time
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
    """The words of each row, whatever lines they stand on, without the time and the age, whose length is the day's."""
    found: list[str] = []
    for line in lines:
        if line.startswith(" "):
            found[-1] += f" {' '.join(line.split())}"
        else:
            found.append(" ".join(line.split()))
    return [re.sub(r"^([-\d]+ )?\d\d:\d\d:\d\dZ (\d+[smhd] )?", "", row) for row in found]


async def test_at_80_columns_a_list_has_state_id_and_message_whole(stage: Stage) -> None:
    """Of a job without a message and one with a long one, with a short id and a long one."""
    for update in life(LONG, "Pending", "Running", "Completed"):
        await stage.update(update)
    (failed,) = life("a-job-with-a-rather-long-id", "Failed", message=MESSAGE)
    await stage.update(failed)

    listed = await on_terminal(stage, "list")
    told = await on_terminal(stage, "history", LONG)

    head = "STATE NAMESPACE JOB NAME SEQ VER SOURCE MESSAGE"
    assert rows(listed) == [
        f"TIME AGE {head}",
        "Completed default j-0123abcd n 3 0 observed",
        f"Failed default a-job-with-a-rather-long-id n 1 0 observed {MESSAGE}",
    ]
    states = ("Pending", "Running", "Completed")
    assert rows(told) == [
        f"TIME {head}",
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
        "TIME AGE KIND REASON JOB ORIGIN RULE",
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
        "TIME AGE KIND JOB TEXT FACTS",
        f"unreadable n.s/j-0123abcd {MESSAGE} error=contradicts-list sequence=3",
    ]
    assert max(map(len, shown)) <= 80


TRACE = 'Traceback:\n  File "a.py"\r\n\x1b[2Jboom'
"""A message of three lines, the last of which would clear the screen."""


async def test_a_message_has_its_lines(stage: Stage) -> None:
    """One below the other and set apart: no line of a message looks like a row. In a pipe a row is one line."""
    (update,) = life(LONG, "Failed", message=TRACE)
    await stage.update(update)

    for arguments in (("list",), ("history", LONG), ("watch", "--since", "start", "--count", "1")):
        shown = await on_terminal(stage, *arguments, columns=200)
        at = next(number for number, line in enumerate(shown) if line.endswith("Traceback:"))
        assert [line.strip() for line in shown[at + 1 :]] == ['File "a.py"', r"\x1b[2Jboom"]
        assert all(line.startswith("    ") for line in shown[at + 1 :])
        piped = await stage.verb(*arguments)
        assert len(piped.lines) == 1
        assert piped.lines[0].endswith('\tTraceback:\\n  File "a.py"\\n\\x1b[2Jboom')
    got = (await stage.verb("get", LONG)).lines
    at = got.index("message    Traceback:")
    assert got[at + 1 : at + 3] == ['             File "a.py"', r"           \x1b[2Jboom"]


async def test_a_long_message_is_cut_in_a_row_and_whole_in_get(stage: Stage) -> None:
    """Ten lines of forty, and how many there are."""
    (update,) = life(LONG, "Failed", message="\n".join(f"line {number}" for number in range(40)))
    await stage.update(update)

    shown = await on_terminal(stage, "list", columns=200)
    assert [line.strip() for line in shown[-2:]] == ["line 9", "… (40 lines)"]
    assert (await stage.verb("get", LONG)).out.count("line ") == 40


async def test_a_head_is_on_terminals_and_elsewhere_if_it_is_asked_for(stage: Stage) -> None:
    """Of live lines and of tables; in a pipe --headers brings it, also where nothing follows, and never an age."""
    (update,) = life("j-1", "Running")
    await stage.update(update)
    watch = ("watch", "--since", "start", "--count", "1")
    head = "TIME STATE NAMESPACE JOB NAME SEQ VER SOURCE MESSAGE"
    full = "TIME STATE NAMESPACE JOB NAME SEQUENCE VERSION SOURCE MESSAGE"

    live = await on_terminal(stage, *watch)
    assert rows(live) == [head, "Running default j-1 n 1 0 observed"]
    assert live[0].index("STATE") == live[1].index("Running")
    assert live[0].index("SOURCE") == live[1].index("observed")
    for arguments in (watch, ("list",), ("history", "j-1")):
        plain = await stage.verb(*arguments)
        headed = await stage.verb(*arguments, "--headers")
        assert headed.lines == ["\t".join(full.split()), *plain.lines]
    empty = await stage.verb("list", "--state", "failed", "--headers")
    assert empty[:2] == (0, "\t".join(full.split()) + "\n")
    refused = await stage.verb("quarantine", "list", "--headers")
    assert refused.lines == ["TIME\tKIND\tREASON\tJOB\tORIGIN\tRULE"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h"),
        (172_799, "47h"),
        (172_800, "2d"),
    ],
)
def test_an_age_is_in_the_largest_unit_that_says_something(seconds: int, shown: str) -> None:
    """At least two of it; what lies ahead is now."""
    now = datetime(2026, 11, 24, 23, 0, tzinfo=UTC)
    assert say_age(now - timedelta(seconds=seconds), now) == shown


async def test_an_age_is_on_the_terminal(stage: Stage) -> None:
    """How long ago the job came to its state, in `list` and `get`."""
    (update,) = life("j-1", "Running")
    time = datetime.now(UTC) - timedelta(hours=5)
    await stage.update(msgspec.structs.replace(update, Time=time))

    shown = await on_terminal(stage, "list")
    assert shown[0].split()[:2] == ["TIME", "AGE"]
    assert " 5h " in shown[1]
    assert "age        5h\n" in (await stage.verb("get", "j-1")).out


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
        ("2026-11-23T05:00:02.123456Z", "2026-11-23 05:00:02Z"),
        ("2025-11-24T05:00:02.000000Z", "2025-11-24 05:00:02Z"),
        ("-", "-"),
    ],
)
def test_a_time_is_as_short_as_it_may_be(time: str, shown: str) -> None:
    """A time of today has no date; any other has its date with the year. To the second, in UTC."""
    assert shorten_time(time, datetime(2026, 11, 24, 23, 0, tzinfo=UTC)) == shown
