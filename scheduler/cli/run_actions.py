"""What operators do about runs: cancel them, have them tried again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import typer

from scheduler.cli.acting import BATCH, EVERY, confirm, each, rehearse
from scheduler.cli.guard import Refused
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import (
    DomainOption,
    DryRunOption,
    PhaseOption,
    ProjectOption,
    SinceOption,
    SomeRunsArgument,
    TaskOption,
    TriggerOption,
    YesOption,
)
from scheduler.cli.output import emit
from scheduler.domain.run import Phase

if TYPE_CHECKING:
    from scheduler.client import Cancelled, Client
    from scheduler.settings import Defaults

_OPEN: Final = (Phase.QUEUED, Phase.RUNNING, Phase.DEFERRED)
_FAILED: Final = (Phase.FAILED, Phase.TIMED_OUT)


def cancel(
    ctx: typer.Context,
    runs: SomeRunsArgument = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    trigger: TriggerOption = None,
    phase: PhaseOption = None,
    since: SinceOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """End runs.

    Queued ones end at once, those under way as soon as their code has ended. Without names, the open runs that the
    filters choose.
    """
    from scheduler.cli.keys import run_named

    scheduler = Invocation.of(ctx).app
    with scheduler.client() as client:
        names = _chosen(
            client,
            scheduler.settings.defaults,
            runs,
            {"project": project, "domain": domain, "task": task, "trigger": trigger},
            phase,
            since,
            _OPEN,
            verb="cancel",
            yes=yes,
            dry_run=dry_run,
        )
        if runs:
            meant = partial(run_named, client, defaults=scheduler.settings.defaults)
            each(names, lambda name: "\n".join(_told(client.cancel_run(meant(name)))))
            return
        for start in range(0, len(names), BATCH):
            # What ended since it was looked up is no mistake of anybody's.
            if told := _told(client.cancel_runs(names[start : start + BATCH])):
                emit("\n".join(told))


def retry(
    ctx: typer.Context,
    runs: SomeRunsArgument = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    trigger: TriggerOption = None,
    phase: PhaseOption = None,
    since: SinceOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Queue runs for one more attempt.

    They ended without success, and keep their name, slot and inputs. Without names, the FAILED and TIMED_OUT runs that the
    filters choose; ABORTED ones with --phase ABORTED.
    """
    from scheduler.cli.keys import run_named

    scheduler = Invocation.of(ctx).app
    with scheduler.client() as client:
        names = _chosen(
            client,
            scheduler.settings.defaults,
            runs,
            {"project": project, "domain": domain, "task": task, "trigger": trigger},
            phase,
            since,
            (*_FAILED, Phase.ABORTED),
            _FAILED,
            verb="retry",
            yes=yes,
            dry_run=dry_run,
        )

        def one(name: str) -> str:
            name = run_named(client, name, scheduler.settings.defaults) if runs else name
            client.retry_run(name)
            return f"queued again {name}"

        each(names, one)


def _chosen(
    client: Client,
    defaults: Defaults,
    named: Sequence[str] | None,
    given: dict[str, str | None],
    phase: str | None,
    since: str | None,
    allowed: Sequence[Phase],
    usual: Sequence[Phase] | None = None,
    *,
    verb: str,
    yes: bool,
    dry_run: bool,
) -> list[str]:
    from scheduler.cli.keys import filters, run_named
    from scheduler.cli.phases import phase_named
    from scheduler.cli.time_arguments import since_instant
    from scheduler.cli.times import default_zone

    filtered = any(value is not None for value in (*given.values(), phase, since))
    if bool(named) == filtered:
        raise Refused("name runs, or choose them with --task, --trigger, --phase or --since: one of both")
    if named:
        names = list(dict.fromkeys(named))
        if dry_run:
            rehearse([run_named(client, name, defaults) for name in names], verb)
        return names
    wanted = filters(defaults, **given)
    phases = usual or allowed
    if phase is not None:
        phases = (phase_named(phase),)
        if phases[0] not in allowed:
            raise Refused(f"--phase {phases[0]}: only runs that are {', '.join(allowed)} can be chosen here")
    start = since_instant(since, client.now(), default_zone(defaults))
    rows = [
        row for each_phase in phases for row in client.list_runs(**wanted, phase=each_phase, since=start, limit=EVERY)
    ]
    # Oldest first: what is tried again comes in the order of its slots.
    names = [row["name"] for row in sorted(rows, key=lambda row: (row["created_at"], row["scheduled_at"] or 0))]
    confirm(names, "run", verb, yes=yes, dry_run=dry_run)
    return names


def _told(cancelled: Cancelled) -> list[str]:
    ended = [f"cancelled {name}" for name in cancelled.ended]
    return ended + [f"cancelling {name}: it is over when its code has ended" for name in cancelled.ending]


def add_to(app: typer.Typer) -> None:
    """Makes these the verbs of a group."""
    app.command("cancel")(cancel)
    app.command("retry")(retry)
