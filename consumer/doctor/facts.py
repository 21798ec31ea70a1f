"""The facts that the probes bring, not judged. No field holds a secret or contents of a job. Pure."""

import msgspec

from consumer.faults import Fault, NatsFault, OrchestratorFault
from consumer.model import FrameKind, NoticeKind, Profile, Snapshot, UndecodableReason, Update
from consumer.model.frame import HistoryEntry


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    """How the connection to a NATS server went.

    `fault`: None; `away` (nobody there), `unresolved` (the host's name is unknown), `silent` (a port that says
    nothing), `alien` (no NATS), `tls`, `tls-expired`, `tls-too-early`, `no-tls` (it has none), `refused`, `bacalhaus`
    (refused, and it is Bacalhau's own), `denied` (a subject may not be subscribed), `other`. `why` is its reason in a
    few words.
    `others_away`: further addresses of the setting where nobody answers. `private`: TLS is spoken; `offers_tls`: the
    server says that it might be. `secret`: we have a credential.
    """

    address: str
    fault: NatsFault | None = None
    why: str = ""
    others_away: tuple[str, ...] = ()
    private: bool = False
    offers_tls: bool = False
    secret: bool = False
    loopback: bool = False
    version: str = ""
    server: str = ""
    max_payload: int = 0


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """The permissions of a user, as the server says: patterns; None: everything that is not denied."""

    publish_allow: tuple[str, ...] | None = None
    publish_deny: tuple[str, ...] = ()
    subscribe_allow: tuple[str, ...] | None = None
    subscribe_deny: tuple[str, ...] = ()
    user: str = ""
    account: str = ""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """JetStream's limits and usage of our account; -1 is "no limit". `level`: of the API (0: older than 2.11)."""

    level: int
    streams: int = 0
    streams_max: int = -1
    storage: int = 0
    reserved: int = 0
    storage_max: int = -1


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a stream on another server than its leader."""

    name: str
    current: bool = False
    offline: bool = False


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One of our streams as it is; `there` False: it is absent, and `max_bytes` and `copies` are what it would have."""

    name: str
    there: bool
    differences: tuple[str, ...] = ()
    messages: int = 0
    bytes: int = 0
    max_bytes: int = -1
    first_seq: int = 0
    last_seq: int = 0
    copies: int = 1
    cluster: str = ""
    leader: str = ""
    replicas: tuple[Replica, ...] = ()


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """The four of them. `ahead_s`: the server's clock less ours, None if no stream could tell."""

    log: Stream
    input: Stream
    refused: Stream
    bucket: Stream
    ahead_s: float | None = None

    @property
    def all(self) -> tuple[Stream, ...]:
        """In the order in which they are made."""
        return (self.log, self.input, self.refused, self.bucket)


class Monitor(msgspec.Struct, frozen=True, kw_only=True):
    """JetStream as the server's monitoring port shows it (`/jsz`); `fault`: why it says nothing."""

    fault: str = ""
    sync_always: bool = False
    sync_interval_s: float = 0.0
    storage_max: int = -1
    storage: int = 0
    reserved: int = 0


class LogHead(msgspec.Struct, frozen=True, kw_only=True):
    """The log's `format` entry. `unread`: what stands there, if none of ours. `since_ns`: jobs that ended later."""

    unread: str = ""
    format: int = 0
    rules: str = ""
    rules_hash: str = ""
    since_ns: int | None = None


class LastEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The log's last entry. `age_s` by the server's own clock; `kind`: the token behind the cluster's name."""

    number: int
    kind: str
    age_s: float


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Advisories of one kind: how many are in the log, and how old the last one is."""

    kind: NoticeKind
    count: int
    last_age_s: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a first question to the orchestrator went: for a job that there is not, which costs it nothing.

    `fault`: why the answer cannot be used, None if it can. `ahead_s`: its clock less ours (whole seconds), None if it
    did not say. `node`: who answered; empty: `untold` is the kind of the error that the question for it came to.
    """

    address: str
    fault: Fault | None = None
    version: str = ""
    ahead_s: float | None = None
    node: str = ""
    untold: OrchestratorFault | None = None
    private: bool = False
    secret: bool = False
    loopback: bool = False


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """The newest jobs of the record, and how long the list took. `fault`: as of an `Answer`.

    `complete`: these are all that there are.
    """

    fault: Fault | None = None
    seconds: float = 0.0
    jobs: tuple[Snapshot, ...] = ()
    complete: bool = False


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The history of the newest job: how many states, 0 for a 404 too. `fault`: as of an `Answer`."""

    job: str
    fault: Fault | None = None
    states: int = 0


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """The frames that came. `jobs`: (id, namespace) that frames named, each once; empty namespace: unknown."""

    seconds: float
    frames: int = 0
    kinds: dict[FrameKind, int] = {}
    profiles: dict[Profile, int] = {}
    unread: dict[UndecodableReason, int] = {}
    jobs: tuple[tuple[str, str], ...] = ()
    gaps: int = 0


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """Which of some jobs the orchestrator knows. `trouble`: the kind of a read that went wrong."""

    known: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    trouble: OrchestratorFault | None = None


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One job on both sides: its true updates in the log, and its history (None: the orchestrator does not know it)."""

    job: str
    updates: tuple[Update, ...]
    entries: tuple[HistoryEntry, ...] | None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of the log beside the record. `lacking`: jobs of the record that the log should have, and has not.

    `reported`: jobs in the log of which only reports tell. `trouble`: the kind of a read that went wrong.
    """

    pairs: tuple[Pair, ...] = ()
    lacking: tuple[str, ...] = ()
    reported: int = 0
    trouble: OrchestratorFault | None = None


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """The answer at the daemon's own address. `away`: nobody does, and why. `alien`: it is no daemon of ours.

    `cluster`: whose log it writes; empty: it did not say.
    """

    address: str
    cluster: str = ""
    away: str = ""
    alien: bool = False
    ready: bool = False
    unready: dict[str, str] = {}
