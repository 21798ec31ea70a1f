"""Order, rate and pauses of the reads, in virtual time."""

from itertools import count

import pytest

from consumer.bacalhau.orchestrator import NEXT_STEP
from consumer.bacalhau.pace import WINDOW_S, Pace, PaceOptions
from consumer.core.reads import OrchestratorRead, ReadHistory, ReadJobs
from consumer.errors import MAYBE_OF_ONE_READ, OF_ONE_READ, OrchestratorError

AWAY = OrchestratorError("unreachable")
ANY = ReadJobs()


def pace(concurrency: int = 4, max_rate: float = 1e6) -> Pace:
    """A pace that throws the highest dice: pauses are what the options say."""
    return Pace(PaceOptions(concurrency=concurrency, max_rate=max_rate, pause_s=1.0, pause_max_s=8.0), lambda: 1.0)


def hint(job: str) -> ReadHistory:
    """A read that a frame caused."""
    return ReadHistory(job=job, cause="hint")


def scan(job: str) -> ReadHistory:
    """A read whose turn came."""
    return ReadHistory(job=job, cause="scan")


def started(pace: Pace, now: float) -> list[OrchestratorRead]:
    """All that leaves at *now*."""
    reads = []
    while (read := pace.start(now)) is not None:
        reads.append(read)
    return reads


def test_hints_go_before_scans_and_the_oldest_first() -> None:
    """Whatever the order of asking: a list, hints, scans; each kind in its order."""
    it = pace()
    asked: list[OrchestratorRead] = [scan("s1"), ReadJobs(), hint("h1"), scan("s2"), hint("h2")]
    it.ask(asked, 0.0)
    first = started(it, 1.0)
    it.answered(ANY, 1.1, 1.0, None)
    assert [*first, *started(it, 1.1)] == [ReadJobs(), hint("h1"), hint("h2"), scan("s1"), scan("s2")]


def test_a_list_waits_for_nobody() -> None:
    """However many jobs wait for their turn, or are hinted at: without lists no new job would be found for minutes."""
    it = pace(concurrency=1)
    it.ask([scan(f"s{n}") for n in range(1000)], 0.0)
    it.ask([hint(f"h{n}") for n in range(1000)], 0.0)
    it.ask([ReadJobs()], 0.0)
    assert it.waiting == 2001
    assert it.start(1.0) == ReadJobs()


def test_a_probe_is_a_list_only_where_nothing_else_waits() -> None:
    """It may take a minute: whether the orchestrator is there shows sooner by a read of one job."""
    it = pace(concurrency=1)
    it.ask([scan("s1")], 0.0)
    assert it.start(0.0) == scan("s1")
    it.answered(scan("s1"), 0.0, 0.0, AWAY)
    it.ask([ReadJobs(), scan("s2")], 0.0)
    assert it.start(1.0) == scan("s2")
    it.answered(scan("s2"), 1.0, 1.0, AWAY)
    assert it.start(3.0) == ReadJobs()


def test_scans_do_not_starve() -> None:
    """Hints without end leave one read in eight to the scans: what has no frame is found under load too."""
    it = pace(concurrency=1)
    it.ask([scan(f"s{n}") for n in range(3)], 0.0)
    order = []
    for n in range(24):
        it.ask([hint(f"h{n}")], 0.0)
        read = it.start(float(n))
        assert isinstance(read, ReadHistory)
        order.append(read.cause)
        it.answered(ANY, n + 0.5, float(n), None)
    assert order == (["hint"] * 7 + ["scan"]) * 3


def test_no_more_in_flight_than_the_bound() -> None:
    """The fifth of four waits until one came back."""
    it = pace(concurrency=4)
    it.ask([hint(str(n)) for n in range(6)], 0.0)
    assert len(started(it, 1.0)) == 4
    assert it.due() is None
    it.answered(ANY, 1.2, 1.0, None)
    assert len(started(it, 1.2)) == 1
    assert (it.in_flight, it.waiting) == (4, 1)


@pytest.mark.parametrize("rate", [0.5, 1.0, 7.0, 100.0])
def test_no_ten_seconds_have_more_than_the_rate(rate: float) -> None:
    """Under endless demand any window sees at most ten seconds' worth, and on the whole nine tenths of that leave."""
    it = pace(max_rate=rate)
    most = max(int(rate * WINDOW_S), 1)
    times: list[float] = []
    now = 50.0
    it.ask([hint(str(n)) for n in range(5 * most)], 0.0)
    while len(times) < 4 * most:
        due = it.due()
        assert due is not None
        now = max(now, due)
        while it.start(now) is not None:
            times.append(now)
            it.answered(ANY, now, now, None)
    assert all(sum(start <= time < start + WINDOW_S for time in times) <= most for start in sorted(set(times)))
    assert times[-1] - times[0] <= 3 * WINDOW_S * 1.1


def test_a_burst_leaves_as_quickly_as_it_is_answered() -> None:
    """The rate is an average: three hundred jobs at once need not wait for a second each hundred."""
    it = pace(concurrency=8, max_rate=200.0)
    it.ask([hint(str(n)) for n in range(300)], 0.0)
    now, left = 0.0, 0
    while (reads := started(it, now)) or it.in_flight:
        left += len(reads)
        now += 0.001
        for read in reads:
            it.answered(read, now, now - 0.001, None)
    assert (left, round(now, 3)) == (300, 0.038)


def test_what_is_no_read_takes_a_place_of_the_window() -> None:
    """Another request of ours counts as one, and waits as one."""
    it = pace(max_rate=0.2)
    assert [it.turn(0.0), it.turn(1.0)] == [0.0, 1.0]
    assert 10.0 < it.turn(2.0) < 10.1
    it.ask([hint("h")], 2.0)
    due = it.due()
    assert due is not None
    assert 11.0 < due < 11.1


def test_how_long_the_oldest_has_waited_is_told() -> None:
    """By the time of asking, hints and scans alike: so it can be said that the rate is not enough."""
    it = pace(concurrency=1)
    assert it.waited_s(9.0) == 0.0
    it.ask([hint("h1"), hint("h2")], 1.0)
    it.ask([scan("s1")], 2.0)
    assert it.waited_s(3.0) == 2.0
    for now in (3.0, 4.0):
        assert it.start(now) is not None
        it.answered(ANY, now, now, None)
    assert it.waited_s(5.0) == 3.0


def test_idle_time_is_not_saved_up() -> None:
    """After an hour of silence the rate is what it was: ten seconds' worth, and no flood of an hour's permits."""
    it = pace(concurrency=1000, max_rate=100.0)
    it.ask([hint(str(n)) for n in range(5000)], 0.0)
    left = 0
    while reads := started(it, 3600.0):
        left += len(reads)
        for read in reads:
            it.answered(read, 3600.0, 3600.0, None)
    assert left == 1000


def test_away_means_one_probe_after_each_pause_which_doubles() -> None:
    """While the orchestrator is away one read at a time leaves, after 1, 2, 4, 8 and then always 8 seconds."""
    it = pace()
    it.ask([hint(str(n)) for n in range(20)], 0.0)
    assert len(started(it, 100.0)) == 4
    for _ in range(4):
        it.answered(ANY, 100.5, 100.0, AWAY)
    assert (it.away, it.away_since, it.failures) == ("unreachable", 100.5, 1)
    now = 100.5
    for pause in (1.0, 2.0, 4.0, 8.0, 8.0):
        assert started(it, now + pause - 0.01) == []
        now += pause
        assert len(started(it, now)) == 1
        it.answered(ANY, now, now, AWAY)
    assert it.away_since == 100.5


def test_the_probes_answer_ends_the_pause() -> None:
    """As soon as one probe is answered everything that waits may go, and the next failure begins with a short pause."""
    it = pace()
    it.ask([hint(str(n)) for n in range(20)], 0.0)
    assert it.start(10.0) is not None
    it.answered(ANY, 10.0, 10.0, AWAY)
    assert it.start(11.0) is not None
    it.answered(ANY, 11.1, 11.0, None)
    assert (it.away, it.away_since, it.failures) == ("", None, 0)
    assert len(started(it, 11.1)) == 4
    it.answered(ANY, 11.2, 11.1, AWAY)
    for _ in range(3):
        it.answered(ANY, 11.2, 11.1, AWAY)
    assert it.due() == 11.2 + 1.0


def test_what_was_under_way_before_says_nothing_new() -> None:
    """An old request that comes back during a pause neither ends the pause nor lengthens it."""
    it = pace()
    it.ask([hint(str(n)) for n in range(20)], 0.0)
    started(it, 10.0)
    it.answered(ANY, 10.5, 10.0, OrchestratorError("throttled", retry_after_s=30))
    it.answered(ANY, 10.6, 10.0, None)
    it.answered(ANY, 10.7, 10.0, AWAY)
    assert (it.away, it.failures, it.due()) == ("throttled", 1, 40.5)
    it.answered(ANY, 10.8, 10.0, None)
    assert it.due() == 40.5


def test_retry_after_only_lengthens_a_pause() -> None:
    """`Retry-After: 30` is kept; a shorter one than the pause is not taken as permission."""
    for asked, pause in ((30.0, 30.0), (0.1, 1.0)):
        it = pace()
        it.ask([hint("a"), hint("b")], 0.0)
        it.start(10.0)
        it.answered(ANY, 10.0, 10.0, OrchestratorError("throttled", retry_after_s=asked))
        assert it.due() == 10.0 + pause


def test_a_pause_may_end_before_its_time() -> None:
    """Something says that the orchestrator may be back: a probe leaves at once, and after it a short pause follows."""
    it = pace()
    it.ask([hint(str(n)) for n in range(20)], 0.0)
    it.start(10.0)
    it.answered(ANY, 10.0, 10.0, AWAY)
    for now in (11.0, 13.0, 17.0):
        assert it.start(now) is not None
        it.answered(ANY, now, now, AWAY)
    assert it.due() == 25.0
    it.hurry()
    assert len(started(it, 18.0)) == 1
    it.answered(ANY, 18.0, 18.0, AWAY)
    assert it.due() == 19.0


def test_what_was_asked_for_is_kept_in_any_hurry() -> None:
    """`Retry-After` is the word of whoever answers; that somebody else is back is no leave to break it."""
    it = pace()
    it.ask([hint("a"), hint("b")], 0.0)
    it.start(10.0)
    it.answered(ANY, 10.0, 10.0, OrchestratorError("throttled", retry_after_s=30.0))
    it.hurry()
    assert it.due() == 40.0


@pytest.mark.parametrize("kind", sorted(OF_ONE_READ))
def test_a_wrong_answer_of_one_read_does_not_stop_the_others(kind: str) -> None:
    """One job whose answer cannot be used leaves the reads of all others as they were."""
    it = pace()
    it.ask([hint(str(n)) for n in range(9)], 0.0)
    started(it, 10.0)
    it.answered(ANY, 10.0, 10.0, OrchestratorError(kind))
    assert it.away == ""
    assert len(started(it, 10.0)) == 1


def test_pauses_are_thrown_with_dice() -> None:
    """Two daemons whose orchestrator went away at one instant do not come back at one instant."""
    dues = set()
    for throw in (0.0, 0.5, 0.999):
        it = Pace(PaceOptions(pause_s=1.0), lambda throw=throw: throw)  # type: ignore[misc]
        it.ask([hint(str(n)) for n in range(2)], 0.0)
        it.start(10.0)
        it.answered(ANY, 10.0, 10.0, AWAY)
        dues.add(it.due())
    assert len(dues) == 3
    assert all(due is not None and 10.5 <= due <= 11.0 for due in dues)


def test_a_long_absence_does_not_overflow() -> None:
    """Ten thousand failed probes: the pause stays at its bound."""
    it = pace()
    now = 0.0
    for job in count():
        it.ask([hint(str(job))], 0.0)
        due = it.due()
        assert due is not None
        assert due - now <= 8.0
        now = max(now, due)
        assert it.start(now) is not None
        it.answered(ANY, now, now, AWAY)
        if job == 10_000:
            break
    assert it.failures == 10_001


def test_what_hangs_from_before_holds_no_probe_back() -> None:
    """A list may take half a minute until it is given up; the probe goes out beside it, and one at a time."""
    it = pace()
    it.ask([hint(str(n)) for n in range(20)], 0.0)
    assert len(started(it, 100.0)) == 4
    it.answered(ANY, 100.5, 100.0, AWAY)
    assert it.in_flight == 3
    assert len(started(it, 101.5)) == 1
    assert started(it, 101.6) == []
    it.answered(ANY, 101.6, 101.5, None)
    assert it.away == ""
    assert len(started(it, 101.6)) == 1  # three still hang, and count again


def failing(it: Pace, now: float, bad: ReadHistory, error: OrchestratorError) -> str:
    """*bad* is read and answered with *error*; what probes then is answered. Gives what probed, if anything did."""
    it.ask([bad], now)
    assert started(it, now) == [bad]
    it.answered(bad, now, now, error)
    it.ask([bad, scan("good")], now)
    due = it.due()
    assert due is not None
    probe = it.start(due)
    assert isinstance(probe, ReadHistory)
    it.answered(probe, due, due, None)
    return probe.job


def test_a_job_that_fails_by_itself_keeps_nobody_away_for_long() -> None:
    """Once another job was answered while it failed, its errors are its own: no pause, and told so."""
    error = OrchestratorError("server-error")
    it, bad = pace(), hint("bad")
    assert failing(it, 10.0, bad, error) == "good"
    assert it.away == ""
    for now in (20.0, 21.0, 22.0):
        assert it.start(now) == bad
        assert it.answered(bad, now, now, error)
        assert it.away == ""
        it.ask([bad], now)


def test_an_answer_of_the_job_itself_ends_that() -> None:
    """It is served again: its next error may be the orchestrator's."""
    error = OrchestratorError("server-error")
    it, bad = pace(), hint("bad")
    failing(it, 10.0, bad, error)
    assert it.start(20.0) == bad
    it.answered(bad, 20.0, 20.0, None)
    it.ask([bad], 20.0)
    assert it.start(20.0) == bad
    assert not it.answered(bad, 21.0, 20.0, error)
    assert it.away == "server-error"


def test_a_probe_of_what_fails_by_itself_brings_nobody_back() -> None:
    """Where only such a job waits, it probes; its failure is no answer, blames nobody, and the pause doubles."""
    error = OrchestratorError("server-error")
    it, bad = pace(), hint("bad")
    failing(it, 10.0, bad, error)
    it.ask([ReadJobs()], 20.0)
    assert started(it, 20.0) == [ReadJobs(), bad]
    it.answered(ReadJobs(), 20.0, 20.0, AWAY)
    it.answered(bad, 20.0, 20.0, error)
    it.ask([bad], 20.0)
    assert it.start(21.0) == bad
    assert not it.answered(bad, 21.0, 21.0, error)
    assert it.away == "server-error"
    it.ask([bad], 21.0)
    assert it.due() == 23.0


def test_a_read_that_nobody_can_be_asked_is_no_probe() -> None:
    """A stranger's frame named a job that no path can name: that ends no absence, and the next read probes."""
    it, odd = pace(), hint("..")
    it.ask([hint("good")], 0.0)
    assert it.start(0.0) == hint("good")
    it.answered(hint("good"), 0.0, 0.0, AWAY)
    it.ask([odd, hint("good")], 1.0)
    assert it.start(1.0) == odd
    assert it.answered(odd, 1.0, 1.0, OrchestratorError("not-askable"))
    assert (it.away, it.returns) == ("unreachable", 0)
    assert it.start(1.0) == hint("good")


def test_a_list_that_fails_is_nobody_s_alone() -> None:
    """Without lists no new job is found: however well each job is answered, that keeps the orchestrator away."""
    it = pace()
    for now in (10.0, 20.0):
        it.ask([ReadJobs()], now)
        assert it.start(now) == ReadJobs()
        assert not it.answered(ReadJobs(), now, now, OrchestratorError("forbidden"))
        assert it.away == "forbidden"
        it.ask([scan("good")], now)
        assert it.start(now + 5.0) == scan("good")
        it.answered(scan("good"), now + 5.0, now + 5.0, None)
        assert it.away == ""


@pytest.mark.parametrize("kind", sorted(NEXT_STEP.keys() - OF_ONE_READ))
def test_only_an_answer_about_a_job_can_be_its_alone(kind: str) -> None:
    """A connection that was refused, a certificate, a request for patience: whichever read met it, it is of all."""
    it, bad = pace(), hint("bad")
    failing(it, 10.0, bad, OrchestratorError("server-error"))
    assert it.start(50.0) == bad
    alone = it.answered(bad, 50.0, 50.0, OrchestratorError(kind))
    assert alone == (kind in MAYBE_OF_ONE_READ)
    assert it.away == ("" if alone else kind)


def test_where_nobody_is_answered_nobody_is_blamed() -> None:
    """All that was under way and every probe fails, again and again: none of these errors is a job's alone."""
    error = OrchestratorError("server-error")
    it = pace()
    it.ask([hint("a"), hint("b"), hint("c")], 0.0)
    now = 10.0
    for read in started(it, now):
        assert isinstance(read, ReadHistory)
        assert not it.answered(read, now, now, error)
        it.ask([read], now)
    for _ in range(9):
        now = it.due() or now
        probe = it.start(now)
        assert isinstance(probe, ReadHistory)
        assert not it.answered(probe, now, now, error)
        it.ask([probe], now)
    assert it.away == "server-error"


def test_each_return_is_counted() -> None:
    """Also one that is over before anybody looks: frames may have been missed."""
    it = pace()
    for number in range(1, 4):
        it.ask([ReadJobs(), ReadJobs()], 0.0)
        it.start(100.0 * number)
        it.answered(ReadJobs(), 100.0 * number, 100.0 * number, AWAY)
        it.start(100.0 * number + 50)
        it.answered(ReadJobs(), 100.0 * number + 50, 100.0 * number + 50, None)
        assert it.returns == number


def test_a_request_that_is_no_read_takes_a_reads_turn() -> None:
    """It leaves when the next read might have, and that one an interval later: of both together the rate is kept."""
    beside, alone = pace(max_rate=10), pace(max_rate=10)
    for it in (beside, alone):
        it.ask([scan(f"s{number}") for number in range(3)], 0.0)
        assert it.start(0.0) is not None
    due = alone.due()
    assert due is not None
    assert beside.turn(0.0) == pytest.approx(due, abs=0.1)
    assert beside.due() == pytest.approx(2 * due, abs=0.1)
