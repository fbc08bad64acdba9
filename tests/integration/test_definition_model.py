"""Deploys, switches, deletes and concurrent editors at random, held against plain dictionaries after every step."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from scheduler.client import Client, Filter, TriggerKey
from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.errors import Conflict, NotFound
from scheduler.services.specs import collect_orphan_specs, find_orphan_specs
from tests.integration.definition_model import Model
from tests.integration.worlds import World

DOMAIN = "development"
TASKS = ["one", "two"]
VERSIONS = ["v1", "v2", "v3"]
NAMES = ["cron-a", "cron-b", "rate", "by-hand"]
SOURCES = ["manifest", "manifest", "api"]
PEOPLE = ["ann", "ben"]

_numbers = itertools.count(1)


@st.composite
def trigger_specs(draw: Any, name: str) -> TriggerSpec:
    automation: Any = None
    if name.startswith("cron"):
        automation = draw(st.sampled_from([Cron("*/5 * * * *"), Cron("*/15 * * * *"), None]))
    elif name == "rate":
        automation = FixedRate(draw(st.sampled_from([3, 7])), "minute")
    return TriggerSpec(
        name,
        automation,
        inputs=draw(st.sampled_from([{}, {"n": 1}])),
        active=draw(st.sampled_from([True, True, False])),
    )


TRIGGERS = st.lists(st.sampled_from(NAMES), unique=True, max_size=4).flatmap(
    lambda names: st.tuples(*(trigger_specs(name) for name in names))
)


class Definitions(RuleBasedStateMachine):
    """One project of its own in a database that all examples share; `world` is set by the test."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.project = f"project-{next(_numbers)}"
        self.model = Model()
        self.deployed: list[tuple[TaskDefinition, str]] = []
        self.clients = {
            name: Client(self.world.store, planning=self.world.planning, by=name, create_projects=True)
            for name in PEOPLE
        }

    # --- what people do ----------------------------------------------------------------------------------------------

    @rule(
        task=st.sampled_from(TASKS),
        version=st.sampled_from(VERSIONS),
        triggers=TRIGGERS,
        n=st.integers(1, 3),
        source=st.sampled_from(SOURCES),
        by=st.sampled_from(PEOPLE),
    )
    def deploy(self, task: str, version: str, triggers: tuple[TriggerSpec, ...], n: int, source: str, by: str) -> None:
        spec = TaskSpec("logging", inputs={"n": n})
        definition = TaskDefinition(self.project, DOMAIN, task, version, spec, triggers)
        self.deployed.append((definition, source))
        self._deploy(definition, source, by)

    @precondition(lambda self: self.deployed)
    @rule(data=st.data(), at_start=st.sampled_from([False, False, True]), by=st.sampled_from(PEOPLE))
    def deploy_again(self, data: Any, at_start: bool, by: str) -> None:
        """What was said before, most of all what was said last: an old version, or nothing new."""
        newest = self.deployed[-2:] * 3
        definition, source = data.draw(st.sampled_from(newest + self.deployed))
        self._deploy(definition, source, by, at_start=at_start)

    @precondition(lambda self: self.deployed)
    @rule(
        data=st.data(),
        version=st.sampled_from([None, *VERSIONS]),
        source=st.sampled_from([None, *SOURCES]),
        by=st.sampled_from(PEOPLE),
    )
    def deploy_with_a_change(self, data: Any, version: str | None, source: str | None, by: str) -> None:
        """The last deploy with one trigger more, less or different, or as another version or by another source."""
        definition, before = self.deployed[-1]
        kept = list(definition.triggers)
        name = data.draw(st.sampled_from(["", *NAMES]))
        if name:
            kept = [spec for spec in kept if spec.name != name]
            if data.draw(st.booleans()):
                kept.append(data.draw(trigger_specs(name)))
        changed = replace(definition, version=version or definition.version, triggers=tuple(kept))
        self.deployed.append((changed, source or before))
        self._deploy(changed, source or before, by)

    @precondition(lambda self: self.deployed)
    @rule(data=st.data())
    def two_edit_at_once(self, data: Any) -> None:
        """Both saw the same revisions, and the second deploys what it saw: whatever the first one changed, it loses."""
        first, source = data.draw(st.sampled_from(self.deployed))
        second = data.draw(st.sampled_from([each for each in self.deployed if each[0].name == first.name]))[0]
        listed = self.model.tasks[first.name].listed
        seen = {spec.name: listed[spec.name].revision if spec.name in listed else 0 for spec in second.triggers}
        self._deploy(first, source, "ann")
        self._deploy(second, source, "ben", expected=seen)

    @rule(data=st.data(), active=st.booleans(), by=st.sampled_from(PEOPLE))
    def switch(self, data: Any, active: bool, by: str) -> None:
        keys, expected = self._keys(data)
        act = self.clients[by].activate_many if active else self.clients[by].deactivate_many
        real = {self._key(key): revision for key, revision in expected.items()}
        self._same(
            lambda: self.model.switch(keys, active, self.world.clock.now(), by, expected),
            lambda: len(act([self._key(key) for key in keys], expected_revisions=real)),
        )

    @rule(data=st.data(), active=st.booleans(), by=st.sampled_from(PEOPLE))
    def switch_one(self, data: Any, active: bool, by: str) -> None:
        key = self._keys(data)[0][0]
        act = self.clients[by].activate if active else self.clients[by].deactivate
        self._same(
            lambda: self.model.switch([key], active, self.world.clock.now(), by, {}) == 1,
            lambda: act(self._key(key)),
        )

    @rule(data=st.data(), by=st.sampled_from(PEOPLE))
    def delete_triggers(self, data: Any, by: str) -> None:
        keys, expected = self._keys(data)
        real = {self._key(key): revision for key, revision in expected.items()}
        act = self.clients[by].delete_triggers
        self._same(
            lambda: self.model.delete_triggers(keys, self.world.clock.now(), by, expected),
            lambda: act([self._key(key) for key in keys], expected_revisions=real) and None,
        )

    @precondition(lambda self: self.deployed)
    @rule(data=st.data(), at_start=st.booleans())
    def what_was_deleted_is_deployed_again(self, data: Any, at_start: bool) -> None:
        definition, source = self.deployed[-1]
        self._deploy(definition, source, "ann")
        if listed := self.model.tasks[definition.name].listed:
            key = definition.name, data.draw(st.sampled_from(list(listed)))
            now = self.world.clock.now()
            self.model.delete_triggers([key], now, "ben", {})
            self.clients["ben"].delete_trigger(self._key(key))
        self._deploy(definition, source, "ann", at_start=at_start)

    @rule(task=st.sampled_from(TASKS), by=st.sampled_from(PEOPLE))
    def delete_task(self, task: str, by: str) -> None:
        self._same(
            lambda: self.model.delete_task(task, self.world.clock.now(), by),
            lambda: len(self.clients[by].delete_task(self.project, DOMAIN, task)),
        )

    @rule(task=st.sampled_from(TASKS), version=st.sampled_from(VERSIONS))
    def delete_version(self, task: str, version: str) -> None:
        self._same(
            lambda: self.model.delete_version(task, version),
            lambda: self.clients["ann"].delete_version(self.project, DOMAIN, task, version),
        )

    # --- what time does ----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0, 1, 59, 60, 300, 1_000, 100_000]), worker=st.booleans())
    def time_passes(self, seconds: int, worker: bool) -> None:
        self.world.clock.advance(seconds)
        if worker:
            self.world.step()
            self.model.fire(self.world.clock.now())

    @rule()
    def orphans_are_collected(self) -> None:
        with self.world.store.read() as tx:
            found = find_orphan_specs(tx, 1_000)
        self.world.store.run(collect_orphan_specs, found)

    # --- what must then be seen --------------------------------------------------------------------------------------

    @invariant()
    def tasks_show_their_latest_version_and_a_summary(self) -> None:
        page = self.clients["ann"].find_tasks([Filter("project", "equal", self.project)])
        expected = []
        for name, task in sorted(self.model.tasks.items()):
            if not task.deleted:
                listed = task.listed
                only = next(iter(listed)) if len(listed) == 1 else None
                active = sum(trigger.active for trigger in listed.values())
                expected.append((name, task.latest, task.deployed_at, len(listed), active, only))
        shown = ("name", "version", "deployed_at", "total_triggers", "active_triggers", "trigger_name")
        assert [tuple(row[key] for key in shown) for row in page.rows] == expected
        assert page.total == len(expected)

    @invariant()
    def versions_are_what_was_deployed_newest_first(self) -> None:
        for name, task in self.model.tasks.items():
            rows = self.clients["ann"].list_versions(self.project, DOMAIN, name)
            newest = sorted(task.versions.items(), key=lambda item: -item[1][0])
            assert [(row["version"], row["deployed_at"], row["digest"]) for row in rows] == [
                (version, at, digest) for version, (at, digest) in newest
            ]
            if not task.deleted:
                assert newest[0][0] == task.latest

    @invariant()
    def live_triggers_are_planned_as_promised(self) -> None:
        rows = self.clients["ann"].find_triggers([Filter("project", "equal", self.project)], limit=100).rows
        found = {
            (row["task"], row["name"]): (row["revision"], row["active"], row["version"], row["next_fire_at"])
            for row in rows
        }
        assert found == {
            (task, name): (trigger.revision, trigger.active, trigger.version, trigger.next_slot)
            for task in self.model.tasks
            for name, trigger in self.model.tasks[task].listed.items()
        }
        assert not any(row["error"] for row in rows)

    @invariant()
    def every_change_is_a_revision_and_none_is_missing(self) -> None:
        rows = self.world.rows(
            "SELECT k.name, t.name, r.revision, r.action, r.at, r.by, r.version, r.active, r.spec FROM trigger_revisions r "
            "JOIN triggers t ON t.id = r.trigger_id JOIN tasks k ON k.id = t.task_id "
            f"WHERE k.project = '{self.project}' ORDER BY k.name, t.name, r.revision"
        )
        found = [(*row[:7], bool(row[7]), json.loads(row[8])) for row in rows]
        expected = [
            (task, name, number, each.action, each.at, each.by, each.version, each.active, each.spec)
            for task in sorted(self.model.tasks)
            for name, trigger in sorted(self.model.tasks[task].triggers.items())
            for number, each in enumerate(trigger.history, start=1)
        ]
        assert found == expected

    @invariant()
    def specifications_are_kept_under_their_digests(self) -> None:
        kept = {row[0]: bytes(row[1]) for row in self.world.rows("SELECT digest, spec FROM task_specs")}
        assert all(hashlib.sha256(spec).hexdigest() == digest for digest, spec in kept.items())
        named = {digest for task in self.model.tasks.values() for _, digest in task.versions.values()}
        assert named <= kept.keys()

    def teardown(self) -> None:
        # What stays active would be fired by the next examples.
        for name, task in self.model.tasks.items():
            if not task.deleted:
                self.clients["ann"].delete_task(self.project, DOMAIN, name)

    # --- both at once ------------------------------------------------------------------------------------------------

    def _deploy(
        self,
        definition: TaskDefinition,
        source: str,
        by: str,
        *,
        at_start: bool = False,
        expected: dict[str, int] | None = None,
    ) -> None:
        client = self.clients[by]

        def real() -> bool:
            if expected is not None:
                return client.deploy_task(definition, source=source, expected_revisions=expected).applied  # type: ignore[arg-type]
            (result,) = client.deploy([definition], source=source, at_start=at_start)  # type: ignore[arg-type]
            return result.applied

        now = self.world.clock.now()
        self._same(lambda: self.model.deploy(definition, now, by, source, at_start=at_start, expected=expected), real)

    def _keys(self, data: Any) -> tuple[list[tuple[str, str]], dict[tuple[str, str], int]]:
        """Triggers, mostly such as exist, and nothing expected of them, their revisions, or those of a change ago."""
        listed = {
            (task, name): item for task in self.model.tasks for name, item in self.model.tasks[task].listed.items()
        }
        nobody = (data.draw(st.sampled_from(TASKS)), data.draw(st.sampled_from(NAMES)))
        keys = data.draw(st.lists(st.sampled_from([*listed, *listed, nobody]), min_size=1, max_size=3))
        late = data.draw(st.sampled_from([None, None, 0, 1]))
        return keys, {key: listed[key].revision - late for key in keys if key in listed and late is not None}

    def _key(self, key: tuple[str, str]) -> TriggerKey:
        return TriggerKey(self.project, DOMAIN, *key)

    def _same(self, promised: Callable[[], Any], real: Callable[[], Any]) -> None:
        answers = []
        for act in (promised, real):
            try:
                answers.append((None, act()))
            except (Conflict, NotFound) as error:
                answers.append((type(error), None))
        assert answers[0] == answers[1]


def run(world: World, *, examples: int, steps: int, known: bool) -> None:
    """Plays that many lives of a project; `known` ones are the same every time."""
    machine = type("Definitions", (Definitions,), {"world": world})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=known,
        # What fails is told as it was played: to make it shorter would play it again for minutes.
        phases=[Phase.generate] if known else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)  # type: ignore[no-untyped-call]


def test_the_database_agrees_with_plain_dictionaries(world: World) -> None:
    run(world, examples=7, steps=45, known=True)


@pytest.mark.heavy
def test_the_database_agrees_with_plain_dictionaries_for_thousands_of_steps(world: World) -> None:
    run(world, examples=60, steps=50, known=False)
