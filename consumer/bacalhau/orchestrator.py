"""Bacalhau's REST side, asked over HTTP: one request, one answer, and a name for every invalid response.

`consumer.wire.rest` reads the bodies; `consumer.core` decides what to ask and when. Here are
the bounds: time, bytes, no redirects, no cookies, no compression. A body never gets into an error: it may hold secrets.
"""

import asyncio
import contextlib
import re
import secrets
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from aiohttp import hdrs
from yarl import URL

from consumer.core.options import LIST_TIMEOUT_S
from consumer.core.reads import HISTORY_LIMIT, Missing, ReadHistory, ReadJob, ReadJobs
from consumer.errors import DecodeError, OrchestratorError, SettingsError
from consumer.faults import OrchestratorFault, of_body, of_certificate
from consumer.model import HistoryPage, JobDocument, JobPage
from consumer.resolve import Resolver, UnresolvedError
from consumer.settings import Orchestrator as OrchestratorSettings
from consumer.settings import is_host, secret_of, trust
from consumer.wire.rest import KNOWN_VERSIONS, Node, decode_history, decode_job, decode_jobs, decode_node

log = structlog.get_logger()

T = TypeVar("T")
R = TypeVar("R", ReadHistory, ReadJob)

API: Final = "/api/v1"

_VERSION: Final = "X-Bacalhau-Git-Version"
_VERSION_WORD: Final = re.compile(r"v(\d{1,4})\.(\d{1,4})\.[0-9A-Za-z.+-]{1,50}")
PROBES: Final = 1
"""A connection more than reads may be under way: for the probe, while those before it hang."""
NODE_TIMEOUT_S: Final = 2.0
"""Seconds that the node may take to say who it is; fewer than what makes an orchestrator count as silent."""
NODE_EVERY_S: Final = 60.0
"""Where there is no list, the node is asked once in so long whether it is one that has none."""
COMPUTE: Final = "Compute"
"""A node of this type has no list of jobs, unless it is the orchestrator too."""
ONE_JOB_SHARE: Final = 16
"""Limit for one job, and for a page of its history: the list's limit divided by this."""
_CHUNK: Final = 64 * 1024
_JOB_ID_MAX: Final = 1024
_RETRY_AFTER_MAX_S: Final = 60.0
_OTHER_NAMESPACES: Final = ("*", f"nobody-{secrets.token_hex(16)}")
"""Where a job may be asked for that is hidden in its own. A credential that may list all jobs may ask in the first, but
somebody may submit jobs to it; the second nobody can know.
"""
WAYS: Final = 1 + len(_OTHER_NAMESPACES)
"""Number of ways to ask for one job."""
_NAMED_MAX: Final = 1000
"""Jobs whose id is known to be another's name."""
_STATUS: Final[dict[int, OrchestratorFault]] = {401: "unauthorized", 403: "forbidden", 429: "throttled"}
_MEANS: Final[dict[OrchestratorFault, int]] = {kind: status for status, kind in _STATUS.items()}
_OF_CREDENTIAL: Final[frozenset[OrchestratorFault]] = frozenset({"unauthorized", "forbidden"})

_WANTS_TLS: Final = b"Client sent an HTTP request to an HTTPS server."
"""All that Go's server says, with status 400, to plain HTTP where it speaks TLS (Go, `net/http/server.go`)."""
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"})
"""OpenSSL's names, by version, for bytes that are not TLS."""

_REASON_MAX: Final = 4096
"""Bytes of an error document that is read for its reason."""
_REASON_S: Final = 2.0
"""Seconds that it may take: it comes with the head of the answer."""
_MEANT_BY_500: Final[tuple[tuple[OrchestratorFault, re.Pattern[str]], ...]] = (
    ("forbidden", re.compile(r"user '.*' does not have the required capability '[a-z:*]{1,50}'", re.DOTALL)),
    (
        "unauthorized",
        re.compile(
            r"missing authorization header|unsupported authentication method|authentication failed(: .*)?"
            r"|invalid authorization header format.*|JWT (authorization not configured|validation failed: .*)",
            re.DOTALL,
        ),
    ),
)
"""Texts of Bacalhau 1.7.0 with status 500 where it means 403 or 401 (its `pkg/authz`). For OAuth2 only "not configured"
was tried on a real one.
"""

_TOO_MUCH_HEAD: Final = ("got more than", "too many headers")
"""How aiohttp says that an answer's headers are beyond its bounds: 8,190 bytes of a line, some 128 lines."""


CONNECT_S: Final = 3.0
"""Seconds after which a connection that is not made is given up."""


class _ErrorDocument(msgspec.Struct):
    """Bacalhau's own error (`pkg/publicapi/apimodels/error.go`); `Code` may be empty."""

    status: int = msgspec.field(name="Status")
    message: str = msgspec.field(name="Message", default="")


_error_document: Final = msgspec.json.Decoder(_ErrorDocument)


def api_base(url: str) -> URL:
    """The API's base of `http://host:1234`, with or without `/api/v1` or a path of a proxy before it.

    Raises SettingsError for what is no such URL, or has a secret in it.
    """
    try:
        base = URL(url)
    except ValueError as error:
        raise SettingsError("orchestrator.url is no URL; write it like http://host:1234") from error
    if base.scheme not in {"http", "https"} or not base.host or not is_host(base.host):
        raise SettingsError("orchestrator.url must be http:// or https:// and name a host, like http://host:1234")
    if base.user is not None or base.password is not None:
        raise SettingsError("orchestrator.url holds a secret; put it into orchestrator.token_file or password_file")
    if base.query_string or base.fragment:
        raise SettingsError("orchestrator.url has a query or a fragment; leave them out")
    path = base.path.rstrip("/")
    return base.with_path(path if path.endswith(API) else path + API)


class Orchestrator:
    """`consumer.ports.Orchestrator` over HTTP. Use as `async with`; many reads may be under way at once.

    Raises `OrchestratorError` for every invalid response, by kind, each with its next step
    (`consumer.faults`):
    unresolved, unreachable, tls, tls-expired, tls-too-early, not-tls, needs-tls, slow, not-http, headers, redirect,
    unauthorized, forbidden, throttled, server-error, refused (another 4xx), wrong-status, not-an-api (a 404 that is
    not Bacalhau's), compute-node (it has no list of jobs), html, not-json, encoded (compressed though we said not to);
    and of this one read: cut, too-large, other-job, not-askable (no path can name this job), and the reasons that
    `consumer.wire.rest` has for a JSON body that it cannot take (wrong-shape, unknown-history-entry, …).
    """

    def __init__(self, settings: OrchestratorSettings, *, connect_timeout_s: float = CONNECT_S) -> None:
        """Raises SettingsError for a URL, a CA file or credentials that cannot be used.

        While a credential is refused (401 or 403) its file is read again before each request.
        """
        password = settings.password or settings.password_file
        if (settings.token or settings.token_file) and (settings.user or password):
            raise SettingsError("orchestrator.token_file and orchestrator.user exclude each other; set one")
        if bool(settings.user) != bool(password):
            raise SettingsError("orchestrator.user and orchestrator.password_file need each other; set both or none")
        if ":" in settings.user:
            raise SettingsError("orchestrator.user must not have a colon: HTTP's basic auth cannot carry it")
        self._settings: Final = settings
        self._connect_timeout_s: Final = connect_timeout_s
        self._base: Final = api_base(settings.url)
        self._tls: Final = trust(settings.tls_ca, "orchestrator.tls_ca")
        self._authorization: str | None = self._read_authorization()
        self._refused = False
        self._unread = ""
        """Why the credential's file could not be read again; empty: it could."""
        self._session: aiohttp.ClientSession | None = None
        self._under_way: dict[object, float] = {}
        self._heard_at = 0.0
        self._list_took_s = 0.0
        self._ways: Final[dict[str, int]] = {}
        self._node_due = 0.0
        self._is_compute = False
        self.lists = 0
        """Lists that were answered so far: whoever has answered one is an orchestrator."""
        self.version: str = ""
        """Bacalhau's version, as its last answer said (`v1.9.3`); empty until one did."""
        self.clock_ns = 0
        """The clock in its last answer (header `Date`, whole seconds), Unix ns; 0 if unknown."""

    @property
    def silent_s(self) -> float:
        """For how long requests have been under way while none came to an end, in seconds; 0 if none is.

        For a list only the part above twice the time of the last one counts.
        """
        if not self._under_way:
            return 0.0
        silent_s = asyncio.get_running_loop().time() - max(self._heard_at, min(self._under_way.values()))
        return max(silent_s, 0.0)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._tls, limit=self._settings.concurrency + PROBES, resolver=Resolver()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={hdrs.ACCEPT: "application/json", hdrs.ACCEPT_ENCODING: "identity"},
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def history(self, read: ReadHistory) -> HistoryPage | Missing:
        """One page of the job-level history of all versions, oldest first (design/bacalhau.md 6.3)."""
        return await self._ask(read, self._ask_history)

    async def _ask_history(self, read: ReadHistory) -> HistoryPage | Missing:
        query = {"event_type": "job", "all_job_versions": "true", "limit": str(HISTORY_LIMIT)}
        body = await self._get(f"{_job_path(read.job)}/history", _with(query, read.next_token, read.namespace))
        return Missing() if body is None else _decoded(partial(decode_history, job=read.job), body)

    async def job(self, read: ReadJob) -> JobDocument | Missing:
        """The job itself, with the beginning of its history."""
        return await self._ask(read, self._ask_job)

    async def _ask_job(self, read: ReadJob) -> JobDocument | Missing:
        body = await self._get(_job_path(read.job), _with({"include": "history"}, "", read.namespace))
        if body is None:
            return Missing()
        document = _decoded(decode_job, body)
        if document.job.job.id != read.job:
            raise OrchestratorError("other-job", f"asked for {read.job!r}, the answer is of another job")
        return document

    async def _ask(self, read: R, ask: Callable[[R], Awaitable[T]]) -> T:
        """Have *read* answered by *ask*, with one request; another job than asked for is an error.

        Since 1.8 Bacalhau looks for a job of that *name* in the namespace first, and only then for the id, in all
        (`pkg/jobstore/boltdb/store.go`, `GetJobByIDOrName`). A job that is named as another's id would hide that
        one. After such an answer it is asked for in another namespace, and after the last of these in its own again.
        That is the next read's: a second request in this one would go out beneath the pace.
        """
        way = self._ways.get(read.job, 0)
        try:
            return await ask(msgspec.structs.replace(read, namespace=_OTHER_NAMESPACES[way - 1]) if way else read)
        except OrchestratorError as error:
            if error.kind == "other-job" or (way and error.kind == "forbidden"):
                self._ask_otherwise(read.job, way)
            raise

    def _ask_otherwise(self, job: str, way: int) -> None:
        """Ask for *job* in the next of its ways; *way* was the wrong one (0: its own namespace)."""
        self._ways.pop(job, None)
        if way == len(_OTHER_NAMESPACES):
            return
        if len(self._ways) >= _NAMED_MAX:
            del self._ways[next(iter(self._ways))]  # the oldest: it costs a read that fails, and is known again
        self._ways[job] = way + 1

    async def jobs(self, read: ReadJobs) -> JobPage:
        """One page of all jobs of all namespaces, the last modified first."""
        query = {"namespace": "*", "order_by": "modified_at", "reverse": "true", "limit": str(read.limit)}
        body = await self._get_list("/orchestrator/jobs", _with(query, read.next_token, ""))
        if body is None:
            raise await self._find_why_no_list()
        page = msgspec.structs.replace(_decoded(decode_jobs, body), clock_ns=self.clock_ns)
        self.lists += 1
        return page

    async def _find_why_no_list(self) -> OrchestratorError:
        """The error for a list that is a 404. A compute node answers so to all that is asked of jobs."""
        now = asyncio.get_running_loop().time()
        if now >= self._node_due:
            self._node_due = now + NODE_EVERY_S
            try:
                self._is_compute = (await self.node()).type == COMPUTE
            except OrchestratorError:
                self._is_compute = False  # what it is remains unknown, and the list is missing all the same
        if self._is_compute:
            return OrchestratorError(
                "compute-node", f"{self._base.origin()}: this is a compute node's API, it has no jobs"
            )
        return OrchestratorError("not-an-api", f"{self._base.origin()} has no list of jobs")

    async def node(self) -> Node:
        """Who answers: what Bacalhau's NATS server is named by (`GET /agent/node`)."""
        body = await self._get("/agent/node", {}, most_s=NODE_TIMEOUT_S)
        if body is None:
            raise OrchestratorError("not-an-api", f"{self._base.origin()} does not say which node it is")
        return _decoded(decode_node, body)

    async def _get(self, path: str, query: dict[str, str], *, most_s: float = float("inf")) -> bytes | None:
        """The body of a 200 answer, which may take *most_s*; None for a 404 of Bacalhau's own."""
        most = self._settings.answer_bytes // ONE_JOB_SHARE
        return await self._request(path, query, most=most, timeout_s=min(self._settings.timeout_s, most_s))

    async def _get_list(self, path: str, query: dict[str, str]) -> bytes | None:
        """As `_get`, of a list: it may be larger than one job and what became of it, for there is one at a time.

        The more is stored, the longer it takes; about as long as the one before.
        """
        timeout_s = max(self._settings.timeout_s, LIST_TIMEOUT_S)
        began = asyncio.get_running_loop().time()
        body = await self._request(
            path, query, most=self._settings.answer_bytes, timeout_s=timeout_s, expected_s=2 * self._list_took_s
        )
        self._list_took_s = asyncio.get_running_loop().time() - began
        return body

    async def _request(
        self, path: str, query: dict[str, str], *, most: int, timeout_s: float, expected_s: float = 0.0
    ) -> bytes | None:
        """The body of a 200 answer, of *most* bytes within *timeout_s*; None for a 404 of Bacalhau's own.

        *expected_s*: the answer is expected to take so long; only what is above that counts for `silent_s`.
        """
        if self._session is None:
            raise RuntimeError("Orchestrator is used outside of its `async with`")
        # Encoded here and left as it is: a job id may hold anything, and must stay one segment of the path.
        url = URL(f"{self._base}{path}", encoded=True).with_query(query)
        if self._refused:
            self._renew_authorization()
        headers = {hdrs.AUTHORIZATION: self._authorization} if self._authorization else {}
        now = asyncio.get_running_loop().time
        this = object()
        self._under_way[this] = now() + expected_s
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=self._connect_timeout_s)
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False, timeout=timeout) as response:
                return await self._read(response, most)
        except aiohttp.ConnectionTimeoutError as error:
            within = f"no connection within {self._connect_timeout_s:g} s"
            raise OrchestratorError("unreachable", f"{self._base.origin()}: {within}") from error
        except TimeoutError as error:
            raise OrchestratorError("slow", f"no whole answer within {timeout_s:g} s") from error
        except aiohttp.ClientSSLError as error:
            raise OrchestratorError(*self._tls_fault(error)) from error
        except aiohttp.ClientPayloadError as error:
            raise OrchestratorError("cut", "the connection ended within the body") from error
        except aiohttp.ClientResponseError as error:
            # Its text quotes what the server sent.
            kind, detail = _http_fault(error)
            raise OrchestratorError(kind, detail) from None
        except (aiohttp.ClientError, OSError) as error:
            unresolved = isinstance(getattr(error, "os_error", None), UnresolvedError)
            away: OrchestratorFault = "unresolved" if unresolved else "unreachable"
            raise OrchestratorError(away, f"{self._base.origin()}: {_why(error)}") from error
        finally:
            del self._under_way[this]
            self._heard_at = now()

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes | None:
        status = response.status
        if status >= HTTPStatus.MULTIPLE_CHOICES and status != HTTPStatus.NOT_FOUND:
            if status == HTTPStatus.BAD_REQUEST and self._base.scheme == "http" and await _wants_tls(response):
                response.close()
                raise OrchestratorError("needs-tls", f"{self._base.origin()}: only TLS is spoken there")
            raise await self._refusal(response)
        self._refused = False
        if response.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise OrchestratorError("encoded", "the body is compressed, which was not asked for")
        body = await _bounded(response, most)
        if status == HTTPStatus.NOT_FOUND:
            if body.strip() and not _is_error_document(body):
                raise OrchestratorError("not-an-api", f"{self._base}: a 404 that is not Bacalhau's")
            self._hear_version(response)
            return None
        if status != HTTPStatus.OK:
            raise OrchestratorError("wrong-status", f"{self._base}: status {status} where only 200 has a meaning")
        if "html" in response.content_type or body.lstrip()[:1] == b"<":
            raise OrchestratorError("html", f"{self._base}: a page where JSON should be")
        self._hear_version(response)
        return body

    def _tls_fault(self, error: aiohttp.ClientSSLError) -> tuple[OrchestratorFault, str]:
        """Kind and detail of a handshake that failed: what answers may speak no TLS at all."""
        # One of aiohttp's two errors has OpenSSL's within it, the other one has not.
        if getattr(getattr(error, "os_error", None), "reason", "") in _NO_TLS:
            return "not-tls", f"{self._base.origin()}: no TLS is spoken there"
        return of_certificate(error.os_error) or "tls", f"{self._base.origin()}: {_why(error)}"

    def _hear_version(self, response: aiohttp.ClientResponse) -> None:
        """Keep the version and the clock of an answer of the API. An invalid version counts as absent."""
        self.clock_ns = _clock_ns(response.headers.get(hdrs.DATE, ""))
        said = _VERSION_WORD.fullmatch(response.headers.get(_VERSION, ""))
        if said is None or said[0] == self.version:
            return
        before, self.version = self.version, said[0]
        first, last = KNOWN_VERSIONS
        if first <= (int(said[1]), int(said[2])) <= last:
            log.info("orchestrator.version", version=said[0], before=before)
        else:
            step = "jobstate knows 1.5 to 1.9: look whether answers are refused (jobstate_reads_total)"
            log.warning("orchestrator.version", version=said[0], before=before, next_step=step)

    async def _refusal(self, response: aiohttp.ClientResponse) -> OrchestratorError:
        status = response.status
        detail = f"status {status}"
        kind: OrchestratorFault
        if status < HTTPStatus.BAD_REQUEST:
            kind = "redirect"
        elif status == HTTPStatus.INTERNAL_SERVER_ERROR and (meant := await _meant_by_500(response)):
            kind = meant
            detail += f", by which Bacalhau 1.7 means {_MEANS[kind]}"
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            kind = "server-error"
        else:
            kind = _STATUS.get(status, "refused")
        response.close()
        if kind in _OF_CREDENTIAL:
            self._refused = True
            detail += "" if self._authorization else ", and we have no credential"
            detail += f", and {self._unread}" if self._unread else ""
        return OrchestratorError(kind, detail, _retry_after(response))

    def _renew_authorization(self) -> None:
        """Read the credential again: somebody may have mended it. One that cannot be read leaves what there was."""
        try:
            self._authorization, self._unread = self._read_authorization(), ""
        except SettingsError as error:
            self._unread = str(error)

    def _read_authorization(self) -> str | None:
        settings = self._settings
        if token := secret_of(settings.token, settings.token_file, "orchestrator.token_file"):
            return f"Bearer {token}"
        if settings.user:
            password = secret_of(settings.password, settings.password_file, "orchestrator.password_file")
            return "Basic " + b64encode(f"{settings.user}:{password}".encode()).decode()
        return None


def _http_fault(error: aiohttp.ClientResponseError) -> tuple[OrchestratorFault, str]:
    """Kind and detail of an answer whose head aiohttp does not take: too much of it, or none of HTTP."""
    if any(words in error.message.lower() for words in _TOO_MUCH_HEAD):
        return "headers", "its headers are too long (more than 8 KiB for one) or too many"
    return "not-http", f"the answer is no HTTP ({type(error).__name__})"


async def _meant_by_500(response: aiohttp.ClientResponse) -> OrchestratorFault | None:
    """The kind that a 500 of Bacalhau 1.7.0 means by its message; None where it means what it says."""
    size = response.content_length or 0
    if size > _REASON_MAX:
        return None
    try:
        async with asyncio.timeout(_REASON_S):
            message = _error_document.decode(await response.content.readexactly(size)).message
    except (aiohttp.ClientError, TimeoutError, EOFError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return next((kind for kind, words in _MEANT_BY_500 if words.fullmatch(message)), None)


async def _wants_tls(response: aiohttp.ClientResponse) -> bool:
    """Whether the body is the one sentence of a server that speaks TLS. No more of it is read than could be that."""
    body, most = b"", len(_WANTS_TLS) + len(b"\n") + 1
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        while len(body) < most and (part := await response.content.read(most - len(body))):
            body += part
    return body.removesuffix(b"\n") == _WANTS_TLS


async def _bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    if (response.content_length or 0) <= most:
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > most:
                break
        else:
            return bytes(body)
    response.close()  # the rest is not wanted, and the connection is of no more use
    raise OrchestratorError("too-large", f"more than {most} bytes, the bound of such an answer")


def _clock_ns(date: str) -> int:
    """The header `Date` as ns since 1970; 0 if it is invalid: a proxy may write anything."""
    try:
        return max(int(parsedate_to_datetime(date).timestamp()) * 1_000_000_000, 0)
    except (ValueError, OverflowError):
        return 0


def _job_path(job: str) -> str:
    if not job or job in {".", ".."} or len(job) > _JOB_ID_MAX:
        raise OrchestratorError("not-askable", f"no path can name a job with this id ({len(job)} characters)")
    return f"/orchestrator/jobs/{quote(job, safe='', errors='surrogatepass')}"


def _with(query: dict[str, str], next_token: str, namespace: str) -> dict[str, str]:
    if next_token:
        query["next_token"] = next_token
    if namespace:
        query["namespace"] = namespace
    return query


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except DecodeError as error:
        # Details of the wire name places and reasons, never what stood there.
        raise OrchestratorError(of_body(error.reason, cut=error.cut), f"{error.detail} ({len(body)} bytes)") from None


def _is_error_document(body: bytes) -> bool:
    try:
        return _error_document.decode(body).status == HTTPStatus.NOT_FOUND
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that `Retry-After` asks for; None where it is absent or a date (our clock may not be theirs)."""
    try:
        seconds = float(response.headers.get(hdrs.RETRY_AFTER, ""))
    except ValueError:
        return None
    return min(seconds, _RETRY_AFTER_MAX_S) if seconds > 0 else None


def _why(error: BaseException) -> str:
    """Reason of a failed connection in a few words: the system's, never the peer's."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return getattr(cause, "strerror", None) or type(cause).__name__


__all__ = ["Orchestrator", "api_base"]
