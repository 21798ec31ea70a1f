"""How durations and times are written."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from consumer.cli.parsing import read_duration, read_time
from consumer.cli.running import called

NOW = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("2d", 172800),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("0.5s", 0.5),
        ("0s", 0),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, seconds: float) -> None:
    """Each unit, parts one after the other, fractions."""
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-5s", "5 s", "5x", "1m 2s", "٣s", "1e3s", "inf", "5s\n"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Without a unit, negative, with blanks, with other digits: a usage error, never a guess."""
    with pytest.raises(typer.BadParameter, match="is no duration"):
        read_duration(text)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-24T05:00:00Z", NOW),
        ("2026-11-24T05:00:00", NOW),
        ("2026-11-24T07:00:00+02:00", NOW),
        ("2026-11-24", NOW - timedelta(hours=5)),
        ("10m", NOW - timedelta(minutes=10)),
    ],
)
def test_a_time_is_iso_or_so_long_ago(text: str, time: datetime) -> None:
    """With a zone, without one (UTC), a day, a duration."""
    assert read_time(text, NOW, "--since") == time


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "99999999999999d", "9999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Words, impossible dates, ages before all time: a usage error that quotes what was written."""
    with pytest.raises(typer.BadParameter, match=repr(text)):
        read_time(text, NOW, "--since")


def test_the_program_is_named_as_it_can_be_called_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its name where that is on PATH, else the path by which it was called, as a shell takes it, or Python's."""
    program = tmp_path / "a b" / "jobstate"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert called() == f"'{program}'"
    monkeypatch.setenv("PATH", str(program.parent))
    assert called() == "jobstate"
    monkeypatch.setattr(sys, "argv", ["/x/consumer/__main__.py"])
    assert called() == f"{sys.executable} -m consumer"
