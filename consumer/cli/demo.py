"""`demo`: recorded traffic through the real daemon and a real nats-server, shown as it comes, and judged in the end."""

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

import consumer.replay
from consumer.cli.display import HEAD, LivePage, update_row, write_json
from consumer.cli.options import Form, Output, with_groups
from consumer.cli.parsing import read_path
from consumer.cli.running import called, end_at_signals
from consumer.cli.streams import write_stderr
from consumer.core.appends import Entry
from consumer.daemon.supervise import unless
from consumer.errors import ExitCode, quoted
from consumer.model import DERIVED, Update
from consumer.observe import configure
from consumer.patience import look_until
from consumer.replay.recording import Recording
from consumer.replay.stage import Stage
from consumer.replay.summary import PlayedLine, Tallies, is_right, summary_lines, summary_object
from consumer.replay.verdict import Verdict, judge
from consumer.settings import Log
from consumer.wire import encode_update
from consumer.wire.display import printable

SETTLE_S = 10.0
"""Seconds without an update after the last frame or change, until a wrong log counts as wrong."""

TELL_S = 10.0
"""Seconds that the daemon may take to write its lines; a killed daemon never writes the rest."""

INTERRUPTED = 130
"""The exit code of a demo that was ended before its verdict, as a shell has it for Ctrl-C."""

DEFAULT: Final = Path(consumer.replay.__path__[0], "recordings", "rerun")
"""The recording that is played by default: the one that the program carries."""


def _read_speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(f"{quoted(text)} is no speed: write a number above 0, or max", param_hint="'--speed'")
    return speed


@with_groups
def demo(
    *,
    recording: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            parser=read_path,
            help="Play the recording in this folder. Repeatable: all go into one log. [default: the installed one]",
        ),
    ] = None,
    speed: Annotated[str, typer.Option(metavar="N|max", help="Play at this multiple of the recorded pace.")] = "1",
    output: Output,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep everything running until Ctrl-C, and keep its folder.")
    ] = False,
) -> None:
    """Play recorded Bacalhau traffic through a real daemon, and show the updates.

    It starts a nats-server, a simulated orchestrator and the daemon, all on the loopback. It exits 0 if the log equals
    the orchestrator's job histories, 1 if it does not, and 3 if a path is not a recording. With --keep it ends at
    Ctrl-C; it exits 130 if that comes before the verdict.

    The recorded times are long past, so the demo announces no job as stuck.

    Example: jobstate demo --keep
    """
    configure(Log(level="warning", format="console"))
    pace = _read_speed(speed)
    paths = recording or [str(DEFAULT)]
    recordings = sorted((Recording.load(path) for path in paths), key=lambda one: one.start_ns)
    try:
        right = asyncio.run(_Demo(paths, recordings, pace, output.form, "stay" if keep else "end").run())
    except KeyboardInterrupt:
        right = None
    if right is None:
        raise typer.Exit(INTERRUPTED)
    if not right:
        raise typer.Exit(ExitCode.WRONG)


class _Demo:
    """One demo: what is played, what came, and how it is shown."""

    def __init__(
        self,
        paths: Sequence[str],
        recordings: Sequence[Recording],
        speed: float | None,
        form: Form,
        then: Literal["end", "stay"],
    ) -> None:
        named = [DEFAULT.name if path == str(DEFAULT) else path for path in paths]
        self._scenario = named[0] if len(named) == 1 else named
        self._recordings = recordings
        self._records = [job for one in recordings for job in one.jobs]
        self._expected = sum(len(job.expected) for job in self._records)
        self._speed = speed
        self._form = form
        self._then = then
        self._page = LivePage(HEAD)
        self._came: list[tuple[Update, float]] = []  # and when it came, by the loop's clock
        self._passed: dict[int, float] = {}  # when the shared clock passed a happening
        self._change = asyncio.Event()

    async def run(self) -> bool | None:
        """Play, show, judge; None if it was told to end before that. It always ends server and daemon."""
        folder = Path(tempfile.mkdtemp(prefix="jobstate-demo-"))
        told = asyncio.Event()
        end_at_signals(told)
        try:
            async with Stage(self._recordings, folder, self._speed, self._tell) as stage:
                self._introduce(stage, folder)
                found = await unless(told, self._play(stage))
                if found is None:
                    return None
                self._conclude(*found)
                if self._then == "stay":
                    self._say_how_to_look(stage)
                    await told.wait()
        finally:
            if self._then == "stay":
                self._tell(f"the folder {folder} stays: remove it when you are done with it")
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return is_right(*found)

    async def _play(self, stage: Stage) -> tuple[Verdict, Tallies]:
        feed = asyncio.create_task(self._follow(stage), name="feed")
        try:
            shown = 0
            now = asyncio.get_running_loop().time
            async for progress in stage.play():
                self._passed.setdefault(progress.t_ns, now())
                percent = 100 * progress.done // progress.total
                if percent != shown and sys.stderr.isatty() and self._form == "text":
                    write_stderr(f"\r{percent:3d} % of the recording played \r")
                    shown = percent
                if feed.done():
                    feed.result()
            await self._until_right(feed)
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)
        verdict = judge(self._records, [update for update, _ in self._came])
        return verdict, await self._tallies(stage)

    async def _follow(self, stage: Stage) -> None:
        async for entry, update in stage.feed():
            self._came.append((update, asyncio.get_running_loop().time()))
            self._show(entry, update)
            self._change.set()

    async def _until_right(self, feed: "asyncio.Task[None]") -> None:
        """Wait until the log equals the record, or nothing has come for long: a slow machine is not a wrong log."""
        try:
            while not self._is_right():
                self._change.clear()
                if feed.done():
                    feed.result()
                async with asyncio.timeout(SETTLE_S):
                    await self._change.wait()
        except TimeoutError:
            return  # then it is wrong, and the verdict says how

    def _is_right(self) -> bool:
        return len(self._came) >= self._expected and judge(self._records, [update for update, _ in self._came]).ok

    async def _tallies(self, stage: Stage) -> Tallies:
        rejected, undecodable = await stage.refused()
        causes = await self._causes(stage)
        changes = {
            (job.id, sequence): change.time_ns
            for job in self._records
            for sequence, change in enumerate(job.expected, 1)
        }
        counts = {"hint": 0, "scan": 0}
        lags: dict[str, list[float]] = {"hint": [], "scan": []}
        for update, came_at in self._came:
            name = (update.Job.ID, update.Sequence)
            cause = causes.get(name, "")
            if cause not in counts:
                continue
            counts[cause] += 1
            passed_at = self._passed.get(changes.get(name, 0))
            if passed_at is not None:
                lags[cause].append(max(came_at - passed_at, 0.0) * 1e3)
        return Tallies(
            rejected=rejected,
            undecodable=undecodable,
            by_hint=counts["hint"],
            by_scan=counts["scan"],
            reads=stage.orchestrator.reads_by.total(),
            reads_by=dict(stage.orchestrator.reads_by),
            cost_s=stage.orchestrator.cost_s,
            derived=sum(update.Source == DERIVED for update, _ in self._came),
            corrected=sum("corrected" in update.Flags for update, _ in self._came),
            hint_lags_ms=tuple(lags["hint"]),
            scan_lags_ms=tuple(lags["scan"]),
        )

    async def _causes(self, stage: Stage) -> dict[tuple[str, int], str]:
        """Read from the daemon's lines what caused each update; the last line comes a moment after its update."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_S):
                await look_until(lambda: len(stage.causes()) >= len(self._came), 0.05)
        return stage.causes()

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _tell(self, sentence: str) -> None:
        write_stderr("".join(f"{printable(line)}\n" for line in sentence.splitlines()))

    def _introduce(self, stage: Stage, folder: Path) -> None:
        assert stage.daemon is not None
        self._tell(
            f"nats-server {stage.server.url} (process {stage.server.pid}), simulated orchestrator "
            f"{stage.orchestrator.url}, daemon process {stage.daemon.pid} with its metrics at {stage.metrics_url}, "
            f"folder {folder}"
        )

    def _show(self, entry: Entry, update: Update) -> None:
        if self._form == "json":
            body = json.loads(encode_update(update))
            line: PlayedLine = {"scenario": self._scenario, "subject": entry.subject, "update": body}
            write_json(line)
        else:
            self._page.add(update_row(entry, update))

    def _conclude(self, verdict: Verdict, tallies: Tallies) -> None:
        if self._form == "json":
            write_json(summary_object(self._scenario, verdict, tallies))
            return
        sys.stdout.writelines(f"{line}\n" for line in summary_lines(verdict, tallies))
        if self._then == "end":
            sys.stdout.write("look further: run it with --keep, which leaves it all running and says how\n")
        sys.stdout.flush()

    def _say_how_to_look(self, stage: Stage) -> None:
        url, jobstate = stage.server.url, called()
        self._tell(
            "all of it is left running until Ctrl-C. In another terminal:\n"
            f"  {jobstate} list --nats {url}\n"
            f"  {jobstate} history JOB --nats {url}\n"
            f"  {jobstate} watch --since start --nats {url}\n"
            f"  {jobstate} doctor --config {stage.write_settings()}\n"
            f"  curl {stage.metrics_url}\n"
            f"  nats --server {url} sub --stream JOBSTATE_main --all 'jobstate.v1.main.state.*.*.failed'\n"
            f"  nats --server {url} kv watch jobstate_main\n"
            f"  nats --server {url} stream view JOBSTATE_main"
        )
