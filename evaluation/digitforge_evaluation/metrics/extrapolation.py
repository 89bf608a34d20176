"""The Fréchet distance extrapolated to infinitely many generated images.

The Fréchet distance at N generated images is too large by about b / N. Because b differs between generators, the
distance at a single N may rank them wrongly. Chong and Forsyth, *Effectively unbiased FID and inception score and
where to find them*, CVPR 2020, measure it on random subsets of several sizes, fit a line in 1 / N, and take its value
at 1 / N = 0. That value depends on the choice of the subsets. Here b is computed instead, from a Taylor expansion of
the distance in the mean and covariance of the generated features. The result is close to the mean of the paper's value
over many choices of subsets.

The bias from the number of real images remains. The floors show it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import Points, checked_points
from digitforge_evaluation.metrics.frechet import Gaussian, frechet_distance, gaussian, square_root

#: Eigenvalues below this fraction of the largest count as zero.
_ZERO = 1e-12


def fewest_images(features: int) -> int:
    """The smallest number of generated images: four per feature. With fewer, terms in 1 / N² are large."""
    return 4 * features


def extrapolated_distance(
    *, real: Gaussian, generated: npt.ArrayLike, labels: npt.NDArray[np.int64] | None = None
) -> float:
    """Compute the distance at 1 / N = 0: the distance at N = n minus its bias.

    Args:
        real: moments of the real features.
        generated: (n, d) features, n ≥ 4 d.
        labels: (n,) classes. Give them if the generated images have the class proportions of the real ones: the bias is
            smaller then. None: the images are independent, as in the paper.

    Returns:
        The distance. It is unbiased to first order in 1 / n, so it may be below zero for a perfect generator.

    Raises:
        InvalidInputError: there are too few images, the features are not finite or all rows are the same, or the width
            differs from the width of *real*.
    """
    array = np.asarray(generated)
    array = checked_points("generated", array, more_than=fewest_images(array.shape[1]) - 1 if array.ndim == 2 else 1)
    moments = gaussian(array, name="generated")
    distance = frechet_distance(real=real, generated=moments)
    return distance - _bias_times_n(real, moments, array, labels) / len(array)


def _bias_times_n(real: Gaussian, moments: Gaussian, generated: Points, labels: npt.NDArray[np.int64] | None) -> float:
    """The number b: the distance at n generated images is too large by b / n, to first order.

    With Σ₁ = L Lᵀ of the real features and Σ₂ of the generated ones, Lᵀ Σ₂ L has eigenvalues λ and eigenvectors V. Let
    z = Vᵀ Lᵀ (x − μ₂), B_ii the variance between classes of z_i (0 without classes), and v_ij the variance within
    classes of z_i z_j. Then

        b = tr Σ₂ − Σ_i B_ii / √λ_i + ½ Σ_ij v_ij / (√λ_i √λ_j (√λ_i + √λ_j)).

    With independent images, the first term is the error of the mean. With fixed class counts that error is smaller, but
    the usual covariance estimate is too large by about B / n in compensation; the second term corrects for the latter.
    The third term is half the second derivative of −2 tr (Lᵀ Σ₂ L)^½ (Daleckii and Krein, 1965) times the variance of
    the estimated covariance.
    """
    root = square_root(real.covariance)
    values, vectors = np.linalg.eigh(root.T @ moments.covariance @ root)
    kept = values > _ZERO * values.max()
    roots = np.sqrt(values[kept])
    z = (generated - moments.mean) @ (root @ vectors[:, kept])
    n = len(z)
    squares = z**2
    variances = squares.T @ squares / n
    between = np.zeros(len(roots))
    for of_class in [z] if labels is None else [z[labels == label] for label in np.unique(labels)]:
        between += len(of_class) / n * of_class.mean(axis=0) ** 2  # zero without classes, because z has mean zero
        variances -= len(of_class) / n * (of_class.T @ of_class / len(of_class)) ** 2
    scale = np.outer(roots, roots) * np.add.outer(roots, roots)
    return float(np.trace(moments.covariance) - (between / roots).sum() + (variances / scale).sum() / 2)
