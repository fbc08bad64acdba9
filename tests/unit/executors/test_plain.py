"""Metadata is found again as it was written, whatever a dataclass may hold."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors import ResourceMeta
from executors.plain import from_plain, to_plain

TEXT = st.text(st.characters(codec="utf-8"))
MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.datetimes()
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


class Size(enum.Enum):
    SMALL = "s"
    LARGE = 2


@dataclass(frozen=True)
class Place:
    region: str
    racks: tuple[int, ...] = ()


@dataclass
class Everything(ResourceMeta):
    job_id: str
    number: int
    ratio: float
    flag: bool
    size: Size
    place: Place
    word: Literal["a", "b", 3]
    started: datetime
    day: date
    took: timedelta
    ident: UUID
    amount: Decimal
    raw: bytes
    path: PurePosixPath
    pair: tuple[int, str]
    names: set[str]
    places: list[Place]
    by_name: dict[str, Place]
    by_number: dict[int, list[float]]
    by_size: dict[Size, int]
    perhaps: Place | None
    either: int | str
    anything: Any = None
    nothing: None = None
    frozen: frozenset[int] = field(default_factory=frozenset)


PLACES = st.builds(Place, TEXT, st.lists(st.integers(), max_size=3).map(tuple))
EVERYTHING = st.builds(
    Everything,
    job_id=TEXT,
    number=st.integers(),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    size=st.sampled_from(Size),
    place=PLACES,
    word=st.sampled_from(["a", "b", 3]),
    started=MOMENTS,
    day=st.dates(),
    took=st.timedeltas(),
    ident=st.uuids(),
    amount=st.decimals(allow_nan=False),
    raw=st.binary(max_size=20),
    path=st.sampled_from([PurePosixPath("/a/b c"), PurePosixPath("x")]),
    pair=st.tuples(st.integers(), TEXT),
    names=st.sets(TEXT, max_size=3),
    places=st.lists(PLACES, max_size=3),
    by_name=st.dictionaries(TEXT, PLACES, max_size=3),
    by_number=st.dictionaries(
        st.integers(), st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=2), max_size=3
    ),
    by_size=st.dictionaries(st.sampled_from(Size), st.integers(), max_size=2),
    perhaps=st.none() | PLACES,
    either=st.integers() | TEXT,
    anything=JSON,
    frozen=st.frozensets(st.integers(), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(EVERYTHING)
def test_what_is_encoded_is_decoded_to_the_same(meta: Everything) -> None:
    encoded = meta.encode()
    assert isinstance(json.loads(encoded), dict)
    assert Everything.decode(encoded) == meta


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_what_is_plain_already_stays_as_it_is(value: Any) -> None:
    assert from_plain(Any, to_plain(value)) == value


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_anything_else_is_refused_as_no_such_metadata(document: Any) -> None:
    with pytest.raises(ValueError, match="this is no Everything"):
        Everything.decode(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"job_id": 7}', b'{"job_id": null}', b"{}"])
def test_broken_metadata_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="this is no Simple"):
        Simple.decode(data)


@dataclass
class Simple(ResourceMeta):
    job_id: str
    region: str = "eu"


def test_fields_come_and_go_between_versions() -> None:
    assert Simple.decode(b'{"job_id":"7","zone":"b"}') == Simple("7")
    assert Simple.decode(Simple("7", "us").encode()) == Simple("7", "us")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "nan is a number that JSON does not have"),
        (float("-inf"), "-inf is a number"),
        (object(), "a object cannot be kept as JSON"),
        ({"a": [1, {2j}]}, "a complex cannot be kept"),
    ],
)
def test_what_json_cannot_carry_is_refused(value: Any, reason: str) -> None:
    with pytest.raises((TypeError, ValueError), match=reason):
        to_plain(value)


def test_metadata_that_is_no_dataclass_says_so() -> None:
    class Forgotten(ResourceMeta):
        job_id: str = ""

    with pytest.raises(TypeError, match="Forgotten must be a dataclass: put @dataclass above it"):
        Forgotten().encode()
