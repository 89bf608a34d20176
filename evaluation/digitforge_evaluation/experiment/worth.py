"""What generated digits are worth: the number of extra real images that would give the same gain.

A classifier's error on held-out images falls roughly as a power of the number *n* of training images:
``error = a · n^(−b)`` (J. Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017). The exponent *b*
is fitted to the baseline's errors at several sizes, by least squares on logarithms.

Let the arm's error at *n* be *r* times the baseline's error at *n*. Then the arm is worth ``n′ − n`` images, where
``(n′ / n)^(−b) = r``. This uses the measured baseline error, so an arm without a gain is worth zero images even if the
curve fits badly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

Floats = npt.NDArray[np.float64]
RESAMPLES: Final = 2_000


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What an arm is worth at one size, in real images per class."""

    images: float | None  #: extra real images, negative for a loss; None if the curve does not fall
    #: Lower end of the 95 % interval, from the bootstrap over subsets; None if unbounded, or with one subset.
    low: float | None
    high: float | None  #: upper end of that interval
    exponent: float  #: *b* of the power law
    sizes: tuple[int, ...]  #: images per class at which the curve was measured
    misfit: float  #: largest distance between a measured mean error and the curve, as a share of held-out images
    extrapolated: bool  #: whether the result lies beyond the largest size


def worth(curve: Mapping[int, npt.ArrayLike], *, n: int, arm: npt.ArrayLike, smallest: float) -> Worth:
    """What an arm with these errors is worth.

    Args:
        curve: the baseline's errors by number of images per class, at two sizes or more, including *n*. Each size has
            one error per subset, as a share of the held-out images.
        n: images per class at which arm and baseline are compared.
        arm: (k,) floats, the arm's errors on the subsets of ``curve[n]``, in the same order.
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
    sizes = np.array(list(errors), np.float64)
    means = np.array([values.mean() for values in errors.values()])
    slope, intercept = np.polyfit(np.log(sizes), np.log(means), 1)
    images = _images(n, means[list(errors).index(n)] / arm_errors.mean(), -slope)
    low, high = _bounds(errors, n, arm_errors)
    return Worth(
        images=float(images) if np.isfinite(images) else None,
        low=low,
        high=high,
        exponent=float(-slope),
        sizes=tuple(errors),
        misfit=float(np.abs(np.exp(intercept) * sizes**slope - means).max()),
        extrapolated=bool(n + images > sizes[-1]),
    )


def _bounds(errors: Mapping[int, Floats], n: int, arm_errors: Floats) -> tuple[float | None, float | None]:
    """The bootstrap interval. At each size it draws subsets with replacement. Arm and baseline get the same subsets."""
    if len(arm_errors) < 2:
        return None, None
    rng = np.random.default_rng(0)
    means, arm_means = [], np.zeros(0)
    for size, values in errors.items():
        rows = rng.integers(0, len(values), (RESAMPLES, len(values)))
        means.append(values[rows].mean(axis=1))
        if size == n:
            arm_means = arm_errors[rows].mean(axis=1)
    table = np.log(np.stack(means))  # (sizes, resamples)
    slopes = np.polyfit(np.log(np.array(list(errors), np.float64)), table, 1)[0]
    images = _images(n, means[list(errors).index(n)] / arm_means, -slopes)
    # Do not interpolate, because some values may be infinite.
    low, high = np.quantile(images, [0.025, 0.975], method="nearest")
    return (float(low) if np.isfinite(low) else None), (float(high) if np.isfinite(high) else None)


def _images(n: int, ratio: npt.ArrayLike, exponent: npt.ArrayLike) -> Floats:
    """``n · (ratio^(1/b) − 1)``, where *ratio* is baseline error ÷ arm error. Infinite if the curve does not fall."""
    ratio, exponent = np.asarray(ratio, np.float64), np.asarray(exponent, np.float64)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        images = n * (ratio ** (1 / exponent) - 1)
    return np.where((exponent > 0) & ~np.isnan(images), images, np.inf)
