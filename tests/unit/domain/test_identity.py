"""Names: what may be one, and the deterministic name of a run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.identity import check_name, manual_run_name, reprocess_run_name, run_name, slot_run_name, slug
from scheduler.domain.instants import from_datetime
from scheduler.errors import SpecError

SLOT = datetime(2026, 11, 21, 2, tzinfo=UTC)
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
NAMES = st.one_of(
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=255),
    st.sampled_from(
        ["-", "---", "9", "9-9", "Ünïcödé", "İ", "ß" * 255, "日本語", "a" * 255, "-a-", "a.-", "0x0", "\u200b"]
    ),
)
HOSTILE = st.text(max_size=40)


def test_the_golden_run_name() -> None:
    name = run_name("flytesnacks", "development", "reports.nightly", "nightly", SLOT)
    assert name == "nightly-20261121t020000-g2daifx2bamnicz3zycwlpj66a"


def test_one_instant_has_one_name_in_every_zone() -> None:
    elsewhere = SLOT.astimezone(timezone(timedelta(hours=-8)))
    assert run_name("p", "d", "t", "n", elsewhere) == run_name("p", "d", "t", "n", SLOT)


@given(HOSTILE, HOSTILE, HOSTILE, st.one_of(NAMES, HOSTILE), st.integers(0, 7_258_118_399))
def test_every_run_name_is_a_dns_label_of_at_most_59_characters(
    project: str, domain: str, task: str, trigger: str, second: int
) -> None:
    for name in (
        slot_run_name(project, domain, task, trigger, second * 1_000_000),
        manual_run_name(project, domain, task, trigger, "key"),
        *(reprocess_run_name(project, domain, task, trigger, second * 1_000_000, 10**n) for n in (0, 5, 12)),
    ):
        assert len(name) <= 59
        assert DNS_LABEL.fullmatch(name), name


@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE), min_size=2, max_size=2, unique=True))
def test_two_identities_never_share_a_name(identities: list[tuple[str, str, str, str]]) -> None:
    slot = from_datetime(SLOT)
    first, second = identities
    assert slot_run_name(*first, slot) != slot_run_name(*second, slot)
    assert manual_run_name(*first, "key") != manual_run_name(*second, "key")


def test_parts_that_join_to_the_same_text_have_different_names() -> None:
    assert run_name("a", "b,c", "d", "e", SLOT) != run_name("a,b", "c", "d", "e", SLOT)
    assert run_name("a", 'b","c', "d", "e", SLOT) != run_name('a","b', "c", "d", "e", SLOT)


def test_a_manual_name_never_equals_a_slots() -> None:
    assert manual_run_name("a", "b", "c", "d", "2026-11-21T02:00:00Z") != run_name("a", "b", "c", "d", SLOT)


def test_names_sort_by_slot_within_a_trigger() -> None:
    names = [run_name("a", "b", "c", "d", SLOT + timedelta(minutes=number * 601)) for number in range(200)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("nightly", "nightly"), ("Nightly Report", "nightly-report"), ("9 lives", "lives"), ("日本", "t")),
        *(
            ("---", "t"),
            ("123", "t"),
            ("a_b.c", "a-b-c"),
            ("x" * 40, "x" * 16),
            ("abcdefghijklmno-pqr", "abcdefghijklmno"),
        ),
    ],
)
def test_a_slug_is_short_and_begins_with_a_letter(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_a_slot_is_a_whole_second() -> None:
    with pytest.raises(SpecError, match="not a whole second"):
        slot_run_name("a", "b", "c", "d", 1)
    with pytest.raises(SpecError, match="has no zone"):
        run_name("a", "b", "c", "d", SLOT.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *(("", "is empty"), ("a/b", "contains '/'"), (" a", "begins or ends with a space"), ("a\n", "space")),
        *(("a\x00b", "control character"), ("a\ud800b", "control character"), ("x" * 256, "at most 255")),
    ],
)
def test_what_cannot_be_a_name_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        check_name(name, "task")
    assert caught.value.field == "task"


@given(NAMES)
def test_any_other_text_may_be_a_name(name: str) -> None:
    if name == name.strip():
        assert check_name(name, "task") == name


def test_a_slot_that_is_done_again_is_named_by_the_backfill() -> None:
    slot = from_datetime(datetime(2026, 11, 21, 2, tzinfo=UTC))
    key = ("flytesnacks", "development", "reports.nightly", "nightly", slot)
    assert reprocess_run_name(*key, 7) == "nightly-b7-20261121t020000-bunsj2huf5ckcrgnikb2loymab"
    long = ("p", "d", "t", "a-trigger-with-a-long-name", slot)
    assert reprocess_run_name(*long, 1234567).startswith("a-trigg-b1234567-20261121t020000-")
    assert len({reprocess_run_name(*key, number) for number in range(1, 50)} | {slot_run_name(*key)}) == 50
