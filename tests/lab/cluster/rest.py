"""The orchestrator's REST API over the model's record, as it was at a time: real bodies (design/bacalhau.md 6.3).

Pages, tokens and versions as measured. What goes wrong with an answer is `tests.lab.cluster.world`'s.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

import msgspec

from tests.lab.cluster.record import OVER, Document, Job

PAGE: Final = 100
READ_COST_S: Final = 0.0008
LIST_COST_S: Final = 40e-6


class Reply(msgspec.Struct, frozen=True):
    """Status and body."""

    status: int
    body: bytes


def list_jobs(jobs: Iterable[Job], ns: int, *, limit: int, token: str) -> Reply:
    """All jobs, the last modified first; a token is an offset, so pages shift while jobs change."""
    offset = 0
    if token:
        _, _, size, place = _read(token)
        limit, offset = int(size), int(place)
    found = [(standing, job) for job in jobs if (standing := job.standing_at(ns)) is not None]
    found.sort(key=lambda one: -one[0].modified_ns)
    end = offset + limit if limit else len(found)
    items = [job.document(standing, wire=False) for standing, job in found[offset:end]]
    more = _spell(f"modified_at:Y:{limit}:{end}") if end < len(found) else ""
    return _reply({"NextToken": more, "Items": items})


def get_job(job: Job | None, ns: int) -> Reply:
    """The job itself, its latest version."""
    standing = job.standing_at(ns) if job is not None else None
    if job is None or standing is None:
        return not_found()
    return _reply({"Job": job.document(standing, wire=False)})


def get_job_with_history(job: Job | None, ns: int) -> Reply:
    """`include=history`: besides, the first hundred rows of that version's history, of both levels."""
    standing = job.standing_at(ns) if job is not None else None
    if job is None or standing is None:
        return not_found()
    rows = [row for _, version, row in job.rows[: job.rows_at(ns)] if version == standing.version]
    history = {"NextToken": "", "Items": rows[:PAGE]}
    return _reply({"Job": job.document(standing, wire=False), "History": history})


def get_history(job: Job | None, ns: int, *, all_versions: bool, limit: int, token: str) -> Reply:
    """The job-level entries by SeqNum. A token comes as long as rows remain or the job has not ended."""
    standing = job.standing_at(ns) if job is not None else None
    if job is None or standing is None:
        return not_found()
    offset = int(_read(token)[3]) if token else 0
    total = job.rows_at(ns)
    items: list[msgspec.Raw] = []
    number = 0
    last = 0
    for number, (job_level, version, row) in enumerate(job.rows[:total], 1):
        if number < offset or not job_level or (not all_versions and version != standing.version):
            continue
        items.append(row)
        last = number
        if len(items) == (limit or PAGE):
            break
    more = ""
    if number < total or standing.state not in OVER:
        more = _spell(f":N:{limit}:{last + 1 if items else offset}")
    return _reply({"NextToken": more, "Items": items})


def no_history() -> Reply:
    """Of a job that is not known, before 1.8 (real clusters of 1.5.0, 1.5.2, 1.6.4 and 1.7.0 answer so)."""
    return _reply({"NextToken": "", "Items": []})


def not_found() -> Reply:
    """Bacalhau's own 404."""
    return Reply(
        404, b'{"Status":404,"Message":"job not found","RequestID":"","Code":"NotFound","Component":"JobStore"}'
    )


def _reply(document: Document) -> Reply:
    return Reply(200, msgspec.json.encode(document))


def _spell(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(token: str) -> list[str]:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().split(":")
