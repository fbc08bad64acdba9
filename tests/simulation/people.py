"""Everyone who is no worker: who changes what, and what is known of the triggers. Their clocks are as wrong as anybody's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from scheduler.domain.instants import SECOND, Micros
from scheduler.services.operate import TriggerKey
from scheduler.services.plan import Planning
from tests.simulation.clocks import Wall
from tests.simulation.deployers import Deployers
from tests.simulation.editors import Editors
from tests.simulation.grids import HOUR, MINUTE, Timetable
from tests.simulation.operators import Operators
from tests.simulation.rules import CatchUpRule, Manners
from tests.simulation.runs import Spec

if TYPE_CHECKING:
    from random import Random

    from tests.simulation.world import World

PROJECT: Final = "flytesnacks"
DOMAIN: Final = "development"
TASKS: Final = ("report", "bill")
NAMES: Final = ("a", "b", "c")


@dataclass(frozen=True)
class Said:
    """What a deploy says about one trigger."""

    timetable: Timetable
    jitter: Micros
    manners: Manners
    max_fires: int | None = None
    active: bool = True


@dataclass(frozen=True)
class Manifest:
    """What a deploy says about one task."""

    version: str
    spec: Spec
    triggers: tuple[tuple[str, Said], ...]


@dataclass
class Register:
    """What the database knows of tasks and triggers: who is who, and what was deployed."""

    ids: dict[TriggerKey, int] = field(default_factory=dict)
    # Each task's last deploy, unless it was undone by hand since, and all that were ever made.
    deployed: dict[str, Manifest | None] = field(default_factory=dict)
    ever: dict[str, set[Manifest]] = field(default_factory=lambda: {task: set() for task in TASKS})
    versions: dict[str, dict[str, Spec]] = field(default_factory=lambda: {task: {} for task in TASKS})
    said: dict[int, Said] = field(default_factory=dict)
    # The version each trigger copied when it was last looked at.
    pointed: dict[int, tuple[str, Spec]] = field(default_factory=dict)

    def key_of(self, trigger_id: int) -> TriggerKey:
        return next(key for key, number in self.ids.items() if number == trigger_id)

    def ids_of(self, task: str) -> list[tuple[TriggerKey, int]]:
        return [(key, number) for key, number in self.ids.items() if key.task == task]


class People:
    """Deployers, operators, and those who write plain SQL."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wall = Wall(world, world.random.choice([0, 7_200, -7_200, 50, -50]) * SECOND)
        self.planning = Planning(world.grace, "command line")
        self.register = Register()
        self.deployers = Deployers(world, self)
        self._operators = Operators(world, self)
        self._editors = Editors(world, self)

    def step(self) -> None:
        """Somebody changes something."""
        deploys, commands, edits = self.deployers, self._operators, self._editors
        often: list[Callable[[], None]] = [deploys.deploy, edits.schedule, commands.toggle, commands.fire]
        often += [commands.cancel, commands.retry, commands.snooze, commands.skip_next, edits.manners, edits.slightly]
        seldom = [
            commands.delete,
            commands.reset,
            edits.active,
            edits.deleted,
            edits.max_fires,
            edits.snooze,
            edits.version,
        ]
        self._world.random.choice([*often, *often, *often, *seldom, edits.nonsense, edits.mend, edits.mend])()

    def points(self, trigger_id: int) -> bool:
        """Lets a trigger copy what its version says now; False if there is no such version."""
        written = self._world.triggers[trigger_id].written
        versions = self.register.versions[self.register.key_of(trigger_id).task]
        lives = written.active and not written.deleted
        if lives and written.timetable is not None and written.version in versions:
            self.register.pointed[trigger_id] = written.version, versions[written.version]
        return written.version in versions

    def any_trigger(self, *, alive: bool = False) -> TriggerKey | None:
        """Some trigger, if there is one."""
        ids = self.register.ids
        keys = [key for key in sorted(ids) if not alive or not self._world.triggers[ids[key]].written.deleted]
        return self._world.random.choice(keys) if keys else None


def any_jitter(random: Random) -> Micros:
    return random.choice([0, 0, 0, 20 * SECOND, 5 * MINUTE])


def any_manners(random: Random) -> Manners:
    policy = random.choice(["all", "all", "all", "latest", "none", "gap"])
    window = random.choice([7 * 24 * HOUR, 7 * 24 * HOUR, 20 * MINUTE, 10 * SECOND])
    rule = CatchUpRule(policy, random.choice([0, 1, 3, 10]), window)
    overlap = random.choice(["allow_all"] * 5 + ["skip", "buffer_one", "buffer_all", "cancel_other"])
    return Manners(rule, overlap, random.choice([None, None, None, 1, 2, 3]))


def any_spec(random: Random) -> Spec:
    return Spec(
        random.choice(["simulated"] * 6 + ["rare"]),
        random.choice([1, 2, 2, 3]),
        random.choice(["retry", "retry", "retry", "fail"]),
        random.choice([None, None, None, 10 * MINUTE]),
        random.choice([None, None, 1, 3]),
    )
