"""When schedules fire: values compiled into fast schedules over epoch seconds, with bounds, caches and jitter.

A compiled schedule knows nothing of now. It answers within 1970–2199 and never searches without bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from croniter import croniter

from scheduler.domain.cron_days import day_table
from scheduler.domain.cron_fields import CronFields, hash_items, may_hash, parse_cron
from scheduler.domain.cron_schedule import EVERY_READING, EXACTLY_ONCE, FIRST_READING, CronSchedule
from scheduler.domain.cron_times import LocalTimes
from scheduler.domain.instants import Micros, from_datetime
from scheduler.domain.simple_schedules import HORIZON, RateSchedule, Schedule, SingleSchedule, bounded
from scheduler.domain.zones import tzdata_version, zone_of
from scheduler.errors import NeverFires

if TYPE_CHECKING:
    from scheduler.domain.automation import Automation

__all__ = [
    "HORIZON",
    "Schedule",
    "bounded",
    "build_cron",
    "compile_at",
    "compile_cron",
    "compile_rate",
    "compile_schedule",
    "datetimes_between",
    "instant_of",
    "is_hashed",
    "jitter_of",
    "next_datetime",
    "parse_fields",
    "previous_datetime",
    "tzdata_version",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIELD_NAMES: Final = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")


def compile_schedule(automation: Automation, *, anchor: int | None = None, identity: str = "") -> Schedule:
    """The schedule of a trigger's automation, from a bounded cache.

    `anchor`: the stored activation in epoch seconds, from which a `FixedRate` without start time counts (`BadRate` if
    it is missing there, ignored elsewhere). `identity`: `project/domain/task/trigger`, what `H` hashes.
    """
    return automation.schedule(anchor, identity)


def compile_cron(expression: str, timezone: str, dialect: str, day_rule: str, dst: str, identity: str = "") -> Schedule:
    """The schedule of a cron expression without zone prefix; raises `BadCron`, `UnknownTimezone` or `NeverFires`."""
    # Only `H` looks at the identity: without it all triggers share one compiled schedule.
    if identity and not may_hash(expression):
        identity = ""
    return _compile_cron(expression, timezone, dialect, day_rule, dst, identity)


@lru_cache(maxsize=8192)
def _compile_cron(expression: str, timezone: str, dialect: str, day_rule: str, dst: str, identity: str) -> Schedule:
    return build_cron(expression, timezone, dialect, day_rule, dst, identity)


def build_cron(
    expression: str, timezone: str, dialect: str, day_rule: str, dst: str, identity: str = ""
) -> CronSchedule:
    """`compile_cron` past its cache."""
    fields = parse_fields(expression, dialect, identity)
    zone = zone_of(timezone)
    every = dst == "instant" or (dst == "once" and fields.interval)
    policy = EVERY_READING if every else EXACTLY_ONCE if dst == "once" else FIRST_READING
    times = LocalTimes(day_table(fields, day_rule), fields.hours, fields.minutes, fields.seconds, fields.years)
    schedule = CronSchedule(times, zone, policy)
    if schedule.next_after(-1) is None:
        raise NeverFires("cron", f"{expression!r} matches no time in 1970–2199")
    return schedule


def compile_rate(interval: int, start: int | None, anchor: int | None) -> RateSchedule:
    """Every `interval` seconds: at `start` first, or one interval after `anchor`."""
    if start is not None:
        return RateSchedule(start, interval)
    if anchor is None:
        raise AssertionError("a rate counts from a start or an anchor")
    return RateSchedule(anchor + interval, interval)


def compile_at(instant: int) -> SingleSchedule:
    """Once, at `instant`."""
    return SingleSchedule(instant)


def parse_fields(expression: str, dialect: str, identity: str = "") -> CronFields:
    """The sets of an expression, with `H` replaced by what the identity hashes to."""
    fields, hashed = hash_items(expression, dialect)
    if not hashed:
        return parse_cron(expression, dialect)
    for place, item in hashed:
        name = _FIELD_NAMES[place + 6 - len(fields)]
        fields[place] = _hashed(item, name, identity)
    # What replaces H is a text of numbers, so that the grammar above remains the only judge.
    return parse_cron(" ".join(fields), "standard")


def is_hashed(expression: str, dialect: str) -> bool:
    """Whether a field of the expression is an `H`, so that its fires differ from trigger to trigger."""
    return bool(hash_items(expression, dialect)[1])


def _hashed(item: str, name: str, identity: str) -> str:
    # croniter draws every field from one checksum, which couples them: `H H * * *` reaches 240 times of a day's 1,440.
    # A hash of its own for each field reaches them all. Which field it stands in no longer matters then, except for
    # the range, so the day, month and weekday fields are drawn in their own.
    place = {"second": 0, "minute": 0, "hour": 1, "day-of-month": 2, "month": 3, "day-of-week": 4}[name]
    expanded, _ = croniter.expand(
        " ".join(item if number == place else "*" for number in range(5)),
        hash_id=hashlib.sha256(f"{identity}#{name}".encode()).digest(),
    )
    return ",".join(str(number) for number in expanded[place])


def instant_of(reading: int, timezone: str) -> int:
    """The first instant at which clocks of a zone show a reading; the first after the gap where none does."""
    return zone_of(timezone).earliest(reading)


def next_datetime(schedule: Schedule, instant: datetime) -> datetime | None:
    """The earliest fire strictly after an aware datetime, in UTC."""
    fire = schedule.next_after(_floor(instant))
    return None if fire is None else _EPOCH + timedelta(0, fire)


def previous_datetime(schedule: Schedule, instant: datetime) -> datetime | None:
    """The latest fire strictly before an aware datetime, in UTC."""
    # 12:00:00.5 lies after the fire of 12:00:00.
    fire = schedule.previous_before(_floor(instant) + (instant.microsecond > 0))
    return None if fire is None else _EPOCH + timedelta(0, fire)


def datetimes_between(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """The fires in (after, until], oldest first, in UTC."""
    for fire in schedule.between(_floor(after), _floor(until)):
        yield _EPOCH + timedelta(0, fire)


def _floor(instant: datetime) -> int:
    if instant.tzinfo is None:
        from_datetime(instant)
    since = instant - _EPOCH
    return since.days * 86_400 + since.seconds


def jitter_of(trigger_identity: str, slot: int, jitter_us: Micros, next_slot: int | None) -> Micros:
    """How many microseconds after `slot` (epoch seconds) its run is due: at most `jitter_us`, before `next_slot`.

    A hash of trigger and slot, so that every worker computes the same and neighbours spread.
    """
    limit = jitter_us if next_slot is None else min(jitter_us, (next_slot - slot) * 1_000_000 - 1)
    if limit <= 0:
        return 0
    digest = hashlib.blake2s(f"{trigger_identity}@{slot}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % (limit + 1)
