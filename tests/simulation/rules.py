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


def refused(overlap: str, open_runs: int) -> str | None:
    """Why nothing at all may fire beside the runs that are open."""
    if overlap == "buffer_all" and open_runs >= BUFFER:
        return "buffer_full"
    if (overlap == "skip" and open_runs > 0) or (overlap == "buffer_one" and open_runs > 1):
        return "overlap"
    return None


def let_through(outcomes: Mapping[Micros, str], overlap: str, open_runs: int) -> dict[Micros, str]:
    """The outcomes once those slots are taken out that earlier runs hold back, or a newer one overtakes."""
    runs = [slot for slot in sorted(outcomes) if outcomes[slot] == RUN]
    if why := refused(overlap, open_runs):
        return {**outcomes} | dict.fromkeys(runs, why)
    match overlap:
        case "allow_all":
            return {**outcomes}
        case "buffer_all":
            return {**outcomes} | dict.fromkeys(runs[BUFFER - open_runs :], "buffer_full")
        case _:
            return {**outcomes} | dict.fromkeys(runs[:-1], "overlap")
