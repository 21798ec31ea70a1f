"""Credentials files, with a real server in operator mode: they work, or what is wrong with them is said at once."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from consumer.errors import ExitCode, SettingsError, UnreachableError
from consumer.nats.address import Address
from consumer.nats.connect import connect_reader, connect_writer
from consumer.nats.require import require_server
from consumer.settings import Nats, load, read_credentials
from tests.daemon.process import Daemon
from tests.operator_mode import BEGIN_JWT, BEGIN_SEED, Operator
from tests.server import Server
from tests.waiting import DEADLINE_S, given_time, until

pytestmark = pytest.mark.server

OPERATOR: Final = Operator()
SETTING: Final = "nats.credentials_file"


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that lets in whom the operator's account vouches for."""
    async with Server(tmp_path / "nats", OPERATOR.configuration) as made:
        yield made


def written(folder: Path, text: str | bytes) -> Path:
    """A file with *text*, readable by us alone."""
    path = folder / "user.creds"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)
    return path


def address(server: Server, path: Path) -> Address:
    """As the settings name it."""
    return Address.of(Nats(url=server.url, credentials_file=str(path)), "main")


def verb(variables: dict[str, str], *words: str, without_nkeys: bool = False) -> subprocess.CompletedProcess[str]:
    """A verb as a process of its own."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("JOBSTATE_", "COV_"))}
    hidden = "sys.modules['nkeys'] = None; " if without_nkeys else ""
    code = f"import sys; {hidden}from consumer.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


CHANGES: Final[dict[str, Callable[[str], bytes]]] = {
    "as nsc writes it": str.encode,
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "both, and blanks": lambda text: b"\xef\xbb\xbf\r\n " + text.replace("\n", " \r\n").encode(),
    "no line end at its end": lambda text: text.rstrip().encode(),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_credentials_file_opens_a_connection(server: Server, tmp_path: Path, kind: str) -> None:
    """Whatever an editor or a copy from Windows made of its lines."""
    path = written(tmp_path, CHANGES[kind](OPERATOR.credentials()))
    connection = await connect_writer(address(server, path), "test", within_s=DEADLINE_S)
    await require_server(connection)
    await connection.close()


async def test_the_daemon_and_the_verbs_run_with_it(server: Server, tmp_path: Path) -> None:
    """From the start to the end, as anybody's who has such a file."""
    path = written(tmp_path, OPERATOR.credentials())
    variables = {"JOBSTATE_NATS__URL": server.url, "JOBSTATE_NATS__CREDENTIALS_FILE": str(path)}
    daemon = Daemon(tmp_path / "daemon", variables)
    try:
        await daemon.until_ready()
        listed = await asyncio.to_thread(verb, variables, "list")
        assert (listed.returncode, listed.stdout) == (0, "")
        assert listed.stderr.startswith("jobstate: no job is known in cluster main yet")
        examined = await asyncio.to_thread(verb, variables, "doctor", "--listen", "1s")
        assert "it takes our credential" in examined.stdout
        assert await daemon.stop() == 0
    finally:
        daemon.kill()


async def test_a_renewed_file_is_read_when_it_connects_again(server: Server, tmp_path: Path) -> None:
    """And one that is damaged for a moment, as by whoever is writing it, is told of and tried again."""
    path = written(tmp_path, OPERATOR.credentials())
    connection = await connect_reader(address(server, path), "test", within_s=DEADLINE_S)
    before = connection.credentials.data
    written(tmp_path, f"{BEGIN_JWT}\n")
    await server.restart()
    await until(lambda: "credentials" in connection.last_trouble, "the word on the damaged file")
    assert connection.last_fault is not None
    assert connection.last_fault.kind == "refused"
    assert "nats.credentials_file" in connection.last_fault.next_step
    written(tmp_path, OPERATOR.credentials())
    await until(lambda: connection.connects >= 2, "the reconnect")
    assert connection.credentials.data != before
    await connection.close()


async def test_a_file_that_is_damaged_while_it_connects_is_waited_for(server: Server, tmp_path: Path) -> None:
    """It was right at the start: so the daemon goes on trying."""
    path = written(tmp_path, OPERATOR.credentials())
    where = address(server, path)
    written(tmp_path, "")

    async def attempt(within_s: float) -> str:
        with pytest.raises(UnreachableError) as caught:
            await connect_writer(where, "test", within_s=within_s)
        return str(caught.value)

    said = await given_time(attempt, lambda said: SETTING in said)
    assert re.search(f"{SETTING}: the file .* holds no credentials", said)


GOOD: Final = OPERATOR.credentials()
SEED: Final = GOOD.partition(BEGIN_SEED)[2].split()[0]
TOKEN: Final = GOOD.partition(BEGIN_JWT)[2].split()[0]
OTHER: Final = "A" if SEED[20] != "A" else "B"
DAMAGED: Final[dict[str, tuple[str | bytes, str]]] = {
    "empty": ("", "holds no credentials of NATS"),
    "something else": ("hello\n", "holds no credentials of NATS"),
    "the JWT alone": (f"{BEGIN_JWT}\n{TOKEN}\n------END NATS USER JWT------\n", "holds no seed"),
    "the seed alone": (f"{BEGIN_SEED}\n{SEED}\n------END USER NKEY SEED------\n", "holds no JWT"),
    "cut": (GOOD[: GOOD.index(SEED)], "holds no seed"),
    "no JWT between its lines": (GOOD.replace(f"{TOKEN}\n", ""), "holds no JWT"),
    "a seed cut short": (GOOD.replace(SEED, SEED[:-1]), "the seed in the file"),
    "one character of the seed is another": (
        GOOD.replace(SEED, f"{SEED[:20]}{OTHER}{SEED[21:]}"),
        "the seed in the file",
    ),
    "a seed that is no base32": (GOOD.replace(SEED, f"{SEED[:-1]}1"), "the seed in the file"),
    "an account's seed": (GOOD.replace(SEED, OPERATOR.account.seed), "or no user's"),
    "a JWT cut short": (GOOD.replace(TOKEN, TOKEN.rpartition(".")[0]), "the JWT in the file"),
    "UTF-16": (GOOD.encode("utf-16"), "is not UTF-8 text"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused_at_the_start(tmp_path: Path, kind: str) -> None:
    """With file, reason and next step, and without a word of what stands in it."""
    text, reason = DAMAGED[kind]
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(None, {"JOBSTATE_NATS__CREDENTIALS_FILE": str(path)})
    said = str(caught.value)
    assert f"JOBSTATE_NATS__CREDENTIALS_FILE: {SETTING}: " in said
    assert reason in said
    assert str(path) in said
    assert "; name a user's credentials file (nsc" in said
    assert SEED[2:12] not in said
    assert TOKEN[:12] not in said
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """It is not there, or a folder; the secret itself, given in place of a file, is not shown."""
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError, match=f"the file {path} cannot be read .{reason}.; name a user's"):
            read_credentials(str(path), SETTING)
    with pytest.raises(SettingsError, match="a setting names the file") as caught:
        read_credentials(SEED, SETTING)
    assert SEED not in str(caught.value)
    assert caught.value.__cause__ is None


def test_nothing_shows_what_stands_in_it(tmp_path: Path) -> None:
    """Neither the repr of what was read, nor that of where it goes."""
    read = read_credentials(str(written(tmp_path, GOOD)), SETTING)
    assert (read.jwt, read.seed) == (TOKEN, SEED)
    assert SEED not in f"{read!r} {read}"


@pytest.mark.parametrize("words", [["run"], ["list"], ["doctor", "--listen", "1s"]])
def test_without_the_package_it_says_what_to_install(tmp_path: Path, words: list[str]) -> None:
    """nats-py has it as an extra. Refused at the start, and no traceback."""
    path = written(tmp_path, GOOD)
    variables = {"JOBSTATE_NATS__CREDENTIALS_FILE": str(path), "JOBSTATE_HTTP__PORT": "0"}
    ended = verb(variables, *words, without_nkeys=True)
    assert "pip install 'nats-py[nkeys]'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == (1 if words[0] == "doctor" else 2)  # to the doctor it is a finding
