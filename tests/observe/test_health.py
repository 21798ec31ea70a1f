"""Alive is going round, ready is each part being ready, and HTTP says both."""

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from consumer.errors import SettingsError
from consumer.observe import Health, Metrics, serve
from consumer.probe import FILE, ask
from consumer.settings import Http
from tests.loopback import free_port, needs_ipv6

ANY = Http(port=0)


class Clock:
    """Time that stands until somebody moves it."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


async def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


def test_a_loop_that_goes_round_is_alive() -> None:
    """As long as it says so within its allowance, for ever."""
    clock = Clock()
    health = Health(clock)
    health.expect("writer", 5)
    for _ in range(10):
        clock.time += 5
        assert health.late() == {}
        health.alive("writer")


def test_a_loop_that_hangs_is_named() -> None:
    """Existence is not enough: the one loop that has not gone round is named, the other is not."""
    clock = Clock()
    health = Health(clock)
    health.expect("writer", 5)
    health.expect("tap", 60)
    clock.time += 5.5
    assert health.late() == {"writer": "has not gone round for 5.5 s (allowed: 5 s)"}
    health.alive("writer", clock.time)
    assert health.late() == {}


def test_a_loop_that_has_ended_is_not_waited_for() -> None:
    """A drained reader is no dead one; one that nobody expects is not asked."""
    clock = Clock()
    health = Health(clock)
    health.expect("input", 1)
    health.alive("unexpected")
    health.done("input")
    clock.time += 100
    assert health.late() == {}


def test_ready_is_every_part() -> None:
    """A needed part is not ready before it says so; one that fails later is named with its reason."""
    health = Health(Clock())
    health.need("log", "orchestrator")
    assert health.unready() == {"log": "has not been ready yet", "orchestrator": "has not been ready yet"}
    health.ready("log")
    health.ready("orchestrator")
    assert health.unready() == {}
    health.failing("orchestrator", "unauthorized: 401")
    assert health.unready() == {"orchestrator": "unauthorized: 401"}
    assert health.parts() == {"log": "ready", "orchestrator": "unauthorized: 401"}


async def test_http_says_what_the_parts_say() -> None:
    """/livez and /readyz are 200 or 503 with every name and reason, and whose they are; both change at once."""
    clock = Clock()
    health = Health(clock)
    health.expect("writer", 5)
    health.need("log")
    async with serve(ANY, Metrics(), health, "lab") as port:
        assert await get(port, "/livez") == (200, '{"alive": true, "late": {}}')
        assert await get(port, "/readyz") == (
            503,
            '{"ready": false, "cluster": "lab", "parts": {"log": "has not been ready yet"}}',
        )
        health.ready("log")
        clock.time += 6
        status, body = await get(port, "/livez")
        assert status == 503
        assert "writer" in body
        assert await get(port, "/readyz") == (200, '{"ready": true, "cluster": "lab", "parts": {"log": "ready"}}')


async def test_http_serves_the_metrics() -> None:
    """/metrics is Prometheus' text; a path that is not there is 404."""
    metrics = Metrics()
    metrics.resends.inc(7)
    async with serve(ANY, metrics, Health(), "lab") as port:
        status, body = await get(port, "/metrics")
        assert status == 200
        assert "jobstate_resends_total 7.0" in body
        assert (await get(port, "/"))[0] == 404


async def test_a_port_that_is_taken_is_a_settings_error() -> None:
    """The error names the setting and the way out."""
    async with serve(ANY, Metrics(), Health(), "lab") as port:
        with pytest.raises(
            SettingsError, match=rf"http\.port: cannot listen on 127\.0\.0\.1:{port} .*JOBSTATE_HTTP__PORT"
        ):
            async with serve(Http(port=port), Metrics(), Health(), "lab"):
                pass


async def test_an_address_that_is_not_this_machines_is_no_fault_of_the_port() -> None:
    """No other port would help, so the error names the host."""
    with pytest.raises(SettingsError, match=r"^http\.host: cannot listen on 192\.0\.2\.1:0 .*JOBSTATE_HTTP__HOST"):
        async with serve(Http(host="192.0.2.1", port=0), Metrics(), Health(), "lab"):
            pass


async def test_the_port_is_free_again_afterwards() -> None:
    """Leaving the context closes the server, also with a client that keeps its connection."""
    async with aiohttp.ClientSession() as session:
        async with (
            serve(ANY, Metrics(), Health(), "lab") as port,
            session.get(f"http://127.0.0.1:{port}/livez") as answer,
        ):
            assert answer.status == 200
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1"),
        pytest.param("::1", "http://[::1]", marks=needs_ipv6),
        ("localhost", "http://localhost"),
        ("0.0.0.0", "http://127.0.0.1"),
        pytest.param("::", "http://[::1]", marks=needs_ipv6),
        ("*", "http://127.0.0.1"),
    ],
)
async def test_the_address_is_in_its_file(tmp_path: Path, host: str, url: str) -> None:
    """Whatever the host, and with a port chosen at the start: the file says where the daemon answers, while it does."""
    file = tmp_path / "address"
    async with serve(Http(host=host, port=0, address_file=str(file)), Metrics(), Health(), "lab") as port:
        assert file.read_text() == f"{url}:{port}\n"
        assert await asyncio.to_thread(ask, file.read_text().strip()) == ""
    assert not file.exists()


@needs_ipv6
async def test_every_address_is_ipv4_and_ipv6() -> None:
    """`*` answers on both; `0.0.0.0` and `::` are one of them each."""
    port = free_port()
    async with serve(Http(host="*", port=port), Metrics(), Health(), "lab"):
        for host in ("127.0.0.1", "[::1]"):
            assert await asyncio.to_thread(ask, f"http://{host}:{port}") == ""


async def test_an_address_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The error names the setting, the file and the way out; nothing listens any more."""
    name = str(tmp_path / "none" / "address")
    with pytest.raises(SettingsError, match=rf"http\.address_file: cannot write {name} \(No such file"):
        async with serve(Http(port=0, address_file=name), Metrics(), Health(), "lab"):
            pass


async def test_the_probe_says_what_is_late() -> None:
    """A loop that does not go round: the probe names it, as /livez does."""
    clock = Clock()
    health = Health(clock)
    health.expect("writer", 5)
    async with serve(ANY, Metrics(), health, "lab") as port:
        clock.time += 6
        said = await asyncio.to_thread(ask, f"http://127.0.0.1:{port}")
    assert said.startswith("HTTP/1.0 503 Service Unavailable: {")
    assert "writer" in said


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
async def test_the_probe_as_it_is_run(tmp_path: Path, proxy: str) -> None:
    """Exit 0 from the daemon's own address, whatever proxy is named; 1 with a sentence where nobody can tell."""
    file = tmp_path / "address"

    async def probe(**environ: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "consumer.probe"),
            env={"HTTP_PROXY": proxy, "http_proxy": proxy, **environ},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        return process.returncode, said.decode()

    assert await probe(**{FILE: str(file)}) == (
        1,
        f"{file} is not there: the daemon has not come up yet, or has ended\n",
    )
    async with serve(Http(port=0, address_file=str(file)), Metrics(), Health(), "lab"):
        assert await probe(**{FILE: str(file)}) == (0, "")
    code, said = await probe()
    assert code == 1
    assert said.startswith(f"{FILE} is not set")
    file.write_text("http://127.0.0.1:1\n")
    assert await probe(**{FILE: str(file)}) == (1, f"{file}: [Errno 111] Connection refused\n")


def test_the_probe_imports_next_to_nothing() -> None:
    """It is run every ten seconds: no dependency, and of the standard library little beside what sockets need."""
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import consumer.probe"], capture_output=True, text=True, check=True
    ).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.splitlines()}
    assert "consumer" in imported
    assert imported.isdisjoint({"aiohttp", "asyncio", "msgspec", "nats", "ssl", "typer", "urllib"})
