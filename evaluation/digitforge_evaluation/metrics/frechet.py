"""The Fréchet distance between two feature distributions, each approximated by a Gaussian.

    d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)

Dowson and Landau, *The Fréchet distance between multivariate normal distributions*, 1982. Heusel et al., *GANs trained
by a two time-scale update rule converge to a local Nash equilibrium*, NeurIPS 2017, use it for images and call it FID;
digitforge uses that name only for features of their Inception network. The distance depends on the sample size.
Compare values only at the same n, and with the floors of real images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import Floats, checked_points

#: Full name of the distance, with its features and sample size.
NAME: Final = "fd[{features}]@{n}"
_ROWS: Final = 4096  # cast to float64 at a time


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """The first two moments of a feature distribution."""

    mean: Floats  #: (d,)
    covariance: Floats  #: (d, d), the unbiased estimate
    n: int  #: number of samples


def gaussian(features: npt.ArrayLike, *, name: str = "these") -> Gaussian:
    """Compute mean and covariance of features.

    Args:
        features: (n, d) real numbers, n > d: with fewer rows, the covariance cannot have full rank.
        name: name of the array in error messages.

    Raises:
        InvalidInputError: there are too few rows, the features are not finite, or all rows are the same.
    """
    array = np.asarray(features)
    array = checked_points(name, array, more_than=max(1, array.shape[1] if array.ndim == 2 else 1))
    mean = array.mean(axis=0, dtype=np.float64)
    products = np.zeros((len(mean), len(mean)))
    for at in range(0, len(array), _ROWS):  # in blocks, to avoid a float64 copy of the whole array
        centered = array[at : at + _ROWS] - mean
        products += centered.T @ centered
    return Gaussian(mean=mean, covariance=products / (len(array) - 1), n=len(array))


def frechet_distance(*, real: Gaussian, generated: Gaussian) -> float:
    """Compute the squared Fréchet distance, as in all published FIDs. It is symmetric in its arguments.

    The trace of the matrix square root is the sum of the square roots of the eigenvalues of Lᵀ Σ₂ L, where L Lᵀ = Σ₁.
    This matrix is symmetric, so its eigenvalues are real. Computing them is much faster than computing the square root
    of Σ₁ Σ₂, which rounding can make complex. Everything is float64.

    Raises:
        InvalidInputError: the numbers of features differ, or a value is not finite.
    """
    if real.mean.shape != generated.mean.shape or real.covariance.shape != generated.covariance.shape:
        raise InvalidInputError(
            f"real features have {real.mean.shape[0]} columns and generated features {generated.mean.shape[0]}; "
            "expected the same number, from the same network"
        )
    if not all(np.isfinite(part).all() for g in (real, generated) for part in (g.mean, g.covariance)):
        raise InvalidInputError("a mean or covariance is not finite; compute them from finite features")
    root = square_root(real.covariance)  # any L with L Lᵀ = Σ₁ works: Lᵀ Σ₂ L has the eigenvalues of Σ₁ Σ₂
    inner = np.linalg.eigvalsh(root.T @ generated.covariance @ root)
    trace = np.trace(real.covariance) + np.trace(generated.covariance) - 2 * np.sqrt(np.maximum(inner, 0)).sum()
    difference = real.mean - generated.mean
    return max(0.0, float(difference @ difference + trace))  # equal moments may give −1e-12, from rounding


def square_root(covariance: Floats) -> Floats:
    """A matrix L (d, d) with L Lᵀ = *covariance* (d, d)."""
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:  # singular, for example because a feature is always zero
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
    return np.asarray(root, np.float64)


def distance_name(features: str, n: int) -> str:
    """The full name of a distance, with its features and sample size: ``fd[digitnet-64]@10k``.

    Raises:
        InvalidInputError: n < 1.
    """
    return NAME.format(features=features, n=size_name(n))


def size_name(n: int) -> str:
    """A sample size as it appears in names: ``10k``, ``1234``.

    Raises:
        InvalidInputError: n < 1.
    """
    if n < 1:
        raise InvalidInputError(f"n is {n}; expected at least 1")
    return f"{n // 1000}k" if n % 1000 == 0 else str(n)
