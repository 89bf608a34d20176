"""Does the generator make digits, or copies? A sample that is nearer to a training image than that image's nearest
neighbour among the other training images is suspiciously near.

This is what Alaa et al. call an inauthentic sample (*How faithful is your synthetic data?*, ICML 2022). New real
digits fall that near too, so the share is read beside the same share for held-out real digits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import checked_pair, rounding, squared_distances


def too_near(*, training: npt.ArrayLike, samples: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether each sample is no farther from its nearest training image than that image's own nearest neighbour.

    Args:
        training: (n, d) features of the images the generator was trained on.
        samples: (m, d) features of generated, or of held-out real, images.

    Returns:
        (m,) bool; its mean is the share.

    Raises:
        InvalidInputError: fewer than two rows, not finite, every row the same, or widths that differ.
    """
    known, points = checked_pair(training, samples, names=("training", "sample"))
    centre = known.mean(axis=0)
    known, points = known - centre, points - centre
    nearest, distance = np.empty(len(points), np.int64), np.empty(len(points))
    for at, squares in squared_distances(points, known):
        nearest[at] = squares.argmin(axis=1)
        distance[at] = squares[np.arange(len(squares)), nearest[at]]

    # Only the training images that are nearest to some sample are asked for their own neighbour.
    asked, place = np.unique(nearest, return_inverse=True)
    own = np.empty(len(asked))
    for at, squares in squared_distances(known[asked], known):
        squares[np.arange(len(squares)), asked[at]] = np.inf
        own[at] = squares.min(axis=1)
    return distance <= own[place] + rounding(known, points)
