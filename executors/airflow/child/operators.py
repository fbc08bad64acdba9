"""The part of the Airflow child that runs operators: each call in a thread of its own, ended only by its own end.

    {"ask": n, "operate": {name, classpath, kwargs, task_id, context, resume: null | {method, kwargs, event | error}, xcom}}
    {"interrupt": n}      the operator's on_kill is called, as Airflow does for a task that is cancelled

Answers: {deferred: {trigger, method, kwargs, seconds}}, {again: epoch seconds}, {returned: JSON} or {raised: {kind,
message, trace}}, each with the XComs pushed so far.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import inspect
import sys
import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors.airflow.child.talking import Talk

# The method that Airflow resumes with when a trigger fails or its time is over.
FAIL = "__fail__"


class Operators:
    """The operators at work. `tools` is the module classes.py."""

    def __init__(self, talk: Talk, tools: Any, owner: contextvars.ContextVar[Any]) -> None:
        self._talk = talk
        self._tools = tools
        self._owner = owner
        self._at_work: dict[int, tuple[str, Any]] = {}
        self._interrupted: set[int] = set()

    def obey(self, frame: dict[str, Any]) -> None:
        """Do what a frame says; returns at once."""
        if "operate" in frame:
            self._start(frame["operate"]["name"], self._operate, frame["ask"], frame["operate"])
            return
        self._interrupted.add(frame["interrupt"])
        name, operator = self._at_work.get(frame["interrupt"], ("", None))
        if operator is not None:
            self._start(name, self._interrupt, operator)

    def _start(self, name: str, body: Any, *given: Any) -> None:
        context = contextvars.copy_context()
        context.run(self._owner.set, name)
        threading.Thread(target=context.run, args=(body, *given), name=name, daemon=True).start()

    def _interrupt(self, operator: Any) -> None:
        try:
            operator.on_kill()
        except BaseException as error:
            print(f"on_kill(): {self._tools.trace(error)}")  # noqa: T201  # into the run's output

    def _operate(self, number: int, wanted: dict[str, Any]) -> None:
        xcom = dict(wanted["xcom"])
        try:
            # Classes import more as they are made.
            with self._tools.importing:
                operator = self._made(wanted)
            self._at_work[number] = (wanted["name"], operator)
            if number in self._interrupted:
                raise self._tools.Fault("cancelled before it began")
            context = make_context(operator, wanted, xcom, self._tools.plain)
            answer = {"returned": self._tools.plain(self._called(operator, wanted, context))}
        except BaseException as error:
            answer = self._outcome(error, wanted["classpath"])
        finally:
            self._at_work.pop(number, None)
            self._interrupted.discard(number)
        self._talk.send({"answer": number, "xcom": self._tools.plain(xcom), **answer})

    def _made(self, wanted: dict[str, Any]) -> Any:
        tools, classpath = self._tools, wanted["classpath"]
        found = tools.load(classpath)
        if not callable(getattr(found, "execute", None)):
            hint = ": triggers are for the executor airflow_trigger" if hasattr(found, "serialize") else ""
            raise tools.Fault(f"{classpath} is no operator and no sensor, for it has no execute(){hint}")
        kwargs = tools.fit(found, wanted["kwargs"], wanted["at"])
        # Operators hand what they do not know to BaseOperator, which wants a task_id.
        if "task_id" not in kwargs and _takes(found, "task_id"):
            kwargs["task_id"] = wanted["task_id"]
        try:
            return found(**kwargs)
        except TypeError as error:
            raise tools.Fault(f"{classpath} cannot be made with these kwargs: {error}") from error
        except Exception as error:
            # A missing argument is an AirflowException there.
            if "argument" in str(error):
                raise tools.Fault(f"{classpath} cannot be made with these kwargs: {error}") from error
            raise

    def _called(self, operator: Any, wanted: dict[str, Any], context: dict[str, Any]) -> Any:
        rendering = getattr(operator, "render_template_fields", None)
        if rendering is not None:
            rendering(context)
        resume = wanted["resume"]
        if resume is None:
            return operator.execute(context, **_pass(operator))
        kwargs = dict(self._tools.decode(resume["kwargs"])) if resume["kwargs"] else {}
        method = resume["method"]
        if "event" in resume:
            kwargs["event"] = self._tools.decode(resume["event"])
        else:
            method, kwargs = FAIL, {"error": resume["error"], "traceback": resume.get("trace")}
        resuming = getattr(operator, "resume_execution", None)
        if resuming is not None:
            return resuming(method, kwargs, context)
        if method == FAIL:
            raise RuntimeError(resume["error"])
        return getattr(operator, method)(context, **kwargs)

    def _outcome(self, error: BaseException, classpath: str) -> dict[str, Any]:
        tools = self._tools
        named = tools.is_called
        if named(error, "TaskDeferred"):
            try:
                return {"deferred": self._deferral(error, classpath)}
            except BaseException as failure:
                error = failure
        if named(error, "AirflowRescheduleException"):
            return {"again": error.reschedule_date.timestamp()}  # type: ignore[attr-defined]
        if named(error, "AirflowSkipException"):
            kind = "skipped"
        elif named(error, "AirflowFailException", "AirflowSensorTimeout") or isinstance(error, tools.Fault):
            kind = "final"
        elif isinstance(error, SystemExit) and error.code in (None, 0):
            return {"returned": None}
        else:
            kind = "error"
        short = str(error) if isinstance(error, tools.Fault) or kind == "skipped" else tools.describe(error)
        return {"raised": {"kind": kind, "message": short, "trace": tools.trace(error)}}

    def _deferral(self, error: Any, classpath: str) -> dict[str, Any]:
        tools, timeout = self._tools, error.timeout
        return {
            "trigger": tools.serialized(error.trigger),
            "method": error.method_name,
            "kwargs": tools.encode(dict(error.kwargs), f"what {classpath} deferred with") if error.kwargs else None,
            "seconds": timeout.total_seconds() if isinstance(timeout, timedelta) else timeout,
        }


def make_context(operator: Any, wanted: dict[str, Any], xcom: dict[str, Any], plain: Any) -> dict[str, Any]:
    """The part of Airflow's template context that needs no Airflow around it."""
    told = wanted["context"]
    moment = datetime.fromisoformat(told["logical_date"])
    began = datetime.fromtimestamp(told["began"], timezone.utc)  # noqa: UP017
    moment, began = _of_pendulum(moment), _of_pendulum(began)
    ti = SimpleNamespace(
        task=operator,
        task_id=getattr(operator, "task_id", wanted["task_id"]),
        dag_id=told["dag_id"],
        run_id=told["run_id"],
        try_number=told["try_number"],
        max_tries=told["try_number"],
        map_index=-1,
        start_date=began,
        id=told["run_id"],
        xcom_push=lambda key, value, **_: xcom.__setitem__(key, plain(value)),
        xcom_pull=lambda task_ids=None, key="return_value", default=None, **_: xcom.get(key, default),
        get_first_reschedule_date=lambda _context=None: began,
        log_url="",
    )
    return {
        "ds": moment.strftime("%Y-%m-%d"),
        "ds_nodash": moment.strftime("%Y%m%d"),
        "ts": moment.isoformat(),
        "ts_nodash": moment.strftime("%Y%m%dT%H%M%S"),
        "logical_date": moment,
        "execution_date": moment,
        "data_interval_start": moment,
        "data_interval_end": moment,
        "run_id": told["run_id"],
        "params": told["params"],
        "task": operator,
        "ti": ti,
        "task_instance": ti,
        "dag": None,
        "dag_run": SimpleNamespace(
            run_id=told["run_id"], dag_id=told["dag_id"], logical_date=moment, start_date=began, conf=told["params"]
        ),
    }


def _of_pendulum(moment: datetime) -> Any:
    """As Airflow's operators have it, where Airflow is there."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("pendulum").instance(moment)
    return moment


def _takes(found: type, name: str) -> bool:
    with contextlib.suppress(TypeError, ValueError):
        parameters = inspect.signature(found).parameters
        return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return True


def _pass(operator: Any) -> dict[str, Any]:
    """What tells Airflow's operators that they are called by somebody who runs tasks, and not by one another."""
    for base in type(operator).__mro__:
        if base.__name__ != "BaseOperator":
            continue
        module = sys.modules.get(base.__module__)
        # The name of Airflow 3, and that of Airflow 2.
        sentinel = getattr(
            getattr(module, "ExecutorSafeguard", None), "sentinel_value", getattr(module, "_sentinel", None)
        )
        if sentinel is not None:
            return {f"{type(operator).__name__}__sentinel": sentinel}
    return {}
