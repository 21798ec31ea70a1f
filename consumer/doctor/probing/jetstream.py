"""Our NATS, asked: what this user may do, what the account has, how the streams are, what is in them."""

import asyncio
from typing import Any, Final

import msgspec

from consumer.core.appends import Entry
from consumer.doctor.facts import Account, LastEntry, LogHead, Permissions, Replica, Stream, Streams, Told
from consumer.errors import ServerError, UnreachableError
from consumer.faults import Denied
from consumer.jetstream.bounds import fit
from consumer.jetstream.format import read_format
from consumer.jetstream.recovery import last_entry
from consumer.jetstream.recovery import read_checkpoint as judge_checkpoint
from consumer.jetstream.topology import compare, configs
from consumer.model import NOTICE_KINDS, InputPosition, JobKey
from consumer.nats.api import NO_MESSAGE, NO_STREAM, StreamInfo, time_ns
from consumer.nats.connection import Connection
from consumer.nats.requests import account_info, get_message, stream_info
from consumer.settings import Settings
from consumer.wire.subjects import Names

ANSWER_S: Final = 2.0
_NO_SUBJECTS: Final = 2**31 - 1
"""An offset behind all subjects: the answer says how many there are, and names none."""


class _Patterns(msgspec.Struct, frozen=True, kw_only=True):
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


class _Allowed(msgspec.Struct, frozen=True, kw_only=True):
    publish: _Patterns = _Patterns()
    subscribe: _Patterns = _Patterns()


class _UserData(msgspec.Struct, frozen=True, kw_only=True):
    user: str = ""
    account: str = ""
    permissions: _Allowed = _Allowed()


class _User(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `$SYS.REQ.USER.INFO`, which every user may ask unless it is denied."""

    data: _UserData = _UserData()


async def read_permissions(connection: Connection) -> Permissions | None:
    """Ask for our user's permissions; None if the server does not tell."""
    try:
        user = (await connection.ask("$SYS.REQ.USER.INFO", b"", _User, within_s=ANSWER_S)).data
    except ServerError:
        return None
    publish, subscribe = user.permissions.publish, user.permissions.subscribe
    return Permissions(
        publish_allow=publish.allow or None,
        publish_deny=publish.deny,
        subscribe_allow=subscribe.allow or None,
        subscribe_deny=subscribe.deny,
        user=user.user,
        account=user.account,
    )


async def read_account(connection: Connection) -> tuple[Account | None, str, Denied | None]:
    """What JetStream says of our account; or None, why, and which permission is missing."""
    try:
        found = await account_info(connection, within_s=ANSWER_S)
    except UnreachableError as error:
        return None, str(error), error.denied
    if found.error is not None:
        return None, str(found.error), None
    account = Account(
        level=found.api.level,
        streams=found.streams,
        streams_max=found.limits.max_streams,
        storage=found.storage,
        reserved=found.reserved_storage,
        storage_max=found.limits.max_storage,
    )
    return account, "", None


async def read_streams(connection: Connection, names: Names, settings: Settings, wall_s: float) -> Streams:
    """How our streams are. *wall_s*: our clock now. Raises ServerError where one cannot be asked for."""
    found: list[Stream] = []
    ahead_s: float | None = None
    began = asyncio.get_running_loop().time()
    for config in configs(names, settings.streams):
        info = await _info(connection, config["name"])
        found.append(_stream(config, info))
        if info is not None and info.ts:
            ours = wall_s + asyncio.get_running_loop().time() - began
            ahead_s = time_ns(info.ts) / 1e9 - ours
    log, input_, refused, bucket = found
    return Streams(log=log, input=input_, refused=refused, bucket=bucket, ahead_s=ahead_s)


async def find_misfit(connection: Connection, names: Names, settings: Settings, found: Streams) -> str:
    """Why the account would not take those of our streams that are absent; empty: it would."""
    absent = {stream.name for stream in found.all if not stream.there}
    wanted = [config for config in configs(names, settings.streams) if config["name"] in absent]
    try:
        await fit(connection, names, settings.streams, wanted)
    except ServerError as error:
        return str(error)
    return ""


async def _info(connection: Connection, stream: str, *, subjects: str = "", offset: int = 0) -> StreamInfo | None:
    info = await stream_info(connection, stream, subjects=subjects, offset=offset, within_s=ANSWER_S)
    if info.error is None:
        return info
    if info.error.err_code == NO_STREAM:
        return None
    raise ServerError(f"{stream}: {info.error}")


def _stream(config: dict[str, Any], info: StreamInfo | None) -> Stream:
    if info is None:
        return Stream(
            name=config["name"], there=False, max_bytes=config.get("max_bytes", -1), copies=config["num_replicas"]
        )
    state, cluster = info.state, info.cluster
    return Stream(
        name=config["name"],
        there=True,
        differences=tuple(map(str, compare(config, info.config))),
        messages=state.messages,
        bytes=state.bytes,
        max_bytes=info.config.get("max_bytes", -1),
        first_seq=state.first_seq,
        last_seq=state.last_seq,
        copies=info.config.get("num_replicas", 1),
        cluster=cluster.name,
        leader=cluster.leader,
        replicas=tuple(Replica(name=one.name, current=one.current, offline=one.offline) for one in cluster.replicas),
    )


async def read_head(connection: Connection, names: Names) -> LogHead | None:
    """The log's format entry; None if there is none."""
    entry = await last_entry(connection, names, names.format)
    if entry is None:
        return None
    body = read_format(entry)
    if body is None:
        return LogHead(unread=f"entry {entry.number}")
    return LogHead(format=body.Format, rules=body.Rules.Name, rules_hash=body.Rules.Hash, since_ns=body.Since)


async def read_last(connection: Connection, names: Names, server_s: float) -> LastEntry | None:
    """The log's last entry. *server_s*: the server's clock now."""
    entry = await last_entry(connection, names, ">")
    if entry is None:
        return None
    kind = entry.subject.removeprefix(f"{names.prefix}.").partition(".")[0]
    return LastEntry(number=entry.number, kind=kind, age_s=server_s - entry.time_ns / 1e9)


async def read_checkpoint(connection: Connection, names: Names) -> InputPosition | None:
    """Up to where the input is decided; None if nothing says so."""
    entry = await last_entry(connection, names, names.checkpoint("0"))
    return judge_checkpoint(entry)


async def count_refused(connection: Connection, names: Names) -> tuple[int, int]:
    """How many events are in quarantine, and how many could not be read."""
    quarantined = await _count(connection, names.refused, names.quarantine("*", JobKey("*.*"), "*"))
    return quarantined, await _count(connection, names.refused, names.undecodable("*", "*"))


async def read_advisories(connection: Connection, names: Names, server_s: float) -> tuple[Told, ...]:
    """Count the advisories, by kind. *server_s*: the server's clock now."""
    told: list[Told] = []
    for kind in NOTICE_KINDS:
        subjects = names.advisory(kind, "*")
        entry = await last_entry(connection, names, subjects)
        if entry is not None:
            count = await _count(connection, names.log, subjects)
            told.append(Told(kind=kind, count=count, last_age_s=server_s - entry.time_ns / 1e9))
    return tuple(told)


async def _count(connection: Connection, stream: str, subjects: str) -> int:
    """How many subjects of the stream hold an entry under *subjects* (each kept notice has one of its own)."""
    info = await _info(connection, stream, subjects=subjects, offset=_NO_SUBJECTS)
    return 0 if info is None else info.total


async def read_entry(connection: Connection, stream: str, number: int, subjects: str) -> Entry | None:
    """The first entry under *subjects* from entry *number* on; None if there is none. No consumer is made for it."""
    found = await get_message(connection, stream, {"seq": number, "next_by_subj": subjects}, within_s=ANSWER_S)
    if found.message is not None:
        return found.message.entry()
    if found.error is not None and found.error.err_code != NO_MESSAGE:
        raise ServerError(f"{stream}: {found.error}")
    return None
