"""Real nats-servers for tests, and what a test does to them: freeze, cut, speak their protocol by hand."""

import asyncio
import json
import os
import signal
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from consumer.jetstream.server import EmbeddedServer, find_binary
from consumer.nats.address import Address
from consumer.nats.connection import Connection
from tests.loopback import free_port
from tests.waiting import DEADLINE_S, until


class Server(EmbeddedServer):
    """A server of our own that can be frozen, with lines of configuration that the daemon's has not."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        super().__init__(folder, free_port())
        self._extra: Final = extra

    def configuration(self) -> str:
        """As it is, and the test's own lines."""
        return super().configuration() + self._extra

    def address(self, cluster: str = "main", token: str = "") -> Address:
        """Where it is."""
        return Address(urls=(self.url,), cluster=cluster, token=token)

    async def reload(self, configuration: str) -> None:
        """Have it take *configuration* in place of what it has; returns when it has, and connections stay."""
        assert self._process is not None
        done = "Reloaded server configuration"
        before = self.log_file.read_text().count(done)
        (self.folder / "nats-server.conf").write_text(configuration, encoding="utf-8")
        self._process.send_signal(signal.SIGHUP)
        await until(lambda: self.log_file.read_text().count(done) > before, "the reload")

    def freeze(self) -> None:
        """Connections stay, nothing is said. Returns when every thread of it stands still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Also when a test failed and left it frozen."""
        if self.pid is not None:
            self.thaw()
        await super().stop()


def cluster_of(folder: Path, count: int = 3) -> tuple[Server, ...]:
    """Servers that form one cluster once most of them are started (`start` of each; all are to be stopped)."""
    ports = [free_port() for _ in range(2 * count)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[:count])
    servers = []
    for number in range(count):
        listen = f"listen: 127.0.0.1:{ports[number]}, routes: [{routes}]"
        server = Server(
            folder / f"s{number}",
            f'server_name: s{number}\nserver_tags: ["s{number}"]\ncluster {{ name: c, {listen} }}\n',
        )
        server.port = ports[count + number]  # clients are given the addresses of all before all are started
        servers.append(server)
    return tuple(servers)


@cache
def version() -> tuple[int, int]:
    """The release of the nats-server that tests run, major and minor: 2.11 and later differ in a few things."""
    said = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    major, minor, _ = said.rpartition("v")[2].split(".", 2)
    return int(major), int(minor)


def keeps_status_lines() -> bool:
    """Whether the server stores the status line of a producer's headers; from 2.12 on it takes it off."""
    return version() < (2, 12)


async def speak(server: EmbeddedServer, *commands: bytes) -> None:
    """Say *commands* to the server over a plain socket, as no client would; returns when it has taken them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + b"".join(commands) + b"PING\r\n")
    async with asyncio.timeout(DEADLINE_S):
        while (await reader.readline()) not in {b"PONG\r\n", b""}:
            pass
    writer.close()
    await writer.wait_closed()


def pub(subject: bytes, body: bytes = b"", headers: bytes | None = None, reply: bytes = b"") -> bytes:
    """The protocol command that publishes, whatever the bytes are."""
    if headers is None:
        return b"PUB %s %s %d\r\n%s\r\n" % (subject, reply, len(body), body)
    total = len(headers) + len(body)
    return b"HPUB %s %s %d %d\r\n%s%s\r\n" % (subject, reply, len(headers), total, headers, body)


async def api(connection: Connection, subject: str, body: bytes = b"") -> bytes:
    """One request to JetStream's API, its answer as it came."""
    return bytes((await connection.request(f"$JS.API.{subject}", body, timeout=DEADLINE_S)).data)


async def strip_bodies(connection: Connection, stream: str) -> None:
    """Have each consumer of *stream* deliver headers alone from now on, as one does that may alter it."""
    for name in json.loads(await api(connection, f"CONSUMER.NAMES.{stream}"))["consumers"]:
        config = json.loads(await api(connection, f"CONSUMER.INFO.{stream}.{name}"))["config"]
        wanted = {"stream_name": stream, "config": {**config, "headers_only": True}, "action": "update"}
        answer = json.loads(await api(connection, f"CONSUMER.CREATE.{stream}.{name}", json.dumps(wanted).encode()))
        assert answer["config"]["headers_only"]
