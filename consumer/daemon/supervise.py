"""Every loop in one list, each with its name: they run side by side, and one that ends ends them all.

Nothing is started anew here: what cannot go on ends the life, and whoever called begins another or ends the process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, Final, TypeVar

import structlog

from consumer.errors import JobstateError, LogWentBackError

log = structlog.get_logger()

Loop = Callable[[], Coroutine[Any, Any, None]]

AGAIN_S: Final = 1.0
"""Seconds that a cancelled task may take to end; then it counts as having swallowed that, and is cancelled again."""

T = TypeVar("T")


async def run_until(
    stop: asyncio.Event,
    *,
    sources: Mapping[str, Loop],
    rest: Mapping[str, Loop],
    drain: Callable[[], Awaitable[None]],
    deadline_s: float,
    draining: Callable[[], None] = lambda: None,
    ending: Callable[[], None] = lambda: None,
) -> bool:
    """Run all loops until *stop*; then end the *sources*, drain while the *rest* goes on, and end that.

    Gives whether the drain came to its end within *deadline_s*. *draining* is called when the drain begins, *ending*
    when nothing goes on any more and all are to end. Raises the error that ended a loop: of several, `LogWentBackError`
    first, then ours, then the rest; the others are logged.
    """

    async def finish() -> None:
        await end(reading)
        await drain()

    # No TaskGroup: it cancels each loop once, and waits for ever for one that has swallowed that (see `end`).
    stopped = asyncio.create_task(stop.wait(), name="stop")
    reading = [asyncio.create_task(_endless(name, loop), name=name) for name, loop in sources.items()]
    others = [asyncio.create_task(_endless(name, loop), name=name) for name, loop in rest.items()]
    tasks: list[asyncio.Task[Any]] = [*reading, *others]
    drained = False
    try:
        await asyncio.wait((stopped, *tasks), return_when=asyncio.FIRST_COMPLETED)
        if not any(task.done() for task in tasks):
            draining()
            drained_all = asyncio.create_task(finish(), name="drain")
            tasks.insert(0, drained_all)  # it is cancelled first, while what it waits for still goes on
            await asyncio.wait((drained_all, *others), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            drained = drained_all.done()
    finally:
        ending()
        await end((stopped, *tasks))
    _raise_first(tasks)
    return drained


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Await *work* and return its result, or None if *stop* comes first: then *work* is ended."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        await end((task, stopped))


async def beside(work: Coroutine[Any, Any, T], companion: Coroutine[Any, Any, None]) -> T:
    """Await *work* with *companion* beside it: both end together, and an error of *companion* ends *work*."""
    task = asyncio.ensure_future(work)
    other = asyncio.ensure_future(companion)
    try:
        await asyncio.wait((task, other), return_when=asyncio.FIRST_COMPLETED)
        if other.done() and not task.done():
            await other
            raise JobstateError("what ran beside the daemon has ended, and must not: report this")
        return await task
    finally:
        await end((task, other))


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel *tasks*, and return when all have ended. Their results are for others to read.

    Cancelled again and again: `asyncio.wait_for` of Python 3.11 swallows a cancellation that comes with its result, and
    so does nats-py where a publish is blocked. Such a loop would go on for ever. Who is cancelled while it waits here
    still waits until all have ended.
    """
    left: Collection[asyncio.Future[Any]] = [task for task in tasks if not task.done()]
    cancelled: asyncio.CancelledError | None = None
    while left:
        for task in left:
            task.cancel()
        try:
            _, left = await asyncio.wait(left, timeout=AGAIN_S)
        except asyncio.CancelledError as error:
            cancelled = error
            left = [task for task in left if not task.done()]
    if cancelled is not None:
        raise cancelled


async def _endless(name: str, loop: Loop) -> None:
    await loop()
    raise JobstateError(f"the loop {name!r} has ended, and must not: report this")


def _raise_first(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Raise the error of *tasks* that says most; the others are logged, for nobody else will ever see them."""
    found = [
        (task.get_name(), leaf)
        for task in tasks
        if not task.cancelled() and (error := task.exception()) is not None
        for leaf in _leaves(error)
    ]
    if not found:
        return
    first = min(found, key=lambda named: _rank(named[1]))
    for name, error in found:
        if error is not first[1]:
            log.error("loop.failed", loop=name, kind=type(error).__name__, reason=str(error), exc_info=error)
    raise first[1]


def _rank(error: BaseException) -> int:
    return 0 if isinstance(error, LogWentBackError) else 1 if isinstance(error, JobstateError) else 2


def _leaves(error: BaseException) -> list[BaseException]:
    """*error*, or if it is a group (a loop has tasks of its own) those that it is made of."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in _leaves(one)]
