"""What people type before anything is looked up: verbs, paths, times, inputs; and which exit code an error has."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from scheduler.cli import guard
from scheduler.cli.guard import Refused
from scheduler.cli.keys import filters, task_key, trigger_key
from scheduler.cli.main import cli
from scheduler.cli.times import schedule_text, since_instant, took, zone_of_document
from scheduler.cli.trigger_fire import parse_inputs
from scheduler.domain.instants import parse_rfc3339
from scheduler.errors import (
    BadCron,
    ConfigError,
    Conflict,
    NotFound,
    Problem,
    RevisionConflict,
    SchemaMismatch,
    SpecError,
    StoreUnavailable,
)
from scheduler.settings import Defaults

DEFAULTS = Defaults()
NOW = parse_rfc3339("2026-11-21T12:00:00Z")


def call(*words: str, exits: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(words))
    assert result.exit_code == exits, (result.stdout, result.stderr, result.exception)
    return result


def test_help_lists_the_verbs_that_are_there_and_no_others() -> None:
    shown = call("--help").stdout
    listed = shown.split("Commands:")[1]
    for verb in (
        "serve",
        "deploy",
        "export",
        "next",
        "simulate",
        "slots",
        "backfill",
        "tasks",
        "triggers",
        "runs",
        "workers",
        "config",
        "db",
        "version",
    ):
        assert f"\n  {verb} " in listed
    for verb in ("doctor", "token"):
        assert verb not in listed


@pytest.mark.parametrize("words", [["doctor", "--all"], ["token", "create", "x"]], ids=" ".join)
def test_a_verb_to_come_says_that_it_is_not_there_yet(words: list[str]) -> None:
    result = call(*words, exits=2)
    assert result.stderr.endswith("is not available in this version yet\n")
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_verb_or_option_exits_2_with_plain_advice() -> None:
    assert "did you mean runs?" in call("rusn", exits=2).stderr
    assert "did you mean list?" in call("runs", "lst", exits=2).stderr
    assert "there are list, show" in call("tasks", "zzz", exits=2).stderr
    wrong = call("runs", "list", "--colour", exits=2)
    assert "--colour" in wrong.stderr
    assert "╭" not in wrong.stderr
    assert "limit" in call("runs", "list", "--limit", "0", exits=2).stderr
    assert "SUCCEEDED" in call("runs", "list", "--phase", "DONE", exits=2).stderr


def test_every_verb_explains_itself() -> None:
    for words in (
        ["serve"],
        ["deploy"],
        ["export"],
        ["slots"],
        ["triggers", "fire"],
        ["runs", "list"],
        ["config", "check"],
    ):
        assert "Usage: root " + " ".join(words) in call(*words, "--help").stdout


def test_the_version_is_one_line() -> None:
    assert call("version").stdout.startswith("trigger-scheduler ")


def test_short_paths_are_filled_up_with_the_defaults() -> None:
    assert str(trigger_key("reports.nightly/nightly", DEFAULTS)) == "flytesnacks/development/reports.nightly/nightly"
    assert str(trigger_key("a/b/c/d", DEFAULTS)) == "a/b/c/d"
    assert task_key("reports", DEFAULTS) == ("flytesnacks", "development", "reports")
    assert task_key("a/b/c", DEFAULTS) == ("a", "b", "c")


@pytest.mark.parametrize("text", ["x", "a/b/c", "a/b/c/d/e", "a/", "/b", " a/b", "a/\nb", ""])
def test_a_path_that_names_no_trigger_is_refused_with_the_forms_that_do(text: str) -> None:
    with pytest.raises(Refused, match="write task/name or project/domain/task/name"):
        trigger_key(text, DEFAULTS)


def test_filters_fill_each_other() -> None:
    everything = {"project": None, "domain": None, "task": None, "trigger": None}
    assert filters(DEFAULTS) == everything
    assert filters(DEFAULTS, task="t") == everything | {"task": "t"}
    assert list(filters(DEFAULTS, trigger="t/n").values()) == ["flytesnacks", "development", "t", "n"]
    assert list(filters(DEFAULTS, trigger="t/n", domain="production").values())[:2] == ["flytesnacks", "production"]
    assert list(filters(DEFAULTS, trigger="p/d/t/n").values()) == ["p", "d", "t", "n"]
    assert filters(DEFAULTS, task="t", trigger="n") == everything | {"task": "t", "trigger": "n"}


def test_filters_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(Refused, match="contradicts --project q"):
        filters(DEFAULTS, project="q", trigger="p/d/t/n")
    with pytest.raises(Refused, match="contradicts --task u"):
        filters(DEFAULTS, task="u", trigger="t/n")


def test_since_is_a_duration_back_or_an_instant() -> None:
    assert since_instant(None, NOW) is None
    assert since_instant("1h30m", NOW) == parse_rfc3339("2026-11-21T10:30:00Z")
    assert since_instant("2026-11-21T02:00:00+01:00", NOW) == parse_rfc3339("2026-11-21T01:00:00Z")
    assert since_instant("99999d", NOW) == 0
    with pytest.raises(SpecError, match="neither a duration such as 1h nor a time"):
        since_instant("yesterday", NOW)
    with pytest.raises(SpecError, match="add Z or an offset"):
        since_instant("2026-11-21T02:00:00", NOW)


def test_inputs_are_json_where_they_can_be_and_text_else() -> None:
    pairs = ["a=1", "b=1.5", "c=true", "d=null", 'e="1"', "f=[1, 2]", "g=two words", "h=", "i=k=v", "j=NaN", "k=007"]
    assert parse_inputs(pairs) == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": "1",
        "f": [1, 2],
        "g": "two words",
        "h": "",
        "i": "k=v",
        "j": "NaN",
        "k": "007",
    }
    assert parse_inputs(["deep=" + "[" * 100_000]) == {"deep": "[" * 100_000}


def test_schedules_in_a_few_words() -> None:
    assert schedule_text(None) == "by hand"
    assert (
        schedule_text({"cron": {"expression": "0 2 * * *", "timezone": "Europe/Paris"}}) == "0 2 * * * (Europe/Paris)"
    )
    assert schedule_text({"cron": "0 2 * * *"}) == "0 2 * * *"
    assert schedule_text({"fixed_rate": {"value": 5, "unit": "minute"}}) == "rate(5 minutes)"
    assert schedule_text({"nonsense": 1}) == '{"nonsense": 1}'


def test_the_zone_of_whatever_an_automation_document_holds() -> None:
    assert zone_of_document({"cron": {"expression": "0 2 * * *", "timezone": "Europe/Paris"}}).name == "Europe/Paris"
    assert zone_of_document({"cron": "CRON_TZ=Asia/Tokyo 0 2 * * *"}).name == "Asia/Tokyo"
    for none in (None, {}, {"at": "2026-11-21T12:00:00Z"}, {"cron": {"timezone": "Nowhere"}}, {"cron": 5}, "x"):
        assert zone_of_document(none).name == "UTC"


def test_how_long_something_took() -> None:
    assert [took(0, end) for end in (210_000, 9_994_000, 12_345_678, 3_900_000_000)] == [
        "0.21s",
        "9.99s",
        "12s",
        "1h5m",
    ]
    assert took(0, None) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("f.yaml", ["wrong"]), 2),
        (BadCron("cron", "wrong"), 2),
        (Refused("wrong"), 2),
        (NotFound("run", "x"), 4),
        (Conflict("taken"), 5),
        (RevisionConflict("a/b/c/d", 1, 2), 5),
        (SchemaMismatch("older"), 1),
        (StoreUnavailable("away"), 1),
        (RuntimeError("a bug"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert guard.exit_code(error) == code


def test_errors_are_plain_lines_one_a_fault() -> None:
    faults = ConfigError("f.yaml", [Problem("a.b", "is wrong"), Problem("", "is empty", "g.yaml")])
    assert guard.lines(faults) == ["f.yaml: a.b: is wrong", "g.yaml: is empty"]
    assert guard.lines(StoreUnavailable("away\n  for now")) == ["away for now"]
    assert guard.lines(RuntimeError("a\nbug")) == ["RuntimeError: a bug (--debug shows where)"]


def test_debug_shows_where_an_error_comes_from() -> None:
    words = ["--config", "/nowhere/scheduler.yaml"]
    assert "Traceback" not in call(*words, "runs", "list", exits=2).stderr
    assert "Traceback" in call(*words, "--debug", "runs", "list", exits=2).stderr
    result = CliRunner().invoke(cli, [*words, "runs", "list"], env={"SCHEDULER_DEBUG": "1"})
    assert "Traceback" in result.stderr
