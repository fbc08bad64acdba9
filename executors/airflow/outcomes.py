"""What the one event of a trigger means for its run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from executors.external_job import JobPhase, JobStatus
from executors.jsonvalue import json_fault
from executors.output import clip

SUCCESS: Final = ("success", "succeeded", "completed", "complete", "done", "ok")
FAILED: Final = ("error", "failed", "failure", "timeout", "timed_out", "cancelled", "canceled", "aborted")
_PHASES: Final = {
    "timeout": JobPhase.TIMED_OUT,
    "timed_out": JobPhase.TIMED_OUT,
    "cancelled": JobPhase.ABORTED,
    "canceled": JobPhase.ABORTED,
    "aborted": JobPhase.ABORTED,
}
# Airflow's events that end a task without its operator; their payload says no more than their names.
END_EVENTS: Final = {
    "TaskSuccessEvent": JobPhase.SUCCEEDED,
    "TaskFailedEvent": JobPhase.FAILED,
    "TaskSkippedEvent": JobPhase.SUCCEEDED,
}
_IDS: Final = ("job_id", "run_id", "job_run_id", "job_name", "query_id", "id")


@dataclass(frozen=True)
class Words:
    """The words of an event's status that mean success or failure, in any case, and the key they stand under."""

    success: tuple[str, ...] = SUCCESS
    failed: tuple[str, ...] = FAILED
    status_key: str = "status"

    def phase(self, payload: Any) -> tuple[JobPhase, str]:
        """How a job with this last word has ended, and what is to be said if the word says nothing."""
        status = payload.get(self.status_key) if isinstance(payload, Mapping) else None
        if status is None:
            return JobPhase.SUCCEEDED, ""
        word = str(status).lower()
        if word in map(str.lower, self.success):
            return JobPhase.SUCCEEDED, ""
        if word in map(str.lower, self.failed):
            return _PHASES.get(word, JobPhase.FAILED), ""
        said = (
            f"the event's {self.status_key} is {status!r}, which is neither in `success` nor in `failed` of the config"
        )
        return JobPhase.FAILED, said


def status_of(event: Mapping[str, Any], words: Words) -> JobStatus:
    """The job's end as its event tells it; the payload is kept whole."""
    payload, kind = event["plain"], event["kind"]
    phase, said = words.phase(payload)
    if kind in END_EVENTS:
        phase, said = END_EVENTS[kind], f"the trigger has ended with {kind}"
    message = said or _message(payload)
    kept = dict(payload) if isinstance(payload, Mapping) else ({} if payload is None else {"payload": payload})
    if fault := json_fault(kept, "payload"):
        return JobStatus(JobPhase.FAILED, f"the event cannot be stored: {fault}", retryable=False)
    # A word that nobody has given a meaning has none in the next attempt either.
    unknown = bool(said) and kind not in END_EVENTS
    return JobStatus(phase, message, kept if phase is JobPhase.SUCCEEDED else None, custom=kept, retryable=not unknown)


def payload_text(event: Mapping[str, Any]) -> str:
    """The event as it is kept with what the trigger printed."""
    return f"event: {clip(json.dumps(event['plain'], ensure_ascii=False))}\n"


def id_in(values: Any) -> str | int | None:
    """What a payload, or a trigger's arguments, call the job."""
    if isinstance(values, Mapping):
        for name in _IDS:
            found = values.get(name)
            if isinstance(found, (str, int)) and not isinstance(found, bool) and found != "":
                return found
    return None


def _message(payload: Any) -> str:
    found = payload.get("message") if isinstance(payload, Mapping) else None
    return "" if found is None else str(found)
