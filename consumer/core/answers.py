"""What the answers about a job come to: events, claims against the log, the next page.

Pure. Every step of an event comes from a history. What a history says beside the log is `consumer.core.history`'s, when
a job is read again `consumer.core.reader`'s.
"""

from typing import Final

import msgspec

from consumer.core import notices
from consumer.core.claim import ClaimKind
from consumer.core.history import Contradicted, Joined, Old, Part, correct, ended_before, lay_beside
from consumer.core.reader import LONG_AGO, Cause, Last, Reader
from consumer.core.reads import Missing, OrchestratorRead, ReadHistory, ReadJob
from consumer.core.registry import Registry
from consumer.core.requests import Requests
from consumer.faults import OrchestratorFault, Scope
from consumer.model import REPORTED, START, HistoryPage, JobDocument, ReadCause, Record, Snapshot, Step

UNREADABLE_AFTER: Final = 5
"""A job whose reads failed so often in a row, over some 15 s, is announced."""


class Answers:
    """Takes the orchestrator's answers about single jobs."""

    def __init__(self, jobs: Registry, requests: Requests) -> None:
        self._jobs: Final = jobs
        self._requests: Final = requests

    def take_answer(
        self, reader: Reader, read: ReadHistory | ReadJob, answer: HistoryPage | JobDocument | Missing, now: float
    ) -> None:
        """Take what was answered to *read* of the job."""
        reader.end_failures()
        if isinstance(answer, Missing):
            self._take_missing(reader, now)
        elif isinstance(answer, JobDocument):
            self._take_job(reader, read, answer, now)
        else:
            assert isinstance(read, ReadHistory)
            self._take_page(reader, read, answer, now)

    def fail(self, reader: Reader, kind: OrchestratorFault, now: float, scope: Scope) -> None:
        """Take an error of the given kind, which says something of *scope*."""
        if scope is Scope.READ and not reader.named:
            self._ask_once_more(reader, now)
        else:
            reader.asked_once = True
            self._fail(reader, now, kind, scope)

    def _take_missing(self, reader: Reader, now: float) -> None:
        known = self._jobs.known_of(reader)
        if known is not None and known.source != REPORTED:
            self._count_claim(reader, ClaimKind.UNKNOWN, now)
            return
        reader.claim.end()
        self._jobs.set_open(reader, is_open=False)
        self._ask_once_more(reader, now)

    def _ask_once_more(self, reader: Reader, now: float) -> None:
        """The record does not know the job, or does not give it, and the log has nothing of it.

        A job that only a frame has named is asked for twice: a frame follows the write, and so may an answer that is a
        little old. A hint that came after the read left is asked for too.
        """
        reader.flying = False
        if reader.hinted_at <= reader.looked_at:
            reader.drop_hints()
        if reader.is_asking or not (reader.named or reader.asked_once):
            self._jobs.schedule.put(reader, now + self._jobs.options.retry_s, Cause.HINT)
        else:
            self._jobs.forget(reader)
        reader.asked_once = True

    def _take_job(self, reader: Reader, read: OrchestratorRead, document: JobDocument, now: float) -> None:
        """The job itself: its identity, and the beginning of its latest version's history."""
        assert isinstance(read, ReadJob)
        job, history = document.job, document.history
        reader.name_by(job.job)
        if not history.entries:
            self._take_job_without_history(reader, job, read.cause, now)
        elif job.version > 1 or history.items >= self._jobs.options.included_rows:
            self._requests.go_on(self._requests.of_job(reader))  # it has lived before, or has more
        else:
            self._take_history(reader, Part.after(None, history.entries), read.cause, now)

    def _take_job_without_history(self, reader: Reader, job: Snapshot, cause: ReadCause, now: float) -> None:
        """Every job since 1.5 has a history: so this may be an old answer. A job from before is joined as it is."""
        assert reader.key is not None
        if self._jobs.known(reader.key) is not None:
            self._count_claim(reader, ClaimKind.NO_HISTORY, now)
            return
        reader.last = Last(job.version, job.state, self._jobs.rules.is_terminal(job.state))
        if not self._repeated(reader, ClaimKind.NO_HISTORY, now):
            self._doubt(reader, now)
            return
        reader.seen = job.revision
        if not self._jobs.is_left_out(job):
            step = Step(
                version=job.version, revision=job.revision, state=job.state, message=job.message, time=job.modified
            )
            record = Record(key=reader.key, job=job.job, after=START, steps=(step,), flags=("joined",), cause=cause)
            self._emit(reader, record)
        reader.drop_hints()
        self._jobs.set_open(reader, is_open=not reader.last.ends)
        self._jobs.after_look(reader, now)

    def _take_page(self, reader: Reader, read: ReadHistory, page: HistoryPage, now: float) -> None:
        options = self._jobs.options
        pages = len(reader.pages)
        reader.pages.extend(page.entries)
        if page.entries:  # from an empty page on there would be nothing to lay beside the log
            reader.last_page = read.next_token, pages
        # An open job's token is a cursor: an empty page gives the same one again (design/bacalhau.md 6.3).
        is_full = bool(page.next_token) and page.items >= options.history_limit
        first = reader.tail.entries if reader.tail is not None else 0
        if is_full and (page.next_token == read.next_token or first + len(reader.pages) > options.history_max):
            self._fail(reader, now, "endless", Scope.READ)
        elif is_full:
            self._requests.go_on(msgspec.structs.replace(read, next_token=page.next_token))
        elif reader.pages or first:
            part = Part.after(reader.tail, reader.pages)
            if reader.pages:
                reader.tail = part.tail(*reader.last_page)
            self._take_history(reader, part, read.cause, now)
        else:
            # Bacalhau before 1.8 answers an unknown job's history with an empty page, not 404. The job itself decides.
            self._requests.go_on(ReadJob(job=read.job, namespace=read.namespace, cause=read.cause))

    def _take_history(self, reader: Reader, part: Part, cause: ReadCause, now: float) -> None:
        assert reader.key is not None
        assert reader.identity is not None
        known = self._jobs.known(reader.key)
        found = lay_beside(self._jobs.rules, known, part)
        if found is None:  # what was read on from does not reach back far enough: the whole
            reader.tail, reader.pages = None, []
            self._requests.go_on(self._requests.of_job(reader))
            return
        if isinstance(found, Old):
            if not self._repeated(reader, ClaimKind.SHORTER, now):
                self._doubt(reader, now)
                return
            found = correct(known, part)
        reader.seen, reader.last = part.count, Last(*part.last, self._jobs.rules.is_terminal(part.last[1]))
        prompt = reader.was_prompt()
        if prompt is not None:
            self._jobs.backlog.saw(prompt=prompt)
        self._jobs.set_open(reader, is_open=not reader.last.ends)
        if isinstance(found, Joined) and not found.steps:
            reader.agreed_at = now
            self._weigh_lists(reader, now)
            self._jobs.after_look(reader, now)
            return
        reader.claim.end()  # the answer says no less than the log, whatever comes of its steps
        if isinstance(found, Contradicted):
            self._correct(reader, found, cause)
        elif known is not None or not ended_before(self._jobs.rules, part, self._jobs.since_ns):
            record = Record(key=reader.key, job=reader.identity, after=found.after, steps=found.steps, cause=cause)
            self._emit(reader, record)
        self._jobs.after_look(reader, now)

    def _weigh_lists(self, reader: Reader, now: float) -> None:
        """The history agrees with the log. If lists have long said otherwise, that is announced."""
        if now - reader.listed_at >= self._jobs.options.claim_s:
            reader.claim.end()
        elif self._repeated(reader, ClaimKind.LISTED, now):
            reader.listed_at = LONG_AGO
            self._jobs.events.append(notices.unreadable(reader.name, reader.key, ClaimKind.LISTED))

    def _repeated(self, reader: Reader, kind: ClaimKind, now: float) -> bool:
        options = self._jobs.options
        return reader.claim.repeated(kind, now, answers=options.claim_answers, seconds=options.claim_s)

    def _count_claim(self, reader: Reader, kind: ClaimKind, now: float) -> None:
        """The answer says less than the log has, which may be an old answer. Believed, it is announced."""
        if not self._repeated(reader, kind, now):
            self._doubt(reader, now)
            return
        known = self._jobs.known_of(reader)
        assert known is not None
        reader.drop_hints()
        self._jobs.set_open(reader, is_open=False)
        if kind is ClaimKind.UNKNOWN:
            self._jobs.events.append(notices.gone(reader.name, reader.key, known))
        else:
            self._jobs.events.append(notices.unreadable(reader.name, reader.key, kind))
        self._jobs.after_look(reader, now)

    def _doubt(self, reader: Reader, now: float) -> None:
        """Looked at again, in turn at the latest, until it says what it should or is believed."""
        self._jobs.set_open(reader, is_open=True)
        self._jobs.after_look(reader, now)

    def _correct(self, reader: Reader, found: Contradicted, cause: ReadCause) -> None:
        assert reader.key is not None
        assert reader.identity is not None
        if not found.reported:
            self._jobs.events.append(notices.diverged(reader.name, reader.key, found.after, found.present))
        reader.halted = None  # it stands elsewhere from here on
        reader.drop_hints()
        self._emit(
            reader,
            Record(
                key=reader.key,
                job=reader.identity,
                after=found.after,
                steps=(found.present,),
                corrected=True,
                cause=cause,
            ),
        )

    def _emit(self, reader: Reader, record: Record) -> None:
        """Put *record* on its way. A step that the rules rejected stands in quarantine already."""
        if record.steps[0] != reader.halted:
            reader.busy = True
            self._jobs.events.append(record)

    def _fail(self, reader: Reader, now: float, kind: OrchestratorFault, scope: Scope) -> None:
        due = reader.failed(now, self._jobs.options, scope)
        if scope is Scope.READ:
            reader.tail = None  # its token may be what fails: the next read is of the whole history
            if reader.failures == UNREADABLE_AFTER:
                self._jobs.events.append(notices.unreadable(reader.name, reader.key, kind))
        self._jobs.schedule.put(reader, due, reader.cause)
