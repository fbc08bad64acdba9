"""Another version of the time-zone database, for as long as a block lasts: a zone whose clocks differ for some time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from unittest.mock import patch

from scheduler.domain import calendars, occurrences, zones
from scheduler.domain.zones import Zone, zone_of


def shifted(name: str, start: int, end: int, by: int) -> Zone:
    """The zone as it would be if its clocks were `by` seconds ahead of the real ones in start ≤ t < end, epoch seconds."""
    data = resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    changes, offsets = zones._transitions(data)
    bounds = sorted({*changes, start, end})
    new_changes: list[int] = []
    new_offsets = [offsets[0]]
    for instant in bounds:
        offset = offsets[sum(change <= instant for change in changes)] + (by if start <= instant < end else 0)
        if offset != new_offsets[-1]:
            new_changes.append(instant)
            new_offsets.append(offset)
    return zones._build(name, new_changes, new_offsets)


@contextmanager
def zone_data(*changed: Zone) -> Iterator[None]:
    """The product reads these zones instead of those of the installed data."""
    known = {zone.name: zone for zone in changed}

    def looked_up(name: str) -> Zone:
        return known.get(name) or zone_of(name)

    # What was compiled with other data is compiled anew, and so it is afterwards.
    occurrences._compile_cron.cache_clear()
    try:
        with patch.object(occurrences, "zone_of", looked_up), patch.object(calendars, "zone_of", looked_up):
            yield
    finally:
        occurrences._compile_cron.cache_clear()
