"""What is installed from a wheel works without a clone of the repository. Nothing is fetched for it."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.errors import ExitCode
from tests.cli.conftest import ROOT
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.server


def run(*command: str, cwd: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run *command*, which must succeed."""
    ended = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == ExitCode.OK, ended.stderr
    return ended


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment, into which the wheel was installed and nothing else.

    What it depends on is found where the tests find it.
    """
    pytest.importorskip("hatchling", reason="builds the wheel; `make setup` installs it")
    folder = tmp_path_factory.mktemp("wheel")
    environ = clean()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT, environ=environ)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"), cwd=folder, environ=environ)
    python = str(folder / "venv/bin/python")
    offline = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, str(wheel), cwd=folder, environ=environ)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "venv/bin"


def clean() -> dict[str, str]:
    """The environment, without what is ours; programs of ours are beside this Python."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("JOBSTATE_", "COV_", "PYTHON"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def test_the_demo_plays_the_recording_that_comes_along(installed: Path, tmp_path: Path) -> None:
    """In an empty folder: exit 0, right, jobs that complete, fail, are stopped and begin anew; and it was our copy."""
    found = run(
        str(installed / "python"), "-c", "import consumer; print(consumer.__file__)", cwd=tmp_path, environ=clean()
    )
    assert Path(found.stdout.strip()).is_relative_to(installed.parent)

    ended = run(str(installed / "jobstate"), "demo", "--json", "--speed", "max", cwd=tmp_path, environ=clean())

    *updates, last = [json.loads(line) for line in ended.stdout.splitlines()]
    assert last["scenario"] == "rerun"
    assert last["summary"]["ok"] is True
    assert {line["update"]["StateType"] for line in updates} >= {"Running", "Completed", "Failed", "Stopped"}
    assert {line["update"]["Job"]["Version"] for line in updates} == {1, 2, 3}
    assert "nats-server nats://127.0.0.1:" in ended.stderr
    assert "with its metrics at http://127.0.0.1:" in ended.stderr
