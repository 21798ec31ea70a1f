"""Why a NATS server cannot be used: what servers and libraries say is looked at once, and our own errors never."""

from typing import get_args

import pytest

from consumer.errors import ServerError, UnreachableError
from consumer.faults import Denied, NatsFault
from consumer.nats import faults
from consumer.nats.faults import SAYINGS, Side

DENIED = faults.make("nats", "denied", "no", denied=Denied("publish", "a.b"))


@pytest.mark.parametrize("saying", SAYINGS, ids=[saying.words for saying in SAYINGS])
def test_each_saying_is_known_in_whatever_case_and_has_a_source(saying: faults.Saying) -> None:
    """Before every row that is less exact: none hides another."""
    assert faults.kind_of_text(f"nats: '{saying.words.upper()}' (1)") == saying.kind
    assert saying.words == saying.words.lower()
    assert saying.source


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("nats: 'Authorization Violation'", "refused"),
        ("nats: 'User Authentication Revoked'", "refused"),
        ("nats: 'Authentication Timeout'", "other"),  # no word on the credential: the connection was too slow
        ('nats: permissions violation for subscription to "authorization"', "denied"),
        ("nats: 'Secure Connection - TLS Required'", "tls"),
        ("nats: 'Stale Connection'", "other"),
    ],
)
def test_what_servers_say(text: str, kind: NatsFault) -> None:
    """The words of nats-server itself, as nats-py hands them on."""
    assert faults.kind_of_text(text) == kind


@pytest.mark.parametrize("side", get_args(Side))
@pytest.mark.parametrize("kind", get_args(NatsFault))
def test_every_fault_has_its_next_step(kind: NatsFault, side: Side) -> None:
    """On both sides, whether the address has worked before or not; with all names filled in."""
    for worked in (False, True):
        fault = faults.make(side, kind, "so it is", worked=worked)
        assert fault.kind == kind
        assert fault.detail
        assert fault.next_step
        assert "{" not in fault.next_step


def test_a_missing_permission_is_read_with_operation_and_subject() -> None:
    """So that what to grant is a field, and nobody reads our own sentence for it."""
    assert faults.read_denied('nats: Permissions Violation for Publish to "A.b"') == Denied("publish", "a.b")
    assert faults.read_denied("nats: 'Authorization Violation'") is None


def test_an_error_is_a_missing_permission_by_its_fault_and_not_by_its_words() -> None:
    """A stream or job may be called anything, and stands in the sentence."""
    assert not UnreachableError("the stream permissions violation cannot be read").is_denied
    assert ServerError("it is not answered", fault=DENIED).is_denied
    assert faults.with_step(ServerError("it is so", fault=DENIED)) == f"it is so: {DENIED.next_step}"
    assert faults.with_step(UnreachableError("permissions violation")) == "permissions violation"
    assert ServerError("no", fault=DENIED).denied == Denied("publish", "a.b")
