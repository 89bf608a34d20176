"""C_T, a three-sample test for copies: are generated images nearer to the training images than new real ones are?

Meehan, Chaudhuri and Dasgupta, *A non-parametric test to detect data-copying in generative models*, AISTATS 2020. The
space is divided into cells by k-means of the training images. In each cell a Mann–Whitney test compares the distances
from generated images to their nearest training image with those from held-out ones; C_T is the mean of the cells' Z
scores, weighted with the held-out images in each. Far below zero: copies. Far above: images unlike the training images.
A Z score grows with the square root of the numbers of images: compare only values at the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import Floats, Points, checked_groups, checked_pair, nearest_neighbors

#: Most cells, and fewest held-out images for each.
CELLS: Final = 20
_HELD_OUT_PER_CELL: Final = 100
#: Fewest held-out and generated images of a cell that takes part: fewer have no normal Z score.
_FEWEST: Final = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The training images, divided into cells."""

    training: Points  # (n, d)
    cell: npt.NDArray[np.int64]  # (n,)
    centers: Points  # (C, d)


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearness:
    """Some images' cells, and the distance of each to the nearest training image of its cell."""

    cell: npt.NDArray[np.int64]  # (n,)
    distance: Floats  # (n,), squared


def divide(*, training: npt.ArrayLike, held_out: int, seed: int = 0) -> Cells:
    """Divide training images into cells by k-means.

    Args:
        training: (n, d) features.
        held_out: number of held-out images, for which there must not be too many cells.
        seed: of k-means.

    Raises:
        InvalidInputError: fewer than two rows, not finite or every row the same.
    """
    from sklearn.cluster import KMeans

    points, _ = checked_pair(training, training, names=("training", "training"))
    count = max(1, min(CELLS, held_out // _HELD_OUT_PER_CELL, len(points) // 2))
    means = KMeans(count, n_init=1, random_state=seed).fit(points)
    return Cells(training=points, cell=means.labels_.astype(np.int64), centers=means.cluster_centers_)


def nearness(cells: Cells, images: npt.ArrayLike) -> Nearness:
    """Where some images lie, and how near to the training images there.

    Args:
        cells: of the training images.
        images: (m, d) features of generated, or of held-out real, images.

    Raises:
        InvalidInputError: fewer than two rows, not finite, every row the same, or another width.
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
    """C_T: far below zero, if generated images lie nearer to training images than held-out ones do.

    Args:
        held_out: of real images that the generator has not seen.
        generated: of its images.

    Raises:
        InvalidInputError: no cell holds enough of both.
    """
    scores, weights = [], []
    for cell in np.unique(held_out.cell):
        real, made = held_out.distance[held_out.cell == cell], generated.distance[generated.cell == cell]
        if min(len(real), len(made)) >= _FEWEST:
            scores.append(mann_whitney_z(made, real))
            weights.append(len(real))
    if not scores:
        raise InvalidInputError(
            f"no part of the feature space holds {_FEWEST} generated and {_FEWEST} held-out images; the test for "
            "copying needs more of both"
        )
    return float(np.average(scores, weights=weights))


def c_t_left_out(*, held_out: Nearness, generated: Nearness, groups: npt.ArrayLike) -> Floats:
    """`c_t` without each group of generated images in turn: (G,); what a jackknife needs.

    Raises:
        InvalidInputError: wrong groups, or as in `c_t`.
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
    """The Z score of the Mann–Whitney U of two samples: above zero if *first* is larger. Ties count half.

    With the continuity correction of the paper's own implementation.
    """
    from scipy.stats import rankdata

    n, m = len(first), len(second)
    u = rankdata(np.concatenate([first, second]))[:n].sum() - n * (n + 1) / 2
    return float((u - (n * m / 2 - 0.5)) / np.sqrt(n * m * (n + m + 1) / 12))
