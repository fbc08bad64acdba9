"""YAML as people mean it, the same with libyaml and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scheduler.errors import ConfigError
from scheduler.reading import strict_yaml
from scheduler.reading.strict_yaml import load_file, load_text


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    loader = getattr(yaml, "CSafeLoader", None) if request.param == "libyaml" else yaml.SafeLoader
    if loader is None:
        pytest.skip("this PyYAML was built without libyaml")
    monkeypatch.setattr(strict_yaml, "_Loader", loader)
    return


def value(text: str) -> Any:
    return load_text(f"a: {text}", "f").value["a"]


def fault(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f")
    return str(caught.value)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "Yes", "NO", "y", "12:30", "1:30:00", "010", "0o17", "0x1F"]
)
def test_words_and_digits_that_older_yaml_reinterprets_stay_texts(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize("text", ["1_000", "1.2.3", "2026-12-24", "2026-12-24T18:00:00Z", "1e", "+", ".", "7d"])
def test_dates_versions_and_durations_stay_texts(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("-5", -5), ("+5", 5), ("1.10", 1.1), (".5", 0.5), ("1e3", 1000.0), ("2.", 2.0), ("-1.5e-3", -0.0015)],
)
def test_plain_numbers_are_numbers(text: str, expected: float) -> None:
    assert value(text) == expected
    assert type(value(text)) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("False", False), ("null", None), ("~", None), ("", None)]
)
def test_true_false_and_null_are_what_they_say(text: str, expected: object) -> None:
    assert value(text) is expected


@pytest.mark.parametrize("text", ['"true"', "'1.10'", '"null"', "!!str 5", "! 5"])
def test_what_is_quoted_is_a_text(text: str) -> None:
    assert isinstance(value(text), str)


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".NaN", "1e999", "9" * 500])
def test_numbers_that_cannot_be_stored_are_refused(text: str) -> None:
    assert fault(f"a: {text}").startswith("f: a (line 1): ")


def test_long_whole_numbers_stay_exact() -> None:
    assert value("123456789012345678901234567890") == 123456789012345678901234567890


def test_a_merged_mapping_gives_what_is_not_said_otherwise() -> None:
    text = "base: &b {x: 1, y: 1}\nother: &o {y: 2, z: 2}\na: {<<: [*b, *o], x: 0}\n"
    assert load_text(text, "f").value["a"] == {"x": 0, "y": 1, "z": 2}


def test_merging_twice_or_merging_a_text_is_refused() -> None:
    assert "appears twice" in fault("b: &b {x: 1}\na:\n  <<: *b\n  <<: *b\n")
    assert "merges mappings only" in fault("a: {<<: text}")


def test_anchors_repeat_values() -> None:
    assert load_text("a: &x {k: [1]}\nb: *x\nc: &n 5\nd: *n\n", "f").value == {
        "a": {"k": [1]}, "b": {"k": [1]}, "c": 5, "d": 5,
    }  # fmt: skip


def test_every_fault_of_the_text_is_told_with_its_path_and_line() -> None:
    assert fault("a: 1\na: 2\nb:\n  - !x 1\n  - {c: 1, c: 2}\n5: x\n").splitlines() == [
        "f: a (line 2): the key 'a' appears twice",
        "f: b[0] (line 4): the tag !x is not allowed: plain values only",
        "f: b[1].c (line 5): the key 'c' appears twice",
        'f: line 6: the key 5 is not a text: quote it: "5"',
    ]


def test_half_of_a_surrogate_pair_is_refused() -> None:
    assert "line 1" in fault('a: "\\ud800"')


def test_lines_and_typed_digits_are_found_again() -> None:
    document = load_text("a:\n  - {n: 1.10}\n  -\n    deep:\n      x: y\nb: &b {k: v}\nc:\n  <<: *b\n", "f")
    assert document.line(("a", 0, "n")) == 2
    assert document.written(("a", 0, "n")) == "1.10"
    assert document.line(("a", 1, "deep", "x")) == 5
    assert document.line(("c", "k")) == 6
    assert document.line(("a", 1, "missing")) == 4
    assert document.written(("a", 1)) is None
    assert document.line(("nowhere",)) == 1


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    def reason(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load_file(path, "f")
        return str(caught.value)

    assert reason(tmp_path / "missing.yaml") == "f: no such file"
    assert reason(tmp_path) == "f: is a folder, not a file"
    assert reason(Path("a\0b")).startswith("f: cannot be read: ")
    locked = tmp_path / "locked.yaml"
    locked.write_text("a: 1")
    locked.chmod(0)
    if os.geteuid() != 0:
        assert reason(locked) == "f: cannot be read: permission denied"


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_yaml, "MAX_BYTES", 1 << 20)
    (tmp_path / "a.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="is larger than 1 MiB: split it"):
        load_file(tmp_path / "a.yaml")


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_file(tmp_path / "a.yaml").value == {"a": 1}
