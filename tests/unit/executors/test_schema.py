"""Schemas from dataclasses: strict, and every fault at once with its path."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from executors.errors import Problem
from executors.schema import parse


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    host: str
    port: int = 80


@dataclass(frozen=True)
class Config:
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    kill_after: timedelta = timedelta(seconds=10)
    ratio: float = 1.0
    count: int | None = None
    stdin: Literal["json", "none"] = "json"
    place: Literal["process", "thread"] | None = field(default=None, metadata={"key": "in"})
    servers: Sequence[Inner] = ()
    pair: tuple[str, int] = ("a", 1)
    colour: Colour = Colour.RED
    at: datetime | None = None
    either: list[int] | Mapping[str, int] | None = None
    free: Any = None

    def check(self) -> Iterable[Problem]:
        if not self.command:
            yield "command", "is empty"
        if self.ratio < 0:
            yield "ratio", "is negative"


def test_plain_data_becomes_a_typed_instance() -> None:
    value, problems = parse(
        Config,
        {
            "command": ["ls", "-l"],
            "env": {"A": "1"},
            "kill_after": "1h30m",
            "ratio": 2,
            "count": 3,
            "in": "thread",
            "servers": [{"host": "h"}, {"host": "i", "port": 81}],
            "pair": ["b", 2],
            "colour": "blue",
            "at": "2026-11-21T03:00:00+01:00",
            "either": {"x": 1},
            "free": [{"anything": None}],
        },
    )
    assert problems == []
    assert value.kill_after == timedelta(minutes=90)
    assert (value.ratio, type(value.ratio)) == (2.0, float)
    assert (value.place, value.pair, value.colour) == ("thread", ("b", 2), Colour.BLUE)
    assert value.servers == [Inner("h"), Inner("i", 81)]
    assert value.at == datetime(2026, 11, 21, 2, tzinfo=UTC)


FAULTS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, [("command", "is missing")]),
    ({"command": []}, [("command", "is empty")]),
    ({"command": [], "ratio": -1}, [("command", "is empty"), ("ratio", "is negative")]),
    ({"command": "ls -l"}, [("command", "must be a list, not a text: write it as a list, [word, word]")]),
    ({"command": ["a", 1]}, [("command[1]", "must be a text, not a number: quote it")]),
    ({"command": ["a", True]}, [("command[1]", "must be a text, not true: quote it")]),
    ({"command": ["a", None]}, [("command[1]", "must be a text, not null")]),
    ({"command": ["a"], "comand": 1}, [("comand", "unknown key (did you mean command?)")]),
    ({"command": ["a"], "env": {"A": 1}}, [("env.A", "must be a text, not a number: quote it")]),
    ({"command": ["a"], "env": {1: "A"}}, [("env.1", "the key must be a text, not a number: quote it")]),
    ({"command": ["a"], "env": ["A=1"]}, [("env", "must be a mapping, not a list")]),
    (
        {"command": ["a"], "kill_after": 10},
        [("kill_after", "must be a duration like 30s, not a number: write 10s if seconds are meant")],
    ),
    (
        {"command": ["a"], "kill_after": "10 s"},
        [("kill_after", "must be a duration like 500ms, 30s, 10m or 1h30m, not '10 s'")],
    ),
    ({"command": ["a"], "ratio": "2"}, [("ratio", "must be a number, not a text")]),
    ({"command": ["a"], "ratio": True}, [("ratio", "must be a number, not true")]),
    ({"command": ["a"], "count": 1.0}, [("count", "must be a whole number, without a decimal point")]),
    ({"command": ["a"], "count": False}, [("count", "must be a whole number, not false")]),
    ({"command": ["a"], "stdin": "jsn"}, [("stdin", "must be json or none, not 'jsn' (did you mean json?)")]),
    ({"command": ["a"], "in": "proces"}, [("in", "must be process or thread, not 'proces' (did you mean process?)")]),
    ({"command": ["a"], "place": "thread"}, [("place", "unknown key")]),
    (
        {"command": ["a"], "servers": [{"host": "h"}, {"prt": 1}]},
        [("servers[1].prt", "unknown key (did you mean port?)"), ("servers[1].host", "is missing")],
    ),
    ({"command": ["a"], "pair": ["x"]}, [("pair", "must have 2 items, not 1")]),
    ({"command": ["a"], "colour": "green"}, [("colour", "must be red or blue, not 'green'")]),
    ({"command": ["a"], "at": "2026-11-21T03:00:00"}, [("at", "has no zone: add Z or an offset")]),
    ({"command": ["a"], "either": 3}, [("either", "must be a list or a mapping, not a number")]),
    ({"command": ["a"], "either": [1, "x"]}, [("either[1]", "must be a whole number, not a text")]),
]


@pytest.mark.parametrize(("data", "expected"), FAULTS)
def test_a_fault_is_named_with_its_path_and_what_to_do(data: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    value, problems = parse(Config, data)
    assert value is None
    assert [(path, reason.split(" (known")[0]) for path, reason in problems] == expected


def test_every_fault_of_a_document_is_found_in_one_go() -> None:
    data = {"command": ["a", 1], "enf": {}, "kill_after": 10, "stdin": "x", "servers": [{"host": 1}]}
    paths = [path for path, _ in parse(Config, data)[1]]
    assert paths == ["command[1]", "enf", "kill_after", "stdin", "servers[0].host"]


def test_what_is_no_mapping_at_all_is_refused() -> None:
    assert parse(Config, ["ls"])[1] == [("", "must be a mapping, not a list")]


def test_values_that_may_be_secret_are_not_shown() -> None:
    data = {"command": ["a"], "stdin": "tok-123", "kill_after": "tok-123", "at": "tok-123"}
    problems = parse(Config, data, show_values=False)[1]
    assert len(problems) == 3
    assert "tok-123" not in str(problems)


def test_a_whole_placeholder_passes_for_any_type_until_a_run_fills_it() -> None:
    data = {"command": ["{inputs.program}"], "count": "{inputs.count}", "kill_after": "{inputs.patience}"}
    assert parse(Config, data, placeholders=True) == (None, [])
    assert [path for path, _ in parse(Config, data)[1]] == ["count", "kill_after"]
    partly = {"command": ["{inputs.program}"], "count": "1{inputs.count}"}
    assert parse(Config, partly, placeholders=True)[1] == [("count", "must be a whole number, not a text")]
