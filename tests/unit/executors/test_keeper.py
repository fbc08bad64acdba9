"""The keeper: one small process a worker, and nothing survives either of them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from executors import RetryableError, ShellExecutor, Succeeded, WorkerExhausted
from executors.processes import hire
from tests.unit.executors.worlds import ROOT, alive, eventually, make_run, members_of_group, perform, printed

WORKER = """
import asyncio, os, sys, time
from executors import RunContext, ShellExecutor
from executors.processes import hire
from executors.registry import parse_config

async def main():
    executor = ShellExecutor()
    await executor.start()
    runs = [
        RunContext(f"run-{n}", config=parse_config(ShellExecutor, {"command": ["sh", "-c", script]}))
        for n, script in enumerate(["trap '' TERM INT HUP; echo $$; sleep 1000 & echo $!; wait"] * 5)
    ]
    tasks = [asyncio.ensure_future(executor.execute(run)) for run in runs]
    while not all(run.output.text().count("\\n") == 2 for run in runs):
        await asyncio.sleep(0.01)
    FORK
    print(hire(executor).pid, *(word for run in runs for word in run.output.text().split()), flush=True)
    await asyncio.gather(*tasks)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "fork", ["pass", "os.fork() or (time.sleep(3), os._exit(0))"], ids=["alone", "with a fork that holds its sockets"]
)
def test_kill_9_of_a_worker_leaves_no_child_behind(fork: str) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER.replace("FORK", fork)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    keeper, *children = map(int, worker.stdout.readline().split())
    assert len(children) == 10
    assert all(alive(pid) for pid in (keeper, *children))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    asyncio.run(eventually(lambda: not any(alive(pid) for pid in (keeper, *children)), within=5))
    worker.stdout.close()


def test_ctrl_c_and_sigterm_are_not_meant_for_the_keeper() -> None:
    async def scene() -> None:
        executor = ShellExecutor()
        await executor.start()
        assert await executor.execute(make_run(executor, {"command": ["true"]})) == Succeeded({"exit_code": 0})
        pid = hire(executor).pid
        assert pid is not None
        assert os.getsid(pid) == pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        run = make_run(executor, {"command": ["sh", "-c", "kill -TERM $PPID; trap"]})
        assert await executor.execute(run) == Succeeded({"exit_code": 0})
        assert hire(executor).pid == pid
        await executor.close()
        assert not alive(pid)

    asyncio.run(scene())


def test_commands_do_not_inherit_the_keepers_manners_or_descriptors() -> None:
    program = """
import os, signal
print([signal.getsignal(number).name for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)])
print(os.getsid(0) == os.getpid(), sorted(map(int, os.listdir('/proc/self/fd')))[:4])
"""
    executor = ShellExecutor()
    run = make_run(executor, {"command": [sys.executable, "-c", program]})
    asyncio.run(perform(executor, run))
    # The descriptor after the first three is the listing's own.
    assert run.output.text() == "['SIG_DFL', 'SIG_DFL', 'SIG_DFL']\nTrue [0, 1, 2, 3]\n"


def test_one_keeper_serves_every_executor_of_a_worker_and_ends_with_the_last() -> None:
    async def scene() -> None:
        first, second = ShellExecutor(), ShellExecutor()
        for executor in (first, second):
            await executor.start()
            await executor.execute(make_run(executor, {"command": ["true"]}))
        assert hire(first) is hire(second)
        pid = hire(first).pid
        assert pid is not None
        await first.close()
        assert alive(pid)
        await second.close()
        assert not alive(pid)

    asyncio.run(scene())


def test_closing_kills_what_still_runs() -> None:
    async def scene() -> None:
        executor = ShellExecutor()
        run = make_run(executor, {"command": ["sh", "-c", "trap '' TERM; echo $$; sleep 1000"]})
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "\n")
        await executor.close()
        assert members_of_group(int(run.output.text())) == []
        with pytest.raises(RetryableError):
            await task

    asyncio.run(scene())


def test_when_the_keeper_dies_its_runs_fail_with_an_unknown_outcome_and_the_next_gets_a_new_one() -> None:
    async def scene() -> None:
        executor = ShellExecutor()
        await executor.start()
        runs = [
            make_run(executor, {"command": ["sh", "-c", "trap '' TERM; echo $$; sleep 1000 & echo $!; wait"]})
            for _ in range(5)
        ]
        tasks = [asyncio.ensure_future(executor.execute(run)) for run in runs]
        await eventually(lambda: all(run.output.text().count("\n") == 2 for run in runs))
        keeper = hire(executor).pid
        assert keeper is not None
        os.kill(keeper, signal.SIGKILL)
        for task in tasks:
            with pytest.raises(RetryableError, match="the keeper process ended") as caught:
                await task
            assert not caught.value.outcome_known
        assert not any(alive(int(pid)) for run in runs for pid in run.output.text().split())
        assert await executor.execute(make_run(executor, {"command": ["true"]})) == Succeeded({"exit_code": 0})
        assert hire(executor).pid != keeper
        await executor.close()

    asyncio.run(scene())


def _with_room(pid: int, room: int) -> int:
    """The limit under which the process may open so many descriptors more."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    limit = 0
    while room or limit in used:
        room -= limit not in used
        limit += 1
    return limit


async def _settled(keeper: int) -> int:
    """How many descriptors the keeper has once it has closed those that it only passes on: as many five times in a row."""
    seen: list[int] = []
    while len(seen) < 5 or len(set(seen[-5:])) > 1:
        seen.append(len(os.listdir(f"/proc/{keeper}/fd")))
        await asyncio.sleep(0.02)
    return seen[-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of another process")
def test_a_keeper_without_descriptors_refuses_a_command_and_keeps_the_others() -> None:
    async def scene() -> None:
        executor = ShellExecutor()
        await executor.start()
        long = make_run(executor, {"command": ["sh", "-c", "echo on; read line; echo $line"], "stdin": "json"})
        other = make_run(executor, {"command": ["sh", "-c", "echo on; sleep 1000"]})
        task = asyncio.ensure_future(executor.execute(other))
        await eventually(lambda: "on" in other.output.text())
        keeper = hire(executor).pid
        assert keeper is not None
        limits = resource.prlimit(keeper, resource.RLIMIT_NOFILE)
        used = await _settled(keeper)
        # No room for any of the three that come with a command; for some; and for these but not for what starts it.
        for room in (0, 2, 3, 4):
            # What the last command brought is closed first, or there would be more room than this.
            await eventually(lambda: len(os.listdir(f"/proc/{keeper}/fd")) == used)
            resource.prlimit(keeper, resource.RLIMIT_NOFILE, (_with_room(keeper, room), limits[1]))
            with pytest.raises(WorkerExhausted, match="cannot be started: Too many open files"):
                await executor.execute(long)
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, limits)
        assert await executor.execute(long) == Succeeded({"exit_code": 0})
        assert (hire(executor).pid, task.done()) == (keeper, False)
        await eventually(lambda: len(os.listdir(f"/proc/{keeper}/fd")) == used)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await executor.close()

    asyncio.run(scene())


def test_a_keeper_that_died_idle_is_replaced_unnoticed() -> None:
    async def scene() -> None:
        executor = ShellExecutor()
        for _ in range(3):
            assert await executor.execute(make_run(executor, {"command": ["true"]})) == Succeeded({"exit_code": 0})
            keeper = hire(executor).pid
            assert keeper is not None
            os.kill(keeper, signal.SIGKILL)
            os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOWAIT)
        await executor.close()

    asyncio.run(scene())


def test_a_command_whose_start_nobody_had_heard_of_ends_with_its_keeper_as_well(tmp_path: Path) -> None:
    async def scene() -> None:
        executor = ShellExecutor()
        await executor.start()
        await executor.execute(make_run(executor, {"command": ["true"]}))
        keeper = hire(executor)
        assert keeper.pid is not None
        script = "echo $$ > new; sleep 1000 & echo $! >> new; mv new pids; wait"
        run = make_run(executor, {"command": ["sh", "-c", script], "cwd": str(tmp_path)})
        task = asyncio.ensure_future(executor.execute(run))
        await asyncio.sleep(0)
        # The loop does not turn here, so the client cannot hear that the command has started.
        while not (tmp_path / "pids").exists():
            os.sched_yield()
        os.kill(keeper.pid, signal.SIGKILL)
        os.waitid(os.P_PID, keeper.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(RetryableError):
            await task
        assert not any(alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())
        await executor.close()

    asyncio.run(scene())
