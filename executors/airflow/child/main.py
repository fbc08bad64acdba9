"""The child process of the Airflow executors: hosts triggers on one event loop, and operators in threads.

Run as `PYTHON main.py` by any interpreter from 3.9 that has what the classes import; stdlib only, and nothing of this
package. Its standard input is one end of a Unix stream socket to the worker; at its end the triggers are cancelled and
the process leaves. What the hosted code prints goes to the worker run by run, all else to stderr.

The frames are told in talking.py; how values travel, classes.py says.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib.util
import inspect
import os
import queue
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable  # noqa: UP035  # of 3.9

KILL_WITHIN = 30.0
LEAVES_WITHIN = 3.0


def _sibling(name: str) -> Any:
    """A file from beside this one, under a name that no module of the hosted code has."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    spec = importlib.util.spec_from_file_location("_scheduler_child_" + name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from executors.airflow.child import classes, talking
else:
    classes, talking = _sibling("classes"), _sibling("talking")


# --- triggers --------------------------------------------------------------------------------------------------------


class Triggers:
    """The triggers hosted here, all on one event loop."""

    def __init__(self, talk: talking.Talk, loop: asyncio.AbstractEventLoop) -> None:
        self._talk = talk
        self._loop = loop
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._killed: set[str] = set()
        # Imports take seconds: done one after the other, in a thread that holds nobody up.
        self._imports: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        threading.Thread(target=self._import, name="imports", daemon=True).start()

    def make(self, number: int, wanted: dict[str, Any]) -> None:
        """Answer with the trigger as it is to be stored."""

        def body() -> None:
            created = None
            try:
                found = classes.trigger_class(wanted["classpath"])
                kwargs = classes.fit(found, wanted["kwargs"], wanted["at"])
                if wanted["create"] is not None:
                    call = classes.function_of(wanted["create"])
                    created = classes.created(call, wanted)
                    kwargs.update(classes.fit(found, created, {}))
                made = classes.serialized(classes.build(found, wanted["classpath"], kwargs))
                self._talk.send({"answer": number, "made": made})
            except BaseException as error:
                fault = classes.fault_of(error)
                self._talk.send({"answer": number, "fault": fault, "created": classes.plain(created)})

        if wanted["create"] is None:
            self._imports.put(body)
        else:
            # Somebody's code, which may ask a service for long.
            context = contextvars.copy_context()
            context.run(talking.owner.set, wanted["name"])
            threading.Thread(target=context.run, args=(body,), name=wanted["name"], daemon=True).start()

    def host(self, name: str, turn: int, stored: dict[str, Any]) -> None:
        """Run a trigger until its first event."""

        def body() -> None:
            failure: BaseException | None = None
            try:
                classes.trigger_class(stored["classpath"])
            except BaseException as error:
                failure = error
            self._loop.call_soon_threadsafe(self._begin, name, turn, stored, failure)

        self._imports.put(body)

    def drop(self, number: int, name: str, stored: dict[str, Any], kill: bool) -> None:
        """Stop a trigger, and answer when its clean-up is over; `kill`: somebody wants its job to end."""

        def begin() -> None:
            task = self._loop.create_task(self._drop(number, name, stored, kill))
            self._keep(f" {number}", task)

        # Behind the imports: a trigger that is asked for before is hosted before.
        self._imports.put(lambda: self._loop.call_soon_threadsafe(begin))

    async def cancel_all(self) -> None:
        """Cancel all, let them clean up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LEAVES_WITHIN)

    def _import(self) -> None:
        while True:
            self._imports.get()()

    def _begin(self, name: str, turn: int, stored: dict[str, Any], failure: BaseException | None) -> None:
        before = self._tasks.get(name)
        if before is not None:
            before.cancel()
        context = contextvars.copy_context()
        context.run(talking.owner.set, name)
        self._keep(name, context.run(self._loop.create_task, self._run(name, turn, stored, failure)))

    def _keep(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._tasks.get(name) is done and self._tasks.pop(name))

    async def _run(self, name: str, turn: int, stored: dict[str, Any], failure: BaseException | None) -> None:
        end: dict[str, Any] = {"ended": name, "turn": turn}
        trigger = None
        try:
            if failure is not None:
                raise failure
            trigger = self._made(stored)
            self._talk.send({**end, "event": await self._first_event(trigger, stored["classpath"])})
        except asyncio.CancelledError as error:
            if name in self._killed and trigger is not None:
                await self._on_kill(trigger)
            elif not self._was_cancelled(name):
                self._talk.send({**end, "fault": classes.fault_of(error)})
        except BaseException as error:  # SystemExit, too, would end the loop for all the others.
            self._talk.send({**end, "fault": classes.fault_of(error)})
        finally:
            self._killed.discard(name)
            await self._clean_up(trigger)

    def _made(self, stored: dict[str, Any]) -> Any:
        classpath = stored["classpath"]
        return classes.build(classes.trigger_class(classpath), classpath, classes.decode(stored["kwargs"]))

    def _was_cancelled(self, name: str) -> bool:
        # By us, and not by an error of the trigger's own of that kind.
        task = asyncio.current_task()
        asked = getattr(task, "cancelling", None)
        return asked is None or asked() > 0

    async def _first_event(self, trigger: Any, classpath: str) -> dict[str, Any]:
        events = trigger.run()
        try:
            async for event in events:
                payload = getattr(event, "payload", event)
                kind = type(event).__name__
                told = {"kind": kind, "plain": classes.plain(payload)}
                return {**told, "payload": classes.encode(payload, f"the event of {classpath}")}
        finally:
            closing = getattr(events, "aclose", None)
            if closing is not None:
                with contextlib.suppress(Exception):
                    await closing()
        raise classes.Fault(f"run() of {classpath} ended without an event")

    async def _drop(self, number: int, name: str, stored: dict[str, Any], kill: bool) -> None:
        task = self._tasks.get(name)
        if task is not None:
            if kill:
                self._killed.add(name)
            task.cancel()
            await asyncio.wait([task], timeout=KILL_WITHIN + LEAVES_WITHIN)
        elif kill:
            # Its worker has gone before it could be asked to end: only that is left to be done.
            context = contextvars.copy_context()
            context.run(talking.owner.set, name)
            killing = context.run(self._loop.create_task, self._kill_anew(stored))
            await asyncio.wait([killing])
        self._talk.send({"answer": number})

    async def _kill_anew(self, stored: dict[str, Any]) -> None:
        trigger = None
        with contextlib.suppress(Exception):
            trigger = self._made(stored)
            await self._on_kill(trigger)
        await self._clean_up(trigger)

    async def _on_kill(self, trigger: Any) -> None:
        killing = getattr(trigger, "on_kill", None)
        if killing is None:
            return
        try:
            await asyncio.wait_for(_awaited(killing()), KILL_WITHIN)
        except BaseException as error:
            print(f"on_kill(): {classes.trace(error)}")  # noqa: T201  # into the run's output

    async def _clean_up(self, trigger: Any) -> None:
        cleaning = getattr(trigger, "cleanup", None)
        if cleaning is None:
            return
        try:
            await _awaited(cleaning())
        except Exception as error:
            print(f"cleanup(): {classes.trace(error)}")  # noqa: T201


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


# --- the process -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Serve until the worker is gone."""
    here = os.path.dirname(os.path.abspath(__file__))
    # Where this file lies is no place to import from.
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != here]
    talk = talking.Talk(socket.socket(fileno=os.dup(0)))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    for name in ("stdout", "stderr"):
        stream = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        setattr(sys, name, talking.Routed(stream, talk))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    triggers = Triggers(talk, loop)
    threading.Thread(target=_serve_or_leave, args=(talk, loop, triggers), name="worker", daemon=True).start()
    loop.run_forever()
    with contextlib.suppress(BaseException):
        loop.run_until_complete(triggers.cancel_all())
    # Threads of operators, and of libraries, are not waited for.
    os._exit(0)


def _serve_or_leave(talk: talking.Talk, loop: asyncio.AbstractEventLoop, triggers: Triggers) -> None:
    try:
        _serve(talk, loop, triggers)
    except BaseException as error:
        # Nobody would hear the worker any more: it is told by the end of this process.
        sys.stderr.write(classes.trace(error))
        os._exit(1)


def _serve(talk: talking.Talk, loop: asyncio.AbstractEventLoop, triggers: Triggers) -> None:
    operators: Any = None
    talk.send({"ready": {"python": sys.version.split()[0], "pid": os.getpid()}})
    while True:
        frame = talk.receive()
        if frame is None:
            break
        if "path" in frame:
            sys.path[:0] = frame["path"]
        elif "make" in frame:
            triggers.make(frame["ask"], frame["make"])
        elif "host" in frame:
            triggers.host(frame["host"], frame["turn"], frame["trigger"])
        elif "drop" in frame:
            triggers.drop(frame["ask"], frame["drop"], frame["trigger"], frame["kill"])
        else:
            if operators is None:
                operators = _sibling("operators").Operators(talk, classes, talking.owner)
            operators.obey(frame)
    loop.call_soon_threadsafe(loop.stop)
    # A trigger that blocks the loop would keep the process for ever.
    time.sleep(2 * LEAVES_WITHIN)
    os._exit(1)


if __name__ == "__main__":
    main()
