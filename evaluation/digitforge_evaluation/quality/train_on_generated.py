"""Accuracy both ways: train on generated digits and test on real ones, and the reverse.

The first is low where the generated digits are unlike real ones or lack variety: Ravuri and Vinyals' *classification
accuracy score* (NeurIPS 2019). The second is low where they are unclear or wrongly labeled. Both use the classifier of
the experiments. Real digits in the place of generated ones are the floor of both: trained and tested on real ones.

The test images are real held-out ones; the training images of "train on generated" are generated alone, so nothing
of the real training set enters but what the generator carries over.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import Images, Labels, classifier
from digitforge_evaluation.experiment.draws import draw_for
from digitforge_evaluation.experiment.statistics import t_interval
from digitforge_evaluation.images.proportions import class_counts, random_subsets
from digitforge_evaluation.images.sources import Drawn
from digitforge_evaluation.metrics.intervals import groups_of
from digitforge_evaluation.quality.figures import Estimate, Estimates
from digitforge_evaluation.quality.reference import Floor, floor_of
from digitforge_training.data import Dataset

#: Classifiers of each kind; the generated digits are shared among them, so that their spread is that of new samples.
PARTS: Final = 5
STEPS: Final = 500


def both_ways(
    *,
    train: Dataset,
    test: Dataset,
    generated: Drawn,
    proportions: tuple[int, ...],
    steps: int = STEPS,
    seed: int = 0,
) -> tuple[Estimates, dict[str, Floor]]:
    """Train `PARTS` classifiers on a part of the generated digits each, and as many on as many real ones.

    Args:
        train: real images to train on, at least as many of each class as are generated.
        test: held-out real images.
        generated: (n, H, W, C) images with labels, n ≥ 5.
        proportions: of the classes among the generated images.
        steps: optimizer steps of each classifier.
        seed: of the parts, the subsets and the classifiers.

    Returns:
        ``train_on_generated`` and ``train_on_real``, means over the classifiers with Student's interval, which covers
        the generated digits, the real training images and the training of classifiers, not other test images; and what
        real digits score in their place.

    Raises:
        InvalidInputError: no labels, too few generated digits or too few real ones.
    """
    if generated.labels is None or len(generated.images) < PARTS:
        raise InvalidInputError(f"accuracy both ways needs {PARTS} generated digits with labels or more")
    each = len(generated.images) // PARTS
    subsets = random_subsets(train.labels, class_counts(proportions, each), repeats=PARTS, seed=seed)
    if not subsets:
        raise InvalidInputError(f"{train.name} {train.split} has too few images for subsets of {each}")
    parts = groups_of(generated.labels, len(generated.images), groups=PARTS, seed=seed)
    scores: dict[str, list[float]] = {"train_on_generated": [], "train_on_real": [], "real": []}
    for part, rows in enumerate(subsets):
        own = np.flatnonzero(parts == part)
        images, labels = generated.images[own], generated.labels[own]
        scores["train_on_generated"] += _accuracies(images, labels, [(test.images, test.labels)], steps, seed + part)
        on_generated, on_real = _accuracies(
            train.images[rows], train.labels[rows], [(images, labels), (test.images, test.labels)], steps, seed + part
        )
        scores["train_on_real"].append(on_generated)
        scores["real"].append(on_real)
    floor = floor_of(scores.pop("real"), n=each)
    return {key: _estimate(values) for key, values in scores.items()}, dict.fromkeys(scores, floor)


def _accuracies(
    images: Images, labels: Labels, tests: list[tuple[Images, Labels]], steps: int, seed: int
) -> list[float]:
    """Of a classifier trained on some images, on each of the test sets."""
    classes = 1 + max(int(of.max()) for of in (labels, *(of for _, of in tests)))
    model = classifier("cnn", image_shape=images.shape[1:], classes=classes, steps=steps)
    model.fit(draw_for("real", images=images, labels=labels), seed=seed)
    return [float((model.predict(shown) == wanted).mean()) for shown, wanted in tests]


def _estimate(values: list[float]) -> Estimate:
    interval = t_interval(values)
    return Estimate(value=float(np.mean(values)), interval=(max(0.0, interval.low), min(1.0, interval.high)))
