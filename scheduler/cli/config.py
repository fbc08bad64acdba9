"""`scheduler config`: whether settings and manifests can be used, and what the settings are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.invocation import Invocation
from scheduler.cli.output import Output, counted, dump, emit, note
from scheduler.cli.verbs import VerbGroup, new_group

app = new_group(VerbGroup, "Check the settings and manifests, show the settings.")


@app.command("check")
def check(
    ctx: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...", help="Manifests, files or folders; else those of the settings.", show_default=False
        ),
    ] = None,
) -> None:
    """Check the settings, the executors and the manifests, and print every fault.

    Executors are made as `serve` makes them, with the options' environment variables filled in.
    """
    scheduler = Invocation.of(ctx).app
    manifests = scheduler.check(paths or None)
    for warning in scheduler.warnings(manifests):
        note(f"warning: {warning}")
    triggers = sum(len(definition.triggers) for definition in manifests.definitions)
    emit(
        f"{scheduler.settings.source}: nothing wrong in {counted(len(scheduler.settings.executors), 'executor')}, "
        f"{counted(len(manifests.definitions), 'task')} and {counted(triggers, 'trigger')}"
    )


@app.command("show")
def show(
    ctx: typer.Context,
    output: Annotated[Output, typer.Option("--output", "-o", help="yaml or json.")] = Output.YAML,
) -> None:
    """Show every setting that is in force, defaults included, secrets masked."""
    settings = Invocation.of(ctx).app.settings
    note(f"# {settings.source}")
    emit(dump(settings.redacted(), Output.JSON if output is Output.JSON else Output.YAML))
