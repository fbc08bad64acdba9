"""Who is due when: thousands of items, one live entry each, one timer for all of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Listed(Protocol):
    """What an agenda may hold: `turn` says which of its entries is the live one, 0 none; `due` is when that is."""

    turn: int
    due: float


T = TypeVar("T", bound=Listed)


class Agenda(Generic[T]):
    """Calls `ring` with items whose time has come, on the event loop and by its monotonic clock.

    An item put in again has its time changed; it never comes twice. Entries left behind are dropped when they come up, or
    all at once when they are more than half.
    """

    def __init__(self, ring: Callable[[list[T]], None]) -> None:
        self._ring = ring
        self._heap: list[tuple[float, int, T]] = []
        self._turns = 0
        self._dead = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, item: T, at: float) -> None:
        """The item is due at this monotonic instant, whatever was said of it before."""
        if item.turn:
            self._dead += 1
        self._turns += 1
        item.turn, item.due = self._turns, at
        heapq.heappush(self._heap, (at, self._turns, item))
        if self._dead > len(self._heap) // 2:
            self._compact()
        self._arm()

    def drop(self, item: T) -> None:
        """The item is due no more."""
        if item.turn:
            item.turn = 0
            self._dead += 1

    def clear(self, items: Iterable[T]) -> None:
        """Nothing is due any more; `items` are all that may have been."""
        for item in items:
            item.turn = 0
        self._heap.clear()
        self._dead = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].turn == entry[1]]
        heapq.heapify(self._heap)
        self._dead = 0

    def _arm(self) -> None:
        first = self._heap[0][0]
        if self._timer is not None:
            if self._timer.when() <= first:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(first, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        due: list[T] = []
        while self._heap and self._heap[0][0] <= now:
            _, turn, item = heapq.heappop(self._heap)
            if item.turn == turn:
                item.turn = 0
                due.append(item)
            else:
                self._dead -= 1
        if due:
            self._ring(due)
        if self._heap:
            self._arm()
