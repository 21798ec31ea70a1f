"""Bacalhau's REST side, asked over HTTP: one request, one answer, and a name for every answer that is none.

What bodies mean is `consumer.wire.rest`; what to ask and when is `consumer.join` and `consumer.bacalhau.pace`. Here are
the bounds: time, bytes, no redirects, no cookies, no compression. A body never gets into an error: it may hold secrets.
"""

import ssl
from base64 import b64encode
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import hdrs
from yarl import URL

from consumer.errors import DecodeError, OrchestratorError, SettingsError
from consumer.join.reads import HISTORY_LIMIT, Missing, ReadHistory, ReadJob, ReadJobs
from consumer.model import HistoryPage, JobPage, Snapshot
from consumer.settings import Orchestrator as OrchestratorSettings
from consumer.settings import read_secret
from consumer.wire.rest import decode_history, decode_job, decode_jobs

T = TypeVar("T")

API: Final = "/api/v1"

_VERSION: Final = "X-Bacalhau-Git-Version"
_CHUNK: Final = 64 * 1024
_JOB_ID_MAX: Final = 1024
_RETRY_AFTER_MAX_S: Final = 3600.0
_STATUS: Final = {401: "unauthorized", 403: "forbidden", 429: "throttled"}
_HINTS: Final = {
    "unauthorized": "check orchestrator.token_file, or orchestrator.user and its password_file",
    "forbidden": "the credential needs the capability read:job",
    "redirect": "set orchestrator.url to where the API itself is",
}


class OrchestratorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the orchestrator is, who we are to it, and what an answer may cost.

    *token_file* (Bearer) and *user* with *password_file* (Basic) exclude each other. *timeout_s* is for a whole answer.
    """

    url: str
    token_file: str = ""
    user: str = ""
    password_file: str = ""
    tls_ca: str = ""
    connect_timeout_s: float = 3.0
    timeout_s: float = 10.0
    body_max: int = 32 * 1024 * 1024
    connections: int = 16

    @classmethod
    def of(cls, settings: OrchestratorSettings) -> Self:
        """What the settings say; the bounds that they do not name stay as they are here."""
        return cls(
            url=settings.url,
            token_file=settings.token_file,
            user=settings.user,
            password_file=settings.password_file,
            tls_ca=settings.tls_ca,
            timeout_s=settings.timeout_s,
            connections=settings.concurrency,
        )


class _ErrorDocument(msgspec.Struct):
    """Bacalhau's own error (`pkg/publicapi/apimodels/error.go`); `Code` may be empty."""

    status: int = msgspec.field(name="Status")


_error_document: Final = msgspec.json.Decoder(_ErrorDocument)


def api_base(url: str) -> URL:
    """The API's base of `http://host:1234`, with or without `/api/v1` or a path of a proxy before it.

    Raises SettingsError for what is no such URL, or has a secret in it.
    """
    try:
        base = URL(url)
    except ValueError as error:
        raise SettingsError("orchestrator.url is no URL; write it like http://host:1234") from error
    if base.scheme not in {"http", "https"} or not base.host:
        raise SettingsError("orchestrator.url must be http:// or https:// and name a host, like http://host:1234")
    if base.user is not None or base.password is not None:
        raise SettingsError("orchestrator.url holds a secret; put it into orchestrator.token_file or password_file")
    if base.query_string or base.fragment:
        raise SettingsError("orchestrator.url has a query or a fragment; leave them out")
    path = base.path.rstrip("/")
    return base.with_path(path if path.endswith(API) else path + API)


class Orchestrator:
    """`consumer.ports.Orchestrator` over HTTP. Use as `async with`; many reads may be under way at once.

    Raises `OrchestratorError` for every answer that is none, by kind:
    unreachable, tls, slow, not-http, redirect, unauthorized, forbidden, throttled, server-error, refused (another 4xx),
    wrong-status, not-an-api (a 404 that is not Bacalhau's), html, not-json, encoded (compressed though we said not to);
    and of this one read: cut, too-large, other-job, not-askable (no path can name this job), and the reasons that
    `consumer.wire.rest` has for a JSON body that it cannot take (wrong-shape, unknown-history-entry, …).
    """

    def __init__(self, options: OrchestratorOptions) -> None:
        """Raises SettingsError for a URL, a CA file or credentials that cannot be used."""
        if options.token_file and (options.user or options.password_file):
            raise SettingsError("orchestrator.token_file and orchestrator.user exclude each other; set one")
        if bool(options.user) != bool(options.password_file):
            raise SettingsError("orchestrator.user and orchestrator.password_file need each other; set both or none")
        if ":" in options.user:
            raise SettingsError("orchestrator.user must not have a colon: HTTP's basic auth cannot carry it")
        self._options: Final = options
        self._base: Final = api_base(options.url)
        self._tls: Final = _tls(options.tls_ca)
        self._authorization: str | None = self._read_authorization()
        self._session: aiohttp.ClientSession | None = None
        self.version: str = ""
        """Bacalhau's version, as its last answer said; empty until one did."""

    async def __aenter__(self) -> Self:
        options = self._options
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=options.connections),
            timeout=aiohttp.ClientTimeout(total=options.timeout_s, sock_connect=options.connect_timeout_s),
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
        """One page of the job-level history of all versions, oldest first (`BACALHAU.md` 6.3)."""
        query = {"event_type": "job", "all_job_versions": "true", "limit": str(HISTORY_LIMIT)}
        body = await self._get(f"{_job_path(read.job)}/history", _with(query, read.next_token, read.namespace))
        return Missing() if body is None else _decoded(decode_history, body)

    async def job(self, read: ReadJob) -> Snapshot | Missing:
        """The job itself. Bacalhau also finds jobs by name or short id: another one than asked for is an error."""
        body = await self._get(_job_path(read.job), _with({}, "", read.namespace))
        if body is None:
            return Missing()
        snapshot = _decoded(decode_job, body)
        if snapshot.job.id != read.job:
            raise OrchestratorError("other-job", f"asked for {read.job!r}, the answer is of another job")
        return snapshot

    async def jobs(self, read: ReadJobs) -> JobPage:
        """One page of all jobs of all namespaces, the last modified first."""
        query = {"namespace": "*", "order_by": "modified_at", "reverse": "true", "limit": str(read.limit)}
        body = await self._get("/orchestrator/jobs", _with(query, read.next_token, ""))
        if body is None:
            raise OrchestratorError("not-an-api", f"{self._base.origin()} has no list of jobs; check orchestrator.url")
        return _decoded(decode_jobs, body)

    async def _get(self, path: str, query: dict[str, str]) -> bytes | None:
        """The body of a 200 answer; None for a 404 of Bacalhau's own."""
        if self._session is None:
            raise RuntimeError("Orchestrator is used outside of its `async with`")
        # Encoded here and left as it is: a job id may hold anything, and must stay one segment of the path.
        url = URL(f"{self._base}{path}", encoded=True).with_query(query)
        headers = {hdrs.AUTHORIZATION: self._authorization} if self._authorization else {}
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                return await self._read(response)
        except TimeoutError as error:
            raise OrchestratorError("slow", f"no whole answer within {self._options.timeout_s:g} s") from error
        except aiohttp.ClientSSLError as error:
            raise OrchestratorError("tls", f"{_why(error)}; check orchestrator.tls_ca and the host name") from error
        except aiohttp.ClientPayloadError as error:
            raise OrchestratorError("cut", "the connection ended within the body") from error
        except aiohttp.ClientResponseError as error:
            # Its text quotes what the server sent.
            raise OrchestratorError("not-http", f"the answer is no HTTP ({type(error).__name__})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise OrchestratorError("unreachable", f"{self._base.origin()}: {_why(error)}") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        status = response.status
        if status >= HTTPStatus.MULTIPLE_CHOICES and status != HTTPStatus.NOT_FOUND:
            raise self._refusal(response)
        if response.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise OrchestratorError("encoded", "the body is compressed, which was not asked for; look at the proxy")
        body = await self._bounded(response)
        if status == HTTPStatus.NOT_FOUND:
            if body.strip() and not _is_error_document(body):
                raise OrchestratorError(
                    "not-an-api", f"a 404 that is not Bacalhau's; check orchestrator.url ({self._base})"
                )
            return None
        if status != HTTPStatus.OK:
            raise OrchestratorError("wrong-status", f"status {status} where only 200 has a meaning")
        if "html" in response.content_type or body.lstrip()[:1] == b"<":
            raise OrchestratorError("html", f"a page where JSON should be; check orchestrator.url ({self._base})")
        self.version = response.headers.get(_VERSION, self.version)[:64]
        return body

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        most = self._options.body_max
        body = bytearray()
        if (response.content_length or 0) <= most:
            async for chunk in response.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > most:
                    break
            else:
                return bytes(body)
        response.close()  # the rest is not wanted, and the connection is of no more use
        raise OrchestratorError("too-large", f"more than {most} bytes, the bound of an answer")

    def _refusal(self, response: aiohttp.ClientResponse) -> OrchestratorError:
        status = response.status
        if status < HTTPStatus.BAD_REQUEST:
            kind = "redirect"
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            kind = "server-error"
        else:
            kind = _STATUS.get(status, "refused")
        response.close()
        hint = _HINTS.get(kind)
        if kind == "unauthorized":
            try:
                self._authorization = self._read_authorization()  # it may have been changed in its file
            except SettingsError as error:
                hint = str(error)
        return OrchestratorError(kind, f"status {status}" + (f"; {hint}" if hint else ""), _retry_after(response))

    def _read_authorization(self) -> str | None:
        options = self._options
        if options.token_file:
            return "Bearer " + read_secret(options.token_file, "orchestrator.token_file")
        if options.user and options.password_file:
            password = read_secret(options.password_file, "orchestrator.password_file")
            return "Basic " + b64encode(f"{options.user}:{password}".encode()).decode()
        return None


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
        kind = "cut" if error.reason == "not-json" and "truncated" in error.detail else error.reason
        raise OrchestratorError(kind, f"{error.detail} ({len(body)} bytes)") from None


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


def _tls(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"orchestrator.tls_ca: {ca} is no certificate authority in PEM; check the file") from error


def _why(error: BaseException) -> str:
    """Reason of a failed connection in a few words: the system's, never the peer's."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return getattr(cause, "strerror", None) or type(cause).__name__


__all__ = ["Orchestrator", "OrchestratorOptions", "api_base"]
