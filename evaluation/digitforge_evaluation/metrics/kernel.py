"""The kernel distance: the squared maximum mean discrepancy under the kernel (x·y / d + 1)³.

Bińkowski et al., *Demystifying MMD GANs*, ICLR 2018, whose name for it on Inception features is KID. The estimate is
unbiased for independent samples: values at different n can be compared, and two samples of one distribution scatter
about zero. Samples whose class counts were made equal agree better than chance would have it and score a little below.
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

    mean: float  # may be negative: the estimate is unbiased
    standard_deviation: float  # over the subsets, not the error of the mean
    subsets: int
    subset_size: int


def kernel_distance(
    *, real: npt.ArrayLike, generated: npt.ArrayLike, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Mean unbiased squared MMD over random subsets, drawn without replacement inside each.

    Args:
        real: (n, d) features.
        generated: (m, d) features.
        subsets: how many.
        subset_size: points of each kind in one subset, at most min(n, m).
        seed: of the random subsets.

    Raises:
        InvalidInputError: fewer points than a subset, not finite, every row the same, or widths that differ.
    """
    if subsets < 1 or subset_size < 2:
        raise InvalidInputError(f"{subsets} subsets of {subset_size} were asked for; expected at least 1 of 2")
    real_points, generated_points = checked_pair(real, generated)
    fewest = min(len(real_points), len(generated_points))
    if subset_size > fewest:
        raise InvalidInputError(f"subset_size is {subset_size}, but one side has {fewest} rows: give a smaller one")
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
    """The unbiased squared MMD of two samples of the same size m ≥ 2.

    Args:
        first: (m, d).
        second: (m, d).
    """
    m = len(first)
    within_first, within_second, between = _kernel(first, first), _kernel(second, second), _kernel(first, second)
    # A point is not compared with itself; that is what makes the estimate unbiased.
    within = within_first.sum() - np.trace(within_first) + within_second.sum() - np.trace(within_second)
    return float(within / (m * (m - 1)) - 2 * between.mean())


def left_out_discrepancies(*, real: npt.ArrayLike, generated: npt.ArrayLike, groups: npt.ArrayLike) -> Floats:
    """The unbiased squared MMD of all points, but for a constant, without each group of generated points in turn.

    What a jackknife needs: its interval is that of all points, which the mean over many subsets comes near to. The
    constant is what the real points are among themselves.

    Args:
        real: (n, d) features.
        generated: (m, d) features.
        groups: (m,) integers, 0 … G − 1, at least two.

    Returns:
        (G,).

    Raises:
        InvalidInputError: as in `kernel_distance`, wrong groups, or a group without which one point or none is left.
    """
    real_points, points = checked_pair(real, generated)
    which = checked_groups(groups, len(points))
    counts = np.bincount(which)
    if len(points) - counts.max() < 2:
        raise InvalidInputError("without its largest group, fewer than two generated points are left")

    points = points[np.argsort(which, kind="stable")].astype(np.float64)  # so that a group is a slice
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
    return base * base * base  # numpy's power is ten times slower
