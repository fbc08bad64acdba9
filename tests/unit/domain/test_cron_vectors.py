"""840 published and derived facts about schedules; each holds for every policy and day rule it lists."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.domain.automation import FixedRate, parse_schedule
from scheduler.errors import SpecError

POLICIES = {"vixie": "once", "instant": "instant", "aws": "skip_once"}
RULES = {"robfig": ["robfig"], "vixie": ["debian"], "-": ["robfig", "debian"]}
VECTORS: list[dict[str, Any]] = [
    vector
    for vector in json.loads((Path(__file__).parent / "data" / "cron_vectors.json").read_text("utf-8"))
    # On `opinion` libraries disagree, and a constant delay counts from a fire's actual time, which ours never does.
    if vector["kind"] != "constant_delay" and not (vector.get("opinion") and vector.get("invalid"))
]


def of_kind(*kinds: str) -> list[Any]:
    return [pytest.param(vector, id=vector["id"]) for vector in VECTORS if kind_of(vector) in kinds]


def kind_of(vector: dict[str, Any]) -> str:
    return next((kind for kind in ("invalid", "never") if vector.get(kind)), vector["kind"])


def variants(vector: dict[str, Any]) -> list[dict[str, str]]:
    zone = {"timezone": vector["tz"]} if vector.get("tz") else {}
    return [
        {"dialect": vector["dialect"], "dst": POLICIES[policy], "day_rule": rule, **zone}
        for policy in vector["dst_ok"]
        for named in vector["day_ok"]
        for rule in RULES[named]
    ]


def instants(texts: list[str]) -> list[datetime]:
    return [datetime.fromisoformat(text) for text in texts]


@pytest.mark.parametrize("vector", of_kind("cron"))
def test_a_cron_fires_when_the_vector_says(vector: dict[str, Any]) -> None:
    assert variants(vector)
    for options in variants(vector):
        schedule = parse_schedule(vector["expr"], **options)
        fire, found = datetime.fromisoformat(vector["base"]), []
        for _ in vector["expected"]:
            following = schedule.next_after(fire)
            assert following is not None, options
            assert following > fire, options
            fire = following
            found.append(fire)
        assert found == instants(vector["expected"]), options


@pytest.mark.parametrize("vector", of_kind("invalid"))
def test_what_the_vector_calls_invalid_is_refused_with_a_reason(vector: dict[str, Any]) -> None:
    zone = {"timezone": vector["tz"]} if vector.get("tz") else {}
    with pytest.raises(SpecError) as refused:
        parse_schedule(vector["expr"], dialect=vector["dialect"], **zone)
    assert refused.value.field
    assert refused.value.reason


@pytest.mark.parametrize("vector", of_kind("never"))
def test_what_never_fires_is_refused_or_finished(vector: dict[str, Any]) -> None:
    for options in variants(vector) or [{"dialect": vector["dialect"]}]:
        try:
            schedule = parse_schedule(vector["expr"], **options)
        except SpecError:
            continue
        assert schedule.next_after(datetime.fromisoformat(vector["base"])) is None


@pytest.mark.parametrize("vector", of_kind("every"))
def test_every_counts_from_its_activation(vector: dict[str, Any]) -> None:
    base = fire = datetime.fromisoformat(vector["base"])
    schedule = parse_schedule(vector["expr"], timezone=vector["tz"])
    found = []
    for _ in vector["expected"]:
        following = schedule.next_after(fire, base)
        assert following is not None
        fire = following
        found.append(fire)
    assert found == instants(vector["expected"])


@pytest.mark.parametrize("vector", of_kind("fixed_rate"))
def test_a_fixed_rate_fires_when_the_vector_says(vector: dict[str, Any]) -> None:
    start = datetime.fromisoformat(vector["start_time"]) if vector["start_time"] else None
    schedule = FixedRate(vector["value"], vector["unit"], start)
    activated_at = datetime.fromisoformat(vector["activated_at"])
    after = datetime.fromisoformat(vector["after"])
    expected = instants(vector["expected"])
    between = list(schedule.between(after, expected[-1], activated_at))
    assert between == expected
    assert schedule.next_after(after, activated_at) == expected[0]


def test_every_vector_is_of_a_kind_that_is_tested() -> None:
    assert {kind_of(vector) for vector in VECTORS} == {"cron", "invalid", "never", "every", "fixed_rate"}
    assert len(VECTORS) > 800
