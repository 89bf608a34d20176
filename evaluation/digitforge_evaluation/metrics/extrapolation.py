"""The Fréchet distance extrapolated to infinitely many generated images.

A Fréchet distance of N generated images lies above that of infinitely many by about b / N, where b differs between
generators: at any one N it may rank them wrongly. Chong and Forsyth, *Effectively unbiased FID and inception score and
where to find them*, CVPR 2020, measure it at several N and read the line in 1 / N off at zero. What the real images'
number adds is not taken away: the real-against-real floor shows it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import checked_points
from digitforge_evaluation.metrics.frechet import Gaussian, frechet_distance, gaussian

#: Numbers of images at which the distance is measured; the paper's choice.
POINTS: Final = 15


def fewest_images(features: int) -> int:
    """The fewest generated images that the line can be drawn through: four for each feature.

    It begins at a tenth of them, as in the paper, but at two for each feature or more: below, the distance does not go
    with 1 / N.
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
    """The distance at 1 / N = 0, by least squares over random subsets of N from n / 10 to n images.

    Args:
        real: of the real features.
        generated: (n, d) features, n ≥ 4 d.
        labels: (n,) classes, if the generated images have the real ones' class counts. Every subset has them then, as
            all images have: subsets with counts of their own are farther from the real images, and the line less sure.
            None for subsets at random, as in the paper.
        points: numbers of images, at equal steps.
        seed: of the subsets, drawn anew for each.

    Returns:
        The distance; unbiased to first order, so a perfect generator's may be below zero.

    Raises:
        InvalidInputError: too few images or points, not finite, every row the same, or another width than *real* has.
    """
    if points < 2:
        raise InvalidInputError(f"{points} points were asked for; a line needs at least 2")
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
    """A random order of n rows, every beginning of which has the class proportions of all."""
    order = rng.permutation(n)
    if labels is None:
        return order
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    return by_class[np.argsort(np.concatenate([(np.arange(count) + rng.random()) / max(1, count) for count in counts]))]
