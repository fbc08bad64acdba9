"""The executor `airflow_operator`: a run is the execution of an Airflow operator or sensor, deferred as Airflow defers it.

    executors:
      operators: {use: airflow_operator, options: {python: airflow-env/bin/python}}

    config:
      classpath: airflow.providers.airbyte.operators.airbyte.AirbyteTriggerSyncOperator
      kwargs: {connection_id: 0a1b…, deferrable: true}

`execute` is called in a thread of the child and takes a place in the worker. Where it defers, the trigger, the method to
go on with and its arguments are stored, and the place is free; the trigger is hosted by the child of whichever worker
holds the wait. Its event is stored before the method is called with it, in a place again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from executors.airflow.host import Host, Hosted, fault_error
from executors.airflow.options import AirflowOptions
from executors.airflow.outcomes import END_EVENTS
from executors.airflow.trigger import class_faults, made_of
from executors.errors import PermanentError, Problem
from executors.external_job import JobConfig, JobPhase
from executors.jsonvalue import json_fault
from executors.output import clip
from executors.protocol import Deferred, Executor, Failed, Outcome, RunContext, Succeeded
from executors.templating import rfc3339
from executors.waits import Poll, Until

# As Airflow's scheduler says them to an operator that is resumed only to fail.
_TIMEOUT: Final = "Trigger timeout"
_FAILURE: Final = "Trigger failure"
_AT_ONCE: Final = timedelta(milliseconds=1)


class AirflowOperatorExecutor(Executor):
    """Executes Airflow operators and sensors; their triggers are waited for without a place in the worker."""

    @dataclass(frozen=True)
    class Options(AirflowOptions):
        """Which interpreter, and what it is given."""

    @dataclass(frozen=True, kw_only=True)
    class Config(JobConfig):
        """`classpath` and `kwargs` make the operator; `after` holds arguments that are instants, as durations from now.

        `task_id` is its task's in Airflow's words, the task's own name unless given.
        """

        classpath: str
        kwargs: dict[str, Any] = field(default_factory=dict)
        after: dict[str, timedelta] = field(default_factory=dict)
        task_id: str | None = None

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            yield from super().check()
            yield from class_faults(self.classpath, self.kwargs, self.after)

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        self._host = Host("airflow_operator", self.options, self._news)

    async def start(self) -> None:
        """Nothing is started before it is needed."""
        self._host.open()

    async def close(self) -> None:
        """Ends the child."""
        await self._host.close()

    # --- in a place --------------------------------------------------------------------------------------------------

    async def execute(self, run: RunContext) -> Outcome:
        """Call `execute`, or the method that the operator has deferred to; cancelled, its `on_kill` is called.

        A thread cannot be stopped: `run.still_running` is then set until the call has ended.
        """
        state = _state(run)
        number, answering = await self._host.operate(run, self._question(run, state))
        try:
            answer = await asyncio.shield(answering)
        except asyncio.CancelledError:
            if not answering.done():
                self._host.interrupt(number)
                run.still_running = _ending(answering)
            raise
        return self._outcome(run, state, answer)

    def _question(self, run: RunContext, state: Mapping[str, Any]) -> dict[str, Any]:
        config: AirflowOperatorExecutor.Config = run.config
        resume = None
        if "method" in state:
            resume = {name: state[name] for name in ("method", "kwargs", "event", "error", "trace") if name in state}
        return {
            # The same at every call: the operator is made anew for each.
            **made_of(config, state["began"]),
            "task_id": config.task_id or _task_id(run.task),
            "resume": resume,
            "xcom": state["xcom"],
            "context": {
                "logical_date": (run.scheduled_at or run.now()).astimezone(UTC).isoformat(),
                "began": state["began"],
                "run_id": run.run_name,
                "dag_id": _task_id(f"{run.project}.{run.domain}"),
                "try_number": run.attempt,
                "params": dict(run.inputs),
            },
        }

    def _outcome(self, run: RunContext, state: Mapping[str, Any], answer: Mapping[str, Any]) -> Outcome:
        kept = {"began": state["began"], "count": state["count"] + 1, "xcom": answer.get("xcom", state["xcom"])}
        if "again" in answer:
            return Deferred(Until(datetime.fromtimestamp(answer["again"], UTC)), kept)
        if "deferred" in answer:
            deferred = answer["deferred"]
            ends = None
            if deferred["seconds"] is not None:
                ends = rfc3339(run.now() + timedelta(seconds=deferred["seconds"]))
            told = {name: deferred[name] for name in ("trigger", "method", "kwargs")}
            # The trigger is hosted at the first look.
            return Deferred(self._poll_of(run, _AT_ONCE), {**kept, **told, "ends_at": ends})
        if "returned" in answer:
            return _succeeded(answer["returned"], answer["xcom"])
        if "fault" in answer:
            raise fault_error(self._host.hidden, answer["fault"])
        raised = answer["raised"]
        message = self._host.hidden.hide(raised["message"])
        if raised["kind"] == "skipped":
            return _succeeded({"skipped": message or True}, answer["xcom"])
        trace = self._host.hidden.hide(raised["trace"])
        run.output.write(trace)
        return Failed(clip(message), retryable=raised["kind"] != "final")

    # --- while its trigger runs --------------------------------------------------------------------------------------

    async def poll(self, run: RunContext) -> Outcome:
        """Look whether the trigger's event has come; then the operator goes on, in a place."""
        state = _state(run)
        hosted = self._host.hosted(run, f"{run.key}:{state['count']}", state["trigger"], run.config.poll_interval)
        now = run.now()
        if hosted.ended is not None:
            run.output.write(self._host.hidden.hide(hosted.output.text()))
            return self._event_came(run, state, hosted)
        ends = None if state["ends_at"] is None else datetime.fromisoformat(state["ends_at"])
        if ends is not None and ends <= now:
            return Deferred(Until(now), {**state, "error": _TIMEOUT})
        if ends is None:
            return Deferred(self._poll_of(run), state)
        return Deferred(self._poll_of(run, ends - now), state)

    def _event_came(self, run: RunContext, state: Mapping[str, Any], hosted: Hosted) -> Outcome:
        ended = hosted.ended or {}
        if "fault" in ended:
            fault = ended["fault"]
            run.output.write(self._host.hidden.hide(fault.get("trace", "")))
            if state["method"] is None:
                raise fault_error(self._host.hidden, fault)
            message = self._host.hidden.hide(f"{_FAILURE}: {fault['message']}")
            trace = self._host.hidden.hide(fault.get("trace", "")).splitlines()
            return Deferred(Until(run.now()), {**state, "error": message, "trace": trace})
        event = ended["event"]
        if event["kind"] in END_EVENTS or state["method"] is None:
            if END_EVENTS.get(event["kind"]) is JobPhase.FAILED:
                return Failed(f"the trigger has ended the task with {event['kind']}")
            skipped = event["kind"] == "TaskSkippedEvent"
            return _succeeded({"skipped": True} if skipped else None, state["xcom"])
        return Deferred(Until(run.now()), {**state, "event": event["payload"]})

    def _poll_of(self, run: RunContext, left: timedelta | None = None) -> Poll:
        config: AirflowOperatorExecutor.Config = run.config
        interval = config.poll_interval if left is None else min(config.poll_interval, left)
        return Poll(max(interval, _AT_ONCE), config.error_budget)

    def forget(self, run_name: str, *, over: bool) -> None:
        """The trigger is not needed here any more; where its run has ended meanwhile, its `on_kill` is called."""
        self._host.forget(run_name, kill=over)

    def _news(self, run_name: str) -> None:
        if self.look_soon is not None:
            self.look_soon(run_name)


def _state(run: RunContext) -> dict[str, Any]:
    state = None if run.resumed is None else run.resumed.state
    if state is None:
        return {"began": run.now().timestamp(), "count": 0, "xcom": {}}
    if not isinstance(state, dict) or "began" not in state:
        raise PermanentError("what was stored of the operator's deferral cannot be read")
    return state


def _succeeded(returned: Any, xcom: Mapping[str, Any]) -> Outcome:
    outputs = dict(returned) if isinstance(returned, Mapping) else ({} if returned is None else {"result": returned})
    if xcom and "xcom" not in outputs:
        outputs["xcom"] = dict(xcom)
    if fault := json_fault(outputs, "outputs"):
        raise PermanentError(f"what the operator returned cannot be stored: {fault}")
    return Succeeded(outputs)


def _ending(answering: asyncio.Future[dict[str, Any]]) -> asyncio.Future[None]:
    """Done when the call has ended, however it did."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(_: asyncio.Future[dict[str, Any]]) -> None:
        if not ended.done():
            ended.set_result(None)

    answering.add_done_callback(settle)
    return ended


def _task_id(name: str) -> str:
    """A name in the letters that Airflow's ids have."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in name)
