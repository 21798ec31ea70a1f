"""Every setting: its name, kind, bounds, default and meaning. `load` makes `Settings` of a file and the environment.

A file is TOML (`config/jobstate.toml` is the commented, complete one). The environment comes after it, key by key, as
`JOBSTATE_<SECTION>__<KEY>`. What cannot be understood is refused, never guessed. A secret stands in a file of its own
that a setting names (`read_secret` reads it when it is used), or in the environment (`Secret`); never in our file, and
nothing shows it.
"""

import codecs
import difflib
import os
import re
import ssl
import stat
import tomllib
from base64 import b32decode
from binascii import crc_hqx
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from consumer.errors import SettingsError, quoted

ENVIRONMENT: Final = "JOBSTATE_"
"""What the name of each of our environment variables begins with."""

CONFIG: Final = "JOBSTATE_CONFIG"
"""The variable that names the file; the command line's `--config` comes first."""

_ALONE: Final = ("CLUSTER", "CONFIG")
"""The variables of no section, without what all begin with."""

RULES_FILE: Final = "rules.file (JOBSTATE_RULES__FILE)"
"""What names the rules file, for an error about that file."""

UNKNOWN_MAX: Final = 8
"""Unknown names of one file that are told at once: a file with more is not one of ours."""

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

_USER_INFO: Final = re.compile(r"(^|://|,)[^/,]*@")
_AUTHORITIES: Final = "SSL_CERT_FILE"
_TLS: Final = re.compile(r"(^|,\s*)(https|tls|wss)://", re.IGNORECASE)
_QUERY: Final = re.compile(r"[?#][^,\s]*")

_ANOTHER_FILE: Final = "name a user's credentials file (nsc generate creds, or as your NATS provider gives it)"
_JWT: Final = re.compile(r"[A-Za-z0-9_=-]+(\.[A-Za-z0-9_=-]+){2}")
_SEED_BYTES: Final = 36
"""Of a seed: two of what it is, 32 of the key, two of the checksum."""

_PATHS: Final = ("file", "tls_ca", "folder")
"""How the keys end whose values are names of files: those may be any bytes."""

_AGES: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Secret:
    """A secret of the environment: falsy if there is none. Nothing shows it, and no encoder of ours writes it."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text: Final = text

    def reveal(self) -> str:
        """The secret itself: for whoever sends it where it belongs."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Secret({'***' if self._text else ''})"


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """One table of the file. Shown without what an URL may hold of a secret."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={redact(value)!r}" if name == "url" and isinstance(value, str) else f"{name}={value!r}"
            for name, value in ((name, getattr(self, name)) for name in self.__struct_fields__)
        )
        return f"{type(self).__name__}({', '.join(shown)})"


_PORT: Final = r"([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST: Final = rf"(\[[0-9A-Fa-f:.]+\]|[^\s,/:@?#\[\]]+)(:{_PORT})?"
_ONE_URL: Final = rf"((nats|tls|ws|wss)://)?([^\s,/?#\[\]]*@)?{_HOST}/?"
_Url = Annotated[str, Meta(pattern=rf"^({_ONE_URL}(,\s*{_ONE_URL})*)?$")]
_File = Annotated[str, Meta(max_length=4_096)]


class Nats(_Section, frozen=True, kw_only=True):
    """The NATS server with JetStream that holds our streams."""

    url: Annotated[
        _Url, Meta(description="Servers that hold our streams, `nats://host:4222`; several with commas.", min_length=1)
    ] = "nats://127.0.0.1:4222"
    token_file: Annotated[_File, Meta(description="File that holds the token.")] = ""
    token: Annotated[Secret, Meta(description="The token itself, in place of its file.")] = Secret()
    user: Annotated[str, Meta(description="User, together with a password.")] = ""
    password_file: Annotated[_File, Meta(description="File that holds that user's password.")] = ""
    password: Annotated[Secret, Meta(description="The password itself, in place of its file.")] = Secret()
    credentials_file: Annotated[_File, Meta(description="File that holds the credentials (JWT and seed).")] = ""
    tls_ca: Annotated[
        _File, Meta(description="Certificate authority of the servers (PEM), if it is not a public one.")
    ] = ""
    tls_first: Annotated[
        bool, Meta(description="Shake hands before the server says who it is (its `handshake_first`).")
    ] = False


class Streams(_Section, frozen=True, kw_only=True):
    """How our streams are made where they are absent. One that differs is refused, never altered."""

    mode: Annotated[
        Literal["create", "bind"],
        Meta(description="`create` makes the streams that are absent; `bind` refuses to start without them."),
    ] = "create"
    replicas: Annotated[int, Meta(description="Copies of each stream, on as many servers: 1, 3 or 5.", ge=1, le=5)] = 1
    log_max_bytes: Annotated[
        int,
        Meta(
            description="Bytes the log may take (0: no bound). When it is full updates wait and nothing is forgotten.",
            ge=0,
        ),
    ] = 2 * GIB
    input_max_bytes: Annotated[int, Meta(description="Bytes the input may take (0: no bound).", ge=0)] = GIB
    refused_max_bytes: Annotated[
        int,
        Meta(description="Bytes for what was rejected or undecodable; the oldest is forgotten first.", ge=MIB),
    ] = 256 * MIB
    bucket_max_bytes: Annotated[
        int,
        Meta(
            description="Bytes the bucket may take (0: no bound, or a quarter more than the log where the account "
            "requires one). When it is full it falls behind the log.",
            ge=0,
        ),
    ] = 0


class Bacalhau(_Section, frozen=True, kw_only=True):
    """Bacalhau's own NATS server: where its frames are listened to."""

    url: Annotated[
        _Url,
        Meta(
            description="Bacalhau's NATS server, `nats://host:4222`; several with commas. Empty: jobs are "
            "read in turn only, or, if `orchestrator.url` is empty too, reports only."
        ),
    ] = ""
    token_file: Annotated[
        _File, Meta(description="File that holds the token (Bacalhau's `Orchestrator.Auth.Token`).")
    ] = ""
    token: Annotated[Secret, Meta(description="The token itself, in place of its file.")] = Secret()
    tls_ca: Annotated[_File, Meta(description="Certificate authority of the servers (PEM).")] = ""
    tls_first: Annotated[
        bool, Meta(description="Shake hands before the server says who it is (Bacalhau's `RequireTLS`).")
    ] = False
    frames_max: Annotated[
        int,
        Meta(
            description="Most frames that wait to be read; more are dropped, and every job is looked at instead.",
            ge=1,
            le=10_000_000,
        ),
    ] = 65_536
    frames_bytes: Annotated[
        int, Meta(description="Most bytes of such frames. One that is larger is dropped.", ge=64 * 1024, le=16 * GIB)
    ] = 64 * MIB


class Orchestrator(_Section, frozen=True, kw_only=True):
    """Bacalhau's REST API: the authority on the state of its jobs."""

    url: Annotated[
        str,
        Meta(
            description="Address of the API, `http://host:1234`. Empty: states are derived from frames alone, or, "
            "if `bacalhau.url` is empty too, reports only.",
            pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*)?)?$",
        ),
    ] = ""
    token_file: Annotated[_File, Meta(description="File that holds a bearer token.")] = ""
    token: Annotated[Secret, Meta(description="The bearer token itself, in place of its file.")] = Secret()
    user: Annotated[str, Meta(description="User for basic authentication, together with a password.")] = ""
    password_file: Annotated[_File, Meta(description="File that holds that user's password.")] = ""
    password: Annotated[Secret, Meta(description="The password itself, in place of its file.")] = Secret()
    tls_ca: Annotated[_File, Meta(description="Certificate authority of the API (PEM).")] = ""
    max_rate: Annotated[
        float, Meta(description="Most requests a second, as an average over ten seconds.", ge=1, le=10_000)
    ] = 200.0
    timeout_s: Annotated[
        float,
        Meta(
            description="Seconds after which an unanswered request is given up; a list has 30 at least.", ge=0.1, le=300
        ),
    ] = 10.0
    concurrency: Annotated[int, Meta(description="Most requests at once.", ge=1, le=256)] = 8
    answer_bytes: Annotated[
        int,
        Meta(
            description="Largest list that is read; of a job a sixteenth. A list too large is asked for in halves.",
            ge=MIB,
            le=GIB,
        ),
    ] = 32 * MIB


class Scan(_Section, frozen=True, kw_only=True):
    """How changes are found that no frame tells of."""

    rate: Annotated[
        float,
        Meta(
            description="Most reads a second of open jobs in turn; each is read once a second at most.", gt=0, le=10_000
        ),
    ] = 50.0
    list: Annotated[
        Annotated[float, Meta(ge=1, le=86_400)] | Literal["auto"],
        Meta(description="Seconds between two lists at least, `auto`: one; never more than a twentieth of the time."),
    ] = "auto"
    backfill: Annotated[
        str,
        Meta(
            description="Jobs that ended before the log began: `none`, `all`, or those of the last `7d` (s, m, h, d).",
            pattern=r"^(none|all|[1-9][0-9]{0,8}[smhd])$",
        ),
    ] = "none"

    @property
    def backfill_s(self) -> float:
        """How far back finished jobs are taken in, in seconds: 0 for none, infinity for all."""
        if self.backfill in {"none", "all"}:
            return 0.0 if self.backfill == "none" else float("inf")
        return float(int(self.backfill[:-1]) * _AGES[self.backfill[-1]])


class RulesChoice(_Section, frozen=True, kw_only=True):
    """By which rules states are judged."""

    file: Annotated[_File, Meta(description="Rules file. Empty: Bacalhau's, as they come with the program.")] = ""
    accept: Annotated[bool, Meta(description="Write a log that was made by other rules, from here on by these.")] = (
        False
    )

    @property
    def path(self) -> Path | None:
        """The file, None for the rules that come with the program."""
        return Path(self.file) if self.file else None


class Lanes(_Section, frozen=True, kw_only=True):
    """How much is under way at once."""

    events_max: Annotated[
        int, Meta(description="Most events in memory that the log has not confirmed.", ge=1, le=10_000_000)
    ] = 20_000
    flight_max: Annotated[
        int, Meta(description="Most entries sent and not yet confirmed, over all jobs.", ge=1, le=1_000_000)
    ] = 4_096


class Limits(_Section, frozen=True, kw_only=True):
    """The bound of everything that could grow."""

    message_bytes: Annotated[
        int, Meta(description="Largest frame or report that is read, and largest entry.", ge=65_536, le=64 * MIB)
    ] = MIB
    executions: Annotated[int, Meta(description="Executions whose job is remembered.", ge=1, le=100_000_000)] = 100_000
    jobs: Annotated[
        int,
        Meta(
            description="Jobs looked at at once: open ones and those being read. Others wait for a list.",
            ge=1,
            le=100_000_000,
        ),
    ] = 200_000
    label_values: Annotated[
        int,
        Meta(
            description="Values of one label of a metric that are told apart; others count as `other`.", ge=8, le=1_000
        ),
    ] = 64


class Checkpoint(_Section, frozen=True, kw_only=True):
    """Where a restart begins to read the input."""

    every_s: Annotated[
        float, Meta(description="Seconds between two checkpoints, if the input has moved.", ge=0.05, le=3_600)
    ] = 1.0


class Drain(_Section, frozen=True, kw_only=True):
    """The end of the daemon."""

    deadline_s: Annotated[
        float, Meta(description="Seconds after SIGTERM until what is under way must be confirmed.", ge=0, le=3_600)
    ] = 10.0


class Http(_Section, frozen=True, kw_only=True):
    """Where `/metrics`, `/livez` and `/readyz` are served."""

    host: Annotated[
        str,
        Meta(
            description="Address to listen on; `*` is every address, of IPv4 and IPv6. There is no authentication: "
            "think before it is not loopback.",
            min_length=1,
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port; 0 takes any that is free.", ge=0, le=65_535)] = 9_090
    address_file: Annotated[
        _File,
        Meta(
            description="File to which the daemon writes its URL (`http://127.0.0.1:9090`), and which it removes when "
            "it ends: so others learn which port it took. Empty: none.",
        ),
    ] = ""


class Log(_Section, frozen=True, kw_only=True):
    """The daemon's own log lines (on standard error)."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least that is worth a line.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"], Meta(description="`auto`: console on a terminal, else JSON.")
    ] = "auto"
    lines_per_s: Annotated[
        int, Meta(description="Most lines a second of one kind; how many were left out is told.", ge=1, le=100_000)
    ] = 20


class Embedded(_Section, frozen=True, kw_only=True):
    """A NATS server of our own (`jobstate run --embedded`)."""

    folder: Annotated[_File, Meta(description="Folder where it keeps its data.", min_length=1)] = "data/nats"
    start_s: Annotated[
        float,
        Meta(
            description="Seconds that it may take to recover its streams and take connections; then it is given up.",
            ge=1,
            le=86_400,
        ),
    ] = 3_600.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, checked. A field that is a struct is a section. `warnings` is what `load` wants said."""

    cluster: Annotated[
        str,
        Meta(
            description="Name of the Bacalhau cluster, a token in every subject: 1 to 64 of A-Z, a-z, 0-9, `_`, `-`.",
            pattern=r"^[A-Za-z0-9_-]{1,64}$",
        ),
    ] = "main"
    nats: Nats = Nats()
    streams: Streams = Streams()
    bacalhau: Bacalhau = Bacalhau()
    orchestrator: Orchestrator = Orchestrator()
    scan: Scan = Scan()
    rules: RulesChoice = RulesChoice()
    lanes: Lanes = Lanes()
    limits: Limits = Limits()
    checkpoint: Checkpoint = Checkpoint()
    drain: Drain = Drain()
    http: Http = Http()
    log: Log = Log()
    embedded: Embedded = Embedded()
    warnings: tuple[str, ...] = ()

    @property
    def derives(self) -> bool:
        """Whether there are frames and no orchestrator: states are derived from frames alone."""
        return bool(self.bacalhau.url) and not self.orchestrator.url


class Setting(NamedTuple):
    """One setting, as the reference and the loader see it. `section` is empty for `cluster`."""

    section: str
    key: str
    kind: Any
    default: Any

    @property
    def name(self) -> str:
        """As in an error: `nats.url`."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def variable(self) -> str:
        """Its environment variable: `JOBSTATE_NATS__URL`."""
        return _variable(self.name)

    @property
    def secret(self) -> bool:
        """Whether only the environment may say it."""
        return Secret in _parts(self.kind)


def all_settings() -> Iterator[Setting]:
    """Every setting there is, in the order of the file."""
    for field in msgspec.structs.fields(Settings):
        if field.name == "warnings":
            continue
        if isinstance(field.type, type) and issubclass(field.type, _Section):
            for inner in msgspec.structs.fields(field.type):
                yield Setting(field.name, inner.name, inner.type, inner.default)
        else:
            yield Setting("", field.name, field.type, field.default)


def _variable(name: str) -> str:
    """The environment variable of the setting *name*: `JOBSTATE_NATS__URL` of `nats.url`."""
    return ENVIRONMENT + name.replace(".", "__").upper()


REMOVED: Final[Mapping[str, str]] = {
    "bacalhau.derive": "with an orchestrator nothing is published from a frame any more; remove the setting",
}
"""Settings that there were, and what became of them: found in a file or the environment they are told, and ignored."""


class Given(NamedTuple):
    """What the command line says: its option, the setting that it is, and the text."""

    option: str
    name: str
    text: str


def load(path: Path | None = None, environ: Mapping[str, str] | None = None, given: Sequence[Given] = ()) -> Settings:
    """The settings of the file at *path* (None: defaults), after it of *environ* (None: nothing), after that *given*.

    Raises `SettingsError`: names the file, variable or option, the key, the reason and, of a misspelt one, the nearest
    name.
    """
    known = {setting.name: setting for setting in all_settings()}
    values = {} if path is None else _from_file(path)
    origins = dict.fromkeys(values, str(path))
    overruled = {known[name].variable for _, name, _ in given}  # what a flag comes before need not be right
    left = {variable: text for variable, text in (environ or {}).items() if variable not in overruled}
    for name, value in _from_environment(left).items():
        values[name], origins[name] = value, f"environment: {_variable(name)}"
    for option, name, text in given:
        values[name], origins[name] = _convert(option, known[name], text, lax=True), option

    removed = [f"{origins[name]}: {name}: {REMOVED[name]}" for name in REMOVED if name in values]
    sections: dict[str, dict[str, Any]] = {}
    for setting in all_settings():
        if setting.section and setting.name in values:
            sections.setdefault(setting.section, {})[setting.key] = values[setting.name]
    made = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    chosen: dict[str, Any] = {name: made[name](**given) for name, given in sections.items()}
    if "cluster" in values:
        chosen["cluster"] = values["cluster"]
    settings = Settings(**chosen)
    _check_together(settings, origins)
    _check_hosts(settings, origins)
    return msgspec.structs.replace(settings, warnings=(*removed, *_look_at_files(settings, origins)))


def read_secret(path: str, name: str) -> str:
    """What the file at *path* holds, without the line break at its end. *name* is the setting, for the error.

    Read at each use, so a changed token needs no restart. Raises `SettingsError`; its text never holds the content.
    """
    text = _read_text(path, name, "write the secret into it")
    if not text:
        raise SettingsError(f"{name}: the file {path} is empty; write the secret into it, or leave the setting out")
    if not _is_one_word(text) and not name.endswith("password_file"):
        raise SettingsError(
            f"{name}: the file {path} holds more than one line or a blank; it must hold the secret alone"
        )
    if "\0" in text:
        raise SettingsError(
            f"{name}: the file {path} holds a NUL character, which no secret has; write it anew as text"
        )
    return text


class Credentials(msgspec.Struct, frozen=True):
    """What a credentials file of NATS holds: who we are (a JWT), and the user's seed that proves it. Never shown."""

    jwt: str
    seed: str

    def __repr__(self) -> str:
        return "Credentials(***)"

    @property
    def text(self) -> str:
        """The same as such a file has it, with the line ends that nats-py can read."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )


def read_credentials(path: str, name: str) -> Credentials:
    """What the credentials file at *path* holds, whatever its line ends. *name* is the setting, for the error.

    Read for each connection, so a renewed file needs no restart. Raises `SettingsError`: file, reason, next step.
    """
    lines = [line.strip() for line in _read_text(path, name, _ANOTHER_FILE).splitlines()]
    lines = [line for line in lines if line]
    found = {}
    for part, begin in (("JWT", "BEGIN NATS USER JWT"), ("seed", "BEGIN USER NKEY SEED")):
        at = next((number for number, line in enumerate(lines) if begin in line), len(lines))
        found[part] = lines[at + 1] if at + 1 < len(lines) and not lines[at + 1].startswith("-") else ""
    missing = [part for part, text in found.items() if not text]
    if missing:
        what = "holds no credentials of NATS" if len(missing) == len(found) else f"holds no {missing[0]}"
        raise SettingsError(f"{name}: the file {path} {what}; {_ANOTHER_FILE}")
    jwt, seed = found["JWT"], found["seed"]
    if not _JWT.fullmatch(jwt):
        raise SettingsError(f"{name}: the JWT in the file {path} is damaged; {_ANOTHER_FILE}")
    if not _is_user_seed(seed):
        raise SettingsError(f"{name}: the seed in the file {path} is damaged, or no user's; {_ANOTHER_FILE}")
    return Credentials(jwt, seed)


def _is_user_seed(seed: str) -> bool:
    """Whether *seed* is that of a user: `SU…`, base32, with the checksum (CRC-16, XMODEM) in its last two bytes."""
    try:
        raw = b32decode(seed + "=" * (-len(seed) % 8))
    except ValueError:
        return False
    return seed.startswith("SU") and len(raw) == _SEED_BYTES and crc_hqx(raw[:-2], 0).to_bytes(2, "little") == raw[-2:]


def _read_text(path: str, name: str, step: str) -> str:
    """The text of the file at *path*, without blanks around it or a byte order mark. Raises `SettingsError`."""
    try:
        return Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        if isinstance(error, PermissionError):
            step = (
                f"let user {os.geteuid()} read it, `chown {os.geteuid()} FILE && chmod 400 FILE` as root, in a "
                "container with the FILE that is mounted there"
            )
        if _is_path(path):
            raise SettingsError(f"{name}: the file {path} cannot be read ({reason}); {step}") from error
        # It may be the secret itself, given by mistake: that must not be said on, nor stand in the cause.
        key = name.rpartition(" ")[2].removesuffix("_file")
        by_mistake = (
            "a setting names the file, and does not hold what stands in it"
            if key.endswith("credentials")
            else f"if this is the {key.rpartition('.')[2]} itself, set {ENVIRONMENT}{key.replace('.', '__').upper()} "
            "in its place"
        )
        raise SettingsError(
            f"{name}: the file of the name that is given, which is not shown, cannot be read ({reason}); it was looked "
            f"for in {_here()}; {by_mistake}"
        ) from None


def _here() -> str:
    """The folder that we run in, as an error names it."""
    try:
        return str(Path.cwd())
    except OSError:
        return "the working directory, which is gone"


def _is_path(text: str) -> bool:
    """Whether *text* names a file beyond doubt. A secret may have a slash within it, as base64 does."""
    folder = os.path.dirname(text)  # noqa: PTH120 - of pathlib "x" has the folder "."
    return text.startswith(("/", "./", "../")) or (bool(folder) and os.path.isdir(folder))  # noqa: PTH112 - too long: no


def utf8_of(text: str) -> str:
    """*text* of a variable or an argument, whose bytes are UTF-8 whatever the locale is. Raises `UnicodeError` if not.

    Python reads it in the locale's encoding; what that cannot read comes as lone surrogates.
    """
    try:
        text.encode()
    except UnicodeError:
        return os.fsencode(text).decode()
    return text


def secret_of(given: Secret, path: str, name: str) -> str:
    """What the environment gave, else what the file at *path* holds, else nothing. Raises as `read_secret`."""
    return given.reveal() or (read_secret(path, name) if path else "")


def trust(ca: str, name: str) -> ssl.SSLContext:
    """How TLS is spoken by whoever trusts the authorities in the file at *ca*; without one, those of the system.

    Raises `SettingsError`, with *name* of the setting.
    """
    try:
        data = Path(ca).read_bytes() if ca else b""
        if data.startswith(codecs.BOM_UTF8):  # OpenSSL would leave out the certificate that it stands before
            return ssl.create_default_context(cadata=data.decode("utf-8-sig"))
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ValueError, TypeError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(f"{name}: {ca} is no certificate authority in PEM; check the file") from error


def redact(url: str) -> str:
    """*url* (several: with commas) without user, password, token or query: fit to be shown."""
    return _QUERY.sub("?***", _USER_INFO.sub(r"\1***@", url))


def _from_file(path: Path) -> dict[str, Any]:
    """The values of the file by their names, each of its kind; those of `REMOVED` as they stand there."""
    table = _parse(path)
    known = {setting.name: setting for setting in all_settings()}
    sections = {setting.section for setting in known.values() if setting.section}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in table.items():
        if name in sections and not isinstance(value, dict):
            raise SettingsError(f"{path}: {name}: is a section; write [{name}] and its keys below")
        if name not in sections and isinstance(value, dict):
            unknown.append(f"unknown section [{name}]{_nearest(name, sections)}")
            continue
        section, table_of = (name, value) if name in sections else ("", {name: value})
        for key, given in table_of.items():
            full = f"{section}.{key}" if section else key
            if full in REMOVED:
                values[full] = given
                continue
            if full not in known:
                unknown.append(f"unknown key `{key}`{f' in [{section}]' if section else ''}{_meant(key, section)}")
                continue
            if known[full].secret:
                raise SettingsError(
                    f"{path}: {full}: a secret does not belong into this file; "
                    f"give it as {known[full].variable}, or name the file that holds it: {full}_file"
                )
            values[full] = _convert(str(path), known[full], given)
    if unknown:
        more = f"; and {len(unknown) - UNKNOWN_MAX} more" if len(unknown) > UNKNOWN_MAX else ""
        raise SettingsError(f"{path}: {'; '.join(unknown[:UNKNOWN_MAX])}{more}")
    return values


def _parse(path: Path) -> dict[str, Any]:
    """The tables of the file. A byte-order mark and either kind of line ends are no part of it."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); name another file with --config") from error
    except UnicodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from error


def check_names(environ: Mapping[str, str]) -> None:
    """Refuse a variable that is almost one of ours. Raises `SettingsError`; no value is looked at.

    Kubernetes sets variables like `JOBSTATE_PORT_9090_TCP` for a service of our name: those are not ours and no error.
    """
    known = {setting.variable for setting in all_settings()} | set(map(_variable, REMOVED))
    flat = {re.sub("_+", "_", variable): variable for variable in known}
    for variable in environ:
        if not variable.startswith(ENVIRONMENT) or variable == CONFIG or variable in known:
            continue
        where = f"environment: {variable}"
        if (meant := flat.get(re.sub("_+", "_", variable))) is not None:
            raise SettingsError(f"{where}: unknown; did you mean {meant} (two underscores)?")
        if "__" in variable:
            raise SettingsError(f"{where}: unknown{_meant_by(variable)}")
        if near := difflib.get_close_matches(variable.removeprefix(ENVIRONMENT), _ALONE, n=1, cutoff=0.8):
            raise SettingsError(f"{where}: unknown; did you mean {ENVIRONMENT}{near[0]}?")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of the variables that are ours by their names, each of its kind."""
    check_names(environ)
    known = {setting.variable: setting for setting in all_settings()}
    removed: dict[str, Any] = {name: None for name in REMOVED if _variable(name) in environ}
    return removed | {
        known[variable].name: _convert(f"environment: {variable}", known[variable], text, lax=True)
        for variable, text in environ.items()
        if variable in known
    }


def _convert(where: str, setting: Setting, value: object, *, lax: bool = False) -> Any:  # noqa: ANN401 - of any kind
    """*value* as the setting's kind. *lax*: it is the text of a variable, so "5" may be a number."""
    if isinstance(value, str) and setting.key.endswith(_PATHS):
        if "\0" in value:
            raise SettingsError(f"{where}: {setting.name}: holds a NUL character, which no name of a file can")
    elif isinstance(value, str):
        try:
            value = utf8_of(value)
        except UnicodeError:
            raise SettingsError(f"{where}: {setting.name}: is not UTF-8 text{_shown(setting, value)}") from None
    try:
        return msgspec.convert(value, setting.kind, strict=not lax, dec_hook=partial(_secret, setting.key))
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {setting.name}: {_reason(error, setting)}{_shown(setting, value)}") from error


def _secret(key: str, kind: type, value: object) -> Secret:
    """The only kind of a setting that msgspec does not know by itself."""
    assert kind is Secret
    text = str(value).strip()
    if not _is_one_word(text) and key != "password":
        raise ValueError("holds a blank or more than one line; it must hold the secret alone")
    return Secret(text)


def _is_one_word(text: str) -> bool:
    return not any(character.isspace() or not character.isprintable() for character in text)


_URL_STEP: Final = (
    "a port is at most 65535, and in a user or password each of `/ # ? @ : [ ]` and each blank is percent-encoded "
    "(`/` is %2F), or the password stands in a file of its own; an IPv6 address stands in brackets, without a zone"
)


def _reason(error: msgspec.ValidationError, setting: Setting) -> str:
    """What is wrong, in words of the setting rather than of the pattern."""
    text = str(error)
    if "matching regex" in text:
        what = f"is not what it must be: {describe(setting).removesuffix('.')}"
        return f"{what}; {_URL_STEP}" if setting.key == "url" else what
    if text.startswith("Invalid enum value"):
        return f"is not what it must be: {bounds(setting)}"
    return f"{text[0].lower()}{text[1:]}"


def _shown(setting: Setting, value: object) -> str:
    """What was given, fit to be shown; nothing where it is, or may hold, a secret."""
    secret = (
        setting.secret
        or setting.key.endswith("_file")
        or (setting.key == "url" and not {"@", "?"}.isdisjoint(str(value)))
    )
    return "" if secret or not isinstance(value, str | int | float) else f" (given: {quoted(str(value))})"


def _meant(key: str, section: str) -> str:
    """What a misspelt *key* of *section* may have been: the same key elsewhere, or the nearest one here."""
    elsewhere = [setting.name for setting in all_settings() if setting.key == key]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return _nearest(key, {setting.key for setting in all_settings() if setting.section == section})


def _meant_by(variable: str) -> str:
    """What a misspelt *variable* may have been: section and key each by itself (all share the rest)."""
    section, _, key = variable.removeprefix(ENVIRONMENT).lower().partition("__")
    settings = [setting for setting in all_settings() if setting.section]
    section = _near(section, {setting.section for setting in settings})
    key = _near(key, {setting.key for setting in settings if setting.section == section})
    return next((f"; did you mean {one.variable}?" for one in settings if (one.section, one.key) == (section, key)), "")


def describe(setting: Setting) -> str:
    """The sentence that says what the setting is for."""
    return next((meta.description for meta in _metas(setting.kind) if meta.description), "")


def bounds(setting: Setting) -> str:
    """What the value may be, shortly: `at least 1, at most 5`, or the words to choose from."""
    said = list(choices(setting.kind))
    for meta in _metas(setting.kind):
        said += [f"more than {meta.gt:_}"] if meta.gt is not None else []
        said += [f"at least {meta.ge:_}"] if meta.ge is not None else []
        said += [f"at most {meta.le:_}"] if meta.le is not None else []
    return ", ".join(said)


def choices(kind: object) -> tuple[str, ...]:
    """The words that a setting of this kind is chosen from, if it is."""
    found: list[str] = []
    for part in _parts(kind):
        if getattr(part, "__origin__", None) is Literal:
            found += [str(word) for word in part.__args__]
    return tuple(found)


def _parts(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - an annotation has no type of its own
    """*kind* and everything that it is made of."""
    yield kind
    if getattr(kind, "__origin__", None) is not Literal:
        for inner in getattr(kind, "__args__", ()):
            yield from _parts(inner)


def _metas(kind: object) -> Iterator[Meta]:
    for part in _parts(kind):
        for note in getattr(part, "__metadata__", ()):
            if isinstance(note, Meta):
                yield note


def _nearest(word: str, among: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing where nothing is near."""
    near = _near(word, among)
    return f"; did you mean {near}?" if near else ""


def _near(word: str, among: Iterable[str]) -> str:
    """The nearest of *among*; empty where none is near: a far guess sends whoever reads it astray."""
    return next(iter(difflib.get_close_matches(word, sorted(among), n=1, cutoff=0.66)), "")


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    """What only several settings together can get wrong."""
    for section, keys in (
        ("nats", ("token_file", "token", "credentials_file", "password_file", "password")),
        ("bacalhau", ("token_file", "token")),
        ("orchestrator", ("token_file", "token", "password_file", "password")),
    ):
        one, *others = [key for key in keys if getattr(getattr(settings, section), key)] or [""]
        if others:
            first, second = f"{section}.{one}", f"{section}.{others[0]}"
            raise SettingsError(
                f"{origins[first]}: {first}: is set together with {second} ({origins[second]}); leave one of them out"
            )
    for section, of in (("nats", settings.nats), ("orchestrator", settings.orchestrator)):
        if bool(of.user) != bool(of.password_file or of.password):
            given = next(key for key in ("user", "password_file", "password") if getattr(of, key))
            variable = f"{ENVIRONMENT}{section.upper()}__"
            missing = (
                f"a password: give {section}.password_file or {variable}PASSWORD"
                if given == "user"
                else f"a user: give {section}.user ({variable}USER)"
            )
            origin = origins[f"{section}.{given}"]
            raise SettingsError(f"{origin}: {section}.{given}: needs {missing}, or leave both out")
    kinds = {_is_web(url) for url in settings.nats.url.split(",")}
    if len(kinds) > 1:
        raise SettingsError(
            f"{origins['nats.url']}: nats.url: ws:// or wss:// addresses stand together with others, and a connection "
            "is of one kind: write all of them as ws:// and wss://, or all as nats:// and tls://"
        )
    if "@" in settings.orchestrator.url:
        raise SettingsError(
            f"{origins['orchestrator.url']}: orchestrator.url: holds a user or a secret; put these into "
            "orchestrator.user with orchestrator.password_file, or orchestrator.token_file"
        )
    if settings.streams.replicas not in {1, 3, 5}:
        raise SettingsError(
            f"{origins['streams.replicas']}: streams.replicas: is 1, 3 or 5: an even number of servers has no better "
            f"majority (given: {settings.streams.replicas})"
        )


def _is_web(url: str) -> bool:
    return url.strip().startswith(("ws://", "wss://"))


def _check_hosts(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse a host that no resolver could be asked for: each would find its own words for it, or none."""
    hosts = [("http.host", settings.http.host)]
    hosts += [
        (f"{section}.url", _host_of(url.strip()))
        for section in ("nats", "bacalhau", "orchestrator")
        for url in getattr(settings, section).url.split(",")
    ]
    for name, host in hosts:
        if host.startswith("[") and name == "http.host":
            raise SettingsError(f"{origins[name]}: {name}: write the address {quoted(host)} without its brackets")
        if not is_host(host):
            raise SettingsError(
                f"{origins[name]}: {name}: {quoted(host)} can be no host: between two dots stand 1 to 63 characters; "
                "write the name as DNS has it, or an address"
            )


def _host_of(url: str) -> str:
    """The host of *url*, or what stands in its place."""
    try:
        return urlsplit(url if "://" in url else f"//{url}").hostname or ""
    except ValueError:  # brackets that hold no address
        return url.rpartition("@")[2]


def is_host(name: str) -> bool:
    """Whether a resolver can be asked for *name*: the way it is spelled in DNS (IDNA) has a length for each label."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return "[" not in name


def _look_at_authorities(settings: Settings) -> Iterator[str]:
    """Warn where TLS is asked for and OpenSSL's own variable names no authorities: no certificate will be trusted."""
    file = os.environ.get(_AUTHORITIES, "")
    if not file or os.access(file, os.R_OK):
        return
    for section in ("nats", "bacalhau", "orchestrator"):
        given = getattr(settings, section)
        if _TLS.search(given.url) and not given.tls_ca:
            yield (
                f"{section}.url: no server's certificate will be trusted: {_AUTHORITIES} names {file}, which cannot be "
                f"read; mend or unset it, or set {section}.tls_ca"
            )


def _look_at_files(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Refuse files that are not there or say nothing; warn of secrets that everybody may read."""
    for setting in all_settings():
        if not setting.key.endswith(("token_file", "password_file", "credentials_file", "tls_ca")):
            continue
        path = getattr(getattr(settings, setting.section), setting.key)
        if not path:
            continue
        if setting.key.endswith(("token_file", "password_file")):
            read_secret(path, f"{origins[setting.name]}: {setting.name}")
        elif setting.key == "credentials_file":
            read_credentials(path, f"{origins[setting.name]}: {setting.name}")
        elif not os.access(path, os.R_OK) or Path(path).stat().st_size == 0:
            raise SettingsError(
                f"{origins[setting.name]}: {setting.name}: the file {path} is missing, empty or cannot be read; "
                "name another, or mend it"
            )
        if setting.key != "tls_ca" and Path(path).stat().st_mode & stat.S_IROTH:
            yield f"{setting.name}: everybody on this machine may read {path}; chmod o-r"
    yield from _look_at_authorities(settings)
    for section in ("nats", "bacalhau"):
        variable = f"{ENVIRONMENT}{section.upper()}__TOKEN"  # in the file it would be refused
        if "@" in getattr(settings, section).url:
            user = f", or {section}.user and {section}.password_file" if section == "nats" else ""
            yield f"{section}.url: holds a secret, and is not kept as one; use {section}.token_file or {variable}{user}"
