"""`scheduler tasks`: what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.cli.acting import EVERY, confirm, each, rehearse
from scheduler.cli.guard import Refused
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import (
    AllOption,
    DomainOption,
    DryRunOption,
    LimitOption,
    OutputOption,
    PageOption,
    ProjectOption,
    SinceOption,
    SortOption,
    TaskArgument,
    TaskOption,
    WhereOption,
    YesOption,
)
from scheduler.cli.output import Output, compact, counted, details, dump, emit, note
from scheduler.cli.tables import Column, listing, table
from scheduler.cli.verbs import VerbGroup, new_group

app = new_group(VerbGroup, "Look at tasks, take them away.")


@app.command("list")
@listing
def list_tasks(
    ctx: typer.Context,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    since: SinceOption = None,
    where: WhereOption = None,
    sort: SortOption = None,
    limit: LimitOption = 50,
    page: PageOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the latest version of every task.

    --since is when it was deployed.
    """
    from scheduler.cli import documents
    from scheduler.cli.keys import filters, shown
    from scheduler.cli.paging import filters_of, tell_of_the_next
    from scheduler.cli.times import default_zone, local, utc

    scheduler = Invocation.of(ctx).app
    defaults = scheduler.settings.defaults
    wanted = filters(defaults, project=project, domain=domain, task=task)
    equal = {"project": wanted["project"], "domain": wanted["domain"], "name": wanted["task"]}
    with scheduler.client() as client:
        chosen = filters_of(
            where, client.now(), default_zone(scheduler.settings.defaults), equal, ("deployed_at", since)
        )
        found = client.find_tasks(chosen, sort=sort, limit=limit, token=page)
    rows = found.rows
    if output is not Output.TABLE:
        emit(dump([documents.task(row) for row in rows], output))
    elif not rows:
        note("no task matches")
    else:
        table(
            (
                Column("TASK"),
                Column("VERSION"),
                Column("ENVIRONMENT", rank=3, if_any=True),
                Column("TRIGGERS", right=True),
                Column("ACTIVE", right=True),
                Column("DEPLOYED (UTC)", rank=1),
                Column("BY", rank=2),
                Column("DESCRIPTION", if_any=True, text=True, rank=4),
            ),
            (
                (
                    shown(row, defaults, "name"),
                    row["version"],
                    row["environment"] or None,
                    row["total_triggers"],
                    row["active_triggers"],
                    local(row["deployed_at"], utc()),
                    row["deployed_by"],
                    row["description"] or None,
                )
                for row in rows
            ),
        )
    tell_of_the_next(found, "tasks")


@app.command("show")
def show_task(
    ctx: typer.Context,
    task: TaskArgument,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the latest version of one task."""
    from scheduler.cli import documents
    from scheduler.cli.keys import task_key
    from scheduler.cli.times import local, utc

    scheduler = Invocation.of(ctx).app
    key = task_key(task, scheduler.settings.defaults)
    with scheduler.client() as client:
        row = client.show_task(*key)
    if output is not Output.TABLE:
        emit(dump(documents.task(row), output))
        return
    spec = dict(row["spec"])
    details(
        (
            ("task", "/".join(key)),
            ("version", row["version"]),
            ("description", row["description"] or None),
            ("environment", row["environment"] or None),
            ("function", row["function_name"]),
            ("triggers", f"{row['total_triggers']}, {row['active_triggers']} of them active"),
            ("deployed", f"{local(row['deployed_at'], utc())} by {row['deployed_by']}"),
            ("digest", row["digest"]),
            ("executor", spec.pop("executor", None)),
            *((name, value if isinstance(value, str) else compact(value)) for name, value in spec.items()),
        )
    )


@app.command("versions")
@listing
def versions(
    ctx: typer.Context,
    task: TaskArgument,
    since: SinceOption = None,
    where: WhereOption = None,
    sort: SortOption = None,
    limit: LimitOption = 50,
    page: PageOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the versions of a task, newest first.

    Of a deleted one, too.
    """
    from scheduler.cli import documents
    from scheduler.cli.keys import task_key
    from scheduler.cli.paging import filters_of, tell_of_the_next
    from scheduler.cli.times import default_zone, local, utc

    scheduler = Invocation.of(ctx).app
    key = task_key(task, scheduler.settings.defaults)
    equal = dict(zip(("project", "domain", "name"), key, strict=True))
    with scheduler.client() as client:
        client.list_versions(*key, limit=1)  # says so if there is no such task
        chosen = filters_of(
            where, client.now(), default_zone(scheduler.settings.defaults), equal, ("deployed_at", since)
        )
        found = client.find_versions(chosen, sort=sort, limit=limit, token=page)
    rows = found.rows
    if output is not Output.TABLE:
        emit(dump([documents.version(row) for row in rows], output))
        tell_of_the_next(found, "versions")
        return
    if not rows:
        note("no version matches")
        return
    table(
        (
            Column("VERSION"),
            Column("DIGEST", rank=2),
            Column("DEPLOYED (UTC)"),
            Column("BY", rank=1),
            Column("DESCRIPTION", if_any=True, text=True, rank=3),
        ),
        (
            (
                row["version"],
                row["digest"][:12],
                local(row["deployed_at"], utc()),
                row["deployed_by"],
                row["description"] or None,
            )
            for row in rows
        ),
    )
    tell_of_the_next(found, "versions")


@app.command("delete")
def delete(
    ctx: typer.Context,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK", help="Their names or project/domain/name.", show_default=False),
    ] = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    every: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    version: Annotated[
        str | None, typer.Option("--version", metavar="VERSION", help="Only this version of the one task.")
    ] = None,
) -> None:
    """Delete tasks and their triggers, or one version.

    Versions, revisions and runs of a deleted task stay, and a deploy brings it back.
    """
    from scheduler.cli.keys import task_key

    scheduler = Invocation.of(ctx).app
    defaults = scheduler.settings.defaults
    filtered = every or project is not None or domain is not None
    if bool(tasks) == filtered:
        raise Refused("name tasks, or choose them with --project, --domain or --all: one of both")
    keys = list(dict.fromkeys(task_key(task, defaults) for task in tasks or ()))
    with scheduler.client() as client:
        if version is not None:
            if len(keys) != 1:
                raise Refused("--version is of one task: name it")
            if dry_run:
                rehearse([f"version {version} of {'/'.join(keys[0])}"], "delete")
            client.delete_version(*keys[0], version)
            emit(f"deleted version {version} of {'/'.join(keys[0])}")
            return
        if not tasks:
            rows = client.list_tasks(project=project, domain=domain, limit=EVERY)
            keys = [(row["project"], row["domain"], row["name"]) for row in rows]
            confirm(["/".join(key) for key in keys], "task", "delete", yes=yes, dry_run=dry_run)
        if dry_run:
            for key in keys:
                client.show_task(*key)
            rehearse(["/".join(key) for key in keys], "delete")

        def one(key: tuple[str, str, str]) -> str:
            return f"deleted {'/'.join(key)} and {counted(len(client.delete_task(*key)), 'trigger')}"

        each(keys, one)
