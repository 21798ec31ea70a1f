"""How it is said that a NATS server cannot be had: the same words in the log, at /readyz, of a verb and of the doctor.

Pure: a *fault* and the words of whoever met it go in. Who meets it is `consumer.nats.client` and the doctor's knock.
"""

from typing import Final
from urllib.parse import urlsplit

AWAY: Final = "away"
"""Nobody takes the connection."""
UNRESOLVED: Final = "unresolved"
"""The name of its host does not resolve, or no name server answers."""
SILENT: Final = "silent"
"""Somebody takes it, and does not say what a NATS server says first."""
ALIEN: Final = "alien"
"""What answers is no NATS server."""
REFUSED: Final = "refused"
"""It does not let us in."""
BACALHAUS: Final = "bacalhaus"
"""It does not let us in, and is Bacalhau's own: `bacalhau.url` names it too."""
DENIED: Final = "denied"
"""It lets us in, and not do what we must."""
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

OF_TLS: Final = frozenset({TLS, EXPIRED, TOO_EARLY, NO_TLS, NO_CERTIFICATE})
"""The faults by which nothing private comes about."""

SECRET: Final = {
    "nats": "nats.token_file, JOBSTATE_NATS__TOKEN, nats.user with nats.password_file, or nats.credentials_file",
    "bacalhau": "bacalhau.token_file or JOBSTATE_BACALHAU__TOKEN: it is Bacalhau's Orchestrator.Auth.Token",
}
"""Where the credential is given, by *side*: "nats" (ours) or "bacalhau", the section of the settings."""

CERTIFICATE: Final = {
    "nats": "nats.tls_ca (the authority, in PEM) and nats.tls_first (the server's handshake_first), and that the "
    "certificate names the host in nats.url",
    "bacalhau": "bacalhau.tls_ca and bacalhau.tls_first (Bacalhau's RequireTLS), and that the certificate names the "
    "host in bacalhau.url",
}

RENEW: Final = "renew the server's certificate (or its authority's); until when each is valid: openssl x509 -enddate"
COMPARE_CLOCKS: Final = (
    "compare both clocks, this machine's and that of whoever made the certificate: one may be wrong; the certificate "
    "says from when on it is valid (openssl x509 -startdate)"
)
CHECK_NAME: Final = (
    "check the host in {}, and that the name server of this machine or container knows it (getent hosts NAME, "
    "/etc/resolv.conf)"
)
_STEPS: Final = {
    BACALHAUS: "that is Bacalhau's own server, for bacalhau.url names it too: give nats.url another one's address, for "
    "our streams (if they are to be there all the same: nats.token_file, with Bacalhau's token)",
    EXPIRED: RENEW,
    TOO_EARLY: COMPARE_CLOCKS,
    NO_CERTIFICATE: "the server offers TLS without a certificate (as Bacalhau's does with SupportReverseProxy and no "
    "TLS.ServerCert): write nats:// in {side}.url and leave {side}.tls_ca out, or name the proxy before it that ends "
    "TLS, with {side}.tls_first",
}
"""What to do about it, where nothing but the section of the settings differs."""

_CHANGED: Final = {
    AWAY: "is the server up? It has answered at this address before",
    SILENT: "it has answered at this address before: does that server stand still, or is it away behind a proxy that "
    "still takes connections?",
    ALIEN: "a NATS server has answered at this address before: see what took its place (a proxy, a load balancer?)",
    REFUSED: "it has let us in before: if its credential was changed, change ours too ({secret})",
}
"""What to do about it where the address has worked."""

WITHOUT_TLS: Final = "the server offers no TLS, and the settings ask for it"
"""In the words of `consumer.nats.client`, which then says nothing to it."""
_TLS_WORDS: Final = ("certificate", "ssl", "tls")
_EXPIRED_WORDS: Final = "certificate has expired"
_TOO_EARLY_WORDS: Final = "certificate is not yet valid"
"""OpenSSL's own (`X509_verify_cert_error_string`)."""
_NO_CERTIFICATE_WORDS: Final = ("unrecognized name", "unrecognized_name")
"""In OpenSSL's words, the alert of Go's server that has no certificate (for this name); tried with Bacalhau 1.9.3."""
_UNRESOLVED_WORDS: Final = "does not resolve"
"""`consumer.resolve`'s own."""
_PORTS: Final = {"ws": 80, "wss": 443}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def fault_of(why: str) -> str:
    """The fault that the client's own words name, once a NATS server has answered it."""
    words = why.lower()
    if WITHOUT_TLS.lower() in words:
        return NO_TLS
    if "permissions violation" in words:
        return DENIED
    if _UNRESOLVED_WORDS in words:
        return UNRESOLVED
    if "authorization" in words or "authentication" in words or "credentials_file" in words:
        return REFUSED
    if (fault := fault_of_time(words)) != OTHER:
        return fault
    if any(word in words for word in _NO_CERTIFICATE_WORDS):
        return NO_CERTIFICATE
    return TLS if any(word in words for word in _TLS_WORDS) else OTHER


def fault_of_time(why: str) -> str:
    """The fault that OpenSSL's words on the time of a certificate name; OTHER where they are about something else."""
    words = why.lower()
    if _EXPIRED_WORDS in words:
        return EXPIRED
    return TOO_EARLY if _TOO_EARLY_WORDS in words else OTHER


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


def words(fault: str, why: str) -> str:
    """What is the matter, after "it does not work: " or within brackets. *why*: of whoever met it."""
    match fault:
        case "silent":
            return "it takes the connection and says nothing, and a NATS server speaks first"
        case "alien":
            return "what answers there speaks no NATS"
    return why


def next_step(side: str, fault: str, *, worked: bool = False) -> str:
    """What to do about it. *side*: as in `SECRET`. *worked*: a NATS server has let us in there before.

    An address that has worked is not the wrong one: then something has changed behind it.
    """
    if worked and fault in _CHANGED:
        return _CHANGED[fault].format(secret=SECRET[side])
    match fault:
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
    return _STEPS.get(fault, "look at that server's own log").format(side=side)
