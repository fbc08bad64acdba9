"""What a deferred run waits for, in words and links for people."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from scheduler.domain.instants import SECOND, to_rfc3339
from scheduler.domain.wait import Ending, Stage, WaitKind
from scheduler.store.rows import Row


def waiting_words(wait: Row, declared: Collection[str]) -> str:
    """One line: the instant, the poll or the job, what was seen last, and what stands in the way.

    `declared` are the executors that some living worker declares.
    """
    parts = [_what(wait), *_troubles(wait)]
    free = wait["owner"] is None and wait["kind"] != WaitKind.UNTIL
    if free and wait["executor"] not in declared:
        parts.append(f"no worker for executor {wait['executor']}")
    return "; ".join(parts)


def links_seen(wait: Row | None) -> list[dict[str, str]]:
    """Pages about the job, as far as it has told of any."""
    return list(_seen(wait).get("links", [])) if wait is not None else []


def _what(wait: Row) -> str:
    if wait["kind"] == WaitKind.UNTIL:
        return f"an instant: {to_rfc3339(wait['look_at'])}"
    if wait["kind"] == WaitKind.POLL:
        return f"what its executor looks at every {wait['interval'] / SECOND:g} s"
    if wait["stage"] == Stage.SUBMITTING:
        return "its job: being submitted, or to be looked for since that was interrupted"
    seen = _seen(wait)
    job = f"job {wait['job_id']}" if wait["job_id"] else "its job"
    if wait["stage"] == Stage.CANCELLING:
        ending = Ending.decode(wait["ending"])
        return f"the end of {job}, owed since {to_rfc3339(ending.since)}: {ending.error}"
    said = f"{job}, {seen['phase']}" if seen.get("phase") else job
    return f"{said}: {seen['message']}" if seen.get("message") else said


def _troubles(wait: Row) -> list[str]:
    if wait["error_since"] is None:
        return []
    return [f"no answer since {to_rfc3339(wait['error_since'])}: {wait['last_error']}"]


def _seen(wait: Row) -> Mapping[str, Any]:
    return json.loads(wait["seen"]) if wait["seen"] else {}
