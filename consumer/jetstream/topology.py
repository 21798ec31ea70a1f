"""The streams of one cluster: made if absent, refused if different, never altered (design/design.md 4).

Their configuration stands here and nowhere else. Their contents are read and written elsewhere.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, get_args

import structlog

from consumer.errors import MissingStreamError, ServerError, TopologyError, UnreachableError
from consumer.jetstream.bounds import REQUIRED, TOO_LARGE, fit, setting_of
from consumer.nats.api import (
    NO_QUORUM,
    NO_STREAM,
    Problem,
    StreamInfo,
)
from consumer.nats.connection import Connection
from consumer.nats.requests import create_stream, delete_stream, stream_info
from consumer.settings import Streams
from consumer.wire.subjects import Names, StreamName

log = structlog.get_logger()

PATIENCE_S: Final = 10.0
"""A stream just made on several servers may answer 503 for a moment (design/nats.md 1.4)."""
SURVEY_S: Final = 5.0
"""The same for a look at all streams: with the last answer that is waited for, less than `connection.DEAF_S`."""
RETRY_S: Final = 0.1

_NAME_IN_USE: Final = 10058
_OVERLAP: Final = 10065
_ALONE: Final = 10074
"""More than one copy was asked for of a server that is no cluster."""
_TOO_FEW: Final = 10005
_NO_ROOM: Final = {10002, 10023, 10026, 10047}
_STREAMS_MAX: Final = 10027
"""The account may have no more streams, of whatever size."""

SEALED: Final = (
    "it is sealed: nothing can be stored in it any more, and no edit undoes that; delete it (nats stream rm {}) once "
    "nothing that it holds is needed, or use another cluster name"
)

Config = dict[str, Any]
Survey = Mapping[str, StreamInfo | ServerError | None]
"""How each stream stands, by name: what the server says of it, why it does not, or None: it is not there."""


class Difference(NamedTuple):
    """One field of a stream that is not what it must be."""

    field: str
    wanted: object
    found: object

    def __str__(self) -> str:
        return f"{self.field}: needed {_shown(self.wanted)}, found {_shown(self.found)}"


def configs(names: Names, streams: Streams) -> tuple[Config, ...]:
    """The streams of the cluster, in the order in which they are made. Only what must be as it is: the rest is free.

    The log has no `max_age` and no `max_msgs`: after an expiry the compare-and-set would expect 0 again, and a late
    event could make a forgotten job new (design/nats.md 1.1). Its window for message ids is short: it uses none.
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
        # Covered reports are not needed any more; full must not mean that producers are refused.
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
    return log_stream, input_stream, refused_stream, _bucket_config(names, common, streams.bucket_max_bytes)


def _bucket_config(names: Names, common: Config, max_bytes: int) -> Config:
    """The KV bucket: one entry a job, copied by the server from the log (1.3). Any KV client can read it.

    Without *max_bytes* any bound will do: it has one where the account requires it (`bounds.fit`).
    """
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
        **({"max_bytes": max_bytes} if max_bytes else {}),
    }


async def ensure(
    connection: Connection, names: Names, streams: Streams, *, leave: Collection[str] = ()
) -> tuple[str, ...]:
    """See to it that the cluster's streams are there and are what they must be. The names of those that were made.

    Raises `TopologyError` if one differs (each difference is named) or its subjects are another's; `MissingStreamError`
    if some are absent and `mode` is "bind"; `ServerError` where the server cannot hold it. While one that is there
    differs, none is made. *leave*: names of streams that are neither looked at nor made.
    """
    absent: list[Config] = []
    for config in configs(names, streams):
        if config["name"] in leave:
            continue
        info = await look_at(connection, config["name"])
        if info is None:
            absent.append(config)
        else:
            _require(connection, config, info)
    missing = tuple(config["name"] for config in absent)
    if missing and streams.mode == "bind":
        raise MissingStreamError(missing, connection.address)
    for config in await fit(connection, names, streams, absent):
        await _make(connection, names, config)
    return missing


async def remake(connection: Connection, names: Names, streams: Streams, missing: Collection[str]) -> None:
    """Make the streams *missing* anew, and leave the others alone. Raises as `ensure`."""
    absent = [config for config in configs(names, streams) if config["name"] in missing]
    for config in await fit(connection, names, streams, absent):
        await _make(connection, names, config)


async def remake_bucket(connection: Connection, names: Names, streams: Streams) -> None:
    """Delete the KV bucket and make it anew: the server fills it from the log's first entry on. Raises as `ensure`.

    Programs that watch the bucket lose it, and have to begin again.
    """
    wanted = [config for config in configs(names, streams) if config["name"] == names.bucket_stream]
    before, freed = await look_at(connection, names.bucket_stream), 0
    if before is not None and (bound := before.config.get("max_bytes", -1)) > 0:
        wanted = [{"max_bytes": bound, **config} for config in wanted]  # somebody may have made it by hand
        freed = bound * before.config.get("num_replicas", 1)
    # Before it is deleted: one that is behind is better than none.
    wanted = await fit(connection, names, streams, wanted, freed=freed)
    deleted = await _ask(partial(delete_stream, connection, names.bucket_stream))
    if deleted.error is not None and deleted.error.err_code != NO_STREAM:
        raise _refusal(connection, names.bucket_stream, deleted.error)
    for config in wanted:
        await _make(connection, names, config)


async def find_absent(connection: Connection, names: Names) -> tuple[str, ...]:
    """Which of the cluster's streams are not there. Raises `ServerError` where that cannot be told."""
    return tuple([name for name in _all(names) if await look_at(connection, name) is None])


async def survey(connection: Connection, names: Names) -> Survey:
    """How each of the cluster's streams stands, all asked at once: 10 s at most."""

    async def look(name: str) -> StreamInfo | ServerError | None:
        try:
            return await look_at(connection, name, patience_s=SURVEY_S)
        except ServerError as error:
            return error

    found = await asyncio.gather(*map(look, _all(names)))
    return dict(zip(_all(names), found, strict=True))


def _all(names: Names) -> tuple[str, ...]:
    return (names.log, names.input, names.refused, names.bucket_stream)


async def look_at(connection: Connection, name: str, *, patience_s: float = PATIENCE_S) -> StreamInfo | None:
    """Ask the server for the stream *name*; None if there is none. Raises `ServerError`."""
    info = await _ask(partial(stream_info, connection, name), patience_s)
    if info.error is None:
        return info
    if info.error.err_code == NO_STREAM:
        return None
    raise _refusal(connection, name, info.error)


async def _make(connection: Connection, names: Names, config: Config) -> None:
    name = config["name"]
    made = await _ask(partial(create_stream, connection, config))
    problem = made.error
    if problem is not None and problem.err_code in {REQUIRED, TOO_LARGE}:  # the account was changed just now
        raise ServerError(
            f"the stream {name} cannot be made on {connection.address}: {problem}: set {setting_of(names, name)} to a "
            "number of bytes that the account allows"
        )
    if problem is not None and problem.err_code not in {_NAME_IN_USE, _OVERLAP}:
        raise _refusal(connection, name, problem)
    # Seen once more: what a server does not know of it leaves out. And one that is there may be what it must be: a
    # cluster refuses the second of two daemons that make it at once, though it is the same.
    info = await look_at(connection, name)
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while info is None and problem is not None and problem.err_code == _NAME_IN_USE:
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(RETRY_S)  # it is being made
        info = await look_at(connection, name)
    if problem is None:
        log.info("stream.made", stream=name, replicas=config["num_replicas"])
    elif info is None:
        raise _refusal(connection, name, problem)
    if info is not None:
        _require(connection, config, info)


def is_sealed(info: StreamInfo) -> bool:
    """Whether nothing can be stored in it any more, for ever."""
    return bool(info.config.get("sealed"))


def _require(connection: Connection, config: Config, info: StreamInfo) -> None:
    differences = tuple(compare(config, info.config))
    if differences and is_sealed(info):
        raise TopologyError(f"the stream {config['name']} on {connection.address}: {SEALED.format(config['name'])}")
    if differences:
        raise TopologyError(
            f"the stream {config['name']} on {connection.address} is not what is needed; nothing was altered:\n"
            + "".join(f"  {difference}\n" for difference in differences)
            + f"mend it (nats stream edit {config['name']}), or set [streams] in the configuration to what is there"
        )


def require(connection: Connection, names: Names, streams: Streams, name: str, info: StreamInfo) -> None:
    """Raise `TopologyError` if the stream *name*, of which the server says *info*, is not what it must be."""
    for config in configs(names, streams):
        if config["name"] == name:
            _require(connection, config, info)


def compare(wanted: Mapping[str, Any], found: Mapping[str, Any], path: str = "") -> Iterator[Difference]:
    """Where *found* differs from *wanted*, field by field. A field that *wanted* does not name may be anything."""
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


async def _ask(request: Callable[[], Awaitable[StreamInfo]], patience_s: float = PATIENCE_S) -> StreamInfo:
    """Ask until the cluster can answer: it may be choosing a leader."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while True:
        try:
            info = await request()
        except UnreachableError:
            if loop.time() > deadline:
                raise
        else:
            if info.error is None or info.error.err_code != NO_QUORUM or loop.time() > deadline:
                return info
        await asyncio.sleep(RETRY_S)


def _refusal(connection: Connection, name: str, problem: Problem) -> Exception:
    where = connection.address
    if problem.err_code in {_NAME_IN_USE, _OVERLAP}:
        return TopologyError(f"the stream {name} cannot be made on {where}: {problem}: another stream has its subjects")
    if problem.err_code in _NO_ROOM:
        return ServerError(
            f"{where} has no room for the stream {name}: {problem}: raise the limits of the server or the account, "
            "or lower the max_bytes in [streams]"
        )
    if problem.err_code == _STREAMS_MAX:
        return ServerError(
            f"{where} has no room for the stream {name}: {problem}: raise the account's max_streams (jobstate keeps "
            f"{len(get_args(StreamName))} for each cluster), or use another account"
        )
    if problem.err_code == _ALONE:
        return TopologyError(
            f"the stream {name} cannot be made on {where}: {problem}: set streams.replicas "
            "(JOBSTATE_STREAMS__REPLICAS) to 1, or let that server be one of a cluster"
        )
    if problem.err_code == _TOO_FEW:
        return ServerError(
            f"the stream {name} cannot be made on {where}: {problem}: are as many servers of the cluster up as "
            "streams.replicas says, each with room? Start them, or set it lower"
        )
    if problem.passes:
        return UnreachableError(f"the stream {name} is not available on {where} now: {problem}: are its servers up?")
    return ServerError(
        f"the stream {name} is not available on {where}: {problem}: what may this user do, and is it up?"
    )


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
