"""`digitforge.evaluate`: measure images in memory. Importing this module does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from digitforge_client.common.command import import_quietly
from digitforge_evaluation.images.sources import ImageSet
from digitforge_training.data import Dataset, DataSource, load_splits

if TYPE_CHECKING:
    from digitforge_evaluation.quality.assess import Report


def evaluate(
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike | None = None,
    *,
    real: str | Path | DataSource | tuple[Dataset, Dataset] | None = None,
    features: str | None = None,
    n: int | None = None,
    k: int = 5,
    seed: int = 0,
    accuracy: bool = False,
    name: str = "images",
    out: str | Path | None = None,
    progress: Callable[[str], None] = lambda stage: None,  # noqa: ARG005
) -> Report:
    """Measure generated images: how close to real ones, how varied, how well labeled, and whether they are copies.

    ::

        report = digitforge.evaluate(batch.images, batch.labels, real="mnist")
        {figure.name: figure.value for figure in report.figures}  # {"fd[digitnet-64]@10k": 1.9, …}

    Args:
        images: (n, H, W) or (n, H, W, C) uint8, 0 … 255.
        labels: (n,) integers, 0 … K − 1, or names of classes. For images without labels: None, or −1 everywhere.
        real: real images to measure against: a source for `digitforge.load_data`, perhaps as a `digitforge.DataSource`
            with options, or a pair of training and test split. None: use the shipped statistics of MNIST's test images,
            and leave out the metrics that need the images themselves.
        features: what to compare images by: ``digitnet-64``; ``own``, a small network trained on the real training
            images, kept in the cache, or principal components if there are few images; ``pca``; ``inception``;
            ``inception:FILE``; or ``MODULE:NAME`` of a function from (n, H, W, C) uint8 images to (n, d) numbers. Every
            choice except digitnet-64 needs *real*. None: digitnet-64 if it suits the real images, else ``own``.
        n: number of images to measure, in the class proportions of the real test images. None: as many as possible.
        k: number of nearest neighbors for precision, recall, density and coverage.
        seed: for choosing among *images*.
        accuracy: whether to train classifiers too: on generated images, tested on real ones, and vice versa. Needs
            *real*.
        name: name of the images in the report.
        out: an HTML file for the same figures as a page, with samples and nearest training images. None: write none.
        progress: called with a line of text at each stage, for example ``print``. Training a network of features takes
            minutes.

    Returns:
        Each metric with its sample size, a 95 % interval where it has one, and two floors, which are the values of
        training images and of held-out images in place of the generated ones. `Report.left_out` says which metrics
        could not be computed, and why.

    Raises:
        InvalidInputError: *images* or *labels* have a wrong shape or dtype, their classes differ from those of the
            real images, or *features* names nothing that exists.
        DataError: the real images cannot be read, or *out* or the cache cannot be written.
    """
    pixels = np.asarray(images)
    classes = None if labels is None else np.asarray(labels)
    if classes is not None and classes.dtype.kind in "iu":
        classes = None if len(classes) and (classes == -1).all() else classes.astype(np.int64)
    names: list[str] | None = None
    if classes is not None and classes.dtype.kind == "U":
        distinct, inverse = np.unique(classes, return_inverse=True)
        names, classes = distinct.tolist(), inverse.reshape(classes.shape).astype(np.int64)
    source = ImageSet(pixels[..., np.newaxis] if pixels.ndim == 3 else pixels, classes, name, class_names=names)
    splits = None if real is None else load_splits(real)
    import_quietly("tensorflow")  # takes seconds; wrong arguments fail before it
    from digitforge_evaluation.features.choice import features_called
    from digitforge_evaluation.quality.assess import Pictures, assess
    from digitforge_evaluation.quality.comparison import RealData
    from digitforge_evaluation.quality.suitability import matched, refuse_unsuitable

    data = None if splits is None else RealData(train=splits[0], test=splits[1])
    refuse_unsuitable(matched(source, data), data)  # before a network is trained
    shown: list[Pictures] = []
    report = assess(
        source,
        network=features_called(features, train=None if splits is None else splits[0], progress=progress),
        n=len(source) if n is None else n,
        seed=seed,
        k=k,
        real=data,
        train_classifiers=accuracy,
        progress=progress,
        show=None if out is None else shown.append,
    )
    if out is not None:
        from digitforge_evaluation.quality.page import write_page

        write_page(Path(out), report, shown[0], data)
    return report
