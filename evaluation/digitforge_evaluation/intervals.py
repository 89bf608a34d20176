"""95 % intervals over the generated images: what another sample of the same generator would give."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

Interval = tuple[float, float]

#: The normal distribution's 97.5 % point.
Z = 1.959964


def bootstrap_interval(
    value: float,
    statistic: Callable[[npt.NDArray[np.int64]], float],
    strata: npt.NDArray[np.int64],
    *,
    resamples: int = 100,
    seed: int = 0,
) -> Interval:
    """*value* ± 1.96 bootstrap standard errors.

    The percentiles themselves are not used: a resample holds duplicates, which shift a Fréchet distance upwards,
    while its spread stays right.

    Args:
        value: the statistic of the sample itself.
        statistic: of the sample's rows at (n,) int64 indices.
        strata: (n,) int64; rows are exchanged within a stratum only, as a sample with fixed class counts is drawn.
        resamples: how many, at least 2.
        seed: of the resampling.

    Raises:
        InvalidInputError: no rows or fewer than two resamples.
    """
    if resamples < 2 or not len(strata):
        raise InvalidInputError(f"{resamples} resamples of {len(strata)} rows; expected at least 2 of 1")
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    values = [statistic(np.concatenate([rng.choice(rows, len(rows)) for rows in groups])) for _ in range(resamples)]
    margin = Z * float(np.std(values, ddof=1))
    return value - margin, value + margin


def share_interval(share: float, n: int) -> Interval:
    """Wilson's score interval of a share observed in *n* images.

    Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 1927. It stays inside [0, 1]
    and keeps a width at 0 and 1.

    Raises:
        InvalidInputError: n < 1, or the share is outside [0, 1].
    """
    if n < 1 or not 0 <= share <= 1:
        raise InvalidInputError(f"share is {share} of {n}; expected 0 to 1 of at least 1")
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    margin = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, middle - margin), min(1.0, middle + margin)
