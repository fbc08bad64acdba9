"""Executors that do nothing: what is left is what a run itself costs."""

from __future__ import annotations

import asyncio

from executors import Executor, Outcome, RunContext, Succeeded


class Noop(Executor):
    """Succeeds at once."""

    async def execute(self, run: RunContext) -> Outcome:
        return Succeeded()


class Slow(Executor):
    """Succeeds after a minute: something to cut off."""

    async def execute(self, run: RunContext) -> Outcome:
        await asyncio.sleep(60)
        return Succeeded()
