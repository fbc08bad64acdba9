"""The executor that only says what would run: for first steps and for trying out schedules."""

from __future__ import annotations

from dataclasses import dataclass

from executors.protocol import Executor, Outcome, RunContext, Succeeded
from executors.templating import rfc3339


class LoggingExecutor(Executor):
    """Logs one line a run, with its trigger, slot and inputs, and succeeds."""

    @dataclass(frozen=True)
    class Config:
        """A task has nothing to say here."""

    async def execute(self, run: RunContext) -> Outcome:
        """Log `Firing trigger project/domain/name scheduled for 2026-11-21T02:00:00Z` and the inputs."""
        when = "by hand" if run.scheduled_at is None else f"scheduled for {rfc3339(run.scheduled_at)}"
        if run.inputs:
            run.log.info("Firing trigger %s %s with inputs %s", run.full_trigger, when, dict(run.inputs))
        else:
            run.log.info("Firing trigger %s %s", run.full_trigger, when)
        return Succeeded()
