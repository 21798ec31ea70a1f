"""The schema: every setting with its kind, bounds, default and meaning, a struct for each section of the file."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from consumer import defaults
from consumer.settings.secrets import Secret, redact

MIB: Final = 1024 * 1024

GIB: Final = 1024 * MIB

_AGES: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Section(msgspec.Struct, frozen=True, kw_only=True):
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


class Nats(Section, frozen=True, kw_only=True):
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


class Streams(Section, frozen=True, kw_only=True):
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


class Bacalhau(Section, frozen=True, kw_only=True):
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


class Orchestrator(Section, frozen=True, kw_only=True):
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
    ] = defaults.MAX_RATE
    timeout_s: Annotated[
        float,
        Meta(
            description="Seconds after which an unanswered request is given up; a list has 30 at least.", ge=0.1, le=300
        ),
    ] = 10.0
    concurrency: Annotated[int, Meta(description="Most requests at once.", ge=1, le=256)] = defaults.CONCURRENCY
    answer_bytes: Annotated[
        int,
        Meta(
            description="Largest list that is read; of a job a sixteenth. A list too large is asked for in halves.",
            ge=MIB,
            le=GIB,
        ),
    ] = 32 * MIB


class Scan(Section, frozen=True, kw_only=True):
    """How changes are found that no frame tells of."""

    rate: Annotated[
        float,
        Meta(
            description="Most reads a second of open jobs in turn; each is read once a second at most.", gt=0, le=10_000
        ),
    ] = defaults.TURN_RATE
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


class RulesChoice(Section, frozen=True, kw_only=True):
    """By which rules states are judged."""

    file: Annotated[_File, Meta(description="Rules file. Empty: Bacalhau's, as they come with the program.")] = ""
    accept: Annotated[bool, Meta(description="Write a log that was made by other rules, from here on by these.")] = (
        False
    )

    @property
    def path(self) -> Path | None:
        """The file, None for the rules that come with the program."""
        return Path(self.file) if self.file else None


class Lanes(Section, frozen=True, kw_only=True):
    """How much is under way at once."""

    events_max: Annotated[
        int, Meta(description="Most events in memory that the log has not confirmed.", ge=1, le=10_000_000)
    ] = 20_000
    flight_max: Annotated[
        int, Meta(description="Most entries sent and not yet confirmed, over all jobs.", ge=1, le=1_000_000)
    ] = defaults.FLIGHT_MAX


class Limits(Section, frozen=True, kw_only=True):
    """The bound of everything that could grow."""

    message_bytes: Annotated[
        int, Meta(description="Largest frame or report that is read, and largest entry.", ge=65_536, le=64 * MIB)
    ] = defaults.MESSAGE_BYTES
    executions: Annotated[int, Meta(description="Executions whose job is remembered.", ge=1, le=100_000_000)] = (
        defaults.EXECUTIONS_MAX
    )
    jobs: Annotated[
        int,
        Meta(
            description="Jobs looked at at once: open ones and those being read. Others wait for a list.",
            ge=1,
            le=100_000_000,
        ),
    ] = defaults.JOBS_MAX
    label_values: Annotated[
        int,
        Meta(
            description="Values of one label of a metric that are told apart; others count as `other`.", ge=8, le=1_000
        ),
    ] = defaults.LABEL_VALUES


class Checkpoint(Section, frozen=True, kw_only=True):
    """Where a restart begins to read the input."""

    every_s: Annotated[
        float, Meta(description="Seconds between two checkpoints, if the input has moved.", ge=0.05, le=3_600)
    ] = 1.0


class Drain(Section, frozen=True, kw_only=True):
    """The end of the daemon."""

    deadline_s: Annotated[
        float, Meta(description="Seconds after SIGTERM until what is under way must be confirmed.", ge=0, le=3_600)
    ] = 10.0


class Http(Section, frozen=True, kw_only=True):
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


class Log(Section, frozen=True, kw_only=True):
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


class Embedded(Section, frozen=True, kw_only=True):
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
