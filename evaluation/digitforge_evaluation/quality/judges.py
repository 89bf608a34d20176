"""Judges for ``--keep best``: how far are a generator's images from held-out real ones?

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


def kernel_judge(images: Images, labels: Labels) -> Callable[[Images, Labels], float]:
    """Make a judge for few held-out images, of any size: the mean kernel distance within classes, on pixels.

    The distance of a class is the squared maximum mean discrepancy (A. Gretton et al., "A kernel two-sample test", JMLR
    13, 2012), without the term of pairs of real images, which is the same for all generators. So one held-out image of
    a class suffices. The kernel is exp(−‖x − y‖²/s), where s is the median of ‖x − y‖² over pairs of held-out images.

    Args:
        images: (m, H, W, C) uint8, m ≥ 2, real images that the generator does not see.
        labels: (m,) int64, their classes. All 0 for a generator without classes.

    Returns:
        ``judge(images, labels)``: takes generated images (n, H, W, C) uint8, at least two of each class of the held-out
        images, and their (n,) int64 classes; lower is better.

    Raises:
        InvalidInputError: there are too few images of a class, or there is not one label for each image.
    """
    _check_lengths(images, labels)
    real = _flat(images)
    squared = _squared_distances(real, real)[np.triu_indices(len(real), 1)]
    if not len(squared):
        raise InvalidInputError(f"got {len(images)} held-out image; expected at least two")
    scale = max(float(np.median(squared)), 1e-9)
    counts = {int(label): np.count_nonzero(labels == label) for label in np.unique(labels)}

    def judge(images: Images, of: Labels) -> float:
        _check_lengths(images, of)
        total = 0.0
        for label, count in counts.items():
            n = np.count_nonzero(of == label)
            if n < 2:
                raise InvalidInputError(f"got {n} generated images of class {label}; expected at least two")
            x, y = real[labels == label], _flat(images[of == label])
            among = np.exp(-_squared_distances(y, y) / scale)
            between = np.exp(-_squared_distances(x, y) / scale)
            total += count * float((among.sum() - np.trace(among)) / (n * (n - 1)) - 2 * between.mean())
        return total / len(real)

    return judge


def _flat(images: Images) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def _squared_distances(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)[None, :] - 2 * x @ y.T
    return np.maximum(squares, 0)


def _check_lengths(images: Images, labels: Labels) -> None:
    if len(images) != len(labels):
        raise InvalidInputError(f"got {len(images)} images but {len(labels)} labels; expected one label for each image")
