"""The kernel distance: the squared maximum mean discrepancy under the kernel (x·y / d + 1)³.

Bińkowski et al., *Demystifying MMD GANs*, ICLR 2018, call it KID on Inception features. The estimate is unbiased for
independent samples: values at different n can be compared, and two samples of the same distribution scatter around
zero. Samples with equal class counts are not independent, and score slightly below zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import Floats, checked_groups, checked_pair, over_blocks


@dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """The estimate over random subsets."""

    mean: float  #: may be negative, because the estimate is unbiased
    standard_deviation: float  #: over the subsets; not the error of the mean
    subsets: int  #: number of subsets
    subset_size: int  #: real images, and generated images, in each subset


def kernel_distance(
    *, real: npt.ArrayLike, generated: npt.ArrayLike, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Compute the mean unbiased squared MMD over random subsets, each drawn without replacement.

    Args:
        real: (n, d) features.
        generated: (m, d) features.
        subsets: number of subsets, ≥ 1.
        subset_size: real points, and generated points, in each subset: from 2 to min(n, m).
        seed: for the random subsets.

    Raises:
        InvalidInputError: *subsets* or *subset_size* is out of range, an array is not finite or has all rows the same,
            or the widths differ.
    """
    if subsets < 1 or subset_size < 2:
        raise InvalidInputError(
            f"subsets is {subsets} and subset_size is {subset_size}; expected subsets ≥ 1 and subset_size ≥ 2"
        )
    real_points, generated_points = checked_pair(real, generated)
    fewest = min(len(real_points), len(generated_points))
    if subset_size > fewest:
        raise InvalidInputError(
            f"subset_size is {subset_size}, but there are only {fewest} real or generated rows; give a smaller size"
        )
    rng = np.random.default_rng(seed)
    estimates = [
        squared_discrepancy(
            real_points[rng.choice(len(real_points), subset_size, replace=False)].astype(np.float64),
            generated_points[rng.choice(len(generated_points), subset_size, replace=False)].astype(np.float64),
        )
        for _ in range(subsets)
    ]
    return KernelDistance(
        mean=float(np.mean(estimates)),
        standard_deviation=float(np.std(estimates, ddof=1)) if subsets > 1 else 0.0,
        subsets=subsets,
        subset_size=subset_size,
    )


def squared_discrepancy(first: Floats, second: Floats) -> float:
    """Compute the unbiased squared MMD of two samples of the same size m ≥ 2.

    Args:
        first: (m, d).
        second: (m, d).
    """
    m = len(first)
    within_first, within_second, between = _kernel(first, first), _kernel(second, second), _kernel(first, second)
    # The estimate is unbiased because no point is compared with itself.
    within = within_first.sum() - np.trace(within_first) + within_second.sum() - np.trace(within_second)
    return float(within / (m * (m - 1)) - 2 * between.mean())


def left_out_discrepancies(*, real: npt.ArrayLike, generated: npt.ArrayLike, groups: npt.ArrayLike) -> Floats:
    """Compute the unbiased squared MMD without each group of generated points in turn, up to a constant.

    A jackknife needs these values. They use all points instead of many subsets, because the mean over the subsets is
    close to the value over all points. The constant is the term of the real points alone. It cancels in a jackknife.

    Args:
        real: (n, d) features.
        generated: (m, d) features.
        groups: (m,) integers, 0 … G − 1, G ≥ 2.

    Returns:
        (G,) values.

    Raises:
        InvalidInputError: the features or the groups are invalid, or fewer than two points remain without one group.
    """
    real_points, points = checked_pair(real, generated)
    which = checked_groups(groups, len(points))
    counts = np.bincount(which)
    if len(points) - counts.max() < 2:
        raise InvalidInputError(
            f"without the largest group, {len(points) - counts.max()} generated points remain; expected at least 2"
        )

    # Sorted by group, so that each group is a slice.
    points = points[np.argsort(which, kind="stable")].astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def within_block(at: slice) -> Floats:
        within = _kernel(points[at], points)
        own = np.arange(len(within))
        within[own, at.start + own] = 0  # a point is not compared with itself
        return np.add.reduceat(within, starts, axis=1)

    among = np.add.reduceat(np.concatenate(list(over_blocks(len(points), len(points), within_block))), starts)  # (G, G)
    real_points = real_points.astype(np.float64)
    sums = over_blocks(len(points), len(real_points), lambda at: _kernel(points[at], real_points).sum(axis=1))
    with_real = np.add.reduceat(np.concatenate(list(sums)), starts)  # (G,)
    left = len(points) - counts
    within = among.sum() - among.sum(axis=0) - among.sum(axis=1) + np.diag(among)
    between = with_real.sum() - with_real
    return within / (left * (left - 1)) - 2 * between / (left * len(real_points))


def _kernel(first: Floats, second: Floats) -> Floats:
    base = first @ second.T / first.shape[1] + 1
    return base * base * base  # ten times faster than NumPy's power
