"""A turnstile: a few together or one alone, in the order in which they asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from scheduler.loop.turnstile import Turnstile


class Visitors:
    """People at a turnstile, and who is inside."""

    def __init__(self, abreast: int) -> None:
        self.turnstile = Turnstile(abreast)
        self.inside: list[str] = []
        self._may_leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, *, alone: bool = False) -> None:
        """Asks to be let in and stays until told to leave."""
        self._may_leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._visit(name, alone))
        await settled()

    async def leave(self, name: str) -> None:
        """Leaves the inside."""
        self._may_leave[name].set()
        await self._tasks[name]
        await settled()

    async def give_up(self, name: str) -> None:
        """Stops waiting, or is thrown out."""
        self._tasks[name].cancel()
        await settled()

    async def _visit(self, name: str, alone: bool) -> None:
        async with self.turnstile.alone() if alone else self.turnstile.together():
            self.inside.append(name)
            try:
                await self._may_leave[name].wait()
            finally:
                self.inside.remove(name)


async def settled() -> None:
    """Returns once nobody has anything to do but wait."""
    for _ in range(10):
        await asyncio.sleep(0)


def played(story: Callable[[Visitors], Coroutine[Any, Any, None]], abreast: int = 2) -> None:
    async def play() -> None:
        visitors = Visitors(abreast)
        await story(visitors)
        while visitors.inside:
            await visitors.leave(visitors.inside[0])
        assert not visitors.turnstile.busy

    asyncio.run(play())


def test_as_many_as_fit_come_in_together() -> None:
    async def story(visitors: Visitors) -> None:
        assert not visitors.turnstile.busy
        for name in "abc":
            await visitors.come(name)
        assert visitors.inside == ["a", "b"]
        assert visitors.turnstile.busy
        await visitors.leave("a")
        assert visitors.inside == ["b", "c"]

    played(story)


def test_who_comes_alone_waits_for_all_others_and_they_for_him() -> None:
    async def story(visitors: Visitors) -> None:
        await visitors.come("a")
        await visitors.come("b")
        await visitors.come("alone", alone=True)
        await visitors.leave("a")
        assert visitors.inside == ["b"]
        await visitors.leave("b")
        assert visitors.inside == ["alone"]
        await visitors.come("c")
        assert visitors.inside == ["alone"]
        await visitors.leave("alone")
        assert visitors.inside == ["c"]

    played(story)


def test_nobody_overtakes_one_who_waits_to_be_alone() -> None:
    async def story(visitors: Visitors) -> None:
        await visitors.come("a")
        await visitors.come("alone", alone=True)
        await visitors.come("late")
        assert visitors.inside == ["a"]
        await visitors.leave("a")
        assert visitors.inside == ["alone"]

    played(story)


@pytest.mark.parametrize("inside", [True, False])
def test_who_gives_up_leaves_no_place_taken(inside: bool) -> None:
    async def story(visitors: Visitors) -> None:
        if not inside:
            await visitors.come("a")
        await visitors.come("alone", alone=True)
        await visitors.give_up("alone")
        if not inside:
            await visitors.leave("a")
        await visitors.come("b")
        await visitors.come("c")
        assert visitors.inside == ["b", "c"]

    played(story)


def test_a_turnstile_for_one_lets_one_in() -> None:
    async def story(visitors: Visitors) -> None:
        await visitors.come("a")
        await visitors.come("b")
        await visitors.come("alone", alone=True)
        assert visitors.inside == ["a"]
        await visitors.leave("a")
        assert visitors.inside == ["b"]
        await visitors.leave("b")
        assert visitors.inside == ["alone"]

    played(story, abreast=1)
