"""How what is typed is read: durations, times, counts, names, states.

A reader (`read_…`) raises typer's usage error: it quotes the text and says what may be written.
"""

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import typer

from consumer.errors import quoted

if TYPE_CHECKING:
    from consumer.rules import Rules

_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhd]))+\Z")
_PART: Final = re.compile(r"([0-9.]+)(ms|[smhd])")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_COUNT: Final = re.compile(r"[0-9]{1,20}\Z")
_COUNT_MAX: Final = 2**63 - 1

OPEN: Final = "open"
"""The word of `--state` for every state in which a job has not ended."""
TERMINAL: Final = "terminal"
"""The word of `--state` for every state that ends a job."""


def read_output(text: str) -> str:
    """`json` or `text`."""
    if text not in {"json", "text"}:
        raise typer.BadParameter(f"{quoted(text)} is no form: write json or text")
    return text


def read_count(text: str | int) -> int:
    """A whole number that a signed counter of 64 bits can hold, 0 or more."""
    return _read_whole(text, _COUNT_MAX)


def read_number(text: str | int) -> int:
    """A version or a revision: a whole number that no daemon refuses as `out-of-range`."""
    from consumer.model import NUMBER_MAX

    return _read_whole(text, NUMBER_MAX)


def _read_whole(text: str | int, most: int) -> int:
    digits = str(text)  # a default comes as it is
    if not _COUNT.match(digits) or int(digits) > most:
        raise typer.BadParameter(f"{quoted(digits)} is no count: write a whole number from 0 to {most}")
    return int(digits)


def read_duration(text: str) -> float:
    """Seconds of `30s`, `5m`, `1h`, `250ms`, `1h30m`."""
    if not _DURATION.match(text):
        raise typer.BadParameter(f"{quoted(text)} is no duration: write 250ms, 30s, 5m, 1h, 2d or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def read_time(text: str, now: datetime, option: str, *words: str) -> datetime:
    """The moment that an ISO time (no zone: UTC) or a duration before *now* names.

    *option*, and *words* that it takes besides, are for the error.
    """
    try:
        time = now - timedelta(seconds=read_duration(text)) if _DURATION.match(text) else datetime.fromisoformat(text)
    except OverflowError:
        raise typer.BadParameter(
            f"{quoted(text)} is longer ago than time can be written", param_hint=f"'{option}'"
        ) from None
    except ValueError:
        allowed = ", ".join((*words, "2026-11-24T05:00:00Z"))
        raise typer.BadParameter(
            f"{quoted(text)} is no time: write {allowed} or 10m (so long ago)", param_hint=f"'{option}'"
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def read_text(text: str) -> str:
    """Any text that is UTF-8, whatever the locale: nobody could store another."""
    if text.isascii():
        return text
    from consumer.settings import utf8_of

    try:
        return utf8_of(text)
    except UnicodeError:
        raise typer.BadParameter(f"{quoted(text)} is no text: write UTF-8") from None


def read_path(text: str) -> str:
    """Read a name of a file or folder: anything that is not blank, and on Linux any bytes."""
    if not text.strip():
        raise typer.BadParameter(f"{quoted(text)} names nothing: write text that is not blank")
    return text


def read_name(text: str) -> str:
    """Read a name of a namespace or a job: any text that is not blank."""
    return read_text(read_path(text))


def read_job(text: str) -> str:
    """Read a name of a job: an id, the beginning of one, a name, or one of these after its namespace and a slash."""
    namespace, slash, job = text.rpartition("/")
    if slash and not (namespace.strip() and job.strip()):
        raise typer.BadParameter(f"{quoted(text)} names no job: write an id, a name, or NAMESPACE/JOB with both")
    return read_name(text)


def read_state(rules: "Rules", text: str, option: str, *words: str, else_: str = "") -> str:
    """The state of the rules that *text* spells, in whatever case, or one of *words*. *else_* ends the error."""
    found = rules.find(text) or next((word for word in words if word == text.lower()), None)
    if found is None:
        allowed = (*rules.states, *words)
        near = difflib.get_close_matches(text.lower(), [word.lower() for word in allowed], n=1)
        meant = next((f"; did you mean {word}?" for word in allowed if word.lower() in near), "")
        raise typer.BadParameter(
            f"{quoted(text)} is no state: write {', '.join(allowed)} (rules {quoted(rules.name)}){meant}{else_}",
            param_hint=f"'{option}'",
        )
    return found


def read_states(rules: "Rules", texts: Iterable[str], option: str) -> list[str]:
    """The states that *texts* name, each once, in the order of the rules. A text may be several, parted by commas."""
    found: set[str] = set()
    for part in ",".join(texts).split(","):
        word = read_state(rules, part.strip(), option, OPEN, TERMINAL)
        if word in {OPEN, TERMINAL}:
            found.update(state for state in rules.states if rules.is_terminal(state) == (word == TERMINAL))
        else:
            found.add(word)
    return [state for state in rules.states if state in found]
