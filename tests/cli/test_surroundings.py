"""What surrounds the process: standard streams, locale, variables of other software, limits and signals.

Each with real processes, started as a shell starts them. No verb and no daemon may end in a traceback, with the wrong
exit code, or not at all.
"""

import array
import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from consumer.errors import ExitCode
from tests.cli.conftest import Stage, life
from tests.daemon.process import NAMES, ROOT, SMALL_STREAMS
from tests.loopback import free_port
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.server

MESSAGE: Final = "l\xe4uft \u2013 \u65e5\u672c"
"""What Latin-1 can spell in part, and ASCII not at all."""
ESCAPED: Final = r"l\xe4uft \u2013 \u65e5\u672c"

Ended = subprocess.CompletedProcess[bytes]


def environment(stage: Stage, variables: Mapping[str, str]) -> dict[str, str]:
    """Ours, the server's address, and *variables*; without what this machine has of them."""
    hidden = ("JOBSTATE_", "COV_", "LC_", "LANG", "PYTHONUTF8", "PYTHONIOENCODING")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
    return kept | {"JOBSTATE_NATS__URL": stage.server.url} | dict(variables)


async def shell(
    stage: Stage, arguments: str | list[bytes], *, before: str = "", redirect: str = "", **env: str
) -> Ended:
    """Run a verb from a shell, after the command *before* and with *redirect*, until it ends."""
    words = arguments.split() if isinstance(arguments, str) else arguments
    command = ["sh", "-c", f'{before}\nexec "$@" {redirect}', "sh", sys.executable, "-m", "consumer", *words]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        env=environment(stage, {"PYTHONPATH": str(ROOT), **env}),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=DEADLINE_S,
    )


class Daemon:
    """A daemon that a shell started, seen by its HTTP server alone: its standard streams may lead anywhere."""

    def __init__(self, stage: Stage, redirect: str, before: str, variables: Mapping[str, str]) -> None:
        port = free_port()
        self._url: Final = f"http://127.0.0.1:{port}"
        command = ["sh", "-c", f'{before}\nexec "$@" {redirect}', "sh", sys.executable, "-m", "consumer", "run"]
        # A file: a pipe that nobody reads is full one day, and whoever writes to it stands still.
        self._said: Final = tempfile.TemporaryFile()  # noqa: SIM115 - `kill` closes it
        self.process: Final = subprocess.Popen(
            command,
            env=environment(stage, SMALL_STREAMS | {"JOBSTATE_HTTP__PORT": str(port)} | dict(variables)),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
        )

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of its answer; 0 if there is none."""
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as session, session.get(f"{self._url}{path}") as answer:
                return answer.status, await answer.text()
        return 0, ""

    async def until_ready(self) -> None:
        """Wait until it is."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while (await self.get("/readyz"))[0] != 200:
                    assert self.process.poll() is None, f"{self.process.returncode}: {self.said()}"
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"never ready: {self.said()}")

    def links(self) -> list[str]:
        """Where its three standard descriptors lead; none where the system does not tell."""
        return [str(path.readlink()) for path in Path(f"/proc/{self.process.pid}/fd").glob("[012]")]

    async def end(self, sign: signal.Signals) -> tuple[int, str]:
        """Send it *sign*; its exit code and its standard error, where that was not redirected."""
        self.process.send_signal(sign)
        await asyncio.to_thread(self.process.wait, DEADLINE_S)
        return self.process.returncode, self.said()

    def said(self) -> str:
        """Its standard error, where that was not redirected."""
        return os.pread(self._said.fileno(), 1 << 24, 0).decode()  # its place in the file is the process's, too

    async def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        self._said.close()


@contextlib.asynccontextmanager
async def daemon(stage: Stage, *, redirect: str = "", before: str = "", **variables: str) -> AsyncIterator[Daemon]:
    """A daemon that is ready."""
    started = Daemon(stage, redirect, before, variables)
    try:
        await started.until_ready()
        yield started
    finally:
        await started.kill()


# -- standard streams --------------------------------------------------------------------------------------------------

STREAMS: Final = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", "0>/dev/null", "1</dev/null", "2</dev/null", "2>/dev/full")


@pytest.mark.parametrize("redirect", STREAMS)
async def test_a_verb_does_its_work_whatever_its_streams_are(stage: Stage, redirect: str) -> None:
    """Closed, for the wrong direction, on a full disk: the exit code is the answer, and no traceback is anywhere."""
    await stage.live("j-1", "Pending")
    for line, code in (("list", 0), ("get j-0", ExitCode.NO_INPUT), ("rules --explain Failed Running", 1)):
        ended = await shell(stage, line, redirect=redirect)
        assert (line, ended.returncode) == (line, code), ended.stderr
        assert b"Traceback" not in ended.stderr
        if line == "list" and not redirect.startswith(("1", ">", "<&- >")):
            assert b"j-1" in ended.stdout


@pytest.mark.parametrize("redirect", STREAMS)
async def test_a_daemon_does_its_work_whatever_its_streams_are(bare: Stage, redirect: str) -> None:
    """The same of `run`: it becomes ready, and ends in order at SIGTERM. A socket never gets a stream's number."""
    async with daemon(bare, redirect=redirect) as running:
        links = running.links()
        assert not any("socket" in link or "event" in link for link in links), links
        assert (await running.end(signal.SIGTERM))[0] == ExitCode.OK


# -- a locale or terminal that is not UTF-8 ----------------------------------------------------------------------------

ASCII: Final = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES: Final[Mapping[str, Mapping[str, str]]] = {
    "POSIX": ASCII,
    "C": {"LANG": "C"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "strict": {"PYTHONIOENCODING": "ascii:strict", "LANG": "C.UTF-8"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.mark.parametrize("name", LOCALES)
async def test_what_a_locale_cannot_spell_is_escaped(stage: Stage, name: str) -> None:
    """One producer's message makes no verb fail, for its job or another's; what can be spelled is as it was."""
    (update,) = life("j-1", "Failed", message=MESSAGE)
    await stage.update(update)
    encoding = "latin-1" if name == "latin-1" else "utf-8" if name == "C" else "ascii"
    shown = MESSAGE.encode(encoding, "backslashreplace")
    for line in ("list", "get j-1", "watch --since start --count 1"):
        ended = await shell(stage, line, **LOCALES[name])
        assert (line, ended.returncode, ended.stderr) == (line, 0, b"")
        assert shown in ended.stdout, line


async def test_an_error_is_escaped_too(stage: Stage) -> None:
    """What was typed and what a file is called may be any bytes: a usage error or its own answer, never a traceback."""
    await stage.live("j-1", "Pending")
    wrong = b"\xff\xe4"
    for words, code in (
        ([b"get", wrong], ExitCode.USAGE),
        ([wrong], ExitCode.USAGE),
        ([b"list", b"--" + wrong], ExitCode.USAGE),
        ([b"list", b"--cluster", wrong], ExitCode.USAGE),
        ([b"list", b"--nats", b"nats://" + wrong], ExitCode.USAGE),
        ([b"list", b"--config", wrong], ExitCode.USAGE),
        ([b"list", b"--token-file", wrong], ExitCode.USAGE),
        ([b"rules", b"--check", wrong], ExitCode.USAGE),
        ([b"send", b"j-1", b"Running", b"--message", wrong], ExitCode.USAGE),
        ([b"get", MESSAGE.encode()], ExitCode.NO_INPUT),
    ):
        ended = await shell(stage, words, **ASCII)
        assert ended.returncode == code, ended
        assert b"Traceback" not in ended.stderr
        assert ended.stderr.isascii()
        assert (ESCAPED.encode() in ended.stderr) is (code == ExitCode.NO_INPUT)


async def test_a_file_may_be_called_anything(stage: Stage, tmp_path: Path) -> None:
    """A settings file and a token file whose names are not UTF-8 are read."""
    await stage.live("j-1", "Pending")
    names = [os.fsencode(tmp_path) + b"/\xff.toml", os.fsencode(tmp_path) + b"/\xff.token"]
    for name, text in zip(names, (b'cluster = "main"', b"t"), strict=True):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, text)
        os.close(descriptor)
    ended = await shell(stage, [b"list", b"--config", names[0], b"--token-file", names[1]])
    assert (ended.returncode, ended.stderr) == (0, b"")


async def test_a_daemon_escapes_what_its_locale_cannot_spell(bare: Stage, tmp_path: Path) -> None:
    """Its lines for people, in ASCII: it goes on, and no line is lost."""
    rules = (ROOT / "config/rules/bacalhau.toml").read_text(encoding="utf-8")
    file = tmp_path / "rules.toml"
    file.write_text(rules.replace('name = "bacalhau"', f'name = "{MESSAGE}"'), encoding="utf-8")
    settings = {"JOBSTATE_LOG__FORMAT": "console", "JOBSTATE_RULES__FILE": str(file)}
    async with daemon(bare, **ASCII, **settings, JOBSTATE_NATS__USER=MESSAGE, JOBSTATE_NATS__PASSWORD="x") as running:
        assert "jobstate_log_lines_lost_total 0.0" in (await running.get("/metrics"))[1]
        code, said = await running.end(signal.SIGTERM)
    assert code == ExitCode.OK
    assert ESCAPED in said


# -- variables of other software, and ours -----------------------------------------------------------------------------

OTHERS: Final[Mapping[str, Mapping[str, str]]] = {
    "other software's": {
        "ALL_PROXY": "socks5://127.0.0.1:1",
        "COLUMNS": "abc",
        "FORCE_COLOR": "1",
        "HOME": "/nonexistent",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "LINES": "-1",
        "NO_COLOR": "1",
        "PROMETHEUS_MULTIPROC_DIR": "/nonexistent",
        "SSL_CERT_FILE": "/nonexistent",
        "TERM": "dumb",
        "TMPDIR": "/nonexistent",
        "XDG_CONFIG_HOME": "/nonexistent",
        "prometheus_multiproc_dir": "/nonexistent",
    },
    "Python's": {
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONOPTIMIZE": "2",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "error",
    },
    "Python's for developers": {"PYTHONDEVMODE": "1"},
    "Kubernetes'": {
        "JOBSTATE_PORT": "tcp://10.0.0.1:9090",
        "JOBSTATE_PORT_9090_TCP_ADDR": "10.0.0.1",
        "JOBSTATE_SERVICE_HOST": "10.0.0.1",
        "JOBSTATE_SERVICE_PORT_METRICS": "9090",
    },
}


@pytest.mark.parametrize("whose", OTHERS)
async def test_variables_of_others_change_nothing(bare: Stage, tmp_path: Path, whose: str) -> None:
    """Neither of a verb nor of a daemon: it takes a report in, counts it where a scrape sees it, and writes no file."""
    variables = dict(OTHERS[whose])
    if "PROMETHEUS_MULTIPROC_DIR" in variables:
        variables["PROMETHEUS_MULTIPROC_DIR"] = variables["prometheus_multiproc_dir"] = str(tmp_path)
    async with daemon(bare, **variables) as running:
        await bare.client.jetstream().publish(f"{NAMES.in_prefix}default.j-1", b'{"StateType": "Running"}')
        await bare.bucket_has(1)
        ended = await shell(bare, "list", **variables)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert ended.stdout.split(b"\t")[1:4] == [b"Running", b"default", b"j-1"]
        assert "jobstate_reports_total 1.0" in (await running.get("/metrics"))[1]
        code, said = await running.end(signal.SIGTERM)
    assert code == ExitCode.OK
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert not any(name.endswith(".db") for name in os.listdir(tmp_path))  # noqa: PTH208 - only names are wanted


@pytest.mark.parametrize("columns", ["0", "-1", "abc", "1"])
async def test_a_terminal_of_any_width_shows_something(stage: Stage, columns: str) -> None:
    """COLUMNS may be nonsense, and a terminal may not know its size: the table is there all the same."""
    await stage.live("j-1", "Pending")
    ours, theirs = os.openpty()
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "consumer", "list"],
        env=environment(stage, {"COLUMNS": columns, "TERM": "xterm", "NO_COLOR": "1"}),
        cwd=ROOT,
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
        timeout=DEADLINE_S,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody writes there any more
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    assert (process.returncode, process.stderr) == (0, b"")
    assert b"Pending" in shown.replace(b"\r\n", b"").replace(b" ", b"")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"JOBSTATE_CLUSTER": ""}, "environment: JOBSTATE_CLUSTER: cluster: "),
        ({"JOBSTATE_CLUSTERS": "x"}, "environment: JOBSTATE_CLUSTERS: unknown; did you mean JOBSTATE_CLUSTER?"),
        ({"JOBSTATE_CONFG": "x"}, "environment: JOBSTATE_CONFG: unknown; did you mean JOBSTATE_CONFIG?"),
        ({"JOBSTATE_NATS__USER": "\udcff"}, "environment: JOBSTATE_NATS__USER: nats.user: is not UTF-8 text"),
        ({"JOBSTATE_NATS__PASSWORD": "\udcff"}, "environment: JOBSTATE_NATS__PASSWORD: nats.password: is not UTF-8"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
async def test_a_variable_of_ours_is_refused_by_name(bare: Stage, variables: dict[str, str], words: str) -> None:
    """Empty, misspelt, not UTF-8: exit 2 from a verb and from the daemon, and which one it is."""
    for line in ("list", "run"):
        ended = await shell(bare, line, **variables)
        assert ended.returncode == ExitCode.USAGE
        assert words in ended.stderr.decode()
        assert "Traceback" not in ended.stderr.decode()


async def test_authorities_that_are_not_there_are_told(bare: Stage) -> None:
    """SSL_CERT_FILE that names nothing leaves no certificate to be trusted: said where TLS is asked for, only there."""
    ended = await shell(bare, "list --nats tls://127.0.0.1:1", SSL_CERT_FILE="/nonexistent/ca.pem")
    assert "SSL_CERT_FILE names /nonexistent/ca.pem, which cannot be read" in ended.stderr.decode()
    ended = await shell(bare, "list", SSL_CERT_FILE="/nonexistent/ca.pem")
    assert "SSL_CERT_FILE" not in ended.stderr.decode()


@pytest.mark.parametrize("path", ["/nonexistent/keys", "/"])
async def test_a_key_log_that_cannot_be_written_is_refused_by_name(bare: Stage, path: str) -> None:
    """Python opens SSLKEYLOGFILE for each TLS context, also where nobody asks for TLS."""
    for line in ("list", "run"):
        ended = await shell(bare, line, SSLKEYLOGFILE=path)
        assert ended.returncode == ExitCode.USAGE
        assert ended.stderr.startswith(
            f"jobstate: environment: SSLKEYLOGFILE: TLS keys cannot be appended to {path}".encode()
        )
        assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("encoding", ["idna", "utf-16", "utf-8-sig", "punycode"])
async def test_a_daemon_logs_in_utf_8_where_an_encoding_cannot_be_used(bare: Stage, encoding: str) -> None:
    """One without an error handler, and those that begin each text anew: the log is there, whole lines of JSON."""
    async with daemon(bare, PYTHONIOENCODING=encoding) as running:
        _, said = await running.end(signal.SIGTERM)
    assert '"daemon.started"' in said
    assert all(line.startswith("{") for line in said.splitlines())


# -- outputs that nobody reads -----------------------------------------------------------------------------------------


def waiting_in(descriptor: int) -> int:
    """Bytes that a pipe holds."""
    found = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, found)
    return found[0]


@pytest.fixture
def unread() -> Iterator[tuple[int, int]]:
    """Both ends of a small pipe that nobody reads."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    os.close(reading)
    os.close(writing)


RECORDING: Final = "tests/recordings/bacalhau-v1.9.3/burst"


@pytest.mark.parametrize(
    ("line", "sign", "code"),
    [
        ("watch --since start --json", signal.SIGINT, ExitCode.OK),
        ("list --json", signal.SIGINT, 130),
        (f"replay --json {RECORDING}", signal.SIGINT, 130),
        (f"demo --json --speed max --recording {RECORDING}", signal.SIGINT, 130),
        (f"demo --json --speed max --recording {RECORDING}", signal.SIGTERM, 130),
        ("watch --since start --json", signal.SIGTERM, -signal.SIGTERM),
        ("list --json", signal.SIGHUP, -signal.SIGHUP),
    ],
)
async def test_a_signal_ends_a_verb_that_waits_for_its_reader(
    stage: Stage, unread: tuple[int, int], line: str, sign: signal.Signals, code: int
) -> None:
    """A pager that stands still: the verb waits for it, which is right, and Ctrl-C and SIGTERM end it all the same."""
    (update,) = life("j-1", "Failed", message="x" * 20_000)
    await stage.update(update)
    reading, writing = unread
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", *line.split()],
        env=environment(stage, {}),
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    try:
        # No line of theirs that is shorter than the pipe is longer than half of it: the next one waits, or did so.
        await until(lambda: waiting_in(reading) > 2048, f"never wrote: {line}")
        process.send_signal(sign)
        _, said = await asyncio.to_thread(process.communicate, timeout=DEADLINE_S)
        assert process.returncode == code
        assert b"Traceback" not in said
        assert b"Exception" not in said
    finally:
        process.kill()
        process.wait()


# -- limits, signals, a folder that is gone ----------------------------------------------------------------------------


async def test_a_limit_of_open_files_that_is_too_low_is_named(bare: Stage) -> None:
    """Before anything fails for it anywhere: exit 2 and what to raise; with the least that is asked for both work."""
    for line in ("list", "run"):
        ended = await shell(bare, line, before="ulimit -n 16")
        assert ended.returncode == ExitCode.USAGE
        assert b"the limit of open files is 16, and at least 32 are needed: raise it" in ended.stderr
    async with daemon(bare, before="ulimit -n 32") as running:
        assert (await shell(bare, "list", before="ulimit -n 32")).returncode == ExitCode.OK
        assert (await running.end(signal.SIGTERM))[0] == ExitCode.OK


async def test_a_limit_of_file_size_is_a_full_disk(bare: Stage, tmp_path: Path) -> None:
    """`ulimit -f`: a daemon loses lines and goes on; of a verb the documented code and sentence."""
    async with daemon(bare, before="ulimit -f 0", redirect=f"2>{tmp_path}/log") as running:
        await bare.client.jetstream().publish(f"{NAMES.in_prefix}default.j-1", b'{"StateType": "Running"}')
        await bare.bucket_has(1)
        assert "jobstate_log_lines_lost_total 0.0" not in (await running.get("/metrics"))[1]
        ended = await shell(bare, "list", before="ulimit -f 0", redirect=f">{tmp_path}/out")
        assert ended.returncode == ExitCode.OUTPUT
        assert b"File too large" in ended.stderr
        assert (await running.end(signal.SIGTERM))[0] == ExitCode.OK


async def test_sighup_ends_a_daemon_in_order_and_one_under_nohup_not_at_all(bare: Stage) -> None:
    """The terminal was closed: as SIGTERM. Who has it ignored wants the daemon to go on."""
    async with daemon(bare) as running:
        code, said = await running.end(signal.SIGHUP)
        assert code == ExitCode.OK
        assert '"event": "daemon.stopped"' in said
    async with daemon(bare, before="trap '' HUP") as running:
        running.process.send_signal(signal.SIGHUP)
        assert (await running.get("/livez"))[0] == 200
        assert (await running.end(signal.SIGTERM))[0] == ExitCode.OK


async def test_a_working_directory_that_is_gone(bare: Stage, tmp_path: Path) -> None:
    """Nothing needs it but what is looked for there, and that says so."""
    (tmp_path / "gone").mkdir()
    before = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone"
    async with daemon(bare, before=before, PYTHONPATH=str(ROOT)) as running:
        (tmp_path / "gone").mkdir()
        assert (await shell(bare, "list", before=before)).returncode == ExitCode.OK
        assert (await running.end(signal.SIGTERM))[0] == ExitCode.OK
    (tmp_path / "gone").mkdir()
    ended = await shell(bare, "list --token-file token", before=before)
    assert ended.returncode == ExitCode.USAGE
    assert b"it was looked for in the working directory, which is gone" in ended.stderr
