"""Compares the metrics with the usual packages: `make benchmark ARGS="-k metric_ratios"`.

It prints times and memory; no test depends on time. The usual package for precision to coverage is `prdc`. For the
Fréchet distance it is `scipy.linalg.sqrtm` of the product of the covariances, as in the code of the FID paper.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import pytest
from prdc import compute_prdc
from scipy.linalg import sqrtm

from digitforge_evaluation.metrics.frechet import Gaussian, frechet_distance, gaussian
from digitforge_evaluation.metrics.prdc import prdc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

REPEATS = 3


@pytest.fixture(scope="module", autouse=True)
def machine() -> None:
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("digitforge", "numpy", "scipy", "prdc"))
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Correlated, nonnegative features, like those of a network: (n, d) float32."""
    mix = np.random.default_rng(9).normal(size=(d, d)) * np.geomspace(1, 1e-3, d) / 8
    return np.maximum(np.random.default_rng(seed).normal(size=(n, d)) @ mix + 0.3, 0).astype(np.float32)


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any]:
    """Run both in turn, print their times and the ratio, and return both results."""
    found: tuple[Any, Any] = (None, None)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        results = []
        for which, measure in enumerate((ours, theirs)):
            before = time.perf_counter()
            results.append(measure())
            times[which].append(time.perf_counter() - before)
        found = results[0], results[1]
    ratios = sorted(other / own for own, other in zip(*times, strict=True))
    print(
        f"{name:<46} {statistics.median(times[0]):>7.2f} s, usual package {statistics.median(times[1]):>7.2f} s, "
        f"ratio {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}, {REPEATS} repeats)"
    )
    return found


def test_frechet_distance_of_2048_features() -> None:
    real, generated = (gaussian(features(5000, 2048, seed)) for seed in (1, 2))

    def usual(real: Gaussian, generated: Gaussian) -> float:
        root = sqrtm(real.covariance @ generated.covariance)
        traces = np.trace(real.covariance) + np.trace(generated.covariance) - 2 * np.trace(np.real(root))
        return float(((real.mean - generated.mean) ** 2).sum() + traces)

    found, expected = compare(
        "Fréchet distance, 2 048 features",
        lambda: frechet_distance(real=real, generated=generated),
        lambda: usual(real, generated),
    )

    assert found == pytest.approx(expected, rel=1e-6)


def test_prdc_of_ten_thousand_images_against_ten_thousand() -> None:
    real, generated = (features(10_000, 64, seed) for seed in (1, 2))

    found, expected = compare(
        "precision to coverage, 10 000 against 10 000",
        lambda: prdc(real=real, generated=generated, k=5),
        lambda: compute_prdc(real, generated, 5),
    )

    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6)


LARGE = """
import resource
import numpy as np
from digitforge_evaluation.metrics.intervals import groups_of
from digitforge_evaluation.metrics.frechet import frechet_distance, gaussian
from digitforge_evaluation.metrics.kernel import kernel_distance, subset_kernel_distance
from digitforge_evaluation.metrics.authenticity import authentic
from digitforge_evaluation.metrics.prdc import prdc, prdc_left_out

real, generated = (np.random.default_rng(seed).normal(size=(50_000, 64)).astype(np.float32) for seed in (1, 2))
groups = groups_of(None, 50_000)
frechet_distance(real=gaussian(real), generated=gaussian(generated))
prdc(real=real, generated=generated)
prdc_left_out(real=real, generated=generated, groups=groups)
kernel_distance(real=real, generated=generated)
subset_kernel_distance(real=real, generated=generated)
authentic(training=real, samples=generated)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_fifty_thousand_images_against_fifty_thousand_fit_in_two_gib() -> None:
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    gib = float(done.stdout)
    print(f"{'50 000 against 50 000, 64 features':<46} {time.perf_counter() - before:>7.0f} s, at most {gib:.2f} GiB")
    assert gib < 2
