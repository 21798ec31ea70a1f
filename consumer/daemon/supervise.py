"""Every loop in one list, each with its name: they run side by side, and one that ends ends them all.

Nothing is started anew here: what cannot go on ends the life, and whoever called begins another or ends the process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, TypeVar

import structlog

from consumer.errors import JobstateError, LogWentBackError

log = structlog.get_logger()

Loop = Callable[[], Coroutine[Any, Any, None]]

AGAIN_S: Final = 1.0
"""So long a cancelled task may take to end; then it is taken to have swallowed that, and cancelled again."""

T = TypeVar("T")


async def run_until(
    stop: asyncio.Event,
    *,
    sources: Mapping[str, Loop],
    rest: Mapping[str, Loop],
    drain: Callable[[], Awaitable[None]],
    deadline_s: float,
) -> bool:
    """Run all loops until *stop*; then end the *sources*, drain while the *rest* goes on, and end that.

    Gives whether the drain came to its end within *deadline_s*. Raises the error that ended a loop: of several,
    `LogWentBackError` first, then ours, then the rest.
    """
    drained = True
    try:
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(_endless(name, loop), name=name) for name, loop in sources.items()]
            others = [group.create_task(_endless(name, loop), name=name) for name, loop in rest.items()]
            await stop.wait()
            log.info("drain.began", deadline_s=deadline_s)
            try:
                async with asyncio.timeout(deadline_s):
                    await end(reading)
                    await drain()
            except TimeoutError:
                drained = False
            await end([*reading, *others])
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    return drained


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What *work* gives, or None if *stop* comes before it does: then it is ended."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        await end((task, stopped))


async def beside(work: Coroutine[Any, Any, T], companion: Coroutine[Any, Any, None]) -> T:
    """What *work* gives, with *companion* beside it: ended with it, and if it ends before, its error ends the work."""
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
    """Cancel *tasks*, and return when all have ended. What they came to is for others to ask.

    Cancelled again and again: `asyncio.wait_for` of Python 3.11 swallows a cancellation that comes with its result, and
    so does nats-py where a publish is blocked. Such a loop would go on for ever.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)


async def _endless(name: str, loop: Loop) -> None:
    await loop()
    raise JobstateError(f"the loop {name!r} has ended, and must not: report this")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found = list(_leaves(errors))
    for kind in (LogWentBackError, JobstateError):
        for error in found:
            if isinstance(error, kind):
                return error
    return found[0]


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in errors.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
