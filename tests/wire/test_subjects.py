"""Names in subjects: any text there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.wire import Names, escape, job_key, unescape
from consumer.wire.subjects import TOKEN_MAX

LONGEST = "x" * TOKEN_MAX
TEXT = st.text(st.characters(), max_size=60)
NAMES = Names("main")


@given(TEXT)
def test_any_text_is_one_token_and_comes_back(text: str) -> None:
    """A token has no dot, wildcard, blank or byte above ASCII, at most 128 bytes, and spells its text or its digest."""
    token = escape(text)
    assert token.isascii()
    assert not set(token) & set(".*> \t\r\n\0")
    assert 0 < len(token) <= 128
    assert unescape(token) == (None if token.startswith("=sha256=") else text)


@given(TEXT, TEXT)
def test_two_texts_are_two_tokens(one: str, other: str) -> None:
    """Names that differ have tokens that differ."""
    assert (escape(one) == escape(other)) == (one == other)


@given(st.text("ABCDEFabcdef0123456789=-_.", max_size=12))
def test_what_escape_never_makes_spells_nothing(token: str) -> None:
    """A token is read only in the one spelling that `escape` gives: no two subjects are one job."""
    text = unescape(token)
    assert text is None or escape(text) == token


@given(TEXT, TEXT, TEXT)
def test_a_subject_gives_its_job_back(namespace: str, job: str, state: str) -> None:
    """From the subject of a report or an update the same job is read."""
    key = job_key(namespace, job)
    assert NAMES.key_of_report(NAMES.report(key)) == key
    assert NAMES.key_of_state(NAMES.state(key, state)) == key


def test_what_no_longer_fits_is_a_digest() -> None:
    """Up to 128 bytes a token spells its text, escapes counted; a byte more is a digest."""
    for text in (LONGEST, f"{LONGEST[3:]}."):
        assert len(escape(text)) == TOKEN_MAX
        assert unescape(escape(text)) == text
    for text in (f"{LONGEST}x", f"{LONGEST[2:]}."):
        assert escape(text).startswith("=sha256=")
        assert len(escape(text)) == len("=sha256=") + 64


@pytest.mark.parametrize("subject", ["", "jobstate.v1.main", "jobstate.v1.main.format", "jobstate.v1.main.state.a.b"])
def test_another_subject_names_no_job(subject: str) -> None:
    """Neither a state's nor a report's."""
    assert NAMES.key_of_state(subject) is None
    assert NAMES.key_of_report(subject) is None


def test_a_subject_of_one_kind_is_none_of_another() -> None:
    """A report names no state of a job, nor the other way round."""
    key = job_key("default", "j")
    assert NAMES.key_of_state(NAMES.report(key) + ".running") is None
    assert NAMES.key_of_report(NAMES.state(key, "Running")) is None


def test_the_subjects_of_what_is_kept() -> None:
    """As docs/reference/streams.md spells them."""
    assert NAMES.undecodable("not-json", "1-2") == "jobstate.v1.main.undecodable.not-json.1-2"
    assert NAMES.quarantine("conflict", job_key("d", "j"), "1-2") == "jobstate.v1.main.quarantine.conflict.d.j.1-2"
    assert NAMES.advisory("gap", "1") == "jobstate.v1.main.advisory.gap.1"
    assert NAMES.checkpoint("0") == "jobstate.v1.main.checkpoint.0"
