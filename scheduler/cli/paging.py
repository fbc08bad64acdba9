"""Listings a page at a time: what `--where`, `--sort` and `--page` mean, and how the next page is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from scheduler.cli.guard import Refused
from scheduler.cli.output import note
from scheduler.cli.time_arguments import since_instant
from scheduler.domain.instants import Micros
from scheduler.domain.zones import Zone

if TYPE_CHECKING:
    from scheduler.client import Filter, Page

_CONDITION: Final = re.compile(r"\s*(\w+)\s*(>=|=|~)(.*)", re.DOTALL)
_NUMBERS: Final = frozenset({"total_triggers", "active_triggers", "revision", "attempt", "lost"})
_FLAGS: Final = {"true": True, "yes": True, "false": False, "no": False}


def filters_of(
    where: Iterable[str] | None,
    now: Micros,
    zone: Zone,
    equal: Mapping[str, object],
    since: tuple[str, str | None] | None = None,
) -> list[Filter]:
    """The filters that options and `--where` ask for; of several values for one field, each will do.

    Times without an offset are read in `zone`. `equal` are fields with their values, None where any will do; `since` is a
    field of instants and what `--since` says.
    """
    from scheduler.client import Filter

    found = [Filter(field, "equal", value) for field, value in equal.items() if value is not None]
    if since is not None and since[1] is not None:
        found.append(Filter(since[0], "since", since_instant(since[1], now, zone)))
    any_of: dict[str, list[Any]] = {}
    for text in where or ():
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise Refused(f"--where {text!r} is none of FIELD=VALUE, FIELD~PART and FIELD>=WHEN")
        field, sign, value = match[1], match[2], match[3].strip()
        if sign == "~":
            found.append(Filter(field, "contains", value))
        elif sign == ">=":
            found.append(Filter(field, "since", _value(field, value, now, zone)))
        else:
            any_of.setdefault(field, []).append(_value(field, value, now, zone))
    for field, values in any_of.items():
        found.append(Filter(field, "equal", values[0]) if len(values) == 1 else Filter(field, "in", values))
    return found


def _value(field: str, text: str, now: Micros, zone: Zone) -> Any:
    if field == "active":
        if text.lower() not in _FLAGS:
            raise Refused(f"--where {field}={text}: write true or false")
        return _FLAGS[text.lower()]
    if field in _NUMBERS:
        try:
            return int(text)
        except ValueError:
            raise Refused(f"--where {field}: {text!r} is not a whole number") from None
    if field == "at" or field.endswith("_at"):
        return since_instant(text, now, zone)
    return text


def tell_of_the_next(page: Page, what: str) -> None:
    """Says on stderr how much there is beside what is shown, and how to get at it."""
    if page.next_token is None:
        return
    if page.total is None:
        shown = f"there are more {what} than the {len(page.rows):,} shown"
    else:
        among = f" that match, of {page.total_all:,} in all" if page.total_all not in (None, page.total) else ""
        shown = f"{len(page.rows):,} of {page.total:,} {what}{among} are shown"
    note(f"{shown}; the next: --page {page.next_token}")
