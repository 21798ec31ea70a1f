"""The requirements for the NATS server of the log: its version, JetStream, the size of its messages."""

import re
from typing import Final

from consumer.errors import ServerError, UnreachableError
from consumer.nats import faults
from consumer.nats.api import NO_QUORUM, UNAVAILABLE
from consumer.nats.connection import REQUEST_S, Connection, NobodyError
from consumer.nats.requests import account_info

SERVER_MIN: Final = (2, 11)
"""2.10 ignores the filter of the compare-and-set without a word: six writers of one new job were all stored (1.1)."""
API_LEVEL_MIN: Final = 1
OFF: Final = frozenset({10039, 10076})
"""JetStream is not enabled, for this account or at all."""
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.")


_NO_LEADER: Final = (
    "JetStream on {} does not answer now: it may have no leader (are most servers of the cluster up?) or too much to do"
)


async def require_server(connection: Connection, *, within_s: float = REQUEST_S) -> None:
    """Refuse a server that is too old for what the log relies on, or has no JetStream for us. Raises `ServerError`.

    `UnreachableError` if it went away while it was asked, or its JetStream is there and answers nothing now: a cluster
    without a leader is waited for like a server that is not up.
    """
    found = connection.server_version
    match = _VERSION.match(found)
    if match is None or (int(match[1]), int(match[2])) < SERVER_MIN:
        raise ServerError(
            f"{connection.address} is nats-server {found}; 2.11 or later is needed (older ones ignore the filter of "
            "the compare-and-set, and two daemons would write states twice): upgrade every server of the cluster"
        )
    try:
        account = await account_info(connection, within_s=within_s)
    except NobodyError as error:
        raise ServerError(
            f"{connection.address} has no JetStream for us ({error}): start nats-server with -js"
        ) from error
    except UnreachableError as error:
        if error.is_denied:
            raise ServerError(f"{error}: {faults.next_step('nats', faults.DENIED)}") from error
        if not connection.is_connected:
            raise  # the server went away while it was asked: that says nothing of its JetStream
        raise UnreachableError(f"{_NO_LEADER.format(connection.address)} (no answer within {within_s:g} s)") from error
    if (problem := account.error) is not None:
        if problem.err_code not in OFF and (problem.err_code == NO_QUORUM or problem.code == UNAVAILABLE):
            raise UnreachableError(f"{_NO_LEADER.format(connection.address)} ({problem})")
        raise ServerError(
            f"{connection.address} has no JetStream for us ({problem.description}, {problem.err_code}): "
            "enable JetStream for the account of this user"
        )
    # The leader of the cluster has answered; the check of each append runs where the stream's leader is.
    if account.api.level < API_LEVEL_MIN:
        raise ServerError(
            f"a server of the cluster at {connection.address} is older than nats-server 2.11 (JetStream API level "
            f"{account.api.level}, needed is {API_LEVEL_MIN}): upgrade every server of the cluster"
        )


def require_payload(connection: Connection, size: int) -> None:
    """Refuse a server whose largest message is smaller than *size* bytes (body and headers). Raises `ServerError`.

    Sent all the same, such a message would close the connection (design/nats.md 3).
    """
    if connection.max_payload < size:
        raise ServerError(
            f"{connection.address} takes messages of {connection.max_payload} bytes, needed are {size}: raise its "
            "max_payload, or lower limits.message_bytes"
        )
