"""The triggers of a manifest: each schedule's parts judged one by one, then built by the domain."""

from __future__ import annotations

from typing import Any, Final, cast, get_args

from scheduler.domain.automation import Automation, DayRule, Dialect, DstPolicy, RateUnit, automation_from_document
from scheduler.domain.cron_text import split_zone
from scheduler.domain.trigger import CatchUp, CatchUpPolicy, Overlap, TriggerSpec
from scheduler.domain.zones import zone_of
from scheduler.errors import SpecError
from scheduler.reading.manifest_calendars import read_calendars
from scheduler.reading.section import Section
from scheduler.reading.texts import parse_path, quoted

_KINDS: Final = ("cron", "fixed_rate", "every", "at")
TRIGGER: Final = frozenset(
    {
        "name",
        *_KINDS,
        "kickoff_time_input_arg",
        "inputs",
        "catchup",
        "overlap",
        "pause_on_failure",
        "jitter",
        "start",
        "end",
        "max_fires",
        "calendars",
        "active",
        "description",
    }
)
"""The keys of a trigger."""

_COMMON: Final = frozenset({"name", *_KINDS})
_CATCHUP: Final = frozenset({"policy", "window", "max_runs"})
_CRON: Final = frozenset({"expression", "timezone", "dialect", "day_rule", "dst"})
_FIXED_RATE: Final = frozenset({"value", "unit", "start_time"})
_CATCH_UP: Final = CatchUp()
_DEFAULT: Final = TriggerSpec(name="none")


def read_trigger(trigger: Section, default_timezone: str) -> TriggerSpec | None:
    """The trigger that a section describes; None where something in it is wrong, which is reported."""
    report, before = trigger.report, trigger.report.faults
    name = trigger.name("name") if trigger.require("name") else ""
    automation = _automation(trigger, default_timezone)
    parts: dict[str, Any] = {}
    # Most triggers say no more than when they fire; what they leave out need not be looked for.
    if not _COMMON.issuperset(trigger.values):
        parts = {
            "inputs": trigger.mapping("inputs"),
            "catchup": _catchup(trigger.section("catchup", _CATCHUP)),
            "overlap": trigger.choice("overlap", get_args(Overlap), _DEFAULT.overlap),
            "pause_on_failure": trigger.whole("pause_on_failure", None, 1),
            "jitter": trigger.duration("jitter", _DEFAULT.jitter),
            "start": trigger.instant("start"),
            "end": trigger.instant("end"),
            "max_fires": trigger.whole("max_fires", None, 1, 2**31 - 1),
            "calendars": read_calendars(trigger),
            "active": trigger.flag("active", True),
            "description": trigger.text("description"),
        }
        if trigger.values.get("kickoff_time_input_arg") is not None:
            parts["kickoff_time_input_arg"] = trigger.name("kickoff_time_input_arg")
    if report.faults > before:
        return None
    try:
        return TriggerSpec(name=name, automation=automation, **parts)
    except SpecError as error:
        report.add((*trigger.path, *parse_path(error.field)), error.reason)
        return None


def _catchup(section: Section) -> CatchUp:
    if not section.values:
        return _CATCH_UP
    return CatchUp(
        policy=cast(CatchUpPolicy, section.choice("policy", get_args(CatchUpPolicy), _CATCH_UP.policy)),
        window=section.duration("window", _CATCH_UP.window),
        max_runs=section.whole("max_runs", _CATCH_UP.max_runs, 0),
    )


def _automation(trigger: Section, default_timezone: str) -> Automation | None:
    kinds = [kind for kind in _KINDS if kind in trigger.values]
    if len(kinds) > 1:
        trigger.report.add(trigger.path, f"has {' and '.join(kinds)}: a trigger has exactly one of them, or none")
    if len(kinds) != 1 or not trigger.require(kinds[0]):
        return None
    kind, before = kinds[0], trigger.report.faults
    value: object = trigger.values[kind]
    if kind == "cron" and not isinstance(value, str):
        value = _cron_parts(trigger.section(kind, _CRON))
    elif kind == "fixed_rate":
        _check_rate(trigger.section(kind, _FIXED_RATE))
    elif kind == "every" and not isinstance(value, str):
        trigger.duration(kind, None)
    else:
        trigger.text(kind)
    if value is None or (trigger.report.faults > before and kind != "cron"):
        return None
    try:
        return automation_from_document({kind: value}, default_timezone=default_timezone)
    except SpecError as error:
        trigger.report.add((*trigger.path, kind, *_below(error.field, kind, value)), error.reason)
        return None


def _cron_parts(cron: Section) -> dict[str, str] | None:
    """The parts of a cron that are right: what remains of the expression is judged even beside a wrong zone."""
    if not cron.given:
        return None
    good: dict[str, str] = {}
    for part, allowed in (("dialect", Dialect), ("day_rule", DayRule), ("dst", DstPolicy)):
        before = cron.report.faults
        choice = cron.choice(part, get_args(allowed), "") if cron.values.get(part) is not None else ""
        if choice and cron.report.faults == before:
            good[part] = choice
    zone = cron.text("timezone")
    if zone and _zone_is_known(cron, zone):
        good["timezone"] = zone
    elif cron.values.get("timezone") == "":
        cron.fault("timezone", "is empty: write an IANA name such as Europe/Paris")
    before = cron.report.faults
    expression = cron.text("expression") if cron.require("expression") else ""
    if cron.report.faults > before:
        return None
    good["expression"] = expression
    _check_one_zone(cron, good)
    return good


def _zone_is_known(cron: Section, zone: str) -> bool:
    try:
        zone_of(zone)
    except SpecError as error:
        cron.fault("timezone", error.reason)
        return False
    return True


def _check_one_zone(cron: Section, good: dict[str, str]) -> None:
    try:
        inline, _ = split_zone(good["expression"])
    except SpecError:
        return  # Told once, when the expression is read.
    if inline is not None and good.get("timezone", inline) != inline:
        zone = quoted(good.pop("timezone"))
        cron.fault("timezone", f"{zone} contradicts {quoted(inline)} in the expression: name one zone")


def _check_rate(rate: Section) -> None:
    if not rate.given:
        return
    if rate.require("value"):
        rate.whole("value", 1, 1, 10**10)
    if rate.require("unit"):
        rate.choice("unit", get_args(RateUnit), "second")
    rate.instant("start_time")


def _below(field: str, kind: str, value: object) -> tuple[str | int, ...]:
    """The part of an automation that an error's field means, as far as the file has such a part."""
    parts = parse_path(field)
    if parts[:1] == (kind,):
        parts = parts[1:]
    return parts if isinstance(value, dict) and parts and parts[0] in value else ()
