"""What is kept of an attempt's end: nothing that an executor says may be too large, or such that it cannot be stored."""

from __future__ import annotations

from typing import Any

from executors.jsonvalue import as_json, json_fault, size_fault
from executors.output import MAX_ERROR, clip
from scheduler.domain.run import Phase
from scheduler.domain.wait import outcome_event
from scheduler.services.defer import as_text, storable
from scheduler.services.finish import Ended


def kept(item: Ended, most: int) -> Ended:
    """The end as it can be stored, at most `most` bytes a value.

    Results and states that are larger fail the attempt and say so: a part of one would be another one. Texts for people keep
    their end.
    """
    if item.phase is Phase.SUCCEEDED and not item.outputs and item.event is None and not item.links:
        return item  # Most ends.
    try:
        return _kept(item, most)
    except Exception as error:  # Whatever it is, it is this run's.
        return failed(item, f"what it returned cannot be stored: {type(error).__name__}: {clip(str(error), 500)}")


def failed(item: Ended, why: str) -> Ended:
    """The failure that an end is which cannot be stored."""
    return Ended(
        item.execution,
        Phase.FAILED,
        error=clip(why, MAX_ERROR),
        output=item.output if item.deferral is None else item.deferral.printed,
        retryable=False,
        waited=item.waited,
        event=None if item.event is None else outcome_event("error", clip(why, 500), None),
    )


def _kept(item: Ended, most: int) -> Ended:
    if item.deferral is not None:
        state = item.deferral.state
        fault = None if state is None else size_fault("state", state, most)
        return item if fault is None else failed(item, fault)
    text = None
    if item.outputs:
        text = storable(as_json(item.outputs))
        if text is not None and (fault := size_fault("result", text, most)) is not None:
            return failed(item, fault)
    return item._replace(
        outputs_text=text,
        error=None if item.error is None else clip(item.error, MAX_ERROR),
        event=_event(item, most),
        links=item.links if _fits(item.links, most) else None,
    )


def _event(item: Ended, most: int) -> Any:
    if item.event is None or _fits(item.event, most):
        return item.event
    status, message, job = (item.event.get(key) for key in ("status", "message", "job_id"))
    return outcome_event(
        clip(str(status), 100), clip(str(message), MAX_ERROR), None if job is None else clip(str(job), 500)
    )


def _fits(value: Any, most: int) -> bool:
    if not value:
        return True
    try:
        return json_fault(value, "it") is None and size_fault("it", as_text(value) or "", most) is None
    except (TypeError, ValueError, RecursionError):
        return False
