"""How what a deploy changes is printed: lines for people, documents for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from scheduler.cli.output import counted, one_line, prints_unicode
from scheduler.cli.times import reading, zone_of_document
from scheduler.domain.instants import to_rfc3339
from scheduler.reading.texts import clip

if TYPE_CHECKING:
    from scheduler.client import DeployPlan, TriggerPlan
    from scheduler.domain.changes import Change

_SYMBOLS: Final = {"created": "+", "changed": "~", "unchanged": "=", "pruned": "-"}
_LONGEST_VALUE: Final = 200


class Tally:
    """How many tasks and triggers were created, changed, left alone and pruned."""

    def __init__(self) -> None:
        self._tasks: Counter[str] = Counter()
        self._triggers: Counter[str] = Counter()

    def add(self, plan: DeployPlan) -> None:
        """Counts one task."""
        self._tasks[plan.action] += 1
        self._triggers.update(trigger.action for trigger in plan.triggers)

    def text(self) -> str:
        """`2 tasks: 1 created, 1 changed, 0 unchanged; triggers: …`."""
        tasks = ", ".join(f"{self._tasks[action]} {action}" for action in _SYMBOLS if action != "pruned")
        triggers = ", ".join(f"{self._triggers[action]} {action}" for action in _SYMBOLS)
        return f"{counted(self._tasks.total(), 'task')}: {tasks}; triggers: {triggers}"


def plan_lines(plan: DeployPlan) -> Iterator[str]:
    """The plan of one task for people: what changes in full, what does not in a word."""
    yield one_line(f"{plan.key} {plan.version} {plan.action}")
    if plan.action == "unchanged":
        return
    for change in plan.changes:
        yield f"  {_change(change)}"
    for action, symbol in _SYMBOLS.items():
        triggers = [trigger for trigger in plan.triggers if trigger.action == action]
        if action == "changed":
            for trigger in triggers:
                yield one_line(f"  {symbol} {action}: {trigger.name}")
                yield from (f"      {line}" for line in _trigger_lines(trigger))
        elif triggers:
            yield one_line(f"  {symbol} {action}: {', '.join(trigger.name for trigger in triggers)}")


def _trigger_lines(trigger: TriggerPlan) -> Iterator[str]:
    for change in trigger.changes:
        yield _change(change)
    if trigger.fires_before == trigger.fires_after:
        return
    zone = zone_of_document(trigger.automation)
    before, after = ([reading(fire, zone) for fire in fires] for fires in (trigger.fires_before, trigger.fires_after))
    before, after = before or ["none"], after or ["none"]
    width = max(map(len, [*before, "FIRES BEFORE"]))
    yield f"{'FIRES BEFORE':<{width}}  FIRES AFTER"
    for number in range(max(len(before), len(after))):
        row = [fires[number] if number < len(fires) else "" for fires in (before, after)]
        yield f"{row[0]:<{width}}  {row[1]}".rstrip()


def _change(change: Change) -> str:
    arrow = "→" if prints_unicode() else "->"
    return f"{one_line(change.field)}: {_value(change.before)} {arrow} {_value(change.after)}"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    plain = isinstance(value, str) and value == value.strip() and value.isprintable() and value not in ("", "none")
    return clip(value if plain else json.dumps(value, ensure_ascii=False), _LONGEST_VALUE)


def plan_document(plan: DeployPlan) -> dict[str, Any]:
    """The plan of one task for programs."""
    return {
        "project": plan.project,
        "domain": plan.domain,
        "name": plan.name,
        "version": plan.version,
        "action": plan.action,
        "changes": _changes(plan.changes),
        "triggers": [
            {
                "name": trigger.name,
                "action": trigger.action,
                "changes": _changes(trigger.changes),
                "fires_before": [to_rfc3339(fire) for fire in trigger.fires_before],
                "fires_after": [to_rfc3339(fire) for fire in trigger.fires_after],
                **({} if trigger.warning is None else {"warning": trigger.warning}),
            }
            for trigger in plan.triggers
        ],
    }


def _changes(found: Iterable[Change]) -> list[dict[str, Any]]:
    return [{"field": change.field, "before": change.before, "after": change.after} for change in found]
