"""What Bacalhau's messages say of a job's record: how many entries it has, or may soon have. Hints, and nothing else.

Pure. A frame never becomes an event and never says whose a job is (design/design.md 6.3).
"""

from typing import Final

import msgspec

from consumer.core.reader import Reader
from consumer.core.registry import Registry
from consumer.model import Frame, FrameKind, JobKey, JobStateType, Snapshot
from consumer.wire.subjects import job_key

_ENDS: Final = (FrameKind.RUN_RESULT, FrameKind.COMPUTE_ERROR)


class Execution(msgspec.Struct, frozen=True, gc=False):
    """What an AskForBid said: of which job, of which version, and how many entries its record has once it runs.

    *key* is where the log would have the job if the frame told the truth about its namespace.
    """

    job: str
    key: JobKey
    version: int
    runs_at: int


class FrameHints:
    """Takes frames, remembers which execution is of which job, and hints at the jobs' readers."""

    def __init__(self, jobs: Registry) -> None:
        self._jobs: Final = jobs
        self._executions: Final[dict[str, Execution]] = {}

    @property
    def executions_known(self) -> int:
        """Executions whose job is remembered."""
        return len(self._executions)

    def take_frame(self, frame: Frame, now: float) -> bool:
        """Take a frame as the hint that it is. False: nobody can tell which job it is of, and only a list may."""
        self._jobs.counts.frames += 1
        if frame.snapshot is not None:
            self._ask_for_bid(frame, frame.snapshot, now)
            return True
        run = self._executions.get(frame.execution)
        name = frame.job or (run.job if run is not None else "")
        if not name:
            self._jobs.counts.unknown_executions += 1  # the AskForBid was before us
            return False
        if frame.accepted:
            return True  # the approval follows, and says more
        reader = self._jobs.reader(name, run.key if run is not None else None)
        if reader is not None:
            self._take_message(reader, frame, run, now)
        return True

    def _take_message(self, reader: Reader, frame: Frame, run: Execution | None, now: float) -> None:
        """A message of the execution *run* (None: its AskForBid was not heard): what it says of the record's length."""
        at, last = self._jobs.seen(reader), self._jobs.last(reader)
        if last is not None and last.ends and run is not None and run.version <= last.version:
            self._jobs.forget(reader)  # that life has ended
            return
        runs_at = run.runs_at if run is not None else 0
        if frame.kind is FrameKind.BID_ACCEPTED:
            said = runs_at or at + 1
            if said > at:
                self._jobs.hint(reader, now, said=said)
            else:
                self._jobs.forget(reader)
        elif not frame.echo or not reader.hoped:  # an echo repeats an end that was told, if it was
            wait_s = self._jobs.options.end_wait_s if frame.kind in _ENDS else 0.0
            self._jobs.hint(reader, now + wait_s, hoped=max(at, runs_at) + 1)

    def _ask_for_bid(self, frame: Frame, snapshot: Snapshot, now: float) -> None:
        run = self._remember(frame, snapshot)
        reader = self._jobs.reader(run.job, run.key)
        if reader is None:
            return
        at, last = self._jobs.seen(reader), self._jobs.last(reader)
        starts = frame.direct and snapshot.state != JobStateType.RUNNING
        said = snapshot.revision + starts
        if last is not None and snapshot.version > last.version:
            said = max(said, at + 1)  # Bacalhau counts revisions, we count entries: from life to life they may part
        if said > at:
            self._jobs.hint(reader, now, said=said)
            return
        if snapshot.revision == at:
            reader.hoped = 0  # a retry: the scheduler has seen the end that we asked about, and the job goes on
        self._jobs.forget(reader)

    def _remember(self, frame: Frame, snapshot: Snapshot) -> Execution:
        runs_at = snapshot.revision + (snapshot.state != JobStateType.RUNNING)
        key = job_key(snapshot.job.namespace, snapshot.job.id)
        run = Execution(snapshot.job.id, key, snapshot.version, runs_at)
        executions = self._executions
        if frame.execution not in executions and len(executions) >= self._jobs.options.executions_max:
            del executions[next(iter(executions))]
        executions[frame.execution] = run
        return run
