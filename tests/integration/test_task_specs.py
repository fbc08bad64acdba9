"""Specifications by digest: kept byte for byte, once, as long as a version, a trigger or a run names them."""

from __future__ import annotations

import hashlib
import threading

import pytest

from scheduler.domain.task import TaskSpec
from scheduler.errors import NotFound, SpecError
from scheduler.services.specs import collect_orphan_specs, find_orphan_specs
from tests.integration.worlds import World, only, trigger

TASK = ("flytesnacks", "development", "report")


def collect(world: World, limit: int = 1_000) -> int:
    """What a beat does: find in a transaction that only reads, then remove; until nothing is left to look after."""
    removed = 0
    while True:
        with world.store.read() as tx:
            found = find_orphan_specs(tx, limit)
        removed += world.store.run(collect_orphan_specs, found)
        if len(found.pinned) + len(found.free) < limit:
            return removed


def digests(world: World) -> set[str]:
    return {row[0] for row in world.rows("SELECT digest FROM task_specs")}


def test_a_specification_is_kept_byte_for_byte_with_its_format(world: World) -> None:
    encoded = bytes(range(256)) * 3
    digest = world.client.create_task_spec(encoded, spec_format="protobuf/flyte")
    assert digest == hashlib.sha256(encoded).hexdigest()
    kept = world.client.read_task_spec(digest)
    assert (kept.encoded, kept.format, kept.created_at) == (encoded, "protobuf/flyte", world.clock.now())
    with pytest.raises(NotFound):
        world.client.read_task_spec("0" * 64)


def test_a_specification_that_is_there_is_left_alone(world: World) -> None:
    first = world.client.create_task_spec(b"{}", spec_format="one")
    world.clock.advance(5)
    assert world.client.create_task_spec(b"{}", spec_format="two", digest=first) == first
    kept = world.client.read_task_spec(first)
    assert (kept.format, kept.created_at) == ("one", world.clock.now() - 5_000_000)
    assert len(digests(world)) == 1


def test_a_digest_or_format_that_cannot_be_is_refused(world: World) -> None:
    with pytest.raises(SpecError, match="digest: 'abc' is not the SHA-256 of these bytes"):
        world.client.create_task_spec(b"{}", digest="abc")
    with pytest.raises(SpecError, match="format: '' is not 1 to 32 printable"):
        world.client.create_task_spec(b"{}", spec_format="")
    with pytest.raises(SpecError, match=r"format: 'x{33}' is not 1 to 32"):
        world.client.create_task_spec(b"{}", spec_format="x" * 33)
    assert digests(world) == set()


def test_a_deploy_uses_the_specification_that_was_handed_in_before(world: World) -> None:
    spec = TaskSpec("logging", inputs={"n": 1})
    digest = world.client.create_task_spec(spec.encode())
    world.deploy(trigger(), spec=spec)
    assert digests(world) == {digest}
    assert only(world.client.list_versions(*TASK))["digest"] == digest


def test_what_nobody_names_is_removed_after_a_day(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 1}))
    named = digests(world)
    orphans = {world.client.create_task_spec(bytes([number])) for number in range(7)}
    world.clock.advance(hours=23, minutes=59)
    assert collect(world) == 0
    world.clock.advance(minutes=2)
    assert collect(world, limit=3) == 7
    assert digests(world) == named
    assert not digests(world) & orphans


def test_what_is_handed_in_again_stays_for_another_day(world: World) -> None:
    digest = world.client.create_task_spec(b"{}")
    world.clock.advance(hours=23)
    world.client.create_task_spec(b"{}")
    world.clock.advance(hours=23)
    assert collect(world) == 0
    assert digests(world) == {digest}
    world.clock.advance(hours=2)
    assert collect(world) == 1


def test_what_a_run_pinned_stays_after_its_version_moved_on(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 1}))
    world.step("12:01")
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 2}))
    world.clock.advance(days=2)
    assert collect(world, limit=1) == 0
    assert len(digests(world)) == 2
    assert world.run(world.runs()[-1]["name"])["inputs"] == {"n": 1}
    # A run that retention took away pins nothing; what was found pinned is looked at again after a day.
    world.sql("DELETE FROM runs")
    assert collect(world) == 0
    world.clock.advance(hours=25)
    assert collect(world) == 1
    assert len(digests(world)) == 1


def test_the_specification_of_a_deleted_version_is_removed(world: World) -> None:
    world.deploy(spec=TaskSpec("logging", inputs={"n": 1}), version="v1")
    world.deploy(spec=TaskSpec("logging", inputs={"n": 2}), version="v2")
    world.client.delete_version(*TASK, "v1")
    world.clock.advance(days=2)
    assert collect(world) == 1
    assert only(world.client.list_versions(*TASK))["digest"] in digests(world)


def test_what_is_named_between_finding_and_removing_stays(world: World) -> None:
    spec = TaskSpec("logging", inputs={"n": 1})
    world.client.create_task_spec(spec.encode())
    handed_in_again = world.client.create_task_spec(b"{}")
    world.clock.advance(days=2)
    with world.store.read() as tx:
        found = find_orphan_specs(tx, 10)
    assert len(found.free) == 2
    world.deploy(trigger(), spec=spec)
    world.client.create_task_spec(b"{}")
    assert world.store.run(collect_orphan_specs, found) == 0
    assert digests(world) == {spec.digest, handed_in_again}


def test_a_deploy_and_a_removal_at_once_never_leave_a_version_without_its_specification(world: World) -> None:
    specs = [TaskSpec("logging", inputs={"n": number}) for number in range(40)]
    for spec in specs:
        world.client.create_task_spec(spec.encode())
    world.clock.advance(days=2)
    begin = threading.Barrier(3)
    errors: list[BaseException] = []

    def run(work: object) -> None:
        try:
            begin.wait()
            work()  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    def deploy(order: int) -> None:
        for number, spec in list(enumerate(specs))[::order]:
            world.deploy(task=f"task-{number}-{order}", spec=spec)

    def remove() -> None:
        for _ in range(20):
            collect(world, limit=5)

    threads = [threading.Thread(target=run, args=(work,)) for work in (lambda: deploy(1), lambda: deploy(-1), remove)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert digests(world) == {spec.digest for spec in specs}
