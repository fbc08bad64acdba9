"""What a worker counts and measures, as Prometheus reads it.

Each `Metrics` has a registry of its own, so that one process may hold several. What carries labels has few of them:
phases, reasons, kinds, the executors that the settings declare; never a task, a trigger or a run.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from scheduler.domain.instants import SECOND
from scheduler.domain.ledger import Reason
from scheduler.domain.run import FINAL, OPEN, Kind, Phase
from scheduler.errors import StoreUnavailable
from scheduler.services.sample import OTHER, Sample
from scheduler.store.tally import Tally

if TYPE_CHECKING:
    from scheduler.loop.health import Health
    from scheduler.loop.sampling import Sampling
    from scheduler.loop.worker import Worker

# The instant at which each counter was made would double what is sent and tells nothing: the process has a start time.
disable_created_metrics()  # type: ignore[no-untyped-call]

# As the library writes the bounds of its own histograms.
_go_string: Any = floatToGoString

_UNDECLARED: Final = "other"
# From what nobody notices to a week, the default window of catch-up.
_LATENESS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400, 604_800)
_TRANSACTIONS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAG: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The figures of one worker. As a store's watcher it counts whatever is done through that store."""

    def __init__(self, *, executors: Collection[str], lease_seconds: float, places: int, **build: str) -> None:
        """`executors` are the declared ones; `build` becomes the labels of `scheduler_build_info`."""
        self.registry = registry = CollectorRegistry()
        self._executors = frozenset(executors)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        # --- counted where it happens: this worker's share ---
        self._fires = counter("scheduler_fires", "Runs inserted, by kind.", "kind")
        self._starts = counter("scheduler_starts", "Runs that became RUNNING, retries included.", "executor", "kind")
        self._late_starts = counter("scheduler_late_starts", "Starts of runs whose slot was late: catch-up.")
        self._lateness = CountedHistogram(
            "scheduler_start_lateness_seconds",
            "From a slot's due instant to the first start of its run, by whether the slot was late when it fired.",
            "late",
            [_word(False), _word(True)],
            _LATENESS,
        )
        registry.register(self._lateness)
        self._finished = counter("scheduler_runs_finished", "Runs that are over, by final phase.", "phase", "executor")
        self._retried = counter("scheduler_attempts_retried", "Attempts that ended and are tried again.", "executor")
        self._skipped = counter("scheduler_slots_skipped", "Slots that got no run, by reason.", "reason")
        self._lost = counter(
            "scheduler_runs_lost", "Runs taken back from workers that are gone, by the phase they got.", "phase"
        )
        self._refused = counter("scheduler_fences_refused", "Results that came too late to count.")
        self._transactions = Histogram(
            "scheduler_transaction_seconds",
            "Database transactions, the wait for a connection included: committed, undone, or unavailable.",
            ["outcome"],
            buckets=_TRANSACTIONS,
            registry=registry,
        )
        self._lag = Histogram(
            "scheduler_loop_lag_seconds",
            "How late a timer of the event loop rang, measured twice a second.",
            buckets=_LAG,
            registry=registry,
        )

        # --- sampled: the whole database's state, the same in every worker ---
        self._open = gauge("scheduler_open_runs", "Open runs in the database, by phase.", "phase")
        self._queue = gauge(
            "scheduler_queue_depth",
            "Queued runs in the database that could start now, by executor; other: all that are not declared here.",
            "executor",
            "late",
        )
        self._oldest_due = gauge(
            "scheduler_oldest_due_age_seconds", "For how long the longest due trigger has been due; 0: none is."
        )

        # --- this worker's state, read when asked for ---
        gauge("scheduler_lease_seconds", "worker.lease of the settings.").set(lease_seconds)
        gauge("scheduler_places", "worker.max_concurrent_runs of the settings.").set(places)
        gauge("scheduler_build_info", "1, with what runs here as labels.", *build).labels(**build).set(1)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._begin_at_nought()

    def _begin_at_nought(self) -> None:
        # A rate over a counter that appears with its first event would miss that event.
        self._fires.labels(Kind.SCHEDULED.value)
        for reason in Reason:
            self._skipped.labels(reason.value)
        for phase in (Phase.QUEUED, Phase.FAILED, Phase.ABORTED):
            self._lost.labels(phase.value)
        for outcome in ("committed", "undone", "unavailable"):
            self._transactions.labels(outcome)
        for executor in sorted(self._executors):
            self._starts.labels(executor, Kind.SCHEDULED.value)
            self._retried.labels(executor)
            for phase in sorted(FINAL):
                self._finished.labels(phase.value, executor)

    def follow(self, worker: Worker, health: Health, sampling: Sampling) -> None:
        """Shows this worker's present state whenever somebody asks; call it, and `render`, on the worker's event loop."""

        def reading(name: str, text: str, read: Callable[[], float]) -> None:
            Gauge(name, text, registry=self.registry).set_function(read)

        transactions, heartbeat = worker.transactions, worker.heartbeat
        reading("scheduler_ready", "1 while /readyz answers 200.", lambda: health.is_ready)
        reading("scheduler_degraded", "1 while the database is away.", lambda: transactions.degraded_since is not None)
        reading(
            "scheduler_clock_doubted",
            "1 while the clock is too far ahead to be believed: nothing is decided.",
            lambda: worker.guard is not None and worker.guard.doubt() is not None,
        )
        reading("scheduler_lease_age_seconds", "Since the last renewal of this worker's lease.", lambda: heartbeat.lag)
        reading("scheduler_places_taken", "Executions under way in this worker.", lambda: worker.dispatching.running)
        reading(
            "scheduler_sample_age_seconds",
            "Since the database was last counted for scheduler_open_runs and its like; NaN before the first time.",
            lambda: math.nan if sampling.age is None else sampling.age,
        )

    def count_dropped_lines(self, read: Callable[[], int]) -> None:
        """Shows what `read` says: the log lines that were dropped since the process started."""
        self.registry.register(_DroppedLines(read))

    def render(self, accept: str) -> tuple[bytes, str]:
        """All figures as text, and its content type: OpenMetrics where `accept` names it, else Prometheus' own."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    # --- told by others ----------------------------------------------------------------------------------------------

    def committed(self, tally: Tally, seconds: float) -> None:
        """A transaction happened."""
        self._transactions.labels("committed").observe(seconds)
        for kind, number in tally.inserted.items():
            self._fires.labels(kind).inc(number)
        for reason, number in tally.skipped.items():
            self._skipped.labels(reason).inc(number)
        if tally.started:
            self._count_starts(tally)
        for (phase, executor), number in tally.ended.items():
            self._finished.labels(phase, self._known(executor)).inc(number)
        for executor, number in tally.retried.items():
            self._retried.labels(self._known(executor)).inc(number)
        for phase, number in tally.lost.items():
            self._lost.labels(phase).inc(number)
        if tally.refused:
            self._refused.inc(tally.refused)

    def _count_starts(self, tally: Tally) -> None:
        for start, number in tally.started.items():
            self._starts.labels(self._known(start.executor), start.kind).inc(number)
            if start.lateness is not None:
                self._lateness.observe(_word(start.late), start.lateness / SECOND, number)
            if start.late:
                self._late_starts.inc(number)

    def undone(self, error: BaseException, seconds: float) -> None:
        """A transaction did not happen."""
        outcome = "unavailable" if isinstance(error, StoreUnavailable) else "undone"
        self._transactions.labels(outcome).observe(seconds)

    def lagged(self, seconds: float) -> None:
        """The event loop's lag was measured."""
        self._lag.observe(seconds)

    def sampled(self, sample: Sample) -> None:
        """Somebody looked at the whole database."""
        for phase in sorted(OPEN):
            self._open.labels(phase.value).set(sample.open_runs.get(phase, 0))
        for (executor, late), number in sample.startable.items():
            labels = (_UNDECLARED, "") if executor == OTHER else (executor, _word(late))
            self._queue.labels(*labels).set(number)
        self._oldest_due.set(sample.oldest_due / SECOND)

    def _known(self, executor: str) -> str:
        return executor if executor in self._executors else _UNDECLARED


def _word(value: bool) -> str:
    return "true" if value else "false"


class _DroppedLines(Collector):
    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(
            "scheduler_log_lines_dropped_total", "Log lines that could not be written.", value=self._read()
        )


class CountedHistogram(Collector):
    """As `prometheus_client.Histogram` with one label, but told how often something was seen: a batch of a thousand starts
    costs what one does. The label's values are known beforehand. Any thread may observe.
    """

    def __init__(self, name: str, text: str, label: str, values: Iterable[str], bounds: Sequence[float]) -> None:
        """`bounds` are the upper ends of the buckets, rising; the last bucket, without end, is added."""
        self._name = name
        self._text = text
        self._label = label
        self._bounds: Final = tuple(bounds)
        self._names = [*map(_go_string, bounds), "+Inf"]
        self._counts = {value: [0] * len(self._names) for value in values}
        self._sums = dict.fromkeys(self._counts, 0.0)
        self._lock = threading.Lock()

    def observe(self, value: str, amount: float, number: int) -> None:
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
