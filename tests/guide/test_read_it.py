"""Every snippet of docs/guide/read-it.md, run as it stands there: a real nats-server, a real daemon, real clients.

`make readers` fetches the clients of Node and Go, in the versions of `readers/`. Without them the tests of a language
are skipped, and say so.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from consumer.wire.subjects import escape
from tests.cli.conftest import Running, Stage, staged
from tests.daemon.process import Daemon
from tests.waiting import DEADLINE_S
from tests.waiting import until as fact

pytestmark = pytest.mark.server

ROOT: Final = Path(__file__).parents[2]
READERS: Final = ROOT / ".readers"
"""What `make readers` has fetched."""
PAGE: Final = (ROOT / "docs/guide/read-it.md").read_text(encoding="utf-8")
FILE: Final = re.compile(r"(?://|#) (\w+\.(?:mjs|go|py)):")
NAMES: Final = (
    *(
        "j-1",
        "azAZ09_",
        "team.a",
        "nightly build",
        "",
        "=",
        "~",
        "*",
        ">",
        "a/b",
        "%41",
        "'\"$",
        "é",
        "😀",
        " ",
        "line\nbreak",
    ),
    *("x" * 128, "x" * 129, "." * 42, "." * 43, "é" * 30),
)
"""Texts that a token must spell: hostile ones, and those just within its bound and beyond."""


GO_TOKENS: Final = """
func main() {
	tokens := []string{}
	for _, text := range os.Args[1:] {
		tokens = append(tokens, token(text))
	}
	json.NewEncoder(os.Stdout).Encode(tokens)
}
"""


def blocks(language: str) -> list[str]:
    """The snippets of *language*, in the order of the page."""
    return re.findall(rf"(?s)```{language}\n(.*?)```", PAGE)


def block(words: str) -> str:
    """The one snippet of the shell that contains *words*."""
    (found,) = (one for one in blocks("sh") if words in one)
    return found


def write(language: str, folder: Path) -> None:
    """Store each snippet of *language* under the name that its first line says."""
    for text in blocks(language):
        found = FILE.match(text)
        assert found is not None, text.partition("\n")[0]
        (folder / found[1]).write_text(text, encoding="utf-8")


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run *command* to its end."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=DEADLINE_S,
    )


def need(program: str, package: Path) -> None:
    """Skip the test if *program* or *package* is not there."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on PATH")
    if not package.is_dir():
        pytest.skip(f"no {package.relative_to(ROOT)}: `make readers` fetches it")


class Reader:
    """The snippets of one language: how each of them is started, and where it keeps its files."""

    def __init__(self, folder: Path, command: Callable[..., list[str]], tokens: Sequence[str]) -> None:
        self.folder: Final = folder
        self.command: Final = command
        self.tokens: Final = tokens
        """Prints a line of JSON: the tokens of its arguments."""


def _javascript(folder: Path) -> Reader:
    need("node", READERS / "js/node_modules/@nats-io/transport-node")
    folder.mkdir()
    (folder / "node_modules").symlink_to(READERS / "js/node_modules")
    write("js", folder)
    driver = 'import("./token.mjs").then(({ token }) => console.log(JSON.stringify(process.argv.slice(1).map(token))))'
    return Reader(folder, lambda name, *rest: ["node", f"{name}.mjs", *rest], ["node", "-e", driver, "--"])


def _go(folder: Path) -> Reader:
    need("go", READERS / "go/vendor/github.com/nats-io/nats.go")
    shutil.copytree(READERS / "go", folder)
    write("go", folder)
    local = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=vendor -buildvcs=false", "GOPROXY": "off"}
    built = run("go", "build", "-o", "feed", ".", cwd=folder, **local)
    assert built.returncode == 0, built.stderr
    # The same program, but for its `main`.
    program = (folder / "main.go").read_text(encoding="utf-8").replace("func main() {", "func unused() {")
    (folder / "main.go").write_text(program + GO_TOKENS, encoding="utf-8")
    built = run("go", "build", "-o", "tokens", ".", cwd=folder, **local)
    assert built.returncode == 0, built.stderr
    return Reader(folder, lambda name, *rest: ["./feed", name, *rest], ["./tokens"])


def _python(folder: Path) -> Reader:
    folder.mkdir()
    write("python", folder)
    driver = "import json, sys, tokens; print(json.dumps([tokens.token(text) for text in sys.argv[1:]]))"
    files = {"copy": "copy_log"}  # `copy` is a module of Python itself
    return Reader(
        folder,
        lambda name, *rest: [sys.executable, f"{files.get(name, name)}.py", *rest],
        [sys.executable, "-c", driver],
    )


MAKERS: Final = {"js": _javascript, "go": _go, "python": _python}


@pytest.fixture(scope="module", params=list(MAKERS))
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The snippets of each language in turn, ready to be run."""
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param) / "reader")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A server, and a daemon at it that follows reports."""
    async with staged(tmp_path) as stage:
        daemon = Daemon(tmp_path / "daemon", {"JOBSTATE_NATS__URL": stage.server.url})
        try:
            await daemon.until_ready()
            yield stage
        finally:
            daemon.kill()


async def tell(stage: Stage, job: str, *states: str) -> None:
    """Report *states* of a job (`NAMESPACE/ID`) and wait until the log has the last of them."""
    for state in states:
        assert (await stage.verb("send", job, state, "--type", "batch")).code == 0
    assert (await stage.verb("wait", job, "--for", states[-1])).code == 0


class Program(Running):
    """A snippet that is running, with all that it started."""

    async def kill(self) -> None:
        """End it, and what it started: a pipeline of the shell is several processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


async def start(stage: Stage, command: Sequence[str], folder: Path) -> Program:
    """Begin a program in *folder* that finds its server as the page says."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | {"JOBSTATE_NATS__URL": stage.server.url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    return Program(process)


async def acknowledged(stage: Stage, durable: str) -> None:
    """Wait until all that the durable consumer was given is acknowledged."""
    manager = stage.client.jsm()
    async with asyncio.timeout(DEADLINE_S):
        while True:
            info = await manager.consumer_info(stage.names.log, durable)
            if info.num_pending == 0 and info.num_ack_pending == 0:
                return
            await asyncio.sleep(0.02)


async def last_sequence(stage: Stage, subject: str) -> int:
    """The sequence of the last entry under *subject*."""
    return (await stage.client.jsm().get_last_msg(stage.names.log, subject)).seq or 0


async def kept(file: Path, sequence: int) -> None:
    """Wait until *file* says *sequence*."""
    await fact(lambda: file.exists() and file.read_text().strip() == str(sequence), f"{sequence} in {file.name}")


def test_a_token_is_the_daemons(reader: Reader) -> None:
    """Whatever a name is made of, and however long it is: each language spells it as the daemon does."""
    done = run(*reader.tokens, *NAMES, cwd=reader.folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [escape(name) for name in NAMES]


async def test_the_latest_state_is_found_by_its_escaped_key(reader: Reader, stage: Stage) -> None:
    """Of a job whose names have dots and blanks, and of one that nobody knows."""
    await tell(stage, "team.a/nightly build", "Running", "Failed")
    await stage.bucket_has(1)
    for job, said in (("nightly build", "Failed"), ("nobody", "unknown")):
        ended = await (await start(stage, reader.command("latest", "team.a", job), reader.folder)).end()
        assert (ended.code, ended.lines, ended.err) == (0, [said], "")


async def test_a_durable_consumer_goes_on_where_it_was(reader: Reader, stage: Stage) -> None:
    """What failed before it first ran, and what failed while it was away; what it acknowledged does not come again."""
    durable = {"node": "alert-js", "./feed": "alert-go"}.get(reader.command("alert")[0], "alert-py")
    await tell(stage, "default/j-1", "Pending", "Failed")
    await tell(stage, "team.a/nightly build", "Running", "Failed")
    running = await start(stage, reader.command("alert"), reader.folder)
    try:
        assert [await running.line(), await running.line()] == ["default/j-1 failed", "team.a/nightly build failed"]
        await acknowledged(stage, durable)
    finally:
        await running.kill()
    await tell(stage, "default/j-2", "Failed")
    running = await start(stage, reader.command("alert"), reader.folder)
    try:
        assert await running.line() == "default/j-2 failed"
    finally:
        await running.kill()


async def test_a_copy_goes_on_after_the_sequence_that_it_kept(reader: Reader, stage: Stage) -> None:
    """Every update once, in order, across a restart; and from the first, if the log was made anew."""
    position = reader.folder / "position"
    position.unlink(missing_ok=True)
    await tell(stage, "default/j-1", "Pending", "Running")
    running = await start(stage, reader.command("copy"), reader.folder)
    try:
        assert [await running.line(), await running.line()] == ["j-1 1 Pending", "j-1 2 Running"]
        await kept(position, await last_sequence(stage, "jobstate.v1.main.state.default.j-1.running"))
    finally:
        await running.kill()
    await tell(stage, "default/j-1", "Completed")
    running = await start(stage, reader.command("copy"), reader.folder)
    try:
        assert await running.line() == "j-1 3 Completed"
    finally:
        await running.kill()
    position.write_text("999999")
    running = await start(stage, reader.command("copy"), reader.folder)
    try:
        assert await running.line() == "j-1 1 Pending"
    finally:
        await running.kill()


@pytest.fixture
def shell(stage: Stage, tmp_path: Path) -> Callable[..., list[str]]:
    """The command that runs a snippet of the shell, with `jobstate` on PATH."""
    for needed in ("bash", "jq"):
        if shutil.which(needed) is None:
            pytest.skip(f"no {needed} on PATH: nothing here can run the snippets of the shell")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/jobstate"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m consumer "$@"\n')
    program.chmod(0o755)
    prefix = f'PATH="{tmp_path}/bin:$PATH"; export NATS_URL={stage.server.url}\n'
    return lambda *texts: ["bash", "-euo", "pipefail", "-c", prefix + "\n".join(texts)]


async def test_the_shell_waits_and_acts(stage: Stage, shell: Callable[..., list[str]], tmp_path: Path) -> None:
    """It deploys after the job completed, and says what its latest state is."""
    (tmp_path / "deploy").write_text("#!/bin/sh\necho deployed\n")
    (tmp_path / "deploy").chmod(0o755)
    await tell(stage, "team.a/nightly build", "Running", "Completed")
    waited = await (await start(stage, shell(block("./deploy")), tmp_path)).end()
    assert (waited.code, waited.lines[-1]) == (0, "deployed")
    asked = await (await start(stage, shell(block("jobstate get")), tmp_path)).end()
    assert (asked.code, asked.lines) == (0, ["Completed"])


async def test_the_shell_copies(stage: Stage, shell: Callable[..., list[str]], tmp_path: Path) -> None:
    """Every update once, across a restart."""
    await tell(stage, "team.a/nightly build", "Pending", "Running")
    running = await start(stage, shell(block("jobstate watch")), tmp_path)
    try:
        assert [await running.line(), await running.line()] == ["nightly build 1 Pending", "nightly build 2 Running"]
        await kept(tmp_path / "position", await last_sequence(stage, "jobstate.v1.main.state.*.*.running"))
    finally:
        await running.kill()
    await tell(stage, "team.a/nightly build", "Completed")
    running = await start(stage, shell(block("jobstate watch")), tmp_path)
    try:
        assert await running.line() == "nightly build 3 Completed"
    finally:
        await running.kill()


async def test_a_token_of_the_shell_is_the_daemons(
    stage: Stage, shell: Callable[..., list[str]], tmp_path: Path
) -> None:
    """As the other languages spell it."""
    command = [*shell(block("token() {"), 'for text in "$@"; do token "$text"; done'), "bash", *NAMES]
    ended = await (await start(stage, command, tmp_path)).end()
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == [escape(name) for name in NAMES]


@pytest.mark.skipif(shutil.which("nats") is None, reason="no nats (NATS's own command line) on PATH")
async def test_the_command_line_of_nats(stage: Stage, shell: Callable[..., list[str]], tmp_path: Path) -> None:
    """The latest update by its key; a durable consumer that goes on."""
    token = block("token() {")
    await tell(stage, "team.a/nightly build", "Running", "Failed")
    await tell(stage, "default/j-1", "Failed")
    await stage.bucket_has(2)
    got = await (await start(stage, shell(token, block("nats kv get")), tmp_path)).end()
    assert json.loads(got.out)["StateType"] == "Failed"
    first = await (await start(stage, shell(block("nats consumer add")), tmp_path)).end()
    assert json.loads(first.lines[-1])["Job"]["ID"] == "nightly build"
    (again,) = (line for line in block("nats consumer add").splitlines() if line.startswith("nats consumer next"))
    second = await (await start(stage, shell(again), tmp_path)).end()
    assert json.loads(second.lines[-1])["Job"]["ID"] == "j-1"
