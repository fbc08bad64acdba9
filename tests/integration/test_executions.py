"""What a worker gets with a run it has taken: its inputs, its time, its task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scheduler.domain.task import TaskSpec
from scheduler.services.take import Execution, describe_runs
from tests.integration.worlds import World, key, only, trigger

FIVE_MINUTES, A_DAY = timedelta(minutes=5), timedelta(hours=24)


def taken(world: World, spec: TaskSpec | None = None, **options: Any) -> Execution:
    world.register()
    world.deploy(trigger(**options), spec=spec)
    world.step("12:01")
    execution: Execution = only(world.take())
    return execution


@pytest.mark.parametrize(
    ("said", "overlap", "timeout"),
    [
        (None, "allow_all", None),
        (None, "skip", A_DAY),
        (FIVE_MINUTES, "allow_all", FIVE_MINUTES),
        (FIVE_MINUTES, "skip", FIVE_MINUTES),
    ],
)
def test_an_attempt_has_the_time_its_task_names_or_a_day_where_others_wait_for_it(
    world: World, said: timedelta | None, overlap: str, timeout: timedelta | None
) -> None:
    assert taken(world, TaskSpec("logging", timeout=said), overlap=overlap).timeout == timeout


def test_inputs_are_the_tasks_then_the_triggers_then_the_slot(world: World) -> None:
    spec = TaskSpec("logging", inputs={"a": 1, "b": 1})
    assert taken(world, spec).inputs == {"a": 1, "b": 1}
    world.deploy(trigger(inputs={"b": 2}, kickoff_time_input_arg="at"), spec=spec)
    world.step("12:02")
    assert only(world.take()).inputs == {"a": 1, "b": 2, "at": "2026-11-21T12:02:00Z"}
    world.client.fire(key())
    assert only(world.take()).inputs == {"a": 1, "b": 2}, "a run by hand has no slot"


def test_what_is_known_already_is_not_read_again(world: World) -> None:
    run = taken(world, TaskSpec("logging", inputs={"a": 1})).run
    with world.store.read() as tx:
        specs, keys, names = describe_runs(tx, [run], ())
        assert (list(specs), list(keys), list(names)) == ([run.spec_digest], [run.task_id], [run.trigger_id])
        assert describe_runs(tx, [run], {run.spec_digest}) == ({}, keys, names)
