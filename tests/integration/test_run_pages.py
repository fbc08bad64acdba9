"""Looking through runs a page at a time, on both databases: newest first, whatever is fired meanwhile."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import event

from scheduler.client import Filter
from scheduler.domain.task import TaskSpec
from scheduler.errors import SpecError
from scheduler.services import listing
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import World, instant, key, trigger


@pytest.fixture
def runs(world: World) -> World:
    """Twelve runs: nine of slots, of which five were caught up at once, and three by hand; two have failed."""
    world.register()
    world.deploy(trigger("a"), trigger("b"))
    for moment in ("12:01", "12:02"):
        world.step(moment)
    world.fail(*world.take()[:2])
    for _ in range(3):
        world.client.fire(key("a"))
    world.step("12:08")
    return world


def pages(world: World, limit: int, *filters: Filter, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token = None
    while True:
        page = world.client.find_runs(filters, limit=limit, token=token, **options)
        found += page.rows
        if page.next_token is None:
            return found
        assert len(page.rows) == limit
        token = page.next_token


def test_pages_together_are_the_whole_listing_newest_first(runs: World) -> None:
    whole = runs.client.list_runs(limit=1_000)
    assert len(whole) > 10
    for limit in (1, 2, 3, 7, 1_000):
        assert pages(runs, limit) == pages(runs, 1_000)
    assert {row["name"] for row in whole} == {row["name"] for row in pages(runs, 5)}
    slots = [(row["created_at"], row["scheduled_at"] or 0) for row in pages(runs, 5)]
    assert slots == sorted(slots, reverse=True)


def test_what_is_fired_meanwhile_moves_nothing(runs: World) -> None:
    before = pages(runs, 1_000)
    first = runs.client.find_runs(limit=4)
    runs.step("12:11")
    runs.client.fire(key("b"))
    rest = pages_after(runs, first.next_token)
    assert [row["name"] for row in first.rows + rest] == [row["name"] for row in before]


def pages_after(world: World, token: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while token is not None:
        page = world.client.find_runs(limit=4, token=token)
        found, token = found + page.rows, page.next_token
    return found


def test_filters_and_sorts_of_runs(runs: World) -> None:
    def names(*filters: Filter, **options: Any) -> list[str]:
        return [row["phase"] for row in pages(runs, 3, *filters, **options)]

    assert names(Filter("phase", "in", ["FAILED", "TIMED_OUT"])) == ["FAILED", "FAILED"]
    assert names(Filter("error", "contains", "BROKE")) == ["FAILED", "FAILED"]
    assert len(names(Filter("kind", "equal", "manual"))) == 3
    assert len(names(Filter("trigger", "equal", "a"))) == len(runs.client.list_runs(trigger="a", limit=1_000))
    assert len(names(Filter("finished_at", "since", 1))) == 2
    oldest = pages(runs, 3, sort="created_at")
    assert [row["name"] for row in oldest] == [row["name"] for row in reversed(pages(runs, 3))]
    assert pages(runs, 3, sort="-scheduled_at")[0]["scheduled_at"] == instant("12:08")
    with pytest.raises(SpecError, match="no field of this listing"):
        runs.client.find_runs(sort="colour")


def test_runs_are_counted_only_where_that_is_asked(runs: World) -> None:
    assert runs.client.find_runs().total is None
    page = runs.client.find_runs([Filter("phase", "equal", "FAILED")], totals=True)
    assert (page.total, page.total_all) == (2, len(runs.client.list_runs(limit=1_000)))


def test_what_open_runs_wait_for_comes_along(world: World) -> None:
    world.register()
    world.deploy(trigger("serial", overlap="buffer_all"), task="one")
    world.deploy(trigger("hand", None), task="full", spec=TaskSpec("logging", max_concurrent_runs=1))
    world.deploy(trigger("hand", None), task="lonely", spec=TaskSpec("nobody"))
    world.step("12:02")
    for task in ("full", "full", "lonely"):
        world.client.fire(key("hand", task))
    world.take()
    found = sorted((row["task"], row["phase"], row["waiting_for"]) for row in world.client.find_runs().rows)
    assert found == [
        ("full", "QUEUED", "its task, of which 1 of 1 runs are under way"),
        ("full", "RUNNING", None),
        ("lonely", "QUEUED", "no worker for executor nobody"),
        ("one", "QUEUED", "an earlier run of its trigger"),
        ("one", "RUNNING", None),
    ]
    for row in world.client.find_runs().rows:
        assert world.run(row["name"])["waiting_for"] == row["waiting_for"]


@pytest.mark.postgres
def test_a_page_far_down_is_found_through_the_index(postgres_url: str, clock: ManualClock) -> None:
    world = World(Store.open(postgres_url, clock=clock), clock)
    try:
        world.deploy(trigger("a", None))
        name = world.client.fire(key("a"))
        columns = [
            row[0] for row in world.rows("SELECT column_name FROM information_schema.columns WHERE table_name='runs'")
        ]
        copied = ", ".join(
            {"name": "'r' || n", "created_at": "n", "phase": "'SUCCEEDED'", "finished_at": "n"}.get(column, column)
            for column in columns
        )
        world.sql(
            f"INSERT INTO runs ({', '.join(columns)}) SELECT {copied} FROM runs, generate_series(1, 20000) n "
            f"WHERE name = '{name}'"
        )
        world.sql("ANALYZE runs")
        token = None
        for _ in range(3):
            token = world.client.find_runs(limit=3_000, token=token).next_token
        asked: list[Any] = []
        with world.store.read() as tx:
            event.listen(tx.connection, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
            listing.find_runs(tx, listing.Query(limit=10, token=token))
            statement, values = asked[0]
            plan = "\n".join(row[0] for row in tx.connection.exec_driver_sql(f"EXPLAIN {statement}", values))
        assert re.search(r"using runs_created on runs.*\n\s+Index Cond: .*created_at <= ", plan), plan
    finally:
        world.store.close()
