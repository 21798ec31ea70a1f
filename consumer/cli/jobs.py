"""`list`, `get`, `history`: what a cluster's jobs are and were. Read from NATS, once, and shown."""

import sys
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from consumer.cli.connecting import LogTarget, connected
from consumer.cli.naming import ASK_DOCTOR, find_key, find_keys, only, say_key
from consumer.cli.options import Form, Job, Jobs, JobStates, Limit, Namespaces, Output, Rows, with_groups
from consumer.cli.parsing import read_states
from consumer.cli.running import carry_out, tell, tell_error
from consumer.errors import AbsentError, AmbiguousError, ExitCode, JobstateError

if TYPE_CHECKING:
    from consumer.core.appends import Entry
    from consumer.jetstream.view import View
    from consumer.model import JobKey, Update


@with_groups
def list_jobs(
    *,
    state: JobStates = None,
    namespace: Namespaces = None,
    limit: Limit = 0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Continue with each change as it comes, until Ctrl-C (exit 0).")
    ] = False,
    rows: Rows,
    log: LogTarget,
) -> None:
    """Show jobs with their latest states, in the order in which the log stored them: the newest entry comes last.

    The times may be in another order, because the orchestrator or a producer sets them.

    The verb reads the log, not the KV bucket, which may be behind. If a job's last entry is foreign (it is no update of
    the job, lacks a daemon's headers, or was announced as foreign), the verb shows the last entry that is not. A job
    that has only foreign entries is marked `foreign`.

    With --watch and --state it then shows each change to one of these states, and every further change of the jobs that
    it has shown.

    In a pipe the columns are tab-separated (--headers adds their names): time, state, namespace, job, name, sequence,
    version, source, message. On a terminal AGE says for how long the job has been in its state.

    Example: jobstate list --state running,queued --namespace default
    """
    states: list[str] = []
    if state:
        states = read_states(log.rules(), state, "--state")
    wanted = _Wanted(states, list(dict.fromkeys(namespace or [])))
    if watch:
        carry_out(_list_and_follow(wanted, limit, log, rows), interrupted=ExitCode.OK)
    else:
        carry_out(_list(wanted, limit, log, rows))


class _Wanted(NamedTuple):
    """Which jobs are shown; empty: all."""

    states: list[str]
    namespaces: list[str]


async def _list(wanted: _Wanted, limit: int, log: LogTarget, rows: Rows) -> ExitCode:
    async with connected(log) as view:
        await _show_present(view, wanted, limit, rows)
    return ExitCode.OK


async def _list_and_follow(wanted: _Wanted, limit: int, log: LogTarget, rows: Rows) -> ExitCode:
    async with connected(log) as view:
        reached, shown = await _show_present(view, wanted, limit, rows)
        await _follow(view, wanted, reached, shown, rows)
    return ExitCode.OK


async def _show_present(view: "View", wanted: _Wanted, limit: int, rows: Rows) -> "tuple[int, list[Update]]":
    """Show the jobs that are wanted. The number of the last entry that was listed, and the updates that were shown."""
    from consumer.cli.display import AGED, Page, update_object, update_row, write_json
    from consumer.wire.subjects import escape

    found: deque[tuple[Entry, Update | None, bool]] = deque(maxlen=limit or None)
    unknown = {escape(namespace): namespace for namespace in wanted.namespaces}
    known = reached = 0
    announced = await _announced(view)
    async with view.present(*unknown) as present:
        async for last in present:
            known, reached = known + 1, last.number
            unknown.pop(last.subject.removeprefix(view.names.state_prefix).partition(".")[0], None)
            entry, update, foreign = await _true_last(view, last, announced)
            if not wanted.states or (update is not None and not foreign and update.StateType in wanted.states):
                found.append((entry, update, foreign))
    for namespace in unknown.values():
        tell(f"no job is known in namespace {namespace} of cluster {view.names.cluster}")
    if not known and not wanted.namespaces:
        tell(f"no job is known in cluster {view.names.cluster} yet ({ASK_DOCTOR})")
    elif known and not found:
        tell(f"no job is {' or '.join(wanted.states)}: {known} are not")
    page = Page(AGED, heads=rows.heads)
    for entry, update, foreign in found:
        if rows.form == "json":
            write_json(update_object(entry, update, foreign=foreign))
        else:
            page.add(update_row(entry, update, foreign=foreign))
    page.end()
    return reached, [update for _, update, foreign in found if update is not None and not foreign]


async def _follow(view: "View", wanted: _Wanted, reached: int, before: "Iterable[Update]", rows: Rows) -> None:
    """Show what the log stores after entry *reached*, which is the last that was listed; *before*: what was shown."""
    from consumer.cli.display import LivePage, update_object, update_row, write_json
    from consumer.core.verify import read_update
    from consumer.jetstream.view import after
    from consumer.wire.subjects import escape, job_key

    page = LivePage(heads="never")
    keys = {job_key(update.Job.Namespace, update.Job.ID) for update in before}
    filters = [f"{view.names.state_prefix}{escape(namespace)}.*.*" for namespace in wanted.namespaces]
    async with view.follow(*(filters or [f"{view.names.state_prefix}*.*.*"]), start=after(reached)) as entries:
        async for entry in entries:
            key = view.names.key_of_state(entry.subject)
            update = None if key is None else read_update(view.names, key, entry)
            if key is None or update is None:
                continue  # a stranger's: it says nothing of a job
            inside = not wanted.states or update.StateType in wanted.states
            if not inside and key not in keys:
                continue
            (keys.add if inside else keys.discard)(key)
            if rows.form == "json":
                write_json(update_object(entry, update))
            else:
                page.add(update_row(entry, update))


@with_groups
def get(
    jobs: Jobs,
    *,
    output: Output,
    log: LogTarget,
) -> None:
    """Show the latest update of each JOB. Foreign entries do not count.

    Exit 3: a JOB does not exist. Exit 6: a JOB fits several jobs, which are listed. The other jobs are still shown.

    Example: jobstate get j-1234abcd nightly
    """
    carry_out(_get(jobs, log, output.form))


async def _get(jobs: list[str], log: LogTarget, form: Form) -> ExitCode:
    from consumer.cli.display import say_update, update_object, write_json

    found: dict[JobKey, tuple[Entry, Update]] = {}
    failures: list[JobstateError] = []
    async with connected(log) as view:
        for job, keys in (await find_keys(view, jobs)).items():
            try:
                key = only(view, job, keys)
                found[key] = await _present(view, key, job)
            except (AbsentError, AmbiguousError) as error:
                failures.append(error)
    for number, (entry, update) in enumerate(found.values()):
        if form == "json":
            write_json(update_object(entry, update))
            continue
        if number:
            sys.stdout.write("\n")
        say_update(entry, update)
    for failure in failures:
        tell_error(failure)
    return failures[0].exit_code if failures else ExitCode.OK


async def _present(view: "View", key: "JobKey", job: str) -> "tuple[Entry, Update]":
    """The job's last update in the log that is ours. Raises `AbsentError`; *job* is what it was called."""
    last = await _last(view, key)
    if last is None:
        raise AbsentError(f"the log holds no update of {say_key(key)} that is ours: `jobstate history {job}` shows all")
    return last


@with_groups
def history(
    job: Job,
    *,
    rows: Rows,
    log: LogTarget,
) -> None:
    """Show every update of one job, in order.

    Exit 3: the job does not exist. Exit 6: JOB fits several jobs, which are listed.

    An entry that no daemon wrote is marked `foreign`; its content says nothing about the job.

    In a pipe the columns are tab-separated (--headers adds their names): time, state, namespace, job, name, sequence,
    version, source, message.

    Example: jobstate history default/j-1234abcd --json
    """
    carry_out(_history(job, log, rows))


async def _history(job: str, log: LogTarget, rows: Rows) -> ExitCode:
    from consumer.cli.display import Page, read_entry, update_object, update_row, write_json

    async with connected(log) as view:
        key = await find_key(view, job)
        found = await _judged(view, key)
    page = Page(heads=rows.heads)
    for entry, update in found:
        shown, foreign = (update, False) if update is not None else (read_entry(entry), True)
        if rows.form == "json":
            write_json(update_object(entry, shown, foreign=foreign))
        else:
            page.add(update_row(entry, shown, foreign=foreign))
    page.end()
    return ExitCode.OK


async def _judged(view: "View", key: "JobKey") -> "list[tuple[Entry, Update | None]]":
    """All of the job's entries in the log, in order, and the update that each is: None if nobody of ours wrote it."""
    from consumer.core.verify import EntryVerifier

    judge = EntryVerifier(view.names, key)
    async with view.entries(view.names.states(key)) as entries:
        return [(entry, judge.take(entry)) async for entry in entries]


async def _last(view: "View", key: "JobKey") -> "tuple[Entry, Update] | None":
    """The job's last update in the log, or None if no entry of it is ours."""
    ours = [(entry, update) for entry, update in await _judged(view, key) if update is not None]
    return ours[-1] if ours else None


async def _announced(view: "View") -> set[int]:
    """The entries of the log that an advisory calls foreign."""
    async with view.entries(view.names.advisory("foreign", "*")) as advisories:
        origins = [advisory.subject.rpartition(".")[2] async for advisory in advisories]
    return {int(origin) for origin in origins if origin.isascii() and origin.isdecimal()}


async def _true_last(view: "View", entry: "Entry", announced: set[int]) -> "tuple[Entry, Update | None, bool]":
    """Find what to show for a job whose last entry is *entry*: an entry, its update, and whether it is foreign.

    Where there is a doubt, all of the job's entries are read and judged.
    """
    from consumer.cli.display import read_entry
    from consumer.core.verify import read_update

    key = view.names.key_of_state(entry.subject)
    assert key is not None
    update = read_update(view.names, key, entry)
    if update is not None and entry.number not in announced:
        return entry, update, False
    last = await _last(view, key)
    return (entry, read_entry(entry), True) if last is None else (*last, False)
