"""`requirements.lock` agrees with `pyproject.toml`, and is all that `make` installs."""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import BUILD, CONTAINER, DEVELOP, FROM_SOURCE, LOCK, ROOT, RUN

HASH: Final = re.compile(r" --hash=sha256:[0-9a-f]{64}\b")
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: Final = PROJECT["project"]["optional-dependencies"]
GROUPS: Final = PROJECT["dependency-groups"]


class Entry(NamedTuple):
    """One locked package."""

    requirement: Requirement
    hashes: int

    @property
    def version(self) -> str:
        (pin,) = self.requirement.specifier
        assert pin.operator == "=="
        return pin.version


def entries(section: str) -> Iterator[tuple[str, Entry]]:
    """The entries below the title *section*, by their names."""
    text = LOCK.read_text()
    assert text.count(f"\n{section}\n") == 1
    body = text.partition(f"\n{section}\n")[2].partition("\n# ==")[0].replace("\\\n", "")
    for line in filter(None, body.splitlines()):
        requirement = Requirement(line.partition(" --hash")[0])
        yield canonicalize_name(requirement.name), Entry(requirement, len(HASH.findall(line)))


RUNS: Final = dict(entries(RUN))
BUILDS: Final = dict(entries(BUILD))
FROM_THE_LOCK: Final = pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="this environment was not made from the lock"
)
CONTAINERS: Final = dict(entries(CONTAINER))
ALL: Final = RUNS | BUILDS | dict(entries(DEVELOP))


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        (RUNS, PROJECT["project"]["dependencies"] + EXTRAS["fast"]),
        (BUILDS, PROJECT["build-system"]["requires"] + GROUPS["build"]),
        (ALL, EXTRAS["embedded"] + GROUPS["dev"]),
        (CONTAINERS, GROUPS["container"]),
    ],
    ids=["run", "build", "all", "container"],
)
def test_each_dependency_is_locked_within_its_range(section: dict[str, Entry], wanted: list[str]) -> None:
    """A range that was changed without `make lock`, and a dependency that was added without it, are seen here."""
    assert wanted
    for text in wanted:
        requirement = Requirement(text)
        assert section[canonicalize_name(requirement.name)].version in requirement.specifier, text


@FROM_THE_LOCK
@pytest.mark.parametrize("section", [RUNS, BUILDS], ids=["run", "build"])
def test_a_section_that_is_installed_alone_is_whole(section: dict[str, Entry]) -> None:
    """Whatever a package of it needs on this machine is in it."""
    for name, entry in section.items():
        if entry.requirement.marker is not None and not entry.requirement.marker.evaluate():
            continue
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in section, f"{name} needs {text}"


def test_each_package_has_hashes() -> None:
    """An exact version, and the hashes of what the index has of it: one, where there is source alone."""
    assert len(ALL) > len(PROJECT["project"]["dependencies"])
    for name, entry in (ALL | CONTAINERS).items():
        assert entry.version
        assert entry.hashes >= (1 if name in FROM_SOURCE else 2), name


def test_no_index_is_named() -> None:
    """Whoever installs from it says where from: the lock names no server and no option."""
    for line in LOCK.read_text().splitlines():
        assert "://" not in line
        assert not line.startswith("-")


def test_make_installs_from_the_lock_alone() -> None:
    """Each `pip install` of the Makefile asks for hashes, or takes nothing but this project; nothing is isolated."""
    installs = re.findall(r"\$\(PIP\) (.+)", (ROOT / "Makefile").read_text())
    assert len(installs) == 8  # .venv, and `make install`
    for arguments in installs:
        assert "--require-hashes --only-binary :all:" in arguments or "--no-deps --no-build-isolation" in arguments
    assert set(re.findall(r"--no-binary (\S+)", " ".join(installs))) == FROM_SOURCE
    assert re.findall(r"\bpip\b.* install\b", (ROOT / ".ci" / "run").read_text()) == []


@FROM_THE_LOCK
def test_what_is_installed_is_what_is_locked() -> None:
    """Each locked package that this Python needs, in exactly its version."""
    installed: dict[str, str] = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    for name, entry in ALL.items():
        if entry.requirement.marker is None or entry.requirement.marker.evaluate():
            assert installed[name] == entry.version, name
