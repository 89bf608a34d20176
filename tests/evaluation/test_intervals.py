"""The intervals cover what they claim to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.intervals import bootstrap_interval, share_interval


def test_the_bootstrap_interval_of_a_mean_is_the_normal_one():
    sample = np.random.default_rng(0).normal(3, 2, 4000)

    low, high = bootstrap_interval(
        sample.mean(), lambda rows: sample[rows].mean(), np.zeros(4000, np.int64), resamples=400
    )

    assert low + high == pytest.approx(2 * sample.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * 2 / np.sqrt(4000), rel=0.15)


def test_rows_are_exchanged_within_their_stratum_only():
    strata = np.repeat([0, 1], 50)
    seen = []

    bootstrap_interval(0.0, lambda rows: float(seen.append(strata[rows].sum()) or 0.0), strata, resamples=20)

    assert seen == [50] * 20


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_share_interval_holds_the_share_and_stays_a_share(n, share):
    low, high = share_interval(share, n)

    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert low < high


def test_a_share_interval_is_the_tabulated_one():
    low, high = share_interval(0.1, 100)  # R: prop.test(10, 100, correct = FALSE)

    assert (low, high) == pytest.approx((0.05522914, 0.1743657), abs=1e-6)


def test_nothing_has_no_interval():
    with pytest.raises(InvalidInputError):
        share_interval(0.5, 0)
    with pytest.raises(InvalidInputError):
        bootstrap_interval(0.0, lambda rows: 0.0, np.empty(0, np.int64))
