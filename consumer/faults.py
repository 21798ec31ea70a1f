"""Why something could not be had, in one form for both sides: a NATS server, and an answer of the orchestrator. Pure.

A fault has fields; sentences are made of them once, where they are shown, and nothing is parsed back.
"""

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:  # `jobstate --help` loads this, and no more than it must
    from consumer.model.words import UndecodableReason

NatsFault = Literal[
    "away",
    "unresolved",
    "silent",
    "alien",
    "no-websocket",
    "refused",
    "bacalhaus",
    "denied",
    "tls",
    "tls-expired",
    "tls-too-early",
    "no-tls",
    "no-certificate",
    "other",
]
"""Why a NATS server cannot be used; what each means: `consumer.nats.faults`."""

OrchestratorFault = Literal[
    "compute-node",
    "cut",
    "encoded",
    "endless",
    "forbidden",
    "headers",
    "html",
    "needs-tls",
    "no-job",
    "not-an-api",
    "not-askable",
    "not-http",
    "not-json",
    "not-tls",
    "not-utf8",
    "other-job",
    "out-of-range",
    "redirect",
    "refused",
    "server-error",
    "slow",
    "throttled",
    "tls",
    "tls-expired",
    "tls-too-early",
    "too-deep",
    "too-large",
    "unauthorized",
    "unknown-history-entry",
    "unknown-state",
    "unreachable",
    "unresolved",
    "wrong-shape",
    "wrong-status",
]
"""Why an orchestrator's answer cannot be used; what to do about each: `ORCHESTRATOR`."""


class Scope(Enum):
    """What a fault says something of."""

    READ = "one read"
    """Nothing of other reads."""
    UNSURE = "one read or all"
    """The answer about one job may be so while all others are served; so may every answer."""
    ALL = "all reads"


Operation = Literal["publish", "subscription"]
"""What a NATS server may not let us do, in its own words."""


class Denied(NamedTuple):
    """What a NATS server does not let us do, and with which subject, in lower case."""

    operation: Operation
    subject: str


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why something could not be had. *detail*: in a few words; *next_step*: what an operator does about it.

    *denied*: which permission is missing, where the kind is "denied" and the server has named it.
    """

    kind: NatsFault | OrchestratorFault
    detail: str
    next_step: str
    scope: Scope = Scope.ALL
    denied: Denied | None = None


RENEW: Final = "renew the server's certificate (or its authority's); until when each is valid: openssl x509 -enddate"
COMPARE_CLOCKS: Final = (
    "compare both clocks, this machine's and that of whoever made the certificate: one may be wrong; the certificate "
    "says from when on it is valid (openssl x509 -startdate)"
)
CHECK_NAME: Final = (
    "check the host in {}, and that the name server of this machine or container knows it (getent hosts NAME, "
    "/etc/resolv.conf)"
)

_OF_VERIFICATION: Final[Mapping[int, Literal["tls-expired", "tls-too-early"]]] = {9: "tls-too-early", 10: "tls-expired"}
"""OpenSSL's `X509_V_ERR_CERT_NOT_YET_VALID` and `X509_V_ERR_CERT_HAS_EXPIRED` (`openssl/x509_vfy.h`)."""

_SOMETHING_ELSE: Final = "check orchestrator.url: a proxy, a login page or the web interface answers there"
_NEWER: Final = "is this Bacalhau newer than 1.9? report it, with its version"

ORCHESTRATOR: Final[Mapping[OrchestratorFault, tuple[Scope, str]]] = {
    "compute-node": (
        Scope.ALL,
        "name the orchestrator's API in orchestrator.url: the address of a compute node is no use",
    ),
    "cut": (Scope.READ, "look at the orchestrator, and at any proxy before it: one of them ends connections early"),
    "encoded": (Scope.ALL, "have the proxy between keep to Accept-Encoding: identity"),
    "endless": (Scope.ALL, "look at what is between: the pages of a history have no end"),
    "forbidden": (Scope.UNSURE, "the credential needs the capability read:job"),
    "headers": (
        Scope.ALL,
        "look at what is between, its cookies first: the API itself sends a few short headers",
    ),
    "html": (Scope.UNSURE, _SOMETHING_ELSE),
    "needs-tls": (Scope.ALL, "the server speaks TLS: write https:// in orchestrator.url"),
    "no-job": (Scope.READ, _NEWER),
    "not-an-api": (Scope.UNSURE, f"{_SOMETHING_ELSE}, or a compute node"),
    "not-askable": (Scope.READ, "find out who publishes such a job on Bacalhau's subjects: no API could name it"),
    "not-http": (Scope.ALL, "check the port of orchestrator.url: the API's is 1234, that of NATS 4222"),
    "not-json": (Scope.UNSURE, _SOMETHING_ELSE),
    "not-tls": (
        Scope.ALL,
        "the server speaks plain HTTP: write http:// in orchestrator.url, or name the port that speaks TLS",
    ),
    "not-utf8": (Scope.READ, _NEWER),
    "other-job": (
        Scope.READ,
        (
            "another job may have this id for its name: it is asked for otherwise next; if it goes on, look at what is "
            "between, it mixes answers up"
        ),
    ),
    "out-of-range": (
        Scope.READ,
        "look at what is between, and at the orchestrator's store: no job has such a version or revision",
    ),
    "redirect": (Scope.ALL, "set orchestrator.url to where the API itself is"),
    "refused": (
        Scope.UNSURE,
        "look at the orchestrator's log, and at any proxy before it: one of them refuses the request",
    ),
    "server-error": (Scope.UNSURE, "look at the orchestrator's own log"),
    "slow": (Scope.UNSURE, "is the orchestrator overloaded? A list costs it 40 us for each job that it stores"),
    "throttled": (Scope.ALL, "lower orchestrator.max_rate"),
    "tls": (Scope.ALL, "check orchestrator.tls_ca, and that the certificate names the host in orchestrator.url"),
    "tls-expired": (Scope.ALL, RENEW),
    "tls-too-early": (Scope.ALL, COMPARE_CLOCKS),
    "too-deep": (Scope.READ, _NEWER),
    "too-large": (
        Scope.READ,
        (
            "a list is asked for again by itself, half as many jobs at once; raise orchestrator.answer_bytes if it "
            "goes on, or if it is one job that is so large"
        ),
    ),
    "unauthorized": (
        Scope.ALL,
        "check orchestrator.token_file, or orchestrator.user with its password_file, or their variables",
    ),
    "unknown-history-entry": (Scope.READ, _NEWER),
    "unknown-state": (Scope.READ, _NEWER),
    "unreachable": (Scope.ALL, "is the orchestrator up, and may we reach its API (port 1234) from here?"),
    "unresolved": (Scope.ALL, CHECK_NAME.format("orchestrator.url")),
    "wrong-shape": (Scope.READ, _NEWER),
    "wrong-status": (Scope.UNSURE, _SOMETHING_ELSE),
}
"""What each wrong answer of the orchestrator says something of, and what an operator does next.

What no answer is, or who asks (a credential, a rate), is of all reads.
"""


NEXT_STEP: Final[Mapping[OrchestratorFault, str]] = {kind: step for kind, (_, step) in ORCHESTRATOR.items()}


def of_certificate(error: BaseException | None) -> Literal["tls-expired", "tls-too-early"] | None:
    """The fault of a certificate's time, where *error* (an `ssl.SSLCertVerificationError`) is one."""
    return _OF_VERIFICATION.get(getattr(error, "verify_code", 0))


def of_body(reason: "UndecodableReason", *, cut: bool) -> OrchestratorFault:
    """What the body of an answer is that cannot be read (`consumer.errors.DecodeError`).

    A reason that no kind names is of a shape that is not known.
    """
    if cut:
        return "cut"
    return next((kind for kind in ORCHESTRATOR if kind == reason), "wrong-shape")
