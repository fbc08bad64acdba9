"""A Flyte with nothing but its RunService, served by the generated ASGI class under uvicorn, that fails on order.

with FakeFlyte() as flyte:
    executor = FlyteRunExecutor(endpoint=flyte.endpoint, insecure=True)
    flyte.fail(Code.UNAVAILABLE, on="CreateRun", times=3)
    flyte.fail("lost answer", on="CreateRun")        done, but the connection breaks before the answer
    flyte.stop(); …; flyte.start()                   away, and back under the same address
    flyte.end("re603df315fad71d4", "SUCCEEDED", outputs={"rows": 3})
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from flyteidl2.workflow.run_service_connect import RunService, RunServiceASGIApplication
from google.protobuf import json_format

from executors.flyte import kinds, literals

Kind = Code | Literal["lost answer", "drop", "slow", "html"]


@dataclass
class RunRecord:
    """A run as this Flyte keeps it."""

    request: Any
    phase: str = "RUNNING"
    outputs: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    aborted: str = ""
    trigger: Any = None
    slot: Any = None


class FakeFlyte(RunService):
    """Runs are kept by name; `created` counts those that were made, `asked` every call by its method."""

    def __init__(self, *, tells_triggers: bool = True, certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate`: the files of a certificate and its key, to speak TLS."""
        self.runs: dict[str, RunRecord] = {}
        self.created: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.headers: list[Mapping[str, str]] = []
        self.tells_triggers = tells_triggers
        self.lock = threading.RLock()
        self.port = 0
        self._certificate = certificate
        self._faults: list[list[Any]] = []
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    # --- the service -------------------------------------------------------------------------------------------------

    async def create_run(self, request: Any, ctx: Any) -> Any:
        with self.lock:
            if request.run_id.name in self.runs:
                raise ConnectError(Code.ALREADY_EXISTS, f"run {request.run_id.name} already exists")
            self.runs[request.run_id.name] = RunRecord(
                request, trigger=request.trigger_name, slot=request.run_start_time
            )
            self.created[request.run_id.name] += 1
        run = run_definition_pb2.Run()
        run.action.id.run.CopyFrom(request.run_id)
        run.action.id.name = "a0"
        return run_service_pb2.CreateRunResponse(run=run)

    async def get_run_details(self, request: Any, ctx: Any) -> Any:
        record = self._record(request.run_id.name)
        details = run_definition_pb2.RunDetails()
        action = details.action
        action.id.run.CopyFrom(request.run_id)
        action.id.name = "a0"
        action.status.phase = phase_pb2.ActionPhase.Value(f"ACTION_PHASE_{record.phase}")
        if record.error:
            action.error_info.message = record.error
        if record.aborted:
            action.abort_info.reason = record.aborted
        if self.tells_triggers and record.trigger.name:
            action.metadata.trigger_id.name.CopyFrom(record.trigger)
            details.run_spec.run_start_time.CopyFrom(record.slot)
        attempt = action.attempts.add(attempt=1)
        attempt.log_info.add(name="log", uri=f"https://flyte.example/{request.run_id.name}")
        return run_service_pb2.GetRunDetailsResponse(details=details)

    async def get_action_data(self, request: Any, ctx: Any) -> Any:
        record = self._record(request.action_id.run.name)
        fitted = {name: kinds.fit(value, kinds.Simple.ANY, name) for name, value in record.outputs.items()}
        found = literals.named(literals.of_inputs(fitted)).literals
        answer = run_service_pb2.GetActionDataResponse()
        answer.outputs.literals.extend(found)
        return answer

    async def abort_run(self, request: Any, ctx: Any) -> Any:
        with self.lock:
            record = self._record(request.run_id.name)
            record.phase, record.aborted = "ABORTED", request.reason
        return run_service_pb2.AbortRunResponse()

    def _record(self, name: str) -> RunRecord:
        with self.lock:
            if name not in self.runs:
                raise ConnectError(Code.NOT_FOUND, f"run {name} not found")
            return self.runs[name]

    def end(self, name: str, phase: str, outputs: Mapping[str, Any] | None = None, error: str = "") -> None:
        """The run is over."""
        with self.lock:
            record = self.runs[name]
            record.phase, record.outputs, record.error = phase, outputs or {}, error

    def request(self, name: str) -> dict[str, Any]:
        """What made the run, as JSON."""
        found: dict[str, Any] = json_format.MessageToDict(self.runs[name].request, preserving_proto_field_name=True)
        return found

    # --- running -----------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:port`, or https."""
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after a `stop`, under the same address."""
        listening = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = listening.getsockname()[1]
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            tls = {"ssl_certfile": self._certificate[0], "ssl_keyfile": self._certificate[1]}
        config = uvicorn.Config(
            self._app, log_level=logging.CRITICAL, lifespan="off", interface="asgi3", timeout_graceful_shutdown=0, **tls
        )
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: server.run([listening]), name="FakeFlyte", daemon=True)
        self._thread.start()
        end = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < end, "the fake Flyte does not start"
            time.sleep(0.005)

    def stop(self) -> None:
        """Be away: nobody listens, and every connection is cut."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(10)
            assert not self._thread.is_alive(), "the fake Flyte does not end"
            self._server = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be away for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    # --- faults ------------------------------------------------------------------------------------------------------

    def fail(
        self, kind: Kind, *, on: str = "", times: int | None = 1, says: str = "ordered", seconds: float = 0
    ) -> None:
        """Let the next calls of a method (`""`: any) fail; `times=None`: until `heal`."""
        with self.lock:
            self._faults.append([kind, on, times, says, seconds])

    def forget(self) -> None:
        """As new: no runs, no faults, nothing asked."""
        with self.lock:
            for kept in (self.runs, self.created, self.asked, self.headers, self._faults):
                kept.clear()

    def heal(self) -> None:
        """No faults any more."""
        with self.lock:
            self._faults.clear()

    def _fault(self, method: str) -> list[Any] | None:
        with self.lock:
            for fault in self._faults:
                if fault[1] in ("", method):
                    if fault[2] is not None:
                        fault[2] -= 1
                        if fault[2] == 0:
                            self._faults.remove(fault)
                    return fault
        return None

    async def _app(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        application = RunServiceASGIApplication(self)
        method = scope["path"].rpartition("/")[2]
        with self.lock:
            self.asked[method] += 1
            self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        fault = self._fault(method)
        if fault is None:
            await application(scope, receive, send)
            return
        kind, _, _, says, seconds = fault
        if isinstance(kind, Code):
            service = Failing(kind, says)
            await RunServiceASGIApplication(service)(scope, receive, send)
        elif kind == "slow":
            await asyncio.sleep(seconds)
            await application(scope, receive, send)
        elif kind == "html":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"<html>Please log in</html>"})
        else:
            if kind == "lost answer":
                await application(scope, receive, _nowhere)
            headers = [(b"content-type", b"application/proto"), (b"content-length", b"1000")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            raise ConnectionResetError("ordered")


class Failing(RunService):
    """Answers every call with one error."""

    def __init__(self, code: Code, says: str) -> None:
        self.error = ConnectError(code, says)

    async def create_run(self, request: Any, ctx: Any) -> Any:
        raise self.error

    async def get_run_details(self, request: Any, ctx: Any) -> Any:
        raise self.error

    async def get_action_data(self, request: Any, ctx: Any) -> Any:
        raise self.error

    async def abort_run(self, request: Any, ctx: Any) -> Any:
        raise self.error


async def _nowhere(message: Any) -> None:
    return None
