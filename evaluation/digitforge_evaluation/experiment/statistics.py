"""Statistics of paired differences, where one subset of real images is one observation.

Two arms are compared on the same subsets, so the data are the differences within each subset. This module knows
nothing about classifiers or images.

References: R. A. Fisher, *The Design of Experiments* (1935), for the paired permutation test; S. Holm, "A simple
sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979); Student, "The probable error of a
mean", Biometrika 6 (1908), for the intervals; R. B. D'Agostino, "Transformation to normality of the null distribution
of g1", Biometrika 57 (1970), for the test of skewness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from digitforge_client.common.numerals import grouped
from digitforge_client.errors import InvalidInputError

Verdict = Literal["helps", "hurts", "inconclusive", "descriptive"]

#: Significance level of a family of verdicts.
LEVEL: Final = 0.05
#: A verdict needs this many subsets. With five, the smallest p of the exact two-sided test is 2/2⁵ = 0.06.
SUBSETS_FOR_A_VERDICT: Final = 10
#: An interval or a p-value needs this many subsets. Two give an interval that is hundreds of times wider than a half.
SUBSETS_FOR_AN_INTERVAL: Final = 3
#: Up to this many differences, the test enumerates all 2ⁿ sign patterns (2²⁰ is about a million). Above, it draws
#: ``RANDOM_PATTERNS`` of them.
EXACT_UP_TO: Final = 20
RANDOM_PATTERNS: Final = 100_000
#: Differences count as strongly skewed if the test of skewness has a smaller p-value.
SKEWNESS_LEVEL: Final = 0.05
#: Up to this many subsets, the simulation of power uses all sign patterns; above, as many random ones. The smallest
#: detectable difference varies between seeds by up to 1 % of its value at 10 subsets, and by up to 3 % at more.
_POWER_EXACT_UP_TO: Final = 13


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
        values: (n,) floats, n ≥ 3, one per subset.
        confidence: coverage, between 0 and 1.

    Raises:
        InvalidInputError: there are fewer than three values, or one is not finite.
    """
    checked = _checked(values, least=SUBSETS_FOR_AN_INTERVAL)
    mean = float(checked.mean())
    half = float(stats.t.ppf((1 + confidence) / 2, len(checked) - 1) * checked.std(ddof=1) / np.sqrt(len(checked)))
    return Interval(low=mean - half, high=mean + half, confidence=confidence)


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


def smallest_p(subsets: int, *, family: int = 1) -> float:
    """The smallest p-value that a comparison can reach after Holm's correction, between 0 and 1.

    If all *n* differences have the same sign, two of the 2ⁿ sign patterns are as extreme. Holm's correction multiplies
    the smallest p-value of the family by the size of the family.

    Args:
        subsets: number of differences.
        family: number of comparisons that are corrected together.
    """
    alone = 2 / 2**subsets if subsets <= EXACT_UP_TO else 1 / (RANDOM_PATTERNS + 1)
    return min(1.0, family * alone)


def subsets_needed(family: int, *, alpha: float = LEVEL) -> int:
    """The smallest number of subsets with which a family of this size can get a verdict. It is at least ten.

    Raises:
        InvalidInputError: the family is too large for the exact test.
    """
    for subsets in range(SUBSETS_FOR_A_VERDICT, EXACT_UP_TO + 1):
        if smallest_p(subsets, family=family) < alpha:
            return subsets
    most = grouped(ceil(alpha * 2 ** (EXACT_UP_TO - 1)))
    raise InvalidInputError(
        f"there are {grouped(family)} comparisons; expected fewer than {most}. Use fewer sizes or generators"
    )


def check_family(family: int, *, subsets: int) -> None:
    """Check before an experiment that its comparisons can get verdicts.

    Fewer than ``SUBSETS_FOR_A_VERDICT`` subsets pass, because their results are descriptive in any case.

    Args:
        family: number of comparisons that get verdicts.
        subsets: planned subsets per size.

    Raises:
        InvalidInputError: no comparison can reach significance after correction.
    """
    if subsets >= SUBSETS_FOR_A_VERDICT and smallest_p(subsets, family=family) >= LEVEL:
        raise InvalidInputError(
            f"{subsets} subsets cannot give a verdict on {family} comparisons (sizes × generators): after Holm's "
            f"correction, the smallest possible p-value is {smallest_p(subsets, family=family):.2g}; expected less "
            f"than {LEVEL}. Use --subsets {subsets_needed(family)}, or fewer sizes or generators"
        )


def smallest_detectable(
    differences: npt.ArrayLike, *, alpha: float = LEVEL, power: float = 0.8, seed: int = 0
) -> float | None:
    """The smallest true mean difference that `permutation_p_value` finds with probability *power*.

    It assumes as many normal differences as in *differences*, with the same spread.

    Args:
        differences: (n,) floats, n ≥ 3, one per subset.
        alpha: the test finds a difference if its p-value is below this level. For a family of m comparisons, 0.05 / m
            gives Bonferroni's test. Holm's finds at least as much.
        power: probability of finding the difference, with its sign.
        seed: seed of the simulation.

    Returns:
        The difference, or None if this many subsets cannot have a p-value below *alpha*.

    Raises:
        InvalidInputError: there are fewer than three differences, or one is not finite.
    """
    values = _checked(differences, least=SUBSETS_FOR_AN_INTERVAL)
    detected = _detected_from(len(values), alpha, seed)
    return None if detected is None else float(np.quantile(detected, power) * values.std(ddof=1))


def power(effect: float, *, subsets: int, alpha: float = LEVEL, seed: int = 0) -> float:
    """The probability that `permutation_p_value` finds a true mean difference, with its sign.

    Args:
        effect: the true mean of normal differences, in units of their standard deviation.
        subsets: number of differences.
        alpha: the test finds a difference if its p-value is below this level.
        seed: seed of the simulation.
    """
    detected = _detected_from(subsets, alpha, seed)
    return 0.0 if detected is None else float(np.mean(detected < effect))


@lru_cache(maxsize=64)
def _detected_from(subsets: int, alpha: float, seed: int) -> npt.NDArray[np.float32] | None:
    """For each of many simulated experiments, the effect from which on the test finds a difference.

    An experiment has standard normal noise z, and differences z + d for an effect d. Flipping the signs in a set F
    keeps the sum of the differences as large if the differences in F have a mean of at most zero, so if
    d ≤ −mean(z in F). The p-value is twice the share of such sets, among them the empty one. It is below *alpha* if at
    most k sets qualify. So d must exceed the k-th largest −mean(z in F) over the nonempty sets.

    Returns:
        (experiments,) float32, or None if the test never finds a difference.
    """
    if smallest_p(subsets) >= alpha:
        return None
    rng = np.random.default_rng(seed)
    if subsets <= _POWER_EXACT_UP_TO:
        flipped = (np.arange(1, 2**subsets)[:, None] >> np.arange(subsets)) & 1
    else:
        flipped = rng.integers(0, 2, (2**_POWER_EXACT_UP_TO - 1, subsets))
        flipped[flipped.sum(axis=1) == 0, 0] = 1
    k = max(1, ceil(alpha * (len(flipped) + 1) / 2) - 1)
    weights = -(flipped / flipped.sum(axis=1, keepdims=True)).T.astype(np.float32)
    # A Sobol sequence covers the normal distribution more evenly than random numbers, so fewer experiments suffice.
    uniform = stats.qmc.Sobol(subsets, rng=rng).random(max(2**10, 2**22 // (len(flipped) + 1)))
    noise = stats.norm.ppf(uniform).astype(np.float32)
    chunks = (noise[start : start + 64] @ weights for start in range(0, len(noise), 64))
    return np.concatenate([np.partition(chunk, -k, axis=1)[:, -k] for chunk in chunks])


def skewness(differences: npt.ArrayLike) -> float | None:
    """The sample skewness of the differences if it is strong, else None.

    It is strong if D'Agostino's test rejects a skewness of zero at ``SKEWNESS_LEVEL``. The level of the permutation
    test holds for symmetric differences only.

    Args:
        differences: (n,) floats, one per subset. With n < 8, or if all are equal, the result is None.

    Raises:
        InvalidInputError: there are no differences, or one is not finite.
    """
    values = _checked(differences, least=1)
    if len(values) < 8 or np.ptp(values) < 1e-12:
        return None
    return float(stats.skew(values)) if stats.skewtest(values).pvalue < SKEWNESS_LEVEL else None


def verdict(*, mean: float, adjusted_p: float, subsets: int, alpha: float = LEVEL) -> Verdict:
    """The verdict on one comparison.

    Args:
        mean: mean paired difference; positive is better.
        adjusted_p: p-value after Holm's correction over the primary family.
        subsets: number of differences in the mean.
        alpha: significance level of the family.

    Returns:
        ``helps``, ``hurts`` or ``inconclusive``. With fewer than ``SUBSETS_FOR_A_VERDICT`` subsets always
        ``descriptive``.
    """
    if subsets < SUBSETS_FOR_A_VERDICT:
        return "descriptive"
    if adjusted_p >= alpha:
        return "inconclusive"
    return "helps" if mean > 0 else "hurts"
