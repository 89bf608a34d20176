"""Measures how fast the shipped generator makes digits: `make benchmark ARGS="-k generating"`.

The SavedModel runs in this process, with 256 rows per call. DIGITFORGE_BENCHMARK_IN_FLIGHT is the number of parallel
calls (default 1). To show how fast the machine is, NumPy multiplies two 2 048 × 2 048 float32 matrices in turn with the
generator. If DIGITFORGE_BENCHMARK_MODEL names the base folder of another generator, that one runs in turn too.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from digitforge_client.common.shipped import shipped_models
from digitforge_client.common.versions import newest_version
from digitforge_client.contract import Signature, balanced_labels, row_seeds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPEATS = int(os.environ.get("DIGITFORGE_BENCHMARK_REPEATS", "15"))
IN_FLIGHT = int(os.environ.get("DIGITFORGE_BENCHMARK_IN_FLIGHT", "1"))
ROWS, CALLS, SIDE = 256, 20, 2048


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def generating(version: Path) -> Callable[[], None]:
    """Return a function that calls the SavedModel `CALLS` times."""
    model = tf.saved_model.load(str(version))  # kept alive here, because its signatures do not keep it
    labels, seeds = tf.constant(balanced_labels(ROWS, 10)), tf.constant(row_seeds(0, ROWS))

    def call(_: int) -> None:
        model.signatures[Signature.SAMPLE](labels=labels, seeds=seeds)

    def images() -> None:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(call, range(CALLS)))

    return images


def test_images_per_second() -> None:
    other = os.environ.get("DIGITFORGE_BENCHMARK_MODEL")
    versions = [newest_version(Path(base)) for base in (shipped_models() / "digits", other) if base]
    matrix = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    sides: list[Callable[[], Any]] = [*map(generating, versions), lambda: matrix @ matrix]
    for side in sides:
        side()
    turns = []
    for turn in range(REPEATS):
        order = -1 if turn % 2 else 1  # alternate the order, because the side after the matrix product is slower
        turns.append([seconds(side) for side in sides[::order]][::order])
    *models, products = zip(*turns, strict=True)
    print(f"\n{ROWS} rows per call, {IN_FLIGHT} in flight, {REPEATS} repeats in turn, {os.cpu_count()} cores")
    rates = [[ROWS * CALLS / taken for taken in times] for times in models]
    for version, values in zip(versions, rates, strict=True):
        show(f"{version}", values, "images/s")
        assert min(values) > 0
    if other:
        show("second ÷ first generator", [b / a for a, b in zip(*rates, strict=True)], "×")
    show("matrix product", [2 * SIDE**3 / taken / 1e9 for taken in products], "GFLOP/s")


def show(what: str, values: list[float], unit: str) -> None:
    print(f"  {what}: {statistics.median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f}) {unit}")
