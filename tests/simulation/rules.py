"""The promises about slots, as values and small functions: what is written, what was planned, what is let through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scheduler.domain.instants import SECOND, Micros
from tests.simulation.grids import Timetable

RUN: Final = "run"
# So many runs of a `buffer_all` trigger may be open. The real number is a thousand; a world is given a small one.
BUFFER: Final = 3


@dataclass(frozen=True)
class CatchUpRule:
    policy: str = "all"
    max_runs: int = 10
    window: Micros = 7 * 86_400 * SECOND


@dataclass(frozen=True)
class Manners:
    """What stands in a trigger's row besides its schedule: it holds from the moment it is written."""

    catchup: CatchUpRule = CatchUpRule()
    overlap: str = "allow_all"
    pause_on_failure: int | None = None


@dataclass(frozen=True)
class Written:
    """What stands in the trigger's row, as far as it decides which slots there are; None is what nobody understands."""

    timetable: Timetable | None
    jitter: Micros = 0
    active: bool = True
    deleted_at: Micros | None = None
    snoozed_until: Micros | None = None
    max_fires: int | None = None
    version: str = ""

    @property
    def deleted(self) -> bool:
        return self.deleted_at is not None

    def live(self, now: Micros) -> bool:
        return self.active and not self.deleted and (self.snoozed_until is None or self.snoozed_until <= now)

    def wakes(self, now: Micros) -> Micros | None:
        """When a trigger that sleeps goes on by itself."""
        sleeps = self.active and not self.deleted and self.snoozed_until is not None and self.snoozed_until > now
        return self.snoozed_until if sleeps else None


@dataclass(frozen=True)
class Planned:
    """What the present plan was made from."""

    timetable: Timetable
    jitter: Micros
    anchor: Micros | None
    activated_at: Micros


@dataclass
class Fire:
    """A slot that got its run just now; `turn` is 0 on time. `serial`: it waits for earlier runs of its trigger."""

    slot: Micros
    turn: int
    due_at: Micros
    covers: tuple[Micros, Micros] | None = None
    serial: bool = False


def caught_up(rule: CatchUpRule, late: list[Micros], *, on_time: bool) -> tuple[list[Micros], str]:
    """Which of the late slots are kept, and why the others are not."""
    match rule.policy:
        case "all":
            return late[max(0, len(late) - rule.max_runs) :], "catchup_cap"
        case "latest":
            return [] if on_time else late[-1:], "coalesced"
        case "none":
            return [], "catchup_policy"
        case _:
            return late[-1:], "covered_by_gap"


def let_through(
    outcomes: Mapping[Micros, str], overlap: str, open_runs: int, skip_next: Micros | None
) -> dict[Micros, str]:
    """The outcomes once those slots are taken out that somebody asked to skip, or that earlier runs hold back."""
    result = dict(outcomes)
    if result.get(skip_next or 0) == RUN and skip_next is not None:
        result[skip_next] = "skip_next"
    runs = [slot for slot in sorted(result) if result[slot] == RUN]
    match overlap:
        case "allow_all":
            held, reason = [], ""
        case "buffer_all":
            held, reason = runs[max(0, BUFFER - open_runs) :], "buffer_full"
        case "skip" if open_runs > 0:
            held, reason = runs, "overlap"
        case "buffer_one" if open_runs > 1:
            held, reason = runs, "overlap"
        case _:
            held, reason = runs[:-1], "overlap"
    return result | dict.fromkeys(held, reason)
