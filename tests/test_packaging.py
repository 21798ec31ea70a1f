"""Files that no test runs (make, CI, a unit), or only `make container` does: what they name is there, by that name."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from consumer import probe
from consumer.cli.verbs import VERBS
from consumer.errors import ExitCode
from consumer.settings import CONFIG, all_settings
from tools.lock import BUILD, CONTAINER, DEVELOP, RUN

ROOT: Final = Path(__file__).parents[1]
VARIABLES: Final = {setting.variable for setting in all_settings()} | {CONFIG}
DRAIN_S: Final = next(setting.default for setting in all_settings() if setting.name == "drain.deadline_s")
PORT: Final = next(setting.default for setting in all_settings() if setting.name == "http.port")


def text(name: str) -> str:
    """The file *name* of the repository."""
    return (ROOT / name).read_text()


def project() -> dict[str, Any]:
    """`pyproject.toml`."""
    return tomllib.loads(text("pyproject.toml"))


def parse(name: str) -> dict[str, Any]:
    """The YAML file *name*: mappings, lists and texts, nothing else."""
    parsed: dict[str, Any] = yaml.load(text(name), Loader=yaml.BaseLoader)  # noqa: S506 - it makes texts alone
    return parsed


def compose() -> dict[str, Any]:
    """`docker-compose.yml`."""
    return parse("docker-compose.yml")


@pytest.mark.parametrize("file", ["docker-compose.yml", "Dockerfile", "README.md", "config/jobstate.service"])
def test_variables_are_settings(file: str) -> None:
    """Every `JOBSTATE_…` that is named is one that the daemon reads."""
    named = set(re.findall(r"\bJOBSTATE_[A-Z]+(?:__[A-Z_]*[A-Z])?\b", text(file)))
    assert named
    assert named <= VARIABLES


def test_compose_names_what_is_there() -> None:
    """What a service depends on, mounts or is given as a secret is declared, and its folder can be built."""
    file = compose()
    services = file["services"]
    assert set(services) == {"nats-data", "nats", "jobstate"}
    jobstate = services["jobstate"]
    assert (ROOT / jobstate["build"] / "Dockerfile").is_file()
    assert set(jobstate["secrets"]) == set(file["secrets"])
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in file["volumes"]
    assert jobstate["environment"]["JOBSTATE_NATS__URL"] == "nats://nats:4222"
    assert f":{PORT}" in jobstate["ports"][0]
    assert "--jetstream" in services["nats"]["command"]


@pytest.mark.parametrize("name", ["nats", "jobstate"])
def test_compose_bounds_what_goes_on(name: str) -> None:
    """A service that is not over at once: a root that cannot be written to, no rights, bounds of memory and logs."""
    service = compose()["services"][name]
    assert service["read_only"] == "true"
    assert service["cap_drop"] == ["ALL"]
    assert re.search(r":-\d+g\}$", service["mem_limit"])
    assert int(service["pids_limit"]) > 0
    assert "max-size" in service["logging"]["options"]
    assert service["restart"] == "unless-stopped"


def test_compose_fails_for_no_server_that_begins_slowly() -> None:
    """The daemon waits for its server by itself: nothing waits until that is healthy, and it has time to become so."""
    services = compose()["services"]
    assert services["jobstate"]["depends_on"] == {"nats": {"condition": "service_started"}}
    assert services["nats"]["healthcheck"]["start_period"] == "30m"


def test_compose_starts_a_server_that_will_do() -> None:
    """2.11 or later: an older one is refused at start."""
    image = compose()["services"]["nats"]["image"]
    major, minor = map(int, re.findall(r"\d+", image)[:2])
    assert (major, minor) >= (2, 11)


def test_compose_waits_longer_than_the_drain() -> None:
    """Docker's SIGKILL comes after ours is over."""
    grace = compose()["services"]["jobstate"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > DRAIN_S


def test_the_image_is_made_of_what_is_there() -> None:
    """Each COPY has its source and is let in, the command is a verb, it is not root; the probe is ours."""
    file = text("Dockerfile")
    let_in = set(text(".dockerignore").split())
    for line in re.findall(r"^COPY (?!--from)(.+)$", file, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
        assert {f"!{source}" for source in sources} <= let_in, line
    entrypoint, verb = re.findall(r'^(?:ENTRYPOINT|CMD) \["([^"]+)"\]$', file, re.MULTILINE)
    assert entrypoint in project()["project"]["scripts"]
    assert verb in VERBS
    assert re.search(r"^USER 10001:10001$", file, re.MULTILINE)
    assert f"EXPOSE {PORT}" in file
    assert f'"-m", "{probe.__name__}"]' in file
    assert f"{probe.FILE}=/" in file
    copied = set(" ".join(re.findall(r"^COPY (?!--from)(.+)$", file, re.MULTILINE)).split())
    assert copied & {"requirements.lock"}
    assert {project()["project"]["readme"], *project()["project"]["license-files"], "pyproject.toml"} <= copied


def test_the_image_takes_the_lock_by_its_sections() -> None:
    """The titles that `sed` looks for are those that the lock has."""
    titles = [BUILD, RUN, DEVELOP, CONTAINER]
    looked_for = set(re.findall(r"\^(# == \w+)/", text("Dockerfile") + text("Makefile")))
    assert looked_for == {"# == run", "# == develop", "# == container"}
    lines = [line for line in text("requirements.lock").splitlines() if line.startswith("# ==")]
    assert lines == titles


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """No word of complaint; it starts a verb, and waits longer than the drain."""
    unit = text("config/jobstate.service")
    (start,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    assert start.split()[:2] == ["/opt/jobstate/bin/jobstate", "run"]
    (tmp_path / "jobstate.service").write_text(unit.replace("/opt/jobstate/bin/jobstate", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "jobstate.service"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(stop_s) > DRAIN_S
    (never,) = re.findall(r"^RestartPreventExitStatus=(.+)$", unit, re.MULTILINE)
    assert set(map(int, never.split())) == {ExitCode.USAGE, ExitCode.TOPOLOGY}


def test_the_wheel_carries_its_rules() -> None:
    """What is to be put into it exists, and is where the program looks for it."""
    (included,) = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items()
    assert (ROOT / included[0]).is_file()
    assert included[1] == "consumer/rules/bacalhau.toml"


def test_make_runs_what_is_there() -> None:
    """Every module, script, verb and recording that a target names."""
    file = text("Makefile")
    for module in re.findall(r"-m (tests[.\w]+)", file):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
    assert all((ROOT / script).is_file() for script in re.findall(r"python ([\w/]+\.py)", file))
    assert set(re.findall(r"bin/jobstate (\w+)|\$\(BIN\)/jobstate (\w+)", file)) <= {("", verb) for verb in VERBS}
    (folder,) = re.findall(r"^DEMO\s*:= (.+)$", file, re.MULTILINE)
    recordings = re.findall(r"--recording \$\(DEMO\)/(\w+)", file)
    assert len(recordings) == 2
    assert all((ROOT / folder / name / "final.json").is_file() for name in recordings)


def test_ci_runs_all_that_must_hold() -> None:
    """`.ci/run` can be executed, and runs the checks, the tests, the installation and the image."""
    file = ROOT / ".ci" / "run"
    assert os.access(file, os.X_OK)
    assert re.findall(r"^for target in (.+); do$", file.read_text(), re.MULTILINE) == ["check readers test"]
    assert 'make "${target}"' in file.read_text()
    assert '\nmake install PREFIX="${prefix}"\n' in file.read_text()
    assert "\nmake container\n" in file.read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_an_installation_is_apart_from_the_clone(tmp_path: Path) -> None:
    """`make install` uses no `.venv`, which other targets make anew, and puts the command into PREFIX/bin."""
    done = subprocess.run(
        ["make", "--dry-run", "install", f"PREFIX={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    programs = set(re.findall(r"(\S+)/bin/python -m pip", done.stdout))
    assert programs == {f"{tmp_path}/lib/jobstate"}
    assert ".venv" not in done.stdout
    assert f"ln -sf ../lib/jobstate/bin/jobstate {tmp_path}/bin/jobstate" in done.stdout


HOOKS: Final = ".pre-commit-config.yaml"
WORKFLOW: Final = ".github/workflows/ci.yml"


def targets() -> set[str]:
    """What `make` can make."""
    return set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))


def test_git_runs_what_ci_runs() -> None:
    """The hooks are taken by pre-commit, run targets of make, and together check and test; none is fetched."""
    done = subprocess.run(
        [Path(sys.executable).with_name("pre-commit"), "validate-config", ROOT / HOOKS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    repositories = parse(HOOKS)["repos"]
    assert [one["repo"] for one in repositories] == ["local"]
    hooks = {one["id"]: one for one in repositories[0]["hooks"]}
    made = [one["entry"] for one in hooks.values() if one["language"] == "system"]
    assert made == ["make check", "make test"]
    assert {one.removeprefix("make ") for one in made} <= targets()


@pytest.mark.parametrize(
    ("message", "taken"),
    [("x" * 72, True), ("x" * 73, False), ("A subject\n\nA body " + "x" * 80, True)],
    ids=["longest", "too long", "long body"],
)
def test_git_takes_no_long_subject(message: str, *, taken: bool) -> None:
    """The pattern finds a first line that is too long, and no other line."""
    (pattern,) = (one["entry"] for one in parse(HOOKS)["repos"][0]["hooks"] if one["id"] == "subject")
    assert (re.search(pattern, message, re.MULTILINE) is None) is taken


def test_the_workflow_runs_all_that_must_hold() -> None:
    """Each Python that we allow, both ends of the ranges, and what `.ci/run` runs; make knows all of it."""
    jobs = parse(WORKFLOW)["jobs"]
    low, below = re.findall(r"3\.(\d+)", project()["project"]["requires-python"])
    assert jobs["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(int(low), int(below))]
    ends = jobs["ranges"]["strategy"]["matrix"]["include"]
    assert {one["versions"] for one in ends} == {"lowest", "newest"}
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    made = set(re.findall(r"\bmake ([a-z-]+)", commands)) - {"test-"}
    assert {"check", "test", "container"} <= made <= targets()


def test_the_workflow_trusts_no_moving_tag() -> None:
    """Each action is named by a commit, with its release beside it; the token may read, and is not kept on disk."""
    used = re.findall(r"uses: (.+)", text(WORKFLOW))
    assert len(used) >= 2
    assert [one for one in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []
    workflow = parse(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == ["false"] * len(workflow["jobs"])


def test_the_dev_container_prepares_with_make() -> None:
    """Its image is built from a file of ours, and what it runs are targets."""
    container = json.loads(text(".devcontainer/devcontainer.json"))
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).is_file()
    assert set(container["postCreateCommand"].removeprefix("make ").split()) <= targets()
    assert f"USER {container['remoteUser']}\n" in text(".devcontainer/Dockerfile")
