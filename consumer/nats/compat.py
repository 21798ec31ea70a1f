"""Refuses a nats-py that the mends of `consumer.nats.client` and `consumer.nats.connection` were not written for.

They lean on private names; here stands which ones, and what they take.
"""

import importlib.metadata
import inspect
from typing import Final

from nats.aio.client import Client

from consumer.errors import JobstateError

_METHODS: Final = {
    "_build_message": ("self", "sid", "subject", "reply", "data", "headers"),
    "_process_headers": ("self", "headers"),
    "_process_msg": ("self", "sid", "subject", "reply", "data", "headers"),
    "_process_err": ("self", "err_msg"),
    "_process_op_err": ("self", "e"),
    "_process_info": ("self", "info", "initial_connection"),
    "_process_connect_init": ("self",),
    "_connect_to_server": ("self", "s"),
    "_close": ("self", "status", "do_cbs"),
    "_flush_pending": ("self", "force_flush"),
}
_FIELDS: Final = (
    "_reading_task",
    "_flusher_task",
    "_flush_queue",
    "_pending",
    "_pending_data_size",
    "_max_pending_size",
    "_server_info",
    "_resp_map",
    "_resp_sub_prefix",
    "_transport",
)


def check_client() -> None:
    """Refuse a nats-py whose private names are not the ones that the mends here were written for."""
    made = Client()
    odd = [
        name
        for name, wanted in _METHODS.items()
        if tuple(inspect.signature(getattr(Client, name, lambda: None)).parameters) != wanted
    ]
    odd += [name for name in _FIELDS if not hasattr(made, name)]
    if odd:
        raise JobstateError(
            f"nats-py {importlib.metadata.version('nats-py')} is not the one that this was written for "
            f"({', '.join(odd)} changed): pip install 'nats-py==2.16.*'"
        )
