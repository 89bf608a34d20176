"""Counts and latencies of requests in Prometheus's text format, under TensorFlow Serving's names.

Does not use prometheus-client, which cannot print these names: it ends every counter in ``_total`` and adds a
``_created`` series. The tests parse the text with prometheus-client. Bucket bounds have six digits like TensorFlow
Serving's, so ``sum by (le)`` works across both servers.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Container, Sequence
from typing import Final

#: Upper bounds of the latency buckets, in microseconds: 10 · 1.8ⁿ, up to about 25 minutes.
_BOUNDS: Final = tuple(10 * 1.8**n for n in range(33))
#: Upper bounds of the batch size buckets, in rows.
_SIZES: Final = tuple(float(2**n) for n in range(14))
_COUNT: Final = ":tensorflow:serving:request_count"
_LATENCY: Final = ":tensorflow:serving:request_latency"
_RUNTIME: Final = ":tensorflow:serving:runtime_latency"
_WAIT: Final = ":tensorflow:serving:batching_session:queuing_latency"
_BATCH: Final = ":tensorflow:serving:batching_session:processed_batch_size"
_LOADS: Final = ":tensorflow:cc:saved_model:load_attempt_count"
_HELP: Final = {
    _COUNT: "The total number of requests.",
    _LATENCY: "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
    _RUNTIME: "Distribution of wall time (in microseconds) for Tensorflow runtime.",
    _WAIT: "Distribution of wall time spent (in microseconds) in queuing",
    _BATCH: "Distribution of the sizes of batches that were processed, padding included",
    _LOADS: "The number of times a SavedModel was requested to be loaded.",
}
#: Counts requests for models that are not configured, because clients can invent any number of names.
OTHER_MODELS: Final = "<other>"
_POOL: Final = (("thread_pool_name", "batch_threads"),)

Labels = tuple[tuple[str, str], ...]


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Metrics:
    """Counters and histograms of a server. Thread-safe."""

    def __init__(self) -> None:
        #: Names of the configured models.
        self.model_names: Container[str] = ()
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, int]] = {_COUNT: {}, _LOADS: {}}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {_LATENCY: {}, _RUNTIME: {}, _WAIT: {}, _BATCH: {}}

    def count_request(self, model: str, status: str) -> None:
        """Count a request for *model* that ended with a gRPC *status* such as ``OK``."""
        model = model if model in self.model_names else OTHER_MODELS
        self._increase(_COUNT, (("model_name", model), ("status", status)))

    def count_load(self, path: str, status: str) -> None:
        """Count an attempt to load the version in the folder *path*; *status* is ``success`` or ``fail``."""
        self._increase(_LOADS, (("model_path", path), ("status", status)))

    def observe_latency(self, model: str, microseconds: float, *, entry: str) -> None:
        """Record how long a request took from arrival to answer; *entry* is ``GRPC`` or ``REST``."""
        method = "predict" if entry == "REST" else "Predict"  # TensorFlow Serving's spelling
        self._observe(_LATENCY, (("model_name", model), ("API", method), ("entrypoint", entry)), [microseconds])

    def observe_runtime(self, model: str, microseconds: float) -> None:
        """Record how long TensorFlow computed for a request or batch."""
        self._observe(_RUNTIME, (("model_name", model), ("API", "Predict"), ("runtime", "TF1")), [microseconds])

    def observe_batch(self, rows: int, waits: Sequence[float]) -> None:
        """Record a batch: its *rows*, padding included, and how long each request waited, in microseconds."""
        self._observe(_BATCH, _POOL, [rows], bounds=_SIZES)
        self._observe(_WAIT, _POOL, waits)

    def _increase(self, name: str, labels: Labels) -> None:
        with self._lock:
            numbers = self._counters[name]
            numbers[labels] = numbers.get(labels, 0) + 1

    def _observe(
        self, name: str, labels: Labels, values: Sequence[float], *, bounds: tuple[float, ...] = _BOUNDS
    ) -> None:
        with self._lock:
            series = self._histograms[name]
            histogram = series.get(labels)
            if histogram is None:
                histogram = series[labels] = _Histogram(bounds)
            for value in values:
                histogram.add(value)

    def text(self) -> str:
        """All metrics in Prometheus's text format."""
        with self._lock:
            lines: list[str] = []
            for name, numbers in self._counters.items():
                lines += _head(name, "counter")
                lines += [f"{name}{{{_shown(labels)}}} {number}" for labels, number in numbers.items()]
            for name, series in self._histograms.items():
                lines += _head(name, "histogram")
                for labels, histogram in series.items():
                    lines += _series(name, _shown(labels), histogram)
        return "\n".join(lines) + "\n"


def _head(name: str, metric_type: str) -> list[str]:
    return [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {metric_type}"]


def _series(name: str, labels: str, histogram: _Histogram) -> list[str]:
    lines, total = [], 0
    for bound, count in zip((*(f"{bound:g}" for bound in histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
    return [*lines, f"{name}_sum{{{labels}}} {histogram.sum:.0f}", f"{name}_count{{{labels}}} {total}"]


def _shown(labels: Labels) -> str:
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    return ",".join(f'{name}="{value}"' for name, value in escaped)
