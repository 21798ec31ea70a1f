"""What was found to be needed, taken out one by one: each must turn a seed red.

Mutations, put in from outside for as long as a `with` lasts; the program has no switch for any of them.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

import msgspec

from consumer.core import Lanes, Readers, decide, verify
from consumer.core.appends import Append, Entry, ReadBack
from consumer.core.lists import Lists
from consumer.core.verify import VerifiedJob, verify_last
from consumer.model import (
    OBSERVED,
    REPORTED,
    Accepted,
    Decision,
    Event,
    HistoryPage,
    JobKey,
    LastUpdate,
    Record,
    Report,
    Unchanged,
    Update,
    log_point_of,
)
from consumer.rules import Edge, Rules, load
from consumer.wire.subjects import Names
from tests.lab.seeds import Break
from tests.lab.simulation import daemon
from tests.lab.simulation.log import SimulatedLog
from tests.lab.simulation.world import World

LANES: Final = "consumer.core.lanes"


@contextmanager
def _no_cas() -> Iterator[Rules]:
    """Every append is stored, whatever it is to follow."""
    with patch.object(SimulatedLog, "follows", lambda _self, _found, _expected: True):
        yield load()


@contextmanager
def _two_in_flight() -> Iterator[Rules]:
    """A lane sends its next entry before the one in flight is confirmed."""
    append_update, take = Lanes._append_update, Lanes.take

    def sends_on(self: Any, lane: Any, item: Any, known: LastUpdate | None, update: Update) -> None:
        append_update(self, lane, item, known, update)
        ask = self.flight._outbox.pop()
        self.__dict__.setdefault("ahead", []).append(ask)
        self._confirm(lane, ask.expected, item.position)
        self.published.clear()

    def takes(self: Any, now: float) -> list[Append | ReadBack]:
        ahead = self.__dict__.pop("ahead", [])
        return [*ahead, *take(self, now)]

    with patch.object(Lanes, "_append_update", sends_on), patch.object(Lanes, "take", takes):
        yield load()


@contextmanager
def _stale_read_back() -> Iterator[Rules]:
    """A read-back is adopted without a look at its number."""
    read = Lanes._read

    def adopts(self: Any, lane: Any, found: Any, now: float) -> None:
        lane.at_least = 0
        read(self, lane, found, now)

    with patch.object(Lanes, "_read", adopts):
        yield load()


@contextmanager
def _no_time_in_covering() -> Iterator[Rules]:
    """A report is covered by its sequence alone."""

    def decides(rules: Rules, known: LastUpdate | None, event: Event) -> Decision:
        if known is not None and isinstance(event, Report) and event.position.sequence <= known.input.sequence:
            return Unchanged(reason="covered")
        return decide(rules, known, event)

    with patch(f"{LANES}.decide", decides):
        yield load()


@contextmanager
def _start_reads_bucket() -> Iterator[Rules]:
    """A start reads a copy that lags behind, and not up to the log's end as it was after the checkpoint was read."""

    def lags(self: World, _checkpoint_born: int) -> int:
        if self.calm:
            return self.log.version
        return max(self.log.version - int(self.rng.random() * 12), 0)

    with patch.object(World, "recovery_version", lags):
        yield load()


@contextmanager
def _append_without_join() -> Iterator[Rules]:
    """The next steps of a record are appended without a look whether they join what the log has."""

    def counts(known: LastUpdate | None, record: Record) -> int:
        behind = log_point_of(known).sequence - record.after.sequence
        return min(max(behind, 0), len(record.steps))

    # `consumer.core.decide` is the function: the module of that name is found by where the function looks.
    with patch.dict(decide.__globals__, _steps_behind=counts):
        yield load()


@contextmanager
def first_page_only() -> Iterator[Rules]:
    """Further pages of a history are not read."""
    answered = Readers.answered

    def forgets(self: Any, read: Any, answer: Any, now: float) -> None:
        if isinstance(answer, HistoryPage):
            answer = msgspec.structs.replace(answer, next_token="")
        answered(self, read, answer, now)

    with patch.object(Readers, "answered", forgets):
        yield load()


def _with_edges(rules: Rules, edges: tuple[Edge, ...]) -> Rules:
    return Rules(
        name=rules.name,
        states=rules.states,
        initial=rules.initial,
        terminal=tuple(rules.terminal),
        entry=rules.entry,
        edges=edges,
        aliases=rules.aliases,
        restrictions=rules.restrictions,
        job_types=rules.job_types,
    )


@contextmanager
def _edge_added() -> Iterator[Rules]:
    """Queued may become Pending again."""
    rules = load()
    yield _with_edges(rules, (*rules.edges, Edge(previous="Queued", state="Pending", when="", source="")))


@contextmanager
def _edge_removed() -> Iterator[Rules]:
    """Running must not become Queued."""
    rules = load()
    yield _with_edges(
        rules, tuple(edge for edge in rules.edges if (edge.previous, edge.state) != ("Running", "Queued"))
    )


@contextmanager
def _decide_mutates() -> Iterator[Rules]:
    """To decide changes what is known, before the log has confirmed it."""

    def changes(rules: Rules, known: LastUpdate | None, event: Event) -> Decision:
        decision = decide(rules, known, event)
        if isinstance(decision, Accepted) and known is not None:
            msgspec.structs.force_setattr(known, "state", decision.update.StateType)
        return decision

    with patch(f"{LANES}.decide", changes):
        yield load()


@contextmanager
def _checkpoint_early() -> Iterator[Rules]:
    """A checkpoint says how far the input was read, not how far it is confirmed."""
    checkpoint = Lanes.checkpoint

    def boasts(self: Any) -> None:
        for item in self._order._items:
            item.done = True
        checkpoint(self)

    with patch.object(Lanes, "checkpoint", boasts):
        yield load()


@contextmanager
def _last_entry_believed() -> Iterator[Rules]:
    """A read-back believes the job's last entry without a look at what it was stored after."""
    read = Lanes._read

    def believes(self: Any, lane: Any, found: Any, now: float) -> None:
        if not lane.whole and found:
            found = (msgspec.structs.replace(found[0], expected=lane.append.expected),)
        read(self, lane, found, now)

    with patch.object(Lanes, "_read", believes):
        yield load()


@contextmanager
def _start_believes_last() -> Iterator[Rules]:
    """A start believes the last entries of a job's subjects without a look at what they were stored after."""

    def believes(names: Names, key: JobKey, entries: list[Entry]) -> VerifiedJob | None:
        if not entries:
            return verify_last(names, key, entries)
        before = entries[-2].number if len(entries) > 1 else 0
        return verify_last(names, key, [*entries[:-1], msgspec.structs.replace(entries[-1], expected=before)])

    with patch.object(daemon, "verify_last", believes):
        yield load()


@contextmanager
def _imitation_believed() -> Iterator[Rules]:
    """Whatever has the subject, the body and the `Sequence` of one of ours is believed."""
    with ExitStack() as stack:
        for broken in (_header_unread, _filter_unread, _number_unread, _previous_unread):
            stack.enter_context(broken())
        yield load()


@contextmanager
def _header_unread() -> Iterator[Rules]:
    """An entry without a compare-and-set is taken for one that has it."""
    read = verify.read_update

    def believes(names: Names, key: JobKey, entry: Entry) -> Update | None:
        if entry.expected is None:
            entry = msgspec.structs.replace(entry, expected=0, filter=names.states(key))
        return read(names, key, entry)

    def is_after(entry: Entry, before: int) -> bool:
        return entry.expected is None or before <= entry.expected < entry.number

    with (
        patch.object(verify, "read_update", believes),
        patch(f"{LANES}.read_update", believes),
        patch.object(verify, "_is_after", is_after),
    ):
        yield load()


@contextmanager
def _filter_unread() -> Iterator[Rules]:
    """A compare-and-set over other subjects than all of the job's is taken for ours."""
    read = verify.read_update

    def believes(names: Names, key: JobKey, entry: Entry) -> Update | None:
        return read(names, key, msgspec.structs.replace(entry, filter=names.states(key)))

    with patch.object(verify, "read_update", believes), patch(f"{LANES}.read_update", believes):
        yield load()


@contextmanager
def _number_unread() -> Iterator[Rules]:
    """Nobody looks after which entry one was stored, where all of a job's are judged."""
    with patch.object(verify, "_is_after", lambda _entry, _before: True):
        yield load()


@contextmanager
def _previous_unread() -> Iterator[Rules]:
    """An entry's `Sequence` is believed, whatever state it says to have followed."""
    with patch.object(verify, "_follows", lambda update, sequence, _state: update.Sequence == sequence + 1):
        yield load()


@contextmanager
def _removal_unforgiven() -> Iterator[Rules]:
    """What followed an entry that an operator removed since is taken for a stranger's."""
    with patch.object(verify, "_is_after", lambda entry, before: entry.expected == before):
        yield load()


@contextmanager
def _read_back_for_ever() -> Iterator[Rules]:
    """A read-back below the number that the server named is read again, whatever became of the job meanwhile."""
    read = Lanes._read

    def insists(self: Any, lane: Any, found: Any, now: float) -> None:
        if (found[-1].number if found else 0) < lane.at_least:
            self._ask_back(lane)
            self.flight.send_later(lane, self.flight._outbox.pop(), now + 0.02)
        else:
            read(self, lane, found, now)

    with patch.object(Lanes, "_read", insists):
        yield load()


@contextmanager
def _report_taken_for_step() -> Iterator[Rules]:
    """What a producer said of a job is taken for the step of the record that says the same."""
    behind = decide.__globals__["_steps_behind"]

    def confuses(known: LastUpdate | None, record: Record) -> int | None:
        if known is not None and known.source == REPORTED:
            known = msgspec.structs.replace(known, source=OBSERVED)
        found: int | None = behind(known, record)
        return found

    with patch.dict(decide.__globals__, _steps_behind=confuses):
        yield load()


@contextmanager
def _full_list_put_off() -> Iterator[Rules]:
    """Each short list puts the full one off."""
    ended = Lists._end_of_changes_page

    def puts_off(self: Any, read: Any, page: Any, now: float) -> None:
        ended(self, read, page, now)
        self._sweep_due = now + self._pacing.full_every_s

    with patch.object(Lists, "_end_of_changes_page", puts_off):
        yield load()


BROKEN: Final[dict[str, Break]] = {
    "no-cas": _no_cas,
    "two-in-flight": _two_in_flight,
    "stale-read-back": _stale_read_back,
    "no-time-in-covering": _no_time_in_covering,
    "start-reads-bucket": _start_reads_bucket,
    "append-without-join": _append_without_join,
    "first-page-only": first_page_only,
    "edge-added": _edge_added,
    "edge-removed": _edge_removed,
    "decide-mutates": _decide_mutates,
    "checkpoint-early": _checkpoint_early,
    "last-entry-believed": _last_entry_believed,
    "start-believes-last": _start_believes_last,
    "imitation-believed": _imitation_believed,
    "header-unread": _header_unread,
    "filter-unread": _filter_unread,
    "number-unread": _number_unread,
    "previous-unread": _previous_unread,
    "removal-unforgiven": _removal_unforgiven,
    "read-back-for-ever": _read_back_for_ever,
    "report-taken-for-step": _report_taken_for_step,
    "full-list-put-off": _full_list_put_off,
}
