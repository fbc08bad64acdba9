"""Settings: where they come from, what overrides them, what they mean."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from scheduler.errors import ConfigError
from scheduler.settings import Executor, Settings, Worker

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str = "logs: {level: debug}\n") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def faults(**env: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(env=env)
    return caught.value.lines()


# --- where they are looked for ---------------------------------------------------------------------------------------


def test_a_named_file_outranks_the_variable_and_that_the_usual_places() -> None:
    for level, name in (("debug", "named.yaml"), ("warning", "other.yaml"), ("error", "config/scheduler.yaml")):
        write(name, f"logs: {{level: {level}}}\n")
    write("scheduler.yaml", "logs: {level: critical}\n")
    env = {"SCHEDULER_CONFIG": "other.yaml"}
    assert Settings.load("named.yaml", env).logs.level == "debug"
    assert Settings.load(None, env).logs.level == "warning"
    assert Settings.load(None, {}).logs.level == "error"
    Path("config/scheduler.yaml").unlink()
    assert Settings.load(None, {"SCHEDULER_CONFIG": ""}).logs.level == "critical"


def test_without_any_file_the_error_says_where_it_looked() -> None:
    (line,) = faults()
    assert "neither config/scheduler.yaml nor scheduler.yaml exists here" in line
    assert "SCHEDULER_CONFIG" in line


def test_a_file_that_was_named_must_exist() -> None:
    write("scheduler.yaml")
    with pytest.raises(ConfigError, match=r"^nope\.yaml: no such file$"):
        Settings.load("nope.yaml", {})
    assert faults(SCHEDULER_CONFIG="nope.yaml") == ["nope.yaml (named by SCHEDULER_CONFIG): no such file"]


def test_settings_remember_their_file() -> None:
    assert Settings.load(write("scheduler.yaml"), {}).source == Path("scheduler.yaml")
    assert Settings().source is None


# --- relative paths --------------------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_files_folder(here: Path) -> None:
    write("etc/my.yaml", "tasks: [jobs, /srv/jobs]\ndatabase: {url: 'sqlite:///data/s.db?timeout=5'}\n")
    settings = Settings.load("etc/my.yaml", {})
    assert settings.tasks == (here / "etc/jobs", Path("/srv/jobs"))
    assert settings.database.url == f"sqlite:///{here}/etc/data/s.db?timeout=5"


def test_relative_paths_start_above_a_folder_named_config(here: Path) -> None:
    write("etc/config/my.yaml", "tasks: [config/tasks]\n")
    settings = Settings.load("etc/config/my.yaml", {})
    assert settings.tasks == (here / "etc/config/tasks",)
    assert settings.database.url == f"sqlite:///{here}/etc/scheduler.db"


def test_an_absolute_database_file_stays_where_it_is() -> None:
    assert Settings.load(write("s.yaml", "database: {url: 'sqlite:////var/s.db'}\n"), {}).database.url == (
        "sqlite:////var/s.db"
    )


def test_the_default_folder_of_tasks_need_not_exist_but_a_named_one_is_kept(here: Path) -> None:
    assert Settings.load(write("scheduler.yaml"), {}).tasks == ()
    assert Settings.load(write("scheduler.yaml", "tasks: [config/tasks]\n"), {}).tasks == (here / "config/tasks",)
    Path("config/tasks").mkdir(parents=True)
    assert Settings.load(write("scheduler.yaml"), {}).tasks == (here / "config/tasks",)


# --- the environment -------------------------------------------------------------------------------------------------


def test_variables_with_double_underscores_override_the_file() -> None:
    write("scheduler.yaml", "worker: {lease: 30s, name: a}\nexecutors: {my-Job: {use: shell}}\n")
    env = {
        "SCHEDULER_WORKER__LEASE": "7s",
        "SCHEDULER_WEB__ENABLED": "false",
        "SCHEDULER_WEB__PORT": "9000",
        "SCHEDULER_PROJECTS__FLYTESNACKS": "[development, test]",
        "SCHEDULER_DEFAULTS__DOMAIN": "test",
        "SCHEDULER_EXECUTORS__MY_JOB__MAX_CONCURRENT_RUNS": "3",
        "SCHEDULER_EXECUTORS__MY_JOB__OPTIONS": "{a: [1, 'x']}",
        "SCHEDULER__TASKS": "[jobs]",
    }
    settings = Settings.load(env=env)
    assert settings.worker == Worker(lease=timedelta(seconds=7), name="a")
    assert (settings.web.enabled, settings.web.port) == (False, 9000)
    assert settings.projects == {"flytesnacks": ("development", "test")}
    assert settings.executors == {"my-Job": Executor(use="shell", max_concurrent_runs=3, options={"a": [1, "x"]})}
    assert settings.tasks == (Path.cwd() / "jobs",)


def test_a_variable_adds_to_the_defaults_of_an_open_mapping() -> None:
    write("scheduler.yaml")
    settings = Settings.load(env={"SCHEDULER_EXECUTORS__SHELL__USE": "shell"})
    assert sorted(settings.executors) == ["http", "logging", "python", "shell"]


@pytest.mark.parametrize("text", ["1.10", "true", "null", "{x}", "a: b # c", "[x"])
def test_a_variable_for_a_text_is_that_text_whatever_it_looks_like(text: str) -> None:
    write("scheduler.yaml")
    assert Settings.load(env={"SCHEDULER_WORKER__NAME": text}).worker.name == text


def test_other_variables_are_left_alone() -> None:
    write("scheduler.yaml")
    env = {"SCHEDULER_RUN_NAME": "x", "SCHEDULER_KEY": "y", "SCHEDULER_TASKS": "z", "SCHEDULERX__A": "1", "A__B": "1"}
    assert Settings.load(env=env) == Settings.load(env={})


def test_wrong_variables_are_named_with_the_key_they_mean() -> None:
    write("scheduler.yaml", "worker: {max_lost: 0}\n")
    assert faults(
        SCHEDULER_WORKER__LEESE="5s",
        SCHEDULER_WORKER__LEASE="5",
        SCHEDULER_WEB__PORT="high",
        SCHEDULER_LOGS__LEVEL__X="1",
        SCHEDULER_NOPE__A="1",
        SCHEDULER__TASKS="[a",
    ) == [
        "environment SCHEDULER_WORKER__LEASE: worker.lease: is a number, not a duration such as 30s or 10m: write 5s",
        "scheduler.yaml: worker.max_lost (line 1): 0 is too small: at least 1",
        "environment SCHEDULER_WORKER__LEESE: worker.leese: unknown key: did you mean lease?",
        "environment SCHEDULER_WEB__PORT: web.port: 'high' is a text, not a whole number",
        "environment SCHEDULER_NOPE__A: nope: unknown key: known here are auth, create_projects, database, defaults, "
        "executors, log...n, secrets, tasks, web, worker",
        "environment SCHEDULER_LOGS__LEVEL__X: logs.level.x: level has no keys below it",
        "environment SCHEDULER__TASKS: tasks: is not valid YAML: did not find expected ',' or ']' (begun in line 1): "
        "a [ is not closed, or a text with brackets needs quotes",
    ]


def test_a_section_made_by_a_variable_alone_is_not_blamed_on_the_file() -> None:
    write("scheduler.yaml")
    assert faults(SCHEDULER_EXECUTORS__X__OPTIONS="{}") == [
        "environment SCHEDULER_EXECUTORS__X__OPTIONS: executors.x.use: is missing, but required"
    ]


# --- values ----------------------------------------------------------------------------------------------------------


def test_durations_are_texts_or_timedeltas() -> None:
    for text, seconds in (("500ms", 0.5), ("30s", 30), ("10m", 600), ("24h", 86_400), ("1h30m", 5_400)):
        assert Settings(worker={"resync_interval": text}).worker.resync_interval == timedelta(seconds=seconds)
    assert Settings(worker=Worker(lease=timedelta(seconds=3))).worker.lease == timedelta(seconds=3)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql+psycopg://u:p@h:5432/d"),
        ("postgres://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg://u:a%40b@h/d?sslmode=require", "postgresql+psycopg://u:a%40b@h/d?sslmode=require"),
        ("postgresql:///d?host=/run/postgresql", "postgresql+psycopg:///d?host=/run/postgresql"),
        ("sqlite+pysqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_database_urls_name_the_driver_that_is_used(url: str, expected: str) -> None:
    assert Settings(database={"url": url}).database.url == expected


def test_only_sqlite_upgrades_itself_unless_told_otherwise() -> None:
    def upgrades(url: str, auto: bool | None) -> bool:
        return Settings(database={"url": url, "auto_upgrade": auto}).database.upgrades_itself

    assert upgrades("sqlite:///a.db", None)
    assert not upgrades("sqlite:///a.db", False)
    assert not upgrades("postgresql://h/d", None)
    assert upgrades("postgresql://h/d", True)


def test_a_section_with_every_key_commented_out_has_its_defaults() -> None:
    assert Settings.load(write("s.yaml", "worker:\n  # lease: 3s\nlogs:\nweb: {port: 1}\n"), {}).worker == Worker()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_the_loopback_needs_no_tokens(host: str) -> None:
    assert Settings(web={"host": host}).web.is_loopback


def test_another_address_needs_tokens_unless_the_web_is_off() -> None:
    token = {"name": "ci", "role": "operator", "sha256": "AB" * 32}
    assert Settings(web={"host": "0.0.0.0"}, auth={"tokens": [token]}).auth.tokens[0].sha256 == "ab" * 32
    assert not Settings(web={"host": "0.0.0.0", "enabled": False}).web.is_loopback
    with pytest.raises(ConfigError, match=r"settings: web\.host: '0\.0\.0\.0' can be reached"):
        Settings(web={"host": "0.0.0.0"})


def test_settings_built_in_python_tell_all_their_faults_too() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(worker={"lease": "1ms"}, logs={"level": "loud"}, web={"host": "0.0.0.0"}, databse={})
    assert [problem.where for problem in caught.value.problems] == ["worker.lease", "logs.level", "databse", "web.host"]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().worker.lease = timedelta(1)  # type: ignore[misc]


def test_projects_are_unknown_only_where_none_may_be_made() -> None:
    assert Settings().known_projects == {"flytesnacks": ("development", "staging", "production")}
    assert Settings(create_projects=True, defaults={"project": "any"}).known_projects is None
    # Defaults that nobody wrote are not held against one's own projects.
    assert Settings(projects={"acme": ["prod"]}).known_projects == {"acme": ("prod",)}


# --- showing ---------------------------------------------------------------------------------------------------------

SECRETS = ("hunter2", "T0P", "abcdef")


def telling() -> Settings:
    return Settings(
        database={"url": "postgresql://me:hunter2@h/d?sslpassword=hunter2"},
        executors={
            "airbyte": {
                "use": "airbyte",
                "options": {
                    "host": "https://me:hunter2@h/api",
                    "client_id": "${AB_ID}",
                    "client_secret": "hunter2",
                    "token": "${AB_TOKEN:-hunter2}",
                    "password": "${AB_PASSWORD}",
                    "token_url": "v1/applications/token",
                    "webhook_url": "https://hooks/T0P",
                    "headers": {"X-Custom": "T0P"},
                    "env": {"AIRFLOW_CONN_X": "T0P", "Y": "${Y}"},
                    "credentials": [{"user": "T0P"}],
                    "api_key": 123,
                    "timeout": "30s",
                    "insecure": True,
                },
            }
        },
        secrets={"my_api_key": {"env": "EXTERNAL_SERVICE_API_KEY"}},
        auth={"tokens": [{"name": "ci", "role": "r", "sha256": "abcdef12" * 8}]},
    )


def test_what_is_shown_holds_no_secret() -> None:
    shown = json.dumps(telling().redacted()) + repr(telling()) + str(telling())
    assert not [secret for secret in SECRETS if secret in shown]


def test_what_is_shown_holds_everything_else() -> None:
    document = telling().redacted()
    options = document["executors"]["airbyte"]["options"]
    assert document["database"]["url"] == "postgresql+psycopg://me:***@h/d?sslpassword=***"
    assert document["secrets"] == {"my_api_key": {"env": "EXTERNAL_SERVICE_API_KEY"}}
    assert options["password"] == "${AB_PASSWORD}"
    assert options["token_url"] == "v1/applications/token"
    assert (options["timeout"], options["insecure"], options["client_id"]) == ("30s", True, "${AB_ID}")
    assert options["api_key"] == "***"
    assert document["worker"]["lease"] == "30s"


def test_the_document_read_again_gives_the_same_settings() -> None:
    text = yaml.safe_dump(telling().document())
    again = Settings.load(write("again.yaml", text), {}).document()
    assert again == telling().document() | {"tasks": [str(Path.cwd() / "config/tasks")]}


def test_no_error_about_a_url_repeats_it() -> None:
    for url in ("postgresql://u:hunter2", "hunter2", "mysql://u:hunter2@h", "postgresql://u:1/hunter2@h/d"):
        with pytest.raises(ConfigError) as caught:
            Settings(database={"url": url})
        assert "hunter2" not in str(caught.value)
    for wrong in ({"database": "postgresql://u:hunter2@h"}, {"secrets": {"a": "hunter2"}}, {"database": ["hunter2"]}):
        with pytest.raises(ConfigError) as caught:
            Settings(**wrong)
        assert "hunter2" not in str(caught.value)


# --- keys without function -------------------------------------------------------------------------------------------


def test_keys_that_do_nothing_yet_warn_only_where_they_are_set() -> None:
    assert Settings().not_yet() == []
    assert Settings(web={"flyte": False}, auth={"tokens": []}).not_yet() == []


# --- the files of this project ---------------------------------------------------------------------------------------


def test_the_settings_file_of_this_project_has_every_key_with_its_default() -> None:
    written = yaml.safe_load((ROOT / "config/scheduler.yaml").read_text())
    defaults = Settings().document()
    assert {section: set(keys) for section, keys in written.items() if isinstance(keys, dict)} == {
        section: set(keys) | ({"shell"} if section == "executors" else set())
        for section, keys in defaults.items()
        if isinstance(keys, dict)
    }
    assert written.pop("executors").pop("shell") == {"use": "shell"}
    assert Settings(**written).document() == defaults


@pytest.mark.parametrize("name", ["scheduler.yaml", "scheduler.postgres.yaml"])
def test_the_settings_files_of_this_project_warn_of_nothing(name: str) -> None:
    assert Settings.load(ROOT / "config" / name, {}).not_yet() == []
