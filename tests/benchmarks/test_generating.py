"""How fast the shipped generator makes digits: `make benchmark ARGS="-k generating"`.

In this process, from the SavedModel, 256 rows a call, as the figure is usually given. What the cores can do at all
stands beside it: numpy's product of two matrices of 2 048 × 2 048 float32, in turn with the generator.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from digitforge_client.contract import Signature, balanced_labels, row_seeds
from digitforge_serving.locations import shipped_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPEATS = int(os.environ.get("DIGITFORGE_BENCHMARK_REPEATS", "15"))
ROWS, CALLS, SIDE = 256, 20, 2048


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_images_per_second() -> None:
    newest = max(
        (path for path in (shipped_models() / "digits").iterdir() if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )
    generate = tf.saved_model.load(str(newest)).signatures[Signature.SAMPLE]
    labels, seeds = tf.constant(balanced_labels(ROWS, 10)), tf.constant(row_seeds(0, ROWS))
    matrix = np.random.default_rng(0).random((SIDE, SIDE), np.float32)

    def images() -> None:
        for _ in range(CALLS):
            generate(labels=labels, seeds=seeds)

    for work in (images, lambda: matrix @ matrix):
        work()
    pairs = [(seconds(images), seconds(lambda: matrix @ matrix)) for _ in range(REPEATS)]
    rates = [ROWS * CALLS / of_images for of_images, _ in pairs]
    peaks = [2 * SIDE**3 / of_product / 1e9 for _, of_product in pairs]
    print(f"\nversion {newest.name}, {ROWS} rows a call, {REPEATS} repeats, {os.cpu_count()} cores")
    print(f"  images per second   {statistics.median(rates):8,.0f} ({min(rates):,.0f} to {max(rates):,.0f})")
    print(f"  matrix product      {statistics.median(peaks):8,.0f} GFLOP/s ({min(peaks):,.0f} to {max(peaks):,.0f})")
    assert min(rates) > 0
