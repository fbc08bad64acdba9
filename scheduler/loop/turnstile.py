"""A turnstile: a few come in together, or one comes in alone; whoever asks first is first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turnstile:
    """Lets at most `abreast` in together, or one alone."""

    def __init__(self, abreast: int) -> None:
        self._abreast = abreast
        self._places = asyncio.Semaphore(abreast)
        # Held while waiting only by those who come together: nobody overtakes one who waits to be alone.
        self._queue = asyncio.Lock()
        self._inside = 0

    @property
    def busy(self) -> bool:
        """Whether somebody is inside, or on the way in."""
        return self._inside > 0 or self._queue.locked()

    @contextlib.asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """A block that others of its kind may be in, too."""
        async with self._queue:
            await self._places.acquire()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._places.release()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A block that nobody else is in."""
        taken = 0
        async with self._queue:
            try:
                while taken < self._abreast:
                    await self._places.acquire()
                    taken += 1
                yield
            finally:
                for _ in range(taken):
                    self._places.release()
