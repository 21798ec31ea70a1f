"""The streams of one cluster: made where they are absent, refused where they differ, never altered (`DESIGN.md` 4).

What they must be stands here and nowhere else. What they hold is read and written elsewhere.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from consumer.errors import ServerError, TopologyError, UnreachableError
from consumer.jetstream.api import NO_QUORUM, NO_STREAM, Problem, StreamInfo
from consumer.jetstream.connection import Connection
from consumer.settings import Streams
from consumer.wire.subjects import Names

log = structlog.get_logger()

PATIENCE_S: Final = 10.0
"""A stream just made on several servers may answer 503 for a moment (NATS.md 1.4)."""
RETRY_S: Final = 0.1

_ELSEWHERE: Final = {10058, 10065}
_NO_ROOM: Final = {10002, 10023, 10026, 10027, 10047}

Config = dict[str, Any]


class Difference(NamedTuple):
    """One field of a stream that is not what it must be."""

    field: str
    wanted: object
    found: object

    def __str__(self) -> str:
        return f"{self.field}: needed {_shown(self.wanted)}, found {_shown(self.found)}"


def configs(names: Names, streams: Streams, *, bucket: bool = True) -> tuple[Config, ...]:
    """The streams of the cluster, in the order in which they are made. Only what must be as it is: the rest is free.

    The log has no `max_age` and no `max_msgs`: after an expiry the compare-and-set would expect 0 again, and a late
    event could make a forgotten job new (NATS.md 1.1). Its window for message ids is short, because it uses none.
    """
    common = {"retention": "limits", "storage": "file", "num_replicas": streams.replicas, "no_ack": False}
    log_stream = {
        "name": names.log,
        "subjects": list(names.log_subjects),
        **common,
        "discard": "new",
        "max_bytes": streams.log_max_bytes or -1,
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "duplicate_window": 1_000_000_000,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
    input_stream = {
        "name": names.input,
        "subjects": [f"{names.in_prefix}*.*"],
        **common,
        # What is covered is not needed any more; full must not mean that producers are refused.
        "discard": "old",
        "max_bytes": streams.input_max_bytes or -1,
        # `Nats-Rollup: all` from a producer would empty it (1.5).
        "allow_rollup_hdrs": False,
    }
    refused_stream = {
        "name": names.refused,
        "subjects": list(names.refused_subjects),
        **common,
        "discard": "old",
        "max_bytes": streams.refused_max_bytes,
        "allow_direct": True,
    }
    made = (log_stream, input_stream, refused_stream)
    return (*made, _bucket_config(names, common)) if bucket else made


def _bucket_config(names: Names, common: Config) -> Config:
    """The KV bucket: one entry a job, copied by the server from the log (1.3). Any KV client can read it."""
    source = {
        "name": names.log,
        "subject_transforms": [
            {"src": f"{names.state_prefix}*.*.*", "dest": f"$KV.{names.bucket}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}"}
        ],
    }
    return {
        "name": names.bucket_stream,
        "subjects": [],
        "sources": [source],
        **common,
        "discard": "new",
        "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "deny_delete": True,
    }


async def ensure(connection: Connection, names: Names, streams: Streams, *, bucket: bool = True) -> tuple[str, ...]:
    """See to it that the cluster's streams are there and are what they must be. The names of those that were made.

    Raises `TopologyError`: a stream differs (every difference is named), its subjects are another's, or it is absent
    and `mode` is "bind". Raises `ServerError` where the server cannot hold it. *bucket*: with the KV bucket.
    """
    made = []
    for config in configs(names, streams, bucket=bucket):
        name = config["name"]
        info = await _ask(connection, f"$JS.API.STREAM.INFO.{name}", b"")
        if info.error is not None and info.error.err_code == NO_STREAM:
            if streams.mode == "bind":
                raise TopologyError(
                    f"the stream {name} is not on {connection.address}, and streams.mode is bind: make it, or let "
                    'jobstate make it with streams.mode = "create"'
                )
            info = await _ask(connection, f"$JS.API.STREAM.CREATE.{name}", msgspec.json.encode(config))
            if info.error is None:
                made.append(name)
                log.info("stream.made", stream=name, replicas=streams.replicas)
                # Seen once more: what a server does not know of it leaves out.
                info = await _ask(connection, f"$JS.API.STREAM.INFO.{name}", b"")
        if info.error is not None:
            raise _refusal(connection, name, info.error)
        differences = tuple(compare(config, info.config))
        if differences:
            raise TopologyError(
                f"the stream {name} on {connection.address} is not what is needed; nothing was altered:\n"
                + "".join(f"  {difference}\n" for difference in differences)
                + f"mend it (nats stream edit {name}), or set [streams] in the configuration to what is there"
            )
    return tuple(made)


def compare(wanted: Mapping[str, Any], found: Mapping[str, Any], path: str = "") -> Iterator[Difference]:
    """Where *found* differs from *wanted*, field by field. What *wanted* does not name may be anything."""
    for key, value in wanted.items():
        yield from _compare(value, found.get(key), f"{path}{key}")


def _compare(wanted: object, found: object, path: str) -> Iterator[Difference]:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        yield from compare(wanted, found, f"{path}.")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = zip(_sorted(wanted), _sorted(found), strict=True)
        for number, (one, other) in enumerate(pairs):
            yield from _compare(one, other, f"{path}[{number}]")
    elif wanted != found and (wanted or found is not None):  # the server leaves out what is 0, false or empty
        yield Difference(path, wanted, found)


def _sorted(values: list[Any]) -> list[Any]:
    """Subjects have no order."""
    return sorted(values) if all(isinstance(value, str) for value in values) else values


async def _ask(connection: Connection, subject: str, body: bytes) -> StreamInfo:
    """Ask until the cluster can answer: it may be choosing a leader."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while True:
        try:
            info = await connection.ask(subject, body, StreamInfo)
        except UnreachableError:
            if loop.time() > deadline:
                raise
        else:
            if info.error is None or info.error.err_code != NO_QUORUM or loop.time() > deadline:
                return info
        await asyncio.sleep(RETRY_S)


def _refusal(connection: Connection, name: str, problem: Problem) -> Exception:
    where = connection.address
    if problem.err_code in _ELSEWHERE:
        return TopologyError(f"the stream {name} cannot be made on {where}: {problem}: another stream has its subjects")
    if problem.err_code in _NO_ROOM:
        return ServerError(
            f"{where} has no room for the stream {name}: {problem}: raise the limits of the server or the account, "
            "or lower the max_bytes in [streams]"
        )
    return ServerError(f"the stream {name} cannot be had on {where}: {problem}: what may this user do, and is it up?")


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
