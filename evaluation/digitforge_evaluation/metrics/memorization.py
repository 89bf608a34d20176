"""Does the generator make digits, or copies? A sample that is nearer to a training image than that image's nearest
neighbor among the other training images is suspiciously near.

This is what Alaa et al. call an inauthentic sample (*How faithful is your synthetic data?*, ICML 2022). New real
digits fall that near too, so the share is read beside the same share for held-out real digits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import Floats, Points, checked_pair, over_distances, rounding


def too_near(*, training: npt.ArrayLike, samples: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether each sample is no farther from its nearest training image than that image's own nearest neighbor.

    Args:
        training: (n, d) features of the images the generator was trained on.
        samples: (m, d) features of generated, or of held-out real, images.

    Returns:
        (m,) bool; its mean is the share.

    Raises:
        InvalidInputError: fewer than two rows, not finite, every row the same, or widths that differ.
    """
    known, points = checked_pair(training, samples, names=("training", "sample"))
    distance, nearest = nearest_neighbors(known, points)
    # Only the training images that are nearest to some sample are asked for their own neighbor.
    asked, place = np.unique(nearest[:, 0], return_inverse=True)
    own, _ = nearest_neighbors(known, known[asked], but=asked)
    return distance[:, 0] <= own[place, 0] + rounding(known, points)


def nearest_neighbors(
    known: Points, points: Points, *, count: int = 1, but: npt.NDArray[np.int64] | None = None
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The nearest of *known* to each point, nearest first.

    Args:
        known: (n, d), n ≥ count, or n > count with *but*.
        points: (m, d).
        count: how many.
        but: (m,) for each point a place in *known* that is left out.

    Returns:
        Squared distances (m, count), ≥ 0, and places in *known* (m, count) int64.
    """

    def block(at: slice, squares: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        rows = np.arange(len(squares))[:, None]
        if but is not None:
            squares[rows, but[at, None]] = np.inf
        if count == 1:
            places = squares.argmin(axis=1)[:, None]
        else:
            places = np.argpartition(squares, count - 1, axis=1)[:, :count]
            places = places[rows, np.argsort(squares[rows, places], axis=1, kind="stable")]
        return np.maximum(squares[rows, places], 0), places

    parts = [part for _, part in over_distances(points, known, block)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
