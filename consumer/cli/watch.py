"""`watch`: a log's updates as they are stored."""

from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Annotated, Final

import typer

from consumer.cli.naming import find_patterns
from consumer.cli.options import AsJson, Cluster, Config, Headers, Nats, Output, Shown, TokenFile, wants_json
from consumer.cli.parsing import read_count, read_job, read_name, read_states, read_time
from consumer.cli.reader import Where, connected
from consumer.cli.running import carry_out
from consumer.errors import AbsentError, ExitCode

if TYPE_CHECKING:
    from consumer.jetstream.view import Start, View

_WORDS: Final = ("now", "start")


def watch(
    *,
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job",
            metavar="JOB",
            parser=read_job,
            help="Show only this job: an id, the beginning of an id, a name, or NAMESPACE/JOB. Repeatable.",
        ),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", metavar="NS", parser=read_name, help="Show only this namespace. Repeatable."),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATE,...",
            help="Show only changes to these states; `open` and `terminal` name all of a kind. Repeatable.",
        ),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Begin with updates that the log stored since then: `now`, `start` (of the log), a time "
            "(2026-11-24T05:00:00Z), or a duration ago (10m).",
        ),
    ] = "now",
    count: Annotated[
        int,
        typer.Option("--count", metavar="N", parser=read_count, help="End after N updates. 0: only at Ctrl-C."),
    ] = 0,
    headers: Headers = False,
    as_json: AsJson = False,
    output: Output = None,
    nats: Nats = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Show updates as they come, until Ctrl-C (exit 0). No update is left out, even if the connection is lost.

    An entry that shows by itself that no daemon wrote it is marked `foreign`; `history` also judges by the entries
    before it.

    --since goes by the NATS server's clock, by the time when the log stored an update. A change that happened earlier
    and was stored later, because the daemon or the orchestrator was away, is shown too. TIME is when it happened.

    In a pipe the columns are tab-separated (--headers adds their names): time, state, namespace, job, name, sequence,
    version, source, message.

    Example: jobstate watch --state failed,stopped --since 1h --json
    """
    shown = Shown(wants_json(output, as_json=as_json), headers)
    start = since if since in _WORDS else read_time(since, datetime.now(UTC), "--since", *_WORDS)
    where = Where(nats, cluster, config, token_file)
    states: list[str] = []
    if state:
        states = read_states(where.rules(), state, "--state")
    wanted = (job or [], namespace or [], states)
    carry_out(_watch(wanted, start, count, where, shown), interrupted=ExitCode.OK)


async def _watch(
    wanted: tuple[list[str], list[str], list[str]],
    since: str | datetime,
    count: int,
    where: Where,
    shown: Shown,
) -> ExitCode:
    from consumer.cli.display import Page, read_entry, update_object, update_row, write_json
    from consumer.core.verify import read_update

    page = Page(live=True, headers=shown.headers)
    async with connected(where) as view:
        start = await _start(view, since)  # before names are looked up: what comes meanwhile is shown too
        filters = await _filters(view, *wanted)
        async with view.follow(*filters, start=start) as entries:
            async for entry in entries:
                update = read_entry(entry)
                key = view.names.key_of_state(entry.subject)
                foreign = key is None or read_update(view.names, key, entry) is None
                if shown.as_json:
                    write_json(update_object(entry, update, foreign=foreign))
                else:
                    page.add(update_row(entry, update, foreign=foreign))
                count -= 1
                if count == 0:
                    break
    return ExitCode.OK


async def _start(view: "View", since: str | datetime) -> "Start":
    from consumer.jetstream.view import FIRST, after
    from consumer.jetstream.view import since as stored_since

    if isinstance(since, datetime):
        return stored_since(since)
    return FIRST if since == "start" else after(await view.reached())


async def _filters(view: "View", jobs: list[str], namespaces: list[str], states: list[str]) -> list[str]:
    """The log's subjects that are wanted; no two of them overlap."""
    from consumer.wire.subjects import escape

    spaces = {escape(namespace) for namespace in namespaces} or {"*"}
    ends = {escape(state.lower()) for state in states} or {"*"}
    if jobs:
        keys = await find_patterns(view, jobs)
        pairs = {str(key) for key in keys if spaces == {"*"} or key.partition(".")[0] in spaces}
        if not pairs:
            raise AbsentError(f"none of {', '.join(jobs)} is in namespace {' or '.join(namespaces)}")
    else:
        pairs = {f"{space}.*" for space in spaces}
    return [f"{view.names.state_prefix}{pair}.{end}" for pair, end in sorted(product(pairs, ends))]
