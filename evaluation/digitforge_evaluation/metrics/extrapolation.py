"""The Fréchet distance extrapolated to infinitely many generated images.

The Fréchet distance at N generated images is too large by about b / N. Because b differs between generators, the
distance at a single N may rank them wrongly. Chong and Forsyth, *Effectively unbiased FID and inception score and
where to find them*, CVPR 2020, measure it at several N, fit a line in 1 / N, and take its value at 1 / N = 0. The bias
from the number of real images remains; the real-against-real floor shows it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import checked_points
from digitforge_evaluation.metrics.frechet import Gaussian, frechet_distance, gaussian

#: Number of subset sizes at which the distance is measured, as in the paper.
POINTS: Final = 15


def fewest_images(features: int) -> int:
    """The smallest number of generated images for the fit: four per feature.

    The smallest subset has a tenth of the images, as in the paper, but at least two images per feature. With fewer,
    the distance is not linear in 1 / N.
    """
    return 4 * features


def extrapolated_distance(
    *,
    real: Gaussian,
    generated: npt.ArrayLike,
    labels: npt.NDArray[np.int64] | None = None,
    points: int = POINTS,
    seed: int = 0,
) -> float:
    """Compute the distance at 1 / N = 0, by a least-squares line over random subsets of n / 10 to n images.

    Args:
        real: moments of the real features.
        generated: (n, d) features, n ≥ 4 d.
        labels: (n,) classes. Give them if the generated images have the class proportions of the real ones: each
            subset then has these proportions too, and the line is more precise. None: subsets are random, as in the
            paper.
        points: number of subset sizes, at equal steps.
        seed: for the subsets.

    Returns:
        The distance. It is unbiased to first order, so it may be below zero for a perfect generator.

    Raises:
        InvalidInputError: there are too few images or points, the features are not finite or all rows are the same,
            or the width differs from the width of *real*.
    """
    if points < 2:
        raise InvalidInputError(f"points is {points}; a line needs at least 2")
    array = np.asarray(generated)
    array = checked_points("generated", array, more_than=fewest_images(array.shape[1]) - 1 if array.ndim == 2 else 1)
    n, features = array.shape
    sizes = np.linspace(max(n // 10, 2 * features), n, points).astype(np.int64)
    rng = np.random.default_rng(seed)
    distances = [
        frechet_distance(real=real, generated=gaussian(array[_order(n, labels, rng)[:size]], name="generated"))
        for size in sizes
    ]
    _slope, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)


def _order(n: int, labels: npt.NDArray[np.int64] | None, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """A random order of n rows, in which each prefix has the class proportions of all rows (up to rounding)."""
    order = rng.permutation(n)
    if labels is None:
        return order
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    return by_class[np.argsort(np.concatenate([(np.arange(count) + rng.random()) / max(1, count) for count in counts]))]
