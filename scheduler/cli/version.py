"""`scheduler version`: what is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from scheduler.cli.output import emit
from scheduler.cli.verbs import new_app

app = new_app()


@app.command()
def show_version() -> None:
    """Print the version."""
    # Read here and not from the app, whose import would bring the whole worker along.
    try:
        emit(f"trigger-scheduler {version('trigger-scheduler')}")
    except PackageNotFoundError:
        emit("trigger-scheduler 0+unknown")
