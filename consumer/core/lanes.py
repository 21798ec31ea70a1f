"""Lanes: what one job's events go through, one at a time, one entry in flight. A state machine without I/O.

Events and answers come in, appends and read-backs go out. Whatever an event comes to goes through its lane, the
rejection too, and the lane goes on when the log has confirmed it. Nothing is promised between lanes; thousands are in
flight at once.

Why it is right (design/design.md 7): each update names the one it follows by a number that the server gave, so it is
stored after that one or not at all; and deciding is a function of that one and the event. Who writes, how often, and
what a crashed or paused writer sends later does not matter. The limit: what the server forgets, it forgets.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from consumer.core.appends import Answer, Append, Busy, Entry, ReadBack, Refused, Stored, Unanswered
from consumer.core.compose import Composer
from consumer.core.decide import decide, follow
from consumer.core.dwell import Dwell, since_of
from consumer.core.flight import Asker, Flight, Tally
from consumer.core.input_order import Checkpoint, InputOrder, Item
from consumer.core.last_updates import LastUpdates
from consumer.core.verify import NOTHING, VerifiedJob, is_next, read_position, read_update, verify_all
from consumer.defaults import FLIGHT_MAX
from consumer.model import (
    NOWHERE,
    REPORTED,
    Accepted,
    Decision,
    Event,
    InputPosition,
    JobKey,
    LastUpdate,
    Malformed,
    Notice,
    Record,
    Rejected,
    Report,
    Update,
    Work,
)
from consumer.rules import Rules
from consumer.wire import MESSAGE_MAX
from consumer.wire.subjects import Names

BUSY_WAIT_S: Final = 0.01
"""Another append of the job is in flight (10164): so long until ours is sent again."""
STALE_WAIT_S: Final = 0.02
"""A read-back below the number that the server named: so long until the append asks again."""


class Published(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An update that the log has confirmed: entry *number*, decided from *event* (its last step so far)."""

    event: Event
    update: Update
    number: int


class Decided(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finished event and its decision. The log has confirmed every entry that the event had to write."""

    event: Event
    decision: Decision


class _Lane(Asker, kw_only=True, eq=False, gc=False):
    """The work of one job, oldest first, and what the first of it waits for.

    What names no job has the key of its own subject, which is none of a job's. *append* is what the first of the work
    has to write; while the log is read back it is not the lane's `ask`.
    """

    key: JobKey
    items: deque[Item] = msgspec.field(default_factory=deque)
    append: Append | None = None
    decision: Decision | None = None
    at_least: int = 0
    whole: bool = False


class Lanes:
    """The lanes of one daemon.

    After `offer`, `answer` or when `wake_at` has come: `take` what is to be sent, and drain `published`, `decided` and
    `announced`. *dwell* is told where each job comes to stand, whoever wrote that. *message_max* bounds an entry, body
    and headers: what is larger is cut, by every daemon that has the same bound alike.
    """

    def __init__(
        self,
        rules: Rules,
        names: Names,
        known: Mapping[JobKey, LastUpdate] | None = None,
        *,
        flight_max: int = FLIGHT_MAX,
        message_max: int = MESSAGE_MAX,
        shard: str = "0",
        dwell: Dwell | None = None,
    ) -> None:
        self.rules: Final = rules
        self._names = names
        self._composer: Final = Composer(names, message_max, shard)
        self._checkpoint_key: Final = JobKey(names.checkpoint(shard))
        self._jobs: Final = LastUpdates(known, dwell)
        self._order: Final = InputOrder()
        self._lanes: dict[str, _Lane] = {}
        self._waiting = 0
        self._confirmed = 0
        self.published: list[Published] = []
        self.decided: list[Decided] = []
        self.announced: list[Notice] = []
        """Notices that the log has by us. Not those that it had before: a restart, or a second daemon, is no news."""
        self.tally: Final = Tally()
        self.flight: Final[Flight[_Lane]] = Flight(flight_max, self.tally)

    # -- what is known ------------------------------------------------------------------------------------------------

    def known(self, key: JobKey) -> LastUpdate | None:
        """The job's last confirmed update."""
        return self._jobs.get(key)

    @property
    def jobs(self) -> Mapping[JobKey, LastUpdate]:
        """Every job's last confirmed update. Not to be changed."""
        return self._jobs.by_key

    @property
    def by_state(self) -> Mapping[str, int]:
        """How many jobs stand in each state; those that nobody stands in may be missing. Not to be changed."""
        return self._jobs.by_state

    @property
    def last(self) -> int:
        """The number of the last entry that the log has of any job, as far as is known; 0: none."""
        return self._jobs.last

    def is_idle(self, key: JobKey) -> bool:
        """Whether nothing of the job is under way: what is known of it is all that came in."""
        return key not in self._lanes

    @property
    def waiting(self) -> int:
        """Events that are not over."""
        return self._waiting

    @property
    def held(self) -> int:
        """Events in memory: those that are not over, and those of the input that are, behind one that is not."""
        return max(self._waiting, len(self._order))

    @property
    def active(self) -> int:
        """Lanes with work in them."""
        return len(self._lanes)

    @property
    def in_flight(self) -> int:
        """Appends and read-backs that are sent and unanswered."""
        return self.flight.in_flight

    @property
    def confirmed(self) -> int:
        """The highest number that the log has given an entry of ours, of whatever kind; 0: none yet."""
        return self._confirmed

    @property
    def backing_off(self) -> bool:
        """The log does not answer; one ask at a time goes out until it does."""
        return self.flight.backing_off

    def learn(self, key: JobKey, found: VerifiedJob) -> None:
        """Take what a start found in the log for the job, before any event of it is offered."""
        self._jobs.adopt(key, found)
        self._announce(key, found)

    def _announce(self, key: JobKey, found: VerifiedJob) -> None:
        """Have every foreign entry that was found kept as a notice, once."""
        for number in found.foreign:
            self.tally.foreign += 1
            self.offer(_foreign(key, number))

    def announce_foreign(self, number: int, text: str) -> None:
        """Have it kept as a notice that entry *number* of the log, under no job, is none of ours; *text* says more."""
        self.tally.foreign += 1
        self.offer(Notice(kind="foreign", origin=str(number), text=text, facts={"number": number}))

    # -- events -------------------------------------------------------------------------------------------------------

    def offer(self, work: Work) -> None:
        """Queue *work* in its lane. Reports and the input's junk must come in the order of the input."""
        kind = type(work)
        if kind is Report:
            item = Item(work, work.position)  # type: ignore[union-attr]
            lane_key: JobKey = work.key  # type: ignore[union-attr, assignment]
        elif kind is Record:
            item = Item(work, NOWHERE)
            lane_key = work.key  # type: ignore[union-attr, assignment]
        elif isinstance(work, Malformed):
            item = Item(work, work.position)
            lane_key = self._composer.lane_of(work)
        else:
            assert isinstance(work, Notice)
            item = Item(work, NOWHERE)
            lane_key = self._composer.lane_of(work)
        if item.position is not NOWHERE:
            self._order.add(item)
        self._queue(lane_key, item)

    def _queue(self, key: JobKey, item: Item) -> None:
        self._waiting += 1
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key=key)
        lane.items.append(item)
        if len(lane.items) == 1:
            self._advance(lane)

    def _advance(self, lane: _Lane) -> None:
        """Decide what stands first until something must be written, or nothing is left."""
        while lane.items:
            item = lane.items[0]
            work = item.work
            if isinstance(work, Notice):
                self._append(lane, self._composer.notice(self.flight.next_token(), work))
                return
            if isinstance(work, Checkpoint):
                self._append(lane, self._composer.checkpoint(self.flight.next_token(), work))
                return
            known = self._jobs.get(lane.key)
            decision = decide(self.rules, known, work)
            lane.decision = decision
            if isinstance(decision, Accepted):
                self._append_update(lane, item, known, decision.update)
                return
            if isinstance(work, Malformed):
                self._append(lane, self._composer.undecodable(self.flight.next_token(), work))
                return
            if isinstance(decision, Rejected):
                self._append(lane, self._composer.rejected(self.flight.next_token(), work, decision, known))
                return
            self._settle(lane, decision)
        del self._lanes[lane.key]

    def _append_update(self, lane: _Lane, item: Item, known: LastUpdate | None, update: Update) -> None:
        fitting, body = self._composer.fit(update)
        if fitting is not update:
            assert isinstance(lane.decision, Accepted)
            lane.decision = msgspec.structs.replace(lane.decision, update=fitting)
        covered = item.position
        if known is not None and covered == NOWHERE:
            covered = known.input
        assert not isinstance(item.work, Notice | Checkpoint), "neither makes an update"
        append = self._composer.update(
            self.flight.next_token(),
            lane.key,
            update.StateType,
            body,
            expected=self._jobs.expected(lane.key),
            covered=covered,
            event=item.work,
        )
        self._append(lane, append)

    def _append(self, lane: _Lane, append: Append) -> None:
        lane.append = append
        lane.resent = False
        self.flight.send(lane, append)
        self.tally.appends += 1

    def _settle(self, lane: _Lane, decision: Decision | None) -> None:
        """The first item of the lane is over."""
        item = lane.items.popleft()
        item.done = True
        self._order.advance()
        self._waiting -= 1
        lane.append = None
        if decision is not None:
            assert not isinstance(item.work, Notice | Checkpoint), "neither is decided"
            self.decided.append(Decided(event=item.work, decision=decision))

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, token: int, answer: Answer, now: float) -> None:
        """Take the log's answer to the ask *token*. One that comes twice or too late is nothing. *now*: seconds."""
        if isinstance(answer, Unanswered):
            self.flight.unanswered(token, now, full=answer.full)
            return
        lane = self.flight.answered(token)
        if lane is None:
            return
        if isinstance(answer, Stored):
            if lane.append is not None and lane.append.stream == "log":
                self._confirmed = max(self._confirmed, answer.number)
            self._confirm(lane, answer.number, lane.items[0].position)
        elif isinstance(answer, Refused):
            self._refuse(lane, answer.number)
        elif isinstance(answer, Busy):
            self.tally.busy += 1
            assert lane.append is not None
            self.flight.send_later(lane, lane.append, now + BUSY_WAIT_S)
        else:
            self._read(lane, answer.entries, now)

    def _confirm(self, lane: _Lane, number: int, covered: InputPosition, *, by_us: bool = True) -> None:
        """What the lane wanted to say is in the log, as entry *number*, which names *covered* as the last report."""
        self.flight.end(lane)
        lane.at_least = 0
        item = lane.items[0]
        decision = lane.decision
        if isinstance(item.work, Checkpoint):
            self._order.written(item.work.position, number)
            self._settle(lane, None)
        elif isinstance(item.work, Notice):
            if by_us:
                self.announced.append(item.work)
            self._settle(lane, None)
        elif isinstance(decision, Accepted):
            key = lane.key
            known = follow(self._jobs.get(key), decision.update, number, covered)
            self._jobs.confirm(key, known, since_of(decision.update))
            self.published.append(Published(event=item.work, update=decision.update, number=number))
            if not decision.more:
                self._settle(lane, decision)
        else:
            self._settle(lane, decision)
        self._advance(lane)

    def _refuse(self, lane: _Lane, number: int) -> None:
        """Another entry stands where ours was to follow: number *number* is the last under the filter."""
        self.tally.refused += 1
        if isinstance(lane.items[0].work, Checkpoint):
            # The number is the other daemon's checkpoint, below what it has confirmed: as good as ours.
            self.flight.end(lane)
            self._order.overtaken(number)
            self._settle(lane, None)
            self._advance(lane)
        elif not isinstance(lane.decision, Accepted):
            # Kept once, and it is: somebody was first with the same, or we were, before an answer was lost. Then it
            # is better said twice than by nobody.
            self._confirm(lane, number, NOWHERE, by_us=lane.resent)
        else:
            lane.at_least = number
            lane.whole = False
            self._ask_back(lane)

    def _read(self, lane: _Lane, found: tuple[Entry, ...], now: float) -> None:
        """The job as the log has it, in answer to a read-back."""
        ask = lane.append
        assert ask is not None
        key = lane.key
        number = found[-1].number if found else 0
        if number < lane.at_least:
            # A leader that was one: its answer is older than the refusal (design/nats.md 4: 89 of 165 answers). Or the
            # job was forgotten since, and no answer will ever be newer: the append itself asks, and finds out.
            self.tally.stale += 1
            self.flight.end(lane)
            self.flight.send_later(lane, ask, now + STALE_WAIT_S)
            return
        if lane.whole:
            self._adopt(lane, verify_all(self._names, key, found))
            return
        if not found:
            self._adopt(lane, NOTHING)
            return
        # Stored directly after the very entry that ours was to follow, so it is the job's next: a copy of an older one
        # that a stranger put on top of it may say the same.
        known = self._jobs.get(key)
        update = read_update(self._names, key, found[0])
        if update is not None and found[0].expected == ask.expected and is_next(known, update):
            wanted = lane.decision
            assert isinstance(wanted, Accepted)
            position = read_position(found[0].input)
            if _says(update, found[0].input, wanted.update, ask.input):
                self._confirm(lane, number, position)
            else:
                since = since_of(update, found[0].time_ns)
                self._adopt(
                    lane, VerifiedJob(known=follow(known, update, number, position), number=number, since=since)
                )
            return
        # It does not follow what we know: several of the other daemon's, or a foreign one. Only all of them can tell.
        lane.whole = True
        self._ask_back(lane)

    def _adopt(self, lane: _Lane, found: VerifiedJob) -> None:
        """Take the log's word for the job, and decide the event again."""
        key = lane.key
        if found.known is not None:
            self.tally.adopted += 1
        elif self._jobs.get(key) is not None:
            self.tally.forgotten += 1
        self.flight.end(lane)
        lane.append = None
        lane.at_least = 0
        self._jobs.adopt(key, found)
        self._announce(key, found)
        self._advance(lane)

    # -- asks ---------------------------------------------------------------------------------------------------------

    def take(self, now: float) -> list[Append | ReadBack]:
        """What is to be sent now. While the log does not answer, one at a time, when its wait is over."""
        return self.flight.take(now)

    def wake_at(self) -> float | None:
        """When `take` may have something that it has not now, if nothing comes before. Seconds; None: never."""
        return self.flight.wake_at()

    def disconnected(self) -> None:
        """The connection is gone: whatever was sent and not answered is to be sent again."""
        self.flight.disconnected()

    def checkpoint(self) -> None:
        """Have a checkpoint written, if the input is confirmed further than the last one says."""
        checkpoint = self._order.checkpoint()
        if checkpoint is None or self._checkpoint_key in self._lanes:
            return
        self.tally.checkpoints += 1
        self._queue(self._checkpoint_key, Item(checkpoint, NOWHERE))

    def restore_checkpoint(self, position: InputPosition, number: int) -> None:
        """Take the checkpoint that a start found: *position* of the input, written as the log's entry *number*."""
        self._order.restore(position, number)

    @property
    def floor(self) -> InputPosition:
        """The last position of the input up to which everything is confirmed."""
        return self._order.floor

    def _ask_back(self, lane: _Lane) -> None:
        assert lane.append is not None
        self.flight.end(lane)
        self.flight.send(lane, ReadBack(token=self.flight.next_token(), filter=lane.append.filter, whole=lane.whole))
        self.tally.read_backs += 1


def _says(found: Update, found_input: str, wanted: Update, wanted_input: str) -> bool:
    """Whether the entry found says what we wanted to say, whoever wrote it (design/design.md 7.3)."""
    same = (
        found.Sequence == wanted.Sequence
        and found.StateType == wanted.StateType
        and found.Source == wanted.Source
        and found.Job.Version == wanted.Job.Version
        and found.Job.Revision == wanted.Job.Revision
    )
    return same and (wanted.Source != REPORTED or found_input == wanted_input)


def _foreign(key: JobKey, number: int) -> Notice:
    return Notice(
        kind="foreign",
        origin=str(number),
        text="an entry under this job that no daemon of ours wrote; its content is ignored",
        key=key,
        facts={"number": number},
    )
