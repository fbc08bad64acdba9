"""The files into which mistakes are planted, and by which tests each is judged: all that say what it is to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_UNIT: Final = "tests/unit/domain/"
_WHOLE: Final = "tests/integration/"

_SLOTS: Final = (
    f"{_UNIT}test_planning.py",
    f"{_UNIT}test_settling.py",
    f"{_WHOLE}test_catch_up.py",
    f"{_WHOLE}test_overlap.py",
)
_PLANS: Final = (
    f"{_WHOLE}test_schedule_changes.py",
    f"{_WHOLE}test_slots_kept_by_edits.py",
    f"{_WHOLE}test_snooze_and_skip.py",
    f"{_WHOLE}test_set_aside.py",
    f"{_WHOLE}test_zone_data.py",
)
_TAKING: Final = (
    f"{_WHOLE}test_runs.py",
    f"{_WHOLE}test_turns.py",
    f"{_WHOLE}test_overlap.py",
    f"{_WHOLE}test_cancel.py",
    f"{_WHOLE}test_notices.py",
    f"{_WHOLE}test_concurrency.py",
    f"{_WHOLE}test_counting.py",
)
_ENDING: Final = (
    f"{_WHOLE}test_endings.py",
    f"{_WHOLE}test_runs.py",
    f"{_WHOLE}test_cancel.py",
    f"{_WHOLE}test_notices.py",
)
_STORIES: Final = ("tests/simulation/test_found.py",)
_WAITING: Final = (f"{_WHOLE}test_wait_rows.py", f"{_WHOLE}test_waits.py")

JUDGES: Final[Mapping[str, tuple[str, ...]]] = {
    "scheduler/domain/overlap.py": _SLOTS,
    "scheduler/domain/planning.py": _SLOTS,
    "scheduler/domain/settling.py": (*_SLOTS, *_PLANS),
    "scheduler/services/fire.py": (
        f"{_WHOLE}test_fire.py",
        f"{_WHOLE}test_notices.py",
        f"{_WHOLE}test_set_aside.py",
        *_SLOTS,
        f"{_WHOLE}test_clock.py",
        f"{_WHOLE}test_snooze_and_skip.py",
    ),
    "scheduler/services/plan.py": (*_PLANS, *_SLOTS, f"{_WHOLE}test_clock.py", *_STORIES),
    "scheduler/services/take.py": (*_TAKING, f"{_WHOLE}test_waits.py"),
    "scheduler/services/finish.py": (*_ENDING, *_STORIES, f"{_WHOLE}test_waits.py"),
    "scheduler/services/recover.py": (*_ENDING, *_STORIES, f"{_WHOLE}test_concurrency.py"),
    "scheduler/store/gates.py": _TAKING,
    "scheduler/store/run_endings.py": (
        *_ENDING,
        *_STORIES,
        f"{_WHOLE}test_concurrency.py",
        f"{_WHOLE}test_counting.py",
    ),
    "scheduler/store/run_lookups.py": (
        *_TAKING,
        f"{_WHOLE}test_backfill.py",
        f"{_WHOLE}test_clock.py",
        f"{_WHOLE}test_listings.py",
        f"{_WHOLE}test_queries.py",
    ),
    "scheduler/store/run_results.py": (*_ENDING, *_STORIES, f"{_WHOLE}test_counting.py"),
    "scheduler/store/runs.py": (
        f"{_WHOLE}test_run_rows.py",
        *_TAKING,
        f"{_WHOLE}test_catch_up.py",
        f"{_WHOLE}test_clock.py",
    ),
    "scheduler/store/waits.py": (*_WAITING, f"{_WHOLE}test_counting.py"),
    "scheduler/store/workers.py": (f"{_WHOLE}test_workers.py", f"{_WHOLE}test_runs.py", f"{_WHOLE}test_queries.py"),
}
