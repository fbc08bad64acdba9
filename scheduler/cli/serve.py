"""`scheduler serve`: the worker."""

from __future__ import annotations

import typer

from scheduler.cli.invocation import Invocation
from scheduler.cli.verbs import new_app

app = new_app()


@app.command()
def serve(ctx: typer.Context) -> None:
    """Run a worker until SIGTERM or Ctrl-C, then drain it.

    Deploys the manifests that the settings name under `tasks` first.
    """
    raise typer.Exit(Invocation.of(ctx).app.serve())
