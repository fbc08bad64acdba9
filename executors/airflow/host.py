"""The worker's side of one Airflow child: started when it is needed, started again when it dies, told what to host.

All the triggers and operators of one executor share one child. It is a command of the worker's keeper, so it ends with
the worker, by kill -9 too; when it dies by itself, every trigger it hosted is hosted again from what is stored of it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from executors.airflow.options import AirflowOptions
from executors.channel import Channel
from executors.commands import describe_exit
from executors.errors import ExecutorError, PermanentError, RetryableError
from executors.external_job import pause_after_error
from executors.hiding import Hidden
from executors.output import Output
from executors.pipes import Capture
from executors.processes import Process, dismiss, hire
from executors.protocol import RunContext

log = logging.getLogger("executors.airflow")

_PROGRAM: Final = Path(__file__).with_name("child") / "main.py"
_LEAVES_WITHIN: Final = timedelta(seconds=8)
# A child that lived for so long did not die of what it was told first.
_STEADY_SECONDS: Final = 60.0
_RESTART_PAUSES: Final = timedelta(seconds=15)
_SWEEP_SECONDS: Final = 30.0
_FORGOTTEN_SECONDS: Final = 120.0
_TAIL: Final = 1_000


@dataclass
class Hosted:
    """One trigger in the child, for one wait; `ended` is the frame that told of its end."""

    key: str
    stored: Mapping[str, Any]
    turn: int
    asked: float
    interval: float
    ended: dict[str, Any] | None = None
    stopped: bool = False
    output: Output = field(default_factory=Output)


class _Child:
    """One process and what belongs to it."""

    def __init__(self, process: Process, channel: Channel, capture: Capture, said: Output, began: float) -> None:
        self.process = process
        self.channel = channel
        self.capture = capture
        self.said = said
        self.began = began
        self.ready = False


class Host:
    """The child of one executor. `look_soon` is told the name of a run whose trigger has ended."""

    def __init__(self, title: str, options: AirflowOptions, look_soon: Callable[[str], None]) -> None:
        self._title = title
        self._options = options
        self._look_soon = look_soon
        self._hosted: dict[str, Hosted] = {}
        self._asks: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._printing: dict[str, Output] = {}
        self._numbers = itertools.count(1)
        self._child: _Child | None = None
        self._watching: set[asyncio.Task[None]] = set()
        self._deaths = 0
        self._down_until = 0.0
        self._down_for: ExecutorError | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._home: str | None = None
        self._run: RunContext | None = None
        self._closed = False
        self.hidden = Hidden()

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return None if self._child is None else self._child.process.pid

    # --- triggers ----------------------------------------------------------------------------------------------------

    def hosted(self, run: RunContext, key: str, stored: Mapping[str, Any], interval: timedelta) -> Hosted:
        """The trigger of the run's wait, hosted if it was not yet.

        Raises while there is no child, or none can be started.
        """
        now = asyncio.get_running_loop().time()
        found = self._hosted.get(run.run_name)
        if found is None or found.key != key:
            if found is not None:
                self.forget(run.run_name)
            found = Hosted(key, stored, next(self._numbers), now, interval.total_seconds())
            self._hosted[run.run_name] = found
            self._run = run
            if self._child is not None:
                self._send_trigger(run.run_name, found)
            self._sweep = self._sweep or asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._drop_forgotten)
        found.asked = now
        if found.ended is None and self._child is None:
            if now < self._down_until:
                if self._restart is None:
                    self._restart = asyncio.get_running_loop().call_later(self._down_until - now, self._start_again)
                assert self._down_for is not None
                raise RetryableError(str(self._down_for), self._down_until - now)
            self._start(run)
        return found

    async def drop(self, run: RunContext, key: str, stored: Mapping[str, Any]) -> None:
        """Stop the trigger because somebody wants its run to end, and wait for its clean-up."""
        found = self._hosted.get(run.run_name)
        if found is not None and found.key == key and found.ended is not None:
            return
        await self.ask(run, {"drop": run.run_name, "trigger": stored, "kill": True})
        now = asyncio.get_running_loop().time()
        self._hosted[run.run_name] = Hosted(key, stored, 0, now, 0.0, ended={}, stopped=True)

    def forget(self, run_name: str, *, kill: bool = False) -> None:
        """Nobody here looks at the run's wait any more; `kill`: its end was wanted."""
        found = self._hosted.pop(run_name, None)
        if found is None or found.ended is not None or self._child is None:
            return
        frame = {"ask": 0, "drop": run_name, "trigger": found.stored, "kill": kill}
        self._child.channel.send(frame)

    def of(self, key: str) -> Hosted | None:
        """The trigger hosted under this key, if it is still known here."""
        return next((hosted for hosted in self._hosted.values() if hosted.key == key), None)

    def _send_trigger(self, name: str, hosted: Hosted) -> None:
        if self._child is not None and hosted.ended is None:
            hosted.turn = next(self._numbers)
            self._child.channel.send({"host": name, "turn": hosted.turn, "trigger": dict(hosted.stored)})

    def _drop_forgotten(self) -> None:
        """Triggers that nobody has asked about for long: their waits are somebody else's by now."""
        self._sweep = None
        loop = asyncio.get_running_loop()
        for name, hosted in list(self._hosted.items()):
            if loop.time() - hosted.asked > 4 * hosted.interval + _FORGOTTEN_SECONDS:
                self.forget(name)
        if self._hosted and not self._closed:
            self._sweep = loop.call_later(_SWEEP_SECONDS, self._drop_forgotten)

    # --- questions ---------------------------------------------------------------------------------------------------

    async def ask(self, run: RunContext, question: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer.

        Raises `RetryableError` if none can be started, or if it died meanwhile: what became of the question is then
        not known.
        """
        _, answer = self._begin(question, await self._up(run))
        # Whoever asked may be cancelled; the answer comes all the same.
        return await asyncio.shield(answer)

    def _begin(self, question: Mapping[str, Any], child: _Child) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """Sends a question; its number, and the future that its answer settles."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asks[number] = answer
        child.channel.send({"ask": number, **question})
        return number, answer

    async def operate(self, run: RunContext, question: Mapping[str, Any]) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """Begin a call of an operator, whose prints go to the run's output until its future is done."""
        child = await self._up(run)
        name = run.run_name
        self._printing[name] = run.output
        number, answer = self._begin({"operate": {"name": name, **question}}, child)
        answer.add_done_callback(lambda _: self._printing.pop(name, None))
        return number, answer

    def interrupt(self, number: int) -> None:
        """Tell the operator of a call that is under way that its run is to end."""
        if self._child is not None and number in self._asks:
            self._child.channel.send({"interrupt": number})

    async def _up(self, run: RunContext) -> _Child:
        loop = asyncio.get_running_loop()
        self._run = run
        while self._child is None:
            pause = self._down_until - loop.time()
            if pause <= 0:
                self._start(run)
            else:
                await asyncio.sleep(pause)
        return self._child

    # --- the process -------------------------------------------------------------------------------------------------

    def _start(self, run: RunContext) -> None:
        if self._closed:
            raise RetryableError("the worker is leaving")
        if self._home is None:
            self._home = tempfile.mkdtemp(prefix="trigger-scheduler-airflow-")
        env, self.hidden = self._options.environment(run, self._home)
        said = Output()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise RetryableError(f"the worker cannot make a socket: {error.strerror}") from error
        capture = Capture(said)
        try:
            argv = [self._options.interpreter(), str(_PROGRAM)]
            process = hire(self).spawn(argv, env=env, stdin=theirs.detach(), output=capture.writer.give())
        except BaseException:
            ours.close()
            capture.finish()
            raise
        loop = asyncio.get_running_loop()
        # Its end is the end of its process, which the keeper tells.
        channel = Channel(ours, self._heard, lambda: None)
        self._child = child = _Child(process, channel, capture, said, loop.time())
        channel.send({"path": [str(Path(folder).absolute()) for folder in self._options.path]})
        watching = asyncio.create_task(self._watch(child), name=f"{self._title}: child")
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        for name, hosted in self._hosted.items():
            self._send_trigger(name, hosted)

    async def _watch(self, child: _Child) -> None:
        error: ExecutorError
        try:
            code = await child.process.ended()
        except PermanentError as failure:
            # Environments are made anew now and then: it may be there in a minute.
            error = RetryableError(
                f"{failure}: name the interpreter that has Airflow in the executor's option `python`"
            )
        except ExecutorError as failure:
            error = failure
        else:
            child.capture.finish()
            said = self.hidden.hide(child.said.text()).strip()[-_TAIL:]
            told = f"the Airflow process of {self._options.interpreter()} ended: {describe_exit(code)}"
            # One that has not even begun has done nothing of what it was asked.
            error = RetryableError(f"{told}: {said}" if said else told, outcome_known=not child.ready)
        child.capture.finish()
        child.channel.close()
        self._died(child, error)

    def _died(self, child: _Child, error: ExecutorError) -> None:
        if self._child is not child:
            return
        loop = asyncio.get_running_loop()
        self._child = None
        self._deaths = 1 if loop.time() - child.began > _STEADY_SECONDS else self._deaths + 1
        pause = pause_after_error(_RESTART_PAUSES, self._deaths - 1) if not self._closed else 0.0
        self._down_until, self._down_for = loop.time() + pause, error
        asks, self._asks = self._asks, {}
        for answer in asks.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # Whoever asked may have gone.
        if self._closed:
            return
        log.warning("%s: %s; started again in %.1f s", self._title, error, pause)
        if any(hosted.ended is None for hosted in self._hosted.values()):
            self._restart = loop.call_later(pause, self._start_again)

    def _start_again(self) -> None:
        self._restart = None
        if self._child is not None or self._run is None or self._closed:
            return
        try:
            self._start(self._run)
        except ExecutorError as error:
            loop = asyncio.get_running_loop()
            self._deaths += 1
            pause = pause_after_error(_RESTART_PAUSES, self._deaths - 1)
            self._down_until, self._down_for = loop.time() + pause, error
            self._restart = loop.call_later(pause, self._start_again)

    def _heard(self, frame: dict[str, Any]) -> None:
        if "printed" in frame:
            text = self.hidden.hide(frame["text"])
            name = frame["printed"]
            output = self._printing.get(name)
            if output is None and name in self._hosted:
                output = self._hosted[name].output
            if output is not None:
                output.write(text)
        elif "answer" in frame:
            answer = self._asks.pop(frame["answer"], None)
            if answer is not None and not answer.done():
                answer.set_result(frame)
        elif "ended" in frame:
            hosted = self._hosted.get(frame["ended"])
            # A trigger that was hosted again has another number: what the earlier one said is late.
            if hosted is not None and hosted.turn == frame["turn"] and hosted.ended is None:
                hosted.ended = frame
                self._look_soon(frame["ended"])
        elif "ready" in frame and self._child is not None:
            self._child.ready = True

    def open(self) -> None:
        """A worker begins, perhaps another one than before."""
        self._closed = False
        self._hosted.clear()
        self._down_until, self._deaths = 0.0, 0

    async def close(self) -> None:
        """End the child; its triggers clean up, for a few seconds at most."""
        self._closed = True
        for timer in (self._restart, self._sweep):
            if timer is not None:
                timer.cancel()
        self._restart = self._sweep = None
        child = self._child
        if child is not None:
            child.channel.finish()
            try:
                async with asyncio.timeout(_LEAVES_WITHIN.total_seconds()):
                    await child.process.ended()
            except (TimeoutError, ExecutorError):
                await child.process.stop(timedelta(0))
        for watching in list(self._watching):
            await watching
        await dismiss(self)
        if self._home is not None:
            await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
            self._home = None


def fault_error(hidden: Hidden, fault: Mapping[str, Any]) -> ExecutorError:
    """What the child could not do: final where the class or its arguments are wrong, else to be tried again."""
    if fault["kind"] == "wrong":
        return PermanentError(hidden.hide(fault["message"]))
    return RetryableError(hidden.hide(fault.get("trace") or fault["message"]))
