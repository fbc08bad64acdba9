"""When a task runs: the specification of a trigger, as deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from scheduler.domain.automation import Automation, automation_from_document, automation_to_document
from scheduler.domain.calendars import Calendar, calendar_from_document, calendar_to_document
from scheduler.domain.identity import MAX_NAME, check_name
from scheduler.domain.instants import (
    format_duration,
    from_datetime,
    parse_duration,
    parse_rfc3339,
    to_datetime,
    to_rfc3339,
)
from scheduler.domain.values import check_count, check_duration, check_json, check_text
from scheduler.errors import SpecError

CatchUpPolicy = Literal["all", "latest", "none", "gap"]
Overlap = Literal["allow_all", "skip", "buffer_one", "buffer_all", "cancel_other"]


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What becomes of late slots: `policy` over those younger than `window`, at most `max_runs` under `all`."""

    policy: CatchUpPolicy = "all"
    window: timedelta = timedelta(days=7)
    max_runs: int = 10

    def __post_init__(self) -> None:
        if self.policy not in get_args(CatchUpPolicy):
            raise SpecError("catchup.policy", f"{self.policy!r} is none of {', '.join(get_args(CatchUpPolicy))}")
        check_duration(self.window, "catchup.window")
        if self.max_runs < 0:
            raise SpecError("catchup.max_runs", f"{self.max_runs} is negative: 0 catches nothing up")
        check_count(self.max_runs, "catchup.max_runs", 0)


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """A trigger as a deploy names it; `automation` None means it is fired by hand only."""

    name: str
    automation: Automation | None = None
    kickoff_time_input_arg: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    catchup: CatchUp = CatchUp()
    overlap: Overlap = "allow_all"
    pause_on_failure: int | None = None
    jitter: timedelta = timedelta(0)
    start: datetime | None = None
    end: datetime | None = None
    max_fires: int | None = None
    calendars: tuple[Calendar, ...] = ()
    active: bool = True
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.overlap not in get_args(Overlap):
            raise SpecError("overlap", f"{self.overlap!r} is none of {', '.join(get_args(Overlap))}")
        check_count(self.pause_on_failure, "pause_on_failure")
        check_count(self.max_fires, "max_fires")
        check_duration(self.jitter, "jitter")
        check_json(self.inputs, "inputs")
        check_text(self.kickoff_time_input_arg or "", "kickoff_time_input_arg", MAX_NAME)
        check_text(self.description, "description")
        for label, moment in (("start", self.start), ("end", self.end)):
            if moment is not None:
                from_datetime(moment, label)
        if self.start is not None and self.end is not None and self.end < self.start:
            raise SpecError("end", f"{self.end.isoformat()} is not after start")

    def to_document(self) -> dict[str, Any]:
        """The JSON form, defaults left out: what revisions keep and deploys are compared by."""
        document: dict[str, Any] = {"name": self.name}
        if self.automation is not None:
            document["automation"] = automation_to_document(self.automation)
        for member in fields(self):
            value = getattr(self, member.name)
            if member.name in ("name", "automation", "catchup") or value == _DEFAULTS[member.name]:
                continue
            if isinstance(value, timedelta):
                value = format_duration(value)
            elif isinstance(value, datetime):
                value = to_rfc3339(from_datetime(value))
            elif member.name == "calendars":
                value = [calendar_to_document(calendar) for calendar in value]
            elif isinstance(value, Mapping):
                value = dict(value)
            document[member.name] = value
        if self.catchup != CatchUp():
            document["catchup"] = {
                "policy": self.catchup.policy,
                "window": format_duration(self.catchup.window),
                "max_runs": self.catchup.max_runs,
            }
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> TriggerSpec:
        """The specification that `to_document` wrote."""
        values: dict[str, Any] = dict(document)
        if "automation" in values:
            values["automation"] = automation_from_document(values["automation"])
        if "catchup" in values:
            catchup = values["catchup"]
            values["catchup"] = CatchUp(
                catchup["policy"], parse_duration(catchup["window"], "catchup.window"), catchup["max_runs"]
            )
        if "jitter" in values:
            values["jitter"] = parse_duration(values["jitter"], "jitter")
        for label in ("start", "end"):
            if label in values:
                values[label] = to_datetime(parse_rfc3339(values[label], label))
        if "calendars" in values:
            values["calendars"] = tuple(calendar_from_document(calendar) for calendar in values["calendars"])
        return cls(**values)


_DEFAULTS: dict[str, Any] = {member.name: getattr(TriggerSpec(name="x"), member.name) for member in fields(TriggerSpec)}
