"""What one call of the command line knows: which settings it was given, and the app they make."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from scheduler.app import App


@dataclass
class Invocation:
    """The options before the verb."""

    config: Path | None = None
    debug: bool = False

    @classmethod
    def of(cls, ctx: typer.Context) -> Invocation:
        """The invocation that a verb's context belongs to."""
        return ctx.obj if isinstance(ctx.obj, Invocation) else cls()

    @cached_property
    def app(self) -> App:
        """The app that the settings describe, loaded at first use; raises `ConfigError`."""
        from scheduler.app import App

        return App.load(self.config)
