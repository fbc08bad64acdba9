"""Kinds of values: written, inferred and fitted; as Flyte's literals and back."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import pytest
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import json_format, struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.errors import PermanentError
from executors.flyte import literals
from executors.flyte.interface import InputTypes, fitted_inputs
from executors.flyte.kept import kept_job, kept_meta
from executors.flyte.kinds import Kind, ListOf, MapOf, OneOf, Simple, fit, infer, parse_kind
from executors.protocol import RunContext

INT, FLOAT, STR, ANY, NONE, STRUCT = (
    Simple.INTEGER,
    Simple.FLOAT,
    Simple.STRING,
    Simple.ANY,
    Simple.NONE,
    Simple.STRUCT,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("int", INT),
        ("INTEGER", INT),
        ("string", STR),
        (" str ", STR),
        ("list", ListOf(ANY)),
        ("list[list[int]]", ListOf(ListOf(INT))),
        ("dict", STRUCT),
        ("dict[str, float]", MapOf(FLOAT)),
        ("int | None", OneOf((INT, NONE))),
        ("list[int | str] | None", OneOf((ListOf(OneOf((INT, STR))), NONE))),
        ("datetime", Simple.DATETIME),
        ("timedelta", Simple.DURATION),
    ],
)
def test_a_type_is_written_as_python_writes_it(text: str, kind: Kind) -> None:
    assert parse_kind(text) == kind
    assert parse_kind(str(kind)) == kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "something is missing at its end"),
        ("integre", "'integre' is no type (known: int, float"),
        ("list[int", "a ] is missing"),
        ("list[int]]", "']' is too much"),
        ("dict[int, str]", "the keys of a dict are texts"),
        ("int[str]", "only list and dict have parts"),
        ("int |", "something is missing"),
        ("int & str", "'& str' is not understood"),
        ("list[" * 30 + "int" + "]" * 30, "more than 20 deep"),
    ],
)
def test_what_is_no_type_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_kind(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, NONE),
        (True, Simple.BOOLEAN),
        (3, INT),
        (3.0, FLOAT),
        ("x", STR),
        ({"a": [1, "x"]}, STRUCT),
        ([], ListOf(NONE)),
        ([1, 2], ListOf(INT)),
        ([1, 2.5], ListOf(FLOAT)),
        ([[], [1], [2.5]], ListOf(ListOf(FLOAT))),
        ([{"a": 1}, {}], ListOf(STRUCT)),
    ],
)
def test_an_undeclared_value_is_what_it_looks_like(value: Any, kind: Kind) -> None:
    assert infer(value, "x") == kind


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (True, INT, "x must be a whole number, not true or false"),
        (1, Simple.BOOLEAN, "x must be true or false, not a whole number"),
        (2**63, INT, "x is a number of more than 64 bits"),
        (10**400, FLOAT, "x is too large a number"),
        ([2**53 + 1, 0.5], ANY, "x[0] is a whole number that a float cannot hold exactly"),
        (float("nan"), FLOAT, "x is nan"),
        ("\ud800", STR, "half a surrogate pair"),
        ("x", ListOf(STR), "x must be list[str], not a text"),
        ([1, [2]], ListOf(ListOf(INT)), "x[0] must be list[int], not a whole number"),
        ({"a": "b"}, MapOf(INT), "x.a must be a whole number, not a text"),
        ([1, "a"], ANY, "x holds values of different kinds (int, str): put it into an object"),
        ([1, None], ListOf(OneOf((INT, NONE))), "x holds values of different kinds (int, None)"),
        ("2026-11-21", Simple.DATETIME, "x is a time without a zone"),
        ("soon", Simple.DATETIME, "x must be a time like"),
        ("soon", Simple.DURATION, "x must be a number of seconds or a duration"),
        (1e300, Simple.DURATION, "x must be a number of seconds or a duration"),
        ("x", OneOf((INT, NONE)), "x must be int | None, not a text"),
        ({"a": float("inf")}, STRUCT, "x.a is inf"),
    ],
)
def test_a_value_that_does_not_fit_is_said_with_its_path(value: Any, kind: Kind, said: str) -> None:
    with pytest.raises(ValueError) as error:
        fit(value, kind, "x")
    assert said in str(error.value)


def test_what_is_left_open_is_decided_by_the_value() -> None:
    assert fit(None, OneOf((INT, NONE)), "x") == (None, NONE)
    assert fit(3, OneOf((INT, NONE)), "x") == (3, INT)
    assert fit([1, 2.5], parse_kind("list"), "x") == ([1, 2.5], ListOf(FLOAT))
    assert fit({"a": 1}, parse_kind("dict[str, any]"), "x") == ({"a": 1}, MapOf(INT))
    assert fit([], parse_kind("list[int | None]"), "x") == ([], ListOf(NONE))
    assert fit("1h30m", Simple.DURATION, "x")[0] == timedelta(hours=1, minutes=30)
    assert fit("2026-11-21T03:00:00+01:00", Simple.DATETIME, "x")[0] == datetime(2026, 11, 21, 2, tzinfo=UTC)


# --- literals --------------------------------------------------------------------------------------------------------

_NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_SIMPLE = st.none() | st.booleans() | _NUMBERS | st.text(st.characters(exclude_categories=["Cs"]))
_JSON = st.recursive(_SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), _JSON, max_size=4))
def test_an_object_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert round_trip(value) == value


@settings(max_examples=50)
@given(st.lists(st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_numbers_come_back_as_they_were(value: list[Any]) -> None:
    assert round_trip(value) == value


def round_trip(value: Any, kind: Kind = ANY) -> Any:
    """The value as Flyte's literal, serialized, and back."""
    (literal,) = literals.of_inputs({"x": fit(value, kind, "x")}).values()
    return literals.plain(literals_pb2.Literal.FromString(literal.SerializeToString()))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2026-11-21T02:00:00Z", "datetime"),
        (90, "timedelta"),
        (0.5, "timedelta"),
        (None, "None"),
        ({"a": [1, 2]}, "dict[str, list[int]]"),
        ([{"a": 1}], "list[dict]"),
        ([[1.5], []], "list[list[float]]"),
    ],
)
def test_declared_values_come_back_as_they_were(value: Any, text: str) -> None:
    assert round_trip(value, parse_kind(text)) == value


def test_types_are_flytes_own() -> None:
    kinds = {"a": "int", "b": "list[str]", "c": "dict[str, float]", "d": "int | None", "e": "dict"}
    found = literals.variables({name: parse_kind(text) for name, text in kinds.items()})
    types = {each.key: json_format.MessageToDict(each.value.type) for each in found.variables}
    assert types == {
        "a": {"simple": "INTEGER"},
        "b": {"collectionType": {"simple": "STRING"}},
        "c": {"mapValueType": {"simple": "FLOAT"}},
        "d": {"unionType": {"variants": [{"simple": "INTEGER"}, {"simple": "NONE"}]}},
        "e": {"simple": "STRUCT"},
    }
    assert types_pb2.LiteralType().WhichOneof("type") is None


def binary(value: Any, tag: str = "msgpack") -> Any:
    packed = value if isinstance(value, bytes) else msgpack.packb(value, datetime=True)
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(binary=literals_pb2.Binary(value=packed, tag=tag)))


def test_what_others_send_is_told_as_json() -> None:
    struct = struct_pb2.Struct()
    struct.update({"n": 3, "p": 0.5, "parts": [1, {"x": None}]})
    generic = literals_pb2.Literal(scalar=literals_pb2.Scalar(generic=struct))
    assert literals.plain(generic) == {"n": 3, "p": 0.5, "parts": [1, {"x": None}]}
    moment = datetime(2026, 11, 21, 2, tzinfo=UTC)
    packed = binary({1: moment, "raw": b"\0\1", "ext": msgpack.ExtType(5, b"x"), "inf": float("inf")})
    assert literals.plain(packed) == {
        "1": "2026-11-21T02:00:00Z",
        "raw": "AAE=",
        "ext": {"base64": "eA==", "tag": "5"},
        "inf": "inf",
    }
    blob = literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=literals_pb2.Blob(uri="s3://b/f")))
    assert literals.plain(blob) == {"uri": "s3://b/f"}
    inner = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=3)))
    union = literals_pb2.Literal(scalar=literals_pb2.Scalar(union=literals_pb2.Union(value=inner)))
    assert literals.plain(union) == 3
    nan = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(float_value=float("nan"))))
    assert literals.plain(nan) == "nan"
    assert literals.plain(literals_pb2.Literal()) is None


@pytest.mark.parametrize("broken", [b"", b"\xc1", b"\x81\xa1a", b"\x93" * 2000, b"\x80\x04\x95pickle"])
def test_what_cannot_be_read_is_handed_on_as_it_came(broken: bytes) -> None:
    found = literals.plain(binary(broken))
    assert found["tag"] == "msgpack"
    assert literals.plain(binary(broken, ""))["tag"] == ""


def test_an_object_that_messagepack_cannot_hold_is_refused() -> None:
    run = RunContext("n", inputs={"x": {"n": 2**70}})
    with pytest.raises(PermanentError, match=r"inputs\.x cannot be written for Flyte"):
        literals.of_inputs(fitted_inputs(run, InputTypes()))


def test_what_is_nested_without_end_is_refused_before_anything_is_sent() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(PermanentError, match=r"inputs\.x is nested too deeply"):
        fitted_inputs(RunContext("n", inputs={"x": deep}), InputTypes())


# --- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "job_id"),
    [
        (b'{"job_id": "a", "at": 1.5}', "batch:a"),
        (b'{"id": 7, "at": 1.5}', "batch:7"),
        (b'{"name": "only"}', "batch:only"),
        (b'{"name": "x", "at": 1}', ""),
        (b'{"job_id": null}', ""),
        (b"opaque", ""),
        (b"[1]", ""),
        (b"\xff\xfe", ""),
        (b"nul\0", ""),
        (b"", ""),
    ],
)
def test_metadata_is_kept_as_it_was_encoded(encoded: bytes, job_id: str) -> None:
    job = kept_job("batch", encoded)
    assert job.job_id == job_id
    assert kept_meta(job) == encoded
    assert "\0" not in str(job.meta)


# --- libraries -------------------------------------------------------------------------------------------------------


def test_nothing_of_flytes_is_imported_before_an_executor_is_made() -> None:
    script = (
        "import sys, executors.flyte.run, executors.flyte.service, executors.flyte.sdk\n"
        "found = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not found & {'flyte', 'flyteidl2', 'google', 'connectrpc', 'msgpack', 'grpc', 'pyqwest'}, found"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
