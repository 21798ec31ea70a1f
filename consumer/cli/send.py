"""`send`: a report by hand, as any producer would publish it."""

import json
import sys
from datetime import UTC, datetime
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
    read_count,
    read_name,
    read_text,
    read_time,
    tell,
)
from consumer.errors import ExitCode, quoted

if TYPE_CHECKING:
    from consumer.model import JobKey
    from consumer.rules import Rules


def send(
    job: Annotated[str, typer.Argument(metavar="JOB", parser=read_name, help="The job's whole id.")],
    state: Annotated[
        str, typer.Argument(metavar="STATE", parser=read_name, help="The state to report, as the rules spell it.")
    ],
    *,
    message: Annotated[
        str, typer.Option("--message", metavar="TEXT", parser=read_text, help="What people are to read about it.")
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="NS", parser=read_name, help="The job's namespace.")
    ] = "default",
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", parser=read_count, help="Which life of the job.")
    ] = None,
    revision: Annotated[
        int | None, typer.Option("--revision", metavar="N", parser=read_count, help="Where in its record.")
    ] = None,
    job_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="batch, ops, service or daemon.")] = "",
    name: Annotated[str, typer.Option("--name", metavar="TEXT", parser=read_text, help="The job's name.")] = "",
    time: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="When it came to be (ISO), `now`, or 10m ago.")
    ] = None,
    as_json: AsJson = False,
    nats: Nats = None,
    cluster: Cluster = None,
    config: Config = None,
    token_file: TokenFile = None,
) -> None:
    """Report a job's state: publish it to the input and wait until it is stored. Prints its sequence in the input.

    Stored is not accepted: whether it becomes an update, the daemon decides by the rules. What it refuses is in
    `jobstate quarantine list`.

    Example: jobstate send j-1 Running --message "by hand" --type batch
    """
    where = Where(nats, cluster, config, token_file)
    _check(where.rules(), state, job_type)
    from consumer.wire.subjects import DIGEST, job_key  # noqa: PLC0415

    key = job_key(namespace, job)
    report: dict[str, object] = {"StateType": state, "Message": message}
    # A name too long for a subject stands there as a digest, so the body has to say it.
    if name or job_type or version is not None or revision is not None or DIGEST in key:
        facts = {"ID": job, "Namespace": namespace, "Name": name, "Type": job_type}
        numbers = {"Version": version, "Revision": revision}
        report["Job"] = facts | {key: number for key, number in numbers.items() if number is not None}
    if time is not None:
        now = datetime.now(UTC)
        moment = now if time == "now" else read_time(time, now, "--time", "now")
        report["Time"] = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    carry_out(_send(key, report, where, as_json=as_json))


def _check(rules: "Rules", state: str, job_type: str) -> None:
    """Refuse what is a slip of the hand.

    A state that the rules do not know is sent all the same: the daemon may have other rules, and seeing a refusal may
    be the purpose.
    """
    found = rules.find(state)
    if found is None:
        tell(f"the rules know no state {quoted(state)}: there is {', '.join(rules.states)}")
    elif state != found and state not in rules.aliases:
        raise typer.BadParameter(
            f"{quoted(state)} is not how the rules spell it: did you mean {found}?", param_hint="'STATE'"
        )
    if job_type and job_type not in rules.job_types:
        raise typer.BadParameter(
            f"{quoted(job_type)} is no type of job: write {', '.join(rules.job_types)}", param_hint="'--type'"
        )


async def _send(key: "JobKey", report: dict[str, object], where: Where, *, as_json: bool) -> ExitCode:
    from consumer.cli.display import write_json  # noqa: PLC0415

    body = json.dumps(report).encode()
    async with connected(where) as view:
        if len(body) > view.client.max_payload:
            raise typer.BadParameter(
                f"the report has {len(body)} bytes, and the server takes {view.client.max_payload}: shorten it",
                param_hint="'--message'",
            )
        sequence = await view.report(key, body)
        if as_json:
            write_json({"subject": view.names.report(key), "sequence": sequence, "report": report})
        else:
            sys.stdout.write(f"{sequence}\n")
    return ExitCode.OK
