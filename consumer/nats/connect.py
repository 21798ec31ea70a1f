"""Connect to NATS: tried until a server answers or the time is over, and then with the reason and the next step."""

import asyncio
from typing import Final

import nats.errors

from consumer.errors import RefusedError, SettingsError, UnreachableError
from consumer.nats import faults
from consumer.nats.address import Address
from consumer.nats.client import MetError
from consumer.nats.connection import Connection, words_of
from consumer.nats.outage import Outage
from consumer.patience import patience

CONNECT_S: Final = 10.0
"""How long a connection is tried for before it is given up, unless said otherwise."""
RETRY_S: Final = 0.25


async def connect_reader(
    address: Address, name: str, *, within_s: float = CONNECT_S, outage: Outage | None = None
) -> Connection:
    """A connection that is made again for ever once it stood. Raises as `connect_writer`."""
    connection = await _connect(address, name, within_s, outage)
    connection.options["allow_reconnect"] = True
    return connection


async def connect_writer(
    address: Address, name: str, *, within_s: float = CONNECT_S, outage: Outage | None = None
) -> Connection:
    """A connection that ends when it is lost: its owner makes another, and gives it the same *outage*.

    Tried for *within_s* seconds. Raises `UnreachableError` where no server answers, `RefusedError` where one refuses
    us, `SettingsError` where no server could be tried.
    """
    return await _connect(address, name, within_s, outage)


async def _connect(address: Address, name: str, within_s: float, outage: Outage | None) -> Connection:
    tls = address.tls_context
    full_name = f"jobstate {address.cluster} {name}"
    outage = outage or Outage(full_name)
    last: Connection | None = None
    try:
        async with patience(within_s):
            while True:
                connection = last = Connection(address, tls=tls is not None, outage=outage)
                try:
                    await connection.connect(
                        list(address.urls),
                        name=full_name,
                        token=address.token or None,
                        user=address.user or None,
                        password=address.password or None,
                        user_credentials=connection.credentials if address.credentials_file else None,
                        tls=tls,
                        tls_handshake_first=address.tls_first,
                        inbox_prefix=address.inbox_prefix,
                        # The first time is ours to repeat: nats-py would repeat a wrong password for ever.
                        allow_reconnect=False,
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=0.5,
                        connect_timeout=2,
                        ping_interval=5,
                        max_outstanding_pings=2,
                        error_cb=connection.hear_error,
                        disconnected_cb=connection.hear_change,
                        closed_cb=connection.hear_change,
                        reconnected_cb=connection.hear_connected,
                        discovered_server_cb=connection.hear_news,
                        lame_duck_mode_cb=connection.hear_news,
                    )
                except (nats.errors.Error, OSError, TimeoutError) as error:
                    await connection.close()
                    if not connection.tried:
                        raise SettingsError(
                            f"nats.url: {address} cannot be used ({words_of(error)}); write nats://HOST:PORT, several "
                            "with commas between"
                        ) from error
                    fault = connection.fault_of(error, worked=outage.worked)
                    if fault.kind == faults.REFUSED and not isinstance(error, MetError):  # of the server, not of a file
                        refusal = faults.make("nats", address.refusal, fault.detail, worked=outage.worked)
                        raise RefusedError(
                            f"{address} refuses us ({refusal.detail}): {refusal.next_step}", fault=refusal
                        ) from error
                    await asyncio.sleep(RETRY_S)
                else:
                    await connection.hear_connected()
                    return connection
    except TimeoutError:
        if last is None:
            fault = faults.make("nats", faults.AWAY, "no answer", worked=outage.worked)
        else:
            # It may have been given up before it gave up itself.
            fault = last.last_fault or last.fault_of(TimeoutError(), worked=outage.worked)
            await last.close()
        raise UnreachableError(
            f"no connection to {address} within {within_s:g} s ({fault.detail}): {fault.next_step}", fault=fault
        ) from None
