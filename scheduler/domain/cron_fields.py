"""The strict grammar of cron fields: five to seven texts in, sets of numbers out, every fault named at once.

Stricter than most readers on purpose: an expression that two schedulers would read differently is better refused than
guessed. Days of the week leave here as 0 = Sunday … 6 = Saturday, whatever the dialect calls them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from scheduler.domain.cron_text import split_fields
from scheduler.errors import BadCron

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), start=1
    )
}
_DAYS: Final = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
# `5/2` and `*` end here in the standard dialect, though 7 may be written for Sunday.
_LAST_STANDARD_DAY: Final = 6


@dataclass(frozen=True, slots=True)
class Field:
    """What one field may hold; `widest` bounds the step where the dialect does, `wraps` allows ranges such as 22-3."""

    name: str
    low: int
    high: int
    names: dict[str, int]
    widest: int | None = None
    wraps: bool = False


@dataclass(frozen=True, slots=True)
class FieldSet:
    """What one field matches: a bit per number, and what depends on the month.

    `star`: a bare `*` or `?` stands in it (robfig's sense); `leads`: it begins with `*` or `?` (Debian's sense).
    `specials` for day-of-month: ("L", n) the n-th day before the last, ("LW", n) the weekday nearest to that, ("W", d)
    the weekday nearest to day d; for day-of-week: ("#", day, n) the n-th such day, n = -1 the last.
    """

    mask: int
    star: bool = False
    leads: bool = False
    specials: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CronFields:
    """A whole expression: its dialect, the texts in the order second … year (None where absent) and their sets."""

    dialect: str
    texts: tuple[str | None, ...]
    seconds: int
    minutes: int
    hours: int
    day_of_month: FieldSet
    months: int
    day_of_week: FieldSet
    years: int | None
    interval: bool
    """Fires at intervals rather than at fixed times of the day: decides what `once` means around an offset change."""


def _table(dialect: str) -> tuple[Field, ...]:
    strict = dialect != "standard"

    def field(name: str, low: int, high: int, names: dict[str, int], widest: int) -> Field:
        return Field(name, low, high, names, widest if strict else None, strict)

    days = (1, 7, {name: number + 1 for name, number in _DAYS.items()}) if strict else (0, 7, _DAYS)
    return (
        field("second", 0, 59, {}, 59),
        field("minute", 0, 59, {}, 59),
        field("hour", 0, 23, {}, 23),
        field("day-of-month", 1, 31, {}, 31),
        field("month", 1, 12, _MONTHS, 12),
        field("day-of-week", *days, 7),
        Field("year", FIRST_YEAR, LAST_YEAR, {}),
    )


_FIELDS: Final = {dialect: _table(dialect) for dialect in ("standard", "aws", "quartz")}
_SECOND, _MINUTE, _HOUR, _DOM, _MONTH, _DOW, _YEAR = range(7)
# Where each dialect's fields stand in the order second … year.
_LAYOUT: Final = {
    ("standard", 5): (None, 0, 1, 2, 3, 4, None),
    ("standard", 6): (0, 1, 2, 3, 4, 5, None),
    ("aws", 6): (None, 0, 1, 2, 3, 4, 5),
    ("quartz", 6): (0, 1, 2, 3, 4, 5, None),
    ("quartz", 7): (0, 1, 2, 3, 4, 5, 6),
}
_ITEM: Final = re.compile(r"(\*|\?|[A-Za-z]+|\d+)?(?:-([A-Za-z]+|\d+))?(?:/(.*))?", re.ASCII)
_LAST_DAY: Final = re.compile(r"L(?:-(\d{1,4}))?(W)?", re.ASCII | re.IGNORECASE)
_WEEKDAY: Final = re.compile(r"(\d{1,4})W", re.ASCII | re.IGNORECASE)
_LAST_OF_WEEK: Final = re.compile(r"(\d{1,4}|[A-Za-z]{3})L", re.ASCII | re.IGNORECASE)
_NTH: Final = re.compile(r"(\d{1,4}|[A-Za-z]{3})#(.*)", re.ASCII)
_LONE_H: Final = re.compile(r"(?<![A-Za-z])H(?![A-Za-z])")
_HASH: Final = re.compile(r"H(?:\((\d{1,4})-(\d{1,4})\))?(?:/(\d{1,4}))?", re.ASCII)


class _FaultError(ValueError):
    """One thing wrong in one field; collected, then raised together as `BadCron`."""


def parse_cron(text: str, dialect: str) -> CronFields:
    """The sets of an expression without zone prefix; raises `BadCron` that names every faulty field.

    `H` must have been replaced by then: see `hash_items`.
    """
    chosen, fields = split_fields(text, dialect)
    layout = _LAYOUT[chosen, len(fields)]
    texts = tuple([None if place is None else fields[place] for place in layout])
    faults: list[str] = []
    sets: list[FieldSet | None] = []
    for index, field_text in enumerate(texts):
        found: FieldSet | None = None
        if field_text is not None:
            try:
                found = _parse_field(field_text, index, chosen)
            except _FaultError as fault:
                faults.append(f"{_FIELDS[chosen][index].name}: {fault}")
        sets.append(found)
    if chosen != "standard" and (texts[_DOM] == "?") == (texts[_DOW] == "?"):
        faults.append("day-of-month and day-of-week: exactly one of them must be ?")
    if faults:
        raise BadCron("cron", f"{'; '.join(faults)} in {text!r}")
    second, minute, hour, dom, month, dow, year = sets
    if not (minute and hour and dom and month and dow):
        raise AssertionError("every layout has these five fields")
    return CronFields(
        dialect=chosen,
        texts=texts,
        seconds=second.mask if second else 1,
        minutes=minute.mask,
        hours=hour.mask,
        day_of_month=dom,
        months=month.mask,
        day_of_week=dow,
        years=None if year is None or year.star else year.mask,
        interval=second is not None or minute.leads or hour.leads,
    )


def may_hash(text: str) -> bool:
    """Whether an `H` stands in the text other than as part of a name such as THU."""
    return "H" in text and _LONE_H.search(text) is not None


def hash_items(text: str, dialect: str) -> tuple[list[str], list[tuple[int, str]]]:
    """The fields of an expression and, for those that are an `H` form, (place, the same with its range spelled out).

    `H` belongs to no published dialect: only `auto` knows it, in five fields or six.
    """
    if dialect != "auto" or not may_hash(text):
        return [], []
    chosen, fields = split_fields(text, dialect)
    if chosen != "standard":
        return [], []
    layout = _LAYOUT[chosen, len(fields)]
    found: list[tuple[int, str]] = []
    for index, place in enumerate(layout):
        item = _HASH.fullmatch(fields[place]) if place is not None else None
        if item is None or place is None:
            continue
        field = _FIELDS[chosen][index]
        # Every month has 28 days, and a Sunday that is both 0 and 7 would be drawn twice as often.
        high = {_DOM: 28, _DOW: _LAST_STANDARD_DAY}.get(index, field.high)
        start, end = (int(item[1]), int(item[2])) if item[1] else (field.low, high)
        step = int(item[3]) if item[3] else None
        if not field.low <= start < end <= field.high:
            raise BadCron("cron", f"{field.name}: {fields[place]} is not H(a-b) within {field.low}–{field.high}")
        if step == 0:
            raise BadCron("cron", f"{field.name}: the step of {fields[place]} is 0")
        found.append((place, f"H({start}-{end})" + (f"/{step}" if step else "")))
    return fields, found


@lru_cache(maxsize=4096)
def _parse_field(text: str, index: int, dialect: str) -> FieldSet:
    field = _FIELDS[dialect][index]
    if text == "*":
        return FieldSet(_full(field, index, dialect), star=True, leads=True)
    if field.wraps and text == "?" and index in (_DOM, _DOW):
        return FieldSet(_full(field, index, dialect), star=True, leads=True)
    items = text.split(",")
    mask, star, specials, faults = 0, False, [], []
    for item in items:
        try:
            special = _special(item, index, field, dialect) if index in (_DOM, _DOW) else None
            if special is not None:
                if index == _DOW and dialect != "standard" and len(items) > 1:
                    raise _FaultError(f"{item} cannot stand in a list in the {dialect} dialect")
                specials.append(special)
                continue
            bits, bare = _item(item, index, field, dialect)
            mask |= bits
            star = star or bare
        except _FaultError as fault:
            faults.append(str(fault))
    if faults:
        raise _FaultError(", ".join(dict.fromkeys(faults)))
    return FieldSet(mask, star, text[0] in "*?", tuple(specials))


def _full(field: Field, index: int, dialect: str) -> int:
    if index == _DOW:
        return 0b1111111
    return ((1 << (field.high - field.low + 1)) - 1) << _shift(field, index, field.low)


def _shift(field: Field, index: int, number: int) -> int:
    # Years count from their first, so that a set of years is a small number too.
    return number - FIRST_YEAR if index == _YEAR else number


def _item(text: str, index: int, field: Field, dialect: str) -> tuple[int, bool]:
    """The bits of one list item, and whether it is a bare star."""
    parts = _ITEM.fullmatch(text)
    if not text or parts is None or (parts[1] is None and not (dialect == "quartz" and parts[3] and not parts[2])):
        raise _FaultError(_explain(text, field, dialect))
    first, last, step_text = parts[1], parts[2], parts[3]
    step = 1 if step_text is None else _step(step_text, field)
    if first in ("*", "?", None):
        if first == "?" and field.wraps:
            raise _FaultError("? may only stand alone, for day-of-month or day-of-week")
        if last is not None:
            raise _FaultError(f"{text} mixes {first} with a range")
        start, end = field.low, _open_end(field, index, dialect)
    else:
        start = _number(first, field)
        if last is not None:
            end = _number(last, field)
        else:
            end = start if step_text is None else max(start, _open_end(field, index, dialect))
    if start > end:
        if not field.wraps:
            hint = f": write {start}-7" if index == _DOW and end == 0 else ""
            raise _FaultError(f"{text} runs backwards{hint}")
        end += field.high - field.low + 1
    bits = 0
    if step == 1 and end <= field.high:
        bits = ((1 << (end - start + 1)) - 1) << _shift(field, index, start)
    else:
        for number in range(start, end + 1, step):
            inside = number if number <= field.high else number - (field.high - field.low + 1)
            bits |= 1 << _shift(field, index, inside)
    if index == _DOW:
        bits = bits >> 1 if dialect != "standard" else (bits | bits >> 7) & 0b1111111
    return bits, first in ("*", "?") and step == 1


def _open_end(field: Field, index: int, dialect: str) -> int:
    return _LAST_STANDARD_DAY if index == _DOW and dialect == "standard" else field.high


def _number(text: str, field: Field) -> int:
    if text.isdigit():
        number = int(text) if len(text) <= 9 else 10**9
        if not field.low <= number <= field.high:
            raise _FaultError(f"{text} is not within {field.low}–{field.high}")
        return number
    named = field.names.get(text.upper())
    if named is None:
        raise _FaultError(_explain(text, field, ""))
    return named


def _step(text: str, field: Field) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _FaultError(f"the step {text!r} is not a whole number" if text else "a step is missing after /")
    step = int(text) if len(text) <= 9 else 10**9
    if step == 0:
        raise _FaultError("a step of 0 never moves")
    if field.widest is not None and step > field.widest:
        raise _FaultError(f"the step {step} is wider than {field.widest}")
    return step


def _special(text: str, index: int, field: Field, dialect: str) -> tuple[str, int, int] | None:
    """`L`, `L-3`, `LW`, `15W` of a month; `6L`, `6#3` of a week; None if the item is an ordinary one."""
    if index == _DOM:
        if last := _LAST_DAY.fullmatch(text):
            back = int(last[1] or 0)
            if back > 30:
                raise _FaultError(f"{text} goes back {back} days: at most 30")
            return ("LW" if last[2] else "L", back, 0)
        if near := _WEEKDAY.fullmatch(text):
            return ("W", _number(near[1], field), 0)
        return None
    zero = 0 if dialect == "standard" else 1
    if text in ("L", "l"):
        if dialect == "standard":
            raise _FaultError("L needs its day here: 5L is the last Friday")
        return ("#", 6, 0)
    if last := _LAST_OF_WEEK.fullmatch(text):
        return ("#", (_number(last[1], field) - zero) % 7, -1)
    if nth := _NTH.fullmatch(text):
        if nth[2] not in ("1", "2", "3", "4", "5"):
            raise _FaultError(f"{text}: after # comes 1–5, the how-manieth of the month")
        return ("#", (_number(nth[1], field) - zero) % 7, int(nth[2]))
    return None


def _explain(text: str, field: Field, dialect: str) -> str:
    if not text:
        return "an item of the list is empty"
    if re.fullmatch(r"R(\(.*\))?(/.*)?", text):
        return f"{text} would be random on every worker: use H, which is stable"
    if text[0] == "H":
        return f"{text}: H is known to the auto dialect only, alone in its field: H, H(0-29), H/15 or H(0-29)/10"
    if not text.isascii():
        return f"{text!r} is not written in ASCII"
    names = f" or one of {', '.join(field.names)}" if field.names else ""
    return f"{text!r} is not a number{names}" if text.isalnum() else f"{text!r} is not a number, range, step or *"
