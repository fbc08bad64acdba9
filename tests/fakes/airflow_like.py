"""Classes in the shape of Airflow's triggers and operators, for what the child process does where Airflow is not needed.

Imported by the child under the name `airflow_like`, so nothing of this project is imported here.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any


class TriggerEvent:
    """What a trigger yields."""

    def __init__(self, payload: Any) -> None:
        self.payload = payload


class TaskSuccessEvent(TriggerEvent):
    """One that ends its task."""


class TaskDeferred(BaseException):
    """What an operator raises to wait."""

    def __init__(self, trigger: Any, method_name: str, kwargs: Any = None, timeout: Any = None) -> None:
        self.trigger, self.method_name, self.kwargs, self.timeout = trigger, method_name, kwargs, timeout


class AirflowSkipException(Exception):
    """The task is skipped."""


class AirflowFailException(Exception):
    """The task fails for good."""


class AirflowRescheduleException(Exception):
    """The sensor looks again later."""

    def __init__(self, reschedule_date: datetime.datetime) -> None:
        self.reschedule_date = reschedule_date


class Trigger:
    """Keeps its arguments, as Airflow's do."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"airflow_like.{type(self).__name__}", self.kwargs


class Fires(Trigger):
    """One event after so many seconds, and a second that nobody should see."""

    def __init__(self, payload: Any = None, seconds: float = 0.0) -> None:
        super().__init__(payload=payload, seconds=seconds)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        print("watching", self.kwargs["payload"])
        await asyncio.sleep(self.kwargs["seconds"])
        yield TriggerEvent(self.kwargs["payload"])
        yield TriggerEvent({"status": "error", "message": "a second event"})


class WhenThere(Trigger):
    """Fires once a file is there; notes its beginnings, and how it was stopped, in the same folder."""

    def __init__(self, file: str) -> None:
        super().__init__(file=file)
        self.folder = Path(file).parent

    def note(self, what: str) -> None:
        with (self.folder / "notes").open("a") as notes:
            notes.write(f"{what} {os.getpid()}\n")

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self.note("began")
        while not Path(self.kwargs["file"]).exists():
            await asyncio.sleep(0.02)
        yield TriggerEvent({"status": "success", "message": "it is there", "job_id": 7})

    async def on_kill(self) -> None:
        self.note("killed")

    async def cleanup(self) -> None:
        self.note("cleaned")


class Raises(Trigger):
    """An error out of run()."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise ValueError(self.kwargs["text"])
        yield


class Floods(Trigger):
    """Prints more than anybody reads."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        for number in range(30_000):
            print("line", number)
        yield TriggerEvent(None)


class Leaves(Trigger):
    """SystemExit out of run()."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        sys.exit(3)
        yield


class Silent(Trigger):
    """run() that ends without an event."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        return
        yield


class Noisy(Trigger):
    """Writes to every descriptor it finds easily, and fires."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        os.write(1, b'{"ended": "nobody"}\n\x00\xff')
        os.write(2, b"\x00\x00\x00\x05{}}}}")
        print('{"ended": "nobody"}')
        yield TriggerEvent({"status": "success", "stdin": sys.stdin.read()})


class Dies(Trigger):
    """Takes the whole process with it, once: the second time the file is there."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        file = Path(self.kwargs["file"])
        if not file.exists():
            file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield TriggerEvent({"status": "success"})


class Typed(Trigger):
    """Arguments that are declared."""

    def __init__(self, moment: datetime.datetime, pause: datetime.timedelta, end_time: float, name: str) -> None:
        now = time.time()
        super().__init__(payload=[moment.isoformat(), pause.total_seconds(), round((end_time - now) / 60), name])

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "airflow_like.Fires", self.kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise AssertionError("what is stored of it is another one")
        yield


class Unkept(Trigger):
    """Made with what nobody can store."""

    def __init__(self) -> None:
        super().__init__(thing=object())

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent(None)


class Modules(Trigger):
    """Tells what is imported where it runs."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        roots = sorted({name.partition(".")[0] for name in sys.modules})
        env = {
            name: value for name, value in os.environ.items() if name.startswith(("AIRFLOW", "SCHEDULER", "PYTHONPATH"))
        }
        yield TriggerEvent({"roots": roots, "env": env, "argv": sys.argv, "pid": os.getpid()})


class Tells(Trigger):
    """Prints and raises what it finds in its environment."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        print("the connection is", os.environ["AIRFLOW_CONN_X"])
        raise RuntimeError(f"refused: {os.environ['AIRFLOW_CONN_X']}")
        yield


def make_job(region: str, key: str) -> dict[str, Any]:
    """Makes a job, and says what its trigger is made with."""
    if region == "nowhere":
        raise ConnectionError("the answer was lost")
    return {"payload": {"job_id": f"{region}-{key}"}}


class EndsTask(Trigger):
    """An event that ends its task."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TaskSuccessEvent("success")


class Operator:
    """Defers as its steps say: payloads that triggers fire, one after the other, then its result."""

    def __init__(
        self, task_id: str, steps: list[Any] | None = None, result: Any = None, how: str = "", file: str = ""
    ) -> None:
        self.task_id, self.steps, self.result, self.how, self.file = task_id, steps or [], result, how, file

    def execute(self, context: dict[str, Any]) -> Any:
        print("execute", context["ds"], context["params"])
        context["ti"].xcom_push(key="began", value=self.task_id)
        if self.how == "block":
            while not Path(self.file).exists():
                time.sleep(0.02)
        elif self.how == "skip":
            raise AirflowSkipException("nothing to do")
        elif self.how == "fail":
            raise AirflowFailException("never")
        elif self.how == "raise":
            raise RuntimeError("this time")
        elif self.how == "reschedule" and time.time() - context["ti"].start_date.timestamp() < 0.5:
            raise AirflowRescheduleException(context["ti"].start_date + datetime.timedelta(seconds=0.6))
        elif self.how == "watch":
            raise TaskDeferred(WhenThere(self.file), "go_on", {"seen": []})
        elif self.how == "timeout":
            raise TaskDeferred(WhenThere(self.file), "go_on", {"seen": []}, datetime.timedelta(seconds=0.3))
        elif self.how == "trigger fails":
            raise TaskDeferred(Raises(text="broken"), "go_on")
        elif self.how == "end":
            raise TaskDeferred(EndsTask(), "go_on")
        return self.go_on(context, seen=[])

    def go_on(self, context: dict[str, Any], seen: list[Any], event: Any = None) -> Any:
        print("go_on", event)
        seen = [*seen, event] if event is not None else seen
        if len(seen) < len(self.steps):
            raise TaskDeferred(Fires(self.steps[len(seen)]), "go_on", {"seen": seen})
        return {"seen": seen, "pulled": context["ti"].xcom_pull(key="began")} if self.result is None else self.result

    def on_kill(self) -> None:
        Path(self.file).touch()
