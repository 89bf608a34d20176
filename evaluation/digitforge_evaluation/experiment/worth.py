"""What generated digits are worth: how many more real images would have bought the same gain.

A classifier's error on held-out images falls roughly as a power of the number of images it was trained on,
``error = a · n^(−b)`` (J. Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017). The exponent is
fitted to the baseline's errors at several sizes, by least squares on logarithms. An arm whose error at *n* is *r* times
the baseline's there is worth the *n′ − n* images for which ``(n′ / n)^(−b) = r``: no gain is worth nothing, whatever
the misfit of the curve.
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

    images: float | None  # more (or, negative, fewer) real images; None: no number of them, the curve does not fall
    low: float | None  # 95 % interval by the bootstrap over subsets; None: one subset, or no bound
    high: float | None
    exponent: float  # b, above
    sizes: tuple[int, ...]  # images per class that the curve was fitted to
    misfit: float  # largest distance of a measured mean error from the curve, as a share of all held-out images
    extrapolated: bool  # does the answer lie beyond the largest size


def worth(curve: Mapping[int, npt.ArrayLike], *, n: int, arm: npt.ArrayLike, smallest: float) -> Worth:
    """What an arm with these errors is worth.

    Args:
        curve: the baseline's errors, shares of held-out images, by images per class; at least two sizes, *n* among
            them, each with one number per subset.
        n: images per class at which arm and baseline are compared.
        arm: (k,) the arm's errors on the same subsets as ``curve[n]``, in the same order.
        smallest: an error below this counts as this, because zero has no logarithm; half a held-out image.

    Raises:
        InvalidInputError: fewer than two sizes, *n* is not among them, or the subsets do not match.
    """
    errors = {size: np.maximum(np.asarray(values, np.float64), smallest) for size, values in sorted(curve.items())}
    of_arm = np.maximum(np.asarray(arm, np.float64), smallest)
    if len(errors) < 2 or n not in errors or errors[n].shape != of_arm.shape:
        raise InvalidInputError(
            f"a learning curve over the sizes {sorted(errors)} with {len(of_arm)} subsets of {n} images per class; "
            "expected two sizes or more, this one among them, with the same subsets of both arms"
        )
    sizes = np.array(list(errors), np.float64)
    means = np.array([values.mean() for values in errors.values()])
    slope, intercept = np.polyfit(np.log(sizes), np.log(means), 1)
    images = _images(n, means[list(errors).index(n)] / of_arm.mean(), -slope)
    low, high = _bounds(errors, n, of_arm)
    return Worth(
        images=float(images) if np.isfinite(images) else None,
        low=low,
        high=high,
        exponent=float(-slope),
        sizes=tuple(errors),
        misfit=float(np.abs(np.exp(intercept) * sizes**slope - means).max()),
        extrapolated=bool(n + images > sizes[-1]),
    )


def _bounds(errors: Mapping[int, Floats], n: int, of_arm: Floats) -> tuple[float | None, float | None]:
    """The bootstrap's: subsets are drawn with replacement at every size, arm and baseline together."""
    if len(of_arm) < 2:
        return None, None
    rng = np.random.default_rng(0)
    means, of_arm_means = [], np.zeros(0)
    for size, values in errors.items():
        rows = rng.integers(0, len(values), (RESAMPLES, len(values)))
        means.append(values[rows].mean(axis=1))
        if size == n:
            of_arm_means = of_arm[rows].mean(axis=1)
    table = np.log(np.stack(means))  # (sizes, resamples)
    slopes = np.polyfit(np.log(np.array(list(errors), np.float64)), table, 1)[0]
    images = _images(n, means[list(errors).index(n)] / of_arm_means, -slopes)
    # Without interpolation: some may be infinite.
    low, high = np.quantile(images, [0.025, 0.975], method="nearest")
    return (float(low) if np.isfinite(low) else None), (float(high) if np.isfinite(high) else None)


def _images(n: int, ratio: npt.ArrayLike, exponent: npt.ArrayLike) -> Floats:
    """``n · (ratio^(1/b) − 1)``; infinite where the curve does not fall."""
    ratio, exponent = np.asarray(ratio, np.float64), np.asarray(exponent, np.float64)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        images = n * (ratio ** (1 / exponent) - 1)
    return np.where((exponent > 0) & ~np.isnan(images), images, np.inf)
