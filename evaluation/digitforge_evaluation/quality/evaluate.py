"""Measure images that are in memory: `digitforge.evaluate`.

Imports without TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from digitforge_client.common.command import import_quietly
from digitforge_evaluation.images.sources import ImageSet
from digitforge_training.data import Dataset, load_splits

if TYPE_CHECKING:
    from digitforge_evaluation.quality.assess import Report


def evaluate(
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike | None = None,
    *,
    real: str | Path | tuple[Dataset, Dataset] | None = None,
    features: str = "digitnet-64",
    n: int | None = None,
    k: int = 5,
    seed: int = 0,
    accuracy: bool = False,
    name: str = "images",
) -> Report:
    """Measure how near generated images are to real ones, how varied, how well labeled, and whether they are copies.

    ::

        report = digitforge.evaluate(batch.images, batch.labels, real="mnist")
        {figure.name: figure.value for figure in report.figures}  # {"fd[digitnet-64]@10k": 1.9, …}

    Args:
        images: (n, H, W) or (n, H, W, C) uint8, 0 … 255.
        labels: (n,) integers, 0 … K − 1; None, or −1 throughout, for images without labels.
        real: real images to measure against: a source that `digitforge.load_data` takes, or the training and the test
            split. None: the shipped statistics of MNIST's test images; what needs real images is then left out, and
            the report says so.
        features: what distances are measured in: ``digitnet-64``, ``inception``, ``inception:FILE`` or
            ``MODULE:NAME`` of a function (n, H, W, C) uint8 => (n, d) numbers. All but the first need *real*.
        n: images to measure, in the class proportions of the real test images; None: as many of them as there are.
        k: nearest neighbors, for precision to coverage.
        seed: of the choice among *images*.
        accuracy: train classifiers as well, on generated digits and tested on real ones, and the reverse; needs *real*.
        name: what the report calls the images.

    Returns:
        Each figure with its sample size, a 95 % interval where there is one, and what real digits score in its place;
        `Report.left_out` says what could not be measured, and why.

    Raises:
        InvalidInputError: *images* or *labels* are something else, the images show other things than the real ones, or
            there are no such features.
        DataError: the real images cannot be read.
    """
    pixels = np.asarray(images)
    classes = None if labels is None else np.asarray(labels)
    if classes is not None and classes.dtype.kind in "iu":
        classes = None if len(classes) and (classes == -1).all() else classes.astype(np.int64)
    source = ImageSet(pixels[..., np.newaxis] if pixels.ndim == 3 else pixels, classes, name)
    splits = None if real is None else load_splits(real)
    import_quietly("tensorflow")  # late, so that wrong arguments are answered at once
    from digitforge_evaluation.features.choice import features_called
    from digitforge_evaluation.quality.assess import assess
    from digitforge_evaluation.quality.comparison import RealData

    return assess(
        source,
        network=features_called(features),
        n=len(source) if n is None else n,
        seed=seed,
        k=k,
        real=None if splits is None else RealData(train=splits[0], test=splits[1]),
        train_classifiers=accuracy,
    )
