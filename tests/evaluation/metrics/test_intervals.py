"""Intervals have the coverage and the values that they should have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.intervals import groups_of, jackknife_interval, share_interval


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
