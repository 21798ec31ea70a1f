"""Before a new log has a beginning: the orchestrator is asked how new its record is, and the log agreed with.

No core reads the record before that; reports are followed meanwhile, by a session of their own. The beginning itself is
`consumer.core.beginning`'s.
"""

import asyncio
from typing import Final

import structlog

from consumer.core.beginning import is_ahead, propose
from consumer.core.options import ReadingOptions
from consumer.core.reads import ReadJobs
from consumer.daemon.carry import Watcher, tell_failed
from consumer.errors import OrchestratorError, UnreachableError
from consumer.model import JobPage
from consumer.ports import Answered, Beginning, Clock, Orchestrator
from consumer.wire.decoding import time_of

log = structlog.get_logger()


class BeginningAsker:
    """Asks one orchestrator, and the log."""

    def __init__(
        self, orchestrator: Orchestrator, beginning: Beginning, options: ReadingOptions, clock: Clock, watcher: Watcher
    ) -> None:
        self._orchestrator: Final = orchestrator
        self._beginning: Final = beginning
        self._options: Final = options
        self._clock: Final = clock
        self._watcher: Final = watcher

    async def agree(self) -> None:
        """Ask until both have answered: then the log has a beginning."""
        while True:
            page = await self._first_page()
            proposal = propose(page, self._now_ns())
            try:
                since_ns = await self._beginning.agree(proposal.since_ns)
            except UnreachableError as error:
                log.warning("log.beginning_waits", reason=str(error))
                await asyncio.sleep(self._options.list_every_s)
                continue
            if proposal.ahead_ns is not None:
                step = "look at the orchestrator's clock; our own is taken in its place"
                _tell(proposal.ahead_ns, self._now_ns(), step)
            log.info("log.begins", since_ns=since_ns)
            return

    async def _first_page(self) -> JobPage:
        options, limit, failures = self._options, self._options.list_limit, 0
        while True:
            read, started_at = ReadJobs(limit=limit), self._clock.now()
            try:
                page = await self._orchestrator.jobs(read)
            except OrchestratorError as error:
                tell_failed(read, error)
                self._watcher.answered([Answered(read, error, started_at)], error.kind)
                limit = max(limit // 2, 1) if error.kind == "too-large" else limit
                await asyncio.sleep(max(options.pause_after(failures), error.retry_after_s or 0.0))
                failures += 1
                continue
            self._watcher.answered([Answered(read, page, started_at)], None)
            return page

    def _now_ns(self) -> int:
        return int(self._clock.wall() * 1e9)


def tell_if_ahead(since_ns: int, now_ns: int, format_subject: str) -> None:
    """Say of a log whose beginning is far ahead of our clock that what ends until then is left out."""
    if is_ahead(since_ns, now_ns):
        _tell(
            since_ns,
            now_ns,
            "look at the orchestrator's clock, and at ours; if they are right now, remove the log's entry "
            f"{format_subject} and start again: it then begins with the next list (scan.backfill: earlier)",
        )


def _tell(told_ns: int, now_ns: int, next_step: str) -> None:
    log.warning(
        "log.beginning_ahead",
        beginning=str(time_of(told_ns)),
        our_clock=str(time_of(now_ns)),
        reason="jobs that end before the log's beginning are left out, and it is more than an hour ahead of our clock",
        next_step=next_step,
    )
