"""What a deploy changes: the difference to the last deploy, not to the present state."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.automation import Cron
from scheduler.domain.deployment import Deployed, Difference, diff
from scheduler.domain.trigger import TriggerSpec


def spec(name: str = "nightly", **options: Any) -> TriggerSpec:
    return TriggerSpec(name, Cron("0 2 * * *"), **options)


def deployed(item: TriggerSpec, *, deleted: bool = False, prunable: bool = True) -> Deployed:
    return Deployed(item.name, item.to_document(), deleted, prunable)


def test_a_trigger_nobody_knew_is_created() -> None:
    assert diff([], [spec()]) == Difference((spec(),), (), (), (), (), frozenset())


def test_a_trigger_that_says_the_same_is_unchanged() -> None:
    assert diff([deployed(spec())], [spec()]) == Difference((), (), (), ("nightly",), (), frozenset())


def test_a_trigger_that_says_something_else_is_changed_and_active_is_left_alone() -> None:
    wanted = spec(inputs={"n": 1})
    assert diff([deployed(spec())], [wanted]) == Difference((), (wanted,), (), (), (), frozenset())


def test_a_number_that_becomes_true_is_a_change_though_python_calls_both_equal() -> None:
    wanted = spec(inputs={"n": True})
    assert diff([deployed(spec(inputs={"n": 1}))], [wanted]).changed == (wanted,)


def test_active_is_set_only_where_its_deployed_value_changed() -> None:
    wanted = spec(active=False)
    assert diff([deployed(spec())], [wanted]).sets_active == {"nightly"}
    assert diff([deployed(wanted)], [spec()]).sets_active == {"nightly"}
    assert diff([deployed(wanted)], [spec(active=False, description="new")]).sets_active == frozenset()


def test_a_trigger_that_was_never_deployed_is_taken_over_as_sent() -> None:
    by_sql = Deployed("nightly", None, deleted=False, prunable=False)
    assert diff([by_sql], [spec()]) == Difference((), (spec(),), (), (), (), frozenset({"nightly"}))


def test_a_deleted_trigger_comes_back_as_sent_even_if_it_says_the_same() -> None:
    found = diff([deployed(spec(), deleted=True)], [spec()])
    assert found == Difference((), (), (spec(),), (), (), frozenset({"nightly"}))


def test_what_is_not_named_any_more_is_pruned_if_this_source_deployed_it() -> None:
    stored = [
        deployed(spec("mine")),
        deployed(spec("others"), prunable=False),
        deployed(spec("gone"), deleted=True),
    ]
    assert diff(stored, []).pruned == ("mine",)


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_every_trigger_has_exactly_one_fate(before: list[str], after: list[str]) -> None:
    found = diff([deployed(spec(name)) for name in before], [spec(name) for name in after])
    created = {item.name for item in found.created}
    assert created == set(after) - set(before)
    assert set(found.unchanged) == set(after) & set(before)
    assert set(found.pruned) == set(before) - set(after)
    assert (found.changed, found.revived) == ((), ())
