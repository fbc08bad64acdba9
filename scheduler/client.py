"""Talking to a scheduler's database: deploying, looking, and acting on triggers and runs.

    with Client.open("sqlite:///scheduler.db") as client:
        client.deploy(definitions)
        for trigger in client.list_triggers(active=True): …

What is listed comes as plain documents whose instants are epoch microseconds (`scheduler.domain.instants` formats them).
Every call is one transaction; what another process wrote before it is seen. Calls raise `StoreUnavailable` while the
database is away.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from scheduler.clock import Clock
from scheduler.domain.backfill import BackfillOrder, Reprocess
from scheduler.domain.identity import MAX_NAME
from scheduler.domain.instants import Micros
from scheduler.domain.task import TaskDefinition
from scheduler.domain.values import check_text
from scheduler.errors import NotFound
from scheduler.services import backfill, listing, many, naming, operate, query, remove, specs
from scheduler.services.cancel import Cancelled, cancel_run, cancel_runs
from scheduler.services.deploy import DeployResult, Source, deploy_task
from scheduler.services.deploy_plan import DeployPlan, TriggerPlan, deploy_planned, plan_deploy, plan_of_new
from scheduler.services.export import Exported, export_tasks
from scheduler.services.forecast import Forecast, forecast
from scheduler.services.listing import Filter, Page, Query
from scheduler.services.operate import TriggerKey
from scheduler.services.plan import Planning
from scheduler.services.projects import admit
from scheduler.services.reopen import retry_run
from scheduler.services.restored import abort_restored, begin_epoch, skip_restored
from scheduler.services.specs import StoredSpec
from scheduler.services.sync import refresh_summaries
from scheduler.store.transaction import Store, Transaction

__all__ = [
    "Cancelled",
    "Client",
    "DeployPlan",
    "DeployResult",
    "Exported",
    "Filter",
    "Forecast",
    "Page",
    "TriggerKey",
    "TriggerPlan",
    "operating_system_user",
    "plan_of_new",
]


P = ParamSpec("P")
T = TypeVar("T")
_BATCH = 500


def operating_system_user() -> str:
    """Who runs this process, for `deployed_by` and `updated_by`."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "unknown"


class Client:
    """One database, seen by one caller, named in what it changes."""

    def __init__(
        self,
        store: Store,
        *,
        planning: Planning | None = None,
        by: str | None = None,
        projects: Mapping[str, Collection[str]] | None = None,
        create_projects: bool = False,
    ) -> None:
        """`by` is named in what this client changes, the process's user if None; at most 255 characters.

        A deploy may name the projects and domains that the database has recorded, and those given here; with
        `create_projects` it may name any.
        """
        self._store = store
        self._planning = planning or Planning()
        self._by = by if by is not None else operating_system_user()
        check_text(self._by, "by", MAX_NAME)
        self._projects = dict(projects or {})
        self._create_projects = create_projects

    @classmethod
    def open(
        cls, url: str, *, clock: Clock | None = None, by: str | None = None, create_projects: bool = False
    ) -> Client:
        """A client for the URL; nothing is connected to yet."""
        return cls(Store.open(url, clock=clock, pool_size=1), by=by, create_projects=create_projects)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._store.close()

    def _run(self, service: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._store.run(service, *args, **kwargs)
        except NotFound as error:
            with self._store.read() as tx:
                raise self._with_near(tx, error) from None

    @contextmanager
    def _read(self) -> Iterator[Transaction]:
        with self._store.read() as tx:
            try:
                yield tx
            except NotFound as error:
                raise self._with_near(tx, error) from None

    def _with_near(self, tx: Transaction, error: NotFound) -> NotFound:
        return NotFound(error.kind, error.key, naming.similar(tx, error.kind, error.key))

    # --- deploying ---------------------------------------------------------------------------------------------------

    def deploy(
        self,
        definitions: Iterable[TaskDefinition],
        *,
        source: Source = "manifest",
        at_start: bool = False,
        dry_run: bool = False,
    ) -> Iterator[DeployResult]:
        """Deploys task by task, each in a transaction of its own, telling what each did as soon as it is done.

        With `at_start`, content that was ever deployed before is left alone. Raises `SpecError`, having changed nothing of
        that task, for a project or domain that is not known.
        """
        for definition in definitions:
            yield self._run(self._deploy, definition, source=source, at_start=at_start, dry_run=dry_run)

    def deploy_task(
        self,
        definition: TaskDefinition,
        *,
        source: Source = "api",
        active_as_sent: bool = False,
        expected_revisions: Mapping[str, int] | None = None,
    ) -> DeployResult:
        """Deploys one task, unless somebody else was faster.

        `expected_revisions` are those of its triggers as the caller saw them, by name, 0 for one that was not there.
        Raises `RevisionConflict` if one has another by now. `active_as_sent` overrules what operators paused.
        """
        return self._run(
            self._deploy,
            definition,
            source=source,
            active_as_sent=active_as_sent,
            expected_revisions=expected_revisions,
        )

    def _deploy(
        self, tx: Transaction, /, definition: TaskDefinition, *, dry_run: bool = False, **options: Any
    ) -> DeployResult:
        self._admit(tx, definition, dry_run=dry_run)
        return deploy_task(tx, definition, self._planning, by=self._by, dry_run=dry_run, **options)

    def _admit(self, tx: Transaction, definition: TaskDefinition, *, dry_run: bool = False) -> None:
        admit(
            tx,
            definition,
            declared=self._projects,
            create=self._create_projects,
            dry_run=dry_run,
        )

    def create_task_spec(self, encoded: bytes, *, spec_format: str = "json", digest: str | None = None) -> str:
        """Keeps a specification, byte for byte, without deploying a task; returns its SHA-256 in hexadecimal.

        One that is there already is left alone. One that no version, trigger or run names is removed after a day. Raises
        `SpecError` where `digest` is given and is another.
        """
        return self._run(specs.create_task_spec, encoded, spec_format=spec_format, digest=digest)

    def read_task_spec(self, digest: str) -> StoredSpec:
        """The bytes of a specification as they were handed in; raises `NotFound`."""
        with self._read() as tx:
            return specs.read_task_spec(tx, digest)

    def plan_deploy(self, definitions: Iterable[TaskDefinition]) -> Iterator[DeployPlan]:
        """What deploying these manifests now would do, task by task; nothing is written."""
        for definition in definitions:
            with self._read() as tx:
                self._admit(tx, definition, dry_run=True)
                plan = plan_deploy(tx, definition)
            yield plan

    def deploy_planned(self, definitions: Iterable[TaskDefinition]) -> Iterator[DeployPlan]:
        """Deploys as `deploy` does, and tells of each task in full what its deploy changed, as soon as it is done."""

        def planned(tx: Transaction, /, definition: TaskDefinition) -> DeployPlan:
            self._admit(tx, definition)
            return deploy_planned(tx, definition, self._planning, by=self._by)

        for definition in definitions:
            yield self._run(planned, definition)

    def ensure_projects(self, projects: Mapping[str, Iterable[str]]) -> None:
        """Records the projects and domains that may be deployed into."""
        self._run(lambda tx: tx.tasks.ensure_projects(projects))

    # --- looking -----------------------------------------------------------------------------------------------------

    def now(self) -> Micros:
        """The store's present instant."""
        with self._read() as tx:
            return tx.now()

    def list_tasks(
        self, *, project: str | None = None, domain: str | None = None, name: str | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """The latest version of every task, by key."""
        with self._read() as tx:
            return query.list_tasks(tx, project=project, domain=domain, name=name, limit=limit)

    def show_task(self, project: str, domain: str, name: str) -> dict[str, Any]:
        """One task's latest version with its specification; raises `NotFound`."""
        with self._read() as tx:
            return query.show_task(tx, project, domain, name)

    def find_tasks(
        self,
        filters: Sequence[Filter] = (),
        *,
        sort: str | None = None,
        limit: int = 50,
        token: str | None = None,
        totals: bool = True,
    ) -> Page:
        """A page of the latest versions of tasks, by key unless `sort` names a field, `-` before it turns it round.

        `scheduler.services.listing` tells the fields. Raises `SpecError` for one that is not known, and for a token of
        another question.
        """
        with self._read() as tx:
            return listing.find_tasks(tx, Query(filters, sort, limit, token, totals))

    def find_versions(
        self,
        filters: Sequence[Filter] = (),
        *,
        sort: str | None = None,
        limit: int = 50,
        token: str | None = None,
        totals: bool = True,
    ) -> Page:
        """A page of versions, newest first, of all tasks or of the one that the filters name by project, domain, name."""
        with self._read() as tx:
            return listing.find_versions(tx, Query(filters, sort, limit, token, totals))

    def find_triggers(
        self,
        filters: Sequence[Filter] = (),
        *,
        sort: str | None = None,
        limit: int = 50,
        token: str | None = None,
        totals: bool = True,
    ) -> Page:
        """A page of live triggers, by key, with what they fire next."""
        with self._read() as tx:
            return listing.find_triggers(tx, Query(filters, sort, limit, token, totals))

    def find_revisions(
        self,
        key: TriggerKey,
        filters: Sequence[Filter] = (),
        *,
        sort: str | None = None,
        limit: int = 50,
        token: str | None = None,
        totals: bool = True,
    ) -> Page:
        """A page of a trigger's changes, newest first, a deleted one's too; raises `NotFound`."""
        with self._read() as tx:
            return listing.find_revisions(tx, key, Query(filters, sort, limit, token, totals))

    def find_runs(
        self,
        filters: Sequence[Filter] = (),
        *,
        sort: str | None = None,
        limit: int = 50,
        token: str | None = None,
        totals: bool = False,
    ) -> Page:
        """A page of runs, newest first, with what the open ones wait for. There may be millions: they are not counted."""
        with self._read() as tx:
            return listing.find_runs(tx, Query(filters, sort, limit, token, totals))

    def list_versions(self, project: str, domain: str, name: str, *, limit: int = 50) -> list[dict[str, Any]]:
        """The versions of a task, newest first; raises `NotFound`."""
        with self._read() as tx:
            return listing.list_versions(tx, project, domain, name, limit=limit)

    def list_triggers(
        self,
        *,
        project: str | None = None,
        domain: str | None = None,
        task: str | None = None,
        name: str | None = None,
        active: bool | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Live triggers by key, with what they fire next."""
        with self._read() as tx:
            return query.list_triggers(
                tx, project=project, domain=domain, task=task, name=name, active=active, limit=limit
            )

    def show_trigger(self, key: TriggerKey) -> dict[str, Any]:
        """One live trigger with all it says; raises `NotFound`."""
        with self._read() as tx:
            return query.show_trigger(tx, key)

    def list_revisions(self, key: TriggerKey, *, limit: int = 50) -> list[dict[str, Any]]:
        """The changes of a trigger, newest first, a deleted one's too; raises `NotFound`."""
        with self._read() as tx:
            return listing.list_revisions(tx, key, limit=limit)

    def show_revision(self, key: TriggerKey, revision: int) -> dict[str, Any]:
        """One revision of a trigger with all it said, a deleted one's too; raises `NotFound`."""
        with self._read() as tx:
            return listing.show_revision(tx, key, revision)

    def upcoming(self, limit: int = 5) -> list[dict[str, Any]]:
        """The triggers that fire next, soonest first."""
        with self._read() as tx:
            return query.upcoming(tx, limit)

    def list_runs(
        self,
        *,
        project: str | None = None,
        domain: str | None = None,
        task: str | None = None,
        trigger: str | None = None,
        phase: str | None = None,
        since: Micros | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Runs, newest first; `since` is an instant before which none was created."""
        with self._read() as tx:
            return query.list_runs(
                tx, project=project, domain=domain, task=task, trigger=trigger, phase=phase, since=since, limit=limit
            )

    def show_run(self, name: str) -> dict[str, Any]:
        """One run with its inputs, outputs and attempts; raises `NotFound`."""
        with self._read() as tx:
            return query.show_run(tx, name)

    def run_name(self, text: str) -> str:
        """The name of the one run that is called so or whose name begins so. Raises `NotFound`, `SpecError` for several."""
        with self._read() as tx:
            return naming.run_name(tx, text)

    def latest_run(self, key: TriggerKey | None = None) -> str:
        """The name of the run that was made last, of one trigger or of all; raises `NotFound`."""
        with self._read() as tx:
            return naming.latest_run(tx, key)

    def list_slots(self, key: TriggerKey, limit: int = 50) -> list[dict[str, Any]]:
        """The newest entries of a trigger's ledger, oldest first; raises `NotFound`."""
        with self._read() as tx:
            return query.list_slots(tx, key, limit)

    def list_workers(self) -> list[dict[str, Any]]:
        """The living workers and how many runs each holds."""
        with self._read() as tx:
            return query.list_workers(tx)

    def simulate(
        self,
        after: Micros,
        until: Micros,
        *,
        project: str | None = None,
        domain: str | None = None,
        task: str | None = None,
        name: str | None = None,
        limit: int = 50,
    ) -> Forecast:
        """What would fire in (after, until] if nothing changed; nothing is fired. Raises `SpecError` for too long a period."""
        with self._read() as tx:
            return forecast(tx, after, until, project=project, domain=domain, task=task, name=name, limit=limit)

    def export(
        self, *, project: str | None = None, domain: str | None = None, task: str | None = None
    ) -> list[Exported]:
        """Every deployed task as its last deploy left it, by key: deployed again, these definitions change nothing."""
        with self._read() as tx:
            return export_tasks(tx, project=project, domain=domain, task=task)

    def list_backfills(
        self,
        *,
        project: str | None = None,
        domain: str | None = None,
        task: str | None = None,
        trigger: str | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Backfills, newest first, and how far each has come."""
        with self._read() as tx:
            return backfill.list_backfills(tx, project=project, domain=domain, task=task, trigger=trigger, limit=limit)

    def show_backfill(self, number: int) -> dict[str, Any]:
        """One backfill and how far it has come; raises `NotFound`."""
        with self._read() as tx:
            return backfill.show_backfill(tx, number)

    # --- acting ------------------------------------------------------------------------------------------------------

    def activate(self, key: TriggerKey, *, expected_revision: int | None = None) -> bool:
        """Makes the trigger owe slots again, strictly after now; False where it was active. Raises `NotFound`."""
        return self._run(
            operate.set_active, key, True, self._planning, by=self._by, expected_revision=expected_revision
        )

    def deactivate(self, key: TriggerKey, *, expected_revision: int | None = None) -> bool:
        """Makes the trigger owe nothing; False where it was inactive. Raises `NotFound`."""
        return self._run(
            operate.set_active, key, False, self._planning, by=self._by, expected_revision=expected_revision
        )

    def skip_next(self, key: TriggerKey) -> Micros | None:
        """The trigger's next slot will be skipped, also while it waits out its jitter; returns it, None where none comes."""
        return self._run(operate.skip_next, key)

    def snooze(self, key: TriggerKey, until: Micros) -> None:
        """The trigger owes nothing until an instant, and goes on by itself. Raises `NotFound`, `Conflict`, `SpecError`."""
        self._run(operate.snooze, key, until, self._planning, by=self._by)

    def snooze_many(self, keys: Iterable[TriggerKey], until: Micros) -> list[TriggerKey]:
        """Snoozes triggers, all or none; returns them by key. Raises `NotFound`, `Conflict`, `SpecError`."""
        return self._run(many.snooze_many, list(keys), until, self._planning, by=self._by)

    def cancel_run(self, name: str) -> Cancelled:
        """Ends a queued run now, and one under way as soon as its code has ended. Raises `NotFound`, `Conflict`."""
        return self._run(cancel_run, name, by=self._by)

    def cancel_runs(self, names: Sequence[str]) -> Cancelled:
        """Cancels those of these runs that are open, in one transaction, and says what becomes of them."""
        return self._run(cancel_runs, names, by=self._by)

    def retry_run(self, name: str) -> None:
        """Queues a run that ended without success for one more attempt. Raises `NotFound`, `Conflict`."""
        self._run(retry_run, name)

    def run_output(self, name: str) -> list[dict[str, Any]]:
        """What each recorded attempt of a run printed, first to last. Raises `NotFound`."""
        with self._read() as tx:
            return query.run_output(tx, name)

    def restored(self, *, catch_up: bool) -> int:
        """After a restore from a backup: begins a new epoch and returns its number.

        With `catch_up` what the backup owed is caught up under each trigger's policy and its open runs are executed again;
        otherwise due slots are skipped as `restored` and open runs are aborted.
        """
        epoch = self._run(begin_epoch)
        if not catch_up:
            while self._run(abort_restored, _BATCH) >= _BATCH:
                pass
            claimed = _BATCH
            while claimed:
                claimed, tasks = self._run(skip_restored, self._planning, _BATCH)
                self._run(refresh_summaries, tasks)
        return epoch

    def fire(self, key: TriggerKey, *, inputs: Mapping[str, Any] | None = None, request_key: str | None = None) -> str:
        """Queues a run of the trigger's task now and returns its name; the same `request_key`, the same run."""
        return self._run(operate.fire_by_hand, key, inputs=inputs, request_key=request_key)

    def delete_trigger(self, key: TriggerKey, *, expected_revision: int | None = None) -> None:
        """Deletes the trigger, whoever deployed it; its history stays, and a deploy that names it brings it back.

        Raises `NotFound`, and `RevisionConflict` if somebody changed it first.
        """
        self.delete_triggers([key], expected_revisions=None if expected_revision is None else {key: expected_revision})

    def activate_many(
        self, keys: Iterable[TriggerKey], *, expected_revisions: Mapping[TriggerKey, int] | None = None
    ) -> list[TriggerKey]:
        """Activates triggers, all or none; returns those that were not active, by key. Raises `NotFound`."""
        return self._run(
            many.set_active_many,
            list(keys),
            True,
            self._planning,
            by=self._by,
            expected_revisions=expected_revisions,
        )

    def deactivate_many(
        self, keys: Iterable[TriggerKey], *, expected_revisions: Mapping[TriggerKey, int] | None = None
    ) -> list[TriggerKey]:
        """Deactivates triggers, all or none; returns those that were active, by key. Raises `NotFound`."""
        return self._run(
            many.set_active_many,
            list(keys),
            False,
            self._planning,
            by=self._by,
            expected_revisions=expected_revisions,
        )

    def reset_fires(
        self, keys: Iterable[TriggerKey], *, expected_revisions: Mapping[TriggerKey, int] | None = None
    ) -> list[TriggerKey]:
        """Counts the fires of triggers from 0 again for their `max_fires`, all or none; returns those that had fired, by key.

        One whose `max_fires` was used up goes on, strictly after now. Raises `NotFound`.
        """
        return self._run(
            many.reset_fires, list(keys), self._planning, by=self._by, expected_revisions=expected_revisions
        )

    def delete_triggers(
        self, keys: Iterable[TriggerKey], *, expected_revisions: Mapping[TriggerKey, int] | None = None
    ) -> list[TriggerKey]:
        """Deletes triggers, all or none; returns them by key. Raises `NotFound`."""
        return self._run(
            many.delete_triggers, list(keys), self._planning, by=self._by, expected_revisions=expected_revisions
        )

    def delete_task(self, project: str, domain: str, name: str) -> list[TriggerKey]:
        """Takes a task out of the listings and deletes its triggers, which it returns; a deploy brings the task back.

        Versions, revisions and runs stay. Raises `NotFound`.
        """
        return self._run(remove.delete_task, project, domain, name, self._planning, by=self._by)

    def delete_version(self, project: str, domain: str, name: str, version: str) -> None:
        """Removes one version of a task. Raises `NotFound`, and `Conflict` where it is the latest or a trigger's own."""
        self._run(remove.delete_version, project, domain, name, version)

    # --- backfills ---------------------------------------------------------------------------------------------------

    def backfill(
        self,
        key: TriggerKey,
        start: Micros,
        end: Micros | None = None,
        *,
        reprocess: Reprocess = "none",
        max_active: int = 1,
        reverse: bool = False,
    ) -> dict[str, Any]:
        """Orders runs for the trigger's slots from `start` to `end`, both included, that have none; workers make them.

        Only slots that are decided: `end` None, or one that lies ahead, means as far as there are. With `reprocess`
        "failed" or "all" slots that had a run are done again. At most `max_active` of its runs are open at a time. Returns
        what `show_backfill` shows. Raises `NotFound`, `SpecError`, and `Conflict` for a trigger that is not planned yet.
        """
        order = BackfillOrder(start, end, reprocess, max_active, reverse)
        return self._run(backfill.order_backfill, key, order, by=self._by)

    def preview_backfill(
        self,
        key: TriggerKey,
        start: Micros,
        end: Micros | None = None,
        *,
        reprocess: Reprocess = "none",
        max_active: int = 1,
        reverse: bool = False,
    ) -> dict[str, Any]:
        """What `backfill` would do: how many slots there are, how many keep the run they have, which come first."""
        order = BackfillOrder(start, end, reprocess, max_active, reverse)
        with self._read() as tx:
            return backfill.preview_backfill(tx, key, order)

    def cancel_backfill(self, number: int) -> dict[str, Any]:
        """Ends a backfill: its queued runs are aborted, what runs goes on. Raises `NotFound`, `Conflict` if it is over."""
        return self._run(backfill.cancel_backfill, number, by=self._by)
