"""A rules file, read and checked: one way in, one error out. After that nobody checks the rules again.

A file that loads has: every state reachable from the initial one, ends that nothing follows, from everywhere a way to
an end, and dwell limits that can be over. `table.py` decides by it.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from consumer.errors import RulesError
from consumer.rules.table import Edge, Entry, Restriction, Rules

_HERE: Final = Path(__file__).parent

DEFAULT: Final = next(
    (path for path in (_HERE / "bacalhau.toml", _HERE.parents[1] / "config/rules/bacalhau.toml") if path.exists()),
    _HERE / "bacalhau.toml",
)
"""Bacalhau's rules: beside this module where the program is installed, in `config/rules` of a checkout."""

_CHECK: Final = "--check"
_NEXT: Final = " (mend the file; `jobstate rules --check FILE` says whether it is sound)"
_AGAIN: Final = " (mend the file, and check it again)"
_STATE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")
_DURATION: Final = re.compile(r"(?P<number>[1-9][0-9]{0,8})(?P<unit>[smhd])\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_UNLIMITED: Final = "none"
_UNKNOWN: Final = re.compile(r"unknown field `(?P<field>[^`]*)`")


class _New(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    to: tuple[str, ...]
    when: str
    source: str


class _Restriction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    only: tuple[str, ...]
    source: str


class _Transition(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"previous": "from", "state": "to"}
):
    previous: str
    state: str
    when: str
    source: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    states: tuple[str, ...]
    initial: str
    terminal: tuple[str, ...]
    new: _New
    transitions: tuple[_Transition, ...]
    job_types: tuple[str, ...] = ()
    aliases: dict[str, str] = {}
    restrictions: dict[str, _Restriction] = {}
    dwell: dict[str, object] = {}


_KEYS: Final = frozenset(
    field.encode_name for struct in (_File, _New, _Restriction, _Transition) for field in msgspec.structs.fields(struct)
)


def load(path: Path | None = None, given: str = "") -> Rules:
    """The rules that the file at *path* says (None: Bacalhau's). Raises `RulesError`: file, key, reason.

    *given*: what named the file, an option or a setting with its variable; for the error.
    """
    where = f"{given}: {path}" if given and path is not None else str(path or DEFAULT)
    next_step = _AGAIN if given == _CHECK else _NEXT
    path = path or DEFAULT
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RulesError(
            f"{where}: cannot be read ({error.strerror}); name another rules file, or none for Bacalhau's own rules"
        ) from error
    try:
        file = msgspec.toml.decode(data.decode("utf-8-sig"), type=_File)
    except UnicodeError as error:
        raise RulesError(f"{where}: is not UTF-8 text ({error}); save it as UTF-8{next_step}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RulesError(f"{where}: {error}{_hint(str(error))}{next_step}") from error
    check = _Check(where, next_step, file)
    check.run()
    return Rules(
        name=file.name,
        states=file.states,
        initial=file.initial,
        terminal=file.terminal,
        entry=Entry(states=file.new.to, when=file.new.when, source=file.new.source),
        edges=tuple(Edge(previous=e.previous, state=e.state, when=e.when, source=e.source) for e in file.transitions),
        aliases=file.aliases,
        restrictions=tuple(
            Restriction(state=state, only=one.only, source=one.source) for state, one in file.restrictions.items()
        ),
        job_types=file.job_types,
        dwell=check.dwell,
    )


class _Check:
    """Everything that a file of the right shape can still get wrong, in the order of the file."""

    def __init__(self, where: str, next_step: str, file: _File) -> None:
        self._where = where
        self._next_step = next_step
        self._file = file
        self._after: Mapping[str, set[str]] = {state: set() for state in file.states}
        self.dwell: dict[str, int] = {}
        """Seconds by state, once `run` has returned; a state without a limit is not there."""

    def run(self) -> None:
        """Return if the file is sound; raise `RulesError` for the first thing that is not."""
        self._check_states()
        self._check_spellings()
        self._check_restrictions()
        self._check_transitions()
        self._check_ways()
        self._check_dwell()

    def _check_states(self) -> None:
        file = self._file
        if not file.name.strip():
            self._refuse("name", "is empty; a log is stamped with it")
        for state in file.states:
            if not _STATE.match(state):
                self._refuse("states", f"{state!r} is no name for a state; letters and digits, a letter first")
        self._known("initial", file.initial)
        for key, states in (("terminal", file.terminal), ("new.to", file.new.to)):
            for state in states:
                self._known(key, state)
            if len(set(states)) != len(states):
                self._refuse(key, "names a state twice")
        if file.initial not in file.new.to:
            self._refuse("new.to", f"lacks {file.initial}, at which a job begins")

    def _check_spellings(self) -> None:
        """No text may name two states: case and blanks around do not count."""
        seen: dict[str, str] = {}
        names = [("states", state, state) for state in self._file.states]
        names += [(f"aliases.{alias}", alias, state) for alias, state in self._file.aliases.items()]
        for key, name, state in names:
            self._known(key, state)
            spelling = name.strip().lower()
            if not spelling:
                self._refuse(key, "is blank")
            if spelling in seen:
                self._refuse(key, f"{name} is there twice (as {seen[spelling]}); case and blanks do not count")
            seen[spelling] = name

    def _check_restrictions(self) -> None:
        for state, restriction in self._file.restrictions.items():
            self._known(f"restrictions.{state}", state)
            for job_type in restriction.only:
                if job_type not in self._file.job_types:
                    near = _nearest(job_type, self._file.job_types)
                    self._refuse(f"restrictions.{state}.only", f"{job_type} is none of job_types{near}")

    def _check_transitions(self) -> None:
        for index, edge in enumerate(self._file.transitions):
            key = f"transitions[{index}]"
            self._known(f"{key}.from", edge.previous)
            self._known(f"{key}.to", edge.state)
            if edge.previous == edge.state:
                self._refuse(key, f"{edge.previous} to itself is no transition")
            if edge.state in self._after[edge.previous]:
                self._refuse(key, f"{edge.previous} to {edge.state} is there twice")
            if not edge.source.strip():
                self._refuse(f"{key}.source", f"{edge.previous} to {edge.state} does not say how we know")
            self._after[edge.previous].add(edge.state)

    def _check_ways(self) -> None:
        file, after = self._file, self._after
        for state in file.terminal:
            if after[state]:
                self._refuse("terminal", f"{state} is an end, but a transition leads to {min(after[state])}")
        reached = _closure({file.initial}, after)
        for state in file.states:
            if state not in reached:
                self._refuse("states", f"{state} cannot be reached from {file.initial}")
        for state in file.states:
            if not _closure({state}, after) & set(file.terminal):
                self._refuse("states", f"{state} has no way to an end")

    def _check_dwell(self) -> None:
        for state, text in self._file.dwell.items():
            key = f"dwell.{state}"
            self._known(key, state)
            if state in self._file.terminal:
                self._refuse(key, f"{state} is an end, where a job stands for ever; remove this line")
            if text == _UNLIMITED:
                continue
            found = _DURATION.match(text) if isinstance(text, str) else None
            if found is None:
                self._refuse(
                    key,
                    f'{text!r} is no duration; write a number and s, m, h or d ("90s", "10m", "2h", "1d"), or "none"',
                )
            self.dwell[state] = int(found["number"]) * _SECONDS[found["unit"]]

    def _known(self, key: str, state: str) -> None:
        if state not in self._after:
            self._refuse(key, f"{state!r} is none of the states{_nearest(state, self._file.states)}")

    def _refuse(self, key: str, reason: str) -> NoReturn:
        raise RulesError(f"{self._where}: {key}: {reason}{self._next_step}")


def _closure(start: set[str], after: Mapping[str, set[str]]) -> set[str]:
    """*start* and everything that can follow."""
    reached, fresh = set(start), set(start)
    while fresh:
        fresh = {state for previous in fresh for state in after[previous]} - reached
        reached |= fresh
    return reached


def _hint(reason: str) -> str:
    found = _UNKNOWN.search(reason)
    return _nearest(found["field"], _KEYS) if found else ""


def _nearest(word: str, among: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(among), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
