"""A connector server over real gRPC, as `c0` of Flyte's SDK is one, whose one connector does as it is told.

with FakeConnectors() as server:
    executor = FlyteServiceExecutor(endpoint=server.endpoint, insecure=True)
    server.fail(grpc.StatusCode.INTERNAL, "failed to create …", on="CreateTask")
    server.end("SUCCEEDED", outputs={"rows": 3})
    server.stop(); …; server.start()         away, and back under the same address
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import grpc
from flyteidl2.connector import connector_pb2, service_pb2_grpc
from flyteidl2.core import execution_pb2
from flyteidl2.logs.dataplane import payload_pb2
from google.protobuf import json_format, struct_pb2

from executors.flyte import kinds, literals


class FakeConnectors(service_pb2_grpc.AsyncConnectorServiceServicer, service_pb2_grpc.ConnectorMetadataServiceServicer):
    """Serves the type `batch_job`; `requests` keeps every request by method, `jobs` the phase of every job."""

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self.types = {("batch_job", 0)}
        self.asked: Counter[str] = Counter()
        self.requests: dict[str, list[Any]] = {}
        self.jobs: dict[str, str] = {}
        self.cancels: Counter[str] = Counter()
        self.resource: dict[str, Any] = {}
        self.log: list[str] | None = None
        self._faults: list[tuple[grpc.StatusCode, str, str]] = []
        self.lock = threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="FakeConnectors", daemon=True)
        self._server: Any = None

    # --- the services ------------------------------------------------------------------------------------------------

    async def CreateTask(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._note("CreateTask", request, context)
        with self.lock:
            job_id = f"job-{len(self.jobs) + 1}"
            self.jobs[job_id] = "RUNNING"
        return connector_pb2.CreateTaskResponse(resource_meta=json.dumps({"job_id": job_id, "at": 1.5}).encode())

    async def GetTask(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._note("GetTask", request, context)
        said = {"message": "", "links": {}, "outputs": None, "custom": None, **self.resource}
        job_id = json.loads(request.resource_meta)["job_id"]
        resource = connector_pb2.Resource(
            phase=execution_pb2.TaskExecution.Phase.Value(self.jobs[job_id]), message=said["message"]
        )
        for name, uri in said["links"].items():
            resource.log_links.add(name=name, uri=uri)
        if said["outputs"] is not None:
            fitted = {name: kinds.fit(value, kinds.Simple.ANY, name) for name, value in said["outputs"].items()}
            resource.outputs.literals.extend(literals.named(literals.of_inputs(fitted)).literals)
        if said["custom"] is not None:
            resource.custom_info.CopyFrom(json_format.ParseDict(said["custom"], struct_pb2.Struct()))
        return connector_pb2.GetTaskResponse(resource=resource)

    async def DeleteTask(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._note("DeleteTask", request, context)
        job_id = json.loads(request.resource_meta)["job_id"]
        with self.lock:
            self.cancels[job_id] += 1
            if self.jobs[job_id] == "RUNNING":
                self.jobs[job_id] = "ABORTED"
        return connector_pb2.DeleteTaskResponse()

    async def GetTaskLogs(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._note("GetTaskLogs", request, context)
        if self.log is None:
            raise NotImplementedError  # as c0 does where a connector has none
        lines = [payload_pb2.LogLine(message=line) for line in self.log]
        for first in range(0, len(lines), 2):
            body = connector_pb2.GetTaskLogsResponseBody(lines=lines[first : first + 2])
            yield connector_pb2.GetTaskLogsResponse(body=body)
            yield connector_pb2.GetTaskLogsResponse(header=connector_pb2.GetTaskLogsResponseHeader(token="more"))

    async def ListConnectors(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._note("ListConnectors", request, context)
        categories = [connector_pb2.TaskCategory(name=name, version=version) for name, version in self.types]
        connector = connector_pb2.Connector(name="Batch", supported_task_categories=categories)
        return connector_pb2.ListConnectorsResponse(connectors=[connector])

    async def _note(self, method: str, request: Any, context: Any) -> None:
        with self.lock:
            self.asked[method] += 1
            self.requests.setdefault(method, []).append(request)
            fault = next((fault for fault in self._faults if fault[2] == method), None)
            if fault is not None:
                self._faults.remove(fault)
        if fault is not None:
            await context.abort(fault[0], fault[1])

    # --- what it is told ---------------------------------------------------------------------------------------------

    def fail(self, code: grpc.StatusCode, says: str, *, on: str, times: int = 1) -> None:
        """Let the next calls of a method fail."""
        with self.lock:
            self._faults += [(code, says, on)] * times

    def end(self, phase: str, **resource: Any) -> None:
        """Every job is in this phase now; `message`, `links`, `outputs` and `custom` go with it."""
        with self.lock:
            self.resource = resource
            self.jobs = dict.fromkeys(self.jobs, phase)

    def forget(self) -> None:
        """As new."""
        with self.lock:
            for kept in (self.asked, self.requests, self.jobs, self.cancels, self.resource, self._faults):
                kept.clear()
            self.types, self.log = {("batch_job", 0)}, None

    def request(self, method: str) -> Mapping[str, Any]:
        """The newest request of a method, as JSON."""
        found: dict[str, Any] = json_format.MessageToDict(self.requests[method][-1], preserving_proto_field_name=True)
        return found

    # --- running -----------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def start(self) -> None:
        """Listen; after a `stop`, under the same address."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def stop(self) -> None:
        """Be away: nobody listens, and every connection is cut."""
        asyncio.run_coroutine_threadsafe(self._server.stop(None), self._loop).result(10)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be away for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    async def _start(self) -> None:
        self._server = grpc.aio.server()
        service_pb2_grpc.add_AsyncConnectorServiceServicer_to_server(self, self._server)
        service_pb2_grpc.add_ConnectorMetadataServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
