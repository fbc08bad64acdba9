"""Schedules in plain English."""

from __future__ import annotations

from scheduler.domain.cron_fields import CronFields


def describe_cron(fields: CronFields, timezone: str, day_rule: str) -> str:
    """`At 02:00, Monday to Friday (Europe/Paris)`."""
    raise NotImplementedError


def describe_rate(value: int, unit: str) -> str:
    """`Every 5 minutes`."""
    return f"Every {unit}" if value == 1 else f"Every {value:,} {unit}s"
