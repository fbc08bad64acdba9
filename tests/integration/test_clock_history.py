"""What the database knows about the clock that decides, when a worker starts."""

from __future__ import annotations

import pytest

from scheduler.clock import since_boot
from scheduler.domain.instants import SECOND
from scheduler.errors import ClockJumped
from scheduler.services.clock_history import ClockHistory, read_clock_history, record_boot
from scheduler.services.fire import fire_due
from scheduler.services.take import take_runs
from scheduler.store.transaction import Store
from tests.conftest import BOTH
from tests.integration.worlds import PLENTY, World, instant, trigger


@pytest.mark.parametrize("kind", BOTH)
def test_an_empty_database_knows_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    store = Store.open(request.getfixturevalue(f"{kind}_url"))
    history = store.run(read_clock_history)
    assert (history.last_seen, history.booted_at) == (None, None)
    # The tests' server runs here.
    assert history.alone
    store.close()


def test_it_knows_the_last_renewal_and_when_this_machine_began(world: World) -> None:
    world.register()
    world.store.run(record_boot, since_boot())
    now = world.clock.now()
    world.clock.advance(60)
    history = world.store.run(read_clock_history)
    assert history == ClockHistory(now + 60 * SECOND, now, True, history.booted_at)
    assert history.booted_at is not None
    assert abs(history.booted_at - (now - since_boot())) < 60 * SECOND


def test_what_is_not_believed_decides_nothing(world: World) -> None:
    world.register()
    world.deploy(trigger())

    def never(_: int) -> None:
        raise ClockJumped("it cannot be that late")

    guarded = world.at("12:05").store.guarded(never)
    with pytest.raises(ClockJumped):
        guarded.run(fire_due, world.planning, limit=10, owner="w1")
    with pytest.raises(ClockJumped):
        guarded.run(take_runs, "w1", PLENTY, on_time=10, late=10)
    assert world.ledger() == []
    assert len(world.fire_all()) == 5
    assert world.rows("SELECT last_slot FROM trigger_due") == [(instant("12:05"),)]
