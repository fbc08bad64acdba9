"""Commands: what they are given, how their ends are told, how they are stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from executors import Failed, PermanentError, RunContext, ShellExecutor, Succeeded
from executors.registry import check_config
from tests.unit.executors.worlds import (
    alive,
    cancel,
    eventually,
    make_run,
    members_of_group,
    open_descriptors,
    perform,
    printed,
    raised,
)


def sh(script: str, **config: Any) -> tuple[ShellExecutor, RunContext]:
    executor = ShellExecutor()
    return executor, make_run(executor, {"command": ["sh", "-c", script], **config})


def ran(script: str, **config: Any) -> tuple[Any, str]:
    """The outcome of a script and what it printed."""
    executor, run = sh(script, **config)
    return asyncio.run(perform(executor, run)), run.output.text()


def test_exit_code_zero_succeeds() -> None:
    assert ran("echo out; echo err >&2") == (Succeeded({"exit_code": 0}), "out\nerr\n")


def test_any_other_exit_code_fails_and_may_be_retried() -> None:
    assert ran("exit 3")[0] == Failed("exit code 3", retryable=True)


def test_a_death_by_signal_is_named() -> None:
    assert ran("kill -SEGV $$")[0] == Failed("killed by SIGSEGV")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"command": ["no-such-program-here"]}, "'no-such-program-here' cannot be started: No such file or directory"),
        ({"command": ["/etc/passwd"]}, "'/etc/passwd' cannot be started: Permission denied"),
        (
            {"command": ["ls"], "cwd": "/no/such/folder"},
            "'ls' cannot be started: No such file or directory: '/no/such/folder'",
        ),
        ({"command": ["echo", "x" * 3_000_000]}, "'echo' cannot be started: Argument list too long"),
    ],
)
def test_a_command_that_cannot_be_started_fails_for_good(config: dict[str, Any], reason: str) -> None:
    executor = ShellExecutor()
    error = asyncio.run(raised(perform(executor, make_run(executor, config))))
    assert isinstance(error, PermanentError)
    assert str(error).startswith(reason)


def test_after_a_refused_command_the_next_one_runs() -> None:
    async def scene() -> None:
        executor = ShellExecutor()
        assert await raised(executor.execute(make_run(executor, {"command": ["no-such-program-here"]})))
        assert await perform(executor, make_run(executor, {"command": ["true"]})) == Succeeded({"exit_code": 0})

    asyncio.run(scene())


def test_arguments_and_environment_may_be_as_large_as_the_system_allows() -> None:
    executor = ShellExecutor()
    words = ["x" * 100_000] * 10
    run = make_run(executor, {"command": ["sh", "-c", "echo ${#BIG} $#", *words], "env": {"BIG": "y" * 100_000}})
    assert asyncio.run(perform(executor, run)) == Succeeded({"exit_code": 0})
    assert run.output.text() == "100000 9\n"


def test_inputs_come_as_json_on_stdin() -> None:
    executor = ShellExecutor()
    inputs = {"region": "eu", "big": ["ü" * 1_000] * 200}
    run = make_run(
        executor,
        {"command": [sys.executable, "-c", "import json; print(len(json.load(open(0))['big']))"]},
        inputs=inputs,
    )
    assert asyncio.run(perform(executor, run)) == Succeeded({"exit_code": 0})
    assert run.output.text() == "200\n"
    run = make_run(executor, {"command": ["cat"]}, inputs={"region": "eu"})
    asyncio.run(perform(executor, run))
    assert json.loads(run.output.text()) == {"region": "eu"}


def test_stdin_none_is_empty() -> None:
    assert ran("cat; echo end", stdin="none")[1] == "end\n"


def test_a_command_that_does_not_read_its_input_is_within_its_rights() -> None:
    executor = ShellExecutor()
    run = make_run(executor, {"command": ["true"]}, inputs={"big": "x" * 2_000_000})
    assert asyncio.run(perform(executor, run)) == Succeeded({"exit_code": 0})


def test_the_run_is_told_in_the_environment() -> None:
    executor = ShellExecutor()
    run = make_run(
        executor,
        {
            "command": [
                "sh",
                "-c",
                'echo "$SCHEDULER_RUN_NAME $SCHEDULER_KEY $SCHEDULER_SCHEDULED_AT $SCHEDULER_ATTEMPT $MORE"',
            ],
            "env": {"MORE": "more"},
        },
        key="nightly-1-2",
        attempt=3,
        scheduled_at=datetime(2026, 11, 21, 2, tzinfo=UTC),
    )
    asyncio.run(perform(executor, run))
    assert run.output.text() == "nightly-1 nightly-1-2 2026-11-21T02:00:00Z 3 more\n"


def test_a_gap_run_is_told_the_interval_it_covers() -> None:
    executor = ShellExecutor()
    script = 'echo "${SCHEDULER_COVERS_FROM-none} ${SCHEDULER_COVERS_TO-none}"'
    covers = (datetime(2026, 11, 21, 2, tzinfo=UTC), datetime(2026, 11, 21, 5, tzinfo=UTC))
    gap = make_run(executor, {"command": ["sh", "-c", script]}, covers=covers)
    plain = make_run(executor, {"command": ["sh", "-c", script]})
    asyncio.run(perform(executor, gap))
    asyncio.run(perform(executor, plain))
    assert gap.output.text() == "2026-11-21T02:00:00Z 2026-11-21T05:00:00Z\n"
    assert plain.output.text() == "none none\n"


def test_a_command_inherits_the_environment_less_secrets_and_the_schedulers_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SCHEDULER_DATABASE__URL", "API_KEY", "OTHER", "PLAIN"):
        monkeypatch.setenv(name, "x")

    def seen(options: dict[str, Any]) -> set[str]:
        executor = ShellExecutor(options)
        run = make_run(
            executor,
            {"command": [sys.executable, "-c", "import os; print(*os.environ)"]},
            hidden_env=frozenset({"API_KEY"}),
        )
        asyncio.run(perform(executor, run))
        return {
            name
            for name in run.output.text().split()
            if name in {"SCHEDULER_DATABASE__URL", "API_KEY", "OTHER", "PLAIN", "PATH"}
        }

    assert seen({}) == {"OTHER", "PLAIN", "PATH"}
    assert seen({"hide_env": ["OTHER"]}) == {"PLAIN", "PATH"}
    assert seen({"pass_env": ["PATH", "PLAIN", "API_KEY"]}) == {"PLAIN", "PATH"}


def test_it_runs_where_the_config_says(tmp_path: Path) -> None:
    assert ran("pwd", cwd=str(tmp_path))[1].strip() == str(tmp_path.resolve())


def test_output_is_there_while_the_command_runs() -> None:
    async def scene() -> None:
        executor, run = sh("echo first; read line < /dev/stdin; sleep 1000")
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "first")
        assert not task.done()
        assert await cancel(task)
        await executor.close()

    asyncio.run(scene())


def test_output_that_is_no_text_is_marked() -> None:
    assert ran(r"printf 'a\377\376b'")[1] == "a\ufffd\ufffdb"


def test_gigabytes_of_output_neither_block_the_command_nor_fill_the_memory() -> None:
    executor, run = sh("echo start; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert asyncio.run(perform(executor, run)) == Succeeded({"exit_code": 0})
    assert run.output.bytes_seen > 300_000_000
    text = run.output.text()
    assert len(text.encode()) <= 64 * 1024
    assert text.startswith("start\nxxx")
    assert text.endswith("xxx\nend\n")


def test_a_command_that_closes_its_output_early_is_still_awaited(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")

    async def scene() -> None:
        executor, run = sh(f"echo before; exec >&- 2>&-; cat {tmp_path}/gate > {tmp_path}/done; exit 4")
        task = asyncio.ensure_future(perform(executor, run))
        await printed(run, "before")
        # Opening blocks until the command reads, which it does after it closed its output.
        with await asyncio.to_thread(open, tmp_path / "gate", "w") as gate:
            assert not task.done()
            gate.write("x")
        assert await task == Failed("exit code 4")

    asyncio.run(scene())


def test_what_a_command_leaves_in_its_group_is_killed_when_it_ends() -> None:
    async def scene() -> None:
        executor, run = sh("sleep 1000 & echo $! $$")
        assert await executor.execute(run) == Succeeded({"exit_code": 0})
        sleeper, group = map(int, run.output.text().split())
        # Not eventually: the end is reported when the whole group is gone.
        assert not alive(sleeper)
        assert members_of_group(group) == []
        await executor.close()

    asyncio.run(scene())


def test_a_daemon_that_holds_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    async def scene() -> None:
        os.mkfifo(tmp_path / "ready")
        daemon = "setsid sh -c 'echo $$; echo > ready; exec sleep 1000' &"
        executor, run = sh(f"{daemon} read line < ready; echo over", cwd=str(tmp_path))
        assert await executor.execute(run) == Succeeded({"exit_code": 0})
        pid, over = run.output.text().split()
        assert over == "over"
        assert alive(int(pid))
        os.kill(int(pid), signal.SIGKILL)
        await executor.close()

    asyncio.run(scene())


def test_cancelling_ends_the_whole_group_with_sigterm(tmp_path: Path) -> None:
    async def scene() -> None:
        script = f"trap 'echo bye; echo x > {tmp_path}/told; exit 0' TERM; echo $$; sleep 1000 & wait"
        executor, run = sh(script)
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "\n")
        group = int(run.output.text())
        assert len(await eventually(lambda: len(members_of_group(group)) == 2 and members_of_group(group))) == 2
        assert await cancel(task)
        assert members_of_group(group) == []
        assert (tmp_path / "told").exists()
        assert "bye" in run.output.text()
        await executor.close()

    asyncio.run(scene())


def test_who_ignores_sigterm_is_killed_after_kill_after() -> None:
    async def scene() -> None:
        executor, run = sh("trap '' TERM; echo $$; while :; do sleep 1000; done", kill_after="300ms")
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "\n")
        before = time.monotonic()
        assert await cancel(task)
        assert 0.25 < time.monotonic() - before < 5
        assert members_of_group(int(run.output.text())) == []
        await executor.close()

    asyncio.run(scene())


def test_a_second_cancellation_kills_at_once_and_still_waits_for_the_end() -> None:
    async def scene() -> None:
        executor, run = sh("trap 'echo told' TERM; echo $$; while :; do sleep 1000 & wait; done", kill_after="1h")
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "\n")
        task.cancel()
        await printed(run, "told")
        assert await cancel(task)
        assert members_of_group(int(run.output.text().split()[0])) == []
        await executor.close()

    asyncio.run(scene())


def test_a_stopped_command_is_woken_to_be_ended() -> None:
    async def scene() -> None:
        executor, run = sh("echo $$; kill -STOP $$", kill_after="1h")
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "\n")
        pid = int(run.output.text())
        await eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        assert await cancel(task)
        assert not alive(pid)
        await executor.close()

    asyncio.run(scene())


def test_a_timeout_of_asyncio_is_a_timeout() -> None:
    async def scene() -> None:
        executor, run = sh("sleep 1000")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await executor.execute(run)
        await executor.close()

    asyncio.run(scene())


def test_cancelled_before_it_has_started_it_never_goes_on() -> None:
    async def scene() -> None:
        executor, run = sh("echo $$; sleep 1000")
        task = asyncio.ensure_future(executor.execute(run))
        await asyncio.sleep(0)
        assert await cancel(task)
        if text := run.output.text():
            assert members_of_group(int(text)) == []
        await executor.close()

    asyncio.run(scene())


def test_hundreds_of_commands_at_once_each_get_their_own_end_and_output() -> None:
    async def scene() -> None:
        executor = ShellExecutor()
        await executor.start()
        runs = [
            make_run(executor, {"command": ["sh", "-c", f"cat; exit {n % 7}"]}, inputs={"n": n}) for n in range(300)
        ]
        before = open_descriptors()
        outcomes = await asyncio.gather(*(executor.execute(run) for run in runs))
        for n, (run, outcome) in enumerate(zip(runs, outcomes, strict=True)):
            assert outcome == (Succeeded({"exit_code": 0}) if n % 7 == 0 else Failed(f"exit code {n % 7}"))
            assert json.loads(run.output.text()) == {"n": n}
        # The keeper's socket came with the first of them; no pipe stays open.
        assert len(open_descriptors() - before) <= 2
        await executor.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("config", "path", "reason"),
    [
        ({"command": "ls -l"}, "command", "must be a list, not a text: write it as a list, [word, word]"),
        ({"command": []}, "command", "is empty: name a program"),
        ({"command": ["ls", 5]}, "command[1]", "must be a text, not a number: quote it"),
        ({"command": ["ls", "a\0b"]}, "command[1]", "holds a NUL character, which no command line can"),
        (
            {"command": ["ls"], "env": {"A=B": "c"}},
            "env.A=B",
            "is no environment variable: the name holds no =, neither holds NUL",
        ),
        (
            {"command": ["ls"], "kill_after": "soon"},
            "kill_after",
            "must be a duration like 500ms, 30s, 10m or 1h30m, not 'soon'",
        ),
        ({"command": ["ls"], "comand": []}, "comand", "unknown key (did you mean command?)"),
    ],
)
def test_a_wrong_config_is_refused_with_advice(config: dict[str, Any], path: str, reason: str) -> None:
    assert check_config(ShellExecutor, config) == [(path, reason)]


def test_the_default_patience_is_ten_seconds() -> None:
    assert make_run(ShellExecutor(), {"command": ["ls"]}).config.kill_after == timedelta(seconds=10)
