"""Why a NATS server cannot be used, and what to do about it: the same in the log, at /readyz, of a verb and the doctor.

Pure. Who meets a fault is `consumer.nats.client` and the doctor's knock.
"""

import re
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from consumer.errors import JobstateError
from consumer.faults import CHECK_NAME, COMPARE_CLOCKS, RENEW, Denied, Fault, NatsFault

Side = Literal["nats", "bacalhau"]
"""Whose server it is, ours or Bacalhau's: the section of the settings."""

AWAY: Final = "away"
"""Nobody takes the connection."""
UNRESOLVED: Final = "unresolved"
"""The name of its host does not resolve, or no name server answers."""
SILENT: Final = "silent"
"""Somebody takes it, and does not say what a NATS server says first."""
ALIEN: Final = "alien"
"""The server there does not speak NATS."""
NO_WEBSOCKET: Final = "no-websocket"
"""The settings say ws:// or wss://, and the port there is not a WebSocket's."""
REFUSED: Final = "refused"
"""It rejects our credentials."""
BACALHAUS: Final = "bacalhaus"
"""It rejects our credentials, and is Bacalhau's own: `bacalhau.url` names it too."""
DENIED: Final = "denied"
"""It accepts us but denies a permission that we need."""
TLS: Final = "tls"
"""The handshake fails."""
EXPIRED: Final = "tls-expired"
"""It fails, for a certificate was valid until some time that is over."""
TOO_EARLY: Final = "tls-too-early"
"""It fails, for a certificate is valid only from some later time on."""
NO_TLS: Final = "no-tls"
"""It has none, and the settings ask for it."""
NO_CERTIFICATE: Final = "no-certificate"
"""It offers TLS and has no certificate to do it with."""
OTHER: Final = "other"
"""Anything else: a connection that stood and was lost, too."""

OF_TLS: Final[frozenset[NatsFault]] = frozenset({TLS, EXPIRED, TOO_EARLY, NO_TLS, NO_CERTIFICATE})
"""The faults by which nothing private comes about."""

SECRET: Final[dict[Side, str]] = {
    "nats": "nats.token_file, JOBSTATE_NATS__TOKEN, nats.user with nats.password_file, or nats.credentials_file",
    "bacalhau": "bacalhau.token_file or JOBSTATE_BACALHAU__TOKEN: it is Bacalhau's Orchestrator.Auth.Token",
}
"""Where the credential is given."""

CERTIFICATE: Final[dict[Side, str]] = {
    "nats": "nats.tls_ca (the authority, in PEM) and nats.tls_first (the server's handshake_first), and that the "
    "certificate names the host in nats.url",
    "bacalhau": "bacalhau.tls_ca and bacalhau.tls_first (Bacalhau's RequireTLS), and that the certificate names the "
    "host in bacalhau.url",
}

_STEPS: Final[dict[NatsFault, str]] = {
    BACALHAUS: "that is Bacalhau's own server, for bacalhau.url names it too: give nats.url another one's address, for "
    "our streams (if they are to be there all the same: nats.token_file, with Bacalhau's token)",
    EXPIRED: RENEW,
    TOO_EARLY: COMPARE_CLOCKS,
    NO_WEBSOCKET: "write nats:// (or tls://) in {side}.url, or name the port of that server's websocket section",
    NO_CERTIFICATE: "the server offers TLS without a certificate (as Bacalhau's does with SupportReverseProxy and no "
    "TLS.ServerCert): write nats:// in {side}.url and leave {side}.tls_ca out, or name the proxy before it that ends "
    "TLS, with {side}.tls_first",
}
"""The next steps, where only the section of the settings differs."""

_CHANGED: Final[dict[NatsFault, str]] = {
    AWAY: "is the server up? It has answered at this address before",
    SILENT: "it has answered at this address before: does that server stand still, or is it away behind a proxy that "
    "still takes connections?",
    ALIEN: "a NATS server has answered at this address before: see what took its place (a proxy, a load balancer?)",
    NO_WEBSOCKET: "a NATS server has answered at this address before: see what took its place (a proxy, a load "
    "balancer?)",
    REFUSED: "it has let us in before: if its credential was changed, change ours too ({secret})",
}
"""The next steps where the address has worked."""

_DENIED: Final = re.compile(r'permissions violation for (?:(publish)|subscription) to "([^"]*)"')
"""nats-server (`server/client.go`: `pubPermissionViolation`, `subPermissionViolation`); nats-py makes it lower case."""
_PORTS: Final = {"ws": 80, "wss": 443}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Saying(NamedTuple):
    """Words by which a fault is known that comes as text alone. *words* are in lower case; *source*: who says so."""

    words: str
    kind: NatsFault
    source: str


SAYINGS: Final = (
    Saying("permissions violation", DENIED, "nats-server, server/client.go"),
    Saying("authentication timeout", OTHER, "nats-server, server/errors.go: CONNECT came too late, so no credential"),
    Saying("authorization", REFUSED, "nats-server, server/errors.go: Authorization Violation; nats-py, nats/errors.py"),
    Saying("authentication", REFUSED, "nats-server, server/client.go: User Authentication Expired, Revoked"),
    Saying("empty response from server when expecting info", ALIEN, "nats-py, nats/aio/client.py"),
    Saying("info message, json parse error", ALIEN, "nats-py, nats/aio/client.py"),
    Saying("certificate has expired", EXPIRED, "OpenSSL, X509_verify_cert_error_string"),
    Saying("certificate is not yet valid", TOO_EARLY, "OpenSSL, X509_verify_cert_error_string"),
    Saying("unrecognized name", NO_CERTIFICATE, "OpenSSL, of a Go server without a certificate (Bacalhau 1.9.3)"),
    Saying("unrecognized_name", NO_CERTIFICATE, "the same, as a reason of OpenSSL's"),
    Saying("certificate", TLS, "OpenSSL and Python's ssl"),
    Saying("ssl", TLS, "Python's ssl"),
    Saying("tls", TLS, "nats-server: Secure Connection - TLS Required; OpenSSL"),
)
"""The first that is in a text counts. Nothing that we say ourselves is looked for here."""


def kind_of_text(text: str) -> NatsFault:
    """The fault that a server's, nats-py's or OpenSSL's *text* names. Our own errors carry theirs."""
    words = text.lower()
    return next((saying.kind for saying in SAYINGS if saying.words in words), OTHER)


def read_denied(text: str) -> Denied | None:
    """Which permission a server says is missing; None if *text* says something else."""
    found = _DENIED.search(text.lower())
    return None if found is None else Denied("publish" if found[1] else "subscription", found[2])


def make(side: Side, kind: NatsFault, why: str = "", *, worked: bool = False, denied: Denied | None = None) -> Fault:
    """The fault *kind* of a NATS server. *why*: of whoever met it; *worked*: see `next_step`."""
    step = next_step(side, kind, worked=worked)
    return Fault(kind=kind, detail=words(kind, why), next_step=step, denied=denied)


def with_step(error: BaseException) -> str:
    """What *error* says; and what to do about it, where it is a permission of our NATS that is missing."""
    is_denied = isinstance(error, JobstateError) and error.is_denied
    return f"{error}: {next_step('nats', DENIED)}" if is_denied else str(error)


def addresses(url: str) -> tuple[str, ...]:
    """Those that a `url` names, with commas between."""
    return tuple(part.strip() for part in url.split(",") if part.strip())


def is_same_server(one: str, other: str) -> bool:
    """Whether two addresses (each may be several, with commas) have a host and port in common. No name is looked up."""
    return not _places(one).isdisjoint(_places(other))


def _places(url: str) -> set[tuple[str, int]]:
    places = set()
    for part in addresses(url):
        parts = urlsplit(part if "://" in part else f"nats://{part}")
        host = parts.hostname or ""
        places.add(("localhost" if host in _LOOPBACK else host, parts.port or _PORTS.get(parts.scheme, 4222)))
    return places


def words(kind: NatsFault, why: str) -> str:
    """What is the matter, after "it does not work: " or within brackets. *why*: of whoever met it."""
    match kind:
        case "silent":
            return "it takes the connection and says nothing, and a NATS server speaks first"
        case "alien":
            return "what answers there speaks no NATS"
        case "no-websocket":
            return "what answers there speaks no WebSocket"
    return why


def next_step(side: Side, kind: NatsFault, *, worked: bool = False) -> str:
    """What to do about it. *worked*: a NATS server has let us in there before.

    An address that has worked is not the wrong one: then something has changed behind it.
    """
    if worked and kind in _CHANGED:
        return _CHANGED[kind].format(secret=SECRET[side])
    match kind:
        case "away":
            return f"is the server up, and is {side}.url right?"
        case "unresolved":
            return CHECK_NAME.format(f"{side}.url")
        case "silent":
            ports = "Bacalhau's API is 1234, NATS is 4222"
            return f"is {side}.url another port's ({ports}), or does that server want TLS first ({side}.tls_first)?"
        case "alien":
            return (
                f"{side}.url names another service: mend it; a NATS server that wants TLS first: set {side}.tls_first"
            )
        case "refused":
            return f"check {SECRET[side]}"
        case "denied":
            page = "operations/running.md#permissions" if side == "nats" else "guide/real-cluster.md"
            return f"grant this user what docs/{page} lists"
        case "tls":
            return f"check {CERTIFICATE[side]}"
        case "no-tls":
            return f"write nats:// in {side}.url and leave {side}.tls_ca out, or enable TLS on that server"
    return _STEPS.get(kind, "look at that server's own log").format(side=side)
