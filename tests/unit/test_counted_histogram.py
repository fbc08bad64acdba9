"""The histogram that is told of many observations at once, beside the library's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from scheduler.metrics import CountedHistogram

BOUNDS = (0.01, 0.25, 1, 60, 604_800)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["true", "false"]),
            st.sampled_from([0.0, *BOUNDS]) | st.integers(0, 1_000_000),
            st.integers(1, 5),
        )
    )
)
def test_it_tells_what_the_librarys_tells_that_is_asked_once_for_each(seen: list[tuple[str, float, int]]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    one_by_one = Histogram("lateness_seconds", "How late.", ["late"], buckets=BOUNDS, registry=theirs)
    counted = CountedHistogram("lateness_seconds", "How late.", "late", ["false", "true"], BOUNDS)
    ours.register(counted)
    for value in ("false", "true"):
        one_by_one.labels(value)
    for value, amount, number in seen:
        counted.observe(value, amount, number)
        for _ in range(number):
            one_by_one.labels(value).observe(amount)
    expected = [line for line in generate_latest(theirs).decode().splitlines() if "_sum" not in line]
    told = generate_latest(ours).decode().splitlines()
    assert [line for line in told if "_sum" not in line] == [line for line in expected if "_created" not in line]
    for value in ("false", "true"):
        total = sum(amount * number for late, amount, number in seen if late == value)
        (line,) = [line for line in told if line.startswith(f'lateness_seconds_sum{{late="{value}"}}')]
        assert abs(float(line.split()[-1]) - total) <= 1e-9 * max(1.0, total)
