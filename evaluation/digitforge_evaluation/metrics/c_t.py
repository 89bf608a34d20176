"""C_T, a three-sample test for copying: are generated images closer to the training images than new real ones?

Meehan, Chaudhuri and Dasgupta, *A non-parametric test to detect data-copying in generative models*, AISTATS 2020.
K-means divides the training images into cells. In each cell, a Mann-Whitney test compares two samples: the distances
from generated images to their nearest training image, and the same distances from held-out images. C_T is the mean of
the cells' Z scores, weighted by the number of held-out images. Far below zero: the generator copies. Far above zero:
the generated images differ from the training images. Z scores grow with the square root of the sample size, so compare
values only at equal sample sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import Floats, Points, checked_groups, checked_pair, nearest_neighbors

#: Largest number of cells.
CELLS: Final = 20
_HELD_OUT_PER_CELL: Final = 100  # on average, at least
_MIN_IMAGES: Final = 20  # held-out and generated, in each cell: with fewer, the Z score is not normally distributed


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The training images, divided into cells."""

    training: Points  #: (n, d)
    cell: npt.NDArray[np.int64]  #: (n,) cell of each image, 0 … C − 1
    centers: Points  #: (C, d)


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearness:
    """The cell of each image, and its distance to the nearest training image of that cell."""

    cell: npt.NDArray[np.int64]  #: (n,)
    distance: Floats  #: (n,) squared distances


def divide(*, training: npt.ArrayLike, held_out: int, seed: int = 0) -> Cells:
    """Divide training images into cells by k-means.

    Args:
        training: (n, d) features.
        held_out: number of held-out images; it limits the number of cells.
        seed: for k-means.

    Raises:
        InvalidInputError: the array has fewer than two rows, is not finite, or has all rows the same.
    """
    from sklearn.cluster import KMeans

    points, _ = checked_pair(training, training, names=("training", "training"))
    count = max(1, min(CELLS, held_out // _HELD_OUT_PER_CELL, len(points) // 2))
    means = KMeans(count, n_init=1, random_state=seed).fit(points)
    return Cells(training=points, cell=means.labels_.astype(np.int64), centers=means.cluster_centers_)


def nearness(cells: Cells, images: npt.ArrayLike) -> Nearness:
    """Find the cell of each image, and its distance to the nearest training image there.

    Args:
        cells: cells of the training images.
        images: (m, d) features of generated images, or of held-out real images.

    Raises:
        InvalidInputError: *images* has fewer than two rows, is not finite, has all rows the same, or has another width
            than the training images.
    """
    _, points = checked_pair(cells.training, images, names=("training", "sample"))
    where = nearest_neighbors(cells.centers, points)[1][:, 0]
    distances = np.empty(len(points))
    for cell in range(len(cells.centers)):
        rows = np.flatnonzero(where == cell)
        if len(rows):
            found, _ = nearest_neighbors(cells.training[cells.cell == cell], points[rows])
            distances[rows] = found[:, 0]
    return Nearness(cell=where, distance=distances)


def c_t(*, held_out: Nearness, generated: Nearness) -> float:
    """Compute C_T: far below zero if generated images are closer to training images than held-out images are.

    Args:
        held_out: nearness of real images that the generator has not seen.
        generated: nearness of generated images.

    Raises:
        InvalidInputError: no cell has enough images of both sorts.
    """
    scores, weights = [], []
    for cell in np.unique(held_out.cell):
        real, made = held_out.distance[held_out.cell == cell], generated.distance[generated.cell == cell]
        if min(len(real), len(made)) >= _MIN_IMAGES:
            scores.append(mann_whitney_z(made, real))
            weights.append(len(real))
    if not scores:
        raise InvalidInputError(
            f"needs more images: no cell of the feature space has {_MIN_IMAGES} generated and {_MIN_IMAGES} held-out "
            "images"
        )
    return float(np.average(scores, weights=weights))


def c_t_left_out(*, held_out: Nearness, generated: Nearness, groups: npt.ArrayLike) -> Floats:
    """`c_t` without each group of generated images in turn, for a jackknife: (G,).

    Raises:
        InvalidInputError: the groups are invalid, or no cell has enough images of both sorts.
    """
    which = checked_groups(groups, len(generated.cell))
    return np.array(
        [
            c_t(
                held_out=held_out,
                generated=Nearness(cell=generated.cell[which != group], distance=generated.distance[which != group]),
            )
            for group in range(which.max() + 1)
        ]
    )


def mann_whitney_z(first: Floats, second: Floats) -> float:
    """The Z score of the Mann-Whitney U test: above zero if *first* is larger than *second*. Ties count half.

    It has the continuity correction of the paper's own implementation.
    """
    from scipy.stats import rankdata

    n, m = len(first), len(second)
    u = rankdata(np.concatenate([first, second]))[:n].sum() - n * (n + 1) / 2
    return float((u - (n * m / 2 - 0.5)) / np.sqrt(n * m * (n + m + 1) / 12))
