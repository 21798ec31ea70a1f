"""Files that no test runs (container, compose, make, CI): whatever they name is there, by that name."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from consumer.cli.verbs import VERBS
from consumer.settings import CONFIG, all_settings

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


def compose() -> dict[str, Any]:
    """`docker-compose.yml`, as the part of YAML that it is written in: mappings, plain texts, lists on one line."""
    root: dict[str, Any] = {}
    open_at: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    for number, line in enumerate(text("docker-compose.yml").splitlines(), 1):
        bare = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if not bare:
            continue
        assert "\t" not in bare, f"line {number}: a tab is no indentation"
        indent = len(bare) - len(bare.lstrip())
        found = re.fullmatch(r"\s*([\w.-]+):(?:\s+(.+))?", bare)
        assert found is not None, f"line {number}: {line!r} is no `key: value`"
        while open_at[-1][0] >= indent:
            open_at.pop()
        key, value = found.groups()
        assert key not in open_at[-1][1], f"line {number}: {key} stands there twice"
        if value is None:
            inner: dict[str, Any] = {}
            open_at[-1][1][key] = inner
            open_at.append((indent, inner))
        elif value.startswith("["):
            open_at[-1][1][key] = [item.strip().strip('"') for item in value.strip("[]").split(",")]
        else:
            open_at[-1][1][key] = value
    return root


@pytest.mark.parametrize("file", ["docker-compose.yml", "Dockerfile", "README.md"])
def test_variables_are_settings(file: str) -> None:
    """Every `JOBSTATE_…` that is named is one that the daemon reads."""
    named = set(re.findall(r"\bJOBSTATE_[A-Z]+(?:__[A-Z_]*[A-Z])?\b", text(file)))
    assert named
    assert named <= VARIABLES


def test_compose_names_what_is_there() -> None:
    """Two services; what one depends on, mounts or is given as a secret is declared, and its folder can be built."""
    file = compose()
    services = file["services"]
    assert set(services) == {"nats", "jobstate"}
    jobstate = services["jobstate"]
    assert (ROOT / jobstate["build"] / "Dockerfile").is_file()
    assert set(jobstate["depends_on"]) <= set(services)
    assert set(jobstate["secrets"]) == set(file["secrets"])
    for service in services.values():
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in file["volumes"]
    assert jobstate["environment"]["JOBSTATE_NATS__URL"] == "nats://nats:4222"
    assert jobstate["read_only"] == "true"
    assert "--jetstream" in services["nats"]["command"]


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
    """Each COPY has its source, the command is a verb, it is not root, and its healthcheck asks the port there is."""
    file = text("Dockerfile")
    for line in re.findall(r"^COPY (?!--from)(.+)$", file, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    entrypoint, verb = re.findall(r'^(?:ENTRYPOINT|CMD) \["([^"]+)"\]$', file, re.MULTILINE)
    assert entrypoint in project()["project"]["scripts"]
    assert verb in VERBS
    assert re.search(r"^USER (?!root)\w+$", file, re.MULTILINE)
    assert f"EXPOSE {PORT}" in file
    assert "/livez" in file
    copied = set(" ".join(re.findall(r"^COPY (?!--from)(.+)$", file, re.MULTILINE)).split())
    assert {project()["project"]["readme"], *project()["project"]["license-files"], "pyproject.toml"} <= copied


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


def test_ci_runs_check_and_test() -> None:
    """`.ci/run` can be executed, and runs both."""
    file = ROOT / ".ci" / "run"
    assert os.access(file, os.X_OK)
    assert re.findall(r"^for target in (.+); do$", file.read_text(), re.MULTILINE) == ["check test"]
    assert 'make "${target}"' in file.read_text()
