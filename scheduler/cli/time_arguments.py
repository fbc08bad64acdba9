"""Times as people type them: `3d`, `2026-11-25`, `2026-11-25 14:00`, `now`, or in full with an offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from scheduler.domain.instants import SECOND, Micros, from_datetime, parse_duration, to_micros
from scheduler.domain.zones import Zone, zone_of
from scheduler.errors import SpecError

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_DAY: Final = timedelta(days=1)


def typed_instant(
    text: str, field: str, now: Micros, zone: Zone, *, ahead: bool = False, to_its_end: bool = False
) -> Micros:
    """The instant that somebody means by `text`; `field` is what errors call it.

    A duration lies so far back from now, or `ahead` of it. A day, and a time without an offset, are those of `zone`: a
    day means its beginning or, with `to_its_end`, its last microsecond, so that a period up to it has all of it. A
    time that the clocks skip is the first one after that; of one that they show twice it is the first. Raises `SpecError`.
    """
    stripped = text.strip()
    if stripped == "now":
        return now
    try:
        away = to_micros(parse_duration(stripped))
    except SpecError:
        pass
    else:
        # Nothing is older than 1970, and no database knows longer ago.
        return now + away if ahead else max(0, now - away)
    try:
        if _DAY.fullmatch(stripped):
            start = datetime.fromisoformat(stripped)
            return _local(start + _ONE_DAY, zone) - 1 if to_its_end else max(0, _local(start, zone))
        moment = datetime.fromisoformat(stripped)
    except (ValueError, OverflowError):
        way = "in 2h" if ahead else "2h ago"
        reason = f"{text!r} is no time: write 2h ({way}), 2026-11-25, 2026-11-25T14:00 or 2026-11-25T14:00:00Z"
        raise SpecError(field, reason) from None
    return max(0, _local(moment, zone) if moment.tzinfo is None else from_datetime(moment, field))


def since_instant(text: str | None, now: Micros, zone: Zone | None = None) -> Micros | None:
    """What `--since` names, in UTC unless a zone is given; raises `SpecError`."""
    return None if text is None else typed_instant(text, "--since", now, zone or zone_of("UTC"))


def _local(moment: datetime, zone: Zone) -> Micros:
    # As if it were UTC: what a clock on the wall shows there, counted in microseconds.
    whole, rest = divmod((moment.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1), SECOND)
    return zone.earliest(whole) * SECOND + rest
