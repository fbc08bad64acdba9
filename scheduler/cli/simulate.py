"""`scheduler simulate`: what would fire in a period, and where it heaps up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from scheduler.cli.invocation import Invocation
from scheduler.cli.options import DomainOption, LimitOption, OutputOption, ProjectOption, TaskOption, TriggerOption
from scheduler.cli.output import Output, counted, dump, emit, note, prints_unicode
from scheduler.cli.tables import Column, listing, table
from scheduler.cli.verbs import new_app

app = new_app()

_SHADES = " ·░▒▓█"
_HOURS, _MINUTES = 24, 60


@app.command()
@listing
def simulate(
    ctx: typer.Context,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="WHEN", help="Later than this, such as 1h (in an hour) or 2026-12-24; else now."
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="WHEN", help="Up to this, such as 7d (after --from) or 2026-12-31; else a day after --from."
        ),
    ] = None,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    trigger: TriggerOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say what the deployed triggers would fire in a period, without firing it.

    The table ends with a map of the load: one column an hour, one row a minute of the hour (UTC), so that a crowd that
    starts at once can be seen.
    """
    from scheduler.cli.keys import filters, shown
    from scheduler.cli.time_arguments import typed_instant
    from scheduler.cli.times import TriggerZones, common_zone, default_zone, reading
    from scheduler.domain.instants import to_rfc3339
    from scheduler.errors import SpecError

    scheduler = Invocation.of(ctx).app
    defaults = scheduler.settings.defaults
    wanted = filters(defaults, project=project, domain=domain, task=task, trigger=trigger)
    wanted["name"] = wanted.pop("trigger")
    with scheduler.client() as client:
        now, zone = client.now(), default_zone(defaults)
        after = now if start is None else typed_instant(start, "--from", now, zone, ahead=True)
        until = (
            after + 86_400_000_000
            if end is None
            else typed_instant(end, "--to", after, zone, ahead=True, to_its_end=True)
        )
        if until <= after:
            raise SpecError("--to", f"{to_rfc3339(until)} is not after {to_rfc3339(after)}")
        found = client.simulate(after, until, limit=limit, **wanted)
        for problem in found.unreadable:
            note(f"left out: {problem}")
        if output is not Output.TABLE:
            emit(dump([_document(fire) for fire in found.fires], output))
        elif found.fires:
            zones = TriggerZones(client)
            zone = common_zone(map(zones.of, found.fires), defaults)
            table(
                (Column(f"FIRES ({zone.name})"), Column("SLOT", if_any=True), Column("TRIGGER")),
                (
                    (
                        reading(fire["due_at"], zone),
                        None if fire["due_at"] == fire["scheduled_at"] else reading(fire["scheduled_at"], zone),
                        shown(fire, defaults, "task", "trigger"),
                    )
                    for fire in found.fires
                ),
            )
            emit("")
            emit(heat_map(found.by_minute, unicode=prints_unicode()))
    if found.total > len(found.fires):
        note(f"{found.total:,} fires in all; the first {len(found.fires):,} are listed: raise --limit")
    elif output is Output.TABLE:
        note(counted(found.total, "fire") + " in this period" if found.total else "nothing fires in this period")


def heat_map(by_minute: Mapping[int, int], *, unicode: bool = True) -> str:
    """Fires by UTC minute of the hour (rows) and hour (columns), darker for more, and the busiest minute in words.

    Rows that are as quiet as their neighbours are drawn as one.
    """
    shades = _SHADES if unicode else " .:+#@"
    most = max(by_minute.values(), default=0)

    def shade(count: int) -> str:
        if not count:
            return shades[0]
        # By logarithm: one crowd of thousands must not make everything else look idle.
        level = 1 if most == 1 else 1 + math.floor(math.log(count) / math.log(most) * (len(shades) - 2))
        return shades[min(level, len(shades) - 1)]

    rows = [
        "".join(shade(by_minute.get(hour * 60 + minute, 0)) * 2 for hour in range(_HOURS)) for minute in range(_MINUTES)
    ]
    lines = ["UTC    " + "".join(f"{hour:02d}" for hour in range(_HOURS))]
    first = 0
    for minute in range(1, _MINUTES + 1):
        if minute == _MINUTES or rows[minute] != rows[first]:
            label = f":{first:02d}" if minute - 1 == first else f":{first:02d}–{minute - 1:02d}"
            lines.append(f"{label:<7}{rows[first]}".rstrip())
            first = minute
    busiest, count = max(by_minute.items(), key=lambda item: (item[1], -item[0]))
    lines.append(f"busiest minute: {busiest // 60:02d}:{busiest % 60:02d} UTC, {counted(count, 'fire')}")
    return "\n".join(lines) if unicode else "\n".join(lines).replace("–", "-")


def _document(fire: Mapping[str, Any]) -> dict[str, Any]:
    from scheduler.domain.instants import to_rfc3339

    return {
        "scheduled_at": to_rfc3339(fire["scheduled_at"]),
        "due_at": to_rfc3339(fire["due_at"]),
        **{key: fire[key] for key in ("project", "domain", "task", "trigger")},
    }
