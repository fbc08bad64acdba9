"""What each run should be: a second, plain bookkeeping of takes, ends, losses and fences, kept beside the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from scheduler.domain.instants import Micros
from scheduler.domain.retry import delay_after_loss
from scheduler.domain.run import Phase
from scheduler.services.finish import Ended, Finished
from scheduler.services.recover import Recovered
from scheduler.services.take import Execution
from scheduler.store.runs import TakenRun

FAILURES = (Phase.FAILED, Phase.TIMED_OUT)


@dataclass(frozen=True)
class Spec:
    """What a version of a task says about its runs."""

    executor: str
    max_attempts: int = 1
    on_lost: str = "retry"
    deadline: Micros | None = None
    limit: int | None = None


@dataclass
class RunModel:
    """One run as it should stand in the database."""

    name: str
    task: str
    trigger_id: int
    slot: Micros | None
    turn: int
    not_before: Micros
    created_at: Micros
    version: str
    spec: Spec
    serial: bool = False
    covers: tuple[Micros, Micros] | None = None
    deadline_at: Micros | None = None
    phase: Phase = Phase.QUEUED
    owner: str | None = None
    fence: int = 0
    attempt: int = 1
    known_ends: int = 0
    lost: int = 0
    started: bool = False
    # Somebody wants it to end, and its code has not ended yet.
    unwanted: bool = False
    reopened: bool = False
    recorded: list[Phase] = field(default_factory=list)
    # The attempts that were under way when an execution was lost, by the number of the loss.
    losses: dict[int, int] = field(default_factory=dict)

    @property
    def late(self) -> bool:
        return self.turn > 0

    @property
    def scheduled(self) -> bool:
        return self.slot is not None

    @property
    def rank(self) -> tuple[int, Micros]:
        """Who starts first: by turn over the triggers, then by age."""
        return self.turn, self.not_before

    @property
    def key(self) -> str:
        """What a target sees: another name only after an end that everybody knows of."""
        return self.name + (f"-{self.known_ends + 1}" if self.known_ends else "")

    def ends(self, phase: Phase) -> None:
        """It is over, and whatever still comes of it does not count."""
        self.phase, self.owner = phase, None
        self.fence += 1


def tried_again_at(item: Ended, now: Micros) -> Micros | None:
    """When there is to be another attempt; how long it waits for that is tested elsewhere."""
    run, spec = item.execution.run, item.execution.spec
    if item.phase not in FAILURES or not item.retryable or run.attempt >= spec.retries.max_attempts:
        return None
    at = now + spec.retries.delay(run.attempt, run.name)
    return None if run.deadline_at is not None and at >= run.deadline_at else at


@dataclass
class RunsModel:
    """All runs of a world. Every method checks that what happened was allowed, and raises `AssertionError` if not."""

    lease: Micros
    max_lost: int
    runs: dict[str, RunModel] = field(default_factory=dict)
    # How many runs of a task may be under way, as its last deploy says.
    limits: dict[str, int | None] = field(default_factory=dict)

    def add(self, run: RunModel) -> None:
        assert run.name not in self.runs, f"{run.name} was made twice"
        if run.spec.deadline is not None:
            run.deadline_at = max(run.created_at, run.not_before) + run.spec.deadline
        self.runs[run.name] = run

    def open(self) -> list[RunModel]:
        return [run for run in self.runs.values() if run.phase.open]

    def open_scheduled(self, trigger_id: int) -> list[RunModel]:
        """The runs by which a trigger's overlap is judged."""
        return [run for run in self.open() if run.trigger_id == trigger_id and run.scheduled]

    def under_way(self, task: str) -> int:
        """How many runs of a task count for its limit."""
        return sum(run.task == task and run.phase in (Phase.RUNNING, Phase.DEFERRED) for run in self.runs.values())

    # --- starting ----------------------------------------------------------------------------------------------------

    def is_gated(self, run: RunModel) -> bool:
        """Whether the run has to wait for a turn: of its task or of its trigger."""
        return run.serial or self.limits.get(run.task) is not None

    def ready(self, now: Micros, executors: Collection[str], *, late: bool) -> list[RunModel]:
        """Runs that wait for nobody, in the order in which they should start."""
        return [run for run in self._waiting(now, executors, late=late) if not self.is_gated(run)]

    def contenders(self, now: Micros, executors: Collection[str], *, late: bool) -> list[RunModel]:
        """Runs that only their task's limit may keep from starting, in the order in which they should."""
        waiting = self._waiting(now, executors, late=late)
        return [run for run in waiting if self.is_gated(run) and not self.is_behind(run)]

    def room(self, task: str) -> int:
        """How many more runs of a task may start."""
        limit = self.limits.get(task)
        return 1_000_000 if limit is None else max(0, limit - self.under_way(task))

    def is_behind(self, run: RunModel) -> bool:
        """Whether an earlier run of the trigger is to end first."""
        others = [other for other in self.open_scheduled(run.trigger_id) if other is not run] if run.serial else []
        return any(other.phase is not Phase.QUEUED or (other.slot or 0) < (run.slot or 0) for other in others)

    def _waiting(self, now: Micros, executors: Collection[str], *, late: bool) -> list[RunModel]:
        waiting = [
            run
            for run in self.runs.values()
            if run.phase is Phase.QUEUED
            and run.not_before <= now
            and (run.deadline_at is None or run.deadline_at > now)
            and run.late == late
            and run.spec.executor in executors
        ]
        return sorted(waiting, key=lambda run: run.rank)

    def taken(self, taken: Iterable[TakenRun], owner: str, now: Micros) -> None:
        for item in taken:
            run = self.runs[item.name]
            assert run.phase is Phase.QUEUED, f"{run.name} was taken while {run.phase}"
            assert run.not_before <= now, f"{run.name} was taken before its time"
            assert not self.is_behind(run), f"{run.name} was taken before its turn"
            limit = self.limits.get(run.task)
            assert limit is None or self.under_way(run.task) < limit, f"{run.name} was taken over its task's limit"
            run.phase, run.owner, run.started = Phase.RUNNING, owner, True
            run.fence += 1
            should = (run.fence, run.attempt, run.lost, run.known_ends, run.version, run.deadline_at, run.turn)
            is_so = (
                item.fence,
                item.attempt,
                item.lost,
                item.known_ends,
                item.version,
                item.deadline_at,
                item.priority,
            )
            assert is_so == should, f"{run.name} was taken as {is_so}, should be {should}"

    def begins(self, execution: Execution) -> None:
        """The code of an attempt is about to run."""
        run, spec = self.runs[execution.run.name], execution.spec
        assert execution.key == run.key, f"{run.name} is executed under {execution.key}, not {run.key}"
        deadline = None if spec.deadline is None else round(spec.deadline.total_seconds() * 1_000_000)
        said = Spec(spec.executor, spec.retries.max_attempts, spec.on_lost, deadline, spec.max_concurrent_runs)
        assert said == run.spec, f"{run.name} pinned {run.spec}, is executed by {said}"

    # --- ending ------------------------------------------------------------------------------------------------------

    def finished(self, ended: Iterable[Ended], finished: Finished, valid: Collection[str], now: Micros) -> None:
        """`valid` are the incarnations whose word counts."""
        for item in ended:
            name, fence = item.execution.run.name, item.execution.run.fence
            run = self.runs.get(name)
            rightful = run is not None and run.fence == fence and run.phase.open and item.execution.run.owner in valid
            assert finished.counts(item) == rightful, f"{name} at fence {fence} counted wrongly: {run}"
            if run is None or not rightful:
                continue
            again_at = tried_again_at(item, now)
            run.recorded.append(item.phase)
            run.known_ends += item.known and item.phase is Phase.FAILED
            if again_at is not None and not run.unwanted:
                run.ends(Phase.QUEUED)
                run.attempt += 1
                run.not_before = again_at
            else:
                # The first answer wins against a cancel, unless it asks for more.
                run.ends(Phase.ABORTED if again_at is not None else item.phase)
            assert (name in finished.retried) == (run.phase is Phase.QUEUED), f"{name} was retried wrongly: {run}"

    def handed_back(self, owner: str, held: Iterable[tuple[str, int]], now: Micros) -> int:
        count = 0
        for name, fence in held:
            run = self.runs.get(name)
            if run is not None and run.owner == owner and run.fence == fence:
                count += 1
                if run.unwanted:
                    run.ends(Phase.ABORTED)
                else:
                    run.phase, run.owner, run.not_before = Phase.QUEUED, None, now
        return count

    def orphans(self, living: set[str]) -> list[RunModel]:
        return [run for run in self.runs.values() if run.owner is not None and run.owner not in living]

    def recovered(self, recovered: Recovered, living: set[str], now: Micros) -> None:
        ended = set()
        for run in (orphans := self.orphans(living)):
            run.lost += 1
            if run.unwanted or run.lost >= self.max_lost or run.spec.on_lost == "fail":
                run.ends(Phase.ABORTED if run.unwanted else Phase.FAILED)
                run.recorded.append(run.phase)
                ended.add(run.name)
            else:
                run.phase, run.owner = Phase.QUEUED, None
                run.not_before = now + self._apart(run)
                run.losses[run.lost] = run.attempt
        assert set(recovered.failed) == ended
        assert set(recovered.requeued) == {run.name for run in orphans} - ended

    def _apart(self, run: RunModel) -> Micros:
        """How long a lost run waits: not at all the first time, and then so that not all begin together."""
        delay = delay_after_loss(run.name, run.lost, self.lease)
        shortest = 0 if run.lost == 1 else self.lease * 2 ** (run.lost - 2)
        assert shortest <= delay <= shortest + (run.lost > 1) * self.lease
        return delay

    def overdue(self, now: Micros) -> list[RunModel]:
        """Queued runs whose deadline is over."""
        queued = [run for run in self.runs.values() if run.phase is Phase.QUEUED]
        return [run for run in queued if run.deadline_at is not None and run.deadline_at <= now]

    def silenced(self, trigger_id: int) -> None:
        for run in self.open_scheduled(trigger_id):
            if run.phase is Phase.QUEUED and not run.started:
                run.ends(Phase.ABORTED)

    def cancelled(self, run: RunModel) -> None:
        """Somebody wants it to end: at once if nobody executes it, else when its code has ended."""
        if run.phase is Phase.QUEUED:
            run.ends(Phase.ABORTED)
        else:
            run.unwanted = True

    def aborted(self) -> None:
        """All that is open is over."""
        for run in self.open():
            run.ends(Phase.ABORTED)

    # --- beginning again ---------------------------------------------------------------------------------------------

    def reopen(self, run: RunModel, now: Micros) -> None:
        """Somebody wants one more attempt."""
        run.ends(Phase.QUEUED)
        run.attempt, run.turn, run.not_before = len(run.recorded) + 1, 0, now
        run.deadline_at = None if run.spec.deadline is None else now + run.spec.deadline
        run.unwanted, run.reopened = False, True

    def released(self, now: Micros, beyond: Micros) -> None:
        for run in self.runs.values():
            if run.phase is Phase.QUEUED and run.not_before > now and run.created_at > beyond:
                run.not_before = now

    def keeps_failing(self, trigger_id: int, since: Micros, times: int) -> bool:
        """Whether the newest runs of slots after that instant, as many as that, all failed."""
        closed = [
            run
            for run in self.runs.values()
            if run.trigger_id == trigger_id
            and run.slot is not None
            and run.slot > since
            and (run.phase in FAILURES or run.phase is Phase.SUCCEEDED)
        ]
        newest = sorted(closed, key=lambda run: run.slot or 0)[-times:]
        return len(newest) == times and all(run.phase in FAILURES for run in newest)
