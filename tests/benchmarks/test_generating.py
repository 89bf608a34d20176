"""How fast the shipped generator makes digits: `make benchmark ARGS="-k generating"`.

In this process, from the SavedModel, 256 rows a call, as the figure is usually given; one call after the other or,
as a server has them, DIGITFORGE_BENCHMARK_IN_FLIGHT at once. What the cores can do at all stands beside it: numpy's
product of two matrices of 2 048 × 2 048 float32, in turn with the generator. Another one is measured in turn with it,
if DIGITFORGE_BENCHMARK_MODEL names its base folder.
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

from digitforge_client.contract import Signature, balanced_labels, row_seeds
from digitforge_evaluation.images.sources import newest_version
from digitforge_serving.models.locations import shipped_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPEATS = int(os.environ.get("DIGITFORGE_BENCHMARK_REPEATS", "15"))
IN_FLIGHT = int(os.environ.get("DIGITFORGE_BENCHMARK_IN_FLIGHT", "1"))
ROWS, CALLS, SIDE = 256, 20, 2048


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def generating(version: Path) -> Callable[[], None]:
    """What makes so many calls of the SavedModel."""
    model = tf.saved_model.load(str(version))  # kept: its signatures do not keep it
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
        way = -1 if turn % 2 else 1  # now forwards, now backwards: what comes after the product is slower
        turns.append([seconds(side) for side in sides[::way]][::way])
    *models, products = zip(*turns, strict=True)
    print(f"\n{ROWS} rows a call, {IN_FLIGHT} in flight, {REPEATS} repeats in turn, {os.cpu_count()} cores")
    rates = [[ROWS * CALLS / taken for taken in times] for times in models]
    for version, values in zip(versions, rates, strict=True):
        show(f"{version}", values, "images/s")
        assert min(values) > 0
    if other:
        show("the latter ÷ the former", [b / a for a, b in zip(*rates, strict=True)], "×")
    show("matrix product", [2 * SIDE**3 / taken / 1e9 for taken in products], "GFLOP/s")


def show(what: str, values: list[float], unit: str) -> None:
    print(f"  {what}: {statistics.median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f}) {unit}")
