"""What is counted, under which names; and that the page, the dashboard and the alerts use exactly these names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from scheduler.domain.ledger import Reason
from scheduler.domain.run import FINAL, OPEN, Phase
from scheduler.errors import Conflict, StoreUnavailable
from scheduler.metrics import Metrics
from scheduler.services.sample import OTHER, Sample
from scheduler.settings import Settings
from scheduler.store.tally import Start, Tally
from scheduler.store.upgrade import SchemaState
from scheduler.web.health import LIVE
from tests.pages import ROOT, rows

ALERTS = ROOT / "config/prometheus/alerts.yaml"
DASHBOARD = ROOT / "config/grafana/trigger-scheduler.json"
# Read from the worker while it runs (see `Metrics.follow`); the tests of a whole worker see that they are there.
FOLLOWED = {
    "scheduler_ready",
    "scheduler_degraded",
    "scheduler_clock_doubted",
    "scheduler_lease_age_seconds",
    "scheduler_places_taken",
    "scheduler_sample_age_seconds",
}
OUTCOMES = ("committed", "undone", "unavailable")
WORDS = {"committed", "other", "true", "false"}
SCHEMA = SchemaState("1", "1", True)


def new(*executors: str) -> Metrics:
    return Metrics(executors=executors, lease_seconds=30, places=100, worker="w", version="1.2.3")


def values(metrics: Metrics) -> dict[str, float]:
    """Every sample as `name{label="value"}`."""
    text, content_type = metrics.render("")
    assert content_type.startswith("text/plain")
    return {
        sample.name + "".join(f' {key}="{value}"' for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def started(late: bool, lateness: float | None, executor: str = "shell") -> Start:
    return Start(executor, "scheduled", late, None if lateness is None else int(lateness * 1_000_000))


# --- counting --------------------------------------------------------------------------------------------------------


def test_what_a_transaction_did_is_added_up() -> None:
    metrics = new("shell")
    tally = Tally(
        inserted=Counter(scheduled=3),
        started=Counter([started(False, 0.2), started(True, 7_200), started(True, None)]),
        ended=Counter({("SUCCEEDED", "shell"): 2, ("FAILED", "shell"): 1}),
        retried=Counter(shell=4),
        skipped=Counter({"catchup_cap": 490, "paused": 1}),
        lost=Counter(QUEUED=5),
        refused=6,
    )
    metrics.committed(tally, 0.003)
    metrics.committed(tally, 0.003)
    found = values(metrics)
    assert found['scheduler_fires_total kind="scheduled"'] == 6
    assert found['scheduler_starts_total executor="shell" kind="scheduled"'] == 6
    assert found["scheduler_late_starts_total"] == 4
    assert found['scheduler_start_lateness_seconds_sum late="false"'] == pytest.approx(0.4)
    assert found['scheduler_start_lateness_seconds_bucket late="false" le="0.25"'] == 2
    assert found['scheduler_start_lateness_seconds_bucket late="false" le="0.1"'] == 0
    assert found['scheduler_start_lateness_seconds_count late="true"'] == 2
    assert found['scheduler_runs_finished_total executor="shell" phase="SUCCEEDED"'] == 4
    assert found['scheduler_runs_finished_total executor="shell" phase="FAILED"'] == 2
    assert found['scheduler_attempts_retried_total executor="shell"'] == 8
    assert found['scheduler_slots_skipped_total reason="catchup_cap"'] == 980
    assert found['scheduler_slots_skipped_total reason="paused"'] == 2
    assert found['scheduler_runs_lost_total phase="QUEUED"'] == 10
    assert found["scheduler_fences_refused_total"] == 12
    assert found['scheduler_transaction_seconds_count outcome="committed"'] == 2


def test_a_transaction_that_did_not_happen_counts_by_why() -> None:
    metrics = new()
    metrics.undone(StoreUnavailable("away"), 0.1)
    metrics.undone(Conflict("no"), 0.1)
    metrics.undone(Conflict("no"), 0.1)
    found = values(metrics)
    counts = {outcome: found[f'scheduler_transaction_seconds_count outcome="{outcome}"'] for outcome in OUTCOMES}
    assert counts == {"committed": 0, "undone": 2, "unavailable": 1}


def test_counters_are_there_at_nought_before_the_first_event() -> None:
    found = values(new("shell"))
    assert {found[f'scheduler_slots_skipped_total reason="{reason}"'] for reason in Reason} == {0}
    assert {found[f'scheduler_runs_finished_total executor="shell" phase="{phase}"'] for phase in FINAL} == {0}
    assert found['scheduler_fires_total kind="scheduled"'] == 0


def test_executors_that_are_not_declared_share_one_name_whoever_made_them_up() -> None:
    metrics = new("shell")
    for number in range(1_000):
        name = f"made-up-{number}"
        metrics.committed(Tally(ended=Counter({("ABORTED", name): 1}), retried=Counter({name: 1})), 0.001)
        metrics.committed(Tally(started=Counter([started(False, 1, name)])), 0.001)
    found = values(metrics)
    assert found['scheduler_runs_finished_total executor="other" phase="ABORTED"'] == 1_000
    assert found['scheduler_starts_total executor="other" kind="scheduled"'] == 1_000
    assert not [name for name in found if "made-up" in name]


def test_a_look_at_the_database_replaces_the_last_one() -> None:
    metrics = new("shell")
    metrics.sampled(
        Sample(
            SCHEMA, {Phase.QUEUED: 9, Phase.RUNNING: 2}, {("shell", False): 7, ("shell", True): 1, (OTHER, False): 1}, 5
        )
    )
    metrics.sampled(
        Sample(SCHEMA, {Phase.QUEUED: 3}, {("shell", False): 2, ("shell", True): 0, (OTHER, False): 0}, 2_500_000)
    )
    found = values(metrics)
    assert {phase: found[f'scheduler_open_runs phase="{phase}"'] for phase in OPEN} == {
        "QUEUED": 3,
        "RUNNING": 0,
        "DEFERRED": 0,
    }
    assert found['scheduler_queue_depth executor="shell" late="false"'] == 2
    assert found['scheduler_queue_depth executor="other" late=""'] == 0
    assert found["scheduler_oldest_due_age_seconds"] == 2.5


def test_two_workers_of_one_process_count_apart() -> None:
    one, other = new("shell"), new("shell")
    one.committed(Tally(inserted=Counter(scheduled=1)), 0.001)
    assert values(one)['scheduler_fires_total kind="scheduled"'] == 1
    assert values(other)['scheduler_fires_total kind="scheduled"'] == 0


def test_who_accepts_open_metrics_gets_them() -> None:
    text, content_type = new().render("application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_the_build_is_told_and_the_process_measured() -> None:
    found = values(new())
    assert found['scheduler_build_info version="1.2.3" worker="w"'] == 1
    assert found["process_resident_memory_bytes"] > 10_000_000
    assert found["scheduler_lease_seconds"] == 30
    assert found["scheduler_places"] == 100


# --- names -----------------------------------------------------------------------------------------------------------


def families() -> dict[str, tuple[str, frozenset[str]]]:
    """Every metric by the name that is documented: its type and its labels."""
    metrics = new("shell")
    metrics.sampled(Sample(SCHEMA, {}, {("shell", False): 0}, 0))
    metrics.count_dropped_lines(int)
    text, _ = metrics.render("")
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + "_total" if family.type == "counter" else family.name
        found[name] = (family.type, frozenset(labels))
    return found | dict.fromkeys(FOLLOWED, ("gauge", frozenset()))


def own() -> dict[str, tuple[str, frozenset[str]]]:
    return {name: what for name, what in families().items() if name.startswith("scheduler_")}


def test_the_operations_page_has_every_metric_with_its_labels() -> None:
    said = {
        row.names[0]: frozenset(filter(None, row.cells[1].replace(" ", "").split(",")))
        for row in rows("docs/operations.md")
        if row.column == "metric"
    }
    build = said.pop("scheduler_build_info")
    assert {"worker", "version"} < build
    known = {name: labels for name, (_, labels) in own().items() if name != "scheduler_build_info"}
    assert said == known


def test_names_carry_their_units() -> None:
    for name, (kind, _) in own().items():
        assert (kind == "counter") == name.endswith("_total"), name
        assert kind != "histogram" or name.endswith("_seconds"), name
        assert "milli" not in name
        assert "micro" not in name


def asked(expression: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The metrics that an expression names, and the labels it picks them by."""
    for name, picked in re.findall(r"\b((?:scheduler|process|python)_\w+)(\{[^}]*\})?", expression):
        yield name, frozenset(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", picked))


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]


@pytest.mark.parametrize(
    ("where", "expression"), [pytest.param(*item, id=" ".join(item)[:60]) for item in expressions()]
)
def test_every_metric_that_is_asked_for_exists(where: str, expression: str) -> None:
    known = families()
    found = list(asked(expression))
    assert found, f"{where} asks for nothing"
    for name, picked in found:
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        kind, labels = known.get(name) or known[base]
        assert (name != base) == (kind == "histogram"), f"{where}: {name} is a {kind}"
        assert picked <= labels | {"job", "instance"}, f"{where}: {name} has only {sorted(labels)}"
    for words in re.findall(r'=~?"([^"]*)"', expression):
        for word in set(words.split("|")) - {"$job"}:
            assert word in WORDS | set(Reason) | set(Phase), f"{where}: {word}"


def test_every_metric_of_its_own_is_on_the_dashboard() -> None:
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for _, text in expressions() for name, _ in asked(text)}
    assert set(own()) <= shown


def test_alerts_say_what_is_wrong_and_what_to_do() -> None:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        names = [rule["alert"] for rule in group["rules"]]
        assert len(set(names)) == len(names)
        for rule in group["rules"]:
            assert set(rule["annotations"]) == {"summary", "description"}
            assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_containers_health_is_asked_where_a_worker_answers() -> None:
    worker = yaml.safe_load((ROOT / "config/docker/compose.yaml").read_text())["services"]["worker"]
    settings = Settings.load(ROOT / "config/scheduler.postgres.yaml", env={})
    assert settings.web.enabled
    assert f"'http://127.0.0.1:{settings.web.port}{LIVE}'" in worker["healthcheck"]["test"][-1]


def test_panels_stand_beside_each_other() -> None:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_dropped_log_lines_are_read_when_somebody_asks() -> None:
    metrics, dropped = new(), [0]
    metrics.count_dropped_lines(lambda: len(dropped))
    assert values(metrics)["scheduler_log_lines_dropped_total"] == 1
    dropped.append(0)
    assert values(metrics)["scheduler_log_lines_dropped_total"] == 2
