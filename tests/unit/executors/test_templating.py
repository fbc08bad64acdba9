"""Placeholders in config texts: filled for a run, refused at deploy where no run could fill them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from executors import PermanentError
from executors.templating import check_placeholders, is_placeholder, placeholders, render, rfc3339

SLOT = datetime(2026, 11, 21, 2, tzinfo=UTC)
INPUTS = {"region": "eu", "count": 3, "list": [1, "x"], "report": {"name": "daily"}, "a.b": "dotted", "none": None}
VALUES = placeholders(inputs=INPUTS, run_name="nightly-1", key="nightly-1-2", scheduled_at=SLOT)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{inputs.region}", "eu"),
        ("{inputs.count}", 3),
        ("{inputs.list}", [1, "x"]),
        ("{inputs.report.name}", "daily"),
        ("{inputs.a.b}", "dotted"),
        ("{inputs.none}", None),
        ("{inputs}", INPUTS),
        ("{run_name}", "nightly-1"),
        ("{key}", "nightly-1-2"),
        ("{scheduled_at}", "2026-11-21T02:00:00Z"),
        ("https://{inputs.region}.example/{key}", "https://eu.example/nightly-1-2"),
        ("{inputs.count} of {inputs.list}{inputs.none}", '3 of [1, "x"]'),
        ("{{inputs.region}}", "{inputs.region}"),
        ("{{region}} {inputs.region}", "{region} eu"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ("awk '{print $1}' {} {a,b}", "awk '{print $1}' {} {a,b}"),
        ("", ""),
    ],
)
def test_a_text_is_filled(text: str, filled: Any) -> None:
    assert render(text, VALUES) == filled


def test_lists_and_mappings_are_filled_in_depth_and_the_original_is_left_alone() -> None:
    config = {"{key}": ["{key}", {"deep": ("{inputs.count}", 7, None, True)}]}
    assert render(config, VALUES) == {"{key}": ["nightly-1-2", {"deep": [3, 7, None, True]}]}
    assert config == {"{key}": ["{key}", {"deep": ("{inputs.count}", 7, None, True)}]}


def test_a_value_is_not_searched_for_placeholders_again() -> None:
    values = placeholders(inputs={"a": "{key}"}, run_name="r", key="k", scheduled_at=None)
    assert render("x {inputs.a}", values) == "x {key}"


def test_a_manual_run_has_no_slot() -> None:
    values = placeholders(inputs={}, run_name="r", key="k", scheduled_at=None)
    assert render(["{scheduled_at}", "at {scheduled_at}."], values) == [None, "at ."]


@pytest.mark.parametrize("text", ["{inputs.absent}", "{inputs.region.name}", "{other}", "x{inputs.report.absent}"])
def test_what_a_run_does_not_have_ends_it_for_good(text: str) -> None:
    with pytest.raises(PermanentError, match="the placeholder"):
        render(text, VALUES)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{inputs.regoin}", "unknown input in {inputs.regoin} (did you mean region?)"),
        (
            "{region}",
            "unknown placeholder {region} (did you mean inputs.region?): write {{region}} if the text is meant",
        ),
        ("{run_nam}", "unknown placeholder {run_nam} (did you mean run_name?): write {{run_nam}} if the text is meant"),
        ("{key.part}", "unknown placeholder {key.part}: key has no parts"),
        ("{ inputs.region }", "unknown placeholder { inputs.region }: write {name} without spaces, as {inputs.region}"),
    ],
)
def test_an_unknown_name_is_refused_at_deploy(text: str, reason: str) -> None:
    assert check_placeholders({"args": ["fine {key}", text]}, ["region"]) == [("args[1]", reason)]


def test_every_unknown_name_is_refused_at_once() -> None:
    config = {
        "url": "{host}/{path}",
        "headers": {"X": "{inputs.x}"},
        "fine": "{inputs.region} {{host}} {inputs}",
        "n": 1,
    }
    assert [path for path, _ in check_placeholders(config, ["region"])] == ["url", "url", "headers.X"]


def test_an_executor_may_add_names() -> None:
    assert check_placeholders("{id}", [], more=["id"]) == []
    assert render("jobs/{id}", {**VALUES, "id": 7}) == "jobs/7"


def test_only_a_whole_placeholder_is_one() -> None:
    assert is_placeholder("{inputs.region}")
    assert not any(is_placeholder(text) for text in ("x{key}", "{{key}}", "{key}{key}", "{}", "{a b}"))


def test_instants_are_written_in_utc() -> None:
    assert rfc3339(datetime(2026, 11, 21, 3, tzinfo=timezone(timedelta(hours=1)))) == "2026-11-21T02:00:00Z"
    assert rfc3339(SLOT + timedelta(milliseconds=500)) == "2026-11-21T02:00:00.5Z"
    with pytest.raises(ValueError, match="no zone"):
        rfc3339(datetime(2026, 11, 21))
