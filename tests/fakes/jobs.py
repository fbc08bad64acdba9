"""A service that keeps jobs behind a plain HTTP API of its own making, for `http_job`.

    with FakeJobs() as jobs:
        executor = HttpJobExecutor(jobs.options)
        …
        jobs.end("done", result={"rows": 3})

`submitted` counts jobs by `Idempotency-Key`. With `idempotent=True` a second submission under a key answers with the
first one's job, as services do that honour the header.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.fakes.serving import FakeServer, Handler

TOKEN = "fake-jobs-token"  # of this fake


@dataclass
class JobRecord:
    """A job as the service keeps it."""

    job_id: str
    key: str
    asked: Any
    state: str = "waiting"
    result: Any = None
    error: str | None = None

    def document(self) -> dict[str, Any]:
        """The job as the API shows it."""
        url = f"https://jobs.example/pages/{self.job_id}"
        return {
            "id": self.job_id,
            "state": self.state,
            "result": self.result,
            "error": self.error,
            "page": {"url": url},
        }


class FakeJobs(FakeServer):
    """The service; everything may be read and told from any thread."""

    def __init__(self, *, state: str = "working", idempotent: bool = False, port: int = 0) -> None:
        """`state` is what new jobs are in."""
        super().__init__(port)
        self.state = state
        self.idempotent = idempotent
        self.jobs: dict[str, JobRecord] = {}
        self.submitted: Counter[str] = Counter()
        self.cancels: Counter[str] = Counter()

    @property
    def options(self) -> dict[str, Any]:
        """The executor's options for this service."""
        return {
            "create": {"url": f"{self.origin}/jobs", "json": {"name": "{key}", "args": "{inputs}"}},
            "poll": {"url": f"{self.origin}/jobs/{{id}}"},
            "cancel": {"url": f"{self.origin}/jobs/{{id}}"},
            "find": {"url": f"{self.origin}/jobs?name={{key}}"},
            "found": "$.items",
            "logs": {"url": f"{self.origin}/jobs/{{id}}/log"},
            "id": "$.id",
            "status": "$.state",
            "message": "$.error",
            "outputs": "$.result",
            "links": {"page": "$.page.url", "log": "https://jobs.example/{id}/log"},
            "phases": {"waiting": "QUEUED", "done": "SUCCEEDED", "error": "FAILED", "stopped": "ABORTED"},
            "headers": {"Authorization": f"Bearer {TOKEN}"},
        }

    def end(self, state: str, *job_ids: str, result: Any = None, error: str | None = None) -> None:
        """These jobs, or all that there are, get this state."""
        with self.lock:
            for job in [self.jobs[job_id] for job_id in job_ids] or list(self.jobs.values()):
                job.state, job.result, job.error = state, result, error

    def routes(self) -> list[tuple[str, str, str, Handler]]:
        """The API."""
        return [
            ("create", "POST", "/jobs", self._create),
            ("find", "GET", "/jobs", self._list),
            ("status", "GET", "/jobs/{id}", self._get),
            ("delete", "DELETE", "/jobs/{id}", self._delete),
            ("logs", "GET", "/jobs/{id}/log", self._log),
        ]

    def refusal(self, status: int) -> web.Response:
        """An error object."""
        return web.json_response({"error": f"ordered: {status}"}, status=status)

    def with_status(self, answer: web.StreamResponse, word: str) -> web.Response:
        """The answer with another status word."""
        assert isinstance(answer, web.Response)
        assert answer.text is not None
        return web.json_response({**json.loads(answer.text), "state": word})

    async def _create(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        with self.lock:
            known = next((job for job in self.jobs.values() if job.key == key), None)
            if self.idempotent and known is not None:
                return web.json_response(known.document())
            job = JobRecord(f"job/{len(self.jobs) + 1}", key, json.loads(await request.text()), self.state)
            self.jobs[job.job_id] = job
            self.submitted[key] += 1
            return web.json_response(job.document(), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        with self.lock:
            found = [job.document() for job in self.jobs.values() if job.key == request.query.get("name")]
        return web.json_response({"items": found})

    async def _get(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        return _unknown() if job is None else web.json_response(job.document())

    async def _delete(self, request: web.Request) -> web.Response:
        with self.lock:
            job = self.jobs.get(request.match_info["id"])
            if job is None:
                return _unknown()
            self.cancels[job.job_id] += 1
            if job.state not in ("done", "error"):
                job.state = "stopped"
            return web.Response(status=202)

    async def _log(self, request: web.Request) -> web.Response:
        return web.Response(
            text=f"log of {request.match_info['id']}, asked with {request.headers.get('Authorization')}\n"
        )


def _unknown() -> web.Response:
    return web.json_response({"error": "no such job"}, status=404)
