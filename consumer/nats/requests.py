"""JetStream's API, a function a request. Each raises as `Connection.ask`; what the server refuses is in `error`."""

from collections.abc import Mapping
from typing import Any

import msgspec

from consumer.nats import api
from consumer.nats.api import AccountInfo, ConsumerInfo, MessageAnswer, StreamInfo
from consumer.nats.connection import REQUEST_S, Connection


async def account_info(connection: Connection, *, within_s: float = REQUEST_S) -> AccountInfo:
    """What our account has and allows, as the cluster's leader says."""
    return await connection.ask(api.ACCOUNT_INFO, b"", AccountInfo, within_s=within_s)


async def stream_info(
    connection: Connection, stream: str, *, subjects: str = "", offset: int = 0, within_s: float = REQUEST_S
) -> StreamInfo:
    """How *stream* stands; with those of its subjects that match *subjects*, at most 100,000 from *offset* on."""
    body = msgspec.json.encode({"subjects_filter": subjects, "offset": offset}) if subjects else b""
    return await connection.ask(api.STREAM_INFO.format(stream), body, StreamInfo, within_s=within_s)


async def create_stream(connection: Connection, config: Mapping[str, Any]) -> StreamInfo:
    """Make a stream."""
    subject = api.STREAM_CREATE.format(config["name"])
    return await connection.ask(subject, msgspec.json.encode(config), StreamInfo)


async def delete_stream(connection: Connection, stream: str) -> StreamInfo:
    """Delete *stream*."""
    return await connection.ask(api.STREAM_DELETE.format(stream), b"", StreamInfo)


async def get_message(
    connection: Connection, stream: str, which: Mapping[str, str | int], *, within_s: float = REQUEST_S
) -> MessageAnswer:
    """One entry of *stream*: `seq`, or `last_by_subj`, or the first under `next_by_subj` from `seq` on."""
    body = msgspec.json.encode(which)
    return await connection.ask(api.MESSAGE_GET.format(stream), body, MessageAnswer, within_s=within_s)


async def create_consumer(
    connection: Connection, stream: str, config: Mapping[str, Any], *, within_s: float = REQUEST_S
) -> ConsumerInfo:
    """Make a consumer of *stream*."""
    body = msgspec.json.encode({"stream_name": stream, "config": config, "action": "create"})
    subject = api.CONSUMER_CREATE.format(stream, config["name"])
    return await connection.ask(subject, body, ConsumerInfo, within_s=within_s)
