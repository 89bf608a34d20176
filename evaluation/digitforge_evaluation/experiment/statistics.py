"""Statistics of paired differences, where one subset of real images is one observation.

Two arms are compared on the same subsets, so the data are the differences within each subset. This module knows
nothing about classifiers or images.

References: R. A. Fisher, *The Design of Experiments* (1935), for the paired permutation test; S. Holm, "A simple
sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979); B. Efron, "Bootstrap methods",
Ann. Statist. 7 (1979), for the percentile interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from digitforge_client.errors import InvalidInputError

Verdict = Literal["helps", "hurts", "no evidence", "descriptive"]

#: A verdict needs this many subsets. With five, the smallest p of the exact two-sided test is 2/2⁵ = 0.06.
SUBSETS_FOR_A_VERDICT: Final = 10
#: Up to this many differences, the test enumerates all 2ⁿ sign patterns (2²⁰ is about a million). Above, it draws
#: ``RANDOM_PATTERNS`` of them.
EXACT_UP_TO: Final = 20
RANDOM_PATTERNS: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A two-sided interval, in the unit of the measurement."""

    low: float
    high: float
    confidence: float  #: between 0 and 1


def _checked(differences: npt.ArrayLike, *, least: int) -> npt.NDArray[np.float64]:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < least:
        raise InvalidInputError(
            f"the differences have shape {values.shape}; expected one number per subset and at least {least} subsets"
        )
    if not (finite := np.isfinite(values)).all():
        raise InvalidInputError(
            f"a difference is {values[~finite][0]}; expected finite numbers. Look for a cell without an accuracy"
        )
    return values


def t_interval(values: npt.ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean.

    Args:
        values: (n,) floats, n ≥ 2, one per subset.
        confidence: coverage, between 0 and 1.

    Raises:
        InvalidInputError: there are fewer than two values, or one is not finite.
    """
    checked = _checked(values, least=2)
    mean = float(checked.mean())
    half = float(stats.t.ppf((1 + confidence) / 2, len(checked) - 1) * checked.std(ddof=1) / np.sqrt(len(checked)))
    return Interval(low=mean - half, high=mean + half, confidence=confidence)


def bootstrap_interval(
    values: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval for the mean. It draws subsets with replacement.

    Args:
        values: (n,) floats, n ≥ 2, one per subset.
        confidence: coverage, between 0 and 1.
        resamples: number of resampled means.
        seed: the same seed gives the same interval.

    Raises:
        InvalidInputError: there are fewer than two values, or one is not finite.
    """
    checked = _checked(values, least=2)
    rng = np.random.default_rng(seed)
    means = checked[rng.integers(0, len(checked), (resamples, len(checked)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(low=float(low), high=float(high), confidence=confidence)


def permutation_p_value(differences: npt.ArrayLike, *, seed: int = 0) -> float:
    """Two-sided p-value of Fisher's paired permutation test for a mean difference of zero.

    If an arm has no effect, each difference is equally likely to have the opposite sign. The p-value is the share of
    sign patterns whose mean is at least as far from zero as the observed mean. Up to ``EXACT_UP_TO`` differences, it
    is exact. Above, it is estimated from ``RANDOM_PATTERNS`` random patterns plus the observed one.

    Args:
        differences: (n,) floats, n ≥ 1, one per subset.
        seed: seed of the random patterns.

    Raises:
        InvalidInputError: there are no differences, or one is not finite.
    """
    values = _checked(differences, least=1)
    # With this tolerance, sums that differ only by rounding count as equal. SciPy's permutation_test has a narrower
    # tolerance, and takes seconds for 2²⁰ patterns where this takes milliseconds.
    threshold = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) <= EXACT_UP_TO:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= threshold))
    rng = np.random.default_rng(seed)
    hits = 1  # the observed pattern, which keeps p above zero
    for _ in range(RANDOM_PATTERNS // 1000):
        signs = rng.choice([-1.0, 1.0], size=(1000, len(values)))
        hits += int(np.count_nonzero(np.abs(signs @ values) >= threshold))
    return hits / (RANDOM_PATTERNS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values.

    If each verdict requires an adjusted p-value below 0.05, the chance of one or more false verdicts in the family is
    below 0.05.

    Args:
        p_values: one per comparison of the family, in any order.

    Returns:
        The adjusted p-values in the same order. Each is at least its original value and at most 1.
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def smallest_detectable(differences: npt.ArrayLike, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true mean difference that the test finds with probability *power*.

    It assumes as many differences as in *differences*, with the same spread. It holds for the two-sided one-sample t
    test, and is computed from the noncentral t distribution.

    Args:
        differences: (n,) floats, n ≥ 2, one per subset.
        alpha: significance level of the test.
        power: probability of finding the effect.

    Raises:
        InvalidInputError: there are fewer than two differences, or one is not finite.
    """
    values = _checked(differences, least=2)
    n = len(values)
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))

    def shortfall(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, n - 1, noncentrality)) - power

    # The upper bound has a power above 0.999, and scipy's nct is still accurate there.
    noncentrality = float(optimize.brentq(shortfall, 0.0, 4.0 * critical + 10.0))
    return noncentrality * float(values.std(ddof=1)) / float(np.sqrt(n))


def verdict(*, mean: float, adjusted_p: float, subsets: int, alpha: float = 0.05) -> Verdict:
    """The verdict on one comparison.

    Args:
        mean: mean paired difference; positive is better.
        adjusted_p: p-value after Holm's correction over the primary family.
        subsets: number of differences in the mean.
        alpha: significance level of the family.

    Returns:
        ``helps``, ``hurts`` or ``no evidence``. With fewer than ``SUBSETS_FOR_A_VERDICT`` subsets always
        ``descriptive``.
    """
    if subsets < SUBSETS_FOR_A_VERDICT:
        return "descriptive"
    if adjusted_p >= alpha:
        return "no evidence"
    return "helps" if mean > 0 else "hurts"
