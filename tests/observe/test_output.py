"""Standard error of the daemon: nobody who writes waits, nothing is lost that is read, and what is lost is told."""

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from consumer.observe import output
from consumer.observe.output import WAITING_MAX, QueuedStream
from tests.waiting import DEADLINE_S


class Pipe:
    """A pipe that nobody reads yet."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def lines(self, last: str) -> list[str]:
        """Its lines until the line *last*."""
        said = b""
        while not said.endswith(f"{last}\n".encode()):
            ready, _, _ = select.select([self.reading], [], [], DEADLINE_S)
            assert ready, f"never came: {last!r} after {said!r}"
            said += os.read(self.reading, 65536)
        return said.decode().splitlines()

    def close(self) -> None:
        """Let go of both ends."""
        for descriptor in (self.reading, self.writing):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that nobody reads yet."""
    made = Pipe()
    yield made
    made.close()


def queued(descriptor: int, encoding: str = "utf-8", **options: int) -> QueuedStream:
    """A stream on *descriptor* that tells of three lost lines with `lost 3`."""
    # It is never closed: its thread may wait on the descriptor.
    out = open(descriptor, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    return QueuedStream(out, lambda lines: f"lost {lines}\n", **options)


def within(work: Callable[[], object]) -> None:
    """Do *work*, which must not wait for anybody; fails where it does, and does not hang."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "it waits for the reader"


def test_nobody_waits_for_a_reader_that_stands_still(pipe: Pipe) -> None:
    """Far more than pipe and queue take is written at once; what was taken is in order, the rest counted and told."""
    stream = queued(pipe.writing)
    count = 50_000
    within(lambda: [stream.write(f"{number:06} {'x' * 60}\n") for number in range(count)])
    lost = stream.lost
    assert 0 < lost < count
    within(stream.flush)

    lines = pipe.lines(f"lost {lost}")
    assert [int(line.partition(" ")[0]) for line in lines[:-1]] == list(range(count - lost))
    stream.write("after\n")
    assert pipe.lines("after") == ["after"]
    assert stream.lost == lost


def test_what_waits_is_bounded() -> None:
    """At most a megabyte: a daemon whose log nobody reads must not grow."""
    assert WAITING_MAX <= 1024 * 1024


def test_what_a_writer_says_is_read_in_order(pipe: Pipe) -> None:
    """With a reader that reads nothing is lost, whoever writes meanwhile."""
    stream = queued(pipe.writing)
    writer = threading.Thread(target=lambda: [stream.write(f"{number}\n") for number in range(20_000)])
    writer.start()
    assert pipe.lines("19999") == [str(number) for number in range(20_000)]
    writer.join()
    assert stream.drain()
    assert stream.lost == 0


def test_the_end_waits_for_a_reader_that_reads_and_for_no_other(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """`drain` gives up on a reader that stands still; with one that reads, however late it begins, it does not."""
    stream = queued(pipe.writing)
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4096)
    stream.write("x" * 20_000 + "\n")
    drained: list[bool] = []
    within(lambda: drained.append(stream.drain()))
    assert drained == [False]

    monkeypatch.setattr(output, "STILL_S", DEADLINE_S)
    monkeypatch.setattr(output, "DRAIN_S", DEADLINE_S)
    reader = threading.Thread(target=lambda: pipe.lines("end"), daemon=True)
    stream.write("end\n")
    reader.start()
    assert stream.drain()
    reader.join(DEADLINE_S)
    assert not reader.is_alive()


def test_lines_that_the_system_refuses_are_counted_and_told_of_later(pipe: Pipe) -> None:
    """A full disk: nobody is told an error; as soon as there is room again, somebody is told how many were lost."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = queued(descriptor)
    stream.write("one\ntwo\n")
    stream.write("three\n")
    assert stream.drain()
    stream.tell_lost()
    assert stream.lost == 3
    os.dup2(pipe.writing, descriptor)
    stream.tell_lost()
    assert pipe.lines("lost 3") == ["lost 3"]
    stream.tell_lost()
    stream.write("four\n")
    assert pipe.lines("four") == ["four"]


def test_the_next_line_begins_on_a_line_of_its_own(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full in the middle of a line does not join two of them."""
    write, room = os.write, [3, 0]

    def short(descriptor: int, data: bytes) -> int:
        if descriptor != pipe.writing or not room:
            return write(descriptor, data)
        if not (left := room.pop(0)):
            raise OSError
        return write(descriptor, data[:left])

    monkeypatch.setattr(os, "write", short)
    stream = queued(pipe.writing)
    stream.write("first\n")
    assert stream.drain()
    stream.write("second\n")
    assert pipe.lines("lost 1") == ["fir", "second", "lost 1"]


def test_a_descriptor_that_somebody_made_nonblocking_is_waited_for(pipe: Pipe) -> None:
    """Whoever shares the pipe may have set O_NONBLOCK: the thread waits all the same, and loses nothing."""
    os.set_blocking(pipe.writing, False)
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4096)
    stream = queued(pipe.writing)
    for number in range(5_000):
        stream.write(f"{number}\n")
    assert pipe.lines("4999") == [str(number) for number in range(5_000)]
    assert stream.lost == 0


def test_what_the_encoding_cannot_spell_is_escaped(pipe: Pipe) -> None:
    """A locale that is not UTF-8, and half a character of another's: no line is lost for it."""
    stream = queued(pipe.writing, encoding="ascii")
    stream.write("l\xe4uft \u65e5 \udcff\n")
    assert pipe.lines(r"l\xe4uft \u65e5 \udcff") == [r"l\xe4uft \u65e5 \udcff"]


PROGRAM: Final = """
import sys
from consumer.observe import configure, never_wait, output
from consumer.settings import Log
import structlog
output.STILL_S, output.DRAIN_S = {still}, {still}
never_wait()
configure(Log(format="json", lines_per_s=100_000))
for number in range(2_000):
    structlog.get_logger().warning("part.said", number=number, text="x" * 200)
sys.stderr.write("jobstate: the last word\\n")
sys.exit(13)
"""


def program(still: float) -> "subprocess.Popen[bytes]":
    """A process that writes 2,000 log lines and ends at once with 13."""
    return subprocess.Popen([sys.executable, "-c", PROGRAM.format(still=still)], stderr=subprocess.PIPE)


def test_at_the_end_everything_is_written() -> None:
    """A process that ends while its lines wait: each of them is there, and what it said last."""
    with program(still=DEADLINE_S) as process:
        assert process.stderr is not None
        *lines, last = process.stderr.read().decode().splitlines()
    assert [f'"number": {number},' in line for number, line in enumerate(lines)] == [True] * 2_000
    assert (process.returncode, last) == (13, "jobstate: the last word")


def test_the_end_waits_for_nobody_who_does_not_read() -> None:
    """The same, and nobody reads: it ends all the same, with its own exit code and no word of the interpreter."""
    process = program(still=0.1)
    assert process.wait(DEADLINE_S) == 13
    assert process.stderr is not None
    assert b"Fatal" not in process.stderr.read()
    process.stderr.close()


def test_an_encoding_that_cannot_escape_ends_nothing(pipe: Pipe) -> None:
    """`idna` knows no error handler: such a line is UTF-8, and those after it come too."""
    stream = queued(pipe.writing, "idna")
    stream.write(f"a..b {'x' * 64}\n")
    stream.write("after\n")
    assert pipe.lines("after") == [f"a..b {'x' * 64}", "after"]
    assert stream.lost == 0


def test_lines_of_one_write_are_whole_in_a_pipe() -> None:
    """As long as they are short: a pipe that several processes write to would mix them otherwise."""
    texts = [bytes([65 + number % 26]) * (number % 300) + b"\n" for number in range(500)]
    pieces = list(output._pieces([*texts, b"y" * 10_000 + b"\n"]))
    assert b"".join(pieces) == b"".join(texts) + b"y" * 10_000 + b"\n"
    assert all(len(piece) <= output.WHOLE for piece in pieces[:-1])
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert len(pieces) < 40


def test_it_stands_for_the_stream_that_it_replaces(tmp_path: Path) -> None:
    """Descriptor, encoding, terminal or not: as that."""
    with (tmp_path / "log").open("w", encoding="latin-1") as out:
        stream = QueuedStream(out, str)
        assert (stream.fileno(), stream.encoding, stream.isatty(), stream.writable()) == (
            out.fileno(),
            "latin-1",
            False,
            True,
        )
