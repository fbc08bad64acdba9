"""Every snippet and every command of the pages is run: what a reader copies works.

```python   one script a page, its blocks in order; a page of tests is run by pytest; what waits for Ctrl-C gets one
```yaml     read by the real loaders: settings, a manifest, or a part of one, told apart by their keys
```sh       each `scheduler …` is called in a folder with the sample tasks deployed; `make …` must be a target
```console  the same for lines after `$`, and the lines below must be what is printed
```sql      executed on SQLite and PostgreSQL; triggers that it inserts must get a plan
```text     not looked at

Markers are explained in `tests.pages`; a block that none of these can run fails.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import get_args

import psycopg
import pytest
import yaml
from sqlalchemy import make_url
from sqlalchemy.exc import ProgrammingError

from scheduler.app import App
from scheduler.domain.automation import Cron
from scheduler.domain.trigger import CatchUp, CatchUpPolicy
from scheduler.errors import ConfigError
from scheduler.manifests import _FILE, _TASK
from scheduler.reading.manifest_triggers import TRIGGER
from scheduler.settings import Settings
from scheduler.store.transaction import Store
from scheduler.store.upgrade import upgrade_schema
from tests.conftest import ManualClock
from tests.integration.warm import WarmCommands
from tests.integration.worlds import EVERY_MINUTE, World, definition, instant, key, trigger
from tests.pages import PAGES, ROOT, Block, blocks, blocks_in

LANGUAGES = {"python", "yaml", "sh", "console", "sql", "text"}
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SCHEDULER_")}


def pages_with(*languages: str) -> list[str]:
    return [page for page in PAGES if blocks_in(page, *languages)]


def test_every_block_is_in_a_language_that_is_run() -> None:
    assert not [block for page in PAGES for block in blocks(page) if block.language not in LANGUAGES]


def test_every_marker_is_understood() -> None:
    known = re.compile(r"exit [1-5]|refused|not run,? .{5,}|postgres, .+")
    assert not [
        block.place for page in PAGES for block in blocks(page) if not known.fullmatch(block.marker or "refused")
    ]


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample settings and tasks, deployed, and the outage of the page on catch-up."""
    folder = tmp_path_factory.mktemp("docs") / "sampled"
    shutil.copytree(ROOT / "config", folder / "config")
    app = App(Settings.load(folder / "config/scheduler.yaml", env={}))
    with app.deploying_client() as client:
        list(client.deploy(app.load_manifests().definitions))
    clock = ManualClock("2026-11-20T23:59:30Z")
    store = Store.open(app.settings.database.url, clock=clock)
    an_outage_of_500_slots(World(store, clock))
    store.close()
    return folder


def an_outage_of_500_slots(world: World) -> None:
    """No worker from 00:00 to 08:21 for a trigger of every minute."""
    world.register()
    world.deploy(trigger("minutely", EVERY_MINUTE, catchup=CatchUp(max_runs=10)), task="reports")
    for moment in ("00:00:20", "08:21:20"):
        world.step(moment)
        world.succeed(*world.take())


@pytest.fixture
def folder(_sampled: Path, tmp_path: Path) -> Path:
    """The sampled folder, a copy of this test's own."""
    return shutil.copytree(_sampled, tmp_path / "folder")


def place(block: Block, folder: Path) -> None:
    """Writes the file that a block is the content of."""
    if block.file is not None:
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmCommands]:
    """A caller of commands that has the libraries in memory."""
    with WarmCommands(ENVIRONMENT) as commands:
        yield commands


@pytest.mark.parametrize("page", pages_with("sh", "console"))
def test_commands(page: str, folder: Path, warm: WarmCommands) -> None:
    if any(block.file == "config/scheduler.yaml" for block in blocks(page)):
        # The page begins with settings of its own: nothing is there before.
        shutil.rmtree(folder)
        folder.mkdir()
    for block in blocks(page):
        if block.language in ("yaml", "python"):
            place(block, folder)
        elif block.language in ("sh", "console") and not block.marker.startswith("not run"):
            run_commands(block, folder, warm)


def run_commands(block: Block, folder: Path, warm: WarmCommands) -> None:
    printed = ""
    called = 0
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        at = f"{block.page}:{number}"
        command = line.removeprefix("$ ") if block.language == "sh" or line.startswith("$ ") else None
        if command is None:
            assert line == "…" or line in printed, f"{at}: not printed: {line!r}, but\n{printed}"
        elif words := shlex.split(command, comments=True):
            called += 1
            printed = run_command(at, words, folder, warm, int(block.marker.removeprefix("exit ") or 0))
    assert called, f"{block.place}: no command in this block"


def run_command(at: str, words: list[str], folder: Path, warm: WarmCommands, code: int) -> str:
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"{at}: {words[1]} is no target of the Makefile"
        return ""
    assert words[0].removeprefix(".venv/bin/") == "scheduler", f"{at}: a test cannot run {words[0]}: mark the block"
    if "serve" in words:
        return run_until([sys.executable, "-m", "scheduler", *words[1:]], folder, "fires next", code, at)
    found, printed = warm.call(words[1:], folder)
    assert found == code, f"{at}: exit code {found}\n{printed}"
    return printed


def run_until(command: list[str], folder: Path, sign: str, code: int, at: str) -> str:
    """Runs what ends by Ctrl-C only: it gets one as soon as it has said `sign`."""
    with (folder / "output.log").open("w+b") as log:
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 30
            while sign not in said(folder) and process.poll() is None:
                assert time.monotonic() < end, f"{at}: {sign!r} was never said\n{said(folder)}"
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == code, f"{at}: exit code {process.returncode}\n{said(folder)}"
        finally:
            process.kill()
    assert sign in said(folder), f"{at}: ended without {sign!r}\n{said(folder)}"
    return said(folder)


def said(folder: Path) -> str:
    return (folder / "output.log").read_text(errors="replace")


# --- Python ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages_with("python"))
def test_python(page: str, folder: Path) -> None:
    script = ""
    for block in blocks_in(page, "python"):
        place(block, folder)
        if block.marker.startswith("not run"):
            continue
        # Lines keep their numbers, so that a traceback names those of the page.
        script += "\n" * (block.line - 1 - script.count("\n")) + block.text
    file = folder / f"test_{Path(page).stem.replace('-', '_')}.py"
    # Nobody waits a minute for a minute: an expression of six fields begins with seconds.
    file.write_text(script.replace('Cron("* * * * *")', 'Cron("* * * * * *")'), encoding="utf-8")
    if "def test_" in script:
        done = run_pytest(file)
    elif ".wait()" in script:
        run_until([sys.executable, str(file)], folder, "finished", 0, page)
        return
    else:
        done = subprocess.run(
            [sys.executable, str(file)],
            cwd=folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, f"{page}:\n{done.stdout}{done.stderr}"


def run_pytest(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)]
    return subprocess.run(
        command, cwd=file.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


# --- YAML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_yaml(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks_in(page, "yaml"):
        for variable in re.findall(r"\$\{(\w+)\}", block.text):
            monkeypatch.setenv(variable, "http://127.0.0.1:9/")
        if block.marker == "refused":
            with pytest.raises(ConfigError):
                read(block, folder)
        else:
            read(block, folder)


def read(block: Block, folder: Path) -> None:
    document = yaml.safe_load(block.text)
    assert isinstance(document, dict), block.place
    keys = set(document)
    if keys <= set(Settings.model_fields) and not isinstance(document.get("tasks", [""])[0], dict):
        read_settings(block, folder)
        return
    if keys <= _FILE:
        text = block.text
    elif keys <= _TASK:
        text = yaml.safe_dump(
            {"tasks": [{"name": "fragment", "version": "v1", "executor": "logging", **document}]}, sort_keys=False
        )
    else:
        assert keys <= TRIGGER, f"{block.place}: neither settings nor a manifest nor a part of one: {sorted(keys)}"
        text = yaml.safe_dump(
            {"tasks": [{"name": "f", "version": "v1", "executor": "logging", "triggers": [{"name": "f", **document}]}]}
        )
    file = folder / "manifest.yaml"
    file.write_text(text, encoding="utf-8")
    loaded = app_of(block.page, folder).load_manifests([file])
    assert loaded.definitions, block.place


def app_of(page: str, folder: Path) -> App:
    """The sampled settings with the executors that the page declares."""
    app = App.load(folder / "config/scheduler.yaml")
    documents = [yaml.safe_load(block.text) for block in blocks_in(page, "yaml") if block.marker != "refused"]
    more = [found["executors"] for found in documents if isinstance(found, dict) and "executors" in found]
    declared = Settings.model_validate({"executors": {name: each for found in more for name, each in found.items()}})
    return App(app.settings.model_copy(update={"executors": {**app.settings.executors, **declared.executors}}))


def read_settings(block: Block, folder: Path) -> None:
    file = folder / "settings.yaml"
    file.write_text(block.text, encoding="utf-8")
    settings = Settings.load(file, env={})
    # Packages that only the page knows cannot be imported; all others are made, options checked.
    known = {
        name: declared
        for name, declared in settings.executors.items()
        if ":" not in declared.use and "modules" not in declared.options
    }
    App(settings.model_copy(update={"executors": known})).build_executors()


# --- SQL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages_with("sql"))
def test_sql(page: str, world: World) -> None:
    app = App.load(ROOT / "config/scheduler.yaml")
    list(world.client.deploy(app.load_manifests([ROOT / "config/tasks"]).definitions))
    before = triggers(world)
    for block in blocks_in(page, "sql"):
        if block.marker.startswith("postgres, "):
            continue  # The next test is about these.
        for statement in statements(block):
            world.sql(statement)
        world.sync()
        inserted = triggers(world).keys() - before.keys()
        assert bool(inserted) == ("INSERT INTO triggers" in block.text), block.place
        for name in inserted:
            found = triggers(world)[name]
            assert (found["state"], found["error"]) == ("scheduled", None), block.place
        assert not [found for found in triggers(world).values() if found["state"] == "unplanned"]
        before = triggers(world)


def triggers(world: World) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in world.client.list_triggers(limit=1_000)}


def statements(block: Block) -> Iterator[str]:
    for statement in block.text.split(";"):
        if statement.strip():
            yield statement


@pytest.mark.postgres
def test_postgresql_set_up_as_the_page_says_lets_a_worker_work_and_no_more(
    postgres_server: Callable[[str], str], clock: ManualClock
) -> None:
    set_up = [block for block in blocks_in("docs/operations.md", "sql") if block.marker.startswith("postgres, ")]
    assert [block.marker for block in set_up] == ["postgres, autocommit", "postgres, as scheduler_owner in scheduler"]

    def url(role: str) -> str:
        return make_url(postgres_server("scheduler")).set(username=role).render_as_string(hide_password=False)

    with psycopg.connect(postgres_server("postgres"), autocommit=True) as admin:
        try:
            for statement in statements(set_up[0]):
                admin.execute(statement)
            with psycopg.connect(url("scheduler_owner"), autocommit=True) as owner:
                for statement in statements(set_up[1]):
                    owner.execute(statement)
            as_owner = Store.open(url("scheduler_owner"))
            upgrade_schema(as_owner)
            as_owner.close()
            as_worker = Store.open(url("scheduler_worker"), clock=clock)
            try:
                work_a_little(World(as_worker, clock), url("scheduler_worker"))
            finally:
                as_worker.close()
        finally:
            admin.execute("DROP DATABASE IF EXISTS scheduler WITH (FORCE)")
            admin.execute("DROP ROLE IF EXISTS scheduler_worker")
            admin.execute("DROP ROLE IF EXISTS scheduler_owner")


def work_a_little(world: World, url: str) -> None:
    app = App(Settings(database={"url": url, "auto_upgrade": False}), clock=world.clock)
    with app.deploying_client() as client:
        list(client.deploy([definition(trigger())]))
    world.register()
    world.at("12:00:30")
    world.client.fire(key())
    assert world.step("12:02:10") == ["12:01", "12:02"]
    world.succeed(*world.take())
    world.client.deactivate(key())
    world.client.activate(key())
    world.lose_worker("w1")
    assert set(world.phases().values()) == {"SUCCEEDED"}
    world.clock.advance(days=2)
    assert world.store.run(lambda tx: tx.workers.forget_dead(tx.now())) == 1
    with pytest.raises(ProgrammingError, match="permission denied"):
        world.sql("CREATE TABLE more (id int)")
    with pytest.raises(ProgrammingError, match="must be owner"):
        world.sql("DROP TABLE runs CASCADE")


# --- the picture -----------------------------------------------------------------------------------------------------


def test_the_picture_of_catch_up_shows_what_happens(world: World) -> None:
    policies = get_args(CatchUpPolicy)
    world.at("00:30").deploy(
        *(trigger(name, Cron("0 * * * *"), catchup=CatchUp(name, timedelta(hours=7), 3)) for name in policies)
    )
    for moment in ("01:00", "02:00", "12:20", "13:00"):
        world.step(moment)
    picture = (ROOT / "docs/images/catch-up.svg").read_text(encoding="utf-8")
    drawn = dict(re.findall(r"<!-- policy: (\w+) -->(.*?)(?=<!--)", picture, re.DOTALL))
    for name in policies:
        happened = [entry for entry in world.ledger(name) if "×" not in entry]
        assert sorted(hours(drawn[name], r'cx="([\d.]+)"', 0)) == happened, name
        skipped = [entry.split()[0] for entry in world.ledger(name) if "×" in entry]
        assert f"{skipped[0]}. The others:" in picture
        assert f"{name} {skipped[-1]}" in picture
        crosses = hours(drawn[name], r"M([\d.]+) \d+l12", 6)
        assert not set(crosses) & set(happened)
        assert len(crosses) + len(happened) == 13
    covers = [world.run(run["name"])["covers"] for run in world.runs(trigger="gap")]
    assert [pair for pair in covers if pair] == [[instant("06:00"), instant("12:00")]]


def hours(drawing: str, pattern: str, offset: int) -> list[str]:
    """The hours at which the picture has something: 56.5 a step, 01:00 at 176."""
    return [f"{round((float(x) + offset - 176) / 56.5) + 1:02d}:00" for x in re.findall(pattern, drawing)]
