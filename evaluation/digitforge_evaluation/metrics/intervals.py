"""95 % intervals over the generated images: what another sample of the same generator would give."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

Interval = tuple[float, float]

Groups = npt.NDArray[np.int64]

#: Groups of a jackknife, left out in turn.
GROUPS: Final = 10
#: The normal distribution's 97.5 % point.
Z = 1.959964


def groups_of(labels: npt.NDArray[np.int64] | None, n: int, *, groups: int = GROUPS, seed: int = 0) -> Groups:
    """Random groups of rows for a jackknife, with equal shares of every class, as a sample with fixed class counts has.

    Args:
        labels: (n,) int64 classes; None if there are none.
        n: rows.
        groups: how many; fewer if there are fewer rows.
        seed: of the choice.

    Returns:
        (n,) int64, 0 … groups − 1, none empty.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    which = np.empty(n, np.int64)
    which[order] = np.arange(n) % min(groups, n)
    return which


def jackknife_interval(value: float, left_out: npt.ArrayLike) -> Interval:
    """*value* ± Student's t times the standard error that leaving out a group at a time gives.

    The delete-a-group jackknife: with G groups, SE² = (G − 1) / G · Σ (θ_g − mean θ)². It takes any metric that
    depends smoothly on its sample, and none is computed of a sample with duplicates, as the bootstrap has them: those
    shift a Fréchet distance and fill the neighborhoods that precision to coverage look at. Where a metric is not
    smooth, it errs on the wide side (Efron and Stein, *The jackknife estimate of variance*, 1981).

    Args:
        value: of the whole sample.
        left_out: (G,) the same metric without each group, G ≥ 2.

    Raises:
        InvalidInputError: fewer than two groups.
    """
    from scipy.stats import t

    values = np.asarray(left_out, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise InvalidInputError(f"{values.shape} values without a group; expected at least 2")
    error = np.sqrt((len(values) - 1) * np.mean((values - values.mean()) ** 2))
    margin = float(t.ppf(0.975, len(values) - 1) * error)
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
