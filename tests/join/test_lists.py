"""Which page of which list is read when: `consumer.join.lists`. Times are numbers."""

from consumer.join import JoinSettings, ReadJobs
from consumer.join.lists import Lists
from consumer.model import JobPage
from tests.join.test_join import snapshot

SMALL = JoinSettings(list_limit=2, full_limit=5)
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
        assert lists.take(0.0) == SWEEP
        lists.answered(page(9, more="t"), 4.0, begun=True)
        lists.want_all()
        lists.hurry(4.0)
        assert lists.take(83.9) is None
        assert lists.wake_at() == 84.0
        assert lists.take(84.0) is not None

    def test_with_a_hundred_thousand_jobs_lists_take_a_twentieth(self) -> None:
        """Four seconds a page, a day long, with a gap every ten minutes."""
        lists, now, busy, gap = Lists(JoinSettings()), 0.0, 0.0, 0.0
        while now < 86_400:
            if now >= gap:
                lists.want_all()
                gap = now + 600
            if lists.take(now) is None:
                due = lists.wake_at()
                assert due is not None
                now = min(max(due, now), gap) if gap > now else due
                continue
            now, busy = now + 4.0, busy + 4.0
            lists.answered(page(*range(100, 105), more="t"), now, begun=True)
        assert 0.045 < busy / now <= 0.05


class TestSweep:
    """All pages, without keeping what is new waiting."""

    def test_it_takes_turns_with_what_has_changed(self) -> None:
        """A sweep of a huge orchestrator may take an hour: a new job must not wait for its end."""
        lists = Lists(SMALL)
        now, asked = 0.0, []
        for number in range(6):
            read = lists.take(now)
            assert read is not None
            asked.append((read.limit, read.next_token))
            more = f"t{number}" if read.limit == 5 and number < 4 else ""
            lists.answered(page(9, 8, more=more), now + 0.01, begun=True)
            now += 2.0
        assert asked == [(5, ""), (2, ""), (5, "t0"), (2, ""), (5, "t2"), (2, "")]

    def test_its_top_is_what_has_changed(self) -> None:
        """So no other page is asked for at the same time."""
        lists = Lists(SMALL)
        lists.take(0.0)
        lists.answered(page(9, 8), 0.001, begun=True)
        assert (lists.high_water, lists.take(0.5), lists.take(1.1)) == (9, None, TOP)

    def test_what_is_missed_meanwhile_is_the_next_ones(self) -> None:
        """A gap within a sweep: it goes on, and another follows."""
        lists = Lists(SMALL)
        lists.take(0.0)
        lists.want_all()
        lists.answered(page(9), 0.001, begun=True)
        assert lists.take(0.1) == SWEEP

    def test_a_page_too_large_is_halved_from_the_top(self) -> None:
        """A token holds the size it was given for. The rounds of changes shrink apart."""
        lists = Lists(SMALL)
        lists.take(0.0)
        lists.answered(page(9, more="t"), 0.0, begun=True)
        assert lists.take(0.0) == ReadJobs(limit=5, next_token="t") or lists.take(1.1) is not None
        lists.failed(1.1, too_large=True)
        read = lists.take(2.2)
        assert read is not None
        assert read.next_token == ""


class TestHeard:
    """Since when everything was heard: the newest of the first list that was asked for while we listened."""

    def test_a_list_from_before_the_gap_does_not_count(self) -> None:
        """It may be older than what was missed."""
        lists = Lists(SMALL)
        lists.take(0.0)
        lists.want_all()
        lists.answered(page(9), 0.001, begun=True)
        assert lists.heard_from_ns is None
        lists.take(1.0)
        lists.answered(page(12), 1.001, begun=True)
        assert lists.heard_from_ns == 12

    def test_a_list_that_failed_does_not_count(self) -> None:
        """Its answer never came; the next one's does."""
        lists = Lists(SMALL)
        lists.take(0.0)
        lists.failed(0.1, too_large=False)
        lists.take(1.2)
        lists.answered(page(7), 1.3, begun=True)
        assert lists.heard_from_ns == 7


class TestWentBack:
    """A record whose newest change is older than one seen before."""

    def test_one_old_answer_is_no_matter(self) -> None:
        """It must last."""
        lists = Lists(SMALL)
        lists.take(0.0)
        lists.answered(page(9), 0.0, begun=True)
        for now, newest, back in ((2.0, 5, False), (4.0, 9, False), (6.0, 5, False), (15.9, 5, False)):
            assert lists.take(now) is not None
            assert lists.answered(page(newest), now, begun=True) is back

    def test_one_that_lasts_is_said_once_and_looked_at_whole(self) -> None:
        """Ten seconds; then what it has is what there is."""
        lists = Lists(SMALL)
        lists.take(0.0)
        lists.answered(page(9), 0.0, begun=True)
        lists.take(2.0)
        assert not lists.answered(page(5), 2.0, begun=True)
        lists.take(12.0)
        assert lists.answered(page(5), 12.0, begun=True)
        assert lists.high_water == 5
        assert lists.take(12.1) == SWEEP
        assert not lists.answered(page(5), 12.2, begun=True)
