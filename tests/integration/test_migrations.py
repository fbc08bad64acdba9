"""Bringing a database up to this code's schema, and refusing what does not fit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from scheduler.errors import SchemaMismatch, StatementRefused, StoreUnavailable
from scheduler.store import migrations
from scheduler.store.schema import metadata
from scheduler.store.transaction import Store
from scheduler.store.upgrade import require_schema, schema_state, table_names, upgrade_schema
from tests.conftest import ManualClock
from tests.integration.worlds import World, key, trigger


def compared(_item: object, name: str | None, kind: str, _reflected: bool, _to: object) -> bool:
    """Indexes of one database alone are held by their names: what they are made of is not read back as it was written."""
    alone = {index.name for table in metadata.tables.values() for index in table.indexes if "only" in index.info}
    return kind != "index" or name not in alone


@pytest.mark.filterwarnings("ignore:Computed default", "ignore:autogenerate skipping")
def test_the_migrations_build_what_the_code_describes(database_url: str) -> None:
    store = Store.open(database_url)
    with store.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": store.dialect.name == "postgresql"}
        context = MigrationContext.configure(connection, opts=options | {"include_object": compared})
        differences = compare_metadata(context, metadata)
        kind = store.dialect.name
        described = {
            table.name: {index.name for index in table.indexes if index.info.get("only", kind) == kind}
            for table in metadata.tables.values()
        }
        indexes = {name: {index["name"] for index in inspect(connection).get_indexes(name)} for name in described}
    store.close()
    assert differences == []
    for name, wanted in described.items():
        assert wanted <= indexes[name]


def test_the_files_of_the_migrations_say_their_revisions_and_their_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    revisions = list(ScriptDirectory.from_config(config).walk_revisions())
    names = [Path(revision.path).name for revision in revisions]
    assert [name[1:5] for name in names] == [revision.revision for revision in revisions]
    assert names == sorted(names, reverse=True)
    assert [revision.down_revision for revision in revisions] == [*(r.revision for r in revisions[1:]), None]


def test_the_plan_source_is_computed_as_the_code_says(database_url: str) -> None:
    store = Store.open(database_url)
    with store.engine.connect() as connection:
        columns = {column["name"]: column for column in inspect(connection).get_columns("triggers")}
    store.close()
    found = "".join(columns["plan_source"]["computed"]["sqltext"].split()).lower()
    computed = metadata.tables["triggers"].c.plan_source.computed
    assert computed is not None
    for column in ("automation", "start_at", "end_at", "calendars", "jitter", "active", "snoozed_until", "deleted_at"):
        assert column in found
        assert column in str(computed.sqltext)
    assert "version" in found
    assert "max_fires" in found


def test_an_upgrade_brings_an_empty_database_up_and_a_second_one_changes_nothing(empty_database_url: str) -> None:
    store = Store.open(empty_database_url)
    assert schema_state(store).found is None
    assert upgrade_schema(store).found is None
    assert schema_state(store).current
    require_schema(store)
    assert upgrade_schema(store).current
    store.close()


def test_two_upgrades_at_once_wait_for_each_other(empty_database_url: str) -> None:
    begin = threading.Barrier(3)
    errors: list[BaseException] = []

    def upgrade() -> None:
        store = Store.open(empty_database_url)
        try:
            begin.wait()
            upgrade_schema(store)
            require_schema(store)
        except BaseException as error:
            errors.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_many_who_open_a_new_file_at_once_all_come_in(tmp_path: Path) -> None:
    # SQLite does not wait for the switch of a new file to its write-ahead log: whoever comes second is refused at once.
    def opened(url: str, begin: threading.Barrier) -> None:
        store = Store.open(url)
        begin.wait()
        with store.engine.connect() as connection:
            found.append(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())
        store.close()

    found: list[str] = []
    with ThreadPoolExecutor(8) as threads:
        for number in range(25):
            url, begin = f"sqlite:///{tmp_path}/{number}.db", threading.Barrier(8)
            for opening in [threads.submit(opened, url, begin) for _ in range(8)]:
                opening.result()
    assert found == ["wal"] * 200


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    store = Store.open(empty_database_url)
    with store.engine.begin() as connection:
        # In the way of the last table that the first migration makes.
        connection.exec_driver_sql("CREATE TABLE skips (stray INTEGER)")
    with pytest.raises(StatementRefused):
        upgrade_schema(store)
    assert table_names(store) == ["skips"]
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE skips")
    upgrade_schema(store)
    require_schema(store)
    store.close()


def downgraded(url: str, revision: str) -> None:
    """Takes the schema back, as nobody but a test does."""
    store = Store.open(url)
    with store.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    store.close()


def test_a_worker_of_the_release_before_goes_on_while_the_schema_is_upgraded(
    database_url: str, clock: ManualClock
) -> None:
    downgraded(database_url, "0006")
    # The statements of a worker that takes and ends runs are those of the release before.
    store = Store.open(database_url, clock=clock)
    worker = World(store, clock)
    worker.register()
    worker.deploy(trigger())
    for minute in range(1, 10):  # So often that the driver has them prepared at the server.
        worker.at(f"12:{minute:02}").fire_all()
        worker.succeed(*worker.take())
    upgrading = Store.open(database_url)
    assert upgrade_schema(upgrading).found == "0006"
    upgrading.close()
    with suppress(StoreUnavailable):  # It was away for a moment: a worker connects anew and asks again.
        worker.step("12:10")
    worker.step("12:10")
    worker.succeed(*worker.take())
    assert set(worker.phases().values()) == {"SUCCEEDED"}
    assert len(worker.phases()) == 10
    store.close()


def test_a_schema_is_taken_back_with_numbers_that_the_release_before_could_not_store(
    database_url: str, clock: ManualClock
) -> None:
    store = Store.open(database_url, clock=clock)
    world = World(store, clock)
    world.register()
    world.deploy(trigger())
    world.step("12:01")
    world.sql("UPDATE runs SET attempt = 40000, lost = 40000")
    downgraded(database_url, "0006")
    store.engine.dispose()
    assert "lost_attempts" not in table_names(store)
    upgrade_schema(store)
    (row,) = world.rows("SELECT attempt, lost FROM v_runs")
    assert row == ((32_767, 32_767) if store.dialect.name == "postgresql" else (40_000, 40_000))
    store.close()


def test_a_database_without_schema_is_refused_with_the_command_that_mends_it(empty_database_url: str) -> None:
    store = Store.open(empty_database_url)
    with pytest.raises(SchemaMismatch, match="has no schema yet: run `scheduler db upgrade`"):
        require_schema(store)
    store.close()


def test_only_the_embedded_database_upgrades_itself(database_url: str) -> None:
    store = Store.open(database_url)
    assert store.dialect.auto_upgrade is (store.dialect.name == "sqlite")
    store.close()


def test_a_newer_schema_is_refused_and_left_as_it_is(database_url: str) -> None:
    store = Store.open(database_url)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for refused in (require_schema, upgrade_schema):
        with pytest.raises(SchemaMismatch, match="is 9999, newer than this version knows"):
            refused(store)
    assert schema_state(store).found == "9999"
    store.close()


def test_asking_for_the_schema_of_a_file_that_is_not_there_does_not_make_it(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'none.db'}")
    assert schema_state(store).found is None
    assert list(tmp_path.iterdir()) == []


def test_people_read_instants_in_the_views(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.at("12:05:30").client.deactivate(key())
    (run,) = world.rows("SELECT task, trigger_name, phase, scheduled_at FROM v_runs")
    assert run[:3] == ("report", "nightly", "ABORTED")
    assert str(run[3]).startswith(("2026-11-21 12:01:00", "2026-11-21T12:01:00"))
    (skip,) = world.rows("SELECT reason, count, from_slot, to_slot FROM v_skips")
    assert skip[:2] == ("paused", 4)
    assert [str(moment)[11:16] for moment in skip[2:]] == ["12:02", "12:05"]
    (item,) = world.rows("SELECT trigger_name, last_slot FROM v_triggers")
    assert str(item[1])[11:16] == "12:05"
