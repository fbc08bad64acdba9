"""Many askers, one transaction at a time: what is asked while one is under way goes into the next, together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batching(Generic[Q, A]):
    """Groups questions; `work` answers a batch of them, in their order."""

    def __init__(self, work: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._work = work
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._busy: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """The answer; an error of the batch is everybody's. Who stops waiting does not stop the batch."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._busy is None:
            self._busy = asyncio.create_task(self._serve(), name="batch")
        return await answer

    async def _serve(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._answer(batch)
        finally:
            self._busy = None

    async def _answer(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._work([question for question, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
