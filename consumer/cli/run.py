"""`run`: the daemon, until SIGTERM or SIGINT."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from consumer.cli.running import require_files
from consumer.daemon.assemble import run_daemon
from consumer.errors import ExitCode, JobstateError, SettingsError
from consumer.observe import configure, never_wait, tell_left_out_at_end
from consumer.settings import CONFIG, Given, Settings, load

log = structlog.get_logger()


def run(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", envvar=CONFIG, metavar="FILE", help="Read settings from this jobstate.toml. [default: none]"
        ),
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start a nats-server, and use it in place of nats.url.")
    ] = False,
    folder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Keep the data of that server in this folder. [default: embedded.folder, data/nats]"
        ),
    ] = None,
) -> None:
    """Run the daemon: follow a cluster and publish its job states.

    It ends on SIGTERM, SIGINT or SIGHUP, after the log has confirmed the updates under way.

    Every setting is a key of the file or a variable. A real cluster needs JOBSTATE_NATS__URL, JOBSTATE_BACALHAU__URL
    and JOBSTATE_ORCHESTRATOR__URL; one with a token also JOBSTATE_BACALHAU__TOKEN_FILE.

    Example: JOBSTATE_ORCHESTRATOR__URL=http://host:1234 JOBSTATE_BACALHAU__URL=nats://host:4222 jobstate run --embedded
    """
    if folder is not None and not embedded:
        raise typer.BadParameter("is for a server of our own: give --embedded too", param_hint="'--folder'")
    require_files()
    settings = load(config, os.environ, [] if folder is None else [Given("--folder", "embedded.folder", folder)])
    if embedded and settings.streams.replicas > 1:
        raise SettingsError(
            f"streams.replicas is {settings.streams.replicas}, and a server of our own (--embedded) is alone: set "
            "streams.replicas (JOBSTATE_STREAMS__REPLICAS) to 1, or name the servers of a cluster in nats.url"
        )
    never_wait()
    configure(settings.log)
    try:
        code = _runner()(_until_told(settings, embedded=embedded))
    except JobstateError:
        raise
    except Exception as error:
        log.exception("daemon.fault", kind=type(error).__name__)
        raise typer.Exit(ExitCode.FAULT) from error
    finally:
        tell_left_out_at_end()
    if code is not ExitCode.OK:
        raise typer.Exit(code)


async def _until_told(settings: Settings, *, embedded: bool) -> ExitCode:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` has it ignored
            loop.add_signal_handler(number, stop.set)
    return await run_daemon(settings, stop, embedded=embedded)


def _runner() -> Callable[[Coroutine[Any, Any, ExitCode]], ExitCode]:
    """The quicker event loop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run
