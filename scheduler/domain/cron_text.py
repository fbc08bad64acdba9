"""What surrounds the fields of a cron expression: zone prefix, `cron(…)` wrapper, `@` words; which dialect it is."""

from __future__ import annotations

import re
from typing import Final

from scheduler.errors import BadCron

_ZONE_PREFIX: Final = re.compile(r"(?:CRON_TZ|TZ)=(\S*)(?:\s+|$)")
_WRAPPER: Final = re.compile(r"cron\((.*)\)", re.DOTALL)
_YEAR: Final = re.compile(r"\d{4}", re.ASCII)
_RATE_WORDS: Final = ("@every", "rate(")

DESCRIPTORS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def split_zone(text: str) -> tuple[str | None, str]:
    """The zone of a `CRON_TZ=` or `TZ=` prefix, if there is one, and the rest without outer spaces."""
    text = text.strip()
    if not text.startswith(("CRON_TZ=", "TZ=")):
        return None, text
    prefix = _ZONE_PREFIX.match(text)
    zone = prefix[1] if prefix else ""
    rest = text[prefix.end() :].strip() if prefix else ""
    if not zone or not rest:
        missing = "a zone" if not zone else "the fields"
        raise BadCron("cron", f"{text!r} lacks {missing}: write CRON_TZ=Europe/Paris 0 2 * * *")
    if _ZONE_PREFIX.match(rest):
        raise BadCron("cron", f"{text!r} names two zones: name one")
    return zone, rest


def split_fields(text: str, dialect: str) -> tuple[str, list[str]]:
    """The dialect that `text` is in (standard, aws or quartz) and its fields, of which there are as many as it wants.

    Under `auto` a dialect is chosen only where the text leaves no doubt; otherwise the error says what to set.
    """
    if text.startswith("@"):
        return "standard", _descriptor(text, dialect).split()
    if text.startswith(_RATE_WORDS):
        raise BadCron("cron", f"{text!r} is a fixed rate, not a cron: give it as fixed_rate or every")
    wrapped = _WRAPPER.fullmatch(text)
    if wrapped:
        if dialect not in ("auto", "aws"):
            raise BadCron("cron", f"cron(…) is the aws dialect, not {dialect}")
        text, dialect = wrapped[1], "aws"
    fields = text.split()
    chosen = _detect(fields) if dialect == "auto" else dialect
    wanted = {"standard": (5, 6), "aws": (6,), "quartz": (6, 7)}[chosen]
    if len(fields) not in wanted:
        raise BadCron("cron", f"{text!r} has {len(fields)} field{'s' * (len(fields) != 1)}: {_FIELD_HELP[chosen]}")
    return chosen, fields


_FIELD_HELP: Final = {
    "standard": "write 5 (minute hour day-of-month month day-of-week), or 6 with seconds first",
    "aws": "aws wants 6 (minute hour day-of-month month day-of-week year)",
    "quartz": "quartz wants 6 (second minute hour day-of-month month day-of-week), or 7 with the year last",
}


def _descriptor(text: str, dialect: str) -> str:
    if text.startswith(_RATE_WORDS):
        raise BadCron("cron", f"{text!r} is a fixed rate, not a cron: give it as fixed_rate or every")
    fields = DESCRIPTORS.get(text)
    if fields is None:
        raise BadCron("cron", f"{text!r} is none of {', '.join(DESCRIPTORS)} and @every")
    if dialect not in ("auto", "standard"):
        raise BadCron("cron", f"{text!r} belongs to the standard dialect, not to {dialect}")
    return fields


def _detect(fields: list[str]) -> str:
    if len(fields) == 7:
        raise BadCron("cron", f"{' '.join(fields)!r} looks like quartz: set dialect to quartz")
    if len(fields) != 6:
        return "standard"
    # A `?` can only stand for a day, and the two six-field forms have their days in different places.
    aws_days, quartz_days = "?" in (fields[2], fields[4]), "?" in (fields[3], fields[5])
    if _YEAR.search(fields[5]) or (aws_days and not quartz_days):
        return "aws"
    if quartz_days:
        raise BadCron(
            "cron", f"{' '.join(fields)!r} looks like quartz: set dialect to quartz (or to standard, seconds first)"
        )
    return "standard"
