"""`send`: a report by hand, as any producer would publish it."""

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.connecting import LogTarget, connected
from consumer.cli.options import Form, Output, with_groups
from consumer.cli.parsing import read_job, read_name, read_number, read_state, read_text, read_time
from consumer.cli.running import carry_out
from consumer.errors import ExitCode, quoted

if TYPE_CHECKING:
    from consumer.cli.shapes import SentLine
    from consumer.model import JobKey
    from consumer.rules import Rules


@with_groups
def send(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            parser=read_job,
            help="The job's whole id, or NAMESPACE/ID. A short id is not looked up: it would be another job.",
        ),
    ],
    state: Annotated[str, typer.Argument(metavar="STATE", parser=read_name, help="The state to report, in any case.")],
    *,
    message: Annotated[
        str, typer.Option("--message", metavar="TEXT", parser=read_text, help="Add a text for people.")
    ] = "",
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", metavar="NS", parser=read_name, help="Name the job's namespace. [default: default]"
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", parser=read_number, help="Report this version of the job.")
    ] = None,
    revision: Annotated[
        int | None,
        typer.Option("--revision", metavar="N", parser=read_number, help="Report this revision of the job's history."),
    ] = None,
    job_type: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Name the job's type: batch, ops, service or daemon.")
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="TEXT", parser=read_text, help="Name the job.")] = "",
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="TIME",
            help="Say when the state began: an ISO time, `now`, or a duration ago (10m). [default: when it is stored]",
        ),
    ] = None,
    any_state: Annotated[
        bool, typer.Option("--any-state", help="Send a state that these rules do not know; the daemon may have others.")
    ] = False,
    output: Output,
    log: LogTarget,
) -> None:
    """Report a job's state: publish a report to the input, wait until it is stored, and print its sequence there.

    A stored report is not accepted yet: the daemon decides by the rules whether it becomes an update. `jobstate
    quarantine list` shows rejected reports.

    Example: jobstate send j-1 Running --message "by hand" --type batch
    """
    rules = log.rules()
    if not any_state:
        # Spellings that the daemon reads go as they were typed: any case, any alias.
        read_state(rules, state, "STATE", else_=" (--any-state sends it all the same)")
    if job_type:
        _check_type(rules, job_type)
    from consumer.wire.subjects import DIGEST, job_key

    namespace, job = _place(namespace, job)
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
    carry_out(_send(key, report, log, output.form))


def _place(namespace: str | None, job: str) -> tuple[str, str]:
    """Namespace and id of `NAMESPACE/ID`, or of both apart. Said twice, they must be the same."""
    within, slash, name = job.rpartition("/")
    if not slash:
        return "default" if namespace is None else namespace, job
    if namespace not in {None, within}:
        raise typer.BadParameter(
            f"{quoted(job)} is in namespace {quoted(within)}, and --namespace says {quoted(str(namespace))}: say one",
            param_hint="'--namespace'",
        )
    return within, name


def _check_type(rules: "Rules", job_type: str) -> None:
    if job_type not in rules.job_types:
        raise typer.BadParameter(
            f"{quoted(job_type)} is no type of job: write {', '.join(rules.job_types)}", param_hint="'--type'"
        )


async def _send(key: "JobKey", report: dict[str, object], log: LogTarget, form: Form) -> ExitCode:
    from consumer.cli.display import write_json

    body = json.dumps(report).encode()
    async with connected(log) as view:
        if len(body) > view.connection.max_payload:
            raise typer.BadParameter(
                f"the report has {len(body)} bytes, and the server takes {view.connection.max_payload}: shorten it",
                param_hint="'--message'",
            )
        sequence = await view.report(key, body)
        if form == "json":
            line: SentLine = {"subject": view.names.report(key), "sequence": sequence, "report": report}
            write_json(line)
        else:
            sys.stdout.write(f"{sequence}\n")
    return ExitCode.OK
