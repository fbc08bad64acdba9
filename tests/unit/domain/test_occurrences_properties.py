"""What must hold for every schedule."""

from __future__ import annotations

from itertools import islice, pairwise

from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.automation import At, Automation, Cron, FixedRate
from scheduler.domain.instants import to_datetime
from scheduler.domain.occurrences import HORIZON, bounded, compile_schedule, jitter_of
from scheduler.domain.simple_schedules import Schedule
from scheduler.domain.zones import zone_of
from scheduler.errors import SpecError

ZONES = st.sampled_from(
    (
        *("UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Pyongyang"),
        *("Asia/Beirut", "Africa/Casablanca", "Antarctica/Troll", "Pacific/Chatham", "Asia/Tokyo", "America/Havana"),
    )
)
INSTANTS = st.integers(0, HORIZON - 1)


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # Never 5-5: croniter takes an equal range for the whole field.
    span = st.tuples(number, number).map(
        lambda ends: f"{min(ends)}-{max(ends)}" if ends[0] != ends[1] else f"{ends[0]}"
    )
    step = st.integers(1, high).map(lambda n: f"*/{n}")
    return st.one_of(
        st.just("*"),
        number.map(str),
        step,
        st.lists(st.one_of(number.map(str), span), min_size=1, max_size=3).map(",".join),
    )


def near_changes(zone: str) -> st.SearchStrategy[int]:
    ends = [end for end in zone_of(zone).ends if 0 < end < HORIZON]
    if not ends:
        return INSTANTS
    return st.one_of(
        INSTANTS, st.builds(lambda end, shift: end + shift, st.sampled_from(ends), st.integers(-9_000, 9_000))
    )


@st.composite
def crons(draw: st.DrawFn) -> Cron:
    days = st.sampled_from(("* *", "* *", "1 *", "L *", "* MON-FRI", "* 5L", "13 5", "29 2#1"))
    dom, dow = draw(days).split()
    fields = [draw(numbers(0, 59)), draw(numbers(0, 23)), dom, draw(numbers(1, 12)), dow]
    if draw(st.integers(0, 9)) == 0:
        fields.insert(0, draw(numbers(0, 59)))
    return Cron(" ".join(fields), draw(ZONES), dst=draw(st.sampled_from(("once", "instant", "skip_once"))))


@st.composite
def schedules_and_instants(draw: st.DrawFn) -> tuple[Schedule, int]:
    kind = draw(st.sampled_from(("cron", "cron", "cron", "rate", "at")))
    automation: Automation
    if kind == "cron":
        automation = draw(crons())
        return compile_schedule(automation), draw(near_changes(automation.timezone))
    instant = draw(INSTANTS)
    if kind == "at":
        automation = At(to_datetime(instant * 1_000_000))
        return compile_schedule(automation), draw(st.integers(max(0, instant - 2), instant + 2))
    automation = FixedRate(draw(st.integers(1, 10**6)), draw(st.sampled_from(("second", "minute"))))
    return compile_schedule(automation, anchor=instant), draw(INSTANTS)


@settings(max_examples=300, deadline=None)
@given(schedules_and_instants())
def test_the_next_fire_is_later_and_the_one_before_it_is_not(case: tuple[Schedule, int]) -> None:
    schedule, t = case
    fire = schedule.next_after(t)
    if fire is None:
        return
    assert fire > t
    previous = schedule.previous_before(fire)
    assert previous is None or previous <= t
    assert schedule.previous_before(fire + 1) == fire
    if previous is not None:
        assert schedule.next_after(previous) == fire
        assert schedule.next_after(previous - 1) == previous


@settings(max_examples=200, deadline=None)
@given(schedules_and_instants(), st.integers(1, 90_000))
def test_the_count_and_between_equal_the_walk(case: tuple[Schedule, int], length: int) -> None:
    schedule, t = case
    walked: list[int] = []
    fire = schedule.next_after(t)
    while fire is not None and fire <= t + length and len(walked) < 2_000:
        walked.append(fire)
        fire = schedule.next_after(fire)
    until = t + length if len(walked) < 2_000 else walked[-1]
    assert list(islice(schedule.between(t, until), 2_001)) == walked
    assert schedule.count(t, until) == len(walked)
    assert all(earlier < later for earlier, later in pairwise(walked))


@settings(max_examples=200, deadline=None)
@given(schedules_and_instants(), INSTANTS, INSTANTS)
def test_counts_add_up_over_any_cut(case: tuple[Schedule, int], one: int, other: int) -> None:
    schedule, _ = case
    low, high = sorted((one, other))
    assert schedule.count(-1, HORIZON) == sum(
        (schedule.count(-1, low), schedule.count(low, high), schedule.count(high, HORIZON))
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 23), st.integers(0, 59), ZONES, st.integers(1975, 2190), st.data())
def test_once_fires_each_local_time_exactly_once_a_day(
    hour: int, minute: int, zone: str, year: int, data: st.DataObject
) -> None:
    """As many fires as days between two noons at which clocks are calm, whatever they did in between."""
    schedule = compile_schedule(Cron(f"{minute} {hour} * * *", zone))
    first = (year - 1970) * 31_556_952 // 86_400
    days = data.draw(st.integers(1, 800))
    # A time of its own keeps the ends of the stretch from coinciding with a fire.
    start, end = (
        zone_of(zone).earliest(day * 86_400 + (hour * 60 + minute) * 60 + 43_230) for day in (first, first + days)
    )
    # A day that the clocks jumped over (Apia, 2011) begins where the next one does: at midnight both are one fire.
    readings = [day * 86_400 + (hour * 60 + minute) * 60 for day in range(first + 1, first + days + 1)]
    merged = sum(zone_of(zone).earliest(one) == zone_of(zone).earliest(one + 86_400) for one in readings)
    assert schedule.count(start, end) == days - merged
    assert len(list(schedule.between(start, end))) == days - merged


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_croniter_agrees_where_clocks_never_change(data: st.DataObject) -> None:
    fields = [data.draw(numbers(0, 59)), data.draw(numbers(0, 23)), "*", data.draw(numbers(1, 12)), "*"]
    fields[data.draw(st.sampled_from((2, 4)))] = data.draw(st.sampled_from(("*", "1", "5", "2-6")))
    text = " ".join(fields)
    t = data.draw(st.integers(0, 2**31))
    other = croniter(text, t)
    schedule = compile_schedule(Cron(text))
    for _ in range(5):
        t = schedule.next_after(t) or 0
        # Its timestamps are floats; five-field expressions fire on whole minutes, far from what a float loses.
        assert t == int(other.get_next(float)), text


@settings(max_examples=200, deadline=None)
@given(schedules_and_instants(), INSTANTS, st.integers(1, 10**9))
def test_bounds_include_the_start_and_the_end(case: tuple[Schedule, int], start: int, length: int) -> None:
    schedule, t = case
    end = start + length - 1
    inside = bounded(schedule, start, end)
    first = inside.next_after(-1)
    assert first is None or start <= first <= end
    following = schedule.next_after(start - 1)
    assert first == (following if following is not None and following <= end else None)
    last = inside.previous_before(HORIZON)
    assert last is None or start <= last <= end
    assert inside.count(-1, HORIZON) == schedule.count(start - 1, end)
    assert bounded(schedule, None, None).next_after(t) == schedule.next_after(t)
    if first is not None:
        assert bounded(schedule, None, first).previous_before(HORIZON) == first


@given(st.text(max_size=30), INSTANTS, st.integers(0, 10**10), st.one_of(st.none(), st.integers(1, 10**5)))
def test_jitter_stays_before_the_next_slot(identity: str, slot: int, jitter: int, gap: int | None) -> None:
    following = None if gap is None else slot + gap
    shift = jitter_of(identity, slot, jitter, following)
    assert 0 <= shift <= jitter
    assert following is None or slot * 1_000_000 + shift < following * 1_000_000
    assert shift == jitter_of(identity, slot, jitter, following)


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="0123456789*/,-?LW#HR @ABCJNMOSU", max_size=30),
    st.sampled_from(("auto", "standard", "aws", "quartz")),
)
def test_any_text_is_read_or_refused_and_nothing_else(text: str, dialect: str) -> None:
    try:
        cron = Cron(text, dialect=dialect)  # type: ignore[arg-type]
    except SpecError:
        return
    assert compile_schedule(cron).next_after(-1) is not None
