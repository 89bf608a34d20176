"""Judges for ``digitforge train --keep best``: how far are a generator's images from held-out real ones?

Training finds judges by the entry-point group ``digitforge.judges``, so it does not import this package.

The data that a judge has seen counts as seen by the generator. digitnet-64 was trained on all 60 000 training images
of MNIST, so do not use this judge for a *strict* arm of an experiment: keep the last average there.
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
    """Make a judge that computes ``fd[digitnet-64]``, the Fréchet distance from held-out real images.

    Args:
        images: (m, 28, 28, 1) uint8, m > 64, real images that the generator does not see. Take them from the training
            set: test images that were used to choose a generator cannot measure it fairly.
        labels: (m,) int64, their classes.

    Returns:
        ``judge(images, labels)``: takes generated images (n, 28, 28, 1) uint8, n > 64, and their (n,) int64 classes,
        and returns the distance; lower is better. The distance depends on the number of images and on the class
        proportions. Use the same number in each call, in the proportions of the real images.

    Raises:
        InvalidInputError: there are too few images, the images have a wrong shape, or there is not one label for each.
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
        raise InvalidInputError(f"got {len(images)} images but {len(labels)} labels; expected one label for each image")
