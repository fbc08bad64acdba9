"""A scheduler inside a program: the README's example as it stands, and every promise of its methods."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import scheduler as public
from executors import Executor, LoggingExecutor, Outcome, RunContext, ShellExecutor
from scheduler import (
    CatchUp,
    Client,
    ConfigError,
    Conflict,
    Cron,
    FixedRate,
    Scheduler,
    SchemaMismatch,
    SpecError,
    Trigger,
    run_name,
)
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.testing import ManualClock, RecordingExecutor

NOON = "2026-11-21T12:00:00Z"
SOON = timedelta(seconds=20)
ROOT = Path(__file__).parents[2]


def minutely(name: str = "my-minute-trigger", *, task: str = "report", **options: Any) -> Trigger:
    options = {"automation": Cron("* * * * *"), **options}
    return Trigger(project="flytesnacks", domain="development", task=task, name=name, **options)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def database(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def client(database: str, clock: ManualClock) -> Iterator[Client]:
    with Client.open(database, clock=clock, by="somebody else", create_projects=True) as opened:
        yield opened


def slots(executor: RecordingExecutor) -> list[str]:
    return [f"{slot:%H:%M}" for slot in executor.slots if slot is not None]


def names(client: Client) -> list[str]:
    return [f"{row['task']}/{row['name']}" for row in client.list_triggers()]


# --- the tutorial ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_tutorial_fires_every_slot_until_ctrl_c_or_sigterm_and_exits_cleanly(tmp_path: Path, number: int) -> None:
    program = tutorial().replace('Cron("* * * * *")', 'FixedRate(1, "second")').replace("Cron,", "FixedRate,")
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = next(line for line in process.stdout if "Firing trigger" in line)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert "Firing trigger flytesnacks/development/my-minute-trigger scheduled for 20" in said
    assert (process.returncode, errors) == (0, "")
    with Client.open(f"sqlite:///{tmp_path}/demo.db") as client:
        runs = client.list_runs()
        assert {run["phase"] for run in runs} == {"SUCCEEDED"}
        assert client.list_workers() == []


def tutorial() -> str:
    """The program of the README's section on the library."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## As a library")[1]
    return section.split("```python\n")[1].split("```")[0]


def test_a_program_outside_of_wait_drains_on_sigterm_too(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, signal
        from executors import LoggingExecutor
        from scheduler import Scheduler
        with Scheduler(executor=LoggingExecutor(), database="sqlite:///demo.db") as scheduler:
            scheduler.start()
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        """
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 128 + signal.SIGTERM
    assert "stopped" in done.stdout
    assert "Traceback" not in done.stderr


def test_importing_scheduler_loads_nothing_but_itself() -> None:
    program = "import sys, scheduler; print(sorted(name for name in sys.modules if name.startswith('scheduler')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['scheduler']"


def test_every_public_name_is_there() -> None:
    for name in public.__all__:
        assert getattr(public, name).__name__ == name
    assert set(public.__all__) <= set(dir(public))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        public.Nothing  # noqa: B018


# --- schedules -------------------------------------------------------------------------------------------------------


def test_the_given_triggers_are_the_whole_set_of_the_librarys(
    database: str, clock: ManualClock, client: Client
) -> None:
    with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely("a"), minutely("b"), minutely("c", task="other")])
        assert names(client) == ["other/c", "report/a", "report/b"]
        scheduler.update_schedules([minutely("b"), minutely("d")])
        assert names(client) == ["report/b", "report/d"]
        scheduler.update_schedules([])
        assert names(client) == []


def test_triggers_of_manifests_stay_when_the_library_names_others(
    database: str, clock: ManualClock, client: Client
) -> None:
    spec = TriggerSpec("from-file", Cron("0 * * * *"))
    manifest = TaskDefinition("flytesnacks", "development", "report", "v1", TaskSpec("shell"), (spec,))
    list(client.deploy([manifest]))
    with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely("mine")])
        assert names(client) == ["report/from-file", "report/mine"]
        assert [row["version"] for row in client.list_triggers()] == ["v1", "library"]
        scheduler.update_schedules([])
        assert names(client) == ["report/from-file"]


def test_a_trigger_that_a_manifest_has_is_refused_and_nothing_changes(
    database: str, clock: ManualClock, client: Client
) -> None:
    manifest = TaskDefinition("flytesnacks", "development", "report", "v1", TaskSpec("shell"), (TriggerSpec("theirs"),))
    list(client.deploy([manifest]))
    with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
        with pytest.raises(Conflict, match="report/theirs exists already and comes from manifest"):
            scheduler.update_schedules([minutely("theirs"), minutely("another", task="another")])
        assert names(client) == ["report/theirs"]


def test_the_same_list_again_changes_nothing(database: str, clock: ManualClock, client: Client) -> None:
    for _ in range(2):
        with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
            applied = [result.applied for result in scheduler.update_schedules([minutely(), minutely("b", task="b")])]
    assert applied == [False, False]
    assert [row["revision"] for row in client.list_triggers()] == [1, 1]


def test_an_operators_pause_outlives_a_restart_of_the_program(
    database: str, clock: ManualClock, client: Client
) -> None:
    trigger = minutely()
    for _ in range(2):
        with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
            scheduler.update_schedules([trigger])
            client.deactivate(trigger.key)
    assert [row["active"] for row in client.list_triggers()] == [False]


def test_every_fault_of_a_list_is_told_at_once(database: str) -> None:
    faulty = [
        minutely("a", executor="loging"),
        minutely("b", task="b", config={"comand": "true"}),
        minutely("b", task="b", config={"comand": "true"}, timeout=timedelta(seconds=1)),
        minutely("c", task="c", executor="shell", config={"command": ["echo", "{inputs.region}"]}),
        minutely(
            "c", task="c", executor="shell", config={"command": ["echo", "{inputs.region}"]}, inputs={"region": 1}
        ),
    ]
    executors = {"shell": ShellExecutor()}
    with Scheduler(LoggingExecutor(), executors=executors, database=database) as scheduler:
        with pytest.raises(ConfigError) as caught:
            scheduler.update_schedules(faulty)
        assert scheduler.client.list_triggers() == []
    lines = "\n".join(caught.value.lines())
    assert "[0] flytesnacks/development/report/a: executor: 'loging' is not one of the given executors" in lines
    assert "[1] flytesnacks/development/b/b: config.comand" in lines
    assert "[2] flytesnacks/development/b/b: executor, config, timeout, deadline and retries differ" in lines
    assert "[2] flytesnacks/development/b/b: is named twice" in lines
    assert "[3] flytesnacks/development/c/c: config.command" in lines
    assert "[4] flytesnacks/development/c/c: is named twice" in lines


def test_a_trigger_that_cannot_be_is_refused_where_it_is_written() -> None:
    with pytest.raises(SpecError, match="task: 'a/b' contains '/'"):
        minutely(task="a/b")
    with pytest.raises(ValueError, match="timeout"):
        minutely(timeout=timedelta(0))


def test_of_several_executors_a_trigger_names_one(database: str, clock: ManualClock) -> None:
    eu, us = RecordingExecutor(), RecordingExecutor()
    with Scheduler(executors={"eu": eu, "us": us}, database=database, clock=clock) as scheduler:
        with pytest.raises(ConfigError, match="names no executor, and there are several"):
            scheduler.update_schedules([minutely()])
        scheduler.update_schedules([minutely("e", task="e", executor="eu"), minutely("u", task="u", executor="us")])
        clock.advance("1m")
        scheduler.start()
        assert [run.trigger for run in eu.wait_for(1)] == ["e"]
        assert [run.trigger for run in us.wait_for(1)] == ["u"]


# --- what was missed -------------------------------------------------------------------------------------------------


def test_a_restart_with_the_same_list_owes_what_was_missed_meanwhile(database: str, clock: ManualClock) -> None:
    executor = RecordingExecutor()
    for _ in range(2):
        with Scheduler(executor, database=database, clock=clock) as scheduler:
            scheduler.update_schedules([minutely()])
            clock.advance("3m")
            scheduler.start()
            executor.wait_for(3 + 3 * (len(executor.executions) >= 3))
    assert sorted(slots(executor)) == ["12:01", "12:02", "12:03", "12:04", "12:05", "12:06"]


def test_catchup_all_queues_what_was_missed_under_a_cap_for_what_is_late(
    database: str, clock: ManualClock, client: Client
) -> None:
    with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely(catchup=CatchUp(max_runs=5))])
        clock.advance("1h")
        queued = scheduler.catchup_all(max_runs=10)
        # Twelve: ten late ones, and the two that are not older than a minute.
        assert queued == sorted(queued)
        assert [name[17:32] for name in (queued[0], queued[-1])] == ["20261121t124900", "20261121t130000"]
        rows = client.list_runs()
        assert sorted(row["name"] for row in rows) == queued
        assert {row["phase"] for row in rows} == {"QUEUED"}
        assert len(queued) == 12
        assert client.show_trigger(minutely().key)["catchup"]["max_runs"] == 5
        ledger = client.list_slots(minutely().key)
        assert (ledger[0]["count"], ledger[0]["reason"]) == (48, "catchup_cap")
        assert scheduler.catchup_all(max_runs=10) == []


def test_catchup_all_leaves_a_triggers_own_cap_unless_given_another(database: str, clock: ManualClock) -> None:
    with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely(catchup=CatchUp(max_runs=1)), minutely("b", catchup=CatchUp("none"))])
        clock.advance("1h")
        assert len(scheduler.catchup_all()) == 3 + 2


def test_catchup_all_names_the_runs_by_their_slots(database: str, clock: ManualClock) -> None:
    with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely()])
        clock.advance("1m")
        assert scheduler.catchup_all(max_runs=10) == [run_name(*minutely().key, clock.time)]


def test_catchup_all_leaves_the_triggers_of_manifests_alone(database: str, clock: ManualClock, client: Client) -> None:
    spec = TriggerSpec("from-file", Cron("* * * * *"))
    list(client.deploy([TaskDefinition("flytesnacks", "development", "files", "v1", TaskSpec("shell"), (spec,))]))
    with Scheduler(LoggingExecutor(), database=database, clock=clock) as scheduler:
        clock.advance("1h")
        assert scheduler.catchup_all(max_runs=1) == []
        assert client.list_runs() == []


# --- life ------------------------------------------------------------------------------------------------------------


def test_schedules_given_while_it_runs_are_acted_on_at_once(database: str) -> None:
    executor = RecordingExecutor()
    with Scheduler(executor, database=database, resync_interval="1h") as scheduler:
        scheduler.update_schedules([minutely("never", automation=None)])
        scheduler.start()
        scheduler.update_schedules([minutely("steady", automation=FixedRate(1, "second"))])
        # The first slot is a second after the deploy; the sync beat would have looked in an hour.
        assert executor.wait_for(2, timedelta(seconds=5))[0].trigger == "steady"


def test_what_catchup_all_queues_while_it_runs_is_executed_at_once(database: str, clock: ManualClock) -> None:
    executor = RecordingExecutor()
    with Scheduler(executor, database=database, clock=clock) as scheduler:
        scheduler.start()
        scheduler.update_schedules([minutely()])
        clock.advance("5m")
        scheduler.catchup_all()
        executor.wait_for(5)
    assert sorted(slots(executor)) == ["12:01", "12:02", "12:03", "12:04", "12:05"]


class Slow(Executor):
    """Runs until it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.may_end = threading.Event()

    async def execute(self, run: RunContext) -> None:
        self.began.set()
        await asyncio.to_thread(self.may_end.wait, 20)


def test_work_that_runs_when_it_is_stopped_may_finish(database: str, clock: ManualClock, client: Client) -> None:
    stopping, may_end = threading.Event(), threading.Event()

    async def work(run: RunContext) -> None:
        scheduler.stop()  # on the worker's own thread it only asks
        stopping.set()
        await asyncio.to_thread(may_end.wait)

    with Scheduler(RecordingExecutor(work), database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely()])
        clock.advance("1m")
        scheduler.start()
        assert stopping.wait(10)
        may_end.set()
    assert [run["phase"] for run in client.list_runs()] == ["SUCCEEDED"]


def test_what_does_not_finish_within_the_grace_is_handed_back(
    database: str, clock: ManualClock, client: Client
) -> None:
    class Endless(Slow):
        async def execute(self, run: RunContext) -> None:
            self.began.set()
            await asyncio.Event().wait()

    executor = Endless()
    with Scheduler(executor, database=database, clock=clock, shutdown_grace="0s") as scheduler:
        scheduler.update_schedules([minutely()])
        clock.advance("1m")
        scheduler.start()
        assert executor.began.wait(10)
    assert [(run["phase"], run["attempt"], run["lost"]) for run in client.list_runs()] == [("QUEUED", 1, 0)]


def test_two_threads_that_stop_it_do_not_cut_its_work_short(database: str, clock: ManualClock, client: Client) -> None:
    executor = Slow()
    with Scheduler(executor, database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely()])
        clock.advance("1m")
        scheduler.start()
        assert executor.began.wait(10)
        stoppers = [threading.Thread(target=scheduler.stop) for _ in range(3)]
        for thread in stoppers:
            thread.start()
        executor.may_end.set()
        assert scheduler.wait(SOON)
    for thread in stoppers:
        thread.join()
    assert [run["phase"] for run in client.list_runs()] == ["SUCCEEDED"]


def test_stop_from_another_thread_ends_wait(database: str) -> None:
    with Scheduler(LoggingExecutor(), database=database) as scheduler:
        scheduler.start()
        assert not scheduler.wait(timedelta(0))
        threading.Thread(target=scheduler.stop).start()
        assert scheduler.wait(SOON)


def test_an_executor_may_stop_the_scheduler_that_runs_it(database: str, clock: ManualClock) -> None:
    executor = RecordingExecutor(lambda run: scheduler.stop())
    with Scheduler(executor, database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely()])
        clock.advance("1m")
        scheduler.start()
        assert scheduler.wait(SOON)
        assert [run["phase"] for run in scheduler.client.list_runs()] == ["SUCCEEDED"]


class Broken(Executor):
    async def start(self) -> None:
        raise OSError("no such device")

    async def execute(self, run: RunContext) -> None: ...


def test_what_the_worker_dies_of_is_raised_by_wait_once(database: str) -> None:
    with Scheduler(Broken(), database=database) as scheduler:
        scheduler.start()
        with pytest.raises(OSError, match="no such device"):
            scheduler.wait(SOON)


def test_what_the_worker_dies_of_is_raised_when_the_block_is_left(database: str) -> None:
    with pytest.raises(OSError, match="no such device"), Scheduler(Broken(), database=database) as scheduler:  # noqa: PT012
        scheduler.start()
        # Stopped before it came to the executor, the worker would die of nothing.
        assert scheduler._ended.wait(SOON.total_seconds())


def test_the_blocks_own_error_is_not_hidden_by_the_workers(database: str) -> None:
    with pytest.raises(KeyError):  # noqa: PT012, SIM117
        with Scheduler(Broken(), database=database) as scheduler:
            scheduler.start()
            raise KeyError("mine")


def test_a_scheduler_lives_once(database: str) -> None:
    scheduler = Scheduler(LoggingExecutor(), database=database)
    with pytest.raises(RuntimeError, match="call start"):
        scheduler.wait()
    with scheduler:
        scheduler.start()
        with pytest.raises(RuntimeError, match="started already"):
            scheduler.start()
    with pytest.raises(RuntimeError, match="make another one"):
        scheduler.start()


def test_a_scheduler_that_never_started_stops_as_well(database: str) -> None:
    with Scheduler(LoggingExecutor(), database=database) as scheduler:
        scheduler.update_schedules([minutely()])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_programs_own_sigterm_handler_stays(database: str) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with Scheduler(LoggingExecutor(), database=database) as scheduler:
            scheduler.start()
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]
            assert not scheduler.wait(timedelta(0))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_settings_and_a_missing_executor_are_faults_of_the_call() -> None:
    with pytest.raises(TypeError, match="needs an executor"):
        Scheduler()
    with pytest.raises(ConfigError) as caught:
        Scheduler(LoggingExecutor(), database="mysql://host/name", lease="soon")
    assert len(caught.value.problems) == 2


def test_a_relative_file_stays_where_the_program_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scheduler = Scheduler(LoggingExecutor(), database="sqlite:///mine.db")
    monkeypatch.chdir("/")
    with scheduler:
        scheduler.update_schedules([])
    assert (tmp_path / "mine.db").exists()


def test_it_runs_within_asyncio_too(database: str, clock: ManualClock) -> None:
    executor = RecordingExecutor()

    async def program() -> None:
        async with Scheduler(executor, database=database, clock=clock) as scheduler:
            scheduler.update_schedules([minutely()])
            clock.advance("1m")
            scheduler.start()
            await asyncio.to_thread(executor.wait_for, 1)

    asyncio.run(program())
    assert slots(executor) == ["12:01"]


class ToldWhenOver(ShellExecutor):
    over = threading.Event()

    async def execute(self, run: RunContext) -> Outcome:
        try:
            return await super().execute(run)
        finally:
            self.over.set()


def test_a_shell_command_runs_from_the_workers_thread(database: str, clock: ManualClock, client: Client) -> None:
    with Scheduler(ToldWhenOver(), database=database, clock=clock) as scheduler:
        scheduler.update_schedules([minutely(config={"command": ["sh", "-c", "exit 3"]})])
        clock.advance("1m")
        scheduler.start()
        assert ToldWhenOver.over.wait(10)
    run = client.list_runs()[0]
    assert (run["phase"], "3" in run["error"]) == ("FAILED", True)


@pytest.mark.postgres
def test_on_postgresql_it_makes_the_schema_only_when_told(empty_postgres_url: str) -> None:
    scheduler = Scheduler(LoggingExecutor(), database=empty_postgres_url)
    with pytest.raises(SchemaMismatch, match="scheduler db upgrade"):
        scheduler.start()
    executor = RecordingExecutor()
    with Scheduler(executor, database=empty_postgres_url, auto_upgrade=True) as scheduler:
        scheduler.update_schedules([minutely(automation=FixedRate(1, "second"))])
        scheduler.start()
        executor.wait_for(1)
