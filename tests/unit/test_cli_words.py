"""What people type before anything is looked up: verbs, paths, times, inputs; and which exit code an error has."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from scheduler.cli import guard
from scheduler.cli.guard import Refused
from scheduler.cli.keys import filters, task_key, trigger_key
from scheduler.cli.main import cli
from scheduler.cli.time_arguments import since_instant, typed_instant
from scheduler.cli.times import ago, schedule_text, took, zone_of_document
from scheduler.cli.trigger_fire import parse_inputs
from scheduler.domain.instants import parse_rfc3339
from scheduler.domain.zones import zone_of
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


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1h30m", "2026-11-21T10:30:00Z"),
        ("3d", "2026-11-18T12:00:00Z"),
        ("99999d", "1970-01-01T00:00:00Z"),
        ("now", "2026-11-21T12:00:00Z"),
        ("2026-11-21T02:00:00+01:00", "2026-11-21T01:00:00Z"),
        ("2026-11-20", "2026-11-19T23:00:00Z"),
        ("2026-11-20T14:30", "2026-11-20T13:30:00Z"),
        (" 2026-11-20 14:30:15.5 ", "2026-11-20T13:30:15.5Z"),
        # The clocks skip it, and show it twice.
        ("2026-03-29T02:30", "2026-03-29T01:00:00Z"),
        ("2026-10-25T02:30", "2026-10-25T00:30:00Z"),
        ("1900-01-01", "1970-01-01T00:00:00Z"),
    ],
)
def test_times_are_typed_in_short_in_the_zone_that_is_meant(text: str, instant: str) -> None:
    assert typed_instant(text, "--from", NOW, zone_of("Europe/Paris")) == parse_rfc3339(instant)


def test_a_duration_may_lie_ahead_and_a_day_may_mean_all_of_it() -> None:
    utc = zone_of("UTC")
    assert typed_instant("2h", "--until", NOW, utc, ahead=True) == parse_rfc3339("2026-11-21T14:00:00Z")
    assert typed_instant("2026-11-21", "--to", NOW, utc, to_its_end=True) == parse_rfc3339("2026-11-22T00:00:00Z") - 1


@pytest.mark.parametrize("text", ["yesterday", "", "2026", "2026-13-01", "2026-02-30", "25:00", "9999-12-31T25:00"])
def test_what_is_no_time_is_told_what_would_be_one(text: str) -> None:
    with pytest.raises(SpecError, match=r"--from: .* is no time: write 2h \(2h ago\), 2026-11-25, 2026-11-25T14:00 or"):
        typed_instant(text, "--from", NOW, zone_of("UTC"))


def test_since_is_in_utc_unless_somebody_says_otherwise() -> None:
    assert since_instant(None, NOW) is None
    assert since_instant("2026-11-21", NOW) == parse_rfc3339("2026-11-21T00:00:00Z")
    assert since_instant("2026-11-21", NOW, zone_of("Asia/Tokyo")) == parse_rfc3339("2026-11-20T15:00:00Z")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (-1, "1 s ago"),
        (59, "in 59 s"),
        (-119, "1 min ago"),
        (3_600, "in 1 h"),
        (-47 * 3_600, "47 h ago"),
        (-48 * 3_600, "2 d ago"),
    ],
)
def test_how_long_ago_is_told_in_one_unit(seconds: int, words: str) -> None:
    assert ago(NOW + seconds * 1_000_000, NOW) == words
    assert ago(None, NOW) is None


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
