"""The executor that runs a command: an argv list, no shell in between unless the command names one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from executors.commands import describe_exit, run_command
from executors.environment import child_environment
from executors.errors import Problem
from executors.pipes import Feed
from executors.processes import dismiss, hire
from executors.protocol import Executor, Failed, Outcome, RunContext, Succeeded


class ShellExecutor(Executor):
    """Runs a command under the worker's keeper, in a session and process group of its own.

    Exit code 0 succeeds with `{"exit_code": 0}`, any other fails and may be retried; a command that cannot be found or
    started fails for good. When the command ends, what it left running in its group is killed, and so is everything
    when the worker dies. Cancelled, the group gets SIGTERM, after `kill_after` SIGKILL.
    """

    @dataclass(frozen=True)
    class Options:
        """`pass_env`: the only variables of the worker that commands inherit; null: all but `hide_env`, those that hold
        secrets and those beginning with SCHEDULER_."""

        pass_env: list[str] | None = None
        hide_env: list[str] = field(default_factory=list)

    @dataclass(frozen=True)
    class Config:
        """`command`: the argv list. `env`: variables to add. `cwd`: where it runs, default where the worker does.

        `stdin`: `json` gives it the inputs as one JSON object, `none` an empty input.
        """

        command: list[str]
        env: dict[str, str] = field(default_factory=dict)
        cwd: str | None = None
        kill_after: timedelta = timedelta(seconds=10)
        stdin: Literal["json", "none"] = "json"

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            if not self.command or not self.command[0]:
                yield "command", "is empty: name a program"
            for index, word in enumerate(self.command):
                if "\0" in word:
                    yield f"command[{index}]", "holds a NUL character, which no command line can"
            for name, value in self.env.items():
                if not name or "=" in name or "\0" in name + value:
                    yield f"env.{name}", "is no environment variable: the name holds no =, neither holds NUL"
            if self.kill_after < timedelta(0):
                yield "kill_after", "is negative"

    async def start(self) -> None:
        """Hold the worker's keeper."""
        hire(self)

    async def close(self) -> None:
        """Let go of the worker's keeper."""
        await dismiss(self)

    async def execute(self, run: RunContext) -> Outcome:
        """Run the command to its end; its stdout and stderr go to `run.output` as they come."""
        config: ShellExecutor.Config = run.config
        env = child_environment(run, config.env, passed=self.options.pass_env, hidden=self.options.hide_env)
        content = json.dumps(dict(run.inputs), ensure_ascii=False).encode() if config.stdin == "json" else b""
        feed = Feed(content)
        try:
            code = await run_command(
                self, run.output, config.command, feed.reader, env=env, cwd=config.cwd, kill_after=config.kill_after
            )
        finally:
            feed.finish()
        if code == 0:
            return Succeeded({"exit_code": 0})
        return Failed(describe_exit(code))
