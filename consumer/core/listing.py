"""What a page of a list comes to: rows that differ from the log are hints, rows that agree are looks.

Pure. What a row says beside the log is `consumer.core.rows`', when lists are read `consumer.core.lists`'.
"""

from collections.abc import Sequence
from typing import Final

from consumer.core import notices
from consumer.core.lists import AHEAD_NS, Lists, agrees_with_clock
from consumer.core.reader import LONG_AGO, Cause, Reader
from consumer.core.registry import Registry
from consumer.core.rows import Row, lay_beside
from consumer.model import REPORTED, BadJob, JobPage, LastUpdate, Snapshot
from consumer.wire.subjects import job_key


class Listing:
    """Takes the pages of lists."""

    def __init__(self, jobs: Registry, lists: Lists) -> None:
        self._jobs: Final = jobs
        self._lists: Final = lists

    def take_page(self, page: JobPage, now: float) -> None:
        """Take a page that was answered at *now*."""
        left_at = self._lists.asked_at
        if page.clock_ns + AHEAD_NS < self._jobs.since_ns and agrees_with_clock(page):
            self._jobs.events.append(notices.began_ahead(self._jobs.since_ns, page.clock_ns))
            # What ended between the setting back and this list is told, too.
            self._jobs.since_ns = page.clock_ns - AHEAD_NS
        for row in page.jobs:
            self._compare(row, now, left_at)
        self._look_at_bad(page.bad, now)
        before = self._lists.high_water
        if self._lists.answered(page, now):
            self._jobs.events.append(notices.record_went_back(self._lists.high_water, before))
            for reader in self._jobs.all():
                reader.tail = None  # what was there may be another history now

    def _compare(self, row: Snapshot, now: float, left_at: float) -> None:
        """Lay a row beside the log: one that differs is a hint, one that agrees a look that found nothing."""
        known = self._jobs.known(job_key(row.job.namespace, row.job.id))
        said = lay_beside(self._jobs.rules, known, row, self._jobs.since_ns)
        is_new = self._lists.sweeps or row.modified_ns > self._lists.high_water
        differs = said is Row.DIFFERS or (said is Row.PERHAPS and is_new)
        if not differs and self._jobs.rules.is_terminal(row.state) and self._jobs.get(row.job.id) is None:
            return  # of all that ever ended there are too many
        reader = self._jobs.reader(row.job.id)
        if reader is None:
            return
        reader.name_by(row.job)
        if differs:
            self._take_differing(reader, row, known, now, left_at)
        else:
            self._take_agreeing(reader, row, now, left_at)

    def _take_agreeing(self, reader: Reader, row: Snapshot, now: float, left_at: float) -> None:
        reader.listed_at = LONG_AGO
        if not self._jobs.rules.is_terminal(row.state):
            self._jobs.set_open(reader, is_open=True)
        # One that shows more entries than were seen is no look: whatever they are, the job's turn tells.
        is_look = row.revision <= self._jobs.seen(reader) and reader.claim.kind is None
        if not is_look:
            reader.shown_at = left_at
        if not reader.waits:
            return
        if is_look and reader.hinted_at < left_at:
            self._jobs.schedule.drop(reader)
            reader.looked_at = max(reader.looked_at, left_at)
            reader.agreed_at = now
            self._jobs.after_look(reader, now)
        else:
            self._jobs.plan(reader, now)

    def _take_differing(
        self, reader: Reader, row: Snapshot, known: LastUpdate | None, now: float, left_at: float
    ) -> None:
        reader.shown_at = left_at
        if reader.halted is not None and not self._lists.sweeps:
            return  # it stands still: whatever comes after waits for an operator, not for us
        if known is not None and known.source != REPORTED and (known.version, known.state) != (row.version, row.state):
            reader.listed_at = now
        if not reader.waits:
            # Its answer, or what is being written, may be all that the row says; if not, it is read once more.
            if left_at > reader.looked_at:
                reader.hint(left_at, said=max(row.revision, reader.seen + 1 if reader.busy else 0))
        elif not reader.failures and reader.looked_at <= left_at:
            self._jobs.schedule.put(reader, now, Cause.ROW)

    def _look_at_bad(self, bad: Sequence[BadJob], now: float) -> None:
        """What a list cannot tell of a job, a read of its own may; if not, that error is the job's alone."""
        for one in bad:
            if not one.id or not (self._lists.sweeps or one.modified_ns > self._lists.high_water):
                continue
            reader = self._jobs.reader(one.id)
            if reader is None:
                continue
            reader.named = True
            if reader.waits and not reader.failures:
                self._jobs.schedule.put(reader, now, Cause.ROW)
