"""A world for real workers: a folder with settings and manifests, processes that are started, killed and frozen.

    world = World(tmp_path, database_url, [ticking("tick")])
    with world.worker() as worker:
        world.until(lambda: len(world.runs("tick")) >= 3, "three runs")
        worker.kill()

Nothing here knows the product from inside: workers are commands, and what became of slots is read through `Client`.
Only processes that a world started are ever ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import sqlalchemy
import yaml

from scheduler.client import Client
from scheduler.domain.instants import SECOND, Micros, to_micros
from scheduler.domain.occurrences import tzdata_version
from scheduler.domain.task import TaskDefinition
from scheduler.services.operate import TriggerKey
from scheduler.services.sync import record_zones
from scheduler.store.transaction import Store
from scheduler.store.urls import parse_url, sqlite_file
from tests.conftest import ManualClock
from tests.sqlite_files import may_be_written

T = TypeVar("T")
PROJECT, DOMAIN = "flytesnacks", "development"
TOKEN = "E2E_WORLD"
EVERYTHING = 1_000_000


def scheduler_command(config: Path, *words: str) -> list[str]:
    """How a verb is called: the one place that knows."""
    return [sys.executable, "-m", "scheduler", "--config", str(config), *words]


# --- tasks -----------------------------------------------------------------------------------------------------------


def task(name: str, executor: str, config: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A task with one trigger `t`, every second unless `trigger=` says otherwise."""
    trigger = {"name": "t", **more.pop("trigger", {"every": "1s"})}
    return {
        "name": name,
        "version": "v1",
        "executor": executor,
        "config": dict(config or {}),
        "triggers": [trigger],
        **more,
    }


def ticking(name: str = "tick", **more: Any) -> dict[str, Any]:
    """A command every second that does nothing and succeeds."""
    return task(name, "shell", {"command": ["true"]}, **more)


def marking(name: str, file: Path, *, then: str = "true", **more: Any) -> dict[str, Any]:
    """A command that appends its key and a line `start`, does `then`, and appends `end`, so that executions can be counted."""
    script = f'echo "start $SCHEDULER_KEY" >> "$0"; {then}; echo "end $SCHEDULER_KEY" >> "$0"'
    return task(name, "shell", {"command": ["sh", "-c", script, str(file)]}, **more)


def marks(file: Path, word: str = "start") -> Counter[str]:
    """How often each key was marked with this word."""
    lines = file.read_text().splitlines() if file.exists() else []
    return Counter(line.split()[1] for line in lines if line.startswith(word + " "))


def ago(**parts: float) -> Micros:
    """The instant this long before now (`minutes=`, `hours=`… as `timedelta` takes them)."""
    return time.time_ns() // 1_000 - to_micros(timedelta(**parts))


def deploy_as_of(url: str, moment: Micros, definitions: Iterable[TaskDefinition]) -> None:
    """Deploys as if it had been done at that instant, and nobody had fired since."""
    store = Store.open(url, clock=ManualClock(moment), pool_size=1)
    try:
        store.run(record_zones, tzdata_version())
        assert all(result.applied for result in Client(store, create_projects=True).deploy(definitions))
    finally:
        store.close()


# --- processes -------------------------------------------------------------------------------------------------------


class WorkerProcess:
    """One running command, its log kept in a file; leaving the block ends it, by force if need be."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(env)
            )
        self.started = time.monotonic()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        if self.running:
            self.send(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        if error is not None:
            print(f"--- {self._log.name}\n{self.log()[-6000:]}")

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text(errors="replace")

    def said(self, text: str) -> bool:
        """Whether it said this so far."""
        return text in self.log()

    def until_said(self, text: str, within: float = 30.0) -> None:
        """Waits for a line that holds the text; a process that ends without it fails the test."""

        def said() -> bool:
            found = self.said(text)
            assert found or self.running, f"ended without saying {text!r}:\n{self.log()}"
            return found

        eventually(said, f"the worker says {text!r}", within)

    def until(self, condition: Callable[[], T], what: str, within: float = 30.0) -> T:
        """Waits for a condition that this process brings about; if it ends first, the test fails with its log."""

        def alive() -> T:
            value = condition()
            assert value or self.running, f"ended before {what}:\n{self.log()[-6000:]}"
            return value

        return eventually(alive, what, within)

    def send(self, number: int) -> None:
        """Sends it a signal, if it is still there."""
        if self.running:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and its end awaited."""
        self.send(signal.SIGKILL)
        self._process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP: it lives and does nothing."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on as if nothing had been."""
        self.send(signal.SIGCONT)

    def stop(self, within: float = 20.0, number: int = signal.SIGTERM) -> int:
        """SIGTERM, and the exit code once it has drained."""
        self.send(number)
        return self.wait(within)

    def wait(self, within: float = 20.0) -> int:
        """The exit code."""
        return self._process.wait(within)

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def cpu_seconds(self) -> float:
        """Processor time used so far, the keeper's not included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processes_with(token: str) -> list[int]:
    """Living processes whose environment carries this world's token, the workers themselves included."""
    needle = f"{TOKEN}={token}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if needle in environment.split(b"\0") and state not in "ZX":
            found.append(int(entry.name))
    return found


def eventually(condition: Callable[[], T], what: str, within: float = 30.0, every: float = 0.05) -> T:
    """What the condition says once it is true; the test fails after `within` seconds."""
    end = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(every)
    return value


# --- the world -------------------------------------------------------------------------------------------------------


class World:
    """One database, one settings file, one set of manifests, and the workers started on them."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        tasks: Sequence[Mapping[str, Any]] = (),
        *,
        worker: Mapping[str, Any] | None = None,
        executors: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.config = folder / "settings.yaml"
        self.manifest = folder / "tasks.yaml"
        self.token = f"{folder.name}-{os.getpid()}-{time.monotonic_ns()}"
        self._workers = 0
        self._settings = {
            "database": {"url": database_url},
            "tasks": [str(self.manifest)],
            "worker": {"lease": "3s", "resync_interval": "5s", **(worker or {})},
            "executors": dict(executors or {"shell": {"use": "shell"}, "logging": {"use": "logging"}}),
            "web": {"enabled": False},
            **sections,
        }
        self.config.write_text(yaml.safe_dump(self._settings))
        self.write_manifest(tasks)
        self._client: Client | None = None

    def write_manifest(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Replaces the manifest; an empty list means no manifest at all."""
        if tasks:
            self.manifest.write_text(yaml.safe_dump({"project": PROJECT, "domain": DOMAIN, "tasks": list(tasks)}))
        else:
            self.manifest.unlink(missing_ok=True)
            self.config.write_text(yaml.safe_dump({**self._settings, "tasks": []}))

    def environment(self, **more: str) -> dict[str, str]:
        """The processes' environment; all they start inherits the world's token."""
        return {**os.environ, TOKEN: self.token, **more}

    def worker(self, name: str | None = None, **environment: str) -> WorkerProcess:
        """Starts a worker process; use it in a `with`."""
        self._workers += 1
        name = name or f"worker-{self._workers}"
        env = self.environment(SCHEDULER_WORKER__NAME=name, **environment)
        log = self.folder / f"{self._workers}-{name}.log"
        return WorkerProcess(scheduler_command(self.config, "serve"), log, env)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a verb of the command line to its end."""
        return subprocess.run(
            scheduler_command(self.config, *words),
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=self.folder,
            timeout=60,
            check=False,
        )

    def freeze(self, worker: WorkerProcess) -> None:
        """SIGSTOP, at a moment when the worker is in no transaction: in an SQLite file one that writes keeps out all."""

        def frozen() -> bool:
            worker.freeze()
            stopped = os.WSTOPPED | os.WNOHANG
            eventually(lambda: os.waitid(os.P_PID, worker.pid, stopped), "every thread of it stands still", 5)
            file = sqlite_file(parse_url(self.database_url))
            if file is None or may_be_written(file, within=0.5):
                return True
            worker.thaw()
            return False

        eventually(frozen, "the worker is frozen outside of a transaction", 10)

    def children(self, *workers: WorkerProcess) -> list[int]:
        """Living processes of this world except these workers: keepers, commands and what they started."""
        return sorted(set(processes_with(self.token)) - {worker.pid for worker in workers})

    # --- what became of slots ----------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """A client of the world's database."""
        if self._client is None:
            self._client = Client.open(self.database_url, by="tests")
        return self._client

    def close(self) -> None:
        """Closes the client."""
        if self._client is not None:
            self._client.close()

    def runs(self, task: str, phase: str | None = None) -> list[dict[str, Any]]:
        """The task's runs, newest first."""
        return self.client.list_runs(task=task, phase=phase, limit=EVERYTHING)

    def ledger(self, task: str, trigger: str = "t") -> list[dict[str, Any]]:
        """Every entry of the trigger's ledger, oldest first."""
        return self.client.list_slots(TriggerKey(PROJECT, DOMAIN, task, trigger), limit=EVERYTHING)

    def count(self, condition: str) -> int:
        """How many rows of `runs` meet a condition in SQL: where a listing would be too long."""
        return int(self.rows(f"SELECT count(*) FROM runs WHERE {condition}")[0][0])

    def rows(self, query: str) -> list[Any]:
        """What a query in SQL gives: for what no command tells."""
        engine = sqlalchemy.create_engine(parse_url(self.database_url))
        try:
            with engine.connect() as connection:
                return list(connection.exec_driver_sql(query))
        finally:
            engine.dispose()

    def until(self, condition: Callable[[], T], what: str, within: float = 30.0) -> T:
        """Waits for a condition of the database."""
        return eventually(condition, what, within, every=0.1)

    def until_closed(self, task: str, within: float = 30.0) -> None:
        """Waits until no run of the task is open."""
        self.until(lambda: not open_runs(self.runs(task)), f"every run of {task} is over", within)


def open_runs(runs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that are not over."""
    return [run for run in runs if run["phase"] in ("QUEUED", "RUNNING", "DEFERRED")]


def slots_of(ledger: Iterable[Mapping[str, Any]], step: Micros = SECOND) -> list[Micros]:
    """Every slot of a ledger, ranges written out, oldest first; a slot with two entries stands there twice."""
    slots: list[Micros] = []
    for entry in ledger:
        if entry["kind"] == "run":
            slots.append(entry["scheduled_at"])
            continue
        within = range(entry["from"], entry["to"] + 1, step)
        assert len(within) == entry["count"], f"a range that does not count what it spans: {entry}"
        assert entry["reason"], entry
        slots.extend(within)
    return sorted(slots)


def assert_every_second_once(ledger: Sequence[Mapping[str, Any]]) -> list[Micros]:
    """From the first slot to the last, each second has exactly one entry; returns the slots."""
    slots = slots_of(ledger)
    twice = [slot for slot, count in Counter(slots).items() if count > 1]
    assert not twice, f"slots with two entries: {twice[:10]}"
    expected = list(range(slots[0], slots[-1] + 1, SECOND))
    assert slots == expected, f"slots without an entry: {sorted(set(expected) - set(slots))[:10]}"
    return slots


def reasons(ledger: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many slots were skipped, by reason."""
    counts: Counter[str] = Counter()
    for entry in ledger:
        if entry["kind"] == "skipped":
            counts[entry["reason"]] += entry["count"]
    return counts


def as_json(result: subprocess.CompletedProcess[str]) -> Any:
    """What a verb printed with `-o json`; a verb that failed fails the test with what it said."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
