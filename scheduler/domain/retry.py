"""When a failed attempt is tried again: exponential back-off with jitter, bounded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from scheduler.domain.instants import Micros, to_micros
from scheduler.domain.values import check_count, check_duration
from scheduler.errors import SpecError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_attempts` recorded outcomes in all; the n-th retry waits `initial × multiplier^(n-1)`, at most `maximum`."""

    max_attempts: int = 1
    initial: timedelta = timedelta(seconds=10)
    multiplier: float = 2.0
    maximum: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise SpecError("retries.max_attempts", f"{self.max_attempts} is less than 1: the first attempt counts")
        check_count(self.max_attempts, "retries.max_attempts")
        check_duration(self.initial, "retries.initial")
        check_duration(self.maximum, "retries.maximum")
        if not 1 <= self.multiplier <= 100:
            raise SpecError("retries.multiplier", f"{self.multiplier:g} is not within 1–100")

    def delay(self, attempt: int, run: str, retry_after: timedelta | None = None) -> Micros:
        """Microseconds to wait after attempt number `attempt` ended badly.

        Jitter of ±20 % comes from a hash of run and attempt, so every worker computes the same instant. A target's own
        `retry_after` wins where it asks for more, up to `maximum`: nobody elsewhere decides that a run waits for years.
        """
        exponent = min(attempt - 1, 64)
        base = min(to_micros(self.initial) * self.multiplier**exponent, float(to_micros(self.maximum)))
        wait = int(base * (0.8 + 0.4 * _share(run, attempt)))
        return max(wait, to_micros(min(retry_after, self.maximum))) if retry_after else wait


def delay_after_loss(run: str, lost: int, lease: Micros) -> Micros:
    """Microseconds to wait after a run's worker was lost for the `lost`-th time: none at first, then lease × 2ⁿ⁻².

    Up to a lease more comes from a hash of run and number: of runs that were lost together one may have killed the worker,
    and started together again they would all be lost until all have failed.
    """
    return 0 if lost <= 1 else int(lease * (2 ** min(lost - 2, 32) + _share(run, lost)))


def _share(run: str, number: int) -> float:
    """A number in [0, 1) that every worker computes alike."""
    return int.from_bytes(hashlib.blake2s(f"{run}:{number}".encode(), digest_size=4).digest()) / 2**32
