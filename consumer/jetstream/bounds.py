"""How large our streams may become on this account: which bounds it requires, and which it allows (design/nats.md 2).

Hosted NATS has accounts whose every stream must say its `max_bytes`, with a largest one. It finds everything
that such an account would refuse before the first stream is made, so that no part of the set is left behind.
"""

from collections.abc import Sequence
from typing import Any, Final

from consumer.errors import ServerError
from consumer.nats.api import AccountInfo, Limits
from consumer.nats.connection import Connection
from consumer.nats.requests import account_info
from consumer.settings import Streams
from consumer.wire.subjects import Names

REQUIRED: Final = 10113
"""The account requires a `max_bytes` of each stream."""
TOO_LARGE: Final = 10122
"""A `max_bytes` is more than the account allows for one stream."""
BUCKET_SHARE: Final = 1.25
"""Bound of the bucket, where it needs one, as a multiple of the log's. It holds at most one entry for each of the log's
jobs; the server adds to each where it came from, some 150 bytes to the 590 of an entry."""


def setting_of(names: Names, stream: str) -> str:
    """The setting that bounds *stream*, with its variable."""
    key = {
        names.log: "log_max_bytes",
        names.input: "input_max_bytes",
        names.refused: "refused_max_bytes",
        names.bucket_stream: "bucket_max_bytes",
    }[stream]
    return f"streams.{key} (JOBSTATE_STREAMS__{key.upper()})"


async def fit(
    connection: Connection, names: Names, streams: Streams, absent: Sequence[dict[str, Any]], *, freed: int = 0
) -> list[dict[str, Any]]:
    """The configurations of *absent* streams as this account takes them: with a bound for the bucket if it wants one.

    *freed*: bytes that are reserved now, and will not be when these are made. Raises `ServerError` where the account
    would refuse one of them, with every setting that is to be changed.
    """
    if not absent:
        return []
    account = await account_info(connection)
    if account.error is not None:
        raise ServerError(f"{connection.address} does not say what its account allows: {account.error}")
    tier = account.tiers.get(f"R{streams.replicas}")
    limits = account.limits if tier is None else tier.limits
    made = [_bounded(names, streams, limits, config) for config in absent]
    wrong = [why for config in made if (why := _misfit(names, limits, config))]
    if not wrong and tier is None and limits.max_storage >= 0:
        wrong = _too_much(limits, account, made, freed)
    if wrong:
        raise ServerError(f"{connection.address} would not take our streams, and none was made: {'; '.join(wrong)}")
    return made


def _bounded(names: Names, streams: Streams, limits: Limits, config: dict[str, Any]) -> dict[str, Any]:
    if config["name"] != names.bucket_stream or config.get("max_bytes", -1) > 0 or not limits.max_bytes_required:
        return config
    most = limits.storage_max_stream_bytes
    wanted = int(streams.log_max_bytes * BUCKET_SHARE)
    return {**config, "max_bytes": min(wanted, most) if most > 0 else wanted}


def _misfit(names: Names, limits: Limits, config: dict[str, Any]) -> str:
    """Why this account would refuse *config*, and what to change; empty: it would not."""
    bytes_, most = config.get("max_bytes", -1), limits.storage_max_stream_bytes
    setting = setting_of(names, config["name"])
    if bytes_ <= 0 and limits.max_bytes_required:
        at_most = f", at most {most}" if most > 0 else ""
        return f"the account requires a bound for {config['name']}: set {setting} to a number of bytes{at_most}"
    if 0 < most < bytes_:
        return f"the account allows {most} bytes in a stream: set {setting}, now {bytes_}, to no more"
    return ""


def _too_much(limits: Limits, account: AccountInfo, made: Sequence[dict[str, Any]], freed: int) -> list[str]:
    needed = sum(max(config.get("max_bytes", -1), 0) * config["num_replicas"] for config in made)
    left = limits.max_storage - max(account.storage, account.reserved_storage) + freed
    if needed <= left:
        return []
    each = ", ".join(f"{config['name']} {max(config.get('max_bytes', -1), 0)}" for config in made)
    why = (
        f"the account has room for {left} bytes more, and they would reserve {needed} ({each}): raise its limit, or "
        "lower the …_max_bytes in [streams]"
    )
    return [why]
