"""Standard error of the daemon: who writes to it never waits for who reads it.

A pipe takes 64 KiB; then a write waits until its reader goes on. That reader may stand still: a pager, Ctrl-S, a log
driver that blocks. A thread writes therefore. Waiting lines are bounded; lines beyond that are dropped and counted.
"""

import functools
import io
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TextIO

WAITING_MAX: Final = 1024 * 1024
"""Characters that wait to be written."""

STILL_S: Final = 1.0
"""Seconds after which `drain` gives up if nothing at all was taken."""

DRAIN_S: Final = 5.0
"""Seconds after which `drain` gives up, however slowly something is taken."""

WHOLE: Final = select.PIPE_BUF
"""Bytes that one write puts into a pipe in one piece, so that lines of several processes do not mix."""


class QueuedStream(io.TextIOBase):
    """A text stream in place of *out*, on the same descriptor. Its thread ends with the process.

    Characters that *out* cannot spell are escaped. *say_lost* makes the line about lost lines (empty:
    not now); the thread calls it as soon as something can be written again.
    """

    def __init__(self, out: TextIO, say_lost: Callable[[int], str], *, waiting_max: int = WAITING_MAX) -> None:
        self._out: Final = out
        self._descriptor: Final = out.fileno()
        self._say_lost: Final = say_lost
        self._waiting_max: Final = waiting_max
        self._changed: Final = threading.Condition()  # reentrant: a signal's handler may write, too
        self._texts: list[str] = []
        self._waiting = 0
        self._taken = 0
        self._untold = 0
        self._asked = False
        self._torn = False
        self.lost = 0
        """Lines that were not written since the start: dropped, or refused by the system."""
        threading.Thread(target=self._hand_on, name="stderr", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override] # a plain attribute there
        """As that of the stream that this one stands for."""
        return self._out.encoding

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return self._out.isatty()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Take *text*; drop and count it if too much waits already. Never waits."""
        with self._changed:
            if self._waiting + len(text) > self._waiting_max:
                self._lose(_lines(text))
            else:
                self._texts.append(text)
                self._waiting += len(text)
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing: everything is written as soon as it can be. `drain` waits for it."""

    def tell_lost(self) -> None:
        """Have the thread try to tell of lost lines, also when no other line is to be written. Never waits."""
        with self._changed:
            self._asked = self._untold > 0
            self._changed.notify_all()

    def drain(self) -> bool:
        """Wait until everything is written, as long as some of it is taken. Gives whether it is."""
        deadline = time.monotonic() + DRAIN_S
        with self._changed:
            while self._waiting:
                moved = functools.partial(self._has_moved, self._taken)
                if not self._changed.wait_for(moved, min(STILL_S, deadline - time.monotonic())):
                    return False
        return True

    def _has_moved(self, taken: int) -> bool:
        return self._taken != taken or not self._waiting

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _hand_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._texts or self._asked)
                texts, self._texts = self._texts, []
                untold, self._asked = self._untold, False
            refused = self._write_all(texts)
            # The lost lines came after these, and before what has come since.
            said = self._say_lost(untold) if untold and not refused else ""
            told = bool(said) and not self._write_all([said])
            with self._changed:
                self._lose(refused)
                self._waiting -= sum(map(len, texts))
                self._untold -= untold if told else 0
                self._changed.notify_all()

    def _write_all(self, texts: Iterable[str]) -> int:
        """Write *texts*; gives how many lines of them the system refused."""
        refused = 0
        for piece in _pieces(_bytes_of(text, self.encoding) for text in texts):
            data = b"\n" + piece if self._torn else piece
            left = self._write(data)
            self._torn = bool(left) and (left != data or self._torn)
            refused += left.count(b"\n")
        return refused

    def _write(self, data: bytes) -> bytes:
        """Write *data*; gives what the system refused of it."""
        while data:
            try:
                sent = os.write(self._descriptor, data)
            except BlockingIOError:  # somebody who has the same pipe or terminal made it so
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLOUT)
                waiting.poll()
                continue
            except OSError:
                return data
            data = data[sent:]
            with self._changed:
                self._taken += sent
                self._changed.notify_all()
        return b""

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._untold += lines


def _bytes_of(text: str, encoding: str) -> bytes:
    """*text* in *encoding*, or in UTF-8 where that cannot even escape: idna does not, and the thread must go on."""
    try:
        return text.encode(encoding, "backslashreplace")
    except UnicodeError:
        return text.encode("utf-8", "backslashreplace")


def _lines(text: str) -> int:
    return max(1, text.count("\n"))


def _pieces(texts: Iterable[bytes]) -> Iterator[bytes]:
    """*texts* joined to as few pieces as `WHOLE` allows; one that is longer is a piece by itself."""
    piece = b""
    for text in texts:
        if piece and len(piece) + len(text) > WHOLE:
            yield piece
            piece = b""
        piece += text
    if piece:
        yield piece
