"""The calendars of a manifest: defined by name for all files, or written in full where a trigger uses them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final, cast, get_args

from scheduler.domain.calendars import BlackoutPolicy, Calendar
from scheduler.domain.identity import check_name
from scheduler.errors import SpecError
from scheduler.reading.section import Section
from scheduler.reading.texts import quoted

CALENDAR: Final = frozenset({"dates", "policy"})
"""The keys of a calendar that is defined by name."""

_IN_FULL: Final = CALENDAR | {"name"}
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class NamedCalendar(Calendar):
    """A calendar by its name only: its dates may stand in a file that is read later."""


def read_calendar(section: Section, name: str) -> Calendar | None:
    """The calendar that a section describes; None where something in it is wrong, which is reported."""
    report, before = section.report, section.report.faults
    try:
        check_name(name, "name")
    except SpecError as error:
        report.add(section.path, error.reason)
    policy = section.choice("policy", get_args(BlackoutPolicy), "skip")
    section.require("dates")
    dates = set()
    for place, text in section.texts("dates"):
        try:
            if _DATE.fullmatch(text):
                dates.add(date.fromisoformat(text))
                continue
        except ValueError:
            pass
        report.add(place, f"{quoted(text)} is not a date like 2026-12-25")
    if report.faults > before:
        return None
    return Calendar(name, frozenset(dates), cast(BlackoutPolicy, policy))


def read_calendars(trigger: Section) -> tuple[Calendar, ...]:
    """The calendars that a trigger names or holds; what is wrong with them is reported."""
    found: list[Calendar] = []
    for path, item in trigger.items("calendars"):
        if isinstance(item, str):
            try:
                found.append(NamedCalendar(item))
            except SpecError as error:
                trigger.report.add(path, error.reason)
        elif isinstance(item, dict):
            section = Section(trigger.report, path, item, _IN_FULL)
            calendar = read_calendar(section, section.text("name")) if section.require("name") else None
            if calendar is not None:
                found.append(calendar)
        else:
            trigger.report.wrong_type(path, item, "a calendar's name")
    return tuple(found)
