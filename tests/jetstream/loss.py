"""Messages that are lost between the server and us, as a client drops them whose buffer is full."""

from nats.aio.subscription import Subscription

from consumer.nats.api import read_ack
from consumer.nats.connection import Connection, Sink


class Loss:
    """Loses each of the entries *numbers* of a stream once; `lost`: those that it has lost.

    It goes by the entry, not by what has arrived when: the hole is the same however the entries come. `passed`: the
    reply subjects of the entries that were not lost.
    """

    def __init__(self, *numbers: int) -> None:
        self.lost: list[int] = []
        self.passed: list[bytes] = []
        self._waiting = set(numbers)

    def between(self, connection: Connection) -> None:
        """Stand between *connection* and whoever listens to it from now on."""
        listen = connection.listen

        async def listen_with_loss(subject: str, sink: Sink) -> Subscription:
            def pass_on(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
                ack = read_ack(reply)
                if ack is not None and ack[0] in self._waiting:
                    self._waiting.remove(ack[0])
                    self.lost.append(ack[0])
                    return
                if ack is not None:
                    self.passed.append(reply)
                sink(subject, reply, data, headers)

            return await listen(subject, pass_on)

        connection.listen = listen_with_loss  # type: ignore[method-assign]
