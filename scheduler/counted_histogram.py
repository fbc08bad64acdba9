"""A histogram that is told how often something was observed: a batch of a thousand starts costs what one does."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# As the library writes the bounds of its own.
_go: Any = floatToGoString


class CountedHistogram(Collector):
    """As `prometheus_client.Histogram` with one label, whose values are known beforehand. Any thread may observe."""

    def __init__(self, name: str, text: str, label: str, values: Iterable[str], bounds: Sequence[float]) -> None:
        """`bounds` are the upper ends of the buckets, rising; the last bucket, without end, is added."""
        self._name = name
        self._text = text
        self._label = label
        self._bounds: Final = tuple(bounds)
        self._names = [*map(_go, bounds), "+Inf"]
        self._counts = {value: [0] * len(self._names) for value in values}
        self._sums = dict.fromkeys(self._counts, 0.0)
        self._lock = threading.Lock()

    def observe(self, value: str, amount: float, number: int = 1) -> None:
        """The amount was seen so many times, under this value of the label."""
        with self._lock:
            # A bucket holds what is not above its bound.
            self._counts[value][bisect_left(self._bounds, amount)] += number
            self._sums[value] += amount * number

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What the registry asks for."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label])
        with self._lock:
            for value, counts in self._counts.items():
                buckets = list(zip(self._names, map(float, accumulate(counts)), strict=True))
                family.add_metric([value], buckets, self._sums[value])
        return [family]
