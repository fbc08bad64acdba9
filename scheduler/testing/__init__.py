"""For tests of one's own executors and schedules: a clock that is moved by hand, and a worker that works when told to.

    executor = RecordingExecutor()
    with Harness(executor) as harness:
        harness.deploy(Trigger(project="p", domain="d", task="report", name="hourly", automation=Cron("0 * * * *")))
        ended = harness.tick("3h")
        assert [run.phase for run in ended] == ["SUCCEEDED"] * 3

Everything is real but the time: the database (a SQLite file of its own), the planning, the retries, the leases. Nothing
happens between two calls, nothing runs in another thread, and the same calls always do the same.
"""

from __future__ import annotations

from scheduler.testing.clock import ManualClock
from scheduler.testing.harness import Harness
from scheduler.testing.recording import RecordingExecutor
from scheduler.testing.seen import Attempt, Pruned, Ran, Run, Skipped

__all__ = ["Attempt", "Harness", "ManualClock", "Pruned", "Ran", "RecordingExecutor", "Run", "Skipped"]
