"""Alive is going round, ready is each part being ready, and HTTP says both."""

import asyncio

import aiohttp
import pytest

from consumer.errors import SettingsError
from consumer.observe import Health, Metrics, serve
from consumer.settings import Http

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
