"""The simulated orchestrator over HTTP, read by the daemon's own client."""

import aiohttp
import msgspec

from consumer.bacalhau.orchestrator import Orchestrator
from consumer.core.reads import Missing, ReadHistory, ReadJob, ReadJobs
from consumer.model import HistoryPage, JobDocument
from consumer.replay.clock import ReplayClock
from consumer.replay.server import OrchestratorServer
from consumer.replay.simulated import SimulatedOrchestrator
from consumer.settings import Orchestrator as OrchestratorSettings
from tests.replay.shared import recording

SCENARIO = "bacalhau-v1.9.3/queued_then_runs"


async def test_the_daemon_reads_the_record_as_it_is_at_the_clock() -> None:
    """404 before the job is submitted, then each state as the clock passes it; the server's version is the release."""
    one = recording(SCENARIO)
    job = one.jobs[0]
    clock = ReplayClock([one])
    async with (
        OrchestratorServer(SimulatedOrchestrator([one]), clock) as server,
        Orchestrator(OrchestratorSettings(url=server.url)) as orchestrator,
    ):
        read_job, read_history = ReadJob(job=job.id, namespace=job.namespace), ReadHistory(job=job.id)
        assert isinstance(await orchestrator.job(read_job), Missing)
        assert isinstance(await orchestrator.history(read_history), Missing)
        for change in job.changes:
            clock.advance(change.time_ns)
            document, page = await orchestrator.job(read_job), await orchestrator.history(read_history)
            assert isinstance(document, JobDocument)
            assert isinstance(page, HistoryPage)
            assert (document.job.state, document.job.revision) == (change.state, change.revision)
            assert document.history.entries == page.entries
            assert [entry.state for entry in page.entries] == [step.state for step in job.changes[: change.number]]
        assert [one.job.id for one in (await orchestrator.jobs(ReadJobs())).jobs] == [job.id]
        assert orchestrator.version == one.release == "v1.9.3"
        assert server.reads_by.total() == 2 + 2 * len(job.changes) + 1


async def test_an_escaped_slash_in_an_id_stays_in_the_id() -> None:
    """The path is taken as it stood on the request line."""
    one = recording(SCENARIO)
    job = one.jobs[0]
    rows = tuple({**row, "JobID": "a/b ?"} for row in job.rows)
    odd = msgspec.structs.replace(job, id="a/b ?", document={**job.document, "ID": "a/b ?"}, rows=rows)
    clock = ReplayClock([one])
    clock.advance(odd.row_ns[-1])
    async with (
        OrchestratorServer(SimulatedOrchestrator([msgspec.structs.replace(one, jobs=(odd,))]), clock) as server,
        Orchestrator(OrchestratorSettings(url=server.url)) as orchestrator,
    ):
        document = await orchestrator.job(ReadJob(job="a/b ?"))
        assert isinstance(document, JobDocument)
        assert document.job.job.id == "a/b ?"
        assert isinstance(await orchestrator.job(ReadJob(job="../agent/version")), Missing)


async def test_nothing_but_get_is_answered() -> None:
    """Who would change something is told that he cannot."""
    one = recording(SCENARIO)
    async with (
        OrchestratorServer(SimulatedOrchestrator([one]), ReplayClock([one])) as server,
        aiohttp.ClientSession() as session,
        session.delete(f"{server.url}/api/v1/orchestrator/jobs/{one.jobs[0].id}") as response,
    ):
        assert response.status == 405
        assert server.url.startswith("http://127.0.0.1:")


def test_the_clock_never_goes_back() -> None:
    """It stands before the first happening until it is moved."""
    one = recording(SCENARIO)
    clock = ReplayClock([one])
    assert clock.now_ns < min(one.start_ns, one.jobs[0].row_ns[0])
    clock.advance(one.start_ns + 5)
    clock.advance(one.start_ns + 3)
    assert clock.now_ns == one.start_ns + 5
