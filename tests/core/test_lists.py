"""Which page of which list is read when: `consumer.core.lists`. Times are numbers."""

import pytest

from consumer.core import ReadingOptions, ReadJobs
from consumer.core.lists import Lists
from consumer.model import BadJob, JobPage
from tests.core.scene import snapshot

SMALL = ReadingOptions(list_limit=2, full_limit=5)
TOP, SWEEP = ReadJobs(limit=2), ReadJobs(limit=5)


def page(*modified_ns: int, more: str = "") -> JobPage:
    """A page with jobs that were written then."""
    jobs = tuple(snapshot("Failed", 2, job=f"j-{ns}", modified_ns=ns) for ns in modified_ns)
    return JobPage(jobs=jobs, next_token=more)


class TestShare:
    """Never more than a twentieth of the orchestrator's time, whatever is wanted."""

    def test_each_page_is_followed_by_twenty_times_what_it_took(self) -> None:
        """Also within one list, and after a gap: pages cost by what is stored."""
        lists = Lists(SMALL)
        assert lists.next_page(0.0) == SWEEP
        lists.answered(page(9, more="t"), 4.0)
        lists.want_all()
        lists.list_soon(4.0)
        assert lists.next_page(83.9) is None
        assert lists.wake_at() == 84.0
        assert lists.next_page(84.0) is not None

    def test_with_a_hundred_thousand_jobs_lists_take_a_twentieth(self) -> None:
        """Four seconds a page, a day long, with a gap every ten minutes."""
        lists, now, busy, gap = Lists(ReadingOptions()), 0.0, 0.0, 0.0
        while now < 86_400:
            if now >= gap:
                lists.want_all()
                gap = now + 600
            if lists.next_page(now) is None:
                due = lists.wake_at()
                assert due is not None
                now = min(max(due, now), gap) if gap > now else due
                continue
            now, busy = now + 4.0, busy + 4.0
            lists.answered(page(*range(100, 105), more="t"), now)
        assert 0.045 < busy / now <= 0.05

    def pauses(self, *took_s: float) -> list[float]:
        """Lists that take so long, one after the other: the pause after each."""
        lists, now, pauses = Lists(SMALL), 0.0, []
        for took in took_s:
            lists.next_page(now)
            now += took
            lists.answered(page(9), now)
            due = lists.wake_at()
            assert due is not None
            pauses.append(due - now)
            now = due
        return pauses

    def test_one_that_has_to_wait_costs_what_the_quickest_of_the_last_ones_did(self) -> None:
        """Each decodes the same jobs: what one takes longer, it has waited for a core, for the network or for us."""
        assert self.pauses(0.3, 0.3, 1.3, 0.3, 0.4) == pytest.approx([6, 6, 6, 6, 6])

    def test_one_that_has_to_wait_for_very_long_is_paid_for_by_a_fifth(self) -> None:
        """So even an orchestrator that has far too much to do sees a list at most a fifth of the time."""
        assert self.pauses(0.3, 0.3, 10.0, 10.0) == pytest.approx([6, 6, 40, 40])

    def test_those_that_have_become_dear_are_paid_for_after_five(self) -> None:
        """Ten large jobs were stored: the quick lists from before are forgotten."""
        assert self.pauses(0.01, 0.01, *[0.3] * 6) == pytest.approx([1, 1, 1, 1.2, 1.2, 1.2, 6, 6], abs=1.0)

    def test_one_that_is_slow_for_once_has_been_paid_for(self) -> None:
        """Lists of 5 ms for ten minutes, then two of 25 s: the next come after a second; all of them a twentieth.

        The quick ones had left 30 s, and what is seen of each of the two is a fifth.
        """
        pauses = self.pauses(*[0.005] * 700, 25.0, 25.0, *[0.005] * 600)
        assert pauses[700:702] == pytest.approx([1.0, 1.0])
        assert (1_300 * 0.005 + 50.0) / sum(pauses) <= 0.05

    def test_what_took_longer_than_a_list_may_was_our_own_standing_still(self) -> None:
        """Stopped for an hour while a list was under way: the next comes after ten minutes, not after twenty hours."""
        lists = Lists(SMALL)
        assert lists.next_page(0.0) == SWEEP
        lists.answered(page(9), 3600.0)
        assert lists.wake_at() == 3600.0 + 20 * 30.0

    def test_lists_that_fail_take_no_more(self) -> None:
        """Thirty seconds each, and then an error: it cost the orchestrator what an answer costs."""
        lists, now, busy = Lists(ReadingOptions()), 0.0, 0.0
        for _ in range(100):
            due = lists.wake_at()
            assert due is not None
            now = max(now, due)
            assert lists.next_page(now) is not None
            now, busy = now + 30.0, busy + 30.0
            lists.failed(now)
        assert busy / now <= 0.05

    def test_a_moments_freeze_does_not_keep_lists_away_for_long(self) -> None:
        """One that was given up after thirty seconds is asked for again after a minute; the next time after two."""
        lists = Lists(ReadingOptions())
        lists.next_page(0.0)
        lists.failed(30.0)
        assert lists.wake_at() == 90.0
        lists.next_page(90.0)
        lists.failed(120.0)
        assert lists.wake_at() == 240.0

    def test_one_that_fails_at_once_is_asked_for_ever_more_seldom(self) -> None:
        """After 1, 2, 4 … s, at last once a minute; the first answer makes all as it was."""
        lists, now, pauses = Lists(SMALL), 0.0, []
        for _ in range(8):
            lists.next_page(now)
            lists.failed(now)
            due = lists.wake_at()
            assert due is not None
            pauses.append(due - now)
            now = due
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
        lists.next_page(now)
        lists.answered(page(9), now)
        lists.next_page(now + 1)
        lists.failed(now + 1)
        assert lists.wake_at() == now + 2

    def test_one_that_failed_is_asked_for_at_once_where_something_was_missed(self) -> None:
        """Who says so may know that the orchestrator is back; if it is not yet, the next try is not a minute off."""
        lists, now = Lists(SMALL), 0.0
        for _ in range(8):
            lists.next_page(now)
            lists.failed(now)
            due = lists.wake_at()
            assert due is not None
            now = due
        lists.next_page(now)
        lists.failed(now)
        lists.want_all()
        assert lists.wake_at() == now
        assert lists.next_page(now) == SWEEP
        lists.failed(now)
        assert lists.wake_at() == now + 1

    def test_whatever_is_missed_a_list_that_cost_much_is_paid_for(self) -> None:
        """One that was given up after thirty seconds took the orchestrator's time: the share is kept all the same."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.failed(30.0)
        lists.want_all()
        assert lists.wake_at() == 90.0


class TestSweep:
    """All pages, without keeping what is new waiting."""

    def test_it_takes_turns_with_what_has_changed(self) -> None:
        """A sweep of a huge orchestrator may take an hour: a new job must not wait for its end."""
        lists = Lists(SMALL)
        now, asked = 0.0, []
        for number in range(6):
            read = lists.next_page(now)
            assert read is not None
            asked.append((read.limit, read.next_token))
            more = f"t{number}" if read.limit == 5 and number < 4 else ""
            lists.answered(page(9, 8, more=more), now + 0.01)
            now += 2.0
        assert asked == [(5, ""), (2, ""), (5, "t0"), (2, ""), (5, "t2"), (2, "")]

    def test_a_page_that_failed_is_the_next_again(self) -> None:
        """It was the sweep's turn, and still is: changes are not asked for twice meanwhile."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.answered(page(9, more="t"), 0.001)
        assert lists.next_page(2.0) == TOP
        lists.answered(page(9), 2.001)
        further = ReadJobs(limit=5, next_token="t")
        assert lists.next_page(4.0) == further
        lists.failed(4.001)
        assert lists.next_page(9.0) == further

    def test_a_page_full_of_news_is_asked_for_again_four_times_larger(self) -> None:
        """From the top, so that nothing slips between two pages; as large as a page may be, and then the next page."""
        lists = Lists(ReadingOptions(list_limit=2, full_limit=20))
        lists.next_page(0.0)
        lists.answered(page(9), 0.001)
        now, asked = 2.0, []
        for more in ("t", "u", "v", "w", ""):
            read = lists.next_page(now)
            assert read is not None
            asked.append((read.limit, read.next_token))
            lists.answered(page(*range(100 + read.limit, 100, -1), more=more), now + 0.001)
            now += 1.0
        assert asked == [(2, ""), (8, ""), (20, ""), (20, "v"), (20, "w")]
        assert lists.high_water == 120

    def test_the_next_round_asks_for_as_many_as_the_last_one_brought(self) -> None:
        """Where forty jobs change between two lists each page would be asked for twice; a quiet hour ends that."""
        lists = Lists(ReadingOptions(list_limit=10))
        lists.next_page(0.0)
        lists.answered(page(1), 0.001)
        now, newest, limits = 2.0, 1, []
        for news in (30, 30, 5, 0, 0):
            fresh = range(newest + news, newest, -1)
            newest += news
            while True:
                read = lists.next_page(now)
                assert read is not None
                limits.append(read.limit)
                rows = [*fresh, *range(newest - news, 0, -1)][: read.limit]
                lists.answered(page(*rows, more="t" if len(rows) == read.limit else ""), now + 0.001)
                now += 1.5
                if lists.high_water == newest:
                    break
        assert limits == [10, 40, 40, 40, 10, 10]

    def test_a_round_of_changes_ends_where_the_last_began(self) -> None:
        """The newest that was seen before is on the page: nothing behind it has changed."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.answered(page(10), 0.001)
        assert lists.next_page(2.0) == TOP
        lists.answered(page(11, 10, more="t"), 2.001)
        assert lists.next_page(2.5) is None

    def test_smaller_pages_are_asked_for_without_a_longer_pause(self) -> None:
        """What was too large is another question at half the size."""
        lists, now = Lists(ReadingOptions(list_limit=100)), 0.0
        lists.next_page(now)
        lists.answered(page(9), now)
        for limit in (100, 50, 25, 12):
            now += 1.0
            assert lists.next_page(now) == ReadJobs(limit=limit)
            lists.failed(now, too_large=True)

    def test_its_top_is_what_has_changed(self) -> None:
        """So no other page is asked for at the same time."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.answered(page(9, 8), 0.001)
        assert (lists.high_water, lists.next_page(0.5), lists.next_page(1.1)) == (9, None, TOP)

    def test_what_is_missed_meanwhile_is_the_next_ones(self) -> None:
        """A gap within a sweep: it goes on, and another follows."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.want_all()
        lists.answered(page(9), 0.001)
        assert lists.next_page(0.1) == SWEEP

    def test_a_page_too_large_is_halved_from_the_top(self) -> None:
        """A token holds the size it was given for. The rounds of changes shrink apart."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.answered(page(9, more="t"), 0.0)
        assert lists.next_page(0.0) == ReadJobs(limit=5, next_token="t")
        lists.failed(1.1, too_large=True, is_untouched=True)
        read = lists.next_page(2.2)
        assert read is not None
        assert read.next_token == ""

    def test_a_page_that_was_halved_grows_again(self) -> None:
        """What was too large for once is not so for ever; what is again is tried ever more seldom."""
        lists, now, limits = Lists(ReadingOptions(list_limit=100)), 0.0, []
        lists.next_page(now)
        lists.answered(page(9), now)
        for _ in range(20):
            now += 61
            read = lists.next_page(now)
            assert read is not None
            limits.append(read.limit)
            if read.limit > 50 and len(limits) < 15:
                lists.failed(now, too_large=True)
            else:
                lists.answered(page(9), now)
        assert limits == [100, 50, 100, *[50] * 2, 100, *[50] * 4, 100, *[50] * 8, *[100]]

    def test_a_sweep_grows_with_the_next(self) -> None:
        """A token holds the size it was given for, so within one it stays; until the setting, and no further."""
        lists, now, limits = Lists(ReadingOptions(full_limit=400, lists=False)), 0.0, []
        for too_large in (True, True, False, False, False):
            lists.want_all()
            now += 10
            read = lists.next_page(now)
            assert read is not None
            limits.append(read.limit)
            if too_large:
                lists.failed(now, too_large=True)
            else:
                lists.answered(page(9, more="t"), now)
                assert lists.next_page(now) == ReadJobs(limit=read.limit, next_token="t")
                lists.answered(page(8), now)
        assert limits == [400, 200, 100, 200, 400]

    def test_jobs_that_cannot_be_read_end_no_round(self) -> None:
        """A page of nothing else is a page, and their times count as those of others."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        bad = tuple(BadJob(id=f"j-{ns}", reason="unknown-state", modified_ns=ns) for ns in (9, 0))
        lists.answered(JobPage(jobs=(), next_token="t", bad=bad), 0.0)
        assert (lists.high_water, lists.next_page(0.0)) == (9, ReadJobs(limit=5, next_token="t"))


class TestHold:
    """At a start a list waits for the tap."""

    def test_nothing_is_listed_until_all_is_wanted(self) -> None:
        """Neither what has changed nor all; then one sweep, and after it the changes."""
        lists = Lists(SMALL)
        lists.hold()
        assert (lists.next_page(1e9), lists.wake_at()) == (None, None)
        lists.want_all()
        assert lists.next_page(1e9) == SWEEP
        lists.answered(page(9), 1e9)
        assert (lists.next_page(1e9 + 0.5), lists.next_page(1e9 + 1)) == (None, TOP)


class TestWentBack:
    """A record whose newest change is older than one seen before."""

    def test_one_old_answer_is_no_matter(self) -> None:
        """It must last."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.answered(page(9), 0.0)
        for now, newest, back in ((2.0, 5, False), (4.0, 9, False), (6.0, 5, False), (65.9, 5, False)):
            assert lists.next_page(now) is not None
            assert lists.answered(page(newest), now) is back

    def test_one_that_lasts_is_said_once_and_looked_at_whole(self) -> None:
        """A minute; then what it has is what there is."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.answered(page(9), 0.0)
        lists.next_page(2.0)
        assert not lists.answered(page(5), 2.0)
        lists.next_page(62.0)
        assert lists.answered(page(5), 62.0)
        assert lists.high_water == 5
        assert lists.next_page(62.1) == SWEEP
        assert not lists.answered(page(5), 62.2)


class TestAhead:
    """The orchestrator's clock was ahead for a while: what was written then stands above what is written now."""

    S = 1_000_000_000

    def page(self, *seconds: int, clock: int, more: str = "") -> JobPage:
        """Jobs that were written at these seconds, by an orchestrator whose clock says *clock*."""
        jobs = page(*(second * self.S for second in seconds)).jobs
        return JobPage(jobs=jobs, next_token=more, clock_ns=clock * self.S)

    def seen(self, first: JobPage) -> Lists:
        """Lists after a sweep of one page."""
        lists = Lists(SMALL)
        lists.next_page(0.0)
        lists.answered(first, 0.001)
        return lists

    def test_a_job_that_it_wrote_hides_nothing(self) -> None:
        """A round of changes goes on behind it, until what was seen before."""
        lists = self.seen(self.page(4000, 990, clock=1000))
        assert lists.high_water == 990 * self.S
        assert lists.next_page(2.0) == TOP
        lists.answered(self.page(4000, 1002, clock=1002, more="t"), 2.001)
        assert lists.next_page(3.0) == SWEEP  # as many as a page may have, from the top
        lists.answered(self.page(4000, 1002, 1001, 990, clock=1003), 3.001)
        assert lists.high_water == 1002 * self.S

    def test_when_it_is_set_back_everything_is_looked_at(self) -> None:
        """What is written now lies below what was seen: a sweep finds it, and nothing is said to have gone back."""
        lists = self.seen(self.page(4000, 3999, clock=4000))
        assert lists.high_water == 4000 * self.S
        lists.next_page(2.0)
        assert not lists.answered(self.page(4000, 400, clock=402), 2.001)
        assert lists.high_water == 400 * self.S
        assert lists.next_page(2.5) == SWEEP

    def test_a_minute_is_no_matter(self) -> None:
        """Nobody's clock is right to the second, and who answers may be another than who writes."""
        assert self.seen(self.page(1059, 990, clock=1000)).high_water == 1059 * self.S

    def test_a_page_of_them_alone_hides_nothing(self) -> None:
        """As many as a page may have: the round goes on behind them, for the clock was right of others."""
        lists = self.seen(self.page(4000, 3990, 990, clock=1000))
        assert lists.next_page(2.0) == TOP
        lists.answered(self.page(4000, 3990, clock=1002, more="t"), 2.001)
        assert lists.next_page(3.0) == SWEEP
        lists.answered(self.page(4000, 3990, 1004, 1003, 1001, clock=1004, more="u"), 3.001)
        assert lists.next_page(4.0) == ReadJobs(limit=SWEEP.limit, next_token="u")
        lists.answered(self.page(1000, 990, clock=1005), 4.001)
        assert lists.high_water == 1004 * self.S

    def test_where_every_job_is_ahead_the_clock_is_wrong(self) -> None:
        """Somebody between us and the orchestrator says when it is."""
        lists = self.seen(self.page(4000, 3999, clock=1000))
        lists.next_page(2.0)
        lists.answered(self.page(4001, 3999, clock=1002), 2.001)
        assert (lists.high_water, lists.next_page(2.5)) == (4001 * self.S, None)
