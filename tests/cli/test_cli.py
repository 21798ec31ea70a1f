"""The command itself: its verbs, their help, its version."""

import importlib.util
import json
import subprocess
import sys

import nats.aio.client
import pytest

import consumer
from consumer.cli.verbs import VERBS
from consumer.errors import ExitCode
from tests.cli.conftest import Stage
from tests.waiting import DEADLINE_S

HERE = [verb for verb, (place, _) in VERBS.items() if importlib.util.find_spec(place.partition(":")[0])]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`jobstate` with *arguments*, without a server."""
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments], capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )


def test_help_lists_every_verb_and_imports_none() -> None:
    """The list of verbs loads neither a NATS client nor a table nor any verb's module."""
    script = (
        "import sys; sys.argv = ['jobstate', '--help']\n"
        "from consumer.cli.verbs import app\n"
        "try: app(prog_name='jobstate')\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m in {'nats', 'rich', 'aiohttp'} or m.startswith('consumer.')])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=DEADLINE_S
    )

    assert all(f"  {verb} " in ended.stdout for verb in VERBS)
    ours = ["consumer.cli.streams", "consumer.faults", "consumer.errors", "consumer.cli", "consumer.cli.verbs"]
    assert ended.stdout.splitlines()[-1] == str(ours)


@pytest.mark.parametrize("verb", HERE)
def test_each_verb_has_help_with_an_example(verb: str) -> None:
    """`--help` of each verb, and of each verb below it, ends well and shows how it is typed."""
    ended = run(verb, "--help")

    assert ended.returncode == ExitCode.OK, ended.stderr
    assert f"Usage: jobstate {verb}" in ended.stdout
    if verb == "quarantine":
        assert all("Example: jobstate" in run(verb, below, "--help").stdout for below in ("list", "show"))
    else:
        assert "Example" in ended.stdout


def test_a_verb_that_is_none_is_a_usage_error() -> None:
    """Exit 2, and how to find out."""
    ended = run("lst")

    assert ended.returncode == ExitCode.USAGE
    assert "No such command 'lst'" in ended.stderr


def test_version_says_what_this_stands_on() -> None:
    """Ours, Python's, nats-py's, msgspec's; no server is asked."""
    said = json.loads(run("version", "--json").stdout)

    assert said["jobstate"] == consumer.__version__
    assert said["nats-py"] == nats.aio.client.__version__
    assert set(said) == {"jobstate", "python", "nats-py", "msgspec"}


async def test_version_asks_a_server_that_is_named(bare: Stage) -> None:
    """With --nats the server's version is there too; JetStream and a log are not needed for it."""
    ended = await bare.verb("version", "--nats", bare.server.url)

    assert ended.code == ExitCode.OK
    name, version = ended.lines[-1].split()
    assert name == "nats-server"
    assert f"<nats server v{version}>" == str(bare.client.connected_server_version)
