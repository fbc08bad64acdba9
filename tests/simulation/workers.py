"""A worker as one of many: each of its steps is one transaction, and any of them may be its last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.run import Phase
from scheduler.errors import ClockJumped
from scheduler.loop.clock_guard import ClockGuard
from scheduler.services.finish import Ended, Finished, finish_runs
from scheduler.services.fire import Fired, fire_due
from scheduler.services.plan import Planning
from scheduler.services.recover import Recovered, expire_runs, hand_back, recover_runs
from scheduler.services.sync import plan_after_clock_set_back, refresh_summaries, sync_triggers
from scheduler.services.take import Execution, Taken, describe_runs, take_runs
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import Transaction
from tests.simulation.belief import Belief
from tests.simulation.clocks import Wall
from tests.simulation.pulse import BEAT, LEASE, Pulse
from tests.simulation.runs import FAILURES, RunModel, tried_again_at

if TYPE_CHECKING:
    from tests.simulation.world import World

PLENTY = 1_000


class SimulatedWorker:
    """Does in any order what the loops of a worker do. Its heartbeat is the real one, and beats as time passes."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"worker-{number}"
        self.wall = Wall(world, world.random.choice([0, 0, 3_600, -3_600, 40, -40]) * SECOND)
        self.planning = Planning(world.grace, world.random.choice(["old code", "new code"]))
        self.executors = world.random.choice([("simulated",), ("simulated", "rare")])
        self.incarnation = ""
        self.held: dict[tuple[str, int], Execution] = {}
        self.ended: list[Ended] = []
        self.thaws_at: Micros | None = None
        self.immortal = False
        # When it last did not believe the clock.
        self.doubted_at: Micros | None = None
        self.belief: Belief | None = None
        if world.max_clock_jump is not None:
            self.belief = Belief(world, self, world.max_clock_jump, alone=world.random.random() < 0.6)
            self.guard = ClockGuard(world.max_clock_jump, self.wall, elapsed=lambda: world.elapsed)
            self.wall.check = self._check_clock
        self.pulse = Pulse(world, self)

    @property
    def is_buried(self) -> bool:
        """Whether it was declared dead, and the database knows that."""
        return self.incarnation in self.world.registered - self.world.living

    @property
    def frozen(self) -> bool:
        return self.thaws_at is not None and self.world.elapsed < self.thaws_at

    def step(self) -> None:
        """One of the things a worker does, or something that befalls it."""
        random = self.world.random
        if self.frozen:
            return
        fate = random.random() / self.world.violence
        if fate < 0.01:
            self.die()
        elif fate < 0.02:
            self.freeze()
        elif fate < 0.025:
            self.leave()
        elif not self.world.away:
            try:
                self._any_duty()()
            except ClockJumped:
                self.world.tell(f"{self.name} does not believe the clock, and waits")

    def _check_clock(self, now: Micros) -> None:
        """The real guard, which has to believe what it should."""
        assert self.belief is not None
        should = self.belief.should_believe()
        try:
            self.guard.check(now)
        except ClockJumped:
            assert not should, f"{self.name} doubts a clock that is to be believed"
            self.doubted_at = self.world.elapsed
            raise
        assert should, f"{self.name} believes a clock that is to be doubted"

    def _any_duty(self) -> Callable[[], None]:
        """Mostly one for which there is something to do."""
        world, runs = self.world, self.world.runs.runs.values()
        duties = {
            self.fire: any(model.is_due(world.now) for model in world.triggers.values()),
            self.take: any(run.phase is Phase.QUEUED and run.not_before <= world.now for run in runs),
            self.work: bool(self.held),
            self.flush: bool(self.ended),
            self.sync: any(model.pending for model in world.triggers.values()),
            self.recover: bool(world.runs.orphans(world.living)) or len(world.living) > len(world.workers),
            self.expire: bool(world.runs.overdue(world.now)),
            self.obey: any(run.unwanted and run.phase is Phase.RUNNING for run in runs),
            self.reconcile: False,
        }
        useful = [duty for duty, is_useful in duties.items() if is_useful]
        return world.random.choice(useful if useful and world.random.random() < 0.8 else list(duties))

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Applies its manifests, registers, and looks whether the clock was set back while nobody was there."""
        if self.belief is not None:
            last = max(self.world.renewed.values(), default=None)
            self.belief.begins(last)
            self.guard.begin(self.world.now, last, alone=self.belief.alone, unset=False)
        self.world.people.deployers.start(self)
        seen = self.world.run(_last_seen, here=self.wall)
        if seen is not None and seen > self.world.now:
            self.notice_clock_set_back()
        self.register()

    def register(self) -> None:
        self.world.incarnations += 1
        self.incarnation = f"incarnation-{self.world.incarnations}"
        self.world.run(
            _register, self.incarnation, self.name, self.planning.fingerprint, self.executors, here=self.wall
        )
        self.world.renewed[self.incarnation] = self.world.now
        self.world.heard_of[self.incarnation] = self.world.elapsed
        self.world.living.add(self.incarnation)
        self.world.valid.add(self.incarnation)
        self.world.registered.add(self.incarnation)
        self.pulse.began(self.incarnation)
        self.world.tell(f"{self.name} began as {self.incarnation}")

    def beat(self) -> None:
        """Renews the lease; whoever was declared dead is told so here."""
        incarnation, lives = self.incarnation, self.incarnation in self.world.living
        self.pulse.beat()
        if self.world.away or self.doubted_at == self.world.elapsed:
            return
        assert (self.incarnation == incarnation) == lives, f"{incarnation} renewed wrongly"
        self.world.renewed[self.incarnation] = self.world.now
        self.world.heard_of[self.incarnation] = self.world.elapsed

    def begin_anew(self) -> None:
        """Declared dead, it ends what runs, offers what ended, and comes back as somebody new."""
        self.held.clear()
        self._record()
        self.register()

    def clock_jumped(self, jump: Micros) -> None:
        """The heartbeat or the guard noticed a clock that jumped, its own or the database's."""
        if jump < 0 and not self.world.away:
            with suppress(ClockJumped):
                self.notice_clock_set_back()

    def die(self) -> None:
        """kill -9."""
        self.world.tell(f"{self.name} died holding {len(self.held)}")
        self.world.workers.remove(self)

    def freeze(self) -> None:
        """SIGSTOP: it wakes up later and believes that nothing happened."""
        self.thaws_at = self.world.elapsed + self.world.random.choice([20, 100, 1_000]) * SECOND
        # What was due meanwhile happens in any order.
        self.pulse.next_at = max(self.pulse.next_at, self.thaws_at) + self.world.random.choice([0, BEAT])
        self.world.tell(f"{self.name} froze")

    def leave(self) -> None:
        """SIGTERM: records what ended, hands back the rest, and gives up its lease, if the database is there."""
        if not self.world.away:
            self.wall.check = None
            self._record()
            self._hand_back(list(self.held))
            self.world.run(_retire, self.incarnation, here=self.wall)
            self.world.living.discard(self.incarnation)
        self.world.workers.remove(self)
        self.world.tell(f"{self.name} left")

    # --- duties ------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        limit = self.world.random.choice([2, PLENTY, PLENTY])

        def learn(answer: tuple[int, list[int]]) -> None:
            self.world.synced(limit, self.planning)
            self.world.run(refresh_summaries, answer[1], here=self.wall)
            self.world.tell(f"{self.name} synced {answer[0]}")

        self._transact(learn, sync_triggers, self.planning, limit)

    def notice_clock_set_back(self) -> None:
        self.world.run(plan_after_clock_set_back, self.planning, PLENTY, here=self.wall)
        self.world.noticed_set_back(self.planning)
        self.world.tell(f"{self.name} noticed that the clock was set back")

    def fire(self) -> None:
        random, world = self.world.random, self.world
        limit = random.choice([1, 2, PLENTY])
        due = sorted(number for number, model in world.triggers.items() if model.is_due(world.now))
        only = random.choice(due) if due and random.random() < 0.1 else None
        owner = random.choice([self.incarnation, None])
        room = {executor: random.choice([0, 1, PLENTY, PLENTY]) for executor in self.executors}
        places = random.choice([1, PLENTY])

        def learn(fired: Fired) -> None:
            claimed = self._claimed(fired, limit, only)
            known, at_once = set(world.runs.runs), []
            for trigger_id in sorted(claimed):
                at_once += world.decided(trigger_id, self.planning)
            new = {run.name for run in fired.runs} - known
            wrong = new ^ (set(world.runs.runs) - known)
            assert not wrong, f"the runs of a fire are not those owed: {sorted(wrong)} of {sorted(new)}"
            most = min(places, sum(min(left, _of(at_once, executor)) for executor, left in room.items()))
            most = 0 if owner is None or self.is_buried else most
            assert len(fired.taken) == most, f"{fired.taken} were taken, {most} of {at_once} should be"
            world.runs.taken(fired.taken, self.incarnation, world.now)
            world.run(refresh_summaries, fired.replanned, here=self.wall)
            world.tell(f"{self.name} fired {claimed}: {len(new)} runs, {len(fired.taken)} taken, {fired.skipped}")

        options = {"limit": limit, "owner": owner, "room": room, "places": places, "only": only}
        fired = self._transact(learn, fire_due, self.planning, **options)
        if fired is not None:
            self._hold(fired.taken)

    def _claimed(self, fired: Fired, limit: int, only: int | None) -> set[int]:
        """The triggers that were claimed, which have to be those that were due longest."""
        world, claimed = self.world, set(fired.triggers)
        if only is not None:
            planned = world.triggers[only].next_slot() is not None
            assert claimed == ({only} if planned else set())
            return claimed
        due = {number: model for number, model in world.triggers.items() if model.is_due(world.now)}
        since = {number: model.due_at(model.next_slot() or 0) for number, model in due.items()}
        longest = sorted(since.values())[:limit]
        assert len(claimed) == len(longest), f"{len(due)} were due, {len(claimed)} were claimed"
        assert claimed <= set(due), f"claimed what is not due: {claimed - set(due)}"
        assert all(since[number] <= longest[-1] for number in claimed), "those due longest come first"
        return claimed

    def take(self, on_time: int | None = None, late: int | None = None) -> None:
        random, world = self.world.random, self.world
        limits = (
            random.choice([0, 2, 5, PLENTY]) if on_time is None else on_time,
            random.choice([0, 2, 5, PLENTY]) if late is None else late,
        )
        room = dict.fromkeys(self.executors, PLENTY)

        def learn(answer: Taken) -> None:
            for is_late, (taken, limit) in enumerate(zip(answer[:2], limits, strict=True)):
                self._check_fair(taken, 0 if self.is_buried else limit, late=bool(is_late))
                world.runs.taken(taken, self.incarnation, world.now)
            world.tell(f"{self.name} took {len(answer.on_time)} on time, {len(answer.late)} late")

        options = {"on_time": limits[0], "late": limits[1]}
        answer = self._transact(learn, take_runs, self.incarnation, room, **options)
        if answer is not None:
            self._hold(answer.on_time + answer.late)

    def _check_fair(self, taken: Sequence[TakenRun], limit: int, *, late: bool) -> None:
        """As many as there are places for, and nobody passed over: those that wait for a turn have half of the places."""
        runs, names = self.world.runs, {run.name for run in taken}
        ready = runs.ready(self.world.now, self.executors, late=late)
        waiting = runs.contenders(self.world.now, self.executors, late=late)
        room = {run.task: runs.room(run.task) for run in waiting}
        turns = sum(min(left, _count(waiting, task)) for task, left in room.items())
        most = min(limit, len(ready) + turns)
        assert len(taken) == most, (
            f"{ready} were ready and {turns} of {waiting} had a turn: {taken} were taken of {limit}"
        )
        mine = [run for run in waiting if run.name in names]
        half = -(-limit // 2)
        assert len(mine) >= min(half, turns), f"{len(mine)} of {turns} that had a turn were taken, {half} had a place"
        assert len(taken) - len(mine) >= min(limit - half, len(ready)), (
            f"only {len(taken) - len(mine)} others were taken"
        )
        for group in (waiting, ready):
            last = max((run.rank for run in group if run.name in names), default=(0, 0))
            # Where the task had no more room, nobody of another one was preferred.
            free = [run for run in group if group is ready or room[run.task] > _count(mine, run.task)]
            left = [run for run in free if run.name not in names and run.rank < last]
            for task in room if group is waiting else ():
                newest = max((run.rank for run in mine if run.task == task), default=(0, 0))
                left += [run for run in group if run.task == task and run.name not in names and run.rank < newest]
            assert not left, f"{left[0].name} was passed over"

    def work(self) -> None:
        """Some executions come to an end in this process; nobody else knows of it yet."""
        random = self.world.random
        for key, execution in list(self.held.items()):
            deadline = execution.run.deadline_at
            if deadline is not None and deadline <= self.world.now:
                self._ends(key, Phase.TIMED_OUT, retryable=False, known=False)
            elif random.random() < 0.6:
                phase = random.choice([Phase.SUCCEEDED, Phase.SUCCEEDED, Phase.FAILED, Phase.FAILED, Phase.TIMED_OUT])
                known = phase is not Phase.TIMED_OUT and random.random() < 0.7
                self._ends(key, phase, retryable=random.random() < 0.8, known=known)

    def succeed(self) -> None:
        """All that is held ends well."""
        for key in list(self.held):
            self._ends(key, Phase.SUCCEEDED)

    def _ends(self, key: tuple[str, int], phase: Phase, **how: Any) -> None:
        self.ended.append(Ended(self.held.pop(key), phase, **how))

    def flush(self) -> None:
        """Records what ended, if the worker lives to see it."""
        if self.ended:
            batch, self.ended = self.ended, []
            try:
                self._transact(
                    lambda finished: self._learn_ends(batch, finished), finish_runs, batch, self.name, self.planning
                )
            except ClockJumped:
                self.ended = batch
                raise

    def _record(self) -> None:
        if self.ended:
            batch, self.ended = self.ended, []
            self._learn_ends(batch, self.world.run(finish_runs, batch, self.name, self.planning, here=self.wall))

    def _learn_ends(self, batch: Sequence[Ended], finished: Finished) -> None:
        world = self.world
        failed = [
            item.execution.run.trigger_id
            for item in batch
            if item.phase in FAILURES and item.execution.run.scheduled_at and tried_again_at(item, world.now) is None
        ]
        world.runs.finished(batch, finished, world.valid, world.now)
        self._check_paused(finished.paused, failed)
        world.tell(f"{self.name} recorded {len(finished.counted)}, refused {len(finished.refused)}")

    def _check_paused(self, paused: Sequence[str], candidates: Sequence[int | None]) -> None:
        should = self.world.paused((each for each in candidates if each is not None), self.planning)
        assert set(paused) == should, f"{paused} are paused, should be {should}"
        if paused:
            self.world.tell(f"{self.name} paused {', '.join(paused)}")

    def recover(self) -> None:
        world, judge = self.world, self.pulse.may_judge

        def learn(recovered: Recovered) -> None:
            if judge:
                for incarnation in self._dead():
                    silence = world.elapsed - world.heard_of[incarnation]
                    assert silence > LEASE - BEAT - 2 * SECOND, (
                        f"{incarnation} was silent for {silence / SECOND:g} s only"
                    )
                    world.living.discard(incarnation)
                for incarnation in self._ahead():
                    world.renewed[incarnation] = world.now
            lost = [run.trigger_id for run in world.runs.orphans(world.living) if run.scheduled]
            world.runs.recovered(recovered, world.living, world.now)
            self._check_paused(recovered.paused, lost)
            world.tell(f"{self.name} took back {len(recovered.requeued)}, gave up {len(recovered.failed)}")

        limits = {"lease": LEASE, "max_lost": world.runs.max_lost, "limit": PLENTY}
        self._transact(learn, recover_runs, self.incarnation, **limits, judge=judge, planning=self.planning)

    def expire(self) -> None:
        """Ends what its deadline keeps from starting."""
        world = self.world

        def learn(answer: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
            overdue = world.runs.overdue(world.now)
            assert set(answer[0]) == {run.name for run in overdue}
            for run in overdue:
                run.ends(Phase.TIMED_OUT)
            self._check_paused(answer[1], [run.trigger_id for run in overdue])
            world.tell(f"{self.name} expired {len(answer[0])}")

        self._transact(learn, expire_runs, PLENTY, self.planning)

    def _dead(self) -> set[str]:
        """Whose last renewal is longer before this worker's own than a lease.

        By its own, not by the clock: that may have been set since, and no living worker has renewed by it yet. If its own
        is further from now than that, it knows of nobody.
        """
        mine = self._own_renewal()
        others = self.world.living - {self.incarnation}
        return set() if mine is None else {other for other in others if self.world.renewed[other] < mine - LEASE}

    def _ahead(self) -> set[str]:
        """Whose last renewal is longer after this worker's own: by a clock that was set back since."""
        mine = self._own_renewal()
        others = self.world.living - {self.incarnation}
        return set() if mine is None else {other for other in others if self.world.renewed[other] > mine + LEASE}

    def _own_renewal(self) -> Micros | None:
        mine = self.world.renewed.get(self.incarnation, self.world.now)
        return mine if abs(mine - self.world.now) <= LEASE else None

    def reconcile(self) -> None:
        """Makes what it executes and what the database says it holds the same: an answer was lost, or a run was taken."""
        if not self.ended:
            stored = self.world.run(_held, self.incarnation, here=self.wall)
            self._hand_back([key for key in stored.items() if key not in self.held])
            for key in self.held.keys() - stored.items():
                del self.held[key]

    def obey(self) -> None:
        """Ends the code of runs that somebody wants to end; some does not hear."""
        intended = self.world.run(_intended, self.incarnation, here=self.wall)
        runs = self.world.runs.runs
        mine = {(run.name, run.fence) for run in runs.values() if run.owner == self.incarnation and run.unwanted}
        assert set(intended) == mine
        for key in sorted(intended.keys() & self.held.keys()):
            if self.immortal or self.world.random.random() < 0.7:
                self._ends(key, Phase.ABORTED, error="cancelled", retryable=False)

    # --- details -----------------------------------------------------------------------------------------------------

    def _transact(self, learn: Callable[[Any], None], service: Any, *args: Any, **options: Any) -> Any:
        """The service's answer, which `learn` tells the models; None if the worker did not live to hear it.

        It may die before its commit, which is then undone, or after it; or lose the answer only, and ask again.
        """
        if self._fails():
            self.world.run_and_die(service, *args, here=self.wall, **options)
            self.die()
            return None
        learn(answer := self.world.run(service, *args, here=self.wall, **options))
        if self._fails():
            self.die()
            return None
        if self._fails():
            self.world.tell(f"{self.name} did not hear the answer, and asks again")
            learn(answer := self.world.run(service, *args, here=self.wall, **options))
        return answer

    def _fails(self) -> bool:
        return not self.immortal and self.world.random.random() < 0.015 * self.world.violence

    def _hand_back(self, held: Sequence[tuple[str, int]]) -> None:
        count = self.world.run(hand_back, self.incarnation, held, here=self.wall)
        assert count == self.world.runs.handed_back(self.incarnation, held, self.world.now)

    def _hold(self, taken: Sequence[TakenRun]) -> None:
        """What was taken is executed."""
        if not taken:
            return
        specs, keys, names = self.world.run(describe_runs, taken, (), here=self.wall)
        for run in taken:
            execution = Execution(run, specs[run.spec_digest], *keys[run.task_id], names.get(run.trigger_id or 0))
            self.world.runs.begins(execution)
            self.held[run.name, run.fence] = execution


def _of(runs: Sequence[RunModel], executor: str) -> int:
    return sum(run.spec.executor == executor for run in runs)


def _count(runs: Sequence[RunModel], task: str) -> int:
    return sum(run.task == task for run in runs)


def _register(tx: Transaction, incarnation: str, name: str, fingerprint: str, executors: Sequence[str]) -> None:
    tx.workers.register(incarnation, name, "0", fingerprint, executors, LEASE)


def _last_seen(tx: Transaction) -> Micros | None:
    return tx.workers.last_seen()


def _retire(tx: Transaction, incarnation: str) -> None:
    tx.workers.retire(incarnation)


def _held(tx: Transaction, incarnation: str) -> dict[str, int]:
    return tx.runs.still_held(incarnation)


def _intended(tx: Transaction, incarnation: str) -> dict[tuple[str, int], str]:
    return tx.runs.intended(incarnation)
