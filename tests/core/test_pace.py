"""Rate, requests at once, and pauses while the orchestrator is away, in virtual time."""

from uuid import uuid4

import pytest

from consumer.core import OrchestratorRead, ReadHistory, ReadingOptions, ReadJobs, Scope
from consumer.core.pace import WINDOW_S, Pace
from consumer.errors import OrchestratorError
from consumer.faults import ORCHESTRATOR, OrchestratorFault
from consumer.model import FrameKind, ReadCause
from tests.core.scene import Scene, history, message, page

AWAY = OrchestratorError("unreachable")
OF_ONE_READ = [kind for kind, (scope, _) in ORCHESTRATOR.items() if scope is Scope.READ]


def pace(concurrency: int = 4, max_rate: float = 1e6, throw: float = 1.0) -> Pace:
    """A pace that throws the highest dice: pauses are what the options say."""
    options = ReadingOptions(concurrency=concurrency, max_rate=max_rate, pause_s=1.0, pause_max_s=8.0)
    return Pace(options, lambda: throw)


def leave(it: Pace, now: float, most: int = 10**9) -> list[ReadHistory]:
    """Reads of other jobs each, as many as may leave at *now*."""
    reads: list[ReadHistory] = []
    while len(reads) < most and it.is_free(now):
        reads.append(ReadHistory(job=str(uuid4())))
        it.leaves(reads[-1], now)
    return reads


def fail(it: Pace, read: ReadHistory, now: float, error: OrchestratorError = AWAY) -> Scope:
    """*read* comes back with an error of a job that had none before."""
    return it.failed(read, error, now, is_again=False)


class TestBounds:
    """What the orchestrator is to feel at most."""

    def test_no_more_in_flight_than_the_bound(self) -> None:
        """The fifth of four waits until one came back."""
        it = pace(concurrency=4)
        reads = leave(it, 1.0)
        assert (len(reads), it.free_at()) == (4, None)
        it.answered(reads[0])
        assert len(leave(it, 1.2)) == 1
        assert it.in_flight == 4

    @pytest.mark.parametrize("rate", [0.5, 1.0, 7.0, 100.0])
    def test_no_ten_seconds_have_more_than_the_rate(self, rate: float) -> None:
        """Under endless demand any window sees at most ten seconds' worth, and on the whole nine tenths of that."""
        it = pace(max_rate=rate)
        most = max(int(rate * WINDOW_S), 1)
        times: list[float] = []
        now = 50.0
        while len(times) < 4 * most:
            free_at = it.free_at()
            assert free_at is not None
            now = max(now, free_at)
            for read in leave(it, now):
                times.append(now)
                it.answered(read)
        assert all(sum(start <= time < start + WINDOW_S for time in times) <= most for start in sorted(set(times)))
        assert times[-1] - times[0] <= 3 * WINDOW_S * 1.1

    def test_a_burst_leaves_as_quickly_as_it_is_answered(self) -> None:
        """The rate is an average: three hundred jobs at once need not wait for a second each hundred."""
        it = pace(concurrency=8, max_rate=200.0)
        now, left = 0.0, 0
        while left < 300:
            reads = leave(it, now, 300 - left)
            left += len(reads)
            now += 0.001
            for read in reads:
                it.answered(read)
        assert round(now, 3) == 0.038

    def test_idle_time_is_not_saved_up(self) -> None:
        """After an hour of silence the rate is what it was: ten seconds' worth, and no flood of an hour's permits."""
        it = pace(concurrency=10_000, max_rate=100.0)
        assert len(leave(it, 3600.0)) == 1000

    def test_what_is_no_read_takes_a_place_of_the_window(self) -> None:
        """Another request of ours counts as one, and waits as one."""
        it = pace(max_rate=0.2)
        assert [it.turn(0.0), it.turn(1.0)] == [0.0, 1.0]
        assert 10.0 < it.turn(2.0) < 10.1
        free_at = it.free_at()
        assert free_at is not None
        assert 11.0 < free_at < 11.1

    def test_at_any_time_of_the_clock(self) -> None:
        """Before zero too, where a recording begins."""
        assert len(leave(pace(), -5.0)) == 4


class TestAway:
    """After an error that is of all reads."""

    def test_one_probe_after_each_pause_which_doubles(self) -> None:
        """While the orchestrator is away one read at a time leaves, after 1, 2, 4, 8 and then always 8 seconds."""
        it = pace()
        for read in leave(it, 100.0):
            fail(it, read, 100.5)
        assert (it.away, it.away_since, it.failures) == ("unreachable", 100.5, 1)
        now = 100.5
        for pause in (1.0, 2.0, 4.0, 8.0, 8.0):
            assert leave(it, now + pause - 0.01) == []
            now += pause
            (probe,) = leave(it, now)
            fail(it, probe, now)
        assert it.away_since == 100.5

    def test_the_probes_answer_ends_the_pause(self) -> None:
        """As soon as one is answered everything that waits may go, and the next failure begins with a short pause."""
        it = pace()
        (read,) = leave(it, 10.0, 1)
        fail(it, read, 10.0)
        (probe,) = leave(it, 11.0)
        it.answered(probe)
        assert (it.away, it.away_since, it.failures, it.returns) == (None, None, 0, 1)
        reads = leave(it, 11.1)
        assert len(reads) == 4
        for read in reads:
            fail(it, read, 11.2)
        assert it.free_at() == 11.2 + 1.0

    def test_what_was_under_way_before_says_nothing_new(self) -> None:
        """An old request that comes back during a pause neither ends the pause nor lengthens it."""
        it = pace()
        first, second, third, fourth = leave(it, 10.0)
        fail(it, first, 10.5, OrchestratorError("throttled", retry_after_s=30))
        it.answered(second)
        fail(it, third, 10.7)
        assert (it.away, it.failures, it.free_at()) == ("throttled", 1, 40.5)
        it.answered(fourth)
        assert it.free_at() == 40.5

    @pytest.mark.parametrize(("asked", "pause"), [(30.0, 30.0), (0.1, 1.0)])
    def test_retry_after_only_lengthens_a_pause(self, asked: float, pause: float) -> None:
        """`Retry-After: 30` is kept; a shorter one than the pause is not taken as permission."""
        it = pace()
        (read,) = leave(it, 10.0, 1)
        fail(it, read, 10.0, OrchestratorError("throttled", retry_after_s=asked))
        assert it.free_at() == 10.0 + pause

    def test_a_pause_may_end_before_its_time(self) -> None:
        """Something says that the orchestrator may be back: a probe leaves at once, and a short pause follows it."""
        it = pace()
        (read,) = leave(it, 10.0, 1)
        fail(it, read, 10.0)
        for now in (11.0, 13.0, 17.0):
            (probe,) = leave(it, now)
            fail(it, probe, now)
        assert it.free_at() == 25.0
        it.probe_now()
        (probe,) = leave(it, 18.0)
        fail(it, probe, 18.0)
        assert it.free_at() == 19.0

    def test_what_was_asked_for_is_kept_whoever_is_back(self) -> None:
        """`Retry-After` is the word of whoever answers; that somebody else is back is no leave to break it."""
        it = pace()
        (read,) = leave(it, 10.0, 1)
        fail(it, read, 10.0, OrchestratorError("throttled", retry_after_s=30.0))
        it.probe_now()
        assert it.free_at() == 40.0

    @pytest.mark.parametrize("kind", OF_ONE_READ)
    def test_a_wrong_answer_of_one_read_does_not_stop_the_others(self, kind: OrchestratorFault) -> None:
        """One job whose answer cannot be used leaves the reads of all others as they were."""
        it = pace()
        read, *_ = leave(it, 10.0)
        assert fail(it, read, 10.0, OrchestratorError(kind)) is Scope.READ
        assert (it.away, len(leave(it, 10.0))) == (None, 1)

    def test_pauses_are_thrown_with_dice(self) -> None:
        """Two daemons whose orchestrator went away at one instant do not come back at one instant."""
        free_at = set()
        for throw in (0.0, 0.5, 0.999):
            it = pace(throw=throw)
            (read,) = leave(it, 10.0, 1)
            fail(it, read, 10.0)
            free_at.add(it.free_at())
        assert len(free_at) == 3
        assert all(time is not None and 10.5 <= time <= 11.0 for time in free_at)

    def test_a_long_absence_does_not_overflow(self) -> None:
        """Ten thousand failed probes: the pause stays at its bound."""
        it = pace()
        now = 0.0
        for _ in range(10_000):
            (probe,) = leave(it, now, 1)
            fail(it, probe, now)
            free_at = it.free_at()
            assert free_at is not None
            assert free_at - now <= 8.0
            now = free_at
        assert it.failures == 10_000

    def test_what_hangs_from_before_holds_no_probe_back(self) -> None:
        """A list may take half a minute until it is given up; the probe goes out beside it, and one at a time."""
        it = pace()
        fail(it, leave(it, 100.0)[0], 100.5)
        assert it.in_flight == 3
        (probe,) = leave(it, 101.5)
        assert leave(it, 101.6) == []
        it.answered(probe)
        assert it.away is None
        assert len(leave(it, 101.6)) == 1  # three still hang, and count again

    def test_a_read_that_nobody_can_be_asked_is_no_probe(self) -> None:
        """A stranger's frame named a job that no path can name: that ends no absence, and the next read probes."""
        it = pace()
        (read,) = leave(it, 0.0, 1)
        fail(it, read, 0.0)
        (odd,) = leave(it, 1.0)
        assert fail(it, odd, 1.0, OrchestratorError("not-askable")) is Scope.READ
        assert (it.away, it.returns) == ("unreachable", 0)
        assert len(leave(it, 1.0)) == 1

    def test_a_probe_of_what_fails_by_itself_brings_nobody_back(self) -> None:
        """Where only such a job waits, it probes; its failure is no answer, blames nobody, and the pause doubles."""
        it = pace()
        (read,) = leave(it, 20.0, 1)
        fail(it, read, 20.0)
        (probe,) = leave(it, 21.0)
        assert it.failed(probe, OrchestratorError("server-error"), 21.0, is_again=True) is Scope.ALL
        assert (it.away, it.free_at()) == ("server-error", 23.0)

    def test_each_return_is_counted(self) -> None:
        """Also one that is over before anybody looks: frames may have been missed."""
        it = pace()
        for number in range(1, 4):
            (read,) = leave(it, 100.0 * number, 1)
            fail(it, read, 100.0 * number)
            (probe,) = leave(it, 100.0 * number + 50.0)
            it.answered(probe)
            assert it.returns == number


class Jobs(Scene):
    """Jobs that are hinted at, of which some are answered with errors."""

    def __init__(self, *names: str, lists: bool = False) -> None:
        super().__init__(ReadingOptions(lists=lists, turn_rate=0, pause_s=0.1))
        for name in names:
            self.has("Running", 2, job=name)

    def hint(self, name: str, now: float) -> None:
        """An execution of the job has ended."""
        self.readers.frame(message(FrameKind.CANCEL_EXECUTION, job=name), now)

    def only(self, now: float) -> OrchestratorRead:
        """The one read that leaves now."""
        (read,) = self.reads(now)
        return read


class TestWhose:
    """Whether an error is a job's alone, or of all reads: which job probes, and who is blamed."""

    def follows_both(self, lists: bool = False) -> Jobs:
        """Two open jobs, named by the log; both read once."""
        scene = Jobs("bad", "good", lists=lists)
        for name in ("bad", "good"):
            scene.follows(name)
        return scene

    def fails_once(self, scene: Jobs, kind: OrchestratorFault = "server-error", now: float = 10.0) -> None:
        """The job `bad` has an error that counts for all, and the job `good` is answered after it."""
        scene.hint("bad", now)
        assert scene.fail(scene.only(now), kind, now) is Scope.ALL
        away = scene.readers.away
        assert away == kind
        scene.hint("good", now + 0.3)
        probe = scene.only(now + 0.3)
        assert isinstance(probe, ReadHistory)
        assert probe.job == "good", "whoever fails proves nothing"
        scene.answer(probe, history("Pending", "Running", "Completed"), now + 0.3)
        scene.published()
        assert scene.readers.away is None
        for read in scene.reads(now + 0.3):
            if isinstance(read, ReadJobs):
                scene.answer(read, page(), now + 0.3)
            else:
                assert scene.fail(read, kind, now + 0.3) is Scope.READ

    def test_a_job_that_fails_while_others_are_answered_keeps_nobody_away(self) -> None:
        """Once another job was answered, its errors are its own: no pause, and told so; and each one after that."""
        scene = self.follows_both()
        self.fails_once(scene)
        now = 10.3
        for _ in range(3):
            now, read = scene.wait(now)
            assert isinstance(read, ReadHistory)
            assert read.job == "bad"
            assert scene.fail(read, "server-error", now) is Scope.READ
            assert scene.readers.away is None

    def test_an_answer_of_the_job_itself_ends_that(self) -> None:
        """It is served again: its next error may be the orchestrator's."""
        scene = self.follows_both()
        self.fails_once(scene)
        now, read = scene.wait(10.3)
        scene.answer(read, history("Pending", "Running"), now)
        now, read = scene.wait(now)
        assert scene.fail(read, "server-error", now) is Scope.ALL

    @pytest.mark.parametrize("kind", [kind for kind in ORCHESTRATOR if kind not in OF_ONE_READ])
    def test_only_an_answer_about_a_job_can_be_its_alone(self, kind: OrchestratorFault) -> None:
        """A connection that was refused, a certificate, a request for patience: whichever read met it, it is of all."""
        scene = self.follows_both()
        self.fails_once(scene)
        now, read = scene.wait(10.3)
        is_of_one = ORCHESTRATOR[kind][0] is Scope.UNSURE
        assert (scene.fail(read, kind, now) is Scope.READ) is is_of_one
        assert scene.readers.away == (None if is_of_one else kind)

    def test_a_list_that_fails_is_nobody_s_alone(self) -> None:
        """Without lists no new job is found: however well each job is answered, that keeps the orchestrator away."""
        scene = Jobs("good", lists=True)
        for now in (10.0, 200.0):
            read = scene.read_list(now)
            assert scene.fail(read, "forbidden", now) is Scope.ALL
            scene.follows("good")
            scene.hint("good", now + 0.5)
            probe = scene.read(now + 0.5)
            scene.answer(probe, history("Pending", "Running"), now + 0.5)
            assert scene.readers.away is None

    def test_a_probe_is_a_list_only_where_no_job_that_may_be_well_waits(self) -> None:
        """It may take a minute; but whatever failed proves less."""
        scene = Jobs("bad", "good", lists=True)
        first = scene.read_list(0.0)
        scene.answer(first, page(), 0.0)
        scene.follows("bad")
        scene.hint("bad", 0.1)
        assert scene.fail(scene.read(0.1), "server-error", 0.1) is Scope.ALL
        scene.follows("good")
        scene.hint("good", 1.5)  # all three are due by now
        assert scene.read(1.5) == ReadHistory(job="good", namespace="default", cause=ReadCause.HINT)
        assert (
            scene.fail(ReadHistory(job="good", namespace="default", cause=ReadCause.HINT), "server-error", 1.5)
            is Scope.ALL
        )
        assert isinstance(scene.only(3.0), ReadJobs)

    def test_where_nobody_is_answered_nobody_is_blamed(self) -> None:
        """All that was under way and every probe fails, again and again: none of these errors is a job's alone."""
        scene = Jobs("a", "b", "c")
        for name in ("a", "b", "c"):
            scene.follows(name)
            scene.hint(name, 10.0)
        reads = scene.reads(10.0)
        assert len(reads) == 3
        for read in reads:
            assert scene.fail(read, "server-error", 10.0) is Scope.ALL
        now, probed = 10.0, set()
        for _ in range(9):
            now, read = scene.wait(now)
            probed.add(read)
            assert scene.fail(read, "server-error", now) is Scope.ALL
        assert scene.readers.away == "server-error"
        assert len(probed) == 3

    def test_whoever_is_back_has_everything_listed(self) -> None:
        """What the orchestrator wrote while it was away, nobody may have heard of."""
        scene = Jobs("good", lists=True)
        scene.answer(scene.read_list(0.0), page(), 0.0)
        scene.follows("good")
        scene.hint("good", 0.1)
        scene.fail(scene.read(0.1), "unreachable", 0.1)
        now, read = scene.wait(0.1)
        scene.answer(read, history("Pending", "Running"), now)
        assert scene.readers.returns == 1
        assert scene.read_list(now).limit == ReadingOptions().full_limit
