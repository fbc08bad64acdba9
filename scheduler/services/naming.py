"""What people may call things: the beginning of a run's name, the latest run, and what a wrong name was near to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Final

from scheduler.errors import NotFound, SpecError
from scheduler.services.operate import TriggerKey
from scheduler.store.transaction import Transaction

_SHOWN: Final = 3
_NEAR: Final = 0.6
# So many names are compared with a wrong one: it is looked at only after something was not found.
_COMPARED: Final = 10_000


def run_name(tx: Transaction, text: str) -> str:
    """The one run that is called so or whose name begins so.

    Raises `NotFound`, and `SpecError` where several begin so.
    """
    found = tx.runs.names_beginning(text, _SHOWN + 1) if text else []
    if not found:
        raise NotFound("run", text)
    if len(found) == 1 or found[0] == text:
        return found[0]
    several = ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
    raise SpecError("run", f"{text!r} is the beginning of several: {several}: write more of it")


def latest_run(tx: Transaction, key: TriggerKey | None = None) -> str:
    """The name of the run that was made last, of one trigger or of all; raises `NotFound`."""
    trigger_id = None
    if key is not None:
        row = tx.triggers.find(*key)
        if row is None:
            raise NotFound("trigger", str(key))
        trigger_id = row["id"]
    name = tx.runs.latest_name(trigger_id)
    if name is None:
        raise NotFound("run", f"{key or ''}@latest")
    return name


def similar(tx: Transaction, kind: str, key: str) -> list[str]:
    """Names of what there is that a wrong name is near to, the nearest first."""
    match kind:
        case "task":
            return _near_paths(key, tx.tasks.live_keys(_COMPARED))
        case "trigger":
            return _near_paths(key, tx.triggers.live_keys(_COMPARED))
        case "run":
            # The hash at the end is what nobody types; the rest is the trigger's name and the slot.
            known = tx.runs.names_beginning(key.rpartition("-")[0] or key[:_SHOWN], _COMPARED)
            return difflib.get_close_matches(key, known, _SHOWN, _NEAR)
    return []


def _near_paths(key: str, known: Iterable[Sequence[str]]) -> list[str]:
    """Paths of which each part is near to the wrong one's, and those that differ in project and domain only."""
    wanted = key.split("/")
    found = []
    for path in known:
        if path[2:] == tuple(wanted[2:]):
            found.append((1.0, path))
        elif len(path) == len(wanted):
            scores = [SequenceMatcher(None, a, b).ratio() for a, b in zip(path, wanted, strict=True)]
            if min(scores) >= _NEAR:
                found.append((min(scores), path))
    return ["/".join(path) for _, path in sorted(found, reverse=True)[:_SHOWN]]
