"""95 % intervals for metrics. They show how much the metric varies between samples of the same generator."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

Interval = tuple[float, float]

Groups = npt.NDArray[np.int64]

#: Number of groups of a jackknife.
GROUPS: Final = 10
_FEWEST_GROUPS: Final = 3
#: The 97.5 % point of the normal distribution.
Z = 1.959964


def groups_of(labels: npt.NDArray[np.int64] | None, n: int, *, groups: int = GROUPS, seed: int = 0) -> Groups:
    """Assign rows to random groups for a jackknife. Each class is spread evenly over the groups.

    Args:
        labels: (n,) int64 classes; None if there are none.
        n: number of rows.
        groups: number of groups; reduced to n if n is smaller.
        seed: for the random choice.

    Returns:
        (n,) int64, 0 … groups − 1; no group is empty.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    which = np.empty(n, np.int64)
    which[order] = np.arange(n) % min(groups, n)
    return which


def jackknife_interval(value: float, left_out: npt.ArrayLike) -> Interval:
    """The 95 % interval of a delete-a-group jackknife: *value* ± Student's t times the standard error.

    With G groups, SE² = (G − 1) / G · Σ (θ_g − mean θ)². It works for any metric that depends smoothly on its sample;
    for others the interval tends to be too wide (Efron and Stein, *The jackknife estimate of variance*, 1981). The
    bootstrap is not used, because its samples contain duplicates. Duplicates shift a Fréchet distance, and they count
    as nearest neighbors in precision, recall, density and coverage.

    Args:
        value: the metric of the whole sample.
        left_out: (G,) the metric without each group, G ≥ 3.

    Raises:
        InvalidInputError: there are fewer than three groups. With two, t is 12.7 and the interval says nothing.
    """
    from scipy.stats import t

    values = np.asarray(left_out, np.float64)
    if values.ndim != 1 or len(values) < _FEWEST_GROUPS:
        raise InvalidInputError(
            f"left_out has shape {values.shape}; expected (G,) values, one for each of at least three groups"
        )
    error = np.sqrt((len(values) - 1) * np.mean((values - values.mean()) ** 2))
    margin = float(t.ppf(0.975, len(values) - 1) * error)
    return value - margin, value + margin


def share_interval(share: float, n: int) -> Interval:
    """Wilson's score interval (95 %) of a share observed in *n* images.

    Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 1927. It stays inside [0, 1]
    and has a positive width even for a share of 0 or 1.

    Raises:
        InvalidInputError: n < 1, or the share is outside [0, 1].
    """
    if n < 1 or not 0 <= share <= 1:
        raise InvalidInputError(f"share is {share} and n is {n}; expected a share from 0 to 1 and n ≥ 1")
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    margin = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    # A share of 0 or 1 is an end of its interval. The formula gives it up to rounding.
    return 0.0 if share == 0 else max(0.0, middle - margin), 1.0 if share == 1 else min(1.0, middle + margin)
