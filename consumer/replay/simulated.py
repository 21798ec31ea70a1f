"""A simulated orchestrator: at a time t it answers what the record was at t, in the shapes of the real REST API.

Pure: time and request go in, status and document come out. Serving it over HTTP is `consumer.replay.server`.
Written after design/bacalhau.md 6.3 and Bacalhau's `pkg/publicapi/endpoint/orchestrator/job.go` and
`pkg/jobstore/boltdb/store.go` (1.8): what decides pages, tokens and versions there decides them here. Left out: labels,
`since`, `execution_id`, executions, results, names in place of ids, and all that changes anything.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

import msgspec

from consumer.errors import RecordingError
from consumer.replay.record import TERMINAL, Document, JobRecord, Standing
from consumer.replay.recording import Recording

HISTORY_LIMIT: Final = 100
"""Rows of a page of history where nobody asks for another number."""

READ_COST_S: Final = 0.0008
"""The time of one job, or its history, on a real orchestrator, whatever it stores (design/bacalhau.md 6.3; 1.9.3)."""
LIST_COST_S: Final = 40e-6
"""The time that a list costs it for each job that it has ever stored, whatever page is asked for."""

_BASE: Final = "/api/v1"
_SHORT_ID: Final = re.compile(r"[a-z]-[0-9a-f]{8}")
_ORDERS: Final = {"": "CreateTime", "created_at": "CreateTime", "modified_at": "ModifyTime"}
_LEVELS: Final = {"": None, "all": None, "job": "JobLevel", "execution": "ExecutionLevel"}
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_UINT32_MAX: Final = 2**32 - 1

Query = Mapping[str, str]
"""The query of a request, decoded."""


class Reply(msgspec.Struct, frozen=True):
    """An answer: HTTP status and JSON document."""

    status: int
    document: Document

    @property
    def body(self) -> bytes:
        """The document's bytes."""
        return msgspec.json.encode(self.document)


class SimulatedOrchestrator:
    """The orchestrator of one or several recordings, played on one time line: the recorded wall clock (Unix ns).

    No time in an answer is ever changed. Raises RecordingError if a job is in two recordings.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        if not recordings:
            raise RecordingError("there is no recording to serve")
        self.release: Final = recordings[0].release
        """The value of `X-Bacalhau-Git-Version`: the first recording's."""
        self._version: Final = recordings[0].documents[f"{_BASE}/agent/version"]
        self._records: Final[dict[str, JobRecord]] = {}
        for recording in recordings:
            for record in recording.jobs:
                if record.id in self._records:
                    raise RecordingError(f"{recording.name}: job {record.id} is in two recordings; play each by itself")
                self._records[record.id] = record

    def answer(self, t_ns: int, target: str) -> Reply:
        """Answer GET *target* (path and query as on the request line) at *t_ns*."""
        path, _, query_text = target.partition("?")
        query = dict(parse_qsl(query_text, keep_blank_values=True))
        match path.removeprefix(_BASE).strip("/").split("/") if path.startswith(_BASE) else []:
            case ["agent", "version"]:
                return self.version()
            case ["agent", "alive"]:
                return Reply(200, {"Status": "OK"})
            case ["orchestrator", "jobs"]:
                return self.jobs(t_ns, query)
            case ["orchestrator", "jobs", job]:
                return self.job(t_ns, unquote(job), query)
            case ["orchestrator", "jobs", job, "history"]:
                return self.history(t_ns, unquote(job), query)
        return _refusal(404, "Not Found", code="")

    def list_cost_s(self, t_ns: int) -> float:
        """How long a list of jobs at *t_ns* keeps a core of a real orchestrator, in seconds."""
        stored = sum(record.change_ns[0] <= t_ns for record in self._records.values())
        return READ_COST_S + LIST_COST_S * stored

    def version(self) -> Reply:
        """`GET /agent/version`."""
        return Reply(200, self._version)

    def jobs(self, t_ns: int, query: Query) -> Reply:
        """`GET /orchestrator/jobs`: namespace (empty, `*`: all), order_by, reverse, limit (0: all), next_token."""
        page = _page(query)
        if page is None or page.order not in _ORDERS:
            return _refusal(400, "invalid limit, next_token or order_by")
        namespace = query.get("namespace", "")
        documents = [
            document
            for record in self._records.values()
            if namespace in {"", "*", record.namespace} and (document := record.document_at(t_ns)) is not None
        ]
        documents.sort(key=lambda document: document[_ORDERS[page.order]], reverse=page.reverse)
        end = page.offset + page.limit if page.limit else len(documents)
        token = page._replace(offset=end).spell() if end < len(documents) else ""
        return Reply(200, {"NextToken": token, "Items": documents[page.offset : end]})

    def job(self, t_ns: int, job: str, query: Query) -> Reply:
        """`GET /orchestrator/jobs/:id`: by its id or a short form that only one job has; `include=history`.

        An id is found whatever namespace is given with it.
        """
        found = self._find(t_ns, job)
        if isinstance(found, Reply):
            return found
        record, _ = found
        document: Document = {"Job": record.document_at(t_ns)}
        if query.get("include") == "history":
            rows = self.history(t_ns, job, {}).document["Items"]
            document["History"] = {"NextToken": "", "Items": rows}
        return Reply(200, document)

    def history(self, t_ns: int, job: str, query: Query) -> Reply:
        """`GET /orchestrator/jobs/:id/history`: event_type, limit, next_token; since 1.8 all_job_versions, job_version.

        The token's offset is the next `SeqNum`. It is there while rows remain, and as long as the job has not ended.
        """
        found = self._find(t_ns, job)
        if isinstance(found, Reply):
            return found
        record, standing = found
        page, version = _page(query), _number(query.get("job_version", ""))
        level = query.get("event_type", "")
        if page is None or version is None or level not in _LEVELS:
            return _refusal(400, "invalid limit, next_token, event_type or job_version")
        if not version and query.get("all_job_versions") not in _TRUE:
            version = standing.version
        # A token's limit holds only where the query gives none, and what it spells further is the query's alone.
        asked = _number(query.get("limit", "")) or 0
        most = asked or page.limit or HISTORY_LIMIT
        rows = record.history_at(t_ns)
        items: list[Document] = []
        read = 0
        for row in rows:
            read += 1
            if row["SeqNum"] < page.offset or (record.versioned and version and row["JobVersion"] != version):
                continue
            if _LEVELS[level] in {None, row["Type"]}:
                items.append(row)
                if len(items) == most:
                    break
        token = ""
        if read < len(rows) or standing.state not in TERMINAL:
            after = items[-1]["SeqNum"] + 1 if items else page.offset
            token = _Page(order="", reverse=False, limit=asked, offset=after).spell()
        return Reply(200, {"NextToken": token, "Items": items})

    def _find(self, t_ns: int, job: str) -> tuple[JobRecord, Standing] | Reply:
        """The job of that id and how it stands, or the answer that says why there is none."""
        if _SHORT_ID.fullmatch(job):
            records = [record for record in self._records.values() if record.id.startswith(job)]
        else:
            records = [self._records[job]] if job in self._records else []
        found = [(record, standing) for record in records if (standing := record.at(t_ns)) is not None]
        if not found:
            return _refusal(404, f"job not found: {job}", code="NotFound")
        if len(found) > 1:
            return _refusal(500, f"multiple jobs found for id {job}", code="MultipleJobsFound")
        return found[0]


class _Page(NamedTuple):
    """The parts of `NextToken`: `SortBy:Y|N:Limit:Offset`."""

    order: str
    reverse: bool
    limit: int
    offset: int

    def spell(self) -> str:
        text = f"{self.order}:{'Y' if self.reverse else 'N'}:{self.limit}:{self.offset}"
        return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _page(query: Query) -> _Page | None:
    """Parse which page is asked for; a token replaces what else the query says. None if it cannot be understood."""
    limit = _number(query.get("limit", ""))
    if limit is None:
        return None
    token = query.get("next_token", "")
    if not token:
        return _Page(query.get("order_by", ""), query.get("reverse") in _TRUE, limit, 0)
    try:
        order, reverse, size, offset = urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().split(":")
    except ValueError:
        return None
    if (then := _number(offset)) is None or (most := _number(size)) is None:
        return None
    return _Page(order, reverse == "Y", most, then)


def _number(text: str) -> int | None:
    """A uint32 in decimal; nothing is 0. None if it is no such number."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_UINT32_MAX))):
        return None
    number = int(text)
    return number if number <= _UINT32_MAX else None


def _refusal(status: int, message: str, code: str = "BadRequestError") -> Reply:
    """Bacalhau's error document (`pkg/publicapi/apimodels/error.go`)."""
    return Reply(
        status, {"Status": status, "Message": message, "RequestID": "replay", "Code": code, "Component": "JobStore"}
    )
