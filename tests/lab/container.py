"""`make container`: builds the image and runs it, alone and with compose, by an engine of its own.

Nothing is asked of a registry of images: the two base images are stand-ins, made of this machine's own Python,
libraries and busybox. The engine lives in a network namespace of its own and goes with the program. Only what
`requirements.lock` names comes from the package index.

Exit 0: all is as it should be; 1: something is not; 77: it cannot be tried here, and the reason.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SKIPPED: Final = 77
DEADLINE_S: Final = 300.0
"""So long a fact is waited for. It proves nothing; it keeps the program from hanging."""
STOP_S: Final = 20
"""The engine kills what has not ended by then."""
SLOW_NATS_S: Final = 45
"""So long the server that begins slowly does not answer: longer than a health check's usual patience."""
STOPPED_AFTER_S: Final = (0.1, 0.5, 1.0, 2.0)
IMAGE: Final = "jobstate"
CONTAINER: Final = "jobstate-jobstate-1"
NATS: Final = "jobstate-nats-1"
USER: Final = 10001


class WrongError(Exception):
    """Something is not as it should be."""


class SkippedError(Exception):
    """It cannot be tried here."""


def expect(what: str, found: object, wanted: object) -> None:
    """Raise `WrongError` if *found* is not *wanted*."""
    if found != wanted:
        raise WrongError(f"{what}: {found!r}, and not {wanted!r}")


def until(what: str, fact: Callable[[], object]) -> None:
    """Wait until *fact* is true. Raises `WrongError` if it never is."""
    began = time.monotonic()
    while not fact():
        if time.monotonic() - began > DEADLINE_S:
            raise WrongError(f"never came: {what}")
        time.sleep(0.2)


class Lab:
    """An engine, and what is built with it. *work* is its folder."""

    def __init__(self, work: Path) -> None:
        self._began: Final = time.monotonic()
        self.work: Final = work
        self.source: Final = work / "source"
        self.environ: Final = os.environ | {
            "DOCKER_HOST": f"unix://{work}/engine.sock",
            "DOCKER_CONFIG": str(work / "config"),
            "DOCKER_BUILDKIT": "0",
        }

    def say(self, text: str) -> None:
        """Tell what was found, and when."""
        print(f"[{time.monotonic() - self._began:4.0f} s] {text}", flush=True)

    def run(self, *command: str, code: int | None = 0, environ: Mapping[str, str] | None = None) -> str:
        """Give what it prints to both streams. Raises `WrongError` unless it exits with *code* (None: with any)."""
        done = subprocess.run(
            command,
            cwd=self.source,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if code is not None and done.returncode != code:
            raise WrongError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout.strip()

    def docker(self, *arguments: str, code: int | None = 0) -> str:
        """`docker` with *arguments*."""
        return self.run("docker", *arguments, code=code)

    def compose(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """`docker compose` with *arguments*, on the repository's own file."""
        files = ["-f", "docker-compose.yml", *(["-f", "slow.yml"] if (self.source / "slow.yml").exists() else [])]
        return self.run("docker", "compose", "-p", "jobstate", *files, *arguments, environ=environ)

    def look(self, container: str, what: str) -> str:
        """The part *what* of the engine's record of *container*."""
        return self.docker("inspect", container, "--format", f"{{{{{what}}}}}")


# -- the engine and what it needs --------------------------------------------------------------------------------------


def check_machine() -> None:
    """Raises `SkippedError` where no engine can be started."""
    if os.geteuid() != 0:
        raise SkippedError("an engine takes root")
    absent = [name for name in ("docker", "dockerd", "iptables", "busybox", "unshare", "ldd") if not shutil.which(name)]
    if absent:
        raise SkippedError(f"no {', '.join(absent)} (Debian: apt-get install docker.io iptables busybox-static)")


@contextlib.contextmanager
def engine(lab: Lab) -> Iterator[None]:
    """A private engine. Raises `SkippedError` with its last words if it does not start."""
    words = lab.work / "engine.log"
    options = [
        *("--data-root", f"{lab.work}/data", "--exec-root", f"{lab.work}/exec", "--pidfile", f"{lab.work}/pid"),
        *("--host", lab.environ["DOCKER_HOST"], "--group", "root"),
    ]
    with words.open("w") as log:
        daemon = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'busybox ip link set lo up; exec dockerd "$@"', "dockerd", *options],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        while subprocess.run(["docker", "version"], env=lab.environ, capture_output=True, check=False).returncode:
            if daemon.poll() is not None:
                raise SkippedError(f"the engine does not start here: {words.read_text().splitlines()[-1]}")
            time.sleep(0.2)
        yield
    finally:
        if daemon.poll() is None:
            for container in lab.docker("ps", "--all", "--quiet").split():
                lab.docker("rm", "--force", container, code=None)
            daemon.terminate()
        daemon.wait()


def make_stand_ins(lab: Lab) -> None:
    """`python:3.11-slim` and `nats:2.11-alpine`, as far as the repository's files need them."""
    python = lab.work / "python"
    make_python(python)
    put_wheels(lab, python / "wheels")
    (python / "etc" / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    bring_in(lab, python, "python:3.11-slim", f"ENV PATH={path}", "ENV LANG=C.UTF-8")

    nats = lab.work / "nats"
    make_root(nats)
    (nats / "entry").write_text('#!/bin/sh\ncase "$1" in -*) set -- nats-server "$@";; esac\nexec "$@"\n')
    (nats / "entry").chmod(0o755)
    shutil.copy(Path(sys.executable).with_name("nats-server"), nats / "usr" / "bin" / "nats-server")
    (nats / "usr" / "bin" / "nats-server").chmod(0o755)
    bring_in(lab, nats, "nats:2.11-alpine", "ENV PATH=/usr/bin", 'ENTRYPOINT ["/entry"]')


def bring_in(lab: Lab, root: Path, name: str, *changes: str) -> None:
    """Make the folder *root* an image."""
    archive = f"{root}.tar"
    lab.run("tar", "-C", str(root), "-cf", archive, ".")
    lab.docker("import", *(part for change in changes for part in ("--change", change)), archive, name)
    Path(archive).unlink()


def make_root(root: Path) -> None:
    """A root with busybox as all its tools."""
    for folder in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "var", "home", "tmp"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / folder).symlink_to(f"usr/{folder}")
    busybox = Path(shutil.which("busybox") or "").resolve()
    shutil.copy(busybox, root / "usr" / "bin" / "busybox")
    for name in subprocess.check_output([busybox, "--list"], text=True).split():
        if name != "busybox":
            (root / "usr" / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")


def make_python(root: Path) -> None:
    """A root with this machine's Python, as the official image has it: without a byte of bytecode."""
    make_root(root)
    base = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    local = root / "usr" / "local"
    (local / "bin").mkdir(parents=True)
    shutil.copytree(
        base / "lib" / name,
        local / "lib" / name,
        symlinks=True,
        ignore=shutil.ignore_patterns("__pycache__", "test", "idlelib", "tkinter", "turtledemo", "config-*"),
    )
    for package in (local / "lib" / name / "site-packages").iterdir():
        if not package.name.startswith("pip"):
            shutil.rmtree(package) if package.is_dir() else package.unlink()
    shutil.copy(base / "bin" / name, local / "bin" / name)
    for link in ("python", "python3"):
        (local / "bin" / link).symlink_to(name)
    (local / "bin" / "pip").write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    (local / "bin" / "pip").chmod(0o755)
    tools = [Path(shutil.which(tool) or f"/usr/sbin/{tool}") for tool in ("useradd", "groupadd")]
    for tool in tools:
        shutil.copy(tool, root / "usr" / "sbin" / tool.name)
        (root / "usr" / "bin" / tool.name).unlink(missing_ok=True)
    for program in [*tools, base / "bin" / name, *(base / "lib" / name / "lib-dynload").glob("*.so")]:
        put_libraries(root, program)
    cached = subprocess.check_output(["/sbin/ldconfig", "-p"], text=True)
    for library in ("libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"):
        found = re.search(rf"^\s+{re.escape(library)} .*=> (\S+)$", cached, re.MULTILINE)
        if found:
            put_file(root, found[1])
    shutil.copy("/etc/login.defs", root / "etc" / "login.defs")
    (root / "etc" / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    (root / "etc" / "ld.so.conf").write_text("/usr/local/lib\n" + "\n".join(library_folders(root)) + "\n")
    subprocess.run(["/sbin/ldconfig", "-r", root], check=True)


def put_libraries(root: Path, program: Path) -> None:
    """Copy what *program* is linked with."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for file in re.findall(r"(/\S+\.so\S*)", said):
        put_file(root, file)


def put_file(root: Path, file: str) -> None:
    """Copy *file* to where it is here, or, if it is Python's own, to /usr/local/lib."""
    own = file.startswith(sys.base_prefix)
    place = root / "usr/local/lib" / Path(file).name if own else root / re.sub(r"^/(usr/)?", "usr/", file)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        shutil.copy(file, place)


def library_folders(root: Path) -> list[str]:
    """Where libraries are."""
    return sorted({f"/{file.parent.relative_to(root)}" for file in (root / "usr" / "lib").rglob("*.so*")})


def put_wheels(lab: Lab, folder: Path) -> None:
    """What the image takes from the package index, by its hashes: the base image here has no network."""
    lock = (ROOT / "requirements.lock").read_text().partition("# == develop")[0]
    (lab.work / "image.lock").write_text(lock)
    lab.run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)),
        *("--require-hashes", "--only-binary", ":all:", "--no-binary", "nkeys", "--no-build-isolation"),
        *("--requirement", str(lab.work / "image.lock")),
    )


def put_source(lab: Lab) -> None:
    """The files of the repository, and compose as a part of docker."""
    ignored = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__", "tests", "dist", "data")
    shutil.copytree(ROOT, lab.source, ignore=ignored)
    plugins = lab.work / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    shutil.copy(Path(sys.executable).with_name("docker-compose"), plugins)


# -- what is tried -----------------------------------------------------------------------------------------------------


def build(lab: Lab) -> float:
    """Build the image; how many seconds it took."""
    began = time.monotonic()
    lab.docker("build", "--quiet", "--network=none", "--tag", IMAGE, ".")
    return time.monotonic() - began


def try_build(lab: Lab) -> None:
    """A changed source line makes nothing anew but our own package; nothing is compiled when the image runs."""
    cold = build(lab)
    size = int(lab.look(IMAGE, ".Size")) - int(lab.look("python:3.11-slim", ".Size"))
    before = lab.look(IMAGE, "json .RootFS.Layers")
    file = lab.source / "consumer" / "__init__.py"
    file.write_text(f"{file.read_text()}\n# changed\n")
    again = build(lab)
    layers = [before.strip("[]").split(","), lab.look(IMAGE, "json .RootFS.Layers").strip("[]").split(",")]
    expect("layers that a changed source line leaves alone", layers[0][:-1], layers[1][:-1])
    lab.say(f"built in {cold:.0f} s: {size / 1e6:.0f} MB above its base; a changed source line costs {again:.1f} s")
    timed = lab.docker("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", "time jobstate version && id && touch /data/x")
    expect("its user and group", re.findall(r"[ug]id=\d+", timed), [f"uid={USER}", f"gid={USER}"])
    lab.say(f"`jobstate version` takes {cpu(timed):.2f} s of CPU")
    wanting = lab.docker(
        *("run", "--rm", "--entrypoint", "python", IMAGE, "-c"),
        "import sys, os, consumer.cli.run\n"
        "cached = {m.__name__: getattr(m, '__cached__', None) for m in list(sys.modules.values())}\n"
        "print(len(cached) > 500, [name for name, file in cached.items() if file and not os.path.exists(file)])",
    )
    expect("many modules, and those without bytecode", wanting, "True []")


def cpu(said: str) -> float:
    """The seconds of CPU, user and system, that busybox' `time` said."""
    return sum(
        60 * int(minutes) + float(seconds) for minutes, seconds in re.findall(r"(?:user|sys)\t(\d+)m ?([\d.]+)s", said)
    )


def try_stop(lab: Lab) -> None:
    """Whenever it is told to, and whatever it does: it ends by itself, and is not killed."""
    for verb in ("run", "watch"):
        for after in STOPPED_AFTER_S:
            lab.docker("run", "--detach", "--name", "stopped", "--network=none", IMAGE, verb)
            time.sleep(after)
            began = time.monotonic()
            lab.docker("stop", "--time", str(STOP_S), "stopped")
            took = time.monotonic() - began
            code = int(lab.look("stopped", ".State.ExitCode"))
            said = lab.docker("logs", "stopped")
            lab.docker("rm", "stopped")
            # 11: a verb finds no server by itself after a while.
            if code not in ({0, 143} if verb == "run" else {143, 11}):
                raise WrongError(
                    f"docker stop {after} s after the start of {verb}: exit {code} after {took:.1f} s\n{said}"
                )
            lab.say(f"docker stop {after} s after the start of `{verb}`: {took:.1f} s, exit {code}")


def try_health(lab: Lab) -> None:
    """Healthy wherever the daemon listens and whatever stands between; unhealthy when it stands still."""
    (lab.work / "jobstate.toml").write_text("[http]\nport = 9191\n")
    ways = {
        "as it is": [],
        "a port from TOML": [
            "-e",
            "JOBSTATE_CONFIG=/jobstate.toml",
            "-v",
            f"{lab.work}/jobstate.toml:/jobstate.toml:ro",
        ],
        "port 0": ["-e", "JOBSTATE_HTTP__PORT=0"],
        "HTTP_PROXY": ["-e", "HTTP_PROXY=http://127.0.0.1:1", "-e", "http_proxy=http://127.0.0.1:1"],
        "an IPv6 host": ["-e", "JOBSTATE_HTTP__HOST=::1", "--sysctl", "net.ipv6.conf.lo.disable_ipv6=0"],
        "a read-only root": ["--read-only", "--cap-drop=ALL"],
    }
    names = {way: f"health-{number}" for number, way in enumerate(ways)}
    for way, options in ways.items():
        lab.docker("run", "--detach", "--name", names[way], "--health-interval=1s", *options, IMAGE)
    for way, name in names.items():
        until(f"healthy with {way}", is_healthy(lab, name))
        url = lab.docker("exec", name, "cat", "/dev/shm/jobstate.url")
        lab.say(f"healthy with {way}: {url}")
    first = names["as it is"]
    timed = lab.docker("exec", first, "sh", "-c", "time python -I -m consumer.probe")
    lab.say(f"a probe takes {cpu(timed):.2f} s of CPU")
    lab.docker("kill", "--signal=STOP", first)
    until("unhealthy when it stands still", lambda: lab.look(first, ".State.Health.Status") == "unhealthy")
    lab.docker("kill", "--signal=CONT", first)
    until("healthy when it goes on", is_healthy(lab, first))
    lab.say("unhealthy while it stands still, healthy when it goes on")
    lab.docker("rm", "--force", *names.values())


def is_healthy(lab: Lab, container: str) -> Callable[[], bool]:
    """Whether the engine calls *container* healthy."""
    return lambda: lab.look(container, ".State.Health.Status") == "healthy"


def try_compose(lab: Lab) -> None:
    """Up beside a server that begins slowly; its data outlives it; nobody is root, nothing grows without bound."""
    slow = lab.source / "slow.yml"
    slow.write_text(
        "services:\n  nats:\n    entrypoint: "
        f'["sh", "-c", "sleep {SLOW_NATS_S}; exec nats-server \\"$$@\\"", "nats-server"]\n'
    )
    lab.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(int(DEADLINE_S)))
    lab.say(f"up beside a server that begins after {SLOW_NATS_S} s: {status(lab)}")
    slow.unlink()
    exec_ = ("exec", CONTAINER, "jobstate")
    lab.docker(*exec_, "send", "j-1", "Pending", "--type", "batch")
    until("the report in the log", lambda: "Pending" in lab.docker(*exec_, "history", "j-1", code=None))
    for name, user in ((CONTAINER, USER), (NATS, 10002)):
        expect(f"the user of {name}", lab.docker("exec", name, "id", "-u"), str(user))
        expect(f"the root of {name} is read-only", lab.look(name, ".HostConfig.ReadonlyRootfs"), "true")
        expect(f"what {name} may log", lab.look(name, 'index .HostConfig.LogConfig.Config "max-size"'), "10m")
        expect(f"{name} has a bound of memory", lab.look(name, "gt .HostConfig.Memory 0"), "true")
        expect(f"{name} has a bound of processes", lab.look(name, ".HostConfig.PidsLimit"), "256")
    answer = lab.docker("exec", NATS, "wget", "-q", "-O", "-", "http://jobstate:9090/livez")
    expect("/livez from another container", '"alive": true' in answer, True)
    lab.docker("stop", "--time", str(STOP_S), CONTAINER)
    expect("the exit code of `docker stop`", lab.look(CONTAINER, ".State.ExitCode"), "0")
    lab.compose("down")
    lab.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(int(DEADLINE_S)))
    expect("the job after down and up", "Pending" in lab.docker(*exec_, "history", "j-1"), True)
    lab.say(f"after down and up the log is there: {status(lab)}")


def try_secret(lab: Lab) -> None:
    """A secret that user 10001 may not read: the error says what to do, and that helps."""
    token = lab.work / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    up = ("up", "--detach", "--no-build", "--force-recreate", "--no-deps", "jobstate")
    given = {"BACALHAU_API": "http://nats:1", "BACALHAU_API_TOKEN_FILE": str(token)}
    lab.compose(*up, environ=given)
    until("the error", lambda: "Permission denied" in lab.docker("logs", CONTAINER))
    said = lab.docker("logs", CONTAINER).splitlines()[-1]
    advice = re.search(r"`(chown \d+ )FILE( && chmod \d+ )FILE`", said)
    if advice is None:
        raise WrongError(f"no advice in {said!r}")
    lab.run("sh", "-c", f"{advice[1]}{token}{advice[2]}{token}")
    lab.compose(*up, environ=given)
    until("healthy with the secret", is_healthy(lab, CONTAINER))
    expect("restarts since then", lab.look(CONTAINER, ".RestartCount"), "0")
    lab.say(f"a secret that may not be read: {said}")
    lab.say("done as it says, it is read")
    lab.compose("down", "--volumes")


def status(lab: Lab) -> str:
    """The containers and how they are, on one line."""
    return ", ".join(lab.docker("ps", "--format", "{{.Names}} {{.Status}}").splitlines())


def main() -> int:
    """Try it all. The exit code."""
    argparse.ArgumentParser(prog="python -m tests.lab.container", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="jobstate-container-", ignore_cleanup_errors=True) as folder:
        lab = Lab(Path(folder))
        try:
            check_machine()
            put_source(lab)
            with engine(lab):
                lab.say(f"engine {lab.docker('version', '--format', '{{.Server.Version}}')}")
                make_stand_ins(lab)
                lab.say("the stand-ins of python:3.11-slim and nats:2.11-alpine are made")
                for attempt in (try_build, try_stop, try_health, try_compose, try_secret):
                    attempt(lab)
                lab.say("all well")
        except SkippedError as reason:
            print(f"make container: skipped: {reason}")
            return SKIPPED
        except WrongError as reason:
            print(f"make container: wrong: {reason}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
