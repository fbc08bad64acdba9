"""What the Airflow child knows of values and classes: how they are stored, found, made, and what is wrong with them.

Loaded by main.py from beside it; stdlib only, Python 3.9 and later.

Values travel as Airflow stores them: `{"json": …}` where plain JSON says it all, else `{"airflow": …}` as Airflow's own
serde writes them.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import math
import os
import re
import sys
import threading
import traceback
from datetime import date, datetime, timedelta, timezone
from typing import Any

LONGEST_ERROR = 16_000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SERDES = ("airflow.sdk.serde", "airflow.serialization.serde")

# Airflow's modules import each other in circles: two threads that begin at once, at different ends, cannot both finish.
importing = threading.RLock()


class Fault(Exception):
    """Something that is wrong for good: no such class, wrong arguments, nothing that can be stored."""


class CreateFailed(Exception):
    """The function that makes a job has failed, and may have made one; its message says all."""


# --- values ----------------------------------------------------------------------------------------------------------


def encode(value: Any, what: str) -> dict[str, Any]:
    """A value as it is stored."""
    if _is_plain(value):
        return {"json": value}
    serde = _serde()
    if serde is None:
        raise Fault(
            f"{what} cannot be stored: JSON has no words for it, and Airflow's serde is not in {sys.executable}"
        )
    try:
        return {"airflow": json.loads(json.dumps(serde.serialize(value), allow_nan=False))}
    except Exception as error:
        raise Fault(f"{what} cannot be stored: {describe(error)}") from None


def decode(stored: dict[str, Any]) -> Any:
    """The value that was stored."""
    if "json" in stored:
        return stored["json"]
    serde = _serde()
    if serde is None:
        raise Fault(f"what Airflow stored cannot be read: there is no Airflow in {sys.executable}")
    return serde.deserialize(stored["airflow"])


def plain(value: Any, depth: int = 0) -> Any:
    """A value as people read it: JSON whatever it was."""
    if value is None or isinstance(value, (bool, str)) or depth > 50:
        return value if depth <= 50 else str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return plain(value.value, depth + 1) if hasattr(type(value), "__members__") else str(value)


def _is_plain(value: Any) -> bool:
    """Whether JSON gives the very same value back."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    return kind is list and all(map(_is_plain, value))


def _serde() -> Any:
    for name in _SERDES:
        with contextlib.suppress(ImportError):
            return imported(name)
    return None


def describe(error: BaseException) -> str:
    """An error in a line."""
    with contextlib.suppress(Exception):
        said = str(error)
        return f"{type(error).__name__}: {said}" if said else type(error).__name__
    return type(error).__name__


def trace(error: BaseException) -> str:
    """An error with where it came from, not longer than can be kept."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()[-LONGEST_ERROR:]


def is_called(error: object, *names: str) -> bool:
    """Whether a class of the object has one of these names: Airflow's have moved between its modules."""
    return any(base.__name__ in names for base in type(error).__mro__)


# --- classes ---------------------------------------------------------------------------------------------------------


def imported(name: str) -> Any:
    """The module of that name; one that is there is not waited for."""
    found = sys.modules.get(name)
    if found is not None and not getattr(found.__spec__, "_initializing", False):
        return found
    with importing:
        return importlib.import_module(name)


def load(classpath: str) -> type:
    """The class of that path; `Fault` says what is missing, where, and what to do."""
    module_name, _, name = classpath.rpartition(".")
    if not module_name:
        raise Fault(f"{classpath!r} is no path to a class: write package.module.Class")
    try:
        module = imported(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        of_path = module_name == missing or module_name.startswith(missing + ".")
        said = (
            f"there is no module {missing!r}"
            if of_path
            else f"importing it needs the module {missing!r}, not installed"
        )
        advice = "install its package there, or name another interpreter in the executor's option `python`"
        raise Fault(f"{classpath}: {said} in {sys.executable}: {advice}") from None
    except Exception as error:
        raise Fault(f"{classpath}: importing {module_name} in {sys.executable} failed: {describe(error)}") from error
    found = getattr(module, name, None)
    if found is None:
        near = sorted(word for word in vars(module) if word.lower() == name.lower())
        hint = f": did you mean {near[0]}?" if near else ""
        raise Fault(f"{classpath}: the module {module_name} in {sys.executable} has no {name!r}{hint}")
    if not isinstance(found, type):
        raise Fault(f"{classpath} is a {type(found).__name__} and no class")
    return found


def function_of(path: str) -> Any:
    """The function that `package.module:function` names."""
    module_name, _, name = path.partition(":")
    try:
        found = getattr(imported(module_name), name, None)
    except ModuleNotFoundError as error:
        raise Fault(f"create: {path}: there is no module {error.name!r} in {sys.executable}") from None
    except Exception as error:
        raise Fault(f"create: {path}: importing {module_name} failed: {describe(error)}") from error
    if not callable(found):
        raise Fault(f"create: {path}: the module {module_name} has no function {name!r}")
    return found


def created(function: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the trigger that a function returns which makes its job.

    It is called with the run's inputs, and with `key` where it has a parameter of that name.
    """
    given = dict(wanted["inputs"])
    if "key" in inspect.signature(function).parameters:
        given["key"] = wanted["key"]
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise Fault(f"create: {wanted['create']} cannot be called with the run's inputs: {error}") from None
    try:
        found = function(**given)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno} in {last.name}"
        raise CreateFailed(f"create: {wanted['create']} raised {describe(error)} ({where})") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        # Too late to be a plain fault: there is a job.
        raise CreateFailed(f"create: {wanted['create']} returned no mapping of the trigger's arguments: {found!r}")
    return found


def build(found: type, classpath: str, kwargs: dict[str, Any]) -> Any:
    """An instance; `Fault` where the class does not take these arguments."""
    try:
        inspect.signature(found).bind(**kwargs)
    except ValueError:
        pass  # A class that does not say what it takes.
    except TypeError as error:
        raise Fault(f"{classpath} cannot be made with these kwargs: {error}{_taken(found)}") from None
    return found(**kwargs)


def trigger_class(classpath: str) -> type:
    """The trigger's class."""
    found = load(classpath)
    if not callable(getattr(found, "serialize", None)) or not callable(getattr(found, "run", None)):
        hint = ": operators and sensors are for the executor airflow_operator" if hasattr(found, "execute") else ""
        raise Fault(f"{classpath} is no trigger, for it has no serialize() and run(){hint}")
    return found


def fit(found: type, kwargs: dict[str, Any], at: dict[str, float]) -> dict[str, Any]:
    """Arguments as a task's config writes them, made what the class declares: datetimes and timedeltas from texts.

    `at` holds arguments that are instants, in epoch seconds: they become datetimes where one is declared.
    """
    declared: dict[str, str] = {}
    for base in reversed(found.__mro__):
        with contextlib.suppress(TypeError, ValueError):
            for name, each in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
                declared[name] = "" if each.annotation is each.empty else str(each.annotation)
    fitted = dict(kwargs)
    for name, value in kwargs.items():
        kind = declared.get(name, "")
        if not isinstance(value, str) or re.search(r"\bstr\b", kind):
            continue
        if "timedelta" in kind:
            fitted[name] = _timedelta(value, name)
        elif "datetime" in kind.lower():
            fitted[name] = _datetime(value, name)
    for name, seconds in at.items():
        is_datetime = "datetime" in declared.get(name, "").lower()
        fitted[name] = datetime.fromtimestamp(seconds, timezone.utc) if is_datetime else seconds  # noqa: UP017
    return fitted


def _timedelta(text: str, name: str) -> timedelta:
    if not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise Fault(f"kwargs.{name}: {text!r} is no duration like 30s or 1h30m")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text)))


def _datetime(text: str, name: str) -> datetime:
    try:
        found = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        raise Fault(f"kwargs.{name}: {text!r} is no time like 2026-11-21T02:00:00Z") from None
    if found.tzinfo is None:
        raise Fault(f"kwargs.{name}: {text!r} has no zone: add Z or an offset")
    return found


def _taken(found: type) -> str:
    with contextlib.suppress(TypeError, ValueError):
        names = [
            name for name, each in inspect.signature(found).parameters.items() if each.kind is not each.VAR_KEYWORD
        ]
        return f" (it takes {', '.join(names) or 'none'})"
    return ""


def serialized(trigger: Any) -> dict[str, Any]:
    """A trigger as it is stored and made again from, as Airflow does it."""
    classpath, kwargs = trigger.serialize()
    return {"classpath": classpath, "kwargs": encode(dict(kwargs), f"what {classpath} was made with")}


def fault_of(error: BaseException) -> dict[str, Any]:
    """What went wrong, for the worker."""
    if isinstance(error, Fault):
        return {"kind": "wrong", "message": str(error)}
    if isinstance(error, CreateFailed):
        return {"kind": "raised", "message": str(error)}
    return {"kind": "raised", "message": describe(error), "trace": trace(error)}
