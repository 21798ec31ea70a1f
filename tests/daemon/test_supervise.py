"""How loops run side by side, and how they end: by order, by an error, or too late."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from consumer.daemon import supervise
from consumer.daemon.supervise import Loop, beside, end, run_until, unless
from consumer.errors import JobstateError, LogWentBackError, ServerError
from tests.waiting import DEADLINE_S


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled again after 10 ms: so long no loop here takes to end."""
    monkeypatch.setattr(supervise, "AGAIN_S", 0.01)


class Stage:
    """Loops that note what happens to them."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.seen: list[str] = []
        self.given_up = False
        """The test has failed: no loop is deaf any more, so that the test ends."""

    def endless(self, name: str) -> Loop:
        """A loop that goes on until it is cancelled."""

        async def loop() -> None:
            self.seen.append(f"{name} began")
            try:
                await asyncio.Event().wait()
            finally:
                self.seen.append(f"{name} ended")

        return loop

    def deaf(self, name: str, times: int) -> Loop:
        """A loop that swallows *times* cancellations."""

        async def loop() -> None:
            for _ in range(times):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if self.given_up:
                        raise
                    self.seen.append(f"{name} heard nothing")
            await self.endless(name)()

        return loop

    async def drain(self) -> None:
        """A drain with nothing to do."""
        self.seen.append("drained")

    async def run(
        self,
        sources: dict[str, Loop],
        rest: dict[str, Loop],
        drain: Callable[[], Awaitable[None]] | None = None,
        ending: Callable[[], None] = lambda: None,
        deadline_s: float = DEADLINE_S,
    ) -> bool:
        """Run them until the stage's own stop. If that does not come to its end the test says so, and goes on."""
        running = asyncio.ensure_future(
            run_until(
                self.stop,
                sources=sources,
                rest=rest,
                drain=drain or self.drain,
                deadline_s=deadline_s,
                ending=ending,
            )
        )
        await asyncio.wait((running,), timeout=2 * DEADLINE_S)
        self.given_up = True
        assert running.done(), f"it does not end: {self.seen}"
        return await running

    async def run_and_stop(
        self,
        sources: dict[str, Loop],
        rest: dict[str, Loop],
        drain: Callable[[], Awaitable[None]] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> bool:
        """Run them, and stop when all have begun."""
        asyncio.get_running_loop().call_later(0.01, self.stop.set)
        return await self.run(sources, rest, drain, deadline_s=deadline_s)


def failing(error: BaseException) -> Loop:
    """A loop that ends with *error*."""

    async def loop() -> None:
        await asyncio.sleep(0)
        raise error

    return loop


async def test_sources_end_then_the_drain_then_the_rest() -> None:
    """What comes in stops first; what carries it on goes on until it is confirmed."""
    stage = Stage()
    assert await stage.run_and_stop({"in": stage.endless("in")}, {"out": stage.endless("out")})
    assert stage.seen == ["in began", "out began", "in ended", "drained", "out ended"]


async def test_a_drain_that_does_not_end_is_given_up() -> None:
    """After the deadline, with False; and everything has ended."""
    stage = Stage()
    assert not await stage.run_and_stop({}, {"out": stage.endless("out")}, stage.endless("drain"), 0.1)
    assert stage.seen == ["out began", "drain began", "drain ended", "out ended"]


async def test_a_loop_that_swallows_its_cancellation_is_cancelled_again() -> None:
    """As nats-py and Python 3.11 do: it ends all the same, before the drain."""
    stage = Stage()
    assert await stage.run_and_stop({"in": stage.deaf("in", 1)}, {"out": stage.deaf("out", 2)})
    assert stage.seen.index("in ended") < stage.seen.index("drained") < stage.seen.index("out ended")
    assert stage.seen.count("out heard nothing") == 2


async def test_a_loop_that_ends_by_itself_is_an_error() -> None:
    """Named: a daemon without one of its loops would look alive."""
    stage = Stage()

    async def short() -> None:
        return

    with pytest.raises(JobstateError, match=r"the loop 'timer' has ended"):
        await stage.run({}, {"timer": short, "out": stage.endless("out")})
    assert stage.seen[-1] == "out ended"


async def test_unless_gives_what_comes_first() -> None:
    """The work's result, None if that is the stop, and what the work raises."""
    stage = Stage()
    assert await unless(stage.stop, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ServerError):
        await unless(stage.stop, failing(ServerError("ours"))())
    stage.stop.set()
    assert await unless(stage.stop, asyncio.sleep(60, "too late")) is None


@pytest.mark.parametrize(
    ("errors", "winner"),
    [
        ((ValueError("x"), ServerError("ours")), ServerError),
        ((ServerError("ours"), ValueError("x")), ServerError),
        ((ServerError("ours"), LogWentBackError("back")), LogWentBackError),
        ((LogWentBackError("back"), ValueError("x"), ServerError("ours")), LogWentBackError),
        ((ValueError("x"),), ValueError),
    ],
)
async def test_of_several_errors_the_one_that_can_be_mended_wins(
    errors: tuple[Exception, ...], winner: type[Exception]
) -> None:
    """A log that went back begins another life, whatever else broke on the way; ours come before what is a bug."""
    stage = Stage()
    loops = {f"loop {number}": failing(error) for number, error in enumerate(errors)}
    with capture_logs() as lines, pytest.raises(winner) as raised:
        await stage.run({"in": stage.endless("in")}, loops)
    assert stage.seen[-1] == "in ended"
    told = {line["loop"]: line["exc_info"] for line in lines if line["event"] == "loop.failed"}
    assert told == {f"loop {number}": error for number, error in enumerate(errors) if error is not raised.value}, (
        "none of the others is lost"
    )


async def test_an_error_ends_loops_that_swallow_their_cancellation() -> None:
    """As the orderly stop does: with a loop that went on the daemon would be dead, look alive, and hear no SIGTERM."""
    stage = Stage()
    ended = stage.seen.append
    loops = {"out": stage.deaf("out", 2), "log": failing(LogWentBackError("back"))}
    with pytest.raises(LogWentBackError):
        await stage.run({"in": stage.deaf("in", 1)}, loops, ending=lambda: ended("ending"))
    assert stage.seen.count("out heard nothing") == 2
    assert {"in ended", "out ended"} <= set(stage.seen[stage.seen.index("ending") :])


async def test_a_source_that_fails_at_its_end_is_not_hidden() -> None:
    """What came in before is drained all the same; then its error, not a false "drained"."""
    stage = Stage()

    async def fails_at_its_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("at its end")

    with pytest.raises(ValueError, match="at its end"):
        await stage.run_and_stop({"in": fails_at_its_end}, {"out": stage.endless("out")})
    assert stage.seen == ["out began", "drained", "out ended"]


async def test_the_errors_of_a_loops_own_tasks_are_found() -> None:
    """A loop that has a TaskGroup ends with a group: the error in it says how the life ended."""
    stage = Stage()

    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing(ServerError("in the group"))())

    with pytest.raises(ServerError, match="in the group"):
        await stage.run({}, {"out": grouped})


async def test_an_error_while_it_drains_is_not_hidden() -> None:
    """A writer that dies during the drain: its error, not a false "drained"."""
    stage = Stage()

    async def drain() -> None:
        await asyncio.Event().wait()

    async def dies_late() -> None:
        await stage.stop.wait()
        raise ServerError("the server is gone")

    with pytest.raises(ServerError, match="the server is gone"):
        await stage.run_and_stop({}, {"out": dies_late}, drain)


async def test_end_waits_for_all_and_takes_what_has_ended() -> None:
    """Done, failed and endless tasks alike."""
    stage = Stage()
    tasks = [asyncio.ensure_future(loop()) for loop in (stage.endless("a"), stage.deaf("b", 3), failing(ValueError()))]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(DEADLINE_S):
        await end(tasks)
    assert all(task.done() for task in tasks)
    assert isinstance(tasks[2].exception(), ValueError)


async def test_end_goes_on_to_the_end_when_it_is_cancelled_itself() -> None:
    """No loop may go on when its life is over; the cancellation is not lost either."""
    stage = Stage()
    loop = asyncio.ensure_future(stage.deaf("a", 3)())
    await asyncio.sleep(0)
    ending = asyncio.ensure_future(end((loop,)))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert loop.cancelled()


async def test_beside_ends_with_the_work_or_by_its_companions_error() -> None:
    """The work's result, and the companion ended; the companion's error, and the work ended; never one alone."""
    stage = Stage()
    assert await beside(asyncio.sleep(0, "done"), stage.endless("keeper")()) == "done"
    with pytest.raises(ServerError, match="given up"):
        await beside(stage.endless("work")(), failing(ServerError("given up"))())
    with pytest.raises(ValueError, match="work"):
        await beside(failing(ValueError("work"))(), stage.endless("other")())
    with pytest.raises(JobstateError, match="beside the daemon has ended"):
        await beside(stage.endless("work 2")(), asyncio.sleep(0))
    began = {name.removesuffix(" began") for name in stage.seen if name.endswith("began")}
    ended = {name.removesuffix(" ended") for name in stage.seen if name.endswith("ended")}
    assert began == ended == {"keeper", "work", "other", "work 2"}
