"""Intervals have the coverage and the values that they should have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import Floats
from digitforge_evaluation.metrics.c_t import c_t, c_t_left_out, divide, nearness
from digitforge_evaluation.metrics.classifier_score import classifier_score
from digitforge_evaluation.metrics.extrapolation import extrapolated_distance
from digitforge_evaluation.metrics.frechet import frechet_distance, gaussian
from digitforge_evaluation.metrics.intervals import Interval, groups_of, jackknife_interval, share_interval
from digitforge_evaluation.metrics.kernel import kernel_distance
from digitforge_evaluation.metrics.prdc import prdc, prdc_left_out


def test_the_jackknife_interval_of_a_mean_is_the_one_of_students_t() -> None:
    sample = np.random.default_rng(0).normal(3, 2, 400)
    groups = groups_of(None, 400, groups=400)  # one row per group: the classical jackknife

    low, high = jackknife_interval(sample.mean(), [sample[groups != group].mean() for group in range(400)])

    margin = stats.t.ppf(0.975, 399) * sample.std(ddof=1) / 20
    assert (low, high) == pytest.approx((sample.mean() - margin, sample.mean() + margin))


def test_the_jackknife_interval_of_a_variance_covers_it_about_95_percent_of_the_time() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        sample = rng.normal(1, 1, 200)
        groups = groups_of(None, 200, seed=int(rng.integers(1000)))
        low, high = jackknife_interval(sample.var(), [sample[groups != group].var() for group in range(10)])
        held += low <= 1 <= high
    assert 0.90 < held / 400 < 0.99


@given(st.integers(2, 300), st.integers(0, 99))
def test_groups_have_equal_sizes_and_equal_shares_of_each_class(n: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, n)
    groups = groups_of(labels, n, seed=seed)

    for rows in (np.arange(n), *(np.flatnonzero(labels == label) for label in np.unique(labels))):
        counts = np.bincount(groups[rows], minlength=min(10, n))
        assert counts.max() - counts.min() <= 1


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_share_interval_contains_the_share_and_stays_between_0_and_1(n: int, share: float) -> None:
    low, high = share_interval(share, n)

    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert low < high


def test_a_share_interval_agrees_with_r() -> None:
    low, high = share_interval(0.1, 100)  # R: prop.test(10, 100, correct = FALSE)

    assert (low, high) == pytest.approx((0.05522914, 0.1743657), abs=1e-6)


def test_an_interval_of_no_image_or_one_group_is_an_error() -> None:
    with pytest.raises(InvalidInputError):
        share_interval(0.5, 0)
    with pytest.raises(InvalidInputError):
        jackknife_interval(0.0, [0.0])


def test_a_jackknife_interval_needs_three_groups() -> None:
    with pytest.raises(InvalidInputError, match="three groups"):
        jackknife_interval(0.0, [0.0, 1.0])


DIMENSIONS = 8
REAL = np.random.default_rng(7).normal(size=(400, DIMENSIONS))


def frechet(generated: Floats, n: int) -> tuple[float, Interval]:
    moments, groups = gaussian(REAL), groups_of(None, n)

    def value(rows: Floats) -> float:
        return frechet_distance(real=moments, generated=gaussian(rows))

    found = value(generated)
    return found, jackknife_interval(found, [value(generated[groups != group]) for group in range(10)])


def extrapolated(generated: Floats, n: int) -> tuple[float, Interval]:
    moments, groups = gaussian(REAL), groups_of(None, n)

    def value(rows: Floats) -> float:
        return extrapolated_distance(real=moments, generated=rows)

    found = value(generated)
    return found, jackknife_interval(found, [value(generated[groups != group]) for group in range(10)])


def kernel(generated: Floats, n: int) -> tuple[float, Interval]:
    found = kernel_distance(real=REAL, generated=generated)
    assert found.interval is not None
    return found.value, found.interval


def prdc_of(name: str) -> Callable[[Floats, int], tuple[float, Interval]]:
    def measure(generated: Floats, n: int) -> tuple[float, Interval]:
        found = getattr(prdc(real=REAL, generated=generated), name)
        without = prdc_left_out(real=REAL, generated=generated, groups=groups_of(None, n))
        return found, jackknife_interval(found, [getattr(each, name) for each in without])

    return measure


CELLS = divide(training=np.random.default_rng(8).normal(size=(400, DIMENSIONS)), held_out=400)
HELD_OUT = nearness(CELLS, REAL)


def copying(generated: Floats, n: int) -> tuple[float, Interval]:
    near = nearness(CELLS, generated)
    found = c_t(held_out=HELD_OUT, generated=near)
    return found, jackknife_interval(found, c_t_left_out(held_out=HELD_OUT, generated=near, groups=groups_of(None, n)))


def score(generated: Floats, n: int) -> tuple[float, Interval]:
    probabilities, groups = special.softmax(3 * generated, axis=1), groups_of(None, n)
    found = classifier_score(probabilities)
    return found, jackknife_interval(found, [classifier_score(probabilities[groups != group]) for group in range(10)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "scale", "highest"),
    [
        pytest.param(frechet, 1.0, 0.97, id="distance, perfect"),
        pytest.param(frechet, 1.2, 0.97, id="distance, too wide"),
        pytest.param(extrapolated, 1.0, 0.97, id="extrapolated, perfect"),
        pytest.param(extrapolated, 1.2, 0.97, id="extrapolated, too wide"),
        pytest.param(kernel, 1.0, 0.97, id="kernel, perfect"),
        pytest.param(kernel, 1.2, 0.97, id="kernel, too wide"),
        pytest.param(copying, 1.0, 0.97, id="C_T, perfect"),
        pytest.param(copying, 0.9, 0.97, id="C_T, too narrow"),
        pytest.param(score, 1.0, 0.97, id="classifier score"),
        pytest.param(prdc_of("precision"), 1.2, 0.97, id="precision"),
        pytest.param(prdc_of("density"), 1.2, 0.97, id="density"),
        # These depend on the generated images through nearest neighbors; the jackknife's interval is too wide for them.
        pytest.param(prdc_of("recall"), 1.2, 1.0, id="recall"),
        pytest.param(prdc_of("coverage"), 1.2, 1.0, id="coverage"),
    ],
)
def test_intervals_contain_the_expected_value_of_the_metric_about_95_percent_of_the_time(
    measure: Callable[[Floats, int], tuple[float, Interval]], scale: float, highest: float
) -> None:
    """Normal features. The expected value is estimated by the mean over all repeats, for the same real images."""
    rng = np.random.default_rng(0)
    found = [measure(rng.normal(scale=scale, size=(400, DIMENSIONS)), 400) for _ in range(1500)]

    expected = np.mean([value for value, _ in found])
    share = np.mean([low <= expected <= high for _, (low, high) in found])

    assert 0.93 <= share <= highest
