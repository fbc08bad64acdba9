"""An Airbyte server, public API v1: tokens, jobs, problems, and one running job a connection.

    with FakeAirbyte(plan=("pending", "running", "succeeded")) as airbyte:      each question for a job is one step on
        options = {"host": airbyte.host, "client_id": airbyte.client_id, "client_secret": airbyte.client_secret}

    with FakeAirbyte() as airbyte:                          jobs run until told otherwise
        airbyte.end("succeeded", airbyte.newest.job_id)

    python -m tests.fakes.airbyte --port 8001 --seconds 30  a process of its own; prints its host and serves until killed

It serves the same under `/`, `/v1` and `/api/public/v1`. `submitted` counts jobs by connection: a test that gives each
run a connection of its own sees there what was submitted twice.
"""

from __future__ import annotations

import argparse
import json
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from tests.fakes.serving import FakeServer, Handler

RUNNING: Final = frozenset({"pending", "queued", "running", "incomplete"})
MOUNTS: Final = ("", "/v1", "/api/public/v1")
FIRST_ID: Final = 12_345


@dataclass
class AirbyteJob:
    """A job as the server keeps it; `plan` are the statuses still to come, one a question."""

    job_id: int
    connection_id: str
    job_type: str
    created: datetime
    status: str
    plan: list[str] = field(default_factory=list)
    ends: float | None = None
    updated: datetime | None = None
    asked: int = 0

    @property
    def is_over(self) -> bool:
        """True for the statuses that stay."""
        return self.status not in RUNNING

    def document(self) -> dict[str, Any]:
        """The job as the API shows it."""
        shown: dict[str, Any] = {
            "jobId": self.job_id,
            "status": self.status,
            "jobType": self.job_type,
            "startTime": _text(self.created),
            "connectionId": self.connection_id,
        }
        if self.status != "pending":
            shown["duration"] = "PT8S"
        if self.is_over:
            shown["lastUpdatedAt"] = _text(self.updated or self.created)
        if self.status == "succeeded":
            shown |= {"bytesSynced": 2048, "rowsSynced": 16}
        return shown


class FakeAirbyte(FakeServer):
    """The server; see the top of this file. Everything may be read and told from any thread."""

    def __init__(
        self,
        *,
        plan: Sequence[str] = ("running",),
        seconds: float | None = None,
        mount: str = "",
        auth: bool = True,
        expires_in: int = 900,
        offset: timedelta = timedelta(0),
        port: int = 0,
    ) -> None:
        """`seconds`: jobs succeed by themselves so long after their creation. `offset`: how far its clock is ahead."""
        super().__init__(port)
        self.plan = tuple(plan)
        self.seconds = seconds
        self.mount = mount
        self.client_id: str | None = "fake-client-id" if auth else None
        self.client_secret: str | None = "fake-client-secret" if auth else None
        self.expires_in = expires_in
        self.offset = offset
        self.jobs: dict[int, AirbyteJob] = {}
        self.submitted: Counter[str] = Counter()
        self.cancels: Counter[int] = Counter()
        self.tokens: set[str] = set()
        self.tokens_given = 0
        self.one_at_a_time = True
        self._last_id = FIRST_ID - 1

    # --- what tests ask and tell -------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The option `host`."""
        return f"{self.origin}{self.mount}"

    @property
    def newest(self) -> AirbyteJob:
        """The job made last."""
        with self.lock:
            return self.jobs[max(self.jobs)]

    @property
    def options(self) -> dict[str, Any]:
        """The executor's options for this server."""
        named = {"client_id": self.client_id, "client_secret": self.client_secret} if self.client_id else {}
        return {"host": self.host, **named}

    def end(self, status: str, *job_ids: int) -> None:
        """These jobs, or all that run, get this status."""
        with self.lock:
            for job in [self.jobs[job_id] for job_id in job_ids] or list(self.jobs.values()):
                if not job.is_over:
                    self._set(job, status)

    def forget(self, job_id: int) -> None:
        """The job is gone: nobody knows it any more."""
        with self.lock:
            del self.jobs[job_id]

    def revoke(self) -> None:
        """No token given so far is good any more."""
        with self.lock:
            self.tokens.clear()

    def add(self, connection_id: str, status: str = "running", *, ago: timedelta = timedelta(0)) -> AirbyteJob:
        """A job that somebody else made."""
        with self.lock:
            return self._make(connection_id, "sync", status, self.now() - ago)

    def now(self) -> datetime:
        """Its clock."""
        return datetime.now(UTC) + self.offset

    # --- the API -----------------------------------------------------------------------------------------------------

    def routes(self) -> list[tuple[str, str, str, Handler]]:
        """The same under every mount; the token's URL is below the API's folder, wherever that is."""
        served: list[tuple[str, str, str, Handler]] = []
        for mount in MOUNTS:
            served += [
                ("create", "POST", f"{mount}/jobs", self._known(self._create)),
                ("find", "GET", f"{mount}/jobs", self._known(self._list)),
                ("status", "GET", f"{mount}/jobs/{{id}}", self._known(self._get)),
                ("delete", "DELETE", f"{mount}/jobs/{{id}}", self._known(self._delete)),
                ("health", "GET", f"{mount}/health", self._health),
            ]
        served += [("token", "POST", f"{mount}/applications/token", self._token) for mount in MOUNTS]
        return served

    def refusal(self, status: int) -> web.Response:
        """A problem document."""
        titles = {401: "unauthorized", 403: "forbidden", 404: "resource-not-found", 409: "state-conflict"}
        return problem(status, titles.get(status, "unexpected-problem"), f"ordered: {status}")

    def _known(self, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if self.client_id is not None and (scheme != "Bearer" or token not in self.tokens):
                return problem(401, "unauthorized", "the token is not valid")
            answer = await handler(request)
            answer.headers["Date"] = self.now().strftime("%a, %d %b %Y %H:%M:%S GMT")
            return answer

        return checked

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        wanted = ("client_credentials", self.client_id, self.client_secret)
        if (form.get("grant_type"), form.get("client_id"), form.get("client_secret")) != wanted:
            return problem(
                401, "unauthorized", f"no client {form.get('client_id')!r} with {form.get('client_secret')!r}"
            )
        token = secrets.token_urlsafe(16)
        with self.lock:
            self.tokens.add(token)
            self.tokens_given += 1
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in})

    async def _create(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        connection, job_type = wanted.get("connectionId"), wanted.get("jobType")
        if not isinstance(connection, str) or job_type not in ("sync", "reset", "refresh", "clear"):
            return problem(422, "unprocessable-content", "connectionId and jobType are needed")
        if connection == "unknown":
            return problem(404, "resource-not-found", "could not find a resource for: unknown")
        with self.lock:
            running = [job for job in self.jobs.values() if job.connection_id == connection]
            if self.one_at_a_time and any(not self._step(job).is_over for job in running):
                said = {
                    "message": f"A sync is already running for: {connection}",
                    "exceptionClassName": "io.airbyte.commons.server.errors.ValueConflictKnownException",
                }
                return web.json_response(said, status=409)
            job = self._make(connection, job_type, self.plan[0], self.now())
            job.plan = list(self.plan[1:])
            self.submitted[connection] += 1
            return web.json_response(job.document())

    async def _get(self, request: web.Request) -> web.Response:
        with self.lock:
            job = self._find(request)
            if job is None:
                return problem(404, "resource-not-found", f"could not find a resource for: {request.match_info['id']}")
            job.asked += 1
            shown = self._step(job).document()
            if job.plan:
                self._set(job, job.plan.pop(0))
            return web.json_response(shown)

    async def _delete(self, request: web.Request) -> web.Response:
        with self.lock:
            job = self._find(request)
            if job is None:
                return problem(404, "resource-not-found", f"could not find a resource for: {request.match_info['id']}")
            self.cancels[job.job_id] += 1
            if not self._step(job).is_over:
                self._set(job, "cancelled")
            return web.json_response(job.document())

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        limit, offset = int(query.get("limit", 20)), int(query.get("offset", 0))
        since, until = (_moment(query.get(f"createdAt{end}")) for end in ("Start", "End"))
        with self.lock:
            found = [
                self._step(job)
                for job in sorted(self.jobs.values(), key=lambda job: job.job_id, reverse=True)
                if query.get("connectionId") in (None, job.connection_id)
                and query.get("jobType") in (None, job.job_type)
                and query.get("status") in (None, job.status)
                and (since is None or job.created >= since)
                and (until is None or job.created <= until)
            ]
        page = found[offset : offset + limit]
        more = "" if offset + limit >= len(found) else f"{self.host}/jobs?limit={limit}&offset={offset + limit}"
        return web.json_response({"data": [job.document() for job in page], "previous": "", "next": more})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="Successful operation")

    # --- inside ------------------------------------------------------------------------------------------------------

    def _find(self, request: web.Request) -> AirbyteJob | None:
        text = request.match_info["id"]
        return self.jobs.get(int(text)) if text.isdigit() else None

    def _make(self, connection: str, job_type: str, status: str, created: datetime) -> AirbyteJob:
        ends = None if self.seconds is None else time.monotonic() + self.seconds
        self._last_id += 1
        self.jobs[self._last_id] = job = AirbyteJob(self._last_id, connection, job_type, created, status, ends=ends)
        return job

    def _step(self, job: AirbyteJob) -> AirbyteJob:
        if job.ends is not None and time.monotonic() >= job.ends and not job.is_over:
            self._set(job, "succeeded")
        return job

    def _set(self, job: AirbyteJob, status: str) -> None:
        job.status, job.updated = status, self.now()


def problem(status: int, title: str, detail: str) -> web.Response:
    """An error as the public API words it."""
    document = {
        "type": f"https://reference.airbyte.com/reference/errors#{title}",
        "title": title,
        "status": status,
        "detail": detail,
        "data": {},
    }
    return web.Response(status=status, text=json.dumps(document), content_type="application/problem+json")


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--no-auth", action="store_true")
    wanted = parser.parse_args()
    with FakeAirbyte(port=wanted.port, seconds=wanted.seconds, auth=not wanted.no_auth) as airbyte:
        print(airbyte.host, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
