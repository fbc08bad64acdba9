"""A worker's places: who may start, and how many at once."""

from __future__ import annotations

import pytest

from scheduler.loop.places import Places, Rate


def places(total: int = 10, **rates: Rate) -> Places:
    return Places(total, ["shell", "http"], limits={"http": 4}, rates=rates, clock=lambda: 0.0)


def test_room_is_what_all_and_each_executor_have_left() -> None:
    worker = places()
    assert worker.room() == {"shell": 10, "http": 4}
    for _ in range(7):
        worker.occupy("shell")
    assert (worker.free(), worker.room()) == (3, {"shell": 3, "http": 3})
    worker.leave("shell")
    assert worker.room() == {"shell": 4, "http": 4}
    worker.close()
    assert (worker.free(), worker.room()) == (0, {"shell": 0, "http": 0})


def test_what_is_set_apart_is_offered_to_nobody_else_until_it_is_given_back() -> None:
    worker = places()
    with worker.set_apart(6) as mine:
        assert mine == {"shell": 6, "http": 4}
        assert worker.unspoken() == 4
        with worker.set_apart(7) as another:
            assert another == {"shell": 4, "http": 0}
            assert worker.unspoken() == 0
        # Free they are all the same, until somebody starts there.
        assert (worker.free(), worker.room()) == (10, {"shell": 10, "http": 4})
        worker.occupy("http")
    assert (worker.free(), worker.unspoken(), worker.room()) == (9, 9, {"shell": 9, "http": 3})


def test_a_rate_offers_each_of_its_starts_once() -> None:
    worker = places(http=Rate(1.0, 3))
    with worker.set_apart(2) as mine:
        assert mine["http"] == 2
        with worker.set_apart(2) as another:
            assert another["http"] == 1
        worker.occupy("http")
        worker.occupy("http")
    assert worker.room()["http"] == 1


def test_a_burst_that_starts_late_is_not_followed_too_closely() -> None:
    now = 0.0
    worker = Places(50, ["http"], limits={}, rates={"http": Rate(per_second=10.0, burst=20)}, clock=lambda: now)
    assert worker.room() == {"http": 20}
    now = 0.25  # The transaction that took the runs lasted this long.
    for _ in range(20):
        worker.occupy("http")
    assert worker.room() == {"http": 0}, "what was not room in the bucket is not saved up"
    assert worker.seconds_to_refill() == pytest.approx(0.1)
    now = 0.36
    assert worker.room() == {"http": 1}
