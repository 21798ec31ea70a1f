"""`wait`: until jobs have ended, or are in a state. For scripts: the answer is the exit code."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from consumer.cli.options import (
    ASK_DOCTOR,
    AsJson,
    Cluster,
    Config,
    Nats,
    TokenFile,
    Where,
    carry_out,
    connected,
    enumerate_some,
    find_pattern,
    read_duration,
    read_job,
    read_state,
    say_key,
    tell,
    tell_unknown,
)
from consumer.errors import ExitCode, UnreachableError

if TYPE_CHECKING:
    from consumer.fold.asks import Entry
    from consumer.fold.truth import Judge
    from consumer.jetstream.view import Reading
    from consumer.model import JobKey, Update
    from consumer.rules import Rules
    from consumer.wire.subjects import Names

ENDED: Final = "terminal"
REACHED: Final = "reached"
OTHERWISE: Final = "ended otherwise"
TIMEOUT: Final = "timeout"


def wait(
    jobs: Annotated[
        list[str],
        typer.Argument(metavar="JOB...", parser=read_job, help="Ids, short ids of known jobs, or NAMESPACE/JOB."),
    ],
    *,
    target: Annotated[
        str, typer.Option("--for", metavar="STATE", help="What is waited for: a state, or any terminal one.")
    ] = ENDED,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="TIME", parser=read_duration, help="Give up after 30s, 5m, 1h. [default: never]"
        ),
    ] = None,
    as_json: AsJson = False,
    nats: Nats = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Wait until each JOB is in the state that is waited for, now or later.

    Of a job that is not there yet, or in another state, that is said on standard error.

    Exit 0: all are or were since. 1: one ended in another state. 4: the time was over before that was known of all.
    11: the time was over, and no server had said how the jobs stand. A job that is not known yet is waited for: name it
    by its whole id. It never comes where no daemon runs: `jobstate doctor` looks.

    Example: jobstate wait j-1234abcd --for Completed --timeout 5m
    """
    where = Where(nats, cluster, config, token_file)
    rules = where.rules()
    state = read_state(rules, target, "--for", ENDED)
    carry_out(_wait(jobs, rules, state, timeout, where, as_json=as_json))


class _Awaited:
    """One job that is waited for: what the log says of it so far, and what came of waiting."""

    def __init__(self, names: "Names", pattern: "JobKey") -> None:
        self.names = names
        self.pattern = pattern
        self.known = "*" not in pattern
        self.update: Update | None = None
        self.entry: Entry | None = None
        self.outcome = ""
        self._judges: dict[JobKey, Judge] = {}

    def take(self, entry: "Entry") -> None:
        """Take an entry of the log, if it is one of this job's and true: one of ours, in its place."""
        from consumer.fold.truth import Judge  # noqa: PLC0415

        key = self.names.key_of_state(entry.subject)
        if key is None or (key != self.pattern and (self.known or key.partition(".")[2] != self.pattern[2:])):
            return
        judge = self._judges.get(key)
        if judge is None:
            judge = self._judges[key] = Judge(self.names, key)
        update = judge.take(entry)
        if update is not None:
            self.pattern, self.known = key, True
            self.update, self.entry = update, entry

    @property
    def seen(self) -> bool:
        """Whether the log has entries under its name, whosever they are."""
        return bool(self._judges)

    def judge(self, rules: "Rules", target: str) -> str:
        """What the job's last update says of waiting for *target*; empty: nothing yet."""
        if self.update is None:
            return ""
        ended = rules.is_terminal(self.update.StateType)
        if self.update.StateType == target or (target == ENDED and ended):
            return REACHED
        return OTHERWISE if ended else ""


async def _wait(
    jobs: list[str], rules: "Rules", target: str, seconds: float | None, where: Where, *, as_json: bool
) -> ExitCode:
    from consumer.jetstream.view import FIRST  # noqa: PLC0415

    awaited: list[_Awaited] = []
    deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
    try:
        # The connection has its own bound, and its own error: that nobody answers is no "still running".
        async with connected(where, within_s=seconds) as view, asyncio.timeout_at(deadline):
            patterns = [await find_pattern(view, job) for job in jobs]
            await tell_unknown(view, dict.fromkeys(jobs))
            awaited = [_Awaited(view.names, pattern) for pattern in dict.fromkeys(patterns)]
            filters = [f"{view.names.state_prefix}{job.pattern}.*" for job in awaited]
            # All of the jobs' entries, from the first, and then what comes: one reading, so nothing falls between what
            # was and what will be, and each update is seen to follow the one before. (The bucket would be shorter, and
            # is behind the log.)
            async with view.follow(*filters, start=FIRST) as entries:
                await _settle(rules, target, awaited, entries, as_json=as_json)
    except TimeoutError as error:
        if not awaited:
            raise UnreachableError(
                f"the server took the connection, and had not said within {seconds:g} s how the jobs stand: "
                "is it overloaded? Give --timeout more"
            ) from error
        for job in awaited:
            if not job.outcome:
                _say(job, TIMEOUT, as_json=as_json)
        if absent := [say_key(job.pattern).removeprefix("*/") for job in awaited if not job.seen]:
            tell(f"the time is over, and the log never had {enumerate_some(absent)}: {ASK_DOCTOR}")
        return ExitCode.TIMEOUT
    return ExitCode.OK if all(job.outcome == REACHED for job in awaited) else ExitCode.WRONG


async def _settle(rules: "Rules", target: str, awaited: list[_Awaited], entries: "Reading", *, as_json: bool) -> None:
    """Take entries until every job is settled. What was before now counts only by what it led to."""
    told = False
    async for entry in entries:
        for job in awaited:
            job.take(entry)
        if not entries.caught_up:
            continue
        for job in awaited:
            if not job.outcome and (outcome := job.judge(rules, target)):
                _say(job, outcome, as_json=as_json)
        if all(job.outcome for job in awaited):
            return
        if not told:
            told = True
            _tell_states(target, awaited)


def _tell_states(target: str, awaited: list[_Awaited]) -> None:
    """Say how the jobs stand that are known and not settled: silence would look as if nobody waited."""
    wanted = "its end" if target == ENDED else target
    for job in awaited:
        if job.outcome:
            continue
        if job.update is not None:
            tell(f"job {say_key(job.pattern)} is {job.update.StateType}: waiting for {wanted}")
        elif job.seen:
            tell(f"the log holds no update of {say_key(job.pattern)} that is ours: waiting for one")


def _say(job: _Awaited, outcome: str, *, as_json: bool) -> None:
    from consumer.cli.display import update_object, write_json  # noqa: PLC0415
    from consumer.wire.display import printable  # noqa: PLC0415

    job.outcome = outcome
    name = say_key(job.pattern)
    if as_json:
        said: dict[str, object] = {"subject": None, "sequence": None, "stored": None, "update": None}
        if job.entry is not None:
            said = update_object(job.names, job.entry, job.update)
        write_json({"job": name, "outcome": outcome, **said})
    else:
        state = "not known" if job.update is None else job.update.StateType
        sys.stdout.write(f"{printable(name)}\t{printable(state)}\t{outcome}\n")
        sys.stdout.flush()
