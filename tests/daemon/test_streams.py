"""A running daemon whose streams are deleted behind it: it notices each, mends or names it, and says so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from consumer.jetstream.topology import ensure
from consumer.nats.connect import connect_reader
from consumer.settings import Streams
from consumer.wire.subjects import job_key
from tests.daemon.process import NAMES, Daemon, Numbers, entries, updates_of
from tests.server import Server
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.server

BUCKET: Final = NAMES.bucket_stream
STREAMS: Final = Streams(log_max_bytes=100_000_000, input_max_bytes=100_000_000)
"""As `Daemon` sets them."""

Start = Callable[..., Daemon]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server of the test's own."""
    async with Server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """A client that may do everything."""
    client = Client()
    await client.connect(server.url)
    yield client
    await client.close()


@pytest.fixture
def start(tmp_path: Path, server: Server) -> Iterator[Start]:
    """Starts a daemon on the server with settings like `STREAMS__MODE=…`; it ends with the test."""
    started: list[Daemon] = []

    def begin(**settings: str) -> Daemon:
        variables = {f"JOBSTATE_{name}": text for name, text in settings.items()}
        started.append(Daemon(tmp_path / "daemon", {"JOBSTATE_NATS__URL": server.url, **variables}))
        return started[-1]

    yield begin
    for daemon in started:
        daemon.kill()


async def report(client: Client, job: str, state: str) -> None:
    """As any producer."""
    await client.jetstream().publish(NAMES.report(job_key("default", job)), b'{"StateType":"%s"}' % state.encode())


async def make(server: Server) -> None:
    """Make what is missing, as an operator."""
    reader = await connect_reader(server.address(), "operator")
    await ensure(reader, NAMES, STREAMS)
    await reader.close()


async def lost(daemon: Daemon, *parts: str) -> None:
    """Wait until /metrics says that exactly these streams were lost, each once."""
    wanted = {("jobstate_streams_lost_total", part): 1.0 for part in parts}
    found: Numbers = {}
    try:
        async with asyncio.timeout(DEADLINE_S):
            while found != wanted:
                numbers = await daemon.numbers("jobstate_streams_lost_total")
                found = {labels: number for labels, number in numbers.items() if number}
    except TimeoutError:
        pytest.fail(f"{found}, never {wanted}")


async def bucket_has(client: Client, *jobs: str) -> None:
    """Wait until the bucket has exactly these jobs."""
    found: set[str] = set()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while found != set(jobs):
                try:
                    info = await client.jsm().stream_info(BUCKET, subjects_filter=">")
                except NotFoundError:
                    continue  # it is being made anew
                found = {subject.rpartition(".")[2] for subject in info.state.subjects or {}}
    except TimeoutError:
        pytest.fail(f"the bucket has {found}, never {jobs}")


async def test_streams_that_are_deleted_are_made_anew(client: Client, start: Start) -> None:
    """Within a look, with no restart; counted and told; the daemon is ready again, and reports and rejections go on."""
    daemon = start()
    await daemon.until_ready()
    await report(client, "j-1", "Running")
    await bucket_has(client, "j-1")
    streams = {BUCKET: "bucket", NAMES.refused: "refused", NAMES.input: "input"}
    for stream in (BUCKET, NAMES.refused):
        await client.jsm().delete_stream(stream)
    await lost(daemon, "bucket", "refused")
    assert len(daemon.lines("log.recovered")) == 1, "it is the same life"
    await client.jsm().delete_stream(NAMES.input)
    await lost(daemon, *streams.values())
    assert {line["stream"] for line in daemon.lines("stream.lost")} == set(streams)
    await until(lambda: len(daemon.lines("stream.made")) >= 4 + len(streams), "all of them again")
    await daemon.until_ready()
    await report(client, "j-1", "Completed")
    await report(client, "j-1", "Running")
    updates = await updates_of(client.jetstream(), job_key("default", "j-1"), 2)
    assert [update.StateType for update in updates] == ["Running", "Completed"]
    await bucket_has(client, "j-1")
    async with asyncio.timeout(DEADLINE_S):
        while len(await entries(client.jetstream(), NAMES.refused, ">")) != 1:
            await asyncio.sleep(0.01)
    assert daemon.process.poll() is None


async def test_with_the_log_the_bucket_is_made_anew(client: Client, start: Start) -> None:
    """Nobody sees jobs that the log does not have: the bucket is deleted with it, and that is told."""
    daemon = start()
    await daemon.until_ready()
    for job in ("old-1", "old-2"):
        await report(client, job, "Running")
    await bucket_has(client, "old-1", "old-2")
    # Else the input would bring them back: it is the truth of a report as long as it has it.
    await client.jsm().purge_stream(NAMES.input)
    await client.jsm().delete_stream(NAMES.log)
    line = await daemon.line("bucket.renewed")
    assert (line["stream"], line["reason"]) == (BUCKET, "the log was made anew")
    await daemon.until_ready()
    await report(client, "new-1", "Running")
    await bucket_has(client, "new-1")
    await lost(daemon, "log")


@pytest.mark.parametrize(("stream", "part"), [(NAMES.refused, "refused"), (NAMES.log, "log")])
async def test_a_bound_stream_that_is_deleted_is_named_and_waited_for(
    server: Server, client: Client, start: Start, stream: str, part: str
) -> None:
    """With `bind` nothing is made: /readyz and the log lines name it; the process lives, and goes on with it."""
    await make(server)
    daemon = start(STREAMS__MODE="bind")
    await daemon.until_ready()
    await client.jsm().delete_stream(stream)
    answer = await daemon.until_status(503, "streams.mode is bind")
    assert stream in answer["parts"][part]
    assert (await daemon.line("stream.trouble"))["stream"] == stream
    assert (await daemon.get("/livez"))[0] == 200
    with pytest.raises(NotFoundError):
        await client.jsm().stream_info(stream)

    await make(server)
    if stream == NAMES.log:
        # The log was made without its bucket: that is named too, and an operator's to mend.
        answer = await daemon.until_status(503, "it is no copy of the log")
        assert answer["parts"]["bucket"].startswith(BUCKET)
        await client.jsm().delete_stream(BUCKET)
        await make(server)
    await daemon.until_ready()
    assert (await daemon.line("stream.back"))["stream"] == stream
    await report(client, "j-2", "Running")
    await bucket_has(client, "j-2")
