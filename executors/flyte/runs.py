"""Runs of a remote Flyte: made, looked at and aborted through its RunService."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from connectrpc.code import Code
from flyteidl2.common import identifier_pb2, phase_pb2
from flyteidl2.task import task_definition_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from flyteidl2.workflow.run_service_connect import RunServiceClient

from executors.errors import PermanentError, RetryableError
from executors.external_job import Job, JobGone, JobPhase, JobStatus, Link
from executors.flyte import literals
from executors.flyte.interface import InputTypes, fitted_inputs
from executors.flyte.rpc import Refused, Rpc, RpcError
from executors.flyte.server import ServerOptions
from executors.protocol import RunContext

# The action that a run begins with; its end is the run's.
_ROOT: Final = "a0"
_TELLS_NOTHING: Final = frozenset({Code.NOT_FOUND, Code.UNIMPLEMENTED, Code.PERMISSION_DENIED})
_PHASES: Final[Mapping[int, JobPhase]] = {
    phase_pb2.ACTION_PHASE_QUEUED: JobPhase.QUEUED,
    phase_pb2.ACTION_PHASE_WAITING_FOR_RESOURCES: JobPhase.QUEUED,
    phase_pb2.ACTION_PHASE_INITIALIZING: JobPhase.INITIALIZING,
    phase_pb2.ACTION_PHASE_RUNNING: JobPhase.RUNNING,
    # It waits for somebody.
    phase_pb2.ACTION_PHASE_PAUSED: JobPhase.RUNNING,
    phase_pb2.ACTION_PHASE_SUCCEEDED: JobPhase.SUCCEEDED,
    # An earlier run had done it.
    phase_pb2.ACTION_PHASE_RECOVERED: JobPhase.SUCCEEDED,
    phase_pb2.ACTION_PHASE_FAILED: JobPhase.FAILED,
    phase_pb2.ACTION_PHASE_ABORTED: JobPhase.ABORTED,
    phase_pb2.ACTION_PHASE_TIMED_OUT: JobPhase.TIMED_OUT,
}


class Runs:
    """The runs of one Flyte; a job's `meta` is the identity of its run."""

    def __init__(self, options: ServerOptions) -> None:
        self._rpc = Rpc("Flyte", options, "connect")

    async def close(self) -> None:
        """Gives the connections up."""
        await self._rpc.close()

    async def create(self, run: RunContext, job: Job, interface: InputTypes | None = None) -> None:
        """Make the run, with its inputs if an interface is given, else with no more than the slot.

        It is made as well if it is there already. Raises `PermanentError` if Flyte refuses it, or if its name belongs to
        another run.
        """
        try:
            await self._call("create_run", _request(run, job, interface), acts=True)
        except Refused as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise PermanentError(str(error)) from None
            run.log.info("the run %s is there already", job.job_id)
            await self._be_sure_it_is_this_one(run, job)

    async def is_there(self, run: RunContext, job: Job) -> bool:
        """Whether the run was made, as far as Flyte tells: where it does not, asking for it again is as good an answer."""
        try:
            _check(run, job, await self._details(job))
        except RpcError as error:
            if error.code in _TELLS_NOTHING:
                return False
            raise
        return True

    async def status(self, job: Job) -> JobStatus:
        """How the run stands."""
        try:
            details = await self._details(job)
        except Refused as error:
            raise _gone(job, error) from None
        phase = _PHASES.get(details.action.status.phase)
        if phase is None:
            raise RetryableError(f"Run {job.job_id} has the phase {details.action.status.phase}, which is not known")
        outputs = await self._outputs(job) if phase is JobPhase.SUCCEEDED else None
        return JobStatus(phase, _told(job, details.action), outputs, _links(details.action))

    async def abort(self, job: Job, reason: str) -> None:
        """Have the run aborted."""
        try:
            await self._call("abort_run", run_service_pb2.AbortRunRequest(run_id=_run_id(job), reason=reason))
        except Refused as error:
            # It is over already, then, and its status says so.
            if error.code is not Code.FAILED_PRECONDITION:
                raise _gone(job, error) from None

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _call(self, method: str, request: Any, *, acts: bool = False) -> Any:
        name = "".join(word.title() for word in method.split("_"))
        return await self._rpc.call(
            RunServiceClient, lambda client, options: getattr(client, method)(request, **options), name, acts=acts
        )

    async def _details(self, job: Job) -> Any:
        answer = await self._call("get_run_details", run_service_pb2.GetRunDetailsRequest(run_id=_run_id(job)))
        return answer.details

    async def _outputs(self, job: Job) -> dict[str, Any]:
        action = identifier_pb2.ActionIdentifier(run=_run_id(job), name=_ROOT)
        try:
            answer = await self._call("get_action_data", run_service_pb2.GetActionDataRequest(action_id=action))
        except RpcError as error:
            if error.code in (Code.UNIMPLEMENTED, Code.NOT_FOUND):
                return {}  # It has succeeded all the same.
            raise
        return literals.plain_named(answer.outputs.literals)

    async def _be_sure_it_is_this_one(self, run: RunContext, job: Job) -> None:
        # Names are hashes of 64 bits there: two slots may have one, and then the second was never fired.
        try:
            _check(run, job, await self._details(job))
        except RpcError as error:
            # Where nobody tells more, being there is enough.
            if error.code not in _TELLS_NOTHING:
                raise


def _request(run: RunContext, job: Job, interface: InputTypes | None) -> Any:
    request = run_service_pb2.CreateRunRequest(run_id=_run_id(job), source=run_definition_pb2.RUN_SOURCE_CLI)
    place = {key: job.meta[key] for key in job.meta if key != "name"}
    if run.trigger:
        name = identifier_pb2.TriggerName(**place, name=run.trigger, task_name=run.task)
        request.trigger_name.CopyFrom(name)
    else:
        task = task_definition_pb2.TaskIdentifier(**place, name=run.task, version=run.version)
        request.task_id.CopyFrom(task)
    if run.scheduled_at is not None:
        request.source = run_definition_pb2.RUN_SOURCE_SCHEDULE_TRIGGER
        request.run_start_time.FromDatetime(run.scheduled_at)
    if interface is not None:
        request.inputs.CopyFrom(literals.named(literals.of_inputs(fitted_inputs(run, interface))))
    elif run.kickoff_input is not None and run.scheduled_at is not None:
        # More would take the place of what the trigger has at Flyte.
        request.inputs.CopyFrom(literals.named({run.kickoff_input: literals.instant(run.scheduled_at)}))
    return request


def _run_id(job: Job) -> Any:
    return identifier_pb2.RunIdentifier(**job.meta)


def _gone(job: Job, error: Refused) -> Exception:
    if error.code is Code.NOT_FOUND:
        return JobGone(f"Flyte does not know the run {job.job_id}: {error.told}")
    return error


def _check(run: RunContext, job: Job, details: Any) -> None:
    """Raises `PermanentError` if the run is known to be another trigger's or another slot's."""
    trigger = details.action.metadata.trigger_id.name
    if not trigger.name:
        return
    if (trigger.task_name, trigger.name) != (run.task, run.trigger):
        raise _taken(job, f"to a run of {trigger.task_name}/{trigger.name}")
    if run.scheduled_at is not None and details.run_spec.HasField("run_start_time"):
        started: datetime = details.run_spec.run_start_time.ToDatetime(UTC)
        if started.replace(microsecond=0) != run.scheduled_at:
            raise _taken(job, f"to the run of another slot, {started:%Y-%m-%dT%H:%M:%SZ}")


def _taken(job: Job, whose: str) -> PermanentError:
    return PermanentError(f"Flyte gave the name {job.job_id} {whose}: this run cannot be made")


def _told(job: Job, action: Any) -> str:
    if action.abort_info.reason:
        return f"Job run {job.job_id} has been cancelled: {action.abort_info.reason}"
    if action.error_info.message:
        return f"Job run {job.job_id} has failed: {action.error_info.message}"
    return ""


def _links(action: Any) -> tuple[Link, ...]:
    if not action.attempts:
        return ()
    newest = max(action.attempts, key=lambda attempt: int(attempt.attempt))
    return tuple(Link(log.name or "log", log.uri) for log in newest.log_info if log.uri)
