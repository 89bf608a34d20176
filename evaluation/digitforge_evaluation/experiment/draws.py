"""For each arm, a function (the arm's *draw*) that returns random training images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import Draw, Images, Labels
from digitforge_evaluation.classifiers.transformations import ELASTIC, Smote, add_noise, shift_rotate_scale
from digitforge_evaluation.experiment.arms import ARMS, Design, check_arms

Rows = tuple[Images, Labels]


def draw_for(
    name: str,
    *,
    images: Images,
    labels: Labels,
    generated: Rows | None = None,
    generated_share: float = 0.5,
    rows: int = 0,
    fresh: bool = False,
    elastic: float = ELASTIC,
) -> Draw:
    """Make the draw of the arm *name*. Make a new one for each fit.

    Args:
        name: a key of ``ARMS``.
        images: (n, H, W, C) uint8, the real images.
        labels: (n,) int64, their classes.
        generated: images and labels for arms that add some to the real ones: generated images, or unlabeled real
            images with the labels that a classifier gave them.
        generated_share: share of generated images or pseudo-labeled images among the rows, in arms with both.
        rows: number of rows of the whole fit, for the arm that starts with generated images.
        fresh: over all calls, use every generated digit once before using any digit again. If False, this holds only
            within a call, and each call has its own random order.
        elastic: strength of the elastic distortion in classical augmentation, see `shift_rotate_scale`.

    Returns:
        A function that takes a number of rows and a random generator, and returns images and labels.

    Raises:
        InvalidInputError: the arm is unknown, or it needs generated images and there are none.
    """
    check_arms([name])
    design = ARMS[name]
    draw = _real(design, images, labels)
    if design.adds_images:
        if generated is None or len(generated[0]) == 0:
            needed = "generated images; give a server or a generator" if design.generator else "pseudo-labeled images"
            raise InvalidInputError(f"the arm {name!r} needs {needed}")
        synthetic = _in_sequence(*generated) if fresh else _in_epochs(*generated)
        if design.pretrained:
            draw = _one_after_the_other(synthetic, draw, rows_of_first=round(rows * generated_share))
        else:
            draw = _mixed(draw, synthetic, generated_share) if design.real else synthetic
    return _changed(draw, partial(shift_rotate_scale, elastic=elastic)) if design.classical else draw


def class_gaps(labels: Labels, *, classes: int, generated_share: float) -> tuple[int, ...]:
    """Class proportions of generated images that balance the classes of the real images.

    Args:
        labels: (n,) int64, labels of the real images.
        classes: number of classes.
        generated_share: share of generated images among all rows; 1 without real images.

    Returns:
        One number ≥ 0 per class; 0 for a class that has too many real images to balance.
    """
    if generated_share == 1:
        return (1,) * classes
    counts = np.bincount(labels, minlength=classes)
    wanted = len(labels) / (1 - generated_share) / classes
    gaps = np.rint(1000 * np.maximum(wanted - counts, 0)).astype(np.int64)
    return tuple(int(gap) for gap in gaps // np.gcd.reduce(gaps))


def _real(design: Design, images: Images, labels: Labels) -> Draw:
    draw = _balanced(images, labels) if design.balanced else _in_epochs(images, labels)
    if design.cheap == "noise":
        return _mixed(draw, _changed(draw, add_noise), 0.5)
    if design.cheap == "smote":
        return _mixed(draw, _smote(images, labels), 0.5)
    return draw


def _in_epochs(images: Images, labels: Labels) -> Draw:
    """In each call, draw all images in random order, then all again in another order."""

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        indices = _epochs(len(images), rows, rng)
        return images[indices], labels[indices]

    return draw


def _in_sequence(images: Images, labels: Labels) -> Draw:
    """Over all calls, draw every image once before drawing any image again. The random order is fixed."""
    order = np.zeros(0, np.int64)
    taken = 0

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        nonlocal order, taken
        if not len(order):
            order = rng.permutation(len(images))
        indices = np.take(order, np.arange(taken, taken + rows), mode="wrap")
        taken += rows
        return images[indices], labels[indices]

    return draw


def _epochs(n: int, rows: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    orders = [rng.permutation(n) for _ in range(-(-rows // n))]
    return np.concatenate([np.zeros(0, np.int64), *orders])[:rows]


def _balanced(images: Images, labels: Labels) -> Draw:
    """Draw all classes equally often. Within a class, all images are equally likely."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    starts = np.cumsum(counts) - counts

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        classes = _epochs(len(counts), rows, rng)
        indices = by_class[starts[classes] + rng.integers(0, counts[classes])]
        return images[indices], labels[indices]

    return draw


def _smote(images: Images, labels: Labels) -> Draw:
    smote = Smote(images, labels)

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        indices = _epochs(len(images), rows, rng)
        return smote.mix(indices, rng), labels[indices]

    return draw


def _changed(draw: Draw, change: Callable[[Images, np.random.Generator], Images]) -> Draw:
    def changed(rows: int, rng: np.random.Generator) -> Rows:
        images, labels = draw(rows, rng)
        return change(images, rng), labels

    return changed


def _one_after_the_other(first: Draw, second: Draw, *, rows_of_first: int) -> Draw:
    """Over all calls, *rows_of_first* rows of the first draw, then rows of the second."""
    taken = 0

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        nonlocal taken
        of_first = min(max(rows_of_first - taken, 0), rows)
        taken += rows
        images_1, labels_1 = first(of_first, rng)
        images_2, labels_2 = second(rows - of_first, rng)
        return np.concatenate([images_1, images_2]), np.concatenate([labels_1, labels_2])

    return draw


def _mixed(first: Draw, second: Draw, share: float) -> Draw:
    """Rows of both draws in random order. *share* is the share of *second*."""

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        rows_of_second = round(rows * share)
        images_1, labels_1 = first(rows - rows_of_second, rng)
        images_2, labels_2 = second(rows_of_second, rng)
        order = rng.permutation(rows)
        return np.concatenate([images_1, images_2])[order], np.concatenate([labels_1, labels_2])[order]

    return draw
