"""Writes `requirements.lock`: exact versions and hashes of everything that is installed, for all Pythons and platforms.

`make lock` runs it. pip reads the file; nothing in it names a package index. Its sections stand in the order in which
they are needed: what makes packages out of source, what runs, what the tests need, and what the test of the image does.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements.lock"
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS: Final = (
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
)
"""Each locked version has a wheel for each of these on each of `PYTHONS`, `FROM_SOURCE` aside."""

FROM_SOURCE: Final = frozenset({"nkeys"})
"""What its authors publish as source alone; pure Python, made by the section `build` where it is installed."""

HEAD: Final = "# Written by `make lock`: do not edit. For Python 3.11 to 3.14, on Linux and macOS.\n"
BUILD: Final = "# == build: makes packages out of source, so it is installed first"
RUN: Final = "# == run: what the daemon needs; an image has this section and no more"
DEVELOP: Final = "# == develop: what the tests and checks need"
CONTAINER: Final = "# == container: what `make container` needs besides"


def uv(*arguments: str) -> str:
    """What `uv pip …` prints. Ends the program with its words if it fails."""
    done = subprocess.run(
        [Path(sys.executable).with_name("uv"), "pip", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"uv pip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def resolve(*wanted: str) -> dict[str, str]:
    """The entries of a resolution, by name: the pinned version with its marker, and its hashes."""
    text = uv(
        *("compile", "--universal", f"--python-version={PYTHONS[0]}", "--generate-hashes"),
        *("--no-header", "--no-annotate", "--no-emit-index-url"),
        *wanted,
    )
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries if entry.strip()}


def lock() -> str:
    """The text of the lock: today's newest versions within the ranges of `pyproject.toml`."""
    everything = resolve("pyproject.toml", "--all-extras", "--group=build", "--group=dev", "--group=container")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("".join(everything.values()))
        pins.flush()
        run = resolve("pyproject.toml", "--extra=fast", f"--constraint={pins.name}").keys()
        build = resolve("--group=build", f"--constraint={pins.name}").keys()
        develop = resolve("pyproject.toml", "--all-extras", "--group=dev", f"--constraint={pins.name}").keys()
        container = resolve("--group=container", f"--constraint={pins.name}").keys()
    # What both need stands in both: each can be installed by itself, and pip takes one entry twice.
    sections = {BUILD: build, RUN: run, DEVELOP: develop - run - build, CONTAINER: container}
    return HEAD + "".join(
        f"\n{title}\n{''.join(everything[name] for name in sorted(names))}" for title, names in sections.items()
    )


def check(path: Path) -> None:
    """End the program if a locked version has no wheel for one of the Pythons and platforms."""
    for python in PYTHONS:
        for platform in PLATFORMS:
            with tempfile.TemporaryDirectory() as target:
                uv(
                    *("install", "--dry-run", f"--target={target}", "--require-hashes", f"--requirement={path}"),
                    *(f"--python-version={python}", f"--python-platform={platform}"),
                    *("--only-binary=:all:", *(f"--no-binary={name}" for name in FROM_SOURCE)),
                )


def main() -> None:
    """Write the lock, once all is known to be there."""
    text = lock()
    with tempfile.NamedTemporaryFile("w", suffix=".lock") as file:
        file.write(text.partition(CONTAINER)[0])  # an engine runs on Linux with glibc, if at all
        file.flush()
        check(Path(file.name))
    LOCK.write_text(text)
    print(f"{LOCK.name}: {len(re.findall('^[a-z0-9].*==', text, re.MULTILINE))} packages")


if __name__ == "__main__":
    main()
