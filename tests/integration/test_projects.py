"""Projects and domains: a deploy names one that is known, or is refused with those that are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.client import Client
from scheduler.errors import SpecError
from tests.integration.worlds import World, definition, key, trigger

HERE = definition(trigger())


def client(world: World, **options: object) -> Client:
    return Client(world.store, planning=world.planning, by="tester", **options)  # type: ignore[arg-type]


def deploy(by: Client, **changes: object) -> bool:
    (result,) = by.deploy([replace(HERE, **changes)])  # type: ignore[arg-type]
    return result.applied


def test_an_unknown_project_is_refused_with_those_that_are_known(world: World) -> None:
    with pytest.raises(SpecError, match="project: 'flytesnacks' is not a known project: none"):
        deploy(client(world))
    world.client.ensure_projects({"zeta": ["production"], "acme": ["production", "development"]})
    with pytest.raises(SpecError, match="'flytesnacks' is not a known project: acme, zeta"):
        deploy(client(world))
    with pytest.raises(SpecError, match="domain: 'staging' is not a known domain of acme: development, production"):
        deploy(client(world), project="acme", domain="staging")
    assert world.rows("SELECT * FROM tasks") == []
    assert deploy(client(world), project="acme") is True


def test_what_the_settings_declare_is_known_and_recorded_when_it_is_used(world: World) -> None:
    declared = client(world, projects={"flytesnacks": ["development", "staging"]})
    with pytest.raises(SpecError, match="'acme' is not a known project: flytesnacks"):
        deploy(declared, project="acme")
    assert deploy(declared) is True
    assert world.rows("SELECT project, domain FROM projects") == [("flytesnacks", "development")]
    # Recorded, it is known to everybody.
    assert deploy(client(world), version="v2") is True
    with pytest.raises(SpecError, match="'staging' is not a known domain of flytesnacks: development"):
        deploy(client(world), domain="staging")


def test_projects_are_made_on_first_use_where_that_is_asked_for(world: World) -> None:
    assert deploy(client(world, create_projects=True), project="new", domain="here") is True
    assert world.rows("SELECT project, domain FROM projects") == [("new", "here")]


def test_a_dry_run_is_refused_as_the_deploy_would_be_and_records_nothing(world: World) -> None:
    with pytest.raises(SpecError, match="is not a known project"):
        list(client(world).deploy([HERE], dry_run=True))
    with pytest.raises(SpecError, match="is not a known project"):
        list(client(world).plan_deploy([HERE]))
    (result,) = client(world, create_projects=True).deploy([HERE], dry_run=True)
    assert result.created == ("nightly",)
    assert world.rows("SELECT * FROM projects") == world.rows("SELECT * FROM tasks") == []


def test_every_way_to_deploy_knows_the_same_projects(world: World) -> None:
    strict = client(world)
    for refused in (
        lambda: list(strict.deploy([HERE])),
        lambda: list(strict.deploy_planned([HERE])),
        lambda: strict.deploy_task(HERE),
    ):
        with pytest.raises(SpecError, match="is not a known project"):
            refused()
    assert world.rows("SELECT * FROM tasks") == []


def test_the_first_fault_of_many_tasks_changes_nothing_of_that_task_and_says_which(world: World) -> None:
    definitions = [definition(trigger(), task=f"task-{number:02}") for number in range(50)]
    definitions[30] = replace(definitions[30], domain="nowhere")
    deployed = []
    world.client.ensure_projects({"flytesnacks": ["development"]})
    with pytest.raises(SpecError, match=r"flytesnacks/nowhere/task-30") as refused:
        deployed.extend(client(world).deploy(definitions))
    assert refused.value.field == "domain"
    assert [row["name"] for row in world.client.list_tasks()] == [f"task-{number:02}" for number in range(30)]
    assert world.rows("SELECT count(*) FROM triggers") == [(30,)]
    with pytest.raises(Exception, match="does not exist"):
        world.client.list_revisions(key("nightly", "task-30"))
