"""`${NAME}` in executor options, replaced when executors are built."""

from __future__ import annotations

import pytest

from scheduler.errors import Problem
from scheduler.settings import interpolate

ENV = {"HOST": "db", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${HOST}", "db"),
        ("https://${HOST}/${HOST}", "https://db/db"),
        ("${NOPE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${NOPE:-}", ""),
        ("${HOST:-other}", "db"),
        ("$${HOST}", "${HOST}"),
        ("$HOST {HOST} $ $$", "$HOST {HOST} $ $$"),
        ("{inputs.region}", "{inputs.region}"),
    ],
)
def test_names_are_replaced_by_the_environment(text: str, expected: str) -> None:
    assert interpolate({"a": text}, ENV) == ({"a": expected}, [])


def test_lists_and_mappings_are_replaced_within_and_the_options_stay_as_they_were() -> None:
    options = {"a": {"b": ["${HOST}", 5, None, True]}, "${HOST}": 1}
    assert interpolate(options, ENV) == ({"a": {"b": ["db", 5, None, True]}, "${HOST}": 1}, [])
    assert options["a"] == {"b": ["${HOST}", 5, None, True]}


def test_what_a_variable_holds_is_not_interpolated_again() -> None:
    assert interpolate({"a": "${X}"}, {"X": "${HOST}"}) == ({"a": "${HOST}"}, [])


def test_every_missing_variable_is_a_problem_with_its_path() -> None:
    _, problems = interpolate({"a": "${NOPE}", "b": ["${GONE}-${HOST}", "${1}"]}, ENV, ("executors", "x", "options"))
    assert problems == [
        Problem(
            "executors.x.options.a", "the environment variable NOPE is not set (${NOPE:-…} would give it a default)"
        ),
        Problem(
            "executors.x.options.b[0]", "the environment variable GONE is not set (${GONE:-…} would give it a default)"
        ),
        Problem(
            "executors.x.options.b[1]",
            "holds a ${ that is no ${NAME} or ${NAME:-default}; write $${ for the characters themselves",
        ),
    ]
