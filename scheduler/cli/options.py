"""Options that several verbs share, so that they read alike everywhere."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from scheduler.cli.output import Output
from scheduler.domain.run import Phase

_RUN_HELP = "A name or the beginning of one, @latest or TRIGGER@latest."

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
    typer.Option("--since", metavar="WHEN", help="Not older: 1h, 2026-11-21 or 2026-11-21T02:00:00Z."),
]
TaskArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="TASK", help="Its name or project/domain/name.", show_default=False)
]
TriggerArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="TRIGGER", help="task/name or project/domain/task/name.", show_default=False)
]
TriggersArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="TRIGGER", help="task/name or project/domain/task/name.", show_default=False),
]
SomeTriggersArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="TRIGGER", help="task/name or project/domain/task/name.", show_default=False),
]
AllOption: TypeAlias = Annotated[bool, typer.Option("--all", help="Every one there is.")]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before doing it to many.")]
DryRunOption: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only say to what it would be done.")]
RevisionOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--expect-revision", metavar="N", min=0, help="Only if nobody changed the one trigger since its revision N."
    ),
]
RunArgument: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help=_RUN_HELP, show_default=False)]
SomeRunsArgument: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help=_RUN_HELP, show_default=False)
]
PhaseOption: TypeAlias = Annotated[
    str | None, typer.Option("--phase", help=f"Only runs in this phase: {', '.join(Phase)}.", show_default=False)
]
WhereOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="FIELD=VALUE (again for another value that will do), FIELD~PART of a text, or FIELD>=WHEN; may be repeated.",
    ),
]
SortOption: TypeAlias = Annotated[
    str | None, typer.Option("--sort", metavar="FIELD", help="By this field; -FIELD turns it round.")
]
PageOption: TypeAlias = Annotated[
    str | None, typer.Option("--page", metavar="TOKEN", help="The page that follows the one that named this token.")
]
