"""Names are looked up beside everything else: who asks is answered in time, whatever the name server does."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from consumer import resolve as resolving
from consumer.resolve import Resolver, UnresolvedError, join_host_port
from tests import silent_names
from tests.waiting import DEADLINE_S

NAME: Final = "ours.example"


class Lookups:
    """In place of the system's: each stands still until `go`, and gives *found* then."""

    def __init__(self) -> None:
        self.asked = 0
        self.go: Final = threading.Event()
        self.found: list[str] | Exception = ["127.0.0.1"]

    def __call__(self, host: str, *_: object) -> list[tuple[object, ...]]:
        """As `socket.getaddrinfo`."""
        self.asked += 1
        assert self.go.wait(DEADLINE_S), host
        if isinstance(self.found, Exception):
            raise self.found
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 0)) for address in self.found]


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lookups]:
    """Lookups that the test lets go on."""
    made = Lookups()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.go.set()


async def test_an_address_is_never_looked_up(lookups: Lookups) -> None:
    """IPv4, IPv6, and IPv6 with a scope."""
    resolver = Resolver()
    for address in ("127.0.0.1", "::1", "fe80::1%lo"):
        assert list(await resolver.addresses(address)) == [address]
    assert lookups.asked == 0


async def test_who_waits_longer_than_the_name_server_takes_is_told_so(lookups: Lookups) -> None:
    """The error names the host and the reason, and is an `OSError` as that of any connection."""
    resolver = Resolver()
    with pytest.raises(UnresolvedError) as caught:
        await resolver.addresses(NAME, within_s=0.01)
    assert caught.value.strerror == f"the name {NAME} does not resolve: no name server has answered within 0.01 s"
    assert lookups.asked == 1


async def test_one_lookup_serves_all_and_a_late_answer_serves_the_next(lookups: Lookups) -> None:
    """Whoever asks again while the name server thinks waits for the same lookup; a slow one is of use all the same."""
    resolver = Resolver()
    for _ in range(3):
        with pytest.raises(UnresolvedError):
            await resolver.addresses(NAME, within_s=0.01)
    both = asyncio.gather(resolver.addresses(NAME, within_s=DEADLINE_S), resolver.addresses(NAME, within_s=DEADLINE_S))
    await asyncio.sleep(0)
    lookups.go.set()
    assert [list(found) for found in await both] == [["127.0.0.1"]] * 2
    assert lookups.asked == 1
    assert list(await resolver.addresses(NAME, within_s=DEADLINE_S)) == ["127.0.0.1"]
    assert lookups.asked == 2, "an answer that was taken is not kept: names move"


async def test_a_late_answer_is_not_kept_for_ever(lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody took for half a minute is asked for again."""
    resolver = Resolver()
    with pytest.raises(UnresolvedError):
        await resolver.addresses(NAME, within_s=0.01)
    lookups.go.set()
    (lookup,) = resolver._lookups.values()
    await asyncio.to_thread(lookup.result, DEADLINE_S)
    monkeypatch.setattr(resolving, "KEEP_S", -1.0)
    await resolver.addresses(NAME, within_s=DEADLINE_S)
    assert lookups.asked == 2


async def test_a_name_that_is_not_there_is_told_in_the_systems_words(lookups: Lookups) -> None:
    """And asked for again the next time: a container that is about to start has no name yet."""
    resolver = Resolver()
    lookups.found = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    lookups.go.set()
    for _ in range(2):
        with pytest.raises(UnresolvedError, match=f"the name {NAME} does not resolve: Name or service not known"):
            await resolver.addresses(NAME, within_s=DEADLINE_S)
    assert lookups.asked == 2


async def test_every_address_of_a_name_is_tried(lookups: Lookups) -> None:
    """In turn: whoever listens on the second is found, and of none the first error is told."""
    resolver = Resolver()
    lookups.found = ["127.0.0.2", "127.0.0.1"]
    lookups.go.set()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _, writer = await resolver.open_connection(NAME, port, limit=1024, within_s=DEADLINE_S)
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
        writer.close()
        await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.2"):
        await resolver.open_connection(NAME, port, limit=1024, within_s=DEADLINE_S)


async def test_an_address_that_takes_no_packet_leaves_the_others_their_time(
    lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where IPv6 is broken and the first address is of it: the second is tried beside it, not after it."""
    lookups.found = ["127.0.0.2", "127.0.0.1"]
    lookups.go.set()
    monkeypatch.setattr(resolving, "NEXT_ADDRESS_S", 0.01)
    with full_backlog() as hole, socket.create_server(("127.0.0.1", hole.getsockname()[1])):
        port = hole.getsockname()[1]
        # The system itself gives the first one up after two minutes.
        _, writer = await Resolver().open_connection(NAME, port, limit=1024, within_s=60)
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
        writer.close()
        await writer.wait_closed()
        lookups.found = ["127.0.0.2"]
        with pytest.raises(TimeoutError):
            await Resolver().open_connection(NAME, port, limit=1024, within_s=0.05)


@contextmanager
def full_backlog() -> Iterator[socket.socket]:
    """A listener on 127.0.0.2 that takes no further connection: Linux drops what comes then, as a firewall does."""
    waiting: list[socket.socket] = []
    with socket.create_server(("127.0.0.2", 0), backlog=0) as listener:
        try:
            while True:
                client = socket.socket()
                waiting.append(client)
                client.settimeout(0.2)
                client.connect(listener.getsockname())
        except TimeoutError:
            yield listener
        finally:
            for client in waiting:
                client.close()


async def test_a_lookup_that_raises_what_nobody_expects_is_told_too(lookups: Lookups) -> None:
    """Whoever waits would wait for ever otherwise, and that name would be dead for the life of the process."""
    lookups.go.set()
    resolver = Resolver()
    for unexpected in (ValueError("embedded null character"), UnicodeError("label too long"), MemoryError()):
        lookups.found = unexpected
        with pytest.raises(UnresolvedError, match=f"the name {NAME} does not resolve: "):
            await resolver.addresses(NAME, within_s=DEADLINE_S)
    lookups.found = ["127.0.0.1"]
    assert list(await resolver.addresses(NAME, within_s=DEADLINE_S)) == ["127.0.0.1"]


async def test_a_lookup_that_could_not_begin_is_begun_again(lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no thread to give now has one later."""
    lookups.go.set()
    resolver = Resolver()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(UnresolvedError, match="can't start new thread"):
            await resolver.addresses(NAME, within_s=DEADLINE_S)
    assert list(await resolver.addresses(NAME, within_s=DEADLINE_S)) == ["127.0.0.1"]


def test_an_ipv6_address_stands_in_brackets() -> None:
    """As in every URL."""
    assert join_host_port("::1", 80) == "[::1]:80"
    assert join_host_port("127.0.0.1", 80) == "127.0.0.1:80"
    assert join_host_port("ours.example", 80) == "ours.example:80"


# -- the whole process, where a name server takes every question and answers none --------------------------------------

needs_namespaces = pytest.mark.skipif(bool(silent_names.why_not()), reason=silent_names.why_not() or "it runs")
WITHOUT_UVLOOP: Final = "import sys; sys.modules['uvloop'] = None; from consumer.cli import main; main()"
PROGRAM: Final = {"uvloop": ["-m", "consumer"], "asyncio": ["-c", WITHOUT_UVLOOP]}


@contextmanager
def started(folder: Path, words: list[str], **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The program beside such a name server, and the file with what it says."""
    said = folder / "said"
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("JOBSTATE_", "COV_"))}
    settings = {"JOBSTATE_HTTP__PORT": "0", "JOBSTATE_LOG__FORMAT": "json", **variables}
    with said.open("wb") as output:
        process = subprocess.Popen(
            silent_names.command(sys.executable, *words),
            env=kept | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process, said
    finally:
        process.kill()
        process.wait()


def wait_for(process: "subprocess.Popen[bytes]", said: Path, *words: str) -> None:
    """Return when *process* has said all *words*; it must go on until then."""
    deadline = time.monotonic() + DEADLINE_S
    while not all(word in said.read_text() for word in words):
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)


@needs_namespaces
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_silent_name_server_delays_no_end_of_the_daemon(tmp_path: Path, loop: str) -> None:
    """`nats.trouble` says that the name does not resolve; SIGTERM ends it while lookups hang, on both event loops."""
    with started(tmp_path, [*PROGRAM[loop], "run"], JOBSTATE_NATS__URL="nats://ours.example:4222") as (process, said):
        wait_for(process, said, '"connection.waiting"')
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    trouble = next(line for line in lines if line["event"] == "nats.trouble")
    assert trouble["reason"] == f"the name {NAME} does not resolve: no name server has answered within 2 s"
    assert "getent hosts" in trouble["next_step"]
    assert not [line for line in lines if line["event"] == "library.said"]


@needs_namespaces
@pytest.mark.server
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_names_of_bacalhaus_sides_hold_nobody_up_either(tmp_path: Path, loop: str) -> None:
    """The orchestrator's and its NATS: both are named as what they are, and SIGTERM ends the daemon."""
    with started(
        tmp_path,
        [*PROGRAM[loop], "run", "--embedded", "--folder", str(tmp_path / "nats")],
        JOBSTATE_BACALHAU__URL="nats://hints.example:4222",
        JOBSTATE_ORCHESTRATOR__URL="http://record.example:1234",
    ) as (process, said):
        wait_for(process, said, "the name hints.example does not resolve", "the name record.example does not resolve")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    assert '"kind": "unresolved"' in said.read_text()
    assert '"library.said"' not in said.read_text()


@needs_namespaces
@pytest.mark.parametrize(("words", "code"), [(["list"], 11), (["doctor", "--listen", "1s"], 1)])
def test_verbs_end_in_time_and_say_which_name_it_is(tmp_path: Path, words: list[str], code: int) -> None:
    """Though the lookup goes on."""
    with started(tmp_path, ["-m", "consumer", *words], JOBSTATE_NATS__URL=f"nats://{NAME}:4222") as (process, said):
        assert process.wait(DEADLINE_S) == code
    assert f"the name {NAME} does not resolve: no name server has answered within 2 s" in said.read_text()
    assert "Traceback" not in said.read_text()


@needs_namespaces
def test_ctrl_c_ends_a_verb_that_waits_for_a_name(tmp_path: Path) -> None:
    """As soon as the lookup has its thread; a machine so slow that the verb has given up by then says 11."""
    with started(tmp_path, ["-m", "consumer", "list"], JOBSTATE_NATS__URL=f"nats://{NAME}:4222") as (process, said):
        deadline = time.monotonic() + DEADLINE_S
        while process.poll() is None and len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) in {130, 11}, said.read_text()
    assert "Traceback" not in said.read_text()
