"""Counts and latencies of requests, in Prometheus's text format, under TensorFlow Serving's names."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Final

#: Upper bounds of the latency histograms in microseconds: 10 · 1.8ⁿ, about 20 minutes at the end.
_BOUNDS: Final = tuple(10 * 1.8**n for n in range(33))
_COUNT: Final = ":tensorflow:serving:request_count"
_LATENCY: Final = ":tensorflow:serving:request_latency"
_RUNTIME: Final = ":tensorflow:serving:runtime_latency"
_HELP: Final = {
    _COUNT: "The total number of requests.",
    _LATENCY: "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
    _RUNTIME: "Distribution of wall time (in microseconds) for Tensorflow runtime.",
}

Labels = tuple[tuple[str, str], ...]


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.sum = 0.0


class Metrics:
    """What a server counts. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[Labels, int] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {_LATENCY: {}, _RUNTIME: {}}

    def count(self, model: str, status: str) -> None:
        """A request for a model ended with that status, such as ``OK``."""
        labels = (("model_name", model), ("status", status))
        with self._lock:
            self._requests[labels] = self._requests.get(labels, 0) + 1

    def took(self, model: str, microseconds: float, *, entry: str) -> None:
        """A request was answered over ``GRPC`` or ``REST`` in that time."""
        self._observe(_LATENCY, (("model_name", model), ("API", "Predict"), ("entrypoint", entry)), microseconds)

    def ran(self, model: str, microseconds: float) -> None:
        """The graph of a model took that time."""
        self._observe(_RUNTIME, (("model_name", model), ("API", "Predict"), ("runtime", "TF1")), microseconds)

    def _observe(self, name: str, labels: Labels, value: float) -> None:
        with self._lock:
            histogram = self._histograms[name].setdefault(labels, _Histogram())
            histogram.counts[bisect_left(_BOUNDS, value)] += 1
            histogram.sum += value

    def text(self) -> str:
        """The page that Prometheus reads."""
        with self._lock:
            lines = _head(_COUNT, "counter")
            lines += [f"{_COUNT}{{{_shown(labels)}}} {number}" for labels, number in self._requests.items()]
            for name, series in self._histograms.items():
                lines += _head(name, "histogram")
                for labels, histogram in series.items():
                    lines += _series(name, _shown(labels), histogram)
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}"]


def _series(name: str, labels: str, histogram: _Histogram) -> list[str]:
    lines, total = [], 0
    for bound, count in zip((*(f"{bound:g}" for bound in _BOUNDS), "+Inf"), histogram.counts, strict=True):
        total += count
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
    return [*lines, f"{name}_sum{{{labels}}} {histogram.sum:.0f}", f"{name}_count{{{labels}}} {total}"]


def _shown(labels: Labels) -> str:
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    return ",".join(f'{name}="{value}"' for name, value in escaped)
