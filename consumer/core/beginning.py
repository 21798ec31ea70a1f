"""Where a new log begins: with the newest change that the orchestrator has stored by then.

Pure. Who asks for the list, and agrees with the log and with other daemons, is `consumer.daemon.beginning`; why it is
the orchestrator's time and not ours is in decision 0002.
"""

from typing import Final

import msgspec

from consumer.core.lists import agrees_with_clock, newest_of
from consumer.model import JobPage

APART_NS: Final = 3_600 * 10**9
"""A time of the orchestrator that is further ahead of our clock than clocks are apart."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A beginning to agree on (ns since 1970). *ahead_ns*: what the list says, where our clock stands in for it."""

    since_ns: int
    ahead_ns: int | None = None


def propose(page: JobPage, now_ns: int) -> Proposal:
    """Give the beginning by *page*, the top of a list, newest first. *now_ns*: our clock."""
    newest_ns = newest_of(page, clock_agreed=agrees_with_clock(page))
    if is_ahead(newest_ns, now_ns):
        return Proposal(since_ns=now_ns, ahead_ns=newest_ns)
    return Proposal(since_ns=newest_ns)


def is_ahead(time_ns: int, now_ns: int) -> bool:
    """Whether *time_ns* is further ahead of our clock than clocks are apart: one of them is wrong."""
    return time_ns > now_ns + APART_NS


def told_from(since_ns: int, backfill_ns: int | None) -> int:
    """Give the time from which finished jobs are told, so long before the beginning; None: all of them, 0."""
    return 0 if backfill_ns is None else max(since_ns - backfill_ns, 0)
