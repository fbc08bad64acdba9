"""The executor `http_job`: any service that keeps jobs behind an HTTP API, told in the settings how to ask it.

    executors:
      jobs:
        use: http_job
        options:
          create: {method: POST, url: "https://jobs.example/jobs", json: {name: "{key}", args: "{inputs}"}}
          poll: {url: "https://jobs.example/jobs/{id}"}
          cancel: {method: DELETE, url: "https://jobs.example/jobs/{id}"}
          id: "$.id"
          status: "$.state"
          phases: {done: SUCCEEDED, error: FAILED, stopped: ABORTED}

`create` carries `Idempotency-Key`. Any status that `phases` does not name still runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from executors.errors import PermanentError, Problem, RetryableError
from executors.external_job import ExternalJob, Job, JobBusy, JobConfig, JobGone, JobPhase, JobStatus, Link
from executors.hiding import Hidden
from executors.http_client import Tls, proxy_faults
from executors.http_words import last_segment, load_client, url_fault
from executors.job_service import Answer, Service, shown_url
from executors.json_paths import JsonPath, path_fault
from executors.jsonvalue import json_fault
from executors.output import LIMIT, clip
from executors.protocol import RunContext
from executors.templating import as_text, check_placeholders, placeholders, render, render_url

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_NOTHING: Final = object()
# The option `id` where the id is the end of the URL to which the answer of `create` leads.
_IN_LOCATION: Final = "Location"


@dataclass(frozen=True)
class Call:
    """One request to the service. Placeholders stand for values of the run, `{id}` for the job's id."""

    url: str
    method: str | None = None
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def faults(self, where: str, more: tuple[str, ...]) -> Iterable[Problem]:
        """What is wrong with it, as the option `where`, which may use these placeholders besides the usual."""
        if "{" not in self.url and (fault := url_fault(self.url)):
            yield f"{where}.url", fault
        if self.method is not None and self.method not in _METHODS:
            yield f"{where}.method", f"is none of {', '.join(sorted(_METHODS))}"
        for name in ("url", "json", "headers"):
            for path, reason in check_placeholders(getattr(self, name), None, more):
                yield ".".join(filter(None, (where, name, path))), reason


class HttpJobExecutor(ExternalJob):
    """Submits, watches and cancels the jobs of one HTTP service."""

    @dataclass(frozen=True)
    class Options:
        """How the service is asked, and where its answers say what; see docs/connectors.md."""

        create: Call
        poll: Call
        id: str
        status: str
        phases: dict[str, JobPhase]
        cancel: Call | None = None
        find: Call | None = None
        found: str = "$"
        idempotent: bool = False
        logs: Call | None = None
        message: str | None = None
        outputs: str | None = None
        links: dict[str, str] = field(default_factory=dict)
        busy: list[int] = field(default_factory=lambda: [409])
        gone: list[int] = field(default_factory=lambda: [404, 410])
        headers: dict[str, str] = field(default_factory=dict, repr=False)
        proxies: dict[str, str] = field(default_factory=dict, repr=False)
        tls: Tls = Tls()
        timeout: timedelta = timedelta(seconds=30)

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            yield from self.create.faults("create", ())
            yield from self.poll.faults("poll", ("id",))
            for name, call, more in (
                ("cancel", self.cancel, ("id",)),
                ("find", self.find, ()),
                ("logs", self.logs, ("id",)),
            ):
                if call is not None:
                    yield from call.faults(name, more)
            for name in ("id", "status", "found", "message", "outputs"):
                if name == "id" and self.id == _IN_LOCATION:
                    if self.find is not None:
                        yield (
                            name,
                            "stands in a header, which no answer of find has: write its path in the answer, as $.id",
                        )
                elif fault := path_fault(getattr(self, name)):
                    yield name, fault
            for name, link in self.links.items():
                if link.startswith("$"):
                    if fault := path_fault(link):
                        yield f"links.{name}", fault
                else:
                    yield from ((f"links.{name}", reason) for _, reason in check_placeholders(link, None, ("id",)))
            if not any(phase.is_over for phase in self.phases.values()):
                yield "phases", "names no status in which a job is over: no run would ever end"
            if self.timeout <= timedelta(0):
                yield "timeout", "is not a positive duration"
            yield from proxy_faults(self.proxies)

    @dataclass(frozen=True, kw_only=True)
    class Config(JobConfig):
        """`job_id`: a job that exists already and is only to be watched."""

        job_id: int | str | None = None

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        said: HttpJobExecutor.Options = self.options
        calls = [said.create, said.poll, said.cancel, said.find, said.logs]
        headers = [said.headers, *(call.headers for call in calls if call is not None)]
        hidden = Hidden(part for each in headers for value in each.values() for part in (value, *value.split()[1:]))
        self._service = Service("the service", timeout=said.timeout, proxies=said.proxies, tls=said.tls, hidden=hidden)
        self._id = None if said.id == _IN_LOCATION else JsonPath.parse(said.id)
        self._status, self._found = map(JsonPath.parse, (said.status, said.found))
        self._message = None if said.message is None else JsonPath.parse(said.message)
        self._outputs = None if said.outputs is None else JsonPath.parse(said.outputs)
        self.can_find = said.find is not None or said.idempotent
        self.call_timeout = max(self.call_timeout, 2 * said.timeout)

    async def start(self) -> None:
        """Load what sends requests."""
        load_client()

    # --- the calls ---------------------------------------------------------------------------------------------------

    def watched(self, run: RunContext) -> Job | None:
        """The job that the task's `job_id` names."""
        job_id = run.config.job_id
        return None if job_id is None else Job({"id": job_id}, str(job_id))

    async def create(self, run: RunContext) -> Job:
        """Submit the job under `Idempotency-Key`; `JobBusy` for the statuses of the option `busy`."""
        method, url, answer = await self._ask(run, self.options.create, "POST", None, acts=True)
        if answer.status in self.options.busy:
            raise JobBusy(f"{self._refused(method, url, answer)}, which means that another job is running")
        if not answer.ok:
            raise PermanentError(self._refused(method, url, answer))
        if self._id is None:
            job = _job_of(last_segment(answer.headers.get("location", "")))
        else:
            job = self._job(self._service.json(method, url, answer, acts=True))
        if job is None:
            said = f"the service accepted a job and named none at {self.options.id}: {self._service.excerpt(answer)}"
            raise RetryableError(said, outcome_known=False)
        return job

    async def find(self, run: RunContext, created_after: datetime) -> Job | None:
        """The job of this key: by the option `find`, or by submitting again where the service is `idempotent`."""
        if self.options.find is None:
            if not self.options.idempotent:
                raise NotImplementedError("the options tell no way to find a job by its key")
            return await self.create(run)
        method, url, answer = await self._ask(run, self.options.find, "GET", None)
        if self._is_gone(answer):
            return None
        if not answer.ok:
            raise RetryableError(self._refused(method, url, answer))
        found = self._found.look_up(self._service.json(method, url, answer))
        if isinstance(found, list):
            found = found[0] if found else None
        if found is None:
            return None
        job = self._job(found)
        if job is None:
            raise RetryableError(
                f"the service found a job and named none at {self.options.id}: {self._service.excerpt(answer)}"
            )
        return job

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """How the job stands, by the words of the option `phases`."""
        method, url, answer = await self._ask_about(run, self.options.poll, "GET", job)
        document = self._service.json(method, url, answer)
        word = self._status.look_up(document, _NOTHING)
        if word is _NOTHING:
            said = f"the service answered {method} {shown_url(url)} without a status at {self._status.text}"
            raise RetryableError(f"{said}: {self._service.excerpt(answer)}")
        phase = self.options.phases.get(word if isinstance(word, str) else json.dumps(word), JobPhase.RUNNING)
        told = None if self._message is None else self._message.look_up(document)
        message = "" if told is None else told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
        outputs = self._outputs_of(document) if phase is JobPhase.SUCCEEDED else None
        if outputs is not None and (fault := json_fault(outputs, "outputs")):
            return JobStatus(JobPhase.FAILED, f"what the job left cannot be stored: {fault}", retryable=False)
        return JobStatus(phase, clip(self._service.hidden.hide(message)), outputs, self._links(run, job, document))

    async def delete(self, run: RunContext, job: Job) -> None:
        """Ask for the job to be cancelled; `PermanentError` without the option `cancel`."""
        if self.options.cancel is None:
            raise PermanentError("the options tell no way to cancel a job")
        await self._ask_about(run, self.options.cancel, "DELETE", job)

    async def logs(self, run: RunContext, job: Job) -> str | None:
        """What the option `logs` leads to; None without it."""
        if self.options.logs is None:
            return None
        _, _, answer = await self._ask_about(run, self.options.logs, "GET", job)
        return self._service.hidden.hide(clip(answer.content.decode("utf-8", "replace"), LIMIT))

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _ask_about(self, run: RunContext, call: Call, method: str, job: Job) -> tuple[str, str, Answer]:
        method, url, answer = await self._ask(run, call, method, job)
        if self._is_gone(answer):
            raise JobGone(f"the service does not know the job {job.job_id}: {self._service.explain(answer)}")
        if not answer.ok:
            raise RetryableError(self._refused(method, url, answer))
        return method, url, answer

    async def _ask(
        self, run: RunContext, call: Call, method: str, job: Job | None, *, acts: bool = False
    ) -> tuple[str, str, Answer]:
        values = self._values(run, job)
        method, url = call.method or method, render_url(call.url, values)
        headers = {"accept": "application/json"}
        for more in (self.options.headers, call.headers):
            headers.update({name.lower(): as_text(render(value, values)) for name, value in more.items()})
        if acts:
            headers["idempotency-key"] = run.key
        sent = {} if call.json is None else {"json": render(call.json, values)}
        answer = await self._service.send(run, method, url, acts=acts, headers=headers, **sent)
        if acts and answer.status in self.options.busy:
            return method, url, answer
        return method, url, self._service.check(run, method, url, answer, acts=acts)

    def _values(self, run: RunContext, job: Job | None) -> dict[str, Any]:
        more = {} if job is None else {"id": job.meta["id"]}
        return placeholders(
            inputs=run.inputs, run_name=run.run_name, key=run.key, scheduled_at=run.scheduled_at, **more
        )

    def _refused(self, method: str, url: str, answer: Answer) -> str:
        return f"the service answered {method} {shown_url(url)} with {self._service.explain(answer)}"

    # --- answers -----------------------------------------------------------------------------------------------------

    def _is_gone(self, answer: Answer) -> bool:
        """Whether the service itself says so: a page or a line of text comes from a gateway that does not reach it."""
        return answer.status in self.options.gone and (answer.is_json or not answer.content)

    def _job(self, document: Any) -> Job | None:
        assert self._id is not None  # else it stands in a header
        return _job_of(self._id.look_up(document))

    def _outputs_of(self, document: Any) -> Mapping[str, Any] | None:
        if self._outputs is None:
            kept = document if isinstance(document, dict) else {"result": document}
            return kept if len(json.dumps(kept)) <= LIMIT else {"truncated": True}
        found = self._outputs.look_up(document)
        return found if found is None or isinstance(found, dict) else {"result": found}

    def _links(self, run: RunContext, job: Job, document: Any) -> tuple[Link, ...]:
        links = []
        for name, link in self.options.links.items():
            uri = (
                JsonPath.parse(link).look_up(document)
                if link.startswith("$")
                else render_url(link, self._values(run, job))
            )
            if isinstance(uri, str) and uri:
                links.append(Link(name, uri))
        return tuple(links)


def _job_of(found: Any) -> Job | None:
    if isinstance(found, bool) or not isinstance(found, (str, int)) or found == "":
        return None
    return Job({"id": found}, str(found))
