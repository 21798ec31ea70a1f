"""How long jobs stand, and which of them are announced. Times are seconds; the wall began at `BEGAN`."""

import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumer.core import Lanes
from consumer.core.appends import Append, Entry, Read, ReadBack, Refused, Stored, Unanswered
from consumer.core.dwell import LOOK_MAX, SETTLE_S, Dwell, since_of
from consumer.core.verify import VerifiedJob, verify_all, verify_last
from consumer.model import REPORTED, Identity, InputPosition, Job, JobKey, LastUpdate, Notice, Report, Update
from consumer.rules import Rules, load
from consumer.wire.subjects import Names, job_key
from consumer.wire.update import encode_update
from tests.rules.test_file import SOUND

NAMES = Names()
KEY = job_key("default", "j-1")
BEGAN = 1_800_000_000.0
PENDING_S = load().dwell["Pending"]
QUEUED_S = load().dwell["Queued"]


def at(state: str, sequence: int = 1, version: int | None = None) -> LastUpdate:
    """The job's last update."""
    return LastUpdate(number=sequence, sequence=sequence, state=state, version=version, revision=None, source=REPORTED)


class Scene:
    """A `Dwell` and two clocks that go on together. What is known of a job is new.

    Unless a test says otherwise in `seen`.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self.now = 50.0
        self.wall = BEGAN
        self.dwell = Dwell(rules or load(), BEGAN)
        self.seen: dict[JobKey, float | None] = {}

    def stand(self, state: str, sequence: int = 1, *, since: float = BEGAN, key: JobKey = KEY) -> None:
        """The job comes to stand in *state*."""
        self.dwell.follow(key, at(state, sequence), since)

    def look(self) -> list[Notice]:
        """A look at all jobs, now."""
        return self.dwell.take(self.now, self.wall, lambda key: self.seen.get(key, self.now))

    def after(self, seconds: float) -> list[Notice]:
        """A look after so many seconds."""
        self.now += seconds
        self.wall += seconds
        return self.look()


class TestLimit:
    """When a job is announced, and as what."""

    def test_a_job_over_its_limit_is_announced_once(self) -> None:
        """At the limit, not before it; and never again, however long it stands."""
        scene = Scene()
        scene.stand("Pending")
        assert scene.after(PENDING_S - 1) == []
        (notice,) = scene.after(1)
        assert notice.kind == "stuck"
        assert scene.after(1) == []
        assert scene.after(100 * PENDING_S) == []

    def test_the_notice_says_state_since_and_limit(self) -> None:
        """Everything that makes it one for the job and its state is in the origin; no clock of ours is in it at all."""
        scene = Scene()
        scene.dwell.follow(job_key("ns", "j.1"), at("Queued", 3, version=2), BEGAN)
        (notice,) = scene.after(QUEUED_S)
        assert notice.key == "ns.j=2E1"
        assert notice.origin == "ns=2Ej=3D2E1-3-Queued"
        assert notice.facts == {
            "state": "Queued",
            "since": "2027-01-15T08:00:00Z",
            "limit_s": QUEUED_S,
            "source": "reported",
            "version": 2,
            "sequence": 3,
        }

    def test_two_jobs_never_have_one_origin(self) -> None:
        """Namespaces and ids that come to the same when they are put together are told apart."""
        scene = Scene()
        names = [("a.b", "c"), ("a", "b.c"), ("a-b", "c"), ("a", "b-c"), ("a=2Eb", "c"), ("a", "c"), ("b", "c")]
        for namespace, job in names:
            scene.stand("Pending", key=job_key(namespace, job))
        assert len({notice.origin for notice in scene.after(PENDING_S)}) == len(names)

    def test_a_job_that_moves_on_is_not_announced(self) -> None:
        """Neither in the state that it left in time, nor in one without a limit, nor after its end."""
        scene = Scene()
        scene.stand("Pending")
        scene.after(PENDING_S - 1)
        scene.stand("Running", 2, since=scene.wall)
        assert scene.after(100 * QUEUED_S) == []
        assert len(scene.dwell) == 0

    def test_each_state_has_its_own_limit_and_time(self) -> None:
        """A job that was announced in one state is announced again in the next one that it stands in too long."""
        scene = Scene()
        scene.stand("Pending")
        assert [notice.facts["state"] for notice in scene.after(PENDING_S)] == ["Pending"]
        scene.stand("Queued", 2, since=scene.wall)
        assert scene.after(QUEUED_S - 1) == []
        assert [notice.facts["state"] for notice in scene.after(1)] == ["Queued"]

    def test_what_an_older_state_left_announces_nothing_twice(self) -> None:
        """Times need not rise: a job that was announced is due by its older state only now."""
        scene = Scene()
        scene.stand("Pending")
        scene.stand("Queued", 2, since=BEGAN - QUEUED_S)
        assert [notice.facts["state"] for notice in scene.look()] == ["Queued"]
        assert scene.after(PENDING_S) == []

    def test_a_new_message_of_the_same_state_counts_anew(self) -> None:
        """It is an update of its own, and a sign of life."""
        scene = Scene()
        scene.stand("Pending")
        scene.after(PENDING_S - 1)
        scene.stand("Pending", 2, since=scene.wall)
        assert scene.after(PENDING_S - 1) == []
        assert [notice.facts["sequence"] for notice in scene.after(1)] == [2]

    def test_a_forgotten_job_is_not_announced(self) -> None:
        """The log has nothing of it any more."""
        scene = Scene()
        scene.stand("Pending")
        scene.dwell.follow(KEY, None, 0.0)
        assert scene.after(PENDING_S) == []

    def test_limits_are_those_of_the_rules(self, tmp_path: Path) -> None:
        """Of any rules: nothing here knows a state of Bacalhau's."""
        path = tmp_path / "rules.toml"
        path.write_text(SOUND.replace('Open = "90s"\nBusy = "none"', 'Busy = "2s"'))
        scene = Scene(load(path))
        scene.stand("Open")
        scene.stand("Busy", key=job_key("default", "j-2"))
        assert [notice.facts["state"] for notice in scene.after(2)] == ["Busy"]
        assert scene.after(1e6) == []


class TestClocks:
    """Three clocks, none of which is always right."""

    def test_it_counts_since_the_updates_time(self) -> None:
        """Not since we heard of it."""
        scene = Scene()
        scene.stand("Pending", since=BEGAN - PENDING_S + 5)
        assert scene.after(4) == []
        assert len(scene.after(1)) == 1

    def test_without_any_time_it_counts_from_now(self) -> None:
        """What was published just now, by an update that names no time."""
        scene = Scene()
        scene.after(1_000)
        scene.stand("Pending", since=0.0)
        assert scene.after(PENDING_S - 1) == []
        assert len(scene.after(1)) == 1

    def test_a_time_in_the_future_is_never_over(self) -> None:
        """The orchestrator's clock is ahead: the job is announced when our clock is beyond the limit, late."""
        scene = Scene()
        scene.stand("Pending", since=BEGAN + 3_600)
        assert scene.after(3_600) == []
        assert scene.after(PENDING_S - 1) == []
        assert len(scene.after(1)) == 1

    @pytest.mark.parametrize("jump", [1e9, 700.0])
    def test_a_jump_of_our_clock_and_back_announces_nothing(self, jump: float) -> None:
        """For as long as a moment is a moment."""
        scene = Scene()
        scene.stand("Pending")
        scene.after(1)
        scene.wall += jump
        assert scene.after(1) == []
        assert scene.after(SETTLE_S - 2) == []
        scene.wall -= jump
        assert scene.after(1) == []
        assert scene.after(SETTLE_S) == []
        assert len(scene.after(PENDING_S)) == 1

    def test_a_clock_that_was_put_right_is_believed(self) -> None:
        """After it has gone on from there for a while."""
        scene = Scene()
        scene.stand("Pending")
        scene.after(1)
        scene.wall += PENDING_S
        assert scene.after(1) == []
        assert len(scene.after(SETTLE_S)) == 1

    def test_a_clock_that_goes_back_announces_later(self) -> None:
        """Also a job that was due already, and waited to be asked about."""
        scene = Scene()
        scene.stand("Pending")
        scene.seen[KEY] = None
        assert scene.after(PENDING_S) == []
        scene.wall -= 100
        scene.seen.clear()
        assert scene.look() == []
        assert scene.after(99) == []
        assert len(scene.after(1)) == 1

    def test_a_time_that_is_none_is_taken_for_none(self) -> None:
        """The zero time of a producer in Go; then it counts since the log stored the entry."""

        def update(time: datetime | None) -> Update:
            job = Job(ID="j-1", Namespace="default")
            return Update(StateType="Pending", Job=job, Previous=None, Sequence=1, Time=time, Source=REPORTED)

        stored_ns = int(BEGAN) * 10**9
        assert since_of(update(datetime(2027, 1, 15, 8, 0, 1, tzinfo=UTC)), stored_ns) == BEGAN + 1
        assert since_of(update(None), stored_ns) == BEGAN
        assert since_of(update(datetime(1, 1, 1, tzinfo=UTC)), stored_ns) == BEGAN
        assert since_of(update(None)) == 0


class TestSeen:
    """What the log does not know yet."""

    def test_nothing_is_announced_before_it_was_asked_about(self) -> None:
        """After a stop the job may have moved on; while the orchestrator is away nobody knows."""
        scene = Scene()
        scene.seen[KEY] = None
        scene.stand("Pending")
        assert scene.after(PENDING_S) == []
        scene.seen[KEY] = scene.now - 1  # it was asked before it was due
        assert scene.after(3_600) == []
        scene.seen[KEY] = scene.now
        assert len(scene.look()) == 1

    def test_a_job_that_had_moved_on_is_not_announced(self) -> None:
        """It was due, nobody was asked yet, and then its next update came."""
        scene = Scene()
        scene.seen[KEY] = None
        scene.stand("Pending")
        assert scene.after(PENDING_S) == []
        scene.stand("Completed", 2, since=scene.wall)
        scene.seen.clear()
        assert scene.after(PENDING_S) == []

    def test_one_that_nobody_can_be_asked_about_holds_up_no_other(self) -> None:
        """Of many that wait each gets its turn."""
        scene = Scene()
        for number in range(3 * LOOK_MAX):
            key = job_key("default", f"j-{number}")
            scene.seen[key] = None
            scene.stand("Pending", key=key)
        other = job_key("default", "the last one")
        scene.stand("Pending", key=other)
        assert scene.after(PENDING_S) == []
        found = [notice for _ in range(3) for notice in scene.after(1)]
        assert [notice.key for notice in found] == [other]


class TestOver:
    """How many stand over their limit."""

    def test_it_counts_them_by_state(self) -> None:
        """As long as they stand there; every state with a limit is there from the start."""
        scene = Scene()
        assert scene.dwell.over == {"Pending": 0, "Queued": 0}
        other = job_key("default", "j-2")
        scene.stand("Pending")
        scene.stand("Queued", key=other)
        scene.after(PENDING_S)
        assert scene.dwell.over == {"Pending": 1, "Queued": 0}
        scene.after(QUEUED_S)
        assert scene.dwell.over == {"Pending": 1, "Queued": 1}
        scene.stand("Queued", 2, since=scene.wall)
        scene.stand("Failed", 2, key=other)
        assert scene.dwell.over == {"Pending": 0, "Queued": 0}


class TestBounds:
    """What it costs."""

    def test_a_look_announces_no_more_than_so_many(self) -> None:
        """The others come with the next one; none is left out."""
        scene = Scene()
        for number in range(2 * LOOK_MAX + 1):
            scene.stand("Pending", key=job_key("default", f"j-{number}"))
        assert [len(scene.after(PENDING_S)), len(scene.after(1)), len(scene.after(1))] == [LOOK_MAX, LOOK_MAX, 1]

    def test_those_that_moved_on_take_no_turn(self) -> None:
        """Many jobs went on in time, one did not: it is announced at the first look."""
        scene = Scene()
        for number in range(LOOK_MAX):
            scene.stand("Pending", key=job_key("default", f"a-{number}"))
            scene.stand("Queued", 2, key=job_key("default", f"a-{number}"))
        scene.stand("Pending")
        assert [notice.key for notice in scene.after(PENDING_S)] == [KEY]

    def test_it_holds_open_jobs_only(self) -> None:
        """10,000 jobs that begin, wait and end leave less than 20 bytes each; what was due of one would be 160."""
        scene = Scene()

        def live(number: int) -> None:
            key = job_key("default", f"j-{number}")
            for sequence, state in enumerate(("Pending", "Queued", "Completed"), 1):
                scene.stand(state, sequence, key=key)

        for number in range(2_000):
            live(number)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            live(number)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(scene.dwell) == 0
        assert grown < 200_000


class TestLanes:
    """The lanes tell where each job comes to stand: by us, by another daemon, or before we started."""

    def update(self, state: str, sequence: int, previous: str | None, time: datetime | None = None) -> bytes:
        """The body of one of our updates."""
        job = Job(ID="j-1", Namespace="default")
        return encode_update(
            Update(StateType=state, Job=job, Previous=previous, Sequence=sequence, Time=time, Source=REPORTED)
        )

    def entry(self, body: bytes, state: str, number: int, expected: int) -> Entry:
        """An entry of the log, stored a day before now."""
        return Entry(
            number=number,
            subject=NAMES.state(KEY, state),
            body=body,
            time_ns=int(BEGAN - 86_400) * 10**9,
            expected=expected,
            filter=NAMES.states(KEY),
        )

    def report(self, state: str, sequence: int = 1, time: datetime | None = None) -> Report:
        """A report of the job."""
        identity = Identity(id="j-1", namespace="default")
        position = InputPosition(int(BEGAN) * 10**9, sequence)
        return Report(key=KEY, job=identity, position=position, state=state, time=time)

    def test_an_update_of_ours(self) -> None:
        """Since the time that it names."""
        scene = Scene()
        lanes = Lanes(load(), NAMES, dwell=scene.dwell)
        lanes.offer(self.report("Pending", time=datetime.fromtimestamp(BEGAN - PENDING_S, UTC)))
        assert scene.look() == []
        (ask,) = lanes.take(0.0)
        lanes.answer(ask.token, Stored(1), 0.0)
        assert [notice.facts["since"] for notice in scene.look()] == ["2027-01-15T07:50:00Z"]

    @pytest.mark.parametrize("judge", [verify_all, verify_last])
    def test_what_a_start_found(self, judge: Callable[[Names, JobKey, Sequence[Entry]], VerifiedJob | None]) -> None:
        """Since the time that its last update names; where it names none, since the log stored it."""
        scene = Scene()
        lanes = Lanes(load(), NAMES, dwell=scene.dwell)
        time = datetime.fromtimestamp(BEGAN - PENDING_S + 1, UTC)
        timed = judge(NAMES, KEY, [self.entry(self.update("Pending", 1, None, time), "pending", 7, 0)])
        assert timed is not None
        lanes.learn(KEY, timed)
        assert scene.look() == []
        assert [notice.facts["since"] for notice in scene.after(1)] == ["2027-01-15T07:50:01Z"]
        untimed = judge(NAMES, KEY, [self.entry(self.update("Pending", 1, None), "pending", 7, 0)])
        assert untimed is not None
        lanes.learn(KEY, untimed)
        assert [notice.facts["since"] for notice in scene.after(1)] == ["2027-01-14T08:00:00Z"]

    @pytest.mark.parametrize("whole", [False, True])
    def test_an_update_of_another_daemon(self, whole: bool) -> None:
        """It is found by reading the job back, the last entry or all of them, and stands since it was."""
        scene = Scene()
        lanes = Lanes(load(), NAMES, dwell=scene.dwell)
        lanes.offer(self.report("Queued"))
        (ask,) = lanes.take(0.0)
        first = self.entry(self.update("Pending", 1, None), "pending", 4, 0)
        second = self.entry(self.update("Queued", 2, "Pending"), "queued", 5, 4)
        found = (first, second) if whole else (first,)
        lanes.answer(ask.token, Refused(found[-1].number), 0.0)
        (back,) = lanes.take(0.0)
        lanes.answer(back.token, Read(found[-1:]), 0.0)
        if whole:
            (back,) = lanes.take(0.0)
            assert isinstance(back, ReadBack)
            assert back.whole
            lanes.answer(back.token, Read(found), 0.0)
        state = "Queued" if whole else "Pending"
        assert [(notice.facts["state"], notice.facts["since"]) for notice in scene.look()] == [
            (state, "2027-01-14T08:00:00Z")
        ]

    def test_a_job_that_the_log_has_forgotten(self) -> None:
        """It is watched no more."""
        scene = Scene()
        lanes = Lanes(load(), NAMES, dwell=scene.dwell)
        truth = verify_all(NAMES, KEY, [self.entry(self.update("Pending", 1, None), "pending", 7, 0)])
        lanes.learn(KEY, truth)
        lanes.offer(self.report("Queued"))
        (ask,) = lanes.take(0.0)
        lanes.answer(ask.token, Refused(0), 0.0)
        (back,) = lanes.take(0.0)
        lanes.answer(back.token, Read(()), 0.0)
        assert len(scene.dwell) == 0


class TestAnnounced:
    """Which notices are news: those that the log has by us."""

    NOTICE = Notice(kind="stuck", origin="j-1-1-Pending", text="it stands")

    def sent(self) -> tuple[Lanes, Append]:
        """Lanes that have sent the notice."""
        lanes = Lanes(load(), NAMES)
        lanes.offer(self.NOTICE)
        (ask,) = lanes.take(0.0)
        assert isinstance(ask, Append)
        return lanes, ask

    def test_it_is_sent_so_that_the_log_keeps_it_once(self) -> None:
        """Under a subject of its own, after no other entry of that subject."""
        _, ask = self.sent()
        assert ask.subject == ask.filter == "jobstate.v1.main.advisory.stuck.j-1-1-Pending"
        assert ask.expected == 0

    def test_one_that_was_stored_is_news(self) -> None:
        """And only once it is."""
        lanes, ask = self.sent()
        assert lanes.announced == []
        lanes.answer(ask.token, Stored(9), 0.0)
        assert lanes.announced == [self.NOTICE]

    def test_one_that_the_log_had_is_none(self) -> None:
        """A restart comes to it again, and so does a second daemon: it is over, and nobody is told."""
        lanes, ask = self.sent()
        lanes.answer(ask.token, Refused(5), 0.0)
        assert lanes.announced == []
        assert lanes.waiting == 0

    def test_one_whose_answer_was_lost_is_news(self) -> None:
        """It may be ours, it may be another daemon's: an alarm too many is better than none."""
        lanes, ask = self.sent()
        lanes.answer(ask.token, Unanswered(), 0.0)
        (again,) = lanes.take(10.0)
        lanes.answer(again.token, Refused(5), 10.0)
        assert lanes.announced == [self.NOTICE]

    def test_one_that_was_under_way_when_the_connection_went_is_news(self) -> None:
        """The same: nobody knows whose it is."""
        lanes, _ = self.sent()
        lanes.disconnected()
        (again,) = lanes.take(0.0)
        lanes.answer(again.token, Refused(5), 0.0)
        assert lanes.announced == [self.NOTICE]
