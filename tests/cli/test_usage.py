"""What is typed wrong: every option of every verb, the error it gets, and that nothing else happens."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import consumer
from consumer.cli import main
from consumer.cli.verbs import VERBS, Verb
from consumer.errors import ExitCode
from tests.cli.conftest import ROOT, UNKNOWN, Stage
from tests.logs import untouched_log

FORM: Final = ("-o xml", "'-o' / '--output'", "'xml' is no form: write json or text")
"""What every verb that can write JSON takes."""

FAR: Final = "nats://127.0.0.1:1"
"""Where no server is: an error that needs none comes first."""

PLACE: Final = [
    ("--nats http://x:1", "--nats: nats.url: ", "`nats://host:4222`", "'http://x:1'"),
    ("--nats nats://x:99999", "--nats: nats.url: ", "`nats://host:4222`", "'nats://x:99999'"),
    ("--cluster a.b", "--cluster: cluster: ", "A-Z, a-z, 0-9, `_`, `-`", "'a.b'"),
    ("--config /nowhere/x.toml", "/nowhere/x.toml: cannot be read", "name another file with --config"),
    ("--token-file /nowhere/x", "--token-file: nats.token_file: ", "/nowhere/x cannot be read", "write the secret"),
]
"""What every verb that reads a log takes."""

STATES: Final = "write Pending, Queued, Running, Completed, Failed, Stopped"
RULES: Final = ("/nowhere/x.toml: cannot be read", "name another rules file, or none")
NOBODY: Final = ("JOB", "'ns/' names no job", "write an id, a name, or NAMESPACE/JOB")
COUNT: Final = "is no count: write a whole number from 0"

WRONG: Final[dict[str, list[tuple[str, ...]]]] = {
    "run": [
        ("--config /nowhere/x.toml", "/nowhere/x.toml: cannot be read", "name another file with --config"),
        ("--folder x", "'--folder'", "give --embedded too"),
        ("--embedded --folder ''", "--folder: embedded.folder: ", "(given: '')"),
    ],
    "list": [
        FORM,
        ("--state bogus", "'--state'", "'bogus' is no state", STATES),
        ("--state runing", "'--state'", "'runing' is no state", "did you mean Running?"),
        ("--namespace ''", "'--namespace'", "'' names nothing", "write text that is not blank"),
        ("--limit -1", "'--limit'", f"'-1' {COUNT}"),
        *PLACE,
    ],
    "get": [(f"j-1 {FORM[0]}", *FORM[1:]), ("ns/", *NOBODY), *((f"j-1 {flags}", *words) for flags, *words in PLACE)],
    "history": [
        (f"j-1 {FORM[0]}", *FORM[1:]),
        ("ns/", *NOBODY),
        *((f"j-1 {flags}", *words) for flags, *words in PLACE),
    ],
    "watch": [
        FORM,
        ("--job ns/", "--job", *NOBODY[1:]),
        ("--namespace ' '", "'--namespace'", "' ' names nothing", "write text that is not blank"),
        ("--state bogus", "'--state'", "'bogus' is no state", STATES),
        ("--since yesterday", "'--since'", "'yesterday' is no time", "write now, start, 2026-11-24T05:00:00Z or 10m"),
        ("--count 1.5", "'--count'", f"'1.5' {COUNT}"),
        *PLACE,
    ],
    "wait": [
        (f"j-1 {FORM[0]}", *FORM[1:]),
        ("j-1 ns/", *NOBODY),
        ("j-1 --for bogus", "'--for'", "'bogus' is no state", f"{STATES}, terminal"),
        ("j-1 --version x", "'--version'", f"'x' {COUNT} to 4294967295"),
        ("j-1 --timeout 30", "'--timeout'", "'30' is no duration", "write 250ms, 30s"),
        *((f"j-1 {flags}", *words) for flags, *words in PLACE),
    ],
    "send": [
        (f"j-1 Running {FORM[0]}", *FORM[1:]),
        ("'' Running", "'JOB'", "'' names nothing", "write text that is not blank"),
        ("' ' Running", "'JOB'", "' ' names nothing"),
        ("j-1 ''", "'STATE'", "'' names nothing"),
        ("j-1 Runing", "'STATE'", "'Runing' is no state", STATES, "did you mean Running?", "--any-state"),
        ("j-1 Foo", "'STATE'", "'Foo' is no state", STATES),
        ("ns/ Running", "'JOB'", "'ns/' names no job"),
        ("a/j-1 Running --namespace b", "'--namespace'", "is in namespace 'a'", "says 'b'"),
        ("j-1 Running --message \udcff", "'--message'", r"'\udcff' is no text", "write UTF-8"),
        ("j-1 Running --namespace ''", "'--namespace'", "'' names nothing"),
        ("j-1 Running --version -1", "'--version'", f"'-1' {COUNT} to 4294967295"),
        ("j-1 Running --version 4294967296", "'--version'", f"'4294967296' {COUNT} to 4294967295"),
        ("j-1 Running --revision 4294967296", "'--revision'", f"'4294967296' {COUNT} to 4294967295"),
        ("j-1 Running --type Batch", "'--type'", "'Batch' is no type of job", "write batch, ops, "),
        ("j-1 Running --name \udcff", "'--name'", r"'\udcff' is no text", "write UTF-8"),
        ("j-1 Running --time later", "'--time'", "'later' is no time", "write now, 2026-11-24T05:00:00Z or 10m"),
        *((f"j-1 Running {flags}", *words) for flags, *words in PLACE),
    ],
    "quarantine list": [FORM, ("--limit x", "'--limit'", f"'x' {COUNT}"), *PLACE],
    "quarantine show": [
        (f"1-1 {FORM[0]}", *FORM[1:]),
        ("''", "'ORIGIN'", "'' names nothing", "write text that is not blank"),
        *((f"1-1 {flags}", *words) for flags, *words in PLACE),
    ],
    "advisories": [FORM, ("--limit x", "'--limit'", f"'x' {COUNT}"), *PLACE],
    "rules": [
        FORM,
        ("--file /nowhere/x.toml", "--file: ", *RULES),
        ("--check /nowhere/x.toml", "--check: ", *RULES),
        ("--check README.md", "--check: README.md: ", "mend the file, and check it again"),
        ("--file README.md", "--file: README.md: ", "`jobstate rules --check FILE`"),
        ("--check README.md --mermaid", "'--check'", "does not go together with --mermaid"),
        ("--check README.md --file README.md", "'--check'", "does not go together with --file"),
        ("--check README.md --explain Foo Bar", "'--check'", "does not go together with --explain"),
        ("--mermaid --explain Foo Bar", "'--mermaid'", "does not go together with --explain"),
        ("--explain Foo Bar", "'--explain'", "'Foo' is no state", f"{STATES}, new"),
        ("--explain Running Runing", "'--explain'", "'Runing' is no state", "did you mean Running?"),
    ],
    "replay": [
        (f"x {FORM[0]}", *FORM[1:]),
        ("''", "'PATH...'", "'' names nothing"),
        ("x --rules /nowhere/x.toml", "--rules: ", *RULES),
        ("x --loss 2", "'--loss'", "'2' is no share", "write a number from 0 to 1"),
        ("x --loss nan", "'--loss'", "'nan' is no share", "write a number from 0 to 1"),
        ("x --seed x", "'--seed'", f"'x' {COUNT}"),
    ],
    "doctor": [
        FORM,
        ("--config /nowhere/x.toml", "/nowhere/x.toml: cannot be read", "name another file with --config"),
        ("--listen 30", "'--listen'", "'30' is no duration", "write 250ms, 30s"),
        ("--monitor host:8222", "'--monitor'", "'host:8222' is no address", "write http://host:8222"),
    ],
    "demo": [
        FORM,
        ("--recording ''", "'--recording'", "'' names nothing"),
        ("--recording /nowhere --speed x", "'--speed'", "'x' is no speed", "write a number above 0, or max"),
    ],
    "completion": [("tcsh", "'bash|zsh|fish'", "'tcsh' is no shell that we know: write bash, zsh, fish")],
    "version": [
        FORM,
        ("--cluster main", "'--cluster'", "name it with --nats URL"),
        *((flags if "--nats" in flags else f"--nats {FAR} {flags}", *words) for flags, *words in PLACE),
    ],
}
"""Of each verb: what is typed, and what the error says. Blanks part the arguments, quotes hold them together."""

ROWS: Final = [(verb, flags, words) for verb, rows in WRONG.items() for flags, *words in rows]


class Ended(NamedTuple):
    """What came of a command line."""

    code: object
    out: str
    err: str


class Call:
    """Runs `jobstate` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch: Final = monkeypatch
        self._capsys: Final = capsys

    def __call__(self, *arguments: str, **environ: str) -> Ended:
        """Code and output of `jobstate` with *arguments*."""
        for name, text in environ.items():
            self._monkeypatch.setenv(name, text)
        self._monkeypatch.setattr(sys, "argv", ["jobstate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return Ended(ended.value.code, out, err)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """`jobstate` in the root of a checkout, with no settings. The log that a verb set up is not left to other tests."""
    for name in [name for name in os.environ if name.startswith("JOBSTATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(ROOT)
    with untouched_log():
        yield Call(monkeypatch, capsys)


def parted(line: str) -> list[str]:
    """*line* as a shell parts it. `shlex` would not take what is no UTF-8."""
    return [quoted or plain for quoted, plain in re.findall(r"'([^']*)'|(\S+)", line)]


@pytest.mark.parametrize("flags", ["", " --json"])
@pytest.mark.parametrize(("verb", "line", "words"), ROWS, ids=[f"{verb} {line!a}" for verb, line, _ in ROWS])
def test_what_is_wrong_is_named_with_the_reason_and_what_to_write(
    call: Call, verb: str, line: str, words: list[str], flags: str
) -> None:
    """Exit 2, nothing on stdout; on stderr the option, what was given, what may be: also where JSON is asked for."""
    if flags and verb in {"run", "completion"}:
        pytest.skip("it has no --json")
    ended = call(*verb.split(), *parted(line + flags))

    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert [word for word in words if word not in ended.err] == []
    assert "Traceback" not in ended.err


def takers() -> Iterator[tuple[str, str]]:
    """Every verb and option or argument of it that takes a value."""
    for name, (place, line) in VERBS.items():
        verb = Verb(name, place, line)
        commands = {name: verb.load()}
        if hasattr(commands[name], "commands"):
            commands = {f"{name} {below}": command for below, command in commands[name].commands.items()}
        for path, command in commands.items():
            for parameter in command.params:
                if parameter.param_type_name == "argument":
                    yield path, "argument"
                elif not parameter.is_flag:
                    yield path, parameter.opts[0]


@pytest.mark.parametrize(("verb", "option"), sorted(set(takers())))
def test_every_option_is_in_the_table(verb: str, option: str) -> None:
    """An option that takes a value, and every verb's arguments, have a row here."""
    lines = [parted(line) for line, *_ in WRONG[verb]]
    if option == "argument":
        assert any(line[:1] and not line[0].startswith("--") for line in lines)
    else:
        assert any(option in line for line in lines)


@pytest.mark.parametrize("verb", ["", *VERBS, "quarantine list", "quarantine show"])
def test_h_is_help(call: Call, verb: str) -> None:
    """`-h` of each verb is its `--help`."""
    short, long = call(*verb.split(), "-h"), call(*verb.split(), "--help")
    assert short == long
    assert (short.code, short.err) == (0, "")
    assert "-h, --help" in short.out


def test_the_version_may_be_asked_as_of_any_program(call: Call) -> None:
    """`jobstate --version`."""
    assert call("--version") == (0, f"jobstate {consumer.__version__}\n", "")


def test_json_and_text_leave_each_other_out(call: Call) -> None:
    """`--json -o text` is a usage error; `-o text` alone is what there is without it, `-o json` what --json is."""
    ended = call("rules", "--json", "-o", "text")
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert "'--json': does not go together with -o text" in ended.err
    assert call("rules", "-o", "text") == call("rules")
    assert call("rules", "-o", "json") == call("rules", "--json") == call("rules", "--output=json", "--json")


def test_a_diagram_is_no_json(call: Call) -> None:
    """`--mermaid --json`: one of them would be left out."""
    ended = call("rules", "--mermaid", "--json")
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert "'--mermaid': does not go together with --json" in ended.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "Usage: jobstate"),
        ("bogus", "No such command 'bogus'"),
        ("get", "Missing argument 'JOB"),
        ("history a b", "unexpected extra argument"),
        ("list --bogus", "No such option: --bogus"),
        ("list --limit", "'--limit' requires an argument"),
        ("quarantine bogus", "No such command 'bogus'"),
    ],
)
def test_what_is_no_command_line_is_refused(call: Call, line: str, words: str) -> None:
    """No verb, no such verb or option, too few and too many arguments: exit 2, on stderr."""
    ended = call(*line.split())

    assert ended.code == ExitCode.USAGE
    assert words in ended.err + ended.out


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("JOBSTATE_CLUSTER", "a.b", "environment: JOBSTATE_CLUSTER: cluster: "),
        ("JOBSTATE_NATS__URL", "http://x", "environment: JOBSTATE_NATS__URL: nats.url: "),
        ("JOBSTATE_NATS__TOKEN_FILE", "/nowhere", "environment: JOBSTATE_NATS__TOKEN_FILE: nats.token_file: "),
        ("JOBSTATE_RULES__FILE", "/nowhere", "rules.file (JOBSTATE_RULES__FILE): /nowhere: cannot be read"),
        ("JOBSTATE_NATS_URL", "nats://x:1", "environment: JOBSTATE_NATS_URL: unknown; did you mean JOBSTATE_NATS__URL"),
    ],
)
def test_a_variable_is_blamed_only_for_what_it_said(call: Call, variable: str, text: str, words: str) -> None:
    """The same value from the environment names the variable, and a flag beside it comes before it."""
    assert words in call("list", "--state", "running", **{variable: text}).err
    flag = {"JOBSTATE_CLUSTER": "--cluster", "JOBSTATE_NATS__URL": "--nats"}.get(variable, "")
    if flag:
        ended = call("list", flag, "a b", **{variable: text})
        assert f"jobstate: {flag}: " in ended.err
        assert variable not in ended.err


@pytest.mark.parametrize(
    "url", ["nats://u:canary@x:y", "http://canary@x", "nats://u:can/ary@x:1:2", "http://x?t=canary"]
)
def test_a_secret_in_a_url_is_not_quoted(call: Call, url: str) -> None:
    """A URL with a user is named and not shown."""
    ended = call("list", "--nats", url)

    assert ended.code == ExitCode.USAGE
    assert not re.search("canary|can/ary", ended.err)


def test_what_is_quoted_is_escaped_and_bounded(call: Call) -> None:
    """Escapes reach no terminal, and a long value does not flood it."""
    ended = call("list", "--state", "\x1b[2J" + "x" * 5000)

    assert r"'\x1b[2Jxxx" in ended.err
    assert "(5004 characters)" in ended.err
    assert len(ended.err) < 500
    assert "\x1b" not in call("list", "--cluster", "\x1b[2J").err


READERS: Final = (
    "list",
    "list --json",
    "get j-1",
    "history j-1",
    "watch --since start --count 2",
    "wait j-1 --for terminal --version 0",
    "send j-2 Running",
    "quarantine list",
    "quarantine show 1-1",
    "advisories",
    "rules",
    "rules --explain Running Failed",
    "replay tests/recordings/bacalhau-v1.9.3/rerun",
    "version",
    "list --help",
    "--help",
)


@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_a_reader_that_went_away_is_no_failure(stage: Stage, unbuffered: str) -> None:
    """`| head -1` of every verb: exit 0 and not a word, whether the output is written at once or at the end."""
    await stage.live("j-1", "Pending", "Failed")
    await stage.store(f"{stage.names.prefix}.quarantine.illegal-transition.default.j-1.1-1", b"{}")
    await stage.store(f"{stage.names.prefix}.advisory.stuck.1", b"{}")
    for line in READERS:
        reading, writing = os.pipe()
        os.close(reading)
        running = await stage.begin(*line.split(), stdout=writing, environ={"PYTHONUNBUFFERED": unbuffered})
        os.close(writing)
        assert (line, *await running.end()) == (line, 0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_a_full_disk_is_said_and_is_no_answer(stage: Stage, unbuffered: str) -> None:
    """Every verb to a disk without room: exit 5 and one sentence, whether it is written at once or at the end."""
    await stage.live("j-1", "Pending", "Failed")
    await stage.store(f"{stage.names.prefix}.quarantine.illegal-transition.default.j-1.1-1", b"{}")
    await stage.store(f"{stage.names.prefix}.advisory.stuck.1", b"{}")
    for line in READERS:
        full = os.open("/dev/full", os.O_WRONLY)
        running = await stage.begin(*line.split(), stdout=full, environ={"PYTHONUNBUFFERED": unbuffered})
        os.close(full)
        ended = await running.end()
        said = "jobstate: what was to be written could not be (No space left on device): make room there, or write "
        assert (line, ended.code, ended.err) == (line, ExitCode.OUTPUT, f"{said}elsewhere\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
async def test_where_nothing_can_be_said_the_exit_code_says_it(stage: Stage) -> None:
    """Both outputs on a full disk: the code, and no complaint of Python's at exit (120)."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh", sys.executable, "-m", "consumer", "list"),
        env=dict(os.environ) | {"JOBSTATE_NATS__URL": stage.server.url, "JOBSTATE_NATS_URL": "x"},
    )
    assert await process.wait() == ExitCode.USAGE


EARLY: Final = """
import os, signal, sys
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
from consumer.cli import main
sys.meta_path.insert(0, Hook())
sys.argv = ["jobstate", "rules"]
main()
"""


@pytest.mark.parametrize("name", ["consumer.cli.verbs", "typer", "consumer.cli.rules", "consumer.rules.graph"])
async def test_ctrl_c_while_it_is_still_starting_ends_quietly(name: str) -> None:
    """At whatever of its imports it comes: 130, no traceback, no death by signal."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", EARLY.format(name=name)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130


async def test_a_closed_output_is_no_failure(stage: Stage) -> None:
    """`>&-`: the verb does its work, and its exit code is its answer."""
    await stage.live("j-1", "Pending")
    for line, code in (("rules --explain Failed Running", 1), ("version", 0), ("list", 0)):
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "consumer", *line.split()),
            env=dict(os.environ) | {"JOBSTATE_NATS__URL": stage.server.url},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert (line, process.returncode, said) == (line, code, b"")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("watch --since start", 0, ""),
        ("wait j-1 --for terminal --version 0", 130, f"jobstate: {UNKNOWN.format('j-1')}\n"),
        ("replay RECORDINGS", 130, ""),
    ],
)
async def test_ctrl_c_ends_quietly(stage: Stage, line: str, code: int, said: str) -> None:
    """The documented code, and nothing more on standard error: of a verb that waits and of one that works."""
    await stage.live("j-0", "Pending", "Failed")
    recordings = [str(path) for path in (ROOT / "tests/recordings/bacalhau-v1.9.3").iterdir() if path.is_dir()] * 20
    arguments = [part for word in line.split() for part in (recordings if word == "RECORDINGS" else [word])]
    arguments += ["j-0"] if arguments[0] == "wait" else []  # what it says of j-0 shows that it is at work
    running = await stage.begin(*arguments, environ={"PYTHONUNBUFFERED": "1"})
    await running.line()
    ended = await running.end(signal.SIGINT)

    assert (ended.code, ended.err) == (code, said)
