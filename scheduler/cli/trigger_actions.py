"""What operators do about triggers: activate, deactivate, delete, reset, skip the next slot, snooze."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.acting import chosen_triggers, each, expected, together
from scheduler.cli.guard import Refused
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import (
    AllOption,
    DomainOption,
    DryRunOption,
    ProjectOption,
    RevisionOption,
    SomeTriggersArgument,
    TaskOption,
    YesOption,
)
from scheduler.errors import SpecError

if TYPE_CHECKING:
    from scheduler.cli.keys import TriggerKey
    from scheduler.client import Client
    from scheduler.domain.instants import Micros
    from scheduler.domain.zones import Zone


def activate(
    ctx: typer.Context,
    triggers: SomeTriggersArgument = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    every: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    revision: RevisionOption = None,
) -> None:
    """Make triggers owe slots again, from now on.

    A snooze ends, too.
    """
    with _chosen(ctx, "activate", triggers, project, domain, task, every, yes, dry_run) as (client, keys):
        known = expected(keys, revision)
        together(keys, lambda some: client.activate_many(some, expected_revisions=known), "activated", "already active")


def deactivate(
    ctx: typer.Context,
    triggers: SomeTriggersArgument = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    every: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    revision: RevisionOption = None,
) -> None:
    """Make triggers owe nothing.

    Their runs that have not started are aborted.
    """
    with _chosen(ctx, "deactivate", triggers, project, domain, task, every, yes, dry_run) as (client, keys):
        known = expected(keys, revision)
        together(
            keys, lambda some: client.deactivate_many(some, expected_revisions=known), "deactivated", "already inactive"
        )


def reset(
    ctx: typer.Context,
    triggers: SomeTriggersArgument = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    every: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    revision: RevisionOption = None,
) -> None:
    """Count the fires of triggers from 0 again, for their max_fires.

    One whose max_fires was used up goes on, with its first slot after now.
    """
    with _chosen(ctx, "reset the fires of", triggers, project, domain, task, every, yes, dry_run) as (client, keys):
        known = expected(keys, revision)
        together(keys, lambda some: client.reset_fires(some, expected_revisions=known), "reset", "nothing to reset of")


def delete(
    ctx: typer.Context,
    triggers: SomeTriggersArgument = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    every: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    revision: RevisionOption = None,
) -> None:
    """Delete triggers.

    Due slots are skipped, and runs that have not started are aborted. Their revisions and runs stay, and a deploy that
    names one brings it back.
    """
    with _chosen(ctx, "delete", triggers, project, domain, task, every, yes, dry_run) as (client, keys):
        known = expected(keys, revision)
        together(
            keys, lambda some: client.delete_triggers(some, expected_revisions=known), "deleted", "already deleted"
        )


def skip_next(
    ctx: typer.Context,
    triggers: SomeTriggersArgument = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    every: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Skip the next slot of triggers.

    Said twice before that slot, it is the same one.
    """
    from scheduler.cli.times import reading, zone_of_document

    with _chosen(ctx, "skip the next slot of", triggers, project, domain, task, every, yes, dry_run) as (client, keys):

        def one(key: TriggerKey) -> str:
            slot = client.skip_next(key)
            if slot is None:
                return f"nothing to skip of {key}"
            zone = zone_of_document(client.show_trigger(key)["automation"])
            return f"will skip {reading(slot, zone)} of {key}"

        each(keys, one)


def snooze(
    ctx: typer.Context,
    triggers: SomeTriggersArgument = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    every: AllOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    lasts: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="So long, such as 2h.")] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="WHEN",
            help="Until a time such as 2026-11-21T02:00:00Z, or 2026-11-21T02:00 in the trigger's zone.",
        ),
    ] = None,
) -> None:
    """Make triggers owe nothing for a while.

    They go on by themselves. What comes due meanwhile is skipped as paused; `triggers activate` ends a snooze early.
    """
    from scheduler.cli.time_arguments import typed_instant
    from scheduler.cli.times import default_zone, reading, utc, zone_of_document
    from scheduler.domain.instants import SECOND, parse_duration, to_micros
    from scheduler.domain.simple_schedules import HORIZON

    if (lasts is None) == (until is None):
        raise Refused("give either --for, such as --for 2h, or --until with a time")
    # Both are read before anything is asked or done.
    length = 0 if lasts is None else to_micros(parse_duration(lasts, "--for"))
    # What the text says is checked in any zone; which instant it is depends on the trigger's.
    if until is not None:
        typed_instant(until, "--until", 0, utc(), ahead=True)
    with _chosen(ctx, "snooze", triggers, project, domain, task, every, yes, dry_run) as (client, keys):
        now = client.now()

        def end_in(zone: Zone) -> Micros:
            if until is not None:
                end = typed_instant(until, "--until", now, zone, ahead=True)
            else:
                end = now + length
            if end >= HORIZON * SECOND:
                raise SpecError(
                    "--until" if lasts is None else "--for", "ends after 2199: deactivate what is to rest so long"
                )
            return end

        end = end_in(default_zone(Invocation.of(ctx).app.settings.defaults))

        def one(key: TriggerKey) -> str:
            zone = zone_of_document(client.show_trigger(key)["automation"])
            end = end_in(zone)
            client.snooze(key, end)
            return f"snoozed until {reading(end, zone)} {key}"

        if triggers:
            each(keys, one)
        else:
            done = f"snoozed until {reading(end, utc())}"
            together(keys, lambda some: client.snooze_many(some, end), done, done)


@contextmanager
def _chosen(
    ctx: typer.Context,
    verb: str,
    named: list[str] | None,
    project: str | None,
    domain: str | None,
    task: str | None,
    every: bool,
    yes: bool,
    dry_run: bool,
) -> Iterator[tuple[Client, list[TriggerKey]]]:
    scheduler = Invocation.of(ctx).app
    with scheduler.client() as client:
        yield (
            client,
            chosen_triggers(
                client,
                scheduler.settings.defaults,
                named,
                project=project,
                domain=domain,
                task=task,
                every=every,
                yes=yes,
                dry_run=dry_run,
                verb=verb,
            ),
        )


def add_to(app: typer.Typer) -> None:
    """Makes these the verbs of a group."""
    app.command("activate")(activate)
    app.command("deactivate")(deactivate)
    app.command("delete")(delete)
    app.command("reset")(reset)
    app.command("skip-next")(skip_next)
    app.command("snooze")(snooze)
