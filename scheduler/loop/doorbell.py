"""A doorbell: rung by many, answered by one loop; rings while it is busy count as one."""

from __future__ import annotations

import asyncio


class Doorbell:
    """Wakes the loop that waits at it; ringing never blocks and may happen before anyone waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wakes the waiting loop, now or as soon as it waits."""
        self._event.set()

    async def wait(self) -> None:
        """Returns at the next ring, or at once if it rang since the last wait."""
        await self._event.wait()
        self._event.clear()
