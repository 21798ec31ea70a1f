"""What the core asks of the orchestrator. Shapes only; `consumer.core.readers` says when.

A read is answered with the page or document it asks for, `Missing` (404), or an error; each goes back to the core with
the very read it answers.
"""

from typing import Final

import msgspec

from consumer.errors import OrchestratorError
from consumer.model import HistoryPage, JobDocument, JobPage, ReadCause

HISTORY_LIMIT: Final = 1000
"""Rows that a page of history is asked for: a page with so many has another behind it."""


class ReadHistory(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The job-level history of all versions of *job*, one page from *next_token* (empty: from the first entry)."""

    job: str
    namespace: str = ""
    next_token: str = ""
    cause: ReadCause = ReadCause.SCAN


class ReadJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The job itself: its name, namespace, type and count."""

    job: str
    namespace: str = ""
    cause: ReadCause = ReadCause.SCAN


class ReadJobs(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The list of all jobs of all namespaces by `modified_at`, newest first, one page of *limit*."""

    next_token: str = ""
    limit: int = 100


OrchestratorRead = ReadHistory | ReadJob | ReadJobs


class Missing(msgspec.Struct, frozen=True, gc=False):
    """404: the orchestrator does not know the job (yet, or any more)."""


OrchestratorAnswer = HistoryPage | JobDocument | JobPage | Missing | OrchestratorError
"""What may come of a read."""
