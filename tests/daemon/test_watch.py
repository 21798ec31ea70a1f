"""What the watch says of what it is told: numbers that mean one thing each, reasons that name the right stream."""

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from consumer.core import Lanes, Readers, ReadingOptions
from consumer.core.appends import Append, AppendStream, Outcomes, Read, ReadBack, Refused, Stored
from consumer.core.dwell import Dwell
from consumer.core.reads import OrchestratorRead, ReadHistory, ReadJob, ReadJobs
from consumer.core.verify import VerifiedJob
from consumer.daemon.watch import LOG, ORCHESTRATOR, Watch
from consumer.errors import OrchestratorError
from consumer.faults import NEXT_STEP, OrchestratorFault
from consumer.model import (
    OBSERVED,
    REPORTED,
    Frame,
    FrameKind,
    HistoryPage,
    Identity,
    InputPosition,
    JobKey,
    JobPage,
    LastUpdate,
    Notice,
    Report,
    Source,
)
from consumer.observe import Health, Metrics
from consumer.ports import Answered
from consumer.rules import load
from consumer.wire.subjects import Names


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


class Place:
    """A watch and all that it tells."""

    def __init__(self) -> None:
        rules = load()
        self.clock, self.metrics, self.health = Clock(), Metrics(), Health()
        self.lanes = Lanes(rules, Names())
        self.outcomes = Outcomes()
        self.watch = Watch(self.metrics, self.health, self.clock)
        self.follow()

    def follow(self, join: Readers | None = None) -> None:
        """A life begins."""
        self.watch.follow_life(self.lanes, join, Dwell(load(), 0.0), self.outcomes)

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of the metric *name*, by their labels' values in the order of the labels' names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.metrics.expose().decode())
            for sample in family.samples
            if sample.name == name
        }

    def risen(self, name: str) -> dict[tuple[str, ...], float]:
        """Those of `samples` that are not 0."""
        return {labels: value for labels, value in self.samples(name).items() if value}

    def answer(
        self, *reads: OrchestratorRead, error: OrchestratorFault | None = None, away: OrchestratorFault | None = None
    ) -> bool:
        """Have *reads* come back, with *error* or an answer. Whether the orchestrator counts as ready then."""
        for read in reads:
            answer = JobPage(jobs=(), next_token="") if isinstance(read, ReadJobs) else PAGE
            found = OrchestratorError(error, "so it is") if error else answer
            self.watch.answered([Answered(read, found, self.clock.time)], away)
        return ORCHESTRATOR not in self.health.unready()

    def wait_for_something(self) -> None:
        """Have the lanes hold an event that the log has not confirmed."""
        self.lanes.offer(Notice(kind="gap", origin="1", text="x"))


PAGE = HistoryPage(entries=(), items=0, next_token="")
LIST, JOB, HISTORY = ReadJobs(), ReadJob(job="j-1"), ReadHistory(job="j-1")


@pytest.fixture
def place() -> Place:
    """One of its own for each test."""
    return Place()


@pytest.mark.parametrize(("stream", "words"), [("log", "the log has"), ("refused", "what was refused has")])
def test_the_stream_that_is_full_is_the_one_that_is_named(place: Place, stream: AppendStream, words: str) -> None:
    """Its own gauge and no other's, and it is named in the reason; until something is stored in it again."""
    place.wait_for_something()
    place.outcomes[stream, "full"] += 1
    other: AppendStream = "refused" if stream == "log" else "log"
    for _ in range(3):  # between two tries nothing comes of it
        place.watch.take_stock()
        assert place.samples("jobstate_stream_full") == {(stream,): 1, (other,): 0}
        assert f"{words} no room" in place.health.unready()[LOG]
    place.outcomes[other, "stored"] += 1
    place.watch.take_stock()
    assert place.samples("jobstate_stream_full")[stream,] == 1
    place.outcomes[stream, "stored"] += 1
    place.watch.take_stock()
    assert place.samples("jobstate_stream_full") == {(stream,): 0, (other,): 0}


def test_appends_are_counted_by_the_one_thing_that_each_came_to(place: Place) -> None:
    """Every stock adds what came since the one before; a new life begins at nothing, and the numbers go on."""
    place.outcomes.update({("log", "stored"): 3, ("refused", "busy"): 1})
    place.watch.take_stock()
    place.watch.take_stock()
    place.outcomes["log", "stored"] += 2
    place.watch.take_stock()
    assert place.risen("jobstate_appends_total") == {("stored", "log"): 5, ("busy", "refused"): 1}
    place.outcomes = Outcomes({("log", "stored"): 4})
    place.follow()
    place.watch.take_stock()
    assert place.risen("jobstate_appends_total") == {("stored", "log"): 9, ("busy", "refused"): 1}


def test_jobs_are_counted_by_state_whoever_tells_of_them(place: Place) -> None:
    """Observed and reported ones, with and without an orchestrator; what the rules do not know is `other`, and open."""
    stands: list[tuple[str, Source]] = [
        ("Running", OBSERVED),
        ("Running", REPORTED),
        ("Failed", REPORTED),
        ("Paused", OBSERVED),
    ]
    for number, (state, source) in enumerate(stands, start=1):
        known = LastUpdate(number=number, sequence=1, state=state, version=None, revision=None, source=source)
        place.lanes.learn(JobKey(f"default.j-{number}"), VerifiedJob(known=known, number=number))
    place.watch.take_stock()
    assert place.risen("jobstate_jobs") == {("Running",): 2, ("Failed",): 1, ("other",): 1}
    assert place.samples("jobstate_jobs")["Queued",] == 0
    assert place.samples("jobstate_jobs_open") == {(): 3}


def test_a_job_that_goes_on_or_is_forgotten_counts_where_it_stands(place: Place) -> None:
    """A report and the next one: one job, in its present state; and none, once the log has lost it."""
    first = Report(
        key=JobKey("default.j-1"),
        job=Identity(id="j-1", namespace="default"),
        position=InputPosition(1, 1),
        state="Running",
        version=0,
    )

    def offer(number: int, state: str, version: int) -> Append | ReadBack:
        report = msgspec.structs.replace(first, position=InputPosition(1, number), state=state, version=version)
        place.lanes.offer(report)
        (ask,) = place.lanes.take(0.0)
        return ask

    for number, state in enumerate(("Running", "Failed"), start=1):
        place.lanes.answer(offer(number, state, 0).token, Stored(number), 0.0)
        place.watch.take_stock()
        assert place.risen("jobstate_jobs") == {(state,): 1}
    assert place.samples("jobstate_jobs_open") == {(): 0}
    place.lanes.answer(offer(3, "Pending", 1).token, Refused(0), 0.0)  # the log was emptied
    (back,) = place.lanes.take(0.0)
    place.lanes.answer(back.token, Read(()), 0.0)
    place.watch.take_stock()
    assert place.risen("jobstate_jobs") == {}


def test_lists_that_come_late_are_told_once_and_when_they_are_quick_again(place: Place) -> None:
    """From 10 s on, with what a list takes and what to do; not while nobody answers, of which more is said."""
    join = Readers(load(), lambda _: None, ReadingOptions(), since_ns=0)
    place.follow(join)
    with capture_logs() as lines:
        told = []
        for took_s in (0.01, 0.01, *[0.6] * 12, *[0.01] * 12):
            read = next(read for read in join.due_reads(place.clock.time) if isinstance(read, ReadJobs))
            place.clock.time += took_s
            join.answered(read, JobPage(jobs=(), next_token=""), place.clock.time)
            place.watch.take_stock()
            told.append(place.samples("jobstate_discovery_seconds")[()])
            place.clock.time = join.wake_at() or 0.0
        place.answer(ReadJobs(), error="unreachable", away="unreachable")
        place.clock.time += 60.0
        place.watch.take_stock()

    said = [line for line in lines if str(line["event"]).startswith("lists.")]
    assert [line["event"] for line in said] == ["lists.slow", "lists.quick"]
    assert said[0]["list_took_s"] == 0.6
    assert 10.0 < float(said[0]["found_within_s"]) < 15.0
    assert "large inputs" in str(said[0]["next_step"])
    assert 13.0 < max(told) < 13.5  # from the leaving of one list to the answer of the next
    assert told[-1] < 1.1
    assert place.samples("jobstate_discovery_seconds")[()] > 60.0


def test_a_time_between_lists_that_was_asked_for_is_not_late(place: Place) -> None:
    """`scan.list` of a minute: no word of it."""
    join = Readers(load(), lambda _: None, ReadingOptions(list_every_s=60.0), since_ns=0)
    place.follow(join)
    with capture_logs() as lines:
        for _ in range(3):
            read = next(read for read in join.due_reads(place.clock.time) if isinstance(read, ReadJobs))
            join.answered(read, JobPage(jobs=(), next_token=""), place.clock.time)
            place.clock.time = join.wake_at() or 0.0
            place.watch.take_stock()
    assert place.samples("jobstate_discovery_seconds") == {(): 60.0}
    assert not lines


def test_reads_that_the_rate_holds_back_are_told_once_and_when_they_caught_up(place: Place) -> None:
    """Said when the oldest has waited for more than two seconds, not again each second; not of an orchestrator away."""
    with capture_logs() as lines:
        for waited_s in (0.5, 2.5, 3.5, 1.5, 2.5, 0.5, 0.1):
            place.watch.reads_wait(40, waited_s, 8, away=False)
        place.watch.reads_wait(40, 60.0, 1, away=True)

    assert [(line["event"], line["waiting"]) for line in lines] == [
        ("orchestrator.behind", 40),
        ("orchestrator.caught-up", 40),
    ]
    assert "orchestrator.max_rate" in str(lines[0]["next_step"])
    assert place.samples("jobstate_reads_waited_seconds") == {(): 60.0}
    assert place.samples("jobstate_reads_waiting") == {(): 40}
    assert place.samples("jobstate_reads_in_flight") == {(): 1}


def test_that_the_orchestrator_answers_again_is_told_once(place: Place) -> None:
    """With what kept it away, and for how long."""
    with capture_logs() as lines:
        kinds: tuple[OrchestratorFault | None, ...] = (None, "html", "html", None, None)
        for second, away in enumerate(kinds):
            place.clock.time = float(second)
            place.watch.answered((), away)
    assert [(line["event"], line["after"], line["away_s"]) for line in lines] == [("orchestrator.answers", "html", 2.0)]


def test_three_histories_in_a_row_that_fail_are_not_ready_however_well_lists_are_served(place: Place) -> None:
    """Two may be two jobs' own; the lists between prove nothing of them; the first one that is answered ends it."""
    assert place.answer(LIST)
    for ready in (True, True, False, False):
        assert place.answer(HISTORY, error="forbidden") is ready
        assert place.answer(LIST) is ready
    assert "its responses are invalid: forbidden: so it is" in place.health.unready()[ORCHESTRATOR]
    assert place.answer(HISTORY)
    assert place.answer(HISTORY, HISTORY, error="forbidden")


def test_three_lists_in_a_row_that_fail_are_not_ready_until_one_is_answered(place: Place) -> None:
    """However well jobs are read; and however long it takes: after one that took long it may be ten minutes."""
    assert place.answer(LIST, HISTORY)
    for ready in (True, True, False):
        assert place.answer(LIST, error="cut") is ready
        place.clock.time += 600.0
        assert place.answer(HISTORY) is ready
    assert place.answer(LIST)


@pytest.mark.parametrize(("fails", "answered"), [(JOB, HISTORY), (HISTORY, JOB)])
def test_who_is_read_is_read_by_whichever_of_the_two_reads(
    place: Place, fails: OrchestratorRead, answered: OrchestratorRead
) -> None:
    """A job that could not be read is known by a list then, and read by its history: it is never asked for again."""
    assert not place.answer(fails, fails, fails, error="too-large")
    assert place.answer(answered)


def test_an_error_of_long_ago_says_nothing_of_now(place: Place) -> None:
    """A job that fails comes again within a minute: one that does not is over. And none is counted with one of now."""
    assert not place.answer(JOB, JOB, JOB, error="too-large")
    place.clock.time += 60.0
    assert not place.answer(LIST)
    assert not place.answer(JOB, error="too-large")
    place.clock.time += 121.0
    assert place.answer(LIST)
    assert place.answer(JOB, JOB, error="too-large")
    assert not place.answer(JOB, error="too-large")


def test_who_was_not_asked_has_not_answered(place: Place) -> None:
    """Whatever a stranger calls jobs in three frames: the orchestrator is neither at fault for it, nor ready by it."""
    place.health.need(ORCHESTRATOR)
    assert not place.answer(JOB, JOB, JOB, error="not-askable")
    assert place.answer(LIST)
    assert place.answer(JOB, JOB, JOB, error="not-askable")
    assert place.answer(JOB, JOB, error="cut")
    assert not place.answer(JOB, JOB, error="cut")
    assert not place.answer(JOB, error="not-askable")


def test_what_failed_in_one_life_does_not_count_in_the_next(place: Place) -> None:
    """Whoever it was, the next life need not ask for it."""
    assert not place.answer(LIST, LIST, LIST, JOB, JOB, JOB, error="cut")
    place.follow()
    assert place.answer(LIST, JOB, error="cut")


def test_what_keeps_the_orchestrator_away_is_said_from_the_first(place: Place) -> None:
    """With what to do next; the answer that brings it back makes it ready, whatever that was of."""
    assert not place.answer(HISTORY, error="html", away="html")
    assert (
        f"its responses are invalid: html: so it is; {NEXT_STEP['html']}; updates"
        in place.health.unready()[ORCHESTRATOR]
    )
    assert place.answer(LIST)


def test_a_server_that_confirms_nothing_is_told_once_with_where_to_look(place: Place) -> None:
    """After ten seconds, and in /readyz all along; what is known to be wrong with it comes first, until it confirms."""
    place.wait_for_something()
    with capture_logs() as lines:
        for _ in range(20):
            place.watch.take_stock()
            place.clock.time += 1.0
    assert [line["event"] for line in lines] == ["log.unconfirmed"]
    assert place.watch.unconfirmed_s == 19.0
    assert "nothing was confirmed for 19 s; look at the server's own log and its disk" in place.health.unready()[LOG]
    place.watch.server_trouble = "the disk of x is full: make room"
    place.watch.take_stock()
    assert place.health.unready()[LOG].endswith("the disk of x is full: make room")
    place.clock.time += 60.0
    assert place.watch.unconfirmed_s == 0.0, "no stock was taken: between two lives nobody knows"
    place.outcomes["refused", "stored"] += 1
    place.watch.take_stock()
    assert (place.watch.unconfirmed_s, place.watch.server_trouble) == (0.0, "")


def test_a_connection_that_was_lost_in_one_life_is_not_lost_in_the_next(place: Place) -> None:
    """The log that came back was another, so the life ended: what the next one waits for is waited for."""
    place.watch.log_connection(up=False)
    place.follow()
    place.wait_for_something()
    for _ in range(20):
        place.watch.take_stock()
        place.clock.time += 1.0
    assert place.watch.unconfirmed_s == 19.0


def test_another_connection_proves_nothing_while_something_waits(place: Place) -> None:
    """Ready is what confirms; and while it is replaced, the reason that was given for that stays."""
    place.health.ready(LOG)
    place.watch.log_connection(up=False)
    place.health.failing(LOG, "a permission is missing")
    place.wait_for_something()
    for _ in range(20):
        place.watch.take_stock()
        place.clock.time += 1.0
    assert place.health.unready() == {LOG: "a permission is missing"}
    place.watch.log_connection(up=True)
    assert LOG in place.health.unready()
    place.watch.take_stock()
    assert "whether the stream has a leader (nats stream info)" in place.health.unready()[LOG]
    place.lanes = Lanes(load(), Names())
    place.follow()
    place.watch.log_connection(up=True)
    assert not place.health.unready()


def hold_up(place: Place, why: str) -> None:
    """Something waits for the log, which is *full*, or *down*."""
    place.wait_for_something()
    if why == "full":
        place.outcomes["log", "full"] += 1
    else:
        place.watch.log_connection(up=False)
    place.watch.take_stock()


@pytest.mark.parametrize("why", ["full", "down"])
def test_a_server_that_says_it_once_and_then_nothing_is_silent(place: Place, why: str) -> None:
    """It was full in mid-write and never stores again; or it takes connections and says nothing of the log."""
    hold_up(place, why)
    assert place.watch.unconfirmed_s == 0.0
    place.clock.time += 40.0
    if why == "full":
        place.outcomes["log", "unanswered"] += 1
    else:
        place.watch.silent()
    place.watch.take_stock()
    assert place.watch.unconfirmed_s == 40.0


@pytest.mark.parametrize("why", ["full", "down"])
def test_what_is_known_to_hold_the_log_up_is_not_the_servers_silence(place: Place, why: str) -> None:
    """A bound that is reached, a connection that is being replaced: to restart the server would mend neither."""
    hold_up(place, why)
    place.clock.time += 40.0
    place.watch.take_stock()
    assert place.watch.unconfirmed_s == 0.0


def test_jobs_that_have_no_room_are_told_once(place: Place) -> None:
    """`limits.jobs` is an operator's bound: beyond it a job waits for a list, and that is no secret."""
    join = Readers(load(), lambda _: None, ReadingOptions(jobs_max=1), since_ns=0)
    place.follow(join)
    with capture_logs() as lines:
        for number in range(3):
            frame = Frame(kind=FrameKind.RUN_RESULT, execution="e", node="n", profile="1.8+", job=f"j-{number}")
            join.frame(frame, 0.0)
            place.watch.take_stock()
    told = [line for line in lines if line["event"] == "jobs.crowded"]
    assert len(told) == 1
    assert "limits.jobs" in told[0]["next_step"]
