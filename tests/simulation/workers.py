"""A worker as one of many: each of its steps is one transaction, and any of them may be its last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.run import Phase
from scheduler.services.finish import Ended, finish_runs
from scheduler.services.fire import Fired, fire_due
from scheduler.services.recover import hand_back, recover_runs
from scheduler.services.sync import plan_after_clock_set_back, refresh_summaries, sync_triggers
from scheduler.services.take import Execution, describe_runs, take_runs
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import Transaction

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")
PLENTY = 1_000
LEASE = 30 * SECOND


class SimulatedWorker:
    """Does in any order what the loops of a worker do."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"worker-{number}"
        self.incarnation = ""
        self.held: dict[tuple[str, int], Execution] = {}
        self.ended: list[Ended] = []
        self.thaws_at: Micros | None = None
        self.immortal = False

    @property
    def frozen(self) -> bool:
        return self.thaws_at is not None and self.world.now < self.thaws_at

    def step(self) -> None:
        """One of the things a worker does, or something that befalls it."""
        random = self.world.random
        if self.frozen:
            return
        fate = random.random() / self.world.violence
        if fate < 0.02:
            self.die()
        elif fate < 0.04:
            self.freeze()
        elif fate < 0.05:
            self.leave()
        else:
            duties = [self.renew, self.sync, self.fire, self.fire, self.take, self.work, self.work, self.flush]
            random.choice([*duties, self.flush, self.recover, self.reconcile])()

    # --- life --------------------------------------------------------------------------------------------------------

    def register(self) -> None:
        self.world.incarnations += 1
        self.incarnation = f"incarnation-{self.world.incarnations}"
        self.world.run(_register, self.incarnation, self.name)
        self.world.renewed[self.incarnation] = self.world.now
        self.world.living.add(self.incarnation)
        self.world.tell(f"{self.name} began as {self.incarnation}")

    def renew(self) -> None:
        """Renews the lease; declared dead, it ends what runs, offers what ended, and comes back as somebody new."""
        renewed = self.world.run(_renew, self.incarnation)
        assert (renewed is not None) == (self.incarnation in self.world.living), f"{self.incarnation} renewed wrongly"
        if renewed is not None:
            self.world.renewed[self.incarnation] = self.world.now
            return
        self.held.clear()
        self._record()
        self.register()

    def die(self) -> None:
        """kill -9."""
        self.world.tell(f"{self.name} died holding {len(self.held)}")
        self.world.workers.remove(self)

    def freeze(self) -> None:
        """SIGSTOP: it wakes up later and believes that nothing happened."""
        self.thaws_at = self.world.now + self.world.random.choice([20, 100, 1_000]) * 1_000_000
        self.world.tell(f"{self.name} froze")

    def leave(self) -> None:
        """SIGTERM: records what ended, hands back the rest, and gives up its lease."""
        self._record()
        self._hand_back(list(self.held))
        self.world.run(_retire, self.incarnation)
        self.world.living.discard(self.incarnation)
        self.world.workers.remove(self)
        self.world.tell(f"{self.name} left")

    # --- duties ------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        result = self._try(sync_triggers, self.world.planning, PLENTY)
        if result is None:
            return
        self.world.synced()
        self.world.run(refresh_summaries, result[1])
        self.world.tell(f"{self.name} synced {result[0]}")

    def notice_clock_set_back(self) -> None:
        self.world.run(plan_after_clock_set_back, self.world.planning, PLENTY)
        self.world.noticed_set_back()
        self.world.tell(f"{self.name} noticed that the clock was set back")

    def fire(self) -> None:
        random, world = self.world.random, self.world
        limit = random.choice([1, 2, PLENTY])
        due = {number: model for number, model in world.triggers.items() if model.is_due(world.now)}
        only = random.choice(sorted(due)) if due and random.random() < 0.1 else None
        fired = self._try(
            fire_due,
            world.planning,
            limit=limit,
            owner=random.choice([self.incarnation, None]),
            room={"simulated": random.choice([1, PLENTY])},
            places=random.choice([1, PLENTY]),
            only=only,
        )
        if fired is None:
            return
        claimed = set(fired.triggers)
        if only is not None:
            assert claimed == {only}
        else:
            longest = sorted(due.values(), key=lambda model: model.due_at(model.next_slot() or 0))[:limit]
            assert len(claimed) == len(longest), f"{len(due)} were due, {len(claimed)} were claimed"
            assert claimed <= set(due), f"claimed what is not due: {claimed - set(due)}"
            newest = max((model.due_at(model.next_slot() or 0) for model in longest), default=0)
            assert all(due[number].due_at(due[number].next_slot() or 0) <= newest for number in claimed)
        self._fired(fired, claimed)

    def _fired(self, fired: Fired, claimed: set[int]) -> None:
        world = self.world
        known = set(world.runs.runs)
        for trigger_id in sorted(claimed):
            world.decided(trigger_id)
        new = {run.name for run in fired.runs} - known
        assert new == set(world.runs.runs) - known, "the runs of a fire are not those owed"
        world.runs.taken(fired.taken, self.incarnation, world.now)
        world.run(refresh_summaries, fired.replanned)
        world.tell(f"{self.name} fired {claimed}: {len(fired.runs)} runs, {len(fired.taken)} taken, {fired.skipped}")
        self._hold(fired.taken)

    def take(self, on_time: int | None = None, late: int | None = None) -> None:
        random, world = self.world.random, self.world
        on_time = random.choice([0, 2, PLENTY]) if on_time is None else on_time
        late = random.choice([0, 2, PLENTY]) if late is None else late
        ready = world.runs.ready(world.now) if self.incarnation in world.living else []
        answer = self._try(take_runs, self.incarnation, {"simulated": PLENTY}, on_time=on_time, late=late)
        if answer is None:
            return
        for taken, limit, is_late in ((answer[0], on_time, False), (answer[1], late, True)):
            waiting = [name for name in ready if world.runs.runs[name].late == is_late]
            assert len(taken) == min(limit, len(waiting)), f"{len(waiting)} were ready, {len(taken)} were taken"
        world.runs.taken(answer[0] + answer[1], self.incarnation, world.now)
        world.tell(f"{self.name} took {len(answer[0])} on time, {len(answer[1])} late")
        self._hold(answer[0] + answer[1])

    def work(self) -> None:
        """Some executions come to an end in this process; nobody else knows of it yet."""
        random = self.world.random
        for key, execution in list(self.held.items()):
            if random.random() < 0.6:
                del self.held[key]
                phase = random.choice([Phase.SUCCEEDED, Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT])
                self.ended.append(Ended(execution, phase, retryable=random.random() < 0.8))

    def flush(self) -> None:
        """Records what ended, if the worker lives to see it."""
        if self.ended and self._fails():
            self.world.run_and_die(finish_runs, self.ended, self.name)
            self.die()
        else:
            self._record()

    def _record(self) -> None:
        if not self.ended:
            return
        batch, self.ended = self.ended, []
        finished = self.world.run(finish_runs, batch, self.name)
        self.world.runs.finished(batch, finished, self.world.now)
        self.world.learn_waits(finished.retried)
        self.world.tell(f"{self.name} recorded {len(finished.counted)}, refused {len(finished.refused)}")

    def recover(self, *, judge: bool | None = None) -> None:
        world = self.world
        judge = world.random.random() < 0.7 if judge is None else judge
        recovered = self._try(
            recover_runs, self.incarnation, lease=LEASE, max_lost=world.runs.max_lost, limit=PLENTY, judge=judge
        )
        if recovered is None:
            return
        if judge:
            world.living -= self._dead()
        world.runs.recovered(recovered, world.living, world.now)
        world.tell(f"{self.name} took back {len(recovered.requeued)}, gave up {len(recovered.failed)}")

    def _dead(self) -> set[str]:
        """Whose lease is over, or was renewed by a clock that has been set back since; nobody, if that is one's own."""
        now, renewed = self.world.now, self.world.renewed
        if renewed[self.incarnation] > now + LEASE:
            return set()
        return {
            other
            for other in self.world.living - {self.incarnation}
            if renewed[other] + LEASE < now or renewed[other] > now + LEASE
        }

    def reconcile(self) -> None:
        """Hands back what the database says it holds and it does not: an answer was lost on the way."""
        if self.ended:
            return
        stored = self.world.run(_held, self.incarnation)
        self._hand_back([key for key in stored.items() if key not in self.held])

    # --- details -----------------------------------------------------------------------------------------------------

    def _fails(self) -> bool:
        return not self.immortal and self.world.random.random() < 0.03

    def _hand_back(self, held: Sequence[tuple[str, int]]) -> None:
        count = self.world.run(hand_back, self.incarnation, held)
        assert count == self.world.runs.handed_back(self.incarnation, held, self.world.now)

    def _hold(self, taken: Sequence[TakenRun]) -> None:
        """What was taken is executed, unless the worker dies now, or never hears of its own commit."""
        if self._fails():
            self.die()
        elif not self._fails():
            specs, keys, names = self.world.run(describe_runs, taken, ())
            for run in taken:
                execution = Execution(run, specs[run.spec_digest], *keys[run.task_id], names.get(run.trigger_id or 0))
                self.held[run.name, run.fence] = execution

    def _try(self, service: Any, *args: Any, **options: Any) -> Any:
        """The service's answer; None if the worker died before its commit, which is then undone."""
        if not self._fails():
            return self.world.run(service, *args, **options)
        self.world.run_and_die(service, *args, **options)
        self.die()
        return None


def _register(tx: Transaction, incarnation: str, name: str) -> None:
    tx.workers.register(incarnation, name, "0", "simulated", ["simulated"], LEASE)


def _renew(tx: Transaction, incarnation: str) -> Micros | None:
    return tx.workers.renew(incarnation, LEASE)


def _retire(tx: Transaction, incarnation: str) -> None:
    tx.workers.retire(incarnation)


def _held(tx: Transaction, incarnation: str) -> dict[str, int]:
    return tx.runs.still_held(incarnation)
