"""The deployed state, told as the definitions it was deployed from: deployed again, they change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, cast

from scheduler.domain.task import SPEC_FORMAT, TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.errors import SpecError
from scheduler.services.deploy import columns_of
from scheduler.services.deployed import definition_of, deployed_spec
from scheduler.store.deployed import deployed_tasks
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction

_BATCH: Final = 500
_LIBRARY: Final = "library"


@dataclass(frozen=True, slots=True)
class Exported:
    """One task as its last deploy left it; `definition` is None where that cannot be told, and `fault` says why.

    `remarks` say what the definition leaves out or tells otherwise than it stands now, one text each.
    """

    key: str
    definition: TaskDefinition | None
    remarks: tuple[str, ...] = ()
    fault: str | None = None


def export_tasks(
    tx: Transaction, *, project: str | None = None, domain: str | None = None, task: str | None = None
) -> list[Exported]:
    """Every task that was deployed, by key.

    What programs deploy themselves stays out, and so does what plain SQL made: no manifest ever said it.
    """
    found = [
        exported
        for rows in _tasks(tx, project, domain, task)
        if (exported := _exported(rows)).definition is not None or exported.remarks or exported.fault
    ]
    return sorted(found, key=lambda item: item.key.split("/"))


def _tasks(tx: Transaction, project: str | None, domain: str | None, task: str | None) -> Iterator[list[Row]]:
    after = 0
    while rows := deployed_tasks(tx, after, project=project, domain=domain, task=task, limit=_BATCH):
        for _, of_task in groupby(rows, key=lambda row: row["task_id"]):
            yield list(of_task)
        after = rows[-1]["task_id"]


def _exported(rows: Sequence[Row]) -> Exported:
    task, version, spec = (_part(rows[0], prefix) for prefix in ("task", "version", "spec"))
    key = f"{task['project']}/{task['domain']}/{task['name']}"
    triggers = [_part(row, "trigger") for row in rows if row["trigger_id"] is not None]
    if triggers and all(trigger["source"] == _LIBRARY for trigger in triggers):
        return Exported(key, None, (f"{key} is left out: a program deploys it",))
    if spec["format"] != SPEC_FORMAT:
        return Exported(key, None, fault=f"{key}: its specification is not ours but in the format {spec['format']}")
    remarks: list[str] = []
    specs: list[TriggerSpec] = []
    for trigger in triggers:
        name = f"{key}/{trigger['name']}"
        said = deployed_spec(trigger)
        if trigger["source"] == _LIBRARY:
            remarks.append(f"{name} is left out: a program deploys it")
        elif trigger["deployed"] is None:
            remarks.append(f"{name} is left out: it was made by SQL, not by a deploy")
        elif said is None:
            return Exported(key, None, fault=f"{name}: what its deploy said cannot be read")
        else:
            specs.append(said)
            remarks.extend(f"{name} {since}" for since in _since(trigger, said, version["version"]))
    try:
        definition = definition_of(task, version, TaskSpec.decode(spec["spec"]), tuple(specs))
    except (SpecError, ValueError, KeyError, TypeError) as error:
        return Exported(key, None, fault=f"{key}: {error}")
    return Exported(key, definition, tuple(remarks))


def _since(trigger: Row, said: TriggerSpec, version: str) -> Iterator[str]:
    """What became of a trigger after its deploy, which is not exported: a deploy of it would undo it."""
    if bool(trigger["active"]) != said.active:
        now, deployed = ("active", "false") if trigger["active"] else ("inactive", "true")
        yield f"is {now} now, and exported as deployed: active: {deployed}"
    changed = sorted(name for name, value in columns_of(said).items() if trigger[name] != value)
    if changed:
        yield f"was changed by SQL since its deploy ({', '.join(changed)}), and is exported as deployed"
    if trigger["version"] not in (None, version):
        yield f"fires version {trigger['version']}, not the exported {version}"


def _part(row: Row, prefix: str) -> Row:
    start = f"{prefix}_"
    part: dict[str, Any] = {name[len(start) :]: value for name, value in row.items() if name.startswith(start)}
    return cast(Row, part)
