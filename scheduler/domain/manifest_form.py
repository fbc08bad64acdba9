"""Tasks and triggers in the words of manifests: the keys and values that people type, for exports and for comparisons.

`whole` writes every key, so that two forms can be compared field by field; else what has its default is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from scheduler.domain.automation import Cron, automation_to_document
from scheduler.domain.calendars import Calendar, calendar_to_document
from scheduler.domain.instants import format_duration, from_datetime, to_rfc3339
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec

_KINDS: Final = ("cron", "fixed_rate", "at")


def task_form(definition: TaskDefinition, *, whole: bool = False) -> dict[str, Any]:
    """The task without its triggers, in the order in which the manifests page tells its keys."""
    form: dict[str, Any] = {"name": definition.name, "version": definition.version}
    # Descriptions as far as they are kept: nobody could tell the rest.
    about = {"description": definition.short_description, "long_description": definition.full_description}
    environment = {"name": definition.environment.name, "description": definition.environment.description}
    if not whole:
        environment = {key: text for key, text in environment.items() if text}
        about = {key: text for key, text in about.items() if text}
    if environment:
        form["environment"] = environment
    return form | about | _members(definition.spec, TaskSpec(definition.spec.executor), whole, always=("executor",))


def trigger_form(spec: TriggerSpec, *, whole: bool = False) -> dict[str, Any]:
    """The trigger, its calendars in full. A cron's zone is always named: the settings may have another default."""
    form: dict[str, Any] = {"name": spec.name}
    automation = {} if spec.automation is None else automation_to_document(spec.automation)
    if isinstance(spec.automation, Cron):
        cron = {member.name: getattr(spec.automation, member.name) for member in fields(Cron)}
        automation["cron"] = cron if whole else {"timezone": spec.automation.timezone} | automation["cron"]
        automation["cron"] = {"expression": spec.automation.expression} | automation["cron"]
    form |= dict.fromkeys(_KINDS) | automation if whole else automation
    members = _members(spec, TriggerSpec(spec.name), whole, never=("name", "automation"))
    return form | members


def _members(
    value: Any, default: Any, whole: bool, always: tuple[str, ...] = (), never: tuple[str, ...] = ()
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for member in fields(value):
        part, usual = getattr(value, member.name), getattr(default, member.name)
        if member.name in never or not (whole or part != usual or member.name in always):
            continue
        found[member.name] = _members(part, usual, whole) if _is_group(part) else _plain(part)
    return found


def _is_group(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, (type, Calendar))


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, datetime):
        return to_rfc3339(from_datetime(value))
    if isinstance(value, Calendar):
        return calendar_to_document(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
