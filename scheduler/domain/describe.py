"""Schedules in plain English: what a person reads to check that an expression means what it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from scheduler.domain.cron_fields import FIRST_YEAR, CronFields, FieldSet

_MONTHS: Final = (
    *("", "January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NTH: Final = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", -1: "last"}
_MANY_TIMES: Final = 6


def describe_cron(fields: CronFields, timezone: str, day_rule: str) -> str:
    """`At 02:00, Monday to Friday (Europe/Paris)`: times of day, days, months, years, zone."""
    parts = [_times(fields), _days(fields, day_rule), _months(fields.months), _years(fields.years)]
    if parts[0].startswith("At") and not parts[1] and "past every hour" not in parts[0]:
        parts[1] = "every day"
    return f"{', '.join(part for part in parts if part)} ({timezone})"


def describe_rate(value: int, unit: str) -> str:
    """`Every 5 minutes`."""
    return f"Every {unit}" if value == 1 else f"Every {value:,} {unit}s"


def _times(fields: CronFields) -> str:
    hours, minutes, seconds = _numbers(fields.hours), _numbers(fields.minutes), _numbers(fields.seconds)
    if len(hours) * len(minutes) * len(seconds) <= _MANY_TIMES:
        show_seconds = seconds != [0]
        times = [
            f"{hour:02}:{minute:02}" + (f":{second:02}" if show_seconds else "")
            for hour in hours
            for minute in minutes
            for second in seconds
        ]
        return f"At {_and(times)}"
    if seconds == [0] and len(minutes) == 1:
        return _hourly(hours, minutes[0])
    parts = []
    if seconds != [0]:
        parts.append(_spaced(seconds, 60, "second"))
    # "Every second" of every minute says it all.
    if seconds == [0] or len(minutes) < 60:
        parts.append(_spaced(minutes, 60, "minute"))
    if len(hours) < 24:
        parts.append(_hours(hours))
    elif len(minutes) < 60 and (_step(minutes, 60) is None or 60 % len(minutes)):
        parts.append("past every hour")
    return _sentence(" ".join(parts))


def _hourly(hours: list[int], minute: int) -> str:
    """More hours than can be listed, at one minute each."""
    first, last, step = hours[0], hours[-1], _step(hours, 24)
    if last - first == len(hours) - 1:
        span = f" from {first:02}:{minute:02} to {last:02}:{minute:02}" if len(hours) < 24 else ""
        return f"At minute {minute} past every hour" if minute and not span else f"Every hour{span}"
    if step is not None and 24 % step == 0:
        return f"Every {step} hours" + (f" from {first:02}:{minute:02}" if first or minute else "")
    return f"At {_and([f'{hour:02}:{minute:02}' for hour in hours])}"


def _hours(hours: list[int]) -> str:
    if hours[-1] - hours[0] == len(hours) - 1:
        return f"from {hours[0]:02}:00 to {hours[-1]:02}:59"
    step = _step(hours, 24)
    if step is not None and 24 % step == 0:
        return f"of every {_ordinal(step)} hour" + (f" from {hours[0]:02}:00" if hours[0] else "")
    return f"of the hours {_and([f'{hour:02}' for hour in hours])}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _spaced(numbers: list[int], size: int, unit: str) -> str:
    step = _step(numbers, size)
    if step == 1:
        return f"every {unit}"
    if step is not None:
        return f"every {step} {unit}s" + (f" from {unit} {numbers[0]}" if numbers[0] else "")
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"every {unit} from {numbers[0]} to {numbers[-1]}"
    return f"at {unit}{'s' if len(numbers) > 1 else ''} {_and([str(number) for number in numbers])}"


def _days(fields: CronFields, day_rule: str) -> str:
    dom, dow = fields.day_of_month, fields.day_of_week
    month_days, week_days = _days_of_month(dom), _days_of_week(dow)
    both = dom.leads or dow.leads if day_rule == "debian" else dom.star or dow.star
    if both:
        if month_days and week_days:
            return f"{month_days} if it is {week_days}"
        return month_days or week_days
    # Under OR a field that lets every day pass leaves nothing to say.
    return f"{month_days} and also {week_days}" if month_days and week_days else ""


def _days_of_month(field: FieldSet) -> str:
    numbers = _numbers(field.mask)
    if len(numbers) == 31:
        return ""
    parts = [f"day {run}" if "to" not in run else f"days {run}" for run in _runs(numbers, str)]
    if len(numbers) > 1 and all("to" not in part for part in parts):
        parts = [f"days {_and([str(number) for number in numbers])}"]
    for kind, number, _ in field.specials:
        if kind == "W":
            parts.append(f"the weekday nearest to day {number}")
            continue
        last = {0: "the last day", 1: "the day before the last"}.get(number, f"the day {number} days before the last")
        if kind == "LW":
            last = "the last weekday" if number == 0 else f"the weekday nearest to {last}"
        parts.append(last)
    return f"on {_and(parts)} of the month"


def _days_of_week(field: FieldSet) -> str:
    numbers = _numbers(field.mask)
    if len(numbers) == 7:
        return ""
    parts = _runs([*numbers[1:], 0] if numbers[:1] == [0] and 6 in numbers else numbers, lambda day: _DAYS[day])
    for _, day, nth in field.specials:
        parts.append(f"the {_NTH[nth]} {_DAYS[day]} of the month" if nth else _DAYS[day])
    return _and(parts)


def _months(mask: int) -> str:
    numbers = _numbers(mask)
    return "" if len(numbers) == 12 else f"in {_and(_runs(numbers, lambda month: _MONTHS[month]))}"


def _years(mask: int | None) -> str:
    if mask is None:
        return ""
    return f"in {_and(_runs([FIRST_YEAR + number for number in _numbers(mask)], str))}"


def _numbers(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def _step(numbers: Sequence[int], size: int) -> int | None:
    """The distance of numbers that are evenly spread over the whole field, else None."""
    if len(numbers) < 2:
        return None
    step = numbers[1] - numbers[0]
    even = list(numbers) == list(range(numbers[0], size, step))
    return step if even and numbers[0] < step else None


def _runs(numbers: list[int], spoken: Callable[[int], str]) -> list[str]:
    """The numbers with three or more in a row drawn together: `1 to 5`, `8`."""
    runs: list[list[int]] = []
    for number in numbers:
        # Sunday may close a week that began on Monday.
        if runs and (number == runs[-1][-1] + 1 or (number == 0 and runs[-1][-1] == 6)):
            runs[-1].append(number)
        else:
            runs.append([number])
    texts: list[str] = []
    for run in runs:
        if len(run) > 2:
            texts.append(f"{spoken(run[0])} to {spoken(run[-1])}")
        else:
            texts.extend(spoken(number) for number in run)
    return texts


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
