"""Authenticity: the share of samples that are not too close to a training image.

Let *t* be the training image nearest to a sample. The sample is authentic if it is farther from *t* than *t* is from
its own nearest neighbor in the training set (Alaa et al., *How faithful is your synthetic data?*, ICML 2022). Even new
real images are not all authentic, so compare with the authenticity of held-out real images.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import checked_pair, nearest_neighbors, rounding


def authentic(*, training: npt.ArrayLike, samples: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Tell for each sample whether it is authentic.

    Args:
        training: (n, d) features of the images that the generator was trained on.
        samples: (m, d) features of generated images, or of held-out real images.

    Returns:
        (m,) bool; its mean is the authenticity.

    Raises:
        InvalidInputError: an array has fewer than two rows, is not finite or has all rows the same, or the widths
            differ.
    """
    known, points = checked_pair(training, samples, names=("training", "sample"))
    distance, nearest = nearest_neighbors(known, points)
    # Only training images that are nearest to some sample need their own neighbor.
    needed, index = np.unique(nearest[:, 0], return_inverse=True)
    own, _ = nearest_neighbors(known, known[needed], excluded=needed)
    return distance[:, 0] > own[index, 0] + rounding(known, points)
