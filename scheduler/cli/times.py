"""Instants as people read them: in the zone of the trigger they belong to, with the offset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any

from scheduler.domain.cron_text import split_zone
from scheduler.domain.instants import (
    SECOND,
    Micros,
    format_duration,
    to_datetime,
)
from scheduler.domain.zones import Zone, zone_of
from scheduler.errors import NotFound, SpecError

if TYPE_CHECKING:
    from scheduler.client import Client
    from scheduler.settings import Defaults


def utc() -> Zone:
    """The zone of whatever has no zone of its own."""
    return zone_of("UTC")


def local(instant: Micros | None, zone: Zone) -> str | None:
    """`reading` of an instant that may not be there."""
    return None if instant is None else reading(instant, zone)


def reading(instant: Micros, zone: Zone) -> str:
    """`2026-11-21 03:00:00+01:00`, whole seconds."""
    offset = timezone(timedelta(seconds=zone.offset_at(instant // SECOND)))
    return to_datetime(instant).astimezone(offset).isoformat(sep=" ", timespec="seconds")


def took(start: Micros | None, end: Micros | None) -> str | None:
    """How long something lasted, as exactly as people care: `0.21s`, `12s`, `1h5m`."""
    if start is None or end is None or end < start:
        return None
    lasted = end - start
    if lasted < 10 * SECOND:
        return f"{lasted / SECOND:.2f}s"
    return format_duration(timedelta(seconds=round(lasted / SECOND)))


def ago(instant: Micros | None, now: Micros) -> str | None:
    """How long ago, or in how long, to one unit: `2 min ago`, `in 3 h`, `now`."""
    if instant is None:
        return None
    away = abs(instant - now) // SECOND
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        # Two days are told in days, thirty hours in hours: the smaller unit as long as its number is short.
        if away >= (seconds if unit != "d" else 2 * seconds):
            count = away // seconds
            return f"{count} {unit} ago" if instant < now else f"in {count} {unit}"
    return "now"


def default_zone(defaults: Defaults) -> Zone:
    """The zone of times that belong to no one trigger."""
    return zone_of(defaults.timezone)


def common_zone(zones: Iterable[Zone], defaults: Defaults) -> Zone:
    """The one zone in which a table shows its times: that of all its rows, or the settings' default where they differ.

    Rows in UTC, and those without a zone, follow the others.
    """
    found = {zone.name: zone for zone in zones if zone.name != "UTC"}
    return next(iter(found.values())) if len(found) == 1 else default_zone(defaults)


def zone_of_document(automation: object) -> Zone:
    """The zone of an automation document; UTC for what has none, and for what plain SQL wrote wrongly."""
    cron = automation.get("cron") if isinstance(automation, Mapping) else None
    expression = cron.get("expression") if isinstance(cron, Mapping) else cron
    try:
        inline = split_zone(expression)[0] if isinstance(expression, str) else None
        named = cron.get("timezone") if isinstance(cron, Mapping) else None
        return zone_of(inline or str(named or "UTC"))
    except SpecError:
        return utc()


def schedule_text(automation: object) -> str:
    """An automation document in a few words: `0 2 * * * (Europe/Paris)`, `rate(5 minutes)`, `by hand`."""
    from scheduler.domain.automation import Cron, automation_from_document

    if automation is None:
        return "by hand"
    try:
        schedule = automation_from_document(automation)
    except SpecError:
        return json.dumps(automation, ensure_ascii=False)
    if isinstance(schedule, Cron) and schedule.timezone != "UTC":
        return f"{schedule.expression} ({schedule.timezone})"
    return str(schedule)


def described(automation: object, identity: str) -> str | None:
    """The schedule in plain English; None where there is none, or none that can be read."""
    from scheduler.domain.automation import automation_from_document, describe

    if automation is None:
        return None
    try:
        return describe(automation_from_document(automation), identity)
    except SpecError:
        return None


class TriggerZones:
    """The zones of the triggers that rows name, each looked up once; UTC for triggers that are gone."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[tuple[str, str, str, str], Zone] = {}

    def of(self, row: Mapping[str, Any]) -> Zone:
        """The zone of the trigger of a run."""
        from scheduler.cli.keys import TriggerKey

        if row["trigger"] is None:
            return utc()
        key = TriggerKey(row["project"], row["domain"], row["task"], row["trigger"])
        if key not in self._known:
            try:
                self._known[key] = zone_of_document(self._client.show_trigger(key)["automation"])
            except NotFound:
                self._known[key] = utc()
        return self._known[key]
