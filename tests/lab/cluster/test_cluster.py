"""Some hundreds of seeds, and that the simulation finds what it is there to find. `make simulate` runs many more."""

import random
from collections.abc import Callable

import msgspec
import pytest

from consumer.rules import load
from consumer.wire import decode_frame
from consumer.wire.rest import decode_history, decode_job, decode_jobs
from tests.lab.cluster import rest
from tests.lab.cluster.broken import BROKEN
from tests.lab.cluster.cluster import Cluster
from tests.lab.cluster.oracle import Oracle
from tests.lab.cluster.plot import GAPS, HINTS, KINDS
from tests.lab.cluster.record import BASE_NS, Event, Job, Spec
from tests.lab.cluster.releases import RELEASES, Release
from tests.lab.cluster.world import FAULTS, World
from tests.lab.seeds import Result, ViolationError, run_seed, run_seeds

S = 10**9
LATEST = RELEASES[-1]


@pytest.fixture(scope="module")
def some_hundreds() -> Result:
    """500 seeds that `make simulate` does not begin with."""
    return run_seeds(World, range(1_000_001, 1_000_501), load())


class TestPromise:
    """The real join beside the model."""

    def test_no_seed_violates_it(self, some_hundreds: Result) -> None:
        """With every fault there is, the log is a prefix of the record at every moment, and all of it in the end."""
        assert some_hundreds.violations == []

    def test_every_kind_of_fault_was_there(self, some_hundreds: Result) -> None:
        """A run without violation means something only if everything that can go wrong did."""
        assert [kind for kind in FAULTS if not some_hundreds.faults[kind]] == []

    def test_where_nothing_goes_wrong_frames_alone_bring_each_state(self) -> None:
        """Neither lists nor turns: a hint that the record answers late is read again until it has."""
        assert [run(seed, HINTS) for seed in range(1, 101)] == [""] * 100

    def test_the_list_after_a_gap_brings_what_nobody_heard(self) -> None:
        """No list comes by itself, and what changed while the tap was away is in the log all the same."""
        assert [run(seed, GAPS) for seed in range(1, 101)] == [""] * 100

    def test_the_same_seed_is_the_same_run(self) -> None:
        """A failing seed can be played again: every step is the same, in words."""
        traces: list[list[str]] = [[], []]
        for trace in traces:
            run_seed(World, 10, load(), trace=trace)
        assert traces[0] == traces[1]
        assert len(traces[0]) > 100


def run(seed: int, kind: object) -> str:
    """What a run of *kind* violates."""
    assert kind in KINDS
    world = World(seed, load(), kind=kind)
    try:
        world.run()
    except ViolationError as error:
        return str(error)
    return ""


RARE = {"joined-by-count", "joined-unlooked", "long-list-paid", "watched-briefly"}
"""Found by one seed in some hundreds or thousands: `python -m tests.lab.cluster --broken all` hunts for them."""
SEEDS_MAX = 1500


class TestFinds:
    """What is broken on purpose."""

    @pytest.mark.parametrize("name", [name for name in BROKEN if name not in RARE])
    def test_what_is_broken_is_found(self, name: str) -> None:
        """Without this rule, which somebody may think superfluous one day, a seed goes red."""
        with BROKEN[name]() as rules:
            result = run_seeds(World, range(1, 1 + SEEDS_MAX), rules, stop_at_first=True)
        assert result.violations

    def test_a_seed_is_green_again_when_nothing_is_broken(self) -> None:
        """What a hunt breaks is whole again after it: the seed that it found is right."""
        with BROKEN["old-answers-believed"]() as rules:
            found = run_seeds(World, range(1, 1 + SEEDS_MAX), rules, stop_at_first=True).violations
        assert run_seeds(World, [seed for seed, _ in found], load()).violations == []


def made(release: Release = LATEST, spec: Spec | None = None) -> Job:
    """A job just submitted."""
    job = Job(release, "j-1", "default", spec or Spec(), BASE_NS + S)
    job.add_row(Event("Submission", "Job submitted", "Pending"), BASE_NS + S)
    return job


def stand(job: Job, state: str, at_s: int) -> None:
    """The job comes to *state*."""
    job.stand(state, "", BASE_NS + at_s * S)
    job.add_row(Event("State Update", state, state, {"NewState": state}), BASE_NS + at_s * S)


class TestModel:
    """The model's own rules, where a run would not show them plainly."""

    def test_a_stale_answer_is_the_record_as_it_was(self) -> None:
        """Job, list and history are all those of the time asked for."""
        job = made()
        stand(job, "Running", 3)
        before, after = BASE_NS + 2 * S, BASE_NS + 4 * S
        assert decode_job(rest.get_job(job, before).body).job.state == "Pending"
        assert decode_job(rest.get_job(job, after).body).job.state == "Running"
        assert rest.get_job(job, BASE_NS).status == 404
        page = decode_history(rest.get_history(job, before, all_versions=True, limit=10, token="").body)
        assert [entry.state for entry in page.entries] == ["Pending"]

    def test_pages_of_a_list_follow_each_other(self) -> None:
        """A token is an offset; without one there is no further page."""
        jobs = [Job(LATEST, f"j-{number}", "default", Spec(), BASE_NS + number) for number in range(5)]
        seen, token = [], ""
        while True:
            page = decode_jobs(rest.list_jobs(jobs, BASE_NS + S, limit=2, token=token).body)
            seen += [one.job.id for one in page.jobs]
            token = page.next_token
            if not token:
                break
        assert seen == ["j-4", "j-3", "j-2", "j-1", "j-0"]

    def test_an_open_history_has_a_cursor_and_an_ended_one_none(self) -> None:
        """Behind the last entry of an open job the same token comes again (design/bacalhau.md 6.3)."""
        job = made()
        now = BASE_NS + 9 * S
        first = decode_history(rest.get_history(job, now, all_versions=True, limit=1, token="").body)
        empty = decode_history(rest.get_history(job, now, all_versions=True, limit=1, token=first.next_token).body)
        assert (empty.items, empty.next_token) == (0, first.next_token)
        stand(job, "Completed", 5)
        ended = decode_history(rest.get_history(job, now, all_versions=True, limit=9, token="").body)
        assert ended.next_token == ""

    @pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
    def test_our_decoder_reads_its_frames(self, release: Release) -> None:
        """Of each release: the kinds of a batch job's life, with the job where Bacalhau says it."""
        stage = Stage(release)
        job = stage.cluster.submit(Spec())
        stage.run()
        frames = [decode_frame(subject, data) for subject, data in stage.said]
        assert [frame.kind.name for frame in frames if frame is not None][:4] == [
            "ASK_FOR_BID",
            "BID_RESULT",
            "BID_ACCEPTED",
            "RUN_RESULT",
        ]
        assert frames[0] is not None
        assert frames[0].snapshot is not None
        assert (frames[0].job, frames[0].snapshot.state) == (job.id, "Pending")
        assert [change.state for change in job.kept] == ["Pending", "Running", "Completed"]

    def test_an_ops_job_that_is_late_when_it_is_rerun_fails_and_is_started(self) -> None:
        """One write fails the job and makes executions that run at once: no start of one says Running."""
        stage = Stage(LATEST)
        job = stage.cluster.submit(Spec(type="ops", count=0, total_timeout=1))
        stage.run()
        stage.now += 2.0
        stage.said.clear()
        stage.cluster.rerun(job)
        stage.run()
        assert [change.state for change in job.kept[-2:]] == ["Pending", "Failed"]
        first = decode_frame(*stage.said[0])
        assert first is not None
        assert (first.direct, first.snapshot is not None and first.snapshot.state) == (True, "Pending")


class Stage:
    """A cluster of one node without anybody beside it."""

    def __init__(self, release: Release) -> None:
        self.now = 0.0
        self.said: list[tuple[str, bytes]] = []
        self._agenda: list[tuple[float, Callable[[], None]]] = []
        self.cluster = Cluster(
            release,
            random.Random(1),
            at=self._at,
            clock=lambda: self.now,
            publish=lambda subject, data, _what: self.said.append((subject, data)),
            say=None,
            steady=True,
        )
        node = self.cluster.add_node(set())
        node.picky = 0.0

    def _at(self, delay: float, act: Callable[[], None]) -> None:
        self._agenda.append((self.now + delay, act))

    def run(self) -> None:
        """Until nothing is left to do."""
        while self._agenda:
            self._agenda.sort(key=lambda one: one[0])
            self.now, act = self._agenda.pop(0)
            act()


class TestOracle:
    """It says no where it must."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"StateType": "Queued"}, "the record says"),
            ({"Sequence": 2}, "update 2 after 0"),
            ({"Previous": "Queued"}, "follows Queued"),
            ({"Message": "because"}, "says 'because'"),
            ({"Flags": ["corrected"]}, "is corrected"),
        ],
    )
    def test_what_the_record_does_not_say_is_a_violation(self, change: dict[str, object], reason: str) -> None:
        """State, number, predecessor, message, flags: each is looked at."""
        body: dict[str, object] = {
            "StateType": "Pending",
            "Message": "",
            "Job": {"ID": "j-1", "Namespace": "default", "Version": 1, "Revision": 1},
            "Previous": None,
            "Sequence": 1,
            "Source": "observed",
            "Flags": [],
        }
        jobs = {"j-1": made()}
        assert Oracle().stored(jobs, msgspec.json.encode(body)).StateType == "Pending"
        with pytest.raises(ViolationError, match=reason):
            Oracle().stored(jobs, msgspec.json.encode(body | change))

    def test_what_is_missing_in_the_end_is_named(self) -> None:
        """A log that lacks the record's last state is not right."""
        assert Oracle().missing(made()) == "j-1: the log has 0 of v1 r1 Pending"

    def test_an_announcement_needs_a_reason(self) -> None:
        """Nothing is gone as long as the model forgot nothing."""
        body = b'{"Facts":{"job":"j-1"}}'
        Oracle().noticed("unreadable", body, {"j-1"})
        with pytest.raises(ViolationError, match="unreadable"):
            Oracle().noticed("unreadable", body, {"j-2"})
        with pytest.raises(ViolationError, match="gone"):
            Oracle().noticed("gone", body, {"j-1"})
