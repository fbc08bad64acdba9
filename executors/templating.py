"""Placeholders in a task's `config`: plain substitution, no template language.

    {inputs.region}   an input, or a part of one: {inputs.report.name}
    {inputs}          all inputs, a mapping
    {run_name}  {key}
    {scheduled_at}    the slot as 2026-11-21T02:00:00Z; null for a manual run

A text that is exactly one placeholder takes its value with its JSON type; inside a longer text a value that is no text
is written as JSON, and null as nothing. `{{name}}` is the text `{name}`. Braces around anything that is not a name,
as in JSON or in `awk '{print $1}'`, are left as they are. Keys of mappings are never touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from executors.errors import PermanentError, Problem

ROOTS: Final = ("inputs", "run_name", "key", "scheduled_at")
_NAME: Final = r"[A-Za-z_][\w-]*(?:\.[^\s{}]+)?"
_TOKEN: Final = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}", re.ASCII)
# `{ inputs.region }` is a habit from template languages; left alone it would reach the target as it stands.
_SPACED: Final = re.compile(rf"\{{\s*((?:{'|'.join(ROOTS)})\b[^{{}}]*?)\s*\}}", re.ASCII)
_IN_HOST: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_HOST_PART: Final = re.compile(r"[A-Za-z0-9_.-]+")
_PATH: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?([^?#]*)")
_DOTS: Final = re.compile(r"(?:\.|%2[Ee]){1,2}")


def is_placeholder(text: str) -> bool:
    """True if the text is exactly one placeholder, known or not."""
    match = _TOKEN.fullmatch(text)
    return match is not None and match[2] is not None


def placeholders(
    *, inputs: Mapping[str, Any], run_name: str, key: str, scheduled_at: datetime | None, **more: Any
) -> dict[str, Any]:
    """The values that `render` puts in; `more` are those that one executor adds."""
    return {
        "inputs": inputs,
        "run_name": run_name,
        "key": key,
        "scheduled_at": None if scheduled_at is None else rfc3339(scheduled_at),
        **more,
    }


def render(config: Any, values: Mapping[str, Any]) -> Any:
    """`config` with every placeholder replaced, in texts inside mappings and lists too; the argument is not changed.

    Raises `PermanentError` for a placeholder whose value the run does not have.
    """
    if isinstance(config, str):
        return _render_text(config, values)
    if isinstance(config, Mapping):
        return {key: render(item, values) for key, item in config.items()}
    if isinstance(config, (list, tuple)):
        return [render(item, values) for item in config]
    return config


def render_url(url: str, values: Mapping[str, Any], *, base: bool = False) -> str:
    """The URL with every placeholder replaced by its value, written so that it stays the part of the URL where it stands.

    In a path and in a query it is percent-encoded; as part of a host it has to be one. A URL that is exactly one
    placeholder is its value as it is; with `base` so is one at the very beginning, as in `{inputs.api}/jobs`. Raises
    `PermanentError` like `render`, and for a value that would lead out of its place, such as `..` in a path.
    """
    if is_placeholder(url):
        return as_text(_lookup(url[1:-1], values))
    done, inserted, position = "", [], 0
    for match in _TOKEN.finditer(url):
        done += url[position : match.start()]
        position = match.end()
        if match[1]:
            done += f"{{{match[1]}}}"
            continue
        text = as_text(_lookup(match[2], values))
        if not (base and match.start() == 0):
            text = _part_of_host(text, match[2]) if _IN_HOST.fullmatch(done) else quote(text, safe="")
            inserted.append((len(done), len(done) + len(text), match[2]))
        done += text
    done += url[position:]
    _check_segments(done, inserted)
    return done


def _part_of_host(text: str, name: str) -> str:
    if not _HOST_PART.fullmatch(text):
        raise PermanentError(f"{{{name}}} stands in the host of a URL, and {text[:80]!r} can be no part of one")
    return text


def _check_segments(url: str, inserted: Sequence[tuple[int, int, str]]) -> None:
    """Refuses an inserted value that makes a segment of the path mean this folder or the one above it."""
    path = _PATH.match(url)
    if path is None:
        return
    start = path.start(1)
    for segment in path[1].split("/"):
        end = start + len(segment)
        name = next((name for first, last, name in inserted if first < end and last > start), None)
        if name is not None and _DOTS.fullmatch(segment):
            raise PermanentError(f"{{{name}}} stands in the path of a URL, and would lead out of it: {segment!r}")
        start = end + 1


def check_placeholders(config: Any, known_inputs: Collection[str] | None, more: Collection[str] = ()) -> list[Problem]:
    """Every placeholder of `config` that no run could fill, with its path; empty if all is well.

    `known_inputs` are the names of the inputs that the task or the trigger declares, None if any may be; `more` are
    further names that one executor adds to the usual.
    """
    problems: list[Problem] = []
    inputs = None if known_inputs is None else frozenset(known_inputs)
    _check(config, inputs, (*ROOTS, *more), "", problems)
    return problems


def as_text(value: Any) -> str:
    """A value as it stands within a longer text: JSON unless it is a text, nothing for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rfc3339(moment: datetime) -> str:
    """`2026-11-21T02:00:00Z`; a fraction only where there is one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no zone")
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def _render_text(text: str, values: Mapping[str, Any]) -> Any:
    if is_placeholder(text):
        return _lookup(text[1:-1], values)
    return _TOKEN.sub(lambda match: f"{{{match[1]}}}" if match[1] else as_text(_lookup(match[2], values)), text)


def _lookup(name: str, values: Mapping[str, Any]) -> Any:
    root, _, rest = name.partition(".")
    if root not in values:
        raise PermanentError(f"the placeholder {{{name}}} is unknown: write {{{{{name}}}}} if the text is meant")
    value = values[root]
    while rest:
        if not isinstance(value, Mapping):
            raise PermanentError(f"the placeholder {{{name}}} asks for a part of a value that has none")
        # An input's own name may hold dots.
        if rest in value:
            return value[rest]
        part, _, rest = rest.partition(".")
        if part not in value:
            raise PermanentError(f"the placeholder {{{name}}} asks for {part!r}, which this run does not have")
        value = value[part]
    return value


def _check(
    config: Any, inputs: frozenset[str] | None, roots: tuple[str, ...], path: str, problems: list[Problem]
) -> None:
    if isinstance(config, Mapping):
        for key, item in config.items():
            _check(item, inputs, roots, f"{path}.{key}" if path else str(key), problems)
    elif isinstance(config, (list, tuple)):
        for index, item in enumerate(config):
            _check(item, inputs, roots, f"{path}[{index}]", problems)
    elif isinstance(config, str):
        problems.extend((path, reason) for reason in _faults(config, inputs, roots))


def _faults(text: str, declared: frozenset[str] | None, roots: tuple[str, ...]) -> list[str]:
    from executors.schema import nearest

    faults = []
    inputs = declared or frozenset()
    for match in _TOKEN.finditer(text):
        name = match[2]
        if name is None:
            continue
        root, _, rest = name.partition(".")
        if root not in roots:
            names = [f"inputs.{known}" for known in inputs] + list(roots)
            hint = nearest(name, names)
            hint = (
                hint
                if "did you mean" in hint
                else f" (known: {', '.join((*roots[1:], *sorted(names[: len(inputs)])))})"
            )
            faults.append(f"unknown placeholder {{{name}}}{hint}: write {{{{{name}}}}} if the text is meant")
        elif (
            root == "inputs"
            and rest
            and declared is not None
            and rest not in inputs
            and rest.partition(".")[0] not in inputs
        ):
            faults.append(
                f"unknown input in {{{name}}}{nearest(rest, sorted(inputs)) or ': this task declares no inputs'}"
            )
        elif root in ROOTS[1:] and rest:
            faults.append(f"unknown placeholder {{{name}}}: {root} has no parts")
    for match in _SPACED.finditer(_TOKEN.sub("", text)):
        faults.append(f"unknown placeholder {match[0]}: write {{name}} without spaces, as {{inputs.region}}")
    return faults
