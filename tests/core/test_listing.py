"""What a page of a list comes to for each job on it, beside what the log and the job's reader have."""

from typing import Final

import msgspec
import pytest

from consumer.core.listing import Listing
from consumer.core.lists import AHEAD_NS, Lists
from consumer.core.options import ReadingOptions
from consumer.core.reader import LONG_AGO, Cause, Reader, Tail
from consumer.core.registry import Registry
from consumer.model import OBSERVED, REPORTED, BadJob, JobPage, Notice, Snapshot, Source, Step
from tests.core.scene import KEY, RULES, identity, logged, page, snapshot

LEFT, NOW = 10.0, 10.5
"""When the page left, and when it was answered."""
S: Final = 10**9


class Listed:
    """Lists after a sweep up to *seen_ns*. The log has *state* with *revision* entries, or nothing ("")."""

    def __init__(
        self,
        state: str = "",
        revision: int = 0,
        *,
        source: Source = OBSERVED,
        seen_ns: int = 100,
        jobs_max: int = 10,
        since_ns: int = 0,
    ) -> None:
        log = {KEY: logged(state, revision, source=source, time_ns=1)} if state else {}
        options = ReadingOptions(jobs_max=jobs_max)
        self.lists = Lists(options)
        self.jobs = Registry(RULES, log.get, options, lambda: None, since_ns)
        self.listing = Listing(self.jobs, self.lists)
        self.lists.next_page(0.0)
        self.lists.answered(page(snapshot("Completed", 3, job="j-other", modified_ns=seen_ns)), 0.001)

    def follow(self) -> Reader:
        """The job is followed, and was looked at before the page left."""
        reader = self.jobs.reader("j-1", KEY)
        assert reader is not None
        reader.name_by(identity())
        self.jobs.set_open(reader, is_open=True)
        reader.looked_at = reader.read_at = 5.0
        return reader

    def show(self, *rows: Snapshot, bad: tuple[BadJob, ...] = (), clock_ns: int = 0) -> Reader | None:
        """A page of changes shows *rows*; the job's reader afterwards, if it has one."""
        read = self.lists.next_page(LEFT)
        assert read is not None
        assert not self.lists.sweeps
        self.listing.take_page(page(*rows, bad=bad, clock_ns=clock_ns), NOW)
        return self.jobs.get("j-1")

    def sweep(self, shown: JobPage) -> Reader | None:
        """A page of a sweep; the job's reader afterwards."""
        self.lists.want_all()
        self.lists.next_page(LEFT)
        assert self.lists.sweeps
        self.listing.take_page(shown, NOW)
        return self.jobs.get("j-1")


class TestAgrees:
    """The row says what the log says."""

    def test_it_is_a_look(self) -> None:
        """A hint from before the page left is answered by it, and the job's next turn is later."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        reader.seen = 2
        reader.hint(LEFT - 0.1, said=2)
        reader.listed_at = 4.0
        listed.jobs.schedule.put(reader, LEFT, Cause.HINT)
        listed.show(snapshot("Running", 2))
        assert (reader.looked_at, reader.agreed_at, reader.said) == (LEFT, NOW, 0)
        assert (reader.listed_at, reader.shown_at) == (LONG_AGO, LONG_AGO)
        assert (reader.cause, reader.due) == (Cause.TURN, LEFT + listed.jobs.options.turn_s)

    def test_a_hint_that_came_later_stays(self) -> None:
        """The page left before: it cannot know what the hint tells of."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        listed.jobs.hint(reader, LEFT, said=3)
        listed.show(snapshot("Running", 2))
        assert (reader.looked_at, reader.agreed_at, reader.said, reader.cause) == (5.0, None, 3, Cause.HINT)

    def test_a_later_look_stays(self) -> None:
        """A read that left after the page, and was answered before it, is the newer one."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        reader.looked_at = LEFT + 0.1
        listed.show(snapshot("Running", 2))
        assert reader.looked_at == LEFT + 0.1

    def test_one_under_way_is_left_alone(self) -> None:
        """Its answer says more than the row."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        reader.flying = True
        listed.show(snapshot("Running", 2))
        assert (reader.flying, reader.looked_at, reader.queued) == (True, 5.0, 0)

    def test_an_open_job_that_nobody_follows_is_followed(self) -> None:
        """The log has it and the readers do not: there was no room at the start, say."""
        reader = Listed("Running", 2).show(snapshot("Running", 2))
        assert reader is not None
        assert (reader.open, reader.identity) == (True, identity())

    @pytest.mark.parametrize("since_ns", [0, 100])
    def test_a_job_that_has_ended_is_not_remembered(self, since_ns: int) -> None:
        """It ended as the log says; or before the log began, which tells nothing of it then."""
        listed = Listed("" if since_ns else "Completed", 3, since_ns=since_ns, jobs_max=0)
        assert listed.show(snapshot("Completed", 3, modified_ns=1)) is None
        assert listed.jobs.counts.dropped == 0

    def test_an_end_that_is_still_followed_is_not_opened(self) -> None:
        """A claim is weighed, say: then its turns go on as they are."""
        listed = Listed("Completed", 3)
        reader = listed.jobs.reader("j-1", KEY)
        assert reader is not None
        listed.show(snapshot("Completed", 3))
        assert (reader.open, reader.agreed_at) == (False, NOW)

    def test_without_room_nothing_happens(self) -> None:
        """A list that comes later finds it."""
        listed = Listed("Running", 2, jobs_max=0)
        assert listed.show(snapshot("Running", 2)) is None
        assert listed.jobs.counts.dropped == 1

    def test_more_entries_than_were_seen_are_no_look(self) -> None:
        """The same state, an entry more, and not new to the lists: the job's turn tells what it is."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        listed.show(snapshot("Running", 3, modified_ns=50))
        assert (reader.looked_at, reader.shown_at, reader.cause) == (5.0, LEFT, Cause.TURN)


class TestDiffers:
    """The row says otherwise than the log."""

    def test_the_job_is_read_at_once(self) -> None:
        """Whether or not the lists have seen that change before."""
        for modified_ns in (50, 101):
            reader = Listed("Running", 2).show(snapshot("Completed", 3, modified_ns=modified_ns))
            assert reader is not None
            assert (reader.cause, reader.due, reader.shown_at, reader.listed_at) == (Cause.ROW, NOW, LEFT, NOW)

    @pytest.mark.parametrize(
        ("listed", "row"),
        [
            (Listed(), snapshot("Running", 2)),  # the log has nothing to be contradicted
            (Listed("Running", 2, source=REPORTED), snapshot("Completed", 3)),  # a producer said so, and no record
            (Listed("Running", 2), snapshot("Running", 3, modified_ns=101)),  # the same state
        ],
        ids=["new", "reported", "same"],
    )
    def test_what_contradicts_nothing_is_read_too(self, listed: Listed, row: Snapshot) -> None:
        """But it is no state other than the log's."""
        reader = listed.show(row)
        assert reader is not None
        assert (reader.cause, reader.due, reader.listed_at) == (Cause.ROW, NOW, LONG_AGO)

    def test_without_room_nothing_happens(self) -> None:
        """A list that comes later finds it."""
        assert Listed(jobs_max=0).show(snapshot("Running", 2)) is None

    @pytest.mark.parametrize("field", ["flying", "busy"])
    def test_what_is_under_way_may_say_it_all(self, field: str) -> None:
        """If not, the job is read once more: the row is a hint. While an event is written, an entry more than it."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        reader.seen = 7
        setattr(reader, field, True)
        listed.show(snapshot("Completed", 3))
        assert (reader.said, reader.hinted_at, reader.queued) == (8 if field == "busy" else 3, LEFT, 0)

    @pytest.mark.parametrize(("modified_ns", "cause"), [(100, Cause.TURN), (101, Cause.ROW)])
    def test_an_entry_more_is_worth_a_read_where_it_is_new(self, modified_ns: int, cause: Cause) -> None:
        """Or in a sweep: it need not be a state, so not with each list."""
        row = snapshot("Running", 3, modified_ns=modified_ns)
        reader = Listed("Running", 2).show(row)
        assert reader is not None
        assert reader.cause is cause
        swept = Listed("Running", 2).sweep(page(row))
        assert swept is not None
        assert swept.cause is Cause.ROW

    def test_a_read_that_left_later_says_it_all(self) -> None:
        """It is under way, and newer than the row."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        reader.flying, reader.looked_at = True, LEFT
        listed.show(snapshot("Completed", 3))
        assert reader.said == 0

    @pytest.mark.parametrize(("looked_at", "cause"), [(LEFT, Cause.ROW), (LEFT + 0.1, Cause.TURN)])
    def test_a_row_older_than_the_last_look_has_nothing_read(self, looked_at: float, cause: Cause) -> None:
        """What was read since is newer."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        reader.looked_at = looked_at
        listed.jobs.plan(reader, NOW)
        listed.show(snapshot("Completed", 3))
        assert reader.cause is cause

    def test_one_that_fails_is_not_hurried(self) -> None:
        """It is read again after its pause, whatever lists show."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        reader.failures = 1
        listed.show(snapshot("Completed", 3))
        assert reader.queued == 0

    def test_one_that_stands_still_is_left_to_sweeps(self) -> None:
        """The rules reject its next step: each list would have it read for nothing; once an hour it is."""
        for sweeps in (False, True):
            listed = Listed("Running", 2)
            reader = listed.follow()
            reader.halted = Step(version=0, revision=3, state="Pending")
            if sweeps:
                listed.sweep(page(snapshot("Completed", 3)))
                assert (reader.cause, reader.due) == (Cause.ROW, NOW)
            else:
                listed.show(snapshot("Completed", 3))
                assert not reader.queued


class TestBad:
    """Rows that cannot be read."""

    BAD = BadJob(id="j-1", reason="unknown-state", modified_ns=101)

    def test_the_job_is_read_by_itself(self) -> None:
        """What a list cannot tell of it, that may; and there is such a job."""
        reader = Listed().show(bad=(self.BAD,))
        assert reader is not None
        assert (reader.named, reader.cause, reader.due) == (True, Cause.ROW, NOW)

    @pytest.mark.parametrize(
        "bad", [msgspec.structs.replace(BAD, id=""), msgspec.structs.replace(BAD, modified_ns=100)]
    )
    def test_not_one_without_a_name_or_seen_before(self, bad: BadJob) -> None:
        """Each list would have it read for nothing."""
        listed = Listed()
        listed.show(bad=(bad,))
        assert listed.jobs.all() == []

    def test_one_row_hinders_no_other(self) -> None:
        """Whatever becomes of those before it."""
        listed = Listed(jobs_max=1)
        listed.show(bad=(msgspec.structs.replace(self.BAD, id=""), self.BAD))
        assert [reader.name for reader in listed.jobs.all()] == ["j-1"]
        full = Listed(jobs_max=1)
        reader = full.follow()
        full.show(bad=(msgspec.structs.replace(self.BAD, id="j-2"), self.BAD))
        assert (full.jobs.counts.dropped, reader.cause) == (1, Cause.ROW)

    def test_a_sweep_has_it_read_again(self) -> None:
        """Once an hour: it may be readable now."""
        seen = msgspec.structs.replace(self.BAD, modified_ns=50)
        assert Listed().sweep(page(bad=(seen,))) is not None

    def test_without_room_nothing_happens(self) -> None:
        """A list that comes later finds it."""
        assert Listed(jobs_max=0).show(bad=(self.BAD,)) is None

    @pytest.mark.parametrize(("field", "value"), [("flying", True), ("busy", True), ("failures", 1)])
    def test_one_that_is_read_or_fails_is_not_hurried(self, field: str, value: object) -> None:
        """As with any row."""
        listed = Listed("Running", 2)
        reader = listed.follow()
        setattr(reader, field, value)
        listed.show(bad=(self.BAD,))
        assert reader.queued == 0


def test_a_clock_that_was_ahead_when_the_log_began_is_told_and_mended() -> None:
    """What ended between the setting back and this list is told too; not where nothing was written by that clock."""
    for rows_ns, told in ((500 * S, True), (5000 * S, False)):
        listed = Listed(since_ns=4000 * S, seen_ns=4000 * S)
        listed.show(snapshot("Running", 1, job="j-2", modified_ns=rows_ns), clock_ns=500 * S)
        notices = [event for event in listed.jobs.events if isinstance(event, Notice)]
        assert [one.origin for one in notices] == [f"beginning-{4000 * S}"] * told
        assert listed.jobs.since_ns == (500 * S - AHEAD_NS if told else 4000 * S)


@pytest.mark.parametrize("behind_ns", [0, 1])
def test_a_clock_just_within_what_clocks_are_apart_is_left(behind_ns: int) -> None:
    """Only a beginning that is further ahead is one of a wrong clock."""
    listed = Listed(since_ns=500 * S + AHEAD_NS + behind_ns, seen_ns=400 * S)
    listed.show(snapshot("Running", 1, job="j-2", modified_ns=500 * S), clock_ns=500 * S)
    assert len(listed.jobs.events) == behind_ns


def test_after_a_record_that_went_back_histories_are_read_from_their_first_page() -> None:
    """What was there may be another history now; it is announced once, with both times."""
    listed = Listed("Running", 2)
    reader = listed.follow()
    reader.tail = Tail(entries=5, token="t", version=0, state="Running", newest=0)
    claim_s = listed.jobs.options.claim_s
    for at in (LEFT, LEFT + claim_s + 2):
        listed.lists.next_page(at)
        listed.listing.take_page(page(snapshot("Running", 2, modified_ns=60)), at)
    assert not any(one.tail for one in listed.jobs.all())
    (notice,) = listed.jobs.events
    assert isinstance(notice, Notice)
    assert notice.facts == {"newest_ns": 60, "seen_ns": 100}
