"""`scheduler next`: from a text to instants, without settings or a database."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from scheduler.cli.main import cli


def call(*words: str, exits: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["next", *words])
    assert result.exit_code == exits, (result.stdout, result.stderr, result.exception)
    return result


def fires(*words: str) -> list[str]:
    found: list[str] = json.loads(call(*words, "-o", "json").stdout)
    return found


def test_a_cron_in_a_zone_fires_at_its_local_time() -> None:
    words = ["0 9 * * 1-5", "--timezone", "Europe/Paris", "--after", "2026-03-27T00:00:00Z", "--count", "3"]
    result = call(*words, "-o", "json")
    assert result.stdout == '["2026-03-27T08:00:00Z", "2026-03-30T07:00:00Z", "2026-03-31T07:00:00Z"]\n'
    assert result.stderr == ""


def test_people_read_local_times_and_hear_what_the_schedule_means() -> None:
    result = call("0 9 * * 1-5", "--timezone", "Europe/Paris", "--after", "2026-03-27T00:00:00Z", "--count", "2")
    assert result.stdout == "2026-03-27 09:00:00+01:00\n2026-03-30 09:00:00+02:00\n"
    assert result.stderr == "At 09:00, Monday to Friday (Europe/Paris)\n"


def test_a_zone_inside_the_text_counts() -> None:
    after = ["--after", "2026-07-01T00:00:00Z", "--count", "1"]
    assert fires("CRON_TZ=Asia/Tokyo 0 9 * * *", *after) == ["2026-07-02T00:00:00Z"]
    assert call("CRON_TZ=Asia/Tokyo 0 9 * * *", *after).stdout == "2026-07-02 09:00:00+09:00\n"


def test_a_rate_counts_from_after() -> None:
    after = ["--after", "2026-11-21T12:00:00Z", "--count", "2"]
    assert fires("@every 90s", *after) == ["2026-11-21T12:01:30Z", "2026-11-21T12:03:00Z"]
    assert fires("rate(5 minutes)", *after) == ["2026-11-21T12:05:00Z", "2026-11-21T12:10:00Z"]


def test_the_options_of_a_cron_reach_it() -> None:
    after = ["--after", "2026-11-21T12:00:00Z", "--count", "1"]
    assert fires("0 10 * * ? *", "--dialect", "aws", *after) == ["2026-11-22T10:00:00Z"]
    assert fires("0 0 13 * 5", "--day-rule", "debian", *after) != []
    assert fires("30 2 * * *", "--dst", "skip_once", "--timezone", "Europe/Paris", *after) == ["2026-11-22T01:30:00Z"]


def test_what_is_over_fires_no_more() -> None:
    result = call("at(2026-11-21T12:00:00)", "--after", "2026-11-22T00:00:00Z")
    assert (result.stdout, result.stderr.splitlines()[-1]) == ("", "it fires no more")
    assert fires("at(2026-11-21T12:00:00)", "--after", "2026-11-22T00:00:00Z") == []
    assert fires("at(2026-11-21T12:00:00)", "--after", "2026-11-20T00:00:00Z") == ["2026-11-21T12:00:00Z"]


def test_without_after_it_says_what_comes_now() -> None:
    assert len(fires("* * * * *")) == 5


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["61 * * * *"], "61"),
        (["@daily", "--timezone", "Europe/Pariss"], "did you mean Europe/Paris?"),
        (["@daily", "--after", "yesterday"], "is no time: write 2h (in 2h), 2026-11-25"),
        (["@daily", "--dialect", "klingon"], "klingon"),
        (["@daily", "--count", "0"], "--count"),
        (["0 0 30 2 *"], ""),
        ([], "TEXT"),
    ],
)
def test_what_cannot_be_meant_exits_2_and_says_why(words: list[str], advice: str) -> None:
    result = call(*words, exits=2)
    assert advice in result.stderr
    assert result.stdout == ""
