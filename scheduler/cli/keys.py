"""Which task or trigger is meant: paths as people type them, filled up with the settings' defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from scheduler.cli.guard import Refused
from scheduler.client import TriggerKey as TriggerKey
from scheduler.domain.identity import check_name
from scheduler.errors import NotFound, SpecError

if TYPE_CHECKING:
    from scheduler.client import Client
    from scheduler.settings import Defaults

# Twenty bits of a hash, beside the trigger's name and the slot.
_HASH_SHOWN: Final = 4


def trigger_key(text: str, defaults: Defaults) -> TriggerKey:
    """The trigger of `task/name` or `project/domain/task/name`."""
    parts = _parts(text, "trigger", (2, 4), "task/name or project/domain/task/name")
    return TriggerKey(*parts) if len(parts) == 4 else TriggerKey(defaults.project, defaults.domain, *parts)


def trigger_keys(texts: Iterable[str], defaults: Defaults) -> list[TriggerKey]:
    """Each trigger once, in the order named."""
    return list(dict.fromkeys(trigger_key(text, defaults) for text in texts))


def task_key(text: str, defaults: Defaults) -> tuple[str, str, str]:
    """The task of `task` or `project/domain/task`."""
    parts = _parts(text, "task", (1, 3), "its name or project/domain/name")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else (defaults.project, defaults.domain, parts[0])


def run_named(client: Client, text: str, defaults: Defaults) -> str:
    """The name of the run that is meant: by its name, the beginning of it, `@latest` or `TRIGGER@latest`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # What was typed is not UTF-8: no database could even be asked.
        raise NotFound("run", text) from None
    trigger, at, latest = text.rpartition("@")
    if at and latest == "latest":
        return client.latest_run(trigger_key(trigger, defaults) if trigger else None)
    return client.run_name(text)


def short_names(names: Iterable[str], *, short: bool) -> Callable[[str], str]:
    """Shows runs' names: whole, or with `short` as beginnings that are enough to tell them apart."""
    if not short:
        return str
    ordered = sorted(set(names))
    shown = {}
    for before, name, after in zip(["", *ordered], ordered, [*ordered[1:], ""], strict=False):
        least = name.rfind("-") + 1 + _HASH_SHOWN
        alike = max(_alike(name, other) for other in (before, after))
        shown[name] = name[: max(least, alike + 1)]
    return shown.__getitem__


def filters(
    defaults: Defaults,
    *,
    project: str | None = None,
    domain: str | None = None,
    task: str | None = None,
    trigger: str | None = None,
) -> dict[str, str | None]:
    """The filters as single names: paths given for task or trigger fill the others, and must not contradict them."""
    found: dict[str, str | None] = {"project": project, "domain": domain, "task": None, "trigger": None}
    if task is not None:
        parts = _parts(task, "task", (1, 3), "its name or project/domain/name")
        _narrow(found, dict(zip(("project", "domain", "task")[-len(parts) :], parts, strict=True)), f"--task {task}")
    if trigger is not None:
        # Beside --task, the trigger's own name says it all.
        sizes = (2, 4) if task is None else (1, 2, 4)
        parts = _parts(trigger, "trigger", sizes, "task/name or project/domain/task/name")
        names = dict(zip(("project", "domain", "task", "trigger")[-len(parts) :], parts, strict=True))
        if len(parts) == 2:
            names["project"] = found["project"] or defaults.project
            names["domain"] = found["domain"] or defaults.domain
        _narrow(found, names, f"--trigger {trigger}")
    return found


def shown(row: Mapping[str, Any], defaults: Defaults, *names: str) -> str:
    """The path of what a row is about, as short as the other verbs take it."""
    path = "/".join(str(row[name]) for name in names)
    if (row["project"], row["domain"]) == (defaults.project, defaults.domain):
        return path
    return f"{row['project']}/{row['domain']}/{path}"


def _narrow(found: dict[str, str | None], names: dict[str, str], option: str) -> None:
    for name, value in names.items():
        if found[name] not in (None, value):
            raise Refused(f"{option} contradicts --{name} {found[name]}: give one of them")
        found[name] = value


def _parts(text: str, kind: str, sizes: tuple[int, ...], form: str) -> list[str]:
    parts = text.split("/")
    try:
        if len(parts) in sizes:
            return [check_name(part, "name") for part in parts]
    except SpecError as error:
        raise Refused(f"{text!r} does not name a {kind}: a {error}; write {form}") from None
    raise Refused(f"{text!r} does not name a {kind}: write {form}")


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
