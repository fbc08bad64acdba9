"""What each run should be: a second, plain bookkeeping of takes, ends, losses and fences, kept beside the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from scheduler.domain.instants import Micros
from scheduler.domain.retry import delay_after_loss
from scheduler.domain.run import Phase
from scheduler.services.finish import Ended, Finished
from scheduler.services.recover import Recovered
from scheduler.store.runs import TakenRun


@dataclass
class RunModel:
    """One run as it should stand in the database."""

    name: str
    trigger_id: int
    slot: Micros
    late: bool
    not_before: Micros
    created_at: Micros
    max_attempts: int
    phase: Phase = Phase.QUEUED
    owner: str | None = None
    fence: int = 0
    attempt: int = 1
    lost: int = 0
    started: bool = False
    recorded: list[Phase] = field(default_factory=list)


@dataclass
class RunsModel:
    """All runs of a world. Every method checks that what happened was allowed, and raises `AssertionError` if not."""

    lease: Micros
    max_lost: int
    runs: dict[str, RunModel] = field(default_factory=dict)

    def add(self, run: RunModel) -> None:
        assert run.name not in self.runs, f"{run.name} was made twice"
        self.runs[run.name] = run

    def taken(self, taken: Iterable[TakenRun], owner: str, now: Micros) -> None:
        for item in taken:
            run = self.runs[item.name]
            assert run.phase is Phase.QUEUED, f"{run.name} was taken while {run.phase}"
            assert run.not_before <= now, f"{run.name} was taken before its time"
            run.phase, run.owner, run.started = Phase.RUNNING, owner, True
            run.fence += 1
            assert (item.fence, item.attempt, item.lost) == (run.fence, run.attempt, run.lost), f"{run.name} is {item}"

    def ready(self, now: Micros) -> set[str]:
        return {run.name for run in self.runs.values() if run.phase is Phase.QUEUED and run.not_before <= now}

    def finished(self, ended: Iterable[Ended], finished: Finished, now: Micros) -> None:
        for item in ended:
            name, fence = item.execution.run.name, item.execution.run.fence
            run = self.runs[name]
            rightful = run.fence == fence and run.phase.open
            assert finished.counts(item) == rightful, f"{name} at fence {fence} counted wrongly: {run}"
            if not rightful:
                continue
            again = item.phase is not Phase.SUCCEEDED and item.retryable and run.attempt < run.max_attempts
            assert (name in finished.retried) == again, f"{name} was retried wrongly: {run}"
            run.recorded.append(item.phase)
            run.owner = None
            run.fence += 1
            run.phase = Phase.QUEUED if again else item.phase
            run.attempt += again

    def retry_waits(self, waits: dict[str, Micros]) -> None:
        """Back-off is tested elsewhere: a retry's instant is taken as the database has it."""
        for name, at in waits.items():
            self.runs[name].not_before = at

    def handed_back(self, owner: str, held: Iterable[tuple[str, int]], now: Micros) -> int:
        count = 0
        for name, fence in held:
            run = self.runs[name]
            if run.owner == owner and run.fence == fence:
                run.phase, run.owner, run.not_before = Phase.QUEUED, None, now
                count += 1
        return count

    def recovered(self, recovered: Recovered, living: set[str], now: Micros) -> None:
        orphans = [run for run in self.runs.values() if run.owner is not None and run.owner not in living]
        failed = {run.name for run in orphans if run.lost + 1 >= self.max_lost}
        assert set(recovered.failed) == failed
        assert set(recovered.requeued) == {run.name for run in orphans} - failed
        for run in orphans:
            run.owner = None
            run.lost += 1
            if run.name in failed:
                run.phase = Phase.FAILED
                run.fence += 1
                run.recorded.append(Phase.FAILED)
            else:
                run.phase = Phase.QUEUED
                run.not_before = now + delay_after_loss(run.name, run.lost, self.lease)

    def silenced(self, trigger_id: int) -> None:
        for run in self.runs.values():
            if run.trigger_id == trigger_id and run.phase is Phase.QUEUED and not run.started:
                run.phase = Phase.ABORTED
                run.fence += 1

    def released(self, now: Micros, beyond: Micros) -> None:
        for run in self.runs.values():
            if run.phase is Phase.QUEUED and run.not_before > now and run.created_at > beyond:
                run.not_before = now
