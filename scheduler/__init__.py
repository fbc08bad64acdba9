"""A cron scheduler: every slot fires exactly once, and missed runs are caught up with a cap.

    from scheduler import Cron, Scheduler, Trigger

Names are loaded at first use, so that `import scheduler` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scheduler.client import Client
    from scheduler.domain.automation import At, Cron, FixedRate, parse_schedule
    from scheduler.domain.identity import run_name
    from scheduler.domain.retry import RetryPolicy
    from scheduler.domain.trigger import CatchUp
    from scheduler.errors import (
        BadCron,
        BadRate,
        ConfigError,
        Conflict,
        IllegalTransition,
        LeaseLost,
        NeverFires,
        NotFound,
        RevisionConflict,
        SchedulerError,
        SchemaMismatch,
        SpecError,
        StoreError,
        StoreUnavailable,
        UnknownTimezone,
    )
    from scheduler.library import Scheduler
    from scheduler.loop.worker import Worker
    from scheduler.schedules import Trigger
    from scheduler.settings import Settings

__all__ = [
    "At",
    "BadCron",
    "BadRate",
    "CatchUp",
    "Client",
    "ConfigError",
    "Conflict",
    "Cron",
    "FixedRate",
    "IllegalTransition",
    "LeaseLost",
    "NeverFires",
    "NotFound",
    "RetryPolicy",
    "RevisionConflict",
    "Scheduler",
    "SchedulerError",
    "SchemaMismatch",
    "Settings",
    "SpecError",
    "StoreError",
    "StoreUnavailable",
    "Trigger",
    "UnknownTimezone",
    "Worker",
    "parse_schedule",
    "run_name",
]

_HOME: Final = {
    "At": "domain.automation",
    "CatchUp": "domain.trigger",
    "Client": "client",
    "Cron": "domain.automation",
    "FixedRate": "domain.automation",
    "RetryPolicy": "domain.retry",
    "Scheduler": "library",
    "Settings": "settings",
    "Trigger": "schedules",
    "Worker": "loop.worker",
    "parse_schedule": "domain.automation",
    "run_name": "domain.identity",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
