"""`watch`: a log's updates as they are stored."""

from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Annotated, Final

import typer

from consumer.cli.connecting import LogTarget, connected
from consumer.cli.naming import find_patterns
from consumer.cli.options import Namespaces, Rows, StateChanges, with_groups
from consumer.cli.parsing import read_count, read_job, read_states, read_time
from consumer.cli.running import carry_out
from consumer.errors import AbsentError, ExitCode

if TYPE_CHECKING:
    from consumer.jetstream.view import Start, View

_WORDS: Final = ("now", "start")


@with_groups
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
    namespace: Namespaces = None,
    state: StateChanges = None,
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
    rows: Rows,
    log: LogTarget,
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
    start = since if since in _WORDS else read_time(since, datetime.now(UTC), "--since", *_WORDS)
    states: list[str] = []
    if state:
        states = read_states(log.rules(), state, "--state")
    wanted = (job or [], namespace or [], states)
    carry_out(_watch(wanted, start, count, log, rows), interrupted=ExitCode.OK)


async def _watch(
    wanted: tuple[list[str], list[str], list[str]],
    since: str | datetime,
    count: int,
    log: LogTarget,
    rows: Rows,
) -> ExitCode:
    from consumer.cli.display import LivePage, read_entry, update_object, update_row, write_json
    from consumer.core.verify import read_update

    page = LivePage(heads=rows.heads)
    async with connected(log) as view:
        start = await _start(view, since)  # before names are looked up: what comes meanwhile is shown too
        filters = await _filters(view, *wanted)
        async with view.follow(*filters, start=start) as entries:
            async for entry in entries:
                update = read_entry(entry)
                key = view.names.key_of_state(entry.subject)
                foreign = key is None or read_update(view.names, key, entry) is None
                if rows.form == "json":
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
