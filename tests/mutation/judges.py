"""The files into which mistakes are planted, and by which tests each is judged, those that say most about it first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

JUDGES: Final[Mapping[str, tuple[str, ...]]] = {
    "scheduler/domain/overlap.py": ("unit/domain/test_planning", "integration/test_overlap"),
    "scheduler/domain/planning.py": (
        "unit/domain/test_planning",
        "integration/test_catch_up",
        "integration/test_snooze_and_skip",
        "integration/test_clock",
    ),
    "scheduler/domain/settling.py": ("unit/domain/test_settling", "integration/test_slots_kept_by_edits"),
    "scheduler/services/finish.py": (
        "integration/test_endings",
        "integration/test_notices",
        "integration/test_runs",
        "integration/test_waits",
    ),
    "scheduler/services/fire.py": (
        "integration/test_fire",
        "integration/test_notices",
        "integration/test_overlap",
        "integration/test_set_aside",
        "integration/test_snooze_and_skip",
    ),
    "scheduler/services/plan.py": (
        "integration/test_slots_kept_by_edits",
        "integration/test_schedule_changes",
        "integration/test_snooze_and_skip",
        "integration/test_set_aside",
        "integration/test_zone_data",
        "integration/test_overlap",
    ),
    "scheduler/services/recover.py": (
        "integration/test_endings",
        "integration/test_notices",
        "integration/test_runs",
        "integration/test_concurrency",
    ),
    "scheduler/services/take.py": (
        "integration/test_executions",
        "integration/test_turns",
        "integration/test_runs",
        "integration/test_concurrency",
    ),
    "scheduler/store/gates.py": ("integration/test_turns", "integration/test_cancel", "integration/test_concurrency"),
    "scheduler/store/run_endings.py": (
        "integration/test_endings",
        "integration/test_runs",
        "integration/test_cancel",
        "integration/test_counting",
        "integration/test_concurrency",
    ),
    "scheduler/store/run_lookups.py": (
        "integration/test_turns",
        "integration/test_listings",
        "integration/test_queries",
        "integration/test_cancel",
        "integration/test_backfill",
    ),
    "scheduler/store/run_results.py": (
        "integration/test_endings",
        "integration/test_runs",
        "integration/test_counting",
    ),
    "scheduler/store/runs.py": (
        "integration/test_run_rows",
        "integration/test_turns",
        "integration/test_counting",
        "integration/test_cancel",
        "integration/test_concurrency",
    ),
    "scheduler/store/waits.py": ("integration/test_wait_rows", "integration/test_waits", "integration/test_counting"),
    "scheduler/store/workers.py": ("integration/test_workers", "integration/test_runs"),
}


def judges_of(file: str) -> tuple[str, ...]:
    """The test files that judge a file, in their order."""
    return tuple(f"tests/{name}.py" for name in JUDGES[file])
