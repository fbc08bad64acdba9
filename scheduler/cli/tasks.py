"""`scheduler tasks`: what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.cli.invocation import Invocation
from scheduler.cli.options import DomainOption, LimitOption, OutputOption, ProjectOption, TaskOption
from scheduler.cli.output import Output, compact, cut, details, dump, emit, note, table
from scheduler.cli.verbs import VerbGroup, new_group


class Tasks(VerbGroup):
    """Verbs on tasks."""

    later = frozenset({"versions"})


app = new_group(Tasks, "Look at tasks.")


@app.command("list")
def list_tasks(
    ctx: typer.Context,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the latest version of every task, by name."""
    from scheduler.cli import documents
    from scheduler.cli.keys import filters, shown
    from scheduler.cli.times import local, utc

    scheduler = Invocation.of(ctx).app
    defaults = scheduler.settings.defaults
    wanted = filters(defaults, project=project, domain=domain, task=task)
    with scheduler.client() as client:
        rows = client.list_tasks(
            project=wanted["project"], domain=wanted["domain"], name=wanted["task"], limit=limit + 1
        )
    rows = cut(rows, limit, "tasks")
    if output is not Output.TABLE:
        emit(dump([documents.task(row) for row in rows], output))
    elif not rows:
        note("no task matches")
    else:
        table(
            ("TASK", "VERSION", "ENVIRONMENT", "TRIGGERS", "ACTIVE", "DEPLOYED", "BY", "DESCRIPTION"),
            (
                (
                    shown(row, defaults, "name"),
                    row["version"],
                    row["environment"],
                    row["total_triggers"],
                    row["active_triggers"],
                    local(row["deployed_at"], utc()),
                    row["deployed_by"],
                    row["description"],
                )
                for row in rows
            ),
            right=("TRIGGERS", "ACTIVE"),
        )


@app.command("show")
def show_task(
    ctx: typer.Context,
    task: Annotated[str, typer.Argument(metavar="TASK", help="Its name or project/domain/name.", show_default=False)],
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
