"""Options that several verbs share, so that they read alike everywhere."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from scheduler.cli.output import Output

OutputOption: TypeAlias = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
LimitOption: TypeAlias = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="At most so many rows.")]
ProjectOption: TypeAlias = Annotated[str | None, typer.Option("--project", help="Of this project only.")]
DomainOption: TypeAlias = Annotated[str | None, typer.Option("--domain", help="Of this domain only.")]
TaskOption: TypeAlias = Annotated[
    str | None, typer.Option("--task", metavar="TASK", help="Of this task only: its name or project/domain/name.")
]
TriggerOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--trigger", metavar="TRIGGER", help="Of this trigger only: task/name or project/domain/task/name."),
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="Not older: a duration such as 1h or a time such as 2026-11-21T02:00:00Z."
    ),
]
TriggerArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="TRIGGER", help="task/name or project/domain/task/name.", show_default=False)
]
TriggersArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="TRIGGER...", help="task/name or project/domain/task/name.", show_default=False),
]
