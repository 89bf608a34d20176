"""Classification accuracy, two ways: train on generated images and test on real ones, and vice versa.

Generated to real is the *classification accuracy score* (CAS) of Ravuri and Vinyals (NeurIPS 2019). It is low if the
generated images differ from real ones or lack variety. Real to generated is low if they are unclear or have wrong
labels. Both use the experiments' classifier ``cnn``. Training and testing on real images gives the floor of both.

All real test images are held out. For CAS, the classifier trains on generated images only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import Images, Labels, classifier
from digitforge_evaluation.experiment.draws import draw_for
from digitforge_evaluation.images.proportions import class_counts, random_subsets
from digitforge_evaluation.images.sources import Drawn
from digitforge_evaluation.metrics.intervals import groups_of
from digitforge_training.data import Dataset

#: Number of classifiers for each direction. The generated images are divided among them, so the spread of the
#: accuracies includes the spread over samples.
PARTS: Final = 5
#: Optimizer steps of each classifier.
STEPS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Accuracy of each of `PARTS` classifiers, 0 … 1."""

    generated_to_real: tuple[float, ...]  #: trained on generated images, tested on real ones: CAS
    real_to_generated: tuple[float, ...]  #: trained on real images, tested on generated ones
    real_to_real: tuple[float, ...]  #: the floor of both
    n: int  #: number of training images of each classifier


def classification_accuracies(
    *, train: Dataset, test: Drawn, generated: Drawn, proportions: tuple[int, ...], steps: int = STEPS, seed: int = 0
) -> Accuracies:
    """Train `PARTS` classifiers on parts of the generated images, and `PARTS` on real subsets of the same size.

    Args:
        train: real images to train on.
        test: held-out real images with labels.
        generated: (n, H, W, C) images with labels, n ≥ `PARTS`.
        proportions: class proportions of the generated images.
        steps: optimizer steps of each classifier.
        seed: for the parts, the subsets and the classifiers.

    Returns:
        The accuracies. Their spread covers generated images, real training images and trainings, but not test images.

    Raises:
        InvalidInputError: the generated images have no labels, or there are too few generated or real images.
    """
    assert test.labels is not None
    if generated.labels is None or len(generated.images) < PARTS:
        raise InvalidInputError(f"needs at least {PARTS} generated images with labels")
    each = len(generated.images) // PARTS
    subsets = random_subsets(train.labels, class_counts(proportions, each), repeats=PARTS, seed=seed)
    if not subsets:
        raise InvalidInputError(
            f"{train.name} {train.split} has too few images for a subset of {each}; measure fewer generated images"
        )
    parts = groups_of(generated.labels, len(generated.images), groups=PARTS, seed=seed)
    held_out = (test.images, test.labels)
    of_generated, of_real = [], []
    for part, rows in enumerate(subsets):
        own = np.flatnonzero(parts == part)
        made = (generated.images[own], generated.labels[own])
        of_generated.append(_accuracies(*made, [held_out], steps, seed + part))
        of_real.append(_accuracies(train.images[rows], train.labels[rows], [made, held_out], steps, seed + part))
    return Accuracies(
        generated_to_real=tuple(on_real for (on_real,) in of_generated),
        real_to_generated=tuple(on_generated for on_generated, _ in of_real),
        real_to_real=tuple(on_real for _, on_real in of_real),
        n=each,
    )


def _accuracies(
    images: Images, labels: Labels, tests: list[tuple[Images, Labels]], steps: int, seed: int
) -> list[float]:
    """Train a classifier and return its accuracy on each test set."""
    classes = 1 + max(int(of.max()) for of in (labels, *(of for _, of in tests)))
    model = classifier("cnn", image_shape=images.shape[1:], classes=classes, steps=steps)
    model.fit(draw_for("real", images=images, labels=labels), seed=seed)
    return [float((model.predict(shown) == wanted).mean()) for shown, wanted in tests]
