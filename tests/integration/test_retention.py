"""Retention on both databases: what is forgotten, what never is, and what stays of it in the ledger."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scheduler.domain.automation import Cron
from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import CatchUp
from scheduler.services.finish import Ended
from scheduler.services.retain import Retained, RetentionRules, retain
from tests.integration.test_backfill import advance, drain, order
from tests.integration.worlds import HOUR, MINUTE, World, instant, key, trigger

HOURLY = Cron("0 * * * *")
DAY = 24 * HOUR


def rules(*, runs: int = 6 * HOUR, keep: int = 0, revisions: int = 365 * DAY) -> RetentionRules:
    return RetentionRules(runs, keep, revisions)


def forget(world: World, kept: RetentionRules | None = None, *, limit: int = 1_000) -> Retained:
    """Goes through all history once, as a worker does in its time; what it removed."""
    total = Retained()
    world.sql("DELETE FROM meta WHERE key = 'retention'")
    while not total.ended:
        done = world.store.run(retain, kept or rules(), limit)
        assert done is not None
        total = total.then(done)
    return total


def live(world: World, *hours: str, phase: Phase = Phase.SUCCEEDED) -> None:
    """At each time: what is due is fired, executed, and ended in this phase."""
    for hour in hours:
        world.step(hour)
        world.finish(*(Ended(held, phase, error="x", retryable=False) for held in world.take()))


@pytest.fixture
def noon(world: World) -> World:
    """An hourly trigger, deployed at noon, and a worker."""
    world.deploy(trigger("nightly", HOURLY))
    world.register()
    return world


def test_runs_over_their_age_leave_a_range(noon: World) -> None:
    live(noon, "13:00", "14:00", "15:00", "16:00")
    noon.at("21:30")
    assert forget(noon).runs == 3
    assert noon.ledger() == ["pruned 13:00–15:00 ×3", "16:00"]
    assert noon.client.list_slots(key())[0]["kind"] == "pruned"
    assert noon.rows("SELECT count(*) FROM attempts") == [(1,)]
    assert forget(noon).runs == 0
    noon.at("22:30")
    assert forget(noon).runs == 1
    assert noon.ledger() == ["pruned 13:00–16:00 ×4"]


def test_lost_executions_go_with_their_run(noon: World) -> None:
    noon.step("13:00")
    noon.take()
    noon.lose_worker("w1")
    noon.register("w2")
    noon.succeed(*noon.take("w2"))
    assert noon.rows("SELECT count(*) FROM lost_attempts") == [(1,)]
    noon.at("21:30")
    assert forget(noon).runs == 1
    assert noon.rows("SELECT count(*) FROM lost_attempts") == [(0,)]


def test_what_is_forgotten_is_never_fired_again(noon: World) -> None:
    live(noon, "13:00", "14:00")
    noon.at("14:30")
    assert forget(noon, rules(runs=1)).runs == 2
    assert noon.step("14:45") == []
    # Not even after the clock was set back: a forgotten slot has its entry.
    noon.clock_set_back("12:30")
    assert noon.step("15:00:10") == ["15:00"]
    assert noon.ledger() == ["pruned 13:00–14:00 ×2", "15:00"]


def test_the_newest_of_each_trigger_stay_however_old(noon: World) -> None:
    noon.deploy(trigger("other", HOURLY), task="billing")
    live(noon, "13:00", "14:00", "15:00", "16:00")
    noon.at("27 00:00")
    assert forget(noon, rules(keep=3)).runs == 2
    assert noon.ledger() == ["pruned 13:00–13:00 ×1", "14:00", "15:00", "16:00"]
    assert noon.ledger("other", "billing") == noon.ledger()
    assert forget(noon, rules(keep=4)).runs == 0


def test_what_is_open_stays_and_breaks_the_range(noon: World) -> None:
    live(noon, "13:00")
    noon.step("14:00")
    noon.take()  # 14:00 runs and runs
    live(noon, "15:00", "16:00")
    noon.at("25 00:00")
    assert forget(noon).runs == 3
    assert noon.ledger() == ["pruned 13:00–13:00 ×1", "14:00", "pruned 15:00–16:00 ×2"]
    # When it is over and old as well, the ranges become one.
    noon.lose_worker("w1")
    noon.register("w2")
    noon.succeed(*noon.take("w2"))
    noon.at("26 00:00")
    assert forget(noon).runs == 1
    assert noon.ledger() == ["pruned 13:00–16:00 ×4"]


def test_skipped_ranges_stay_and_are_not_reached_over(world: World) -> None:
    world.deploy(trigger("nightly", HOURLY, catchup=CatchUp(max_runs=1)))
    world.register()
    live(world, "13:00", "14:00", "18:30", "19:00", "20:00")
    world.at("27 00:00")
    assert forget(world).runs == 5
    skipped = "catchup_cap 15:00–17:00 ×3"
    assert world.ledger() == ["pruned 13:00–14:00 ×2", skipped, "pruned 18:00–20:00 ×3"]
    assert world.rows("SELECT count(*) FROM v_skips") == [(1,)]


def test_small_batches_come_to_the_same(noon: World) -> None:
    noon.deploy(trigger("other", HOURLY), task="billing")
    live(noon, *(f"{hour}:00" for hour in range(13, 24)))
    noon.at("27 00:00")
    assert forget(noon, rules(keep=2), limit=3).runs == 18
    assert noon.ledger() == ["pruned 13:00–21:00 ×9", "22:00", "23:00"]
    assert noon.ledger("other", "billing") == noon.ledger()


def test_of_a_trigger_that_pauses_on_failure_what_it_counts_stays(noon: World) -> None:
    noon.deploy(trigger("nightly", HOURLY, pause_on_failure=3), version="v2")
    live(noon, "13:00", "14:00")
    live(noon, "15:00", "16:00", phase=Phase.FAILED)
    noon.at("16:30")
    # Three are looked at: 14:00 ended the row of failures, so it must be known.
    assert forget(noon, rules(runs=1)).runs == 1
    live(noon, "17:00", phase=Phase.FAILED)
    assert noon.trigger()["state"] == "inactive"


def test_runs_fired_by_hand_are_counted_apart(noon: World) -> None:
    names = []
    for minute in range(4):
        noon.at(f"12:0{minute}")
        names.append(noon.client.fire(key()))
        noon.succeed(*noon.take())
    live(noon, "13:00", "14:00")
    noon.at("25 00:00")
    assert forget(noon, rules(keep=2)).runs == 2
    assert {row["name"] for row in noon.runs() if row["scheduled_at"] is None} == set(names[2:])
    assert noon.ledger() == ["13:00", "14:00"]


def test_a_slot_that_was_done_again_keeps_its_run_as_long_as_there_is_one(noon: World) -> None:
    live(noon, "13:00", "14:00")
    noon.at("18:00")
    order(noon, "13:00", "13:00", reprocess="all")
    assert drain(noon) == ["13:00"]
    noon.at("21:00")
    assert forget(noon).runs == 2
    # Its own run is forgotten, the second one is younger.
    assert noon.ledger() == ["13:00", "pruned 14:00–14:00 ×1"]
    noon.at("25 00:00")
    assert forget(noon).runs == 1
    assert noon.ledger() == ["pruned 13:00–14:00 ×2"]


def test_a_backfill_does_not_fill_what_is_forgotten(noon: World) -> None:
    live(noon, "13:00", "14:00", phase=Phase.FAILED)
    live(noon, "15:00")
    noon.at("20:30")
    assert forget(noon).runs == 2
    preview = noon.client.preview_backfill(key(), instant("11:00"), instant("15:00"))
    assert (preview["slots"], preview["to_fill"]) == (5, 2)
    order(noon, "11:00", "15:00")
    assert drain(noon) == ["11:00", "12:00"]
    # How a forgotten run ended nobody knows: only `all` does it again, under a name it never had.
    order(noon, "13:00", "14:00", reprocess="failed")
    assert drain(noon) == []
    assert noon.client.preview_backfill(key(), instant("13:00"), instant("14:00"), reprocess="all")["to_fill"] == 2
    number = order(noon, "14:00", "14:00", reprocess="all")
    assert drain(noon) == ["14:00"]
    assert noon.ledger() == ["11:00", "12:00", "pruned 13:00–13:00 ×1", "14:00", "15:00"]
    (again,) = [row["name"] for row in noon.runs() if f"-b{number}-" in row["name"]]
    assert noon.run(again)["kind"] == "reprocess"


def test_runs_of_a_backfill_under_way_stay_until_it_is_over(noon: World) -> None:
    number = order(noon, "06:00", "08:00")
    advance(noon)
    noon.succeed(*noon.take())
    advance(noon)
    noon.at("25 00:00")
    assert forget(noon).runs == 0
    drain(noon)
    noon.at("27 00:00")
    before = noon.client.show_backfill(number)
    assert forget(noon, rules(runs=49 * HOUR)).runs == 1
    # How its runs ended it has written down.
    assert noon.client.show_backfill(number) == before
    assert before["succeeded"] == 3
    done = forget(noon, rules(runs=47 * HOUR))
    assert (done.runs, done.backfills) == (2, 1)
    assert noon.client.list_backfills() == []
    assert noon.ledger() == ["pruned 06:00–08:00 ×3"]


def test_revisions_over_their_age_go_but_never_the_newest(noon: World) -> None:
    for version in ("v2", "v3"):
        noon.clock.advance(hours=1)
        noon.deploy(trigger("nightly", HOURLY, description=version), version=version)
    noon.deploy(trigger("other"), task="billing")
    noon.clock.advance(hours=1)
    noon.deploy(task="billing", version="v2")  # Its trigger is deleted.
    before = noon.rows("SELECT trigger_id, revision FROM trigger_revisions ORDER BY 1, 2")
    assert before == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    noon.clock.advance(minutes=30)
    assert forget(noon, rules(revisions=91 * MINUTE)).revisions == 2
    assert noon.rows("SELECT trigger_id, revision FROM trigger_revisions ORDER BY 1, 2") == [(1, 3), (2, 1), (2, 2)]
    assert forget(noon, rules(revisions=1), limit=1).revisions == 1
    assert noon.rows("SELECT trigger_id, revision FROM trigger_revisions ORDER BY 1, 2") == [(1, 3), (2, 2)]


def test_it_rests_between_times_and_one_worker_does_it(noon: World) -> None:
    live(noon, "13:00")
    noon.at("25 00:00")
    kept = rules(runs=24 * HOUR)
    while (done := noon.store.run(retain, kept)) is not None:
        last = done
    assert last.ended
    noon.clock.advance(minutes=59)
    assert noon.store.run(retain, kept) is None
    noon.clock.advance(minutes=1)
    assert noon.store.run(retain, kept) is not None
    # After the clock was set back it does not wait for the old time to come again.
    while noon.store.run(retain, kept) is not None:
        pass
    noon.clock.advance(hours=-10)
    assert noon.store.run(retain, kept) is not None


@pytest.mark.postgres
def test_while_another_worker_does_a_batch_nobody_waits_for_it(postgres_url: str) -> None:
    from scheduler.store.transaction import Store

    one, two = Store.open(postgres_url), Store.open(postgres_url)
    assert one.run(retain, rules()) is not None
    with one.begin() as tx:
        assert retain(tx, rules()) is not None
        assert two.run(retain, rules()) is None
    assert two.run(retain, rules()) is not None
    one.close()
    two.close()


def test_a_walk_that_was_cut_short_goes_on_where_it_was(noon: World) -> None:
    live(noon, "13:00", "14:00", "15:00")
    noon.at("25 00:00")
    first = noon.store.run(retain, rules(), 1)
    assert first is not None
    assert first.runs == 1
    assert json.loads(noon.rows("SELECT value FROM meta WHERE key = 'retention'")[0][0])["chore"] == 0
    # Another worker, or the same one after a restart.
    total = 1
    while (done := noon.store.run(retain, rules(), 1)) is not None:
        total += done.runs
    assert total == 3


def test_runs_whose_trigger_somebody_removed_by_sql_go_too(noon: World) -> None:
    live(noon, "13:00")
    noon.sql("DELETE FROM triggers")
    noon.at("25 00:00")
    assert forget(noon).runs == 1
    assert noon.rows("SELECT count(*) FROM skips") == [(0,)]


def test_a_specification_that_only_old_runs_named_is_collected_after_them(noon: World) -> None:
    from scheduler.services.specs import collect_orphan_specs, find_orphan_specs

    def collect() -> int:
        found: Any = noon.store.run(find_orphan_specs, 100)
        return noon.store.run(collect_orphan_specs, found)

    noon.deploy(trigger("nightly", HOURLY), spec=TaskSpec("logging", inputs={"n": 1}))
    live(noon, "13:00")
    order(noon, "08:00", "09:00")
    noon.deploy(trigger("nightly", HOURLY), spec=TaskSpec("logging", inputs={"n": 2}))
    noon.at("24 00:00")
    forget(noon)
    collect()
    # The backfill has not come to its runs yet, and will need what they pin.
    assert len(drain(noon)) == 2
    noon.at("27 00:00")
    forget(noon)
    forget(noon)
    assert noon.client.list_backfills() == []
    before = noon.rows("SELECT count(*) FROM task_specs")
    assert collect() >= 1
    assert noon.rows("SELECT count(*) FROM task_specs") < before


def test_slots_that_never_had_an_entry_are_not_forgotten_with_their_neighbours(noon: World) -> None:
    """Between two runs lies a pause: its slots were never owed, and may be filled by a backfill yet."""
    live(noon, "13:00")
    noon.at("13:30").client.deactivate(key())
    noon.at("16:30").client.activate(key())
    live(noon, "17:00", "18:00")
    noon.at("25 00:00")
    assert forget(noon).runs == 3
    assert noon.ledger() == ["pruned 13:00–13:00 ×1", "pruned 17:00–18:00 ×2"]
    order(noon, "13:00", "18:00", max_active=10)
    assert drain(noon) == ["14:00", "15:00", "16:00"]


def test_runs_of_a_denser_schedule_are_forgotten_round_what_is_kept(world: World) -> None:
    """Under the schedule of now no slot lies between them, but one of their own that still runs does."""
    world.deploy(trigger("nightly"))
    world.register()
    live(world, "12:01", "12:02")
    world.step("12:03")
    world.take()
    live(world, "12:04", "12:05")
    world.deploy(trigger("nightly", HOURLY), version="v2")
    world.at("25 00:00")
    assert forget(world).runs == 4
    assert world.ledger()[:3] == ["pruned 12:01–12:02 ×2", "12:03", "pruned 12:04–12:05 ×2"]
