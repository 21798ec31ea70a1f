"""`list`, `get`, `history`: what a cluster's jobs are and were. Read from NATS, once, and shown."""

from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.naming import find_key, say_key
from consumer.cli.options import (
    AsJson,
    Cluster,
    Config,
    Nats,
    TokenFile,
    Where,
    carry_out,
    connected,
    read_count,
    read_job,
    read_name,
    read_state,
    tell,
)
from consumer.errors import AbsentError, ExitCode

if TYPE_CHECKING:
    from consumer.fold.asks import Entry
    from consumer.jetstream.view import View
    from consumer.model import JobKey, Update

Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB", parser=read_job, help="A job's id, the unique beginning of one (j-1234abcd), or NAMESPACE/JOB."
    ),
]


def list_jobs(
    *,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only jobs in this state; may be repeated.")
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", metavar="NS", parser=read_name, help="Only this namespace; may be repeated."),
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", parser=read_count, help="Only so many, the newest entries. 0: all."),
    ] = 0,
    as_json: AsJson = False,
    nats: Nats = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Jobs and their present states, in the order in which the log stored them: the newest entry comes last.

    That is not always the order of the times: they are the orchestrator's or a producer's, who may be late.

    Read from the KV bucket. Where its copy is known not to be ours (no update of the job, or announced as foreign),
    the log itself is read; a job that has only such entries is marked `foreign`.

    Not on a terminal: tab-separated, without a head: time, state, namespace, job, name, sequence, version, source,
    message.

    Example: jobstate list --state running --state queued --namespace default
    """
    where = Where(nats, cluster, config, token_file)
    states: set[str] = set()
    if state:
        rules = where.rules()
        states = {read_state(rules, one, "--state") for one in state}
    carry_out(_list(states, list(dict.fromkeys(namespace or [])), limit, where, as_json=as_json))


async def _list(states: set[str], namespaces: list[str], limit: int, where: Where, *, as_json: bool) -> ExitCode:
    from consumer.cli.display import Page, update_object, update_row, write_json  # noqa: PLC0415
    from consumer.wire.subjects import escape  # noqa: PLC0415

    found: deque[tuple[Entry, Update | None, bool]] = deque(maxlen=limit or None)
    unknown = {escape(namespace): namespace for namespace in namespaces}
    async with connected(where) as view:
        announced = await _announced(view)
        async with view.present(*unknown) as present:
            async for copy in present:
                unknown.pop(_key_of(view, copy).partition(".")[0], None)
                entry, update, foreign = await _look_at(view, copy, announced)
                if not states or (update is not None and not foreign and update.StateType in states):
                    found.append((entry, update, foreign))
    for namespace in unknown.values():
        tell(f"no job is known in namespace {namespace} of cluster {view.names.cluster}")
    page = Page()
    for entry, update, foreign in found:
        if as_json:
            write_json(update_object(view.names, entry, update, foreign=foreign))
        else:
            page.add(update_row(entry, update, foreign=foreign))
    page.end()
    return ExitCode.OK


def get(
    job: Job,
    *,
    as_json: AsJson = False,
    nats: Nats = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """The present state of one job: its last update in the log that is ours. Exit 3: there is no such job.

    Example: jobstate get j-1234abcd
    """
    carry_out(_get(job, Where(nats, cluster, config, token_file), as_json=as_json))


async def _get(job: str, where: Where, *, as_json: bool) -> ExitCode:
    from consumer.cli.display import say_update, update_object, write_json  # noqa: PLC0415

    async with connected(where) as view:
        key = await find_key(view, job)
        last = await _last(view, key)
    if last is None:
        raise AbsentError(f"the log holds no update of {say_key(key)} that is ours: `jobstate history {job}` shows all")
    entry, update = last
    if as_json:
        write_json(update_object(view.names, entry, update))
    else:
        say_update(entry, update)
    return ExitCode.OK


def history(
    job: Job,
    *,
    as_json: AsJson = False,
    nats: Nats = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Every update of one job, in order. Exit 3: there is no such job.

    An entry that no daemon of ours wrote is marked `foreign`; its content says nothing about the job.

    Example: jobstate history default/j-1234abcd --json
    """
    carry_out(_history(job, Where(nats, cluster, config, token_file), as_json=as_json))


async def _history(job: str, where: Where, *, as_json: bool) -> ExitCode:
    from consumer.cli.display import Page, read_entry, update_object, update_row, write_json  # noqa: PLC0415

    async with connected(where) as view:
        key = await find_key(view, job)
        found = await _judged(view, key)
    page = Page()
    for entry, update in found:
        shown, foreign = (update, False) if update is not None else (read_entry(entry), True)
        if as_json:
            write_json(update_object(view.names, entry, shown, foreign=foreign))
        else:
            page.add(update_row(entry, shown, foreign=foreign))
    page.end()
    return ExitCode.OK


async def _judged(view: "View", key: "JobKey") -> "list[tuple[Entry, Update | None]]":
    """All of the job's entries in the log, in order, and the update that each is: None if nobody of ours wrote it."""
    from consumer.fold.truth import Judge  # noqa: PLC0415

    judge = Judge(view.names, key)
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


def _key_of(view: "View", copy: "Entry") -> "JobKey":
    """The key of the job whose *copy* the bucket has."""
    from consumer.model import JobKey  # noqa: PLC0415

    return JobKey(copy.subject.removeprefix(view.names.key_in_bucket(JobKey(""))))


async def _look_at(view: "View", copy: "Entry", announced: set[int]) -> "tuple[Entry, Update | None, bool]":
    """What the bucket's *copy* stands for: an entry, its update, and whether it is foreign.

    A copy has lost the headers that tell ours from a stranger's; so where there is a doubt the log itself is read.
    """
    from consumer.cli.display import read_entry  # noqa: PLC0415
    from consumer.wire.subjects import job_key  # noqa: PLC0415

    update = read_entry(copy)
    key = _key_of(view, copy)
    if copy.number not in announced and update is not None and job_key(update.Job.Namespace, update.Job.ID) == key:
        return copy, update, False
    last = await _last(view, key)
    return (copy, update, True) if last is None else (*last, False)
