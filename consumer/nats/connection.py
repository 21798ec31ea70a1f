"""A NATS connection that is not deaf or dead while it looks alive: nats-py's client, mended (design/nats.md 3).

Two kinds. A *reader* connects again for ever. A *writer* ends with its connection: what the client had put aside would
land later (design/design.md 7.7), so its owner replaces it. Only the transport is here; the messages are elsewhere.

The mends lean on private names of nats-py; `consumer.nats.compat` refuses to start where they are not as they were.
"""

import asyncio
from collections import UserString
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import nats.errors
import structlog
from nats.aio.subscription import Subscription

from consumer.errors import ConnectionLostError, ServerError, SettingsError, UnreachableError
from consumer.faults import Denied, Fault, Operation
from consumer.nats import faults
from consumer.nats.address import CREDENTIALS, Address
from consumer.nats.client import MendedClient, MetError
from consumer.nats.outage import Outage
from consumer.patience import patience
from consumer.settings import read_credentials, read_secret

log = structlog.get_logger()

REQUEST_S: Final = 5.0
FORBIDDEN_MAX: Final = 1000
"""Subjects that are remembered as forbidden: of a daemon that may not write to the log there are as many as jobs."""
DEAF_S: Final = 15.0
"""No request was answered for so long, in a row, and the connection stands: it is made anew."""
RENEW_FIRST_S: Final = 1.0
RENEW_MAX_S: Final = 15.0
"""The longest pause before a connection to which nothing comes is made anew: each time in a row it doubles."""

Sink = Callable[[bytes, bytes, bytes, bytes | None], None]
"""The receiver of every message of `listen`, as it came: subject, reply subject, body, header block."""

T = TypeVar("T")


class NobodyError(UnreachableError):
    """The server says that nobody listens to such requests."""


class Connection(MendedClient):
    """One connection to NATS. Made by `consumer.nats.connect`; ended by `close`.

    Nothing that comes over the wire ends its reader, and a reader that ends anyway ends the connection, visibly.
    """

    def __init__(self, address: Address, *, tls: bool, outage: Outage) -> None:
        super().__init__(tls=tls, resolver=address.resolver)
        self.address: Final = address
        self.credentials: Final = UserString("unread")
        """The contents of the credentials file when it was last read: before each connection, first or later."""
        self._outage: Final = outage
        self._sinks: dict[int, Sink] = {}
        self._watchers: list[Callable[[], None]] = []
        self._no_room: list[asyncio.Future[None]] = []
        self.connects = 0
        """Connections made so far: one more than there were reconnects."""
        self.deaf = 0
        """How often nothing came over it any more, or nobody read it, while it looked alive."""
        self.slow = 0
        """Messages that nats-py dropped because too many waited."""
        self._forbidden: dict[str, Operation] = {}
        self._unanswered_since: float | None = None
        self._answered_at = float("-inf")
        self._renewing: asyncio.Task[None] | None = None
        self._renewals = 0
        self._renewed_at = float("-inf")
        self._asking: dict[asyncio.Timeout, str] = {}
        """What is asked now, by what ends the waiting for its answer."""
        self.last_fault: Fault | None = None
        """The last error of the connection."""

    @property
    def last_trouble(self) -> str:
        """The same in a few words; empty: none."""
        return "" if self.last_fault is None else self.last_fault.detail

    # -- what its owner uses ------------------------------------------------------------------------------------------

    def watch(self, tell: Callable[[], None]) -> None:
        """Call *tell* whenever the connection comes, goes or is closed. It must not raise, and not wait."""
        self._watchers.append(tell)

    async def listen(self, subject: str, sink: Sink) -> Subscription:
        """Subscribe, and give each message to *sink* in the reader itself: no task, queue or object per message.

        *sink* must only put aside. The subscription is made again after a reconnect, like every other.
        Raises `UnreachableError` where the connection is closed.
        """
        # The number is the one that `subscribe` is about to give: nothing may come before the sink is there.
        sid = self._sid + 1
        self._sinks[sid] = sink
        try:
            subscription: Subscription = await self.subscribe(subject)
        except nats.errors.Error as error:
            self._sinks.pop(sid, None)
            trouble = self.last_trouble or words_of(error)
            raise UnreachableError(f"{self.address}: {subject}: the connection is closed ({trouble})") from error
        return subscription

    async def unlisten(self, subscription: Subscription) -> None:
        """End what `listen` began. Nothing happens where the connection is gone."""
        self._sinks.pop(subscription._id, None)
        if not self.is_closed:
            await subscription.unsubscribe()

    async def send_raw(self, data: bytes) -> None:
        """Send what is a whole number of protocol commands. Waits while too much waits to be sent.

        Raises `ConnectionLostError` at once where the connection is down: nothing is put aside to land later.
        """
        if not self.is_connected:
            raise ConnectionLostError(f"the connection to {self.address} is down ({self.last_trouble})")
        self._pending.append(data)
        self._pending_data_size += len(data)
        queue = self._flush_queue
        assert queue is not None
        if self._pending_data_size > self._max_pending_size:
            # nats-py's own way to wait here swallows cancellation, and waits for ever when the connection is closed.
            room = asyncio.get_running_loop().create_future()
            self._no_room.append(room)
            try:
                await queue.put(room)
                await room
            finally:
                self._no_room.remove(room)
            if not self.is_connected:
                raise ConnectionLostError(f"the connection to {self.address} went down ({self.last_trouble})")
        elif queue.empty():
            queue.put_nowait(asyncio.get_running_loop().create_future())

    async def ask(
        self,
        subject: str,
        body: bytes,
        answer: type[T],
        *,
        within_s: float = REQUEST_S,
        headers: dict[str, str] | None = None,
    ) -> T:
        """One request of JetStream's API, one answer of the type *answer*.

        Raises `UnreachableError` where none comes or nobody listens, `ServerError` where it cannot be read.
        """
        if not self.is_connected:
            raise UnreachableError(f"{self.address}: {subject}: the connection is down ({self.last_trouble})")
        if denied := self.forbidden(self._answers):  # the server says it once, when the first request is made
            raise UnreachableError(f"{self.address}: {subject}: {denied.detail}", fault=denied)
        asked_at = asyncio.get_running_loop().time()
        try:
            async with patience(within_s) as waiting:
                self._asking[waiting] = subject
                try:
                    # The patience ends it: nats-py's own limit counts the time in which we were stopped, too.
                    message = await self.request(subject, body, timeout=None, headers=headers)  # type: ignore[arg-type]
                finally:
                    self._asking.pop(waiting, None)
            self.answered()
            self._forbidden.pop(subject.lower(), None)  # it may have been granted since, on this very connection
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # It came together with the answer, and `wait_for` of Python 3.11 has swallowed it (19 times of 60).
                raise asyncio.CancelledError
        except nats.errors.NoRespondersError as error:
            self.answered()
            raise NobodyError(f"{self.address}: nobody answers to {subject}: is JetStream on (-js)?") from error
        except (nats.errors.Error, TimeoutError) as error:
            why = f"no answer within {within_s:g} s" if isinstance(error, TimeoutError) else words_of(error)
            denied = self.forbidden(subject, self._answers)
            if not denied:
                self.unanswered(asked_at)
            hint = denied.detail if denied else f"{why}: is the server up, and may this user ask that?"
            raise UnreachableError(f"{self.address}: {subject}: {hint}", fault=denied) from error
        try:
            return msgspec.json.decode(message.data, type=answer)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ServerError(f"{self.address}: {subject}: an answer that cannot be read: {error}") from error

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has taken everything that was sent. nats-py's PING overtakes what waits to be sent."""
        if self.is_connected and self._pending and self._transport is not None:
            waiting, self._pending = self._pending, []
            self._pending_data_size = 0
            self._transport.writelines(waiting)
        await super().flush(timeout)

    def forbidden(self, *subjects: str) -> Fault | None:
        """Why we may not use one of *subjects* on this connection, as the server said; None: it has said nothing."""
        for subject in subjects:
            if operation := self._forbidden.get(subject.lower()):  # nats-py hears it in lower case
                why = f'permissions violation for {operation} to "{subject}"'
                return faults.make(self.side, faults.DENIED, why, denied=Denied(operation, subject.lower()))
        return None

    def answered(self) -> None:
        """Something has come: it is not deaf."""
        self._unanswered_since = None
        self._answered_at = asyncio.get_running_loop().time()

    def unanswered(self, asked_at: float) -> None:
        """Nothing answered what was asked at *asked_at* (the loop's time). `DEAF_S` of that, and it is made anew."""
        if self._unanswered_since is None:
            self._unanswered_since = max(asked_at, self._answered_at)
        if asyncio.get_running_loop().time() - self._unanswered_since >= DEAF_S and self.is_connected:
            self._renew("no request was answered", lambda: self._unanswered_since is not None)

    async def close(self) -> None:
        """End it, and what would make it anew."""
        if self._renewing is not None:
            self._renewing.cancel()
        await super().close()

    @property
    def _answers(self) -> str:
        """The subject under which the answers to all requests come."""
        return f"{bytes(self._resp_sub_prefix or b'').decode()}*"

    @property
    def server_version(self) -> str:
        """The server's own version, like `2.11.11`."""
        return str(self._server_info.get("version", "unknown"))

    # -- mends --------------------------------------------------------------------------------------------------------

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        sink = self._sinks.get(sid)
        if sink is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type] # None: no headers
        else:
            self.answered()
            sink(subject, reply, data, headers)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good at every -ERR but two; a connection that was meant to last must be made again.
        if "permissions violation" in err_msg:
            await super()._process_err(err_msg)
        else:
            await self._process_op_err(nats.errors.Error(f"nats: {err_msg}"))

    async def _process_op_err(self, e: Exception) -> None:
        if not (self.is_closed or self.is_reconnecting):
            self._note(e)
            self._abort()
        await super()._process_op_err(e)
        self._tell()

    async def _process_connect_init(self) -> None:
        # A server that accepts us may grant more now. Not later: a denial comes before it counts as connected.
        self._forbidden.clear()
        self._unanswered_since = None
        address = self.address
        try:
            if path := address.credentials_file:
                self.credentials.data = read_credentials(path, CREDENTIALS).text
            if path := address.token_file:
                self.options["token"] = read_secret(path, "nats.token_file")
            if path := address.password_file:
                self.options["password"] = read_secret(path, "nats.password_file")
        except SettingsError as error:  # it was right at the start: whoever renews it may be at it
            raise MetError(faults.REFUSED, str(error)) from error
        await super()._process_connect_init()
        for task in (self._reading_task, self._flusher_task):
            assert task is not None
            task.add_done_callback(self._look_at_end)

    def _look_at_end(self, task: "asyncio.Task[None]") -> None:
        """A task of the connection has ended. If nobody ended it, the connection is deaf or mute: make it anew."""
        if self.is_connected and task in (self._reading_task, self._flusher_task):
            self.deaf += 1
            error = nats.errors.Error("nats: the connection's own task has ended")
            ending = asyncio.get_running_loop().create_task(self._process_op_err(error))
            self._watched_end = ending  # a task that nobody holds may be forgotten

    def _renew(self, why: str, is_needed: Callable[[], bool]) -> None:
        """Nothing comes, though it stands: make it anew, after a pause that doubles while that does not help.

        Not if it *is_needed* no more after that: a server that stood still for a while goes on by itself.
        """
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._make_anew(why, is_needed))

    async def _make_anew(self, why: str, is_needed: Callable[[], bool]) -> None:
        loop, reading = asyncio.get_running_loop(), self._reading_task
        if loop.time() - self._renewed_at > 2 * RENEW_MAX_S:
            self._renewals = 0
        await asyncio.sleep(min(RENEW_FIRST_S * 2.0**self._renewals, RENEW_MAX_S))
        if (
            self.is_connected and self._reading_task is reading and is_needed()
        ):  # else that is over: it is another already
            self._renewals, self._renewed_at = min(self._renewals + 1, 10), loop.time()
            self.deaf += 1
            await self._process_op_err(nats.errors.Error(f"nats: {why}"))

    # -- nats-py's callbacks: they never raise, and never wait ---------------------------------------------------------

    async def hear_error(self, error: Exception) -> None:
        """nats-py's `error_cb`."""
        if isinstance(error, nats.errors.SlowConsumerError):
            self.slow += 1
        if (denied := faults.read_denied(str(error))) is not None:
            if len(self._forbidden) >= FORBIDDEN_MAX:
                self._forbidden.clear()
            self._forbidden[denied.subject] = denied.operation
            for waiting, subject in list(self._asking.items()):
                if denied.subject in {subject.lower(), self._answers.lower()}:
                    del self._asking[waiting]
                    if waiting.when() is None:  # else its time is over anyway
                        waiting.reschedule(0)  # nobody will answer
            if denied.operation == "subscription" and denied.subject.startswith(self.address.inbox_prefix.lower()):
                # The server has dropped it, and nats-py never asks for it again: a permission that comes back is no
                # help to this connection.
                self._renew(words_of(error).removeprefix("nats: "), lambda: True)
        self._note(error)

    async def hear_change(self) -> None:
        """nats-py's `disconnected_cb` and `closed_cb`."""
        self._tell()

    async def hear_connected(self) -> None:
        """nats-py's `reconnected_cb`."""
        self.connects += 1
        log.info(
            "nats.connected",
            connection=self.options["name"],
            server=str(self.address),
            connects=self.connects,
            away_s=round(self._outage.end(), 1),
        )
        self._tell()

    async def hear_news(self) -> None:
        """nats-py's `discovered_server_cb` and `lame_duck_mode_cb`: an ordinary reconnect follows, or nothing."""

    def _note(self, error: Exception) -> None:
        self.last_fault = fault = self.fault_of(error, worked=self._outage.worked)
        self._outage.tell("nats.trouble", self.address, fault.detail, fault.next_step)

    def _tell(self) -> None:
        if not self.is_connected:
            for room in self._no_room:
                if not room.done():
                    room.set_result(None)
            # nats-py would let each wait for its whole time.
            for answer in list(self._resp_map.values()):
                if not answer.done():
                    answer.set_exception(nats.errors.StaleConnectionError())
        for tell in self._watchers:
            tell()


def words_of(error: BaseException) -> str:
    """A few words for the operator: one line, bounded, no control characters of a stranger."""
    text = str(error) or type(error).__name__
    return "".join(character for character in text if character.isprintable())[:200]
