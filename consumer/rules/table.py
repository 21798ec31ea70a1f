"""The table itself: what `load` made of a rules file, and every question that one may ask of it.

It is asked for each event, so each answer is a look into a dictionary made once. No file is read here (`file.py`) and
nothing is drawn (`graph.py`).
"""

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, final

import msgspec


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """One allowed transition. `when` and `source` are for people: what makes it happen, and how we know."""

    previous: str
    state: str
    when: str
    source: str


class Restriction(msgspec.Struct, frozen=True, kw_only=True):
    """A state that only jobs of some types reach."""

    state: str
    only: tuple[str, ...]
    source: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The states at which a job may be that nobody knew."""

    states: tuple[str, ...]
    when: str
    source: str


@final
class Rules:
    """States, ends, transitions: immutable, and sound if `load` made it. `hash` is over what they decide.

    Two files that decide alike have one hash, whatever their order, comments and sentences. A log is stamped with
    `name` and `hash`. `dwell` (state to seconds; none: not there) is when a job that stands still is announced: it
    decides no transition, so it is not in the hash, and may be changed under a log or differ between two daemons.
    """

    __slots__ = (
        "_forbidden_types",
        "_next",
        "_spellings",
        "aliases",
        "dwell",
        "edges",
        "entry",
        "hash",
        "initial",
        "job_types",
        "name",
        "restrictions",
        "states",
        "terminal",
    )

    def __init__(
        self,
        *,
        name: str,
        states: tuple[str, ...],
        initial: str,
        terminal: tuple[str, ...],
        entry: Entry,
        edges: tuple[Edge, ...],
        aliases: Mapping[str, str],
        restrictions: tuple[Restriction, ...],
        job_types: tuple[str, ...],
        dwell: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.name: Final = name
        self.states: Final = states
        self.initial: Final = initial
        self.terminal: Final = frozenset(terminal)
        self.entry: Final = entry
        self.edges: Final = edges
        self.aliases: Final = MappingProxyType(dict(aliases))
        self.restrictions: Final = restrictions
        self.job_types: Final = job_types
        self.dwell: Final = MappingProxyType(dict(dwell))
        following: dict[str | None, set[str]] = {None: set(entry.states)}
        for edge in edges:
            following.setdefault(edge.previous, set()).add(edge.state)
        self._next: Final = {previous: frozenset(after) for previous, after in following.items()}
        self._spellings: Final = {state: state for state in states} | dict(aliases)
        self._spellings.update({_fold(spelling): state for spelling, state in list(self._spellings.items())})
        self._forbidden_types: Final = {
            restriction.state: frozenset(job_types) - frozenset(restriction.only) for restriction in restrictions
        }
        self.hash: Final = _hash(self)

    def __repr__(self) -> str:
        return f"Rules({self.name!r}, {self.hash[:12]}, {len(self.states)} states, {len(self.edges)} transitions)"

    def find(self, text: str) -> str | None:
        """The state that *text* names, or None; aliases are understood.

        Case and blanks around do not matter, as in Bacalhau's own reader (`pkg/models/job.go`, `UnmarshalText`).
        """
        return self._spellings.get(text) or self._spellings.get(_fold(text))

    def allows(self, previous: str | None, state: str) -> bool:
        """Whether a job may go from *previous* (None: nobody knew it) to *state*, within one version."""
        return state in self._next.get(previous, ())

    def is_terminal(self, state: str) -> bool:
        """Whether nothing follows *state*, within one version."""
        return state in self.terminal

    def completable(self, job_type: str, state: str) -> bool:
        """Whether a job of *job_type* may reach *state*. A type that is empty or that nobody knows may."""
        forbidden = self._forbidden_types.get(state)
        return forbidden is None or job_type.lower() not in forbidden

    def following(self, previous: str | None) -> tuple[str, ...]:
        """The states that may follow, in the order of the file."""
        after = self._next.get(previous, frozenset())
        return tuple(state for state in self.states if state in after)

    def explain(self, previous: str | None, state: str) -> str:
        """One sentence: whether *state* may follow *previous*, why or why not, and how we know."""
        for name in (previous, state):
            if name is not None and self.find(name) is None:
                return f"{name!r} is no state of these rules{self._nearest(name)}"
        before, after = previous and self.find(previous), self.find(state)
        if before is None:
            verb = "may" if self.allows(None, after or "") else "must not"
            return f"A new job {verb} be found at {after}: {self.entry.when} ({self.entry.source})."
        if before == after:
            return f"{before} again is no transition: it changes nothing."
        for edge in self.edges:
            if (edge.previous, edge.state) == (before, after):
                return f"{before} to {after} is allowed: {edge.when} ({edge.source})."
        if self.is_terminal(before):
            return f"{before} to {after} is forbidden: {before} is final, only a new version of the job begins again."
        again = f"; only a new version begins at {after}" if after == self.initial else ""
        return f"{before} to {after} is forbidden: after {before} come {_listed(self.following(before))}{again}."

    def _nearest(self, word: str) -> str:
        near = difflib.get_close_matches(word, self.states, n=1)
        return f"; did you mean {near[0]}?" if near else f": they know {_listed(self.states)}."


def _fold(text: str) -> str:
    return text.strip().lower()


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _hash(rules: Rules) -> str:
    """SHA-256 (hex) over what the rules decide, in one spelling. Changing how this is written orphans every log."""
    decided = {
        "states": sorted(rules.states),
        "initial": rules.initial,
        "terminal": sorted(rules.terminal),
        "new": sorted(rules.entry.states),
        "transitions": sorted([edge.previous, edge.state] for edge in rules.edges),
        "aliases": sorted([alias, state] for alias, state in rules.aliases.items()),
        "restrictions": sorted([one.state, *sorted(one.only)] for one in rules.restrictions),
        "job_types": sorted(rules.job_types),
    }
    return hashlib.sha256(msgspec.json.encode(decided, order="deterministic")).hexdigest()
