"""A real worker and runs that could end it: their code, their clocks, what they leave behind."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from typing import Any

import pytest

from executors import Deferred, Executor, Outcome, Poll, PythonExecutor, RunContext, Succeeded, Until
from executors.external_job import ExternalJob, Job, JobPhase, JobStatus
from tests.integration.waiting_world import WaitingWorld


class Skewed:
    """This machine's clock, wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> int:
        """The present instant as this machine has it, in epoch microseconds."""
        return time.time_ns() // 1_000 + int(self._seconds * 1_000_000)


class Does(Executor):
    """Does what the task's config names."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Any] = {}

    async def execute(self, run: RunContext) -> Outcome:
        """Ends, waits or tells the time."""
        what = run.config["do"]
        if what == "exit":
            sys.exit(2)
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "cancel":
            raise asyncio.CancelledError
        if what == "exit in a task":
            await asyncio.gather(self._exits(), self._exits())
        if what == "leave a task that exits":
            self.seen["task"] = asyncio.ensure_future(self._exits())
            await asyncio.sleep(0.01)
        if what == "poll" and run.resumed is None:
            return Deferred(Poll(timedelta(milliseconds=20), timedelta(milliseconds=1)))
        if what == "wait":
            if run.resumed is None:
                return Deferred(Until(run.now() + timedelta(milliseconds=50)))
            await asyncio.sleep(60)
        if what == "end the loop":
            asyncio.get_running_loop().call_soon(sys.exit, 3)
            await asyncio.sleep(60)
        if what == "sleep":
            await asyncio.sleep(60)
        self.seen["left"] = None if run.deadline is None else (run.deadline - run.now()).total_seconds()
        return Succeeded()

    async def poll(self, run: RunContext) -> Outcome:
        """Ends."""
        raise SystemExit("no more")

    async def _exits(self) -> None:
        sys.exit(3)


class Service(ExternalJob):
    """A service whose calls end what calls them."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    async def create(self, run: RunContext) -> Job:
        """Submits nothing."""
        if self.at == "create":
            sys.exit("create")
        return Job({"n": 1}, run.run_name)

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """Always exits."""
        sys.exit("status")

    async def delete(self, run: RunContext, job: Job) -> None:
        """Nothing to do."""


@pytest.mark.heavy
def test_no_code_of_a_run_ends_the_worker_or_another_run(database_url: str) -> None:
    executors = {"does": Does(), "create": Service("create"), "status": Service("status")}
    with WaitingWorld(database_url, executors) as world:
        incarnation = world.call(lambda: world.worker.heartbeat.incarnation)
        names = {}
        for what in ("exit", "interrupt", "cancel", "exit in a task", "leave a task that exits", "poll"):
            names[what] = world.fire(what.replace(" ", "-"), "does", {"do": what})
        jobs = {"poll_interval": "20ms", "error_budget": "1ms"}
        for where in ("create", "status"):
            names[where] = world.fire(where, where, jobs, on_unknown="fail", cancel_give_up=timedelta(milliseconds=1))
        ended = {what: world.until_phase(name, "FAILED", "SUCCEEDED") for what, name in names.items()}
        assert ended.pop("leave a task that exits")["phase"] == "SUCCEEDED"
        for what, run in ended.items():
            assert (run["phase"], run["lost"]) == ("FAILED", 0), what
            assert "its code raised" in run["error"], what
        name = world.fire("fine", "does", {"do": "nothing"})
        assert world.until_phase(name, "SUCCEEDED", "FAILED")["lost"] == 0
        assert world.call(lambda: world.worker.heartbeat.incarnation) == incarnation


@pytest.mark.heavy
@pytest.mark.postgres
@pytest.mark.parametrize("wrong", [600, -600])
def test_what_a_run_has_left_is_told_by_the_databases_clock_and_passes_in_steady_time(
    postgres_url: str, wrong: float
) -> None:
    executor = Does()
    with WaitingWorld(postgres_url, {"does": executor}, clock=Skewed(wrong)) as world:
        fine = world.fire("fine", "does", {"do": "nothing"}, deadline=timedelta(minutes=5))
        assert world.until_phase(fine, "SUCCEEDED", "TIMED_OUT")["phase"] == "SUCCEEDED"
        assert 290 < executor.seen["left"] <= 300
        for what, limits, said in (
            ("sleep", {"deadline": timedelta(seconds=1)}, "deadline of 1 s was over"),
            ("sleep", {"timeout": timedelta(seconds=1)}, "timeout of 1 s was over"),
            ("wait", {"deadline": timedelta(seconds=1)}, "deadline of 1 s was over"),
            ("wait", {"timeout": timedelta(seconds=1)}, "timeout of 1 s was over"),
        ):
            name = world.fire(f"{what}-{'-'.join(limits)}", "does", {"do": what}, **limits)
            run = world.until_phase(name, "TIMED_OUT")
            assert run["error"] == said
            assert 1_000_000 <= run["finished_at"] - run["created_at"] < 4_000_000


@pytest.mark.heavy
def test_a_worker_that_dies_of_an_error_has_lost_its_runs(database_url: str) -> None:
    with WaitingWorld(database_url, {"does": Does()}) as world:
        name = world.fire("sleeps", "does", {"do": "sleep"})
        world.until_phase(name, "RUNNING")

        def dies() -> None:
            raise MemoryError("no more")

        world.call(lambda: setattr(world.worker.finishing, "flush", dies))
        world.call(world.worker.finishing.bell.ring)
        world.wait_for_death(MemoryError)
        # No lease is waited for: it has said that it is gone.
        world.start()
        run = world.until(lambda: (run := world.run(name))["lost"] and run, "it is lost")
        assert (run["attempts"][0]["phase"], run["attempts"][0]["error"]) == ("LOST", "lost its worker")


@pytest.mark.heavy
def test_a_run_that_ends_its_workers_in_order_is_lost_each_time_and_fails_in_the_end(database_url: str) -> None:
    with WaitingWorld(database_url, {"does": Does()}, max_lost=2, lease="1s") as world:
        name = world.fire("ends", "does", {"do": "end the loop"})
        for _ in range(2):
            world.wait_for_death(asyncio.CancelledError)
            world.start()
        run = world.until_phase(name, "FAILED")
        assert (run["error"], run["lost"]) == ("lost its worker 2 times", 2)
        assert [item["phase"] for item in run["attempts"]] == ["LOST", "FAILED"]


class Large(Executor):
    """Returns, or leaves, what is too large; or waits for a job that does."""

    async def execute(self, run: RunContext) -> Outcome:
        """At the first call, or at the second."""
        text = "x" * 50 * 1024 * 1024
        match run.config["do"]:
            case "result":
                return Succeeded({"text": text})
            case "state":
                return Deferred(Until(run.now()), text)
            case "poll":
                return Deferred(Poll(timedelta(milliseconds=20)))
        raise ValueError(text)

    async def poll(self, run: RunContext) -> Outcome:
        """Asks to be asked again, with a state that is too large."""
        return Deferred(Poll(timedelta(milliseconds=20)), "x" * 50 * 1024 * 1024)


class LargeJob(Service):
    """Jobs of which much is said."""

    async def create(self, run: RunContext) -> Job:
        """A job with much to remember, or a usual one."""
        return Job({"x": "x" * (2 * 1024 * 1024 if self.at == "meta" else 1)}, run.run_name)

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """Over."""
        text = "x" * 2 * 1024 * 1024
        if self.at == "message":
            return JobStatus(JobPhase.FAILED, text)
        return JobStatus(JobPhase.SUCCEEDED, outputs={"text": text})

    def event(self, job: Job | None, status: str, message: str) -> dict[str, Any]:
        """Much more than anybody wants to know."""
        return {**super().event(job, status, message), "more": float("nan")}


class Patient(Service):
    """A service whose jobs are waited for as long as Python can say, or that makes none."""

    async def create(self, run: RunContext) -> Any:
        """A job, or something else."""
        return None if self.at == "nothing" else Job({}, run.run_name)

    def poll_interval(self, run: RunContext) -> timedelta:
        """Seldom."""
        return timedelta.max

    def error_budget(self, run: RunContext) -> timedelta:
        """For ever."""
        return timedelta.max

    def first_look(self, run: RunContext) -> timedelta:
        """Ends what asks, or says that it is soon."""
        if self.at == "first look":
            sys.exit(4)
        return timedelta(0)

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """Over."""
        return JobStatus(JobPhase.SUCCEEDED)


class ForEver(Executor):
    """Waits as long as Python can say."""

    async def execute(self, run: RunContext) -> Outcome:
        """Is asked soon, and then never again."""
        if run.config["do"] == "first":
            return Deferred(Poll(timedelta.max, timedelta.max))
        return Deferred(Poll(timedelta(milliseconds=10), timedelta.max))

    async def poll(self, run: RunContext) -> Outcome:
        """Never again."""
        return Deferred(Poll(timedelta.max, timedelta.max), 1)


@pytest.mark.heavy
def test_what_waits_for_ever_is_stored_and_disturbs_nobody(database_url: str) -> None:
    executors: dict[str, Executor] = {"ever": ForEver()}
    executors |= {at.replace(" ", "-"): Patient(at) for at in ("nothing", "first look", "soon")}
    with WaitingWorld(database_url, executors) as world:
        incarnation = world.call(lambda: world.worker.heartbeat.incarnation)
        first, then = (world.fire(do, "ever", {"do": do}) for do in ("first", "then"))
        nothing, look, soon = (world.fire(at, at) for at in ("nothing", "first-look", "soon"))
        assert world.until_phase(soon, "SUCCEEDED", "FAILED")["phase"] == "SUCCEEDED"
        assert "cannot be stored" in world.until_phase(nothing, "FAILED")["error"]
        for name in (first, then, look):
            world.until_phase(name, "DEFERRED")
        world.until(lambda: (wait := world.wait_of(then)) is not None and wait["state"] == "1", "its state is stored")
        for name in (first, then, look):
            wait = world.wait_of(name)
            assert wait is not None
            assert wait["interval"] == 36_500 * 86_400 * 1_000_000
        assert world.call(lambda: world.worker.heartbeat.incarnation) == incarnation


FUNCTION = "tests.integration.too_large:function"


@pytest.mark.heavy
def test_no_result_is_too_large_for_a_worker_to_go_on(database_url: str) -> None:
    executors: dict[str, Executor] = {"large": Large(), "python": PythonExecutor()}
    executors |= {at: LargeJob(at) for at in ("meta", "message", "outputs")}
    with WaitingWorld(database_url, executors) as world:
        incarnation = world.call(lambda: world.worker.heartbeat.incarnation)
        names = {do: world.fire(do, "large", {"do": do}) for do in ("result", "state", "poll", "error")}
        names |= {at: world.fire(at, at, {"poll_interval": "20ms"}) for at in ("meta", "message", "outputs")}
        for place in ("process", "thread"):
            names[place] = world.fire(place, "python", {"callable": FUNCTION, "in": place})
        ended = {what: world.until_phase(name, "FAILED", "SUCCEEDED", within=60) for what, name in names.items()}
        said = {
            "result": "its result has 52,428,811 bytes, 1,048,576 are kept",
            "state": "its state has 52,428,802 bytes, 1,048,576 are kept",
            "poll": "its state has 52,428,802 bytes, 1,048,576 are kept",
            "error": "xxx",
            "meta": "its metadata has",
            "message": "xxx",
            "outputs": "its result has 2,097,163 bytes",
            "process": "its result has 52,428,813 bytes, 1,048,576 are kept",
            "thread": "its result has 52,428,813 bytes, 1,048,576 are kept",
        }
        for what, run in ended.items():
            assert (run["phase"], run["attempt"], run["outputs"]) == ("FAILED", 1, None), what
            assert said[what] in run["error"], what
            assert len(run["error"]) < 20_000
        assert ended["message"]["event"]["job_id"] == names["message"]
        assert world.call(lambda: world.worker.heartbeat.incarnation) == incarnation
