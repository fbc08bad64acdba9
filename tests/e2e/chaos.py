"""Workers that are killed and frozen at random, and an account of what each of them did when.

    with Chaos(world, ["one", "two"], seed=7) as chaos:
        chaos.rage(60)
        chaos.calm()

Every process has a name of its own (`one.1`, and `one.2` after `one.1` was killed), so that the target knows who called.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType

from tests.e2e.targets import Visit
from tests.e2e.worlds import WorkerProcess, World

EVERY = 2.0
_GONE = re.compile(r"^(\S+) .*a worker is gone: its lease is over +worker=(\S+)", re.MULTILINE)
_BEAT = 0.05


@dataclass(slots=True)
class Trouble:
    """What befell one worker process, in seconds of the epoch. A kill has no end of its own."""

    worker: str
    kind: str
    begun: float
    ended: float | None = None


@dataclass(slots=True)
class _Member:
    """A place for one worker process after another."""

    name: str
    process: WorkerProcess | None = None
    number: int = 0
    frozen: Trouble | None = None

    @property
    def present(self) -> str:
        return f"{self.name}.{self.number}"


@dataclass(slots=True)
class _Life:
    """When a worker process was ready, and undisturbed since."""

    worker: str
    since: float
    until: float = field(default=float("inf"))


class Pulse:
    """How long this process itself had to wait for its turn on the machine, at most: workers fared no better."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._stopping.wait(_BEAT):
            now = time.monotonic()
            self.worst, before = max(self.worst, now - before - _BEAT), now

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


class Chaos:
    """Some workers of one world, and what is done to them every two seconds by a seeded choice."""

    def __init__(self, world: World, names: Sequence[str], *, seed: int, lease: float) -> None:
        self._world, self._lease = world, lease
        self._random = random.Random(seed)
        self._members = [_Member(name) for name in names]
        self._owed: list[tuple[float, Callable[[], None]]] = []
        self._choices: list[str] = []
        self._stack = ExitStack()
        self._pulse = Pulse()
        self._lives: list[_Life] = []
        self._outages: list[tuple[float, float]] = []
        self.troubles: list[Trouble] = []

    def __enter__(self) -> Chaos:
        for member in self._members:
            self._start(member)
        for member in self._members:
            assert member.process is not None
            member.process.until_said("ready", 40)
            self._lives.append(_Life(member.present, time.time()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pulse.stop()
        for member in self._members:
            if member.process is not None:
                member.process.thaw()
        self._stack.__exit__(kind, error, trace)

    # --- what is done ------------------------------------------------------------------------------------------------

    def rage(self, seconds: float, *, midway: Callable[[], None] | None = None) -> None:
        """Kills or freezes somebody every two seconds, for that long; `midway` happens once, in the middle."""
        begun = time.time()
        # Not on the beat of the slots: some strikes hit those who fire, some those who wait for answers or record them.
        moments = [EVERY * (number + self._random.random()) for number in range(int(seconds / EVERY))]
        self._owed += [(begun + moment, self._strike) for moment in moments]
        if midway is not None:
            self._owed.append((begun + seconds / 2 + EVERY / 2, midway))
        self._until(begun + seconds)

    def calm(self) -> None:
        """Waits until the frozen are thawed, and the killed are back and ready."""
        while self._owed:
            self._until(min(moment for moment, _ in self._owed))
        for member in self._members:
            assert member.process is not None
            member.process.until_said("ready", 40)
            self._note_ready()

    def outage(self, begun: float, ended: float) -> None:
        """The database was away from one instant to another: nobody could renew, and nobody may have judged others."""
        self._outages.append((begun, ended))
        for life in self._lives:
            life.until = min(life.until, begun)
        self._lives += [_Life(member.present, ended) for member in self._members if self._well(member)]

    def stop(self) -> list[int]:
        """SIGTERM to all at once; their exit codes."""
        for member in self._members:
            self._end_life(member)
        processes = [member.process for member in self._members if member.process is not None]
        for process in processes:
            process.send(15)
        return [process.wait(30) for process in processes]

    def logs(self) -> list[str]:
        """What every worker process said."""
        return [path.read_text(errors="replace") for path in sorted(self._world.folder.glob("*.log"))]

    def _until(self, moment: float) -> None:
        while (now := time.time()) < moment or any(at <= now for at, _ in self._owed):
            self._owed.sort(key=lambda pair: pair[0])
            while self._owed and self._owed[0][0] <= time.time():
                self._owed.pop(0)[1]()
            self._note_ready()
            time.sleep(0.05)

    def _strike(self) -> None:
        well = [member for member in self._members if self._well(member)]
        if not well:
            return
        member = self._random.choice(well)
        if not self._choices:
            # Beyond the lease others must take over, far below it nobody may.
            self._choices = ["kill", "kill", "freeze", "freeze", "short freeze"]
            self._random.shuffle(self._choices)
        choice = self._choices.pop()
        if choice == "kill":
            self._kill(member)
        else:
            seconds = self._random.uniform(1.2, 2.2) * self._lease if choice == "freeze" else self._lease / 6
            self._freeze(member, choice, seconds)

    def _kill(self, member: _Member) -> None:
        assert member.process is not None
        self._end_life(member)
        self.troubles.append(Trouble(member.present, "kill", time.time()))
        member.process.kill()
        member.process = None
        self._owed.append((time.time() + self._random.uniform(0, 2), lambda: self._start(member)))

    def _freeze(self, member: _Member, kind: str, seconds: float) -> None:
        assert member.process is not None
        self._end_life(member)
        member.frozen = Trouble(member.present, kind, time.time())
        self.troubles.append(member.frozen)
        member.process.freeze()
        self._owed.append((time.time() + seconds, lambda: self._thaw(member)))

    def _thaw(self, member: _Member) -> None:
        assert member.process is not None
        assert member.frozen is not None
        member.process.thaw()
        member.frozen.ended = time.time()
        member.frozen = None
        self._lives.append(_Life(member.present, time.time()))

    def _start(self, member: _Member) -> None:
        member.number += 1
        member.process = self._stack.enter_context(self._world.worker(member.present))

    def _well(self, member: _Member) -> bool:
        return member.process is not None and member.frozen is None and member.process.said("ready")

    def _note_ready(self) -> None:
        known = {life.worker for life in self._lives}
        for member in self._members:
            if member.present not in known and self._well(member):
                self._lives.append(_Life(member.present, time.time()))

    def _end_life(self, member: _Member) -> None:
        for life in self._lives:
            if life.worker == member.present:
                life.until = min(life.until, time.time())

    # --- the account -------------------------------------------------------------------------------------------------

    def count(self, kind: str) -> int:
        """How often this was done."""
        return sum(trouble.kind == kind for trouble in self.troubles)

    @property
    def stall(self) -> float:
        """For how long the machine kept everybody waiting, at most, in seconds."""
        return self._pulse.worst

    @property
    def away(self) -> float:
        """For how long the database was away, at most, in seconds."""
        return max((ended - begun for begun, ended in self._outages), default=0.0)

    def gone(self) -> dict[str, float]:
        """When each worker process was declared dead for the first time, by what the others said."""
        declared: dict[str, float] = {}
        for said in self.logs():
            for moment, worker in _GONE.findall(said):
                at = datetime.fromisoformat(moment).timestamp()
                declared[worker] = min(at, declared.get(worker, at))
        return declared

    def excuse(self, visit: Visit, margin: float) -> str | None:
        """Why this may have been one execution of several of its run: what befell its worker while it was under way.

        `margin` is the time in which an answer is recorded, if the database is there, or a frozen worker learns that it is
        out. "cut off": others declared it dead, though nothing was done to it.
        """
        gone = self.gone().get(visit.worker)
        for trouble in self.troubles:
            if trouble.worker != visit.worker or trouble.kind == "short freeze":
                continue
            ended = trouble.begun if trouble.ended is None else trouble.ended
            to_record = self._with_database(visit.left or visit.arrived, trouble.begun)
            if to_record <= margin and visit.arrived <= ended + margin:
                return trouble.kind
            if gone is not None and trouble.begun <= gone and (trouble.ended is None or gone <= ended + margin):
                gone = None  # That is why it was declared dead.
        return "cut off" if gone is not None and visit.arrived - margin <= gone <= visit.arrived + 3 * margin else None

    def _with_database(self, begun: float, ended: float) -> float:
        """Seconds between two instants in which the database was there."""
        without = sum(max(0.0, min(ended, back) - max(begun, gone)) for gone, back in self._outages)
        return ended - begun - without

    def timeline(self) -> str:
        """What was done to whom, and who was declared dead when: what to read when the account does not add up."""
        struck = [
            (t.begun, f"{t.kind} {t.worker}" + (f" until {t.ended:.2f}" if t.ended else "")) for t in self.troubles
        ]
        declared = [(at, f"declared dead {worker}") for worker, at in self.gone().items()]
        outages = [(begun, f"the database is away until {ended:.2f}") for begun, ended in self._outages]
        return "\n".join(f"{at:.2f} {what}" for at, what in sorted(struck + declared + outages))

    def takeovers(self) -> dict[str, tuple[float, float]]:
        """How long after each kill its worker was declared dead, and how long that may have taken, in seconds.

        Two leases and two seconds after the kill, or after some other worker began a life that lasted for as long.
        """
        gone = self.gone()
        return {
            trouble.worker: (gone.get(trouble.worker, float("inf")) - trouble.begun, self._due(trouble.begun))
            for trouble in self.troubles
            if trouble.kind == "kill" and self._due(trouble.begun) < float("inf")
        }

    def _due(self, lost_at: float) -> float:
        grace = 2 * self._lease + 2 + self.stall
        return min(
            (
                max(life.since, lost_at) + grace - lost_at
                for life in self._lives
                if life.until >= max(life.since, lost_at) + grace
            ),
            default=float("inf"),
        )
