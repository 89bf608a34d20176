"""Judges for `digitforge train --keep best`: how far are a generator's digits from held-out real ones?

They are found by the entry-point group ``digitforge.judges``, so that training need not import this package.

What a judge knows counts to the generator's information: digitnet-64 was trained on all 60 000 of MNIST's training
images. A generator that is chosen by this judge is no longer one that "saw only n images"; in a `strict` arm of an
experiment keep the last average instead.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import digitnet
from digitforge_evaluation.metrics.frechet import frechet_distance, gaussian

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def digitnet_judge(images: Images, labels: Labels) -> Callable[[Images, Labels], float]:
    """A judge by ``fd[digitnet-64]``, the Fréchet distance from held-out real images.

    Args:
        images: (m, 28, 28, 1) uint8 real images that the generator does not see, m > 64: from the training set, never
            from the test set, because choosing by test images would spoil them for the final measurement.
        labels: (m,) int64, their classes.

    Returns:
        ``judge(images, labels)``: generated (n, 28, 28, 1) uint8, n > 64, and their (n,) int64 classes => distance,
        lower is better. Always judge the same number of images in the same class proportions as the real ones: both
        change the distance.

    Raises:
        InvalidInputError: too few images, images of another shape, or labels that do not match them.
    """
    _check_lengths(images, labels)
    network = digitnet()
    real = gaussian(network.features(images), name="held-out")

    def judge(images: Images, labels: Labels) -> float:
        _check_lengths(images, labels)
        return frechet_distance(real=real, generated=gaussian(network.features(images), name="generated"))

    return judge


def _check_lengths(images: Images, labels: Labels) -> None:
    if len(images) != len(labels):
        raise InvalidInputError(f"{len(images)} images and {len(labels)} labels; expected one label for each image")
