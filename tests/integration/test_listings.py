"""Looking through definitions: filters, sorts, pages that stay where they are, totals; the same on both databases."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scheduler.client import Client, Filter, Page
from scheduler.domain.task import Environment, TaskSpec
from scheduler.errors import NotFound, SpecError
from scheduler.store.transaction import Store
from tests.bench.definitions import SHAPES, fill
from tests.integration.worlds import World, definition, instant, key, once, trigger

NAMES = ["alpha", "Beta", "beta-2", "beta.1", "beta_3", "gamma", "zeta", "Ärger", "ärger"]


def names(page: Page) -> list[str]:
    return [row["name"] for row in page.rows]


def all_pages(find: Any, *args: Any, limit: int, **options: Any) -> list[dict[str, Any]]:
    """Every row, page by page; no page but the last may be short."""
    rows: list[dict[str, Any]] = []
    token = None
    while True:
        page = find(*args, limit=limit, token=token, **options)
        rows += page.rows
        if page.next_token is None:
            return rows
        assert len(page.rows) == limit
        token = page.next_token


@pytest.fixture
def tasks(world: World) -> World:
    """Nine tasks, deployed a second apart in this order, each in two versions; `alpha` last of all."""
    for number, name in enumerate(NAMES):
        world.deploy(
            *(trigger(f"t{n}", active=n == 0) for n in range(number % 3)),
            task=name,
            version="v1",
            environment=Environment(f"env-{number % 2}"),
        )
        world.clock.advance(1)
    for number, name in enumerate(NAMES):
        world.deploy(
            *(trigger(f"t{n}", active=n == 0) for n in range(number % 3)),
            task=name,
            version="v2",
            environment=Environment(f"env-{number % 2}"),
            spec=TaskSpec("logging", inputs={"n": number}),
        )
        world.clock.advance(1)
    world.deploy(task="alpha", version="v1", environment=Environment("env-0"))
    return world


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_the_latest_version_of_every_task_is_listed_by_name_byte_by_byte(tasks: World) -> None:
    page = tasks.client.find_tasks()
    assert names(page) == sorted(NAMES)
    assert {row["name"]: row["version"] for row in page.rows} == dict.fromkeys(NAMES, "v2") | {"alpha": "v1"}
    assert (page.total, page.total_all, page.next_token) == (9, 9, None)


def test_the_latest_version_is_the_one_that_a_window_over_all_versions_finds(tasks: World) -> None:
    newest = tasks.rows(
        "SELECT name, version FROM (SELECT k.name, v.version, row_number() OVER "
        "(PARTITION BY v.task_id ORDER BY v.deployed_at DESC) AS age FROM task_versions v JOIN tasks k ON k.id = v.task_id"
        ") ranked WHERE age = 1"
    )
    assert dict(newest) == {row["name"]: row["version"] for row in tasks.client.find_tasks().rows}


FILTERED: list[tuple[list[Filter], list[str]]] = [
    ([Filter("name", "equal", "beta.1")], ["beta.1"]),
    ([Filter("name", "equal", "BETA.1")], []),
    ([Filter("name", "contains", "BETA")], ["Beta", "beta-2", "beta.1", "beta_3"]),
    ([Filter("name", "contains", "_")], ["beta_3"]),
    ([Filter("name", "contains", "%")], []),
    ([Filter("name", "contains", "ärger")], ["ärger"]),
    ([Filter("name", "contains", "RGER")], ["Ärger", "ärger"]),
    ([Filter("name", "in", ["zeta", "alpha", "nobody"])], ["alpha", "zeta"]),
    ([Filter("name", "in", [])], []),
    ([Filter("version", "equal", "v1")], ["alpha"]),
    (
        [Filter("environment", "equal", "env-1"), Filter("name", "contains", "a")],
        ["Beta", "beta.1", "gamma"],
    ),
    ([Filter("deployed_at", "since", instant("12:00:17"))], ["alpha", "ärger"]),
    ([Filter("deployed_by", "equal", "tester"), Filter("name", "contains", "ALPHA")], ["alpha"]),
    ([Filter("deployed_by", "equal", "nobody")], []),
    ([Filter("active", "equal", True)], ["Beta", "beta-2", "beta_3", "gamma", "Ärger", "ärger"]),
    ([Filter("active", "equal", False)], ["alpha", "beta.1", "zeta"]),
    ([Filter("total_triggers", "since", 2)], ["beta-2", "gamma", "ärger"]),
    ([Filter("project", "equal", "other")], []),
    ([Filter("domain", "contains", "develop"), Filter("name", "equal", "zeta")], ["zeta"]),
]


def test_filters_leave_what_they_say(tasks: World) -> None:
    for filters, found in FILTERED:
        page = tasks.client.find_tasks(filters)
        assert sorted(names(page)) == sorted(found), filters
        assert (page.total, page.total_all) == (len(found), 9), filters


def test_a_sort_by_any_field_turns_round_with_a_minus(tasks: World) -> None:
    newest = names(tasks.client.find_tasks(sort="-deployed_at"))
    assert newest == ["alpha", *reversed(NAMES[1:])]
    assert names(tasks.client.find_tasks(sort="deployed_at")) == newest[::-1]
    assert names(tasks.client.find_tasks(sort="-project")) == sorted(NAMES, reverse=True)
    by_triggers = [(row["total_triggers"], row["name"]) for row in tasks.client.find_tasks(sort="total_triggers").rows]
    assert by_triggers == sorted(by_triggers)


def test_pages_together_are_the_whole_listing(tasks: World) -> None:
    for sort in ("project", "-name", "version", "-deployed_at", "environment", "-active", "active", "total_triggers"):
        whole = tasks.client.find_tasks(sort=sort, limit=1_000).rows
        assert len(whole) == len(NAMES)
        for limit in (1, 2, 3, 9):
            assert all_pages(tasks.client.find_tasks, sort=sort, limit=limit) == whole, (sort, limit)


def test_a_page_begins_after_the_last_row_whatever_was_inserted_or_deleted_before_it(tasks: World) -> None:
    first = tasks.client.find_tasks(limit=3)
    assert names(first) == ["Beta", "alpha", "beta-2"]
    tasks.deploy(task="aardvark")
    tasks.client.delete_task("flytesnacks", "development", "beta-2")
    tasks.deploy(task="beta.0")
    second = tasks.client.find_tasks(limit=3, token=first.next_token)
    assert names(second) == ["beta.0", "beta.1", "beta_3"]


def test_totals_are_left_out_where_nobody_asks_for_them(tasks: World) -> None:
    page = tasks.client.find_tasks([Filter("name", "contains", "beta")], totals=False)
    assert (page.total, page.total_all, len(page.rows)) == (None, None, 4)


def test_a_task_with_one_trigger_shows_its_name_and_automation(world: World) -> None:
    world.deploy(trigger("only"))
    row = world.client.find_tasks().rows[0]
    assert (row["trigger_name"], row["trigger_automation"]) == ("only", {"cron": {"expression": "* * * * *"}})
    world.deploy(trigger("only"), trigger("second"))
    assert world.client.find_tasks().rows[0]["trigger_name"] is None
    world.client.delete_trigger(key("only"))
    assert world.client.find_tasks().rows[0]["trigger_name"] == "second"
    world.client.delete_trigger(key("second"))
    row = world.client.find_tasks().rows[0]
    assert (row["trigger_name"], row["trigger_automation"], row["total_triggers"]) == (None, None, 0)


# --- versions --------------------------------------------------------------------------------------------------------


def test_versions_are_listed_newest_first(tasks: World) -> None:
    rows = tasks.client.list_versions("flytesnacks", "development", "alpha")
    assert [row["version"] for row in rows] == ["v1", "v2"]
    assert rows[0]["deployed_at"] == instant("12:00:18")
    assert rows[0]["deployed_by"] == "tester"
    assert rows[0]["digest"] != rows[1]["digest"]
    with pytest.raises(NotFound):
        tasks.client.list_versions("flytesnacks", "development", "nobody")


def test_versions_of_all_tasks_or_of_one_come_in_pages(tasks: World) -> None:
    page = tasks.client.find_versions(limit=2)
    assert [(row["name"], row["version"]) for row in page.rows] == [("alpha", "v1"), ("ärger", "v2")]
    assert (page.total, page.total_all) == (18, 18)
    of_one = [
        Filter(field, "equal", value)
        for field, value in zip(("project", "domain", "name"), key("", "Beta")[:3], strict=True)
    ]
    page = tasks.client.find_versions(of_one)
    assert [row["version"] for row in page.rows] == ["v2", "v1"]
    assert (page.total, page.total_all) == (2, 2)
    page = tasks.client.find_versions([*of_one, Filter("version", "equal", "v1")])
    assert (len(page.rows), page.total, page.total_all) == (1, 1, 2)
    assert len(all_pages(tasks.client.find_versions, [Filter("name", "contains", "beta")], limit=3)) == 8
    assert len(all_pages(tasks.client.find_versions, of_one, sort="version", limit=1)) == 2


def test_versions_that_were_deployed_in_one_instant_are_neither_doubled_nor_lost(world: World) -> None:
    for number in range(7):
        world.deploy(task=f"task-{number}")
    assert len({row["deployed_at"] for row in world.client.find_versions().rows}) == 1
    rows = all_pages(world.client.find_versions, limit=2)
    assert sorted(row["name"] for row in rows) == [f"task-{number}" for number in range(7)]


def test_the_version_deployed_last_is_the_latest_also_where_the_clock_stood_still_or_went_back(world: World) -> None:
    for text, version in (("12:00", "b"), ("12:00", "a"), ("11:00", "c"), ("11:30", "b")):
        world.at(text).deploy(version=version)
        assert world.client.find_tasks().rows[0]["version"] == version
        assert world.client.list_versions("flytesnacks", "development", "report")[0]["version"] == version


# --- triggers --------------------------------------------------------------------------------------------------------


def test_triggers_are_listed_by_key_and_filtered(tasks: World) -> None:
    page = tasks.client.find_triggers()
    keys = [(row["task"], row["name"]) for row in page.rows]
    assert keys == sorted(keys)
    assert (page.total, page.total_all) == (9, 9)
    active = tasks.client.find_triggers([Filter("active", "equal", True)])
    assert {row["name"] for row in active.rows} == {"t0"}
    assert (active.total, active.total_all) == (6, 9)
    assert tasks.client.find_triggers([Filter("environment", "equal", "env-1")]).total == 4
    assert tasks.client.find_triggers([Filter("deployed_at", "since", instant("12:00:16"))]).total == 3
    assert (
        tasks.client.find_triggers([Filter("task", "in", ["Beta", "ärger"]), Filter("name", "equal", "t1")]).total == 1
    )
    assert tasks.client.find_triggers([Filter("version", "equal", "v1")]).total == 0
    assert tasks.client.find_triggers([Filter("source", "equal", "manifest")]).total == 9


def test_triggers_sorted_by_their_next_fire_have_those_without_one_last(world: World) -> None:
    world.deploy(trigger("late", once("18:00")), trigger("soon", once("13:00")), trigger("by-hand", None))
    assert [row["name"] for row in world.client.find_triggers(sort="next_fire_at").rows] == ["soon", "late", "by-hand"]
    rows = all_pages(world.client.find_triggers, sort="-next_fire_at", limit=1)
    assert [row["name"] for row in rows] == ["by-hand", "late", "soon"]


def test_what_plain_sql_wrote_is_listed_and_filtered_too(world: World) -> None:
    world.deploy(trigger("a"))
    world.sql("INSERT INTO triggers (task_id, name) SELECT id, 'b' FROM tasks")
    rows = all_pages(world.client.find_triggers, limit=1)
    assert [(row["name"], row["version"]) for row in rows] == [("a", "v1"), ("b", "v1")]
    assert [row["name"] for row in world.client.find_triggers([Filter("source", "equal", "sql")]).rows] == ["b"]
    assert len(all_pages(world.client.find_triggers, sort="updated_by", limit=1)) == 2


# --- revisions -------------------------------------------------------------------------------------------------------


def test_revisions_are_listed_newest_first_and_one_is_shown_in_full(world: World) -> None:
    world.deploy(trigger(inputs={"n": 1}))
    world.at("12:00:10").client.deactivate(key())
    world.at("12:00:20").deploy(trigger(inputs={"n": 2}), version="v2")
    rows = world.client.list_revisions(key())
    assert [(row["revision"], row["action"], row["active"], row["version"]) for row in rows] == [
        (3, "DEPLOY", False, "v2"),
        (2, "DEACTIVATE", False, "v1"),
        (1, "DEPLOY", True, "v1"),
    ]
    assert [row["at"] for row in rows] == [instant("12:00:20"), instant("12:00:10"), instant("12:00")]
    assert {row["by"] for row in rows} == {"tester"}
    shown = world.client.show_revision(key(), 1)
    assert (shown["revision"], shown["spec"]["inputs"]) == (1, {"n": 1})
    with pytest.raises(NotFound, match="nightly@4"):
        world.client.show_revision(key(), 4)
    page = world.client.find_revisions(key(), [Filter("action", "equal", "DEPLOY")])
    assert ([row["revision"] for row in page.rows], page.total, page.total_all) == ([3, 1], 2, 3)
    assert [row["revision"] for row in all_pages(world.client.find_revisions, key(), limit=1)] == [3, 2, 1]
    since = [Filter("at", "since", instant("12:00:10"))]
    assert world.client.find_revisions(key(), since, sort="revision").rows[0]["revision"] == 2


def test_a_revision_by_hand_keeps_what_plain_sql_made_of_the_trigger(world: World) -> None:
    world.deploy(trigger())
    world.sql("""UPDATE triggers SET automation = '{"cron": {"expression": "5 * * * *"}}'""")
    world.sync()
    world.client.deactivate(key())
    shown = world.client.show_revision(key(), 2)
    assert shown["automation"] == shown["spec"]["automation"] == {"cron": {"expression": "5 * * * *"}}
    world.sql("UPDATE triggers SET automation = 'nonsense'")
    world.client.activate(key())
    assert world.client.show_revision(key(), 3)["spec"]["name"] == "nightly"


# --- what is refused -------------------------------------------------------------------------------------------------


REFUSED: list[tuple[Filter, str]] = [
    (Filter("colour", "equal", "red"), r"filter: 'colour' is no field of this listing: project, domain, name"),
    (Filter("task_id", "equal", 1), "filter: 'task_id' is no field"),
    (Filter("name", "since", "a"), "name: cannot be filtered by 'since': only by equal, contains, in"),
    (Filter("active", "contains", True), "active: cannot be filtered by 'contains': only by equal"),
    (Filter("name", "equal", 7), "name: 7 is not a text"),
    (Filter("active", "equal", 1), "active: 1 is not true or false"),
    (Filter("total_triggers", "equal", True), "total_triggers: True is not a whole number"),
    (Filter("deployed_at", "since", "yesterday"), "deployed_at: 'yesterday' is not an instant"),
    (Filter("deployed_at", "since", 2**63), "is not an instant"),
    (Filter("name", "in", "alpha"), "name: is filtered by a list with 'in'"),
    (Filter("name", "in", ["x"] * 1_001), "1001 values: at most 1000"),
    (Filter("name", "equal", "a\0b"), "holds a character that no stored text has"),
    (Filter("name", "contains", "\ud800"), "holds a character that no stored text has"),
]


def test_a_filter_that_cannot_be_says_what_can(world: World) -> None:
    for item, said in REFUSED:
        with pytest.raises(SpecError, match=said):
            world.client.find_tasks([item])


def test_a_sort_or_limit_that_cannot_be_says_so(world: World) -> None:
    with pytest.raises(SpecError, match="sort: 'colour' is no field"):
        world.client.find_tasks(sort="-colour")
    with pytest.raises(SpecError, match="limit: 0 is less than 1"):
        world.client.find_tasks(limit=0)


def test_a_token_of_another_question_is_refused(tasks: World) -> None:
    token = tasks.client.find_tasks(limit=1).next_token
    for ask in (
        lambda: tasks.client.find_tasks(sort="-name", token=token),
        lambda: tasks.client.find_tasks([Filter("name", "contains", "a")], token=token),
        lambda: tasks.client.find_versions(token=token),
    ):
        with pytest.raises(SpecError, match=r"token: comes from another listing|token: is not one that a listing gave"):
            ask()
    assert len(tasks.client.find_tasks(limit=5, token=token).rows) == 5  # another length is the same question


def test_a_token_that_nobody_gave_is_refused_whatever_it_holds(tasks: World) -> None:
    token = tasks.client.find_tasks(limit=1).next_token
    assert token is not None
    mark, *values = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))

    def forged(*content: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    generator = random.Random(7)
    wrong = ["", "!", "ä", "AAAA", token[:-3], token + "A", forged(), forged(mark), forged(mark, *values, "more")]
    wrong += [
        forged(mark, 1, 2, 3),
        forged(mark, None, *values[1:]),
        forged(mark, "\0", *values[1:]),
        forged("x", *values),
    ]
    wrong += [base64.urlsafe_b64encode(generator.randbytes(30)).decode() for _ in range(20)]
    for text in wrong:
        with pytest.raises(SpecError, match="token: "):
            tasks.client.find_tasks(limit=1, token=text)


def test_one_task_of_two_domains_is_listed_twice(world: World) -> None:
    first = definition(trigger())
    list(world.client.deploy([first, replace(first, domain="production")]))
    assert [row["domain"] for row in world.client.find_tasks().rows] == ["development", "production"]
    assert world.client.find_triggers([Filter("domain", "equal", "production")]).total == 1


@pytest.mark.heavy
@pytest.mark.alone
@pytest.mark.parametrize(("tasks", "versions"), SHAPES)
def test_a_page_among_a_hundred_thousand_versions_takes_less_than_fifty_milliseconds(
    store: Store, tasks: int, versions: int
) -> None:
    fill(store, tasks, versions)
    client = Client(store)
    asked: dict[str, Callable[[], object]] = {
        "the first page of latest versions": client.find_tasks,
        "the newest deploys": lambda: client.find_tasks(sort="-deployed_at"),
        "the newest versions": client.find_versions,
        "the versions of one task": lambda: client.list_versions("project-0", "development", "team-0.task-000000"),
    }
    for told, ask in asked.items():
        times = []
        for _ in range(10):
            begun = time.perf_counter()
            ask()
            times.append(time.perf_counter() - begun)
        # The best of some: the machine may be busy for a moment.
        assert min(times) < 0.05, f"{told}: {[round(each * 1e3) for each in times]} ms"
