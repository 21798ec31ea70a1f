"""Bent inputs: `DecodeError` or a result, nothing else. `python -m tests.lab.fuzz` does the same for longer."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.errors import DecodeError
from consumer.model import InputPosition
from consumer.wire import Names, decode_frame, decode_report
from tests.wire.mutations import run
from tests.wire.samples import IN, seal


@pytest.mark.parametrize("seed", range(4))
def test_bent_inputs_raise_nothing_but_decode_errors(seed: int) -> None:
    """1,500 bent frames, reports and bodies: every outcome is a result or a known reason, and most reasons occur."""
    outcomes = Counter(outcome for _, outcome in run(seed, 1500))
    assert sum(outcomes.values()) == 1500
    assert {"read", "not-json", "wrong-shape", "bad-crc", "not-utf8", "too-deep", "no-type"} <= set(outcomes)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.text(max_size=30))
def test_any_bytes_raise_nothing_but_decode_errors(data: bytes, subject: str) -> None:
    """Bytes and subjects of any kind are an error of ours, or none."""
    for name, body in ((IN, data), (IN, seal(data)), (f"node.compute.n.{subject}/v1", data), (subject, data)):
        try:
            decode_frame(name, body)
        except DecodeError as error:
            assert error.__context__ is None
    try:
        decode_report(Names(), f"jobstate.v1.main.in.{subject}", data, InputPosition(1, 1))
    except DecodeError as error:
        assert error.__context__ is None
