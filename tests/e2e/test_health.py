"""What a worker tells over HTTP while it works, and while its database, its machine or its neighbours fail."""

from __future__ import annotations

import signal
import threading
import time
from hashlib import sha256
from pathlib import Path

import psutil
import psycopg
import pytest

from scheduler.domain.automation import At
from scheduler.domain.instants import SECOND, to_datetime
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from tests.e2e.conftest import NewWorld
from tests.e2e.servers import Server
from tests.e2e.web import ANY_PORT, Web
from tests.e2e.worlds import (
    DOMAIN,
    PROJECT,
    WorkerProcess,
    ago,
    assert_every_second_once,
    deploy_as_of,
    eventually,
    marking,
    marks,
    reasons,
    task,
    ticking,
)

LEASE = 3


def listening(worker: WorkerProcess) -> list[int]:
    """The ports on which a process listens."""
    connections = psutil.Process(worker.pid).net_connections("inet")
    return [connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN]


def test_a_worker_says_that_it_is_ready_and_what_it_did(new_world: NewWorld, sqlite_url: str) -> None:
    three = {"every": "1s", "max_fires": 3}
    world = new_world(sqlite_url, [ticking("tick", trigger=three)], web=ANY_PORT)
    with world.worker() as worker:
        web = Web(worker)
        web.until_ready()
        assert listening(worker) == [web.port]
        assert web.ask("/livez", "HEAD")[2] == b""
        assert web.ask("/readyz")[1]["cache-control"] == "no-store"
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) == 3, "three runs are over")
        figures = web.figures()
        assert figures['scheduler_fires_total{kind="scheduled"}'] == 3
        assert figures['scheduler_starts_total{executor="shell",kind="scheduled"}'] == 3
        assert figures['scheduler_runs_finished_total{executor="shell",phase="SUCCEEDED"}'] == 3
        assert figures['scheduler_start_lateness_seconds_count{late="false"}'] == 3
        assert figures['scheduler_start_lateness_seconds_sum{late="false"}'] < 3
        assert figures['scheduler_transaction_seconds_count{outcome="committed"}'] > 6
        assert figures["scheduler_degraded"] == 0
        assert figures["scheduler_lease_age_seconds"] > 0
        assert figures["scheduler_lease_seconds"] == LEASE
        eventually(lambda: web.figure("scheduler_ready") == 1, "it says that it is ready in its figures, too")
        assert figures['scheduler_open_runs{phase="QUEUED"}'] == 0
        assert worker.stop() == 0
    assert not worker.said("Traceback")


def test_beyond_this_machine_only_with_tokens(new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking("tick")], web={**ANY_PORT, "host": "0.0.0.0"})
    with world.worker() as worker:
        assert worker.wait() == 2
    assert "settings.yaml: web.host" in worker.log()
    assert "add auth.tokens, or listen on 127.0.0.1" in worker.log()
    assert not worker.said("listening")


# --- where it listens ------------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_with_tokens_it_tells_its_figures_to_those_who_have_one(new_world: NewWorld, sqlite_url: str) -> None:
    token = "a long random text"
    reader = {"name": "prometheus", "role": "viewer", "sha256": sha256(token.encode()).hexdigest()}
    world = new_world(sqlite_url, [ticking("tick")], web={**ANY_PORT, "host": "0.0.0.0"}, auth={"tokens": [reader]})
    with world.worker() as worker:
        web = Web(worker)
        web.until_ready()
        assert [web.status(path) for path in ("/livez", "/readyz", "/metrics", "/")] == [200, 200, 401, 401]
        assert web.ask("/metrics", token="another")[0] == 401
        assert web.ask("/metrics", token=token)[0] == 200
        assert web.ask("/", token=token)[0] == 404
        assert worker.stop() == 0
    assert token not in worker.log()
    assert reader["sha256"] not in worker.log()


@pytest.mark.heavy
def test_a_port_that_is_taken_is_said_and_the_worker_works_without_it(new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking("tick")], web=ANY_PORT)
    with world.worker("first") as first:
        web = Web(first)
        web.until_ready()
        with world.worker("second", SCHEDULER_WEB__PORT=str(web.port)) as second:
            second.until_said("not listening: this worker runs without its web port")
            assert "in use" in second.log()
            second.until_said("ready")
            first.kill()
            count = len(world.runs("tick", "SUCCEEDED"))
            world.until(lambda: len(world.runs("tick", "SUCCEEDED")) > count + 2, "the second one fires")
            assert listening(second) == []
            assert second.stop() == 0
    assert_every_second_once(world.ledger("tick"))
    assert not second.said("Traceback")


@pytest.mark.heavy
def test_without_web_no_port_is_opened_and_no_server_is_loaded(new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking("tick")], web={"enabled": False})
    with world.worker(PYTHONPROFILEIMPORTTIME="1") as worker:
        world.until(lambda: world.runs("tick", "SUCCEEDED"), "it fires")
        assert listening(worker) == []
        assert worker.stop() == 0
    assert not worker.said("listening ")
    imported = {line.split("|")[-1].strip() for line in worker.log().splitlines() if line.startswith("import time:")}
    assert "scheduler.loop.worker" in imported
    assert not imported & {"fastapi", "starlette", "uvicorn", "prometheus_client", "scheduler.metrics", "scheduler.web"}


# --- the database ----------------------------------------------------------------------------------------------------


@pytest.mark.heavy
@pytest.mark.postgres
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_while_the_database_is_away_it_is_live_and_not_ready(mode: str, new_world: NewWorld, server: Server) -> None:
    world = new_world(server.url, [ticking("tick")], web=ANY_PORT, worker={"lease": "6s"})
    assert world.call("db", "upgrade").returncode == 0
    with world.worker() as worker:
        web = Web(worker)
        web.until_ready()
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "it fires")
        server.stop(mode)
        gone = time.monotonic()
        eventually(lambda: web.status("/readyz") == 503, "it is not ready", 10)
        print(f"not ready {time.monotonic() - gone:.1f} s after the server is gone")
        slowest = 0.0
        while time.monotonic() - gone < 9:
            begun = time.monotonic()
            assert web.status("/livez") == 200
            assert "database" in web.failing()
            assert web.figure("scheduler_degraded") == 1
            slowest = max(slowest, (time.monotonic() - begun) / 3)
            time.sleep(0.2)
        assert "lease" in web.failing()
        assert web.figure("scheduler_lease_age_seconds") > 6
        assert web.figure("scheduler_transaction_seconds_count", outcome="unavailable") > 0
        server.start()
        back = time.monotonic()
        world.close()
        web.until_ready(20)
        print(f"ready {time.monotonic() - back:.1f} s after it is back; the slowest answer meanwhile {slowest:.3f} s")
        assert slowest < 1
        assert web.figure("scheduler_degraded") == 0
        world.until(lambda: world.runs("tick", "SUCCEEDED"), "it fires again")
        assert worker.stop() == 0
    assert_every_second_once(world.ledger("tick"))


@pytest.mark.heavy
@pytest.mark.postgres
def test_a_database_that_is_frozen_is_noticed_and_no_reason_for_a_restart(new_world: NewWorld, server: Server) -> None:
    world = new_world(server.url, [ticking("tick")], web=ANY_PORT)
    assert world.call("db", "upgrade").returncode == 0
    with world.worker() as worker:
        web = Web(worker)
        web.until_ready()
        server.freeze()
        eventually(lambda: web.failing() == {"database", "lease"}, "it is not ready", 10)
        end = time.monotonic() + 6
        while time.monotonic() < end:
            assert web.status("/livez") == 200
            assert web.failing() == {"database", "lease"}
            time.sleep(0.2)
        server.thaw()
        web.until_ready()
        assert worker.stop() == 0


@pytest.mark.heavy
@pytest.mark.postgres
def test_a_worker_that_waits_for_its_database_at_start_is_live_and_not_ready(
    new_world: NewWorld, server: Server
) -> None:
    world = new_world(server.url, [ticking("tick")], web=ANY_PORT)
    assert world.call("db", "upgrade").returncode == 0
    server.stop("fast")
    with world.worker() as worker:
        web = Web(worker)
        worker.until_said("degraded")
        assert web.status("/livez") == 200
        assert web.failing() == {"worker", "lease", "database", "schema"}
        server.start()
        web.until_ready()
        assert worker.stop() == 0


# --- the worker itself -----------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_while_it_drains_it_is_live_and_not_ready_and_still_tells_its_figures(
    new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    once = {"every": "1s", "max_fires": 1}
    world = new_world(sqlite_url, [marking("long", file, then="sleep 3", trigger=once)], web=ANY_PORT)
    with world.worker() as worker:
        web = Web(worker)
        world.until(lambda: marks(file), "it runs")
        worker.send(signal.SIGTERM)
        worker.until_said("draining")
        assert web.failing() == {"worker"}
        assert web.status("/livez") == 200
        assert web.figure("scheduler_ready") == 0
        assert web.figure("scheduler_places_taken") == 1
        assert worker.wait() == 0
    assert {run["phase"] for run in world.runs("long")} == {"SUCCEEDED"}


@pytest.mark.heavy
def test_code_that_blocks_the_event_loop_is_noticed(new_world: NewWorld, sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text("import time\nasync def blocks(run):\n    time.sleep(2.5)\n")
    world = new_world(
        sqlite_url,
        [task("block", "python", {"callable": "functions:blocks"}, trigger={"every": "1s", "max_fires": 1})],
        executors={"python": {"use": "python", "options": {"path": [str(tmp_path)]}}},
        web=ANY_PORT,
    )
    with world.worker() as worker:
        web = Web(worker)
        world.until(lambda: world.runs("block", "SUCCEEDED"), "it has blocked the loop")
        assert "loop" in web.failing()
        assert web.status("/livez") == 200  # It is over, and was shorter than a restart would take.
        assert web.figure("scheduler_loop_lag_seconds_bucket", le="1.0") < web.figure(
            "scheduler_loop_lag_seconds_count"
        )
        web.until_ready(10)
        assert worker.stop() == 0


@pytest.mark.heavy
@pytest.mark.postgres
def test_what_dead_and_frozen_workers_leave_behind_is_counted_by_those_who_deal_with_it(
    new_world: NewWorld, postgres_url: str, tmp_path: Path
) -> None:
    file, go = tmp_path / "marks", tmp_path / "go"
    once = {"every": "1s", "max_fires": 1}
    held = f"while [ ! -e {go} ]; do sleep 0.1; done"
    tasks = [marking(f"long-{n}", file, then=held, trigger=once) for n in range(6)]
    world = new_world(postgres_url, tasks, web=ANY_PORT, worker={"lease": f"{LEASE}s"})
    with world.worker("one") as one:
        first = Web(one)
        first.until_ready()
        world.until(lambda: marks(file).total() == 6, "the first one executes all six")
        with world.worker("two") as two:
            second = Web(two)
            second.until_ready()
            time.sleep(LEASE + 1)  # Only who has renewed for a whole lease may judge others.
            one.freeze()
            assert first.status("/livez", timeout=1) is None
            two.until_said("runs taken back")
            world.until(lambda: marks(file).total() == 12, "the second one executes all six again")
            assert second.figure("scheduler_runs_lost_total", phase="QUEUED") == 6
            assert second.figure("scheduler_starts_total", executor="shell", kind="scheduled") == 6
            # None of these starts is a slot's first: how late they are says nothing of the schedule.
            assert second.total("scheduler_start_lateness_seconds_count") == 0
            go.touch()
            world.until(lambda: marks(file, "end").total() == 12, "all commands have ended, the frozen one's too")
            world.until(lambda: world.count("phase = 'SUCCEEDED'") == 6, "all runs are over")
            # Told that it is dead before its results are recorded, it would drop them: it cannot ask while its row is held.
            with psycopg.connect(postgres_url) as holding:
                holding.execute("SELECT FROM workers WHERE name = 'one' FOR UPDATE")
                one.thaw()
                world.until(lambda: one.log().count("a late result does not count") == 6, "its results are refused")
            one.until_said("this worker was declared dead")
            first.until_ready()
            refused = one.log().count("a late result does not count")
            assert first.figure("scheduler_fences_refused_total") == refused == 6
            assert first.total("scheduler_runs_finished_total") == 0
            assert second.figure("scheduler_runs_finished_total", executor="shell", phase="SUCCEEDED") == 6
            one.kill()
            assert first.status("/livez") is None
            assert two.stop() == 0
    assert {run["lost"] for n in range(6) for run in world.runs(f"long-{n}")} == {1}


@pytest.mark.heavy
def test_after_an_outage_what_was_skipped_and_caught_up_is_counted(new_world: NewWorld, sqlite_url: str) -> None:
    late = {"every": "1s", "catchup": {"max_runs": 4}}
    world = new_world(sqlite_url, [ticking("tick", trigger=late)], web=ANY_PORT, worker={"misfire_grace": "3s"})
    with world.worker() as worker:
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "it fires")
        worker.kill()
    before = len(world.runs("tick"))
    time.sleep(15)
    with world.worker() as worker:
        web = Web(worker)
        web.until_ready()
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= before + 8, "it has caught up")
        assert world.call("triggers", "deactivate", "tick/t").returncode == 0
        world.until_closed("tick")
        figures = web.figures()
        skipped = reasons(world.ledger("tick"))
        assert figures['scheduler_slots_skipped_total{reason="catchup_cap"}'] == skipped["catchup_cap"] > 0
        assert figures["scheduler_late_starts_total"] == 4
        assert figures['scheduler_start_lateness_seconds_count{late="true"}'] == 4
        assert figures['scheduler_start_lateness_seconds_sum{late="true"}'] > 4 * 3
        inserted = figures['scheduler_fires_total{kind="scheduled"}']
        assert inserted == len(world.runs("tick")) - before
        assert worker.stop() == 0


@pytest.mark.heavy
def test_a_thousand_runs_are_not_held_up_by_who_asks_for_figures_and_are_counted_right(
    new_world: NewWorld, sqlite_url: str
) -> None:
    world = new_world(sqlite_url, web=ANY_PORT)
    answers: list[float] = []
    failures: list[str] = []
    over = threading.Event()

    def scrape(web: Web) -> None:
        while not over.is_set():
            for path in ("/metrics", "/livez"):
                begun = time.monotonic()
                status = web.status(path, timeout=10)
                answers.append(time.monotonic() - begun)
                if status != 200:
                    failures.append(f"{path}: {status}")

    with world.worker() as worker:
        web = Web(worker)
        web.until_ready()
        scrapers = [threading.Thread(target=scrape, args=(web,)) for _ in range(3)]
        for scraper in scrapers:
            scraper.start()
        # As of before their slot: however long the deploy takes, they are due at one instant and owed.
        moment = ago() + 3 * SECOND
        slot = to_datetime(moment - moment % SECOND)
        triggers = tuple(TriggerSpec(f"t{number:04}", At(slot)) for number in range(1_000))
        burst = TaskDefinition(PROJECT, DOMAIN, "burst", "v1", TaskSpec("logging"), triggers)
        deploy_as_of(sqlite_url, ago(seconds=5), [burst])
        world.until(lambda: world.count("phase = 'SUCCEEDED'") == 1_000, "a thousand runs are over", 60)
        took = (ago() - moment) / SECOND
        over.set()
        for scraper in scrapers:
            scraper.join()
        assert web.figure("scheduler_fires_total", kind="scheduled") == 1_000
        assert web.figure("scheduler_starts_total", executor="logging", kind="scheduled") == 1_000
        assert web.figure("scheduler_runs_finished_total", executor="logging", phase="SUCCEEDED") == 1_000
        assert web.total("scheduler_start_lateness_seconds_count") == 1_000
        assert worker.stop() == 0

    answers.sort()
    middle, worst = answers[len(answers) // 2], answers[-1]
    print(
        f"{len(answers)} answers: half within {middle * 1000:.0f} ms, all within {worst * 1000:.0f} ms; runs {took:.1f} s"
    )
    assert not failures
    assert worst < 5
