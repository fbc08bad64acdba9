"""`scheduler next`: when a schedule fires; no settings, no database."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.cli.options import OutputOption
from scheduler.cli.output import Output, dump, emit, note
from scheduler.cli.verbs import new_app

app = new_app()


@app.command()
def next_fires(
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT", help="'0 9 * * 1-5', '@daily', '@every 90s', 'rate(5 minutes)'…", show_default=False
        ),
    ],
    timezone: Annotated[str, typer.Option(help="The IANA zone in which a cron is read.")] = "UTC",
    after: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Fires later than this: 2026-11-21T02:00:00Z, 2026-11-21 (in --timezone) or 3d (from now); else now.",
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many fires.")] = 5,
    dialect: Annotated[str, typer.Option(help="auto, standard, aws or quartz.")] = "auto",
    day_rule: Annotated[
        str, typer.Option(help="How day-of-month and day-of-week combine: robfig or debian.")
    ] = "robfig",
    dst: Annotated[str, typer.Option(help="Around an offset change: once, instant or skip_once.")] = "once",
    output: OutputOption = Output.TABLE,
) -> None:
    """Say when a schedule fires, without any database.

    A rate that names no start counts from --after.
    """
    from scheduler.cli.time_arguments import typed_instant
    from scheduler.cli.times import reading, zone_of_document
    from scheduler.clock import SystemClock
    from scheduler.domain.automation import automation_to_document, describe, parse_schedule
    from scheduler.domain.instants import from_datetime, to_datetime, to_rfc3339

    schedule = parse_schedule(text, timezone=timezone, dialect=dialect, day_rule=day_rule, dst=dst)
    now, zone = SystemClock().now(), zone_of_document(automation_to_document(schedule))
    start = to_datetime(now if after is None else typed_instant(after, "--after", now, zone, ahead=True))
    fires: list[int] = []
    moment = schedule.next_after(start, start)
    while moment is not None and len(fires) < count:
        fires.append(from_datetime(moment))
        moment = schedule.next_after(moment, start)

    if output is not Output.TABLE:
        emit(dump([to_rfc3339(fire) for fire in fires], output))
        return
    note(describe(schedule))
    if fires:
        emit("\n".join(reading(fire, zone) for fire in fires))
    if len(fires) < count:
        note("it fires no more after that" if fires else "it fires no more")
