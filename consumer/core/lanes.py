"""Lanes: what one job's events go through, one at a time, one entry in flight. A state machine without I/O.

Events and answers come in, appends and read-backs go out. Whatever an event comes to goes through its lane, the
rejection too, and the lane goes on when the log has confirmed it. Nothing is promised between lanes; thousands are in
flight at once.

Why it is right (design/design.md 7): each update names the one it follows by a number that the server gave, so it is
stored after that one or not at all; and deciding is a function of that one and the event. Who writes, how often, and
what a crashed or paused writer sends later does not matter. The limit: what the server forgets, it forgets.
"""

import heapq
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

import msgspec

from consumer.core.appends import Answer, Append, Busy, Entry, ReadBack, Refused, Stored, Unanswered
from consumer.core.decide import decide, follow
from consumer.core.dwell import Dwell, since_of
from consumer.core.verify import NOTHING, VerifiedJob, is_next, read_position, read_update, verify_all
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
    Unchanged,
    Update,
    Work,
)
from consumer.rules import Rules
from consumer.wire import MESSAGE_MAX, entries
from consumer.wire.subjects import Names
from consumer.wire.update import cut_update, encode_update

BUSY_WAIT_S: Final = 0.01
"""Another append of the job is in flight (10164): so long until ours is sent again."""
STALE_WAIT_S: Final = 0.02
"""A read-back below the number that the server named: so long until the append asks again."""
HEADERS_MAX: Final = 2048
"""Bytes of an entry's headers: its subjects, two numbers, a position and a `traceparent`."""
FULL: Final = "full"
"""How the reason of an answer begins that says that a stream has no room (10077, 10023, 10002)."""
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0


class Published(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An update that the log has confirmed: entry *number*, decided from *event* (its last step so far)."""

    event: Event
    update: Update
    number: int


class Decided(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event that is over: what it came to. Everything it had to write is confirmed."""

    event: Event
    decision: Decision


class Tally(msgspec.Struct, kw_only=True):
    """How often what happened to the lanes, since the start."""

    appends: int = 0
    resends: int = 0
    refused: int = 0
    busy: int = 0
    unanswered: int = 0
    full: int = 0
    read_backs: int = 0
    stale: int = 0
    adopted: int = 0
    foreign: int = 0
    forgotten: int = 0
    checkpoints: int = 0

    def copy(self) -> "Tally":
        """The same numbers, to compare with later."""
        return msgspec.structs.replace(self)


# Of these there are as many as there are events in memory. Nothing in them leads back to them: the collector, which
# would look at each again and again, is not needed.
class _Item(msgspec.Struct, eq=False, gc=False):
    """One piece of work on its way, and whether it is over."""

    work: Work
    position: InputPosition
    done: bool = False


class _Lane(msgspec.Struct, eq=False, gc=False):
    """The work of one job, oldest first, and what the first of it waits for.

    What names no job has the key of its own subject, which is none of a job's.
    """

    key: JobKey
    items: deque[_Item] = msgspec.field(default_factory=deque)
    token: int = 0
    append: Append | None = None
    decision: Decision | None = None
    at_least: int = 0
    whole: bool = False
    resent: bool = False


class Lanes:
    """The lanes of one daemon.

    After `offer`, `answer` or when `wake_at` has come: `take` what is to be sent, and drain `published`, `decided` and
    `announced`. *dwell* is told where each job comes to stand, whoever wrote that. *message_max* bounds an entry, body
    and headers: what is larger is cut, by every daemon that has the same bound alike.
    """

    def __init__(  # noqa: PLR0913 - each is one part, given once
        self,
        rules: Rules,
        names: Names,
        known: Mapping[JobKey, LastUpdate] | None = None,
        *,
        flight_max: int = 4096,
        message_max: int = MESSAGE_MAX,
        shard: str = "0",
        dwell: Dwell | None = None,
    ) -> None:
        self.rules: Final = rules
        self._names = names
        self._known: dict[JobKey, LastUpdate] = dict(known or {})
        self._by_state: Final = Counter(one.state for one in self._known.values())
        self._last = max((one.number for one in self._known.values()), default=0)
        # Jobs of which the log has foreign entries only: what the first of ours must expect.
        self._numbers: dict[JobKey, int] = {}
        self._flight_max = flight_max
        self._body_max = message_max - HEADERS_MAX
        self._dwell = dwell
        self._lanes: dict[str, _Lane] = {}
        self._open: dict[int, _Lane] = {}
        self._asked: set[int] = set()
        self._outbox: deque[Append | ReadBack] = deque()
        self._later: list[tuple[float, int, Append | ReadBack]] = []
        self._token = 0
        self._waiting = 0
        self._failures = 0
        self._hold_until = 0.0
        self._in_order: deque[_Item] = deque()
        self._floor = NOWHERE
        self._confirmed = 0
        self._shard = shard
        self._checkpoint_number = 0
        self._checkpoint_written = NOWHERE
        self.published: list[Published] = []
        self.decided: list[Decided] = []
        self.announced: list[Notice] = []
        """Notices that the log has by us. Not those that it had before: a restart, or a second daemon, is no news."""
        self.tally = Tally()

    # -- what is known ------------------------------------------------------------------------------------------------

    def known(self, key: JobKey) -> LastUpdate | None:
        """The job's last confirmed update."""
        return self._known.get(key)

    @property
    def jobs(self) -> Mapping[JobKey, LastUpdate]:
        """Every job's last confirmed update. Not to be changed."""
        return self._known

    @property
    def by_state(self) -> Mapping[str, int]:
        """How many jobs stand in each state; those that nobody stands in may be missing. Not to be changed."""
        return self._by_state

    @property
    def last(self) -> int:
        """The number of the last entry that the log has of any job, as far as is known; 0: none."""
        return self._last

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
        return max(self._waiting, len(self._in_order))

    @property
    def active(self) -> int:
        """Lanes with work in them."""
        return len(self._lanes)

    @property
    def in_flight(self) -> int:
        """Appends and read-backs that are sent and unanswered."""
        return len(self._asked)

    @property
    def confirmed(self) -> int:
        """The highest number that the log has given an entry of ours, of whatever kind; 0: none yet."""
        return self._confirmed

    @property
    def backing_off(self) -> bool:
        """The log does not answer; one ask at a time goes out until it does."""
        return self._failures > 0

    def learn(self, key: JobKey, truth: VerifiedJob) -> None:
        """Take what a start found in the log for the job, before any event of it is offered."""
        if truth.known is not None:
            self._stand(key, truth.known, truth.since)
        elif truth.number:
            self._numbers[key] = truth.number
        self._announce(key, truth)

    def _announce(self, key: JobKey, truth: VerifiedJob) -> None:
        """Have every foreign entry that was found kept as a notice, once."""
        for number in truth.foreign:
            self.tally.foreign += 1
            self.offer(_foreign(key, number))

    def announce_foreign(self, number: int, text: str) -> None:
        """Have it kept as a notice that entry *number* of the log, under no job, is none of ours; *text* says more."""
        self.tally.foreign += 1
        self.offer(Notice(kind="foreign", origin=str(number), text=text, facts={"number": number}))

    def _stand(self, key: JobKey, known: LastUpdate | None, since: float) -> None:
        """From now on the log has the job at *known*; None: it has forgotten the job."""
        before = self._known.pop(key, None) if known is None else self._known.get(key)
        if before is not None:
            self._by_state[before.state] -= 1
        if known is not None:
            self._known[key] = known
            self._by_state[known.state] += 1
            self._last = max(self._last, known.number)
        if self._dwell is not None:
            self._dwell.follow(key, known, since)

    # -- events -------------------------------------------------------------------------------------------------------

    def offer(self, work: Work) -> None:
        """Queue *work* in its lane. Reports and the input's junk must come in the order of the input."""
        kind = type(work)
        if kind is Report:
            item = _Item(work, work.position)  # type: ignore[union-attr]
            lane_key: JobKey = work.key  # type: ignore[union-attr, assignment]
        elif kind is Record:
            item = _Item(work, NOWHERE)
            lane_key = work.key  # type: ignore[union-attr, assignment]
        elif isinstance(work, Malformed):
            item = _Item(work, work.position)
            lane_key = JobKey(self._names.undecodable("*", work.origin))
        else:
            assert isinstance(work, Notice)
            item = _Item(work, NOWHERE)
            lane_key = JobKey(self._names.advisory(work.kind, work.origin))
        if item.position is not NOWHERE:
            self._in_order.append(item)
        self._waiting += 1
        lane = self._lanes.get(lane_key)
        if lane is None:
            lane = self._lanes[lane_key] = _Lane(lane_key)
        lane.items.append(item)
        if len(lane.items) == 1:
            self._advance(lane)

    def _advance(self, lane: _Lane) -> None:
        """Decide what stands first until something must be written, or nothing is left."""
        while lane.items:
            item = lane.items[0]
            work = item.work
            if isinstance(work, Notice):
                self._keep(lane, work, None)
                return
            known = self._known.get(lane.key)
            decision = decide(self.rules, known, work)
            lane.decision = decision
            if isinstance(decision, Accepted):
                self._append_update(lane, item, known, decision.update)
                return
            if not isinstance(decision, Unchanged):
                self._keep(lane, work, decision)
                return
            self._settle(lane, decision)
        del self._lanes[lane.key]

    def _append_update(self, lane: _Lane, item: _Item, known: LastUpdate | None, update: Update) -> None:
        key = lane.key
        if known is not None:
            expected = known.number
            covered = item.position if item.position > NOWHERE else known.input
        else:
            expected = self._numbers.get(key, 0)
            covered = item.position
        work = item.work
        body = encode_update(update)
        if len(body) > self._body_max:
            # A record's message: a report is bounded where it is read. Sent all the same, it would end every daemon.
            assert isinstance(lane.decision, Accepted)
            update = cut_update(update, self._body_max)
            body = encode_update(update)
            lane.decision = msgspec.structs.replace(lane.decision, update=update)
        self._token += 1
        self._ask_append(
            lane,
            Append(
                token=self._token,
                subject=self._names.state(key, update.StateType),
                filter=self._names.states(key),
                expected=expected,
                body=body,
                input=f"{covered.sequence}@{covered.time_ns}" if covered > NOWHERE else "",
                traceparent=work.traceparent if isinstance(work, Report) else "",
            ),
        )

    def _keep(self, lane: _Lane, work: Work, decision: Decision | None) -> None:
        """Write what is kept once, whoever writes it: a rejection, a description of junk, a notice."""
        names = self._names
        self._token += 1
        if isinstance(work, Notice):
            subject = names.advisory(work.kind, work.origin)
            ask = Append(
                token=self._token, subject=subject, filter=subject, expected=0, body=entries.encode_advisory(work)
            )
        elif isinstance(work, Malformed):
            ask = Append(
                token=self._token,
                subject=names.undecodable(work.reason, work.origin),
                filter=names.undecodable("*", work.origin),
                expected=0,
                body=entries.encode_undecodable(work, self._body_max),
                stream="refused",
            )
        else:
            assert isinstance(decision, Rejected)
            origin = _origin(work, decision)
            ask = Append(
                token=self._token,
                subject=names.quarantine(decision.reason, work.key, origin),
                # One event is kept once, also where two daemons reject it for two reasons.
                filter=names.quarantine("*", work.key, origin),
                expected=0,
                body=entries.encode_quarantine(work, decision, self._known.get(work.key)),
                traceparent=work.traceparent if isinstance(work, Report) else "",
                stream="refused",
            )
        self._ask_append(lane, ask)

    def _settle(self, lane: _Lane, decision: Decision | None) -> None:
        """The first item of the lane is over."""
        item = lane.items.popleft()
        item.done = True
        in_order = self._in_order
        while in_order and in_order[0].done:
            self._floor = in_order.popleft().position
        self._waiting -= 1
        lane.append = None
        if decision is not None and not isinstance(item.work, Notice):
            self.decided.append(Decided(event=item.work, decision=decision))

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, token: int, answer: Answer, now: float) -> None:
        """Take the log's answer to the ask *token*. One that comes twice or too late is nothing. *now*: seconds."""
        self._asked.discard(token)
        lane = self._open.get(token)
        if isinstance(answer, Unanswered):
            self.tally.full += answer.why.startswith(FULL)
            self._back_off(lane, token, now)
            return
        self._failures = 0
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
            self._ask_later(lane.append, now + BUSY_WAIT_S)
        else:
            self._read(lane, answer.entries, now)

    def _confirm(self, lane: _Lane, number: int, covered: InputPosition, *, by_us: bool = True) -> None:
        """What the lane wanted to say is in the log, as entry *number*, which names *covered* as the last report."""
        del self._open[lane.token]
        lane.at_least = 0
        item = lane.items[0]
        decision = lane.decision
        if lane.append is not None and lane.append.rollup:
            self._checkpoint_number = number
            self._checkpoint_written = item.position
            self._settle(lane, None)
        elif isinstance(item.work, Notice):
            if by_us:
                self.announced.append(item.work)
            self._settle(lane, None)
        elif isinstance(decision, Accepted):
            key = lane.key
            known = follow(self._known.get(key), decision.update, number, covered)
            self._stand(key, known, since_of(decision.update))
            self._numbers.pop(key, None)
            self.published.append(Published(event=item.work, update=decision.update, number=number))
            if not decision.more:
                self._settle(lane, decision)
        else:
            self._settle(lane, decision)
        self._advance(lane)

    def _refuse(self, lane: _Lane, number: int) -> None:
        """Another entry stands where ours was to follow: number *number* is the last under the filter."""
        self.tally.refused += 1
        append = lane.append
        assert append is not None
        if append.rollup:
            # The number is the other daemon's checkpoint, below what it has confirmed: as good as ours.
            del self._open[lane.token]
            self._checkpoint_number = number
            self._settle(lane, None)
            self._advance(lane)
        elif not isinstance(lane.decision, Accepted) or isinstance(lane.items[0].work, Notice):
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
            self._open.pop(lane.token, None)
            lane.token = ask.token
            self._open[ask.token] = lane
            self._ask_later(ask, now + STALE_WAIT_S)
            return
        if lane.whole:
            self._adopt(lane, verify_all(self._names, key, found))
            return
        if not found:
            self._adopt(lane, NOTHING)
            return
        # Stored directly after the very entry that ours was to follow, so it is the job's next: a copy of an older one
        # that a stranger put on top of it may say the same.
        known = self._known.get(key)
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

    def _adopt(self, lane: _Lane, truth: VerifiedJob) -> None:
        """Take the log's word for the job, and decide the event again."""
        key = lane.key
        before = self._known.get(key)
        self._open.pop(lane.token, None)
        lane.append = None
        lane.at_least = 0
        self._numbers.pop(key, None)
        self._stand(key, truth.known, truth.since)
        if truth.known is not None:
            self.tally.adopted += 1
        else:
            if before is not None:
                self.tally.forgotten += 1
            if truth.number:
                self._numbers[key] = truth.number
        self._announce(key, truth)
        self._advance(lane)

    # -- asks ---------------------------------------------------------------------------------------------------------

    def take(self, now: float) -> list[Append | ReadBack]:
        """What is to be sent now. While the log does not answer, one at a time, when its wait is over."""
        while self._later and self._later[0][0] <= now:
            self._outbox.append(heapq.heappop(self._later)[2])
        outbox = self._outbox
        if not outbox:
            return []
        room = self._flight_max - len(self._asked)
        if self._failures:
            if now < self._hold_until or self._asked:
                return []
            room = 1
        asks: list[Append | ReadBack] = []
        while outbox and room > 0:
            ask = outbox.popleft()
            if ask.token in self._open:
                asks.append(ask)
                self._asked.add(ask.token)
                room -= 1
        return asks

    def wake_at(self) -> float | None:
        """When `take` may have something that it has not now, if nothing comes before. Seconds; None: never."""
        times = [self._later[0][0]] if self._later else []
        if self._failures and self._outbox and not self._asked:
            times.append(self._hold_until)
        return min(times, default=None)

    def disconnected(self) -> None:
        """The connection is gone: whatever was sent and not answered is to be sent again."""
        for token in sorted(self._asked):
            lane = self._open.get(token)
            if lane is not None:
                lane.resent = True
                self._outbox.append(self._ask_of(lane, token))
                self.tally.resends += 1
        self._asked.clear()

    def checkpoint(self) -> None:
        """Have a checkpoint written, if the input is confirmed further than the last one says."""
        subject = self._names.checkpoint(self._shard)
        if self._floor in (self._checkpoint_written, NOWHERE) or subject in self._lanes:
            return
        self.tally.checkpoints += 1
        item = _Item(Notice(kind="checkpoint", origin=self._shard, text=""), self._floor)
        self._waiting += 1
        lane = self._lanes[subject] = _Lane(JobKey(subject))
        lane.items.append(item)
        self._token += 1
        self._ask_append(
            lane,
            Append(
                token=self._token,
                subject=subject,
                filter=subject,
                expected=self._checkpoint_number,
                body=entries.encode_checkpoint(self._floor),
                rollup=True,
            ),
        )

    def restore_checkpoint(self, position: InputPosition, number: int) -> None:
        """Take the checkpoint that a start found: *position* of the input, written as the log's entry *number*."""
        self._checkpoint_written = self._floor = position
        self._checkpoint_number = number

    @property
    def floor(self) -> InputPosition:
        """The last position of the input up to which everything is confirmed."""
        return self._floor

    def _ask_append(self, lane: _Lane, append: Append) -> None:
        lane.append = append
        lane.resent = False
        lane.token = append.token
        self._open[append.token] = lane
        self._outbox.append(append)
        self.tally.appends += 1

    def _ask_back(self, lane: _Lane) -> None:
        self._open.pop(lane.token, None)
        self._token += 1
        lane.token = self._token
        self._open[self._token] = lane
        self._outbox.append(self._ask_of(lane, self._token))
        self.tally.read_backs += 1

    def _ask_later(self, ask: Append | ReadBack, due: float) -> None:
        heapq.heappush(self._later, (due, ask.token, ask))

    def _ask_of(self, lane: _Lane, token: int) -> Append | ReadBack:
        assert lane.append is not None
        if lane.append.token == token:
            return lane.append
        return ReadBack(token=token, filter=lane.append.filter, whole=lane.whole)

    def _back_off(self, lane: _Lane | None, token: int, now: float) -> None:
        """No answer: the same again, and the writer as a whole waits; each flight by itself would make a storm."""
        self.tally.unanswered += 1
        if lane is not None:
            lane.resent = True
            self._outbox.append(self._ask_of(lane, token))
            self.tally.resends += 1
        if not self._failures or now >= self._hold_until:
            self._failures += 1
            self._hold_until = now + min(BACKOFF_FIRST_S * 2 ** (self._failures - 1), BACKOFF_MAX_S)


def _origin(event: Report | Record, rejected: Rejected) -> str:
    """What makes the rejection of *event* one, whoever rejects it: where in the input or the record it came from."""
    if isinstance(event, Report):
        return f"{event.position.sequence}-{event.position.time_ns}"
    step = event.steps[rejected.step]
    return f"{step.version}-{step.revision}"


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
