"""JSON values as Flyte's literals, and literals as JSON.

Objects travel as MessagePack, as Flyte's SDK sends them: whole numbers stay whole, which they would not in a Struct.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgpack
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2
from google.protobuf import duration_pb2, json_format, timestamp_pb2

from executors.errors import PermanentError
from executors.flyte.interface import Fitted
from executors.flyte.kinds import Kind, ListOf, MapOf, OneOf, Simple

_MSGPACK: Final = "msgpack"
_SIMPLE: Final[Mapping[Kind, Any]] = {
    Simple.INTEGER: types_pb2.INTEGER,
    Simple.FLOAT: types_pb2.FLOAT,
    Simple.STRING: types_pb2.STRING,
    Simple.BOOLEAN: types_pb2.BOOLEAN,
    Simple.DATETIME: types_pb2.DATETIME,
    Simple.DURATION: types_pb2.DURATION,
    Simple.STRUCT: types_pb2.STRUCT,
    Simple.NONE: types_pb2.NONE,
    Simple.ANY: types_pb2.STRUCT,
}


# --- to Flyte --------------------------------------------------------------------------------------------------------


def literal_type(kind: Kind) -> Any:
    """Flyte's `LiteralType` for a kind."""
    match kind:
        case ListOf(item):
            return types_pb2.LiteralType(collection_type=literal_type(item))
        case MapOf(item):
            return types_pb2.LiteralType(map_value_type=literal_type(item))
        case OneOf(members):
            variants = [literal_type(member) for member in members]
            return types_pb2.LiteralType(union_type=types_pb2.UnionType(variants=variants))
    return types_pb2.LiteralType(simple=_SIMPLE[kind])


def variables(kinds: Mapping[str, Kind]) -> Any:
    """One side of a task's interface."""
    entries = [
        interface_pb2.VariableEntry(key=name, value=interface_pb2.Variable(type=literal_type(kind)))
        for name, kind in kinds.items()
    ]
    return interface_pb2.VariableMap(variables=entries)


def of_inputs(inputs: Fitted) -> dict[str, Any]:
    """Literals of inputs that fit their kinds; raises `PermanentError` for what cannot be written."""
    try:
        return {name: _literal(value, kind, f"inputs.{name}") for name, (value, kind) in inputs.items()}
    except ValueError as fault:
        raise PermanentError(f"the inputs cannot be sent: {fault}") from None
    except RecursionError:
        raise PermanentError("the inputs cannot be sent: they are nested too deeply") from None


def named(literals: Mapping[str, Any]) -> Any:
    """Flyte's `Inputs` of literals by name."""
    return common_pb2.Inputs(
        literals=[common_pb2.NamedLiteral(name=name, value=value) for name, value in literals.items()]
    )


def instant(moment: datetime) -> Any:
    """Flyte's literal of an instant."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    return _primitive(datetime=stamp)


def _literal(value: Any, kind: Kind, path: str) -> Any:
    match kind:
        case ListOf(item):
            parts = [_literal(part, item, f"{path}[{index}]") for index, part in enumerate(value)]
            return literals_pb2.Literal(collection=literals_pb2.LiteralCollection(literals=parts))
        case MapOf(item):
            named = {key: _literal(part, item, f"{path}.{key}") for key, part in value.items()}
            return literals_pb2.Literal(map=literals_pb2.LiteralMap(literals=named))
        case Simple.INTEGER:
            return _primitive(integer=value)
        case Simple.FLOAT:
            return _primitive(float_value=float(value))
        case Simple.STRING:
            return _primitive(string_value=value)
        case Simple.BOOLEAN:
            return _primitive(boolean=value)
        case Simple.DATETIME:
            return instant(value)
        case Simple.DURATION:
            span = duration_pb2.Duration()
            span.FromTimedelta(value)
            return _primitive(duration=span)
        case Simple.NONE:
            return literals_pb2.Literal(scalar=literals_pb2.Scalar(none_type=literals_pb2.Void()))
        case Simple.STRUCT:
            return literals_pb2.Literal(scalar=literals_pb2.Scalar(binary=_packed(value, path)))
    raise AssertionError(f"{path}: {kind} was left open")


def _primitive(**value: Any) -> Any:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(**value)))


def _packed(value: Any, path: str) -> Any:
    try:
        return literals_pb2.Binary(value=msgpack.packb(value), tag=_MSGPACK)
    except (OverflowError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be written for Flyte: {error}") from None


# --- from Flyte ------------------------------------------------------------------------------------------------------


def plain_named(literals: Iterable[Any]) -> dict[str, Any]:
    """Named literals as a JSON object."""
    return {each.name: plain(each.value) for each in literals}


def plain(value: Any) -> Any:
    """A literal as JSON: instants as RFC 3339, durations as seconds, files and tables by where they are.

    What only another Python could read, a pickle for instance, stays what it is: `{"base64": …, "tag": …}`.
    """
    match value.WhichOneof("value"):
        case "scalar":
            return _scalar(value.scalar)
        case "collection":
            return [plain(part) for part in value.collection.literals]
        case "map":
            return {key: plain(part) for key, part in value.map.literals.items()}
        case "offloaded_metadata":
            return {"uri": value.offloaded_metadata.uri, "size_bytes": value.offloaded_metadata.size_bytes}
    return None


def plain_struct(struct: Any) -> dict[str, Any]:
    """A Struct as JSON; numbers that are whole are whole numbers."""
    found: dict[str, Any] = _whole(json_format.MessageToDict(struct))
    return found


def _scalar(scalar: Any) -> Any:
    match scalar.WhichOneof("value"):
        case "primitive":
            return _plain_primitive(scalar.primitive)
        case "binary":
            return _unpacked(scalar.binary)
        case "generic":
            return plain_struct(scalar.generic)
        case "union":
            return plain(scalar.union.value)
        case "blob":
            return {"uri": scalar.blob.uri}
        case "schema":
            return {"uri": scalar.schema.uri}
        case "structured_dataset":
            return {
                "uri": scalar.structured_dataset.uri,
                "format": scalar.structured_dataset.metadata.structured_dataset_type.format,
            }
        case "error":
            return {"error": scalar.error.message}
    return None


def _plain_primitive(primitive: Any) -> Any:
    match primitive.WhichOneof("value"):
        case "datetime":
            return rfc3339(primitive.datetime.ToDatetime(UTC))
        case "duration":
            return seconds(primitive.duration.ToTimedelta())
        case "float_value":
            return _number(primitive.float_value)
        case None:
            return None
        case kind:
            return getattr(primitive, kind)


def rfc3339(moment: datetime) -> str:
    """An aware instant as JSON has it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def seconds(span: timedelta) -> int | float:
    """A duration as JSON has it."""
    total = span.total_seconds()
    return int(total) if total.is_integer() else total


def _number(value: float) -> float | str:
    # JSON has no such numbers, and a result must not be lost for one of them.
    return value if math.isfinite(value) else str(value)


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else _number(value)
    if isinstance(value, dict):
        return {key: _whole(part) for key, part in value.items()}
    return [_whole(part) for part in value] if isinstance(value, list) else value


def _unpacked(binary: Any) -> Any:
    if binary.tag == _MSGPACK:
        try:
            return _as_json(msgpack.unpackb(binary.value, strict_map_key=False, timestamp=3))
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
            pass  # It is handed on as it came.
    return {"base64": base64.b64encode(binary.value).decode(), "tag": binary.tag}


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _as_json(part) for key, part in value.items()}
    if isinstance(value, msgpack.ExtType):  # Which is a tuple, too.
        return {"base64": base64.b64encode(value.data).decode(), "tag": str(value.code)}
    if isinstance(value, (list, tuple)):
        return [_as_json(part) for part in value]
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return rfc3339(value) if isinstance(value, datetime) else value
