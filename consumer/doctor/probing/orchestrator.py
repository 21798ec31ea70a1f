"""Bacalhau's API, asked with the daemon's own client: does it answer, what does a list take, is a history readable."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import msgspec

from consumer.bacalhau.orchestrator import COMPUTE, WAYS, Orchestrator, api_base
from consumer.core.reads import HISTORY_LIMIT, Missing, ReadHistory, ReadJob, ReadJobs
from consumer.doctor.facts import Answer, History, Listed, Looked
from consumer.doctor.probing.contact import is_loopback
from consumer.errors import OrchestratorError
from consumer.model import HistoryEntry, HistoryPage
from consumer.settings import Orchestrator as OrchestratorSettings

T = TypeVar("T")
R = TypeVar("R", ReadHistory, ReadJob)

NOBODY: Final = "j-00000000-0000-4000-8000-000000000000"
"""A job that there is not: to ask for it costs the orchestrator a look into its store."""
NEWEST: Final = 10
AGAIN_S: Final = 1.0
"""A job that a frame names is looked for again so much later: the record may follow by milliseconds."""
_HALF_S: Final = 0.5
"""`Date` is cut to the second."""


async def ask(orchestrator: Orchestrator, settings: OrchestratorSettings) -> Answer:
    """The first question: for a job that there is not; and, where that is answered, who answers."""
    base = api_base(settings.url)
    fault = None
    began_s = time.time()
    try:
        await orchestrator.job(ReadJob(job=NOBODY))
    except OrchestratorError as error:
        fault = error.fault
    ended_s = time.time()
    answer = Answer(
        address=str(base.origin()),
        fault=fault,
        version=orchestrator.version,
        ahead_s=_ahead(orchestrator.clock_ns, (began_s + ended_s) / 2),
        private=base.scheme == "https",
        secret=bool(settings.token or settings.token_file or settings.user),
        loopback=is_loopback(base.host),
    )
    return answer if fault else await _with_node(orchestrator, answer)


async def _with_node(orchestrator: Orchestrator, answer: Answer) -> Answer:
    """*answer*, and who gave it. An orchestrator that computes too says the same of itself as a mere compute node."""
    try:
        node = await orchestrator.node()
    except OrchestratorError as error:
        return msgspec.structs.replace(answer, untold=error.kind)
    if node.type == COMPUTE:
        fault = (await list_newest(orchestrator)).fault
        if fault is not None and fault.kind == "compute-node":
            return msgspec.structs.replace(answer, fault=fault)
    return msgspec.structs.replace(answer, node=node.id)


def _ahead(clock_ns: int, ours_s: float) -> float | None:
    """Seconds that *clock_ns* (0: not told) is ahead of *ours_s*; within a second it is 0, more it cannot say."""
    if not clock_ns:
        return None
    ahead = clock_ns / 1e9 + _HALF_S - ours_s
    return 0.0 if abs(ahead) <= 2 * _HALF_S else ahead


async def _ask(ask: Callable[[R], Awaitable[T]], read: R) -> T:
    """Return the result of *ask* for *read*; ask in another way if another job has its id for its name."""
    for _ in range(WAYS - 1):
        try:
            return await ask(read)
        except OrchestratorError as error:
            if error.kind != "other-job":
                raise
    return await ask(read)


async def list_newest(orchestrator: Orchestrator) -> Listed:
    """The newest jobs, and how long it took."""
    began = asyncio.get_running_loop().time()
    try:
        page = await orchestrator.jobs(ReadJobs(limit=NEWEST))
    except OrchestratorError as error:
        return Listed(fault=error.fault)
    seconds = asyncio.get_running_loop().time() - began
    return Listed(seconds=seconds, jobs=page.jobs, complete=not (page.next_token or page.bad))


async def read_newest(orchestrator: Orchestrator, listed: Listed) -> History | None:
    """The history of the newest job that was listed; None if there is none."""
    if not listed.jobs:
        return None
    job = listed.jobs[0].job
    try:
        page = await _ask(orchestrator.history, ReadHistory(job=job.id, namespace=job.namespace))
    except OrchestratorError as error:
        return History(job=job.id, fault=error.fault)
    return History(job=job.id, states=0 if isinstance(page, Missing) else len(page.entries))


async def look_up(orchestrator: Orchestrator, jobs: Iterable[tuple[str, str]]) -> Looked:
    """Which of *jobs* (id, namespace) it knows. One that it does not is looked for a second time, a second later."""
    known: list[str] = []
    missing = list(jobs)
    try:
        for pause in (0.0, AGAIN_S):
            if not missing:
                break
            await asyncio.sleep(pause)
            answers = [(one, await _ask(orchestrator.job, ReadJob(job=one[0], namespace=one[1]))) for one in missing]
            known += [job for (job, _), answer in answers if not isinstance(answer, Missing)]
            missing = [one for one, answer in answers if isinstance(answer, Missing)]
    except OrchestratorError as error:
        return Looked(known=tuple(known), trouble=error.kind)
    return Looked(known=tuple(known), unknown=tuple(job for job, _ in missing))


async def read_history(orchestrator: Orchestrator, job: str, namespace: str) -> HistoryPage | None:
    """The whole history of *job*, None for a 404. Raises OrchestratorError."""
    entries: list[HistoryEntry] = []
    items, token = 0, ""
    while True:
        page = await _ask(orchestrator.history, ReadHistory(job=job, namespace=namespace, next_token=token))
        if isinstance(page, Missing):
            return None
        entries += page.entries
        items += page.items
        before, token = token, page.next_token
        # An open job's pages have a token for ever (design/bacalhau.md 6.3): a page that is not full is the last one.
        if not token or not page.items or page.items < HISTORY_LIMIT:
            return HistoryPage(entries=tuple(entries), items=items, next_token="")
        if token == before:
            raise OrchestratorError("endless")
