"""Drawn task definitions for hypothesis: every key of a manifest, and texts that YAML, JSON and shells like to trip over."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from scheduler.domain.automation import At, Automation, Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import Environment, TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, TriggerSpec

PROJECTS = {"flytesnacks": ["development", "production"], "1.10": ["on"]}

_TRAPS = [
    *("yes", "no", "on", "null", "~", "true", "1.10", "007", "0x1f", "12:30", "2026-11-21", "1e3", ".inf", "-", "?"),
    *(
        "*/5 * * * *",
        "&a",
        "!!python/x",
        "%",
        "@daily",
        "`x`",
        "a: b",
        "a #b",
        "# c",
        "- a",
        "[a",
        "{a",
        "<<",
        "=",
        "---",
    ),
    *(
        "a\nb",
        "a\n\nb\n",
        "\ta",
        "a\\b",
        '"',
        "'",
        "a\u0085b",
        "\u2028",
        "\ufeff",
        "é",
        "日本語",
        "🎉",
        "a" * 300,
        "a " * 90,
    ),
]
TEXTS = st.one_of(
    st.sampled_from(_TRAPS), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
)
NAMES = st.one_of(
    st.sampled_from(["nightly", "a.b", "yes", "1.10", "007", "é", "# x", "-", "a: b", "日本", "x" * 255, "*", "<<"]),
    st.text(st.characters(categories=["L", "N", "P"], exclude_characters="/"), min_size=1, max_size=12),
)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([1e22, -0.0, 1e-9])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
MAPPINGS = st.dictionaries(TEXTS, VALUES, max_size=3)
DURATIONS = st.one_of(
    st.sampled_from([timedelta(milliseconds=500), timedelta(hours=24), timedelta(days=7, seconds=1)]),
    st.integers(1, 10**12).map(lambda micros: timedelta(microseconds=micros)),
)
INSTANTS = st.datetimes(datetime(2026, 11, 1), datetime(2027, 12, 31), timezones=st.just(UTC))
ZONES = st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Asia/Kathmandu"])
CRONS = st.one_of(
    st.builds(
        Cron,
        st.sampled_from(["0 2 * * *", "@daily", "*/5 * * * *", "30 9 * * MON-FRI", "H 3 * * *", "0 18 * * 5L"]),
        ZONES,
        day_rule=st.sampled_from(["robfig", "debian"]),
        dst=st.sampled_from(["once", "instant", "skip_once"]),
    ),
    st.builds(Cron, st.sampled_from(["0 0 12 ? * MON-FRI", "0/30 * * * * ?"]), ZONES, st.just("quartz")),
    st.builds(Cron, st.sampled_from(["cron(0 10 ? * MON-FRI *)", "0 10 * * ? *"]), ZONES),
    st.just(Cron("CRON_TZ=Asia/Tokyo 0 2 * * *")),
)
RATES = st.builds(
    FixedRate, st.integers(1, 90), st.sampled_from(["second", "minute", "hour", "day"]), st.none() | INSTANTS
)
AUTOMATIONS: st.SearchStrategy[Automation | None] = st.one_of(st.none(), CRONS, RATES, st.builds(At, INSTANTS))
POLICIES = st.sampled_from(["skip", "previous", "next"])
DAYS = st.frozensets(st.dates(date(2026, 11, 20), date(2027, 1, 10)), max_size=4)


@st.composite
def triggers(draw: st.DrawFn, calendars: list[Calendar], name: str) -> TriggerSpec:
    """A trigger of this name under some of the calendars."""
    options: dict[str, Any] = {
        "kickoff_time_input_arg": NAMES,
        "inputs": MAPPINGS,
        "catchup": st.builds(
            CatchUp, st.sampled_from(["all", "latest", "none", "gap"]), DURATIONS, st.integers(0, 1_000)
        ),
        "overlap": st.sampled_from(["allow_all", "skip", "buffer_one", "buffer_all", "cancel_other"]),
        "pause_on_failure": st.integers(1, 99),
        "jitter": st.integers(0, 10**8).map(lambda micros: timedelta(microseconds=micros)),
        "max_fires": st.integers(1, 2**31 - 1),
        "active": st.booleans(),
        "description": TEXTS,
    }
    if calendars:
        options["calendars"] = st.lists(st.sampled_from(calendars), max_size=2).map(tuple)
    given = {key: draw(options[key]) for key in draw(st.sets(st.sampled_from(sorted(options)), max_size=5))}
    start = draw(st.none() | INSTANTS)
    end = draw(st.none() | st.just(start + timedelta(days=draw(st.integers(1, 99))))) if start is not None else None
    return TriggerSpec(name, draw(AUTOMATIONS), start=start, end=end, **given)


SPECS = st.builds(
    TaskSpec,
    executor=NAMES,
    config=MAPPINGS,
    inputs=MAPPINGS,
    timeout=st.none() | DURATIONS,
    deadline=st.none() | DURATIONS,
    retries=st.just(RetryPolicy())
    | st.builds(RetryPolicy, st.integers(1, 99), DURATIONS, st.floats(1, 100).map(float), DURATIONS),
    max_concurrent_runs=st.none() | st.integers(1, 99),
    on_lost=st.sampled_from(["retry", "fail"]),
    on_unknown=st.sampled_from(["fail", "resubmit"]),
    cancel_give_up=st.just(timedelta(hours=24)) | DURATIONS,
)
PLACES = [(project, domain) for project, domains in PROJECTS.items() for domain in domains]


@st.composite
def definitions(draw: st.DrawFn, *, names: st.SearchStrategy[str] = NAMES, calendars: bool = True) -> TaskDefinition:
    """One task with up to three triggers; calendars of one name need not agree."""
    drawn = st.builds(Calendar, st.sampled_from(["holidays", "on", "é"]), DAYS, POLICIES)
    known = draw(st.lists(drawn, max_size=3)) if calendars else []
    place = draw(st.sampled_from(PLACES))
    return TaskDefinition(
        *place,
        draw(names),
        draw(NAMES),
        draw(SPECS),
        tuple(draw(triggers(known, name)) for name in draw(st.lists(NAMES, max_size=3, unique=True))),
        Environment(draw(st.just("") | NAMES), draw(st.just("") | TEXTS)),
        draw(st.just("") | TEXTS),
        draw(st.just("") | TEXTS),
    )
