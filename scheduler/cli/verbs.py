"""Groups of verbs: loaded when called, and plain about verbs that are wrong or not there yet."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperGroup

from scheduler.cli.guard import Refused


class Verb(NamedTuple):
    """The module of `scheduler.cli` that holds the verb's Typer app as `app`, and its line of help."""

    module: str
    help: str


class VerbGroup(TyperGroup):
    """A group that names the nearest verb for a wrong one; `later` are verbs of the final interface not built yet."""

    later: ClassVar[frozenset[str]] = frozenset()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in self.later:
            raise Refused(f"{ctx.command_path} {name} is not available in this version yet")
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            ctx.fail(f"{name!r} is not a verb: {hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(VerbGroup):
    """A group whose verbs are named in a table and imported one by one when called."""

    verbs: ClassVar[Mapping[str, Verb]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        verb = self.verbs.get(cmd_name)
        if verb is None:
            return None
        command = typer.main.get_command(import_module(f"scheduler.cli.{verb.module}").app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        # From the table, not from the commands: a list of verbs needs none of their modules.
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in self.verbs.items()])


def new_app(**options: Any) -> typer.Typer:
    """A Typer app in the manner of this command line: plain texts, no completion verbs of its own."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        **options,
    )


def new_group(group: type[VerbGroup], help: str) -> typer.Typer:
    """A Typer app that stays a group even with a single verb, and prints its help when called alone."""
    app = new_app(cls=group, help=help, no_args_is_help=True)
    app.callback()(_nothing)
    return app


def _nothing() -> None:
    pass
