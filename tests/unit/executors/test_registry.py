"""From a name in the settings to an executor class, or to an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from executors import Executor, ExecutorConfigError, ExecutorNotFound, LoggingExecutor, RunContext, ShellExecutor
from executors.registry import build, check_config, known_names, parse_config, resolve


class Plain(Executor):
    async def execute(self, run: RunContext) -> None:
        return None


class Company:
    class Post(Plain):
        @dataclass(frozen=True)
        class Options:
            token: str
            retries: int = 1


class Undone(Executor):
    pass


class Sloppy(Plain):
    class Config:
        command: str


class Lost(Plain):
    class Part:
        pass

    @dataclass
    class Config:
        part: Part  # type: ignore[name-defined]  # noqa: F821  # the fault that is tested


class Fussy(Plain):
    def __init__(self, options: Any = None) -> None:
        raise OSError("tok-123 is not a file")


Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a distribution with entry points findable, as an installer would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def one(distribution: str, points: str) -> None:
        folder = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[scheduler.executors]\n{points}\n")

    return one


def test_the_built_in_executors_are_entry_points_like_everyones() -> None:
    assert resolve("logging") is LoggingExecutor
    assert resolve("shell") is ShellExecutor
    assert known_names()["shell"] == ["trigger-scheduler"]


def test_a_dotted_path_names_any_class_nested_ones_too() -> None:
    assert resolve(f"{__name__}:Plain") is Plain
    assert resolve(f"{__name__}:Company.Post") is Company.Post


def test_another_distribution_may_give_a_name(install: Install) -> None:
    install("acme-post", f"post = {__name__}:Company.Post")
    assert resolve("post") is Company.Post


def test_a_name_given_twice_is_ambiguous_and_the_givers_are_named(install: Install) -> None:
    install("acme-post", f"post = {__name__}:Plain")
    install("bolt-post", f"post = {__name__}:Company.Post")
    with pytest.raises(
        ExecutorConfigError, match=r"acme-post \(.*Plain\), bolt-post \(.*Company.Post\): name the class"
    ):
        resolve("post")


@pytest.mark.parametrize(
    ("use", "kind", "reason"),
    [
        ("shel", ExecutorNotFound, r"'mine' does not exist: no distribution gives 'shel' \(did you mean shell\?\)"),
        ("nowhere.at:All", ExecutorNotFound, "there is no module 'nowhere' to import"),
        ("executors.nowhere:All", ExecutorNotFound, "there is no module 'executors.nowhere'"),
        ("executors.shell:ShelExecutor", ExecutorNotFound, r"no 'ShelExecutor' \(did you mean ShellExecutor\?\)"),
        (":All", ExecutorConfigError, "is no path to a class"),
        ("executors.errors:PermanentError", ExecutorConfigError, "which is no executors.Executor"),
        ("executors.registry:resolve", ExecutorConfigError, "is a function, which is no executors.Executor"),
        (f"{__name__}:Undone", ExecutorConfigError, "does not define execute"),
        (f"{__name__}:Lost", ExecutorConfigError, "Config: has a type that cannot be found at the top of its module"),
        (f"{__name__}:Sloppy", ExecutorConfigError, "Config: must be a dataclass"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(use: str, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        resolve(use, "mine")


def test_a_module_that_needs_another_or_breaks_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "needy_executor.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "broken_executor.py").write_text("1 / 0\n")
    with pytest.raises(ExecutorConfigError, match="needs the module 'no_such_module_at_all', which is not installed"):
        resolve("needy_executor:X")
    with pytest.raises(ExecutorConfigError, match="importing broken_executor failed: ZeroDivisionError"):
        resolve("broken_executor:X")


def test_building_checks_the_options_and_names_the_executor_as_the_settings_do() -> None:
    made = build("slack", f"{__name__}:Company.Post", {"token": "tok-123"})
    assert made.options == Company.Post.Options("tok-123", 1)
    with pytest.raises(ExecutorConfigError) as caught:
        build("slack", f"{__name__}:Company.Post", {"tokn": "tok-123", "retries": "tok-456"})
    assert str(caught.value).splitlines() == [
        "slack: options.tokn: unknown key (did you mean token?)",
        "slack: options.retries: must be a whole number, not a text",
        "slack: options.token: is missing",
    ]


def test_an_executor_that_cannot_be_made_does_not_show_its_options() -> None:
    with pytest.raises(ExecutorConfigError, match=r"Fussy could not be made \(OSError\)") as caught:
        build("fussy", f"{__name__}:Fussy", {"token": "tok-123"})
    assert "tok-123" not in str(caught.value)


def test_a_config_is_checked_at_deploy_and_parsed_for_a_run() -> None:
    assert check_config(ShellExecutor, {"command": ["ls"]}) == []
    assert check_config(ShellExecutor, {"command": ["ls", "{inputs.folder}"], "cwd": "{inputs.folder}"}) == []
    assert check_config(ShellExecutor, []) == [("", "must be a mapping, not a list")]
    assert check_config(ShellExecutor, None) == [("command", "is missing")]
    assert parse_config(ShellExecutor, {"command": ["ls"]}).command == ["ls"]
    with pytest.raises(ExecutorConfigError, match=r"^ls: config.command\[0\]: must be a text"):
        parse_config(ShellExecutor, {"command": [1]}, "ls")


def test_without_a_config_class_any_mapping_will_do() -> None:
    assert check_config(Plain, {"anything": 1}) == []
    assert check_config(Plain, [1]) == [("", "must be a mapping")]
    assert parse_config(Plain, {"anything": 1}) == {"anything": 1}
    assert parse_config(Plain, None) == {}
