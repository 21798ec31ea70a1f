"""How it is said that a NATS server cannot be had: the same words in the log, at /readyz, of a verb and of the doctor.

Pure: a *fault* and the words of whoever met it go in. Who meets it is `consumer.client` and the doctor's knock.
"""

from typing import Final

AWAY: Final = "away"
"""Nobody takes the connection."""
SILENT: Final = "silent"
"""Somebody takes it, and does not say what a NATS server says first."""
ALIEN: Final = "alien"
"""What answers is no NATS server."""
REFUSED: Final = "refused"
"""It does not let us in."""
DENIED: Final = "denied"
"""It lets us in, and not do what we must."""
TLS: Final = "tls"
"""The handshake fails."""
NO_TLS: Final = "no-tls"
"""It has none, and the settings ask for it."""
OTHER: Final = "other"
"""Anything else: a connection that stood and was lost, too."""

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

WITHOUT_TLS: Final = "the server offers no TLS, and the settings ask for it"
"""In the words of `consumer.client`, which then says nothing to it."""
_TLS_WORDS: Final = ("certificate", "ssl", "tls")


def fault_of(why: str) -> str:
    """The fault that the client's own words name, once a NATS server has answered it."""
    words = why.lower()
    if WITHOUT_TLS.lower() in words:
        return NO_TLS
    if "permissions violation" in words:
        return DENIED
    if "authorization" in words or "authentication" in words:
        return REFUSED
    return TLS if any(word in words for word in _TLS_WORDS) else OTHER


def words(fault: str, why: str) -> str:
    """What is the matter, after "it does not work: " or within brackets. *why*: of whoever met it."""
    match fault:
        case "silent":
            return "it takes the connection and says nothing, and a NATS server speaks first"
        case "alien":
            return "what answers there speaks no NATS"
    return why


def next_step(side: str, fault: str) -> str:
    """What to do about it. *side*: as in `SECRET`."""
    match fault:
        case "away":
            return f"is the server up, and is {side}.url right?"
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
    return "look at that server's own log"
