"""The executor `airbyte`: a run starts a sync of an Airbyte connection, or watches a job that exists already.

    executors:
      airbyte: {use: airbyte, options: {host: "https://airbyte.example/api/public/v1", client_id: …, client_secret: …}}

    config: {connection_id: 8c1f…, job_type: sync}       start one
    config: {job_id: 12345}                              watch one

It speaks the public API, version 1. Airbyte runs one job of a connection at a time and keeps no key of ours, so the job
that an interrupted `create` may have left is found by its connection and the instant of its creation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final, Literal
from urllib.parse import urljoin, urlsplit

from executors.airbyte_tokens import Tokens
from executors.errors import PermanentError, Problem, RetryableError
from executors.external_job import ExternalJob, Job, JobBusy, JobConfig, JobGone, JobPhase, JobStatus
from executors.hiding import Hidden
from executors.http_client import Tls, proxy_faults
from executors.http_words import load_client, url_fault
from executors.job_service import Answer, Service, shown_url
from executors.protocol import RunContext

_PHASES: Final = {
    "pending": JobPhase.QUEUED,
    "queued": JobPhase.QUEUED,
    "running": JobPhase.RUNNING,
    "incomplete": JobPhase.RUNNING,
    "succeeded": JobPhase.SUCCEEDED,
    "failed": JobPhase.FAILED,
    "cancelled": JobPhase.ABORTED,
}
_OUTPUTS: Final = {
    "jobId": "job_id",
    "status": "status",
    "connectionId": "connection_id",
    "jobType": "job_type",
    "startTime": "start_time",
    "lastUpdatedAt": "last_updated_at",
    "duration": "duration",
    "bytesSynced": "bytes_synced",
    "rowsSynced": "rows_synced",
}
_PAGE: Final = 100
_MOST: Final = 100 * _PAGE
_SECOND: Final = timedelta(seconds=1)
# Two clocks that are kept right differ by less, and the service tells its own to the second only.
_SAME_CLOCK: Final = timedelta(seconds=2)


class AirbyteExecutor(ExternalJob):
    """Starts Airbyte jobs and watches them to their end."""

    can_find = True

    @dataclass(frozen=True)
    class Options:
        """`host` is the URL of the API as it is mounted; `token_url` is relative to it. Without `client_id`, no token.

        `proxies` maps `http` and `https` to the proxy for URLs of that scheme, without it the usual variables count; `tls`
        names an own authority and a client certificate; `timeout` is for each request.
        """

        host: str
        client_id: str | None = None
        client_secret: str | None = field(default=None, repr=False)
        token_url: str = "v1/applications/token"  # noqa: S105  # a path, no secret
        proxies: dict[str, str] = field(default_factory=dict, repr=False)
        tls: Tls = Tls()
        timeout: timedelta = timedelta(seconds=30)

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            if fault := url_fault(self.host):
                yield "host", fault
            elif self.client_id is not None and urlsplit(self.host).username is not None:
                yield "host", "names a user, which does not go together with client_id"
            if (self.client_id is None) != (self.client_secret is None):
                yield "client_secret", "belongs to client_id: give both, or none of them"
            if self.timeout <= timedelta(0):
                yield "timeout", "is not a positive duration"
            yield from proxy_faults(self.proxies)

    @dataclass(frozen=True, kw_only=True)
    class Config(JobConfig):
        """`connection_id` is what to sync, or `job_id` the job to watch."""

        connection_id: str | None = None
        job_type: Literal["sync", "reset", "refresh", "clear"] = "sync"
        job_id: int | str | None = None

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            yield from super().check()
            if (self.connection_id is None) == (self.job_id is None):
                yield "", "needs a connection_id, to start a job, or a job_id, to watch one, and not both"
            if self.job_id is not None and _job_id(self.job_id) is None:
                yield "job_id", "is no whole number"

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        said: AirbyteExecutor.Options = self.options
        self._host = said.host.rstrip("/")
        hidden = Hidden([said.client_secret, *map(_password, [said.host, *said.proxies.values()])])
        self._service = Service("Airbyte", timeout=said.timeout, proxies=said.proxies, tls=said.tls, hidden=hidden)
        # A call may need a token first, and a second one if Airbyte has forgotten the first.
        self.call_timeout = max(self.call_timeout, 4 * said.timeout)
        self._tokens: Tokens | None = None
        if said.client_id is not None and said.client_secret is not None:
            token_url = urljoin(self._host, said.token_url)
            self._tokens = Tokens(self._service, token_url, said.client_id, said.client_secret)

    async def start(self) -> None:
        """Load what sends requests."""
        load_client()

    # --- the calls ---------------------------------------------------------------------------------------------------

    def watched(self, run: RunContext) -> Job | None:
        """The job that the task's `job_id` names."""
        job_id = None if run.config.job_id is None else _job_id(run.config.job_id)
        return None if job_id is None else Job({"job_id": job_id}, str(job_id))

    async def create(self, run: RunContext) -> Job:
        """Start the job; `JobBusy` while another one of the connection runs."""
        config: AirbyteExecutor.Config = run.config
        url = f"{self._host}/jobs"
        wanted = {"connectionId": config.connection_id, "jobType": config.job_type}
        answer = await self._ask(run, "POST", url, acts=True, json=wanted)
        if answer.status == 409:
            raise JobBusy(f"Airbyte runs a job of the connection already: {self._service.excerpt(answer)}")
        if not answer.ok:
            if answer.status == 404 and not _is_problem(answer):
                raise RetryableError(f"{self._refused('POST', url, answer)}{self._perhaps_the_host()}")
            raise PermanentError(self._refused("POST", url, answer))
        found = self._service.document("POST", url, answer, acts=True)
        if (job := _job(found)) is None:
            said = f"Airbyte accepted a job and named none: {self._service.excerpt(answer)}"
            raise RetryableError(said, outcome_known=False)
        return job

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """How the job stands. A status word that is not known is an error: the job is taken to run, for a while."""
        job_id = job.meta["job_id"]
        found = await self._job_document(run, "GET", job_id)
        word = found.get("status")
        if not isinstance(word, str) or found.get("jobId") not in (job_id, str(job_id)):
            raise RetryableError(f"Airbyte answered with something else than the job {job_id}")
        phase = _PHASES.get(word)
        if phase is None:
            raise RetryableError(f"Job run {job_id} has the status {word!r}, which is not known")
        told = {ours: found[theirs] for theirs, ours in _OUTPUTS.items() if found.get(theirs) is not None}
        if not phase.is_over:
            return JobStatus(phase, custom=told)
        status = JobStatus(phase, custom=told, outputs=told if phase is JobPhase.SUCCEEDED else None)
        return replace(status, message=self.end_message(job, status))

    async def delete(self, run: RunContext, job: Job) -> None:
        """Ask Airbyte to cancel the job."""
        await self._job_document(run, "DELETE", job.meta["job_id"])

    async def find(self, run: RunContext, created_after: datetime) -> Job | None:
        """The oldest job of the connection that was created since: Airbyte runs one at a time, so none came between."""
        config: AirbyteExecutor.Config = run.config
        of_connection = {"connectionId": str(config.connection_id), "jobType": config.job_type}
        # Asked for one thing first, its clock: the listing is by that clock, and it may not be right.
        answer, _ = await self._list(run, {**of_connection, "limit": "1"})
        since = _by_their_clock(created_after, answer, run.now())
        asked = {**of_connection, "createdAtStart": _text(since), "limit": str(_PAGE)}
        found: list[tuple[datetime, int, Job]] = []
        for offset in range(0, _MOST, _PAGE):
            _, listed = await self._list(run, {**asked, "offset": str(offset)})
            jobs = [job for document in listed if (job := _job(document)) is not None]
            found += [(job.created_at, job.meta["job_id"], job) for job in jobs if job.created_at is not None]
            if len(listed) < _PAGE:
                break
        return next((job for created_at, _, job in sorted(found, key=itemgetter(0, 1)) if created_at >= since), None)

    def shown_id(self, job: Job) -> str | int:
        """Airbyte's number of the job."""
        return int(job.meta["job_id"])

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _list(self, run: RunContext, asked: Mapping[str, str]) -> tuple[Answer, list[Any]]:
        url = f"{self._host}/jobs"
        answer = await self._ask(run, "GET", url, params=asked)
        if not answer.ok:
            raise RetryableError(self._refused("GET", url, answer))
        listed = self._service.document("GET", url, answer).get("data")
        if not isinstance(listed, list):
            raise RetryableError(f"Airbyte answered with something else than jobs: {self._service.excerpt(answer)}")
        return answer, listed

    async def _job_document(self, run: RunContext, method: str, job_id: int) -> dict[str, Any]:
        url = f"{self._host}/jobs/{job_id}"
        answer = await self._ask(run, method, url)
        if answer.ok:
            return self._service.document(method, url, answer)
        if answer.status in (404, 410):
            if _is_problem(answer):
                raise JobGone(f"Airbyte does not know the job {job_id}: {self._service.excerpt(answer)}")
            raise RetryableError(f"{self._refused(method, url, answer)}{self._perhaps_the_host()}")
        raise RetryableError(self._refused(method, url, answer))

    async def _ask(self, run: RunContext, method: str, url: str, *, acts: bool = False, **sent: Any) -> Answer:
        """One request with a token; a token that is refused is replaced once."""
        refused: str | None = None
        while True:
            headers = {"accept": "application/json"}
            token = None
            if self._tokens is not None:
                token = await self._tokens.get(run, refused)
                headers["authorization"] = f"Bearer {token}"
            answer = await self._service.send(run, method, url, acts=acts, headers=headers, **sent)
            if answer.status == 401 and token is not None and refused is None:
                refused = token
                continue
            if answer.status in (401, 403):
                raise RetryableError(f"Authentication error: {self._refused(method, url, answer)}")
            return self._service.check(run, method, url, answer, acts=acts)

    def _refused(self, method: str, url: str, answer: Answer) -> str:
        return f"Airbyte answered {method} {shown_url(url)} with {self._service.explain(answer)}"

    def _perhaps_the_host(self) -> str:
        if self._host.endswith("/v1"):
            return ""
        return " (is /v1 or /api/public/v1 missing at the end of `host`?)"


def _job_id(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _job(document: object) -> Job | None:
    if not isinstance(document, dict):
        return None
    job_id = _job_id(document.get("jobId"))
    if job_id is None:
        return None
    return Job({"job_id": job_id}, str(job_id), _moment(document.get("startTime")))


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def _by_their_clock(moment: datetime, answer: Answer, now: datetime) -> datetime:
    """The instant as Airbyte's clock showed it, rounded down to the whole second that a job's start is told in."""
    theirs = answer.date()
    apart = theirs - now if theirs is not None else timedelta(0)
    if abs(apart) >= _SAME_CLOCK:
        moment += apart - _SECOND
    return moment.replace(microsecond=0)


def _is_problem(answer: Answer) -> bool:
    """Whether Airbyte itself says so, and no gateway in front of it."""
    try:
        document = answer.parsed()
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and bool(document.keys() & {"title", "exceptionClassName"})


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None
