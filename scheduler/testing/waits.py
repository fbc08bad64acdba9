"""The waits of a harness's worker: each looked at when it is due by the harness's clock, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from executors.external_job import ExternalJob
from executors.protocol import Executor, as_failure
from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.domain.wait import Stage, WaitKind, pause_after_takeover, pause_between
from scheduler.loop.held_wait import HeldWait
from scheduler.loop.looking import Looker
from scheduler.loop.performing import Performer
from scheduler.loop.submitting import job_deferral
from scheduler.loop.verdicts import Again, Decided, Found, Given, NotMade, Over, Verdict
from scheduler.services.defer import Deferral, as_micros, defer_runs
from scheduler.services.finish import Ended
from scheduler.services.resume import PutBack, put_back, submitting_state, tries_of
from scheduler.services.take import Execution
from scheduler.services.watch import claim_waits, release_lost_waits, wanted_ends, write_waits
from scheduler.store.transaction import Store

T = TypeVar("T")
_BATCH: Final = 1_000
# In the middle of every range that is drawn from: the same test always does the same.
_MIDDLE: Final = 0.5


class HarnessWaits:
    """Holds the waits of one worker after the other."""

    def __init__(
        self,
        store: Store,
        performer: Performer,
        now: Callable[[], Micros],
        run: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        self._store = store
        self._performer = performer
        self._now = now
        self._run = run
        self._looker = Looker(performer, now, spread=lambda: _MIDDLE)
        self._held: dict[str, tuple[HeldWait, Micros]] = {}
        self._me = ""

    def begin(self, me: str) -> None:
        """Another worker is there, and holds nothing yet."""
        self._me = me
        self._held.clear()

    def next_instant(self) -> Micros | None:
        """When a wait is due, or the time of an attempt over."""
        return min((min(at, _end_of(held) or at) for held, at in self._held.values()), default=None)

    # --- begun -------------------------------------------------------------------------------------------------------

    def is_job(self, executor: Executor) -> bool:
        """Whether the executor's runs are jobs of a service."""
        return isinstance(executor, ExternalJob)

    def submit(self, execution: Execution, *, dies: bool) -> list[Ended]:
        """Submits the run's job; the attempts that this ended. `dies`: the worker does, when the job has been made."""
        executor = self._performer.executors[execution.run.executor]
        assert isinstance(executor, ExternalJob)
        try:
            run = self._performer.context(execution)
            deferral = job_deferral(execution, executor, run)
        except Exception as error:
            failed = as_failure(error)
            return [Ended(execution, Phase.FAILED, error=failed.error, retryable=failed.retryable)]
        self._store.run(defer_runs, [deferral], self._me)
        held = HeldWait.begun(deferral, self._now(), tries_of(execution))
        if deferral.watched:
            return self._settle(held, Again(0))
        try:
            held.job = self._run(executor.create(run))
        except Exception as error:
            return [] if dies else self._settle(held, self._looker.not_created(held, executor, run, error))
        if dies:
            return []
        held.stage = Stage.WAITING
        held.errors, held.error_since, held.last_error = 0, None, None
        written = self._store.run(write_waits, [held.to_state()], {held.name: execution.run.executor}, self._me)
        if written.conflicts:
            return self._settle(held, self._looker.lost_to_another(held))
        return self._settle(held, Again(pause_between(as_micros(executor.first_look(run)), _MIDDLE)))

    def defer(self, deferrals: Sequence[Deferral]) -> None:
        """Runs that their executors left waiting."""
        begun = self._store.run(defer_runs, deferrals, self._me)
        for deferral in deferrals:
            if deferral.key in begun and deferral.kind is not WaitKind.UNTIL:
                self._settle(HeldWait.begun(deferral, self._now()), Again(deferral.interval))

    # --- looked at ---------------------------------------------------------------------------------------------------

    def look(self, executors: Mapping[str, Executor]) -> tuple[list[Ended], bool]:
        """Does with every wait what is due; the attempts that ended, and whether anything was done."""
        self._store.run(release_lost_waits, _BATCH)
        claimed, now = self._store.run(claim_waits, self._me, executors, _BATCH, {})
        for item in claimed:
            held = HeldWait.of(item)
            held.sure_at = now
            pause = pause_after_takeover(held.interval, _MIDDLE) if held.stage is Stage.WAITING else 0
            self._held[held.name] = held, now + pause
        ended: list[Ended] = []
        worked = bool(claimed)
        wanted = self._store.run(wanted_ends, self._me)
        for held, at in list(self._held.values()):
            verdict = self._verdict(held, at, wanted.get(held.name))
            if verdict is not None:
                worked = True
                ended += self._settle(held, verdict)
        return ended, worked

    def _verdict(self, held: HeldWait, at: Micros, wanted: str | None) -> Verdict | None:
        now, end = self._now(), _end_of(held)
        if wanted is not None and held.stage is not Stage.CANCELLING:
            return self._looker.cancelled(held, wanted)
        if end is not None and end <= now:
            return self._looker.time_is_up(held, now)
        if at > now:
            return None
        verdict: Verdict = self._run(self._looker.look(held))
        return verdict

    def _settle(self, held: HeldWait, verdict: Verdict) -> list[Ended]:
        now = self._now()
        self._held.pop(held.name, None)
        match verdict:
            case Over(ended):
                return [ended]
            case NotMade(tries, pause):
                self._store.run(put_back, [PutBack(held.execution, now + pause, submitting_state(tries))], self._me)
                return []
            case Again(pause, changed):
                if changed:
                    self._store.run(write_waits, [held.to_state()], {}, self._me)
                self._held[held.name] = held, now + pause
            case Found() | Decided() | Given():
                jobs = {held.name: held.execution.run.executor} if isinstance(verdict, Found) else {}
                written = self._store.run(write_waits, [held.to_state()], jobs, self._me)
                if written.conflicts:
                    held.state = held.job_id = None
                    held.stage = Stage.SUBMITTING
                    return self._settle(held, self._looker.not_made(held, "the job that runs is another run's"))
                if held.kind is not WaitKind.UNTIL:
                    self._held[held.name] = held, now
        return []


def _end_of(held: HeldWait) -> Micros | None:
    return None if held.stage is Stage.CANCELLING else held.ends_at
