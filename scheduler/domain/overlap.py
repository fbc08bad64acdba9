"""Which of the slots that are to fire may: what overlap allows while earlier runs of the trigger are open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from scheduler.domain.instants import Micros
from scheduler.domain.ledger import Reason
from scheduler.domain.trigger import Overlap

MAX_BUFFERED: Final = 1000


class Fire(NamedTuple):
    """A slot that gets a run. `turn` is 0 on time, else the place in the round-robin over late triggers, from 1."""

    slot: Micros
    turn: int = 0
    covers: tuple[Micros, Micros] | None = None


def refusal_of(overlap: Overlap, open_runs: int) -> Reason | None:
    """Why no slot at all may fire while so many runs of the trigger are open; None where one may."""
    if overlap == "buffer_all":
        return Reason.BUFFER_FULL if open_runs >= MAX_BUFFERED else None
    limit = {"skip": 0, "buffer_one": 1}.get(overlap)
    return Reason.OVERLAP if limit is not None and open_runs > limit else None


def admit(fires: Iterable[Fire], overlap: Overlap, open_runs: int) -> tuple[list[Fire], list[tuple[Fire, Reason]]]:
    """The fires that become runs, oldest first, and those that are skipped, each with its reason.

    `open_runs` counts the trigger's open scheduled runs, beside which at least one may fire (`refusal_of`). Of slots
    decided together every policy but `allow_all` and `buffer_all` keeps the newest only: the others would have been
    overtaken before they could start.
    """
    kept = sorted(fires, key=lambda item: item.slot)
    if overlap == "allow_all" or not kept:
        return kept, []
    if overlap == "buffer_all":
        room = MAX_BUFFERED - open_runs
        return kept[:room], [(fire, Reason.BUFFER_FULL) for fire in kept[room:]]
    covers = next((fire.covers for fire in kept if fire.covers is not None), None)
    # The newest speaks for a gap as well, should the run that was to cover it be among the others.
    newest = kept[-1] if covers is None else kept[-1]._replace(covers=covers)
    return [newest], [(fire, Reason.OVERLAP) for fire in kept[:-1]]
