"""When all jobs are listed, and which page of what: never more than a share of the orchestrator's time.

Pure: the time and the answers' outlines go in, the page to read next comes out. What a list says of a job is
`consumer.core.readers`'s. A list costs the orchestrator by all it has ever stored, whatever page is asked for
(design/bacalhau.md 6.3): so each page is followed by a pause that is a multiple of what it took.
"""

from collections import deque
from typing import Final

import msgspec

from consumer.core.options import ReadingOptions
from consumer.core.reads import ReadJobs
from consumer.model import JobPage

NEVER: Final = float("inf")
ALWAYS: Final = float("-inf")


PATIENCE_MAX: Final = 64

GROWTH: Final = 4
"""So many times more jobs are asked for after a page of nothing but news."""

LAST: Final = 5
"""What a list costs the orchestrator is told by the quickest of so many: the others waited for something else."""
SLOWER_MAX: Final = 5.0
"""But so many times that is the most that one may take without being paid for."""

AHEAD_NS: Final = 60_000_000_000
"""A job that was written so much later than the orchestrator's clock says now was written by a clock that was wrong."""


class Limit:
    """How many jobs a page may have: half as many after one that was too large, and after rounds that went well more.

    After a relapse it takes twice as many rounds as before until it is tried again.
    """

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._well = 0
        self._patience = 1
        self._grown = False
        self.now = most

    def shrink(self, asked: int) -> None:
        """A page of *asked* jobs was too large."""
        self.now = max(asked // 2, 1)
        if self._grown:
            self._patience = min(self._patience * 2, PATIENCE_MAX)
        self._grown = False
        self._well = 0

    def end_round(self) -> None:
        """All pages of a round were answered."""
        self._well += 1
        if self.now < self._most and self._well >= self._patience:
            self.now = min(self.now * 2, self._most)
            self._grown = True
            self._well = 0


class Lists:
    """Two kinds of rounds, a page at a time, newest first: of what has changed, and (the sweep) of all there is.

    A round of changes begins with a small page. One of nothing but news is asked for again from the top, four times
    larger: a list costs by all that is stored, and little by its page. A sweep may take an hour at a huge orchestrator;
    so that a change still is found meanwhile, the two take turns.
    """

    def __init__(self, pacing: ReadingOptions) -> None:
        self._pacing: Final = pacing
        self._asked: ReadJobs | None = None
        self._asked_at = 0.0
        self._of_sweep = False
        self._free_at = ALWAYS  # no page before: the share
        self._retry_at = ALWAYS  # no page before: the last one failed
        self._tries = 0
        """Pages in a row that failed, since everything was wanted last."""
        self._ended_at: float | None = None
        self._saved_s = 0.0
        """The orchestrator's time that lists might have taken and did not; below zero until a pause has paid for it."""
        self._failures = 0
        self._took_s: Final = {of_sweep: deque[float](maxlen=LAST) for of_sweep in (False, True)}
        """What the last pages of either kind took, that were answered."""
        self._list_limit: Final = Limit(pacing.full_limit)
        self._full_limit: Final = Limit(pacing.full_limit)
        # -- the round of changes: pages until one reaches what was seen before --
        self._first_limit = pacing.list_limit
        self._changes: ReadJobs | None = None
        self._changes_due = ALWAYS
        self._newest = 0
        self._clock_agreed = False
        """Whether any job so far was written by the time that the orchestrator's clock said."""
        # -- the sweep --
        self._sweep: ReadJobs | None = None
        self._sweep_wanted = True
        self._sweep_due = NEVER
        # -- what the pages said --
        self._lower_since: float | None = None
        self.high_water = 0
        """The newest ModifyTime up to which all changes were seen (ns)."""
        self.count = 0
        """Pages asked for, so far."""
        self._seen_from: float | None = None
        """When the last page left that showed what is newest, and was answered."""
        self._found_within_s = 0.0
        self.quiet_at = ALWAYS
        """When the last round of changes left: a job that it does not show has not changed since the round before."""
        self.took_s = 0.0
        """What the last page took that was answered."""

    # -- what is wanted -----------------------------------------------------------------------------------------------

    def want_all(self) -> None:
        """Something may have been missed: everything is looked at, and first what is newest.

        Whoever says so may know that the orchestrator is back: a list that failed before is asked for again at once, as
        far as the share allows.
        """
        self._retry_at, self._tries = ALWAYS, 0
        self._sweep_wanted = True
        self._changes_due = ALWAYS
        self._sweep_due = NEVER

    def hold(self) -> None:
        """Nothing is wanted until `want_all`: a list from before somebody listens says nothing of what is missed."""
        self._sweep_wanted = False
        self._changes_due = self._sweep_due = NEVER

    def want_room(self) -> None:
        """Some job could not be taken: all are looked at again, with the next list."""
        self._sweep_due = min(self._sweep_due, self._changes_due)

    def want_none(self) -> None:
        """No list until `want_all`, and nothing was missed so far."""
        self._sweep_wanted = False
        self._sweep_due = NEVER

    def list_soon(self, now: float) -> None:
        """Some job has changed, and nobody knows which: look as soon as the share allows."""
        self._changes_due = min(self._changes_due, max(now, self._may_at))

    # -- pages --------------------------------------------------------------------------------------------------------

    def next_page(self, now: float) -> ReadJobs | None:
        """The page to read now, if there is one. One at a time."""
        if self._asked is not None or now < self._may_at:
            return None
        if now >= self._sweep_due:
            self._sweep_wanted = True
            self._sweep_due = NEVER  # until this one is done
        changes_due = self._pacing.lists and (self._changes is not None or now >= self._changes_due)
        sweep_due = self._sweep_wanted or self._sweep is not None
        if not changes_due and not sweep_due:
            return None
        within = self._sweep is not None and self._of_sweep  # at its top there is what has changed, too
        self._of_sweep = sweep_due and not (changes_due and within)
        read = self._next_of_sweep() if self._of_sweep else self._changes or self._first_of_changes()
        self._asked, self._asked_at = read, now
        self.count += 1
        return read

    def _first_of_changes(self) -> ReadJobs:
        return ReadJobs(limit=min(self._first_limit, self._list_limit.now))

    def _next_of_sweep(self) -> ReadJobs:
        if self._sweep is not None:
            return self._sweep
        self._sweep_wanted = False  # what is missed from now on is the next one's
        return ReadJobs(limit=self._full_limit.now)

    def wake_at(self) -> float | None:
        """When `next_page` may have one; None: not before something happens."""
        if self._asked is not None:
            return None
        if self._sweep_wanted or self._sweep is not None or self._changes is not None:
            return self._may_at
        due = min(self._sweep_due, self._changes_due if self._pacing.lists else NEVER)
        return None if due == NEVER else max(self._may_at, due)

    @property
    def asked_at(self) -> float:
        """When the page left that is being read."""
        return self._asked_at

    @property
    def _may_at(self) -> float:
        """No page leaves before."""
        return max(self._free_at, self._retry_at)

    @property
    def sweeps(self) -> bool:
        """Whether the page that is being read is one of a sweep."""
        return self._of_sweep

    def found_within_s(self, now: float) -> float:
        """Seconds within which a change is found that no frame tells of: from one list to the answer of the next.

        By the last two of them; more, while the next one does not come. 0: there was no list yet, or there shall be
        none.
        """
        if self._seen_from is None or not self._pacing.lists:
            return 0.0
        return max(self._found_within_s, now - self._seen_from)

    def answered(self, page: JobPage, now: float) -> bool:
        """Take a page that has been looked at.

        Gives whether the record has gone back: its newest change is older than what was seen, and has been for long.
        """
        read, self._asked = self._asked, None
        self._failures = self._tries = 0
        self.took_s = now - self._asked_at
        self._free_at = now + self._spend(now, self._cost_s(now))
        went_back = False
        self._clock_agreed = self._clock_agreed or agrees_with_clock(page)
        if read is None or not read.next_token:
            self._found_within_s = 0.0 if self._seen_from is None else now - self._seen_from
            self._seen_from = self._asked_at
            self._newest = newest_of(page, clock_agreed=self._clock_agreed)
            if self._clock_agreed and 0 < page.clock_ns < self.high_water - AHEAD_NS:
                # The clock was ahead for a while: what is written now lies below what was written then.
                self.high_water, self._sweep_wanted = self._newest, True
            went_back = self._is_back(now)
        if self._of_sweep:
            self._end_of_sweep_page(read, page, now)
        else:
            self._end_of_changes_page(read, page, now)
        return went_back

    def _end_of_sweep_page(self, read: ReadJobs | None, page: JobPage, now: float) -> None:
        if read is not None and not read.next_token:
            # Its top is what a round of changes would have read; what lies between is the sweep's.
            self._seen(now)
        self._sweep = _following(read, page)
        if self._sweep is None:
            self._full_limit.end_round()
            self._sweep_due = min(self._sweep_due, now + self._pacing.full_every_s)  # sooner, if a job had no room

    def _end_of_changes_page(self, read: ReadJobs | None, page: JobPage, now: float) -> None:
        times = _times(page)
        following = _following(read, page) if min(times, default=0) > self.high_water else None
        if read is None or following is None:
            news = sum(time > self.high_water for time in times)
            if read is not None and not read.next_token:
                # As many as this time, but no more than that: a busy minute is no reason to ask for much for ever.
                less = max(read.limit // GROWTH, self._pacing.list_limit)
                self._first_limit = less if news < less else max(read.limit, self._pacing.list_limit)
            self._list_limit.end_round()
            if self._newest >= self.high_water and self._seen_from is not None:  # else it is an old answer
                self.quiet_at = self._seen_from
            self._seen(now)
        elif read.limit < self._list_limit.now:
            self._changes = ReadJobs(limit=min(read.limit * GROWTH, self._list_limit.now))
            if -self._saved_s <= self._pacing.list_debt_s:
                self._free_at = now  # the rest of the same look: the pause after it pays for both
        else:
            self._changes = following

    def _seen(self, now: float) -> None:
        self.high_water = max(self.high_water, self._newest)
        self._changes, self._changes_due = None, now + self._pacing.list_every_s

    def _is_back(self, now: float) -> bool:
        if self._newest >= self.high_water:
            self._lower_since = None
        elif self._lower_since is None:
            self._lower_since = now
        elif now - self._lower_since >= self._pacing.claim_s:
            self._lower_since, self.high_water, self._sweep_wanted = None, self._newest, True
            return True
        return False

    def failed(self, now: float, *, too_large: bool = False, is_untouched: bool = False) -> None:
        """The page was not answered: it is asked for again later, a smaller one if it was *too_large*.

        It may have cost as much as any other, so as long is paused, unless it *is_untouched*: the orchestrator has not
        got it. And longer with each that fails in a row.
        """
        read, self._asked = self._asked, None
        self._asked_at = now if is_untouched else self._asked_at
        pacing = self._pacing
        self._failures += not too_large  # a smaller one is another question
        self._tries += not too_large
        # One that was given up for once may tell of a moment's freeze, and not of what lists cost.
        at_most = pacing.retry_max_s * 2.0 ** min(max(self._failures - 1, 0), 30)
        self._free_at = now + self._spend(now, self._lasted_s(now), at_most)
        self._retry_at = now + pacing.retry_after(self._tries)
        if too_large and self._of_sweep:
            self._full_limit.shrink(self._full_limit.now if read is None else read.limit)
            self._sweep, self._sweep_wanted = None, True  # a token holds its limit: from the first page
        elif too_large:
            self._list_limit.shrink(self._list_limit.now if read is None else read.limit)
            self._changes = None
        elif self._of_sweep and self._sweep is None:
            self._sweep_wanted = True
        self._of_sweep = not self._of_sweep  # so that the same kind comes next

    def _lasted_s(self, now: float) -> float:
        """How long the page has lasted that ends now.

        What took longer than a list may was not the orchestrator: we stood still meanwhile.
        """
        return min(now - self._asked_at, self._pacing.list_max_s)

    def _cost_s(self, now: float) -> float:
        """What the page that is answered now has cost the orchestrator, as far as that can be seen from here.

        Each list decodes and sorts the same jobs, so the quickest of the last ones shows it. Where one lasts longer, it
        has waited: for a core that others had, for the network, or for us. Twenty times such a wait (a list lasted 1 s
        while ten large jobs were stored, on 1.9.3, and 0.2 s after that) kept changes without a frame unseen for 20 s.
        """
        last, lasted_s = self._took_s[self._of_sweep], self._lasted_s(now)
        last.append(lasted_s)
        return max(min(last), lasted_s / SLOWER_MAX)

    def _spend(self, now: float, cost_s: float, at_most: float = NEVER) -> float:
        """The pause that keeps the page that ends now, and costs *cost_s*, within the share, but for *at_most*.

        What quick lists have left of their share is kept, up to one list of the longest: so a single slow one is paid
        for already, and changes without a frame are not looked for 20 times as long as it took.
        """
        pacing = self._pacing
        if self._ended_at is not None:
            idle_s = max(self._asked_at - self._ended_at, 0.0)
            self._saved_s = min(self._saved_s + idle_s / pacing.list_share, pacing.list_max_s)
        self._ended_at = now
        self._saved_s -= cost_s
        pause_s = min(pacing.list_share * max(-self._saved_s, 0.0), at_most)
        self._saved_s = max(self._saved_s, -pause_s / pacing.list_share)
        return pause_s


def _times(page: JobPage) -> list[int]:
    """When the page's jobs were written, as far as that can be read."""
    return [job.modified_ns for job in page.jobs] + [job.modified_ns for job in page.bad if job.modified_ns]


def newest_of(page: JobPage, *, clock_agreed: bool) -> int:
    """When the last of its jobs was written, but for those that a clock wrote which was ahead (ns; 0: it has none).

    They stand at the top of every list for as long as it was ahead, and would hide what has changed since. Where no
    job was ever written by then, *clock_agreed* is false: it is `clock_ns` that is wrong.
    """
    times = _times(page)
    newest = max(times, default=0)
    if not clock_agreed or not page.clock_ns or newest <= page.clock_ns + AHEAD_NS:
        return newest
    return max((time for time in times if time <= page.clock_ns + AHEAD_NS), default=page.clock_ns)


def agrees_with_clock(page: JobPage) -> bool:
    """Whether any of its jobs was written by then: otherwise it is `clock_ns` that is wrong."""
    return bool(page.clock_ns) and any(time <= page.clock_ns + AHEAD_NS for time in _times(page))


def _following(read: ReadJobs | None, page: JobPage) -> ReadJobs | None:
    """The page behind *page*, if there is one."""
    if read is None or not page.next_token or not (page.jobs or page.bad):
        return None
    return msgspec.structs.replace(read, next_token=page.next_token)
