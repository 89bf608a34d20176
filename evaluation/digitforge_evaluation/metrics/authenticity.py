"""Authenticity: the share of samples that are not suspiciously near to a training image.

A sample is authentic if it is farther from its nearest training image than that image's nearest neighbor among the
other training images is (Alaa et al., *How faithful is your synthetic data?*, ICML 2022). New real digits fall nearer
than that too, so the share is read beside the same share of held-out real digits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import checked_pair, nearest_neighbors, rounding


def authentic(*, training: npt.ArrayLike, samples: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether each sample is farther from its nearest training image than that image's own nearest neighbor.

    Args:
        training: (n, d) features of the images the generator was trained on.
        samples: (m, d) features of generated, or of held-out real, images.

    Returns:
        (m,) bool; its mean is the authenticity.

    Raises:
        InvalidInputError: fewer than two rows, not finite, every row the same, or widths that differ.
    """
    known, points = checked_pair(training, samples, names=("training", "sample"))
    distance, nearest = nearest_neighbors(known, points)
    # Only the training images that are nearest to some sample are asked for their own neighbor.
    asked, place = np.unique(nearest[:, 0], return_inverse=True)
    own, _ = nearest_neighbors(known, known[asked], but=asked)
    return distance[:, 0] > own[place, 0] + rounding(known, points)
