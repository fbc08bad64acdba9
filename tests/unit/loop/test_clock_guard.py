"""What a worker believes of the clock that decides, told by hand what that says, what its own says and what time it is."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from scheduler.domain.instants import SECOND, Micros
from scheduler.errors import ClockJumped, StoreUnavailable
from scheduler.loop.clock_guard import LASTING, ClockGuard
from tests.conftest import ManualClock

HOUR = 3_600 * SECOND
YEAR = 8_760 * HOUR


class Machine:
    """The time since boot and two clocks: the one that decides, and this machine's own."""

    def __init__(self, *, alone: bool = True, last_seen: Micros | None = None, unset: bool = False) -> None:
        self.elapsed: Micros = 1_000 * SECOND
        self.wall = ManualClock()
        self.database = self.wall.now()
        self.guard = ClockGuard(HOUR, self.wall, elapsed=lambda: self.elapsed)
        self.began = self.database
        self.guard.begin(self.database, last_seen, alone=alone, unset=unset)

    def passes(self, by: Micros) -> Machine:
        self.elapsed += by
        self.database += by
        self.wall.advance(by / SECOND)
        return self

    @property
    def believes(self) -> bool:
        try:
            self.guard.check(self.database)
        except ClockJumped:
            assert self.guard.doubt() is not None
            return False
        assert self.guard.doubt() is None
        return True


def test_a_clock_that_goes_on_as_time_does_is_believed_however_long_nobody_looked() -> None:
    machine = Machine()
    assert machine.passes(7 * 24 * HOUR).believes
    assert machine.passes(SECOND).believes


@pytest.mark.parametrize("by", [HOUR, -HOUR, -YEAR])
def test_a_short_jump_ahead_and_any_jump_back_are_believed_at_once(by: Micros) -> None:
    machine = Machine()
    machine.database += by
    assert machine.believes


def test_a_clock_a_year_ahead_for_seconds_is_never_believed() -> None:
    machine = Machine()
    with capture_logs() as logs:
        machine.database += YEAR
        assert not machine.believes
        assert not machine.passes(4 * SECOND).believes
        machine.database -= YEAR
        assert machine.believes
    assert [entry["log_level"] for entry in logs] == ["error", "warning"]
    assert logs[0]["seconds"] == YEAR // SECOND


def test_a_jump_that_lasts_is_believed_after_a_minute() -> None:
    machine = Machine()
    machine.database += HOUR + SECOND
    assert not machine.believes
    assert not machine.passes(LASTING - 1).believes
    assert machine.passes(1).believes
    assert machine.passes(SECOND).believes


def test_one_that_jumps_again_has_to_last_again() -> None:
    machine = Machine()
    machine.database += YEAR
    assert not machine.believes
    machine.passes(50 * SECOND)
    machine.database += YEAR
    assert not machine.believes
    assert not machine.passes(LASTING - SECOND).believes
    assert machine.passes(SECOND).believes


def test_what_is_not_believed_says_by_how_much_and_for_how_long() -> None:
    machine = Machine()
    machine.database += 2 * HOUR
    with pytest.raises(StoreUnavailable, match="ahead by 7,200 s, believed in 60 s unless it is set back"):
        machine.guard.check(machine.database)


def test_a_machine_that_was_suspended_is_believed_at_once() -> None:
    machine = Machine()
    machine.elapsed += 8 * HOUR  # the time since boot goes on
    machine.database += 8 * HOUR
    assert machine.believes


def test_a_database_whose_clock_was_behind_is_believed_where_this_machine_agrees() -> None:
    machine = Machine(alone=False)
    machine.database -= 3 * HOUR
    assert machine.believes
    machine.database += 3 * HOUR
    assert machine.believes


def test_two_clocks_that_jump_together_confirm_nothing() -> None:
    machine = Machine(alone=False)
    machine.database += YEAR
    machine.wall.advance(YEAR / SECOND)
    assert not machine.believes
    assert machine.passes(LASTING).believes


def test_a_clock_of_this_machine_is_confirmed_by_no_other() -> None:
    machine = Machine()
    machine.database += YEAR
    machine.wall.advance(YEAR / SECOND)
    assert not machine.believes


def test_a_process_that_starts_in_a_new_database_believes_what_it_finds() -> None:
    assert Machine().believes


@pytest.mark.parametrize("down", [0, HOUR, -YEAR])
def test_one_that_starts_soon_after_the_last_believes_at_once(down: Micros) -> None:
    assert Machine(last_seen=ManualClock().now() - down).believes


def test_one_that_starts_after_a_week_waits_a_minute_if_nothing_confirms_that_it_was_one() -> None:
    machine = Machine(last_seen=ManualClock().now() - 168 * HOUR)
    assert not machine.believes
    assert machine.passes(LASTING).believes


def test_one_that_starts_after_a_week_believes_a_clock_that_nobody_set() -> None:
    assert Machine(last_seen=ManualClock().now() - 168 * HOUR, unset=True).believes


def test_one_that_starts_after_a_week_believes_a_database_that_agrees_with_its_own_clock() -> None:
    assert Machine(alone=False, last_seen=ManualClock().now() - 168 * HOUR).believes


def test_one_that_starts_while_the_databases_clock_is_wrong_waits() -> None:
    machine = Machine(alone=False, last_seen=ManualClock().now())
    machine.database += YEAR
    machine.guard.begin(machine.database, machine.began, alone=False, unset=False)
    assert not machine.believes
    machine.database -= YEAR
    assert machine.believes


def test_whoever_leaves_believes_everything() -> None:
    machine = Machine()
    machine.database += YEAR
    assert not machine.believes
    machine.guard.let_go()
    assert machine.believes
