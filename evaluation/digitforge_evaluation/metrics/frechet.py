"""The Fréchet distance between two feature distributions, each taken as a Gaussian.

    d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)

Dowson and Landau, *The Fréchet distance between multivariate normal distributions*, 1982; used for images by Heusel
et al., *GANs trained by a two time-scale update rule converge to a local Nash equilibrium*, NeurIPS 2017, whose name
for it, FID, is kept for the Inception network's features. It depends on the sample size: compare only values at the
same n, and read them beside the real-against-real floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import Floats, checked_points

#: What the distance is called in full, with its features and sample size.
NAME: Final = "fd[{features}]@{n}"
#: Rows that are cast to float64 at one time.
_ROWS: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A feature distribution's first two moments."""

    mean: Floats  # (d,)
    covariance: Floats  # (d, d), the unbiased estimate
    n: int  # samples they were estimated from


def gaussian(features: npt.ArrayLike, *, name: str = "these") -> Gaussian:
    """Mean and covariance of features.

    Args:
        features: (n, d) real numbers, n > d, so that the covariance can have full rank.
        name: what the array is called in an error message.

    Raises:
        InvalidInputError: too few rows, not finite, or every row the same.
    """
    array = np.asarray(features)
    array = checked_points(name, array, more_than=max(1, array.shape[1] if array.ndim == 2 else 1))
    mean = array.mean(axis=0, dtype=np.float64)
    products = np.zeros((len(mean), len(mean)))
    for at in range(0, len(array), _ROWS):  # so that no copy of all rows is held in float64
        centered = array[at : at + _ROWS] - mean
        products += centered.T @ centered
    return Gaussian(mean=mean, covariance=products / (len(array) - 1), n=len(array))


def frechet_distance(*, real: Gaussian, generated: Gaussian) -> float:
    """The (squared) Fréchet distance, as every published FID has it. Symmetric in its arguments.

    The square root's trace is taken from the eigenvalues of the symmetric Lᵀ Σ₂ L, where L Lᵀ = Σ₁, in float64: real by
    construction, where the square root of the product Σ₁ Σ₂ has to be told to forget an imaginary part, and many times
    faster than that root, which is not needed itself.

    Raises:
        InvalidInputError: the two have different numbers of features or are not finite.
    """
    if real.mean.shape != generated.mean.shape or real.covariance.shape != generated.covariance.shape:
        raise InvalidInputError(
            f"real features have {real.mean.shape[0]} columns and generated ones {generated.mean.shape[0]}; "
            "both must come from the same network"
        )
    if not all(np.isfinite(part).all() for g in (real, generated) for part in (g.mean, g.covariance)):
        raise InvalidInputError("a mean or covariance is not finite; compute both from finite features")
    try:  # any L with L Lᵀ = Σ₁ will do: Lᵀ Σ₂ L has the eigenvalues of Σ₁ Σ₂
        root = np.linalg.cholesky(real.covariance)
    except np.linalg.LinAlgError:  # singular, as with features that are always zero
        values, vectors = np.linalg.eigh(real.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
    inner = np.linalg.eigvalsh(root.T @ generated.covariance @ root)
    trace = np.trace(real.covariance) + np.trace(generated.covariance) - 2 * np.sqrt(np.maximum(inner, 0)).sum()
    difference = real.mean - generated.mean
    return max(0.0, float(difference @ difference + trace))  # rounding may leave −1e-12 between equals


def distance_name(features: str, n: int) -> str:
    """A distance's full name, with its features and sample size: ``fd[digitnet-64]@10k``.

    Raises:
        InvalidInputError: n < 1.
    """
    return NAME.format(features=features, n=size_name(n))


def size_name(n: int) -> str:
    """A sample size as names have it: 10k, 1234.

    Raises:
        InvalidInputError: n < 1.
    """
    if n < 1:
        raise InvalidInputError(f"n is {n}; expected at least 1")
    return f"{n // 1000}k" if n % 1000 == 0 else str(n)
