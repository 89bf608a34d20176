"""Classification accuracy score (CAS), both ways: train on generated digits and test on real ones, and the reverse.

The first is Ravuri and Vinyals' *classification accuracy score* (NeurIPS 2019). It is low where the generated digits
are unlike real ones or lack variety. The second is low where they are unclear or wrongly labeled. Both use the
classifier of the experiments. Real digits in the place of generated ones are the floor of both.

The test images are real held-out ones. In the first way the classifier sees generated images alone: nothing of the
real training set enters except what the generator carries over.
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

#: Classifiers of each sort; the generated digits are shared among them, so that their spread is that of new samples.
PARTS: Final = 5
STEPS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Accuracy of each of `PARTS` classifiers, 0 … 1."""

    generated_to_real: tuple[float, ...]  # trained on generated digits, tested on real ones: CAS
    real_to_generated: tuple[float, ...]
    real_to_real: tuple[float, ...]  # the floor of both
    n: int  # digits that each classifier is trained on


def classification_accuracies(
    *, train: Dataset, test: Drawn, generated: Drawn, proportions: tuple[int, ...], steps: int = STEPS, seed: int = 0
) -> Accuracies:
    """Train `PARTS` classifiers on a part of the generated digits each, and as many on as many real ones.

    Args:
        train: real images to train on, at least as many of each class as are generated.
        test: held-out real images with labels.
        generated: (n, H, W, C) images with labels, n ≥ 5.
        proportions: of the classes among the generated images.
        steps: optimizer steps of each classifier.
        seed: of the parts, the subsets and the classifiers.

    Returns:
        Their spread is that of other generated digits, real training images and trainings, not of other test images.

    Raises:
        InvalidInputError: no labels, too few generated digits or too few real ones.
    """
    assert test.labels is not None
    if generated.labels is None or len(generated.images) < PARTS:
        raise InvalidInputError(f"classifiers need {PARTS} generated digits with labels or more")
    each = len(generated.images) // PARTS
    subsets = random_subsets(train.labels, class_counts(proportions, each), repeats=PARTS, seed=seed)
    if not subsets:
        raise InvalidInputError(f"{train.name} {train.split} has too few images for subsets of {each}")
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
    """Of a classifier trained on some images, on each of the test sets."""
    classes = 1 + max(int(of.max()) for of in (labels, *(of for _, of in tests)))
    model = classifier("cnn", image_shape=images.shape[1:], classes=classes, steps=steps)
    model.fit(draw_for("real", images=images, labels=labels), seed=seed)
    return [float((model.predict(shown) == wanted).mean()) for shown, wanted in tests]
