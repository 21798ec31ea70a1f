"""`wait`: until jobs have ended, or are in a state. For scripts: the answer is the exit code."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple

import typer

from consumer.cli.connecting import LogTarget, connected
from consumer.cli.naming import ASK_DOCTOR, enumerate_some, find_patterns, say_key
from consumer.cli.options import Form, Jobs, Output, with_groups
from consumer.cli.parsing import read_duration, read_number, read_state
from consumer.cli.running import carry_out, tell
from consumer.errors import ExitCode, UnreachableError
from consumer.model import JobStateType

if TYPE_CHECKING:
    from consumer.cli.shapes import WaitLine
    from consumer.core.appends import Entry
    from consumer.core.verify import EntryVerifier
    from consumer.jetstream.view import LiveReading
    from consumer.model import JobKey, Update
    from consumer.rules import Rules
    from consumer.wire.subjects import Names

ENDED: Final = "terminal"
"""The word of `--for` for any state that ends a job."""
REACHED: Final = "reached"
OTHERWISE: Final = "ended otherwise"
REPLACED: Final = "replaced"
"""A later life began, and this one had not ended: nobody will ever say how."""
TIMEOUT: Final = "timeout"
Outcome = Literal["reached", "ended otherwise", "replaced", "timeout"]
"""How waiting for one job ended."""


class _Target(NamedTuple):
    """The goal of waiting: a state, or `ENDED`, in the version *version*, or (None) in the open one."""

    state: str
    version: int | None

    def __str__(self) -> str:
        state = "its end" if self.state == ENDED else self.state
        return state if self.version is None else f"{state} of version {self.version}"


@with_groups
def wait(
    jobs: Jobs,
    *,
    target: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="STATE",
            help="Wait for this state; `terminal` is any state that ends a job. [default: Completed]",
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            "--version",
            metavar="N",
            parser=read_number,
            help="Wait for this version of the job, which may not have begun. `jobstate get` shows the present one; a "
            "rerun is the next. [default: the open one]",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="TIME",
            parser=read_duration,
            help="Give up after this duration, such as 30s, 5m or 1h. [default: never]",
        ),
    ] = None,
    output: Output,
    log: LogTarget,
) -> None:
    """Wait until each JOB has completed, or is in the state that --for names, now or later.

    It exits 0 only if all JOBs did, and so `jobstate wait JOB && deploy` deploys only after success. Exit 1: a job
    ended in another state, or a later version began before the one of --version had ended (`replaced`). Exit 3: a short
    id fits no job. Exit 6: a JOB fits several jobs, which are listed. Exit 4: --timeout passed first. Exit 11: no
    server answered within 3 s, or within --timeout.

    The verb waits for the open version of a job; an earlier version, before a rerun, does not count. If no version is
    open, the last one counts, at once. If you have just started a rerun, name its version: --version 2.

    A job that is not known yet can be waited for by its whole id. It never appears if no daemon runs; `jobstate doctor`
    checks that. Standard error says for which state of which job the verb waits.

    Example: jobstate wait j-1234abcd --timeout 5m && echo done
    """
    rules = log.rules()
    state = read_state(rules, JobStateType.COMPLETED if target is None else target, "--for", ENDED)
    carry_out(_wait(jobs, rules, _Target(state, version), log, output.form, within_s=timeout))


class _Awaited:
    """One job that is waited for: what the log says of it so far, and what came of waiting.

    `update` and `entry` are the last of the life that is waited for; `latest` is the last of any life.
    """

    def __init__(self, names: "Names", pattern: "JobKey", version: int | None) -> None:
        self.names = names
        self.pattern = pattern
        self.known = "*" not in pattern
        self.latest: Update | None = None
        self.update: Update | None = None
        self.entry: Entry | None = None
        self.outcome: Outcome | None = None
        self._version = version
        self._judges: dict[JobKey, EntryVerifier] = {}

    def take(self, entry: "Entry") -> None:
        """Take an entry of the log, if it is one of this job's and true: one of ours, in its place."""
        from consumer.core.verify import EntryVerifier

        key = self.names.key_of_state(entry.subject)
        if key is None or (key != self.pattern and (self.known or key.partition(".")[2] != self.pattern[2:])):
            return
        judge = self._judges.get(key)
        if judge is None:
            judge = self._judges[key] = EntryVerifier(self.names, key)
        update = judge.take(entry)
        if update is not None:
            self.pattern, self.known = key, True
            self.latest = update
            if self._version is None or update.Job.Version == self._version:
                self.update, self.entry = update, entry

    @property
    def seen(self) -> bool:
        """Whether the log has entries under its name, whosever they are."""
        return bool(self._judges)

    def judge(self, rules: "Rules", target: _Target) -> Outcome | None:
        """Judge by the job's last update how waiting for *target* ended; None: it goes on."""
        if self.update is not None:
            ended = rules.is_terminal(self.update.StateType)
            if self.update.StateType == target.state or (target.state == ENDED and ended):
                return REACHED
            if ended:
                return OTHERWISE
        if target.version is None or self.latest is None or (self.latest.Job.Version or 0) <= target.version:
            return None
        return REPLACED


async def _wait(
    jobs: list[str], rules: "Rules", target: _Target, log: LogTarget, form: Form, *, within_s: float | None
) -> ExitCode:
    from consumer.jetstream.view import FIRST

    awaited: list[_Awaited] = []
    deadline = None if within_s is None else asyncio.get_running_loop().time() + within_s
    try:
        # The connection has its own bound, and its own error: that nobody answers is no "still running".
        async with connected(log, within_s=within_s) as view, asyncio.timeout_at(deadline):
            awaited = [_Awaited(view.names, key, target.version) for key in await find_patterns(view, jobs)]
            filters = [f"{view.names.state_prefix}{pattern}.*" for pattern in _alike([job.pattern for job in awaited])]
            # All of the jobs' entries, from the first, and then what comes: one reading, so nothing falls between what
            # was and what will be, and each update is seen to follow the one before. (The bucket would be shorter, and
            # is behind the log.)
            async with view.follow(*filters, start=FIRST) as entries:
                await _settle(rules, target, awaited, entries, form)
    except TimeoutError as error:
        if not awaited:
            raise UnreachableError(
                f"the server took the connection, and had not said within {within_s:g} s how the jobs stand: "
                "is it overloaded? Give --timeout more"
            ) from error
        for job in awaited:
            if not job.outcome:
                _say(job, TIMEOUT, form)
        if absent := [say_key(job.pattern).removeprefix("*/") for job in awaited if not job.seen]:
            tell(f"the time is over, and the log never had {enumerate_some(absent)}: {ASK_DOCTOR}")
        return ExitCode.TIMEOUT
    return ExitCode.OK if all(job.outcome == REACHED for job in awaited) else ExitCode.WRONG


def _alike(patterns: "list[JobKey]") -> list[str]:
    """*patterns* to filter by: where one leaves the namespace open, all do.

    nats-server 2.11.0 counts no entry as pending under `*.a.*` and `default.b.*` together, and the first entry would
    pass for the last that was stored: a job that ended once would pass for one that has ended.
    """
    if not any(pattern.startswith("*.") for pattern in patterns):
        return list(patterns)
    return list(dict.fromkeys(f"*.{pattern.partition('.')[2]}" for pattern in patterns))


async def _settle(rules: "Rules", target: _Target, awaited: list[_Awaited], entries: "LiveReading", form: Form) -> None:
    """Take entries until every job is settled. For entries from before now only the last state of a job counts."""
    told = False
    async for entry in entries:
        before = [job.latest for job in awaited]
        for job in awaited:
            job.take(entry)
        if not entries.caught_up:
            continue
        for job, latest in zip(awaited, before, strict=True):
            if not job.outcome and (outcome := job.judge(rules, target)):
                if not told:
                    _tell_over(target, job)
                _say(job, outcome, form)
            elif told and not job.outcome and latest is not None and target.version is None:
                _tell_rerun(target, job, latest)
        if all(job.outcome for job in awaited):
            return
        if not told:
            told = True
            _tell_states(target, awaited)


def _tell_over(target: _Target, job: _Awaited) -> None:
    """Say of a job that had ended when the wait began which life that was: a rerun may be on its way.

    Before Bacalhau 1.8 there are none, and the version is always 0.
    """
    if target.version is None and job.update is not None and (version := job.update.Job.Version):
        tell(
            f"job {say_key(job.pattern)} is {job.update.StateType} already, in version {version}: to wait for a rerun "
            f"that is to come, add --version {version + 1}"
        )


def _tell_rerun(target: _Target, job: _Awaited, before: "Update") -> None:
    """Say that another life of the job has begun, which is waited for now: the one before it had not ended."""
    assert job.latest is not None
    if (version := job.latest.Job.Version) != before.Job.Version:
        tell(f"job {say_key(job.pattern)} was begun anew: waiting for {target} of version {version}")


def _tell_states(target: _Target, awaited: list[_Awaited]) -> None:
    """Say how the jobs stand that are known and not settled: silence would look as if nobody waited."""
    for job in awaited:
        if job.outcome:
            continue
        if job.latest is not None:
            where = "" if target.version is None else f" in version {job.latest.Job.Version or 0}"
            tell(f"job {say_key(job.pattern)} is {job.latest.StateType}{where}: waiting for {target}")
        elif job.seen:
            tell(f"the log holds no update of {say_key(job.pattern)} that is ours: waiting for one")


def _say(job: _Awaited, outcome: Outcome, form: Form) -> None:
    from consumer.cli.display import update_object, write_json
    from consumer.wire.display import printable

    job.outcome = outcome
    name = say_key(job.pattern)
    if form == "json":
        nothing: WaitLine = {
            "job": name,
            "outcome": outcome,
            "subject": None,
            "sequence": None,
            "stored": None,
            "update": None,
        }
        write_json(nothing if job.entry is None else {**nothing, **update_object(job.entry, job.update)})
    else:
        state = "not known" if job.update is None else job.update.StateType
        sys.stdout.write(f"{printable(name)}\t{printable(state)}\t{outcome}\n")
        sys.stdout.flush()
