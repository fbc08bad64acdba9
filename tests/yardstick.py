"""How fast this machine is just now: what a bound in seconds is held against where a test has one.

Machines differ by a factor of five, and one machine does within an hour when others use it too. A bound that is to tell of
our code counts in the time of a machine at rest.
"""

from __future__ import annotations

import time
from typing import Final

_ADDITIONS: Final = 200_000
# On an idle core of the kind the bounds were set on: 45 ns an addition.
_AT_REST_SECONDS: Final = 0.009


def slowness() -> float:
    """How many times as long as at rest a fixed piece of work takes just now; never less than 1."""
    begun = time.perf_counter()
    total = 0
    for number in range(_ADDITIONS):
        total += number
    return max(1.0, (time.perf_counter() - begun) / _AT_REST_SECONDS)
