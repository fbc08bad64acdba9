"""How late the event loop is: a timer that measures by how much it oversleeps."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_BEAT_SECONDS = 0.5
_REMEMBERED_SECONDS = 5.0


class LoopLag:
    """The loop's recent lag. What blocks the loop holds up every timer in it by as much."""

    def __init__(self, on_lag: Callable[[float], None] | None = None) -> None:
        """`on_lag` is told each measured lag, in seconds."""
        self._on_lag = on_lag
        self._recent: deque[tuple[float, float]] = deque()
        self._expected: float | None = None

    async def run_forever(self) -> None:
        """Measures until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._expected = loop.time() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            now = loop.time()
            lag = max(0.0, now - self._expected)
            self._recent.append((now, lag))
            while self._recent[0][0] < now - _REMEMBERED_SECONDS:
                self._recent.popleft()
            if self._on_lag is not None:
                self._on_lag(lag)

    @property
    def worst(self) -> float:
        """The worst lag of the last seconds, in seconds, what is late at this moment included."""
        now = asyncio.get_running_loop().time()
        recent = [lag for at, lag in self._recent if at >= now - _REMEMBERED_SECONDS]
        return max([0.0 if self._expected is None else now - self._expected, 0.0, *recent])
