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
    read_time,
    tell,
)
from consumer.errors import ExitCode

if TYPE_CHECKING:
    from consumer.model import JobKey


def send(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's whole id.")],
    state: Annotated[str, typer.Argument(metavar="STATE", help="The state to report, as the rules spell it.")],
    *,
    message: Annotated[str, typer.Option("--message", help="What people are to read about it.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", metavar="NS", help="The job's namespace.")] = "default",
    version: Annotated[int | None, typer.Option("--version", min=0, help="Which life of the job.")] = None,
    revision: Annotated[int | None, typer.Option("--revision", min=0, help="Where in its record.")] = None,
    job_type: Annotated[str, typer.Option("--type", help="batch, ops, service or daemon.")] = "",
    name: Annotated[str, typer.Option("--name", help="The job's name.")] = "",
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
        moment = now if time == "now" else read_time(time, now)
        report["Time"] = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    carry_out(_send(key, report, where, as_json=as_json))


async def _send(key: "JobKey", report: dict[str, object], where: Where, *, as_json: bool) -> ExitCode:
    from consumer.cli.display import write_json  # noqa: PLC0415
    from consumer.rules import load  # noqa: PLC0415

    rules = load(where.settings().rules.path)
    if rules.find(str(report["StateType"])) is None:
        # Sent all the same: the daemon may have other rules, and seeing a refusal may be the purpose.
        tell(f"the rules know no state {report['StateType']}: there is {', '.join(rules.states)}")
    async with connected(where) as view:
        sequence = await view.report(key, json.dumps(report).encode())
        if as_json:
            write_json({"subject": view.names.report(key), "sequence": sequence, "report": report})
        else:
            sys.stdout.write(f"{sequence}\n")
    return ExitCode.OK
