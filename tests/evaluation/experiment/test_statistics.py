"""Tests of the paired statistics against brute force, SciPy and published values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.statistics import (
    check_family,
    holm,
    permutation_p_value,
    power,
    skewness,
    smallest_detectable,
    smallest_p,
    subsets_needed,
    t_interval,
    verdict,
)

accuracies = st.lists(st.integers(-300, 300).map(lambda hits: hits / 10_000), min_size=3, max_size=9)
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


def test_the_smallest_p_value_is_that_of_equal_signs_times_the_family() -> None:
    assert smallest_p(10) == permutation_p_value(np.arange(1, 11)) == 2 / 2**10
    assert smallest_p(10, family=26) == pytest.approx(0.0508, abs=1e-4)
    assert max(holm([2 / 2**10] * 26)) == smallest_p(10, family=26)
    assert smallest_p(3, family=26) == 1
    assert smallest_p(30) == permutation_p_value(np.ones(30))


@pytest.mark.parametrize(("family", "subsets"), [(1, 10), (25, 10), (26, 11), (51, 11), (52, 12), (26_000, 20)])
def test_a_large_family_needs_more_subsets(family: int, subsets: int) -> None:
    assert subsets_needed(family) == subsets
    check_family(family, subsets=subsets)


def test_a_family_that_cannot_reach_significance_is_refused_with_the_number_of_subsets() -> None:
    with pytest.raises(InvalidInputError, match=r"10 subsets cannot give a verdict on 26 .*0\.051.* --subsets 11"):
        check_family(26, subsets=10)
    check_family(26, subsets=9)  # descriptive in any case
    with pytest.raises(InvalidInputError, match="expected fewer than 26\u00a0215"):
        subsets_needed(30_000)


def _student_detects(subsets: int, alpha: float) -> float:
    """The standardized effect that the t test finds with probability 0.8."""
    critical = stats.t.ppf(1 - alpha / 2, subsets - 1)
    share = optimize.brentq(lambda shift: stats.nct.sf(critical, subsets - 1, shift) - 0.8, 0, 30)
    return float(share / np.sqrt(subsets))


def test_ten_subsets_find_less_than_students_test_would_and_nothing_among_26_comparisons() -> None:
    # With 13 comparisons, only ten equal signs pass.
    all_positive = stats.norm.cdf(_student_detects(10, 0.05 / 13)) ** 10
    for family, expected in ((1, 0.79), (13, all_positive), (26, 0.0)):
        effect = _student_detects(10, 0.05 / family)
        assert power(effect, subsets=10, alpha=0.05 / family) == pytest.approx(expected, abs=0.01)
    assert all_positive == pytest.approx(0.53, abs=0.005)


@pytest.mark.parametrize(("subsets", "family"), [(10, 1), (10, 4), (12, 15)])
def test_the_smallest_detectable_difference_is_found_with_80_percent_probability(subsets: int, family: int) -> None:
    scatter = np.array([-1.0, 1.0] * (subsets // 2))
    scatter /= scatter.std(ddof=1)
    effect = smallest_detectable(scatter, alpha=0.05 / family)
    assert effect is not None
    draws = np.random.default_rng(0).normal(effect, 1.0, (2_000, subsets))
    found = [permutation_p_value(each) < 0.05 / family for each in draws]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)  # three standard errors


def test_random_sign_patterns_detect_what_students_test_does_with_many_subsets() -> None:
    scatter = stats.norm.ppf((np.arange(60) + 0.5) / 60)
    effect = smallest_detectable(scatter / scatter.std(ddof=1), alpha=0.05 / 4)
    assert effect == pytest.approx(_student_detects(60, 0.05 / 4), rel=0.03)


def test_nothing_is_detectable_if_the_test_cannot_reach_its_level() -> None:
    assert smallest_detectable(DARWIN[:10], alpha=0.05 / 26) is None
    assert power(9.0, subsets=10, alpha=0.05 / 26) == 0


def test_only_strong_skewness_is_reported_at_its_level() -> None:
    rng = np.random.default_rng(0)
    normal = [skewness(each) is not None for each in rng.normal(size=(600, 10))]
    assert np.mean(normal) == pytest.approx(0.05, abs=0.027)  # three standard errors
    exponential = [skewness(each) is not None for each in rng.exponential(size=(600, 10))]
    assert np.mean(exponential) == pytest.approx(0.37, abs=0.06)
    assert skewness([0.0] * 9 + [1.0]) == pytest.approx(8 / 3)
    assert skewness([0.01] * 10) is None
    assert skewness([0.0, 0.0, 1.0]) is None


@pytest.mark.parametrize(
    ("mean", "adjusted_p", "subsets", "expected"),
    [
        (0.01, 0.001, 10, "helps"),
        (-0.01, 0.001, 10, "hurts"),
        (0.01, 0.05, 10, "inconclusive"),
        (0.01, 0.0001, 9, "descriptive"),
    ],
)
def test_a_verdict_needs_significance_and_ten_subsets(
    mean: float, adjusted_p: float, subsets: int, expected: str
) -> None:
    assert verdict(mean=mean, adjusted_p=adjusted_p, subsets=subsets) == expected


@pytest.mark.parametrize("differences", [[], [float("nan"), 1.0], [[1.0, 2.0]], [float("inf")] * 3])
def test_differences_must_be_a_list_of_finite_numbers(differences: list[float]) -> None:
    for statistic in (t_interval, permutation_p_value, smallest_detectable, skewness):
        with pytest.raises(InvalidInputError, match="difference"):
            statistic(differences)


def test_two_differences_have_no_interval() -> None:
    with pytest.raises(InvalidInputError, match="at least 3 subsets"):
        t_interval([0.72, 0.74])
