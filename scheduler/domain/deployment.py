"""What a deploy changes about a task's triggers: the pure difference between the last deploy and this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.domain.task import canonical_json
from scheduler.domain.trigger import TriggerSpec


@dataclass(frozen=True, slots=True)
class Deployed:
    """A trigger as it stands in the database: what its last deploy said, and whether it is deleted."""

    name: str
    document: Mapping[str, Any] | None
    deleted: bool
    prunable: bool
    active: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """Names of triggers by what happens to them, and whether `active` is to be set (only where its value was changed)."""

    created: tuple[TriggerSpec, ...]
    changed: tuple[TriggerSpec, ...]
    revived: tuple[TriggerSpec, ...]
    unchanged: tuple[str, ...]
    pruned: tuple[str, ...]
    sets_active: frozenset[str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all changes."""
        return not (self.created or self.changed or self.revived or self.pruned)


def diff(stored: Sequence[Deployed], wanted: Sequence[TriggerSpec], *, active_as_sent: bool = False) -> Difference:
    """Compares with the last deploy, not with the present state: what an operator did since then stays.

    With `active_as_sent` an operator's pause does not stay: every trigger becomes as active as the deploy says.
    """
    before = {trigger.name: trigger for trigger in stored}
    created, changed, revived, unchanged, sets_active = [], [], [], [], set()
    for spec in wanted:
        old = before.get(spec.name)
        if old is None:
            created.append(spec)
        elif old.deleted:
            revived.append(spec)
            sets_active.add(spec.name)
        elif active_as_sent and old.active != spec.active:
            changed.append(spec)
            sets_active.add(spec.name)
        elif old.document is not None and _same(old.document, spec.to_document()):
            unchanged.append(spec.name)
        else:
            changed.append(spec)
            if old.document is None or old.document.get("active", True) != spec.active:
                sets_active.add(spec.name)
    names = {spec.name for spec in wanted}
    pruned = tuple(old.name for old in stored if not old.deleted and old.prunable and old.name not in names)
    return Difference(tuple(created), tuple(changed), tuple(revived), tuple(unchanged), pruned, frozenset(sets_active))


def _same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    # As texts: an input that was 1 and is true now is another one, though Python calls both equal.
    return canonical_json(before) == canonical_json(after)
