"""The connector of Flyte's own tutorial, unmodified: behind a real `c0` server, and in the worker's process.

Flyte's SDK lives in an environment of its own, which the first of these tests makes.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from scheduler.store.transaction import Store
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import WorkerProcess, World, task
from tests.environments import environment
from tests.pages import ROOT

pytestmark = pytest.mark.heavy

# The tutorial's, to the letter.
CONNECTOR = """
from dataclasses import dataclass
from flyte.connectors import ResourceMeta

@dataclass
class BatchJobMetadata(ResourceMeta):
    job_id: str
    created_at: float

import time
import uuid
from typing import Any, Dict, Optional
from flyteidl2.core.execution_pb2 import TaskExecution
from flyte.connectors import AsyncConnector, Resource

class BatchJobConnector(AsyncConnector):
    name = "Batch Job Connector"
    task_type_name = "batch_job"
    metadata_type = BatchJobMetadata

    async def create(
        self,
        task_template,
        output_prefix: str,
        inputs: Optional[Dict[str, Any]] = None,
        **kwargs,
    ) -> BatchJobMetadata:
        # Simulate submitting a job to an external API
        job_id = str(uuid.uuid4())[:8]
        print(f"Submitted batch job {job_id}")
        return BatchJobMetadata(job_id=job_id, created_at=time.time())

    async def get(self, resource_meta: BatchJobMetadata, **kwargs) -> Resource:
        # Simulate polling the external API
        elapsed = time.time() - resource_meta.created_at

        if elapsed < 10: # Simulate a 10-second job
            return Resource(phase=TaskExecution.RUNNING, message="Job in progress")

        # Return SUCCEEDED phase and the job outputs
        return Resource(
            phase=TaskExecution.SUCCEEDED,
            message="Job completed successfully",
            outputs={"result": f"output-from-{resource_meta.job_id}"},
        )

    async def delete(self, resource_meta: BatchJobMetadata, **kwargs):
        # Clean up or cancel the job on the external service
        print(f"Cancelled job {resource_meta.job_id}")

from flyte.connectors import ConnectorRegistry

ConnectorRegistry.register(BatchJobConnector())
"""
QUIET = {"DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def flyte_python() -> Path:
    """An interpreter that has Flyte's SDK with its connectors, and this package."""
    return environment("flyte", "flyte[connector]>=2.12,<3")


class Place:
    """Where the connector runs: `said` is what it printed, `worker` starts a worker that uses it."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python = python
        self.folder = folder
        self.executor: dict[str, Any] = {}
        self._logs: list[Path] = []

    def said(self, beginning: str) -> list[str]:
        """The ends of the lines that begin so."""
        texts = [log.read_text(errors="replace") for log in self._logs if log.exists()]
        return [
            line.removeprefix(beginning) for text in texts for line in text.splitlines() if line.startswith(beginning)
        ]

    def new_log(self, name: str) -> Path:
        """A file for what one more process prints."""
        self._logs.append(self.folder / f"{len(self._logs) + 1}-{name}.log")
        return self._logs[-1]

    def worker(self, world: World) -> WorkerProcess:
        """A worker with Flyte's SDK in its environment; use it in a `with`."""
        command = [str(self.python), "-m", "scheduler", "--config", str(world.config), "serve"]
        environment = world.environment(PYTHONPATH=str(self.folder), **QUIET)
        return WorkerProcess(command, self.new_log("worker"), environment)


@pytest.fixture(params=["c0", "in process", "entry point"])
def place(request: pytest.FixtureRequest, flyte_python: Path, tmp_path: Path) -> Iterator[Place]:
    """The connector behind a real `c0`, in the worker by the name of its module, and by an entry point of its package."""
    folder = tmp_path / "connector"
    folder.mkdir()
    (folder / "connector.py").write_text(CONNECTOR)
    place = Place(flyte_python, folder)
    with ExitStack() as stack:
        match request.param:
            case "c0":
                port = stack.enter_context(c0(place))
                place.executor = {
                    "use": "flyte_service",
                    "options": {"endpoint": f"localhost:{port}", "insecure": True},
                }
            case "in process":
                place.executor = {"use": "flyte_sdk", "options": {"modules": ["connector"]}}
            case "entry point":
                offered = folder / "batch_connector-1.0.dist-info"
                offered.mkdir()
                (offered / "METADATA").write_text("Metadata-Version: 2.1\nName: batch-connector\nVersion: 1.0\n")
                (offered / "entry_points.txt").write_text("[flyte.connectors]\nbatch = connector\n")
                place.executor = {"use": "flyte_sdk"}
        yield place


@contextmanager
def c0(place: Place, port: int | None = None) -> Iterator[int]:
    """A real connector server of Flyte's SDK; the port it listens on. It is killed in the end."""
    port = port or _free_port()
    words = ["--port", str(port), "--prometheus_port", str(_free_port()), "--modules", "connector"]
    environment = {**os.environ, "PYTHONPATH": str(place.folder), **QUIET}
    server = WorkerProcess([str(place.python.with_name("c0")), *words], place.new_log("c0"), environment)
    try:
        server.until(lambda: _listens(port), "c0 listens")
        yield port
    finally:
        server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def batch(name: str, **more: Any) -> dict[str, Any]:
    """A task of the tutorial's type that a schedule fires once, in a second."""
    config = {
        "type": "batch_job",
        "custom": {"timeout": 300},
        "interface": {"inputs": {"val": "int"}, "outputs": {"result": "str"}},
        "poll_interval": "300ms",
    }
    return task(name, "batch", config, inputs={"val": 42}, trigger={"every": "1s", "max_fires": 1}, **more)


def test_a_scheduled_task_outlives_its_worker_and_is_cancelled_where_it_runs(
    place: Place, new_world: NewWorld, sqlite_url: str
) -> None:
    world = new_world(sqlite_url, [batch("lives"), batch("dies")], executors={"batch": place.executor})
    with place.worker(world) as first:
        first.until(lambda: len(place.said("Submitted batch job ")) == 2, "both jobs run")
        first.until(lambda: all(_is_stored(world, name) for name in ("lives", "dies")), "both jobs are stored")
        jobs = set(place.said("Submitted batch job "))
        first.kill()

    (dying,) = world.runs("dies")
    world.client.cancel_run(dying["name"])
    with place.worker(world) as second:
        second.until(lambda: place.said("Cancelled job "), "the cancel arrives")
        world.until_closed("lives")
        world.until_closed("dies")
        assert second.stop() == 0

    lived, died = (world.client.show_run(world.runs(name)[0]["name"]) for name in ("lives", "dies"))
    (kept,) = jobs - {died["event"]["job_id"]}
    assert (lived["phase"], lived["outputs"]) == ("SUCCEEDED", {"result": f"output-from-{kept}"})
    assert lived["event"] == {"status": "success", "message": "Job completed successfully", "job_id": kept}
    assert (lived["attempt"], lived["lost"]) == (1, 0)
    assert (died["phase"], died["event"]["status"]) == ("ABORTED", "cancelled")
    assert set(place.said("Cancelled job ")) == {died["event"]["job_id"]}
    assert set(place.said("Submitted batch job ")) == jobs


def _is_stored(world: World, name: str) -> bool:
    """Whether the job of the task's run is written down: killed before, nobody knows of it."""
    wait = _wait(world, name)
    return wait is not None and wait["stage"] == "waiting"


def _wait(world: World, name: str) -> Any:
    store = Store.open(world.database_url)
    try:
        with store.read() as tx:
            return tx.waits.of_run(world.runs(name)[0]["name"])
    finally:
        store.close()


def test_a_server_that_is_killed_while_its_job_runs_is_waited_for(
    flyte_python: Path, new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "connector.py").write_text(CONNECTOR.replace("elapsed < 10:", "elapsed < 3:"))
    place = Place(flyte_python, tmp_path)
    with c0(place) as port:
        options = {"endpoint": f"localhost:{port}", "insecure": True, "timeout": "2s"}
        executors = {"batch": {"use": "flyte_service", "options": options}}
        world = new_world(sqlite_url, [batch("lives")], executors=executors)
        stack = ExitStack()
        worker = stack.enter_context(world.worker())
        worker.until(lambda: place.said("Submitted batch job ") and _is_stored(world, "lives"), "the job is stored")
    with stack:
        (job,) = place.said("Submitted batch job ")
        worker.until(lambda: _wait(world, "lives")["last_error"], "it is asked for in vain")
        # What the connector knows of its job is in the metadata, and the worker has that.
        with c0(place, port):
            world.until_closed("lives")
    run = world.client.show_run(world.runs("lives")[0]["name"])
    assert (run["phase"], run["outputs"], run["attempt"]) == ("SUCCEEDED", {"result": f"output-from-{job}"}, 1)


def test_what_is_said_of_connectors_in_process_holds_with_the_real_sdk(flyte_python: Path) -> None:
    command = [str(flyte_python), "-m", "pytest", "-q", "-p", "no:xdist", "tests/unit/executors/test_flyte_sdk.py"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
