"""A daemon whose user lacks a permission, or loses it for a while: it is not ready, says which one, and comes back."""

import asyncio
import json
from pathlib import Path
from typing import Final

import pytest
from nats.aio.client import Client

from consumer.wire.subjects import job_key
from tests.daemon.process import NAMES, Daemon, updates_of
from tests.server import Server
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server

LIST: Final = "docs/operations/running.md#permissions"
INBOX: Final = "_INBOX_jobstate_main.>"
NEXT: Final = f"$JS.API.CONSUMER.MSG.NEXT.{NAMES.input}.>"

RESTARTS: Final = "jobstate_input_restarts_total"


def users(publish: str = "", subscribe: str = "") -> str:
    """Lines of the server's configuration: the user `daemon` may do all but what is given."""
    denied = {"publish": publish, "subscribe": subscribe}
    rules = " ".join(f'{what}: {{ deny: "{subject}" }}' for what, subject in denied.items() if subject)
    daemon = (
        f"{{ user: daemon, password: p, permissions: {{ {rules} }} }}" if rules else "{ user: daemon, password: p }"
    )
    return f"authorization {{ users: [ {{ user: admin, password: p }}, {daemon} ] }}\n"


def settings(server: Server) -> dict[str, str]:
    """Of the daemon."""
    return {"JOBSTATE_NATS__URL": server.url, "JOBSTATE_NATS__USER": "daemon", "JOBSTATE_NATS__PASSWORD": "p"}


async def report(client: Client, job: str) -> None:
    """As any producer."""
    await client.request(
        NAMES.report(job_key("default", job)), json.dumps({"StateType": "Running"}).encode(), timeout=DEADLINE_S
    )


async def test_it_is_not_ready_before_it_reads(tmp_path: Path) -> None:
    """The consumer of the input can be made, and not be asked: never ready, and the permission is named."""
    async with Server(tmp_path / "nats", users(publish=NEXT)) as server:
        daemon = Daemon(tmp_path / "daemon", settings(server))
        try:
            said = ""
            async with asyncio.timeout(DEADLINE_S):
                while "violation" not in said or not (await daemon.numbers("jobstate_input_restarts"))[RESTARTS,]:
                    status, said = await daemon.get("/readyz")
                    assert status == 503
                    await asyncio.sleep(0.01)
            found = json.loads(said)["parts"]["input"]
            assert f'permissions violation for publish to "{NEXT.removesuffix(">")}' in found
            assert LIST in found
        finally:
            daemon.kill()


async def test_an_inbox_that_is_taken_away_and_given_back(tmp_path: Path) -> None:
    """No connection is lost by it: reader and writer say so, are made anew, and what waited is in the log."""
    async with Server(tmp_path / "nats", users()) as server:
        daemon = Daemon(tmp_path / "daemon", settings(server))
        admin = Client()
        await admin.connect(server.url.replace("//", "//admin:p@"))
        try:
            await daemon.until_ready()
            await server.reload(server.configuration().replace(users(), users(subscribe=INBOX)))
            for part in ("log", "input"):
                found = (await daemon.until_status(503, f'"{part}": "'))["parts"]
                while LIST not in found[part]:
                    found = (await daemon.until_status(503))["parts"]
                assert 'permissions violation for subscription to "_INBOX_jobstate_main.' in found[part]
            await report(admin, "j-1")
            await server.reload(server.configuration())
            (update,) = await updates_of(admin.jetstream(), job_key("default", "j-1"), 1)
            assert update.StateType == "Running"
            await daemon.until_ready()
            numbers = await daemon.numbers("jobstate_deaf", "jobstate_reconnects")
            for name in ("writer", "reader"):
                assert numbers["jobstate_deaf_total", name] >= 1
                assert numbers["jobstate_reconnects_total", name] >= 1
            assert await daemon.stop() == 0
        finally:
            daemon.kill()
            await admin.close()


@pytest.mark.parametrize(
    ("denied", "named"),
    [
        (users(publish="$JS.API.INFO"), 'permissions violation for publish to "$JS.API.INFO"'),
        (users(subscribe=INBOX), 'permissions violation for subscription to "_INBOX_jobstate_main.'),
    ],
)
async def test_a_start_without_what_it_needs_names_it(tmp_path: Path, denied: str, named: str) -> None:
    """JetStream is on: it ends with 11, by the permission, and sends nobody to start nats-server with -js."""
    async with Server(tmp_path / "nats", denied) as server:
        daemon = Daemon(tmp_path / "daemon", settings(server))
        try:
            assert await daemon.ended() == 11
            last = daemon.said().splitlines()[-1]
            assert named in last
            assert LIST in last
            assert "-js" not in last
        finally:
            daemon.kill()


async def test_a_secret_that_was_changed_is_used_without_a_restart(tmp_path: Path) -> None:
    """The server lets us in no more; the daemon waits, says why, and takes what the file says then."""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("old-one")
    async with Server(tmp_path / "nats", 'authorization { token: "old-one" }\n') as server:
        variables = {"JOBSTATE_NATS__URL": server.url, "JOBSTATE_NATS__TOKEN_FILE": str(token)}
        daemon = Daemon(tmp_path / "daemon", variables)
        client = Client()
        try:
            await daemon.until_ready()
            await server.reload(server.configuration().replace("old-one", "new-one"))
            said = await daemon.until_status(503, "refuses us")
            assert "if its credential was changed, change ours too (nats.token_file" in str(said["parts"]["log"])
            token.write_text("new-one")
            await daemon.until_ready()
            await client.connect(server.url, token="new-one", allow_reconnect=False)
            await report(client, "j-1")
            assert [
                update.StateType for update in await updates_of(client.jetstream(), job_key("default", "j-1"), 1)
            ] == ["Running"]
        finally:
            await client.close()
            daemon.kill()
