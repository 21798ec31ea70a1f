"""`completion`: what real shells make of the scripts, where they are installed."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from consumer.cli.verbs import VERBS
from consumer.errors import ExitCode
from tests.cli.conftest import ROOT
from tests.waiting import DEADLINE_S

CASES: Final = [
    ("jobstate hist", "history"),
    ("jobstate --vers", "--version"),
    ("jobstate list --sta", "--state"),
    ("jobstate list --state Que", "Queued"),
    ("jobstate list --state term", "terminal"),
    ("jobstate list --nats nats://x:1 --lim", "--limit"),
    ("jobstate get -o js", "json"),
    ("jobstate wait j-1 --for Compl", "Completed"),
    ("jobstate quarantine sh", "show"),
    ("jobstate quarantine list --lim", "--limit"),
    ("jobstate completion zs", "zsh"),
    ("jobstate watch --since sta", "start"),
    ("jobstate doctor --config READ", "README.md"),
]
"""What stands on the line when Tab is pressed, and the one word that comes of its last."""


def script(shell: str) -> str:
    """The script for *shell*."""
    ended = subprocess.run(
        (sys.executable, "-m", "consumer", "completion", shell), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""
    return ended.stdout


def installed(shell: str) -> str:
    """Where *shell* is; where it is not, the test is skipped."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


def test_bash_completes(tmp_path: Path) -> None:
    """Each line's last word, by the function that bash calls."""
    (tmp_path / "script").write_text(script("bash"))
    lines = [f"source {shlex.quote(str(tmp_path / 'script'))}"]
    for line, _ in CASES:
        lines.append(
            f'COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _jobstate; echo "${{COMPREPLY[*]}}"'
        )
    lines.append('COMP_WORDS=(jobstate ""); COMP_CWORD=1; _jobstate; echo "${COMPREPLY[*]}"')
    lines.append('COMP_WORDS=(jobstate get ""); COMP_CWORD=2; _jobstate; echo "${COMPREPLY[*]}"')
    lines.append("complete -p jobstate")
    ended = subprocess.run(
        (installed("bash"), "--norc", "-eu", "-c", "\n".join(lines)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    *completed, verbs, options, bound = ended.stdout.splitlines()
    assert ended.stderr == ""
    assert completed == [word for _, word in CASES]
    assert verbs.split()[: len(VERBS)] == list(VERBS)
    assert {"-h", "--json", "-o"} < set(options.split())
    assert bound == "complete -F _jobstate jobstate"


def test_fish_completes(tmp_path: Path) -> None:
    """Each line's last word, as fish itself says it."""
    (tmp_path / "script").write_text(script("fish"))
    lines = [f"source {shlex.quote(str(tmp_path / 'script'))}"]
    lines += [f"complete -C {shlex.quote(line)}; echo ---" for line, _ in CASES]
    ended = subprocess.run(
        (installed("fish"), "--no-config", "-c", "\n".join(lines)),
        cwd=ROOT,
        env=dict(os.environ) | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [[row.split("\t")[0] for row in part.splitlines()] for part in ended.stdout.split("---\n")[:-1]]
    assert ended.stderr == ""
    assert found == [[word] for _, word in CASES]


def test_zsh_completes(tmp_path: Path) -> None:
    """Each line's last word, as it stands on the line of a real terminal after Tab."""
    zsh = installed("zsh")
    (tmp_path / "script").write_text(script("zsh"))
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.chdir(ROOT)
        os.execve(zsh, (zsh, "-f", "-i"), {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "dumb"})
    try:
        say(terminal, f"PS1='ready> '; autoload -U compinit; compinit -u -d {tmp_path / 'dump'}\n")
        say(terminal, f"source {tmp_path / 'script'}; echo sour''ced\n")
        hear(terminal, "sourced")
        for line, word in CASES:
            say(terminal, f"{line}\t")
            hear(terminal, f"{line[: len(line) - len(line.split()[-1])]}{word} ")
            say(terminal, "\x15")  # Ctrl-U: an empty line
    finally:
        os.close(terminal)
        os.kill(child, 9)
        os.waitpid(child, 0)


def say(terminal: int, text: str) -> None:
    """Type *text*."""
    os.write(terminal, text.encode())


def hear(terminal: int, words: str) -> None:
    """Wait until *words* stand on the terminal."""
    shown, end = "", time.monotonic() + DEADLINE_S
    while words not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x08.|[\r\x07]", "", shown):
        ready, _, _ = select.select([terminal], [], [], max(end - time.monotonic(), 0))
        if not ready:
            pytest.fail(f"never {words!r}: {shown!r}")
        shown += os.read(terminal, 4096).decode(errors="replace")


def test_another_shell_is_refused() -> None:
    """Exit 2, and which ones there are."""
    ended = subprocess.run(
        (sys.executable, "-m", "consumer", "completion", "tcsh"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == ExitCode.USAGE
    assert "'tcsh' is no shell that we know: write bash, zsh, fish" in " ".join(ended.stderr.split())
