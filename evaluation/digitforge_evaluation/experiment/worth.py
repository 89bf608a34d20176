"""What generated images are worth: the number of extra real images that would give the same gain.

The learning curve is the baseline's mean error at several numbers *n* of real images. Between two neighboring sizes,
the logarithm of the error is linear in log *n*: a power law (J. Hestness et al., "Deep Learning Scaling is Predictable,
Empirically", 2017). Nothing is extrapolated. An arm at size *n* is worth ``n′ − n`` images, where *n′* is the nearest
size at which the curve reaches the arm's error. If no measured size reaches it, the result is a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.statistics import SUBSETS_FOR_AN_INTERVAL

Floats = npt.NDArray[np.float64]
_GRID: Final = 200  # sizes to test between the smallest and the largest, evenly in log n


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What an arm is worth at one size, in real images per class."""

    #: Extra real images, negative for a loss. None if the curve does not fall from the smallest size to the largest.
    images: float | None
    beyond: bool  #: whether no measured size has the arm's error, so the true worth is farther from zero than `images`
    low: float | None  #: lower end of the 95 % interval; None if it is beyond the measured sizes, or not computed
    high: float | None  #: upper end of that interval
    n: int  #: real images per class that the arm has
    sizes: tuple[int, ...]  #: images per class at which the curve was measured, ascending
    #: How well the curve predicts a size that it does not use: each inner size is left out in turn. The largest
    #: difference from the measured mean error, as a share of the held-out images. None for two sizes.
    misfit: float | None


def worth(curve: Mapping[int, npt.ArrayLike], *, n: int, arm: npt.ArrayLike, smallest: float) -> Worth:
    """What an arm with these errors is worth.

    The interval holds all sizes whose error does not differ from the arm's, by a t test on the logarithms with Welch's
    degrees of freedom. It takes subsets as independent, except that arm and baseline at size *n* share theirs.

    Args:
        curve: the baseline's errors by number of images per class, at two sizes or more, including *n*. Each size has
            one error per subset, as a share of the held-out images.
        n: images per class at which arm and baseline are compared.
        arm: (k,) floats, the arm's errors on the subsets of ``curve[n]``, in the same order. An interval needs k ≥ 3,
            and as many subsets at the other sizes.
        smallest: smaller errors are raised to this value, because zero has no logarithm. Half a held-out image is a
            good choice.

    Raises:
        InvalidInputError: the curve has fewer than two sizes, lacks *n*, or has other subsets than *arm*.
    """
    errors = {size: np.maximum(np.asarray(values, np.float64), smallest) for size, values in sorted(curve.items())}
    arm_errors = np.maximum(np.asarray(arm, np.float64), smallest)
    if len(errors) < 2 or n not in errors or errors[n].shape != arm_errors.shape:
        raise InvalidInputError(
            f"the learning curve has the sizes {sorted(errors)}, and the arm has {len(arm_errors)} subsets of {n} "
            f"images per class; expected two sizes or more, including {n} with the same subsets as the arm"
        )
    sizes = np.log(np.array(list(errors), np.float64))
    means = np.log([values.mean() for values in errors.values()])
    falls = means[-1] < means[0]
    place = _place(sizes, means, start=list(errors).index(n), target=float(np.log(arm_errors.mean())))
    low, high = _interval(errors, n, arm_errors) if falls else (None, None)
    return Worth(
        images=float(np.exp(np.clip(place, sizes[0], sizes[-1]))) - n if falls else None,
        beyond=not np.isfinite(place),
        low=low,
        high=high,
        n=n,
        sizes=tuple(errors),
        misfit=_misfit(sizes, means),
    )


def _place(sizes: Floats, means: Floats, *, start: int, target: float) -> float:
    """The log size nearest to ``sizes[start]`` where the curve has the log error *target*; ±inf if there is none."""
    if target == means[start]:
        return float(sizes[start])
    gain = target < means[start]
    walk = range(start, len(sizes)) if gain else range(start, -1, -1)
    for near, far in pairwise(walk):
        if (means[far] <= target) if gain else (means[far] >= target):
            share = (target - means[near]) / (means[far] - means[near])
            return float(sizes[near] + share * (sizes[far] - sizes[near]))
    return np.inf if gain else -np.inf


def _misfit(sizes: Floats, means: Floats) -> float | None:
    """See ``Worth.misfit``."""
    inner = range(1, len(sizes) - 1)
    predicted = [np.interp(sizes[i], np.delete(sizes, i), np.delete(means, i)) for i in inner]
    return max((abs(float(np.exp(p) - np.exp(means[i]))) for p, i in zip(predicted, inner, strict=True)), default=None)


def _interval(errors: Mapping[int, Floats], n: int, arm_errors: Floats) -> tuple[float | None, float | None]:
    """The ends of the 95 % interval, in images; None for an end beyond the measured sizes."""
    if min(map(len, errors.values())) < SUBSETS_FOR_AN_INTERVAL:
        return None, None
    sizes = np.log(np.array(list(errors), np.float64))
    grid = np.union1d(np.linspace(sizes[0], sizes[-1], _GRID), sizes)
    # (grid, sizes): how much each size counts in the curve at each point of the grid.
    weights = np.stack([np.interp(grid, sizes, unit) for unit in np.eye(len(sizes))], axis=1)
    difference = np.full(len(grid), np.log(arm_errors.mean()))
    # (grid,): variance of the difference, and the sum that Welch's degrees of freedom divide by.
    variance, divisor = np.zeros(len(grid)), np.zeros(len(grid))
    for weight, (size, values) in zip(weights.T, errors.items(), strict=True):
        difference -= weight * np.log(values.mean())
        # The change of the log mean with each value, to first order.
        parts = -weight[:, None] * (values / values.mean() - 1)
        if size == n:
            parts = parts + (arm_errors / arm_errors.mean() - 1)
        own = parts.var(axis=1, ddof=1) / len(values)
        variance += own
        divisor += own**2 / (len(values) - 1)
    freedom = variance**2 / np.maximum(divisor, np.finfo(float).tiny)
    reach = stats.t.ppf(0.975, np.maximum(freedom, 1)) * np.sqrt(variance)
    accepted = np.flatnonzero(np.abs(difference) <= reach)
    if not len(accepted):
        return None, None
    first, last = int(accepted[0]), int(accepted[-1])
    return (
        None if first == 0 else float(np.exp(grid[first])) - n,
        None if last == len(grid) - 1 else float(np.exp(grid[last])) - n,
    )
