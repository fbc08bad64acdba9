"""The command `scheduler`: its verbs, each loaded when it is called, and what becomes of errors.

The verb's module is imported at its first use and imports the rest of the package in its functions, so that `--help`,
`version` and `next` answer at once and a listing loads no executor and no web server.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from scheduler.cli.guard import report
from scheduler.cli.invocation import Invocation
from scheduler.cli.output import discard, note
from scheduler.cli.verbs import LazyGroup, Verb


class Root(LazyGroup):
    """Every verb of the command line, in the order of its help."""

    verbs: ClassVar = {
        "serve": Verb("serve", "Run a worker until SIGTERM or Ctrl-C, then drain it."),
        "deploy": Verb("deploy", "Deploy tasks and their triggers from manifests."),
        "export": Verb("export", "Write what is deployed back as manifests."),
        "next": Verb("next", "Say when a schedule fires, without any database."),
        "simulate": Verb("simulate", "Say what the deployed triggers would fire in a period."),
        "slots": Verb("slots", "Say what became of each slot of a trigger."),
        "backfill": Verb("backfill", "Fill a trigger's slots of the past; list, show, cancel."),
        "tasks": Verb("tasks", "Look at tasks, take them away: list, show, versions, delete."),
        "triggers": Verb(
            "triggers", "Look at triggers and act on them: list, show, revisions, activate, deactivate, fire…"
        ),
        "runs": Verb("runs", "Look at runs and act on them: list, show, logs, cancel, retry."),
        "workers": Verb("workers", "Look at the living workers: list."),
        "config": Verb("config", "Check the settings and manifests, show the settings: check, show."),
        "db": Verb("db", "Look after the database: upgrade, current, restored."),
        "version": Verb("version", "Print the version."),
    }
    later = frozenset({"doctor", "token"})

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if hasattr(error, "show"):  # a usage error, which prints itself
                raise
            raise typer.Exit(report(error, debug=Invocation.of(ctx).debug)) from None


cli = typer.Typer(
    cls=Root,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cli.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The settings; else $SCHEDULER_CONFIG, ./config/scheduler.yaml or ./scheduler.yaml.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print where an error comes from ($SCHEDULER_DEBUG).")] = False,
) -> None:
    """Fire what tasks' triggers owe, exactly once each.

    Exit codes: 0 done, 1 failed, 2 wrong usage, settings or manifest, 4 not found, 5 conflict.
    """
    ctx.obj = Invocation(config, debug or os.environ.get("SCHEDULER_DEBUG", "") not in ("", "0", "false"))


def main() -> None:
    """Runs the command that the process was called with."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is printed escaped rather than not at all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        typer.main.get_command(cli).main(prog_name="scheduler")
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        raise SystemExit(130) from None
    except OSError as error:  # of the help, which Click prints
        discard(sys.stdout)
        note(f"cannot write the result: {error.strerror or error}")
        raise SystemExit(1) from None
