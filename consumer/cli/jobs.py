"""`list`, `get`, `history`: what a cluster's jobs are and were. Read from NATS, once, and shown."""

from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.options import (
    AsJson,
    Cluster,
    Config,
    Nats,
    TokenFile,
    Where,
    carry_out,
    connected,
    find_key,
    say_key,
)
from consumer.errors import AbsentError, ExitCode

if TYPE_CHECKING:
    from consumer.fold.asks import Entry
    from consumer.model import Update

Job = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, the unique beginning of one (j-1234abcd), or NAMESPACE/JOB.")
]


def list_jobs(
    *,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only jobs in this state; may be repeated.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", metavar="NS", help="Only jobs of this namespace.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only so many, the last that changed. 0: all.")] = 0,
    as_json: AsJson = False,
    nats: Nats = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Jobs and their present states, the one that changed last comes last.

    Not on a terminal: tab-separated, without a head: time, state, namespace, job, name, sequence, version, source,
    message.

    Example: jobstate list --state running --state queued --namespace default
    """
    carry_out(_list(state or [], namespace, limit, Where(nats, cluster, config, token_file), as_json=as_json))


async def _list(states: list[str], namespace: str | None, limit: int, where: Where, *, as_json: bool) -> ExitCode:
    from consumer.cli.display import Page, read_entry, update_object, update_row, write_json  # noqa: PLC0415
    from consumer.wire.subjects import escape  # noqa: PLC0415

    wanted = {state.lower() for state in states}
    found: deque[tuple[Entry, Update | None]] = deque(maxlen=limit or None)
    async with connected(where) as view, view.present(escape(namespace) if namespace is not None else "*") as present:
        async for entry in present:
            update = read_entry(entry)
            if not wanted or (update is not None and update.StateType.lower() in wanted):
                found.append((entry, update))
    page = Page()
    for entry, update in found:
        if as_json:
            write_json(update_object(view.names, entry, update))
        else:
            page.add(update_row(entry, update))
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
    """The present state of one job. Exit 3: there is no such job.

    Example: jobstate get j-1234abcd
    """
    carry_out(_get(job, Where(nats, cluster, config, token_file), as_json=as_json))


async def _get(job: str, where: Where, *, as_json: bool) -> ExitCode:
    from consumer.cli.display import read_entry, say_update, update_object, write_json  # noqa: PLC0415

    async with connected(where) as view:
        key = await find_key(view, job)
        entry = await view.job(key)
    update = None if entry is None else read_entry(entry)
    if entry is None or update is None:
        raise AbsentError(f"the bucket holds no update of {say_key(key)}: `jobstate history {job}` reads the log")
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
    from consumer.fold.truth import judge_all  # noqa: PLC0415

    async with connected(where) as view:
        key = await find_key(view, job)
        async with view.entries(view.names.states(key)) as entries:
            found = [entry async for entry in entries]
    foreign = set(judge_all(view.names, key, found).foreign)
    page = Page()
    for entry in found:
        update = read_entry(entry)
        if as_json:
            write_json(update_object(view.names, entry, update, foreign=entry.number in foreign))
        else:
            page.add(update_row(entry, update, foreign=entry.number in foreign))
    page.end()
    return ExitCode.OK
