"""One ephemeral pull consumer without acknowledgements: a stream's entries in order, until it is in doubt.

Deleted, lost with its server, cut off, silent or stalled: for all of it there is one answer, `DoubtError`, and its
owner begins again after the last entry it got (design/nats.md 1.4). The owner interprets the entries.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from consumer.errors import JobstateError, LogWentBackError, ServerError, UnreachableError
from consumer.faults import Fault
from consumer.nats.api import (
    BODY_SIZE,
    CONSUMER_DELETE,
    CONSUMER_NEXT,
    NO_STREAM,
    PENDING,
    Problem,
    header,
    read_ack,
)
from consumer.nats.connection import REQUEST_S, Connection
from consumer.nats.requests import create_consumer, get_message
from consumer.patience import patience

BATCH: Final = 1000
"""Entries in one request; two requests are open at once."""
BATCH_BYTES: Final = 8 * 1024 * 1024
EXPIRES_S: Final = 30
HEARTBEAT_S: Final = 2.0
PROOF_S: Final = 0.1
"""Heartbeat of the first request: until something has come nobody knows whether anything can."""
DOUBT_S: Final = 2.25 * HEARTBEAT_S
"""Two heartbeats missed: `kill -9`, a frozen server and a lost way say nothing else (1.4)."""
INACTIVE_S: Final = 60
LAST_S: Final = 60.0
"""The server looks up the last entry of each subject before it answers: of 600,000 subjects in 1 to 5 s."""
STALL_S: Final = 15.0
"""Entries wait, and only heartbeats have come for so long: the consumer is given up."""
STALL_BEATS: Final = 5
"""And at least this many heartbeats: a process that was stopped, or was busy, has heard none meanwhile."""

Pulled = tuple[int, int, bytes, bytes, bytes | None]
"""(stream sequence, time in ns, subject, body, header block or None): a tuple, because there are many."""

_STATUS: Final = slice(9, 12)


class DoubtError(JobstateError):
    """The consumer may be gone, or something was lost on the way. Ask again for the entries that were not given yet."""


class StallError(DoubtError):
    """Entries wait in the stream; the consumer sends heartbeats and does not deliver them."""


class Pull:
    """A consumer of *stream*, made by `open`. `pending`: how many entries followed the last one given, when it came.

    `reached`: the sequence of the last one given, or of the one behind which it begins.
    """

    def __init__(self, connection: Connection, stream: str, tell: Callable[[], None] = lambda: None) -> None:
        """*tell* is called once: when the first heartbeat or entry has come, which proves that it works."""
        self._connection: Final = connection
        self.stream: Final = stream
        self._name: Final = f"jobstate-{secrets.token_hex(8)}"
        self._inbox: Final = connection.new_inbox()
        self._inbox_bytes: Final = self._inbox.encode()
        size = max(BATCH_BYTES, 2 * connection.max_payload)
        self._request: Final = _request(size, EXPIRES_S, HEARTBEAT_S)
        self._next = _request(size, 2 * HEARTBEAT_S, min(PROOF_S, HEARTBEAT_S))
        self._subject: Final = CONSUMER_NEXT.format(stream, self._name)
        self._tell: Final = tell
        self._heard = False
        self._subscription: Subscription | None = None
        self._arrived: list[tuple[bytes, bytes, bytes, bytes | None]] = []
        self._something: Final = asyncio.Event()
        self._asked = 0
        self._count = 0
        self._why = ""
        self._fault: Fault | None = None
        self._found: list[Pulled] = []
        """What was taken and not given yet: whoever waits for it may be cancelled, and comes again."""
        self._stripped: list[int] = []
        """Entries without a body whose headers name the size of one."""
        self._owed_since: float | None = None
        self._beats = 0
        self.pending = self.reached = 0
        self.turns = 0
        """How often it looked for what has come: at least once in `DOUBT_S` seconds, while `batch` waits."""

    async def open(self, start: dict[str, Any], filters: Sequence[str] = ()) -> None:
        """Make the consumer. *start*: how it says where to begin (`deliver_policy` and what belongs to it).

        Raises `LogWentBackError` if the stream is gone, `UnreachableError` where it is worth trying again.
        """
        config = {
            "name": self._name,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE_S * 1_000_000_000,
            **({"filter_subjects": list(filters)} if filters else {}),
            **start,
        }
        self._subscription = await self._connection.listen(self._inbox, self._put_aside)
        within_s = LAST_S if start.get("deliver_policy") == "last_per_subject" else REQUEST_S
        made = await create_consumer(self._connection, self.stream, config, within_s=within_s)
        if made.error is not None:
            raise refusal(self._connection, self.stream, made.error)
        self.pending, self.reached = made.num_pending, made.delivered.stream_seq
        if self.pending:
            self.owe()

    async def close(self) -> None:
        """End it. The server forgets it by itself too, a minute later."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            await self._connection.unlisten(subscription)
            if self._connection.is_connected:
                await self._connection.publish(CONSUMER_DELETE.format(self.stream, self._name), b"")
        except nats.errors.Error:
            return  # the connection is gone, and with it what was to be ended

    def owe(self) -> None:
        """Say that entries wait in the stream now. `batch` raises `StallError` if none of them comes for `STALL_S`."""
        if self._owed_since is None:
            self._owed_since, self._beats = asyncio.get_running_loop().time(), 0

    def doubt(self, why: str, fault: Fault | None = None) -> None:
        """Say that it may be gone; `batch` raises it when what has come is given."""
        if not self._why:
            self._why, self._fault = why, fault
        self._something.set()

    async def batch(self) -> list[Pulled]:
        """Wait until entries came, then all that have. Raises `DoubtError`."""
        if self._owed_since is not None:
            self._owed_since = None
            self.owe()  # how long nobody waited here is not the server's fault
        while True:
            self.turns += 1
            if self._arrived or self._found:
                self._found += self._take()
                await self._require_bodies()
                if self._found:
                    found, self._found = self._found, []
                    return found
            if self._why:
                raise DoubtError(self._why, fault=self._fault)
            self._require_entries()
            await self._ask()
            self._something.clear()
            if self._arrived:  # it came while the request went out
                continue
            try:
                async with patience(DOUBT_S):
                    await self._something.wait()
            except TimeoutError:
                denied = self._connection.forbidden(self._subject, self._inbox)
                why = f"nothing came from {self.stream} for {DOUBT_S:g} s, not even a heartbeat"
                self.doubt(f"{why}: {denied.detail}" if denied else why, denied)

    def _require_entries(self) -> None:
        """Raise `StallError` if entries wait, and nothing but heartbeats has come for too long."""
        if self._owed_since is None or self._beats < STALL_BEATS:
            return
        waited = asyncio.get_running_loop().time() - self._owed_since
        if waited >= STALL_S:
            raise StallError(
                f"entries wait in {self.stream}, and its consumer has sent heartbeats only for {waited:.0f} s"
            )

    async def _require_bodies(self) -> None:
        """Raise `DoubtError` if the stream has the body of an entry that came without one.

        The server says the size of a body that it leaves out, where somebody edited the consumer to `headers_only`. A
        producer may send that header too, so the stream is asked.
        """
        while self._stripped:
            number = self._stripped[-1]
            try:
                found = await get_message(self._connection, self.stream, {"seq": number})
            except UnreachableError as error:
                raise DoubtError(
                    f"entry {number} of {self.stream} came without its body ({error})", fault=error.fault
                ) from error
            if found.message is None or found.message.data:
                raise DoubtError(f"entry {number} of {self.stream} came without its body: its consumer was edited")
            self._stripped.pop()

    def _put_aside(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._arrived.append((subject, reply, data, headers))
        self._something.set()

    def _take(self) -> list[Pulled]:
        """Take the arrived entries, up to the first hole in the consumer's count."""
        arrived, self._arrived = self._arrived, []
        found: list[Pulled] = []
        count = self._count
        for subject, reply, data, headers in arrived:
            # A status has the inbox as its subject, an entry its own. By headers they are not told apart: a producer's
            # entry may have any status it likes.
            if subject == self._inbox_bytes:
                self._hear(headers or b"")
                continue
            ack = read_ack(reply)
            if ack is None:
                continue  # somebody else published to our inbox: no consumer sends this
            number, at, time, self.pending = ack
            if at != count + 1:
                self.doubt(f"entries of {self.stream} were lost on the way (before its sequence {number})")
                break
            count, self.reached = at, number
            self._prove()
            if not data and header(headers, BODY_SIZE) not in {"", "0"}:
                self._stripped.append(number)
            found.append((number, time, subject, data, headers))
        self._asked -= count - self._count
        self._count = count
        if found:
            self._owed_since = None
            if self.pending:
                self.owe()
        return found

    def _hear(self, headers: bytes) -> None:
        """Read the server's status for our requests (design/nats.md 1.4)."""
        status = headers[_STATUS]
        words = headers[13 : headers.find(b"\r\n")].decode("utf-8", "replace")
        if status == b"100":
            self._beats += 1
            self._prove()
            return
        if status in (b"404", b"408") or words.startswith(("Message Size", "Batch Completed")):
            left = header(headers, PENDING)
            self._asked -= int(left) if left.isdecimal() else self._asked
        elif status == b"400":
            raise ServerError(f"{self._connection.address} does not take our request for {self.stream}: {words}")
        else:
            self.doubt(f"the consumer of {self.stream} is gone ({status.decode('utf-8', 'replace')} {words})".strip())

    def _prove(self) -> None:
        if not self._heard:
            self._heard = True
            self._tell()

    async def _ask(self) -> None:
        """Keep two requests open: the second is there when the first is used up."""
        while self._asked <= BATCH:
            self._asked = max(self._asked, 0) + BATCH
            try:
                request, self._next = self._next, self._request
                await self._connection.publish(self._subject, request, reply=self._inbox)
            except nats.errors.Error as error:
                self.doubt(f"{self.stream} cannot be asked: {error}")
                return


def refusal(connection: Connection, stream: str, problem: Problem) -> JobstateError:
    """The error that says why *stream* cannot be read."""
    if problem.err_code == NO_STREAM:
        return LogWentBackError(
            f"the stream {stream} is gone from {connection.address}: everything is read again, and with "
            'streams.mode = "create" it is made anew'
        )
    if problem.passes:
        return UnreachableError(f"{connection.address} cannot read {stream} now: {problem}")
    return ServerError(f"{connection.address} does not let us read {stream}: {problem}: what may this user do there?")


def _request(size: int, expires_s: float, heartbeat_s: float) -> bytes:
    return msgspec.json.encode(
        {
            "batch": BATCH,
            "max_bytes": size,
            "expires": round(expires_s * 1e9),
            "idle_heartbeat": round(heartbeat_s * 1e9),
        }
    )
