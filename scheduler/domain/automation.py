"""A trigger's schedule as people write it: `Cron`, `FixedRate` or `At`, checked when built, as text and as document.

The values say *what* was asked for; `occurrences` turns them into instants. Every datetime taken is aware, every
datetime given back is UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias, get_args

from scheduler.domain import occurrences
from scheduler.domain.cron_text import split_zone
from scheduler.domain.describe import describe_cron, describe_rate
from scheduler.domain.instants import SECOND, from_datetime, parse_rfc3339, to_datetime, to_rfc3339
from scheduler.domain.occurrences import Schedule
from scheduler.domain.schedule_text import parse_at, parse_every, parse_rate, unknown_key
from scheduler.domain.simple_schedules import HORIZON
from scheduler.errors import BadCron, BadRate, NeverFires, SpecError, UnknownTimezone

Dialect = Literal["auto", "standard", "aws", "quartz"]
DayRule = Literal["robfig", "debian"]
DstPolicy = Literal["once", "instant", "skip_once"]
RateUnit = Literal["second", "minute", "hour", "day"]

_CRON_OPTIONS: Final = {"timezone": "UTC", "dialect": "auto", "day_rule": "robfig", "dst": "once"}
_KINDS: Final = ("cron", "fixed_rate", "every", "at")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

UNIT_SECONDS: Final[dict[str, int]] = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


class _Occurrences:
    """The public view of a compiled schedule in datetimes."""

    def schedule(self, anchor: int | None = None, identity: str = "") -> Schedule:
        """The compiled schedule; `anchor` and `identity` as `occurrences.compile_schedule` takes them."""
        raise NotImplementedError

    def _compiled(self, activated_at: datetime | None) -> Schedule:
        raise NotImplementedError

    def next_after(self, instant: datetime, activated_at: datetime | None = None) -> datetime | None:
        """The earliest fire strictly after `instant`, in UTC; None once the schedule is finished.

        `activated_at` matters only to a `FixedRate` without start time, which counts from it.
        """
        return occurrences.next_datetime(self._compiled(activated_at), instant)

    def previous_before(self, instant: datetime, activated_at: datetime | None = None) -> datetime | None:
        """The latest fire strictly before `instant`, in UTC; None if there is none since 1970."""
        return occurrences.previous_datetime(self._compiled(activated_at), instant)

    def between(self, after: datetime, until: datetime, activated_at: datetime | None = None) -> Iterator[datetime]:
        """The fires in (after, until], oldest first, in UTC."""
        return occurrences.datetimes_between(self._compiled(activated_at), after, until)


@dataclass(frozen=True)
class Cron(_Occurrences):
    """Fires at the local wall-clock times that `expression` matches in `timezone`, an IANA name.

    `dialect` auto | standard | aws | quartz; `day_rule` robfig | debian (how day-of-month and day-of-week combine);
    `dst` once | instant | skip_once (what happens around an offset change). A prefix `CRON_TZ=` or `TZ=` of the
    expression is taken as the zone. Raises `BadCron`, `UnknownTimezone` or `NeverFires`.
    """

    expression: str
    timezone: str = "UTC"
    dialect: Dialect = "auto"
    day_rule: DayRule = "robfig"
    dst: DstPolicy = "once"

    def __post_init__(self) -> None:
        for name in ("expression", "timezone"):
            if not isinstance(getattr(self, name), str):
                raise _wrong_type(BadCron if name == "expression" else UnknownTimezone, name, getattr(self, name))
        for name, allowed in (("dialect", Dialect), ("day_rule", DayRule), ("dst", DstPolicy)):
            if getattr(self, name) not in get_args(allowed):
                raise BadCron(name, f"{getattr(self, name)!r} is none of {', '.join(get_args(allowed))}")
        zone, rest = split_zone(self.expression)
        if zone is not None and self.timezone not in ("UTC", zone):
            raise BadCron("timezone", f"{self.timezone!r} contradicts {zone!r} in the expression: name one zone only")
        object.__setattr__(self, "expression", rest)
        object.__setattr__(self, "timezone", zone or self.timezone)
        # Compiling is the check: what cannot be compiled cannot be built.
        self.__dict__["_plain"] = self.schedule()

    def schedule(self, anchor: int | None = None, identity: str = "") -> Schedule:
        return occurrences.compile_cron(self.expression, self.timezone, self.dialect, self.day_rule, self.dst, identity)

    def _compiled(self, activated_at: datetime | None) -> Schedule:
        schedule: Schedule = self.__dict__["_plain"]
        return schedule

    def __reduce__(self) -> tuple[type[Cron], tuple[str, ...]]:
        # The compiled schedule stays behind: whoever unpickles compiles against the zone data found there.
        return Cron, (self.expression, self.timezone, self.dialect, self.day_rule, self.dst)

    def __str__(self) -> str:
        return self.expression if self.timezone == "UTC" else f"CRON_TZ={self.timezone} {self.expression}"


@dataclass(frozen=True)
class FixedRate(_Occurrences):
    """Fires every `value` seconds, minutes, hours or days of 24 hours; zones and clock changes do not matter.

    With `start_time` (floored to the second) the first fire is at it; without, it is one interval after activation.
    Raises `BadRate`, or `NeverFires` where the first fire would be past 2199.
    """

    value: int
    unit: RateUnit
    start_time: datetime | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise BadRate("value", f"{self.value!r} is not a whole number")
        if self.unit not in UNIT_SECONDS:
            raise BadRate("unit", f"{self.unit!r} is none of {', '.join(UNIT_SECONDS)}")
        if self.value <= 0:
            raise BadRate("value", f"{self.value} is not positive")
        if self.interval >= HORIZON:
            raise BadRate("value", f"{self.value} {self.unit}s is longer than 1970–2199 lasts")
        if self.start_time is not None:
            start = _whole_second(self.start_time, "start_time")
            if start >= HORIZON:
                raise NeverFires(
                    "start_time", f"{self.start_time.isoformat()} is after 2199, the last year that is planned"
                )
            object.__setattr__(self, "start_time", to_datetime(start * SECOND))

    @property
    def interval(self) -> int:
        """The interval in whole seconds."""
        return self.value * UNIT_SECONDS[self.unit]

    @cached_property
    def _start(self) -> int | None:
        return None if self.start_time is None else _whole_second(self.start_time, "start_time")

    def schedule(self, anchor: int | None = None, identity: str = "") -> Schedule:
        if self._start is None and anchor is None:
            raise BadRate(
                "activated_at", "a fixed rate without start_time counts from its activation: name that instant"
            )
        return occurrences.compile_rate(self.interval, self._start, None if self._start is not None else anchor)

    def _compiled(self, activated_at: datetime | None) -> Schedule:
        return self.schedule(None if activated_at is None else _whole_second(activated_at, "activated_at"))

    def __str__(self) -> str:
        text = f"rate({self.value} {self.unit}{'' if self.value == 1 else 's'})"
        return text if self.start_time is None else f"{text} from {to_rfc3339(from_datetime(self.start_time))}"


@dataclass(frozen=True)
class At(_Occurrences):
    """Fires once, at `instant` floored to the second. Raises `NeverFires` outside 1970–2199."""

    instant: datetime

    def __post_init__(self) -> None:
        instant = _whole_second(self.instant, "at")
        if not 0 <= instant < HORIZON:
            raise NeverFires("at", f"{self.instant.isoformat()} is not within 1970–2199")
        object.__setattr__(self, "instant", to_datetime(instant * SECOND))

    @cached_property
    def _second(self) -> int:
        return from_datetime(self.instant) // SECOND

    def schedule(self, anchor: int | None = None, identity: str = "") -> Schedule:
        return occurrences.compile_at(self._second)

    def _compiled(self, activated_at: datetime | None) -> Schedule:
        return self.schedule()

    def __str__(self) -> str:
        return f"at({to_rfc3339(from_datetime(self.instant))})"


Automation: TypeAlias = Cron | FixedRate | At


def parse_schedule(text: str, **options: Any) -> Cron | FixedRate | At:
    """The schedule that one line of text names.

    `0 9 * * 1-5`, `@daily`, `CRON_TZ=Europe/Paris 0 2 * * *`, `cron(0 10 * * ? *)`, `@every 1h30m` (truncated to whole
    seconds, at least one), `rate(5 minutes)`, `rate(5 minutes) from 2026-11-21T12:00:00Z`, `at(2026-11-21T12:00:00)`.
    `options` are those of `Cron`; `timezone` also reads an `at(…)` without offset, and rates need none of them.
    """
    if not isinstance(text, str):
        raise _wrong_type(SpecError, "schedule", text)
    unknown = sorted(set(options) - set(_CRON_OPTIONS))
    if unknown:
        raise SpecError(unknown[0], unknown_key(unknown[0], _CRON_OPTIONS))
    stripped = text.strip()
    rate = parse_rate(stripped)
    if rate is not None:
        value, unit, start = rate
        return FixedRate(value, unit, None if start is None else to_datetime(start))  # type: ignore[arg-type]
    moment = parse_at(stripped)
    if moment is not None:
        if moment.tzinfo is None:
            local = int((moment.replace(tzinfo=UTC) - _EPOCH).total_seconds())
            moment = to_datetime(occurrences.instant_of(local, options.get("timezone", "UTC")) * SECOND)
        return At(moment)
    return Cron(stripped, **options)


def describe(automation: Automation, identity: str = "") -> str:
    """The schedule in plain English: `At 02:00, Monday to Friday (Europe/Paris)`.

    `identity` (`project/domain/task/trigger`) tells what `H` stands for; without it the text says that it is open.
    """
    if isinstance(automation, Cron):
        fields = occurrences.parse_fields(automation.expression, automation.dialect, identity)
        text = describe_cron(fields, automation.timezone, automation.day_rule)
        hashed = not identity and occurrences.is_hashed(automation.expression, automation.dialect)
        return f"{text}, where H depends on the trigger" if hashed else text
    if isinstance(automation, FixedRate):
        text = describe_rate(automation.value, automation.unit)
        return text if automation.start_time is None else f"{text}, from {_spoken(automation.start_time)}"
    return f"Once, at {_spoken(automation.instant)}"


def automation_to_document(automation: Automation) -> dict[str, Any]:
    """The JSON form, defaults left out; `automation_from_document` reads it back."""
    if isinstance(automation, Cron):
        document: dict[str, Any] = {"expression": automation.expression}
        for name, default in _CRON_OPTIONS.items():
            if getattr(automation, name) != default:
                document[name] = getattr(automation, name)
        return {"cron": document}
    if isinstance(automation, FixedRate):
        document = {"value": automation.value, "unit": automation.unit}
        if automation.start_time is not None:
            document["start_time"] = to_rfc3339(from_datetime(automation.start_time))
        return {"fixed_rate": document}
    return {"at": to_rfc3339(from_datetime(automation.instant))}


def automation_from_document(document: object, *, default_timezone: str = "UTC") -> Automation:
    """The schedule of a document with one of the keys `cron`, `fixed_rate`, `every` and `at`.

    Also takes what people write by hand: `{"cron": "0 2 * * *"}`, `{"every": "1h30m"}`. A cron that names no zone gets
    `default_timezone`. Raises `SpecError` with the path of the part that is wrong.
    """
    if not isinstance(document, Mapping):
        raise SpecError("automation", f"{document!r} is not a mapping with one of {', '.join(_KINDS)}")
    _only_known(document, _KINDS, "")
    if len(document) != 1:
        named = " and ".join(str(key) for key in document) or "nothing"
        raise SpecError("automation", f"names {named}: exactly one of {', '.join(_KINDS)} is allowed")
    ((kind, value),) = document.items()
    if kind == "cron":
        return _cron_of(value, default_timezone)
    if kind == "every":
        if not isinstance(value, str):
            raise _wrong_type(BadRate, kind, value)
        every, unit = parse_every(value, exact=True)
        return FixedRate(every, unit)  # type: ignore[arg-type]
    if kind == "at":
        return At(_datetime_of(value, "at"))
    if not isinstance(value, Mapping):
        raise BadRate("fixed_rate", f"{value!r} is not a mapping of value, unit and start_time")
    _only_known(value, ("value", "unit", "start_time"), "fixed_rate.")
    for name in ("value", "unit"):
        if name not in value:
            raise BadRate(f"fixed_rate.{name}", "is missing")
    start = value.get("start_time")
    return FixedRate(
        value["value"], value["unit"], None if start is None else _datetime_of(start, "fixed_rate.start_time")
    )


def _cron_of(value: object, default_timezone: str) -> Cron | FixedRate:
    if isinstance(value, str):
        value = {"expression": value}
    if not isinstance(value, Mapping):
        raise _wrong_type(BadCron, "cron", value)
    _only_known(value, ("expression", *_CRON_OPTIONS), "cron.")
    if "expression" not in value:
        raise BadCron("cron.expression", "is missing")
    for name, part in value.items():
        if not isinstance(part, str):
            raise _wrong_type(BadCron, f"cron.{name}", part)
    options = {name: part for name, part in value.items() if name != "expression"}
    if "timezone" not in options and split_zone(value["expression"])[0] is None:
        options["timezone"] = default_timezone
    schedule = parse_schedule(value["expression"], **options)
    if isinstance(schedule, At):
        raise BadCron("cron", f"{value['expression']!r} is a single instant: write at instead of cron")
    return schedule


def _datetime_of(value: object, field: str) -> datetime:
    # YAML reads an unquoted time as a datetime already.
    if isinstance(value, datetime):
        return to_datetime(from_datetime(value, field))
    if isinstance(value, str):
        return to_datetime(parse_rfc3339(value, field))
    raise SpecError(field, f"{value!r} is not a time like 2026-11-21T02:00:00Z")


def _only_known(document: Mapping[Any, Any], known: Iterable[str], prefix: str) -> None:
    for key in document:
        if key not in known:
            raise SpecError(f"{prefix}{key}", unknown_key(str(key), known))


def _whole_second(moment: object, field: str) -> int:
    if not isinstance(moment, datetime):
        raise SpecError(field, f"{moment!r} is not a datetime")
    return from_datetime(moment, field) // SECOND


def _wrong_type(error: type[SpecError], field: str, value: object) -> SpecError:
    return error(field, f"{value!r} is not a text" + (": quote it" if isinstance(value, (int, float)) else ""))


def _spoken(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC").replace(":00 UTC", " UTC")
