"""The doctor's own limits, long enough for a machine that is shared by others."""

import pytest

LIMITS = (
    "examination.BOUND_S",
    "probing.contact.CONNECT_S",
    "probing.contact.SUBSCRIBE_S",
    "probing.http.ANSWER_S",
    "probing.jetstream.ANSWER_S",
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers at all answers within these, however slow the machine is."""
    for limit in LIMITS:
        monkeypatch.setattr(f"consumer.doctor.{limit}", 60.0)
