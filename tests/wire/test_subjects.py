"""Names in subjects: any text there and back."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.wire import Names, escape, job_key, unescape

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
