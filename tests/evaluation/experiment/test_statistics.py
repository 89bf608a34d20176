"""Tests of the paired statistics against brute force, SciPy and published values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.statistics import (
    bootstrap_interval,
    holm,
    permutation_p_value,
    smallest_detectable,
    t_interval,
    verdict,
)

accuracies = st.lists(st.integers(-300, 300).map(lambda hits: hits / 10_000), min_size=2, max_size=9)
#: Darwin's maize: height of crossed minus self-fertilized plants in eighths of an inch (Fisher 1935, chapter III).
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_darwins_maize_has_the_p_value_that_fisher_computed() -> None:
    assert permutation_p_value(DARWIN) == pytest.approx(1726 / 2**15, abs=1e-12)


@given(accuracies)
def test_the_permutation_test_agrees_with_brute_force(differences: list[float]) -> None:
    observed = abs(sum(differences))
    patterns = list(itertools.product([-1, 1], repeat=len(differences)))
    hits = sum(
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) >= observed - 1e-12 for signs in patterns
    )
    assert permutation_p_value(differences) == pytest.approx(hits / len(patterns))


def test_five_subsets_cannot_have_a_p_value_below_a_sixteenth() -> None:
    assert permutation_p_value([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx(2 / 32)


def test_random_patterns_agree_with_the_t_test() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1.0, 60)
    expected = stats.ttest_1samp(differences, 0.0).pvalue
    assert permutation_p_value(differences) == pytest.approx(expected, abs=0.01)


def test_random_patterns_never_give_a_p_value_of_zero() -> None:
    assert permutation_p_value(np.ones(40)) == pytest.approx(1 / 100_001)


@given(accuracies)
def test_the_t_interval_agrees_with_scipy(differences: list[float]) -> None:
    interval = t_interval(differences, confidence=0.9)
    if np.std(differences) > 0:
        expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.9)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    else:
        assert interval.low == pytest.approx(interval.high)


@given(accuracies)
@settings(max_examples=25)
def test_a_bootstrap_interval_lies_within_the_differences(differences: list[float]) -> None:
    interval = bootstrap_interval(differences, resamples=500)
    assert min(differences) - 1e-12 <= interval.low <= interval.high <= max(differences) + 1e-12


def test_the_bootstrap_interval_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(0.0, 1.0, 200)
    interval = bootstrap_interval(values)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.05)


def test_the_same_seed_gives_the_same_bootstrap_interval() -> None:
    assert bootstrap_interval(DARWIN, seed=3) == bootstrap_interval(DARWIN, seed=3)
    assert bootstrap_interval(DARWIN, seed=3) != bootstrap_interval(DARWIN, seed=4)


def test_holm_agrees_with_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
    # Rejecting by adjusted values must equal the step-down procedure.
    rejected = set()
    for rank, i in enumerate(order):
        if p_values[i] * (len(p_values) - rank) >= 0.05:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(adjusted) if p < 0.05} == rejected


def test_the_smallest_detectable_difference_is_found_with_80_percent_probability() -> None:
    scatter = np.array([-1.0, 1.0] * 5)
    scatter /= scatter.std(ddof=1)
    effect = smallest_detectable(scatter)
    draws = np.random.default_rng(0).normal(effect, 1.0, (20_000, 10))
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("mean", "adjusted_p", "subsets", "expected"),
    [
        (0.01, 0.001, 10, "helps"),
        (-0.01, 0.001, 10, "hurts"),
        (0.01, 0.05, 10, "no evidence"),
        (0.01, 0.0001, 9, "descriptive"),
    ],
)
def test_a_verdict_needs_significance_and_ten_subsets(
    mean: float, adjusted_p: float, subsets: int, expected: str
) -> None:
    assert verdict(mean=mean, adjusted_p=adjusted_p, subsets=subsets) == expected


@pytest.mark.parametrize("differences", [[], [float("nan"), 1.0], [[1.0, 2.0]], [float("inf")] * 3])
def test_differences_must_be_a_list_of_finite_numbers(differences: list[float]) -> None:
    for statistic in (t_interval, bootstrap_interval, permutation_p_value, smallest_detectable):
        with pytest.raises(InvalidInputError, match="difference"):
            statistic(differences)
