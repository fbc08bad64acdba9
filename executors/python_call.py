"""The executor that calls a Python function.

    config: {callable: "reports.nightly:build"}                sync: a fresh process; async: the worker's event loop
    config: {callable: "reports.nightly:build", in: thread}    sync: a thread of the worker

A fresh process a call: nothing leaks from one run into the next, the newest code on disk is used, and a timeout ends it
for certain. It costs the start of an interpreter. Async functions and threads use the code that the worker imported
first; restart it after a change.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from executors import calls
from executors.commands import describe_exit, run_command
from executors.environment import child_environment
from executors.errors import ExecutorError, PermanentError, Problem, WorkerExhausted
from executors.pipes import Dialogue
from executors.printing import printing_to
from executors.processes import dismiss, hire
from executors.protocol import Executor, Failed, Outcome, RunContext, Succeeded

# For what an answer has besides the result: an error with its traceback, above all.
_ANSWER_ROOM: Final = 1024 * 1024
_CHILD: Final = Path(__file__).with_name("python_child.py")
_PATH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class PythonExecutor(Executor):
    """Calls a function with the inputs as keyword arguments; its result becomes the outputs.

    A parameter named `run` gets a `CallContext`. A mapping is the outputs, None is none, anything else that JSON can
    carry becomes `{"result": …}`. `RetryableError` and `PermanentError` mean what they say, any other exception is
    retryable and leaves its traceback. What is printed is kept with the attempt.

    A function that returns `Deferred(Until(…), state)` is called again at that instant, one that returns
    `Deferred(Poll(…), state)` again and again until it returns something else; `run.resumed.state` is the state it left.
    Nothing of it runs in between.

    Cancelled, a process gets SIGTERM (raised in it as SystemExit), after `kill_after` SIGKILL; an async function gets
    `CancelledError`; a thread cannot be stopped, only abandoned: `run.still_running` is then set to a future that is
    done when the function has returned, and `abandoned` counts such threads.
    """

    concurrency = 8
    """How many deferred functions a worker calls again at a time: each may take a process."""

    @dataclass(frozen=True)
    class Options:
        """`path`: folders to search for modules before the worker's own. `pass_env`, `hide_env`: as for `shell`."""

        path: list[str] = field(default_factory=list)
        pass_env: list[str] | None = None
        hide_env: list[str] = field(default_factory=list)

    @dataclass(frozen=True)
    class Config:
        """`callable`: `pkg.mod:function`. `in`: `process` or `thread`; default: process if sync, the event loop if async.

        `args`: arguments of the task's own, put over the inputs.
        """

        callable: str
        place: Literal["process", "thread"] | None = field(default=None, metadata={"key": "in"})
        args: dict[str, Any] = field(default_factory=dict)
        kill_after: timedelta = timedelta(seconds=10)

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            if not _PATH.fullmatch(self.callable):
                yield "callable", f"{self.callable!r} is no path to a function: write pkg.mod:function"
            if self.kill_after < timedelta(0):
                yield "kill_after", "is negative"

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        self._known_async: set[str] = set()
        self._abandoned: set[threading.Thread] = set()

    @property
    def abandoned(self) -> int:
        """How many threads still run though their attempts were given up."""
        return len(self._abandoned)

    async def start(self) -> None:
        """Hold the worker's keeper and make the folders of `path` importable."""
        hire(self)
        sys.path[:0] = [folder for folder in self._folders() if folder not in sys.path]

    async def close(self) -> None:
        """Let go of the worker's keeper."""
        await dismiss(self)

    async def execute(self, run: RunContext) -> Outcome:
        """Call the function where the config says, or where its kind belongs."""
        config: PythonExecutor.Config = run.config
        if config.place == "thread":
            return await self._in_thread(run)
        # Whether it is async only its module can say, and importing that is no business of the worker's process
        # unless it is: the child says so, once.
        if config.place is None and config.callable in self._known_async:
            return await self._on_loop(run)
        outcome = await self._in_process(run, run_async=config.place == "process")
        if outcome is None:
            self._known_async.add(config.callable)
            return await self._on_loop(run)
        return outcome

    async def poll(self, run: RunContext) -> Outcome:
        """Call the function again: it says whether it waits on."""
        return await self.execute(run)

    async def _in_process(self, run: RunContext, *, run_async: bool) -> Outcome | None:
        """The outcome of a call in a fresh process; None if the function is async and belongs on the loop."""
        config: PythonExecutor.Config = run.config
        request = {
            "path": [*self._folders(), *(folder or os.getcwd() for folder in sys.path)],
            "callable": config.callable,
            "run_async": run_async,
            "inputs": {**run.inputs, **config.args},
            "run": calls.CallContext.of(run).to_document(),
            "max_output_bytes": run.max_output_bytes,
        }
        # The child measures what it sends; a letter may take six times as many bytes on the way.
        most = None if run.max_output_bytes is None else 6 * run.max_output_bytes + _ANSWER_ROOM
        dialogue = Dialogue(json.dumps(request).encode(), most=most)
        try:
            code = await run_command(
                self,
                run.output,
                [sys.executable, "-P", str(_CHILD)],
                dialogue.peer,
                env=child_environment(run, {}, passed=self.options.pass_env, hidden=self.options.hide_env),
                cwd=None,
                kill_after=config.kill_after,
            )
        finally:
            dialogue.finish()
        try:
            reply = _reply(dialogue.received)
        except (ValueError, RecursionError) as broken:
            return Failed(f"what {config.callable} returned did not come through: {broken}")
        if reply is None:
            return Failed(f"{describe_exit(code)} before {config.callable} returned")
        if "async" in reply:
            return None
        if "error" not in reply:
            return calls.from_reply(reply)
        error = calls.restored(reply["error"])
        if isinstance(error, ExecutorError):
            raise error
        return Failed(error)

    async def _on_loop(self, run: RunContext) -> Outcome:
        config: PythonExecutor.Config = run.config
        with printing_to(run.output):
            function = await asyncio.to_thread(calls.load, config.callable)
            if not calls.is_async(function):
                # The file has changed since the worker imported it, and was sync then: the newest code is meant.
                return await self._in_process(run, run_async=True) or Failed(f"{config.callable} did not answer")
            keywords = self._keywords(run, function)
            try:
                return calls.from_reply(
                    calls.to_reply(config.callable, await function(**keywords), run.max_output_bytes)
                )
            except SystemExit as error:
                # Left alone it would end the worker's event loop.
                calls.after_exit(error)
                return Succeeded()

    async def _in_thread(self, run: RunContext) -> Outcome:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        results: list[dict[str, Any]] = []
        errors: list[BaseException] = []

        def body() -> None:
            try:
                results.append(self._call_here(run))
            except BaseException as error:  # Nothing may leave a thread: whoever waits is told.
                errors.append(error)
            with suppress(RuntimeError):  # The loop has been closed since: nobody waits any more.
                loop.call_soon_threadsafe(_settle, ended)

        # A thread of its own, and a daemon: a pool would wait at exit for what was abandoned, and run out of places.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(body,), name=run.run_name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise WorkerExhausted(f"no thread can be started: {error}") from error
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not ended.done():
                self._abandoned.add(thread)
                ended.add_done_callback(lambda _: self._abandoned.discard(thread))
                run.still_running = ended
            raise
        for failure in errors:
            if isinstance(failure, ExecutorError):
                raise failure
            return Failed(str(calls.describe(failure)["message"]))
        return calls.from_reply(results[0])

    def _call_here(self, run: RunContext) -> dict[str, Any]:
        path = run.config.callable
        with printing_to(run.output):
            function = calls.load(path)
            if calls.is_async(function):
                raise PermanentError(f"{path} is async and runs on the worker's event loop: leave out `in: thread`")
            try:
                return calls.to_reply(path, function(**self._keywords(run, function)), run.max_output_bytes)
            except SystemExit as error:
                calls.after_exit(error)
                return {"outputs": {}}

    def _keywords(self, run: RunContext, function: Callable[..., Any]) -> dict[str, Any]:
        inputs = {**run.inputs, **run.config.args}
        return calls.arguments(run.config.callable, function, inputs, calls.CallContext.of(run))

    def _folders(self) -> list[str]:
        return [os.path.abspath(folder) for folder in self.options.path]


def _reply(received: bytearray) -> dict[str, Any] | None:
    """What the child wrote, if it came to the end of it."""
    if len(received) < 8 or len(received) < 8 + int.from_bytes(received[:8]):
        return None
    return json.loads(received[8:])  # type: ignore[no-any-return]  # our own child's


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
